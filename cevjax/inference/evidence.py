r"""The evidence :math:`Z = \int L(\theta)\,\pi(\theta)\,d\theta`, and ratios of it for nested models.

Both use the mixture that describes the posterior, as something of known normalisation that overlaps with it. The
likelihood is relative to that of the saturated model: only ratios for the same data mean something.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import expit, logsumexp

from .mixture import Mixture
from .posterior import Posterior
from .pseudo import random_key
from .tempering import draw, log_likelihood, log_prior

BRIDGE, NESTED = 4, 5  # what random keys are used for
POINTS, ROUNDS = 8192, 100
"""Points of the mixture, and rounds of the fixed-point iteration at most."""
RELIABLE = 0.01
"""Part of the points that must be effective."""


class Evidence(NamedTuple):
    """ln Z and its standard deviation."""

    log_evidence: float
    log_evidence_error: float


def bridge(posterior: Posterior, mixture: Mixture, z: np.ndarray, log_like: np.ndarray, seed: int) -> Evidence:
    r"""ln Z by bridge sampling between draws of the posterior and of the mixture.

    Args:
        posterior, mixture: as the chains have them.
        z: draws, shape (chains, draws, parameters).
        log_like: log likelihood there.
        seed: of the random numbers.

    Source: X.-L. Meng, W. H. Wong, Statistica Sinica 6 (1996) 831; the error of S. Fruehwirth-Schnatter,
    Econometrics Journal 7 (2004) 143, with the autocorrelation of the draws.
    """
    step = max(1, int(np.ceil(z.shape[0] * z.shape[1] / POINTS)))
    z, log_like = z[:, ::step], log_like[:, ::step]
    flat = z.reshape(-1, z.shape[-1])
    own = (log_like + log_prior(z)).ravel() - log_density(mixture, flat)
    new = draw(posterior, mixture, random_key(seed, BRIDGE), POINTS)
    other = new.log_weight
    effective = max(_effective(own.reshape(z.shape[:2])), 2.0)
    share = np.log(effective / (effective + POINTS)), np.log(POINTS / (effective + POINTS))
    log_z = float(logsumexp(other) - np.log(POINTS))
    for _ in range(ROUNDS):  # w / (s1 w + s2 Z) over the mixture and 1 / (s1 w + s2 Z) over the posterior
        above = logsumexp(other - np.logaddexp(share[0] + other, share[1] + log_z)) - np.log(len(other))
        below = logsumexp(-np.logaddexp(share[0] + own, share[1] + log_z)) - np.log(len(own))
        last, log_z = log_z, float(above - below)
        if abs(log_z - last) < 1e-8:
            break
    # chances that a point is one of the posterior, with equal shares of what is known
    first = expit(other - log_z + share[0] - share[1])
    second = expit(-(own - log_z + share[0] - share[1]))
    correlated = len(second) / max(_effective(second.reshape(z.shape[:2])), 1.0)
    variance = np.var(first) / np.mean(first) ** 2 / POINTS
    variance += correlated * np.var(second) / np.mean(second) ** 2 / len(second)
    return Evidence(log_z, float(np.sqrt(variance)))


def log_density(mixture: Mixture, z: np.ndarray) -> np.ndarray:
    """Of a mixture at points."""
    return np.asarray(_log_density(mixture, z))


_log_density = jax.jit(jax.vmap(Mixture.log_density, in_axes=(None, 0)))


def _effective(x: np.ndarray) -> float:
    """Effective number of draws, shape (chains, draws), for the mean: Geyer's initial positive sequence."""
    chains, n = x.shape
    away = x - np.mean(x)
    spread = float(np.mean(away**2))
    if n < 4 or spread == 0:
        return float(chains * n)
    padded = np.fft.rfft(away, 2 * n, axis=1)
    correlation = np.mean(np.fft.irfft(np.abs(padded) ** 2, axis=1)[:, :n], axis=0) / n / spread
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    end = np.argmax(pairs < 0) if np.any(pairs < 0) else len(pairs)
    return float(chains * n / max(2 * np.sum(pairs[:end]) - 1, 1.0))


def density_ratio(posterior: Posterior, mixture: Mixture, at: dict[int, float], seed: int) -> tuple[Evidence, float]:
    """ln Z with some coordinates held, and which part of the points was effective.

    Its difference to the whole ln Z is the logarithm of posterior over prior density there: the Savage-Dickey ratio.
    The integral over the other coordinates is one over the mixture, on condition of those that are held.

    Args:
        posterior, mixture: as the chains have them.
        at: {place: coordinate} of those that are held.
        seed: of the random numbers.
    """
    held, where = np.array(list(at)), np.array(list(at.values()))
    rest = np.setdiff1d(np.arange(mixture.mean.shape[1]), held)
    means, roots, weights = np.asarray(mixture.mean), np.asarray(mixture.root), np.asarray(mixture.log_weight).copy()
    inner_means, inner_roots = [], []
    for k in range(len(weights)):
        covariance = roots[k] @ roots[k].T
        low = np.linalg.cholesky(covariance[np.ix_(held, held)])
        u = solve_triangular(low, where - means[k, held], lower=True)
        gain = solve_triangular(low, covariance[np.ix_(held, rest)], lower=True)
        weights[k] += -0.5 * u @ u - np.sum(np.log(np.diag(low)))
        inner_means.append(means[k, rest] + gain.T @ u)
        inner_roots.append(np.linalg.cholesky(covariance[np.ix_(rest, rest)] - gain.T @ gain))
    weights -= logsumexp(weights)
    inverses = np.linalg.inv(np.array(inner_roots))
    inner = Mixture(*(jnp.asarray(part) for part in (weights, inner_means, inner_roots, inverses)))
    keys = jax.random.split(random_key(seed, NESTED), POINTS)
    others = np.asarray(jax.vmap(inner.draw)(keys))
    z = np.empty((POINTS, means.shape[1]))
    z[:, held], z[:, rest] = where, others
    log_weight = log_likelihood(posterior, z) + log_prior(others) - log_density(inner, others)
    log_z = float(logsumexp(log_weight) - np.log(POINTS))
    weights = np.exp(log_weight - np.max(log_weight))
    effective = float(np.sum(weights) ** 2 / np.sum(weights**2) / POINTS)
    return Evidence(log_z, float(np.sqrt(max(1 / effective - 1, 0.0) / POINTS))), effective
