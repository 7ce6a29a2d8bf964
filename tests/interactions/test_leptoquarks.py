"""Leptoquarks against their formula written out in numpy, and the bands where they hide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import spherical_jn

from cevjax.errors import UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, Leptoquark, StandardModel, strengths
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.rates import differential_cross_section

G_F, HBARC = 1.1663788e-11, 197.3269804
S2W, R_P, R_N = 0.23857, 4.7, 5.0
NUCLEI = {"Cs133": (55, 78), "I127": (53, 74), "Ar40": (18, 22)}
MULTIPLICITIES = {"S1": (1, 2), "R2": (2, 1), "S3": (5, 4), "R2t": (1, 2)}
Q = np.array([0.01, 5.0, 30.0, 60.0, 110.0])

every_model = pytest.mark.parametrize("model", MULTIPLICITIES)


def bound(name, model="helm", R_p=R_P, R_n=R_N):
    return BoundNucleus(nucleus(name), form_factor(model), jnp.asarray(R_p), jnp.asarray(R_n))


def helm(q, radius, s=0.9):
    x = q / HBARC * (5 / 3 * (radius**2 - 3 * s**2)) ** 0.5
    return 3 * spherical_jn(1, x) / x * np.exp(-((q * s / HBARC) ** 2) / 2)


def coupling_for(size, m, q=30.0):
    """The coupling at which g^2/(4 sqrt2 G_F (q^2 + m^2)) is ``size`` at ``q``."""
    return float(np.sqrt(size * 4 * np.sqrt(2) * G_F * (q**2 + m**2)))


def charges(name, model, q, m, g):
    """Charge of the standard model at tree level, and of the leptoquark."""
    (Z, N), (p, n) = NUCLEI[name], MULTIPLICITIES[model]
    protons, neutrons = Z * helm(q, R_P), N * helm(q, R_N)
    own = g**2 / (4 * np.sqrt(2) * G_F * (q**2 + m**2)) * (p * protons + n * neutrons)
    return (0.5 - 2 * S2W) * protons - 0.5 * neutrons, own


def rate(model, m, g, target, q, couplings="tree"):
    params = {"sin2_theta_w": S2W, "m_lq": m, "g_lq": g}
    return np.asarray(strengths(StandardModel(couplings) + Leptoquark(model), params, target, jnp.asarray(q))["vector"])


@every_model
@pytest.mark.parametrize("name", NUCLEI)
def test_charge(model, name):
    for m in (0.01, 25.0, 1e6):
        g = coupling_for(0.2, m)
        found = Leptoquark(model).weak_charge({"m_lq": m, "g_lq": g}, bound(name), jnp.asarray(Q))
        _, own = charges(name, model, Q, m, g)
        couples = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]])
        np.testing.assert_allclose(found, np.multiply.outer(couples, own), rtol=1e-13)


@every_model
def test_cross_section(model):
    # (Q + Q_LQ)^2 + Q_LQ^2 for nu_e and nu_mu, the standard model for nu_tau
    name, E = "Cs133", 48.0
    M = nucleus(name).mass
    T = np.array([1e-4, 0.01, 0.1, 0.5, 0.9, 0.999]) * 2 * E**2 / (M + 2 * E)
    q = np.sqrt(2 * M * T)
    for m, size in ((1.0, 0.01), (40.0, 0.05), (1e6, 0.4)):
        g = coupling_for(size, m)
        standard, own = charges(name, model, q, m, g)
        strength = np.stack([(standard + own) ** 2 + own**2] * 2 + [standard**2])
        truth = G_F**2 * M / np.pi * (HBARC * 1e-13) ** 2 * strength * (1 - M * T / (2 * E**2))
        params, interaction = {"sin2_theta_w": S2W, "m_lq": m, "g_lq": g}, StandardModel("tree") + Leptoquark(model)
        found = differential_cross_section(params, interaction, bound(name), E, T)
        np.testing.assert_allclose(found, truth, rtol=1e-12)


@every_model
@pytest.mark.parametrize("m", [0.1, 30.0, 1e6])
def test_degenerate_band(model, m):
    # (Q + Q_LQ)^2 + Q_LQ^2 = Q^2 at Q_LQ = -Q, solved for the coupling; halfway the rate is at its least, Q^2/2
    target, q = bound("Cs133"), 35.0
    standard, unit = (float(x) for x in charges("Cs133", model, np.array(q), m, 1.0))
    g = np.sqrt(-standard / unit)
    without = rate(model, m, 0.0, target, q)
    np.testing.assert_allclose(without, [standard**2] * 3, rtol=1e-13)
    np.testing.assert_allclose(rate(model, m, g, target, q), without, rtol=1e-13)
    np.testing.assert_allclose(rate(model, m, g / np.sqrt(2), target, q), without * [0.5, 0.5, 1.0], rtol=1e-13)
    for other in (0.9, 1.1):
        assert np.all(np.abs(rate(model, m, other * g, target, q) / without - 1)[:2] > 0.1)


@every_model
def test_heavy_band_is_degenerate_at_every_recoil(model):
    # heavier than the momentum transfer, with one form factor for protons and neutrons
    (Z, N), (p, n), m = NUCLEI["I127"], MULTIPLICITIES[model], 1e6
    standard = (0.5 - 2 * S2W) * Z - 0.5 * N
    g = coupling_for(-standard / (p * Z + n * N), m, q=0.0)
    same, q = bound("I127", R_p=4.8, R_n=4.8), np.array([1.0, 20.0, 50.0])
    np.testing.assert_allclose(rate(model, m, g, same, q), rate(model, m, 0.0, same, q), rtol=1e-8)


@pytest.mark.parametrize("flavour", [0, 1])
def test_band_with_radiative_couplings(flavour):
    # the charge of nu_e is not that of nu_mu: each has a band of its own
    target, m, q = bound("Cs133", "point"), 1e6, 0.0
    without = rate("S1", m, 0.0, target, q, "2023")
    assert without[0] < without[1]
    g = coupling_for(float(np.sqrt(without[flavour])) / (55 + 2 * 78), m, q)
    found = rate("S1", m, g, target, q, "2023") / without
    np.testing.assert_allclose(found[[flavour, 2]], 1.0, rtol=1e-13)
    assert abs(found[1 - flavour] - 1) > 0.01


def test_tau_neutrinos_are_left_alone():
    for model in MULTIPLICITIES:
        found, without = (rate(model, 20.0, g, bound("Cs133"), Q) for g in (coupling_for(0.3, 20.0), 0.0))
        np.testing.assert_array_equal(found[2], without[2])
        assert np.all(found[:2] != without[:2])


def test_s1_is_r2_tilde():
    params = {"m_lq": 20.0, "g_lq": 1e-4}
    first, second, other = (
        np.asarray(Leptoquark(model).weak_charge(params, bound("Cs133"), jnp.asarray(Q)))
        for model in ("S1", "R2t", "R2")
    )
    np.testing.assert_array_equal(first, second)
    assert np.all(first[:2, :2] != other[:2, :2])


@pytest.mark.parametrize(("model", "up", "down"), [("S1", 0, 1), ("R2", 1, 0), ("S3", 2, 1), ("R2t", 0, 1)])
def test_heavy_leptoquark_is_a_contact_interaction(model, up, down):
    # Q_LQ as an NSI of up and down quarks; the rate depends on g/m alone
    size, q = 0.15, jnp.array([1e-3, 10.0, 50.0])
    eps = {f"eps_{quark}V_{e}": 0.0 for quark in "ud" for e in ("ee", "mumu", "tautau", "emu", "etau", "mutau")}
    for quark, count in (("u", up), ("d", down)):
        eps.update({f"eps_{quark}V_{e}": size * count for e in ("ee", "mumu", "emu")})
    truth = NSI().weak_charge(eps, bound("Cs133"), q)
    for m in (1e6, 1e7):
        params = {"m_lq": m, "g_lq": coupling_for(size, m, q=0.0)}
        np.testing.assert_allclose(Leptoquark(model).weak_charge(params, bound("Cs133"), q), truth, rtol=1e-8)


def test_derivatives():
    # Q ~ g^2/(q^2 + m^2): dQ/dg = 2Q/g, dQ/dm = -2mQ/(q^2 + m^2)
    def charge(x):
        params = {"m_lq": x[0], "g_lq": x[1]}
        return Leptoquark("S3").weak_charge(params, bound("Cs133"), jnp.asarray(q))[0, 1]

    q = 40.0
    for m, g in [(25.0, 1e-4), (1e-3, 3e-6), (1e6, 2.0)]:
        point = jnp.array([m, g])
        truth = np.array([-2 * m / (q**2 + m**2), 2 / g]) * float(charge(point))
        np.testing.assert_allclose(jax.jacfwd(charge)(point), truth, rtol=1e-12)
    np.testing.assert_array_equal(jax.jacfwd(charge)(jnp.array([25.0, 0.0])), [0.0, 0.0])


def test_parameters():
    assert [p.name for p in Leptoquark().parameters] == ["m_lq", "g_lq"]
    assert Leptoquark().parameters[1].nominal == 0


def test_unknown_model():
    with pytest.raises(UnknownNameError, match="Did you mean 'R2t'"):
        Leptoquark("R2tt")
