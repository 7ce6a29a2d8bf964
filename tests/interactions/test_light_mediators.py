"""Light mediators against their formulas written out in numpy, and in mpmath at 50 digits."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.special import spherical_jn

from cevjax.electrons import Electron
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import (
    NSI,
    Axial,
    Generalized,
    LightAxial,
    LightScalar,
    LightTensor,
    LightVector,
    NucleonCharges,
    StandardModel,
    strengths,
)
from cevjax.interactions.light_mediators import vacuum_polarisation
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.rates import differential_cross_section

G_F, ALPHA, HBARC = 1.1663788e-11, 1 / 137.035999177, 197.3269804
M_E, M_LEPTON = 0.51099895069, {"e": 0.51099895069, "mu": 105.6583755, "tau": 1776.93}
S2W, G_A = 0.23857, 1.2756
R_P, R_N = 4.7, 5.0
NUCLEI = {"Cs133": (55, 78), "I127": (53, 74), "Ar40": (18, 22)}
FLAVOURS = ("e", "mu", "tau")
Q = np.array([0.01, 1.0, 7.0, 30.0, 60.0, 110.0])
MASSES = [1e-3, 0.1, 5.0, 50.0, 1e3, 1e6]

# charges of u, d, e, mu, tau
CHARGES = {
    "universal": (1, 1, 1, 1, 1),
    "b-l": (1 / 3, 1 / 3, -1, -1, -1),
    "b-3le": (1 / 3, 1 / 3, -3, 0, 0),
    "b-3lmu": (1 / 3, 1 / 3, 0, -3, 0),
    "b-2le-lmu": (1 / 3, 1 / 3, -2, -1, 0),
    "b-le-2lmu": (1 / 3, 1 / 3, -1, -2, 0),
    "by+lmu+ltau": (1 / 3, 1 / 3, 0, 1, 1),
    "le-lmu": (0, 0, 1, -1, 0),
    "le-ltau": (0, 0, 1, 0, -1),
    "lmu-ltau": (0, 0, 0, 1, -1),
}
LEPTONIC = {"le-lmu": ("e", "mu"), "le-ltau": ("e", "tau"), "lmu-ltau": ("mu", "tau")}
WITH_QUARKS = [model for model in CHARGES if model not in LEPTONIC]

# scalar charges of proton and neutron (f_q of arXiv:1506.04142, PDG quark masses), and the tensor charge of both
SCALAR = (938.27208943 * (0.0208 / 2.16 + 0.0411 / 4.70), 939.56542194 * (0.0189 / 2.16 + 0.0451 / 4.70))
TENSOR = 0.784 - 0.204
# J, spin of the protons, spin of the neutrons
SPINS = {
    "Cs133": (7 / 2, -0.225, 0.002),
    "I127": (5 / 2, 0.342, 0.031),
    "Ge73": (9 / 2, 0.031, 0.439),
    "F19": (1 / 2, 0.478, -0.002),
}


def bound(name, model="helm", R_p=R_P, R_n=R_N):
    return BoundNucleus(nucleus(name), form_factor(model), jnp.asarray(R_p), jnp.asarray(R_n))


def helm(q, radius, s=0.9):
    x = q / HBARC * (5 / 3 * (radius**2 - 3 * s**2)) ** 0.5
    return 3 * spherical_jn(1, x) / x * np.exp(-((q * s / HBARC) ** 2) / 2)


def vector_params(model, m, g, **values):
    quarks = dict(zip(("charge_u", "charge_d", "charge_e", "charge_mu", "charge_tau"), CHARGES[model], strict=True))
    return {"sin2_theta_w": S2W, "m_zprime": m, "g_zprime": g, **(quarks if model in WITH_QUARKS else {}), **values}


def over_weak(g, q, m):
    """g^2/(sqrt2 G_F (q^2 + m^2)): the exchange of a boson in units of the weak interaction."""
    return g**2 / (np.sqrt(2) * G_F * (q**2 + m**2))


def coupling_for(size, m, q=30.0):
    """The coupling at which that is ``size`` at ``q``."""
    return float(np.sqrt(size * np.sqrt(2) * G_F * (q**2 + m**2)))


def on_nucleus(name, E, T, charges, axial=0.0, scalar=0.0, tensor=0.0):
    """dsigma/dT in cm^2/MeV from the strengths of each kind, inside the phase space."""
    M = nucleus(name).mass
    y = M * T / E**2
    total = charges**2 * (1 - y / 2) + axial**2 * (1 + y / 2) + scalar**2 * y / 2 + tensor**2 * (1 - y / 4)
    return G_F**2 * M / np.pi * (HBARC * 1e-13) ** 2 * total


def on_electron(E, T, gV, gA, antineutrino):
    gA = -gA if antineutrino else gA
    total = (gV + gA) ** 2 + (gV - gA) ** 2 * (1 - T / E) ** 2 - (gV**2 - gA**2) * M_E * T / E**2
    return G_F**2 * M_E / (2 * np.pi) * (HBARC * 1e-13) ** 2 * total


def standard_charge(name, q):
    Z, N = NUCLEI[name]
    return (0.5 - 2 * S2W) * Z * helm(q, R_P) - 0.5 * N * helm(q, R_N)


def recoils(mass, E):
    return np.array([1e-4, 0.01, 0.1, 0.5, 0.9, 0.999]) * 2 * E**2 / (mass + 2 * E)


@functools.cache
def loop(b, a, q, digits=30):
    """int x(1-x) ln[(m_b^2 + x(1-x) q^2)/(m_a^2 + x(1-x) q^2)] dx."""
    with mp.workdps(digits):
        m_b, m_a, q = (mp.mpf(x) for x in (M_LEPTON[b], M_LEPTON[a], q))

        def integrand(x):
            y = x * (1 - x)
            return y * mp.log((m_b**2 + y * q**2) / (m_a**2 + y * q**2))

        return float(2 * mp.quad(integrand, [0, 1e-6, 1e-3, 0.1, 0.5]))


def loop_shift(model, m, g, q):
    """Shift of the proton coupling, for each flavour: eq. 13 of arXiv:2202.11002."""
    alpha, beta = LEPTONIC[model]
    factor = np.sqrt(2) * ALPHA * g**2 / (np.pi * G_F * (q**2 + m**2))
    shift = dict.fromkeys(FLAVOURS, 0.0 * q)
    shift[alpha] = factor * np.array([loop(beta, alpha, float(x)) for x in q])
    shift[beta] = factor * np.array([loop(alpha, beta, float(x)) for x in q])
    return np.stack([shift[flavour] for flavour in FLAVOURS])


def diagonal(charge):
    return np.stack([np.diag(column) for column in np.asarray(charge).T], axis=-1)


# vector: charges of quarks


@pytest.mark.parametrize("model", WITH_QUARKS)
@pytest.mark.parametrize("name", NUCLEI)
def test_vector_charge(model, name):
    (Z, N), (u, d, *leptons) = NUCLEI[name], CHARGES[model]
    for m in (0.01, 25.0, 3e4):
        g = coupling_for(0.2, m)
        found = LightVector(model).weak_charge(vector_params(model, m, g), bound(name), jnp.asarray(Q))
        inner = (2 * u + d) * Z * helm(Q, R_P) + (u + 2 * d) * N * helm(Q, R_N)
        truth = np.multiply.outer(leptons, over_weak(g, Q, m) * inner)
        np.testing.assert_allclose(found, diagonal(truth), rtol=1e-13)


@pytest.mark.parametrize("model", WITH_QUARKS)
def test_vector_cross_section_on_nuclei(model):
    E, name, (u, d, *leptons) = 45.0, "I127", CHARGES[model]
    M, (Z, N) = nucleus(name).mass, NUCLEI[name]
    T = recoils(M, E)
    q = np.sqrt(2 * M * T)
    for m, size in ((0.5, 0.01), (40.0, 0.1), (1e5, 1.0)):
        g = coupling_for(size, m)
        own = over_weak(g, q, m) * ((2 * u + d) * Z * helm(q, R_P) + (u + 2 * d) * N * helm(q, R_N))
        truth = [on_nucleus(name, E, T, standard_charge(name, q) + Qa * own) for Qa in leptons]
        interaction = StandardModel("tree") + LightVector(model)
        found = differential_cross_section(vector_params(model, m, g), interaction, bound(name), E, T)
        np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize("antineutrino", [False, True])
@pytest.mark.parametrize("model", CHARGES)
def test_vector_cross_section_on_electrons(model, antineutrino):
    E, (_, _, *leptons) = 15.0, CHARGES[model]
    T = recoils(M_E, E)
    q = np.sqrt(2 * M_E * T)
    for m in (0.02, 3.0, 1e3):
        g = coupling_for(0.3, m, q=2.0)
        shift = np.multiply.outer(leptons, leptons[0] * over_weak(g, q, m))
        if model in LEPTONIC:
            shift = shift - loop_shift(model, m, g, q)
        sign = np.array([0.5, -0.5, -0.5])
        truth = [on_electron(E, T, 2 * S2W + h + s, h, antineutrino) for h, s in zip(sign, shift, strict=True)]
        params, interaction = vector_params(model, m, g), StandardModel("tree") + LightVector(model)
        found = differential_cross_section(params, interaction, Electron(), E, T, antineutrino=antineutrino)
        np.testing.assert_allclose(found, truth, rtol=1e-12)


def test_own_vector_charges():
    own = {"charge_u": 0.7, "charge_d": -0.4, "charge_e": 0.5, "charge_mu": -1.3, "charge_tau": 2.0}
    m, g = 20.0, coupling_for(0.2, 20.0)
    Z, N = NUCLEI["Cs133"]
    params = vector_params("universal", m, g, **own)
    inner = (2 * 0.7 - 0.4) * Z * helm(Q, R_P) + (0.7 - 2 * 0.4) * N * helm(Q, R_N)
    truth = np.multiply.outer([0.5, -1.3, 2.0], over_weak(g, Q, m) * inner)
    found = LightVector().weak_charge(params, bound("Cs133"), jnp.asarray(Q))
    np.testing.assert_allclose(found, diagonal(truth), rtol=1e-13)
    electrons = LightVector().electron_couplings(params, jnp.asarray(Q))
    truth = np.multiply.outer([0.5, -1.3, 2.0], 0.5 * over_weak(g, Q, m))
    np.testing.assert_allclose(electrons.vector, diagonal(truth), rtol=1e-13)
    assert np.all(np.asarray(electrons.axial) == 0)


@pytest.mark.parametrize("model", WITH_QUARKS)
def test_nominal_charges_are_those_of_the_model(model):
    names = ["m_zprime", "g_zprime", "charge_u", "charge_d", "charge_e", "charge_mu", "charge_tau"]
    parameters = LightVector(model).parameters
    assert [p.name for p in parameters] == names
    assert [p.nominal for p in parameters[2:]] == pytest.approx(CHARGES[model], rel=1e-15)


def test_vector_derivatives():
    # Q ~ g^2/(q^2 + m^2): dQ/dg = 2Q/g, dQ/dm = -2mQ/(q^2 + m^2)
    def charge(x, q):
        params = vector_params("b-l", x[0], x[1])
        return LightVector("b-l").weak_charge(params, bound("Cs133"), q)[0, 0]

    slopes = jax.jacfwd(charge)
    for q, m, g in [(40.0, 25.0, 1e-4), (1.0, 1e-3, 3e-6), (60.0, 1e6, 2.0)]:
        value = charge(jnp.array([m, g]), jnp.asarray(q))
        truth = np.array([-2 * m / (q**2 + m**2), 2 / g]) * float(value)
        np.testing.assert_allclose(slopes(jnp.array([m, g]), jnp.asarray(q)), truth, rtol=1e-12)
    np.testing.assert_array_equal(slopes(jnp.array([25.0, 0.0]), jnp.asarray(40.0)), [0.0, 0.0])
    assert np.all(np.isfinite(slopes(jnp.array([0.0, 1e-5]), jnp.asarray(0.0))))


# limits


@pytest.mark.parametrize("model", WITH_QUARKS)
def test_heavy_vector_is_a_contact_interaction(model):
    u, d, *leptons = CHARGES[model]
    q, size, m = jnp.array([1e-3, 10.0, 50.0]), 0.4, 1e6
    found = LightVector(model).weak_charge(vector_params(model, m, coupling_for(size, m, 0.0)), bound("Cs133"), q)
    eps = {f"eps_{quark}V_{pair}": 0.0 for quark in "ud" for pair in ("emu", "etau", "mutau")}
    for quark, charge in (("u", u), ("d", d)):
        eps.update({f"eps_{quark}V_{2 * a}": size * charge * Qa for a, Qa in zip(FLAVOURS, leptons, strict=True)})
    np.testing.assert_allclose(found, NSI().weak_charge(eps, bound("Cs133"), q), rtol=1e-8)


@pytest.mark.parametrize("charges", ["2211.11905", "1711.09773"])
def test_heavy_scalar_and_tensor_are_contact_interactions(charges):
    # C = sqrt2 g^2/(G_F m^2)
    q, C, m = jnp.array([1e-3, 10.0, 50.0]), 0.06, 1e6
    g = (C * G_F / np.sqrt(2)) ** 0.5 * m
    params = {"C_V": 0.0, "C_S": C, "C_T": C, "m_phi": m, "g_phi": g, "m_tensor": m, "g_tensor": g}
    contact = Generalized(charges).incoherent_terms(params, bound("Cs133"), q)
    found = (LightScalar(charges) + LightTensor(charges)).incoherent_terms(params, bound("Cs133"), q)
    assert set(found) == {"scalar", "tensor"}
    for shape, strength in found.items():
        assert np.all(np.asarray(strength) > 0)
        np.testing.assert_allclose(strength, contact[shape], rtol=1e-8)


def many_digits(g, q, m, charge):
    """g^2 charge/(sqrt2 G_F (q^2 + m^2)) at 50 digits."""
    with mp.workdps(50):
        g, q, m = (mp.mpf(float(x)) for x in (g, q, m))
        return float(g**2 * mp.mpf(charge) / (mp.sqrt(2) * mp.mpf("1.1663788e-11") * (q**2 + m**2)))


@pytest.mark.parametrize("m", [0.0, *MASSES])
def test_accuracy_at_every_mass(m):
    # from 1 keV to 1 TeV, and massless
    point, size = bound("Cs133", "point"), 0.3
    g = max(coupling_for(size, m), 1e-9)
    truth = np.array([many_digits(g, x, m, 1) for x in Q])
    params = vector_params("universal", m, g, m_phi=m, g_phi=g, m_tensor=m, g_tensor=g, m_axial=m, g_axial=g)
    vector = LightVector().weak_charge(params, point, jnp.asarray(Q))
    np.testing.assert_allclose(vector[1, 1], 399 * truth, rtol=1e-12)
    scalar = LightScalar("1711.09773").incoherent_terms(params, point, jnp.asarray(Q))["scalar"]
    np.testing.assert_allclose(scalar, [(1922.5 * truth) ** 2 / 2] * 3, rtol=1e-12)
    tensor = LightTensor().incoherent_terms(params, point, jnp.asarray(Q))["tensor"]
    np.testing.assert_allclose(tensor, [8 * (133 * 0.58 * truth) ** 2] * 3, rtol=1e-12)
    axial = LightAxial().axial_charge(params, point, jnp.asarray(Q))
    np.testing.assert_allclose(axial[1, 1], 2 * (4.5 / 10.5) ** 0.5 * 0.44 * -0.223 * truth, rtol=1e-12)
    electron = LightVector().electron_couplings(params, jnp.asarray(Q)).vector
    np.testing.assert_allclose(electron[1, 1], truth, rtol=1e-12)


@pytest.mark.parametrize(("name", "Z", "N"), [("Cs133", 55, 78), ("I127", 53, 74)])
@pytest.mark.parametrize("flavour", ["e", "mu"])
def test_universal_cancellation_and_mirror(name, Z, N, flavour):
    # heavier than the momentum transfer, 3 g^2 A/(sqrt2 G_F m^2) = -Q cancels the standard model and -2Q mirrors it
    proton, neutron = {"e": 0.0382, "mu": 0.0300}[flavour], -0.5117
    ratio = np.sqrt(-(Z * proton + N * neutron) * np.sqrt(2) * G_F / (3 * (Z + N)))
    # exactly 1.25e-6 and 1.77e-6 m/MeV; published to one digit as 2e-6, and over sqrt2 as 1.4e-6
    np.testing.assert_allclose((ratio, np.sqrt(2) * ratio), (1.25e-6, 1.77e-6), rtol=0.01)
    assert float(f"{np.sqrt(2) * ratio:.0e}") == 2e-6
    m, q, a = 1e5, jnp.array([5.0, 20.0, 50.0]), FLAVOURS.index(flavour)
    same = bound(name, R_p=4.8, R_n=4.8)

    def rate(g):
        both = StandardModel("2023") + LightVector()
        return np.asarray(strengths(both, vector_params("universal", m, g * m), same, q)["vector"])[a]

    # four decimals of the published couplings fix the charge to 1e-4
    assert np.all(rate(ratio) < 1e-7 * rate(0.0))
    np.testing.assert_allclose(rate(np.sqrt(2) * ratio), rate(0.0), rtol=1e-3)
    assert np.all(np.abs(rate(1.2 * np.sqrt(2) * ratio) / rate(0.0) - 1) > 0.5)


def test_universal_cancellation_is_exact_at_tree_level():
    Z, N, m = 55, 78, 1e6
    standard = (0.5 - 2 * S2W) * Z - 0.5 * N
    g = np.sqrt(-standard * np.sqrt(2) * G_F / (3 * (Z + N))) * m
    same, q = bound("Cs133", R_p=4.8, R_n=4.8), jnp.array([1.0, 20.0, 50.0])

    def rate(g):
        return strengths(StandardModel("tree") + LightVector(), vector_params("universal", m, g), same, q)["vector"]

    assert np.all(np.asarray(rate(g)) < 1e-16 * np.asarray(rate(0.0)))
    np.testing.assert_allclose(rate(np.sqrt(2) * g), rate(0.0), rtol=2e-8)


def test_b_minus_l_adds_to_the_standard_model():
    # opposite charges of quarks and leptons: no cancellation at any coupling
    found = [
        strengths(
            StandardModel("tree") + LightVector("b-l"),
            vector_params("b-l", 100.0, g),
            bound("Cs133"),
            jnp.asarray(30.0),
        )["vector"]
        for g in (0.0, 1e-5, 1e-4, 1e-3)
    ]
    assert np.all(np.diff(np.asarray(found), axis=0) > 0)


# vector: loops


@pytest.mark.parametrize("model", LEPTONIC)
def test_loop_induced_charge(model):
    q = np.array([0.0, 1e-4, 0.1, 0.36, 0.5, 1.0, 5.0, 20.0, 50.0, 74.0, 75.0, 110.0, 200.0])
    point = bound("Cs133", "point")
    assert [p.name for p in LightVector(model).parameters] == ["m_zprime", "g_zprime"]
    for m in (1e-3, 10.0, 1e6):
        g = coupling_for(10.0, m)
        params = vector_params(model, m, g)
        truth = 55 * loop_shift(model, m, g, q)
        assert np.all(np.abs(truth).sum(axis=0) > 0)
        for sign in (1, -1):
            found = LightVector(model, loop_sign=sign).weak_charge(params, point, jnp.asarray(q))
            np.testing.assert_allclose(found, diagonal(sign * truth), rtol=1e-12)


@pytest.mark.parametrize("model", LEPTONIC)
def test_loops_act_on_the_electric_charge(model):
    # on protons with their form factor, and with the opposite sign on electrons
    m, g = 10.0, coupling_for(10.0, 10.0)
    params, leptons = vector_params(model, m, g), CHARGES[model][2:]
    shift = loop_shift(model, m, g, Q)
    for name, (Z, _) in NUCLEI.items():
        found = LightVector(model).weak_charge(params, bound(name), jnp.asarray(Q))
        np.testing.assert_allclose(found, diagonal(Z * helm(Q, R_P) * shift), rtol=1e-12)
    tree = np.multiply.outer(leptons, leptons[0] * over_weak(g, Q, m))
    for sign in (1, -1):
        found = LightVector(model, loop_sign=sign).electron_couplings(params, jnp.asarray(Q)).vector
        np.testing.assert_allclose(found, diagonal(tree - sign * shift), rtol=1e-12)


@pytest.mark.parametrize("loop_sign", [1, -1])
def test_loops_at_low_momentum_transfer(loop_sign):
    m, g = 10.0, 1e-3
    q = np.array([1e-4, 1e-3, 1e-2])
    size = ALPHA * g**2 / (3 * np.sqrt(2) * np.pi * G_F) * np.log(1776.93**2 / 105.6583755**2) / (q**2 + m**2)
    model = LightVector("lmu-ltau", loop_sign=loop_sign)
    found = np.asarray(model.weak_charge(vector_params("lmu-ltau", m, g), bound("Ar40", "point"), jnp.asarray(q)))
    assert np.all(loop_sign * found[1, 1] > 0)
    np.testing.assert_allclose(found[1, 1], loop_sign * 18 * size, rtol=1e-9)
    np.testing.assert_allclose(found[2, 2], -loop_sign * 18 * size, rtol=1e-9)
    assert np.all(found[0, 0] == 0)


def test_default_loop_sign():
    params = vector_params("lmu-ltau", 10.0, 1e-3)
    found, truth = (
        model.weak_charge(params, bound("Cs133"), jnp.asarray(Q))
        for model in (LightVector("lmu-ltau"), LightVector("lmu-ltau", loop_sign=1))
    )
    np.testing.assert_array_equal(found, truth)


RATIOS = [1e-12, 1e-6, 1e-3, 0.05, 0.3, 0.499, 0.4999999, 0.5, 0.5000001, 0.501, 1.0, 4.0, 50.0, 1e3, 1e6, 1e9, 1e12]


@pytest.mark.parametrize("r", RATIOS)
def test_vacuum_polarisation(r):
    with mp.workdps(40):
        exact, ends = mp.mpf(r), [0, 1e-13, 1e-11, 1e-9, 1e-7, 1e-5, 1e-3, 0.1, 0.5]
        value = float(2 * mp.quad(lambda x: x * (1 - x) * mp.log1p(x * (1 - x) * exact), ends))
        slope = float(2 * mp.quad(lambda x: (x * (1 - x)) ** 2 / (1 + x * (1 - x) * exact), ends))
    np.testing.assert_allclose(vacuum_polarisation(jnp.asarray(r)), value, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(vacuum_polarisation)(jnp.asarray(r)), slope, rtol=1e-12)


def test_vacuum_polarisation_without_momentum():
    assert float(vacuum_polarisation(jnp.asarray(0.0))) == 0
    np.testing.assert_allclose(jax.grad(vacuum_polarisation)(jnp.asarray(0.0)), 1 / 30, rtol=1e-15)


# scalar and tensor


@pytest.mark.parametrize("name", NUCLEI)
def test_scalar_on_nuclei(name):
    # M^2 T g^4 Q_S^2/(4 pi E^2 (q^2 + m^2)^2)
    E, M, (Z, N) = 40.0, nucleus(name).mass, NUCLEI[name]
    T = recoils(M, E)
    q = np.sqrt(2 * M * T)
    for m in (0.01, 20.0, 1e4):
        g = coupling_for(0.02, m)
        charge = SCALAR[0] * Z * helm(q, R_P) + SCALAR[1] * N * helm(q, R_N)
        own = M**2 * T * g**4 * charge**2 / (4 * np.pi * E**2 * (q**2 + m**2) ** 2) * (HBARC * 1e-13) ** 2
        truth = on_nucleus(name, E, T, standard_charge(name, q)) + own
        params = {"sin2_theta_w": S2W, "m_phi": m, "g_phi": g}
        found = differential_cross_section(params, StandardModel("tree") + LightScalar(), bound(name), E, T)
        np.testing.assert_allclose(found, [truth] * 3, rtol=1e-12)


@pytest.mark.parametrize("antineutrino", [False, True])
def test_scalar_on_electrons(antineutrino):
    # g^4 m_e^2 T/(4 pi E^2 (2 m_e T + m^2)^2), whatever the charges of nucleons
    E = 12.0
    T = recoils(M_E, E)
    for m in (0.01, 2.0, 1e4):
        g = coupling_for(0.5, m, q=1.0)
        own = g**4 * M_E**2 * T / (4 * np.pi * E**2 * (2 * M_E * T + m**2) ** 2) * (HBARC * 1e-13) ** 2
        truth = [on_electron(E, T, 2 * S2W + h, h, antineutrino) + own for h in (0.5, -0.5, -0.5)]
        params = {"sin2_theta_w": S2W, "m_phi": m, "g_phi": g}
        for charges in ("2211.11905", "1711.09773"):
            interaction = StandardModel() + LightScalar(charges)
            found = differential_cross_section(params, interaction, Electron(), E, T, antineutrino=antineutrino)
            np.testing.assert_allclose(found, truth, rtol=1e-12)


@pytest.mark.parametrize("name", NUCLEI)
def test_tensor_on_nuclei(name):
    # 2 G_F^2 M/pi (1 - MT/(4E^2)) C_T^2 with C_T^q = sqrt2 g^2/(G_F (q^2 + m^2))
    E, M, (Z, N) = 40.0, nucleus(name).mass, NUCLEI[name]
    T = recoils(M, E)
    q = np.sqrt(2 * M * T)
    for m in (0.01, 20.0, 1e4):
        g = coupling_for(0.1, m)
        C_T = np.sqrt(2) * g**2 / (G_F * (q**2 + m**2)) * TENSOR * (Z * helm(q, R_P) + N * helm(q, R_N))
        truth = on_nucleus(name, E, T, standard_charge(name, q), tensor=np.sqrt(2) * C_T)
        params = {"sin2_theta_w": S2W, "m_tensor": m, "g_tensor": g}
        found = differential_cross_section(params, StandardModel("tree") + LightTensor(), bound(name), E, T)
        np.testing.assert_allclose(found, [truth] * 3, rtol=1e-12)


def test_tensor_leaves_electrons_alone():
    found = strengths(LightTensor(), {"m_tensor": 1.0, "g_tensor": 1.0}, Electron(), jnp.asarray(Q))
    assert all(np.all(np.asarray(strength) == 0) for strength in found.values())


def test_own_nucleon_charges():
    own, (Z, N) = NucleonCharges(9.0, 5.0, 0.8, -0.2), NUCLEI["Ar40"]
    m, g = 15.0, coupling_for(0.1, 15.0)
    params = {"m_phi": m, "g_phi": g, "m_tensor": m, "g_tensor": g}
    found = (LightScalar(own) + LightTensor(own)).incoherent_terms(params, bound("Ar40"), jnp.asarray(Q))
    scalar, tensor = (p * Z * helm(Q, R_P) + n * N * helm(Q, R_N) for p, n in ((9.0, 5.0), (0.8, -0.2)))
    np.testing.assert_allclose(found["scalar"], [(over_weak(g, Q, m) * scalar) ** 2 / 2] * 3, rtol=1e-12)
    np.testing.assert_allclose(found["tensor"], [8 * (over_weak(g, Q, m) * tensor) ** 2] * 3, rtol=1e-12)


# axial


@pytest.mark.parametrize("name", SPINS)
def test_axial_on_nuclei(name):
    # it interferes with the axial current of the standard model, which tells protons from neutrons
    J, S_p, S_n = SPINS[name]
    E, M, Z, N = 30.0, nucleus(name).mass, nucleus(name).Z, nucleus(name).N
    T = recoils(M, E)
    q = np.sqrt(2 * M * T)
    protons, neutrons = helm(q, R_P), helm(q, R_N)
    standard = (0.5 - 2 * S2W) * Z * protons - 0.5 * N * neutrons
    for m in (0.01, 20.0, 1e4):
        g = coupling_for(1.5, m)
        axial = 0.5 * G_A * (S_p * protons - S_n * neutrons)
        axial = axial + over_weak(g, q, m) * 0.440 * (S_p * protons + S_n * neutrons)
        axial = 2 * np.sqrt((J + 1) / (3 * J)) * axial
        params = {"sin2_theta_w": S2W, "g_A": G_A, "m_axial": m, "g_axial": g}
        interaction = StandardModel("tree") + Axial() + LightAxial()
        found = differential_cross_section(params, interaction, bound(name), E, T)
        np.testing.assert_allclose(found, [on_nucleus(name, E, T, standard, axial=axial)] * 3, rtol=1e-12)
        spin = strengths(Axial() + LightAxial(), params, bound(name), jnp.asarray(q))["axial"]
        np.testing.assert_allclose(spin, [axial**2] * 3, rtol=1e-12)


def test_sign_of_the_axial_interference():
    # constructive for the odd proton of F19, destructive for the odd neutron of Ge73
    params, q = {"g_A": G_A, "m_axial": 1e4, "g_axial": coupling_for(0.1, 1e4)}, jnp.asarray(20.0)
    both, standard, light = (
        np.array([strengths(model, params, bound(name), q)["axial"][0] for name in ("F19", "Ge73")])
        for model in (Axial() + LightAxial(), Axial(), LightAxial())
    )
    assert np.all(light > 0)
    assert both[0] > standard[0] + light[0] and both[1] < standard[1]


@pytest.mark.parametrize("name", ["Ar40", "Ge74", "C12", "Xe132"])
def test_no_axial_current_without_spin(name):
    params, T = {"sin2_theta_w": S2W, "g_A": G_A, "m_axial": 1.0, "g_axial": 1.0}, recoils(nucleus(name).mass, 30.0)
    assert np.all(np.asarray(LightAxial().axial_charge(params, bound(name), jnp.asarray(Q))) == 0)
    found = differential_cross_section(params, StandardModel() + Axial() + LightAxial(), bound(name), 30.0, T)
    np.testing.assert_array_equal(found, differential_cross_section(params, StandardModel(), bound(name), 30.0, T))


@pytest.mark.parametrize("antineutrino", [False, True])
def test_axial_on_electrons(antineutrino):
    E = 12.0
    T = recoils(M_E, E)
    q = np.sqrt(2 * M_E * T)
    for m in (0.01, 2.0, 1e4):
        g = coupling_for(0.3, m, q=2.0)
        truth = [on_electron(E, T, 2 * S2W + h, h + over_weak(g, q, m), antineutrino) for h in (0.5, -0.5, -0.5)]
        params = {"sin2_theta_w": S2W, "m_axial": m, "g_axial": g}
        interaction = StandardModel() + LightAxial()
        found = differential_cross_section(params, interaction, Electron(), E, T, antineutrino=antineutrino)
        np.testing.assert_allclose(found, truth, rtol=1e-12)


# errors


def test_unknown_model():
    with pytest.raises(UnknownNameError, match="Did you mean 'b-3lmu'"):
        LightVector("b-3lnu")
    with pytest.raises(UnknownNameError, match="Did you mean '1711.09773'"):
        LightScalar("1711.0977")
    with pytest.raises(InvalidValueError, match="nucleon_charges"):
        LightTensor(17.2)


@pytest.mark.parametrize("sign", [0, 2, -3, 0.5])
def test_unusable_loop_sign(sign):
    with pytest.raises(InvalidValueError, match="loop_sign"):
        LightVector("lmu-ltau", loop_sign=sign)
