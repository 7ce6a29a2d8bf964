"""Energy resolution and binned response against scipy's distributions and adaptive quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import gamma, norm, poisson, truncnorm

from cevjax.response import (
    UNQUENCHED,
    BinnedResponse,
    FlatEfficiency,
    GammaResolution,
    GaussianResolution,
    LindhardQuenching,
    PoissonResolution,
    PolynomialQuenching,
    SigmoidEfficiency,
    TabulatedEfficiency,
    TabulatedQuenching,
)

# COHERENT CsI[Na] 2021
ALPHA, BETA = 0.0749, 9.56
COEFFICIENTS = np.array([0.0554628, 4.30681, -111.707, 840.384])
SHIFTS = np.array([[0.0059004, -0.79134, 26.1522, -244.822], [-0.0000498, -0.37084, 18.6025, -210.292]])
SETS = {0: (1.32045, 0.285979, 10.8646, -0.333322), 1: (1.3439, 0.285366, 9.84596, -0.356364)}
SETS[-1] = (1.297, 0.286592, 11.8832, -0.31028)
EDGES = (0, 8, 12, 16, 20, 24, 32, 40, 50, 60)
PULLS = ("qf0", "qf1", "efficiency")
RECOILS = np.array([0.002, 0.005, 0.008, 0.012, 0.018, 0.025, 0.035])
POINTS = [(0, 0, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-0.5, 0.8, 0), (0.4, -1, 1)]


def csi(edges=EDGES, **numerics):
    return BinnedResponse(
        PolynomialQuenching(COEFFICIENTS, SHIFTS, PULLS[:2]),
        GammaResolution(ALPHA, BETA),
        SigmoidEfficiency(SETS[0], SETS[1], SETS[-1], "efficiency"),
        edges,
        **numerics,
    )


@functools.cache
def compiled(edges=EDGES):
    return jax.jit(lambda pulls, recoil: csi(edges)(dict(zip(PULLS, pulls, strict=True)), recoil))


def light(recoil, pulls=(0, 0, 0)):
    """Electron-equivalent energy in keV."""
    c = COEFFICIENTS + np.array(pulls[:2]) @ SHIFTS
    return 1e3 * sum(c[i] * recoil ** (i + 1) for i in range(4))


def distribution(kev):
    """Mean kev/alpha; variance mean^2/(1 + beta kev)."""
    shape = 1 + BETA * kev
    return gamma(shape, scale=kev / ALPHA / shape)


def selection(pull):
    a, b, c, d = SETS[pull]
    threshold = c - np.log(-a / d - 1) / b
    return lambda x: max(a * expit(b * (x - c)) + d, 0.0), threshold


def truth(edges, recoils, pulls):
    """Efficiency times the gamma density, integrated over each bin by parts on which it is smooth."""
    efficiency, threshold = selection(pulls[2])
    table = np.zeros((len(edges) - 1, len(recoils)))
    for j, recoil in enumerate(recoils):
        density = distribution(light(recoil, pulls)).pdf
        for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            low = min(max(low, threshold), high)
            table[i, j] = quad(lambda x, f=density: efficiency(x) * f(x), low, high, epsabs=1e-15, epsrel=1e-10)[0]
    return table


@pytest.mark.parametrize("kev", [0.05, 0.3, 1.0, 3.0])
def test_density_is_a_gamma_distribution(kev):
    x = np.array([0.1, 1.0, 5.0, 13.0, 30.0, 60.0])
    found = GammaResolution(ALPHA, BETA).density(jnp.asarray(x), jnp.array([1e-3 * kev]))
    assert found.shape == (6, 1)
    np.testing.assert_allclose(found[:, 0], distribution(kev).pdf(x), rtol=1e-11)


@pytest.mark.parametrize("kev", [0.3, 1.0, 3.0])
def test_moments_of_the_density(kev):
    resolution = GammaResolution(ALPHA, BETA)
    x = np.linspace(1e-6, 40 * kev / ALPHA, 40_001)
    p = np.asarray(resolution.density(jnp.asarray(x), jnp.array([1e-3 * kev])))[:, 0]
    norm, mean = np.trapezoid(p, x), np.trapezoid(p * x, x)
    variance = np.trapezoid(p * (x - mean) ** 2, x)
    assert norm == pytest.approx(1, rel=1e-6)
    assert mean == pytest.approx(kev / ALPHA, rel=1e-6)
    assert variance == pytest.approx((kev / ALPHA) ** 2 / (1 + BETA * kev), rel=1e-5)


@pytest.mark.parametrize("pulls", POINTS)
def test_response_in_the_analysis_bins(pulls):
    # at pull +-1 of the efficiency the threshold is at 6.3 and 8.2: in the first bin, and in the second
    found = np.asarray(compiled()(jnp.array(pulls, float), RECOILS))
    expected = truth(EDGES, RECOILS, pulls)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("edges", [(0, 60), (0, 25, 60, 130), (5, 7, 7.5, 9, 40), (0, 3, 60)])
def test_wide_and_odd_bins(edges):
    found = np.asarray(compiled(edges)(jnp.array([0.3, -0.2, 1.0]), RECOILS))
    np.testing.assert_allclose(found, truth(edges, RECOILS, (0.3, -0.2, 1)), rtol=1e-6, atol=1e-9)


def test_bins_below_the_threshold_are_empty():
    found = np.asarray(compiled((0, 3, 6, 60))(jnp.zeros(3), RECOILS))
    assert np.all(found[:2] == 0)
    assert np.all(found[2] > 0)


def test_splitting_bins_changes_nothing_but_the_binning():
    fine, coarse = (0, 4, 8, 12, 16, 18, 20, 24, 28, 32, 40, 50, 60), (0, 8, 16, 20, 32, 60)
    pulls = jnp.array([0.5, 0.5, -1.0])
    cumulative = [np.concatenate([np.zeros((1, 7)), np.cumsum(compiled(e)(pulls, RECOILS), 0)]) for e in (fine, coarse)]
    shared = [fine.index(e) for e in coarse]
    np.testing.assert_allclose(cumulative[0][shared], cumulative[1], rtol=1e-6, atol=1e-9)


def unit_efficiency(edges, **numerics):
    flat = SigmoidEfficiency((0.0, 1.0, 0.0, 1.0))
    return BinnedResponse(PolynomialQuenching([0.1]), GammaResolution(ALPHA, BETA), flat, edges, **numerics)


def test_nothing_is_lost_with_unit_efficiency():
    # 1.5 to 6 keV of light: 20 to 80 photo-electrons on average
    recoils = np.array([0.015, 0.02, 0.04, 0.06])
    edges = (0, 20, 60, 250)
    found = np.asarray(unit_efficiency(edges)({}, recoils))
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-6)
    cdf = np.stack([np.diff(distribution(100 * r).cdf(edges)) for r in recoils], 1)
    np.testing.assert_allclose(found, cdf, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kev", "rtol"), [(0.1, 3e-6), (0.3, 1e-6), (0.5, 1e-6), (1.0, 1e-6)])
def test_finer_panels_resolve_the_rise_from_zero(kev, rtol):
    # below 1 keV of light and without a threshold the density is narrow, and not smooth at 0: x^(beta E)
    edges, recoil = (0, 8, 60, 250), np.array([0.01 * kev])
    found = np.asarray(unit_efficiency(edges, order=20, panel=1.0)({}, recoil))[:, 0]
    np.testing.assert_allclose(found, np.diff(distribution(kev).cdf(edges)), rtol=rtol, atol=1e-12)
    assert found.sum() == pytest.approx(1, rel=rtol)


def test_nuisances():
    assert csi().nuisances == PULLS
    assert unit_efficiency((0, 1)).nuisances == ()


def test_derivatives_in_every_nuisance():
    point, h = jnp.array([0.2, -0.3, 0.4]), 1e-4
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda p: compiled()(p, RECOILS)))(point))
    for i in range(3):
        step = h * jnp.eye(3)[i]
        numeric = np.asarray(compiled()(point + step, RECOILS) - compiled()(point - step, RECOILS)) / (2 * h)
        np.testing.assert_allclose(jacobian[..., i], numeric, rtol=1e-6, atol=1e-9)


def test_second_derivatives_are_finite():
    hessian = jax.jit(jax.hessian(lambda p: jnp.sum(compiled()(p, RECOILS) ** 2)))(jnp.array([0.2, -0.3, 1.0]))
    assert np.all(np.isfinite(hessian))
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-8)


def test_jit_equals_eager_equals_vmap():
    points = jnp.array(POINTS[:3], float)
    eager = np.stack([csi()(dict(zip(PULLS, p, strict=True)), RECOILS) for p in points])
    np.testing.assert_allclose(np.stack([compiled()(p, RECOILS) for p in points]), eager, rtol=1e-11, atol=1e-16)
    mapped = jax.vmap(lambda p: compiled()(p, RECOILS))(points)
    np.testing.assert_allclose(mapped, eager, rtol=1e-11, atol=1e-16)


# Gaussian resolution

NOISE, SLOPE, RELATIVE = 0.0685, 0.11 * 2.96e-3, 0.05
KEV = np.array([0.003, 0.02, 0.07, 0.2, 0.33, 0.8, 1.6])
GAUSSIAN_EDGES = (0.0, 0.05, 0.2, 0.21, 0.22, 0.5, 1.0, 1.5)


def sigma(kev):
    return np.sqrt(NOISE**2 + SLOPE * kev + (RELATIVE * kev) ** 2)


@pytest.mark.parametrize("positive", [False, True])
def test_density_is_a_gaussian(positive):
    x = np.linspace(0.0, 2.0, 41)
    found = GaussianResolution(NOISE, SLOPE, RELATIVE, positive).density(jnp.asarray(x), jnp.asarray(1e-3 * KEV))
    truth = norm.pdf(x[:, None], KEV, sigma(KEV))
    if positive:
        truth = truth / norm.sf(0, KEV, sigma(KEV))
    np.testing.assert_allclose(found, truth, rtol=1e-11, atol=1e-300)


def gaussian(edges, efficiency=None, positive=False, quenching=None, **numerics):
    resolution = GaussianResolution(NOISE, SLOPE, RELATIVE, positive)
    quenching = UNQUENCHED if quenching is None else quenching
    return BinnedResponse(quenching, resolution, efficiency or FlatEfficiency(), edges, **numerics)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("order", "panel", "atol"), [(6, 0.05, 1e-9), (4, 0.02, 1e-9), (2, 0.1, 2e-2)])
def test_gaussian_bins(positive, order, panel, atol):
    found = np.asarray(gaussian(GAUSSIAN_EDGES, None, positive, order=order, panel=panel)({}, 1e-3 * KEV))
    edges = np.array(GAUSSIAN_EDGES)[:, None]
    truth = np.diff(norm.cdf(edges, KEV, sigma(KEV)), axis=0)
    if positive:
        truth = np.diff(truncnorm.cdf(edges, -KEV / sigma(KEV), np.inf, KEV, sigma(KEV)), axis=0)
    np.testing.assert_allclose(found, truth, rtol=0, atol=atol)


@pytest.mark.parametrize("dataset", [(0.01 * np.arange(20, 151), 2, 0.1), (0.01 * np.arange(16, 36), 4, 0.01)])
def test_gaussian_bins_of_the_data_sets(dataset):
    """Bins of 10 eV: the orders that Dresden-II and CONUS+ use there."""
    edges, order, panel = dataset
    found = np.asarray(gaussian(tuple(edges), order=order, panel=panel)({}, 1e-3 * KEV))
    truth = np.diff(norm.cdf(edges[:, None], KEV, sigma(KEV)), axis=0)
    np.testing.assert_allclose(found, truth, rtol=2e-4, atol=1e-12)
    np.testing.assert_allclose(found, truth, rtol=0, atol=2e-6)


def test_energies_are_never_below_zero():
    edges = (0.0, 0.1, 0.5, 4.0)
    found = np.asarray(gaussian(edges, None, True, order=8, panel=0.05)({}, 1e-3 * KEV))
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-9)
    whole = np.asarray(gaussian((-2.0, *edges), None, False, order=8, panel=0.05)({}, 1e-3 * KEV))
    np.testing.assert_allclose(whole.sum(0), 1, rtol=1e-9)
    np.testing.assert_allclose(found, whole[1:] / (1 - whole[0]), rtol=1e-8, atol=1e-15)


KINKS, HEIGHTS = (0.11, 0.137, 0.3, 0.42), (0.0, 0.9, 0.5, 1.0)


def test_kinks_of_an_efficiency_are_integrated_exactly():
    """A straight line times a Gaussian has an antiderivative; no panel is the wiser for where the kinks lie."""
    efficiency = TabulatedEfficiency(KINKS, HEIGHTS)
    edges = (0.1, 0.2, 0.25, 0.41, 0.7)
    found = np.asarray(gaussian(edges, efficiency, order=8, panel=0.05)({}, 1e-3 * KEV))

    def integral(low, high, kev):
        s = sigma(kev)
        pieces = [low, *(k for k in KINKS if low < k < high), high]
        total = 0.0
        for a, b in zip(pieces[:-1], pieces[1:], strict=True):
            ya, yb = np.interp([a, b], KINKS, HEIGHTS)
            slope = (yb - ya) / (b - a)
            mass = np.diff(norm.cdf([a, b], kev, s))[0]
            # int x N(x) dx = mu mass - s^2 [N(b) - N(a)]
            first = kev * mass - s**2 * np.diff(norm.pdf([a, b], kev, s))[0]
            total += (ya - slope * a) * mass + slope * first
        return total

    truth = [[integral(a, b, kev) for kev in KEV] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-10)
    # with few nodes too, as far as the Gaussian is smooth
    wide = gaussian((0.0, 0.6), efficiency, order=3, panel=1.0)
    assert len(wide._panels()[0]) == 5


def test_breaks_do_not_change_what_is_not_there():
    """An efficiency of 1 with kinks that are none: bins sum to 1."""
    plain = TabulatedEfficiency((0.05, 0.2, 0.2000001, 0.9), (1.0, 1.0, 1.0, 1.0))
    edges = (-1.0, 0.1, 0.2, 1.0, 3.0)
    found = np.asarray(gaussian(edges, plain, order=10, panel=0.1)({}, 1e-3 * KEV))
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-9)
    truth = np.diff(norm.cdf(np.array(edges)[:, None], KEV, sigma(KEV)), axis=0)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-9)


# whole numbers of photo-electrons

YIELD = 13.348
MEV = np.array([2e-5, 2e-4, 8e-4, 1.6e-3])


@pytest.mark.parametrize("kev", [1e-3, 0.1, 1.0, 3.0])
def test_density_is_a_poisson_distribution(kev):
    x = np.arange(0, 60)
    found = PoissonResolution(YIELD).density(jnp.asarray(x, float), jnp.array([1e-3 * kev]))
    np.testing.assert_allclose(found[:, 0], poisson.pmf(x, YIELD * kev), rtol=1e-11, atol=1e-300)


def step(x):
    """Efficiency of a turn-on."""
    return np.interp(x, [4.5, 7.3, 20.0], [0.0, 0.5, 0.9])


@pytest.mark.parametrize("edges", [(0, 1, 3, 10, 60), (0.5, 3.5, 6.2), (5, 6, 7, 30), (2.1, 2.9, 4.0), (-2, 0, 2)])
@pytest.mark.parametrize("selected", [False, True])
def test_poisson_bins_hold_the_whole_numbers_from_low_up_to_high(edges, selected):
    efficiency = TabulatedEfficiency([4.5, 7.3, 20.0], [0.0, 0.5, 0.9]) if selected else FlatEfficiency()
    found = np.asarray(BinnedResponse(UNQUENCHED, PoissonResolution(YIELD), efficiency, edges)({}, MEV))
    truth = np.zeros((len(edges) - 1, len(MEV)))
    for n in range(60):
        for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if low <= n < high:
                truth[i] += (step(n) if selected else 1.0) * poisson.pmf(n, 1e3 * YIELD * MEV)
    np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-15)


def test_poisson_bins_sum_to_one():
    found = np.asarray(BinnedResponse(UNQUENCHED, PoissonResolution(YIELD), FlatEfficiency(), (0, 7, 80))({}, MEV))
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-12)


def test_a_sigmoid_with_a_threshold_selects_whole_numbers():
    """Its threshold at 6.3 lies between two of them: 7 is the first."""
    efficiency, threshold = selection(0)
    response = BinnedResponse(
        UNQUENCHED, PoissonResolution(YIELD), SigmoidEfficiency(SETS[0], SETS[1], SETS[-1], "efficiency"), (0, 7, 8, 30)
    )
    assert 6 < threshold < 8
    found = np.asarray(response({"efficiency": 0.0}, MEV))
    pmf = [np.array([efficiency(n) * poisson.pmf(n, 1e3 * YIELD * x) for x in MEV]) for n in range(30)]
    truth = [sum(pmf[a:b]) for a, b in ((0, 7), (7, 8), (8, 30))]
    np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-15)


# pulls that move all of it

RESPONSES = {
    "gaussian": gaussian(
        (0.1, 0.2, 0.5), TabulatedEfficiency(KINKS, HEIGHTS), True,
        TabulatedQuenching([0.0, 1.0, 4.0], [0.4, 0.25, 0.2], 0.1, "qf"), order=8, panel=0.05,
    ),
    "lindhard": gaussian((0.1, 0.2, 0.5), None, False, LindhardQuenching(32, 0.162, 0.01, "qf"), order=8, panel=0.05),
    "poisson": BinnedResponse(
        LindhardQuenching(32, 0.162, 0.01, "qf"), PoissonResolution(YIELD), FlatEfficiency(value=0.8), (0, 3, 9)
    ),
}  # fmt: skip


@functools.cache
def moved(name):
    return jax.jit(lambda pull: RESPONSES[name]({"qf": pull}, np.array([3e-4, 1e-3, 2.5e-3])))


@pytest.mark.parametrize("name", RESPONSES)
def test_derivatives_in_a_pull_of_the_quenching(name):
    assert RESPONSES[name].nuisances == ("qf",)
    h = 1e-4
    found = np.asarray(jax.jacfwd(moved(name))(0.3))
    numeric = (np.asarray(moved(name)(0.3 + h)) - np.asarray(moved(name)(0.3 - h))) / (2 * h)
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", RESPONSES)
def test_jit_equals_eager_equals_vmap_for_the_others(name):
    pulls = np.array([-0.5, 0.0, 1.0])
    eager = np.stack([RESPONSES[name]({"qf": p}, np.array([3e-4, 1e-3, 2.5e-3])) for p in pulls])
    np.testing.assert_allclose(np.stack([moved(name)(p) for p in pulls]), eager, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(jax.vmap(moved(name))(pulls), eager, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("positive", [False, True])
def test_prepared_responses_are_the_same(positive):
    for response, recoils in (
        (gaussian((0.1, 0.2, 0.5), TabulatedEfficiency(KINKS, HEIGHTS), positive), 1e-3 * KEV),
        (BinnedResponse(UNQUENCHED, PoissonResolution(YIELD), FlatEfficiency(), (0, 3, 9)), MEV),
    ):
        prepared = response.prepare(jnp.asarray(recoils))
        assert prepared.densities is not None
        np.testing.assert_allclose(prepared({}, recoils), response({}, recoils), rtol=1e-12)
