"""The likelihood: its terms against SciPy, its edges, its derivatives, and its names."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import cevjax
from cevjax.errors import InvalidValueError, ParameterClashError, UnknownNameError
from cevjax.likelihood import bins, expected_flat, gaussian_nll, nll, poisson_nll
from cevjax.parameters import Parameter


def test_poisson_nll_is_minus_the_log_of_the_likelihood_ratio():
    mu, n = np.array([0.3, 2.0, 7.5, 100.0]), np.array([0.0, 3.0, 7.0, 120.0])
    expected = stats.poisson.logpmf(n, n) - stats.poisson.logpmf(n, mu)
    np.testing.assert_allclose(poisson_nll(mu, n), expected, rtol=1e-12, atol=1e-13)


def test_gaussian_nll_is_half_the_squared_residual():
    ratio = stats.norm.logpdf(5.0, 5.0, 2.0) - stats.norm.logpdf(5.0, 8.0, 2.0)
    assert float(gaussian_nll(8.0, 5.0, 2.0)) == pytest.approx(ratio, rel=1e-14)


@pytest.mark.parametrize("mu", [0.0, 1e-300, 1e-12, -1e-3])
@pytest.mark.parametrize("n", [0.0, 0.5, 12.0])
def test_poisson_nll_is_finite_in_value_and_derivatives_at_and_below_zero(mu, n):
    value, slope = jax.value_and_grad(poisson_nll)(mu, n)
    curvature = jax.grad(jax.grad(poisson_nll))(mu, n)
    assert np.all(np.isfinite([value, slope, curvature]))
    assert slope == pytest.approx(1.0) if n == 0 else slope < -1e6  # pushes mu up


def test_a_bin_without_counts_contributes_its_expectation():
    assert float(poisson_nll(2.5, 0.0)) == 2.5
    assert float(jax.grad(poisson_nll)(2.5, 0.0)) == 1.0


def test_values_are_64_bit(csi_likelihood):
    like = csi_likelihood()
    assert like.nll(like.nominal()).dtype == jnp.float64


@pytest.mark.parametrize("statistic", ["default", "2211.11905", "2211.11905-shape", "2303.09360"])
def test_gradient_in_every_parameter_against_finite_differences(csi_likelihood, statistic):
    like = csi_likelihood(statistic, nsi=True)
    rng = np.random.default_rng(3)
    params = {
        name: value + 0.3 * like.parameters[name].scale * rng.uniform(0.3, 1) for name, value in like.nominal().items()
    }
    names = list(params)
    steps = np.array([2e-4 * like.parameters[n].scale for n in names])
    point = np.array([params[n] for n in names])
    many = jax.jit(jax.vmap(lambda v: nll(like, dict(zip(names, v, strict=True)))))
    shifts = np.concatenate([k * np.diag(steps) for k in (-2, -1, 1, 2)])
    a, b, c, d = np.split(np.asarray(many(point + shifts)), 4)
    numerical = (a - 8 * b + 8 * c - d) / (12 * steps)
    gradient = jax.grad(like.nll)(params)
    exact = np.array([gradient[n] for n in names])
    scale = np.array([like.parameters[n].scale for n in names])
    np.testing.assert_allclose(exact * scale, numerical * scale, rtol=1e-6, atol=1e-6)


def test_jit_eager_and_vmap_agree(csi_likelihood):
    like = csi_likelihood()
    params = like.nominal()
    batch = {name: jnp.full(3, value) for name, value in params.items()}
    batch["csi2021_timing"] = jnp.array([0.0, 0.3, -0.4])
    batched = jax.vmap(like.nll)(batch)
    for i, timing in enumerate([0.0, 0.3, -0.4]):
        point = {**params, "csi2021_timing": timing}
        compiled = float(like.nll(point))
        with jax.disable_jit():
            eager = float(nll(like, point))
        assert compiled == pytest.approx(eager, rel=1e-12)
        assert float(batched[i]) == pytest.approx(compiled, rel=1e-12)


def test_the_likelihood_is_a_pytree(csi_likelihood):
    like = csi_likelihood("2303.09360")
    leaves, structure = jax.tree.flatten(like)
    again = jax.tree.unflatten(structure, leaves)
    assert float(again.nll(like.nominal())) == float(like.nll(like.nominal()))


def test_float_and_array_parameters_give_the_same(csi_likelihood):
    like = csi_likelihood()
    params = like.nominal()
    arrays = {name: jnp.asarray(value) for name, value in params.items()}
    assert float(like.nll(params)) == pytest.approx(float(like.nll(arrays)), rel=1e-14)


def test_asimov_data_are_not_rounded_and_have_their_minimum_at_the_truth(csi_likelihood):
    like = csi_likelihood()
    truth = like.nominal(sin2_theta_w=0.25)
    asimov = like.asimov(truth)
    observed = np.asarray(asimov.measurements[0].observed)
    assert np.any(np.abs(observed - np.round(observed)) > 0.1)
    assert float(asimov.nll(truth)) == pytest.approx(0.0, abs=1e-12)
    gradient = jax.grad(asimov.nll)(truth)
    assert max(abs(float(g)) for g in gradient.values()) < 1e-9


def test_an_empty_bin_and_no_expectation_leave_the_fit_finite(csi_likelihood):
    like = csi_likelihood("2303.09360")
    empty = like.with_observed([np.zeros((9, 11))])
    silent = {**like.nominal(), "csi2021_ssb": -1 / 0.021, "csi2021_brn": -4.0, "csi2021_nin": -1 / 0.35}
    silent["csi2021_signal"] = -1 / 0.12
    for likelihood in (empty, like):
        value, gradient = jax.value_and_grad(likelihood.nll)(silent)
        assert np.isfinite(float(value))
        assert all(np.isfinite(float(g)) for g in gradient.values())


def test_score_and_information_are_derivatives_of_the_bins(csi_likelihood):
    like = csi_likelihood("2303.09360")
    mu = expected_flat(like, like.nominal()) * 1.1
    at = bins(like, mu)
    score = jax.grad(lambda m: jnp.sum(bins(like, m).nll))(mu)
    np.testing.assert_allclose(at.score, score, rtol=1e-12)
    # the expectation of n/mu^2 over n ~ Poisson(mu)
    np.testing.assert_allclose(at.information, 1 / mu, rtol=1e-14)


def test_gaussian_measurements_enter_with_their_errors(csi_likelihood):
    like = csi_likelihood("2303.09360")
    sigma = jnp.full((9, 11), 3.0)
    gaussian = eqx.tree_at(lambda m: m.sigma, like.measurements[0], sigma, is_leaf=lambda x: x is None)
    joint = cevjax.Likelihood([gaussian], like.interaction)
    params = like.nominal()
    mu = np.sum([np.asarray(c) for c in joint.expected(params)["coherent-csi-2021"].values()], axis=0)
    expected = 0.5 * np.sum(((mu - np.asarray(gaussian.observed)) / 3.0) ** 2)
    assert float(joint.nll(params)) == pytest.approx(expected, rel=1e-12)


def test_an_alias_replaces_its_members(csi_likelihood):
    like = csi_likelihood("2303.09360")
    members = like.nll({**like.nominal(), "R_n_Cs133": 5.5, "R_n_I127": 5.5})
    assert float(like.nll({**like.nominal(), "R_n_CsI": 5.5})) == pytest.approx(float(members), rel=1e-13)


def test_unknown_and_missing_parameters_are_named(csi_likelihood):
    like = csi_likelihood("2303.09360")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'sin2_theta_w'\?"):
        like.nominal(sin2_thetaw=0.23)
    with pytest.raises(UnknownNameError, match="'sin2_thetaw'"):
        like.nll({**like.nominal(), "sin2_thetaw": 0.23})
    incomplete = like.nominal()
    del incomplete["csi2021_ssb"]
    with pytest.raises(InvalidValueError, match="lacks csi2021_ssb"):
        like.nll(incomplete)
    with pytest.raises(InvalidValueError, match="between 0 and 1, but was 3"):
        like.nominal(sin2_theta_w=3.0)


def test_a_clash_of_definitions_names_both_owners():
    class Rival(cevjax.interactions.Interaction):
        name = "rival"

        @property
        def parameters(self):
            return (Parameter("sns_flux", 1.0),)

    with pytest.raises(ParameterClashError, match=r"sns_flux.*the interaction.*coherent-csi-2021"):
        cevjax.Likelihood([cevjax.load("coherent-csi-2021")], cevjax.StandardModel() + Rival())


def test_statistics_with_different_couplings_ask_for_a_choice():
    one = cevjax.load("coherent-csi-2021")
    other = dataclasses.replace(cevjax.load("coherent-csi-2021", statistic="2211.11905"), name="another")
    with pytest.raises(InvalidValueError, match=r"2023, tree.*StandardModel\(couplings=...\)"):
        cevjax.Likelihood([one, other], cevjax.StandardModel())
    assert cevjax.Likelihood([other], cevjax.StandardModel()).interaction.couplings == "tree"
    assert eqx.tree_equal(
        cevjax.Likelihood([other], cevjax.StandardModel("2023")).interaction, cevjax.StandardModel("2023")
    )


def test_no_measurements_is_an_error():
    with pytest.raises(InvalidValueError, match="at least one measurement"):
        cevjax.Likelihood([], cevjax.StandardModel())


def test_couplings_of_one_term_are_those_of_all():
    """The charge radius must know what the standard model beside it holds already, whatever the statistic wants."""
    csi = cevjax.load("coherent-csi-2021")  # its couplings hold the charge radius
    for model in (
        cevjax.StandardModel("tree") + cevjax.ChargeRadius(),
        cevjax.ChargeRadius() + cevjax.StandardModel("tree"),
        cevjax.StandardModel() + cevjax.ChargeRadius("tree"),
    ):
        like = cevjax.Likelihood([csi], model)
        assert like.nominal()["r2_nu_mumu"] == 0
        assert {term.couplings for term in like.interaction.terms} == {"tree"}
    open_ = cevjax.Likelihood([csi], cevjax.StandardModel() + cevjax.ChargeRadius())
    assert open_.nominal()["r2_nu_mumu"] == pytest.approx(-0.48e-32, rel=0.02)
    with pytest.raises(InvalidValueError, match="same couplings, but have 2023, tree"):
        cevjax.StandardModel("tree") + cevjax.ChargeRadius("2023")


def test_a_term_comes_once():
    csi = cevjax.load("coherent-csi-2021")
    with pytest.raises(InvalidValueError, match="each term once"):
        cevjax.Likelihood([csi], cevjax.StandardModel() + cevjax.NSI() + cevjax.NSI())


def test_gradient_of_every_parameter_of_a_light_vector():
    """Its charges are whole numbers in the papers, and still have gradients."""
    csi = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    like = cevjax.Likelihood([csi], cevjax.StandardModel() + cevjax.LightVector())
    assert all(type(value) is float for value in like.nominal().values())
    gradient = jax.grad(like.nll)(like.nominal(g_zprime=2e-5, m_zprime=10.0))
    assert float(gradient["charge_u"]) != 0 and np.all(np.isfinite(list(gradient.values())))
