"""Electrons as targets: shells of the atoms, and neutrino-electron scattering against formulas written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import quad

from cevjax.electrons import ELEMENTS, Electron, binding_energies, effective_charge, electrons_of
from cevjax.errors import UnknownNameError
from cevjax.fluxes import PionDecayAtRest
from cevjax.interactions import ElectronCouplings, Interaction, StandardModel
from cevjax.nuclei import target
from cevjax.rates import differential_cross_section, recoil_spectrum

G_F, HBARC, M_E, S2W = 1.1663788e-11, 197.3269804, 0.51099895069, 0.23857
UNIT = G_F**2 * M_E / (2 * np.pi) * (HBARC * 1e-13) ** 2  # cm^2/MeV
NUMBERS = {"Na": 11, "Si": 14, "Ar": 18, "Ge": 32, "I": 53, "Xe": 54, "Cs": 55}
# electrons above each binding energy (keV, X-Ray Data Booklet): the steps of arXiv:2205.09484 and arXiv:2202.11002
STEPS = {
    "Cs": {
        35.985: 55, 5.714: 53, 5.359: 51, 5.012: 49, 1.211: 45, 1.071: 43, 1.003: 41, 0.7405: 37, 0.7266: 33,
        0.2323: 27, 0.1724: 25, 0.1613: 23, 0.0798: 19,
    },
    "I": {
        33.169: 53, 5.188: 51, 4.852: 49, 4.557: 47, 1.072: 43, 0.931: 41, 0.875: 39, 0.6308: 35, 0.6193: 31, 0.186: 25,
    },
    "Ge": {
        11.103: 32, 1.4146: 30, 1.2481: 28, 1.2170: 26, 0.1801: 22, 0.1249: 20, 0.1208: 18, 0.0298: 14, 0.0292: 10,
        0.01: 4,
    },
}  # fmt: skip
FLAVOURS = ("e", "mu", "tau")


@pytest.mark.parametrize("symbol", STEPS)
def test_published_effective_charges(symbol):
    energies, numbers = (np.array(list(x)) for x in (STEPS[symbol], STEPS[symbol].values()))
    np.testing.assert_array_equal(effective_charge(symbol, 1e-3 * energies * (1 + 1e-9)), numbers)
    # each holds up to the next step
    np.testing.assert_array_equal(effective_charge(symbol, 1e-3 * energies[:-1] * (1 - 1e-9)), numbers[1:])


def test_every_element_is_checked():
    assert set(NUMBERS) == set(ELEMENTS)


@pytest.mark.parametrize(("symbol", "Z"), NUMBERS.items())
def test_effective_charge_grows_to_the_atomic_number(symbol, Z):
    assert int(effective_charge(symbol, 0.05)) == int(effective_charge(symbol, 50.0)) == Z
    energy = np.concatenate([[0.0], np.geomspace(1e-7, 0.1, 2001)])
    charge = np.asarray(effective_charge(symbol, energy))
    assert np.all(np.diff(charge) >= 0)
    assert 0 <= charge[0] < Z
    assert charge[np.searchsorted(energy, binding_energies(symbol)[0])] == Z
    # the two of the innermost shell are the last that are freed
    assert int(effective_charge(symbol, binding_energies(symbol)[0] * (1 - 1e-9))) == Z - 2


@pytest.mark.parametrize("symbol", NUMBERS)
def test_steps_are_where_the_binding_energies_are(symbol):
    for energy in binding_energies(symbol):
        below, at = effective_charge(symbol, np.array([energy * (1 - 1e-12), energy]))
        assert below < at
    edges = np.unique(binding_energies(symbol))
    between = np.sqrt(edges[1:] * edges[:-1])
    inside = [effective_charge(symbol, e) for e in (edges[:-1], between, np.nextafter(edges[1:], 0))]
    np.testing.assert_array_equal(inside[0], inside[1])
    np.testing.assert_array_equal(inside[1], inside[2])


def test_unknown_shells():
    for function in (binding_energies, lambda symbol: effective_charge(symbol, 1.0)):
        with pytest.raises(UnknownNameError, match="Unknown element with known atomic shells 'W'"):
            function("W")
    with pytest.raises(UnknownNameError, match="'C'"):
        electrons_of(target("C3F8"), 1.0, np.array([1e-3]))


def test_electrons_of_a_compound():
    energy = 1e-3 * np.array([0.5, 1.1, 5.5, 34.0, 40.0])
    charges = np.array([27 + 25, 43 + 43, 51 + 51, 53 + 53, 55 + 53])
    units = 14_600 / (132.905452 + 126.904473) * 6.02214076e23
    np.testing.assert_allclose(electrons_of(target("CsI"), 14.6, energy), units * charges, rtol=1e-9)


def test_electrons_of_an_isotopic_mixture():
    # the number of germanium atoms, whatever the isotopes
    found = electrons_of(target("Ge"), 3.0, 1e-3 * np.array([0.5, 1.23, 20.0]))
    np.testing.assert_allclose(found, 3000 / 72.63 * 6.02214076e23 * np.array([22, 26, 32]), rtol=1e-4)


def standard_couplings(flavour, antineutrino):
    half = 0.5 if flavour == "e" else -0.5
    return 2 * S2W + half, -half if antineutrino else half


def literal(g_V, g_A, E, T):
    bracket = (g_V + g_A) ** 2 + (g_V - g_A) ** 2 * (1 - T / E) ** 2 - (g_V**2 - g_A**2) * M_E * T / E**2
    return np.where(2 * E**2 / (M_E + 2 * E) > T, UNIT * bracket, 0)


def standard_model(E, T, antineutrino=False, s2w=S2W):
    return differential_cross_section({"sin2_theta_w": s2w}, StandardModel(), Electron(), E, T, antineutrino)


@pytest.mark.parametrize("antineutrino", [False, True])
def test_standard_model(antineutrino):
    E, T = np.array([0.3, 1.0, 8.0, 29.79, 52.0])[:, None], np.array([1e-6, 1e-3, 0.05, 0.2, 3.0, 25.0])
    found = np.asarray(standard_model(E, T, antineutrino))
    truth = [literal(*standard_couplings(flavour, antineutrino), E, T) for flavour in FLAVOURS]
    np.testing.assert_allclose(found, truth, rtol=1e-12)
    beyond = 2 * E**2 / (M_E + 2 * E) < T
    assert np.any(beyond) and np.all(found[:, beyond] == 0) and np.all(found[:, ~beyond] > 0)


def test_radiative_couplings_are_of_nuclei():
    E, T = 30.0, np.array([1e-3, 1.0])
    for couplings in ("tree", "erler-su", "2023"):
        found = differential_cross_section({"sin2_theta_w": S2W}, StandardModel(couplings), Electron(), E, T)
        np.testing.assert_array_equal(found, standard_model(E, T))


def total(E, antineutrino, s2w=S2W):
    """cevjax integrated over the recoil: 8 Gauss-Legendre nodes for a quadratic polynomial."""
    x, w = np.polynomial.legendre.leggauss(8)
    last = 2 * E**2 / (M_E + 2 * E)
    return np.asarray(standard_model(E, last * (x + 1) / 2, antineutrino, s2w)) @ w * last / 2


@pytest.mark.parametrize("E", [0.1, 1.0, 29.79, 52.83])
@pytest.mark.parametrize("antineutrino", [False, True])
def test_total_cross_sections(E, antineutrino):
    # int_0^last of the three terms: last, E/3 (1 - (1 - last/E)^3), last^2/(2 E^2)
    last = 2 * E**2 / (M_E + 2 * E)
    truth = []
    for flavour in FLAVOURS:
        g_V, g_A = standard_couplings(flavour, antineutrino)
        right = E / 3 * (1 - (M_E / (M_E + 2 * E)) ** 3)
        quadratic = M_E * last**2 / (2 * E**2)
        truth.append(UNIT * ((g_V + g_A) ** 2 * last + (g_V - g_A) ** 2 * right - (g_V**2 - g_A**2) * quadratic))
    np.testing.assert_allclose(total(E, antineutrino), truth, rtol=1e-12)


@pytest.mark.parametrize(("antineutrino", "published"), [(False, [93, 15, 15]), (True, [39, 13, 13])])
def test_published_total_cross_sections(antineutrino, published):
    # 1e-46 cm^2 s/MeV^2 far above the electron mass, sin^2 theta_W = 0.23 (Giunti & Kim 2007, table 5.2)
    E = 1e4
    s = M_E**2 + 2 * M_E * E
    np.testing.assert_allclose(total(E, antineutrino, 0.23) / (1e-46 * s), published, rtol=0, atol=0.5)


class Couplings(Interaction):
    """Any couplings, as one array of 36 numbers: real and imaginary parts of g_V and g_A."""

    name = "couplings"
    values: jax.Array

    def electron_couplings(self, params, q):
        real, imaginary = self.values.reshape(2, 2, 3, 3)
        g = jnp.multiply.outer(real + 1j * imaginary, jnp.ones_like(q))
        return ElectronCouplings(g[0], g[1])


@functools.cache
def compiled(antineutrino):
    return jax.jit(
        lambda values, E, T: differential_cross_section({}, Couplings(values), Electron(), E, T, antineutrino)
    )


@pytest.mark.parametrize("antineutrino", [False, True])
@given(
    values=hnp.arrays(float, 36, elements=st.floats(-2, 2)),
    u=hnp.arrays(float, 50, elements=st.floats(0, 1)),
    v=hnp.arrays(float, 50, elements=st.floats(0, 1.2)),
)
@settings(max_examples=60, deadline=None)
def test_any_couplings(antineutrino, values, u, v):
    E = 0.05 * 2e3**u
    last = 2 * E**2 / (M_E + 2 * E)
    T = last * np.maximum(v, 1e-9)
    found = np.asarray(compiled(antineutrino)(values, E, T))
    g_V, g_A = (values[:18] + 1j * values[18:]).reshape(2, 3, 3)
    g_A = -g_A if antineutrino else g_A
    left, right, cross = (
        np.sum(x, axis=0)[:, None] for x in (abs(g_V + g_A) ** 2, abs(g_V - g_A) ** 2, abs(g_V) ** 2 - abs(g_A) ** 2)
    )
    bracket = left + right * (1 - T / E) ** 2 - cross * M_E * T / E**2
    clear = abs(T / last - 1) > 1e-9
    truth = np.where(last > T, UNIT * bracket, 0)
    np.testing.assert_allclose(
        found[:, clear], truth[:, clear], rtol=1e-12, atol=1e-14 * UNIT * (left + right).max() + 1e-300
    )
    assert np.all(found >= 0)


def test_handedness():
    # a purely left-handed coupling: flat for neutrinos, (1 - T/E)^2 for antineutrinos
    E, T = 20.0, np.array([0.01, 5.0, 15.0])
    values = jnp.zeros((2, 2, 3, 3)).at[0].set(0.7 * jnp.eye(3)).ravel()
    np.testing.assert_allclose(compiled(False)(values, E, T), np.full((3, 3), UNIT * 1.96), rtol=1e-13)
    flipped = compiled(True)(values, E, T)
    np.testing.assert_allclose(flipped, np.tile(UNIT * 1.96 * (1 - T / E) ** 2, (3, 1)), rtol=1e-13)


def test_derivative_in_the_weak_mixing_angle():
    E, T = 30.0, np.array([1e-3, 1.0, 20.0])
    slope = jax.jit(jax.jacfwd(lambda s2w: standard_model(E, T, s2w=s2w)))(S2W)
    for found, flavour in zip(np.asarray(slope), FLAVOURS, strict=True):
        g_V, g_A = standard_couplings(flavour, False)
        truth = 2 * (2 * (g_V + g_A) + 2 * (g_V - g_A) * (1 - T / E) ** 2 - 2 * g_V * M_E * T / E**2)
        np.testing.assert_allclose(found, UNIT * truth, rtol=1e-12)


def test_spectrum_of_electrons_meets_its_shape_by_component():
    """The handedness of each flux component reaches the recoil spectrum."""
    m = 105.6583755
    line, end = (139.57039**2 - m**2) / (2 * 139.57039), m / 2
    densities = {"e": lambda E: 192 * E**2 / m**3 * (0.5 - E / m), "mu": lambda E: 64 * E**2 / m**3 * (0.75 - E / m)}
    T = np.array([1e-3, 0.5, 10.0, 29.0, 40.0, 52.0])

    def average(flavour, antineutrino, t):
        least = (t + np.sqrt(t**2 + 2 * M_E * t)) / 2
        g = standard_couplings(flavour, antineutrino)
        return quad(lambda E: densities[flavour](E) * literal(*g, E, t), least, end, epsabs=0, epsrel=1e-12)[0]

    truth = [
        literal(*standard_couplings("mu", False), line, T),
        [average("e", False, t) for t in T],
        [average("mu", True, t) for t in T],
    ]
    spectrum = jax.jit(
        lambda t: recoil_spectrum({"sin2_theta_w": S2W}, StandardModel(), PionDecayAtRest(), Electron(), t)
    )
    np.testing.assert_allclose(spectrum(T), truth, rtol=1e-11)
