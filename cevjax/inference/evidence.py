r"""The evidence :math:`Z = \int L(\theta)\,\pi(\theta)\,d\theta`, by bridge sampling with chains, or without.

It comes from the mixture that describes the posterior, something of known normalisation that overlaps with it. The
likelihood is relative to that of the saturated model: only ratios for the same data mean something.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from .mixture import Mixture, log_density
from .posterior import Posterior
from .pseudo import random_key
from .tempering import draw, log_prior, mixture_of, pilot

BRIDGE, NESTED = 4, 5  # what random keys are used for
POINTS, ROUNDS = 8192, 100
"""Points of the mixture, and rounds of the fixed-point iteration at most."""


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
    own = (log_like + log_prior(posterior, z)).ravel() - log_density(mixture, flat)
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


def importance(posterior: Posterior, seed: int) -> Evidence:
    """ln Z by importance sampling alone, without chains: points of the mixture that describes a pilot.

    Args:
        posterior: folded or not.
        seed: of the random numbers.
    """
    mixture = mixture_of(posterior, pilot(posterior, seed), seed)
    log_weight = draw(posterior, mixture, random_key(seed, NESTED), POINTS).log_weight
    weights = np.exp(log_weight - np.max(log_weight))
    effective = float(np.sum(weights) ** 2 / np.sum(weights**2))
    log_z = float(logsumexp(log_weight) - np.log(POINTS))
    return Evidence(log_z, float(np.sqrt(max(1 / effective - 1 / POINTS, 0.0))))
