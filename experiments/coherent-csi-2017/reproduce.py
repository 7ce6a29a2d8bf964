"""The published results on the first COHERENT CsI data beside cevjax's.

    python experiments/coherent-csi-2017/reproduce.py [FOLDER]

Prints the tables of the README; with FOLDER, draws its figure there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cevjax
from cevjax import plots
from cevjax.report import markdown, span

NAME, LAR = "coherent-csi-2017", "coherent-lar-2020"
S2W_1711 = {"sin2_theta_w": 0.2312}


def likelihood(statistic: str, interaction: cevjax.Interaction | None = None, **choices) -> cevjax.Likelihood:
    model = cevjax.StandardModel() + interaction if interaction else cevjax.StandardModel()
    return cevjax.Likelihood([cevjax.load(NAME, statistic=statistic, **choices)], model)


def events(like: cevjax.Likelihood, params: dict[str, float]) -> float:
    return float(like.expected(params)[NAME]["cevns"].sum())


def spectrum() -> list[tuple[str, ...]]:
    """Predicted and fitted events, and the weak mixing angle of 2005.01645."""
    rows = []
    published = {"constant": "173 +- 48", "birks": "138 +- 19 (arXiv:1907.04828)"}
    for quenching, figure in published.items():
        like = likelihood("2005.01645", quenching=quenching)
        rows.append((f"CEvNS events, quenching `{quenching}`", figure, f"{events(like, like.nominal()):.0f}"))
    like = likelihood("default")
    fit = cevjax.fit(like)
    rows.append(("CEvNS events fitted, `default`, 0-6 us", "134 +- 22, all times", f"{events(like, fit.values):.0f}"))
    both = cevjax.Likelihood(
        [cevjax.load(name, statistic="2005.01645") for name in (NAME, LAR)], cevjax.StandardModel()
    )
    lar = cevjax.Likelihood([cevjax.load(LAR, statistic="2005.01645")], cevjax.StandardModel())
    for label, case, figure in (
        ("CsI", likelihood("2005.01645"), "0.24 +- 0.04"),
        ("LAr", lar, "0.31 +- 0.06"),
        ("both", both, "0.26 +0.04 -0.03"),
    ):
        result = cevjax.interval(case, "sin2_theta_w", cl=0.6827)
        rows.append((f"sin2_theta_w, `2005.01645`, {label}, 1 sigma", figure, span(result.best_fit, result.intervals)))
    return rows


def single_bin() -> list[tuple[str, ...]]:
    """Table I of 1711.09773, at 90 % (chi2 2.706 above the minimum) and at 80 % (1.642)."""
    rows = []
    for name, interaction, published in (
        ("sin2_theta_w", None, "[0.117, 0.315]"),
        ("eps_uV_ee", cevjax.NSI(), "[-0.08, 0.47]"),
        ("eps_dV_ee", cevjax.NSI(), "[-0.07, 0.42]"),
        ("mu_nu_e", cevjax.MagneticMoment(), "below 5.2e-10, printed"),
    ):
        like = likelihood("1711.09773", interaction)
        fixed = {} if name == "sin2_theta_w" else S2W_1711
        cells = []
        for cl in (0.90, 0.80):
            pieces = cevjax.interval(like, name, cl=cl, values=fixed).intervals
            cells.append(" ".join(f"[{low or 0:.3g}, {high or 0:.3g}]" for low, high in pieces))
        rows.append((name, published, *cells))
    return rows


def main() -> None:
    cevjax.enable_compilation_cache()
    print(markdown(("what", "published", "cevjax"), spectrum()), end="\n\n")
    print(markdown(("1711.09773, 90 %", "published", "cevjax, 2.706", "cevjax, 1.642"), single_bin()))
    if len(sys.argv) > 1:
        like = likelihood("default")
        fit = cevjax.fit(like, ("sin2_theta_w",))
        figure = plots.spectra(like.measurements[0], fit.expected()[NAME], "COHERENT CsI 2017, best fit")
        plots.save(figure, Path(sys.argv[1]) / "fit.png")


if __name__ == "__main__":
    main()
