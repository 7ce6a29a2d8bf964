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
FINE = 3  # cells of the grid along each side of a bin


def csi(interaction):
    return cevjax.Likelihood([cevjax.load("coherent-csi-2021")], cevjax.StandardModel() + interaction)


CASES = {
    "two bands": (
        lambda: csi(cevjax.NSI()),
        {"eps_dV_ee": "flat:-1:1", "eps_uV_ee": "flat:-1:1"},
        {"eps_dV_ee": np.linspace(-1, 1, 13), "eps_uV_ee": np.linspace(-1, 1, 13)},
    ),
    "a ring": (
        lambda: csi(cevjax.ChargeRadius()),
        {"r2_nu_ee": "flat:-1.5e-30:1.5e-30", "r2_nu_mumu": "flat:-1.5e-30:1.5e-30"},
        {"r2_nu_ee": np.linspace(-1e-30, 1e-30, 17), "r2_nu_mumu": np.linspace(-1e-30, 1e-30, 17)},
    ),
    "a plateau with a ridge": (
        lambda: csi(cevjax.LightVector(model="universal")),
        {"m_zprime": "log-flat:1:1e4", "g_zprime": "log-flat:1e-6:1e-2"},
        {"m_zprime": np.geomspace(1, 1e4, 11), "g_zprime": np.geomspace(1e-6, 1e-2, 11)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_two_parameters_against_a_grid(name):
    """20,000 draws: binned distance to the truth no more than sampling makes it, weights of modes, and evidence."""
    build, priors, edges = CASES[name]
    like = build()
    posterior = make_posterior(like, tuple(priors), priors)
    densities = {n: p.log_density for n, p in zip(posterior.names, posterior.priors, strict=True) if n in priors}
    fine = {n: _divided(e) for n, e in edges.items()}
    logs, errors = reference_posterior.log_masses(like, fine, densities, points=200)
    log_z, uncertain = logsumexp(logs), np.sqrt(np.sum((np.exp(logs - logsumexp(logs)) * errors) ** 2))
    masses = _joined(np.exp(logs - log_z))

    result = cevjax.sample(like, tuple(priors), priors, chains=4, draws=5000, seed=1)
    draws = {n: result.posterior[n].values for n in priors}
    effective = min(float(az.ess(x)) for x in draws.values())
    distance, noise, occupied = reference_posterior.total_variation(draws, edges, masses, min(effective, 20_000))
    assert 35 <= occupied <= 70
    assert distance < 1.5 * noise
    assert distance < 0.05

    counts = np.histogram2d(*(x.ravel() for x in draws.values()), bins=list(edges.values()))[0] / 20_000
    modes, number = ndimage.label(masses > 2e-4, structure=np.ones((3, 3)))
    for mode in range(1, number + 1):
        assert np.sum(counts[modes == mode]) == pytest.approx(np.sum(masses[modes == mode]), abs=0.03)

    facts = posteriors.facts_of(result)
    error = np.hypot(facts["log_evidence_error"], uncertain)
    assert error < 0.03
    assert facts["log_evidence"] == pytest.approx(log_z, abs=3.5 * error)


def _divided(edges):
    logarithmic = edges[0] > 0
    count = FINE * (len(edges) - 1) + 1
    return np.geomspace(edges[0], edges[-1], count) if logarithmic else np.linspace(edges[0], edges[-1], count)


def _joined(masses):
    n, m = masses.shape
    return masses.reshape(n // FINE, FINE, m // FINE, FINE).sum(axis=(1, 3))


def test_weights_of_two_minima():
    """One charge radius: two separate minima, whose weights are integrals of the profile-free likelihood."""
    like = csi(cevjax.ChargeRadius())
    prior = {"r2_nu_mumu": "flat:-1.5e-30:1.5e-30", "sin2_theta_w": "normal:0.2386:0.0002"}
    result = cevjax.sample(like, ("r2_nu_mumu",), {"r2_nu_mumu": prior["r2_nu_mumu"]}, draws=2500, seed=3)
    x = result.posterior["r2_nu_mumu"].values.ravel()
    edges = {"r2_nu_mumu": np.linspace(-1.5e-30, 1.5e-30, 121), "sin2_theta_w": np.array([0.2385, 0.2387])}
    flat = {"r2_nu_mumu": lambda x: np.full_like(x, -np.log(3e-30)), "sin2_theta_w": lambda x: np.zeros_like(x)}
    logs, _ = reference_posterior.log_masses(like, edges, flat, points=400)
    masses = np.exp(logs - logsumexp(logs))[:, 0]
    centres = (edges["r2_nu_mumu"][1:] + edges["r2_nu_mumu"][:-1]) / 2
    pieces, number = ndimage.label(masses > 1e-3)
    assert number >= 2
    between = centres[np.argmin(np.where((pieces == 0) & (centres > centres[pieces == 1][-1]), masses, 1.0))]
    assert np.mean(x < between) == pytest.approx(np.sum(masses[centres < between]), abs=0.03)


SIMULATIONS, CHAINS, DRAWS, BINS = 96, 2, 64, 8


def test_simulation_based_calibration():
    """Parameters from the priors, data from them: the rank of the truth among the draws is uniform, for each of them.

    Source: S. Talts et al., arXiv:1804.06788.
    """
    like = csi(cevjax.NSI())
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
        points = pilot(one, i, 1024)
        mixture = mixture_of(one, points, i)
        state = chains.State(points.z[rng.choice(len(points.z), CHAINS, p=points.weights)], np.full(CHAINS, -0.7))
        warm = chains.advance(one, mixture, state, i, 0, 100, adapt=True)
        drawn = chains.advance(one, mixture, warm.last, i, 100, 2 * DRAWS)
        ranks[i] = np.sum(drawn.z[:, ::2].reshape(-1, len(truth)) < truth, axis=0)
    bins = ranks * BINS // (CHAINS * DRAWS + 1)
    p_values = [stats.chisquare(np.bincount(column, minlength=BINS)).pvalue for column in bins.T]
    assert min(p_values) > 0.01 / len(p_values), dict(zip(posterior.names, p_values, strict=True))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
