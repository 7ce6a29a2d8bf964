"""Measurements of other kinds than the shipped ones: one axis, Gaussian errors, and what is refused."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cevjax
from cevjax.errors import InvalidValueError
from cevjax.measurement import (
    Background,
    Component,
    Measurement,
    Morph,
    Norm,
    ShapeChange,
    Spread,
    Template,
    normalisation,
)
from cevjax.parameters import pull

EDGES = (0.0, 1.0, 2.0, 4.0)


def one_axis(**fields):
    """Three bins of energy with two backgrounds and one nuisance."""
    components = (
        Background("flat", jnp.array([0.25, 0.25, 0.5]), None, 40.0, Norm((("flat", 0.1),))),
        Background("low", jnp.array([0.7, 0.2, 0.1]), None, 10.0, Norm()),
    )
    known = {
        "name": "toy",
        "statistic": "default",
        "axes": (("keV", EDGES),),
        "observed": [18.0, 11.0, 22.0],
        "components": components,
        "nuisances": (pull("flat", "normalisation of the flat background"),),
    }
    return Measurement(**{**known, **fields})


def test_one_axis_with_poisson_counts():
    like = cevjax.Likelihood(one_axis(), cevjax.StandardModel())
    expected = like.expected(like.nominal(flat=1.0))["toy"]
    np.testing.assert_allclose(expected["flat"], [11, 11, 22])
    np.testing.assert_allclose(expected["low"], [7, 2, 1])
    assert cevjax.fit(like).converged
    assert float(like.asimov(like.nominal()).nll(like.nominal())) == pytest.approx(0, abs=1e-14)


def test_gaussian_errors_and_negative_data_have_a_closed_form():
    sigma = np.array([4.0, 3.0, 5.0])
    observed = np.array([-3.0, 11.0, 22.0])
    like = cevjax.Likelihood(one_axis(observed=observed, sigma=sigma), cevjax.StandardModel())
    result = cevjax.fit(like)
    # one linear nuisance: mu = base + a * slope, constraint a^2
    base, slope = np.array([17.0, 12.0, 21.0]), np.array([1.0, 1.0, 2.0])
    information = 1 + np.sum((slope / sigma) ** 2)
    best = np.sum(slope * (observed - base) / sigma**2) / information
    assert result.values["flat"] == pytest.approx(best, abs=2e-4)  # what the tolerance in chi2 allows
    assert result.errors["flat"] == pytest.approx(information**-0.5, rel=1e-6)
    chi2 = np.sum(((base + best * slope - observed) / sigma) ** 2) + best**2
    assert result.chi2_min == pytest.approx(chi2, abs=2e-8)


def test_two_measurements_share_a_parameter_and_add_up():
    first, second = one_axis(), one_axis(name="toy2", observed=[20.0, 15.0, 25.0])
    joint = cevjax.Likelihood([first, second], cevjax.StandardModel())
    assert joint.nuisances == ("flat",) and joint.n_bins == 6
    point = joint.nominal(flat=0.7)
    apart = [float(cevjax.Likelihood(m, cevjax.StandardModel()).nll(point)) for m in (first, second)]
    assert float(joint.nll(point)) == pytest.approx(sum(apart) - 0.7**2 / 2, rel=1e-12)


def test_poisson_and_gaussian_data_in_one_likelihood():
    gaussian = one_axis(name="gaussian", sigma=[4.0, 3.0, 5.0])
    joint = cevjax.Likelihood([one_axis(), gaussian], cevjax.StandardModel())
    result = cevjax.fit(joint)
    assert result.converged
    assert float(joint.chi2(result.values)) == pytest.approx(result.chi2_min, abs=1e-10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"observed": [1.0, 2.0]}, r"must have shape \(3,\), but have \(2,\)"),
        ({"observed": [1.0, -2.0, 3.0]}, r"must be at least 0, but bin \(1,\) holds -2.0"),
        ({"observed": [1.0, np.nan, 3.0]}, "must be finite"),
        ({"sigma": [1.0, 0.0, 1.0]}, "Errors of toy must be finite, positive"),
        ({"sigma": [1.0, -1.0, 1.0]}, "Errors of toy must be finite, positive"),
        ({"sigma": [1.0, np.nan, 1.0]}, "Errors of toy must be finite, positive"),
        ({"sigma": [1.0, 1.0]}, r"of shape \(3,\)"),
        ({"axes": (("keV", (0.0, 2.0, 1.0, 4.0)),)}, "edges of keV must be at least two finite, increasing"),
    ],
)
def test_unusable_data_are_refused(fields, message):
    with pytest.raises(InvalidValueError, match=message):
        one_axis(**fields)


def test_components_need_different_names_and_the_shape_of_the_bins():
    flat, low = one_axis().components
    with pytest.raises(InvalidValueError, match="must have different names"):
        one_axis(components=(flat, dataclasses.replace(low, name="flat")))
    wide = dataclasses.replace(low, energy=jnp.ones(4))
    like = cevjax.Likelihood(one_axis(components=(flat, wide)), cevjax.StandardModel())
    with pytest.raises(InvalidValueError, match=r"'low' of toy must have counts of shape \(3,\), not \(4,\)"):
        like.nll(like.nominal())


def test_a_data_set_counts_once():
    with pytest.raises(InvalidValueError, match="each data set once, but holds toy, toy"):
        cevjax.Likelihood([one_axis(), one_axis()], cevjax.StandardModel())


def test_a_component_may_be_any_function_of_the_parameters():
    class Exponential(Component):
        name: str = eqx.field(static=True)

        @property
        def parameters(self):
            return (pull("slope", "slope of the exponential"),)

        def __call__(self, params, interaction):
            edges = jnp.array(EDGES)
            return -jnp.diff(jnp.exp(-(1 + 0.1 * jnp.asarray(params["slope"])) * edges)) * 50

    like = cevjax.Likelihood(one_axis(components=(Exponential("exp"),), nuisances=()), cevjax.StandardModel())
    assert like.nuisances == ("slope",)
    np.testing.assert_allclose(like.expected(like.nominal())["toy"]["exp"], -np.diff(np.exp(-np.array(EDGES))) * 50)


def test_other_data_need_no_compilation(csi_likelihood):
    like = csi_likelihood("2303.09360")
    like.nll(like.nominal())
    toy = like.with_observed([np.ones((9, 11))])
    assert toy._compiled is like._compiled
    fresh = cevjax.Likelihood([like.measurements[0].with_observed(np.ones((9, 11)))], like.interaction)
    assert float(toy.nll(toy.nominal())) == pytest.approx(float(fresh.nll(fresh.nominal())), rel=1e-13)


# templates and what moves them


def morph_of(u, d, a):
    """Interpolation code 4p of pyhf: relative change of a template of content 1."""
    pyhf = pytest.importorskip("pyhf")
    pyhf.set_backend("numpy")
    from pyhf.interpolators import code4p

    histograms = np.stack([1 - np.asarray(d), np.ones(len(u)), 1 + np.asarray(u)])[None, None]
    return code4p(histograms)(np.array([np.atleast_1d(a)]))[0, 0]


@given(
    u=hnp.arrays(float, 4, elements=st.floats(-0.9, 3)),
    d=hnp.arrays(float, 4, elements=st.floats(-3, 0.9)),
    a=st.floats(-4, 4),
)
@settings(max_examples=100, deadline=None)
def test_morphs_are_those_of_pyhf(u, d, a):
    found = MORPH(jnp.asarray(u), jnp.asarray(d), a)
    np.testing.assert_allclose(found, morph_of(u, d, a)[0], rtol=1e-10, atol=1e-12)


MORPH = jax.jit(lambda u, d, a: Morph("a", u, d)({"a": a}))
NOMINAL, UP, DOWN = np.array([10.0, 0.0, 4.0, 8.0]), np.array([12.0, 3.0, 3.0, 8.0]), np.array([9.0, 0.0, 4.5, 2.0])


@given(hnp.arrays(float, (3, 5), elements=st.floats(0.1, 10)))
@settings(max_examples=50, deadline=None)
def test_a_morph_goes_through_its_templates(templates):
    nominal, up, down = templates
    morph = Morph.between("a", nominal, up, down)
    for a, template in ((-1.0, down), (0.0, nominal), (1.0, up)):
        found = nominal * (1 + np.asarray(MORPH(morph.up, morph.down, a)))
        np.testing.assert_allclose(found, template, rtol=1e-12, atol=1e-12)


def test_a_morph_is_smooth():
    """Value, slope and curvature are continuous at -1 and 1, where it becomes a straight line."""
    u, d = jnp.array([0.5, -0.2, 0.1]), jnp.array([0.1, 0.4, 0.1])
    orders = [lambda a: MORPH(u, d, a)]
    for _ in range(2):
        orders.append(jax.jacfwd(orders[-1]))
    for joint in (-1.0, 1.0):
        for function in orders:
            below, above = function(joint - 1e-9), function(joint + 1e-9)
            np.testing.assert_allclose(below, above, rtol=0, atol=1e-7)
        np.testing.assert_allclose(orders[1](joint), u if joint > 0 else d, rtol=1e-12)
    np.testing.assert_allclose(orders[1](0.0), (u + d) / 2, rtol=1e-12)
    # where up and down mirror each other it is straight all the way
    np.testing.assert_allclose(orders[0](0.37)[2], 0.037, rtol=1e-12)


def test_a_morph_of_one_template_is_linear():
    morph = Morph.between("a", NOMINAL, UP)
    for a in (-2.0, -0.3, 0.5, 3.0):
        np.testing.assert_allclose(morph({"a": a}), a * np.array([0.2, 0.0, -0.25, 0.0]), rtol=1e-12, atol=1e-15)


def test_nothing_changes_where_the_nominal_template_is_empty():
    morph = Morph.between("a", NOMINAL, UP, DOWN)
    for a in (-2.0, 0.4, 1.0):
        found = np.asarray(morph({"a": a}))
        assert found[1] == 0 and np.all(np.isfinite(found))
    assert np.all(np.isfinite(jax.jacfwd(lambda a: morph({"a": a}))(0.3)))


def test_derivative_of_a_morph():
    morph, h = Morph.between("a", NOMINAL, UP, DOWN), 1e-5
    for a in (-1.7, -0.6, 0.2, 0.95, 1.4):
        found = jax.jacfwd(lambda x: morph({"a": x}))(a)
        numeric = (np.asarray(morph({"a": a + h})) - np.asarray(morph({"a": a - h}))) / (2 * h)
        np.testing.assert_allclose(found, numeric, rtol=1e-7, atol=1e-9)


def test_a_norm_adds_pulls_and_morphs():
    norm = Norm(
        (("flux", 0.1), ("mass", 0.02)), (Morph.between("a", NOMINAL, UP, DOWN), Morph.between("b", NOMINAL, UP))
    )
    params = {"flux": 2.0, "mass": -1.0, "a": -1.0, "b": 0.5}
    truth = 1 + 0.2 - 0.02 + np.array([-0.1, 0.0, 0.125, -0.75]) + 0.5 * np.array([0.2, 0.0, -0.25, 0.0])
    np.testing.assert_allclose(norm(params), truth, rtol=1e-12)
    assert float(Norm()({})) == 1.0


def test_nuisances_of_a_normalisation():
    nuisances = [pull("before", "another")]
    norm = normalisation(nuisances, ("flux", 0.1), ("mass", 0.5), morphs=(Morph.between("shape", NOMINAL, UP, DOWN),))
    assert [p.name for p in nuisances] == ["before", "flux", "mass", "shape"]
    assert [p.bounds for p in nuisances[1:]] == [(-10.0, np.inf), (-2.0, np.inf), (-5.0, 5.0)]
    assert all(p.nuisance and p.constraint == (0.0, 1.0) and p.nominal == 0 for p in nuisances)
    assert "10 %" in nuisances[1].description
    # at its lower bound nothing is left, however the other one is
    point = {"flux": -10.0, "mass": 0.0, "shape": 0.0}
    np.testing.assert_allclose(norm(point), 0, atol=1e-12)
    assert norm.pulls == (("flux", 0.1), ("mass", 0.5)) and len(norm.morphs) == 1


def test_a_template_counts_what_it_says():
    norm = Norm((("flat", 0.1),), (Morph.between("shape", NOMINAL, UP, DOWN),))
    template = Template("brn", jnp.asarray(NOMINAL), norm)
    np.testing.assert_allclose(template({"flat": 0.0, "shape": 1.0}, None), [12.0, 0.0, 3.0, 8.0], rtol=1e-12)
    np.testing.assert_allclose(template({"flat": -1.0, "shape": -1.0}, None), [8.0, 0.0, 4.1, 1.2], rtol=1e-12)
    np.testing.assert_array_equal(Template("plain", jnp.asarray(NOMINAL))({}, None), NOMINAL)
    assert template.parameters == () and template.relevant(cevjax.StandardModel())
    assert template.prepare(cevjax.StandardModel()) is template


def test_a_fit_with_a_shape_has_its_templates():
    """Data are the template at +1: the fit finds it, but for the pull of the auxiliary measurement."""
    nuisances = []
    nominal, up, down = np.array([4e6, 2e6, 1e6]), np.array([4.4e6, 2e6, 0.8e6]), np.array([3.8e6, 2e6, 1.1e6])
    norm = normalisation(nuisances, morphs=(Morph.between("shape", nominal, up, down),))
    m = one_axis(components=(Template("brn", jnp.asarray(nominal), norm),), nuisances=tuple(nuisances), observed=up)
    result = cevjax.fit(cevjax.Likelihood(m, cevjax.StandardModel()))
    assert result.converged and result.values["shape"] == pytest.approx(1.0, abs=1e-3)


class Inner(Component):
    """Counts on (energy, time), a parameter, and traces of what is done with it."""

    name: str = eqx.field(static=True, default="inner")
    counts: jnp.ndarray = eqx.field(default_factory=lambda: jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 5.0]]))
    prepared: bool = eqx.field(static=True, default=False)

    @property
    def parameters(self):
        return (pull("scale", "of the counts"),)

    def __call__(self, params, interaction):
        return (1 + 0.1 * jnp.asarray(params["scale"])) * self.counts

    def relevant(self, interaction):
        return isinstance(interaction, cevjax.StandardModel)

    def prepare(self, interaction):
        return Inner(prepared=True)


@given(hnp.arrays(float, (3, 4), elements=st.floats(0.01, 1)), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_spreading_moves_no_event_in_energy_or_time(weights, scale):
    fractions = weights / weights.sum(axis=1, keepdims=True)
    spread, params = Spread("f90", Inner(), jnp.asarray(fractions)), {"scale": scale}
    counts, inner = np.asarray(spread(params, None)), np.asarray(Inner()(params, None))
    assert counts.shape == (3, 4, 2)
    np.testing.assert_allclose(counts.sum(axis=1), inner, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(counts, np.einsum("ef,et->eft", fractions, inner), rtol=1e-12, atol=1e-12)


def test_a_spread_component_is_its_inner_one():
    sm, other = cevjax.StandardModel(), cevjax.MagneticMoment()
    tilt = Morph.of_logarithms("shape", np.ones(4), np.array([0.4, 0.8, 1.2, 1.6]))
    spread = Spread("f90", Inner(), jnp.full((3, 4), 0.25), ShapeChange((tilt,), axes=(1,)))
    assert spread.name == "f90" and [p.name for p in spread.parameters] == ["scale"]
    assert spread.relevant(sm) and not spread.relevant(other)
    prepared = spread.prepare(sm)
    assert prepared.inner.prepared and not spread.inner.prepared and prepared.name == "f90"
    params = {"scale": 1.0, "shape": 1.0}
    np.testing.assert_allclose(prepared(params, sm), spread(params, sm), rtol=1e-14)
    counts, whole = np.asarray(spread(params, sm)), 1.1 * np.asarray(Inner().counts)
    np.testing.assert_allclose(counts, whole[:, None, :] * np.array([[0.1], [0.2], [0.3], [0.4]]), rtol=1e-12)


def test_a_shape_keeps_events_and_their_sign():
    """Through the templates at -1 and 1; and whatever the pull, no event is lost or negative."""
    nominal, up, down = (np.array(x) for x in ([4.0, 3.0, 0.0, 1.0], [1.0, 3.0, 0.0, 4.0], [6.0, 2.0, 0.0, 0.0]))
    shape = ShapeChange((Morph.of_logarithms("a", nominal, up, down),))
    np.testing.assert_allclose(shape(jnp.asarray(nominal), {"a": 1.0}), up, rtol=1e-12)
    np.testing.assert_allclose(shape(jnp.asarray(nominal), {"a": -1.0}), down, atol=1e-3)
    for a in np.linspace(-4, 4, 33):
        found = np.asarray(shape(jnp.asarray(nominal), {"a": a}))
        assert found.sum() == pytest.approx(8.0, rel=1e-12) and np.all(found >= 0) and found[2] == 0
    empty = ShapeChange((Morph.of_logarithms("a", np.zeros(3), np.ones(3)),))
    np.testing.assert_array_equal(empty(jnp.zeros(3), {"a": 0.7}), 0.0)
    assert np.all(np.isfinite(jax.jacfwd(lambda a: empty(jnp.zeros(3), {"a": a}))(0.7)))


def test_a_shape_that_does_not_fit_is_refused():
    template = Template("brn", jnp.ones(3), Norm((), (Morph("a", jnp.ones((2, 3))),)))
    m = one_axis(components=(template,), nuisances=(pull("a", "shape"),))
    like = cevjax.Likelihood(m, cevjax.StandardModel())
    with pytest.raises(InvalidValueError, match=r"'brn' of toy must have counts of shape \(3,\), not \(2, 3\)"):
        like.nll(like.nominal())
