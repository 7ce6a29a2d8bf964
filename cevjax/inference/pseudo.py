"""Pseudo-experiments: counts and results of auxiliary measurements, drawn around a truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtri, pdtr

from ..errors import InvalidValueError
from ..likelihood import Data, Likelihood

BATCH = 64  # toys per compiled call


def pseudo_data(like: Likelihood, params: Mapping[str, float], n: int, seed: int, first: int = 0) -> Data:
    """Draw pseudo-experiments at ``params``.

    Poisson counts around the expectation, or Gaussian ones where the measurement has errors; results of the auxiliary
    measurements around the values in ``params``. Toy i is the same whatever ``n`` and ``first`` are: it has a random
    key of its own, and each of its numbers is a quantile of its distribution, at a uniform random number.

    Args:
        like: likelihood; its data do not matter.
        params: all parameters.
        n: number of toys.
        seed: of the random numbers.
        first: index of the first toy.

    Returns:
        Arrays with one row a toy.

    Raises:
        InvalidValueError: not a number of toys, or a seed that is none.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    >>> data = pseudo_data(like, like.nominal(), n=3, seed=1)
    >>> data.observed[0].shape == (3, *like.measurements[0].shape), data.auxiliary.shape
    (True, (3, 2))
    >>> again = pseudo_data(like, like.nominal(), n=1, seed=1, first=2)
    >>> bool(np.all(again.observed[0] == data.observed[0][2:]))
    True
    """
    check_count("n", n)
    return Truth.at(like, params).draw(random_key(seed), np.arange(first, first + n))


def check_count(name: str, value: int, least: int = 1) -> int:
    """A whole number of at least ``least``, else ``InvalidValueError``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidValueError(f"Argument `{name}` must be a whole number, {least} or more, but was {value!r}.")
    return int(value)


def random_key(seed: int, *indices: int) -> Array:
    """The random key of a seed, and of what it is used for."""
    check_count("seed", seed, 0)
    key = jax.random.key(seed % 2**63, impl="threefry2x32")
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key


class Truth(NamedTuple):
    """What toys are drawn around: expectations of all bins, and of the auxiliary measurements, with their errors."""

    expected: tuple[np.ndarray, ...]
    sigma: tuple[np.ndarray | None, ...]
    auxiliary: np.ndarray
    errors: np.ndarray

    @classmethod
    def at(cls, like: Likelihood, params: Mapping[str, float]) -> Truth:
        """Of a likelihood at a point."""
        counts = like.expected(params)
        return cls.of(like, params, np.concatenate([np.ravel(sum(counts[m.name].values())) for m in like.measurements]))

    @classmethod
    def of(cls, like: Likelihood, params: Mapping[str, float], expected: np.ndarray) -> Truth:
        """From the expectations of all bins in one vector."""
        cuts = np.cumsum([int(np.prod(m.shape)) for m in like.measurements])[:-1]
        parts = np.split(np.asarray(expected), cuts)
        return cls(
            tuple(part.reshape(m.shape) for part, m in zip(parts, like.measurements, strict=True)),
            tuple(None if m.sigma is None else np.asarray(m.sigma) for m in like.measurements),
            np.array([float(params[p.name]) for p in like.constrained]),
            np.array([p.constraint.sigma for p in like.constrained if p.constraint]),
        )

    @property
    def asimov(self) -> Data:
        """The expectations themselves, as one toy."""
        return Data(tuple(jnp.asarray(mu)[None] for mu in self.expected), jnp.asarray(self.auxiliary)[None])

    def draw(self, key: Array, indices: np.ndarray) -> Data:
        """The toys with these indices, as arrays on the host."""
        sizes = [mu.size for mu in self.expected]
        uniform = np.split(uniforms(key, indices, sum(sizes) + len(self.errors)), np.cumsum(sizes), axis=1)
        observed = []
        for mu, sigma, u in zip(self.expected, self.sigma, uniform[:-1], strict=True):
            drawn = poisson(mu.ravel(), u) if sigma is None else mu.ravel() + sigma.ravel() * ndtri(u)
            observed.append(drawn.reshape(len(u), *mu.shape))
        return Data(tuple(observed), self.auxiliary + self.errors * ndtri(uniform[-1]))


def uniforms(key: Array, indices: np.ndarray, count: int) -> np.ndarray:
    """Random numbers between 0 and 1, neither included: a row of ``count`` for each index."""
    rows = []
    for first in range(0, len(indices), BATCH):
        padded = np.resize(indices[first : first + BATCH], BATCH)  # so that it is compiled once
        rows.append(np.asarray(_uniforms(key, padded, count))[: len(indices) - first])
    return np.concatenate(rows) + 2.0**-53


@partial(jax.jit, static_argnames="count")
def _uniforms(key: Array, indices: Array, count: int) -> Array:
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (count,), jnp.float64))(indices)


def poisson(mu: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Quantiles of Poisson distributions: the smallest n with P(up to n) >= uniform.

    Args:
        mu: expectations, shape (bins,); those below 0 count as 0.
        uniform: probabilities, shape (toys, bins).

    >>> poisson(np.array([0.0, 1.0, 100.0]), np.array([[0.5, 0.3, 0.5], [0.9, 0.99, 0.99]]))
    array([[  0.,   0., 100.],
           [  0.,   4., 124.]])
    """
    counts = np.empty(uniform.shape)
    for i, m in enumerate(np.maximum(mu, 0.0)):
        if not np.isfinite(m):
            counts[:, i] = np.nan
            continue
        low, high = max(0.0, np.floor(m - 9 * np.sqrt(m) - 10)), np.ceil(m + 10 * np.sqrt(m) + 30)
        values = np.arange(low, high + 1)
        counts[:, i] = low + np.searchsorted(pdtr(values, m)[:-1], uniform[:, i])
    return counts
