"""Measurements of other kinds than the shipped ones: one axis, Gaussian errors, and what is refused."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.errors import InvalidValueError
from cevjax.measurement import Background, Component, Measurement, Norm
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
