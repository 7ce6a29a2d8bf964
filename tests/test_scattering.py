"""The signal components: what is tabulated equals what is computed on the way, for every interaction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.electrons import effective_charge
from cevjax.interactions import StandardModel, interaction
from cevjax.registry import interaction_names
from cevjax.scattering import Electrons, electron_scattering, moving_parameters

NAME = "coherent-csi-2021"
PULLS = {"sns_flux": 0.5, "csi2021_qf0": -0.7, "csi2021_efficiency": 1.3, "csi2021_timing": 0.2, "csi2021_radius": 0.4}


@pytest.fixture(scope="module")
def csi():
    return cevjax.load(NAME, es=True)


def components(measurement):
    return {c.name: c for c in measurement.components if c.name in ("cevns", "es")}


def model(name):
    own = interaction(name)
    total = StandardModel() if name == "standard-model" else StandardModel() + own
    moved = {p.name: float(p.decode(p.encode(p.nominal) + 0.4)) for p in own.parameters if not p.members}
    return total, moved


def point(measurement, total, moved):
    parameters = (*total.parameters, *measurement.parameters)
    return {p.name: p.nominal for p in parameters if not p.members} | PULLS | moved


HEAVY = ("charge-radius", "dipole-portal", "sterile")  # to compile


def marked(names):
    return [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in names]


@pytest.mark.parametrize("name", marked(interaction_names()))
def test_prepared_equals_unprepared(csi, name):
    total, moved = model(name)
    params = point(csi, total, moved)
    for component in components(csi).values():
        plain = component(params, total)
        prepared = component.prepare(total)
        np.testing.assert_allclose(prepared(params, total), plain, rtol=1e-10, atol=1e-12 * np.max(plain))


@pytest.mark.parametrize("name", marked(["magnetic-moment", "sterile"]))
def test_derivatives_through_the_stages(csi, name):
    """Forward and reverse through recoils and moments, against central differences."""
    total, moved = model(name)
    params = point(csi, total, moved)
    names = [*moved, "csi2021_efficiency", "csi2021_radius"]
    scales = np.array([next(p.scale for p in (*total.parameters, *csi.parameters) if p.name == n) for n in names])
    parts = [c.prepare(total) for c in components(csi).values()]

    def counts(x):
        values = params | {n: params[n] + s * x[i] for i, (n, s) in enumerate(zip(names, scales, strict=True))}
        return sum(jnp.sum(c(values, total), axis=1) for c in parts)

    zero, h = np.zeros(len(names)), 1e-4
    forward, backward = jax.jit(jax.jacfwd(counts))(zero), jax.jit(jax.jacrev(counts))(zero)
    shifted = jax.jit(jax.vmap(counts))(np.concatenate([h * np.eye(len(names)), -h * np.eye(len(names))]))
    numeric = (shifted[: len(names)] - shifted[len(names) :]).T / (2 * h)
    np.testing.assert_allclose(backward, forward, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(forward, numeric, rtol=2e-6, atol=1e-7 * np.abs(numeric).max())


def test_which_parameters_reach_into_the_moments():
    assert moving_parameters(StandardModel() + interaction("nsi"), [{}]) == set()
    portal = interaction("dipole-portal")
    assert moving_parameters(portal, [portal.shapes]) == {"m_4"}
    sterile = {"sin2_2theta_ee", "sin2_2theta_mumu", "sin2_2theta", "dm2_41"}
    assert moving_parameters(StandardModel() + interaction("sterile"), [{}]) == sterile


def test_electrons_are_those_that_the_recoil_can_free(csi):
    es = components(csi)["es"]
    assert isinstance(es.scatterers, Electrons)
    units = 14.6e3 / 259.809 * 6.02214076e23
    free = effective_charge("Cs", es.grid.nodes) + effective_charge("I", es.grid.nodes)
    np.testing.assert_allclose(es.scatterers.number, units * free, rtol=1e-12)
    assert es.scatterers.parameters == ()


def test_electrons_are_not_quenched(csi):
    """13.35 PE a keV: 2 keV reconstruct at 27 PE, 7 keV beyond the region. Quenching does not move them."""
    es = components(csi)["es"]
    at = lambda kev, **pulls: np.asarray(  # noqa: E731
        es.response({"csi2021_efficiency": 0.0, **pulls}, np.array([1e-3 * kev]))
    )[:, 0]
    assert np.argmax(at(2.0)) == 5  # 24-32 PE
    assert at(7.0).sum() < 0.01 < 0.3 < at(2.0).sum()
    np.testing.assert_array_equal(at(2.0), at(2.0, csi2021_qf0=2.0, csi2021_qf1=-2.0))


@pytest.mark.parametrize("pull", [-4.9, -1.0, 0.0, 0.3, 2.0, 4.9])
def test_tabulated_densities_change_nothing(csi, pull):
    es = components(csi)["es"]
    params = {"csi2021_efficiency": pull}
    plain, tabulated = es.response, es.response.prepare(es.grid.nodes)
    assert tabulated.densities is not None and plain.densities is None
    np.testing.assert_array_equal(tabulated(params, es.grid.nodes), plain(params, es.grid.nodes))
    # the threshold lies where the nodes move with it
    edges = np.asarray(plain.edges)
    assert float(plain.efficiency.threshold(params)) <= edges[plain.reached]


def test_a_target_without_known_shells_is_refused(csi):
    es = components(csi)["es"]
    fields = {key: getattr(es, key) for key in ("flux", "fluence", "baseline_m", "response", "time", "norm")}
    with pytest.raises(cevjax.errors.UnknownNameError, match="atomic shells"):
        electron_scattering(target=cevjax.nuclei.target("W"), mass_kg=1.0, recoil_kev=(0.1, 5.0), **fields)


def test_es_must_be_a_flag():
    with pytest.raises(cevjax.errors.InvalidValueError, match="`es` must be True, False or None"):
        cevjax.load(NAME, es="yes")


@pytest.mark.parametrize(
    ("es", "name", "counted"),
    [
        (None, "standard-model", False),
        (None, "generalized", False),
        (None, "sterile", False),
        (None, "magnetic-moment", True),
        (None, "light-vector", True),
        (True, "standard-model", True),
        (False, "magnetic-moment", False),
    ],
)
def test_electrons_count_where_they_matter(es, name, counted):
    """By default they do where an interaction beyond the standard model acts on them."""
    like = cevjax.Likelihood([cevjax.load(NAME, es=es)], model(name)[0])
    assert ("es" in like.expected(like.nominal())[NAME]) == counted
