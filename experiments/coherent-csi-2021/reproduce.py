"""The published results on the COHERENT CsI data of 2021, beside cevjax's.

    python experiments/coherent-csi-2021/reproduce.py [FOLDER]

Prints the tables of the README; with FOLDER, draws its figures there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

import cevjax
from cevjax import plots
from cevjax.fluxes import PionDecayAtRest
from cevjax.form_factors import form_factor
from cevjax.nuclear_model import NuclearModel
from cevjax.nuclei import target
from cevjax.rates import flux_averaged_cross_section
from cevjax.report import markdown

NAME = "coherent-csi-2021"
ONE_SIGMA = 0.6827


def likelihood(
    statistic: str, interaction: cevjax.Interaction | None = None, es: bool | None = None
) -> cevjax.Likelihood:
    model = cevjax.StandardModel() if interaction is None else cevjax.StandardModel() + interaction
    return cevjax.Likelihood([cevjax.load(NAME, statistic=statistic, es=es)], model)


def span(statistic: str, poi: str) -> str:
    """Best fit and 1 sigma interval."""
    result = cevjax.interval(likelihood(statistic), poi, cl=ONE_SIGMA)
    pieces = ", ".join(f"[{low:.4f}, {high:.4f}]" for low, high in result.intervals)
    return f"{result.best_fit:.4f} {pieces}"


def table() -> list[tuple[str, str, str]]:
    """Rows: what, published, ours."""
    paper, shape, default = (likelihood(s) for s in ("2211.11905", "2211.11905-shape", "default"))
    nsi, b_minus_l = likelihood("2211.11905", cevjax.NSI()), likelihood("2211.11905", cevjax.LightVector(model="b-l"))
    moments = likelihood("2211.11905", cevjax.MagneticMoment(), es=True)
    sm = cevjax.fit(paper)
    rows = [("chi2_min, standard model, `2211.11905`", "83.2 (independent fit 83.4)", f"{sm.chi2_min:.2f}")]
    rows.append(("the same, `2211.11905-shape`", "80.2 (independent fit)", f"{cevjax.fit(shape).chi2_min:.2f}"))
    for label, like, free, published in (
        ("sin2_theta_w free", paper, ("sin2_theta_w",), "82.8"),
        ("R_n_CsI free", paper, ("R_n_CsI",), "81.9"),
        ("eps_dV_ee, eps_uV_ee free", nsi, ("eps_dV_ee", "eps_uV_ee"), "82.9 (independent fit: 0.7 below the SM)"),
        ("eps_dV_mumu, eps_uV_mumu free", nsi, ("eps_dV_mumu", "eps_uV_mumu"), "82.9"),
        ("mu_nu_e, mu_nu_mu free, with electrons", moments, ("mu_nu_e", "mu_nu_mu"), "83.2"),
        ("B-L: g_zprime, m_zprime free, CEvNS alone", b_minus_l, ("g_zprime", "m_zprime"), "83.2"),
    ):
        chi2 = cevjax.fit(like, free).chi2_min
        rows.append((f"chi2_min, {label}, `2211.11905`", published, f"{chi2:.2f} ({sm.chi2_min - chi2:.2f} below)"))
    predicted = sum(float(c) for c in [default.expected(default.nominal())[NAME]["cevns"].sum()])
    fitted = cevjax.fit(default)
    events = float(fitted.expected()[NAME]["cevns"].sum())
    rows.append(("CEvNS events, prediction, `default`", "341 +- 11 +- 42", f"{predicted:.1f}"))
    rows.append(("CEvNS events, fitted, `default`", "306 +- 20", f"{events:.1f} +- {event_error(fitted):.1f}"))
    rows.append(("sin2_theta_w, 1 sigma, `2303.09360`", "0.231 [0.207, 0.258]", span("2303.09360", "sin2_theta_w")))
    rows.append(("R_n_CsI [fm], 1 sigma, `2303.09360`", "5.47 [5.09, 5.85]", span("2303.09360", "R_n_CsI")))
    independent = "0.240 [0.211, 0.272] (independent fit)"
    rows.append(("sin2_theta_w, 1 sigma, `2211.11905-shape`", independent, span("2211.11905-shape", "sin2_theta_w")))
    independent = "0.245 [0.219, 0.275] (independent fit)"
    rows.append(("sin2_theta_w, 1 sigma, `2211.11905`", independent, span("2211.11905", "sin2_theta_w")))
    rows += limits()
    section = average_cross_section()
    rows.append(("flux-averaged cross section, SM [1e-40 cm2]", "189 +- 6", f"{section:.1f}"))
    scaled = section * events / predicted
    rows.append(("the same, measured", "165 +30 -25", f"{scaled:.0f} (SM times fitted/predicted events)"))
    return rows


def limits() -> list[tuple[str, str, str]]:
    """Upper limits at 90 % CL on the magnetic moments, and on the millicharges with and without electrons."""
    rows = []
    for statistic, mu_e, mu_mu in (("2211.11905", "5.0", "2.1"), ("2211.11905-shape", "4.3", "2.7")):
        for es in (False, True):
            like = likelihood(statistic, cevjax.MagneticMoment(), es)
            ends = [cevjax.interval(like, name).intervals[-1][1] for name in ("mu_nu_e", "mu_nu_mu")]
            what = f"mu_nu_e, mu_nu_mu < [1e-9 mu_B], 90 %, {'CEvNS + ES' if es else 'CEvNS'}, `{statistic}`"
            published = "" if es else f"{mu_e}, {mu_mu} (independent fit)"
            rows.append((what, published, ", ".join(f"{1e9 * (end or np.nan):.2f}" for end in ends)))
    for es in (False, True):
        (low, high), *_ = cevjax.interval(likelihood("2211.11905", cevjax.Millicharge(), es), "q_nu_mumu").intervals
        what = f"q_nu_mumu [e], 90 %, {'CEvNS + ES' if es else 'CEvNS'}, `2211.11905`"
        rows.append((what, "ES about 100 times stronger" if es else "", f"[{low:.3g}, {high:.3g}]"))
    return rows


def event_error(fit: cevjax.FitResult) -> float:
    """Standard deviation of the fitted CEvNS events, by linear propagation."""
    like, names = fit.likelihood, fit.names
    fixed = {n: v for n, v in fit.values.items() if n not in names}

    def events(x):
        return like.expected({**fixed, **dict(zip(names, x, strict=True))})[NAME]["cevns"].sum()

    slope = np.asarray(jax.grad(events)(np.array([fit.values[n] for n in names])))
    return float(np.sqrt(slope @ fit.covariance @ slope))


def average_cross_section() -> float:
    """Mean over the three flux components and the two nuclei, 1e-40 cm^2."""
    nuclear = NuclearModel(target("CsI"), form_factor("helm"))
    params = {p.name: p.nominal for p in nuclear.parameters if not p.members}
    sm, flux = cevjax.StandardModel(), PionDecayAtRest()
    values = [
        flux_averaged_cross_section({**params, "sin2_theta_w": 0.23857}, sm, flux, nucleus)
        for nucleus in nuclear.bind(params)
    ]
    return float(np.mean(values)) / 1e-40


def sensitivity() -> list[tuple[str, ...]]:
    """What the minimum and the weak mixing angle do when one choice is changed, for both of the paper's statistics."""
    paper, shape = likelihood("2211.11905"), likelihood("2211.11905-shape")
    rows = []

    def row(label: str, *likes: cevjax.Likelihood, values: dict[str, float] | None = None) -> None:
        cells = []
        for like in likes:
            fit = cevjax.fit(like, ("sin2_theta_w",), values)
            cells += [f"{cevjax.fit(like, values=values).chi2_min:.2f}", f"{fit.values['sin2_theta_w']:.4f}"]
        rows.append((label, *cells, *[""] * (4 - len(cells))))

    row("as defined", paper, shape)
    for shift_ns in (-10, 5, 10, 20):
        values = {"csi2021_timing": shift_ns / 250, "csi2021_efficiency": 0.0}
        row(f"everything from the beam {shift_ns:+d} ns", shape, values=values)
    for events in (1295, 1273, 1267):
        row(f"steady-state background of {events} instead of 1286", steady(paper, events), steady(shape, events))
    return rows


def steady(like: cevjax.Likelihood, events: float) -> cevjax.Likelihood:
    """The same likelihood with another prior for the steady-state background."""
    m = like.measurements[0]
    return cevjax.Likelihood([eqx.tree_at(lambda m: m.components[3].total, m, float(events))], like.interaction)


def figures(folder: Path) -> None:
    like = likelihood("default")
    fit = cevjax.fit(like, ("sin2_theta_w",))
    plots.save(
        plots.spectra(like.measurements[0], fit.expected()[NAME], "COHERENT CsI 2021, best fit"), folder / "fit.png"
    )
    nsi = likelihood("2211.11905", cevjax.NSI())
    plots.save(plots.profile_curve(cevjax.interval(nsi, "eps_dV_ee", cl=0.90)), folder / "eps_dV_ee.png")


def main() -> None:
    cevjax.enable_compilation_cache()
    print(markdown(("what", "published", "cevjax"), table()), end="\n\n")
    header = ("", "`2211.11905` chi2_min (SM)", "sin2_theta_w", "`-shape` chi2_min (SM)", "sin2_theta_w")
    print(markdown(header, sensitivity()))
    if len(sys.argv) > 1:
        figures(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
