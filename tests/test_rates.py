"""Cross sections, flux moments and recoil spectra against scipy quadrature and published averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import quad
from scipy.special import spherical_jn

from cevjax import rates
from cevjax.fluxes import PionDecayAtRest
from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, StandardModel
from cevjax.moments import moment, recoil_grid
from cevjax.nuclear_model import BoundNucleus, NuclearModel
from cevjax.nuclei import nucleus, target

G_F, HBARC, M_MU, M_PI = 1.1663788e-11, 197.3269804, 105.6583755, 139.57039
E_LINE, E_END = (M_PI**2 - M_MU**2) / (2 * M_PI), M_MU / 2
UNIT = G_F**2 / np.pi * (HBARC * 1e-13) ** 2  # cm^2 MeV^-2
FLUX = PionDecayAtRest()
COMPONENTS = ("nu_mu", "nu_e", "nubar_mu")
TREE = {"sin2_theta_w": 0.23857}
SHAPES = {
    "vector": lambda E, T, M: 1 - M * T / (2 * E * E),
    "vector_exact": lambda E, T, M: 1 - T / E - M * T / (2 * E * E) + T * T / (2 * E * E),
    "axial": lambda E, T, M: 1 + M * T / (2 * E * E),
    "scalar": lambda E, T, M: M * T / (E * E),
    "tensor": lambda E, T, M: 1 - M * T / (4 * E * E),
    "magnetic": lambda E, T, M: 1 / T - 1 / E,
}
# flux averages of a point nucleus at tree level, s2w = 0.23857, exact kinematics, 1e-40 cm^2: nu_mu, nu_e, nubar_mu
AVERAGES = {
    "Cs133": (213.09, 267.99, 357.29),
    "I127": (191.59, 240.95, 321.23),
    "Ar40": (16.75, 21.06, 28.08),
}


def end_point(E, M):
    """Largest recoil: a neutrino that turns back."""
    return E - E * M / (M + 2 * E)


def energy_of(T, M):
    """Inverse of ``end_point``: root of 2 E^2 - 2 T E - M T = 0."""
    return float(np.max(np.roots([2.0, -2 * T, -M * T])))


def density(component, E):
    """Muon-decay spectra in x = 2E/m_mu, on [0, 1]."""
    x = 2 * E / M_MU
    return (12 * x**2 * (1 - x) if component == "nu_e" else 2 * x**2 * (3 - 2 * x)) * 2 / M_MU


def average(function, component, lowest=0.0):
    """Flux average of function(E) over energies above ``lowest``."""
    if component == "nu_mu":
        return function(E_LINE) if lowest <= E_LINE else 0.0
    if lowest >= E_END:
        return 0.0
    return quad(lambda E: density(component, E) * function(E), lowest, E_END, epsabs=0, epsrel=1e-12)[0]


def helm_squared_charge(T, nuclide, R_n):
    """Tree-level weak charge with Helm form factors for protons and neutrons."""
    k = np.sqrt(2 * nuclide.mass * T) / HBARC

    def factor(radius):
        x = k * np.sqrt(5 / 3 * (radius**2 - 3 * 0.81))
        return 3 * spherical_jn(1, x) / x * np.exp(-0.405 * k**2)

    return ((0.5 - 2 * 0.23857) * nuclide.Z * factor(nuclide.R_p) - 0.5 * nuclide.N * factor(R_n)) ** 2


def point_squared_charge(T, nuclide, R_n):
    return ((0.5 - 2 * 0.23857) * nuclide.Z - 0.5 * nuclide.N) ** 2


CHARGES = {"point": point_squared_charge, "helm": helm_squared_charge}


def bound(name, model="point"):
    nuclear = NuclearModel(target(name), form_factor(model))
    return nuclear.bind({p.name: p.nominal for p in nuclear.parameters})[0]


@functools.cache
def averages(name, model):
    average = jax.jit(lambda p: rates.flux_averaged_cross_section(p, StandardModel("tree"), FLUX, bound(name, model)))
    return np.asarray(average(TREE))


@pytest.mark.parametrize("name", AVERAGES)
def test_published_flux_averages(name):
    nuclide = nucleus(name)
    bound = BoundNucleus(nuclide, form_factor("point"), jnp.asarray(nuclide.R_p), jnp.asarray(nuclide.R_n))
    model = StandardModel("tree", exact_kinematics=True)
    exact = np.asarray(rates.flux_averaged_cross_section(TREE, model, FLUX, bound)) / 1e-40
    np.testing.assert_allclose(exact, AVERAGES[name], rtol=3e-4)
    # the usual shape drops -T/E, worth -2 <E^3>/(M <E^2>): 0.06 % for Cs and 0.2 % for Ar.
    # <E^3>/<E^2> is 10/28 and 45/112 m_mu in muon decay.
    recoil_term = 2 * np.array([E_LINE, 10 / 28 * M_MU, 45 / 112 * M_MU]) / nuclide.mass
    found = averages(name, "point") / 1e-40
    np.testing.assert_allclose(found * (1 - recoil_term), AVERAGES[name], rtol=0, atol=0.006)


@pytest.mark.parametrize("name", AVERAGES)
def test_closed_form_of_a_heavy_point_nucleus(name):
    # sigma = G_F^2 Q^2 E^2/pi, and <E^2> = m_mu^2/10 and 2 m_mu^2/15; the next order is (2E/M)^2
    nuclide = nucleus(name)
    squares = np.array([E_LINE**2, M_MU**2 / 10, 2 * M_MU**2 / 15])
    truth = UNIT * point_squared_charge(0, nuclide, 0) * squares
    ratio = averages(name, "point") / truth
    np.testing.assert_allclose(ratio, 1, atol=(2 * E_END / nuclide.mass) ** 2)
    assert np.all(ratio < 1)


@pytest.mark.parametrize("model", CHARGES)
@pytest.mark.parametrize("name", AVERAGES)
def test_flux_averages_by_double_integral(name, model):
    nuclide = nucleus(name)

    def total(E):
        def spectrum(T):
            return (1 - nuclide.mass * T / (2 * E * E)) * CHARGES[model](T, nuclide, nuclide.R_n)

        return quad(spectrum, 0, end_point(E, nuclide.mass), epsabs=0, epsrel=1e-12)[0]

    truth = [UNIT * nuclide.mass * average(total, c) for c in COMPONENTS]
    np.testing.assert_allclose(averages(name, model), truth, rtol=1e-9)


@pytest.mark.parametrize("name", ["Cs133", "Ar40"])
@pytest.mark.parametrize("shape", SHAPES)
def test_flux_moments(name, shape):
    M = nucleus(name).mass
    ends = [end_point(E, M) for E in (E_LINE, E_END)]
    T = np.array([1e-6, 1e-4, 0.3 * ends[0], 0.999 * ends[0], 1.001 * ends[0], 0.6 * ends[1], 0.99 * ends[1]])
    truth = [[average(lambda E, t=t: SHAPES[shape](E, t, M), c, energy_of(t, M)) for t in T] for c in COMPONENTS]
    found = [moment(c, shape, nucleus(name).mass, jnp.asarray(T))(None) for c in FLUX.components]
    np.testing.assert_allclose(found, truth, rtol=1e-10)


@pytest.mark.parametrize("model", CHARGES)
@pytest.mark.parametrize("name", ["I127", "Ar40"])
def test_recoil_spectrum(name, model):
    nuclide = nucleus(name)
    M, last = nuclide.mass, end_point(E_END, nuclide.mass)
    T = np.array([1e-5, 1e-3, 0.3 * last, 0.318 * last, 0.32 * last, 0.7 * last, 0.95 * last, 1.0001 * last, 2 * last])
    truth = np.array(
        [[average(lambda E, t=t: SHAPES["vector"](E, t, M), c, energy_of(t, M)) for t in T] for c in COMPONENTS]
    )
    truth = UNIT * M * truth * np.array([CHARGES[model](t, nuclide, nuclide.R_n) for t in T])
    spectrum = jax.jit(lambda t: rates.recoil_spectrum(TREE, StandardModel("tree"), FLUX, bound(name, model), t))
    found = np.asarray(spectrum(T))
    np.testing.assert_allclose(found, truth, rtol=1e-11)
    assert np.all(found[:, -2:] == 0)
    assert found[0, 3] > 0 == found[0, 4]  # the line ends between 0.318 and 0.32 of the last end point


@pytest.mark.parametrize("name", ["CsI", "Ar", "Ge"])
def test_recoil_grid_is_adapted_to_the_end_points(name):
    nuclides = target(name).nuclei
    grid = recoil_grid(nuclides, FLUX)
    nodes, weights = np.asarray(grid.nodes), np.asarray(grid.weights)
    ends = [end_point(E, n.mass) for E in (E_LINE, E_END) for n in nuclides]
    assert np.all(np.diff(nodes) > 0)
    assert np.all(weights > 0)
    assert nodes[0] > 0 and nodes[-1] < max(ends)
    # a polynomial with a step at every end point is integrated exactly
    for end in ends:
        np.testing.assert_allclose(weights @ (nodes**6 * (nodes < end)), end**7 / 7, rtol=1e-12)


def test_default_grid_is_good_enough_for_spectra():
    cs = bound("Cs133", "helm")
    grid = recoil_grid(target("CsI").nuclei, FLUX)
    nodes, weights = np.asarray(grid.nodes), np.asarray(grid.weights)
    spectrum = jax.jit(lambda t: rates.recoil_spectrum(TREE, StandardModel("tree"), FLUX, cs, t))(nodes)
    np.testing.assert_allclose(spectrum @ weights, averages("Cs133", "helm"), rtol=1e-7)


def test_each_component_scatters_with_its_own_flavour():
    # eps_dV_mumu = -Q/(Z + 2N) switches muon neutrinos off, and electron neutrinos stay
    params = {**TREE, **EPS, "eps_dV_mumu": -(0.02286 * 55 - 39) / (55 + 156)}
    found = rates.recoil_spectrum(params, StandardModel("tree") + NSI(), FLUX, bound("Cs133"), jnp.array([1e-3]))
    standard = rates.recoil_spectrum(TREE, StandardModel("tree"), FLUX, bound("Cs133"), jnp.array([1e-3]))
    np.testing.assert_allclose(found / standard, [[0.0], [1.0], [0.0]], atol=1e-14)


EPS = {p.name: 0.0 for p in NSI().parameters}
NEW = {**TREE, **EPS, "eps_uV_ee": -0.4, "eps_dV_emu": 0.3, "eps_uV_mumu": 0.7, "eps_dV_tautau": 0.2}


@functools.cache
def compiled(name, interaction):
    kernel = StandardModel("tree") + NSI() if interaction == "nsi" else StandardModel("tree")
    return jax.jit(lambda E, T: rates.differential_cross_section(NEW, kernel, bound(name, "helm"), E, T))


@pytest.mark.parametrize("interaction", ["standard-model", "nsi"])
@pytest.mark.parametrize("name", ["Cs133", "Ar40", "Ge73"])
@given(
    u=hnp.arrays(float, 200, elements=st.floats(0, 1)),
    v=hnp.arrays(float, 200, elements=st.floats(0, 1)),
)
@settings(max_examples=50, deadline=None)
def test_cross_section_is_never_negative(name, interaction, u, v):
    E, T = 0.05 * 4000**u, 1e-8 * 1e8**v
    section = np.asarray(compiled(name, interaction)(E, T))
    assert section.shape == (3, 200)
    assert np.all(np.isfinite(section))
    assert np.all(section >= 0)
    # zero beyond the end point of the energy, and only there
    last = end_point(E, nucleus(name).mass)
    assert np.all(section[:, last * (1 + 1e-9) < T] == 0)
    assert np.all(section[0, last * (1 - 1e-9) > T] > 0) or interaction == "nsi"


def test_differential_cross_section_value():
    cs = nucleus("Cs133")
    section = rates.differential_cross_section(TREE, StandardModel("tree"), bound("Cs133", "helm"), 30.0, 0.006)
    truth = UNIT * cs.mass * (1 - cs.mass * 0.006 / 1800) * helm_squared_charge(0.006, cs, 5.09)
    np.testing.assert_allclose(section, [truth] * 3, rtol=1e-13)


def test_energies_broadcast():
    E, T = np.array([20.0, 30.0, 40.0])[:, None], np.array([1e-3, 5e-3])
    found = rates.differential_cross_section(TREE, StandardModel("tree"), bound("Cs133"), E, T)
    assert found.shape == (3, 3, 2)
    alone = rates.differential_cross_section(TREE, StandardModel("tree"), bound("Cs133"), 40.0, 5e-3)
    np.testing.assert_allclose(found[:, 2, 1], alone, rtol=1e-15)


def test_spectrum_is_quadratic_in_the_charge():
    cs = BoundNucleus(nucleus("Cs133"), form_factor("point"), jnp.asarray(0.0), jnp.asarray(0.0))
    standard = StandardModel("tree")
    once, twice = jax.jit(
        lambda t: [rates.recoil_spectrum(TREE, x, FLUX, cs, t) for x in (standard, standard + standard)]
    )(jnp.array([1e-3, 5e-3]))
    np.testing.assert_allclose(twice, 4 * once, rtol=1e-14)


def test_jit_equals_eager_equals_vmap():
    T = jnp.array([1e-3, 4e-3, 0.012])

    def spectrum(s2w, t):
        return rates.recoil_spectrum({"sin2_theta_w": s2w}, StandardModel(), FLUX, bound("Cs133", "helm"), t)

    eager = spectrum(0.23, T)
    np.testing.assert_allclose(jax.jit(spectrum)(0.23, T), eager, rtol=1e-14)
    mapped = jax.jit(jax.vmap(spectrum, (None, 0), 1))(0.23, T)
    np.testing.assert_allclose(mapped, eager, rtol=1e-14)


def test_gradient_in_mixing_angle_and_radius():
    nuclear = NuclearModel(target("Cs133"), form_factor("helm"))

    @jax.jit
    def total(x):
        (cs,) = nuclear.bind({"R_n_Cs133": x[1]})
        return 1e38 * rates.flux_averaged_cross_section({"sin2_theta_w": x[0]}, StandardModel(), FLUX, cs)

    x = np.array([0.23, 5.2])
    found = jax.jit(jax.jacfwd(total))(x)
    for i, h in enumerate((1e-4, 1e-4)):
        step = np.eye(2)[i] * h
        np.testing.assert_allclose(found[:, i], (total(x + step) - total(x - step)) / (2 * h), rtol=1e-7)
