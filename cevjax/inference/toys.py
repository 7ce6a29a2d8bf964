r"""Pseudo-experiments: p-values, coverage and goodness of fit where no asymptotic formula is trusted.

A toy is a whole experiment: counts drawn around their expectation, and results of the auxiliary measurements drawn
around the values of the nuisances. Each is fitted twice, with the parameters of interest at the values under test and
with them free, and

.. math:: t = 2\,(\min_{\rm fixed} {\rm nll} - \min_{\rm free} {\rm nll}) \ge 0

is compared with that of the real data. For many counts, and away from bounds and degeneracies, t has the chi2
distribution with as many degrees of freedom as there are parameters of interest (Wilks); toys do not need that.

Where the fits start: :mod:`.starts`; how they go on: :mod:`.pairs`.

Sources: Cowan, Cranmer, Gross & Vitells, arXiv:1007.1727; Davison & Hinkley, Bootstrap Methods (1997), section 4.2
(p-values by simulation).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax import Array
from scipy.special import chdtrc, chdtri

from .. import jobs
from ..errors import InvalidValueError
from ..likelihood import Data, Likelihood
from ..provenance import identity, labels, provenance
from ..registry import check_parameter
from ..results import FitResult, describe, to_json, write_atomically
from ..scans import FAILED
from .fit import Problem, check_likelihood, starting_points
from .pairs import (
    SLACK,
    Firsts,
    Fits,
    Pair,
    Setup,
    Tries,
    box_of,
    columns_at,
    columns_of,
    descend,
    descend_exactly,
    first_steps,
    fit_exactly,
    in_threads,
    join,
    last_steps,
    lowest,
    prepare,
    real_data,
    take,
    widen,
)
from .pseudo import Truth, check_count, random_key
from .starts import Atlas, evaluate, rows

if TYPE_CHECKING:
    import xarray as xr

LEVELS = (0.6827, 0.90, 0.95, 0.99)
"""Confidence levels of coverage and quantiles."""
BLOCK = 512  # toys that a thread does at once
CHUNK = 8 * BLOCK  # toys of a chunk of a job
SAMPLE = 16  # toys that are fitted with the likelihood itself, to compare
STARTS = 16  # of fits from all over the search ranges


# --------------------------------------------------------------------------------------------------------- experiments


class Experiment(NamedTuple):
    """A truth, with all that is needed to draw toys there and to fit them."""

    setup: Setup
    poi: dict[str, float]
    params: dict[str, float]
    truth: Truth
    starts: tuple[Atlas, Atlas]
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
        bound, free = setup.bound, setup.free
        first = fit_data(setup, bound, {**bound.fixed, **poi}, np.zeros((0, len(bound.where.names))))
        second = fit_data(setup, free, free.fixed, widen(setup, first.u, poi)) if poi else first
        if not (first.converged[0] and second.converged[0]):
            raise InvalidValueError("The fit of the data did not converge: toys need one at the values under test.")
        found = cls.at(setup, poi, first.u[0])
        highest, least = (2 * max(float(x), 0.0) for x in (first.nll[0], min(first.nll[0], second.nll[0])))
        return found._replace(chi2=(highest, least), best_fit={**free.fixed, **_values(free, second.u[0])})

    @classmethod
    def at(cls, setup: Setup, poi: Mapping[str, float], u: np.ndarray, atlas: Atlas | None = None) -> Experiment:
        """The experiment at ``poi``, without the real data.

        Args:
            setup: of the fits.
            poi: values of the parameters under test.
            u: coordinates of all other parameters.
            atlas: where fits with the parameters under test free may start, besides the truth; None to make one.
        """
        held = {**setup.bound.fixed, **poi}
        params = {**held, **_values(setup.bound, u)}
        truth = Truth.at(setup.like, params)
        expected = rows(truth.asimov)[0]
        box, seen = box_of(setup, setup.bound.where), expected[None]
        starts = Atlas.over(setup.folded, setup.bound, held, u, box, seen).near(expected)
        more = starts
        if poi:
            task, centre, box = setup.free, widen(setup, u[None], poi)[0], box_of(setup, setup.free.where)
            if atlas:
                more = atlas.with_centre(Atlas.around(setup.folded, task, task.fixed, centre, box, 1))
            else:
                more = Atlas.over(setup.folded, task, task.fixed, centre, box, seen)
            more = more.near(expected)
        return cls(setup, dict(poi), params, truth, (starts, more), (np.nan, np.nan), {})

    @property
    def t(self) -> float:
        """The test statistic of the real data."""
        return self.chi2[0] - self.chi2[1]

    @property
    def n_flat(self) -> int:
        """Fitted parameters without effect."""
        return self.starts[1].n_flat

    def starting_points(self, data: Data) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where the two fits of toys start: see :meth:`.Atlas.starts`."""
        setup, held = self.setup, {**self.setup.bound.fixed, **self.poi}
        tasks = zip(self.starts, (setup.bound, setup.free), (held, setup.free.fixed), strict=True)
        return [starting_points_of(setup, task, atlas, fixed, data) for atlas, task, fixed in tasks]

    def fit(self, key: Array, indices: np.ndarray) -> Pair:
        """Draw toys and fit them."""
        return fit_toys([self], [key], np.zeros(len(indices), int), indices, self.poi)


def starting_points_of(
    setup: Setup, task: Problem, atlas: Atlas, fixed: Mapping[str, Any], data: Data
) -> tuple[np.ndarray, np.ndarray]:
    """Where the fits of toys start, of those points that an atlas gives the ones that may win."""

    def nll(toy: np.ndarray, u: np.ndarray) -> np.ndarray:
        columns = dict(zip(task.where.names, task.where.decode(u).T, strict=True))
        return evaluate(setup.folded, {**columns_of(fixed, len(toy)), **columns}, take(data, toy))

    return atlas.starts(data, nll)


def fit_data(setup: Setup, task: Problem, fixed: Mapping[str, Any], known: np.ndarray) -> Fits:
    """The fit of the real data, from many points and ``known`` ones."""
    points = starting_points(setup.like, task, STARTS if task.free else 1)
    starts = np.concatenate([known, task.where.encode(points)])
    data = real_data(setup.like, len(starts))
    return lowest(Tries(np.zeros(len(starts), int), descend_exactly(setup, task.where, starts, fixed, data)))


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

    def block(rows: np.ndarray) -> tuple[Data, Firsts]:
        drawn, starts = [], ([], [])
        for k in np.unique(which[rows]):
            first = sum(len(data.auxiliary) for data in drawn)
            drawn.append(experiments[k].truth.draw(keys[k], indices[rows[which[rows] == k]]))
            for found, points in zip(starts, experiments[k].starting_points(drawn[-1]), strict=True):
                found.append((points[0] + first, points[1]))
        data, both = join(drawn), tuple(join(found) for found in starts)
        return data, first_steps(setup, both, columns_at(poi, rows), data)

    rows = [np.arange(i, min(i + BLOCK, len(which))) for i in range(0, len(which), BLOCK)]
    done = in_threads(block, rows)
    for (_, firsts), own in zip(done, rows, strict=True):
        for tries in firsts:
            if tries is not None:
                tries.toy[:] += own[0]
    data, firsts = join(done)
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
        return float(chdtrc(self.dof, self.t_observed)) if self.poi else None

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
        threshold = {cl: float(chdtri(self.dof, 1 - cl)) for cl in LEVELS if self.poi}
        return {cl: fraction(self.t[self.good] <= limit) for cl, limit in threshold.items()}

    @cached_property
    def quantiles(self) -> dict[float, tuple[float, float]]:
        """{confidence level: quantile of t among the toys, and that of chi2}."""
        t = np.sort(self.t[self.good])
        if not (self.poi and len(t)):
            return {}
        limits = {cl: float(chdtri(self.dof, 1 - cl)) for cl in LEVELS}
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
        InvalidValueError: not a table, or no likelihood.
    """
    if not isinstance(poi or {}, Mapping):
        raise InvalidValueError(f"Argument `poi` must be a table of names and values, but was {poi!r}.")
    return {check_parameter(name, check_likelihood(like).parameters): value for name, value in (poi or {}).items()}


def accuracy(experiment: Experiment, key: Array, n: int) -> float:
    """Largest difference of the first toys to fits with the likelihood itself from many starting points.

    In t, or in chi2 if nothing is under test. Toys that failed do not count.
    """
    setup, poi, indices = experiment.setup, experiment.poi, np.arange(n)
    pair, data = experiment.fit(key, indices), experiment.truth.draw(key, indices)
    tasks = ((setup.bound, {**setup.bound.fixed, **poi}, pair.bound), (setup.free, setup.free.fixed, pair.free))
    best = []
    for task, fixed, found in tasks:
        spread = task.where.encode(starting_points(setup.like, task, STARTS if task.free else 1))
        spread = np.clip(spread, *box_of(setup, task.where))
        toy = np.repeat(indices, len(spread))
        many = descend(setup.folded, task.where, np.tile(spread, (n, 1)), fixed, take(data, toy))
        order = np.argsort(np.append(indices, toy), kind="stable")
        best.append(lowest(Tries(np.append(indices, toy)[order], take(join([take(found, indices), many]), order))))
    exact = fit_exactly(setup, Pair(best[0], best[1], pair.status), poi, data)
    ours, theirs = (pair.t, exact.t) if poi else (2 * pair.free.nll, 2 * exact.free.nll)
    compared = (pair.status != FAILED) & (exact.status != FAILED)
    return float(np.max(np.abs(ours - theirs)[compared], initial=0.0))
