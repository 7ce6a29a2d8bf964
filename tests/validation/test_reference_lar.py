"""coherent-lar-2020 against an independent implementation in NumPy and SciPy, against MINUIT, and published results.

Largest relative differences of the signal in a cell of more than 1e-6 events: 1e-8.
"""

from functools import cache

import numpy as np
import pytest
from reference_lar import (
    PAPERS,
    PULSE,
    SIGMAS_2211,
    TAU_MU,
    TAU_PI,
    TIME_EDGES,
    DefaultLAr,
    Signal,
    chi2_1d,
    chi2_2211,
    fit_3d,
    time_fractions,
    vector_couplings,
)
from scipy.integrate import quad
from scipy.stats import exponnorm, norm

import cevjax
from cevjax.datasets import coherent_lar_2020

NAME = "coherent-lar-2020"
SIGNALS = {
    "default": {},
    "2211.11905": {"form_factor": "klein-nystrand", "couplings": "tree", "unity_by": 6.0, **PAPERS},
    "2005.01645": {"couplings": "erler-su", **PAPERS},
}
CASES = {  # parameters of cevjax, and what the reference calls them
    "sm": ({}, {}),
    "mixing": ({"sin2_theta_w": 0.31}, {"sin2_theta_w": 0.31}),
    "moments": ({"mu_nu_e": 3e-9, "mu_nu_mu": 2e-9}, {"mu": (3e-9, 2e-9)}),
    "nsi": ({"eps_uV_ee": 0.3, "eps_dV_mumu": -0.2}, {"eps_u": (0.3, 0.0), "eps_d": (0.0, -0.2)}),
    "b-l": ({"g_zprime": 5e-5, "m_zprime": 30.0}, {"g_zprime": 5e-5, "m_zprime": 30.0}),
    "radius": ({"R_n_Ar40": 5.0}, {"R_n": 5.0}),
}


@cache
def release():
    """The data and templates alone come from cevjax."""
    tables = coherent_lar_2020.read_embedded()
    templates = {name: tables.template(name) for name in tables.time}
    return templates | {"data": tables.counts, "efficiency": tables.efficiency, "subtracted": tables.subtracted}


@cache
def likelihood(statistic):
    beyond = cevjax.NSI() + cevjax.MagneticMoment() + cevjax.LightVector(model="b-l")
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic), cevjax.StandardModel() + beyond)


@cache
def signal(statistic, nodes=200):
    return Signal(release(), nodes=nodes, **SIGNALS[statistic])


def reference_counts(statistic, case, **choices):
    theirs = signal(statistic, **choices)
    return (theirs.energies if statistic == "2005.01645" else theirs.counts)(**CASES[case][1])


def chi2_of_reference(statistic, case, nuisances=None):
    function = chi2_1d if statistic == "2005.01645" else chi2_2211
    return function(release(), reference_counts(statistic, case), nuisances)


# --- the reference itself


def test_reference_couplings_are_the_published_ones():
    """2303.09360: 0.0382, 0.0300, -0.5117. 2005.01645: 0.0401, 0.0318, -0.5094, but its formula gives -0.50947."""
    np.testing.assert_allclose(vector_couplings("erler-su"), [0.0401, 0.0318, -0.5095], atol=6e-5)
    np.testing.assert_allclose(vector_couplings("2023"), [0.0382, 0.0300, -0.5117], atol=6e-5)
    np.testing.assert_allclose(vector_couplings("tree"), [0.02286, 0.02286, -0.5], atol=1e-12)


def test_reference_times_are_the_convolution():
    mean, sigma = PULSE
    pion = exponnorm(TAU_PI / sigma, mean, sigma)
    prompt, delayed, _ = time_fractions()
    np.testing.assert_allclose(prompt, np.diff(pion.cdf(TIME_EDGES)), rtol=1e-7)

    def after_muon(t):
        return quad(lambda s: pion.cdf(t - s) * np.exp(-s / TAU_MU) / TAU_MU, 0, t + 1, points=[max(t - mean, 0.01)])[0]

    np.testing.assert_allclose(delayed, np.diff([after_muon(t) for t in TIME_EDGES]), rtol=1e-7)


def test_reference_response_is_the_integral():
    theirs, table = signal("default"), release()["efficiency"]
    for node in (120, 200, 320):
        kev = 1e3 * theirs.T[node]
        energy = kev * (0.246 + 0.00078 * kev)
        line = norm(energy, 0.58 * np.sqrt(energy))
        for i, probability in enumerate(theirs.response[node][:3]):
            x = np.linspace(10 * i, 10 * i + 10, 200_001)
            expected = np.trapezoid(line.pdf(x) * np.interp(x, *table.T), x)
            assert probability == pytest.approx(expected, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("statistic", SIGNALS)
def test_reference_has_converged(statistic):
    coarse, fine = (reference_counts(statistic, "moments", nodes=nodes) for nodes in (200, 300))
    np.testing.assert_allclose(coarse, fine, rtol=1e-10, atol=1e-12)


# --- signal, backgrounds and chi2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("statistic", SIGNALS)
def test_signal(statistic, case):
    like = likelihood(statistic)
    ours = np.asarray(like.expected(like.nominal(**CASES[case][0]))[NAME]["cevns"])
    if statistic == "default":
        ours = ours.sum(axis=1)  # F90
    theirs = reference_counts(statistic, case)
    some = theirs > 1e-6
    assert some.sum() > 0.5 * some.size
    np.testing.assert_allclose(ours[some], theirs[some], rtol=5e-8)
    assert np.all(np.abs(ours[~some]) < 1.01e-6)


def pulls_of_default(seed):
    """Random nuisances of ``default``; the delayed neutrons stay positive."""
    values = np.random.default_rng(seed).uniform(-2, 2, len(DefaultLAr.nuisances))
    pulls = dict(zip(DefaultLAr.nuisances, map(float, values), strict=True))
    return pulls | {"lar2020_brn_delayed": max(pulls["lar2020_brn_delayed"], -1.0)}


@pytest.mark.parametrize("seed", range(4))
def test_components_and_chi2_of_default(seed):
    """Seeds reach pulls inside and outside of +-1.

    The neutrons' energies differ by 0.014 events a standard deviation: cevjax adds none to empty cells of the nominal
    template.
    """
    like, theirs, pulls = likelihood("default"), DefaultLAr(release()), pulls_of_default(seed)
    params = like.nominal(sin2_theta_w=0.27, **pulls)
    ours, expected = like.expected(params)[NAME], theirs.expected(0.27, **pulls)
    assert set(ours) == set(expected)
    empty = release()["brn"].sum(axis=2) == 0
    for name, counts in expected.items():
        difference = np.asarray(ours[name]) - counts
        if name == "brn":
            assert np.abs(difference[empty]).sum() < 0.03
            difference = difference[~empty]
            counts = counts[~empty]
        np.testing.assert_allclose(difference, 0, atol=2e-6 + 5e-5 * (name == "brn"), err_msg=name)
    assert float(like.chi2(params)) == pytest.approx(theirs.chi2(0.27, **pulls), abs=0.05)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("statistic", ["2211.11905", "2005.01645"])
def test_chi2_and_its_minimum(statistic, case):
    """At random nuisances; and minimised, where the reference solves the linear system exactly."""
    like, (physics, _) = likelihood(statistic), CASES[case]
    names = ["signal", "brn", "brn_delayed"] if statistic == "2005.01645" else list(SIGMAS_2211)
    names = [f"lar2020_{name}" for name in names]
    assert set(names) == set(like.nuisances)
    pulls = np.random.default_rng(5).uniform(-1, 1, len(names))
    params = like.nominal(**physics, **dict(zip(names, map(float, pulls), strict=True)))
    assert float(like.chi2(params)) == pytest.approx(chi2_of_reference(statistic, case, pulls)[0], abs=1e-4)
    best, exact = chi2_of_reference(statistic, case)
    result = cevjax.fit(like, values=physics)
    assert result.converged
    assert result.chi2_min == pytest.approx(best, abs=1e-5)
    np.testing.assert_allclose([result.values[name] for name in names], exact, atol=1e-3)


def test_fit_of_the_collaboration():
    """2003.10630 without shape nuisances, against MINUIT; published: 159 CEvNS events, 553 prompt BRN."""
    like, theirs = likelihood("2003.10630"), fit_3d(release())
    assert theirs.valid
    result = cevjax.fit(like)
    assert result.converged
    assert result.chi2_min == pytest.approx(theirs.fval, abs=1e-3)
    numbers = {name: float(counts.sum()) for name, counts in like.expected(result.values)[NAME].items()}
    sigma = {"cevns": 128, "brn": 0.32 * 497, "brn_delayed": 33, "ssb": 0.0079 * 3152}
    for name, number in numbers.items():
        error = theirs.errors[name]
        assert number == pytest.approx(theirs.values[name], abs=0.01 * error), name
        assert sigma[name] * result.errors[f"lar2020_{name}"] == pytest.approx(error, rel=0.01), name
    expected = {"cevns": 160.2, "brn": 552.1, "brn_delayed": 10.5, "ssb": 3131.4}
    assert numbers == pytest.approx(expected, abs=0.15)
    assert numbers["cevns"] == pytest.approx(159, abs=15)
    assert numbers["brn"] == pytest.approx(553, abs=20)


@pytest.mark.slow
@pytest.mark.parametrize("free", [(), ("sin2_theta_w",)], ids=["nuisances", "mixing"])
def test_fit_of_default(free):
    """Shape nuisances by HistFactory's code 4p, F90, the pulse shifted by 0.2 us: MINUIT on the reference."""
    theirs = DefaultLAr(release()).fit(*free)
    assert theirs.valid
    like = cevjax.Likelihood(cevjax.load(NAME), cevjax.StandardModel())
    result = cevjax.fit(like, free)
    assert result.converged
    assert set(result.names) == set(theirs.parameters)
    assert result.chi2_min == pytest.approx(theirs.fval, abs=1e-3)
    for name, error in zip(theirs.parameters, theirs.errors, strict=True):
        assert result.values[name] == pytest.approx(theirs.values[name], abs=0.01 * error), name
        assert result.errors[name] == pytest.approx(error, rel=0.01), name


# --- published results


def test_standard_model_of_2211_11905():
    """106.5 in 120 bins."""
    assert cevjax.fit(likelihood("2211.11905")).chi2_min == pytest.approx(106.5, abs=2.5)


@pytest.mark.parametrize(
    ("free", "published"),
    [
        (("sin2_theta_w",), 105.5),
        (("R_n_Ar40",), 105.5),
        pytest.param(("mu_nu_e", "mu_nu_mu"), 105.4, marks=pytest.mark.slow),
        pytest.param(("eps_uV_ee", "eps_dV_ee"), 105.7, marks=pytest.mark.slow),
        pytest.param(("eps_uV_mumu", "eps_dV_mumu"), 105.6, marks=pytest.mark.slow),
        pytest.param(("g_zprime", "m_zprime"), 105.5, marks=pytest.mark.slow),
    ],
    ids=["mixing", "radius", "moments", "nsi ee", "nsi mumu", "b-l"],
)
def test_new_physics_lowers_chi2_as_published(free, published):
    """2211.11905, less its 106.5 of the standard model."""
    like = likelihood("2211.11905")
    fall = cevjax.fit(like).chi2_min - cevjax.fit(like, free).chi2_min
    assert fall == pytest.approx(106.5 - published, abs=0.6)
    assert fall > 0.5


def test_weak_mixing_angle_of_2005_01645():
    """0.31 +- 0.06; the joint fit with CsI is in test_reference_csi17."""
    result = cevjax.interval(likelihood("2005.01645"), "sin2_theta_w", cl=0.6827)
    assert result.best_fit == pytest.approx(0.31, abs=0.02)
    np.testing.assert_allclose(result.intervals, [[0.25, 0.37]], atol=0.02)


def test_neutron_radius_of_2005_01645():
    """R_n < 4.2, 6.2, 10.8 fm at 1, 2, 3 sigma, where R_n is not below R_p = 3.448 fm."""
    grid = np.linspace(3.448, 11.9, 80)
    chi2 = cevjax.profile(likelihood("2005.01645"), {"R_n_Ar40": grid}).chi2
    assert np.argmin(chi2) == 0 and np.all(np.diff(chi2) > 0)
    limits = np.interp([1.0, 4.0, 9.0], chi2 - chi2[0], grid)
    np.testing.assert_allclose(limits, [4.2, 6.2, 10.8], atol=0.06)


def test_signal_against_the_template_of_the_release():
    """Both scaled to 128 events. How far they are apart, in events of each energy and fractions of each time.

    The release has its own simulation of the detector, and seems to mix the flavours of all arrival times: so mixed,
    the energies would differ by 1.8, -1.3, -0.8, -0.1, 0.3, or with the efficiency at the true energy by 2.7, -2.0,
    -0.9, -0.1, 0.3.
    """
    ours, theirs = signal("default").counts(), release()["cevns"].sum(axis=1)
    assert theirs.sum() == pytest.approx(128, abs=1e-3)
    like = likelihood("default")
    found = np.asarray(like.expected(like.nominal())[NAME]["cevns"]).sum(axis=1)
    np.testing.assert_allclose(found.sum(), ours.sum(), rtol=1e-8)
    difference = 128 * found.sum(axis=1) / found.sum() - theirs.sum(axis=1)
    np.testing.assert_allclose(difference[:5], [2.9, -2.0, -1.1, -0.2, 0.3], atol=0.1)
    np.testing.assert_allclose(difference[5:], 0, atol=0.05)
    times = found.sum(axis=0) / found.sum()
    np.testing.assert_allclose(times[:5], [0.0962, 0.3077, 0.1452, 0.1152, 0.0918], atol=1e-4)
    np.testing.assert_allclose(times, theirs.sum(axis=0) / 128, atol=0.01)


def test_signal_and_its_release_differ_in_the_correlation_of_energy_and_time():
    """The prompt flux is soft: few of its events lie above 20 keVee, which a product of projections cannot tell."""
    like = likelihood("default")
    counts = np.asarray(like.expected(like.nominal())[NAME]["cevns"]).sum(axis=1)
    soft, hard = (row / row.sum() for row in (counts[0], counts[3]))
    assert soft[1] > hard[1] + 0.02
