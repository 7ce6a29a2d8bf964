"""coherent-csi-2017 against an independent implementation in NumPy and SciPy, against MINUIT, and published results.

Largest relative differences of the signal in a bin: 2e-13; 6e-8 where the radii follow from the mass number, which
cevjax rounds to 1e-6 fm; 5e-5 with the tabulated quenching, whose kinks lie between the recoil nodes of both.
"""

from functools import cache

import numpy as np
import pytest
from reference_csi import SIN2
from reference_csi17 import ReferenceCsI17, birks_quenching, electron_counts

import cevjax
from cevjax.datasets import coherent_csi_2017
from cevjax.tables import data_dir

NAME = "coherent-csi-2017"
# rms radii (fm) of protons, from charge radii, and of neutrons: not those of 2005.01645, which the reference has
RADII = {
    "Cs133": (np.sqrt(4.8041**2 + 78 / 55 * 0.1161), 5.09),
    "I127": (np.sqrt(4.7500**2 + 74 / 53 * 0.1161), 5.03),
}


def quenching_table():
    return np.loadtxt(data_dir(NAME) / "quenching.csv", delimiter=",").T


def tabulated(kev):
    return np.interp(kev, *quenching_table())


CHOICES = {
    "default": {"couplings": "2023"},
    "2005.01645": {"couplings": "erler-su", "quenching": tabulated},
    "1711.09773": {"form_factor": "1711.09773"},
}
AGREEMENT = {"default": 1e-11, "2005.01645": 1e-4, "1711.09773": 2e-7}
CASES = {  # parameters of cevjax, and what the reference calls them
    "sm": ({}, {}),
    "mixing": ({"sin2_theta_w": 0.2312}, {"s2w": 0.2312}),
    "mixing up": ({"sin2_theta_w": 0.35}, {"s2w": 0.35}),
    "moments": ({"mu_nu_e": 3e-9, "mu_nu_mu": 2e-9}, {"mu": (3e-9, 2e-9)}),
    "nsi": ({"eps_uV_ee": 0.3, "eps_dV_mumu": -0.2}, {"eps_u": (0.3, 0.0), "eps_d": (0.0, -0.2)}),
}


@cache
def likelihood(statistic):
    interaction = cevjax.StandardModel() + cevjax.NSI() + cevjax.MagneticMoment()
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic, es=False), interaction)


@cache
def standard(statistic):
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic), cevjax.StandardModel())


@cache
def reference(statistic, nodes=150):
    """The data alone come from cevjax."""
    tables = coherent_csi_2017.read_embedded()
    data = tables.coincident, tables.anticoincident, tables.times, tables.neutrons
    return ReferenceCsI17(*data, radii=RADII, nodes=nodes, **CHOICES[statistic])


def reference_counts(statistic, case, nodes=150):
    theirs = reference(statistic, nodes)
    events = theirs.signal(**CASES[case][1])
    if statistic == "default":
        return events @ theirs.times
    return events.sum(axis=1) if statistic == "2005.01645" else np.array([events.sum()])


# --- the reference itself, and the inputs


@pytest.mark.parametrize("statistic", CHOICES)
def test_reference_has_converged(statistic):
    coarse, fine = (reference_counts(statistic, "moments", nodes) for nodes in (150, 250))
    np.testing.assert_allclose(coarse, fine, rtol=1e-5 if statistic == "2005.01645" else 1e-11)


def test_quenching_table_is_the_modified_birks_model():
    """To 1e-5 in the factor between its entries, and to 3e-4 in the events of a bin."""
    recoil, factor = quenching_table()
    np.testing.assert_allclose(factor[1:], birks_quenching(recoil[1:]), rtol=5e-5)
    between = np.linspace(0.1, 60.0, 1000)
    np.testing.assert_allclose(tabulated(between), birks_quenching(between), atol=1.2e-5)
    ref = reference("2005.01645")
    smooth = ReferenceCsI17(
        ref.on, ref.off, np.stack([*ref.times[:2], ref.brn_time], axis=1), ref.neutrons, radii=RADII,
        couplings="erler-su", quenching=birks_quenching,
    )  # fmt: skip
    np.testing.assert_allclose(smooth.signal().sum(axis=1), ref.signal().sum(axis=1), rtol=3e-4)


def test_steady_state_falls_as_the_anticoincident_counts_say():
    assert reference("default").rate() == pytest.approx(0.127, abs=5e-4)


# --- expected counts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("statistic", CHOICES)
def test_signal(statistic, case):
    like = likelihood(statistic)
    ours = np.asarray(like.expected(like.nominal(**CASES[case][0]))[NAME]["cevns"])
    np.testing.assert_allclose(ours, reference_counts(statistic, case), rtol=AGREEMENT[statistic])


def pulls_of_default(seed):
    values = np.random.default_rng(seed).uniform(-2, 2, len(ReferenceCsI17.nuisances))
    return dict(zip(ReferenceCsI17.nuisances, map(float, values), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_components_and_chi2_of_default(seed):
    """All nuisances at random: the scale of quenching and the neutron radius among them."""
    like, theirs, pulls = standard("default"), reference("default"), pulls_of_default(seed)
    params = like.nominal(sin2_theta_w=0.27, **pulls)
    ours, expected = like.expected(params)[NAME], theirs.expected(0.27, **pulls)
    assert set(ours) == set(expected)
    for name, counts in expected.items():
        np.testing.assert_allclose(ours[name], counts, rtol=1e-10, atol=1e-12, err_msg=name)
    assert float(like.chi2(params)) == pytest.approx(theirs.chi2(0.27, **pulls), abs=1e-8)


@pytest.mark.parametrize("moments", [(0.0, 0.0), (3e-9, 2e-9)])
def test_electron_counts(moments):
    """With times; nested quadrature from 1 eV to 20 keV: nothing is lost outside the recoils that cevjax integrates."""
    interaction = cevjax.StandardModel() + cevjax.MagneticMoment()
    like = cevjax.Likelihood(cevjax.load(NAME, es=True), interaction)
    params = like.nominal(mu_nu_e=moments[0], mu_nu_mu=moments[1])
    ours = np.asarray(like.expected(params)[NAME]["es"])
    theirs = electron_counts(SIN2, moments) @ reference("default").times
    np.testing.assert_allclose(ours.sum(axis=0), theirs, rtol=1e-6)


# --- chi2, minimised over the nuisances


@pytest.mark.parametrize("case", CASES)
def test_minimum_of_one_bin(case):
    like, theirs = likelihood("1711.09773"), reference("1711.09773")
    physics, named = CASES[case]
    result = cevjax.fit(like, values=physics)
    assert result.converged
    assert result.chi2_min == pytest.approx(theirs.chi2_single_bin(theirs.signal(**named)), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_minimum_of_the_spectrum(case):
    like, theirs = likelihood("2005.01645"), reference("2005.01645")
    physics, named = CASES[case]
    result = cevjax.fit(like, values=physics)
    assert result.converged
    assert result.chi2_min == pytest.approx(theirs.chi2_spectrum(theirs.signal(**named)), abs=1e-3)


@pytest.mark.parametrize("free", [(), pytest.param(("sin2_theta_w",), marks=pytest.mark.slow)], ids=["sm", "mixing"])
def test_fit_of_default(free):
    """The Poisson likelihood, with the scale of quenching and all other nuisances, against MINUIT."""
    rename = {"sin2_theta_w": "s2w"}
    theirs = reference("default").fit(*(rename[name] for name in free))
    assert theirs.valid
    result = cevjax.fit(standard("default"), free)
    assert result.converged
    assert result.chi2_min == pytest.approx(theirs.fval, abs=1e-4)
    assert len(result.names) == len(theirs.parameters)
    for name in result.names:
        error = theirs.errors[rename.get(name, name)]
        assert result.values[name] == pytest.approx(theirs.values[rename.get(name, name)], abs=0.01 * error), name
        assert result.errors[name] == pytest.approx(error, rel=0.01), name


@pytest.mark.slow
def test_interval_of_default():
    """MINUIT at the ends of the 90 % interval."""
    theirs = reference("default")
    low = theirs.fit("s2w").fval
    result = cevjax.interval(standard("default"), "sin2_theta_w")
    assert result.chi2_min == pytest.approx(low, abs=1e-4)
    for end in result.intervals[0]:
        assert theirs.fit(s2w=end).fval - low == pytest.approx(2.705543, abs=1e-3)


# --- published results


def test_weak_mixing_angle_of_1711_09773():
    """[0.117, 0.315] at 90 %."""
    result = cevjax.interval(standard("1711.09773"), "sin2_theta_w", cl=0.90)
    np.testing.assert_allclose(result.intervals, [[0.117, 0.315]], atol=0.005)


@pytest.mark.parametrize(
    ("name", "published"),
    [("eps_uV_ee", [-0.08, 0.47]), pytest.param("eps_dV_ee", [-0.07, 0.42], marks=pytest.mark.slow)],
)
def test_nsi_of_1711_09773(name, published):
    """What the paper calls 90 % has Delta chi2 = 1.642, the one-sided threshold: two-sided it is 80 %."""
    like, at = likelihood("1711.09773"), {"sin2_theta_w": 0.2312}
    np.testing.assert_allclose(cevjax.interval(like, name, cl=0.80, values=at).intervals, [published], atol=0.01)
    ((low, high),) = cevjax.interval(like, name, cl=0.90, values=at).intervals
    assert low < published[0] - 0.03 and high > published[1] + 0.03


def test_weak_mixing_angle_of_2005_01645():
    """CsI alone: 0.24 +- 0.04."""
    result = cevjax.interval(standard("2005.01645"), "sin2_theta_w", cl=0.6827)
    assert result.best_fit == pytest.approx(0.24, abs=0.02)
    np.testing.assert_allclose(result.intervals, [[0.20, 0.28]], atol=0.02)


def test_weak_mixing_angle_of_2005_01645_with_argon():
    """0.26 +0.04 -0.03."""
    both = [cevjax.load(name, statistic="2005.01645") for name in (NAME, "coherent-lar-2020")]
    result = cevjax.interval(cevjax.Likelihood(both, cevjax.StandardModel()), "sin2_theta_w", cl=0.6827)
    assert result.best_fit == pytest.approx(0.26, abs=0.02)
    np.testing.assert_allclose(result.intervals, [[0.23, 0.30]], atol=0.02)
