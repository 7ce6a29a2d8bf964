"""Disappearance into a sterile neutrino: the formula, and its averages by scipy's quadrature of oscillations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Chebyshev
from scipy.integrate import quad
from scipy.special import spherical_jn

import cevjax
from cevjax.fluxes import PionDecayAtRest
from cevjax.form_factors import form_factor
from cevjax.interactions import StandardModel, Sterile, strengths
from cevjax.interactions.base import contributes
from cevjax.interactions.sterile import PHASE
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus, target
from cevjax.rates import recoil_spectrum

# QAWO says where it has reached the rounding errors
pytestmark = pytest.mark.filterwarnings("ignore:The occurrence of roundoff error::")

HBARC, M_MU, M_PI = 197.3269804, 105.6583755, 139.57039
LINE, END = (M_PI**2 - M_MU**2) / (2 * M_PI), M_MU / 2
K = 1e-12 / (4 * HBARC * 1e-15)  # MeV/(eV^2 m)
L = 19.3
SPLITTINGS = [0.01, 1.0, 30.0, 300.0, 1e4]
ANGLES = {"sin2_2theta_ee": 0.3, "sin2_2theta_mumu": 0.8}
CS = BoundNucleus(nucleus("Cs133"), form_factor("point"), jnp.asarray(4.8), jnp.asarray(5.1))
M = nucleus("Cs133").mass
RECOILS = np.array([2e-3, 6e-3, 0.013, 0.0145, 0.03, 0.044])


def density(component, E):
    x = 2 * E / M_MU
    return (12 * x**2 * (1 - x) if component == "nu_e" else 2 * x**2 * (3 - 2 * x)) * 2 / M_MU


def energy_of(T):
    """Least energy for a recoil: root of 2 E^2 - 2 T E - M T = 0."""
    return (T + np.sqrt(T**2 + 2 * M * T)) / 2


def spectral(function, component, lowest, kind, frequency):
    """int dE phi(E) f(E) cos or sin(frequency/E), as QAWO integrals over 1/E in pieces."""
    if lowest >= END:
        return 0.0

    def integrand(x):
        return density(component, 1 / x) * function(1 / x) / x**2

    def piece(a, b):
        if frequency == 0:
            return quad(integrand, a, b, epsabs=0, epsrel=1e-13)[0]
        return quad(integrand, a, b, weight=kind, wvar=frequency, epsabs=1e-13, epsrel=1e-12, limit=1000)[0]

    edges = np.geomspace(1 / END, 1 / lowest, 5)
    return sum(piece(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True))


def vector(T):
    return lambda E: 1 - M * T / (2 * E**2)


@functools.cache
def spectrum():
    model = StandardModel("tree") + Sterile()

    @jax.jit
    def function(dm2, s_e, s_mu):
        params = {"sin2_theta_w": 0.23857, "sin2_2theta_ee": s_e, "sin2_2theta_mumu": s_mu, "dm2_41": dm2}
        return recoil_spectrum(params, model, PionDecayAtRest(), CS, RECOILS, L)

    return function


def survival(dm2):
    """Recoil spectrum with oscillations over that without, for nu_mu, nu_e, nubar_mu."""
    return np.asarray(spectrum()(dm2, 0.3, 0.8)) / closed_safe(np.asarray(spectrum()(dm2, 0.0, 0.0)))


def closed_safe(values):
    return np.where(values > 0, values, 1.0)  # where the phase space is closed both are zero


def open_():
    """Where the line still reaches, and the continua."""
    return np.stack([energy_of(RECOILS) < LINE, *[energy_of(RECOILS) < END] * 2])


def test_phase():
    # the textbook number, to its digits and beyond
    assert round(PHASE, 3) == 1.267
    np.testing.assert_allclose(PHASE, 1.26693268, rtol=1e-8)


@pytest.mark.parametrize("dm2", SPLITTINGS)
def test_survival_probability(dm2):
    energy = np.array([[1.0, 5.0, 20.0], [29.79, 40.0, 52.0]])
    found = Sterile().flux_factor({**ANGLES, "dm2_41": dm2}, jnp.asarray(energy), L)
    truth = [1 - s * np.sin(K * dm2 * L / energy) ** 2 for s in (0.3, 0.8, 0.0)]
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-15 * max(1, K * dm2 * L))


def test_survival_probability_with_the_textbook_number():
    energy = np.linspace(5, 50, 20)
    found = np.asarray(Sterile().flux_factor({**ANGLES, "dm2_41": 1.0}, jnp.asarray(energy), L))
    truth = 1 - np.multiply.outer([0.3, 0.8, 0.0], np.sin(1.267 * L / energy) ** 2)
    np.testing.assert_allclose(found, truth, rtol=0, atol=0.8 * 7e-5 * 1.267 * L / 5)
    np.testing.assert_array_equal(found[2], 1)  # nu_tau


def test_first_maximum():
    # half a wavelength: L/E = pi/(2 K dm2)
    energy = K * 2.0 * L / (np.pi / 2)
    found = Sterile().flux_factor({**ANGLES, "dm2_41": 2.0}, jnp.array([energy, energy / 2]), L)
    np.testing.assert_allclose(found, [[0.7, 1], [0.2, 1], [1, 1]], rtol=1e-14)


def test_one_angle_for_both():
    energy = jnp.array([10.0, 30.0])
    common = Sterile().flux_factor({**ANGLES, "sin2_2theta": 0.5, "dm2_41": 1.0}, energy, L)
    apart = Sterile().flux_factor({"sin2_2theta_ee": 0.5, "sin2_2theta_mumu": 0.5, "dm2_41": 1.0}, energy, L)
    np.testing.assert_array_equal(common, apart)
    (parameter,) = (p for p in Sterile().parameters if p.members)
    assert (parameter.name, parameter.members) == ("sin2_2theta", ("sin2_2theta_ee", "sin2_2theta_mumu"))


def test_it_acts_on_the_flux_alone():
    model, q = StandardModel("tree") + Sterile(), jnp.array([30.0])
    params = {"sin2_theta_w": 0.23857, **ANGLES, "dm2_41": 1.0}
    np.testing.assert_array_equal(
        strengths(model, params, CS, q)["vector"], strengths(StandardModel("tree"), params, CS, q)["vector"]
    )
    assert [contributes(Sterile(), x) for x in ("coherent", "incoherent", "electrons", "flux")] == [False] * 3 + [True]
    np.testing.assert_array_equal(spectrum()(5.0, 0.0, 0.0), recoils_without())


def recoils_without():
    params = {"sin2_theta_w": 0.23857}
    return jax.jit(lambda t: recoil_spectrum(params, StandardModel("tree"), PionDecayAtRest(), CS, t, L))(RECOILS)


@pytest.mark.parametrize("dm2", SPLITTINGS)
def test_averages_over_the_spectrum(dm2):
    frequency = K * dm2 * L
    truth = np.zeros((3, len(RECOILS)))
    truth[0] = (energy_of(RECOILS) < LINE) * (1 - 0.8 * np.sin(frequency / LINE) ** 2)
    for i, (component, s) in enumerate((("nu_e", 0.3), ("nubar_mu", 0.8)), start=1):
        for j, T in enumerate(RECOILS):
            whole = spectral(vector(T), component, energy_of(T), "cos", 0)
            waving = spectral(vector(T), component, energy_of(T), "cos", 2 * frequency)
            truth[i, j] = 1 - s / 2 + s / 2 * waving / whole
    np.testing.assert_allclose(survival(dm2), truth, rtol=0, atol=1e-9)


def test_infinite_splitting():
    # the line keeps its phase; the continua lose half of what mixes, with a remainder of order E/(K dm2 L)
    found = survival(1e9)
    np.testing.assert_allclose(found[1], 1 - 0.3 / 2, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[2], 1 - 0.8 / 2, rtol=0, atol=1e-7)
    line = found[0][open_()[0]]
    assert np.all((line > 0.2 - 1e-12) & (line <= 1))


def test_no_splitting():
    np.testing.assert_allclose(survival(0.0)[open_()], 1, rtol=0, atol=1e-12)


@functools.cache
def slopes():
    """Derivative of the spectrum, forward, and of a sum with weights, backward."""

    def function(dm2):
        return spectrum()(dm2, 0.3, 0.8)

    return jax.jit(jax.jacfwd(function)), jax.jit(jax.grad(lambda dm2, weights: jnp.sum(weights * function(dm2))))


@pytest.mark.parametrize("dm2", SPLITTINGS)
def test_derivative_in_the_splitting(dm2):
    # d/d(dm2) of -s sin^2(k dm2/E) is -s k/E sin(2 k dm2/E)
    k = K * L
    truth = np.zeros((3, len(RECOILS)))
    truth[0] = (energy_of(RECOILS) < LINE) * -0.8 * k / LINE * np.sin(2 * k * dm2 / LINE)
    for i, (component, s) in enumerate((("nu_e", 0.3), ("nubar_mu", 0.8)), start=1):
        for j, T in enumerate(RECOILS):
            whole = spectral(vector(T), component, energy_of(T), "cos", 0)
            waving = spectral(lambda E, T=T: vector(T)(E) / E, component, energy_of(T), "sin", 2 * k * dm2)
            truth[i, j] = -s * k * waving / whole
    whole = closed_safe(np.asarray(spectrum()(dm2, 0.0, 0.0)))
    forward, backward = slopes()
    np.testing.assert_allclose(forward(dm2) / whole, truth, rtol=0, atol=1e-9)
    np.testing.assert_allclose(backward(dm2, 1 / whole), np.sum(forward(dm2) / whole), rtol=0, atol=1e-10)
    h = 1e-4 / k  # moves the phase by 2e-5 at most
    numeric = (survival(dm2 + h) - survival(dm2 - h)) / (2 * h)
    np.testing.assert_allclose(numeric, truth, rtol=0, atol=1e-7)


def squared_charge(T, nuclide):
    k = np.sqrt(2 * nuclide.mass * T) / HBARC

    def factor(radius):
        x = k * np.sqrt(5 / 3 * (radius**2 - 3 * 0.81))
        return 3 * spherical_jn(1, x) / x * np.exp(-0.405 * k**2)

    return ((0.5 - 2 * 0.23857) * nuclide.Z * factor(nuclide.R_p) - 0.5 * nuclide.N * factor(nuclide.R_n)) ** 2


@functools.cache
def cross_section():
    """Of Cs + I, over E^2, as a Chebyshev series in the energy: sum M int dT (1 - MT/2E^2) Q^2."""
    x, w = np.polynomial.legendre.leggauss(48)

    def at(E):
        total = 0.0
        for nuclide in target("CsI").nuclei:
            last = 2 * E**2 / (nuclide.mass + 2 * E)
            T = last * (x + 1) / 2
            shape = 1 - nuclide.mass * T / (2 * E**2)
            total += nuclide.mass * last / 2 * np.sum(w * shape * squared_charge(T, nuclide))
        return total / E**2

    return Chebyshev.interpolate(np.vectorize(at), 24, domain=[0.01, END])


@functools.cache
def csi():
    measurement = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    like = cevjax.Likelihood([measurement], StandardModel("tree") + Sterile())
    scattering = like.measurements[0].components[0]
    return like, jax.jit(lambda params: jnp.sum(scattering.recoils(params, like.interaction), axis=-1))


@pytest.mark.parametrize("dm2", SPLITTINGS)
def test_all_recoils_of_a_likelihood(dm2):
    like, recoils = csi()
    found = recoils(like.nominal(**ANGLES, dm2_41=dm2)) / recoils(like.nominal(dm2_41=dm2))
    section = cross_section()
    # neutrinos below 1 MeV are 1e-8 of the rate; 24 nodes in recoil resolve their moments to a few 1e-6
    averages = [
        [spectral(lambda E: E**2 * section(E), c, 1.0, "cos", f) for f in (0.0, 2 * K * dm2 * L)]
        for c in ("nu_e", "nubar_mu")
    ]
    truth = [1 - 0.8 * np.sin(K * dm2 * L / LINE) ** 2]
    truth += [1 - s / 2 + s / 2 * waving / whole for s, (whole, waving) in zip((0.3, 0.8), averages, strict=True)]
    np.testing.assert_allclose(found, truth, rtol=0, atol=5e-6)
