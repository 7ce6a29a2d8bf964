"""The published results on the CONUS+ data beside cevjax's.

    python experiments/conus-plus-2025/reproduce.py [FOLDER]

Prints the table of the README; with FOLDER, draws its figure there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cevjax
from cevjax import plots
from cevjax.report import markdown

NAME = "conus-plus-2025"
PUBLISHED = "[-0.034, 0.024] [0.322, 0.380]"


def rows() -> list[tuple[str, ...]]:
    table = []
    for flux in ("hmk", "hmve", "efk"):
        data = cevjax.load(NAME, flux=flux)
        standard = cevjax.Likelihood([data], cevjax.StandardModel())
        predicted = float(standard.expected(standard.nominal())[NAME]["cevns"].sum()) * 327 / 119
        nsi = cevjax.Likelihood([data], cevjax.StandardModel() + cevjax.NSI())
        result = cevjax.interval(nsi, "eps_dV_ee", cl=0.6827)
        pieces = " ".join(f"[{low:.4f}, {high:.4f}]" for low, high in result.intervals)
        chi2 = f"{result.chi2_min:.2f} (SM {cevjax.fit(standard).chi2_min:.2f})"
        table.append((f"`{flux}`", chi2, pieces, f"{predicted:.0f}"))
    return [("published", "7.35", PUBLISHED, "347 +- 59"), *table]


def main() -> None:
    cevjax.enable_compilation_cache()
    header = ("flux", "chi2_min, eps_dV_ee free", "eps_dV_ee, 1 sigma", "predicted counts in 327 kg d")
    print(markdown(header, rows()))
    if len(sys.argv) > 1:
        like = cevjax.Likelihood([cevjax.load(NAME)], cevjax.StandardModel())
        fit = cevjax.fit(like)
        figure = plots.spectra(like.measurements[0], fit.expected()[NAME], "CONUS+, best fit")
        plots.save(figure, Path(sys.argv[1]) / "fit.png")


if __name__ == "__main__":
    main()
