r"""Gaussian mixtures that follow a posterior: several separate modes, bands, ridges.

Nearly all of the shape is in the few parameters of interest, the first coordinates x of a point (x, y). Components
differ in mean and covariance there, and in how the nuisances y follow them; what is left of y is the same everywhere:

.. math:: p(x, y) = \sum_k w_k N(x; m_k, S_k)\, N(y; b_k + B_k (x - m_k), R).

So many components can be learnt from few points. One more component, wide, covers what the others may miss.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp

from .pairs import matrices

COUNTS = (1, 2, 4, 8, 16)
"""Numbers of components that are tried."""
SHAPE, SLOPE = 5.0, 20.0
"""Strength of the belief, in points, that a component has the shape of the others, and that nuisances follow it as
they follow the whole."""
ENOUGH, ROUNDS = 1e-3, 60
"""Gain of a round of the fit, in the mean log density, below which it ends; and the most rounds."""
INFLATED = 1.15
"""How much wider than the points the components are along the first coordinates: tails must be covered."""
WIDE, SPREAD = 0.05, 2.0
"""Weight of the wide component, and how much wider than all points it is along the first coordinates."""
HELD_OUT, AT_MOST = 4, 4096
"""One of so many points judges the number of components; and the most points that are looked at."""


class Mixture(NamedTuple):
    """A Gaussian mixture; component k is ``mean[k] + root[k] @ y`` with standard normal y, roots lower triangular."""

    log_weight: Array
    mean: Array
    root: Array
    inverse: Array
    """Of the roots."""

    def standardise(self, z: Array, k: Array) -> Array:
        """The y of a point in component k."""
        return self.inverse[k] @ (z - self.mean[k])

    def place(self, y: Array, k: Array) -> Array:
        """The point at y of component k."""
        return self.mean[k] + self.root[k] @ y

    def log_each(self, z: Array) -> Array:
        """Log density of each component, with its weight, at one point."""
        y = jnp.einsum("kij,kj->ki", self.inverse, z - self.mean)
        volume = jnp.sum(jnp.log(jnp.diagonal(self.inverse, axis1=1, axis2=2)), axis=1)
        return self.log_weight + volume - 0.5 * jnp.sum(y**2, axis=1) - 0.5 * len(z) * np.log(2 * np.pi)

    def log_narrow(self, z: Array) -> Array:
        """The same without the last component, the wide one."""
        return self.log_each(z)[:-1]

    def log_density(self, z: Array) -> Array:
        """Log density at one point."""
        return jax.nn.logsumexp(self.log_each(z))

    def draw(self, key: Array) -> Array:
        """A random point."""
        first, second = jax.random.split(key)
        k = jax.random.categorical(first, self.log_weight)
        return self.place(jax.random.normal(second, self.mean.shape[1:]), k)


def log_density(mixture: Mixture, points: np.ndarray) -> np.ndarray:
    """Of a mixture at points, shape (points, coordinates)."""
    return np.asarray(_log_density(mixture, points))


_log_density = jax.jit(jax.vmap(Mixture.log_density, in_axes=(None, 0)))


def fit_mixture(points: np.ndarray, weights: np.ndarray, lead: int, seed: int, counts=COUNTS) -> Mixture:
    """The mixture that describes weighted points best; the same for the same arguments, to the last bit.

    Args:
        points: shape (points, coordinates).
        weights: of the points.
        lead: how many of the first coordinates differ from component to component.
        seed: of the random numbers.
        counts: numbers of components to choose from, by the score of points that the fit does not see.
    """
    with matrices().limit(limits=1, user_api="blas"):
        points, weights = _thinned(points, weights / np.sum(weights))
        if lead == 0:
            return _with_wide(_fit(points, weights, 0, 1, np.random.default_rng(seed)), points, weights, 0)
        judged = np.arange(len(points)) % HELD_OUT == HELD_OUT - 1
        effective = 1 / np.sum(weights**2)
        best, high = 1, -np.inf
        if not 0.01 < np.sum(weights[judged]) < 0.99:  # nothing to judge by
            counts = ()
        for count in counts:
            if count > 1 and count * (lead + 1) * SHAPE > effective:
                break
            trial = _fit(points[~judged], weights[~judged], lead, count, np.random.default_rng(seed))
            total = np.asarray(logsumexp(_log_each(trial, points[judged], lead), axis=1))
            score = float(np.sum(weights[judged] * total) / np.sum(weights[judged]))
            if score < high + 0.01:
                break
            best, high = count, score
        parts = _fit(points, weights, lead, best, np.random.default_rng(seed))
        parts.root[:, :, :lead] *= INFLATED
        return _with_wide(parts, points, weights, lead)


def _thinned(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No more points than can be handled, of the same distribution."""
    if len(points) <= AT_MOST:
        return points, weights
    chosen = np.searchsorted(np.cumsum(weights), (np.arange(AT_MOST) + 0.5) / AT_MOST)
    which, times = np.unique(np.minimum(chosen, len(points) - 1), return_counts=True)
    return points[which], times / AT_MOST


class _Parts(NamedTuple):
    """Weights, means and roots of components, as NumPy arrays."""

    weight: np.ndarray
    mean: np.ndarray
    root: np.ndarray


def _fit(points: np.ndarray, weights: np.ndarray, lead: int, count: int, rng: np.random.Generator) -> _Parts:
    """Expectation-maximisation from centres that are points, spread by k-means++."""
    weights = weights / np.sum(weights)
    x, n = points[:, :lead], 1 / np.sum(weights**2)
    whole = _moments(points, weights[:, None], lead)
    spread = whole.covariance[0, :, :lead] + 1e-12 * np.eye(lead)
    slope = np.linalg.solve(spread, whole.covariance[0, :, lead:])
    scaled = np.linalg.solve(np.linalg.cholesky(spread), x.T).T
    belonging = np.eye(count)[_spread_out(scaled, weights, count, rng)]
    parts, last = None, -np.inf
    for _ in range(ROUNDS if count > 1 else 1):
        moments = _moments(points, weights[:, None] * belonging, lead)
        parts = _maximise(moments, n, slope)
        each = _log_each(parts, points, lead)
        total = np.asarray(logsumexp(each, axis=1))
        score = float(np.sum(weights * total))
        if score < last + ENOUGH:
            break
        last, belonging = score, np.exp(each - total[:, None])
    assert parts is not None
    return parts


class _Moments(NamedTuple):
    """Of points (x, y) with weights for each component."""

    size: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    """Of x with x and y: shape (components, x, x and y)."""
    inner: np.ndarray
    """Covariance of y around the means of the components, averaged over these."""


def _moments(points: np.ndarray, shares: np.ndarray, lead: int) -> _Moments:
    size = np.maximum(np.sum(shares, axis=0), 1e-12)
    mean = shares.T @ points / size[:, None]
    x, y = points[:, :lead], points[:, lead:]
    products = np.stack([(x * share[:, None]).T @ points for share in shares.T])
    covariance = products / size[:, None, None] - mean[:, :lead, None] * mean[:, None, :]
    inner = (y * np.sum(shares, axis=1)[:, None]).T @ y - (mean[:, lead:] * size[:, None]).T @ mean[:, lead:]
    return _Moments(size, mean, covariance, inner)


def _maximise(moments: _Moments, n: float, slope: np.ndarray) -> _Parts:
    """The components that fit moments best, drawn a little to a typical shape and slope.

    The typical shape is the mean of all components: one from the whole spread would be far too wide for separate modes.

    Args:
        moments: of the points.
        n: number of points, as far as statistics go.
        slope: of y by x.
    """
    size, mean, covariance, inner = moments
    lead, rest = slope.shape
    number = (size * n)[:, None, None]
    own, cross = covariance[:, :, :lead], covariance[:, :, lead:]
    typical = np.einsum("k,kij->ij", size, own) / np.sum(size)
    shape = (number * own + SHAPE * typical) / (number + SHAPE) + 1e-12 * np.eye(lead)
    belief = SLOPE / number * typical
    slopes = np.linalg.solve(own + belief + 1e-12 * np.eye(lead), cross + belief @ slope)
    fitted = np.einsum("k,kia,kib->ab", size, slopes, cross)
    residual = inner - fitted - fitted.T + np.einsum("k,kia,kij,kjb->ab", size, slopes, own, slopes)
    root = np.zeros((len(size), lead + rest, lead + rest))
    root[:, :lead, :lead] = np.linalg.cholesky(shape)
    root[:, lead:, :lead] = np.swapaxes(slopes, 1, 2) @ root[:, :lead, :lead]
    root[:, lead:, lead:] = np.linalg.cholesky(residual + 1e-9 * np.eye(rest))
    return _Parts(size / np.sum(size), mean, root)


def _spread_out(x: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Which of so many centres each point is next to; the centres are far from one another."""
    chosen = [rng.choice(len(x), p=weights)]
    distance = np.full((len(x), count), np.inf)
    for k in range(count):
        distance[:, k] = np.sum((x - x[chosen[k]]) ** 2, axis=1)
        chance = weights * np.min(distance, axis=1)
        total = np.sum(chance)
        chosen.append(rng.choice(len(x), p=chance / total if total > 0 else weights))
    return np.argmin(distance, axis=1)


def _log_each(parts: _Parts, points: np.ndarray, lead: int) -> np.ndarray:
    """Log density of each component, with its weight, at each point."""
    weight, mean, root = parts
    whiten = np.linalg.inv(root[0, lead:, lead:]).T  # the same for all
    y = points[:, lead:] @ whiten
    volume = np.sum(np.log(np.diagonal(root, axis1=1, axis2=2)), axis=1) + 0.5 * points.shape[1] * np.log(2 * np.pi)
    found = np.empty((len(points), len(weight)))
    for k in range(len(weight)):
        u = (points[:, :lead] - mean[k, :lead]) @ np.linalg.inv(root[k, :lead, :lead]).T
        rest = y - mean[k, lead:] @ whiten - u @ (root[k, lead:, :lead].T @ whiten)
        square = np.einsum("ni,ni->n", u, u) + np.einsum("ni,ni->n", rest, rest)
        found[:, k] = np.log(weight[k]) - volume[k] - 0.5 * square
    return found


def _with_wide(parts: _Parts, points: np.ndarray, weights: np.ndarray, lead: int) -> Mixture:
    """The components and the wide one."""
    whole = _moments(points, weights[:, None], points.shape[1])
    wide = np.linalg.cholesky(whole.covariance[0] + 1e-12 * np.eye(points.shape[1]))
    wide *= np.where(np.arange(points.shape[1]) < lead, SPREAD, INFLATED)
    root, mean = np.concatenate([parts.root, wide[None]]), np.concatenate([parts.mean, whole.mean])
    weight = np.append(parts.weight * (1 - WIDE), WIDE)
    return Mixture(*(jnp.asarray(part) for part in (np.log(weight), mean, root, np.linalg.inv(root))))
