"""The published results on the COHERENT LAr data, alone and with CsI, beside cevjax's.

    python experiments/coherent-lar-2020/reproduce.py [FOLDER]

Prints the tables of the README; with FOLDER, draws its figures there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cevjax
from cevjax import plots
from cevjax.datasets import coherent_lar_2020 as lar
from cevjax.report import markdown, span

CSI = "coherent-csi-2021"
ONE_SIGMA = 0.6827
R_P = 3.448
SCENARIOS = {  # arXiv:2211.11905: label, interaction, free parameters, chi2_min of LAr and of CsI + LAr
    "standard model": (None, (), "106.5", "189.7"),
    "sin2_theta_w": (None, ("sin2_theta_w",), "105.5", "189.7"),
    "R_n_Ar40": (None, ("R_n_Ar40",), "105.5", ""),
    "mu_nu_e, mu_nu_mu": (cevjax.MagneticMoment(), ("mu_nu_e", "mu_nu_mu"), "105.4", "189.6"),
    "eps_dV_ee, eps_uV_ee": (cevjax.NSI(), ("eps_dV_ee", "eps_uV_ee"), "105.7", "188.9"),
    "eps_dV_mumu, eps_uV_mumu": (cevjax.NSI(), ("eps_dV_mumu", "eps_uV_mumu"), "105.6", "188.5"),
    "B-L: g_zprime, m_zprime": (cevjax.LightVector(model="b-l"), ("g_zprime", "m_zprime"), "105.5", "189.6"),
}


def likelihood(interaction: cevjax.Interaction | None = None, csi: str = "", es: bool = False) -> cevjax.Likelihood:
    """LAr with the statistic of 2211.11905, and CsI with ``csi`` if given."""
    data = [cevjax.load(lar.NAME, statistic="2211.11905")]
    if csi:
        data.append(cevjax.load(CSI, statistic=csi, es=es))
    return cevjax.Likelihood(data, cevjax.StandardModel() + interaction if interaction else cevjax.StandardModel())


def scenarios() -> list[tuple[str, ...]]:
    """chi2_min of LAr, and with CsI in both readings of its statistic, with the fall from the standard model."""
    rows, standard = [], {}
    for label, (interaction, free, alone, both) in SCENARIOS.items():
        cells = [label, alone]
        for csi in ("", "2211.11905", "2211.11905-shape"):
            cells += [both] if csi == "2211.11905" else []
            if csi and label == "R_n_Ar40":
                cells.append("")
                continue
            chi2 = cevjax.fit(likelihood(interaction, csi), free).chi2_min
            standard.setdefault(csi, chi2)
            cells.append(f"{chi2:.2f}" + (f" ({chi2 - standard[csi]:.2f})" if free else ""))
        rows.append(tuple(cells))
    return rows


def moments() -> list[tuple[str, ...]]:
    """90 % limits on the magnetic moments of CsI and LAr, in 1e-9 mu_B."""
    rows = []
    for es, published in ((False, "3.8, 2.6"), (True, "3.6, 2.4")):
        cells = [f"mu_nu_e, mu_nu_mu, {'CEvNS + ES' if es else 'CEvNS'}", published]
        for csi in ("2211.11905", "2211.11905-shape"):
            like = likelihood(cevjax.MagneticMoment(), csi, es)
            ends = [cevjax.interval(like, name).intervals[-1][1] or np.nan for name in ("mu_nu_e", "mu_nu_mu")]
            cells.append(", ".join(f"{1e9 * end:.2f}" for end in ends))
        rows.append(tuple(cells))
    return rows


def collaboration() -> list[tuple[str, ...]]:
    """The fit of the 960 cells: with the release's template of the signal, and with the computed one."""
    rows = []
    fits = {s: cevjax.fit(cevjax.Likelihood([cevjax.load(lar.NAME, statistic=s)], cevjax.StandardModel()))
            for s in ("2003.10630", "default")}  # fmt: skip
    names = {"cevns": "159 +- 43", "brn": "553 +- 34", "brn_delayed": "10 +- 11", "ssb": "3131 +- 23"}
    counts = {s: {c: float(n.sum()) for c, n in fit.expected()[lar.NAME].items()} for s, fit in fits.items()}
    for name, published in names.items():
        rows.append((name, published, *(f"{counts[s][name]:.1f}" for s in fits)))
    rows.append(("chi2_min", "", *(f"{fit.chi2_min:.1f}" for fit in fits.values())))
    return rows


def projections() -> list[tuple[str, ...]]:
    """The released template of the signal beside ours, scaled to its 128 events."""
    tables = lar.read_embedded()
    like = cevjax.Likelihood([cevjax.load(lar.NAME)], cevjax.StandardModel())
    ours = np.asarray(like.expected(like.nominal())[lar.NAME]["cevns"])
    released = tables.template("cevns")
    scaled = ours * released.sum() / ours.sum()
    join = lambda x, n: ", ".join(f"{v:.1f}" for v in x[:n])  # noqa: E731
    return [
        ("energy, 0-50 keVee", join(released.sum(axis=(1, 2)), 5), join(scaled.sum(axis=(1, 2)), 5)),
        ("time, -0.1 to 4.9 us", join(released.sum(axis=(0, 1)), 10), join(scaled.sum(axis=(0, 1)), 10)),
    ]


def energies() -> list[tuple[str, ...]]:
    """The one-dimensional chi2 of 2005.01645."""
    like = cevjax.Likelihood([cevjax.load(lar.NAME, statistic="2005.01645")], cevjax.StandardModel())
    angle = cevjax.interval(like, "sin2_theta_w", cl=ONE_SIGMA)
    radii = np.linspace(R_P, 11.9, 300)
    chi2 = cevjax.profile(like, {"R_n_Ar40": radii}).chi2
    above = chi2 - chi2.min()
    limits = [radii[np.flatnonzero(above > n**2)[0]] for n in (1, 2, 3)]
    return [
        ("sin2_theta_w", "0.31 +- 0.06", span(angle.best_fit, angle.intervals)),
        ("R_n_Ar40 [fm] below, 1, 2, 3 sigma", "4.2, 6.2, 10.8", ", ".join(f"{x:.1f}" for x in limits)),
    ]


def figures(folder: Path) -> None:
    like = cevjax.Likelihood([cevjax.load(lar.NAME)], cevjax.StandardModel())
    fit = cevjax.fit(like, ("sin2_theta_w",))
    figure = plots.spectra(like.measurements[0], fit.expected()[lar.NAME], "COHERENT LAr 2020, best fit")
    plots.save(figure, folder / "fit.png")


def main() -> None:
    cevjax.enable_compilation_cache()
    header = ("free", "LAr, published", "LAr", "CsI + LAr, published", "with CsI `2211.11905`", "with CsI `-shape`")
    print(markdown(header, scenarios()), end="\n\n")
    print(markdown(("90 % [1e-9 mu_B]", "published", "CsI `2211.11905`", "CsI `-shape`"), moments()), end="\n\n")
    print(markdown(("events", "published", "`2003.10630`", "`default`"), collaboration()), end="\n\n")
    print(markdown(("events", "release", "cevjax, scaled to 128"), projections()), end="\n\n")
    print(markdown(("`2005.01645`, 1 sigma", "published", "cevjax"), energies()))
    if len(sys.argv) > 1:
        figures(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
