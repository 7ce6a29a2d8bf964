"""Quenching: polynomials against numpy's, Lindhard's model against mpmath, tables by hand."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from cevjax.response import UNQUENCHED, LindhardQuenching, PolynomialQuenching, TabulatedQuenching

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


# Lindhard's model and tables


def lindhard(kev, Z, k):
    """Ionisation yield of a recoil in keV, at 30 digits."""
    with mp.workdps(30):
        eps = mp.mpf("11.5") * mp.mpf(Z) ** (-mp.mpf(7) / 3) * mp.mpf(float(kev))
        g = 3 * eps ** mp.mpf("0.15") + mp.mpf("0.7") * eps ** mp.mpf("0.6") + eps
        return float(k * g / (1 + k * g))


@pytest.mark.parametrize(("Z", "k"), [(32, 0.162), (32, 0.157), (14, 0.11), (54, 0.12)])
def test_lindhard(Z, k):
    kev = np.geomspace(0.01, 50, 25)
    found = np.asarray(LindhardQuenching(Z, k)({}, 1e-3 * kev)) / (1e-3 * kev)
    np.testing.assert_allclose(found, [lindhard(x, Z, k) for x in kev], rtol=1e-12)


def test_lindhard_of_germanium():
    quenching = LindhardQuenching(32, 0.162)
    assert quenching.nuisances == ()
    assert float(quenching({}, 1e-3)) == pytest.approx(0.1755e-3, rel=1e-3)
    assert np.all(np.diff(np.asarray(quenching({}, T)) / T) > 0)  # faster recoils ionise more


@given(pull=st.floats(-3, 3), kev=st.floats(0.05, 20))
@settings(max_examples=30, deadline=None)
def test_lindhard_with_a_pull_on_its_strength(pull, kev):
    quenching = LindhardQuenching(32, 0.162, 0.01, "k")
    assert quenching.nuisances == ("k",)
    truth = kev * lindhard(kev, 32, 0.162 + 0.01 * pull)
    assert 1e3 * float(quenching({"k": pull}, 1e-3 * kev)) == pytest.approx(truth, rel=1e-12)


def test_derivatives_of_lindhard():
    quenching = LindhardQuenching(32, 0.162, 0.01, "k")
    slope = jax.jacfwd(lambda p: quenching({"k": p}, T))(0.3)
    h = 1e-4
    ends = [np.array([t * lindhard(1e3 * t, 32, 0.165 + 0.01 * s * h) for t in T]) for s in (-1, 1)]
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * h), rtol=1e-8)
    by_recoil = jax.vmap(jax.grad(lambda t: quenching({"k": 0.3}, t)))(T)
    ends = [np.array([t * (1 + s * h) * lindhard(1e3 * t * (1 + s * h), 32, 0.165) for t in T]) for s in (-1, 1)]
    np.testing.assert_allclose(by_recoil, (ends[1] - ends[0]) / (2 * h * T), rtol=1e-7)


NODES, FACTORS = [0.0, 0.5, 1.0, 4.0], [0.4, 0.3, 0.22, 0.2]


def table(sigma=0.0, nuisance=None):
    return TabulatedQuenching(NODES, FACTORS, sigma, nuisance)


@given(kev=st.floats(0.01, 20))
@settings(max_examples=50, deadline=None)
def test_table_of_quenching_factors(kev):
    """Straight lines between the nodes, by hand; constant beyond."""
    i = max(j for j in range(4) if NODES[j] <= kev)
    truth = FACTORS[3]
    if i < 3:
        share = (kev - NODES[i]) / (NODES[i + 1] - NODES[i])
        truth = FACTORS[i] * (1 - share) + FACTORS[i + 1] * share
    assert 1e3 * float(table()({}, 1e-3 * kev)) == pytest.approx(truth * kev, rel=1e-12)
    scaled = table(0.1, "qf")({"qf": -0.5}, 1e-3 * kev)
    assert 1e3 * float(scaled) == pytest.approx(0.95 * truth * kev, rel=1e-12)


def test_table_below_its_first_node():
    quenching = TabulatedQuenching([1.0, 2.0], [0.2, 0.3])
    np.testing.assert_allclose(quenching({}, np.array([1e-4, 1e-3, 0.1])), [2e-5, 2e-4, 0.03], rtol=1e-13)


def test_tables_stay_positive_and_smooth():
    quenching = table(0.1, "qf")
    assert quenching.nuisances == ("qf",) and table().nuisances == ()
    assert np.min(quenching({"qf": -20.0}, T)) == 1e-9
    assert float(table()({}, 0.0)) == 1e-9
    slope = jax.jacfwd(lambda p: quenching({"qf": p}, T))(0.3)
    np.testing.assert_allclose(slope, 0.1 * np.asarray(table()({}, T)), rtol=1e-12)
    inside = jnp.array([2e-4, 7e-4, 2e-3, 8e-3])
    by_recoil = jax.vmap(jax.grad(lambda t: table()({}, t)))(inside)
    x, slopes = 1e3 * inside, np.array([-0.2, -0.16, -0.02 / 3, 0.0])
    np.testing.assert_allclose(by_recoil, np.interp(x, NODES, FACTORS) + x * slopes, rtol=1e-12)


@pytest.mark.parametrize("make", [lambda: LindhardQuenching(32, 0.162, 0.01, "qf"), lambda: table(0.1, "qf")])
def test_jit_equals_eager_equals_vmap_for_the_others(make):
    pulls = jnp.array([-1.0, 0.0, 2.0])
    eager = np.stack([make()({"qf": p}, T) for p in pulls])
    np.testing.assert_allclose(jax.vmap(lambda p: make()({"qf": p}, T))(pulls), eager, rtol=1e-13)
    jitted = jax.jit(lambda p: make()({"qf": p}, T))
    np.testing.assert_allclose(np.stack([jitted(p) for p in pulls]), eager, rtol=1e-13)


def test_electrons_are_not_quenched():
    np.testing.assert_array_equal(UNQUENCHED({}, T), T)
    assert UNQUENCHED.nuisances == ()
