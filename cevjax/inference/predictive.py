"""Counts of every bin at points of the posterior and of the prior: what was expected, and what would be seen."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..likelihood import Likelihood, bins, expected_flat
from .pairs import in_batches
from .posterior import Posterior
from .pseudo import random_key

POINTS, BATCH = 1000, 64
"""Points at most, of posterior and prior each; and those of a compiled call."""
PREDICTIVE = 3  # what a random key is used for


class Predictive(NamedTuple):
    """At points of the posterior, and of the prior: coordinates, counts as expected and as they might be seen."""

    thinned: slice
    """Which draws of each chain."""
    log_likelihood: np.ndarray
    """Of all bins, shape (chains, draws, bins)."""
    expected: np.ndarray
    seen: np.ndarray
    prior: np.ndarray
    """Coordinates, shape (points, parameters)."""
    prior_expected: np.ndarray
    prior_seen: np.ndarray


def predict(posterior: Posterior, z: np.ndarray, seed: int) -> Predictive:
    """Counts at draws of the posterior, shape (chains, draws, parameters), and of the prior."""
    chains, draws, d = z.shape
    thinned = slice(None, None, max(1, int(np.ceil(chains * draws / POINTS))))
    some = z[:, thinned]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(random_key(seed, PREDICTIVE))))
    prior = posterior.draw_prior(rng, POINTS)
    of_bins, expected = expectations(posterior, some.reshape(-1, d))
    _, before = expectations(posterior, prior)
    shape = some.shape[:2]
    return Predictive(
        thinned,
        of_bins.reshape(*shape, -1),
        expected.reshape(*shape, -1),
        draw_counts(posterior.like, expected, rng).reshape(*shape, -1),
        prior,
        before,
        draw_counts(posterior.like, before, rng),
    )


def expectations(posterior: Posterior, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihood and expected counts of all bins at points, shape (points, parameters)."""
    of_bins, expected = in_batches(partial(_expectations, posterior), z, BATCH)
    return of_bins, expected


@eqx.filter_jit
def _expectations(posterior: Posterior, z):
    def at(z):
        expected = expected_flat(posterior.like, posterior.params(z))
        return -bins(posterior.like, expected).nll, expected

    return jax.vmap(at)(jnp.asarray(z))


def draw_counts(like: Likelihood, expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts around expectations, the last axis of which is that of all bins."""
    found = np.array(expected)
    for m, part in split(like, found):
        part[...] = (
            rng.poisson(np.maximum(part, 0)) if m.sigma is None else rng.normal(part, np.asarray(m.sigma).ravel())
        )
    return found


def split(like: Likelihood, counts: np.ndarray):
    """Each measurement with its part of the last axis of an array, as a view."""
    cuts = np.cumsum([m.observed.size for m in like.measurements])[:-1]
    return zip(like.measurements, np.split(counts, cuts, axis=-1), strict=True)
