"""The two fits of a toy: with the parameters under test fixed, and with them free.

They run on the :func:`folded <cevjax.folding.fold>` likelihood. Those that take longer than most continue together, and
those that leave the range of the series, or do not converge, are done again with the likelihood itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import InvalidValueError
from ..folding import fold, tabulated
from ..jobs import threads_at_hand
from ..likelihood import Data, Likelihood
from ..parameters import Parameter
from ..scans import CONVERGED, FAILED, RETRIED
from .fit import Problem, problem
from .minimize import BATCH as EXACT_BATCH
from .minimize import MAX_STEPS, Space, minimize, space
from .starts import evaluate

TOLERANCE = 3e-4
"""Of a fit, in the nll."""
SLACK = 1e-3
"""Two values of t closer than this count as equal: counts are discrete, so that many toys may tie with the data."""
BATCH, QUEUE = 64, 1024  # fits that take their steps together, and those of a compiled call
FIRST, MORE = 20, 60
"""Steps of the minimiser: of all fits, and of those that need more, a chunk together."""
BARRIER = 0.2  # in the nll: after its first steps a fit that is higher than another one of the toy by more is given up
COMPARED, DEVIATION = 32, 0.01
"""Points where the folded likelihood is compared with the exact one, and how far it may be from it, as a part of 1 and
what the nll is above its minimum: beyond, it is not used."""
REACH, PRECISE = 4.5, 4.5e-3
"""Range of nuisances with the folded likelihood, in standard deviations: toys fluctuate, around shifted values. Terms
of its series that are left out, in standard deviations of the counts."""


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
    folded = fold(like, [name for name in kept if name not in free], held, task.fixed, PRECISE, reach=REACH)
    if _deviation(like, folded, task, poi) > DEVIATION:  # signals over too many decades
        folded = like
    return Setup(like, folded, tuple(poi), task, bound, tabulated(folded, task.where.names))


def _deviation(like: Likelihood, folded: Likelihood, task: Problem, poi: Mapping[str, Sequence[float]]) -> float:
    """How far a folded likelihood is from the exact one, in the nll or as a part of it where that is large.

    At values under test and others all over the ranges, and with nuisances as toys have them.
    """
    rng, where = np.random.default_rng(0), task.where
    columns = []
    for parameter in where.parameters:
        if parameter.nuisance:
            columns.append(np.clip(rng.normal(size=COMPARED), -2, 2) * (np.arange(COMPARED) > 0))
            continue
        low, high = parameter.encode(parameter.fit_range())
        anywhere = rng.uniform(low, high, COMPARED)
        values = parameter.encode(np.array(poi.get(parameter.name, (parameter.nominal,)), float))
        columns.append(np.where(np.arange(COMPARED) < COMPARED // 2, rng.choice(values, COMPARED), anywhere))
    lower, upper = where.encode(where.lower), where.encode(where.upper)
    points = where.decode(np.clip(np.stack(columns, axis=1), lower, upper))
    data, names = real_data(like, COMPARED), where.names
    exact = minimize(like, where, points, task.fixed, names, EXACT_BATCH, data, TOLERANCE, 1).nll
    series = evaluate(folded, {**columns_of(task.fixed, COMPARED), **dict(zip(names, points.T, strict=True))}, data)
    sane = np.isfinite(exact)
    floor = np.min(exact[sane], initial=np.inf)
    return float(np.max(np.abs(series - exact)[sane] / (1 + np.maximum(exact[sane] - floor, 0)), initial=0.0))


def _reach(parameter: Parameter, values: Sequence[float]) -> tuple[float, float]:
    """How far fits of toys may go with the folded likelihood."""
    low, high = parameter.fit_range()
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
    with matrices().limit(limits=1, user_api="blas"):  # threads of NumPy's own would spin between small products
        if threads < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


def in_batches(function: Callable[[np.ndarray], Sequence[Any]], rows: np.ndarray, size: int) -> list[np.ndarray]:
    """What a compiled function of ``size`` rows makes of any number of them: each of its arrays for all rows."""
    padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % size, axis=0)])
    batches = [padded[i : i + size] for i in range(0, len(padded), size)]
    found = in_threads(lambda batch: [np.asarray(part) for part in function(batch)], batches)
    return [np.concatenate(parts)[: len(rows)] for parts in zip(*found, strict=True)]


matrices = cache(ThreadpoolController)


def descend(
    like: Likelihood,
    where: Space,
    starts: np.ndarray,
    fixed: Mapping[str, Any],
    data: Data,
    batch: int = BATCH,
    steps: Sequence[int] = (FIRST, MORE),
    bent: bool = True,
) -> Fits:
    """Fit each toy from one starting point: a row of ``starts``, in the coordinates of the minimiser.

    Args:
        like: folded or not.
        where: what is fitted.
        starts: one row a toy.
        fixed: values of all others: numbers, or arrays with one entry a toy.
        data: of the toys.
        batch: fits that take their steps together.
        steps: that a fit may take at first, and then those that have not converged.
        bent: take second derivatives by couplings, those parameters of interest that are zero without new physics. That
            is cheap if folded; for others, which move counts without end, less is learnt than it costs.
    """
    n = len(starts)
    if not where.names:
        value = evaluate(like, columns_of(fixed, n), data)
        return Fits(np.zeros((n, 0)), value, np.isfinite(value))
    second = tuple(p.name for p in where.parameters if not p.nuisance and p.nominal == 0) if bent else ()
    found = Fits(np.array(starts), np.full(n, np.inf), np.zeros(n, bool))
    for limit in steps:
        left = np.flatnonzero(~found.converged)
        if not len(left):
            break
        points, some, here = where.decode(found.u[left]), take(data, left), columns_at(fixed, left)
        new = minimize(like, where, points, here, (), batch, some, TOLERANCE, limit, second, QUEUE if bent else None)
        replace(found, left, Fits(where.encode(new.values), new.nll, new.converged))
    return found


def descend_exactly(setup: Setup, where: Space, starts: np.ndarray, fixed: Mapping[str, Any], data: Data) -> Fits:
    """The same with the likelihood itself, and as many steps as it takes."""
    return descend(setup.like, where, starts, fixed, data, EXACT_BATCH, (MAX_STEPS,), bent=False)


def real_data(like: Likelihood, n: int) -> Data:
    """The data of a likelihood, as those of ``n`` toys."""
    return jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], n, axis=0), like.data)


def columns_of(fixed: Mapping[str, Any], n: int) -> dict[str, np.ndarray]:
    """All values with one entry a toy."""
    return {name: np.broadcast_to(np.asarray(value, float), n) for name, value in fixed.items()}


def columns_at(fixed: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """Values with one entry a toy for some of the toys; numbers as they are."""
    return {name: value[rows] if np.ndim(value) else value for name, value in fixed.items()}


class Tries(NamedTuple):
    """Fits of toys from one starting point or several."""

    toy: np.ndarray
    """The number of the toy that each belongs to, in increasing order; each toy has one at least."""
    fits: Fits


def attempt(
    like: Likelihood,
    where: Space,
    starts: tuple[np.ndarray, np.ndarray],
    fixed: Mapping[str, Any],
    data: Data,
) -> Tries:
    """The first steps of the fits of toys, from ``starts``: the toy that each belongs to, and the coordinates."""
    toy, points = starts
    return Tries(toy, descend(like, where, points, columns_at(fixed, toy), take(data, toy), steps=(FIRST,)))


def drop(tries: Tries) -> Tries:
    """Without the fits that are higher than another one of the same toy by more than :data:`BARRIER`."""
    toy, fits = tries
    height = np.nan_to_num(fits.nll, nan=np.inf)
    floor = np.full(toy[-1] + 1, np.inf)
    np.minimum.at(floor, toy, height)
    return take(tries, np.flatnonzero(~(height > floor[toy] + BARRIER)))


def settle(like: Likelihood, where: Space, tries: Tries, fixed: Mapping[str, Any], data: Data) -> Fits:
    """The lowest of the fits of each toy, after more steps of those that may become it."""
    tries = drop(tries)
    left = np.flatnonzero(~tries.fits.converged)

    def block(rows: np.ndarray) -> Fits:
        toy = tries.toy[rows]
        return descend(like, where, tries.fits.u[rows], columns_at(fixed, toy), take(data, toy), steps=(MORE,))

    for_each_block(block, left, QUEUE, tries.fits)
    return lowest(tries)


def lowest(tries: Tries) -> Fits:
    """The lowest of the fits of each toy; one that did not converge only if it is lower than all that did."""
    toy, fits = tries
    height = np.nan_to_num(fits.nll, nan=np.inf) + np.where(fits.converged, 0.0, SLACK / 2)
    order = np.lexsort((height, toy))
    return take(fits, order[np.searchsorted(toy, np.unique(toy))])


def for_each_block(function: Callable[[np.ndarray], Any], rows: np.ndarray, size: int, results: Any) -> None:
    """Replace rows of ``results`` by what ``function`` makes of them, in blocks of some size, in threads."""
    blocks = [rows[i : i + size] for i in range(0, len(rows), size)]
    for block, new in zip(blocks, in_threads(function, blocks), strict=True):
        replace(results, block, new)


class Firsts(NamedTuple):
    """The first steps of the two fits of each toy; None if there is but one."""

    bound: Tries
    free: Tries | None


def first_steps(
    setup: Setup, starts: Sequence[tuple[np.ndarray, np.ndarray]], poi: Mapping[str, Any], data: Data
) -> Firsts:
    """The first steps of both fits of toys.

    Args:
        setup: of the fits.
        starts: of the two fits: the toy that each start belongs to, and its coordinates.
        poi: values of the parameters under test: numbers, or arrays with one entry a toy.
        data: of the toys.
    """
    bound = attempt(setup.folded, setup.bound.where, starts[0], {**setup.bound.fixed, **poi}, data)
    if not setup.poi:
        return Firsts(bound, None)
    return Firsts(bound, attempt(setup.folded, setup.free.where, starts[1], setup.free.fixed, data))


def last_steps(setup: Setup, firsts: Firsts, poi: Mapping[str, Any], data: Data) -> Pair:
    """Both fits of toys after their :func:`first_steps`, where needed with the likelihood itself."""
    like, where = setup.folded, setup.free.where
    bound = settle(like, setup.bound.where, firsts.bound, {**setup.bound.fixed, **poi}, data)
    free = bound
    if firsts.free is not None:
        free = settle(like, where, firsts.free, setup.free.fixed, data)
        high = np.flatnonzero(free.nll > bound.nll)
        if len(high):  # where the fit with fewer parameters ended is as good a start as any
            again = descend(like, where, widen(setup, bound.u, poi)[high], setup.free.fixed, take(data, high))
            both = Tries(np.repeat(np.arange(len(high)), 2), interleave(take(free, high), again))
            replace(free, high, settle(like, where, both, setup.free.fixed, take(data, high)))
    status = np.where(bound.converged & free.converged, CONVERGED, FAILED).astype(np.int8)
    pair = Pair(bound, free, status)
    again = np.flatnonzero(troubled(setup, pair))

    def block(rows: np.ndarray) -> Pair:
        return fit_exactly(setup, take(pair, rows), columns_at(poi, rows), take(data, rows))

    for_each_block(block, again, EXACT_BATCH, pair)
    return pair


def interleave(*trees: Any) -> Any:
    """The rows of all arrays of several structures in turn."""
    return jax.tree.map(lambda *parts: np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:]), *trees)


def fit_exactly(setup: Setup, pair: Pair, poi: Mapping[str, Any], data: Data) -> Pair:
    """Both fits again with the likelihood itself, from where others ended; the free one also from the fixed one."""
    bound, free = setup.bound.where, setup.free.where
    first = descend_exactly(setup, bound, _finite(pair.bound.u, bound), {**setup.bound.fixed, **poi}, data)
    if not setup.poi:
        return Pair(first, first, np.where(first.converged, RETRIED, FAILED).astype(np.int8))
    starts = _finite(pair.free.u, free), widen(setup, _finite(first.u, bound), poi)
    tries = interleave(*(descend_exactly(setup, free, start, setup.free.fixed, data) for start in starts))
    second = lowest(Tries(np.repeat(np.arange(len(first.nll)), 2), tries))
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


def box_of(setup: Setup, where: Space) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates that fits may start from: bounds, and the range of the folded likelihood."""
    lower, upper = where.lower, where.upper
    for i, name in enumerate(where.names):
        low, high = setup.ranges.get(name, (-np.inf, np.inf))
        lower[i], upper[i] = max(lower[i], low), min(upper[i], high)
    return where.encode(lower), where.encode(upper)
