r"""Pseudo-experiments: p-values, coverage and goodness of fit where no asymptotic formula is trusted.

A toy is a whole experiment: counts drawn around their expectation, and results of the auxiliary measurements drawn
around the values of the nuisances. Each is fitted twice, with the parameters of interest at the values under test and
with them free, and

.. math:: t = 2\,(\min_{\rm fixed} {\rm nll} - \min_{\rm free} {\rm nll}) \ge 0

is compared with that of the real data. For many counts, and away from bounds and degeneracies, t has the chi2
distribution with as many degrees of freedom as there are parameters of interest (Wilks); toys do not need that.

The fits run on the :func:`folded <cevjax.folding.fold>` likelihood. They start where the linearised likelihood has its
minimum, those that take longer continue together, and those that leave the range of the series, or do not converge,
are done again with the likelihood itself.

Sources: Cowan, Cranmer, Gross & Vitells, arXiv:1007.1727; Davison & Hinkley, Bootstrap Methods (1997), section 4.2
(p-values by simulation).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtri, pdtr
from scipy.stats import chi2 as chi2_distribution

from .. import jobs
from ..errors import InvalidValueError
from ..folding import fold, tabulated
from ..likelihood import Data, Likelihood, bins, expected_flat, nll
from ..parameters import Parameter
from ..provenance import identity, labels, provenance
from ..registry import check_parameter
from ..results import FitResult, describe, to_json, write_atomically
from ..scans import CONVERGED, FAILED, RETRIED
from .fit import Problem, problem, starting_points
from .minimize import BATCH as EXACT_BATCH
from .minimize import MAX_STEPS, Space, minimize, space

if TYPE_CHECKING:
    import xarray as xr

LEVELS = (0.6827, 0.90, 0.95, 0.99)
"""Confidence levels of coverage and quantiles."""
TOLERANCE = 1e-4
"""Of a fit, in the nll."""
SLACK = 1e-3
"""Two values of t closer than this count as equal: counts are discrete, so that many toys may tie with the data."""
BATCH = 64  # fits per compiled call
BLOCK = 512  # toys that a thread does at once
CHUNK = 8 * BLOCK  # toys of a chunk of a job
STEPS = 3, 8  # of the minimiser: of all fits, and of those that need more, a block together
MORE = 60  # of those that need still more, a chunk together
SAMPLE = 16  # toys that are fitted with the likelihood itself, to compare
STARTS = 16  # of the search for modes
MODES = 4  # that fits start from, besides the truth
RELEVANT = 12.5  # modes higher than the lowest by more than this, in the nll, are never the lowest of a toy
BARRIER = 0.5  # between two modes, in the nll; with less they are one
REACH = 5.0  # of nuisances with the folded likelihood, in standard deviations: toys fluctuate, around shifted values
RIDGE = 1e-2  # smallest information by a natural step of a parameter, for starting points


# ------------------------------------------------------------------------------------------------------- pseudo-data


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


# -------------------------------------------------------------------------------------------------------------- fits


class Setup(NamedTuple):
    """Everything that the two fits of a toy need, whatever its data and the values under test are."""

    like: Likelihood
    folded: Likelihood
    poi: tuple[str, ...]
    free: Problem  # with the parameters of interest free
    bound: Problem  # with them fixed; their values come from elsewhere
    ranges: Mapping[str, tuple[float, float]]  # that the folded likelihood is made for


def prepare(
    like: Likelihood,
    poi: Mapping[str, Sequence[float]],
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
) -> Setup:
    """What the fits of toys need, for parameters under test at ``poi``: {name: values that occur}.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: a value out of bounds, or a parameter both of interest, free or set.
    """
    free = (free,) if isinstance(free, str) else tuple(free)
    for name in set(poi) & set(free):
        raise InvalidValueError(f"Parameter `{name}` must be either under test or free, but was both.")
    task = problem(like, (*poi, *free), values)
    for name, column in poi.items():
        for value in column:
            like.parameters[name].check(value)
    if not task.where.names:
        raise InvalidValueError("Argument `poi` must name a parameter: this likelihood has no nuisances to fit.")
    kept = tuple(name for name in task.where.names if name not in poi)
    bound = Problem(space(like, kept), tuple(free), task.fixed, task.dropped)
    held = {name: _reach(like.parameters[name], poi.get(name, ())) for name in task.free}
    folded = fold(like, [name for name in kept if name not in free], held, task.fixed, reach=REACH)
    return Setup(like, folded, tuple(poi), task, bound, tabulated(folded, task.where.names))


def _reach(parameter: Parameter, values: Sequence[float]) -> tuple[float, float]:
    """How far fits of toys may go with the folded likelihood: the search range, or bounds not much wider."""
    low, high = parameter.search_range()
    if parameter.bounds[1] - parameter.bounds[0] <= 2 * (high - low):
        low, high = parameter.bounds
    return min([low, *values]), max([high, *values])


class Fits(NamedTuple):
    """Where fits ended, with one entry (row) for each."""

    u: np.ndarray
    nll: np.ndarray
    converged: np.ndarray


class Pair(NamedTuple):
    """The two fits of each toy, with the parameters under test fixed and with them free, and how they went."""

    bound: Fits
    free: Fits
    status: np.ndarray

    @property
    def t(self) -> np.ndarray:
        """The test statistic; nan where a fit failed."""
        good = self.status != FAILED
        difference = np.subtract(self.bound.nll, self.free.nll, out=np.full(len(good), np.nan), where=good)
        return np.maximum(2 * difference, 0.0)


def take(tree: Any, rows: Any) -> Any:
    """Some rows of all arrays in a structure."""
    return jax.tree.map(lambda x: x[rows], tree)


def join(trees: Sequence[Any]) -> Any:
    """The arrays of several structures, one after the other."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *trees)


def replace(tree: Any, rows: np.ndarray, new: Any) -> None:
    """Write rows of all arrays in a structure."""
    jax.tree.map(lambda old, part: old.__setitem__(rows, part), tree, new)


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """``function`` of all items: compiled functions leave the interpreter to other threads while they run."""
    threads = min(threads_at_hand(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def threads_at_hand() -> int:
    """One for each processor of this process, or NPROC; one where another device computes, or several do."""
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        return 1
    given = os.environ.get("NPROC", "")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdecimal() and int(given) > 0 else available


def descend(
    like: Likelihood,
    where: Space,
    starts: np.ndarray,
    fixed: Mapping[str, Any],
    data: Data,
    batch: int = BATCH,
    steps: Sequence[int] = STEPS,
) -> Fits:
    """Fit each toy from one starting point: a row of ``starts``, in the coordinates of the minimiser.

    Args:
        like: folded or not.
        where: what is fitted.
        starts: one row a toy.
        fixed: values of all others: numbers, or arrays with one entry a toy.
        data: of the toys.
        batch: fits per compiled call.
        steps: that a fit may take at first, and again and again, together with the others that need more.

    Toys whose starting point is nan are left out: their nll is infinite.
    """
    n = len(starts)
    if not where.names:
        value = evaluate(like, fixed, data, batch)
        return Fits(np.zeros((n, 0)), value, np.isfinite(value))
    found = Fits(np.array(starts), np.full(n, np.inf), np.zeros(n, bool))
    wanted = np.all(np.isfinite(starts), axis=1)
    for limit in steps:
        left = np.flatnonzero(wanted & ~found.converged)
        if not len(left):
            break
        points, some, here = where.decode(found.u[left]), take(data, left), columns_at(fixed, left)
        new = minimize(like, where, points, here, (), batch, some, TOLERANCE, limit)
        replace(found, left, Fits(where.encode(new.values), new.nll, new.converged))
    return found


def descend_exactly(setup: Setup, where: Space, starts: np.ndarray, fixed: Mapping[str, Any], data: Data) -> Fits:
    """The same with the likelihood itself, and as many steps as it takes."""
    return descend(setup.like, where, starts, fixed, data, EXACT_BATCH, (MAX_STEPS,))


def columns_at(fixed: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """Values with one entry a toy for some of the toys; numbers as they are."""
    return {name: value[rows] if np.ndim(value) else value for name, value in fixed.items()}


def settle(like: Likelihood, where: Space, fits: Sequence[Fits], fixed: Mapping[str, Any], data: Data) -> Fits:
    """The lowest of the fits of each toy from several starting points, after more steps of those that may become it."""
    floor = np.min([np.nan_to_num(found.nll, nan=np.inf) for found in fits], axis=0)
    for found in fits:
        left = np.flatnonzero(~found.converged & (found.nll < floor + BARRIER))

        def block(rows: np.ndarray) -> Fits:
            here, some = columns_at(fixed, rows), take(data, rows)
            return descend(like, where, found.u[rows], here, some, EXACT_BATCH, (MORE,))  # noqa: B023

        for_each_block(block, left, EXACT_BATCH, found)
    return lowest(fits)


def for_each_block(function: Callable[[np.ndarray], Any], rows: np.ndarray, size: int, results: Any) -> None:
    """Replace rows of ``results`` by what ``function`` makes of them, in blocks of some size, in threads."""
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    for block, new in zip(blocks, in_threads(function, blocks), strict=True):
        replace(results, block, new)


def lowest(fits: Sequence[Fits]) -> Fits:
    """The lowest of several fits of each toy; one that did not converge only if it is lower than all that did."""
    best = jax.tree.map(np.array, fits[0])
    for found in fits[1:]:
        margin = SLACK / 2 * (best.converged.astype(int) - found.converged)
        better = np.flatnonzero((found.nll < best.nll - margin) | (np.isfinite(found.nll) & ~np.isfinite(best.nll)))
        replace(best, better, take(found, better))
    return best


def evaluate(like: Likelihood, fixed: Mapping[str, Any], data: Data, batch: int = BATCH) -> np.ndarray:
    """The nll of each toy at given values of all parameters: numbers, or arrays with one entry a toy."""
    n = len(data.auxiliary)
    columns = {name: np.broadcast_to(np.asarray(value, float), n) for name, value in fixed.items()}
    found = []
    for first in range(0, n, batch):
        rows = np.minimum(np.arange(first, first + batch), n - 1)
        found.append(np.asarray(_evaluate(like, take(columns, rows), take(data, rows)))[: n - first])
    return np.concatenate(found)


@jax.jit
def _evaluate(like: Likelihood, columns: dict[str, Array], data: Data) -> Array:
    return jax.vmap(lambda params, data: nll(like.with_data(data), params))(columns, data)


class Firsts(NamedTuple):
    """The first steps of the two fits of each toy, from each of their starting points."""

    bound: tuple[Fits, ...]
    free: tuple[Fits, ...]


def first_steps(setup: Setup, starts: tuple[np.ndarray, np.ndarray], poi: Mapping[str, Any], data: Data) -> Firsts:
    """The first steps of both fits of toys.

    Args:
        setup: of the fits.
        starts: of the two fits, each of shape (starts, toys, parameters).
        poi: values of the parameters under test: numbers, or arrays with one entry a toy.
        data: of the toys.
    """
    fixed = {**setup.bound.fixed, **poi}
    bound = tuple(descend(setup.folded, setup.bound.where, start, fixed, data) for start in starts[0])
    if not setup.poi:
        return Firsts(bound, ())
    return Firsts(bound, tuple(descend(setup.folded, setup.free.where, x, setup.free.fixed, data) for x in starts[1]))


def last_steps(setup: Setup, firsts: Firsts, poi: Mapping[str, Any], data: Data) -> Pair:
    """Both fits of toys after their :func:`first_steps`, where needed with the likelihood itself."""
    like, where = setup.folded, setup.free.where
    bound = settle(like, setup.bound.where, firsts.bound, {**setup.bound.fixed, **poi}, data)
    free = bound
    if setup.poi:
        free = settle(like, where, firsts.free, setup.free.fixed, data)
        high = np.flatnonzero(free.nll > bound.nll)
        if len(high):  # where the fit with fewer parameters ended is as good a start as any
            again = Fits(widen(setup, bound.u, poi)[high], bound.nll[high], np.zeros(len(high), bool))
            both = take(free, high), again
            replace(free, high, settle(like, where, both, setup.free.fixed, take(data, high)))
    status = np.where(bound.converged & free.converged, CONVERGED, FAILED).astype(np.int8)
    pair = Pair(bound, free, status)
    again = np.flatnonzero(troubled(setup, pair))

    def block(rows: np.ndarray) -> Pair:
        return fit_exactly(setup, take(pair, rows), columns_at(poi, rows), take(data, rows))

    for_each_block(block, again, EXACT_BATCH, pair)
    return pair


def fit_exactly(setup: Setup, pair: Pair, poi: Mapping[str, Any], data: Data) -> Pair:
    """Both fits again with the likelihood itself, from where others ended; the free one also from the fixed one."""
    bound, free = setup.bound.where, setup.free.where
    first = descend_exactly(setup, bound, _finite(pair.bound.u, bound), {**setup.bound.fixed, **poi}, data)
    if not setup.poi:
        return Pair(first, first, np.where(first.converged, RETRIED, FAILED).astype(np.int8))
    starts = _finite(pair.free.u, free), widen(setup, _finite(first.u, bound), poi)
    second = lowest([descend_exactly(setup, free, start, setup.free.fixed, data) for start in starts])
    good = first.converged & second.converged & (second.nll <= first.nll + SLACK)
    return Pair(first, second, np.where(good, RETRIED, FAILED).astype(np.int8))


def widen(setup: Setup, u: np.ndarray, poi: Mapping[str, Any]) -> np.ndarray:
    """Coordinates of the free fit, from those of the other one and the values under test."""
    columns = dict(zip(setup.bound.where.names, u.T, strict=True))
    for name in setup.poi:
        columns[name] = np.broadcast_to(setup.like.parameters[name].encode(poi[name]), len(u))
    return np.stack([columns[name] for name in setup.free.where.names], axis=1)


def _finite(u: np.ndarray, where: Space) -> np.ndarray:
    """Coordinates with nominal ones in place of those that are not finite."""
    return np.where(np.isfinite(u), u, where.encode(np.array([p.nominal for p in where.parameters])))


def troubled(setup: Setup, pair: Pair) -> np.ndarray:
    """Toys whose fits are to be done again: not converged, out of the range of the series, or the free one higher."""
    bad = (pair.status == FAILED) | ~(pair.free.nll <= pair.bound.nll + SLACK / 2)
    for fits, task in ((pair.bound, setup.bound), (pair.free, setup.free)):
        bad |= ~within(setup.ranges, task.where, fits.u)
    return bad


def within(ranges: Mapping[str, tuple[float, float]], where: Space, u: np.ndarray) -> np.ndarray:
    """Which points lie in the ranges that the folded likelihood is made for."""
    columns = dict(zip(where.names, where.decode(u).T, strict=True))
    inside = [(low < columns[name]) & (columns[name] < high) for name, (low, high) in ranges.items() if name in columns]
    return np.logical_and.reduce([np.ones(len(u), bool), *inside])


# ------------------------------------------------------------------------------------------------------ where to start


class Tangent(NamedTuple):
    """The minimum of the nll linearised at a point, as a linear function of the data."""

    u: np.ndarray  # the point
    constant: np.ndarray
    by_counts: np.ndarray
    by_auxiliary: np.ndarray

    def start(self, data: Data, box: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Where to start the fits of toys. Rounded, so that it is the same whatever they are computed with."""
        counts = np.concatenate([np.reshape(x, (len(x), -1)) for x in data.observed], axis=1)
        start = self.constant + counts @ self.by_counts + np.asarray(data.auxiliary) @ self.by_auxiliary
        return np.clip(np.round(np.where(np.isfinite(start), start, self.u), 6), *box)


def box_of(setup: Setup, where: Space) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates that fits may start from: bounds, and the range of the folded likelihood."""
    lower, upper = where.lower, where.upper
    for i, name in enumerate(where.names):
        low, high = setup.ranges.get(name, (-np.inf, np.inf))
        lower[i], upper[i] = max(lower[i], low), min(upper[i], high)
    return where.encode(lower), where.encode(upper)


def tangents(
    setup: Setup, task: Problem, points: np.ndarray, fixed: Mapping[str, Any]
) -> Iterator[tuple[Tangent, np.ndarray]]:
    """The tangent at each point (a row of values), with the information of the counts and constraints there.

    Args:
        setup: of the fits.
        task: which parameters.
        points: rows of their values.
        fixed: all other values: numbers, or arrays with one entry a point.
    """
    where, like = task.where, setup.folded
    sigma = {p.name: p.constraint.sigma for p in like.constrained if p.constraint}
    n = len(points)
    columns = {name: np.broadcast_to(np.asarray(value, float), n) for name, value in fixed.items()}
    columns |= dict(zip(where.names, points.T, strict=True))
    for first in range(0, n, EXACT_BATCH):
        rows = np.minimum(np.arange(first, first + EXACT_BATCH), n - 1)
        expanded = _expand(like, where.names, take(columns, rows))
        for k, mu, slopes, weight in zip(range(first, n), *map(np.asarray, expanded), strict=False):
            slope = where.slope(points[k])
            jacobian = slopes * slope[:, None]
            pulls = np.zeros((len(sigma), len(slope)))
            for a, name in enumerate(sigma):
                if name in where.names:
                    i = where.names.index(name)
                    pulls[a, i] = slope[i] / sigma[name]
            information = (jacobian * weight) @ jacobian.T + pulls.T @ pulls
            step = np.linalg.inv(information + RIDGE * np.eye(len(slope)))
            u = where.encode(points[k])
            by_counts = (jacobian * weight).T @ step
            by_auxiliary = (pulls / np.array([*sigma.values()])[:, None]) @ step
            means = np.array([columns[name][k] for name in sigma])
            yield Tangent(u, u - mu @ by_counts - means @ by_auxiliary, by_counts, by_auxiliary), information


@partial(jax.jit, static_argnames="names")
def _expand(like: Likelihood, names: tuple[str, ...], columns: dict[str, Array]) -> tuple[Array, Array, Array]:
    """Expected counts at points, their derivatives by the parameters and the weight of each bin."""

    def at(params):
        def expected(x):
            return expected_flat(like, {**params, **dict(zip(names, x, strict=True))})

        if not names:
            mu = expected_flat(like, params)
            return mu, jnp.zeros((0, len(mu))), bins(like, mu).information
        mu, tangent = jax.linearize(expected, jnp.stack([params[name] for name in names]))
        return mu, jax.vmap(tangent)(jnp.eye(len(names))), bins(like, mu).information

    return jax.vmap(at)(columns)


def modes(
    setup: Setup, like: Likelihood, task: Problem, fixed: Mapping[str, Any], data: Data, first: np.ndarray
) -> Fits:
    """The minima of the nll of one toy, the lowest first, found from many starts.

    Args:
        setup: of the fits.
        like: its likelihood, folded or not.
        task: which parameters.
        fixed: values of all others.
        data: of the toy.
        first: where to start besides the points that are spread over the search ranges: rows of coordinates.
    """
    count = max(STARTS - len(first), 1) if task.free else 1
    starts = np.concatenate([first, task.where.encode(starting_points(setup.like, task, count))])
    found = descend(like, task.where, starts, fixed, repeat(data, len(starts)), EXACT_BATCH, (MAX_STEPS,))
    order = np.argsort(np.where(found.converged, found.nll, np.inf), kind="stable")
    kept = [order[0]]
    for i in order[1:]:
        relevant = found.converged[i] and found.nll[i] < found.nll[order[0]] + RELEVANT
        if relevant and separate(like, task, fixed, data, found.u[i], found.u[kept]):
            kept.append(i)
    return take(found, np.array(kept))


def repeat(data: Data, n: int) -> Data:
    """One toy, many times."""
    return take(data, np.zeros(n, int))


def separate(
    like: Likelihood, task: Problem, fixed: Mapping[str, Any], data: Data, u: np.ndarray, others: np.ndarray
) -> bool:
    """Whether the nll of a toy has a barrier on the straight lines from ``u`` to all ``others``."""
    if np.any(np.all(np.abs(u - others) < 0.1, axis=1)):
        return False
    fractions = np.linspace(0, 1, 5)[:, None]
    lines = np.concatenate([u + fractions * (other - u) for other in others])
    columns = dict(zip(task.where.names, task.where.decode(lines).T, strict=True))
    height = evaluate(like, {**fixed, **columns}, repeat(data, len(lines)), EXACT_BATCH).reshape(len(others), -1)
    return bool(np.all(np.max(height, axis=1) > np.maximum(height[:, 0], height[:, -1]) + BARRIER))


def sides(
    setup: Setup, task: Problem, u: np.ndarray, information: np.ndarray, fixed: Mapping[str, Any], data: Data
) -> np.ndarray:
    """Starting points on both sides of ``u`` along the parameters of interest that act there to second order only.

    A coupling that enters squared has no slope at zero: a fit that starts there stays there.

    Args:
        setup: of the fits.
        task: which parameters.
        u: the point, in coordinates.
        information: there.
        fixed: values of all other parameters.
        data: the expectation at the point.
    """
    found, (lower, upper) = [], box_of(setup, task.where)
    distances = np.geomspace(1e-3, 1e2, BATCH // 2)
    for i, name in enumerate(task.where.names):
        if name not in task.free:
            continue
        ladder = np.tile(u, (BATCH, 1))
        ladder[:, i] = np.clip(u[i] + np.concatenate([-distances, distances]), lower[i], upper[i])
        columns = dict(zip(task.where.names, task.where.decode(ladder).T, strict=True))
        heights = evaluate(setup.folded, {**fixed, **columns}, repeat(data, BATCH))
        for side in (slice(None, BATCH // 2), slice(BATCH // 2, None)):
            points, height = ladder[side], heights[side]
            k = int(np.argmax(height >= 0.5)) if np.any(height >= 0.5) else len(height) - 1
            distance = np.abs(points[k, i] - u[i])
            if distance > 0 and information[i, i] * distance**2 < 0.5 * height[k]:
                found.append(points[k])
    return np.reshape(found, (len(found), len(u)))


def places(
    setup: Setup, task: Problem, fixed: Mapping[str, Any], known: np.ndarray, asimov: Data
) -> tuple[tuple[Tangent, ...], np.ndarray]:
    """Where the fits of toys start: the truth, the modes of its expectation and of the real data, and their sides.

    Also the information at the truth.

    Args:
        setup: of the fits.
        task: which parameters.
        fixed: values of all others.
        known: coordinates of the truth, and of modes of the real data.
        asimov: the expectation at the truth.
    """
    first, information = next(tangents(setup, task, task.where.decode(known[:1]), fixed))
    points = [known[0]]
    if task.free:
        points += [*sides(setup, task, known[0], information, fixed, asimov)]
        for u in (*modes(setup, setup.folded, task, fixed, asimov, known[:1]).u, *known[1:]):
            if len(points) <= MODES and separate(setup.folded, task, fixed, asimov, u, np.array(points)):
                points.append(u)
    others = task.where.decode(np.reshape(points[1:], (len(points) - 1, len(known[0]))))
    return (first, *(tangent for tangent, _ in tangents(setup, task, others, fixed))), information


# --------------------------------------------------------------------------------------------------------- experiments


class Experiment(NamedTuple):
    """A truth, with all that is needed to draw toys there and to fit them."""

    setup: Setup
    poi: dict[str, float]
    params: dict[str, float]
    truth: Truth
    starts: tuple[tuple[Tangent, ...], tuple[Tangent, ...]]
    n_flat: int
    """Fitted parameters without effect."""
    chi2: tuple[float, float]
    """Of the real data, with the parameters under test fixed and with them free; nan if not known."""
    best_fit: dict[str, float]
    """All parameters of the latter."""

    @classmethod
    def of(cls, setup: Setup, poi: Mapping[str, float]) -> Experiment:
        """The experiment at ``poi``, with all other parameters at their best fit to the real data there.

        Raises:
            InvalidValueError: the data cannot be fitted.
        """
        like, (bound, free) = setup.like, (setup.bound, setup.free)
        data = jax.tree.map(lambda x: np.asarray(x)[None], like.data)
        held = {**bound.fixed, **poi}
        first = modes(setup, like, bound, held, data, np.zeros((0, len(bound.where.names))))
        second = modes(setup, like, free, free.fixed, data, widen(setup, first.u[:1], poi)) if poi else first
        if not (first.converged[0] and second.converged[0]):
            raise InvalidValueError("The fit of the data did not converge: toys need one at the values under test.")
        found = cls.at(setup, poi, first.u, second.u)
        highest, least = (2 * max(float(x), 0.0) for x in (first.nll[0], min(first.nll[0], second.nll[0])))
        return found._replace(chi2=(highest, least), best_fit={**free.fixed, **_values(free, second.u[0])})

    @classmethod
    def at(cls, setup: Setup, poi: Mapping[str, float], first: np.ndarray, second: np.ndarray) -> Experiment:
        """The experiment at ``poi``, without the real data.

        Args:
            setup: of the fits.
            poi: values of the parameters under test.
            first: coordinates of all other parameters; in further rows, where else fits of them may end.
            second: where fits with the parameters under test free may end.
        """
        held = {**setup.bound.fixed, **poi}
        params = {**held, **_values(setup.bound, first[0])}
        truth = Truth.at(setup.like, params)
        starts, information = places(setup, setup.bound, held, first, truth.asimov)
        more = starts
        if poi:
            known = np.concatenate([widen(setup, first[:1], poi), second])
            more, information = places(setup, setup.free, setup.free.fixed, known, truth.asimov)
        n_flat = int(np.sum(np.diag(information) < 1e-10))
        return cls(setup, dict(poi), params, truth, (starts, more), n_flat, (np.nan, np.nan), {})

    @property
    def t(self) -> float:
        """The test statistic of the real data."""
        return self.chi2[0] - self.chi2[1]

    def starting(self, data: Data, counts: Sequence[int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
        """Where the two fits of toys start, shapes (starts, toys, parameters); nan to fill up to some counts."""
        found = []
        for task, points, count in zip((self.setup.bound, self.setup.free), self.starts, counts, strict=True):
            box = box_of(self.setup, task.where)
            starts = np.stack([point.start(data, box) for point in points])
            missing = np.full((max(count - len(points), 0), *starts.shape[1:]), np.nan)
            found.append(np.concatenate([starts, missing]))
        return found[0], found[1]

    def fit(self, key: Array, indices: np.ndarray) -> Pair:
        """Draw toys and fit them."""
        return fit_toys([self], [key], np.zeros(len(indices), int), indices, self.poi)


def fit_toys(
    experiments: Sequence[Experiment],
    keys: Sequence[Array],
    which: np.ndarray,
    indices: np.ndarray,
    poi: Mapping[str, Any] | None = None,
) -> Pair:
    """Draw toys of several experiments, which have one setup, and fit them together.

    Args:
        experiments: where toys are drawn.
        keys: random key of each.
        which: for each toy, the number of its experiment; in increasing order.
        indices: its index among the toys of that experiment.
        poi: values of the parameters under test, if they are the same in all: that is faster.
    """
    setup = experiments[0].setup
    if poi is None:
        poi = {name: np.array([experiment.poi[name] for experiment in experiments])[which] for name in setup.poi}
    counts = [max(len(experiment.starts[i]) for experiment in experiments) for i in (0, 1)]

    def block(rows: np.ndarray) -> tuple[Data, Firsts]:
        drawn, starts = [], []
        for k in np.unique(which[rows]):
            drawn.append(experiments[k].truth.draw(keys[k], indices[rows[which[rows] == k]]))
            starts.append(experiments[k].starting(drawn[-1], counts))
        data, first = join(drawn), tuple(np.concatenate(parts, axis=1) for parts in zip(*starts, strict=True))
        return data, first_steps(setup, (first[0], first[1]), columns_at(poi, rows), data)

    rows = np.arange(len(which))
    data, firsts = join(in_threads(block, [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]))
    return last_steps(setup, firsts, poi, data)


def _values(task: Problem, u: np.ndarray) -> dict[str, float]:
    return dict(zip(task.where.names, map(float, task.where.decode(u)), strict=True))


class ToysJob(jobs.Job):
    """Toys of an experiment, in chunks.

    Args:
        experiment: where they are drawn.
        n: number of toys.
        seed: of the random numbers.
    """

    def __init__(self, experiment: Experiment, n: int, seed: int):
        self.experiment, self.n, self.seed = experiment, n, seed

    @property
    def sizes(self):
        return tuple(min(CHUNK, self.n - first) for first in range(0, self.n, CHUNK))

    @property
    def identity(self):
        setup, rounded = self.experiment.setup, lambda value: float(f"{value:.6g}")
        return {
            **identity(setup.like, "toys"),
            "poi": self.experiment.poi,
            "fitted": list(setup.free.where.names),
            "params": {name: rounded(value) for name, value in self.experiment.params.items()},
            "seed": self.seed,
        }

    def compute(self, index):
        setup, first = self.experiment.setup, index * CHUNK
        pair = self.experiment.fit(random_key(self.seed), np.arange(first, first + self.sizes[index]))
        fitted = setup.free.where.decode(pair.free.u)
        columns = {name: fitted[:, i] for i, name in enumerate(setup.free.where.names) if name in setup.free.free}
        return {"t": pair.t, "chi2_min": 2 * pair.free.nll, "status": pair.status, **columns}


# ------------------------------------------------------------------------------------------------------------- results


def fraction(passed: np.ndarray) -> tuple[float, float]:
    """Part of the toys that pass, and its binomial error, which is not zero where all or none do.

    >>> [round(x, 4) for x in fraction(np.arange(100) < 10)]
    [0.1, 0.0305]
    """
    n, k = len(passed), int(np.sum(passed))
    if not n:
        return np.nan, np.nan
    p = (k + 0.5) / (n + 1)
    return k / n, float(np.sqrt(p * (1 - p) / n))


@dataclass(frozen=True)
class ToysResult:
    """Toys, and what they say about the data.

    Attributes:
        likelihood: with the real data.
        poi: the values under test.
        free: further parameters that were fitted, besides the nuisances.
        params: all parameters where the toys were drawn: the others at their best fit to the real data.
        best_fit: all parameters at the global best fit to the real data.
        chi2: of the real data, with the parameters under test fixed.
        chi2_min: the same with them free.
        t: test statistic of every toy; nan where a fit failed.
        toys_chi2_min: minimum of chi2 of every toy, with the parameters under test free.
        fitted: {parameter of interest: its best fit to every toy}.
        status: how the fits of every toy went: :data:`~cevjax.scans.CONVERGED` with the folded likelihood,
            :data:`~cevjax.scans.RETRIED` with the likelihood itself, or :data:`~cevjax.scans.FAILED`.
        n_flat: fitted parameters without effect.
        accuracy: largest difference to fits with the likelihood itself from many starting points, in t (or in chi2 if
            nothing is under test), among a few toys.
        seed: of the random numbers.
        seconds: wall time.
    """

    likelihood: Likelihood = field(repr=False)
    poi: dict[str, float]
    free: tuple[str, ...]
    params: dict[str, float] = field(repr=False)
    best_fit: dict[str, float] = field(repr=False)
    chi2: float
    chi2_min: float
    t: np.ndarray = field(repr=False)
    toys_chi2_min: np.ndarray = field(repr=False)
    fitted: dict[str, np.ndarray] = field(repr=False)
    status: np.ndarray = field(repr=False)
    n_nuisances: int = 0
    n_flat: int = 0
    accuracy: float = 0.0
    seed: int = 0
    seconds: float = 0.0

    @property
    def n(self) -> int:
        """Number of toys, failed ones among them."""
        return len(self.status)

    @property
    def good(self) -> np.ndarray:
        """Toys whose fits did not fail: those that the statistics are made of."""
        return self.status != FAILED

    @property
    def n_failed(self) -> int:
        return int(np.sum(~self.good))

    @property
    def dof(self) -> int:
        """Number of parameters under test."""
        return len(self.poi)

    @property
    def t_observed(self) -> float:
        """Test statistic of the real data."""
        return self.chi2 - self.chi2_min

    @property
    def p_value(self) -> tuple[float, float] | None:
        """Part of the toys with at least the t of the data, and its error; None if nothing is under test."""
        return fraction(self.t[self.good] >= self.t_observed - SLACK) if self.poi else None

    @property
    def asymptotic_p_value(self) -> float | None:
        """The same if t has a chi2 distribution (Wilks)."""
        return float(chi2_distribution.sf(self.t_observed, self.dof)) if self.poi else None

    @property
    def goodness(self) -> tuple[float, float]:
        """Part of the toys with at least the chi2_min of the data, and its error."""
        return fraction(self.toys_chi2_min[self.good] >= self.chi2_min - SLACK)

    @property
    def asymptotic_goodness(self) -> float | None:
        """The same from the mean and the variance of chi2: :attr:`cevjax.FitResult.p_value`."""
        names = (*self.poi, *self.free)
        names = (*names, *(n for n in self.likelihood.nuisances if n not in names))[: len(names) + self.n_nuisances]
        fit = FitResult(
            self.likelihood,
            names,
            names,
            self.best_fit,
            dict.fromkeys(names),
            np.zeros((0, 0)),
            self.chi2_min,
            True,
            "",
            flat=names[: self.n_flat],
        )
        return fit.p_value

    @cached_property
    def coverage(self) -> dict[float, tuple[float, float]]:
        """{confidence level: part of the toys whose interval by the chi2 threshold holds the truth, and its error}."""
        threshold = {cl: float(chi2_distribution.ppf(cl, self.dof)) for cl in LEVELS if self.poi}
        return {cl: fraction(self.t[self.good] <= limit) for cl, limit in threshold.items()}

    @cached_property
    def quantiles(self) -> dict[float, tuple[float, float]]:
        """{confidence level: quantile of t among the toys, and that of chi2}."""
        t = np.sort(self.t[self.good])
        if not (self.poi and len(t)):
            return {}
        limits = {cl: float(chi2_distribution.ppf(cl, self.dof)) for cl in LEVELS}
        return {cl: (float(np.quantile(t, cl)), limit) for cl, limit in limits.items()}

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON output."""
        parameters = self.likelihood.parameters
        p, goodness = self.p_value or (None, None), self.goodness
        good = {name: values[self.good] for name, values in self.fitted.items()}
        return {
            **describe(self.likelihood, "toys"),
            "poi": {name: {"value": value, "unit": parameters[name].unit} for name, value in self.poi.items()},
            "n": self.n,
            "n_failed": self.n_failed,
            "seed": self.seed,
            "chi2": self.chi2,
            "chi2_min": self.chi2_min,
            "t": self.t_observed,
            "dof": self.dof,
            "p_value": p[0],
            "p_value_error": p[1],
            "asymptotic_p_value": self.asymptotic_p_value,
            "goodness": {"p_value": goodness[0], "error": goodness[1], "asymptotic": self.asymptotic_goodness},
            "coverage": [{"cl": cl, "coverage": c, "error": e} for cl, (c, e) in self.coverage.items()],
            "quantiles": [{"cl": cl, "t": t, "chi2": limit} for cl, (t, limit) in self.quantiles.items()],
            "fitted": {
                name: {"mean": float(np.mean(x)), "sd": float(np.std(x)), "unit": parameters[name].unit}
                for name, x in good.items()
                if len(x)
            },
            "params": self.params,
            "accuracy": self.accuracy,
            "seconds": self.seconds,
        }

    def dataset(self) -> xr.Dataset:
        """Every toy, with the provenance as JSON in ``attrs["facts"]``."""
        import xarray as xr

        columns = {"t": self.t, "chi2_min": self.toys_chi2_min, "status": self.status, **self.fitted}
        known = labels(self.likelihood)
        names = {name: dict(zip(("long_name", "units"), known[name], strict=True)) for name in self.fitted}
        facts = {**self.to_dict(), **provenance(self.likelihood, "toys")}
        return xr.Dataset(
            {name: ("toy", column, names.get(name, {})) for name, column in columns.items()},
            attrs={"facts": to_json(facts)},
        )

    def save(self, path: str | Path) -> Path:
        """Write :meth:`dataset` as netCDF, atomically."""
        return write_atomically(path, lambda temporary: self.dataset().to_netcdf(temporary, engine="h5netcdf"))


def toys(
    like: Likelihood,
    poi: Mapping[str, float] | None = None,
    n: int = 1000,
    seed: int = 0,
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int = 0,
    scheduler: str | Path | None = None,
    progress: bool = False,
) -> ToysResult:
    """Test values of parameters with toys, with the nuisances (and ``free``) profiled.

    The toys are drawn at ``poi``, with all other parameters at their best fit to the real data there (parametric
    bootstrap). Results are the same to the last bit however they are computed.

    Args:
        like: likelihood.
        poi: {parameter under test: value}; without any, the toys tell the goodness of fit only.
        n: number of toys.
        seed: of the random numbers.
        free: further parameters of interest that are fitted.
        values: parameters held at values other than nominal.
        folder: where chunks are kept, each from the moment it is computed; by default in memory.
        resume: continue what is in the folder.
        workers: number of processes to start on this machine; 0 to compute in this one.
        scheduler: address, or scheduler file, of a running dask cluster that computes instead.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: a value out of bounds, a parameter both under test and free or set, no number of toys, a fit
            of the data that does not converge, or a folder that cannot be used.

    >>> import cevjax
    >>> from cevjax.inference.toys import toys
    >>> like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    >>> result = toys(like, {"sin2_theta_w": 0.2387}, n=100)
    >>> result.n_failed, result.p_value[0] > 0.9  # the data are the expectation
    (0, True)
    """
    began = time.perf_counter()
    check_count("n", n)
    key = random_key(seed)
    poi = {name: like.parameters[name].check(value) for name, value in check_names(like, poi).items()}
    setup = prepare(like, {name: (value,) for name, value in poi.items()}, free, values)
    experiment = Experiment.of(setup, poi)
    options = {"resume": resume, "workers": workers, "scheduler": scheduler, "progress": progress}
    columns = jobs.run(ToysJob(experiment, n, seed), folder, **options).columns()
    return ToysResult(
        likelihood=like,
        poi=poi,
        free=setup.bound.free,
        params=experiment.params,
        best_fit=experiment.best_fit,
        chi2=experiment.chi2[0],
        chi2_min=experiment.chi2[1],
        t=columns["t"],
        toys_chi2_min=columns["chi2_min"],
        fitted={name: columns[name] for name in setup.free.free},
        status=columns["status"],
        n_nuisances=len(setup.free.where.names) - len(setup.free.free),
        n_flat=experiment.n_flat,
        accuracy=accuracy(experiment, key, min(n, SAMPLE)),
        seed=seed,
        seconds=time.perf_counter() - began,
    )


def check_names(like: Likelihood, poi: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters under test, if there are such.

    Raises:
        UnknownNameError: one is not; the message offers the nearest.
        InvalidValueError: not a table.
    """
    if not isinstance(poi or {}, Mapping):
        raise InvalidValueError(f"Argument `poi` must be a table of names and values, but was {poi!r}.")
    return {check_parameter(name, like.parameters): value for name, value in (poi or {}).items()}


def accuracy(experiment: Experiment, key: Array, n: int) -> float:
    """Largest difference of the first toys to fits with the likelihood itself from many starting points.

    In t, or in chi2 if nothing is under test. Toys that failed do not count.
    """
    setup, poi, indices = experiment.setup, experiment.poi, np.arange(n)
    pair, data = experiment.fit(key, indices), experiment.truth.draw(key, indices)
    tasks = ((setup.bound, {**setup.bound.fixed, **poi}, pair.bound), (setup.free, setup.free.fixed, pair.free))
    best = []
    for task, fixed, found in tasks:
        candidates = [take(found, indices)]
        if task.free:
            lower, upper = box_of(setup, task.where)
            spread = np.clip(task.where.encode(starting_points(setup.like, task, STARTS // 2)), lower, upper)
            where = np.repeat(indices, len(spread))
            many = descend(setup.folded, task.where, np.tile(spread, (n, 1)), fixed, take(data, where))
            candidates += [take(many, slice(k, None, len(spread))) for k in range(len(spread))]
        best.append(lowest(candidates))
    exact = fit_exactly(setup, Pair(best[0], best[1], pair.status), poi, data)
    ours, theirs = (pair.t, exact.t) if poi else (2 * pair.free.nll, 2 * exact.free.nll)
    compared = (pair.status != FAILED) & (exact.status != FAILED)
    return float(np.max(np.abs(ours - theirs)[compared], initial=0.0))
