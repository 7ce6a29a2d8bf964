"""coherent-csi-2021 against an independent implementation in NumPy and SciPy, and its fits against MINUIT."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from reference_csi import STATISTICS, TAU_MU, TAU_PI, ReferenceCsI
from scipy.integrate import quad
from scipy.stats import exponnorm

import cevjax

NAME = "coherent-csi-2021"
TINY = 1e-6  # events


@cache
def likelihood(statistic):
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic, es=False), cevjax.StandardModel() + cevjax.NSI())


@cache
def reference(statistic):
    return ReferenceCsI(statistic)


def shared(statistic, params):
    """``params`` without what the reference does not know and is zero."""
    known = {*reference(statistic).names, *reference(statistic).optional}
    assert all(value == 0 for name, value in params.items() if name not in known)
    return {name: float(value) for name, value in params.items() if name in known}


def points(statistic):
    """Nominal; three random points of the nuisances, the last with a common radius; two of the couplings; both."""
    ref, rng = reference(statistic), np.random.default_rng(20211007)
    sizes = {"nominal": {}}
    for k in range(3):
        free = {name: rng.normal() for name in ref.names[1:]}
        sizes[f"nuisances {k}"] = {name: float(np.clip(x, *ref.limits[name])) for name, x in free.items()}
    sizes["nuisances 2"]["R_n_CsI"] = 5.5
    sizes["mixing"] = {"sin2_theta_w": 0.19}
    sizes["nsi"] = {"eps_uV_ee": 0.3, "eps_dV_ee": -0.1}
    sizes["all"] = {**sizes["nuisances 0"], "sin2_theta_w": 0.3, "eps_uV_ee": -0.15, "eps_dV_ee": 0.25}
    return {label: likelihood(statistic).nominal(**values) for label, values in sizes.items()}


# --- the reference itself


def test_reference_pulse_is_the_convolution():
    ref = reference("default")
    beam = ref.facts["flux"]
    mean, sigma = beam["pulse_mean_us"], beam["pulse_sigma_us"]

    def pion(t):
        return exponnorm.pdf(t, TAU_PI / sigma, mean, sigma)

    for t in (0.05, 0.4, 1.0, 3.0):

        def both(s, t=t):
            return pion(s) * np.exp(-(t - s) / TAU_MU) / TAU_MU

        muon = quad(both, -1, t, points=[min(t, 0.47)], epsabs=0, epsrel=1e-11)[0]
        np.testing.assert_allclose(ref._pulse_densities(np.array([t]))[:, 0], [pion(t), muon], rtol=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_reference_has_converged(statistic):
    fine, params = ReferenceCsI(statistic, fineness=1.5), shared(statistic, points(statistic)["all"])
    coarse = reference(statistic).expected(params)
    for name, counts in fine.expected(params).items():
        np.testing.assert_allclose(coarse[name], counts, rtol=1e-9, atol=1e-12)


# --- expected counts and chi2


@pytest.mark.parametrize("component", ["cevns", "brn", "nin", "ssb"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_expected_counts(statistic, component):
    for label, params in points(statistic).items():
        ours = np.asarray(likelihood(statistic).expected(params)[NAME][component])
        theirs = reference(statistic).expected(shared(statistic, params))[component]
        some = theirs > TINY
        assert some.any()
        np.testing.assert_allclose(ours[some], theirs[some], rtol=1e-6, err_msg=label)
        assert np.all(ours[~some] < 1.01 * TINY)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_chi2(statistic):
    for label, params in points(statistic).items():
        ours, theirs = likelihood(statistic).chi2(params), reference(statistic).chi2(shared(statistic, params))
        assert float(ours) == pytest.approx(theirs, abs=1e-6), label


# --- fits against MINUIT


STEPS = {"sin2_theta_w": 0.02, "R_n_CsI": 0.3, "eps_uV_ee": 0.05, "eps_dV_ee": 0.05}


def minuit(statistic, free, held=None, start=None):
    """MINUIT on the reference chi2, minimised over ``free`` and the nuisances with ``held`` fixed."""
    iminuit = pytest.importorskip("iminuit")
    ref, nominal = reference(statistic), likelihood(statistic).nominal()
    known = {name: value for name, value in nominal.items() if name in {*ref.names, *ref.optional}}
    fixed = known | (held or {})
    nuisances = [name for name in ref.names if name != "sin2_theta_w"]
    if "R_n_CsI" in {*free, *fixed}:  # which describes the same thing
        nuisances = [name for name in nuisances if name != "csi2021_radius"]
    names = (*free, *nuisances)
    first = {"R_n_CsI": 5.06, **fixed, **(start or {})}

    def chi2(x):
        return ref.chi2({**fixed, **dict(zip(names, x, strict=True))})

    fitted = iminuit.Minuit(chi2, [first[name] for name in names], name=names)
    fitted.errordef, fitted.strategy, fitted.tol = 1, 2, 1e-4
    for name in names:
        fitted.errors[name] = STEPS.get(name, 0.5)
        fitted.limits[name] = likelihood(statistic).parameters[name].bounds
    return fitted.migrad()


def unlimited_errors(fitted):
    """Errors of HESSE in the parameters themselves: with limits it takes them through a nonlinear map."""
    free = type(fitted)(fitted.fcn, fitted.values, name=fitted.parameters)
    free.errordef, free.strategy, free.tol, free.errors = 1, 2, 1e-4, fitted.errors
    return dict(zip(free.parameters, free.hesse().errors, strict=True))


def assert_same_fit(statistic, poi):
    """Minimum, errors and one-sigma ends."""
    fitted = minuit(statistic, (poi,))
    assert fitted.valid
    errors = unlimited_errors(fitted)
    result = cevjax.fit(likelihood(statistic), free=(poi,))
    assert result.converged
    assert result.chi2_min == pytest.approx(fitted.fval, abs=1e-4)
    assert set(result.errors) == set(errors)
    for name, error in errors.items():
        assert result.values[name] == pytest.approx(fitted.values[name], abs=0.01 * error), name
        assert result.errors[name] == pytest.approx(error, rel=0.01), name

    fitted.minos(poi)
    ends = fitted.values[poi] + np.array([fitted.merrors[poi].lower, fitted.merrors[poi].upper])
    interval = cevjax.interval(likelihood(statistic), poi, cl=0.6827)
    assert interval.best_fit == pytest.approx(fitted.values[poi], abs=0.01 * errors[poi])
    assert len(interval.intervals) == 1
    np.testing.assert_allclose(interval.intervals[0], ends, atol=0.01 * np.diff(ends)[0] / 2)
    for end in interval.intervals[0]:
        at_end = minuit(statistic, (), {poi: end}, start=dict(zip(fitted.parameters, fitted.values, strict=True)))
        assert at_end.fval - fitted.fval == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("statistic", ["2303.09360", pytest.param("default", marks=pytest.mark.slow)])
def test_fit_of_the_weak_mixing_angle(statistic):
    assert_same_fit(statistic, "sin2_theta_w")


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["2211.11905", "2211.11905-shape"])
def test_fit_of_the_weak_mixing_angle_2211_11905(statistic):
    assert_same_fit(statistic, "sin2_theta_w")


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["2303.09360", "default"])
def test_fit_of_the_neutron_radius(statistic):
    assert_same_fit(statistic, "R_n_CsI")


@pytest.mark.slow
def test_fit_of_nsi():
    """Two parallel valleys, almost flat along: the minimum lies at a bound, which MINUIT is given edge by edge."""
    statistic, free = "2211.11905", ("eps_uV_ee", "eps_dV_ee")
    bounds = [likelihood(statistic).parameters[name].bounds for name in free]
    fits = []
    for pair in product([-0.6, -0.2, 0.05, 0.2, 0.6], repeat=2):
        fits.append(minuit(statistic, free, start=dict(zip(free, pair, strict=True))))
    for held, other, edges in ((*free, bounds[0]), (*free[::-1], bounds[1])):
        for edge, start in product(edges, np.linspace(-1.9, 1.9, 8)):
            if np.isfinite(edge):
                fits.append(minuit(statistic, (other,), {held: edge}, {other: start}))
    result = cevjax.fit(likelihood(statistic), free=free)
    assert result.converged
    assert result.chi2_min == pytest.approx(min(fit.fval for fit in fits), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("poi", ["eps_uV_ee", "eps_dV_ee"])
def test_interval_of_one_nsi(poi):
    statistic, threshold = "2211.11905", 2.705543
    low = min(minuit(statistic, (poi,), start={poi: start}).fval for start in (-0.2, 0.02, 0.1, 0.3, 0.6))
    interval = cevjax.interval(likelihood(statistic), poi, cl=0.90)
    assert interval.chi2_min == pytest.approx(low, abs=1e-4)
    for piece in interval.intervals:
        for end in piece:
            assert minuit(statistic, (), {poi: end}).fval - low == pytest.approx(threshold, abs=1e-3)
    # the pieces hold all that is allowed
    for x in np.linspace(-0.5, 1.0, 61):
        allowed = minuit(statistic, (), {poi: x}).fval - low < threshold
        assert allowed == any(a <= x <= b for a, b in interval.intervals), x
