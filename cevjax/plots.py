"""Figures: projections of a measurement with its components, and the profile of an interval.

Each function draws into a new matplotlib figure and returns it; :func:`save` writes it atomically.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import gammaincinv

from .errors import InvalidValueError
from .measurement import Measurement
from .results import IntervalResult, remarks, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    threshold = 2 * float(gammaincinv(0.5, result.cl))
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    ax = figure.subplots()
    shown = delta < max(12.0, 3 * threshold)
    ends = [end for piece in result.intervals for end in piece if end is not None]
    low, high = min([*x[shown], *ends]), max([*x[shown], *ends])
    for left, right in result.intervals:
        ax.axvspan(low if left is None else left, high if right is None else right, color="#2a6fbb", alpha=0.15, lw=0)
    order = np.argsort(x)
    ax.plot(x[order], delta[order], color="#2a6fbb", marker=".", markersize=3)
    ax.axhline(threshold, color="black", linewidth=0.8, linestyle="--")
    ax.annotate(f"{100 * result.cl:.4g} %", (1, threshold), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    parameter = result.fit.likelihood.parameters[result.poi]
    unit = f" [{UNITS.get(parameter.unit, parameter.unit)}]" if parameter.unit else ""
    ax.set(xlabel=(parameter.latex or result.poi) + unit, ylabel=r"$\Delta\chi^2$", xlim=(low, high))
    ax.set_ylim(0, max(12.0, 3 * threshold))
    ax.set_title("\n".join(textwrap.wrap(" ".join(remarks(result.fit.likelihood).values()), 75)), fontsize=9)
    return figure


def check_format(path: str | Path) -> Path:
    """The path, if it ends in a format that plots are written in.

    Raises:
        InvalidValueError: it does not; the message lists them.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InvalidValueError(f"Plot file {path} must end in one of {', '.join(FORMATS)}.")
    return path


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure atomically, in the format of the file's ending."""
    path = check_format(path)
    with matplotlib.rc_context({"svg.hashsalt": "cevjax"}):
        return write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, bbox_inches="tight"))
