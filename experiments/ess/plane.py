"""Which couplings of electron neutrinos to quarks the ESS would allow: one detector, several, and COHERENT today.

    python experiments/ess/plane.py [FOLDER]

Prints the table of the README; with FOLDER, draws its figure there. All data are expectations in the standard model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

import cevjax
from cevjax import plots
from cevjax.contours import Region, interpolated, refine, regions
from cevjax.detector import read_description
from cevjax.detector.building import build
from cevjax.exposure import with_exposure
from cevjax.inference.forecast import FisherResult, fisher
from cevjax.report import markdown
from cevjax.tables import data_dir

PLANE = ("eps_dV_ee", "eps_uV_ee")
REACH, POINTS = (1.0, 1.3), 201
YEARS = 3.0
DETECTORS = {
    "ess-csi": ("CsI", "#2a6fbb"),
    "ess-xe": ("Xe", "#8073ac"),
    "ess-ge": ("Ge", "#35978f"),
    "ess-ar": ("Ar", "#e08214"),
    "ess-c3f8": ("C$_3$F$_8$", "#1b7837"),
    "ess-si": ("Si", "#b2182b"),
}
TODAY = ("coherent-csi-2021", "coherent-lar-2020")


class Case(NamedTuple):
    """Measurements of which the allowed region is wanted."""

    label: str
    names: tuple[str, ...]
    colour: str

    @property
    def exposures(self) -> list[float]:
        return [1.0 if name in TODAY else YEARS for name in self.names]


SINGLE = [Case(f"ESS {label}", (name,), colour) for name, (label, colour) in DETECTORS.items()]
COHERENT = [Case("COHERENT CsI", TODAY[:1], "#c9ccd1"), Case("COHERENT CsI + LAr", TODAY, "#9a9ea6")]
PAIRS = [
    Case("ESS Si + Xe", ("ess-si", "ess-xe"), "#b2182b"),
    Case("ESS C$_3$F$_8$ + CsI", ("ess-c3f8", "ess-csi"), "#1b7837"),
    Case("ESS Ar + Xe", ("ess-ar", "ess-xe"), "#e08214"),
]
ALL = [
    Case("all ESS", tuple(DETECTORS), "#2a6fbb"),
    Case("all ESS + COHERENT", (*DETECTORS, *TODAY), "#08306b"),
]


def with_radius(name: str) -> cevjax.Measurement:
    """A detector to come with neutron radii that are known to 5 %; COHERENT's data have that already."""
    if name in TODAY:
        return cevjax.load(name)
    folder = data_dir("future") / name
    described = read_description(folder)
    target = described.target.model_copy(update={"radius_relative_error": 0.05})
    return build(described.model_copy(update={"target": target}), folder, None, None, 1.0)


def likelihood(case: Case, load: Callable[[str], cevjax.Measurement] = cevjax.load) -> cevjax.Likelihood:
    """Of the Asimov data."""
    measurements = [load(name) for name in case.names]
    return with_exposure(cevjax.Likelihood(measurements, cevjax.StandardModel() + cevjax.NSI()), case.exposures)


def allowed(like: cevjax.Likelihood) -> Region:
    """At 90 %, 2 degrees of freedom, with a smooth outline."""
    found = cevjax.scan(like, dict(zip(PLANE, (np.linspace(-x, x, POINTS) for x in REACH), strict=True)))
    return refine(interpolated(found), regions(found, 0.90), flatness=1e-3)


def principal(expected: FisherResult) -> np.ndarray:
    """Expected errors along the two principal axes of the plane: the long one and the short one."""
    return np.linalg.eigvalsh(expected.profiled(PLANE)) ** -0.5


def slope(expected: FisherResult) -> float:
    """Of the band, d eps_uV_ee / d eps_dV_ee, in the standard model."""
    information = expected.profiled(PLANE)
    return float(-information[0, 1] / information[1, 1])


def extent(region: Region) -> str:
    """Of the piece that holds the standard model, in eps_dV_ee."""
    piece = next(p for p in region.polygons if Outline(p.vertices).contains_point((0.0, 0.0)))
    low, high = piece.vertices[:, 0].min(), piece.vertices[:, 0].max()
    return f"[{low:.3f}, {high:.3f}]" if piece.closed else "open"


def row(case: Case, like: cevjax.Likelihood, region: Region) -> tuple[str, ...]:
    expected = fisher(like, free=PLANE)
    events = sum(float(np.sum(parts["cevns"])) for parts in like.expected(like.nominal()).values())
    long, short = principal(expected)
    loose, _ = principal(fisher(likelihood(case, with_radius), free=PLANE))
    return (
        case.label.replace("$_3$", "3").replace("$_8$", "8"),
        f"{events:.0f}",
        f"{slope(expected):.3f}",
        f"{region.area:.3f}",
        extent(region),
        f"{short:.4f}",
        f"{long:.3g}",
        f"{loose:.3g}",
    )


HEADER = (
    "data",
    "CEvNS events",
    "slope",
    "area",
    "eps_dV_ee",
    "error across",
    "error along",
    "the same, radii 5 %",
)


def outline(ax, region: Region, case: Case, filled: bool, sheared: bool = False) -> None:
    """The allowed pieces; ``sheared`` shows the sum of the couplings instead of the second."""
    turn = np.array([[1.0, 0.0], [float(sheared), 1.0]])
    for polygon in region.polygons:
        path = Outline.make_compound_path(
            *(Outline(np.vstack([ring.vertices, ring.vertices[:1]]) @ turn.T, closed=True) for ring in polygon.rings)
        )
        style = {"facecolor": case.colour, "alpha": 0.55, "edgecolor": "none"} if filled else {"facecolor": "none"}
        line = {} if filled else {"edgecolor": case.colour, "linewidth": 1.4}
        ax.add_patch(PathPatch(path, **style, **line))
    key = {"color": case.colour, "linewidth": 7 if filled else 1.6, "alpha": 0.55 if filled else 1.0}
    ax.plot([], [], label=case.label, **key)


def figure(found: dict[str, Region]) -> Figure:
    """Left: one detector each, in the sum of the couplings, which tells the slopes apart. Right: several together."""
    drawn = Figure(figsize=(12, 5.8), layout="constrained")
    left, right = drawn.subplots(1, 2)
    d, u = (cevjax.NSI().parameters[i].latex for i in (6, 0))
    for ax, cases, heading in ((left, SINGLE, "one detector"), (right, [*PAIRS, *ALL], "several")):
        for case in COHERENT:
            outline(ax, found[case.label], case, filled=True, sheared=ax is left)
        for case in cases:
            outline(ax, found[case.label], case, filled=case in ALL, sheared=ax is left)
        ax.plot(0, 0, marker="+", color="black", markersize=9, linestyle="none", label="standard model")
        ax.set_title(heading, fontsize=11)
    left.set(xlim=(-0.6, 0.9), ylim=(-0.3, 0.95), xlabel=d, ylabel=f"{u} + {d}")
    left.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    right.set(xlim=(-1, 1), ylim=(-1, 1), xlabel=d, ylabel=u)
    right.legend(frameon=False, fontsize=9, loc="lower left")
    drawn.suptitle(f"ESS, {YEARS:g} years, and COHERENT today: expected regions at 90 % CL", fontsize=12)
    return drawn


def main() -> None:
    cevjax.enable_compilation_cache()
    found, rows = {}, []
    for case in (*COHERENT, *SINGLE, *PAIRS, *ALL):
        like = likelihood(case)
        found[case.label] = region = allowed(like)
        rows.append(row(case, like, region))
        if region.message:
            print(f"{case.label}: {region.message}", file=sys.stderr)
    print(markdown(HEADER, rows))
    if len(sys.argv) > 1:
        plots.save(figure(found), Path(sys.argv[1]) / "plane.png")


if __name__ == "__main__":
    main()
