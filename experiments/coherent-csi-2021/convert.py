"""Derive data/coherent-csi-2021 from the official release of arXiv:2110.07730.

    python experiments/coherent-csi-2021/convert.py path/to/release

Writes the counts and templates on the analysis bins and the manifest, after asserting that the release is what the
embedded facts (measurement.toml) say it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import exponnorm

from cevjax.constants import TAU_PION
from cevjax.datasets import coherent_csi_2021 as csi
from cevjax.tables import hashes, read_table, read_toml, write_manifest, write_table

OUT = Path(__file__).parents[2] / "data" / csi.NAME
SOURCES = (
    "dataBeamOnC.txt",
    "dataBeamOnAC.txt",
    "brnPE.txt",
    "brnTrec.txt",
    "ninPE.txt",
    "ninTrec.txt",
    "scintRespCoefficients.txt",
    "effCoefficients.txt",
)
FACTS = {
    "name": csi.NAME,
    "title": "COHERENT CsI[Na], full data set",
    "citation": csi.CITATION,
    "source": "ancillary files of arXiv:2110.07730",
    "doi": "10.1103/PhysRevLett.129.081801",
    "licence": "arXiv non-exclusive licence; facts derived with attribution",
    "derived_with": "experiments/coherent-csi-2021/convert.py",
    "units": "photo-electrons (PE), microseconds, events",
    "adds": "single events up to 250 PE and finely binned background templates, for any bins",
    "release": ["https://arxiv.org/src/2110.07730v2/anc/{file}"],
}
PUBLISHED = {"brn": 18.4, "nin": 5.6}  # events with PE < 60 and t < 6 us


def check(release: Path, tables: csi.Tables) -> dict[str, float]:
    """Assert the release against the published totals and the embedded coefficients."""
    facts = read_toml(OUT / "measurement.toml")
    totals = {}
    for name, published in PUBLISHED.items():
        pe, time = (read_table(release / f"{name}{kind}.txt", 2) for kind in ("PE", "Trec"))
        # the time files count the events of all PE, the PE files are normalised below 60 PE
        totals[name] = time[time[:, 0] < 6, 1].sum() * pe[pe[:, 0] < 60, 1].sum() / pe[:, 1].sum()
        assert abs(totals[name] - published) < 0.06, (name, totals[name], published)
        assert abs(totals[name] - facts["backgrounds"][name]["of_templates"]) < 1e-4, name
    assert tables.counts.sum() == 1578 and tables.anticoincident.sum() == 1295
    quenching, efficiency = facts["quenching"], facts["efficiency"]
    curves = [quenching["coefficients"], *quenching["variations"]]
    np.testing.assert_allclose(tables.quenching, curves, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(tables.efficiency, [efficiency[k] for k in ("nominal", "plus", "minus")])
    return totals


def check_pulse(path: Path) -> None:
    """Fit the proton pulse to the arrival times of the prompt nu_mu, and assert that it is the embedded one.

    ``path``: the time projection of the release's flux file, columns t_low (ns), nu_e, nu_mu, ... in even bins.
    """
    table = np.genfromtxt(path, delimiter=",", skip_header=2)
    edges = np.append(table[:, 0], 2 * table[-1, 0] - table[-2, 0]) / 1e3
    fractions = table[:, 2] / table[:, 2].sum()

    def residuals(pulse: np.ndarray) -> np.ndarray:
        mean, sigma = pulse
        return np.diff(exponnorm.cdf(edges, TAU_PION / sigma, mean, sigma)) - fractions

    fit = least_squares(residuals, [0.5, 0.2], xtol=1e-12)
    beam = read_toml(OUT / "measurement.toml")["flux"]
    np.testing.assert_allclose(fit.x, [beam["pulse_mean_us"], beam["pulse_sigma_us"]], atol=1e-4)
    worst = np.abs(fit.fun).max() / fractions.max()
    print(f"pulse: mean {fit.x[0]:.4f} us, sigma {fit.x[1]:.4f} us, residuals up to {100 * worst:.1f} % of the peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--arrival-times", type=Path, help="time projection of the flux file, to check the pulse with")
    options = parser.parse_args()
    release = options.release
    if options.arrival_times:
        check_pulse(options.arrival_times)
    tables = csi.read_release(release)
    totals = check(release, tables)

    pe = np.array(tables.pe_edges)
    edges = ", ".join(f"{t:g}" for t in tables.time_edges)
    write_table(
        OUT / "counts.csv",
        f"coincident events: a row each PE bin, a column each time bin of edges {edges} us",
        tables.counts,
    )
    columns = [pe[:-1], pe[1:], tables.anticoincident, tables.brn_energy, tables.nin_energy]
    header = "PE_low, PE_high, anti-coincident events with t < 6 us, fractions of the BRN and of the NIN with PE < 60"
    write_table(OUT / "energy.csv", header, np.column_stack(columns))
    header = "t_us, fractions of the BRN and of the NIN before t"
    write_table(OUT / "time.csv", header, np.column_stack([csi.TEMPLATE_KNOTS, tables.brn_time, tables.nin_time]))

    derived = [OUT / name for name in ("counts.csv", "energy.csv", "time.csv", "measurement.toml")]
    write_manifest(OUT, FACTS, hashes(derived), hashes(release / name for name in SOURCES))
    print(f"wrote {OUT}: BRN {totals['brn']:.3f}, NIN {totals['nin']:.3f} events")


if __name__ == "__main__":
    main()
