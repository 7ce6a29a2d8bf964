"""Efficiency curves against scipy's sigmoid and a root finder."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from cevjax.response import ExponentialTimeEfficiency, FlatEfficiency, SigmoidEfficiency, TabulatedEfficiency

# COHERENT CsI[Na] 2021: coefficients at pull 0, +1 and -1
SETS = {
    0: (1.32045, 0.285979, 10.8646, -0.333322),
    1: (1.3439, 0.285366, 9.84596, -0.356364),
    -1: (1.297, 0.286592, 11.8832, -0.31028),
}
CSI = SigmoidEfficiency(SETS[0], SETS[1], SETS[-1], "efficiency")
X = np.linspace(0, 60, 121)


def curve(coefficients, x=X):
    a, b, c, d = coefficients
    return np.clip(a * expit(b * (np.asarray(x) - c)) + d, 0, None)


def interpolated(pull):
    """Lagrange parabola through the three sets."""
    low, mid, high = (np.array(SETS[k]) for k in (-1, 0, 1))
    return low * pull * (pull - 1) / 2 - mid * (pull + 1) * (pull - 1) + high * pull * (pull + 1) / 2


@pytest.mark.parametrize("pull", SETS)
def test_published_curves_at_integer_pulls(pull):
    np.testing.assert_allclose(CSI(X, {"efficiency": pull}), curve(SETS[pull]), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pull", [-0.6, 0.25, 0.9, 2.0])
def test_curves_in_between(pull):
    np.testing.assert_allclose(CSI.coefficients({"efficiency": pull}), interpolated(pull), rtol=1e-14)
    np.testing.assert_allclose(CSI(X, {"efficiency": pull}), curve(interpolated(pull)), rtol=1e-11, atol=1e-14)


def test_without_a_nuisance_parameters_are_not_read():
    fixed = SigmoidEfficiency(SETS[0])
    np.testing.assert_allclose(fixed(X, {}), curve(SETS[0]), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(SigmoidEfficiency(SETS[0], SETS[1], SETS[-1])(X, {}), fixed(X, {}), rtol=0)


@given(x=st.floats(0, 100), pull=st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_between_zero_and_one(x, pull):
    assert 0 <= float(CSI(x, {"efficiency": pull})) <= 1.02


def test_rises():
    for pull in (-1, 0, 1):
        assert np.all(np.diff(CSI(X, {"efficiency": pull})) >= 0)


@pytest.mark.parametrize("pull", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_threshold_is_the_root(pull):
    a, b, c, d = interpolated(pull)
    root = brentq(lambda x: a * expit(b * (x - c)) + d, 0, 20, xtol=1e-14, rtol=1e-14)
    found = float(CSI.threshold({"efficiency": pull}))
    assert found == pytest.approx(root, rel=1e-12)
    assert float(CSI(found - 1e-6, {"efficiency": pull})) == 0.0
    assert float(CSI(found + 1e-6, {"efficiency": pull})) > 0.0


@pytest.mark.parametrize("d", [0.0, 0.2])
def test_no_threshold_unless_the_curve_is_cut(d):
    efficiency = SigmoidEfficiency((0.8, 0.3, 10.0, d))
    assert float(efficiency.threshold({})) == -math.inf
    np.testing.assert_allclose(efficiency(X, {}), curve((0.8, 0.3, 10.0, d)), rtol=1e-12)


def test_derivatives_in_the_pull():
    step = 1e-5
    slope = jax.jacfwd(lambda p: CSI(X[20:], {"efficiency": p}))(0.4)
    numeric = (curve(interpolated(0.4 + step)) - curve(interpolated(0.4 - step)))[20:] / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6, atol=1e-10)

    def root(pull):
        a, b, c, d = interpolated(pull)
        return brentq(lambda x: a * expit(b * (x - c)) + d, 0, 20, xtol=1e-15, rtol=1e-14)

    moved = float(jax.grad(lambda p: CSI.threshold({"efficiency": p}))(0.4))
    assert moved == pytest.approx((root(0.4 + 1e-4) - root(0.4 - 1e-4)) / 2e-4, rel=1e-6)


def test_derivative_without_a_cut_is_finite():
    uncut = SigmoidEfficiency((0.8, 0.3, 10.0, 0.0), (0.8, 0.3, 9.0, 0.0), (0.8, 0.3, 11.0, 0.0), "pull")
    assert math.isfinite(float(jax.grad(lambda p: uncut.threshold({"pull": p}))(0.1)))


def test_jit_equals_eager_equals_vmap():
    pulls = np.array([-1.0, 0.2, 1.5])
    eager = np.stack([CSI(X, {"efficiency": p}) for p in pulls])
    np.testing.assert_allclose(jax.vmap(lambda p: CSI(X, {"efficiency": p}))(pulls), eager, rtol=1e-12, atol=1e-15)
    jitted = jax.jit(lambda p: CSI(X, {"efficiency": p}))
    np.testing.assert_allclose(np.stack([jitted(p) for p in pulls]), eager, rtol=1e-12, atol=1e-15)


def test_time_efficiency():
    efficiency = ExponentialTimeEfficiency(0.0494, 0.52)
    t = np.array([-1.0, 0.0, 0.52, 1.52, 6.0])
    truth = [1, 1, 1, math.exp(-0.0494), math.exp(-0.0494 * 5.48)]
    np.testing.assert_allclose(efficiency(t), truth, rtol=1e-14)
    slope = jax.vmap(jax.grad(efficiency))(np.array([0.1, 2.0]))
    np.testing.assert_allclose(slope, [0.0, -0.0494 * math.exp(-0.0494 * 1.48)], rtol=1e-14)


# flat and tabulated curves


def test_flat_efficiency():
    flat = FlatEfficiency(value=0.7)
    np.testing.assert_array_equal(flat(X, {}), np.full(len(X), 0.7))
    assert flat.nuisance is None and flat.breaks == () and flat.highest_threshold == -math.inf
    assert float(flat.threshold({})) == -math.inf
    assert float(FlatEfficiency()(3, {})) == 1.0


def test_the_first_argument_of_a_flat_efficiency_is_its_value():
    flat = FlatEfficiency(0.7)
    assert flat.value == 0.7 and flat.nuisance is None


NODES, VALUES = (1.0, 2.5, 6.0, 6.5), (0.1, 0.6, 0.5, 1.0)


@given(x=st.floats(-5, 20))
@settings(max_examples=50, deadline=None)
def test_tabulated_efficiency(x):
    """Straight lines by hand, constant beyond the ends."""
    found = float(TabulatedEfficiency(NODES, VALUES)(x, {}))
    if x <= 1.0 or x >= 6.5:
        assert found == (0.1 if x <= 1.0 else 1.0)
    else:
        i = max(j for j in range(4) if NODES[j] <= x)
        share = (x - NODES[i]) / (NODES[i + 1] - NODES[i])
        assert found == pytest.approx(VALUES[i] + share * (VALUES[i + 1] - VALUES[i]), rel=1e-12)


def test_tabulated_efficiency_knows_its_kinks():
    table = TabulatedEfficiency(np.array(NODES), np.array(VALUES))
    assert table.breaks == NODES and all(type(b) is float for b in table.breaks)
    assert table.nuisance is None and float(table.threshold({})) == -math.inf
    slopes = jax.vmap(jax.grad(lambda x: table(x, {})))(np.array([0.5, 2.0, 4.0, 6.1, 9.0]))
    np.testing.assert_allclose(slopes, [0.0, 1 / 3, -0.1 / 3.5, 1.0, 0.0], rtol=1e-12)
    x = np.linspace(0, 7, 29)
    np.testing.assert_allclose(jax.jit(lambda y: table(y, {}))(x), table(x, {}), rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(lambda y: table(y, {}))(x), table(x, {}), rtol=1e-14)
