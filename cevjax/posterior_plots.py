"""Figures of posteriors: corner with priors, traces and ranks, predictive spectra, and profile contours on top.

Each function draws into a new matplotlib figure and returns it; :func:`cevjax.plots.save` writes it atomically.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.interpolate import interpn

from . import contours, plots
from .errors import InvalidValueError, check_name
from .inference import kernel
from .plots import LABELS, PALETTE, SINGLE_COLUMN, UNITS, draw_polygons, poisson_errors, tint
from .posteriors import arviz, facts_of, prior_of
from .priors import LogFlat, Prior
from .scans import ScanResult

if TYPE_CHECKING:
    from arviz import InferenceData
    from matplotlib.axes import Axes

POINTS = 201
"""Where a density is evaluated along an axis."""
LEVELS = (0.6827, 0.90)


def corner(result: InferenceData, names: Sequence[str] | None = None, cl: Sequence[float] = LEVELS) -> Figure:
    """The marginal density of each parameter, with its prior, and the densest regions of each pair.

    Args:
        result: of :func:`cevjax.sample`.
        names: of the parameters; None for those of interest.
        cl: probabilities of the regions.

    Raises:
        UnknownNameError: a parameter that was not sampled.
        InvalidValueError: no parameter, or no such probability.
    """
    names = _names(result, names)
    levels = sorted({contours.threshold(level) and level for level in cl})
    n, colour = len(names), PALETTE[0]
    size = SINGLE_COLUMN if n < 3 else min(1.7 * n, 14.0)
    figure = Figure(figsize=(size, size), layout="constrained")
    panels: Any = figure.subplots(n, n, squeeze=False, sharex="col")
    for i, j in np.ndindex(n, n):
        ax = panels[i, j]
        if j > i:
            ax.remove()
        elif i == j:
            _marginal(ax, result, names[i], colour)
        else:
            _region(ax, result, (names[j], names[i]), levels, colour)
        if j <= i:
            _dress(ax, result, names[j], names[i] if j < i else None, bottom=i == n - 1, left=j == 0)
    handles: list[Any] = [Patch(facecolor=tint(colour, k, len(levels)), edgecolor=colour) for k in range(len(levels))]
    texts = [f"densest {100 * level:g} %" for level in levels]
    handles = handles if n > 1 else []
    lines = [Line2D([], [], color=colour), Line2D([], [], color="0.4", linestyle="--")]
    legend = [*handles, *lines], [*(texts if n > 1 else []), "posterior", "prior"]
    figure.legend(*legend, loc="outside upper center", ncols=4 if n > 2 else 2, fontsize=7, frameon=False)
    return figure


def _names(result: InferenceData, names: Sequence[str] | None) -> list[str]:
    facts = facts_of(result)
    chosen = [names] if isinstance(names, str) else list(facts["free"] if names is None else names)
    for name in chosen:
        check_name("sampled parameter", name, facts["priors"])
    if not chosen:
        raise InvalidValueError("Argument `names` must hold a parameter, but is empty.")
    return chosen


def _logarithmic(result: InferenceData, name: str) -> bool:
    return isinstance(prior_of(result, name), LogFlat)


def _coordinate(result: InferenceData, name: str) -> np.ndarray:
    """Values, or their logarithms where the axis is logarithmic."""
    x = result["posterior"][name].values.ravel()
    return np.log10(x) if _logarithmic(result, name) else x


def _extent(x: np.ndarray, prior: Any, log: bool) -> tuple[float, float]:
    """Where nearly all draws are, with a margin, within the support of the prior."""
    low, high = np.quantile(x, [0.0005, 0.9995])
    margin, ends = 0.08 * max(high - low, 1e-300), _ends(prior, log)
    return max(low - margin, ends[0]), min(high + margin, ends[1])


def _ends(prior: Prior, log: bool) -> tuple[float, float]:
    """Of the support, on the axis."""
    low, high = prior.support
    return (math.log10(low), math.log10(high)) if log else (low, high)


def _marginal(ax: Axes, result: InferenceData, name: str, colour: str) -> None:
    log, prior, x = _logarithmic(result, name), prior_of(result, name), _coordinate(result, name)
    low, high = _extent(x, prior, log)
    at = np.linspace(low, high, POINTS)
    density = kernel.density(x[:, None], [at], [_ends(prior, log)])
    shown = 10**at if log else at
    before = np.exp(prior.log_density(shown)) * (shown * np.log(10) if log else 1.0)
    ax.plot(shown, density, color=colour, linewidth=1.2)
    ax.fill_between(shown, density, color=tint(colour, 1, 2), linewidth=0)
    ax.plot(shown, before, color="0.4", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1.1 * max(density.max(), before.max() if before.max() < 3 * density.max() else 0))
    ax.set_xlim(*(10 ** np.array([low, high]) if log else (low, high)))
    ax.set_yticks([])


def density(result: InferenceData, names: tuple[str, str]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Of two parameters: the axes of a grid (logarithms, on logarithmic ones), the density there, and at the draws."""
    logs = [_logarithmic(result, name) for name in names]
    columns, priors = [_coordinate(result, name) for name in names], [prior_of(result, name) for name in names]
    parts = list(zip(columns, priors, logs, strict=True))
    axes = [np.linspace(*_extent(*part), POINTS) for part in parts]
    points = np.stack(columns, axis=1)
    found = kernel.density(points, axes, [_ends(prior, log) for _, prior, log in parts])
    return axes, found, interpn(tuple(axes), found, points, bounds_error=False, fill_value=0.0)


def height(at_draws: np.ndarray, cl: float) -> float:
    """The density above which a part of the draws lies.

    Source: R. Hyndman, Am. Stat. 50 (1996) 120. That the density is a little smooth matters less than for its integral.

    >>> height(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 0.5)
    0.3
    """
    return float(np.quantile(at_draws, 1 - cl))


def _region(ax: Axes, result: InferenceData, names: tuple[str, str], levels: Sequence[float], colour: str) -> None:
    axes, probabilities, at_draws = density(result, names)
    shown = [10**x if _logarithmic(result, name) else x for x, name in zip(axes, names, strict=True)]
    heights = [height(at_draws, level) for level in levels]
    top = probabilities.max() * 1.01
    for k in reversed(range(len(levels))):
        ax.contourf(*shown, probabilities.T, levels=[heights[k], top], colors=[tint(colour, k, len(levels))])
    ax.contour(*shown, probabilities.T, levels=sorted(set(heights)), colors=[colour], linewidths=0.8)
    for which, x in zip("xy", shown, strict=True):
        getattr(ax, f"set_{which}lim")(x[0], x[-1])


def _label(result: InferenceData, name: str) -> str:
    attributes = result["posterior"][name].attrs
    unit = attributes.get("units") or ""
    symbol = attributes.get("long_name") or name
    return f"{symbol} [{UNITS.get(unit, unit)}]" if unit and unit != "sigma" else symbol


def _dress(ax: Axes, result: InferenceData, x: str, y: str | None, bottom: bool, left: bool) -> None:
    """Scales, ticks and labels of a panel."""
    ax.tick_params(which="both", labelsize=6.5, direction="in")
    if _logarithmic(result, x):
        ax.set_xscale("log")
    if y is not None and _logarithmic(result, y):
        ax.set_yscale("log")
    ax.tick_params(labelbottom=bottom)
    ax.tick_params(axis="x", rotation=30)
    if bottom:
        ax.set_xlabel(_label(result, x), fontsize=8)
    if y is not None:
        ax.tick_params(labelleft=left)
        if left:
            ax.set_ylabel(_label(result, y), fontsize=8)


def trace(result: InferenceData, names: Sequence[str] | None = None) -> Figure:
    """Density and ranks of each chain, by ArviZ: chains that agree have flat ranks.

    Args:
        result: of :func:`cevjax.sample`.
        names: of the parameters; None for those of interest.

    Raises:
        UnknownNameError: a parameter that was not sampled.
    """
    import matplotlib.pyplot as plt

    names = _names(result, names)
    axes = arviz().plot_trace(result, var_names=names, kind="rank_bars", figsize=(8, 1.9 * len(names)), compact=False)
    figure = axes.ravel()[0].figure
    plt.close(figure)
    for ax in axes.ravel():
        ax.title.set_fontsize(9)
        ax.xaxis.label.set_fontsize(8)
        ax.yaxis.label.set_fontsize(8)
        ax.tick_params(labelsize=7)
    figure.tight_layout()
    return figure


def predictive(result: InferenceData, dataset: str | None = None) -> Figure:
    """Counts that the posterior expects, those that it lets us see, and the data, on each axis of a measurement.

    Args:
        result: of :func:`cevjax.sample`.
        dataset: name of the measurement; None for the first.

    Raises:
        UnknownNameError: no such measurement.
    """
    facts = facts_of(result)
    name = check_name("data set", dataset or facts["datasets"][0], facts["datasets"])
    seen = result["posterior_predictive"][name].stack(sample=("chain", "draw"))
    expected = result["posterior_predictive"][f"{name}_expected"].stack(sample=("chain", "draw"))
    observed, constant = result["observed_data"][name], result["constant_data"]
    axes = [str(dim) for dim in observed.dims]
    figure = Figure(figsize=(5.2 * len(axes), 4.0), layout="constrained")
    for ax, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        others = [dim for dim in axes if dim != axis]
        edges = constant[f"{axis}_edges"].values
        width = np.diff(edges)
        data = observed.sum(others).values / width
        for draws, label, shade in ((seen, "seen", "0.85"), (expected, "expected", tint(PALETTE[0], 0, 2))):
            projected = draws.sum(others).values / width[:, None]
            for q, alpha in ((0.95, 0.55), (0.6827, 1.0)):
                low, high = np.quantile(projected, [(1 - q) / 2, (1 + q) / 2], axis=1)
                style: dict[str, Any] = {"color": shade, "alpha": alpha, "linewidth": 0}
                ax.stairs(high, edges, baseline=low, fill=True, label=f"{label}, {100 * q:.0f} %", **style)
        sigma = constant.get(f"{name}_sigma")
        if sigma is None:
            errors = np.array(poisson_errors(data * width)) / width
        else:
            errors = np.sqrt((sigma**2).sum(others).values) / width
        centre = (edges[1:] + edges[:-1]) / 2
        ax.errorbar(centre, data, yerr=errors, color="black", marker="o", markersize=3, linestyle="none", label="data")
        kind = axis.removeprefix(f"{name}_")
        ax.set(xlabel=LABELS.get(kind, kind), ylabel=f"counts / {UNITS.get(kind, kind)}", xlim=(edges[0], edges[-1]))
        if sigma is None:
            ax.set_ylim(bottom=0)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{name}: posterior predictive", fontsize=10)
    return figure


def over_profile(result: InferenceData, scan: ScanResult, cl: Sequence[float] = LEVELS) -> Figure:
    """The densest regions of the posterior, filled, and the contours of the profile likelihood, as lines.

    They differ where nuisances widen: the profile takes the best value of each, the posterior the volume of all. And a
    prior that is flat in one variable is not in another, which the profile does not know.

    Args:
        result: of :func:`cevjax.sample`.
        scan: of two of its parameters.
        cl: probabilities of the regions, and confidence levels of the contours with two degrees of freedom.

    Raises:
        InvalidValueError: the scan is not a plane.
        UnknownNameError: it is of a parameter that was not sampled.
    """
    if len(scan.axes) != 2:
        raise InvalidValueError(f"Argument `scan` must be of two parameters, but is of {', '.join(scan.axes)}.")
    first, second = _names(result, list(scan.axes))
    levels = sorted(cl)
    figure = Figure(figsize=(SINGLE_COLUMN, SINGLE_COLUMN), layout="constrained")
    ax = figure.subplots()
    _region(ax, result, (first, second), levels, PALETTE[0])
    _dress(ax, result, first, second, bottom=True, left=True)
    for k, level in enumerate(levels):
        draw_polygons(ax, contours.regions(scan, level).polygons, PALETTE[1], plots.LINE_STYLES[k])
    for set_limits, name in ((ax.set_xlim, first), (ax.set_ylim, second)):
        set_limits(scan.axes[name][0], scan.axes[name][-1])
    handles: list[Any] = [
        Patch(facecolor=tint(PALETTE[0], k, len(levels)), edgecolor=PALETTE[0], label=f"posterior, {100 * level:g} %")
        for k, level in enumerate(levels)
    ]
    handles += [
        Line2D([], [], color=PALETTE[1], linestyle=plots.LINE_STYLES[k], label=f"profile, {100 * level:g} % (2 dof)")
        for k, level in enumerate(levels)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=7, frameon=False)
    return figure
