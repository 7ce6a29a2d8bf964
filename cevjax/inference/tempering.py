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
from jax.typing import ArrayLike
from scipy.special import logsumexp

from ..errors import InvalidValueError
from .mixture import COUNTS, Mixture, fit_mixture, log_density
from .pairs import in_batches
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
    """Points that represent the posterior: coordinates, log likelihood, log prior, log density of what they were drawn
    from."""

    z: np.ndarray
    log_likelihood: np.ndarray
    log_prior: np.ndarray
    log_proposal: np.ndarray

    @property
    def log_weight(self) -> np.ndarray:
        """Of the posterior against what they were drawn from, not normalised."""
        return self.log_prior + self.log_likelihood - self.log_proposal

    @property
    def weights(self) -> np.ndarray:
        """The same as numbers that add up to 1."""
        return np.exp(self.log_weight - logsumexp(self.log_weight))


def pilot(posterior: Posterior, seed: int, particles: int = PARTICLES) -> Pilot:
    """``(LAST + 1) * particles`` points that represent the posterior.

    Raises:
        InvalidValueError: the likelihood is not finite anywhere, or the posterior cannot be reached.
    """
    keys = jax.random.split(random_key(seed, PILOT), MOST)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[0])))
    z = posterior.draw_prior(rng, particles)
    points = Pilot(z, *densities(posterior, z), log_prior(posterior, z))
    if not np.any(np.isfinite(points.log_likelihood)):
        raise InvalidValueError("The likelihood is not finite anywhere in the range of the priors.")
    power, kept, mixture = 0.0, [], None
    for step in range(1, MOST):
        last, power = power, _power(points, power)
        # at the same power again, all points of that power: forgetting could lose a mode by chance
        again = last == 1.0 or power < min(1.0, last * FURTHER)
        kept = [*(kept if again else ()), (points, mixture)]
        if power == 1.0 and len(kept) > LAST:
            break
        points = _pooled(kept)
        log_weight = _powered(points.log_likelihood, power) + points.log_prior - points.log_proposal
        mixture = fit_mixture(points.z, _normalised(log_weight), posterior.lead, seed)
        points = draw(posterior, mixture, keys[step], particles)
    else:
        raise InvalidValueError(
            f"The posterior was not reached from the prior in {MOST} steps: state priors closer to it."
        )
    return _pooled(kept)


def _pooled(kept: list[tuple[Pilot, Mixture | None]]) -> Pilot:
    """The points of several steps, with equal numbers from each mixture, or from the prior where there is none.

    Each counts as drawn from the average of the mixtures, so that none has a large weight where any of them is good
    (the deterministic mixture of A. Owen, Y. Zhou, J. Am. Stat. Assoc. 95 (2000) 135).
    """
    if len(kept) == 1:
        return kept[0][0]
    joined = Pilot(*(np.concatenate(parts) for parts in zip(*(points for points, _ in kept), strict=True)))
    each = [
        joined.log_prior if mixture is None else np.concatenate([log_density(mixture, points.z) for points, _ in kept])
        for _, mixture in kept
    ]
    return joined._replace(log_proposal=logsumexp(each, axis=0) - np.log(len(kept)))


def _powered(log_likelihood: np.ndarray, power: float) -> np.ndarray:
    """Logarithm of a power of the likelihood; also the power 0 is nothing where there is no likelihood."""
    return np.where(np.isfinite(log_likelihood), power * np.nan_to_num(log_likelihood, neginf=0.0), -np.inf)


def mixture_of(posterior: Posterior, points: Pilot, seed: int) -> Mixture:
    """The mixture that describes the points of a pilot."""
    return fit_mixture(points.z, points.weights, posterior.lead, seed, COUNTS)


def _power(points: Pilot, last: float) -> float:
    """The highest power of the likelihood that leaves enough of the points effective; no lower than the last one."""
    base = points.log_prior - points.log_proposal

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
    return Pilot(z, *densities(posterior, z), log_proposal)


@partial(jax.jit, static_argnames="count")
def _draw(mixture: Mixture, key: Array, count: int) -> tuple[Array, Array]:
    z = jax.vmap(mixture.draw)(jax.random.split(key, count))
    return z, jax.vmap(mixture.log_density)(z)


def log_likelihood(posterior: Posterior, z: np.ndarray) -> np.ndarray:
    """Log likelihood of the data at points, shape (points, coordinates); -inf where it is not finite."""
    return densities(posterior, z)[0]


def log_prior(posterior: Posterior, z: np.ndarray) -> np.ndarray:
    """Log density before the data of coordinates, the last axis."""
    flat = z.reshape(-1, z.shape[-1])
    return np.asarray(_log_prior(posterior, flat)).reshape(z.shape[:-1])


@eqx.filter_jit
def _log_prior(posterior: Posterior, z) -> Array:
    return jax.vmap(posterior.log_prior)(jnp.asarray(z))


def densities(posterior: Posterior, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihood and log prior at points."""
    likelihood, prior = in_batches(partial(_evaluate, posterior), z, BATCH)
    return np.where(np.isfinite(likelihood), likelihood, -np.inf), prior


@eqx.filter_jit
def _evaluate(posterior: Posterior, z: ArrayLike) -> tuple[Array, Array]:
    z = jnp.asarray(z)
    return jax.vmap(posterior.log_likelihood)(z), jax.vmap(posterior.log_prior)(z)
