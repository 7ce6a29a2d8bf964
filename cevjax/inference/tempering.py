"""From the prior to the posterior in steps: points that represent every mode, and a mixture that follows them.

Each step takes the likelihood to a higher power, as high as the weights of the points allow, describes the weighted
points by a :mod:`~cevjax.inference.mixture` and draws new ones from that (adaptive importance sampling with
tempering). No point moves, so that nothing can get stuck in a mode.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp

from ..errors import InvalidValueError
from .mixture import COUNTS, Mixture, fit_mixture
from .pairs import in_threads
from .posterior import Posterior
from .pseudo import random_key

PARTICLES, BATCH = 4096, 256
"""Points of a step, and those of a compiled call."""
EFFECTIVE = 0.2
"""Part of the points that the weights of a step must leave effective."""
LAST = 2
"""Steps with the whole likelihood."""
FURTHER = 1.05
"""A step that takes the power up by less than this factor counts as one at the same power."""
PILOT = 0  # what a random key is used for
MOST = 60
"""Steps after which there is no hope."""


class Pilot(NamedTuple):
    """Points that represent the posterior: coordinates, log likelihood, log density of what they were drawn from."""

    z: np.ndarray
    log_likelihood: np.ndarray
    log_proposal: np.ndarray

    @property
    def log_weight(self) -> np.ndarray:
        """Of the posterior against what they were drawn from, not normalised."""
        return log_prior(self.z) + self.log_likelihood - self.log_proposal

    @property
    def weights(self) -> np.ndarray:
        """The same as numbers that add up to 1."""
        return np.exp(self.log_weight - logsumexp(self.log_weight))


def log_prior(z: np.ndarray) -> np.ndarray:
    """Of coordinates that are standard normal a priori, the last axis."""
    return -0.5 * np.sum(z**2, axis=-1) - 0.5 * z.shape[-1] * np.log(2 * np.pi)


def pilot(posterior: Posterior, seed: int, particles: int = PARTICLES) -> Pilot:
    """``(LAST + 1) * particles`` points that represent the posterior.

    Raises:
        InvalidValueError: the likelihood is not finite anywhere, or the posterior cannot be reached.
    """
    d, keys = len(posterior.names), jax.random.split(random_key(seed, PILOT), MOST)
    z = np.asarray(jax.random.normal(keys[0], (particles, d)))
    points = Pilot(z, log_likelihood(posterior, z), log_prior(z))
    if not np.any(np.isfinite(points.log_likelihood)):
        raise InvalidValueError("The likelihood is not finite anywhere in the range of the priors.")
    power, kept = 0.0, []
    for step in range(1, MOST):
        last, power = power, _power(points, power)
        # at the same power again, all points of that power: forgetting could lose a mode by chance
        kept = [*kept, points] if last == 1.0 or power < min(1.0, last * FURTHER) else [points]
        if power == 1.0 and len(kept) > LAST:
            break
        points = _joined(kept)
        log_weight = _powered(points.log_likelihood, power) + log_prior(points.z) - points.log_proposal
        mixture = fit_mixture(points.z, _normalised(log_weight), posterior.lead, seed)
        points = draw(posterior, mixture, keys[step], particles)
    else:
        raise InvalidValueError(
            f"The posterior was not reached from the prior in {MOST} steps: state priors closer to it."
        )
    return _joined(kept)


def _joined(steps: list[Pilot]) -> Pilot:
    return Pilot(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))


def _powered(log_likelihood: np.ndarray, power: float) -> np.ndarray:
    """Logarithm of a power of the likelihood; also the power 0 is nothing where there is no likelihood."""
    return np.where(np.isfinite(log_likelihood), power * np.nan_to_num(log_likelihood, neginf=0.0), -np.inf)


def mixture_of(posterior: Posterior, points: Pilot, seed: int) -> Mixture:
    """The mixture that describes the points of a pilot."""
    return fit_mixture(points.z, points.weights, posterior.lead, seed, COUNTS)


def _power(points: Pilot, last: float) -> float:
    """The highest power of the likelihood that leaves enough of the points effective; no lower than the last one."""
    base = log_prior(points.z) - points.log_proposal

    def effective(power: float) -> float:
        weights = _normalised(_powered(points.log_likelihood, power) + base)
        return 1 / float(np.sum(weights**2)) / len(weights)

    if effective(1.0) >= EFFECTIVE:
        return 1.0
    low, high = last, 1.0
    for _ in range(50):
        middle = np.sqrt(max(low, 1e-12) * high)
        low, high = (middle, high) if effective(middle) >= EFFECTIVE else (low, middle)
    return low


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    return np.exp(log_weight - logsumexp(log_weight))


def draw(posterior: Posterior, mixture: Mixture, key: Array, count: int) -> Pilot:
    """Random points of a mixture, with their likelihood."""
    z, log_proposal = (np.asarray(x) for x in _draw(mixture, key, count))
    return Pilot(z, log_likelihood(posterior, z), log_proposal)


@partial(jax.jit, static_argnames="count")
def _draw(mixture: Mixture, key: Array, count: int) -> tuple[Array, Array]:
    z = jax.vmap(mixture.draw)(jax.random.split(key, count))
    return z, jax.vmap(mixture.log_density)(z)


def log_likelihood(posterior: Posterior, z: np.ndarray) -> np.ndarray:
    """Log likelihood of the data at points, shape (points, coordinates); -inf where it is not finite."""
    n = len(z)
    padded = np.concatenate([z, np.repeat(z[-1:], -n % BATCH, axis=0)])
    batches = [padded[i : i + BATCH] for i in range(0, len(padded), BATCH)]
    found = np.concatenate(in_threads(lambda batch: np.asarray(_evaluate(posterior, batch)), batches))[:n]
    return np.where(np.isfinite(found), found, -np.inf)


@eqx.filter_jit
def _evaluate(posterior: Posterior, z: Array) -> Array:
    return jax.vmap(posterior.log_likelihood)(jnp.asarray(z))
