"""Posteriors against grids that share nothing with the sampler but the likelihood, and against themselves."""

import arviz as az
import equinox as eqx
import numpy as np
import pytest
import reference_posterior
from scipy import ndimage, stats
from scipy.special import logsumexp

import cevjax
from cevjax import posteriors
from cevjax.inference import chains
from cevjax.inference.posterior import folded_posterior, make_posterior
from cevjax.inference.predictive import draw_counts, expectations
from cevjax.inference.tempering import mixture_of, pilot
from cevjax.likelihood import Data

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["a ring", "a plateau with a ridge"])
def test_two_parameters_against_a_grid(name):
    """20,000 draws: binned distance to the truth no more than sampling makes it, weights of modes, and evidence."""
    case, truth = reference_posterior.CASES[name], reference_posterior.stored(name)
    result = cevjax.sample(case.likelihood(), tuple(case.priors), case.priors, chains=4, draws=5000, seed=1)
    draws = {n: result.posterior[n].values for n in case.priors}
    effective = min(float(az.ess(x)) for x in draws.values())
    masses = np.exp(truth.logs - logsumexp(truth.logs))
    distance, noise, occupied = reference_posterior.total_variation(draws, case.edges, masses, min(effective, 20_000))
    assert 35 <= occupied <= 70
    assert distance < 1.5 * noise
    assert distance < 0.05

    counts = np.histogram2d(*(x.ravel() for x in draws.values()), bins=list(case.edges.values()))[0] / 20_000
    modes, number = ndimage.label(masses > 2e-4, structure=np.ones((3, 3)))
    for mode in range(1, number + 1):
        assert np.sum(counts[modes == mode]) == pytest.approx(np.sum(masses[modes == mode]), abs=0.03)

    facts = posteriors.facts_of(result)
    uncertain = np.sqrt(np.sum((masses * truth.errors) ** 2))
    error = np.hypot(facts["log_evidence_error"], uncertain)
    assert error < 0.03
    assert facts["log_evidence"] == pytest.approx(logsumexp(truth.logs), abs=3.5 * error)


def test_the_stored_grid_is_that_of_the_likelihood():
    """The heaviest bin of two bands, integrated over again."""
    name = "two bands"
    truth = reference_posterior.stored(name)
    heaviest = np.unravel_index(np.argmax(truth.logs), truth.logs.shape)
    found, error = reference_posterior.bin_mass(reference_posterior.CASES[name], heaviest)
    assert found == pytest.approx(truth.logs[heaviest], abs=4 * np.hypot(error, truth.errors[heaviest]))


def test_weights_of_two_minima():
    """One charge radius: two separate minima, whose weights are integrals of the likelihood over all nuisances."""
    case, truth = reference_posterior.ONE_RADIUS, reference_posterior.stored("two minima")
    name, edges = "r2_nu_mumu", case.edges["r2_nu_mumu"]
    result = cevjax.sample(case.likelihood(), (name,), {name: case.priors[name]}, draws=2500, seed=3)
    x = result.posterior[name].values.ravel()
    masses = np.exp(truth.logs - logsumexp(truth.logs))[:, 0]
    centres = (edges[1:] + edges[:-1]) / 2
    pieces, number = ndimage.label(masses > 1e-3)
    assert number >= 2
    between = centres[np.argmin(np.where((pieces == 0) & (centres > centres[pieces == 1][-1]), masses, 1.0))]
    assert np.mean(x < between) == pytest.approx(np.sum(masses[centres < between]), abs=0.03)


SIMULATIONS, PARTICLES, CHAINS, DRAWS, BINS = 24, 512, 2, 64, 4


def test_simulation_based_calibration():
    """Parameters from the priors, data from them: the rank of the truth among the draws is uniform, for each of them.

    Source: S. Talts et al., arXiv:1804.06788.
    """
    like = reference_posterior.csi(cevjax.NSI())
    priors = {"sin2_theta_w": "flat:0.15:0.35", "eps_dV_ee": "flat:-0.2:0.4"}
    posterior = folded_posterior(make_posterior(like, tuple(priors), priors))
    rng = np.random.default_rng(7)
    truths = rng.normal(size=(SIMULATIONS, len(posterior.names)))
    _, expected = expectations(posterior, truths)
    counts = draw_counts(like, expected, rng)
    ranks = np.empty(truths.shape, int)
    for i, truth in enumerate(truths):
        shaped = (counts[i].reshape(like.measurements[0].shape),)
        one = eqx.tree_at(lambda p: p.like, posterior, posterior.like.with_data(Data(shaped, like.auxiliary)))
        points = pilot(one, i, PARTICLES)
        mixture = mixture_of(one, points, i)
        state = chains.State(points.z[rng.choice(len(points.z), CHAINS, p=points.weights)], np.full(CHAINS, -0.7))
        warm = chains.advance(one, mixture, state, i, 0, 100, adapt=True)
        drawn = chains.advance(one, mixture, warm.last, i, 100, 2 * DRAWS)
        ranks[i] = np.sum(drawn.z[:, ::2].reshape(-1, len(truth)) < truth, axis=0)
    bins = ranks * BINS // (CHAINS * DRAWS + 1)
    p_values = [stats.chisquare(np.bincount(column, minlength=BINS)).pvalue for column in bins.T]
    assert min(p_values) > 0.01 / len(p_values), dict(zip(posterior.names, p_values, strict=True))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
