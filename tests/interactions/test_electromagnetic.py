"""Electromagnetic properties of neutrinos against formulas written out in numpy."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import spherical_jn

from cevjax.electrons import Electron
from cevjax.errors import UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import (
    ChargeRadius,
    DipolePortal,
    MagneticMoment,
    Millicharge,
    StandardModel,
    TransitionMagneticMoment,
)
from cevjax.interactions.electromagnetic import pmns
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.rates import differential_cross_section

G_F, ALPHA, HBARC, S2W = 1.1663788e-11, 1 / 137.035999177, 197.3269804, 0.23857
M_E, M_W = 0.51099895069, 80369.2
LEPTONS = np.array([M_E, 105.6583755, 1776.93])
CM2 = (HBARC * 1e-13) ** 2
R_P, R_N = {"Cs133": 4.82, "Ar40": 3.45}, {"Cs133": 5.09, "Ar40": 3.55}
ENTRIES = {"ee": (0, 0), "mumu": (1, 1), "tautau": (2, 2), "emu": (0, 1), "etau": (0, 2), "mutau": (1, 2)}
FLAVOURS = ("e", "mu", "tau")
TARGETS = ("Cs133", "Ar40", "electron")
COUPLINGS = ("tree", "erler-su", "2023")
# energies by recoils: E in MeV, T in fractions of the end point (the last one beyond it)
ENERGIES, FRACTIONS = np.array([1.3, 16.0, 29.79, 52.0])[:, None], np.array([1e-5, 1e-3, 0.1, 0.6, 0.97, 1.01])


def bind(name):
    if name == "electron":
        return Electron()
    return BoundNucleus(nucleus(name), form_factor("helm"), jnp.asarray(R_P[name]), jnp.asarray(R_N[name]))


def mass(name):
    return M_E if name == "electron" else nucleus(name).mass


def helm(T, name, radius):
    k = np.sqrt(2 * mass(name) * T) / HBARC
    x = k * np.sqrt(5 / 3 * (radius**2 - 3 * 0.81))
    return 3 * spherical_jn(1, x) / x * np.exp(-0.405 * k**2)


def protons(T, name):
    return 1.0 if name == "electron" else nucleus(name).Z * helm(T, name, R_P[name])


def neutrons(T, name):
    return nucleus(name).N * helm(T, name, R_N[name])


def kinematics(name):
    last = 2 * ENERGIES**2 / (mass(name) + 2 * ENERGIES)
    return ENERGIES, FRACTIONS * last, FRACTIONS < 1


def section(interaction, params, name, E, T, antineutrino=False):
    return np.asarray(differential_cross_section(params, interaction, bind(name), E, T, antineutrino))


def couplings_of(model):
    """Couplings of the proton (e, mu, tau) and of the neutron, ``tree`` or ``erler-su`` (arXiv:2005.01645 eq. 5-7)."""
    aZ, sZ, log = 1 / 127.952, 0.23122, np.log(M_W**2 / LEPTONS**2)
    if model == "tree":
        return np.full(3, 0.5 - 2 * S2W), -0.5
    box = aZ / (4 * np.pi * sZ)
    proton = 1.00063 * (0.5 - 2 * S2W) - box * (1 - 2 * 0.123 / np.pi) + ALPHA / (6 * np.pi) * (3 + 2 * log)
    return proton, -1.00063 / 2 - box / 2 * (7 - 5 * 0.123 / np.pi)


def dipole(mu, name, E, T, inside):
    """pi alpha^2/m_e^2 (1/T - 1/E) Z^2 F^2 mu^2, cm^2/MeV."""
    return np.where(inside, np.pi * ALPHA**2 / M_E**2 * (1 / T - 1 / E) * protons(T, name) ** 2 * mu**2 * CM2, 0)


@pytest.mark.parametrize("name", TARGETS)
def test_magnetic_moments(name):
    mu = {"mu_nu_e": 3e-9, "mu_nu_mu": 5e-10, "mu_nu_tau": 7e-11}
    E, T, inside = kinematics(name)
    truth = [dipole(value, name, E, T, inside) for value in mu.values()]
    np.testing.assert_allclose(section(MagneticMoment(), mu, name, E, T), truth, rtol=1e-12)
    # antineutrinos have the same
    np.testing.assert_allclose(section(MagneticMoment(), mu, name, E, T, True), truth, rtol=1e-12)


@pytest.mark.parametrize("name", TARGETS)
def test_one_magnetic_moment_for_all(name):
    E, T, inside = kinematics(name)
    given = {"mu_nu_e": 3e-9, "mu_nu_mu": 5e-10, "mu_nu_tau": 0.0, "mu_nu": 2e-9}
    found = section(MagneticMoment(), given, name, E, T)
    np.testing.assert_allclose(found, [dipole(2e-9, name, E, T, inside)] * 3, rtol=1e-12)
    common = MagneticMoment().parameters[-1]
    assert (common.name, common.members) == ("mu_nu", ("mu_nu_e", "mu_nu_mu", "mu_nu_tau"))


@pytest.mark.parametrize("name", TARGETS)
def test_magnetic_moments_do_not_interfere(name):
    params = {"sin2_theta_w": S2W, "mu_nu_e": 3e-9, "mu_nu_mu": 5e-10, "mu_nu_tau": 7e-11}
    E, T, _ = kinematics(name)
    parts = [section(x, params, name, E, T) for x in (StandardModel(), MagneticMoment())]
    both = section(StandardModel() + MagneticMoment(), params, name, E, T)
    np.testing.assert_allclose(both, parts[0] + parts[1], rtol=1e-13)


def test_known_size_of_the_magnetic_cross_section():
    # pi alpha^2/m_e^2 = 2.495e-25 cm^2 (the classical electron radius squared times pi)
    E, T = 1e6, 1e-3
    found = section(MagneticMoment(), {"mu_nu_e": 1.0, "mu_nu_mu": 0.0, "mu_nu_tau": 0.0}, "electron", E, T)
    np.testing.assert_allclose(found[0] * T, np.pi * (2.8179403205e-13) ** 2, rtol=1e-8)
    np.testing.assert_array_equal(found[1:], 0)


def mixing():
    """PMNS matrix as a product of three rotations, NuFIT 6.0 (normal ordering, without Super-Kamiokande)."""
    (s12, s23, s13), d = np.sqrt([0.307, 0.561, 0.02195]), np.deg2rad(177)
    c12, c23, c13 = np.sqrt(1 - np.array([0.307, 0.561, 0.02195]))
    U23 = np.array([[1, 0, 0], [0, c23, s23], [0, -s23, c23]])
    U13 = np.array([[c13, 0, s13 * np.exp(-1j * d)], [0, 1, 0], [-s13 * np.exp(1j * d), 0, c13]])
    U12 = np.array([[c12, s12, 0], [-s12, c12, 0], [0, 0, 1]])
    return U23 @ U13 @ U12


def explicit_moments(moduli, phases, U):
    a, b, c = np.asarray(moduli) * np.exp(1j * np.asarray(phases))
    matrix = np.array([[0, c, -b], [-c, 0, a], [b, -a, 0]])  # epsilon_ijk Lambda_k
    return np.diag(U @ matrix.conj().T @ matrix @ U.conj().T).real


def found_moments(moduli, phases):
    names = [*(f"lambda_{k}" for k in "123"), *(f"zeta_{k}" for k in "123")]
    params = dict(zip(names, (*moduli, *phases), strict=True))
    return np.asarray(TransitionMagneticMoment().effective_moments_squared(params))


def test_mixing_matrix():
    np.testing.assert_allclose(pmns(), mixing(), rtol=0, atol=1e-15)
    np.testing.assert_allclose(pmns() @ pmns().conj().T, np.eye(3), rtol=0, atol=1e-15)
    other = pmns((0.3, 0.5, 0.02), 1.2)
    np.testing.assert_allclose(other.conj().T @ other, np.eye(3), rtol=0, atol=1e-15)
    # sin theta_13 e^{-i delta}, and the Jarlskog invariant c12 s12 c23 s23 c13^2 s13 sin delta
    np.testing.assert_allclose(other[0, 2], np.sqrt(0.02) * np.exp(-1.2j), rtol=1e-14)
    jarlskog = (other[0, 0] * other[1, 1] * other[0, 1].conj() * other[1, 0].conj()).imag
    truth = np.sqrt(0.3 * 0.7 * 0.5 * 0.5 * 0.02) * 0.98 * np.sin(1.2)
    np.testing.assert_allclose(jarlskog, truth, rtol=1e-13)


moduli_and_phases = hnp.arrays(float, 6, elements=st.floats(0, 1))


@given(x=moduli_and_phases)
@settings(max_examples=100, deadline=None)
def test_transition_moments_by_matrix_algebra(x):
    moduli, phases = 1e-9 * x[:3], 2 * np.pi * (2 * x[3:] - 1)
    found = found_moments(moduli, phases)
    np.testing.assert_allclose(found, explicit_moments(moduli, phases, mixing()), rtol=1e-13, atol=1e-32)
    # sum rule: tr(lambda^dagger lambda) = 2 sum |Lambda|^2
    np.testing.assert_allclose(found.sum(), 2 * np.sum(moduli**2), rtol=1e-14, atol=1e-40)  # mu_B^2
    # a phase common to all Lambdas has no effect
    np.testing.assert_allclose(found_moments(moduli, phases + 0.7), found, rtol=1e-13, atol=1e-32)
    assert np.all(found >= 0)


def test_relative_phases_matter():
    base, turned = (found_moments([1e-9] * 3, [0, 0, z]) for z in (0.0, 2.0))
    assert np.max(np.abs(turned / base - 1)) > 0.1


def test_transition_moments_of_one_mass_state():
    # Lambda_1 alone connects nu_2 and nu_3: mu_a^2 = |Lambda_1|^2 (1 - |U_a1|^2)
    found = found_moments([2e-9, 0, 0], [0.3, 0, 0])
    np.testing.assert_allclose(found, 4e-18 * (1 - abs(mixing()[:, 0]) ** 2), rtol=1e-13)


def test_transition_moments_between_flavours():
    model = TransitionMagneticMoment("flavour")
    assert [p.name for p in model.parameters] == ["lambda_e", "lambda_mu", "lambda_tau"]
    found = model.effective_moments_squared({"lambda_e": 3e-9, "lambda_mu": 2e-9, "lambda_tau": 1e-9})
    np.testing.assert_allclose(found, [5e-18, 10e-18, 13e-18], rtol=1e-14)  # mu_e^2 = L_mu^2 + L_tau^2 ...
    np.testing.assert_allclose(found, explicit_moments([3e-9, 2e-9, 1e-9], [0.1, 0.2, 0.3], np.eye(3)), rtol=1e-14)
    with pytest.raises(UnknownNameError, match="Did you mean 'flavour'"):
        TransitionMagneticMoment("flavor")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("basis", ["mass", "flavour"])
def test_transition_moments_act_as_effective_ones(name, basis):
    moduli, phases = np.array([3e-9, 1e-9, 2e-9]), np.array([0.5, -1.0, 2.0])
    U = mixing() if basis == "mass" else np.eye(3)
    names = [f"lambda_{k}" for k in ("123" if basis == "mass" else FLAVOURS)]
    params = dict(zip(names, moduli, strict=True))
    if basis == "mass":
        params |= dict(zip(("zeta_1", "zeta_2", "zeta_3"), phases, strict=True))
    E, T, inside = kinematics(name)
    truth = [dipole(np.sqrt(mu2), name, E, T, inside) for mu2 in explicit_moments(moduli, phases, U)]
    np.testing.assert_allclose(section(TransitionMagneticMoment(basis), params, name, E, T), truth, rtol=1e-12)


RADIUS = np.sqrt(2) * np.pi * ALPHA / (3 * G_F) / CM2  # of Q^CR by <r^2> in cm^2
STANDARD_RADII = -G_F * CM2 / (2 * np.sqrt(2) * np.pi**2) * (3 - 2 * np.log(LEPTONS**2 / M_W**2))


def radii(**values):
    return {"sin2_theta_w": S2W, **dict.fromkeys((f"r2_nu_{entry}" for entry in ENTRIES), 0.0), **values}


def nominal(interaction):
    return {p.name: p.nominal for p in interaction.parameters}


def test_charge_radii_of_the_standard_model():
    params = nominal(ChargeRadius())
    found = [params[f"r2_nu_{entry}"] for entry in ENTRIES]
    # published: arXiv:1810.05606 eq. 5-7
    np.testing.assert_allclose(found[:3], [-0.83e-32, -0.48e-32, -0.30e-32], rtol=0, atol=0.005e-32)
    np.testing.assert_allclose(found[:3], STANDARD_RADII, rtol=1e-12)
    assert found[3:] == [0, 0, 0]
    assert nominal(ChargeRadius("erler-su")) == params
    assert set(nominal(ChargeRadius("tree")).values()) == {0.0}
    with pytest.raises(UnknownNameError, match="Did you mean 'tree'"):
        ChargeRadius("treee")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("couplings", COUPLINGS)
@pytest.mark.parametrize("late", [False, True])
def test_nominal_charge_radii_are_exactly_the_standard_model(name, couplings, late):
    if late:
        model = (StandardModel() + ChargeRadius()).with_couplings(couplings)
    else:
        model = StandardModel(couplings) + ChargeRadius(couplings)
    E, T, _ = kinematics(name)
    params = nominal(model)
    np.testing.assert_array_equal(
        section(model, params, name, E, T), section(StandardModel(couplings), params, name, E, T)
    )


@pytest.mark.parametrize("couplings", ["erler-su", "2023"])
def test_without_a_charge_radius_the_couplings_lose_their_log(couplings):
    argon = BoundNucleus(nucleus("Ar40"), form_factor("point"), jnp.asarray(3.4), jnp.asarray(3.5))
    q = jnp.array(30.0)
    standard = np.diag(StandardModel(couplings).weak_charge({"sin2_theta_w": S2W}, argon, q))
    without = np.diag((StandardModel(couplings) + ChargeRadius(couplings)).weak_charge(radii(), argon, q))
    log = ALPHA / (6 * np.pi) * (3 - 2 * np.log(LEPTONS**2 / M_W**2))
    np.testing.assert_allclose((standard - without) / 18, log, rtol=1e-12)
    # nothing else knows the flavour
    np.testing.assert_allclose(without, np.full(3, without[0]), rtol=1e-14)


def symmetric(values):
    matrix = np.zeros((3, 3))
    for (b, a), value in zip(ENTRIES.values(), values, strict=True):
        matrix[b, a] = matrix[a, b] = value
    return matrix


@functools.cache
def compiled(kind, couplings, name, antineutrino=False):
    """Cross section of the standard model and six entries of a flavour matrix, jitted in them."""
    model, prefix = {"radius": (ChargeRadius(couplings), "r2_nu_"), "charge": (Millicharge(), "q_nu_")}[kind]
    E, T, _ = kinematics(name)

    @jax.jit
    def function(values):
        params = {"sin2_theta_w": S2W, **{prefix + entry: value for entry, value in zip(ENTRIES, values, strict=True)}}
        return differential_cross_section(params, StandardModel(couplings) + model, bind(name), E, T, antineutrino)

    return function


def nuclear_rate(name, shift, couplings="tree"):
    """G_F^2 M/pi sum_b |Q_ba|^2 (1 - MT/2E^2) where ``shift`` (3, 3, energies) is added to g_V^p."""
    E, T, inside = kinematics(name)
    proton, neutron = couplings_of(couplings)
    charge = np.multiply.outer(np.diag(proton), protons(T, name)) + shift * protons(T, name)
    charge += np.multiply.outer(np.eye(3), neutron * neutrons(T, name))
    rate = (charge**2).sum(axis=0) * (1 - mass(name) * T / (2 * E**2))
    return np.where(inside, G_F**2 * mass(name) / np.pi * CM2 * rate, 0)


def electron_rate(shift, antineutrino):
    """G_F^2 m/2pi [...] of each flavour, with the diagonal of ``shift`` added to g_V, and its transitions apart."""
    E, T, inside = kinematics("electron")
    total = []
    for a in range(3):
        half = 0.5 if a == 0 else -0.5
        g_V, g_A = 2 * S2W + half + shift[a, a], -half if antineutrino else half
        bracket = (g_V + g_A) ** 2 + (g_V - g_A) ** 2 * (1 - T / E) ** 2 - (g_V**2 - g_A**2) * M_E * T / E**2
        for b in {0, 1, 2} - {a}:
            bracket = bracket + shift[b, a] ** 2 * (1 + (1 - T / E) ** 2 - M_E * T / E**2)
        total.append(np.where(inside, G_F**2 * M_E / (2 * np.pi) * CM2 * bracket, 0))
    return np.array(total)


six = hnp.arrays(float, 6, elements=st.floats(-1, 1))


@pytest.mark.parametrize("couplings", ["tree", "erler-su"])
@pytest.mark.parametrize("name", ["Cs133", "Ar40"])
@given(x=six)
@settings(max_examples=40, deadline=None)
def test_charge_radii_on_nuclei(couplings, name, x):
    values = 1e-30 * x
    known = STANDARD_RADII if couplings == "erler-su" else np.zeros(3)
    shift = -RADIUS * (symmetric(values) - np.diag(known))
    T = kinematics(name)[1]
    truth = nuclear_rate(name, np.multiply.outer(shift, np.ones_like(T)), couplings)
    found = compiled("radius", couplings, name)(values)
    np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-13 * truth.max())


@pytest.mark.parametrize("antineutrino", [False, True])
@given(x=six)
@settings(max_examples=40, deadline=None)
def test_charge_radii_on_electrons(antineutrino, x):
    values = 1e-30 * x
    T = kinematics("electron")[1]
    for couplings, known in (("tree", np.zeros(3)), ("2023", STANDARD_RADII)):
        shift = RADIUS * (symmetric(values) - np.diag(known))
        truth = electron_rate(np.multiply.outer(shift, np.ones_like(T)), antineutrino)
        found = compiled("radius", couplings, "electron", antineutrino)(values)
        np.testing.assert_allclose(found, truth, rtol=1e-11, atol=1e-14 * truth.max())


def test_a_charge_radius_pulls_nuclei_and_electrons_in_opposite_directions():
    # on protons g_V^p - Q^CR, on electrons, of opposite charge, g_V + Q^CR
    model, q = ChargeRadius("tree"), jnp.array([20.0])
    params = radii(r2_nu_ee=-1e-32, r2_nu_mumu=2e-32)
    nuclear = np.asarray(model.weak_charge(params, bind("Cs133"), q))[..., 0]
    leptonic = np.asarray(model.electron_couplings(params, q).vector)[..., 0]
    shape = float(bind("Cs133").protons(20.0))
    np.testing.assert_allclose(nuclear, -shape * leptonic, rtol=1e-13)
    np.testing.assert_allclose(leptonic, RADIUS * np.diag([-1e-32, 2e-32, 0]), rtol=1e-12)
    assert not np.any(model.electron_couplings(params, q).axial)


@pytest.mark.parametrize("name", ["Cs133", "Ar40"])
@given(x=six)
@settings(max_examples=40, deadline=None)
def test_millicharges_on_nuclei(name, x):
    values = 1e-7 * x
    T = kinematics(name)[1]
    # Q^EC = 2 sqrt2 pi alpha q_nu/(G_F q^2) with q^2 = -2MT, subtracted from g_V^p
    ec = 2 * np.sqrt(2) * np.pi * ALPHA / (G_F * (-2 * mass(name) * T))
    truth = nuclear_rate(name, -np.multiply.outer(symmetric(values), ec))
    found = np.asarray(compiled("charge", "tree", name)(values))
    np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-13 * truth[np.isfinite(truth)].max())


@pytest.mark.parametrize("antineutrino", [False, True])
@given(x=six)
@settings(max_examples=40, deadline=None)
def test_millicharges_on_electrons(antineutrino, x):
    values = 1e-9 * x
    T = kinematics("electron")[1]
    ec = 2 * np.sqrt(2) * np.pi * ALPHA / (G_F * (-2 * M_E * T))
    truth = electron_rate(np.multiply.outer(symmetric(values), ec), antineutrino)
    found = np.asarray(compiled("charge", "tree", "electron", antineutrino)(values))
    # term by term, as they cancel in part: relative to the largest at this recoil
    scale = truth.max(axis=0) + G_F**2 * M_E * CM2
    np.testing.assert_allclose(found / scale, truth / scale, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["Cs133", "electron"])
def test_millicharges_grow_as_the_inverse_square_of_the_recoil(name):
    # transitions alone, on a flavour whose diagonal is the standard model; far below the end point only 1/T^2 is left
    E, T = 50.0, np.array([1e-9, 1e-8, 1e-7])
    params = {"sin2_theta_w": S2W, **dict.fromkeys((f"q_nu_{entry}" for entry in ENTRIES), 0.0), "q_nu_emu": 1e-9}
    both, plain = (section(x, params, name, E, T) for x in (StandardModel() + Millicharge(), StandardModel()))
    extra = (both - plain)[:2] / protons(T, name) ** 2
    np.testing.assert_allclose(extra * T**2 / (extra * T**2)[:, :1], 1, rtol=3e-5)
    np.testing.assert_array_equal(both[2], plain[2])
    # Rutherford: 2 pi alpha^2 q^2/(M T^2)
    np.testing.assert_allclose(extra[0] * T**2, 2 * np.pi * ALPHA**2 * 1e-18 / mass(name) * CM2, rtol=3e-5)


def test_electrons_bound_a_millicharge_two_orders_better():
    """The charge of nu_e that changes the visible counts of CsI by a tenth, on nuclei and on electrons."""
    x, w = np.polynomial.legendre.leggauss(40)

    def counts(name, q_nu, low, high):
        T = low * (high / low) ** ((x + 1) / 2)
        params = {"sin2_theta_w": S2W, **dict.fromkeys((f"q_nu_{entry}" for entry in ENTRIES), 0.0), "q_nu_ee": q_nu}
        spectrum = section(StandardModel() + Millicharge(), params, name, 35.0, T)[0]
        return np.sum(w / 2 * np.log(high / low) * T * spectrum)

    # nuclear recoils of 7 to 20 keV; electrons of 0.6 to 4.5 keV, of which about 64 are loose
    def nuclear(q_nu):
        return 2 * counts("Cs133", q_nu, 7e-3, 20e-3)

    def leptonic(q_nu):
        return 64 * counts("electron", q_nu, 0.6e-3, 4.5e-3)

    tenth = 0.1 * nuclear(0.0)
    on_nuclei = tenth / abs(nuclear(1e-9) - nuclear(0.0)) * 1e-9  # interference: linear
    on_electrons = np.sqrt(tenth / (leptonic(1e-8) - leptonic(0.0))) * 1e-8  # the square
    assert 30 < on_nuclei / on_electrons < 300


def upscattering(mu, m, name, E, T):
    """pi alpha^2/m_e^2 Z^2 F^2 mu^2 [...] of arXiv:1803.03262, anywhere."""
    M = mass(name)
    bracket = 1 / T - 1 / E - m**2 / (2 * E * T * M) * (1 - T / (2 * E) + M / (2 * E))
    bracket += m**4 * (T - M) / (8 * E**2 * T**2 * M**2)
    return np.pi * ALPHA**2 / M_E**2 * protons(T, name) ** 2 * mu**2 * bracket * CM2


def recoils(E, M, m):
    """Recoils that leave a lepton of mass m, by a boost from the centre of mass; None below the threshold."""
    with mp.workdps(50):
        E, M, m = mp.mpf(float(E)), mp.mpf(M), mp.mpf(m)
        root_s = mp.sqrt(M**2 + 2 * M * E)
        if root_s <= M + m:
            return None
        energy = (root_s**2 + M**2 - m**2) / (2 * root_s)
        p = mp.sqrt(energy**2 - M**2)
        return tuple(float((E + M) / root_s * energy + sign * E / root_s * p - M) for sign in (-1, 1))


PORTAL = {"mu_nu4_e": 3e-9, "mu_nu4_mu": 5e-10, "mu_nu4_tau": 7e-11}


@functools.cache
def portal(name):
    return jax.jit(lambda E, T, m: differential_cross_section({**PORTAL, "m_4": m}, DipolePortal(), bind(name), E, T))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("m", [0.1, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("E", [1.3, 16.0, 29.79, 52.0])
def test_dipole_portal(name, m, E):
    open_ = recoils(E, mass(name), m)
    if open_ is None:
        np.testing.assert_array_equal(portal(name)(E, np.geomspace(1e-9, 60, 105), m), np.zeros((3, 105)))
        return
    low, high = open_
    inside = low * (high / low) ** np.linspace(1e-9, 1 - 1e-9, 101)
    outside = [low * 1e-3, low * (1 - 1e-8), high * (1 + 1e-8), 10 * high]
    found = np.asarray(portal(name)(E, np.array([*inside, *outside]), m))
    truth = [upscattering(mu, m, name, E, inside) for mu in PORTAL.values()]
    np.testing.assert_allclose(found[:, :101], truth, rtol=1e-8)
    assert np.all(found[:, :101] > 0)
    np.testing.assert_array_equal(found[:, 101:], np.zeros((3, 4)))


def test_antineutrinos_scatter_alike_into_the_sterile_state():
    T = np.array([1e-3, 5e-3])
    both = [section(DipolePortal(), {**PORTAL, "m_4": 4.0}, "Cs133", 40.0, T, nu) for nu in (False, True)]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("name", TARGETS)
def test_dipole_portal_opens_at_its_least_energy(name):
    # the recoil T needs E >= (T + sqrt(T^2 + 2MT))/2 (1 + m^2/2MT), and nothing else
    m, M = 3.0, mass(name)
    T = {"electron": 4.0}.get(name, 1e-3)
    least = (T + np.sqrt(T**2 + 2 * M * T)) / 2 * (1 + m**2 / (2 * M * T))
    E = least * np.array([0.5, 1 - 1e-12, 1 + 1e-12, 2.0])
    assert [bool(x) for x in section(DipolePortal(), {**PORTAL, "m_4": m}, name, E, T)[0] > 0] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("name", ["Cs133", "electron"])
def test_a_light_sterile_state_has_a_magnetic_moment(name):
    E, T, _ = kinematics(name)
    magnetic = section(MagneticMoment(), {f"mu_nu_{f}": PORTAL[f"mu_nu4_{f}"] for f in FLAVOURS}, name, E, T)
    for m, rtol in ((0.0, 1e-13), (1e-6, 1e-5)):
        # to first order the difference is m^2/(4 E^2 T)
        found = section(DipolePortal(), {**PORTAL, "m_4": m}, name, E, T)
        np.testing.assert_allclose(found, magnetic, rtol=rtol)
    # and falls as the square of the mass
    small, large = (
        1 - section(DipolePortal(), {**PORTAL, "m_4": m}, name, E, T)[:, :, 2:5] / magnetic[:, :, 2:5]
        for m in (1e-2, 2e-2)
    )
    np.testing.assert_allclose(large / small, 4, rtol=1e-2)


@pytest.mark.parametrize("name", ["Cs133", "electron"])
@given(u=st.floats(0.001, 0.999), v=hnp.arrays(float, 30, elements=st.floats(1e-6, 1 - 1e-6)), E=st.floats(0.5, 300))
@settings(max_examples=50, deadline=None)
def test_the_dipole_portal_is_positive_wherever_it_is_open(name, u, v, E):
    M = mass(name)
    m = u * (np.sqrt(M**2 + 2 * M * E) - M)
    low, high = recoils(E, M, m)
    T = low * (high / low) ** v
    found = np.asarray(portal(name)(E, T, m))
    truth = upscattering(3e-9, m, name, E, T)
    # what cancels in the bracket is of the order of 1/T + m^2/(4 E^2 T)
    size = np.pi * ALPHA**2 / M_E**2 * protons(T, name) ** 2 * 9e-18 * CM2 * (1 / T + m**2 / (4 * E**2 * T))
    np.testing.assert_allclose(found[0] / size, truth / size, rtol=0, atol=1e-12)
    assert np.all(truth / size > -1e-12)  # nowhere does the floor at zero act
    assert np.all(found >= 0)


def test_derivative_of_the_dipole_portal_in_the_mass():
    E, m = 40.0, 12.0
    low, high = recoils(E, mass("Cs133"), m)
    T = np.array([2 * low, 0.5 * high])
    slope = jax.jacfwd(lambda m: portal("Cs133")(E, T, m))(m)
    h = 1e-3
    truth = [
        (upscattering(mu, m + h, "Cs133", E, T) - upscattering(mu, m - h, "Cs133", E, T)) / (2 * h)
        for mu in PORTAL.values()
    ]
    np.testing.assert_allclose(slope, truth, rtol=1e-6)
