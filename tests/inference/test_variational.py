"""Guides against chains, by number, and what says that a guide is no good."""

import numpy as np
import pytest

import cevjax


@pytest.fixture(scope="module")
def like(csi_likelihood):
    return csi_likelihood("2303.09360")


@pytest.mark.parametrize("guide", ["normal", "flow"])
def test_one_mode_against_chains(like, guide):
    """Means within 0.1 standard deviations, widths within 8 %, and weights that say that it is good."""
    found = cevjax.svi(like, ("sin2_theta_w",), guide=guide, seed=1)
    chains = cevjax.sample(like, ("sin2_theta_w",), draws=1000, seed=1)
    for name in chains.posterior.data_vars:
        mine, theirs = (x[name].values.ravel() for x in (found.draws.posterior, chains.posterior))
        assert np.mean(mine) == pytest.approx(np.mean(theirs), abs=0.1 * np.std(theirs)), name
        assert np.std(mine) == pytest.approx(np.std(theirs), rel=0.08), name
    assert found.good and found.pareto_k < 0.7 and found.missed < 0.01
    assert found.effective > 0.8
    evidence = cevjax.posteriors.facts_of(chains)["log_evidence"]
    assert found.elbo[-1] == pytest.approx(evidence, abs=0.1)
    assert np.all(np.diff(found.elbo[:3]) > -0.1)


@pytest.mark.slow
def test_two_bands_are_too_much_for_a_normal_guide(csi_likelihood):
    """It settles in one, where its weights look good; but half of the posterior is elsewhere."""
    found = cevjax.svi(csi_likelihood(nsi=True), ("eps_uV_ee", "eps_dV_ee"), seed=1)
    up, down = (found.draws.posterior[name].values for name in ("eps_uV_ee", "eps_dV_ee"))
    upper = np.mean(up + 1.1 * down > 0.2)
    assert min(upper, 1 - upper) < 0.02
    assert 0.3 < found.missed < 0.7
    assert not found.good


def test_same_seed_same_draws(like):
    one, other, third = (cevjax.svi(like, ("sin2_theta_w",), steps=250, draws=100, seed=s) for s in (1, 1, 2))
    name = "sin2_theta_w"
    np.testing.assert_array_equal(one.draws.posterior[name].values, other.draws.posterior[name].values)
    assert not np.any(one.draws.posterior[name].values == third.draws.posterior[name].values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "flowing"}, "Did you mean 'flow'"),
        ({"steps": 0}, "`steps` must be a whole number"),
        ({"draws": 0}, "`draws` must be a whole number"),
    ],
)
def test_bad_input(like, options, message):
    with pytest.raises(cevjax.errors.CevjaxError, match=message):
        cevjax.svi(like, ("sin2_theta_w",), **options)
