"""What a scan allows: regions of a plane as polygons, limits on a coupling at each mass, profiles of one parameter.

Between the points of a grid chi2 is interpolated by cubics along the lines of the grid; in the logarithm of a parameter
whose values grow by a constant factor. :func:`refine` replaces this by evaluations on the contour. Points where chi2 is
missing or the minimisation failed are never interpolated over: what touches them says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import ArrayLike
from scipy.ndimage import binary_dilation, label
from scipy.special import gammaincinv

from .errors import InvalidValueError, check_flag, check_name
from .inference.profile import profile
from .likelihood import Likelihood
from .scans import FAILED, ScanResult

LEVELS = (0.6827, 0.90, 0.95, 0.99)
"""Usual confidence levels."""
SIGMAS = (1, 2, 3)
SNAP = 1e-9
"""Relative to the threshold: a point this close to it lies on the contour."""

Chi2 = Callable[[dict[str, np.ndarray]], ArrayLike]
Piece = list[float | None]


# -------------------------------------------------------------------------------------------------------------- levels


def confidence(sigma: float) -> float:
    """The confidence level of ``sigma`` standard deviations: ``erf(sigma / sqrt(2))``.

    Raises:
        InvalidValueError: not above 0, or so large that the level is 1.

    >>> [round(confidence(sigma), 4) for sigma in (1, 2, 3)]
    [0.6827, 0.9545, 0.9973]
    """
    level = math.erf(sigma / math.sqrt(2))
    if not 0 < level < 1:
        raise InvalidValueError(f"Argument `sigma` must be between 0 and 8, but was {sigma}.")
    return level


def threshold(cl: float, dof: int = 1) -> float:
    """The quantile of chi2 with ``dof`` degrees of freedom: delta chi2 at the edge of what is allowed.

    Args:
        cl: confidence level, between 0 and 1; see :func:`confidence` for that of standard deviations.
        dof: degrees of freedom: 1 for an interval, 2 for a region of a plane.

    Raises:
        InvalidValueError: no such level or number.

    >>> [round(threshold(cl, dof=2), 2) for cl in LEVELS]
    [2.3, 4.61, 5.99, 9.21]
    >>> round(threshold(confidence(3)), 6)
    9.0
    """
    if isinstance(dof, bool) or dof != int(dof) or dof < 1:
        raise InvalidValueError(f"Argument `dof` must be a whole number from 1, but was {dof}.")
    if not 0 < cl < 1:
        raise InvalidValueError(f"Argument `cl` must be between 0 and 1 (0.90 for 90 %), but was {cl}.")
    return 2 * float(gammaincinv(dof / 2, cl))


# --------------------------------------------------------------------------------------------------------------- grids


@dataclass(frozen=True)
class Axis:
    """The values of one parameter on a grid, in increasing order.

    Attributes:
        name: of the parameter.
        values: on the grid.
        log: whether to interpolate in the logarithm.
    """

    name: str
    values: np.ndarray
    log: bool = False

    @property
    def u(self) -> np.ndarray:
        """The coordinates to interpolate in."""
        return np.log(self.values) if self.log else self.values

    def decode(self, u: ArrayLike) -> np.ndarray:
        """The values at coordinates, kept on the grid, which rounding could leave."""
        u = np.asarray(u, float)
        return np.clip(np.exp(u) if self.log else u, self.values[0], self.values[-1])

    def index(self, value: ArrayLike) -> np.ndarray:
        """Positions of values, counted in steps of the grid: whole numbers on its points."""
        value = np.asarray(value, float)
        return np.interp(np.log(value) if self.log else value, self.u, np.arange(len(self.values)))

    def at(self, index: ArrayLike) -> np.ndarray:
        """The inverse of :meth:`index`."""
        index = np.asarray(index, float)
        nearest = np.clip(np.rint(index).astype(int), 0, len(self.values) - 1)
        between = self.decode(np.interp(index, np.arange(len(self.values)), self.u))
        return np.where(index == nearest, self.values[nearest], between)


@dataclass(frozen=True)
class _Grid:
    """Delta chi2 on increasing axes; nan where it is missing or the minimisation failed."""

    axes: tuple[Axis, ...]
    delta: np.ndarray

    @property
    def missing(self) -> int:
        return int(np.sum(np.isnan(self.delta)))

    def transposed(self, order: Sequence[int]) -> _Grid:
        return _Grid(tuple(self.axes[k] for k in order), self.delta.transpose(order))


def _grid(scan: ScanResult, log: Sequence[str] | None, dimensions: int | None = None) -> _Grid:
    """The grid of a scan, with its axes sorted.

    Raises:
        InvalidValueError: another number of dimensions, too few or repeated points, or no logarithm.
        UnknownNameError: ``log`` names no axis.
    """
    names = tuple(scan.axes)
    if dimensions is not None and len(names) != dimensions:
        raise InvalidValueError(
            f"Argument `scan` must have {dimensions} parameters on its grid, but has {len(names)}: {', '.join(names)}."
        )
    log = (log,) if isinstance(log, str) else log
    for name in log or ():
        check_name("parameter of the grid", name, names)
    delta = np.where(np.isfinite(scan.delta_chi2) & (scan.status != FAILED), scan.delta_chi2, np.nan)
    axes = []
    for k, (name, values) in enumerate(scan.axes.items()):
        order = np.argsort(values)
        values, delta = np.asarray(values, float)[order], np.take(delta, order, axis=k)
        if len(values) < 2 or not np.all(np.diff(values) > 0):
            raise InvalidValueError(
                f"Argument `scan` must have at least 2 different values of {name} on its grid, but has "
                f"{len(values)} from {values.min():g} to {values.max():g}, {len(set(values))} of them different."
            )
        logarithmic = is_logarithmic(values) if log is None else name in log
        if logarithmic and values[0] <= 0:
            raise InvalidValueError(
                f"Argument `log` must name parameters above 0 on the grid, but {name} starts at {values[0]:g}."
            )
        axes.append(Axis(name, values, logarithmic))
    return _Grid(tuple(axes), delta)


def is_logarithmic(values: ArrayLike) -> bool:
    """Whether values grow by a constant factor, rather than by a constant step.

    >>> is_logarithmic([0.1, 1, 10]), is_logarithmic([1, 2, 3]), is_logarithmic([0, 1, 10])
    (True, False, False)
    """
    values = np.sort(np.asarray(values, float))
    if len(values) < 3 or values[0] <= 0:
        return False
    uneven = [np.ptp(steps) / np.mean(steps) for steps in (np.diff(values), np.diff(np.log(values)))]
    return bool(uneven[1] < 0.01 and uneven[1] < uneven[0])


# ------------------------------------------------------------------------------------------------ cubics between points


@dataclass(frozen=True)
class _Cubics:
    """One cubic between each two neighbours along the last axis.

    Attributes:
        ordinates: the four Bezier ordinates of each.
        bent: of which they are those of ``log(1 + delta_chi2)``.
    """

    ordinates: np.ndarray
    bent: np.ndarray

    def __getitem__(self, index: Any) -> _Cubics:
        return _Cubics(self.ordinates[index], self.bent[index])

    def at(self, t: np.ndarray) -> np.ndarray:
        """Delta chi2 at fractions of the interval; at its ends also where the other end is missing."""
        a, b, c, d = np.moveaxis(self.ordinates, -1, 0)
        s = 1 - t
        inside = s**3 * a + 3 * s**2 * t * b + 3 * s * t**2 * c + t**3 * d
        value = np.where(t == 0, a, np.where(t == 1, d, inside))
        return np.where(self.bent, np.expm1(np.where(self.bent, value, 0.0)), value)

    def crossings(self, limit: float) -> np.ndarray:
        """Where they cross a limit, if their ends are on both sides of it: fractions of the interval, by bisection."""
        low, high = np.zeros(self.bent.shape), np.ones(self.bent.shape)
        falling = self.at(low) > limit
        for _ in range(54):
            middle = (low + high) / 2
            before = (self.at(middle) > limit) == falling
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        return (low + high) / 2


def _cubics(u: np.ndarray, delta: np.ndarray, log: bool) -> _Cubics:
    """Cubics through delta chi2 at coordinates ``u``; away from valleys on a logarithmic axis, bent.

    There delta chi2 is close to a power of the parameter, which bending makes nearly straight.
    """
    plain = _ordinates(u, delta)
    if not log:
        return _Cubics(plain, np.zeros(plain.shape[:-1], bool))
    step = np.diff(delta)
    unknown = np.full((*step.shape[:-1], 1), np.nan)
    near = np.stack([np.concatenate([unknown, step[..., :-1]], -1), step, np.concatenate([step[..., 1:], unknown], -1)])
    bent = ~(np.any(near > 0, axis=0) & np.any(near < 0, axis=0)) & np.isfinite(step)
    curved = _ordinates(u, np.log1p(np.maximum(delta, -0.9)))
    return _Cubics(np.where(bent[..., None], curved, plain), bent)


def _ordinates(u: np.ndarray, f: np.ndarray) -> np.ndarray:
    """The Bezier ordinates of the cubics between neighbours along the last axis.

    Their slopes are those of the parabolas through three points, so that a parabola is met exactly. Where they agree in
    sign they are at most three times that of the step, so that the cubic is monotonic.
    """
    width = np.diff(u)
    step = np.diff(f) / width
    slope = (step[..., :-1] * width[..., 1:] + step[..., 1:] * width[..., :-1]) / (width[..., :-1] + width[..., 1:])
    unknown = np.full((*step.shape[:-1], 1), np.nan)
    left, right = np.concatenate([unknown, slope], axis=-1), np.concatenate([slope, unknown], axis=-1)
    # at the end and next to a gap: the slope of the parabola through the points on the other side
    left, right = (
        np.where(np.isfinite(left), left, np.where(np.isfinite(right), 2 * step - right, step)),
        np.where(np.isfinite(right), right, np.where(np.isfinite(left), 2 * step - left, step)),
    )
    turning = left * right < 0
    left, right = (np.where(turning, m, np.clip(m, -3 * np.abs(step), 3 * np.abs(step))) for m in (left, right))
    return np.stack([f[..., :-1], f[..., :-1] + width * left / 3, f[..., 1:] - width * right / 3, f[..., 1:]], axis=-1)


def _valleys(u: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The minima of the parabolas through each point and its neighbours along the last axis.

    Where the point is not the lowest of the three, or one is missing, it stands for itself.
    """
    if len(u) < 3:
        return delta
    h = np.diff(u)
    left, right = np.diff(delta)[..., :-1] / h[:-1], np.diff(delta)[..., 1:] / h[1:]
    curvature, slope = (right - left) / (h[:-1] + h[1:]), (left * h[1:] + right * h[:-1]) / (h[:-1] + h[1:])
    valley = (left <= 0) & (right >= 0) & (curvature > 0)
    lowest = delta.copy()
    lowest[..., 1:-1] -= np.where(valley, slope**2 / (4 * np.where(valley, curvature, 1.0)), 0.0)
    return lowest


def _pieces(axis: Axis, delta: np.ndarray, limit: float) -> list[Piece]:
    """Where ``delta`` is below a limit along an axis: [low, high].

    None for an end at the edge of the grid, nan for one at a gap.
    """
    inside = np.concatenate([[False], delta <= limit, [False]])
    first, last = np.flatnonzero(inside[1:-1] & ~inside[:-2]), np.flatnonzero(inside[1:-1] & ~inside[2:])
    u, cubics = axis.u, _cubics(axis.u, delta, axis.log)

    def end(i: int, edge: bool) -> float | None:
        if edge:
            return None
        if not np.all(np.isfinite(delta[i : i + 2])):
            return math.nan
        return float(axis.decode(u[i] + (u[i + 1] - u[i]) * cubics[i].crossings(limit)))

    return [[end(a - 1, a == 0), end(b, b == len(u) - 1)] for a, b in zip(map(int, first), map(int, last), strict=True)]


# ------------------------------------------------------------------------------------------------------------- regions


@dataclass(frozen=True)
class Ring:
    """A closed line; the last vertex is joined to the first, and not repeated.

    Attributes:
        vertices: values of the two parameters, (n, 2). Along it the allowed region lies on the left.
        on_curve: which vertices lie on the contour; the others are at an edge of the grid or at a gap in it.
    """

    vertices: np.ndarray
    on_curve: np.ndarray

    @property
    def loop(self) -> np.ndarray:
        """The vertices with the first one repeated at the end, as for drawing."""
        return np.concatenate([self.vertices, self.vertices[:1]])

    @property
    def curves(self) -> list[np.ndarray]:
        """The parts that are contour, without what runs along an edge of the grid or a gap."""
        if np.all(self.on_curve):
            return [self.loop]
        start = int(np.argmin(self.on_curve))
        on, vertices = np.roll(self.on_curve, -start), np.roll(self.vertices, -start, axis=0)
        breaks = np.flatnonzero(~on)
        parts = (vertices[a + 1 : b] for a, b in pairwise([*breaks, len(on)]))
        return [part for part in parts if len(part) > 1]


@dataclass(frozen=True)
class Polygon:
    """One connected piece of a region.

    Attributes:
        outer: its outline, counter-clockwise with the first parameter to the right and the second one upwards.
        holes: clockwise.
        area: without the holes, in units of the parameters; decades along an axis that is logarithmic.
        open_at: the edges of the grid that it reaches, as (parameter, "low" or "high").
        at_gap: whether it reaches points where chi2 is missing.
    """

    outer: Ring
    holes: tuple[Ring, ...]
    area: float
    open_at: tuple[tuple[str, str], ...]
    at_gap: bool

    @property
    def vertices(self) -> np.ndarray:
        """Of the outline, (n, 2)."""
        return self.outer.vertices

    @property
    def rings(self) -> tuple[Ring, ...]:
        """The outline and the holes."""
        return (self.outer, *self.holes)

    @property
    def closed(self) -> bool:
        """Whether all of its outline is contour, inside the grid."""
        return not self.open_at and not self.at_gap


@dataclass(frozen=True)
class Region:
    """Where delta chi2 is below the threshold of a confidence level, in a plane.

    Attributes:
        axes: of the grid.
        cl, dof: confidence level and degrees of freedom.
        threshold: of delta chi2.
        level: of chi2.
        polygons: the pieces, the largest first.
        missing: number of points of the grid without chi2, which are in no piece.
        message: what else to know.
    """

    axes: tuple[Axis, Axis]
    cl: float
    dof: int
    threshold: float
    level: float
    polygons: tuple[Polygon, ...]
    missing: int
    message: str = ""

    @property
    def area(self) -> float:
        """Of all pieces."""
        return sum(polygon.area for polygon in self.polygons)

    @property
    def closed(self) -> bool:
        """Whether all of it is inside the grid."""
        return all(polygon.closed for polygon in self.polygons)


def regions(scan: ScanResult, cl: float, dof: int = 2, log: Sequence[str] | None = None) -> Region:
    """The allowed region ``delta_chi2 < threshold(cl, dof)`` of a scan of two parameters.

    Args:
        scan: on a plane.
        cl: confidence level.
        dof: degrees of freedom.
        log: parameters to interpolate in the logarithm; None for those whose values grow by a constant factor.

    Raises:
        InvalidValueError: not a plane, no such level, or a logarithm of 0.
        UnknownNameError: ``log`` names no parameter of the grid.

    >>> import numpy as np
    >>> from cevjax.scans import assemble
    >>> x = np.linspace(-4, 4, 41)
    >>> chi2 = (x[:, None] ** 2 + 4 * x**2).ravel()
    >>> scan = assemble({"a": x, "b": x}, {"chi2": chi2, "status": 0 * chi2}, chi2_min=0.0,
    ...                 best_fit={"a": 0.0, "b": 0.0}, facts={}, labels={})
    >>> (ellipse,) = regions(scan, 0.9).polygons
    >>> round(ellipse.area, 1), round(threshold(0.9, dof=2) * np.pi / 2, 1), ellipse.closed
    (7.2, 7.2, True)
    """
    limit, grid = threshold(cl, dof), _grid(scan, log, dimensions=2)
    polygons = _polygons(grid, limit)
    trouble, near = _remarks(scan, grid), _unresolved(grid, limit)
    if not polygons:
        trouble.append("no cell of the grid holds a part of the region: a finer grid may")
    elif near:
        trouble.append(f"near {near} points outside the region chi2 may fall below the threshold between the points")
    joined: Any = label(grid.delta <= limit, np.ones((3, 3)))  # points, and the number of pieces that they form
    if len(polygons) > joined[1]:
        trouble.append("diagonal neighbours on the grid are in different pieces: a finer grid may join them")
    (x, y) = grid.axes
    return Region((x, y), cl, dof, limit, scan.chi2_min + limit, polygons, grid.missing, "; ".join(trouble))


def _remarks(scan: ScanResult, grid: _Grid) -> list[str]:
    """What is to know of any result from a grid."""
    remarks = [f"chi2 is missing at {grid.missing} of {grid.delta.size} points"] if grid.missing else []
    best = [(axis, scan.best_fit.get(axis.name, axis.values[0])) for axis in grid.axes]
    if outside := [axis.name for axis, value in best if not axis.values[0] <= value <= axis.values[-1]]:
        remarks.append(f"the best fit lies outside the grid in {', '.join(outside)}")
    return remarks


def _unresolved(grid: _Grid, limit: float) -> int:
    """Number of points outside, not next to the region, that may have a valley below the limit beside them."""
    inside: np.ndarray = grid.delta <= limit
    valley = np.zeros(inside.shape, bool)
    for k, axis in enumerate(grid.axes):
        valley |= np.moveaxis(_valleys(axis.u, np.moveaxis(grid.delta, k, -1)), -1, k) <= limit
    near = np.asarray(binary_dilation(inside, np.ones((3, 3))))
    return int(np.sum(valley & (near == 0)))


def _polygons(grid: _Grid, limit: float, above: bool = False) -> tuple[Polygon, ...]:
    """The pieces in which delta chi2 is below, or above, a limit."""
    excess = grid.delta - limit
    excess = np.where(np.abs(excess) <= SNAP * limit, 0.0, excess)
    # which lines of the grid are cut is found here, where exactly by the cubics: large values need not keep their size
    bounded = np.ma.masked_invalid(np.clip(excess / limit, -1, 1))
    lines = contour_generator(z=bounded.T, corner_mask=False, fill_type=FillType.OuterOffset)
    found = lines.filled(0.0, np.inf) if above else lines.filled(-np.inf, 0.0)
    cubics = [_cubics(axis.u, np.moveaxis(grid.delta, k, -1), axis.log) for k, axis in enumerate(grid.axes)]
    polygons = []
    for points, offsets in zip(*found, strict=True):
        rings = [_distinct(points[a:b]) for a, b in pairwise(map(int, offsets))]
        rings = [ring for ring in rings if len(ring) > 2]
        if rings:
            polygons.append(_polygon(grid.axes, [_ring(grid.axes, excess, cubics, limit, ring) for ring in rings]))
    return tuple(sorted(polygons, key=lambda polygon: -polygon.area))


def _distinct(points: np.ndarray) -> np.ndarray:
    """Without points that repeat the one before, in a closed line."""
    return points[np.any(points != np.roll(points, 1, axis=0), axis=1)]


def _ring(axes: tuple[Axis, ...], excess: np.ndarray, cubics: list[_Cubics], limit: float, index: np.ndarray) -> Ring:
    """The vertices at positions on the lines of the grid, moved to where the cubics along the lines cross the limit."""
    nearest = np.rint(index)
    index = np.where(np.abs(index - nearest) < SNAP / 10, nearest, index)
    cell = np.floor(index).astype(int)
    for k in range(2):
        between = index[:, k] != cell[:, k]
        index[between, k] = cell[between, k] + cubics[k][cell[between, 1 - k], cell[between, k]].crossings(limit)
    vertices = np.column_stack([axis.at(index[:, k]) for k, axis in enumerate(axes)])
    on_point = np.all(index == cell, axis=1)
    return Ring(vertices, ~on_point | (excess[tuple(cell.T)] == 0))


def _polygon(axes: tuple[Axis, ...], rings: list[Ring]) -> Polygon:
    ends = np.concatenate([ring.vertices[~ring.on_curve] for ring in rings])
    at_edge, open_at = np.zeros(len(ends), bool), []
    for k, axis in enumerate(axes):
        for side, value in (("low", axis.values[0]), ("high", axis.values[-1])):
            here = ends[:, k] == value
            at_edge |= here
            if np.any(here):
                open_at.append((axis.name, side))
    area = sum(_area(axes, ring) for ring in rings)
    return Polygon(rings[0], tuple(rings[1:]), area, tuple(open_at), bool(np.any(~at_edge)))


def _area(axes: tuple[Axis, ...], ring: Ring) -> float:
    """Signed: above 0 counter-clockwise."""
    x, y = (np.log10(ring.vertices[:, k]) if axis.log else ring.vertices[:, k] for k, axis in enumerate(axes))
    x, y = x - np.mean(x), y - np.mean(y)
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


# ------------------------------------------------------------------------------------------------ vertices on the curve


def profiled(like: Likelihood, free: Sequence[str] = (), values: Mapping[str, float] | None = None) -> Chi2:
    """The profile likelihood as a function of points, for :func:`refine`.

    Args:
        like: likelihood that was scanned.
        free: further parameters of interest, as in the scan.
        values: parameters held at values other than nominal, as in the scan.

    Returns:
        a function of {parameter: values} that gives chi2 at each point.
    """
    return lambda points: profile(like, points, free, values).chi2


def interpolated(scan: ScanResult, log: Sequence[str] | None = None) -> Chi2:
    """Chi2 between the points of a plane, for :func:`refine`: smooth contours without further evaluations.

    On the lines of the grid it is what :func:`regions` and :func:`exclusion` use.

    Args:
        scan: on a plane.
        log: parameters to interpolate in the logarithm; None for those whose values grow by a constant factor.

    Returns:
        a function of {parameter: values} that gives chi2 at each point; nan in a cell with a gap, or off the grid.

    Raises:
        InvalidValueError: not a plane, or a logarithm of 0.
        UnknownNameError: ``log`` names no parameter of the grid.

    >>> import numpy as np
    >>> from cevjax.scans import assemble
    >>> x = np.linspace(-4, 4, 11)
    >>> chi2 = (x[:, None] ** 2 + x * x[:, None] + 4 * x**2).ravel()
    >>> scan = assemble({"a": x, "b": x}, {"chi2": chi2, "status": 0 * chi2}, chi2_min=0.0,
    ...                 best_fit={"a": 0.0, "b": 0.0}, facts={}, labels={})
    >>> interpolated(scan)({"a": np.array([1.23, 2.0]), "b": np.array([0.1, -3.0])}).round(6)
    array([ 1.6759, 34.    ])
    """
    grid = _grid(scan, log, dimensions=2)
    x, y = grid.axes
    # along x at each y; beyond the first and the last y there is nothing
    rows = _cubics(x.u, np.pad(grid.delta.T, ((1, 1), (0, 0)), constant_values=np.nan), x.log)
    u = np.pad(y.u, 1, constant_values=np.nan)

    def chi2(points: dict[str, np.ndarray]) -> np.ndarray:
        values = [np.asarray(points[axis.name], float) for axis in (x, y)]
        at = np.column_stack([axis.index(v) for axis, v in zip((x, y), values, strict=True)])
        cell = np.clip(np.floor(at).astype(int), 0, np.array(grid.delta.shape) - 2)
        (i, j), (t, s) = cell.T, (at - cell).T
        four = j[:, None] + np.arange(4)  # the rows around
        column = rows[four, i[:, None]].at(t[:, None])
        delta = _cubics(u[four], column, y.log)[:, 1].at(s)
        outside = [(v < a.values[0]) | (v > a.values[-1]) for a, v in zip((x, y), values, strict=True)]
        return np.where(np.any(outside, axis=0), np.nan, scan.chi2_min + delta)

    return chi2


def refine(chi2: Chi2, region: Region, tolerance: float = 1e-3, flatness: float | None = None) -> Region:
    """Move the vertices of a region to where chi2, evaluated there, crosses the threshold.

    A vertex on a line of the grid moves along it, between its neighbours, so that no pieces join or part; another one
    moves across the contour. Edges that cut a curve short are halved; where the grid is too coarse for the curve, the
    new ones may cross. All vertices move at once, by regula falsi.

    Args:
        chi2: {parameter: values} -> chi2 at each point, such as :func:`profiled`.
        region: of a scan.
        tolerance: of chi2 at the vertices.
        flatness: largest distance between an edge and the curve, as a fraction of the extent of its ring; None to leave
            the edges as they are.

    Returns:
        the region with other vertices; its message counts those that chi2 crosses the threshold nowhere near, and that
        stayed.

    Raises:
        InvalidValueError: ``tolerance`` or ``flatness`` not above 0, or ``chi2`` gives another number of values.

    >>> import numpy as np
    >>> from cevjax.scans import assemble
    >>> chi2 = lambda p: p["a"] ** 4 + p["b"] ** 2
    >>> x = np.linspace(-4, 4, 21)
    >>> points = dict(zip("ab", map(np.ravel, np.meshgrid(x, x, indexing="ij"))))
    >>> scan = assemble({"a": x, "b": x}, {"chi2": chi2(points), "status": np.zeros(441)}, chi2_min=0.0,
    ...                 best_fit={"a": 0.0, "b": 0.0}, facts={}, labels={})
    >>> (polygon,) = refine(chi2, regions(scan, 0.9), tolerance=1e-6).polygons
    >>> at = chi2(dict(zip("ab", polygon.vertices.T)))
    >>> bool(np.all(np.abs(at - threshold(0.9, dof=2)) < 1e-6))
    True
    """
    for name, value in (("tolerance", tolerance), ("flatness", flatness)):
        if value is not None and not value > 0:
            raise InvalidValueError(f"Argument `{name}` must be above 0, but was {value}.")
    excess = _excess(chi2, region)
    top = np.array([len(axis.values) - 1.0 for axis in region.axes])
    rings = [ring for polygon in region.polygons for ring in polygon.rings]
    if not rings:
        return region
    lines = [np.column_stack([a.index(r.vertices[:, k]) for k, a in enumerate(region.axes)]) for r in rings]
    curve = [ring.on_curve for ring in rings]
    lines, stayed = _move(excess, lines, curve, top, tolerance)
    straight = 0
    for _ in range(0 if flatness is None else 8):
        lines, curve, added, straight = _halve(excess, lines, curve, top, tolerance, flatness or 1.0)
        if not added:
            break
    vertices = [np.column_stack([axis.at(q[:, k]) for k, axis in enumerate(region.axes)]) for q in lines]
    new = iter(Ring(v, on) for v, on in zip(vertices, curve, strict=True))
    polygons = (_polygon(region.axes, [next(new) for _ in old.rings]) for old in region.polygons)
    # the edges of the grid and the gaps that it reaches stay as they are
    polygons = [replace(p, at_gap=q.at_gap) for p, q in zip(polygons, region.polygons, strict=True)]
    trouble = [region.message] if region.message else []
    if stayed:
        trouble.append(f"at {stayed} vertices, chi2 does not cross the threshold nearby")
    if straight:
        trouble.append(f"at {straight} edges, the curve is not nearby")
    return replace(region, polygons=tuple(polygons), message="; ".join(trouble))


def _excess(chi2: Chi2, region: Region) -> Callable[[np.ndarray], np.ndarray]:
    """Chi2 above the level at positions on the grid, (n, 2); infinite where it is not finite."""

    def excess(index: np.ndarray) -> np.ndarray:
        points = {axis.name: axis.at(index[:, k]) for k, axis in enumerate(region.axes)}
        found = np.asarray(chi2(points), float)
        if found.shape != (len(index),):
            raise InvalidValueError(
                f"Argument `chi2` must give one value for each point, but gave {found.shape} for {len(index)} points."
            )
        return np.where(np.isfinite(found), found, np.inf) - region.level

    return excess


def _move(
    excess: Callable, lines: list[np.ndarray], curve: list[np.ndarray], top: np.ndarray, tolerance: float
) -> tuple[list[np.ndarray], int]:
    """All vertices on the curve to where ``excess`` is zero, and how many stayed."""
    index, on = np.concatenate(lines), np.concatenate(curve)
    outward = np.concatenate([_outward(np.roll(q, -1, axis=0) - np.roll(q, 1, axis=0)) for q in lines])
    sizes = [np.linalg.norm(np.roll(q, -1, axis=0) - q, axis=1) for q in lines]
    reach = np.concatenate([np.maximum(size, np.roll(size, 1)) for size in sizes])
    whole = index == np.rint(index)
    on_line = np.sum(whole, axis=1) == 1
    low, high = -reach, reach.copy()
    for k in range(2):
        along = on_line & whole[:, 1 - k]  # the vertex is on a line of the grid along this axis
        outward[along] = np.where(outward[along, k, None] >= 0, 1.0, -1.0) * np.eye(2)[k]
        ahead = np.where(
            outward[along, k] > 0,
            np.ceil(index[along, k]) - index[along, k],
            index[along, k] - np.floor(index[along, k]),
        )
        low[along], high[along] = ahead - 1, ahead
    chosen = np.flatnonzero(on & ~np.all(whole, axis=1))
    moved, done = _to_curve(
        excess, index[chosen], outward[chosen], low[chosen], high[chosen], top, tolerance, on_line[chosen]
    )
    index[chosen[done]] = moved[done]
    return np.split(index, np.cumsum([len(q) for q in lines])[:-1]), int(np.sum(~done))


def _halve(
    excess: Callable,
    lines: list[np.ndarray],
    curve: list[np.ndarray],
    top: np.ndarray,
    tolerance: float,
    flatness: float,
) -> tuple[list[np.ndarray], list[np.ndarray], int, int]:
    """With a vertex on the curve at the middle of edges that miss it; how many were added, and how many found none."""
    at = [np.flatnonzero(_sagitta(q, on) > flatness) for q, on in zip(lines, curve, strict=True)]
    edges = [np.roll(q, -1, axis=0)[i] - q[i] for q, i in zip(lines, at, strict=True)]
    middle = np.concatenate([q[i] + e / 2 for q, i, e in zip(lines, at, edges, strict=True)])
    edge = np.concatenate(edges)
    reach = np.linalg.norm(edge, axis=1) / 2
    moved, done = _to_curve(excess, middle, _outward(edge), -reach, reach, top, tolerance)
    bounds = np.cumsum([len(i) for i in at])[:-1]
    new_lines, new_curve = [], []
    for q, on, i, v, ok in zip(lines, curve, at, np.split(moved, bounds), np.split(done, bounds), strict=True):
        new_lines.append(np.insert(q, i[ok] + 1, v[ok], axis=0))
        new_curve.append(np.insert(on, i[ok] + 1, True))
    return new_lines, new_curve, int(np.sum(done)), int(np.sum(~done))


def _outward(along: np.ndarray) -> np.ndarray:
    """Unit vectors to the right of a direction."""
    right = np.column_stack([along[:, 1], -along[:, 0]])
    return right / np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-300)


def _sagitta(index: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Rough distance of the curve from the edge after each vertex, from how the edges turn, in extents of the ring."""
    scaled = index / np.maximum(np.ptp(index, axis=0), 1e-300)
    edge = np.roll(scaled, -1, axis=0) - scaled
    length = np.linalg.norm(edge, axis=1)
    before = np.roll(edge, 1, axis=0)
    turn = np.abs(np.arctan2(before[:, 0] * edge[:, 1] - before[:, 1] * edge[:, 0], np.sum(before * edge, axis=1)))
    turn = np.where(np.roll(on, 1) & on & np.roll(on, -1), turn, 0.0)
    return np.where(on & np.roll(on, -1), length * np.maximum(turn, np.roll(turn, -1)) / 8, 0.0)


def _to_curve(
    excess: Callable,
    start: np.ndarray,
    direction: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    top: np.ndarray,
    tolerance: float,
    both: np.ndarray | bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Zeros of ``excess`` on the lines ``start + t direction`` with ``low <= t <= high``, and whether each was found.

    Outwards it should rise, so its sign says which way to go, with ``both`` which way first: with growing steps until
    it changes, then by regula falsi.
    """
    n = len(start)
    if not n:
        return start, np.zeros(0, bool)

    def at(t: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.clip(start[which] + t[:, None] * direction[which], 0, top)

    everything = np.arange(n)
    a, fa = np.zeros(n), excess(start)
    b, fb = a.copy(), fa.copy()
    f0 = fa.copy()
    done = np.abs(f0) <= tolerance
    for goal, allowed in ((np.where(f0 > 0, low, high), True), (np.where(f0 > 0, high, low), both)):
        for reach in (0.05, 0.25, 1.0):
            ahead = everything[~done & ((fb > 0) == (f0 > 0)) & allowed]
            if len(ahead):
                a[ahead], fa[ahead] = b[ahead], fb[ahead]
                b[ahead] = reach * goal[ahead]
                fb[ahead] = excess(at(b[ahead], ahead))
        back = everything[(fb > 0) == (f0 > 0)]
        a[back], fa[back], b[back], fb[back] = 0.0, f0[back], 0.0, f0[back]
    open_ = everything[~done & ((f0 > 0) != (fb > 0))]
    t = a.copy()
    for _ in range(60):
        if not len(open_):
            break
        with np.errstate(invalid="ignore"):
            secant = (a[open_] * fb[open_] - b[open_] * fa[open_]) / (fb[open_] - fa[open_])
        t[open_] = np.where(np.isfinite(secant), secant, (a[open_] + b[open_]) / 2)
        ft = excess(at(t[open_], open_))
        across = (ft > 0) != (fb[open_] > 0)
        a[open_] = np.where(across, b[open_], a[open_])
        fa[open_] = np.where(across, fb[open_], fa[open_] / 2)
        b[open_], fb[open_] = t[open_], ft
        done[open_] = np.abs(ft) <= tolerance
        open_ = open_[~done[open_]]
    return np.where(done[:, None], at(t, everything), start), done


# -------------------------------------------------------------------------------------------------------------- limits


@dataclass(frozen=True)
class Exclusion:
    """Limits on a coupling at each mass.

    Attributes:
        axes: of the mass and of the coupling.
        cl, dof: confidence level and degrees of freedom.
        threshold: of delta chi2.
        per_mass: whether chi2 is compared with its minimum at the same mass, rather than in the plane.
        limit: at each mass, where the lowest allowed couplings end. nan where the lowest coupling of the grid is not
            allowed, where nothing on the grid is excluded above it, or where a gap hides the end.
        highest: at each mass, the coupling above which everything on the grid is excluded; nan likewise.
        allowed: at each mass, all allowed pieces [low, high] in increasing order; None for an end at the edge of the
            grid, nan for one at a gap.
        polygons, excluded: the allowed and the excluded pieces of the plane.
        missing: number of points of the grid without chi2.
        message: what else to know.
    """

    axes: tuple[Axis, Axis]
    cl: float
    dof: int
    threshold: float
    per_mass: bool
    limit: np.ndarray
    highest: np.ndarray
    allowed: tuple[list[Piece], ...]
    polygons: tuple[Polygon, ...]
    excluded: tuple[Polygon, ...]
    missing: int
    message: str = ""

    @property
    def mass(self) -> np.ndarray:
        """The masses of the grid."""
        return self.axes[0].values

    @property
    def islands(self) -> tuple[list[Piece], ...]:
        """At each mass, the allowed pieces above an excluded one."""
        return tuple([piece for piece in pieces if piece[0] is not None] for pieces in self.allowed)


def exclusion(
    scan: ScanResult,
    cl: float = 0.90,
    dof: int | None = None,
    per_mass: bool = False,
    coupling: str | None = None,
    log: Sequence[str] | None = None,
) -> Exclusion:
    """The couplings that a scan of mass and coupling excludes, at each mass.

    Args:
        scan: on a plane.
        cl: confidence level.
        dof: degrees of freedom; None for 2, or for 1 with ``per_mass``.
        per_mass: compare chi2 with its minimum at the same mass, rather than in the plane.
        coupling: name of the parameter to limit; None for the second one of the grid.
        log: parameters to interpolate in the logarithm; None for those whose values grow by a constant factor.

    Raises:
        InvalidValueError: not a plane, no such level, or a logarithm of 0.
        UnknownNameError: ``log`` or ``coupling`` names no parameter of the grid.

    >>> import numpy as np
    >>> from cevjax.scans import assemble
    >>> m, g = np.geomspace(1, 100, 21), np.geomspace(1e-3, 1, 31)
    >>> chi2 = (1e4 * g**2 / (1 + m[:, None] ** 2)).ravel()
    >>> scan = assemble({"m": m, "g": g}, {"chi2": chi2, "status": 0 * chi2}, chi2_min=0.0,
    ...                 best_fit={"m": 1.0, "g": 0.0}, facts={}, labels={})
    >>> limits = exclusion(scan, cl=0.9, dof=1)
    >>> exact = np.sqrt(threshold(0.9) * (1 + m**2)) / 100
    >>> bool(np.nanmax(np.abs(limits.limit / exact - 1)) < 1e-3), int(np.sum(np.isnan(limits.limit)))
    (True, 3)
    """
    check_flag("per_mass", per_mass)
    dof = (1 if per_mass else 2) if dof is None else dof
    limit, grid = threshold(cl, dof), _grid(scan, log, dimensions=2)
    names = [axis.name for axis in grid.axes]
    if coupling is not None and names.index(check_name("parameter of the grid", coupling, names)) == 0:
        grid = grid.transposed((1, 0))
    mass, axis = grid.axes
    if per_mass:
        grid = replace(grid, delta=grid.delta - _lowest(axis, grid.delta)[:, None])
    allowed = tuple(_pieces(axis, line, limit) for line in grid.delta)
    trouble = _remarks(scan, grid)
    if thin := _thin(axis.u, grid.delta, limit):
        trouble.append(
            f"at {thin} masses chi2 may fall below the threshold between two excluded points: a finer grid tells"
        )
    return Exclusion(
        axes=(mass, axis),
        cl=cl,
        dof=dof,
        threshold=limit,
        per_mass=per_mass,
        limit=np.array([math.nan if not p or p[0][0] is not None else _number(p[0][1]) for p in allowed]),
        highest=np.array([_number(p[-1][1]) if p else math.nan for p in allowed]),
        allowed=allowed,
        polygons=_polygons(grid, limit),
        excluded=_polygons(grid, limit, above=True),
        missing=grid.missing,
        message="; ".join(trouble),
    )


def _number(end: float | None) -> float:
    return math.nan if end is None else end


def _lowest(axis: Axis, delta: np.ndarray) -> np.ndarray:
    """The minimum along the last axis, not below the global one; nan if nothing is there.

    On a logarithmic axis the parabolas are those of ``log(1 + delta_chi2)``: of a valley as narrow as the steps, which
    does not look like a parabola to its neighbours, they do not make more than there is.
    """
    bottom = min(0.0, np.nanmin(delta, initial=0.0))
    lowest = np.expm1(_valleys(axis.u, np.log1p(np.maximum(delta, -0.9)))) if axis.log else _valleys(axis.u, delta)
    lowest = np.min(np.nan_to_num(lowest, nan=np.inf), axis=-1)
    return np.where(np.isfinite(lowest), np.maximum(lowest, bottom), np.nan)


def _thin(u: np.ndarray, delta: np.ndarray, limit: float) -> int:
    """Number of lines that may have a valley below the limit between points above."""
    return int(np.sum(np.any((delta > limit) & (_valleys(u, delta) <= limit), axis=1)))


# --------------------------------------------------------------------------------------------------------- projections


@dataclass(frozen=True)
class Projection:
    """The profile of one parameter of a scan.

    Attributes:
        axis: its values: those of the grid, and the best fit, which replaces a point closer than a tenth of the step.
        delta_chi2: the minimum over the others; nan where it is missing.
        intervals: {number of standard deviations: allowed pieces [low, high]}; None for an end at the edge of the grid,
            nan for one at a gap.
        missing: number of points of the grid without chi2, over which the minimum was not taken.
        message: what else to know.
    """

    axis: Axis
    delta_chi2: np.ndarray
    intervals: dict[int, list[Piece]]
    missing: int
    message: str = ""

    @property
    def x(self) -> np.ndarray:
        """The values of the parameter."""
        return self.axis.values

    def interval(self, cl: float) -> list[Piece]:
        """The allowed pieces at a confidence level, with 1 degree of freedom."""
        return _pieces(self.axis, self.delta_chi2, threshold(cl))

    def curve(self, n: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Values and delta chi2 along the interpolation, with ``n`` steps between neighbours."""
        t = np.arange(n) / n
        u, cubics = self.axis.u, _cubics(self.axis.u, self.delta_chi2, self.axis.log)
        fine = np.append((u[:-1, None] + np.diff(u)[:, None] * t).ravel(), u[-1])
        delta = np.append(cubics[:, None].at(t).ravel(), self.delta_chi2[-1])
        return self.axis.decode(fine), np.maximum(delta, 0.0)


def projection(scan: ScanResult, name: str | None = None, log: Sequence[str] | None = None) -> Projection:
    """The profile of one parameter: at each of its values, the minimum of chi2 over the others of the grid.

    The minimum along an axis is that of the parabola through the lowest point and its neighbours.

    Args:
        scan: of any number of parameters.
        name: of the parameter; None for the only one.
        log: parameters to interpolate in the logarithm; None for those whose values grow by a constant factor.

    Raises:
        InvalidValueError: no name, but several parameters.
        UnknownNameError: no such parameter on the grid.

    >>> import numpy as np
    >>> from cevjax.scans import assemble
    >>> x = np.linspace(-4, 4, 18)
    >>> chi2 = (x[:, None] ** 2 + (x - 0.5 * x[:, None]) ** 2).ravel()
    >>> scan = assemble({"a": x, "b": x}, {"chi2": chi2, "status": 0 * chi2}, chi2_min=0.0,
    ...                 best_fit={"a": 0.0, "b": 0.0}, facts={}, labels={})
    >>> [[round(end, 6) for end in piece] for piece in projection(scan, "a").intervals[2]]
    [[-2.0, 2.0]]
    """
    names = list(scan.axes)
    if name is None and len(names) > 1:
        raise InvalidValueError(f"Argument `name` must be one of {', '.join(names)}, but was None.")
    name = check_name("parameter of the grid", names[0] if name is None else name, names)
    grid = _grid(scan, log)
    k = names.index(name)
    axes, delta = [*grid.axes[:k], *grid.axes[k + 1 :]], np.moveaxis(grid.delta, k, 0)
    uncertain = np.zeros(len(delta), bool)
    while axes:  # one after the other: exact for a quadratic form
        other = axes.pop()
        points, below = (np.min(np.nan_to_num(d, nan=np.inf), axis=-1) for d in (delta, _valleys(other.u, delta)))
        far = (points > np.maximum(below, 0.0) + 1) & (below < SIGMAS[-1] ** 2)
        uncertain |= np.any(far.reshape(len(delta), -1), axis=1)
        delta = _lowest(other, delta)
    trouble = _remarks(scan, grid)
    if count := int(np.sum(uncertain)):
        trouble.append(f"at {count} values the points of the grid are more than 1 above the minimum over the others")
    axis, delta = _with_best_fit(grid.axes[k], delta, scan.best_fit.get(name))
    intervals = {sigma: _pieces(axis, delta, sigma**2) for sigma in SIGMAS}
    return Projection(axis, delta, intervals, grid.missing, "; ".join(trouble))


def _with_best_fit(axis: Axis, delta: np.ndarray, best: float | None) -> tuple[Axis, np.ndarray]:
    """With the global minimum as a point, unless there is a gap.

    A point closer than a tenth of the step makes room for it, unless at the edge.
    """
    if best is None or not axis.values[0] <= best <= axis.values[-1]:
        return axis, delta
    at, values = float(axis.index(best)), axis.values.copy()
    i, nearest = int(at), round(at)
    if abs(at - nearest) >= 0.1:
        value = 0.0 if np.all(np.isfinite(delta[i : i + 2])) else np.nan
        return replace(axis, values=np.insert(values, i + 1, best)), np.insert(delta, i + 1, value)
    if np.isfinite(delta[nearest]) and (at == nearest or 0 < nearest < len(values) - 1):
        values[nearest] = best
        return replace(axis, values=values), np.where(np.arange(len(values)) == nearest, 0.0, delta)
    return axis, delta
