"""Polynomial quenching against numpy's polynomials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from cevjax.response import PolynomialQuenching

# COHERENT CsI[Na] 2021: nominal coefficients and the two eigen-variations, in MeV
NOMINAL = [0.0554628, 4.30681, -111.707, 840.384]
SHIFTS = [[0.0059004, -0.79134, 26.1522, -244.822], [-0.0000498, -0.37084, 18.6025, -210.292]]
QUENCHING = PolynomialQuenching(NOMINAL, SHIFTS, ("qf0", "qf1"))
T = np.geomspace(1e-4, 0.06, 40)


def truth(a, b, recoil=T):
    c = np.array(NOMINAL) + a * np.array(SHIFTS[0]) + b * np.array(SHIFTS[1])
    return Polynomial([0.0, *c])(recoil)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (0, 1), (-1, 0.5), (1.3, -0.7)])
def test_polynomial_with_variations(a, b):
    expected = np.maximum(truth(a, b), 1e-9)
    np.testing.assert_allclose(QUENCHING({"qf0": a, "qf1": b}, T), expected, rtol=1e-12)


def test_quenching_factor_of_caesium_iodide():
    # the light of a 15 keV recoil: about a tenth of it, as measured
    energy = float(PolynomialQuenching(NOMINAL)({}, 0.015))
    assert 0.08 < energy / 0.015 < 0.11


@given(a=st.floats(-1, 1), b=st.floats(-1, 1))
@settings(max_examples=50, deadline=None)
def test_linear_in_the_pulls(a, b):
    point = {"qf0": a, "qf1": b}
    zero, first, second, both = (
        np.asarray(QUENCHING(p, T[10:]))
        for p in ({"qf0": 0.0, "qf1": 0.0}, {**point, "qf1": 0.0}, {**point, "qf0": 0.0}, point)
    )
    np.testing.assert_allclose(first + second - zero, both, rtol=1e-12)


def test_stays_positive_at_a_pull_that_would_turn_it_negative():
    point = {"qf0": -12.0, "qf1": 0.0}
    assert truth(-12, 0).min() < 0
    found = np.asarray(QUENCHING(point, T))
    assert found.min() == 1e-9
    assert np.all(np.isfinite(jax.jacfwd(lambda x: QUENCHING({**point, "qf0": x}, T))(-12.0)))


def test_zero_recoil_gives_the_floor():
    assert float(QUENCHING({"qf0": 0.0, "qf1": 0.0}, 0.0)) == 1e-9


def test_derivatives():
    point = {"qf0": 0.3, "qf1": -0.2}
    by_pull = jax.jacfwd(lambda p: QUENCHING(p, T))(point)
    for name, shift in zip(("qf0", "qf1"), SHIFTS, strict=True):
        np.testing.assert_allclose(by_pull[name], Polynomial([0.0, *shift])(T), rtol=1e-11)
    by_recoil = jax.vmap(jax.grad(lambda t: QUENCHING(point, t)))(T)
    c = np.array(NOMINAL) + 0.3 * np.array(SHIFTS[0]) - 0.2 * np.array(SHIFTS[1])
    np.testing.assert_allclose(by_recoil, Polynomial([0.0, *c]).deriv()(T), rtol=1e-11)


def test_variations_must_match_their_names():
    with pytest.raises((TypeError, ValueError)):
        PolynomialQuenching(NOMINAL, SHIFTS, ("qf0",))


def test_jit_equals_eager_equals_vmap():
    pulls = jnp.array([[0.0, 0.0], [1.0, -0.5], [-1.0, 2.0]])

    def curve(pull):
        return QUENCHING({"qf0": pull[0], "qf1": pull[1]}, T)

    eager = np.stack([curve(p) for p in pulls])
    np.testing.assert_allclose(jax.vmap(curve)(pulls), eager, rtol=1e-13)
    np.testing.assert_allclose(np.stack([jax.jit(curve)(p) for p in pulls]), eager, rtol=1e-13)
