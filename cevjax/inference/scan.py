"""The profile likelihood on grids: chi2 at every point, minimised over all other parameters.

Where the time goes. The folded likelihood (:mod:`cevjax.folding`) is minimised by the damped Fisher scoring of
:mod:`~cevjax.inference.minimize`, a batch of points at once. Rows of the grid follow one another: each starts where the
last two point to, so that three evaluations are enough. Points that leave the range of the folded likelihood, or do not
converge in a few steps, are done again by the exact one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize as scipy_minimize

from ..errors import InvalidValueError
from ..folding import fold, tabulated
from ..jobs import Columns, Job, run, threads_at_hand
from ..likelihood import Likelihood, nll
from ..provenance import identity, labels, provenance
from ..results import FitResult
from ..scans import CONVERGED, FAILED, RETRIED, ScanResult, assemble, check_format, save_chunks
from .fit import Problem, fit, problem
from .minimize import BATCH, Minimum, minimize, reach, space
from .starts import survey

ACCURACY = 1e-3
"""How far, in chi2, the folded likelihood may be from the exact one where they are compared: else it is not used."""
CHECKED, HOPELESS = BATCH, 30.0
"""Points of each chunk at which they are compared at least, and the chi2 above the minimum up to which points are
chosen."""
DEVIATION = "deviation"
"""Column of the differences found there; zero everywhere in a chunk that is exact."""
TOLERANCE = 1e-4
"""In the nll: the last step of a minimisation gains less, and the error is a small part of that."""
FIRST, STEPS = 15, 6
"""Steps of a batch in the first row and in the others. Points that need more go on together, once all rows are done."""
ROWS = 16
"""Rows of a chunk; the first of them starts without a predecessor."""
COLUMNS = 4096
"""Largest number of points in a row."""
MINIMA = 6
"""Starts at each point besides those from known minima, where other parameters of interest are free."""


def scan(
    like: Likelihood,
    grid: Mapping[str, ArrayLike],
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    workers: int = 0,
    scheduler: str | Path | None = None,
    progress: bool = False,
    exact: bool = False,
) -> ScanResult:
    """Profile the likelihood on a grid of one or more parameters.

    Args:
        like: likelihood.
        grid: {parameter: increasing values}; the scan is on all combinations.
        free: further parameters of interest, profiled like the nuisances, from several starts at every point.
        values: parameters held at values other than nominal.
        out: file to write, ``.nc`` or ``.zarr``. Until it is complete, what is done is kept beside it, in ``OUT.part``.
        resume: continue what an earlier, interrupted scan to the same file has left.
        workers: processes to start on this machine; 0 to compute in this one.
        scheduler: address, or scheduler file, of a dask cluster that computes instead.
        progress: show a bar.
        exact: never use a folded likelihood.

    Returns:
        chi2, whether the minimisation converged, and all fitted parameters at each point.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: values out of bounds or not increasing, or an output that cannot be written.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> result = cevjax.scan(like, {"sin2_theta_w": [0.20, 0.22, 0.24, 0.26]})
    >>> [round(float(x), 1) for x in result.delta_chi2]
    [1.8, 0.3, 0.1, 1.0]
    """
    began = time.perf_counter()
    axes = check_grid(like, grid)
    task = problem(like, (*axes, *free), values)
    path = None if out is None else check_format(out)
    part = None if path is None else path.with_name(f"{path.name}.part")
    best = fit(like, (*axes, *free), values)
    job = plan(like, axes, task, best, exact)
    chunks = run(job, part, resume=resume, workers=workers, scheduler=scheduler, progress=progress)
    lowest, fitted = best.chi2_min, {name: best.values[name] for name in best.names}
    for start, chunk in zip(np.cumsum([0, *job.sizes]), chunks, strict=False):
        i = int(np.nanargmin(np.where(chunk["status"] == FAILED, np.inf, chunk["chi2"])))
        if chunk["chi2"][i] < lowest and chunk["status"][i] != FAILED:
            lowest = float(chunk["chi2"][i])
            here = {name: float(chunk[name][i]) for name in task.where.names if name not in axes}
            fitted = {**here, **{name: float(column[0]) for name, column in job.points(start + i, 1).items()}}
    counts = np.sum([np.bincount(chunk["status"], minlength=3) for chunk in chunks], axis=0)
    facts = {
        **provenance(like, "scan"),
        "grid": {name: [float(x[0]), float(x[-1]), len(x)] for name, x in axes.items()},
        "free": [name for name in task.free if name not in axes],
        "fixed": {name: value for name, value in task.fixed.items() if value != like.parameters[name].nominal},
        "dropped": list(task.dropped),
        "method": job.method,
        "n_exact": sum(len(chunk[DEVIATION]) for chunk in chunks if not chunk[DEVIATION].any()),
        "accuracy": max(float(np.nanmax(chunk[DEVIATION], initial=0.0)) for chunk in chunks),
        "converged": best.converged,
        "n_points": int(np.prod([len(x) for x in axes.values()])),
        "n_retried": int(counts[RETRIED]),
        "n_failed": int(counts[FAILED]),
        "seconds": time.perf_counter() - began,
    }
    known = {"chi2_min": lowest, "best_fit": fitted, "facts": facts, "labels": labels(like)}
    results = ({name: x for name, x in chunk.items() if name != DEVIATION} for chunk in chunks)
    if path is None or part is None:
        pieces = list(results)
        return assemble(axes, {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}, **known)
    save_chunks(path, axes, results, **known)
    shutil.rmtree(part)
    return ScanResult.open(path)


def check_grid(like: Likelihood, grid: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """The values of each parameter as arrays.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: no values, or not increasing, or out of bounds.
    """
    if not grid:
        raise InvalidValueError("Argument `grid` must hold at least one parameter, but is empty.")
    axes = {name: np.atleast_1d(np.asarray(values, float)) for name, values in grid.items()}
    task = problem(like, tuple(axes), None)
    for parameter in task.where.parameters[: len(axes)]:
        column = axes[parameter.name]
        if column.ndim != 1 or not len(column) or not np.all(np.diff(column) > 0):
            raise InvalidValueError(f"Values of `{parameter.name}` in the grid must increase, but are {column}.")
        parameter.check(column[0])
        parameter.check(column[-1])
    return axes


@dataclass(frozen=True, eq=False)
class ScanJob(Job):
    """A scan, cut into chunks of a few rows.

    Attributes:
        like: the exact likelihood.
        folded: its approximation; None to do without.
        axes: the grid.
        task: parameters.
        anchors: fitted parameters at the known minima, one row each, in the order of ``task.where``.
        chi2_min: of the best fit.
    """

    like: Likelihood
    folded: Likelihood | None
    axes: dict[str, np.ndarray]
    task: Problem
    anchors: np.ndarray
    chi2_min: float

    @property
    def method(self) -> str:
        """Which form of the likelihood is used."""
        return "exact" if self.folded is None else "folded"

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: the last axes of the grid, as many as fit in a row, and all before them."""
        lengths = [len(values) for values in self.axes.values()]
        columns = 1
        while lengths and columns * lengths[-1] <= COLUMNS and (columns < 32 or len(lengths) > 1):
            columns *= lengths.pop()
        if not lengths or columns < 32:  # too few for a batch: one after the other makes no sense
            return 1, int(np.prod([len(values) for values in self.axes.values()]))
        return int(np.prod(lengths)), columns

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        rows, columns = self.shape
        step, total = (ROWS * columns if rows > 1 else COLUMNS), rows * columns
        return tuple(min(step, total - first) for first in range(0, total, step))

    @cached_property
    def batch(self) -> int:
        """Points that are minimised at once: what keeps the Jacobian of the largest measurement in a core's cache."""
        columns = min(self.shape[1], self.sizes[0])
        largest = largest_batch(self.like, self.task.where.names)
        strips = max(2 if columns >= 32 else 1, int(np.ceil(columns / largest)))  # two cores should have work
        return int(np.ceil(columns / strips))

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            **identity(self.like, "scan"),
            "grid": {name: values.tolist() for name, values in self.axes.items()},
            "fixed": self.task.fixed,
            "fitted": list(self.task.where.names),
            "method": self.method,
            "anchors": self.anchors.tolist(),
        }

    def points(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Values of the grid's parameters at some points, counted with the last axis running fastest."""
        shape = tuple(len(values) for values in self.axes.values())
        indices = np.unravel_index(np.arange(first, first + count), shape)
        return {name: values[i] for (name, values), i in zip(self.axes.items(), indices, strict=True)}

    def compute(self, index: int) -> Columns:
        first = int(np.sum(self.sizes[:index]))
        columns = min(self.shape[1], self.sizes[index])
        grid = {name: x.reshape(-1, columns) for name, x in self.points(first, self.sizes[index]).items()}
        found = self._rows(grid)
        flat = {name: x.ravel() for name, x in grid.items()}
        if self.folded is None:
            return {**self._retry(flat, found), DEVIATION: np.zeros(self.sizes[index])}
        found[DEVIATION] = self._deviations(flat, found)
        if np.nanmax(found[DEVIATION], initial=0.0) > ACCURACY:
            return replace(self, folded=None).compute(index)
        return self._retry(flat, found)

    def _rows(self, grid: dict[str, np.ndarray]) -> Columns:
        """The columns of all points, strip by strip."""
        columns = next(iter(grid.values())).shape[1]
        strips = np.array_split(np.arange(columns), int(np.ceil(columns / self.batch)))
        with ThreadPoolExecutor(threads_at_hand()) as pool:
            parts = list(pool.map(lambda strip: self._strip({n: x[:, strip] for n, x in grid.items()}), strips))
        return {name: np.concatenate([part[name] for part in parts], axis=1).ravel() for name in parts[0]}

    def _deviations(self, grid: dict[str, np.ndarray], columns: Columns) -> np.ndarray:
        """How far the folded chi2 is from the exact one at the same parameters, where it is looked at; nan elsewhere.

        At a minimum that is how far the minima are apart, to first order. Half of the points that are looked at are the
        lowest ones, the others spread over those that are not hopeless. On axes over decades all of them are looked at.
        """
        known = np.where(columns["status"] == CONVERGED, columns["chi2"], np.inf)
        order = np.argsort(known)[: max(int(np.sum(known < self.chi2_min + HOPELESS)), min(CHECKED, len(known)))]
        order = order[np.isfinite(known[order])]
        found = np.full(len(known), np.nan)
        if not len(order):
            return found
        spread = order[((np.arange(CHECKED // 2) * 0.6180339887) % 1 * len(order)).astype(int)]
        which = np.unique([*order[: CHECKED // 2], *spread])
        if any(self.like.parameters[name].decades for name in self.axes):  # signals so different that digits are lost
            which = np.sort(order)
        starts = np.stack([(grid if n in grid else columns)[n][which] for n in self.task.where.names], axis=1)
        exact = minimize(self.like, self.task.where, starts, self.task.fixed, tuple(self.axes), max_steps=1)
        found[which] = np.abs(2 * exact.nll - known[which])
        return found

    def _strip(self, grid: dict[str, np.ndarray]) -> Columns:
        """Row after row of a strip, each from what the two before it point to."""
        like = self.like if self.folded is None else self.folded
        names = tuple(name for name in self.task.where.names if name not in self.axes)
        lead = next(iter(grid))
        if not names:  # nothing to fit
            starts = np.stack([values.ravel() for values in grid.values()], axis=1)
            there = minimize(like, self.task.where, starts, self.task.fixed, tuple(self.axes), self.batch)
            status = np.where(there.converged, CONVERGED, FAILED).astype(np.int8)
            return {"chi2": 2 * there.nll.reshape(grid[lead].shape), "status": status.reshape(grid[lead].shape)}
        where = space(like, names)
        x = like.parameters[lead].encode(grid[lead][:, 0])
        anchors = self.anchors[:, [self.task.where.names.index(name) for name in names]]
        others = tuple(name for name in names if name in self.task.free)
        inner = Problem(where, others, self.task.fixed, ())
        found: list[Minimum] = []
        for r in range(len(x)):
            columns = {name: values[r] for name, values in grid.items()}
            n = len(columns[lead])
            fixed = {**self.task.fixed, **columns}
            starts = np.repeat(anchors[None, : len(anchors) if others or not r else 0], n, axis=0)
            if others:
                each = {name: np.broadcast_to(value, n) for name, value in fixed.items()}
                starts = np.concatenate([starts, survey(like, inner, each, anchors[0], MINIMA)], axis=1)
            if r:
                starts = np.concatenate([_extrapolate(found, x[: r + 1])[:, None], starts], axis=1)
            found.append(_lowest(like, where, starts, fixed, batch=self.batch, max_steps=STEPS if r else FIRST))
        n = grid[lead].shape[1]
        total = Minimum(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        late = np.flatnonzero(~total.converged)
        if len(late):
            fixed = {**self.task.fixed, **{name: values.ravel()[late] for name, values in grid.items()}}
            again = minimize(like, where, total.values[late], fixed, batch=self.batch, tolerance=TOLERANCE)
            for mine, other in zip(total, again, strict=True):
                mine[late] = other
        good = total.converged & self._in_range(dict(zip(names, total.values.T, strict=True)))
        return {
            "chi2": 2 * total.nll.reshape(-1, n),
            "status": np.where(good, CONVERGED, FAILED).astype(np.int8).reshape(-1, n),
            **{name: total.values[:, i].reshape(-1, n) for i, name in enumerate(names)},
        }

    def _in_range(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Which points lie where the folded likelihood is made for."""
        where = {} if self.folded is None else tabulated(self.folded, tuple(values))
        pieces = [(low < values[name]) & (values[name] < high) for name, (low, high) in where.items()]
        return np.logical_and.reduce(pieces) if pieces else np.ones(len(next(iter(values.values()))), bool)

    def _retry(self, grid: dict[str, np.ndarray], columns: Columns) -> Columns:
        """Do again what did not converge or left the range: by the exact likelihood, and then by another method."""
        bad = np.flatnonzero(columns["status"] == FAILED)
        if not len(bad):
            return columns
        names = self.task.where.names
        here = np.stack([(grid if name in grid else columns)[name][bad] for name in names], axis=1)
        known = np.repeat(self.anchors[None], len(bad), axis=0)
        known[:, :, : len(self.axes)] = here[:, None, : len(self.axes)]
        starts = np.concatenate([np.where(np.isfinite(here), here, known[:, 0])[:, None], known], axis=1)
        found = _lowest(
            self.like, self.task.where, starts, self.task.fixed, tuple(self.axes), tolerance=TOLERANCE / 100
        )
        for i in np.flatnonzero(~found.converged):
            self._descend(found, int(i))
        for k, name in enumerate(names):
            if name not in grid:
                columns[name][bad] = found.values[:, k]
        columns["chi2"][bad] = np.where(np.isfinite(found.nll), 2 * found.nll, np.nan)
        columns["status"][bad] = np.where(found.converged, RETRIED, FAILED)
        return columns

    def _descend(self, found: Minimum, i: int) -> None:
        """Quasi-Newton steps within bounds from where Fisher scoring got stuck, and Fisher scoring from there."""
        where, held = self.task.where, len(self.axes)
        u = where.encode(found.values[[i]])[0]
        box = list(zip(where.encode(where.lower), where.encode(where.upper), strict=True))[held:]

        def value(free: np.ndarray) -> tuple[float, np.ndarray]:
            x = where.decode(np.concatenate([u[:held], free]))
            nll, slope = _value_and_slope(self.like, dict(zip(where.names, x, strict=True)), self.task.fixed)
            gradient = np.array([float(slope[name]) for name in where.names]) * where.slope(x)
            return float(nll) if np.isfinite(nll) else 1e300, np.nan_to_num(gradient[held:])

        end = scipy_minimize(value, u[held:], jac=True, method="L-BFGS-B", bounds=box, options={"maxiter": 500})
        starts = where.decode(np.concatenate([u[:held], end.x]))[None]
        again = minimize(self.like, where, starts, self.task.fixed, tuple(self.axes), tolerance=TOLERANCE / 100)
        if again.nll[0] <= found.nll[i] or not np.isfinite(found.nll[i]):
            for mine, other in zip(found, again, strict=True):
                mine[i] = other[0]


@jax.jit
def _value_and_slope(like, free, fixed):
    return jax.value_and_grad(lambda free: nll(like, {**fixed, **free}))(free)


def plan(like: Likelihood, axes: dict[str, np.ndarray], task: Problem, best: FitResult, exact: bool = False) -> ScanJob:
    """The job, with a folded likelihood if that can be had."""
    names = task.where.names
    nominal = [like.parameters[name].nominal for name in names]
    anchors = np.array([[best.values[name] for name in names], nominal])
    folded = None
    fitted = [name for name in names if name not in axes]
    if fitted and not exact:
        folded = fold(like, fitted, {}, task.fixed, points={name: tuple(values) for name, values in axes.items()})
    return ScanJob(like, folded, axes, task, anchors, best.chi2_min)


def _extrapolate(found: Sequence[Minimum], x: np.ndarray) -> np.ndarray:
    """Where to start the next row, at ``x[-1]``: on a line through the last two minima, or at the last."""
    last = found[-1].values
    if len(found) < 2 or x[-2] == x[-3]:
        return last
    ratio = (x[-1] - x[-2]) / (x[-2] - x[-3])
    guess = last + ratio * (last - found[-2].values)
    usable = found[-1].converged & found[-2].converged & (0 < ratio < 3)
    return np.where(usable[:, None], guess, last)


def _lowest(like, where, starts, fixed, held=(), batch=BATCH, tolerance=TOLERANCE, **limits) -> Minimum:
    """The lowest of the minima from several starts at each point, shape (points, starts, parameters)."""
    n, k, _ = starts.shape
    many = {name: np.repeat(value, k) if np.ndim(value) else value for name, value in fixed.items()}
    found = minimize(like, where, starts.reshape(n * k, -1), many, held, batch, tolerance=tolerance, **limits)
    value = np.where(np.isfinite(found.nll), found.nll, np.inf)
    # one that converged wins against one that did not and is no lower
    best = np.arange(n) * k + np.argmin((value + np.where(found.converged, 0.0, tolerance)).reshape(n, k), axis=1)
    return Minimum(*(np.array(x[best]) for x in found))


def largest_batch(like: Likelihood, names: Sequence[str]) -> int:
    """Points of a batch such that the Jacobian of the largest measurement stays in the cache of a core."""
    moved = [len(set().union(*reach(m, like.interaction, names))) for m in like.measurements]
    numbers = max(m.observed.size * max(k, 1) for m, k in zip(like.measurements, moved, strict=True))
    return int(np.clip(2 ** np.round(np.log2(3e5 / numbers)), 16, 128))
