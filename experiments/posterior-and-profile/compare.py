"""Credible regions beside profile-likelihood contours: two NSI couplings, and mass and coupling of a mediator.

    python experiments/posterior-and-profile/compare.py [FOLDER]

Prints the tables of the README; with FOLDER, draws its figures there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import interpn

import cevjax
from cevjax import plots, posterior_plots, posteriors
from cevjax.contours import threshold
from cevjax.inference.kernel import density
from cevjax.report import markdown
from cevjax.scans import ScanResult

if TYPE_CHECKING:
    from arviz import InferenceData

DATA = "coherent-csi-2021"
LEVELS = (0.6827, 0.90)
POINTS = 201
CHAINS, DRAWS = 4, 5000
NSI = ("eps_dV_ee", "eps_uV_ee")
BOX = ((-1.0, 1.0), (-1.0, 1.0))
MEDIATOR = ("m_zprime", "g_zprime")
RANGES = MASSES, COUPLINGS = (1.0, 1e4), (1e-6, 1e-2)
SMALLEST = (1e-5, 1e-6, 1e-7)
"""Lower ends of the prior of the coupling."""
AT = 30.0  # MeV


def content(density: np.ndarray, cl: float) -> np.ndarray:
    """The densest points of a grid that hold a part of the whole."""
    order = np.sort(density.ravel())[::-1]
    return density >= order[np.searchsorted(np.cumsum(order), cl * np.sum(order))]


def mirrored(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which couplings (d, u) reverse the sign of the weak charge of CsI, 54 protons and 76 neutrons on average."""
    protons, neutrons = 54, 76
    standard = 0.023 * protons - 0.511 * neutrons
    return standard + (protons + 2 * neutrons) * x + (2 * protons + neutrons) * y > 0


def areas(scan: ScanResult, draws: np.ndarray) -> list[tuple[str, ...]]:
    """Of regions of the same content by four rules."""
    axes = list(scan.axes.values())
    cell = np.prod([x[1] - x[0] for x in axes])
    likelihood, posterior = np.exp(-0.5 * scan.delta_chi2), density(draws, axes, BOX)
    at_draws = interpn(axes, posterior, draws)
    nearest = tuple(np.rint((draws - [x[0] for x in axes]) / [x[1] - x[0] for x in axes]).astype(int).T)

    def held(where: np.ndarray) -> float:
        return 100 * float(np.mean(where[nearest]))

    rows = []
    for cl in LEVELS:
        inside = {
            "profile, delta chi2 of 2 dof": scan.delta_chi2 < threshold(cl, 2),
            "profile, delta chi2 of 1 dof": scan.delta_chi2 < threshold(cl, 1),
            "densest, profile likelihood times prior": content(likelihood, cl),
            "densest, posterior": posterior > posterior_plots.height(at_draws, cl),
        }
        for label, where in inside.items():
            edge = f"{np.max(scan.delta_chi2[where]):.2f}" if label != "densest, posterior" else ""
            rows.append((f"{100 * cl:.0f} %", label, edge, f"{np.sum(where) * cell:.3f}", f"{held(where):.1f} %"))
    return rows


def bands(scan: ScanResult, draws: np.ndarray) -> list[tuple[str, ...]]:
    """What is in the band of reversed weak charge."""
    where = mirrored(*np.meshgrid(*scan.axes.values(), indexing="ij"))
    likelihood = np.exp(-0.5 * scan.delta_chi2)
    return [
        ("lowest delta chi2 there", f"{np.min(scan.delta_chi2[where]):.2f}"),
        ("profile likelihood times prior", f"{100 * np.sum(likelihood[where]) / np.sum(likelihood):.1f} %"),
        ("posterior", f"{100 * np.mean(mirrored(*draws.T)):.1f} %"),
    ]


def limits(like: cevjax.Likelihood) -> list[tuple[str, ...]]:
    """Upper limits of the coupling at one mass: of the profile, and of posteriors with several priors."""
    at = {"m_zprime": AT}
    grid = np.geomspace(1e-6, 1e-2, 400)
    scan = cevjax.scan(like, {"g_zprime": grid}, values=at)
    last = np.flatnonzero(scan.delta_chi2 < threshold(0.90))[-1]
    step = (threshold(0.90) - scan.delta_chi2[last]) / (scan.delta_chi2[last + 1] - scan.delta_chi2[last])
    rows = [("profile, delta chi2 of 2.71", f"{grid[last] * (grid[last + 1] / grid[last]) ** step:.3g}")]
    priors = [f"log-flat:{low:g}:{COUPLINGS[1]:g}" for low in SMALLEST] + [f"flat:0:{COUPLINGS[1]:g}"]
    for prior in priors:
        result = cevjax.sample(like, ("g_zprime",), {"g_zprime": prior}, at, chains=CHAINS, draws=DRAWS, seed=1)
        report(result)
        rows.append((f"posterior, {prior}", f"{np.quantile(result['posterior']['g_zprime'], 0.90):.3g}"))
    return rows


def report(result: InferenceData) -> None:
    for complaint in posteriors.judge(result):
        print(complaint, file=sys.stderr)


def main() -> None:
    cevjax.enable_compilation_cache()
    model, data = cevjax.StandardModel(), cevjax.load(DATA)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None

    like = cevjax.Likelihood([data], model + cevjax.NSI())
    scan = cevjax.scan(like, dict(zip(NSI, (np.linspace(*ends, POINTS) for ends in BOX), strict=True)))
    result = cevjax.sample(like, NSI, chains=CHAINS, draws=DRAWS, seed=1)
    report(result)
    draws = np.stack([result["posterior"][name].values.ravel() for name in NSI], axis=1)
    print(markdown(("level", "region", "delta chi2 at its edge", "area", "posterior in it"), areas(scan, draws)))
    print()
    print(markdown(("band of reversed weak charge", ""), bands(scan, draws)))
    if folder:
        plots.save(posterior_plots.over_profile(result, scan), folder / "nsi.png")

    like = cevjax.Likelihood([data], model + cevjax.LightVector(model="universal"))
    print()
    print(markdown((f"g_zprime at {AT:g} MeV", "below, 90 %"), limits(like)))
    if folder:
        scan = cevjax.scan(like, dict(zip(MEDIATOR, (np.geomspace(*ends, 101) for ends in RANGES), strict=True)))
        priors = {name: f"log-flat:{low:g}:{high:g}" for name, (low, high) in zip(MEDIATOR, RANGES, strict=True)}
        result = cevjax.sample(like, MEDIATOR, priors, chains=CHAINS, draws=DRAWS, seed=1)
        report(result)
        plots.save(posterior_plots.over_profile(result, scan), folder / "mediator.png")


if __name__ == "__main__":
    main()
