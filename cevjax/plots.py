"""Figures: projections of a measurement with its components, the profile of an interval, and what a scan allows.

Each function draws into a new matplotlib figure and returns it; :func:`save` writes it atomically.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.special import gammainc, gammaincinv

from . import contours
from .errors import InvalidValueError
from .measurement import Measurement
from .results import IntervalResult, remarks, write_atomically
from .scans import FAILED, ScanResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .inference.toys import ToysResult

LABELS = {
    "PE": "photo-electrons",
    "E_keVee": "energy [keVee]",
    "T_keVnr": "recoil energy [keV]",
    "F90": r"$F_{90}$",
    "t_us": r"recoil time [$\mu$s]",
    "cevns": "CEvNS",
    "es": r"$\nu$-e scattering",
    "brn": "beam-related neutrons",
    "brn_delayed": "delayed neutrons",
    "activation": "neutrons and activation",
    "steady": "steady-state background",
    "nin": "neutrino-induced neutrons",
    "ssb": "steady-state background",
}
FORMATS = (".pdf", ".png", ".svg")
UNITS = {"t_us": r"$\mu$s", "E_keVee": "keVee", "T_keVnr": "keV", "mu_B": r"$\mu_B$", "cm2": "cm$^2$", "eV2": "eV$^2$"}
COLOURS = {
    "cevns": "#2a6fbb",
    "es": "#35978f",
    "brn": "#e08214",
    "brn_delayed": "#fdb863",
    "nin": "#8073ac",
    "ssb": "#c9ccd1",
    "activation": "#c9ccd1",
    "steady": "#c9ccd1",
}
SPARE_COLOURS = ("#1b7837", "#b2182b", "#c51b7d", "#bf812d")
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito: told apart with any colour vision."""
DELTA_CHI2 = "\N{GREEK CAPITAL LETTER DELTA}\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}"
LINE_STYLES = ("-", "--", ":", "-.")
POINT_MARKERS = ("P", "X", "D", "o", "s", "v")
SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0
"""Widths in inches."""
BACKGROUND_FIRST = ("activation", "steady", "ssb", "nin", "brn", "brn_delayed")


def spectra(
    measurement: Measurement, components: Mapping[str, np.ndarray], title: str = "", remark: str | None = None
) -> Figure:
    """Projections on each axis: stacked components, data with Poisson errors, and residuals below.

    Args:
        measurement: gives bins, data and, for Gaussian data, their errors.
        components: {name: expected counts on the bins}, such as ``FitResult.expected()[measurement.name]``.
        title: above the figure.
        remark: below it; None for that of the measurement.
    """
    axes = measurement.axes
    figure = Figure(figsize=(5.6 * len(axes), 5.4), layout="constrained")
    grid = figure.subplots(2, len(axes), height_ratios=(3, 1), sharex="col", squeeze=False)
    for i, (name, edges) in enumerate(axes):
        others = tuple(k for k in range(len(axes)) if k != i)
        projected = {c: np.asarray(counts).sum(axis=others) for c, counts in components.items()}
        observed = np.asarray(measurement.observed).sum(axis=others)
        sigma = None
        if measurement.sigma is not None:
            sigma = np.sqrt(np.sum(np.asarray(measurement.sigma) ** 2, axis=others))
        _projection(grid[0, i], grid[1, i], name, np.array(edges), projected, observed, sigma)
        grid[0, i].set_ylabel(f"{measurement.unit} / {UNITS.get(name, name)}")
    grid[0, 0].legend(frameon=False, fontsize=9)
    grid[1, 0].set_ylabel("residual / sigma")
    remark = measurement.remark if remark is None else remark
    if title or remark:
        lines = [title, *textwrap.wrap(remark, 70 * len(axes))]
        figure.suptitle("\n".join(filter(None, lines)), fontsize=11)
    return figure


def _projection(
    top: Axes,
    bottom: Axes,
    name: str,
    edges: np.ndarray,
    components: dict[str, np.ndarray],
    observed: np.ndarray,
    sigma: np.ndarray | None,
) -> None:
    width, centre = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    order = sorted(components, key=lambda c: (*BACKGROUND_FIRST, c).index(c))
    spare = iter(SPARE_COLOURS)
    below = np.zeros(len(width))
    for component in order:
        above = below + components[component]
        colour = COLOURS.get(component) or next(spare, "#666666")
        label = LABELS.get(component, component)
        top.stairs(above / width, edges, baseline=below / width, fill=True, color=colour, label=label, linewidth=0)
        below = above
    top.stairs(below / width, edges, color="black", linewidth=1.0, label="sum")
    errors = poisson_errors(observed) if sigma is None else (sigma, sigma)
    style = {"color": "black", "marker": "o", "markersize": 4, "linestyle": "none", "capsize": 0}
    top.errorbar(centre, observed / width, yerr=np.array(errors) / width, label="data", **style)
    if sigma is None:
        top.set_ylim(bottom=0)
    root = np.sqrt(np.maximum(below, 1e-12)) if sigma is None else sigma
    bottom.errorbar(centre, (observed - below) / root, yerr=np.array(errors) / root, **style)
    bottom.axhline(0, color="black", linewidth=0.8)
    reach = 1.1 * np.max(np.abs(observed - below) / root, initial=3.5)
    bottom.set_ylim(-reach, reach)
    bottom.set_xlabel(LABELS.get(name, name))
    bottom.set_xlim(edges[0], edges[-1])


def poisson_errors(counts: np.ndarray, cl: float = 0.6827) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the counts to the ends of the central (Garwood) interval for their means.

    >>> low, high = poisson_errors(np.array([0.0, 9.0]))
    >>> [round(float(x), 2) for x in (*low, *high)]
    [0.0, 2.94, 1.84, 4.11]
    """
    tail = (1 - cl) / 2
    low = np.where(counts > 0, gammaincinv(np.maximum(counts, 1e-9), tail), 0.0)
    return counts - low, gammaincinv(counts + 1, 1 - tail) - counts


def profile_curve(result: IntervalResult) -> Figure:
    """The profile chi2 of an interval, with its pieces shaded."""
    x, delta = result.profile.points[result.poi], result.profile.chi2 - result.chi2_min
    levels = result.levels or {result.cl: result.intervals}
    thresholds = {cl: 2 * float(gammaincinv(0.5, cl)) for cl in levels}
    top = max(12.0, 3 * min(thresholds.values()), 1.3 * max(thresholds.values()))
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    ax = figure.subplots()
    ends = [end for pieces in levels.values() for piece in pieces for end in piece if end is not None]
    low, high = min([*x[delta < top], *ends]), max([*x[delta < top], *ends])
    order = np.argsort(x)
    ax.plot(x[order], delta[order], color="#2a6fbb", marker=".", markersize=3)
    for cl, pieces in levels.items():
        for left, right in pieces:
            shaded = (low if left is None else left, high if right is None else right)
            ax.axvspan(*shaded, color="#2a6fbb", alpha=0.15, lw=0)
        ax.axhline(thresholds[cl], color="black", linewidth=0.8, linestyle="--")
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        ax.annotate(f"{100 * cl:.4g} %", (1, thresholds[cl]), **place)
    parameter = result.fit.likelihood.parameters[result.poi]
    unit = f" [{UNITS.get(parameter.unit, parameter.unit)}]" if parameter.unit else ""
    ax.set(xlabel=(parameter.latex or result.poi) + unit, ylabel=r"$\Delta\chi^2$", xlim=(low, high))
    ax.set_ylim(0, top)
    ax.set_title("\n".join(textwrap.wrap(" ".join(remarks(result.fit.likelihood).values()), 75)), fontsize=9)
    return figure


def forest(
    intervals: Mapping[str, Mapping[str, Mapping[float, Sequence[Sequence[float | None]]]]],
    columns: int = 5,
) -> Figure:
    """Intervals of many parameters from several data: a panel a parameter, in it a line a data set.

    Args:
        intervals: {parameter: {data: {confidence level: pieces [low, high], None for an open end}}}.
        columns: panels side by side.

    The range of a panel is about three times what the tightest data allow; where others allow more, they run out of it.
    """
    data = list(dict.fromkeys(name for of in intervals.values() for name in of))
    colours = {name: _colour(i) for i, name in enumerate(data)}
    columns = min(columns, len(intervals))
    rows = -(-len(intervals) // columns)
    height = 0.55 + 0.17 * len(data)
    figure = Figure(figsize=(2.2 * columns, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (label, of) in zip(axes, intervals.items(), strict=False):
        low, high = _forest_range(of)
        for name, levels in of.items():
            line = -data.index(name)
            for cl, pieces in levels.items():
                style = {
                    "color": colours[name],
                    "linewidth": 4.0 if cl == min(levels) else 1.4,
                    "solid_capstyle": "butt",
                }
                for start, end in pieces:
                    ends = [low if start is None else max(start, low), high if end is None else min(end, high)]
                    if ends[0] < ends[1]:
                        ax.plot(ends, [line, line], **style)
        ax.set(xlim=(low, high), ylim=(-len(data) + 0.4, 0.6), yticks=[])
        ax.set_title("\n".join(textwrap.wrap(label, 30)), fontsize=7)
        ax.tick_params(labelsize=6)
        ax.xaxis.get_offset_text().set_fontsize(6)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        if low < 0 < high:
            ax.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    for ax in axes[len(intervals) :]:  # what is left of the last row
        ax.set_axis_off()
    shown = sorted({cl for of in intervals.values() for found in of.values() for cl in found})
    handles = [Line2D([], [], color=colours[name], linewidth=4) for name in data]
    title = " and ".join(f"{100 * cl:.4g} %" for cl in shown) + ", profile likelihood"
    figure.legend(handles, data, loc="outside upper center", ncols=len(data), fontsize=7, frameon=False, title=title,
                  title_fontsize=7)  # fmt: skip
    return figure


def _forest_range(of: Mapping[str, Mapping[float, Sequence[Sequence[float | None]]]]) -> tuple[float, float]:
    """The range of a panel: the tightest interval at the highest level, with as much again on both sides."""
    spans = []
    for levels in of.values():
        ends = [end for piece in levels[max(levels)] for end in piece if end is not None]
        open_ = any(end is None for piece in levels[max(levels)] for end in piece)
        if ends:
            spans.append((open_ and len(ends) > 1, max(ends) - min(ends) or abs(ends[0]), min(ends), max(ends), open_))
    if not spans:
        return 0.0, 1.0
    _, width, low, high, open_ = min(spans)
    if open_ and len({low, high}) == 1:  # a limit: from the bound, at zero, on
        low, high, width = min(low, 0.0), max(high, 0.0), abs(high - min(low, 0.0)) or 1.0
        return (low, high + width) if high > 0 else (low - width, high)
    return low - width, high + width


# --------------------------------------------------------------------------------------------------------------- scans


def plane(
    scans: ScanResult | Sequence[ScanResult],
    cl: float | Sequence[float] = (0.6827, 0.90),
    dof: int = 2,
    labels: Sequence[str] | None = None,
    log: Sequence[str] | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
    projections: bool = False,
    chi2: Sequence[contours.Chi2] | None = None,
    width: float = SINGLE_COLUMN,
    method: str = "profile likelihood",
) -> Figure:
    """Allowed regions of two parameters: those of the last scan filled, the others as lines.

    Args:
        scans: one or several of the same two parameters, such as one for each data set and the joint one last.
        cl: confidence levels, at most four.
        dof: degrees of freedom of the regions.
        labels: of the scans; None for their data sets.
        log: parameters with a logarithmic axis; None for those whose values grow by a constant factor.
        points: {label: (x, y)}, points to mark besides the best fits, such as that of the standard model.
        projections: whether to draw the profile of each parameter on top and on the right.
        chi2: of each scan, a function that evaluates it (:func:`cevjax.contours.profiled`) on the contours; None to
            interpolate.
        width: of the figure, in inches.
        method: what made the regions, for the legend.

    Raises:
        InvalidValueError: no scan, not a plane, other parameters, no such level, or another number of labels.
    """
    scans, labels = _scans(scans, labels)
    levels = _levels(cl)
    if chi2 is not None and len(chi2) != len(scans):
        raise InvalidValueError(f"Argument `chi2` must hold {len(scans)} functions, but has {len(chi2)}.")
    found = [[contours.regions(scan, level, dof, log) for level in levels] for scan in scans]
    functions = chi2 or [contours.interpolated(scan, log) for scan in scans]
    found = [
        [contours.refine(function, region, flatness=5e-4) for region in own]
        for function, own in zip(functions, found, strict=True)
    ]
    figure = Figure(figsize=(width, 0.9 * width), layout="constrained")
    if projections:
        grid = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=(3, 1), height_ratios=(1, 3))
        grid[0, 1].remove()
        ax, panels = grid[1, 0], (grid[0, 0], grid[1, 1])
    else:
        ax, panels = figure.subplots(), ()
    for i, own in enumerate(found):
        colour, last = _colour(i), i == len(scans) - 1
        for j in reversed(range(len(levels))):
            style = LINE_STYLES[j] if len(scans) > 1 else "-"
            draw_polygons(ax, own[j].polygons, colour, style, fill=tint(colour, j, len(levels)) if last else None)
    _range(ax, scans[0], [own[0].axes for own in found])
    marked = [_mark(ax, _best(scan), "*", _colour(i), 7) for i, scan in enumerate(scans)]
    for i, at in enumerate((points or {}).values()):
        _mark(ax, at, POINT_MARKERS[i % len(POINT_MARKERS)], "black", 4.5)
    for k, panel in enumerate(panels):
        name = list(scans[0].axes)[k]
        for i, scan in enumerate(scans):
            x, delta = contours.projection(scan, name, log).curve()
            panel.plot(*((delta, x) if k else (x, delta)), color=_colour(i), linewidth=1)
        _delta_axis(panel, "y" if k == 0 else "x", top=10.0, ticks=(1, 4, 9))
        panel.tick_params(labelleft=k == 0, labelbottom=k == 1)
    _plane_legend(figure, labels, levels, dof, list(points or {}), any(marked), method)
    return figure


def exclusions(
    scans: ScanResult | Sequence[ScanResult],
    cl: float = 0.90,
    dof: int | None = None,
    per_mass: bool = False,
    labels: Sequence[str] | None = None,
    log: Sequence[str] | None = None,
    width: float = SINGLE_COLUMN,
) -> Figure:
    """Excluded couplings at each mass: the limits of each scan as lines, what is excluded shaded.

    Args:
        scans: one or several of the same mass and coupling.
        cl, dof, per_mass, log: as in :func:`cevjax.contours.exclusion`.
        labels: of the scans; None for their data sets.
        width: of the figure, in inches.

    Raises:
        InvalidValueError: no scan, not a plane, other parameters, no such level, or another number of labels.
    """
    scans, labels = _scans(scans, labels)
    found = [contours.exclusion(scan, cl, dof, per_mass, log=log) for scan in scans]
    figure = Figure(figsize=(width, 0.85 * width), layout="constrained")
    ax = figure.subplots()
    handles = []
    for i, (limits, label) in enumerate(zip(found, labels, strict=True)):
        colour, style = _colour(i), LINE_STYLES[i // len(PALETTE) % len(LINE_STYLES)]
        draw_polygons(ax, limits.excluded, colour, style, fill=(*to_rgb(colour), 0.12))
        handles.append(Line2D([], [], color=colour, linestyle=style, label=label))
    _range(ax, scans[0], [limits.axes for limits in found])
    for axis, k in ((ax.set_xscale, 0), (ax.set_yscale, 1)):
        if min(limits.axes[k].values[0] for limits in found) > 0 and not found[0].axes[k].log and log is None:
            axis("log")
    where = " at each mass" if per_mass else ""
    _legend(figure, [handles], f"excluded at {_statement(cl, found[0].threshold, '>')}{where}, profile likelihood")
    return figure


def projections(
    scans: ScanResult | Sequence[ScanResult],
    name: str | None = None,
    labels: Sequence[str] | None = None,
    log: Sequence[str] | None = None,
    width: float | None = None,
    method: str = "profile likelihood",
) -> Figure:
    """The profile of one parameter of scans, or of each in a panel of its own, with 1, 2 and 3 standard deviations.

    Args:
        scans: one or several with the same parameters.
        name: of the parameter; None for all of them.
        labels: of the scans; None for their data sets.
        log: parameters with a logarithmic axis; None for those whose values grow by a constant factor.
        width: of the figure, in inches; None for one column, or two for several panels.
        method: what made the curves, for the legend.

    Raises:
        InvalidValueError: no scan, other parameters, or another number of labels.
        UnknownNameError: no such parameter.
    """
    scans, labels = _scans(scans, labels, same=name is None)
    names = list(scans[0].axes) if name is None else [name]
    found = {n: [contours.projection(scan, n, log) for scan in scans] for n in names}
    width = width or (SINGLE_COLUMN if len(names) == 1 else DOUBLE_COLUMN)
    height = 0.8 * SINGLE_COLUMN * min(1.0, 1.4 * width / len(names) / SINGLE_COLUMN)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, n in zip(panels, names, strict=True):
        for i, own in enumerate(found[n]):
            ax.plot(*own.curve(), color=_colour(i), linestyle=LINE_STYLES[i % len(LINE_STYLES)])
        _ticks(ax, "x", scans[0].label(n), [own.axis for own in found[n]])
        _delta_axis(ax, "y", top=12.0, ticks=(0, 1, 4, 9))
    for sigma in contours.SIGMAS:
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        panels[-1].annotate(rf"{sigma}$\sigma$", (1, sigma**2), (3, 0), va="center", fontsize=7, color="0.3", **place)
    for ax in panels[1:]:
        ax.set_ylabel("")
    lines = [
        Line2D([], [], color=_colour(i), linestyle=LINE_STYLES[i % len(LINE_STYLES)], label=label)
        for i, label in enumerate(labels)
    ]
    _legend(figure, [lines], method)
    return figure


def surface(
    scan: ScanResult,
    cl: float | Sequence[float] = (0.6827, 0.90),
    dof: int = 2,
    log: Sequence[str] | None = None,
    top: float = 25.0,
    width: float = SINGLE_COLUMN,
) -> Figure:
    """Delta chi2 on a plane as colours, with contours; grey where it is missing.

    Args:
        scan: of two parameters.
        cl: confidence levels of the contours, at most four.
        dof: degrees of freedom.
        log: parameters with a logarithmic axis; None for those whose values grow by a constant factor.
        top: delta chi2 at the end of the colours.
        width: of the figure, in inches.

    Raises:
        InvalidValueError: not a plane, or no such level.
    """
    found = [contours.regions(scan, level, dof, log) for level in _levels(cl)]
    figure = Figure(figsize=(width, 0.85 * width), layout="constrained")
    ax = figure.subplots()
    ax.set_facecolor("0.8")
    x, y = [axis.at(np.arange(len(axis.values) + 1) - 0.5) for axis in found[0].axes]
    order = [np.argsort(values) for values in scan.axes.values()]
    delta = np.where(scan.status == FAILED, np.nan, scan.delta_chi2)[np.ix_(*order)]
    style = {"cmap": "cividis_r", "vmin": 0.0, "vmax": top, "rasterized": True}
    mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(delta.T), **style)
    for region, line in zip(found, LINE_STYLES, strict=False):
        draw_polygons(ax, region.polygons, "black", line)
    _range(ax, scan, [found[0].axes])
    _mark(ax, _best(scan), "*", "black", 7)
    bar = figure.colorbar(mesh, ax=ax, extend="max", pad=0.02)
    bar.set_label(r"$\Delta\chi^2$", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    handles = [
        Line2D([], [], color="black", linestyle=line, label=_statement(region.cl, region.threshold))
        for region, line in zip(found, LINE_STYLES, strict=False)
    ]
    _legend(figure, [handles], f"{scan.title}, profile likelihood")
    return figure


def _scans(
    scans: ScanResult | Sequence[ScanResult], labels: Sequence[str] | None, same: bool = True
) -> tuple[list[ScanResult], list[str]]:
    """Scans as a list, with their labels.

    Raises:
        InvalidValueError: none, of different parameters (if they must be the ``same``), or another number of labels.
    """
    scans = [scans] if isinstance(scans, ScanResult) else list(scans)
    if not scans:
        raise InvalidValueError("Argument `scans` must hold at least one scan, but was empty.")
    names = {tuple(scan.axes): None for scan in scans}
    if same and len(names) > 1:
        of = " and ".join(", ".join(each) for each in names)
        raise InvalidValueError(f"Argument `scans` must be of the same parameters, in one order, but were of {of}.")
    labels = [labels] if isinstance(labels, str) else labels
    if labels is not None and len(labels) != len(scans):
        raise InvalidValueError(f"Argument `labels` must hold {len(scans)} words, but has {len(labels)}.")
    return scans, [scan.title for scan in scans] if labels is None else list(labels)


def _levels(cl: float | Sequence[float]) -> list[float]:
    """Confidence levels in increasing order.

    Raises:
        InvalidValueError: none, or more than there are styles of lines.
    """
    levels = sorted({float(level) for level in np.atleast_1d(cl)})
    if not 1 <= len(levels) <= len(LINE_STYLES):
        raise InvalidValueError(f"Argument `cl` must hold 1 to {len(LINE_STYLES)} levels, but has {len(levels)}.")
    return levels


def _colour(i: int) -> str:
    return PALETTE[i % len(PALETTE)]


def draw_polygons(ax: Axes, polygons: Sequence[contours.Polygon], colour: str, style: str, fill: Any = None) -> None:
    """Outlines without what runs along the edges of the grid, and what is inside."""
    for polygon in polygons:
        if fill is not None:
            outline = Outline.make_compound_path(*(Outline(ring.loop, closed=True) for ring in polygon.rings))
            ax.add_patch(PathPatch(outline, facecolor=fill, edgecolor="none", linewidth=0, zorder=1))
        for ring in polygon.rings:
            for curve in ring.curves:
                ax.plot(*curve.T, color=colour, linestyle=style, linewidth=1.0, zorder=2)


def tint(colour: str, i: int, n: int) -> tuple[float, float, float]:
    """A colour mixed with white: the i-th of n, from dark to light."""
    share = 0.55 - 0.4 * i / max(n - 1, 1) if n > 1 else 0.35
    red, green, blue = (share * c + 1 - share for c in to_rgb(colour))
    return red, green, blue


def _best(scan: ScanResult) -> list[float]:
    return [scan.best_fit.get(name, np.nan) for name in scan.axes]


def _mark(ax: Axes, at: Sequence[float], marker: str, colour: str, size: float) -> bool:
    """Mark a point, if it is in range; whole also on the frame. Returns whether it is."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    if not (left <= at[0] <= right and bottom <= at[1] <= top):
        return False
    style: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 5, "clip_on": False}
    ax.plot(*at, marker=marker, color=colour, markersize=size, **style)
    return True


def _range(ax: Axes, scan: ScanResult, axes: Sequence[Sequence[contours.Axis]]) -> None:
    """Ticks, labels and the extent of all grids."""
    for k, (which, name) in enumerate(zip("xy", scan.axes, strict=True)):
        _ticks(ax, which, scan.label(name), [own[k] for own in axes])


def _ticks(ax: Axes, which: str, label: str, axes: Sequence[contours.Axis]) -> None:
    """Ticks and label of the x or y axis over the extent of grids; a power of ten is moved from the ticks to the label.

    Args:
        ax: panel.
        which: "x" or "y".
        label: as that of a scan, ``symbol [unit]``.
        axes: of the grids.
    """
    low, high = min(axis.values[0] for axis in axes), max(axis.values[-1] for axis in axes)
    axis, symbol, unit = getattr(ax, f"{which}axis"), *_symbol(label)
    if any(own.log for own in axes):
        getattr(ax, f"set_{which}scale")("log")
        axis.set_major_locator(LogLocator(numticks=7))
        if high / low > 10:
            axis.set_minor_formatter(NullFormatter())
    else:
        power = int(np.floor(np.log10(max(abs(low), abs(high)))))
        power = 0 if -3 < power < 4 else power
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 10.0**power:.6g}".replace("-", "\N{MINUS SIGN}")))
        unit = " ".join(filter(None, [f"$10^{{{power}}}$" if power else "", unit]))
    getattr(ax, f"set_{which}lim")(low, high)
    getattr(ax, f"set_{which}label")(f"{symbol} [{unit}]" if unit else symbol, fontsize=8)
    ax.tick_params(which="both", labelsize=7, direction="in", top=True, right=True)


def _symbol(label: str) -> tuple[str, str]:
    """Symbol and unit of a label ``symbol [unit]``."""
    symbol, bracket, unit = label.rpartition(" [")
    return (symbol, UNITS.get(unit[:-1], unit[:-1])) if bracket and unit.endswith("]") else (label, "")


def _delta_axis(ax: Axes, which: str, top: float, ticks: Sequence[int]) -> None:
    """Delta chi2 from 0 along the x or y axis of a panel, with lines at 1, 2 and 3 standard deviations."""
    getattr(ax, f"set_{which}lim")(0, top)
    getattr(ax, f"set_{which}label")(r"$\Delta\chi^2$", fontsize=8)
    getattr(ax, f"{which}axis").set_ticks(ticks)
    for sigma in contours.SIGMAS:
        (ax.axhline if which == "y" else ax.axvline)(sigma**2, color="0.6", linewidth=0.6, linestyle="--", zorder=0)
    ax.tick_params(which="both", labelsize=7, direction="in", top=True, right=True)


def _statement(cl: float, threshold: float, sign: str = "<") -> str:
    return f"{100 * cl:.4g} % ({DELTA_CHI2} {sign} {threshold:.2f})"


def _plane_legend(
    figure: Figure,
    labels: list[str],
    levels: list[float],
    dof: int,
    points: Sequence[str],
    best_fit: bool,
    method: str,
) -> None:
    """The scans, the levels, the best fit if one is drawn, and the points."""
    colours, several, n = [_colour(i) for i in range(len(labels))], len(labels) > 1, len(levels)
    own: list[Any] = [Line2D([], [], color=c, label=label) for c, label in zip(colours, labels, strict=True)]
    own[-1] = Patch(facecolor=tint(colours[-1], 0, n), edgecolor=colours[-1], label=labels[-1])
    colour = "#606060" if several else colours[0]
    allowed: list[Any] = []
    for j, level in enumerate(levels):
        style: dict[str, Any] = {"linestyle": LINE_STYLES[j] if several else "-", "edgecolor": colour}
        text = _statement(level, contours.threshold(level, dof))
        allowed.append(Patch(facecolor=tint(colour, j, n), label=text, **style))
    shapes = [("*", 8, colour, "best fit")] if best_fit else []
    shapes += [(POINT_MARKERS[i % len(POINT_MARKERS)], 5.5, "black", label) for i, label in enumerate(points)]
    marks: list[Any] = []
    for marker, size, c, label in shapes:
        style = {"linestyle": "none", "markeredgecolor": "white", "markeredgewidth": 0.6}
        marks.append(Line2D([], [], marker=marker, markersize=size, color=c, label=label, **style))
    if several:
        _legend(figure, [own, allowed + marks], method)
    else:
        _legend(figure, [allowed, marks], f"{labels[0]}, {method}")


def _legend(figure: Figure, groups: Sequence[Sequence[Any]], title: str) -> None:
    """Above the panels, where it hides nothing; the figure becomes higher by it. Two groups have a column each."""
    groups = [list(group) for group in groups if group]
    handles = [handle for group in groups for handle in group]
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 16 / (longest + 6))))
    if columns > 1 and len(groups) > 1:
        columns, rows = len(groups), max(map(len, groups))
        empty = Line2D([], [], linestyle="none", label=" ")
        handles = [handle for group in groups for handle in [*group, *[empty] * (rows - len(group))]]
    title = "\n".join(textwrap.wrap(title, int(figure.get_figwidth() * 18)))
    text: dict[str, Any] = {"fontsize": 6.5, "title_fontsize": 6.5, "ncols": columns, "frameon": False}
    text |= {"handlelength": 1.8, "columnspacing": 1.2, "labelspacing": 0.3}
    legend = figure.legend(handles=handles, title=title, loc="outside upper center", **text)
    legend.get_title().set_multialignment("center")
    rows = -(-len(handles) // columns) + title.count("\n") + 1
    figure.set_figheight(figure.get_figheight() + 0.13 * rows + 0.05)


# --------------------------------------------------------------------------------------------------------------- files


def toys(result: ToysResult) -> Figure:
    """The test statistic of toys beside the chi2 distribution, or chi2_min if nothing is under test, with the data."""
    values = (result.t if result.poi else result.toys_chi2_min)[result.good]
    observed = result.t_observed if result.poi else result.chi2_min
    figure = Figure(figsize=(SINGLE_COLUMN, 0.8 * SINGLE_COLUMN), layout="constrained")
    ax = figure.subplots()
    high = max(float(np.quantile(values, 0.999)), 1.05 * observed) if len(values) else 1.0
    low = 0.0 if result.poi else min(float(np.min(values, initial=np.inf)), 0.95 * observed)
    edges = np.linspace(low, high, 41)
    counts = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
    ax.stairs(counts, edges, fill=True, color=PALETTE[0], alpha=0.4, label=f"{len(values)} toys")
    if result.poi:
        probability = np.diff(gammainc(result.dof / 2, edges / 2)) / np.diff(edges)
        ax.stairs(probability, edges, color="black", linewidth=1.0, label=rf"$\chi^2$ with {result.dof} dof")
        ax.set_yscale("log")
    ax.axvline(observed, color=PALETTE[1], linestyle="--", label="data")
    ax.set(xlabel="$t$" if result.poi else r"$\chi^2_\mathrm{min}$", ylabel="probability density", xlim=(low, high))
    ax.legend(frameon=False)
    ax.set_title("\n".join(textwrap.wrap(" ".join(remarks(result.likelihood).values()), 60)), fontsize=7)
    return figure


def check_format(path: str | Path) -> list[Path]:
    """The files that a path stands for: one, or several for ``plane.png,pdf``, if they are in formats for plots.

    Raises:
        InvalidValueError: they are not; the message lists the formats.

    >>> [str(file) for file in check_format("plane.png,pdf")]
    ['plane.png', 'plane.pdf']
    """
    path = Path(path)
    suffixes = [f".{ending.removeprefix('.')}" for ending in path.suffix.split(",")]
    if any(suffix.lower() not in FORMATS for suffix in suffixes):
        raise InvalidValueError(f"Plot file {path} must end in one of {', '.join(FORMATS)}.")
    return [path.with_suffix(suffix) for suffix in suffixes]


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure atomically, in the format of the file's ending or in several (``plane.png,pdf``); first file."""
    files = check_format(path)
    with matplotlib.rc_context({"svg.hashsalt": "cevjax", "pdf.fonttype": 42}):
        for file in files:
            undated = {"metadata": {"CreationDate": None}} if file.suffix == ".pdf" else {}
            options = {"dpi": 150, "bbox_inches": "tight", **undated}
            write_atomically(file, functools.partial(figure.savefig, **options))
    return files[0]
