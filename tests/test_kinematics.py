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
from cevjax.errors import UnknownNameError

MASSES = [11_177.93, 37_215.52, 67_663.7, 123_772.5, 171_000.0]
ENERGIES = [1e-3, 0.5, 5.0, 29.79, 52.83, 300.0]
FORMULAS = {
    "vector": lambda E, T, M: 1 - M * T / (2 * E * E),
    "vector_exact": lambda E, T, M: 1 - T / E - M * T / (2 * E * E) + T * T / (2 * E * E),
    "axial": lambda E, T, M: 1 + M * T / (2 * E * E),
    "scalar": lambda E, T, M: M * T / (E * E),
    "tensor": lambda E, T, M: 1 - M * T / (4 * E * E),
    "magnetic": lambda E, T, M: 1 / T - 1 / E,
    "electron_left": lambda E, T, M: 1 + 0 * E,
    "electron_right": lambda E, T, M: (1 - T / E) ** 2,
}
ELECTRON, ARGON, CAESIUM = 0.51099895, 37_215.52, 123_772.5
LEPTONS = [(M, E, m) for M in (ELECTRON, ARGON, CAESIUM) for E in (5.0, 29.79, 52.83) for m in (1e-3, 0.3, 1.0, 4.0)]
LEPTONS += [(M, E, m) for M in (ARGON, CAESIUM) for E in (29.79, 52.83) for m in (15.0, 29.0)]
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


def lorentz(E, M, m):
    """Recoils of a nucleus at rest that leaves along and against the boost from the centre of mass, and sqrt(s)."""
    E, M, m = mp.mpf(E), mp.mpf(M), mp.mpf(m)
    root_s = mp.sqrt(M**2 + 2 * M * E)
    energy = (root_s**2 + M**2 - m**2) / (2 * root_s)
    momentum = mp.sqrt(mp.mpc(energy**2 - M**2))
    gamma, gamma_beta = (E + M) / root_s, E / root_s
    return gamma * energy - gamma_beta * momentum - M, gamma * energy + gamma_beta * momentum - M, root_s


@pytest.mark.parametrize(("M", "E", "m"), LEPTONS)
def test_recoils_of_a_massive_lepton_in_the_centre_of_mass(M, E, m):
    with mp.workdps(60):
        low, high, root_s = lorentz(E, M, m)
        truth = (0.0, 0.0) if root_s < mp.mpf(M) + m else (float(low.real), float(high.real))
    np.testing.assert_allclose(kinematics.recoil_energy_range(E, M, m), truth, rtol=2e-13)


@pytest.mark.parametrize("cosine", ["-0.99", "-0.3", "0.2", "0.9"])
@pytest.mark.parametrize(("M", "E", "m"), [(CAESIUM, 40.0, 20.0), (ARGON, 30.0, 5.0), (ELECTRON, 20.0, 2.0)])
def test_four_momentum_conservation_inside_the_range(M, E, m, cosine):
    # a lepton at some angle in the centre of mass, boosted, leaves a recoil on the mass shell and inside the range
    with mp.workdps(50):
        low, high, root_s = lorentz(E, M, m)
        energy = (root_s**2 - mp.mpf(M) ** 2 + mp.mpf(m) ** 2) / (2 * root_s)
        momentum, cos = mp.sqrt(energy**2 - mp.mpf(m) ** 2), mp.mpf(cosine)
        gamma, gamma_beta = (mp.mpf(E) + M) / root_s, mp.mpf(E) / root_s
        lepton = gamma * energy + gamma_beta * momentum * cos
        along, across = gamma * momentum * cos + gamma_beta * energy, momentum * mp.sqrt(1 - cos**2)
        T = E - lepton
        np.testing.assert_allclose(float((E - along) ** 2 + across**2), float(T**2 + 2 * M * T), rtol=1e-15)
        assert low.real < T < high.real
        T = float(T)
    first, last = kinematics.recoil_energy_range(E, M, m)
    assert first < T < last
    # and at this recoil the neutrino has more than the least energy
    assert kinematics.neutrino_energy_min(T, M, m) < E


@pytest.mark.parametrize("M", [ELECTRON, ARGON, CAESIUM])
@pytest.mark.parametrize("m", [0.1, 1.0, 15.0, 40.0])
def test_threshold_of_a_massive_lepton(M, m):
    with mp.workdps(30):  # sqrt(s) = M + m, with both products at rest in a frame of velocity E/(E + M)
        exact = ((mp.mpf(M) + m) ** 2 - mp.mpf(M) ** 2) / (2 * mp.mpf(M))
        threshold, rest = float(exact), float(M * (exact + M) / (mp.mpf(M) + m) - M)
    np.testing.assert_array_equal(kinematics.recoil_energy_range(threshold * (1 - 1e-9), M, m), (0, 0))
    low, high = kinematics.recoil_energy_range(threshold * (1 + 1e-9), M, m)
    assert 0 < low < high
    np.testing.assert_allclose([low, high], rest, rtol=1e-3)
    # no neutrino below the threshold can leave any recoil
    T = rest * np.geomspace(0.01, 100, 401)
    least = np.asarray(kinematics.neutrino_energy_min(T, M, m))
    np.testing.assert_allclose(least.min(), threshold, rtol=1e-13)
    assert np.argmin(least) == 200


@pytest.mark.parametrize("M", [ELECTRON, ARGON, CAESIUM])
@given(u=grid, v=grid)
@settings(max_examples=50, deadline=None)
def test_sum_and_product_of_the_range(M, u, v):
    E = 0.1 * 5e3**u
    m = v * (np.sqrt(M**2 + 2 * M * E) - M)  # up to what the energy can make
    low, high = map(np.asarray, kinematics.recoil_energy_range(E, M, m))
    inside = v < 1 - 1e-9
    assert np.all((low <= high)[inside])
    scale = 2 * M * E**2 / (M * (M + 2 * E))
    total, product = scale - (M + E) * m**2 / (M * (M + 2 * E)), m**4 / (4 * M * (M + 2 * E))
    np.testing.assert_allclose((low + high)[inside], total[inside], rtol=1e-12, atol=1e-13 * scale.max())
    np.testing.assert_allclose((low * high)[inside], product[inside], rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("M", [ELECTRON, ARGON, CAESIUM])
@given(u=grid, v=grid)
@settings(max_examples=50, deadline=None)
def test_range_is_the_inverse_of_the_least_energy(M, u, v):
    E = 0.1 * 5e3**u
    m = np.clip(v, 1e-4, 0.999) * (np.sqrt(M**2 + 2 * M * E) - M)
    for T in kinematics.recoil_energy_range(E, M, m):
        np.testing.assert_allclose(kinematics.neutrino_energy_min(T, M, m), E, rtol=1e-11)


def test_a_massless_lepton_is_the_elastic_case():
    E, M = np.meshgrid(np.geomspace(0.01, 500, 60), [ELECTRON, *MASSES])
    low, high = kinematics.recoil_energy_range(E, M, 0.0)
    np.testing.assert_array_equal(low, 0)
    np.testing.assert_allclose(high, E - E * M / (M + 2 * E), rtol=1e-9)  # the subtraction loses up to 1e-10 here
    np.testing.assert_allclose(high, kinematics.recoil_energy_max(E, M), rtol=1e-14)
    T = np.geomspace(1e-9, 1, 50)
    np.testing.assert_array_equal(
        kinematics.neutrino_energy_min(T, CAESIUM, 0.0), kinematics.neutrino_energy_min(T, CAESIUM)
    )


def test_no_recoil_and_no_energy():
    assert float(kinematics.neutrino_energy_min(0.0, CAESIUM)) == 0
    assert float(kinematics.neutrino_energy_min(0.0, CAESIUM, 1.0)) == np.inf
    assert [float(T) for T in kinematics.recoil_energy_range(0.0, CAESIUM, 0.0)] == [0, 0]


@pytest.mark.parametrize(("M", "E", "m"), [(CAESIUM, 40.0, 20.0), (ARGON, 52.83, 3.0), (ELECTRON, 20.0, 2.0)])
def test_range_derivatives(M, E, m):
    found = jax.jacrev(lambda x: jnp.stack(kinematics.recoil_energy_range(x[0], M, x[1])))(jnp.array([E, m]))
    with mp.workdps(40):
        low, high = (lambda e, k, i=i: lorentz(e, M, k)[i].real for i in (0, 1))
        truth = [[mp.diff(end, (E, m), order) for order in ((1, 0), (0, 1))] for end in (low, high)]
    np.testing.assert_allclose(found, np.array(truth, float), rtol=1e-11)


def test_range_derivatives_below_threshold_are_zero_not_nan():
    for jacobian in (jax.jacfwd, jax.jacrev):
        slope = jacobian(lambda m: jnp.stack(kinematics.recoil_energy_range(30.0, CAESIUM, m)))(31.0)
        np.testing.assert_array_equal(slope, [0, 0])


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


def test_antineutrinos_swap_the_handedness_of_electrons():
    left, right = kinematics.SHAPES["electron_left"], kinematics.SHAPES["electron_right"]
    assert kinematics.crossed("electron_left") == kinematics.crossed(left) == right
    assert kinematics.crossed("electron_right") == kinematics.crossed(right) == left
    assert kinematics.crossed("electron_left", antineutrino=False) == left
    for name in set(kinematics.SHAPES) - {"electron_left", "electron_right"}:
        assert kinematics.crossed(name) == kinematics.crossed(name, False) == kinematics.SHAPES[name]
    with pytest.raises(UnknownNameError, match="Unknown kinematic shape 'electron-left'"):
        kinematics.crossed("electron-left")


def test_a_shape_of_its_own_may_know_the_mass_of_the_lepton():
    own = kinematics.Shape(lambda E, T, M, m: m / T, mass="m_4")
    assert kinematics.crossed(own) is own
    E, M, m = 40.0, CAESIUM, 20.0
    with mp.workdps(40):
        low, high = (float(x.real) for x in lorentz(E, M, m)[:2])
    T = np.array([low * (1 - 1e-6), low * (1 + 1e-6), 0.01, high * (1 - 1e-6), high * (1 + 1e-6)])
    found = kinematics.shape(own, E, T, M, m)
    np.testing.assert_allclose(found, np.where([False, True, True, True, False], m / T, 0), rtol=1e-15)
