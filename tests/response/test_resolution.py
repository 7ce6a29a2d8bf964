"""Energy resolution and binned response against scipy's gamma distribution and adaptive quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import gamma

from cevjax.response import BinnedResponse, GammaResolution, PolynomialQuenching, SigmoidEfficiency

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
