"""Quadrature rules against exact rational integrals, scipy's interpolation and its special functions."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.special import eval_legendre, spherical_jn

from cevjax.quadrature import gauss_legendre, legendre_projection, spherical_bessel

ORDERS = (2, 3, 4, 8, 12, 24)
# across the switch of methods at 2.5, and beyond the last turning point
ARGUMENTS = np.concatenate([np.geomspace(1e-8, 2.4, 60), np.linspace(2.4, 2.6, 41), np.geomspace(2.6, 1e5, 60)])


@pytest.mark.parametrize("n", ORDERS)
def test_gauss_legendre_is_exact_to_degree_2n_minus_1(n):
    x, w = gauss_legendre(n)
    degree = np.arange(2 * n)
    np.testing.assert_allclose(w @ x[:, None] ** degree, 1 / (degree + 1), rtol=1e-13)
    # and not beyond: the error of the monomial x^2n is (n!)^4/((2n + 1) (2n)!^2)
    with mp.workdps(30):
        error = float(mp.factorial(n) ** 4 / ((2 * n + 1) * mp.factorial(2 * n) ** 2))
    if error > 1e-10:
        np.testing.assert_allclose(1 / (2 * n + 1) - w @ x ** (2 * n), error, rtol=1e-5)


@pytest.mark.parametrize("n", ORDERS)
def test_projection_finds_legendre_coefficients(n):
    x, w = gauss_legendre(n)
    coefficients = np.sin(1 + np.arange(n))
    values = sum(c * eval_legendre(k, 2 * x - 1) for k, c in enumerate(coefficients))
    np.testing.assert_allclose((w * values) @ legendre_projection(n), coefficients, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "atol"), [(2, 2e-15), (3, 2e-15), (6, 1e-14), (8, 1e-13), (12, 1e-10)])
def test_spherical_bessel(n, atol):
    # absolute: the functions are of order one or smaller, and oscillate. Upward recursion multiplies rounding errors by
    # (2n - 1)!!/x^n at most: 1e6 at the switch for all the orders of an oscillation average
    found = np.asarray(spherical_bessel(n, jnp.asarray(ARGUMENTS)))
    assert found.shape == (n, len(ARGUMENTS))
    np.testing.assert_allclose(found, [spherical_jn(k, ARGUMENTS) for k in range(n)], rtol=0, atol=atol)


def test_spherical_bessel_keeps_its_relative_accuracy_near_zero():
    # x^n/(2n + 1)!! and nothing of the cancellation of upward recursion
    x = np.geomspace(1e-6, 2.499, 40)
    with mp.workdps(40):
        truth = [
            [float(mp.sqrt(mp.pi / (2 * mp.mpf(y))) * mp.besselj(k + 0.5, mp.mpf(y))) for y in x] for k in range(12)
        ]
    np.testing.assert_allclose(spherical_bessel(12, jnp.asarray(x)), truth, rtol=1e-14)


def test_spherical_bessel_at_zero():
    np.testing.assert_array_equal(spherical_bessel(6, jnp.array(0.0)), [1, 0, 0, 0, 0, 0])
    # only j_1 = x/3 has a slope there
    for jacobian in (jax.jacfwd, jax.jacrev):
        slope = jacobian(lambda x: spherical_bessel(6, x))(jnp.array(0.0))
        np.testing.assert_allclose(slope, [0, 1 / 3, 0, 0, 0, 0], rtol=0, atol=1e-16)


def slopes(n, x):
    return jax.jvp(lambda p: spherical_bessel(n, p), (jnp.asarray(x),), (jnp.ones(len(x)),))[1]


@pytest.mark.parametrize(("n", "atol"), [(3, 1e-12), (6, 1e-12), (12, 1e-9)])
def test_spherical_bessel_derivative(n, atol):
    x = ARGUMENTS[ARGUMENTS > 1e-3]
    truth = [spherical_jn(k, x, derivative=True) for k in range(n)]
    np.testing.assert_allclose(slopes(n, x), truth, rtol=0, atol=atol)


def test_spherical_bessel_derivative_near_zero():
    x = np.geomspace(1e-10, 1e-3, 30)
    with mp.workdps(40):
        truth = [float(mp.cos(y) / y - mp.sin(y) / y**2) for y in map(mp.mpf, x)]  # -x/3 to leading order
    np.testing.assert_allclose(slopes(2, x)[0], truth, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "atol"), [(3, 1e-14), (6, 1e-13), (12, 1e-9)])
def test_spherical_bessel_is_continuous_at_the_switch(n, atol):
    both = jnp.array([np.nextafter(2.5, 0), 2.5])
    below, above = np.asarray(spherical_bessel(n, both)).T
    np.testing.assert_allclose(below, above, rtol=0, atol=atol)
    below, above = np.asarray(slopes(n, both)).T
    np.testing.assert_allclose(below, above, rtol=0, atol=atol)
