"""Form factors against numerical Fourier transforms of their densities and mpmath closed forms at 50 digits."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import erf

from cevjax.errors import UnknownNameError
from cevjax.form_factors import (
    FORM_FACTORS,
    Helm,
    HelmOfMassNumber,
    KleinNystrand,
    Point,
    SymmetrizedFermi,
    form_factor,
    helm,
    klein_nystrand,
    symmetrized_fermi,
)
from cevjax.nuclei import nucleus

HBARC = 197.3269804
TINY = [1e-6, 1e-3, 0.1, 0.5, 1.0]
# either side of where a series has to hand over to a closed form: q R = 0.05 and 0.3
SWITCH = [1.6, 1.68, 1.7, 1.75, 2.0, 2.3, 9.0, 10.0, 10.5, 11.0, 12.0, 14.0]
USUAL = [5.0, 20.0, 40.0, 60.0, 80.0, 110.0]
Q = np.array(TINY + SWITCH + USUAL)
RADII = [2.9, 3.55, 4.8, 5.47]
CURVES = {"helm": helm, "klein-nystrand": klein_nystrand, "fermi": symmetrized_fermi}


# densities, not normalised: what the form factors are the Fourier transforms of


def helm_density(radius, s=0.9):
    """Uniform sphere smeared with a Gaussian."""
    box = (5 / 3 * (radius**2 - 3 * s**2)) ** 0.5

    def density(r):
        plus, minus = (r + box) / (2**0.5 * s), (r - box) / (2**0.5 * s)
        return (erf(plus) - erf(minus)) / 2 + s / (r * (2 * np.pi) ** 0.5) * (np.exp(-(plus**2)) - np.exp(-(minus**2)))

    return density, [box]


def klein_nystrand_density(radius, a=0.7):
    """Uniform sphere smeared with a Yukawa potential: solves (1 - a^2 laplacian) rho = sphere."""
    box = (5 / 3 * (radius**2 - 6 * a**2)) ** 0.5

    def density(r):
        if r < box:
            return 1 - (1 + box / a) * np.exp(-box / a) * np.sinh(r / a) * a / r
        return (box / a * np.cosh(box / a) - np.sinh(box / a)) * np.exp(-r / a) * a / r

    return density, [box]


def fermi_density(radius, a=0.52):
    """Two Fermi functions back to back."""
    c = (5 / 3 * radius**2 - 7 / 3 * np.pi**2 * a**2) ** 0.5
    return lambda r: np.sinh(c / a) / (np.cosh(r / a) + np.cosh(c / a)), [c]


DENSITIES = {"helm": helm_density, "klein-nystrand": klein_nystrand_density, "fermi": fermi_density}


def integrate(function, breaks):
    edges = [1e-12, *breaks, 2 * breaks[-1], 50.0]
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return sum(quad(function, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0] for a, b in pairs)


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("radius", RADII)
def test_fourier_transform_of_the_density(name, radius):
    density, breaks = DENSITIES[name](radius)
    norm = integrate(lambda r: r * r * density(r), breaks)
    q = np.array([1e-6, 1.0, 20.0, 50.0, 80.0, 120.0])
    truth = [integrate(lambda r, k=k: r * np.sin(k * r) / k * density(r), breaks) / norm for k in q / HBARC]
    np.testing.assert_allclose(CURVES[name](q, radius), truth, rtol=2e-12, atol=2e-14)


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("radius", RADII)
def test_argument_is_the_rms_radius_of_the_density(name, radius):
    density, breaks = DENSITIES[name](radius)
    r2, r4 = (integrate(lambda r, n=n: r**n * density(r), breaks) for n in (2, 4))
    np.testing.assert_allclose((r4 / r2) ** 0.5, radius, rtol=1e-12)


# closed forms at 50 digits


def mp_bessel(x):
    return 3 * (mp.sin(x) - x * mp.cos(x)) / x**3


def mp_helm(q, radius, s=0.9):
    k, s = mp.mpf(q) / mp.mpf(HBARC), mp.mpf(s)
    box = mp.sqrt(mp.mpf(5) / 3 * (mp.mpf(radius) ** 2 - 3 * s**2))
    return mp_bessel(k * box) * mp.exp(-(k**2) * s**2 / 2)


def mp_klein_nystrand(q, radius, a=0.7):
    k, a = mp.mpf(q) / mp.mpf(HBARC), mp.mpf(a)
    box = mp.sqrt(mp.mpf(5) / 3 * (mp.mpf(radius) ** 2 - 6 * a**2))
    return mp_bessel(k * box) / (1 + k**2 * a**2)


def mp_fermi(q, radius, a=0.52):
    k, a = mp.mpf(q) / mp.mpf(HBARC), mp.mpf(a)
    c = mp.sqrt((mp.mpf(radius) ** 2 - mp.mpf(7) / 5 * (mp.pi * a) ** 2) * 5 / 3)
    y = mp.pi * k * a
    bracket = y * mp.coth(y) * mp.sin(k * c) - k * c * mp.cos(k * c)
    return 3 * y / mp.sinh(y) * bracket / (k * c * ((k * c) ** 2 + y**2))


EXACT = {"helm": mp_helm, "klein-nystrand": mp_klein_nystrand, "fermi": mp_fermi}


@functools.cache
def derivatives(name):
    """Value, first and second derivative in q as one jitted function of arrays."""
    curve = CURVES[name]
    first = jax.grad(curve)
    return [jax.jit(jax.vmap(f, (0, None))) for f in (curve, first, jax.grad(first))]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_value_and_derivatives_in_q(name, radius, order):
    # the closed form of the Fermi factor cancels more where it takes over from the series, at q R = 0.05
    rtol = {"fermi": (5e-13, 2e-9, 1e-8)}.get(name, (1e-14, 1e-12, 1e-11))[order]
    with mp.workdps(60):
        truth = [float(mp.diff(lambda k: EXACT[name](k, radius), mp.mpf(q), order, h=mp.mpf(10) ** -15)) for q in Q]
    # derivatives have zeros in the range, so relative to their size near q = 0: q R^2/3 and R^2/3
    scale = 1.0 if order == 0 else np.minimum(Q, HBARC / radius) ** (2 - order) * (radius / HBARC) ** 2 / 3
    found = np.asarray(derivatives(name)[order](Q, radius))
    np.testing.assert_array_less(np.abs(found - truth) / scale, rtol)
    np.testing.assert_allclose(found[:5], truth[:5], rtol=1e-11)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("radius", RADII)
def test_smooth_at_zero(name, radius):
    value, slope, curvature = (float(f(jnp.zeros(1), radius)[0]) for f in derivatives(name))
    assert value == 1.0
    assert slope == 0.0
    np.testing.assert_allclose((-3 * curvature) ** 0.5 * HBARC, radius, rtol=1e-13)


@pytest.mark.parametrize("name", EXACT)
def test_leading_behaviour_at_tiny_momentum(name):
    q = np.array([1e-3, 1e-2, 0.1])
    x2 = (q * 4.8 / HBARC) ** 2 / 6
    np.testing.assert_allclose(CURVES[name](q, 4.8), 1 - x2, rtol=2 * x2.max() ** 2)
    np.testing.assert_allclose(derivatives(name)[1](q, 4.8), -2 * x2 / q, rtol=2 * x2.max())


@pytest.mark.parametrize("name", EXACT)
@given(q=st.floats(0.01, 300), radius=st.floats(2.2, 9))
@settings(max_examples=50, deadline=None)
def test_closed_form_everywhere(name, q, radius):
    with mp.workdps(50):
        truth = float(EXACT[name](q, radius))
    np.testing.assert_allclose(float(derivatives(name)[0](np.array([q]), radius)[0]), truth, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", EXACT)
def test_derivative_in_the_radius(name):
    with mp.workdps(50):
        truth = [float(mp.diff(lambda r, q=q: EXACT[name](q, r), mp.mpf(4.8), h=mp.mpf(10) ** -15)) for q in Q]
    found = np.asarray(jax.jit(jax.vmap(jax.grad(CURVES[name], argnums=1), (0, None)))(Q, 4.8))
    np.testing.assert_allclose(found[5:], truth[5:], rtol=1e-9)
    np.testing.assert_allclose(found[:5], truth[:5], rtol=1e-11)


def test_surface_parameters_are_used():
    with mp.workdps(50):
        np.testing.assert_allclose(Helm(s=0.5)(50.0, 4.8), float(mp_helm(50, 4.8, 0.5)), rtol=1e-13)
        np.testing.assert_allclose(KleinNystrand(a=0.6)(50.0, 4.8), float(mp_klein_nystrand(50, 4.8, 0.6)), rtol=1e-13)
        np.testing.assert_allclose(SymmetrizedFermi(a=0.4)(50.0, 4.8), float(mp_fermi(50, 4.8, 0.4)), rtol=1e-13)


def test_point_nucleus_has_no_structure():
    q = np.array([0.0, 1e-6, 50.0, 300.0])
    np.testing.assert_array_equal(Point()(q, 4.8), np.ones(4))


def test_models_by_name_call_their_curves():
    for name, curve in CURVES.items():
        np.testing.assert_array_equal(form_factor(name)(Q, 4.8), curve(Q, 4.8))
    assert set(FORM_FACTORS) == {*CURVES, "point", "helm-1711.09773"}
    with pytest.raises(UnknownNameError, match="Did you mean 'helm'"):
        form_factor("helms")


def test_default_radii_come_from_the_published_size_parameters():
    iodine = nucleus("I127")
    assert form_factor("helm").default_radii(iodine) == (iodine.R_p, iodine.R_n)
    # box radius 1.23 A^(1/3) and half-density radius 1.23 A^(1/3) - 0.60, turned into rms radii by the densities
    cube_root = 127 ** (1 / 3)
    for name, a, size in (("klein-nystrand", 0.7, 1.23 * cube_root), ("fermi", 0.52, 1.23 * cube_root - 0.6)):
        proton, neutron = form_factor(name).default_radii(iodine)
        assert proton == neutron
        assert DENSITIES[name](proton, a)[1][0] == pytest.approx(size, rel=1e-13)


def test_scaling_the_radius():
    # Klein-Nystrand papers scale the box radius, the others the rms radius
    scaled = float(form_factor("klein-nystrand").scale_radius(4.8, 1.05))
    boxes = [klein_nystrand_density(r)[1][0] for r in (4.8, scaled)]
    assert boxes[1] / boxes[0] == pytest.approx(1.05, rel=1e-13)
    for name in ("helm", "fermi"):
        assert float(form_factor(name).scale_radius(4.8, 1.05)) == pytest.approx(5.04, rel=1e-14)


@pytest.mark.parametrize("name", EXACT)
def test_jit_equals_eager_equals_vmap(name):
    eager = CURVES[name](Q, 4.8)
    np.testing.assert_allclose(jax.jit(CURVES[name])(Q, 4.8), eager, rtol=5e-13)
    np.testing.assert_allclose(derivatives(name)[0](Q, 4.8), eager, rtol=5e-13)


def test_helm_of_the_mass_number():
    """arXiv:1711.09773: R_0^2 = (1.2 A^(1/3))^2 - 5 s^2 with s = 0.5 fm, for protons and neutrons alike."""
    model = form_factor("helm-1711.09773")
    assert isinstance(model, HelmOfMassNumber)
    for name in ("Ar40", "Ge74", "Cs133"):
        nuclide = nucleus(name)
        proton, neutron = model.default_radii(nuclide)
        assert proton == neutron
        # the rms radius of a sphere of R_0 with a surface s: 3/5 R_0^2 + 3 s^2
        box = (1.44 * nuclide.A ** (2 / 3) - 1.25) ** 0.5
        assert proton == pytest.approx((0.6 * box**2 + 0.75) ** 0.5, rel=1e-13)
        assert helm_density(proton, 0.5)[1][0] == pytest.approx(box, rel=1e-13)
        with mp.workdps(50):
            truth = []
            for q in Q:
                k = mp.mpf(q) / mp.mpf(HBARC)
                truth.append(float(mp_bessel(k * mp.mpf(box)) * mp.exp(-(k**2) / 8)))
        np.testing.assert_allclose(model(Q, proton), truth, rtol=1e-12)
    assert float(model(0.0, 4.0)) == 1.0
    assert float(model.scale_radius(4.0, 1.05)) == pytest.approx(4.2, rel=1e-14)
