"""Spectra from stopped pions and muons against the kinematics and moments of muon decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from cevjax.fluxes import Continuum, PionDecayAtRest, fluence
from cevjax.fluxes.pion_decay_at_rest import END_POINT, NU_MU_ENERGY, nu_e_density, nubar_mu_density

M_MU, M_PI = 105.6583755, 139.57039
FLUX = PionDecayAtRest()
NU_MU, NU_E, NUBAR_MU = FLUX.components
DENSITIES = {"nu_e": nu_e_density, "nubar_mu": nubar_mu_density}
# n-th moments of 12 x^2 (1 - x) and 2 x^2 (3 - 2x) in x = 2E/m_mu, by hand
MOMENTS = {
    "nu_e": lambda n: 12 / (n + 3) - 12 / (n + 4),
    "nubar_mu": lambda n: 6 / (n + 3) - 4 / (n + 4),
}


def test_components():
    assert FLUX.names == ("nu_mu", "nu_e", "nubar_mu")
    assert list(FLUX.flavours) == [1, 0, 1]
    assert [c.antineutrino for c in FLUX.components] == [False, False, True]


def test_prompt_line_balances_the_muon():
    # energy and momentum of pi -> mu nu: m_pi = E + sqrt(E^2 + m_mu^2)
    assert NU_MU_ENERGY + np.hypot(NU_MU_ENERGY, M_MU) == pytest.approx(M_PI, rel=1e-15)
    assert pytest.approx(29.79, abs=0.005) == NU_MU_ENERGY
    assert NU_MU.energy_max == NU_MU_ENERGY


def test_end_point():
    assert pytest.approx(52.83, abs=0.005) == END_POINT
    assert NU_E.energy_max == NUBAR_MU.energy_max == END_POINT
    # the nu_e spectrum vanishes at the end point; that of nubar_mu is largest there
    assert float(nu_e_density(END_POINT)) == pytest.approx(0, abs=1e-15)
    assert float(nubar_mu_density(END_POINT)) == pytest.approx(4 / M_MU, rel=1e-14)


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("n", [-1, 0, 1, 2, 3])
def test_moments_of_the_density(name, n):
    found = quad(lambda E: float(DENSITIES[name](E)) * E**n, 0, M_MU / 2, epsrel=1e-12)[0]
    assert found == pytest.approx(MOMENTS[name](n) * (M_MU / 2) ** n, rel=1e-12)


def test_the_muon_mass_is_shared_out():
    # a massless electron has the spectrum of the nubar_mu
    means = {name: quad(lambda E, f=f: float(f(E)) * E, 0, M_MU / 2)[0] for name, f in DENSITIES.items()}
    assert means["nu_e"] + 2 * means["nubar_mu"] == pytest.approx(M_MU, rel=1e-12)
    assert means["nu_e"] == pytest.approx(31.70, abs=0.005)


@pytest.mark.parametrize("component", [NU_E, NUBAR_MU], ids=lambda c: c.name)
@given(low=st.floats(0, 52.8), n=st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_quadrature_from_a_lowest_energy(component, low, n):
    energy, weight = component.quadrature(jnp.asarray([low]))
    end = M_MU / 2
    x, power = low / end, (3, 4)
    a, b = {"nu_e": (12, -12), "nubar_mu": (6, -4)}[component.name]
    truth = end**n * sum(c / (n + p) * (1 - x ** (n + p)) for c, p in zip((a, b), power, strict=True))
    np.testing.assert_allclose(jnp.sum(weight * energy**n), truth, rtol=1e-9, atol=1e-12 * end**n)
    assert np.all(np.asarray(energy) >= low) and np.all(np.asarray(energy) <= end)
    assert np.all(np.asarray(weight) >= 0)


@pytest.mark.parametrize("component", FLUX.components, ids=lambda c: c.name)
def test_nothing_above_the_end_point(component):
    energy, weight = component.quadrature(jnp.array([[component.energy_max * 1.0001], [200.0]]))
    assert energy.shape == weight.shape
    assert energy.shape[:2] == (2, 1)
    assert np.all(np.asarray(weight) == 0)
    assert np.all(np.isfinite(energy))


def test_line_counts_once_up_to_its_energy():
    energy, weight = NU_MU.quadrature(jnp.array([0.0, 29.0, NU_MU_ENERGY, 29.8]))
    np.testing.assert_array_equal(weight[:, 0], [1.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(energy[:, 0], np.full(4, NU_MU_ENERGY))


def test_quadrature_order_converges_for_a_density_that_is_no_polynomial():
    component = Continuum("exponential", 0, True, lambda E: jnp.exp(-E), 8.0, order=24)
    energy, weight = component.quadrature(jnp.array([2.0]))
    truth = quad(lambda E: np.exp(-E) / E, 2.0, 8.0, epsabs=0, epsrel=1e-12)[0]
    np.testing.assert_allclose(jnp.sum(weight / energy), truth, rtol=1e-13)


def test_jit_equals_eager_equals_vmap():
    low = jnp.array([0.0, 10.0, 40.0, 60.0])
    eager = NU_E.quadrature(low)
    for found in (jax.jit(NU_E.quadrature)(low), jax.vmap(NU_E.quadrature)(low)):
        for a, b in zip(found, eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-18)


def test_derivative_in_the_lowest_energy_is_minus_the_density():
    slope = jax.grad(lambda low: jnp.sum(NUBAR_MU.quadrature(low)[1]))(jnp.asarray(20.0))
    x = 40 / M_MU
    assert float(slope) == pytest.approx(-2 * x**2 * (3 - 2 * x) * 2 / M_MU, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "published"),
    [
        ((3.198e23, 0.0848, 19.3), 5.794e14),  # COHERENT CsI 2021: 3.198e23 x 0.0848 / (4 pi 1930^2 cm^2)
        ((1.37e23, 0.09, 27.5), 1.2974e14),  # COHERENT argon 2020
    ],
)
def test_fluence(arguments, published):
    assert fluence(*arguments) == pytest.approx(published, rel=1e-4)


@given(st.floats(1, 100), st.floats(1.1, 10))
@settings(max_examples=50, deadline=None)
def test_fluence_falls_with_the_square_of_the_distance(baseline, factor):
    ratio = fluence(1e23, 0.09, baseline) / fluence(1e23, 0.09, factor * baseline)
    assert ratio == pytest.approx(factor**2, rel=1e-12)
