"""Reactor antineutrinos against published totals, tables interpolated by hand, and scipy quadrature."""

import functools
import os
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_reactor import DRESDEN_FRACTIONS, HEAT, ISOTOPES, density, fissions, per_fission
from scipy.integrate import quad

from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.fluxes import PionDecayAtRest, Reactor, ReactorFluence
from cevjax.fluxes.reactor import ENERGY_PER_FISSION
from cevjax.interactions import Oscillation
from cevjax.moments import moment
from cevjax.tables import data_dir

# QAWO says where it has reached the rounding errors
pytestmark = pytest.mark.filterwarnings("ignore:The occurrence of roundoff error::")

NAMES = ("vogel_engel", "kopeikin", "neutron_capture", "estienne_fallot")
TABLES = {name: np.loadtxt(data_dir("reactor-flux") / f"{name}.csv", delimiter=",") for name in NAMES}
FLUXES = {model: Reactor(model) for model in ("hmve", "hmk", "efk")}
MASS = 67_000.0  # of germanium, about
EVERY = [(model, c.name) for model, flux in FLUXES.items() for c in flux.components]


@functools.cache
def component(model, name):
    return next(c for c in FLUXES[model].components if c.name == name)


def breaks(model, name):
    """Where the density has a kink or a step."""
    table = {"hmve": "vogel_engel", "efk": "estienne_fallot"}.get(model) if name in ISOTOPES else name
    nodes = TABLES[table][:, 0] if table else np.empty(0)
    return np.unique(np.concatenate([nodes[nodes < 10], [0.0, 2.0, 10.0]]))


def integral(model, name, function, low, high=10.0):
    """int phi(E) f(E) dE, piece by piece; each piece open at its ends, where the density may step."""
    edges = [low, *(b for b in breaks(model, name) if low < b < high), high]
    inside = [(a + 1e-12, b - 1e-12) for a, b in pairwise(edges)]
    at = functools.partial(density, TABLES, model, name)
    return sum(quad(lambda E: float(at(E)) * function(E), a, b, epsabs=1e-13, epsrel=1e-10)[0] for a, b in inside)


def from_lowest(model, name, low):
    """Energies and weights, eagerly: no compilation for each of them."""
    energy, weight = component(model, name).quadrature(jnp.asarray(low, float))
    return np.asarray(energy), np.asarray(weight)


@pytest.fixture(scope="module")
def reactor_release():
    """Folder of the published tables; the test is skipped without it."""
    releases = Path(os.environ.get("CEVJAX_RELEASES", Path(__file__).parents[3] / "shared" / "releases"))
    folder = releases / "reactor-flux"
    if not (folder / "spectraMeVU235.txt").is_file():
        pytest.skip("the tables of reactor spectra are not at hand: set CEVJAX_RELEASES to the folder that holds them")
    return folder


# --- spectra


def test_components():
    assert FLUXES["hmve"].names == (*ISOTOPES, "neutron_capture")
    assert FLUXES["hmk"].names == FLUXES["efk"].names == (*ISOTOPES, "kopeikin")
    assert Reactor("hmve", captures=False).names == ISOTOPES
    assert Reactor("hmk", captures=False).names == FLUXES["hmk"].names  # they are part of the total spectrum
    for flux in FLUXES.values():
        assert np.all(flux.flavours == 0) and all(c.antineutrino for c in flux.components)
        assert max(c.energy_max for c in flux.components) == 10.0


@pytest.mark.parametrize(
    ("isotope", "total", "above"),
    [("U235", 5.72, 1.6872), ("U238", 6.79, 2.2445), ("Pu239", 5.13, 1.2624), ("Pu241", 5.91, 1.6146)],
)
def test_published_totals_of_the_isotopes(isotope, total, above):
    """Vogel and Engel over all energies; Huber (Mueller et al. for U238) from 2 to 8 MeV."""
    # the spectra above 2 MeV are others than theirs
    assert component("hmve", isotope).total == pytest.approx(total, rel=0.006)
    for model in ("hmve", "hmk"):
        sums = [from_lowest(model, isotope, low) for low in (2.0, 8.0)]
        inside = np.subtract(*(np.sum(weight) for _, weight in sums))
        assert inside == pytest.approx(above, abs=6e-5)


def test_published_totals_of_all_isotopes_and_captures():
    assert component("hmve", "neutron_capture").total == pytest.approx(1.2, rel=1e-6)
    # Kopeikin's 6.67 are for the fuel of a pressurised-water reactor, and with his own spectrum above 2 MeV
    fractions = dict(zip(ISOTOPES, (0.56, 0.08, 0.30, 0.06), strict=True))
    for model in ("hmk", "efk"):
        share = [fractions.get(c.name, 1.0) * c.total for c in FLUXES[model].components]
        assert sum(share) == pytest.approx(6.67, rel=0.02)


def test_published_totals_of_the_full_tables(reactor_release):
    """The embedded tables end at 2 MeV: with the rest of the published ones their totals are the published ones."""
    published = dict(zip(ISOTOPES, (5.72, 6.79, 5.13, 5.91), strict=True))
    tables = {name: np.loadtxt(reactor_release / f"spectraMeV{name}.txt") for name in ISOTOPES}
    tables["kopeikin"] = np.loadtxt(reactor_release / "kopeikin2012_table3.csv", delimiter=",", skiprows=2)
    for name, table in tables.items():
        model = "hmve" if name in ISOTOPES else "hmk"
        above = table[table[:, 0] >= 2]
        if above[0, 0] > 2:  # some have no node there
            above = np.vstack([[2.0, np.interp(2.0, *table.T)], above])
        below = np.sum(from_lowest(model, name, 0.0)[1]) - np.sum(from_lowest(model, name, 2.0)[1])
        whole = below + np.trapezoid(above[:, 1], above[:, 0])
        assert whole == pytest.approx({**published, "kopeikin": 6.67}[name], abs=0.01)


@pytest.mark.parametrize(("model", "name"), EVERY)
def test_density(model, name):
    c = component(model, name)
    low, high = c.breaks[0], c.end
    E = np.concatenate([np.geomspace(max(low, 1e-3), high, 301)[1:-1], np.linspace(low, high, 200)[1:-1]])
    np.testing.assert_allclose(c.density(jnp.asarray(E)), density(TABLES, model, name, E), rtol=1e-11)


@pytest.mark.parametrize(("model", "name"), EVERY)
def test_total(model, name):
    truth = integral(model, name, lambda E: 1.0, 0.0)
    assert component(model, name).total == pytest.approx(truth, rel=1e-4 if model == "efk" else 1e-8)


@pytest.mark.parametrize(("model", "name"), [("hmve", "U238"), ("hmk", "kopeikin"), ("hmve", "neutron_capture")])
@given(low=st.floats(0.02, 10), n=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_quadrature_from_a_lowest_energy(model, name, low, n):
    energy, weight = from_lowest(model, name, low)
    truth = integral(model, name, lambda E: E**-n, low) if low < 10 else 0.0
    np.testing.assert_allclose(np.sum(weight / energy**n), truth, rtol=1e-7, atol=1e-10)
    used = weight > 0
    assert np.all(energy[used] >= low) and np.all(energy <= component(model, name).end)
    assert np.all(weight >= 0)


@pytest.mark.parametrize("name", ["U235", "Pu241"])
@given(low=st.floats(0.5, 8), n=st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_quadrature_of_summation_spectra(name, low, n):
    """They have a kink every 0.1 MeV, and nodes in panels of 0.5 MeV."""
    energy, weight = from_lowest("efk", name, low)
    truth = integral("efk", name, lambda E: E**-n, max(low, 2.0))
    np.testing.assert_allclose(np.sum(weight / energy**n), truth, rtol=2e-3)


def test_nothing_above_the_end_of_a_spectrum():
    for model, name in EVERY:
        energy, weight = from_lowest(model, name, [component(model, name).end + 1e-9, 60.0])
        assert np.all(weight == 0) and np.all(np.isfinite(energy))


def test_jit_equals_eager_equals_vmap():
    low = jnp.array([0.0, 0.3, 2.0, 5.5, 12.0])
    for name in ("U235", "neutron_capture"):
        c = component("hmve", name)
        eager = c.quadrature(low)
        for found in (jax.jit(c.quadrature)(low), jax.vmap(c.quadrature)(low)):
            for a, b in zip(found, eager, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("low", [0.37, 1.1, 3.3, 6.6])
def test_derivative_in_the_lowest_energy_is_minus_the_density(low):
    c = component("hmve", "U238")
    slope = jax.grad(lambda x: jnp.sum(c.quadrature(x)[1]))(jnp.asarray(low))
    assert float(slope) == pytest.approx(-float(density(TABLES, "hmve", "U238", low)), rel=1e-5)


# --- oscillations: panels of 1/E

RECOILS = np.array([2e-5, 2e-4, 1e-3])
WAVING = [("hmve", "U238"), ("hmve", "neutron_capture"), ("hmk", "kopeikin"), ("hmk", "Pu239")]


@functools.cache
def moments():
    """K(T) of some components, with what oscillates."""
    of_all = {pair: component(*pair) for pair in WAVING}
    table = jax.jit(
        lambda T: [moment(c, "vector", MASS, T, oscillates=True) for c in of_all.values()],
    )(RECOILS)
    return dict(zip(of_all, table, strict=True))


@jax.jit
def mixed(found, frequency):
    return [m(Oscillation(jnp.full(3, 2.0), frequency)) for m in found]


@functools.cache
def waves(frequency):
    """int phi f cos(2 frequency/E): sin^2 with twice the full amplitude leaves the cosine alone."""
    return dict(zip(WAVING, mixed(list(moments().values()), frequency), strict=True))


def least_energy(T):
    return (T + np.sqrt(T**2 + 2 * MASS * T)) / 2


@pytest.mark.parametrize(("model", "name"), WAVING)
def test_panels_of_waves_integrate_the_same(model, name):
    """Their nodes and weights are those of another quadrature, from any lowest energy."""
    lows = jnp.array([0.05, 0.3, 0.9, 1.99, 2.01, 4.4, 9.9])
    total = sum(
        np.sum(np.asarray(nodes.weight) * np.asarray(nodes.energy) ** -2.0, axis=(-1, -2))
        for nodes in component(model, name).wave_nodes(lows)
    )
    low, end = np.asarray(lows), component(model, name).end
    truth = [integral(model, name, lambda E: E**-2.0, a) if a < end else 0.0 for a in low]
    np.testing.assert_allclose(total, truth, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("model", "name"), WAVING)
@pytest.mark.parametrize("frequency", [0.0, 0.4, 13.2, 130.0, 2e3])  # 13.2 is 1 eV^2 at 10.4 m
def test_waves(model, name, frequency):
    found = waves(frequency)[model, name]
    whole = np.asarray(moments()[model, name].whole)
    truth = []
    for T in RECOILS:
        edges = [b for b in breaks(model, name) if b > least_energy(T)]
        edges = [least_energy(T), *edges]
        total = 0.0
        for a, b in pairwise(edges):
            options = {"weight": "cos", "wvar": 2 * frequency} if frequency else {}
            x, y = 1 / (b - 1e-12), 1 / (a + 1e-12)
            total += quad(
                lambda u, T=T: float(density(TABLES, model, name, 1 / u)) * (1 - MASS * T * u**2 / 2) / u**2,
                x, y, epsabs=1e-14, epsrel=1e-12, limit=1000, **options,
            )[0]  # fmt: skip
        truth.append(total)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-8 * whole.max())
    if not frequency:
        np.testing.assert_allclose(whole, truth, rtol=1e-6, atol=1e-9 * whole.max())


# --- fluence


def nominal(fluence):
    return {p.name: p.nominal for p in fluence.parameters}


def named(fractions, prefix="unit"):
    return {f"{prefix}_fission_{name}": value for name, value in fractions.items()}


def test_fluence_of_a_power():
    flux = FLUXES["hmve"]
    fluence = ReactorFluence.of_power(flux, 2.96, 10.39, 96.4, DRESDEN_FRACTIONS, "dresden")
    found = fluence(nominal(fluence))
    number = fissions(2.96, 10.39, DRESDEN_FRACTIONS) * 96.4 * 86400
    np.testing.assert_allclose(found, number * np.array([*DRESDEN_FRACTIONS.values(), 1.0]), rtol=1e-9)
    # 2.96e9 J/s over 1.602176634e-13 J/MeV and the mean heat of a fission
    heat = 0.58 * 202.36 + 0.08 * 205.99 + 0.29 * 211.12 + 0.05 * 214.26
    assert heat == pytest.approx(205.786, abs=1e-3)
    assert number / (96.4 * 86400) * 4 * np.pi * 1039**2 == pytest.approx(2.96e9 / 1.602176634e-13 / heat, rel=1e-12)


def test_heat_of_fissions():
    assert ENERGY_PER_FISSION == HEAT


@pytest.mark.parametrize("model", FLUXES)
def test_fluence_of_a_flux(model):
    flux = FLUXES[model]
    fluence = ReactorFluence.of_flux(flux, 1.5e13, 119.0, DRESDEN_FRACTIONS, "unit")
    total = float(fluence(nominal(fluence)) @ jnp.array([c.total for c in flux.components]))
    assert total == pytest.approx(1.5e13 * 119 * 86400, rel=1e-12)
    fissioned = np.sum(np.asarray(fluence(nominal(fluence)))[:4]) / (119 * 86400)
    expected = 1.5e13 / per_fission(TABLES, model, DRESDEN_FRACTIONS)
    assert fissioned == pytest.approx(expected, rel=1e-4 if model == "efk" else 2e-6)


def test_fluence_of_the_flux_of_another_spectrum_has_its_fissions():
    reference = Reactor("hmve", captures=False)
    number = 4.8e13 * 86400 / per_fission(TABLES, "hmve", DRESDEN_FRACTIONS, captures=False)
    for flux in (reference, *FLUXES.values()):
        fluence = ReactorFluence.of_flux(flux, 4.8e13, 1.0, DRESDEN_FRACTIONS, "unit", reference=reference)
        found = fluence(nominal(fluence))
        expected = number * np.array([DRESDEN_FRACTIONS.get(name, 1.0) for name in flux.names])
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_parameters_of_a_fluence():
    fluence = ReactorFluence(FLUXES["hmk"], 1.0, {"U235": 3.0, "Pu239": 1.0}, "unit")
    assert nominal(fluence) == named({"U235": 0.75, "U238": 0.0, "Pu239": 0.25, "Pu241": 0.0})
    assert all(p.bounds == (0.0, 1.0) and not p.nuisance for p in fluence.parameters)
    other = ReactorFluence(FLUXES["hmk"], 1.0, {"U235": 1.0}, "other")
    assert not set(nominal(other)) & set(nominal(fluence))


FLUENCE = ReactorFluence(FLUXES["hmve"], 1e3, DRESDEN_FRACTIONS, "unit")
OF_FRACTIONS = jax.jit(lambda f: FLUENCE(named(dict(zip(ISOTOPES, f, strict=True)))))


@given(st.tuples(*[st.floats(0.01, 1)] * 4), st.floats(0.1, 1))
@settings(max_examples=50, deadline=None)
def test_fractions_are_normalised_to_their_sum(f, scale):
    f = np.array(f)
    heat = np.array([HEAT[name] for name in ISOTOPES])
    found = np.asarray(OF_FRACTIONS(f))
    np.testing.assert_allclose(found, OF_FRACTIONS(scale * f), rtol=1e-12)
    # whatever is fissioned, the heat is the same; and the captures count fissions
    assert found[:4] @ heat == pytest.approx(1e3, rel=1e-12)
    assert found[4] == pytest.approx(found[:4].sum(), rel=1e-12)
    np.testing.assert_allclose(found[:4] / found[4], f / f.sum(), rtol=1e-12)


@given(st.tuples(*[st.floats(0.05, 1)] * 4))
@settings(max_examples=20, deadline=None)
def test_gradient_in_the_fractions(f):
    f, heat = np.array(f), np.array([HEAT[name] for name in ISOTOPES])
    found, total = np.asarray(JACOBIAN(f)), f @ heat
    # N_i = W f_i/S and N_c = W F/S with S = sum of f e, F = sum of f
    closed = 1e3 * (np.vstack([np.eye(4), np.ones(4)]) / total - np.outer([*f, f.sum()], heat) / total**2)
    np.testing.assert_allclose(found, closed, rtol=1e-9, atol=1e-12)
    h = 1e-6
    numeric = np.stack([(OF_FRACTIONS(f + h * e) - OF_FRACTIONS(f - h * e)) / (2 * h) for e in np.eye(4)], axis=1)
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-5)


JACOBIAN = jax.jit(jax.jacfwd(OF_FRACTIONS))


def test_fluence_under_vmap():
    many = np.array([[0.6, 0.1, 0.2, 0.1], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(jax.vmap(OF_FRACTIONS)(many), np.stack([OF_FRACTIONS(f) for f in many]), rtol=1e-13)


def test_unknown_models_and_isotopes():
    with pytest.raises(UnknownNameError, match=r"Unknown reactor flux 'hmv'\. Did you mean 'hmve'"):
        Reactor("hmv")
    with pytest.raises(UnknownNameError, match=r"Unknown fissile isotope 'U-235'\. Did you mean 'U235'"):
        ReactorFluence(FLUXES["hmk"], 1.0, {"U-235": 1.0}, "unit")


@pytest.mark.parametrize("bad", [{"U235": -0.1, "U238": 1.0}, {"U235": 0.0}, {}, {"U235": np.nan}, {"U235": np.inf}])
def test_unusable_fractions(bad):
    with pytest.raises(InvalidValueError, match="Fission fractions must be at least 0 and not all 0"):
        ReactorFluence(FLUXES["hmk"], 1.0, bad, "unit")


def test_a_flux_without_breaks_is_as_before():
    """Continuum with no breaks: one Gauss-Legendre rule from the lowest energy to the end."""
    nu_e = PionDecayAtRest().components[1]
    energy, weight = nu_e.quadrature(jnp.array([10.0]))
    x, w = np.polynomial.legendre.leggauss(nu_e.order)
    np.testing.assert_allclose(energy[0], 10 + (nu_e.end - 10) * (x + 1) / 2, rtol=1e-13)
    truth = (nu_e.end - 10) / 2 * w * np.asarray(nu_e.density(energy[0]))
    np.testing.assert_allclose(weight[0], truth, rtol=1e-12)
