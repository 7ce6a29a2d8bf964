r"""Feldman-Cousins: confidence regions from toys at every point of a grid, with nuisances profiled.

At each point theta the test statistic of the data, :math:`t(\theta) = \chi^2(\theta) - \chi^2_\mathrm{min}`, is
compared with that of toys drawn there, the nuisances at their best fit to the data for that point. The region of
confidence level cl holds the points with a p-value above 1 - cl. Where Wilks' theorem holds it is that of a fixed
threshold; at bounds, with few counts and along degeneracies it is not.

Toys are drawn in rounds, and no more of them once it is clear on which side of each confidence level a point lies.

Sources: Feldman & Cousins, physics/9711021; with profiled nuisances: Chuang & Lai, Statist. Sinica 10 (2000) 1; Acero
et al. (NOvA), arXiv:2207.14353.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainccinv

from .. import jobs
from ..contours import threshold
from ..errors import InvalidValueError
from ..likelihood import Likelihood
from ..provenance import identity, labels, provenance
from ..scans import CONVERGED, FAILED, ScanResult, assemble, check_format
from .fit import fit, starting_points
from .pairs import SLACK, Fits, Setup, Tries, box_of, descend_exactly, in_threads, lowest, prepare, real_data
from .pseudo import check_count, random_key
from .scan import check_grid
from .starts import Atlas, expectations
from .toys import CHUNK, STARTS, Experiment, fit_toys, fraction

if TYPE_CHECKING:
    import xarray as xr

POINTS = 32
"""Points of a chunk, whose toys are fitted together."""
LOOKED_AT = 256
"""Points of the grid that tell where minima of toys may lie."""
DOUBT = 3.0
"""Standard deviations of the p-value within which it is not clear on which side of 1 - cl a point lies."""


@dataclass(frozen=True)
class FeldmanCousinsResult:
    """Confidence regions by toys, and by Wilks' theorem beside.

    Attributes:
        scan: everything, as a scan whose columns are ``p_value``, ``p_error``, ``n_toys``, ``n_lost`` (toys whose fit
            failed) and, for each confidence level, the ``critical_<cl>`` value of the test statistic.
    """

    scan: ScanResult

    @property
    def dataset(self) -> xr.Dataset:
        return self.scan.dataset

    @property
    def dof(self) -> int:
        """Number of parameters."""
        return len(self.scan.axes)

    @property
    def p_value(self) -> np.ndarray:
        """Part of the toys with at least the test statistic of the data, at every point; nan without toys."""
        return self.dataset["p_value"].values

    @property
    def wilks(self) -> ScanResult:
        """The scan to draw regions from by a fixed threshold: its ``delta_chi2`` is the test statistic of the data."""
        return self.scan

    @property
    def toys(self) -> ScanResult:
        """The scan to draw regions by toys from, with the same functions and thresholds.

        Its ``delta_chi2`` is that which has the p-value of the toys according to Wilks.
        """
        n = np.maximum(self.dataset["n_toys"].values, 1)
        p = np.clip(self.p_value, 0.5 / n, 1.0)
        dataset = self.dataset.copy()
        equivalent = 2 * gammainccinv(self.dof / 2, p)
        dataset["delta_chi2"] = (dataset["chi2"].dims, equivalent)
        dataset["chi2"] = (dataset["chi2"].dims, equivalent + self.scan.chi2_min)
        return ScanResult(dataset)

    def inside(self, cl: float) -> np.ndarray:
        """Which points belong to the region of a confidence level."""
        threshold(cl)
        return self.p_value > 1 - cl

    def save(self, path: str | Path) -> Path:
        """Write it as netCDF or zarr, which ``FeldmanCousinsResult(ScanResult.load(path))`` reads."""
        return self.scan.save(path)


def feldman_cousins(
    like: Likelihood,
    grid: Mapping[str, ArrayLike],
    cl: Sequence[float] = (0.6827, 0.90),
    n_first: int = 100,
    n_max: int = 1000,
    seed: int = 0,
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    workers: int = 0,
    scheduler: str | Path | None = None,
    progress: bool = False,
) -> FeldmanCousinsResult:
    """Feldman-Cousins on a grid of parameters, with the nuisances (and ``free``) profiled.

    Args:
        like: likelihood.
        grid: {parameter: increasing values}.
        cl: confidence levels that have to be decided.
        n_first: toys of the first round at each point; each further round doubles their number.
        n_max: largest number of toys at a point.
        seed: of the random numbers. Toys at a point depend on the seed and the number of the point alone.
        free: further parameters of interest that are fitted.
        values: parameters held at values other than nominal.
        out: file to write, ``.nc`` or ``.zarr``; until it is complete, what is done is kept in ``OUT.part``.
        resume, workers, scheduler, progress: as in :func:`cevjax.scan`.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: a grid or a number that cannot be used.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    >>> result = feldman_cousins(like, {"sin2_theta_w": [0.21, 0.24]}, n_max=100)
    >>> bool(result.p_value[1] > 0.5)
    True
    """
    began = time.perf_counter()
    axes = check_grid(like, grid)
    for level in cl:
        threshold(level)
    if not cl:
        raise InvalidValueError("Argument `cl` must hold at least one confidence level, but is empty.")
    check_count("n_first", n_first)
    if check_count("n_max", n_max) < n_first:
        raise InvalidValueError(f"Argument `n_max` must be at least `n_first` ({n_first}), but was {n_max}.")
    random_key(seed)
    path = None if out is None else check_format(out)
    part = None if path is None else path.with_name(f"{path.name}.part")
    best = fit(like, (*axes, *free), values)
    setup = prepare(like, {name: tuple(map(float, column)) for name, column in axes.items()}, free, values)
    names = setup.free.where.names
    minima = [best.values, *(minimum.values for minimum in best.other_minima)]
    known = setup.free.where.encode(np.array([[values[name] for name in names] for values in minima]))
    job = FeldmanCousinsJob(setup, axes, tuple(cl), n_first, n_max, seed, best.chi2_min, known)
    chunks = jobs.run(job, part, resume=resume, workers=workers, scheduler=scheduler, progress=progress)
    columns = chunks.columns()
    facts = {
        **provenance(like, "feldman-cousins"),
        "cl": list(cl),
        "seed": seed,
        "n_toys": int(columns["n_toys"].sum()),
        "n_lost": int(columns["n_lost"].sum()),
        "n_failed": int(np.sum(columns["status"] == FAILED)),
        "seconds": time.perf_counter() - began,
    }
    fitted = {name: best.values[name] for name in best.names}
    result = FeldmanCousinsResult(
        assemble(axes, columns, chi2_min=best.chi2_min, best_fit=fitted, facts=facts, labels=labels(like))
    )
    if path is not None and part is not None:
        result.save(path)
        shutil.rmtree(part)
    return result


class FeldmanCousinsJob(jobs.Job):
    """Points of a grid with their toys, some in each chunk.

    Args:
        setup: of the fits.
        axes: the grid.
        cl: confidence levels.
        n_first, n_max: numbers of toys.
        seed: of the random numbers.
        chi2_min: of the best fit to the data.
        known: coordinates of the minima of the data, rows in the order of the free fit; the lowest first.
    """

    def __init__(
        self,
        setup: Setup,
        axes: Mapping[str, np.ndarray],
        cl: tuple[float, ...],
        n_first: int,
        n_max: int,
        seed: int,
        chi2_min: float,
        known: np.ndarray,
    ):
        self.setup, self.axes, self.cl, self.seed = setup, dict(axes), cl, seed
        self.n_first, self.n_max, self.chi2_min, self.known = n_first, n_max, chi2_min, known

    @property
    def sizes(self):
        total = int(np.prod([len(values) for values in self.axes.values()]))
        return tuple(min(POINTS, total - first) for first in range(0, total, POINTS))

    @property
    def identity(self):
        return {
            **identity(self.setup.like, "feldman-cousins"),
            "grid": {name: values.tolist() for name, values in self.axes.items()},
            "fitted": list(self.setup.free.where.names),
            "fixed": self.setup.free.fixed,
            "cl": list(self.cl),
            "toys": [self.n_first, self.n_max],
            "seed": self.seed,
        }

    @cached_property
    def atlas(self) -> Atlas:
        """Where fits of toys with all parameters free may start, for all points."""
        folded, task, centre = self.setup.folded, self.setup.free, self.known[0]
        total = int(np.prod([len(values) for values in self.axes.values()]))
        few = np.arange(total) if total <= LOOKED_AT else (np.arange(LOOKED_AT) * 0.6180339887 % 1 * total).astype(int)
        some = np.unravel_index(few, [len(values) for values in self.axes.values()])
        u = np.tile(centre, (len(some[0]), 1))
        for (name, values), which in zip(self.axes.items(), some, strict=True):
            u[:, task.where.names.index(name)] = self.setup.like.parameters[name].encode(values[which])
        x = expectations(folded, task, task.fixed, u)
        return Atlas.over(folded, task, task.fixed, centre, box_of(self.setup, task.where), x)

    def compute(self, index):
        numbers = index * POINTS + np.arange(self.sizes[index])
        places = np.unravel_index(numbers, [len(x) for x in self.axes.values()])
        poi = {name: x[i] for (name, x), i in zip(self.axes.items(), places, strict=True)}
        data = self.fit_data(poi)
        chi2 = np.where(data.converged, 2 * np.maximum(data.nll, 0.0), np.nan)
        observed = np.maximum(chi2 - self.chi2_min, 0.0)
        t = self.draw(poi, data, observed, numbers)
        rows = [self.summary(*row) for row in zip(chi2, observed, t, strict=True)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def fit_data(self, poi: Mapping[str, np.ndarray]) -> Fits:
        """The fits of the data at points, each from the nuisances of all known minima."""
        setup, n = self.setup, len(next(iter(poi.values())))
        names = setup.bound.where.names
        starts = self.known[:, [setup.free.where.names.index(name) for name in names]]
        if setup.bound.free:
            spread = starting_points(setup.like, setup.bound, STARTS)
            starts = np.concatenate([starts, setup.bound.where.encode(spread)])
        point = np.repeat(np.arange(n), len(starts))
        data = real_data(setup.like, len(point))
        fixed = {**setup.bound.fixed, **{name: column[point] for name, column in poi.items()}}
        fits = descend_exactly(setup, setup.bound.where, np.tile(starts, (n, 1)), fixed, data)
        return lowest(Tries(point, fits))

    def draw(
        self, poi: Mapping[str, np.ndarray], data: Fits, observed: np.ndarray, numbers: np.ndarray
    ) -> list[np.ndarray]:
        """The test statistic of all toys at points, drawn in rounds where there is doubt: of all such points together.

        Args:
            poi: values of the parameters at the points.
            data: fits of the data there.
            observed: their test statistic.
            numbers: of the points in the grid.
        """
        t, keys = [np.empty(0) for _ in numbers], [random_key(self.seed, int(number)) for number in numbers]
        points = list(np.flatnonzero(data.converged))
        values = {k: {name: float(column[k]) for name, column in poi.items()} for k in points}
        atlas = self.atlas
        at = lambda k: Experiment.at(self.setup, values[k], data.u[k], atlas)  # noqa: E731
        experiments = dict(zip(points, in_threads(at, points), strict=True))
        while points:
            drawn = len(t[points[0]])
            more = np.arange(drawn, min(max(2 * drawn, self.n_first), self.n_max))
            which, indices = np.repeat(np.arange(len(points)), len(more)), np.tile(more, len(points))
            here, found = [experiments[k] for k in points], []
            for first in range(0, len(which), CHUNK):
                rows = slice(first, first + CHUNK)
                found.append(fit_toys(here, [keys[k] for k in points], which[rows], indices[rows]).t)
            for k, new in zip(points, np.concatenate(found).reshape(len(points), -1), strict=True):
                t[k] = np.append(t[k], new)
            points = [k for k in points if len(t[k]) < self.n_max and self.doubtful(t[k], observed[k])]
        return t

    def doubtful(self, t: np.ndarray, observed: float) -> bool:
        """Whether more toys are needed to tell on which side of each confidence level the data are."""
        p, error = fraction(t[np.isfinite(t)] >= observed - SLACK)
        return bool(any(abs(p - (1 - cl)) < DOUBT * error for cl in self.cl)) or not np.isfinite(p)

    def summary(self, chi2: float, observed: float, t: np.ndarray) -> dict[str, float | np.int8]:
        """All about one point."""
        good = t[np.isfinite(t)]
        p, error = fraction(good >= observed - SLACK)
        critical = {f"critical_{100 * cl:g}": np.quantile(good, cl) if len(good) else np.nan for cl in self.cl}
        counts = {"n_toys": len(t), "n_lost": len(t) - len(good)}
        status = np.int8(CONVERGED if len(good) else FAILED)
        return {"chi2": chi2, "p_value": p, "p_error": error, **counts, "status": status, **critical}
