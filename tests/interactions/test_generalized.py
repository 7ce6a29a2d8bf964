"""Generalised interactions against their formula written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import spherical_jn

from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, Generalized, NucleonCharges, StandardModel, strengths
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.rates import differential_cross_section

G_F, HBARC = 1.1663788e-11, 197.3269804
NUCLEI = {"Cs133": (55, 78), "I127": (53, 74), "Ar40": (18, 22)}
R_P, R_N = 4.7, 5.0
S2W = 0.23857
OFF = {"sin2_theta_w": S2W, "C_V": 0.0, "C_S": 0.0, "C_T": 0.0}
# recoils in units of the end point, the last one beyond it
FRACTIONS = np.array([1e-4, 0.1, 0.5, 0.9, 0.999, 1.1])

# scalar charges of proton and neutron, sum_q f_q m_nucleon/m_q with m_u = 2.16 MeV, m_d = 4.70 MeV
SCALAR_P = 938.27208943 * (0.0208 / 2.16 + 0.0411 / 4.70)
SCALAR_N = 939.56542194 * (0.0189 / 2.16 + 0.0451 / 4.70)
TENSOR = 0.784 - 0.204  # of both: u and d trade places

COUPLINGS = [
    {"C_V": 0.03},
    {"C_V": -0.4},
    {"C_S": 0.02},
    {"C_T": 0.7},
    {"C_V": 0.05, "C_S": -0.01},
    {"C_V": 0.19, "C_T": -0.3},
    {"C_V": -0.1, "C_S": 0.03, "C_T": 0.5},
]


def bound(name):
    return BoundNucleus(nucleus(name), form_factor("helm"), jnp.asarray(R_P), jnp.asarray(R_N))


def helm(q, radius, s=0.9):
    x = q / HBARC * (5 / 3 * (radius**2 - 3 * s**2)) ** 0.5
    return 3 * spherical_jn(1, x) / x * np.exp(-((q * s / HBARC) ** 2) / 2)


def recoils(name, E):
    return FRACTIONS * 2 * E**2 / (nucleus(name).mass + 2 * E)


def explicit(name, E, T, C_V=0.0, C_S=0.0, C_T=0.0, scalar=(SCALAR_P, SCALAR_N), tensor=(TENSOR, TENSOR)):
    """dsigma/dT in cm^2/MeV, the same for all flavours at tree level."""
    (Z, N), M = NUCLEI[name], nucleus(name).mass
    q = np.sqrt(2 * M * T)
    protons, neutrons = Z * helm(q, R_P), N * helm(q, R_N)
    standard = (0.5 - 2 * S2W) * protons - 0.5 * neutrons
    V = 3 * C_V * (protons + neutrons)
    S = C_S * (scalar[0] * protons + scalar[1] * neutrons)
    T2 = (C_T * (tensor[0] * protons + tensor[1] * neutrons)) ** 2
    y = M * T / E**2
    total = S**2 * y / 8 + (standard + V / 2) ** 2 * (1 - y / 2) + 2 * T2 * (1 - y / 4)
    return np.where(T <= 2 * E**2 / (M + 2 * E), G_F**2 * M / np.pi * (HBARC * 1e-13) ** 2 * total, 0.0)


def section(name, E, T, model=None, **couplings):
    interaction = StandardModel("tree") + (model or Generalized())
    return np.asarray(differential_cross_section({**OFF, **couplings}, interaction, bound(name), E, T))


@pytest.mark.parametrize("name", NUCLEI)
@pytest.mark.parametrize("couplings", COUPLINGS, ids=str)
def test_cross_section(name, couplings):
    for E in (12.0, 29.8, 52.0):
        T = recoils(name, E)
        truth = explicit(name, E, T, **couplings)
        found = section(name, E, T, **couplings)
        assert truth[-1] == 0 and np.all(truth[:-1] > 0)
        np.testing.assert_allclose(found, [truth] * 3, rtol=1e-13)


@pytest.mark.parametrize("coupling", ["C_V", "C_S", "C_T"])
def test_each_coupling_changes_the_rate(coupling):
    T = recoils("Cs133", 30.0)[1:-1]
    plus, minus, zero = (section("Cs133", 30.0, T, **{coupling: c}) for c in (0.05, -0.05, 0.0))
    assert np.all(np.abs(plus / zero - 1) > 1e-3)
    if coupling == "C_V":  # interferes
        assert np.all(np.abs(plus / minus - 1) > 0.1)
    else:
        np.testing.assert_array_equal(plus, minus)
        assert np.all(plus > zero)


def test_derivatives():
    # at tree level: 3A Q for the vector, 2 C times the squared charge for the others
    Z, N = NUCLEI["Ar40"]
    point = BoundNucleus(nucleus("Ar40"), form_factor("point"), jnp.asarray(3.4), jnp.asarray(3.5))
    Q = (0.5 - 2 * S2W) * Z - 0.5 * N

    @jax.jacfwd
    def slopes(c):
        params = {"sin2_theta_w": S2W, "C_V": c[0], "C_S": c[1], "C_T": c[2]}
        found = strengths(StandardModel("tree") + Generalized(), params, point, jnp.asarray(30.0))
        return jnp.stack([found[shape][1] for shape in ("vector", "scalar", "tensor")])

    V, S, T = 0.04, 0.02, -0.3
    scalar, tensor = Z * SCALAR_P + N * SCALAR_N, TENSOR * (Z + N)
    truth = np.diag([3 * (Z + N) * (Q + 1.5 * V * (Z + N)), S * scalar**2 / 4, 4 * T * tensor**2])
    np.testing.assert_allclose(slopes(jnp.array([V, S, T])), truth, rtol=1e-13)
    np.testing.assert_allclose(slopes(jnp.zeros(3)), np.diag([3 * (Z + N) * Q, 0.0, 0.0]), rtol=1e-13)


def test_vector_is_nsi_of_half_the_size():
    nsi = {f"eps_{q}V_{e}": 0.0 for q in "ud" for e in ("ee", "mumu", "tautau", "emu", "etau", "mutau")}
    q = jnp.linspace(0.0, 100.0, 31)
    for C_V in (0.3, -0.08):
        nsi.update({f"eps_{quark}V_{2 * flavour}": C_V / 2 for quark in "ud" for flavour in ("e", "mu", "tau")})
        for name in NUCLEI:
            found = np.asarray(Generalized().weak_charge({**OFF, "C_V": C_V}, bound(name), q))
            assert found.shape == (3, 3, 31) and np.all(found[0, 0] * C_V > 0)
            np.testing.assert_allclose(found, NSI().weak_charge(nsi, bound(name), q), rtol=1e-15)


def test_charges_of_the_nucleons():
    found = NucleonCharges.named("2211.11905")
    np.testing.assert_allclose((found.scalar_p, found.scalar_n), (SCALAR_P, SCALAR_N), rtol=1e-15)
    np.testing.assert_allclose((found.scalar_p, found.scalar_n), (17.24, 17.24), atol=0.005)
    np.testing.assert_allclose((found.tensor_p, found.tensor_n), (0.58, 0.58), rtol=1e-15)


@pytest.mark.parametrize(("name", "scalar"), [("Cs133", 1922.5), ("I127", 1836.3), ("Ar40", 579.8)])
def test_older_scalar_charge(name, scalar):
    # 14 A + 1.1 Z
    point = BoundNucleus(nucleus(name), form_factor("point"), jnp.asarray(4.0), jnp.asarray(4.0))
    terms = Generalized("1711.09773").incoherent_terms({**OFF, "C_S": 0.1}, point, jnp.array([0.0, 40.0]))
    np.testing.assert_allclose(terms["scalar"], np.full((3, 2), (0.1 * scalar) ** 2 / 8), rtol=1e-14)


def test_sigma_terms():
    found = NucleonCharges.from_sigma_terms(0.0153, 0.0191, 0.011, 0.0273, m_u=2.3, m_d=4.8)
    scalar = (938.27208943 * (0.0153 / 2.3 + 0.0191 / 4.8), 939.56542194 * (0.011 / 2.3 + 0.0273 / 4.8))
    np.testing.assert_allclose((found.scalar_p, found.scalar_n), scalar, rtol=1e-15)


def test_own_charges():
    T, couplings = recoils("I127", 40.0), {"C_V": 0.02, "C_S": 0.03, "C_T": 0.4}
    found = section("I127", 40.0, T, Generalized(NucleonCharges(9.0, 5.0, 0.8, -0.2)), **couplings)
    truth = explicit("I127", 40.0, T, scalar=(9.0, 5.0), tensor=(0.8, -0.2), **couplings)
    np.testing.assert_allclose(found, [truth] * 3, rtol=1e-13)
    assert not np.allclose(truth[:-1], explicit("I127", 40.0, T[:-1], **couplings), rtol=0.01, atol=0.0)


def test_unusable_charges():
    with pytest.raises(UnknownNameError, match="Did you mean '2211.11905'"):
        Generalized(nucleon_charges="2211.1905")
    for charges in (17.3, None, (17.3, 17.3)):
        with pytest.raises(InvalidValueError, match="nucleon_charges"):
            Generalized(nucleon_charges=charges)


def test_parameters():
    assert [p.name for p in Generalized().parameters] == ["C_V", "C_S", "C_T"]
    assert all(p.nominal == 0 and p.constraint is None for p in Generalized().parameters)
