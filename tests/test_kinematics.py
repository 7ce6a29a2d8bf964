"""Kinematics against four-momentum conservation, solved with mpmath at 50 digits."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cevjax import kinematics

MASSES = [11_177.93, 37_215.52, 67_663.7, 123_772.5, 171_000.0]
ENERGIES = [1e-3, 0.5, 5.0, 29.79, 52.83, 300.0]
FORMULAS = {
    "vector": lambda E, T, M: 1 - M * T / (2 * E * E),
    "vector_exact": lambda E, T, M: 1 - T / E - M * T / (2 * E * E) + T * T / (2 * E * E),
    "axial": lambda E, T, M: 1 + M * T / (2 * E * E),
    "scalar": lambda E, T, M: M * T / (E * E),
    "tensor": lambda E, T, M: 1 - M * T / (4 * E * E),
    "magnetic": lambda E, T, M: 1 / T - 1 / E,
}
grid = hnp.arrays(float, 64, elements=st.floats(0, 1))


def recoil_of_angle(E, M, cosine):
    """Elastic scattering off a nucleus at rest: energy lost by a neutrino that leaves at ``cosine``."""
    E, M = mp.mpf(E), mp.mpf(M)
    return E - E * M / (M + E * (1 - cosine))


@pytest.mark.parametrize("M", MASSES)
@pytest.mark.parametrize("E", ENERGIES)
def test_end_point_is_backscattering(E, M):
    with mp.workdps(50):
        truth = float(recoil_of_angle(E, M, mp.mpf(-1)))
    np.testing.assert_allclose(kinematics.recoil_energy_max(E, M), truth, rtol=1e-14)


@pytest.mark.parametrize("M", MASSES)
@pytest.mark.parametrize("T", [1e-7, 1e-4, 1e-3, 0.0145, 0.3])
def test_smallest_energy_solves_backscattering(T, M):
    with mp.workdps(50):
        truth = float(mp.findroot(lambda E: recoil_of_angle(E, M, mp.mpf(-1)) - T, mp.sqrt(M * T / 2)))
    np.testing.assert_allclose(kinematics.neutrino_energy_min(T, M), truth, rtol=1e-14)


def test_energy_and_recoil_limits_are_inverse():
    E, M = np.meshgrid(np.geomspace(0.01, 500, 60), MASSES)
    np.testing.assert_allclose(kinematics.neutrino_energy_min(kinematics.recoil_energy_max(E, M), M), E, rtol=1e-13)


@pytest.mark.parametrize("T", [1e-6, 1e-3, 0.0145])
@pytest.mark.parametrize("M", MASSES)
def test_momentum_transfer_is_the_nuclear_momentum(T, M):
    with mp.workdps(50):
        exact = mp.sqrt((mp.mpf(M) + T) ** 2 - mp.mpf(M) ** 2)
        # the documented approximation drops T^2 from 2MT + T^2
        approximate = float(exact / mp.sqrt(1 + mp.mpf(T) / (2 * M)))
    np.testing.assert_allclose(kinematics.momentum_transfer(T, M), approximate, rtol=1e-15)
    assert abs(approximate / float(exact) - 1) < 1e-6


def test_all_shapes_are_checked():
    assert set(FORMULAS) == set(kinematics.SHAPES)


@pytest.mark.parametrize("name", FORMULAS)
@given(u=grid, v=grid, w=grid)
@settings(max_examples=50, deadline=None)
def test_shape_inside_and_outside_the_phase_space(name, u, v, w):
    E, M = 0.01 * 3e4**u, 1e4 + 2e5 * v
    T_max = 2 * E**2 / (M + 2 * E)
    T = 2 * T_max * np.clip(w, 1e-9, 1)
    found = np.asarray(kinematics.shape(name, E, T, M))
    clear = np.abs(T / T_max - 1) > 1e-9  # either side of the end point is right within rounding
    expected = np.where(T_max > T, FORMULAS[name](E, T, M), 0.0)
    np.testing.assert_allclose(found[clear], expected[clear], rtol=1e-13, atol=1e-13)
    assert np.all(found >= 0)
    assert np.all(found[T_max * (1 + 1e-9) < T] == 0)


@pytest.mark.parametrize("name", FORMULAS)
def test_shape_derivatives(name):
    E, T, M = 30.0, 0.006, 123_772.5
    gradient = jax.grad(lambda x: kinematics.shape(name, x[0], x[1], M))(jnp.array([E, T]))
    with mp.workdps(40):
        truth = [mp.diff(FORMULAS[name], (E, T, M), n) for n in ((1, 0, 0), (0, 1, 0))]
    np.testing.assert_allclose(gradient, np.array(truth, float), rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_beyond_the_end_point_is_zero_not_nan(name):
    gradient = jax.jit(jax.vmap(jax.grad(lambda x: kinematics.shape(name, x[0], x[1], 123_772.5))))
    points = jnp.array([[30.0, 0.02], [1e-6, 0.01], [0.0, 1e-3]])
    np.testing.assert_array_equal(gradient(points), np.zeros((3, 2)))


def test_jit_equals_eager_equals_vmap():
    E, T = np.linspace(10, 50, 12), np.linspace(1e-4, 0.03, 12)
    eager = kinematics.shape("vector", E, T, 123_772.5)
    np.testing.assert_allclose(
        jax.jit(kinematics.shape, static_argnums=0)("vector", E, T, 123_772.5), eager, rtol=1e-15
    )
    mapped = jax.vmap(lambda e, t: kinematics.shape("vector", e, t, 123_772.5))(E, T)
    np.testing.assert_allclose(mapped, eager, rtol=1e-15)
