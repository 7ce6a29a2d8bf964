"""What every registered interaction must satisfy: found by name, so a new one is tested without a line here.

The observable is everything an interaction can change: cross sections on a nucleus with spin, on electrons by neutrinos
and antineutrinos, and the recoil spectrum of a flux that has travelled 20 m. Parameters are moved in the dimensionless
coordinates of the minimiser.
"""

import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cevjax.analysis import parse_plugin, typed_choices
from cevjax.electrons import Electron
from cevjax.fluxes import PionDecayAtRest
from cevjax.form_factors import form_factor
from cevjax.interactions import StandardModel, interaction, strengths
from cevjax.interactions.base import CONTRIBUTIONS, contributes, shapes_of
from cevjax.nuclear_model import NuclearModel
from cevjax.nuclei import target
from cevjax.rates import differential_cross_section, recoil_spectrum
from cevjax.registry import interaction_class, interaction_names

NUCLEUS = NuclearModel(target("Cs133"), form_factor("helm")).bind({"R_n_Cs133": 5.09})[0]
# energies by recoils, in MeV; recoils from 0.1 keV to well beyond the end points of nuclei, and of electrons
E, T = np.array([5.0, 16.0, 29.8, 52.0])[:, None], np.array([1e-4, 1e-3, 4e-3, 0.012, 0.03, 0.1])
T_E = np.array([3e-4, 2e-3, 0.5, 4.9, 28.0, 60.0])
TARGETS = {"nucleus": (NUCLEUS, T, False), "electron": (Electron(), T_E, False), "crossed": (Electron(), T_E, True)}

BATCH = 32
# other choices than the default ones, in the words of the command line
VARIANTS = (
    "light-vector:model=le-lmu,loop_sign=-1",
    "nsi:complex_entries=true",
    "transition-magnetic-moment:basis=flavour",
    "charge-radius:couplings=tree",
    "leptoquark:model=R2",
    "generalized:nucleon_charges=1711.09773",
)
every_interaction = pytest.mark.parametrize(
    "name", [*interaction_names(), *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)]
)


def plug_in(name):
    """The class behind a name with its choices."""
    return interaction_class(name.partition(":")[0])


@functools.cache
def alone(name):
    """The interaction with its choices."""
    own, words = parse_plugin(name)
    return interaction(own, **typed_choices("interaction", own, plug_in(name), words))


@functools.cache
def complete(name):
    """The interaction, on top of the standard model unless it is that."""
    return alone(name) if plug_in(name) is StandardModel else StandardModel() + alone(name)


@functools.cache
def parameters(name):
    return {p.name: p for p in complete(name).parameters if not p.members}


def values_at(name, u):
    """Parameter values at coordinates u, differentiable."""
    known = parameters(name).values()
    return {p.name: p.scale * jnp.sinh(u[i]) if p.decades else p.nominal + p.scale * u[i] for i, p in enumerate(known)}


def nominal(name):
    return np.array([p.encode(p.nominal) for p in parameters(name).values()])


def switched_off(name):
    off = alone(name).off
    return np.array([p.encode(off.get(p.name, p.nominal)) for p in parameters(name).values()])


def ranges(name):
    return np.array([p.encode(p.search_range()) for p in parameters(name).values()]).T


def typical(name):
    """A point away from nominal, where no derivative vanishes by symmetry, inside the search ranges."""
    low, high = ranges(name)
    steps = 0.3 + 0.4 * np.sin(1 + np.arange(len(low))) ** 2
    spread = np.array([p.decades for p in parameters(name).values()])
    point = np.where(spread, low + (0.35 + 0.1 * steps) * (high - low), nominal(name) + steps)
    return np.clip(point, low + 0.01 * (high - low), high - 0.01 * (high - low))


def cloud(name):
    """Points drawn over the search ranges."""
    low, high = ranges(name)
    return low + (high - low) * np.random.default_rng(1).random((8, len(low)))


def sections(name, u):
    """{target: cross sections (flavour, energy, recoil)}, of order one in the standard model."""
    params = values_at(name, u)
    scale = {"nucleus": 1e37, "electron": 1e44, "crossed": 1e44}
    return {
        label: scale[label] * differential_cross_section(params, complete(name), body, E, recoil, crossed)
        for label, (body, recoil, crossed) in TARGETS.items()
    }


def observables(name, u):
    spectrum = recoil_spectrum(values_at(name, u), complete(name), PionDecayAtRest(), NUCLEUS, T, baseline_m=20.0)
    return jnp.concatenate([jnp.ravel(x) for x in (*sections(name, u).values(), 1e37 * spectrum)])


@functools.cache
def compiled(name):
    return jax.jit(lambda u: observables(name, u))


@functools.cache
def batched(name):
    """Padded to one size, so that it is compiled once."""
    run = jax.jit(jax.vmap(compiled(name)))

    def evaluate(points):
        padded = np.concatenate([points, np.tile(points[-1:], (BATCH - len(points), 1))])
        return np.asarray(run(padded))[: len(points)]

    return evaluate


@functools.cache
def forward(name):
    return jax.jit(jax.jacfwd(compiled(name)))


@functools.cache
def backward(name):
    return jax.jit(jax.jacrev(compiled(name)))


@functools.cache
def standard(name="standard-model"):
    return np.asarray(compiled(name)(nominal(name)))


def by_target(flat):
    """The cross sections on each target out of observables (..., n), and those of the flux."""
    parts, first = {}, 0
    for label, (_, recoil, _) in TARGETS.items():
        size = 3 * len(E) * len(recoil)
        parts[label] = flat[..., first : first + size].reshape(*flat.shape[:-1], 3, len(E), len(recoil))
        first += size
    return parts, flat[..., first:]


@every_interaction
def test_parameters_are_well_formed(name):
    for parameter in complete(name).parameters:
        assert re.fullmatch(r"[A-Za-z]\w*", parameter.name, re.ASCII)
        assert math.isfinite(parameter.nominal)
        assert parameter.check(parameter.nominal) == parameter.nominal
        assert 0 < parameter.scale < math.inf
        low, high = parameter.search_range()
        assert -math.inf < low < high < math.inf
        assert parameter.description and parameter.latex
        assert parameter.constraint is None
        assert type(parameter.nominal) is float  # whole numbers have no gradients
        assert set(parameter.members) <= set(parameters(name))
        np.testing.assert_allclose(
            parameter.decode(parameter.encode([low, high])), [low, high], rtol=1e-12, atol=1e-300
        )


@every_interaction
def test_documented_with_a_formula_and_a_source(name):
    cls = plug_in(name)
    doc = inspect.getdoc(cls)
    assert ".. math::" in doc and "Source:" in doc and ">>>" in doc
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|hep-(ph|ex)/\d{7}|Phys\. Rev", cls.source)
    # a unit for every parameter: its own, or the text says that it has none
    assert all(p.unit for p in alone(name).parameters) or "dimensionless" in doc or name == "standard-model"


@every_interaction
def test_a_vanishing_first_derivative_is_said_in_the_docstring(name):
    """Where squares leave no slope in the standard model, the docstring says how fits start."""
    jacobian = np.asarray(forward(name)(switched_off(name)))
    own = [p.name for p in alone(name).parameters]
    moved = np.abs(jacobian).max(axis=0) > 0
    stuck = [p for p, moves in zip(parameters(name), moved, strict=True) if not moves and p in own]
    # masses and phases do nothing alone; angles of a flux factor are linear
    couplings = [p for p in stuck if not re.match(r"m_|zeta|dm2|charge_", p)]
    if couplings and name not in ("axial",):
        assert "fits start at" in " ".join(inspect.getdoc(plug_in(name)).split()), couplings


@every_interaction
def test_strengths_have_known_shapes_and_three_flavours(name):
    params = values_at(name, typical(name))
    q = jnp.linspace(1.0, 100.0, 7)
    for body, _, _ in TARGETS.values():
        terms = strengths(complete(name), params, body, q)
        assert set(terms) == set(shapes_of(complete(name), body))
        for shape, strength in terms.items():
            assert strength.shape == (3, 7)
            assert not jnp.iscomplexobj(strength)
            # on electrons "scalar" is also the interference of left and right, of either sign
            if body is NUCLEUS or shape != "scalar":
                assert np.all(np.asarray(strength) >= 0)


@every_interaction
def test_switched_off_is_exactly_the_standard_model(name):
    usual = standard("standard-model:couplings=tree" if "couplings=tree" in name else "standard-model")
    np.testing.assert_allclose(compiled(name)(switched_off(name)), usual, rtol=1e-14)
    assert np.count_nonzero(usual) > 60


@every_interaction
def test_finite_and_not_negative(name):
    found = batched(name)(cloud(name))
    assert np.all(np.isfinite(found))
    assert np.all(found >= 0)
    assert np.all(found.max(axis=1) > 0)


@every_interaction
def test_zero_beyond_the_end_point(name):
    everything, allowed = by_target(batched(name)(cloud(name)))[0], by_target(standard())[0]
    for label, (body, recoil, _) in TARGETS.items():
        beyond = E - E / (1 + 2 * E / body.mass) < recoil  # backscattering
        assert np.all(everything[label][..., beyond] == 0)
        assert np.all(allowed[label][..., ~beyond] > 0)


@every_interaction
def test_every_parameter_matters(name):
    jacobian = np.asarray(forward(name)(typical(name)))
    assert np.all(np.abs(jacobian).max(axis=0) > 0)


@every_interaction
def test_what_it_adds_is_what_it_implements(name):
    """Each kind of contribution that is declared changes something, and nothing else does."""
    u = np.where([p == "sin2_theta_w" for p in parameters(name)], nominal(name), typical(name))
    ours, ours_after = by_target(np.asarray(compiled(name)(u)))
    usual, usual_after = by_target(np.asarray(compiled(name)(switched_off(name))))
    differs = {label: not np.allclose(ours[label], usual[label], rtol=1e-12) for label in ours}
    own = {what: contributes(alone(name), what) for what in CONTRIBUTIONS}
    if name == "standard-model":
        assert own == {"coherent": True, "incoherent": False, "electrons": True, "flux": False}
        return
    assert differs["nucleus"] == (own["coherent"] or own["incoherent"])
    assert differs["electron"] == differs["crossed"] == own["electrons"]
    assert own["flux"] == (not np.allclose(ours_after, usual_after, rtol=1e-12) and not differs["nucleus"])


@every_interaction
def test_gradient_is_the_finite_difference(name):
    u, h = typical(name), 2e-4
    ahead, back = np.asarray(forward(name)(u)), np.asarray(backward(name)(u))
    shifted = [
        np.concatenate([batched(name)(u + k * h * row[None]) for row in np.eye(len(u))]).T for k in (-2, -1, 1, 2)
    ]
    numeric = (shifted[0] - 8 * shifted[1] + 8 * shifted[2] - shifted[3]) / (12 * h)
    # rounding of the differences is relative to the value
    rounding = 1e-11 * np.abs(np.asarray(compiled(name)(u)))[:, None]
    tolerance = 1e-6 * np.abs(numeric) + 1e-8 * np.abs(numeric).max(axis=0) + rounding
    assert np.all(np.abs(ahead - numeric) <= tolerance), np.max(np.abs(ahead - numeric) / tolerance)
    np.testing.assert_allclose(back, ahead, rtol=1e-10, atol=1e-12 * np.abs(ahead).max())


@every_interaction
def test_gradient_in_the_standard_model_is_finite(name):
    for point in (nominal(name), switched_off(name)):
        assert np.all(np.isfinite(forward(name)(point)))
        assert np.all(np.isfinite(backward(name)(point)))


@every_interaction
def test_vmap_equals_loop_and_jit_equals_eager(name):
    points = cloud(name)[:3]
    mapped = batched(name)(points)
    loop = np.stack([compiled(name)(p) for p in points])
    np.testing.assert_allclose(mapped, loop, rtol=1e-12)
    np.testing.assert_allclose(observables(name, points[0]), loop[0], rtol=1e-12)


@every_interaction
def test_traced_once(name):
    traces = []

    @jax.jit
    def evaluate(u):
        traces.append(u)
        return observables(name, u)

    for point in (nominal(name), typical(name), *cloud(name)):
        evaluate.lower(point)  # compiles nothing
    assert len(traces) == 1


@every_interaction
def test_a_common_parameter_stands_for_its_members(name):
    params = values_at(name, typical(name))
    model, q = complete(name), jnp.linspace(1.0, 100.0, 5)

    def everything(values):
        terms = [strengths(model, values, body, q) for body, _, _ in TARGETS.values()]
        return jax.tree.leaves([terms, model.flux_factor(values, q, 20.0)])

    for common in (p for p in model.parameters if p.members):
        value = 0.4 * common.scale + common.nominal
        members = {**params, **dict.fromkeys(common.members, value)}
        for a, b in zip(everything({**params, common.name: value}), everything(members), strict=True):
            np.testing.assert_array_equal(a, b)
