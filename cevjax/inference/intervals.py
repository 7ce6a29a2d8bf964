"""Confidence intervals from the profile likelihood: every disjoint piece, each end found as a root."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import gammaincinv

from ..errors import InvalidValueError
from ..likelihood import Likelihood
from ..parameters import Parameter
from ..results import IntervalResult, ProfileResult
from .fit import Problem, problem, result_of, starting_points
from .minimize import BATCH, Minimum, Space, minimize
from .profile import profile_at

GRID = 64
"""Points of the first scan over the search range."""
MAX_WIDENINGS = 12
ROOT_TOLERANCE = 1e-6
"""In chi2."""


def interval(
    like: Likelihood,
    poi: str,
    cl: float | Sequence[float] = 0.90,
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    within: tuple[float | None, float | None] = (None, None),
) -> IntervalResult:
    """The values of ``poi`` with profiled chi2 within the threshold of a confidence level (1 degree of freedom).

    The search range is scanned, every local minimum of the profile is fitted, the range is widened while its ends are
    still allowed, and each crossing of the threshold is found as a root.

    Args:
        like: likelihood.
        poi: parameter of interest.
        cl: confidence level, between 0 and 1; or several, which share one profile.
        free: further parameters of interest, profiled like the nuisances.
        values: parameters held at values other than nominal.
        within: lowest and highest value of ``poi`` that counts, None for its own bounds: a physical limit, from which
            the best fit cannot escape. An end of the interval at it is open.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: ``cl`` not between 0 and 1, or a value out of bounds.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> result = cevjax.interval(like, "sin2_theta_w", cl=0.6827)
    >>> [[round(x, 2) for x in piece] for piece in result.intervals]
    [[0.21, 0.26]]
    """
    began = time.perf_counter()
    asked = (cl,) if isinstance(cl, (int, float)) else tuple(cl)
    if not asked or not all(0 < level < 1 for level in asked):
        raise InvalidValueError(f"Argument `cl` must be between 0 and 1 (0.90 for 90 %), but was {cl}.")
    task = problem(like, (poi, *free), values)
    parameter = _narrowed(like.parameters[poi], within)
    task = task._replace(where=Space(tuple(parameter if p.name == poi else p for p in task.where.parameters)))
    thresholds = {level: 2 * float(gammaincinv(0.5, level)) for level in asked}
    minima = minimize(like, task.where, starting_points(like, task, BATCH), task.fixed)
    if not np.any(np.isfinite(minima.nll)):
        raise InvalidValueError(f"The likelihood is not finite anywhere in the search range of `{poi}`.")
    scan = _Scan(like, task, poi, minima)
    bounds = parameter.encode(parameter.bounds)
    scan.extend(_grid(parameter, scan.best, scan.spread(like)))
    scan.descend()
    scan.widen(bounds, max(thresholds.values()))
    scan.mend()
    found, sound = {}, True
    for level, threshold in thresholds.items():
        roots, good = scan.roots(threshold)
        found[level], sound = _pieces(scan, roots, threshold), sound and good
    best = result_of(like, task, scan.minima, began)
    first = found[asked[0]]
    message = scan.remark(first, thresholds[asked[0]])
    scan.extend(_around([piece for pieces in found.values() for piece in pieces], bounds))

    def decoded(pieces: list[list[float | None]]) -> list[list[float | None]]:
        return [[None if end is None else float(parameter.decode(end)) for end in piece] for piece in pieces]

    return IntervalResult(
        poi=poi,
        cl=asked[0],
        best_fit=best.values[poi],
        chi2_min=best.chi2_min,
        intervals=decoded(first),
        fit=best,
        profile=scan.result(),
        converged=best.converged and sound,
        message=message,
        seconds=time.perf_counter() - began,
        levels={level: decoded(pieces) for level, pieces in found.items()},
    )


def _narrowed(parameter: Parameter, within: tuple[float | None, float | None]) -> Parameter:
    """The parameter with narrower bounds."""
    if tuple(within) == (None, None):
        return parameter
    low, high = (bound if end is None else end for end, bound in zip(within, parameter.bounds, strict=True))
    if not parameter.bounds[0] <= low < high <= parameter.bounds[1]:
        known = "{:g} to {:g}".format(*parameter.bounds)
        raise InvalidValueError(
            f"Argument `within` must be a range of `{parameter.name}`, which may be {known} {parameter.unit}".rstrip()
            + f", but was {low:g} to {high:g}."
        )
    start, end = parameter.search_range()
    window = (max(low, start), min(high, end)) if max(low, start) < min(high, end) else (low, high)
    return replace(parameter, bounds=(low, high), window=window, nominal=min(max(parameter.nominal, low), high))


def _grid(parameter: Parameter, best: float, error: float) -> np.ndarray:
    low, high = parameter.encode(parameter.search_range())
    near = best + error * np.linspace(-6, 6, 25)
    bounds = parameter.encode(parameter.bounds)
    points = np.concatenate([np.linspace(low, high, GRID), near[(near > bounds[0]) & (near < bounds[1])]])
    return np.unique(points)


def _around(pieces: list[list[float | None]], bounds: np.ndarray) -> np.ndarray:
    """Points in and around the pieces that end, at a crossing or a bound, so that the profile is smooth there."""
    points = [np.empty(0)]
    for low, high in ((bounds[0] if a is None else a, bounds[1] if b is None else b) for a, b in pieces):
        if np.isfinite(low) and np.isfinite(high):
            points.append(np.linspace(low - 0.5 * (high - low), high + 0.5 * (high - low), 33))
    return np.unique(np.clip(np.concatenate(points), *bounds))


class _Scan:
    """The profile as known so far, in increasing order of the parameter, with the fitted values at each point.

    ``x`` is the dimensionless coordinate of the parameter.
    """

    def __init__(self, like: Likelihood, task: Problem, poi: str, minima: Minimum):
        self.like, self.task, self.poi = like, task, poi
        self.column = task.where.names.index(poi)
        self.parameter = task.where.parameters[self.column]
        self.minima = minima
        self.x = np.empty(0)
        self.chi2 = np.empty(0)
        self.values = np.empty((0, len(task.where.names)))
        self.ok = np.empty(0, bool)
        lowest = [np.argmin(np.where(np.isfinite(minima.nll), minima.nll, np.inf))]
        self._add_minima(Minimum(*(column[lowest] for column in minima)))

    @property
    def chi2_min(self) -> float:
        return float(np.min(self.chi2))

    @property
    def best(self) -> float:
        return float(self.x[np.argmin(self.chi2)])

    def spread(self, like: Likelihood) -> float:
        """Rough standard deviation of the coordinate at the minimum."""
        fitted = result_of(like, self.task, self.minima, 0.0)
        error = fitted.errors[self.poi]
        value = fitted.values[self.poi]
        return float(self.parameter.encode(value + error) - self.parameter.encode(value)) if error else 1.0

    def _add_minima(self, found: Minimum) -> None:
        """Those that are minima of the profile; others of the likelihood have a lower mode beside them."""
        x, chi2 = self.parameter.encode(found.values[:, self.column]), 2 * found.nll
        known = np.interp(x, self.x, self.chi2, left=np.inf, right=np.inf) if len(self.x) else np.full(len(x), np.inf)
        rows = chi2 <= known + ROOT_TOLERANCE
        self._add(x[rows], chi2[rows], found.values[rows], found.converged[rows])

    def _add(self, x, chi2, values, ok) -> None:
        finite = np.isfinite(chi2)
        new = (x[finite], chi2[finite], values[finite], ok[finite])
        known = (self.x, self.chi2, self.values, self.ok)
        x, chi2, values, ok = (np.concatenate(pair) for pair in zip(known, new, strict=True))
        # of several entries at one point the lowest stays
        order = np.lexsort((chi2, x))
        first = np.append(True, np.diff(x[order]) > 0)
        keep = order[first]
        self.x, self.chi2, self.values, self.ok = x[keep], chi2[keep], values[keep], ok[keep]

    def extend(self, x: np.ndarray, anchors: np.ndarray | None = None) -> None:
        """Profile at further points."""
        if not len(x):
            return
        if anchors is None:
            anchors = self.values[np.argsort(self.chi2)[:1]]
        out = profile_at(self.like, self.task, {self.poi: self.parameter.decode(np.atleast_1d(x))}, anchors)
        rows = np.column_stack([out.values[name] for name in self.task.where.names])
        self._add(np.atleast_1d(x), out.chi2, rows, out.converged)

    def descend(self) -> None:
        """Fit from every local minimum of the profile: a piece of the interval contains one."""
        self._add_minima(self.minima)
        padded = np.concatenate([[np.inf], self.chi2, [np.inf]])
        valleys = (padded[1:-1] <= padded[:-2]) & (padded[1:-1] <= padded[2:])
        found = minimize(self.like, self.task.where, self.values[valleys], self.task.fixed)
        self.minima = Minimum(*(np.concatenate(pair) for pair in zip(self.minima, found, strict=True)))
        self._add_minima(found)

    def widen(self, bounds: np.ndarray, threshold: float) -> None:
        """Scan outwards while an end is allowed and no bound is reached."""
        for _ in range(MAX_WIDENINGS):
            width = self.x[-1] - self.x[0]
            new = []
            if self.chi2[0] < self.chi2_min + threshold and self.x[0] > bounds[0]:
                new.append(np.maximum(self.x[0] - width * np.arange(1, 9) / 8, bounds[0]))
            if self.chi2[-1] < self.chi2_min + threshold and self.x[-1] < bounds[1]:
                new.append(np.minimum(self.x[-1] + width * np.arange(1, 9) / 8, bounds[1]))
            if not new:
                return
            self.extend(np.unique(np.concatenate(new)))

    def mend(self) -> None:
        """Profile again, from the values of its neighbours, where a point stands above both: it may have got stuck."""
        for _ in range(3):
            before = self.chi2
            stuck = 1 + np.flatnonzero(self.chi2[1:-1] > np.maximum(self.chi2[:-2], self.chi2[2:]) + ROOT_TOLERANCE)
            if not len(stuck):
                return
            starts = np.concatenate([self.values[stuck - 1], self.values[stuck + 1]])
            starts[:, self.column] = np.tile(self.values[stuck, self.column], 2)
            found = minimize(self.like, self.task.where, starts, self.task.fixed, (self.poi,))
            self._add(np.tile(self.x[stuck], 2), 2 * found.nll, found.values, found.converged)
            if np.allclose(self.chi2, before, rtol=0, atol=ROOT_TOLERANCE):
                return

    def roots(self, threshold: float) -> tuple[np.ndarray, bool]:
        """Where chi2 crosses the threshold: all brackets at once, by regula falsi (Illinois)."""
        level = self.chi2_min + threshold
        excess = self.chi2 - level
        left = np.flatnonzero((excess[:-1] <= 0) != (excess[1:] <= 0))
        if not len(left):
            return np.empty(0), True
        a, b = self.x[left], self.x[left + 1]
        fa, fb = excess[left], excess[left + 1]
        inside = np.where(fa <= 0, left, left + 1)
        anchors = self.values[inside]
        x, fx, sound = a, fa, np.ones(len(left), bool)
        for _ in range(60):
            x = (a * fb - b * fa) / (fb - fa)
            open_ = np.flatnonzero((np.abs(b - a) > 1e-12 * (1 + np.abs(x))) & (np.abs(fx) > ROOT_TOLERANCE))
            if not len(open_):
                break
            starts = anchors[open_].copy()
            starts[:, self.column] = self.parameter.decode(x[open_])
            out = _profile_from(self.like, self.task, self.poi, starts)
            fx = fx.copy()
            fx[open_], sound[open_] = 2 * out.nll - level, out.converged
            for i in open_:
                if fx[i] * fb[i] < 0:
                    a[i], fa[i] = b[i], fb[i]
                else:
                    fa[i] /= 2
                b[i], fb[i] = x[i], fx[i]
        # a bracket that closes on anything but a root holds a jump: some minimisation did not find the profile
        return x, bool(np.all(sound & (np.abs(fx) <= 1e3 * ROOT_TOLERANCE)))

    def remark(self, pieces: list[list[float | None]], threshold: float) -> str:
        """What a user must know to read the interval: no dependence at all, or ends set by another's bound."""
        if np.ptp(self.chi2) < 1e-3 * threshold:
            return f"chi2 does not depend on {self.poi}"
        where, pressed = self.task.where, set()
        for end in (end for piece in pieces for end in piece if end is not None):
            row = self.values[np.argmin(np.abs(self.x - end))]
            for name, value, low, high in zip(where.names, row, where.lower, where.upper, strict=True):
                if name != self.poi and (value <= low or value >= high):
                    pressed.add(name)
        return f"at an end, {', '.join(sorted(pressed))} is at its bound" if pressed else ""

    def result(self) -> ProfileResult:
        fitted = {name: self.values[:, i] for i, name in enumerate(self.task.where.names)}
        return ProfileResult({self.poi: self.parameter.decode(self.x)}, self.chi2, fitted, self.ok)


def _profile_from(like: Likelihood, task: Problem, poi: str, starts: np.ndarray) -> Minimum:
    """Profile at the points in ``starts``, each from its own row; with other free parameters from spread starts too."""
    others = [i for i, name in enumerate(task.where.names) if name in task.free and name != poi]
    if not others:
        return minimize(like, task.where, starts, task.fixed, (poi,))
    column = task.where.names.index(poi)
    out = profile_at(like, task, {poi: starts[:, column]}, starts)
    rows = np.column_stack([out.values[name] for name in task.where.names])
    return Minimum(rows, out.chi2 / 2, out.converged, np.zeros(len(rows)))


def _pieces(scan: _Scan, roots: np.ndarray, threshold: float) -> list[list[float | None]]:
    """Pair the roots; an allowed end of the scan is open."""
    ends: list[float | None] = [float(r) for r in np.sort(roots)]
    if scan.chi2[0] <= scan.chi2_min + threshold:
        ends.insert(0, None)
    if scan.chi2[-1] <= scan.chi2_min + threshold:
        ends.append(None)
    return [ends[i : i + 2] for i in range(0, len(ends), 2)]
