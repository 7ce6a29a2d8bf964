"""What every registered interaction must satisfy: found by name, so a new one is tested without a line here."""

import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cevjax.form_factors import form_factor
from cevjax.interactions import StandardModel, strengths
from cevjax.interactions.base import shapes_of
from cevjax.kinematics import SHAPES
from cevjax.nuclear_model import NuclearModel
from cevjax.nuclei import target
from cevjax.rates import differential_cross_section
from cevjax.registry import interaction_class, interaction_names

NUCLEUS = NuclearModel(target("Cs133"), form_factor("helm")).bind({"R_n_Cs133": 5.09})[0]
# energies by recoils, in MeV; recoils from 0.1 keV to well beyond the end points
E, T = np.array([5.0, 16.0, 29.8, 52.0])[:, None], np.array([1e-4, 1e-3, 4e-3, 0.012, 0.03, 0.1])
END_POINT = E - E / (1 + 2 * E / NUCLEUS.mass)  # backscattering

every_interaction = pytest.mark.parametrize("name", interaction_names())


@functools.cache
def complete(name):
    """The interaction, on top of the standard model unless it is that."""
    model = interaction_class(name)()
    return model if name == "standard-model" else StandardModel() + model


def parameters(name):
    return {p.name: p for p in complete(name).parameters}


def nominal(name):
    return np.array([p.nominal for p in parameters(name).values()])


def scales(name):
    return np.array([p.scale for p in parameters(name).values()])


def typical(name):
    """A point away from nominal, where no derivative vanishes by symmetry, inside the search ranges."""
    low, high = np.array([p.search_range() for p in parameters(name).values()]).T
    steps = 0.3 + 0.4 * np.sin(1 + np.arange(len(low))) ** 2
    return np.clip(nominal(name) + steps * scales(name), low + 0.01 * (high - low), high - 0.01 * (high - low))


def section(name, values):
    params = dict(zip(parameters(name), values, strict=True))
    # in units of 1e-40 cm^2/keV, of order one
    return 1e37 * differential_cross_section(params, complete(name), NUCLEUS, E, T)


@functools.cache
def compiled(name):
    return jax.jit(lambda values: section(name, values))


@functools.cache
def standard():
    return np.asarray(compiled("standard-model")(nominal("standard-model")))


@functools.cache
def cloud(name):
    """Parameter points drawn over the search ranges."""
    low, high = np.array([p.search_range() for p in parameters(name).values()]).T
    return low + (high - low) * np.random.default_rng(1).random((8, len(low)))


@every_interaction
def test_parameters_are_well_formed(name):
    for parameter in parameters(name).values():
        assert re.fullmatch(r"[A-Za-z]\w*", parameter.name, re.ASCII)
        assert math.isfinite(parameter.nominal)
        assert parameter.check(parameter.nominal) == parameter.nominal
        assert 0 < parameter.scale < math.inf
        low, high = parameter.search_range()
        assert -math.inf < low < high < math.inf
        assert parameter.description


@every_interaction
def test_documented_with_a_source(name):
    cls = interaction_class(name)
    text = (inspect.getdoc(cls) or "") + cls.source
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|hep-(ph|ex)/\d{7}|Phys\.|JHEP|Eur\.", text)
    assert len(inspect.getdoc(cls).split()) > 10


@every_interaction
def test_strengths_have_known_shapes_and_three_flavours(name):
    params = dict(zip(parameters(name), typical(name), strict=True))
    q = jnp.linspace(1.0, 100.0, 7)
    terms = strengths(complete(name), params, NUCLEUS, q)
    assert set(terms) == set(shapes_of(complete(name), NUCLEUS)) <= set(SHAPES)
    for strength in terms.values():
        assert strength.shape == (3, 7)
        assert not jnp.iscomplexobj(strength)
        assert np.all(np.asarray(strength) >= 0)


@every_interaction
def test_nominal_is_exactly_the_standard_model(name):
    found = np.asarray(compiled(name)(nominal(name)))
    assert found.shape == (3, 4, 6)
    np.testing.assert_allclose(found, standard(), rtol=1e-14)


@every_interaction
def test_cross_section_is_finite_and_not_negative(name):
    found = np.asarray(jax.vmap(compiled(name))(cloud(name)))
    assert np.all(np.isfinite(found))
    assert np.all(found >= 0)
    assert np.any(found > 0)


@every_interaction
def test_zero_beyond_the_end_point(name):
    found = np.asarray(jax.vmap(compiled(name))(cloud(name)))
    beyond = np.broadcast_to(END_POINT < T, found.shape[2:])
    assert np.all(found[..., beyond] == 0)
    assert np.all(standard()[:, ~beyond] > 0)


@every_interaction
def test_every_parameter_matters(name):
    jacobian = np.asarray(jax.jit(jax.jacfwd(compiled(name)))(typical(name)))
    # parameters of the flux alone do not act on cross sections
    if not complete(name).changes_flux:
        assert np.all(np.abs(jacobian).max(axis=(0, 1, 2)) > 0)


@every_interaction
def test_gradient_is_the_finite_difference(name):
    point, steps = typical(name), 1e-4 * np.diag(scales(name))
    evaluate = jax.jit(jax.vmap(compiled(name)))
    forward = np.asarray(jax.jit(jax.jacfwd(compiled(name)))(point)) * scales(name)
    backward = np.asarray(jax.jit(jax.jacrev(compiled(name)))(point)) * scales(name)
    numeric = np.moveaxis(np.asarray(evaluate(point + steps) - evaluate(point - steps)), 0, -1) / 2e-4
    largest = np.abs(numeric).max(axis=(0, 1, 2))
    np.testing.assert_allclose(forward / largest, numeric / largest, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(backward / largest, forward / largest, rtol=1e-11, atol=1e-13)


@every_interaction
def test_gradient_at_the_nominal_point_is_finite(name):
    assert np.all(np.isfinite(jax.jit(jax.jacfwd(compiled(name)))(nominal(name))))


@every_interaction
def test_vmap_equals_loop_and_jit_equals_eager(name):
    points = cloud(name)[:3]
    mapped = np.asarray(jax.jit(jax.vmap(compiled(name)))(points))
    loop = np.stack([compiled(name)(p) for p in points])
    np.testing.assert_allclose(mapped, loop, rtol=1e-13)
    np.testing.assert_allclose(section(name, points[0]), loop[0], rtol=1e-13)
