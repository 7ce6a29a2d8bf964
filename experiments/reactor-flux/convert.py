"""Derive data/reactor-flux from published tables of antineutrino spectra.

    python experiments/reactor-flux/convert.py path/to/tables

``path/to/tables`` holds the summation spectra of Vogel & Engel a file an isotope, Kopeikin's table of the total
spectrum, the summation spectra of Estienne, Fallot et al. and a digitisation of the spectrum after neutron capture on
U238. The summation spectra (E/MeV, then the four isotopes as below, 100 keV apart) are those that the public
repository geoneutrinos/reactors keeps. Written are the nodes up to 2 MeV (of the digitised curve those that describe it
to 1 % of its peak, scaled to two antineutrinos a capture), of the summation spectra those from there on, and the
manifest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cevjax.tables import hashes, thin, write_manifest, write_table

OUT = Path(__file__).parents[2] / "data" / "reactor-flux"
ISOTOPES = ("U235", "U238", "Pu239", "Pu241")
PER_FISSION = {"U235": 5.72, "U238": 6.79, "Pu239": 5.13, "Pu241": 5.91}  # 0-8 MeV
CAPTURES = 0.6  # on U238 for each fission, two antineutrinos each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    folder = parser.parse_args().tables
    OUT.mkdir(parents=True, exist_ok=True)

    spectra = [np.loadtxt(folder / f"spectraMeV{isotope}.txt") for isotope in ISOTOPES]
    for isotope, table in zip(ISOTOPES, spectra, strict=True):
        assert abs(np.trapezoid(table[:, 1], table[:, 0]) - PER_FISSION[isotope]) < 0.01, isotope
    low = spectra[0][:, 0] <= 2
    columns = [spectra[0][low, 0], *(np.interp(spectra[0][low, 0], *table.T) for table in spectra)]
    write_table(
        OUT / "vogel_engel.csv",
        "E/MeV, antineutrinos per MeV and fission of U235, U238, Pu239, Pu241",
        np.stack(columns, 1),
    )

    total = np.loadtxt(folder / "kopeikin2012_table3.csv", delimiter=",", skiprows=2)
    assert abs(np.trapezoid(total[:, 1], total[:, 0]) - 6.67) < 0.01
    write_table(
        OUT / "kopeikin.csv",
        "E/MeV, antineutrinos per MeV and fission, all isotopes and captures",
        total[total[:, 0] <= 2],
    )

    capture = np.loadtxt(folder / "spectraMeVU238Ncapture.txt")
    kept = thin(capture[np.argsort(capture[:, 0])], 0.01 * capture[:, 1].max())
    assert len(kept) < 60
    kept = np.round(kept, 5)
    from_zero = np.vstack([[0.0, 0.0], kept])
    kept[:, 1] *= 2 * CAPTURES / np.trapezoid(from_zero[:, 1], from_zero[:, 0])
    write_table(OUT / "neutron_capture.csv", "E/MeV, antineutrinos per MeV and fission, 1.2 in all", kept)

    summation = np.genfromtxt(folder / "estienne_fallot_2019.csv", delimiter=",", skip_header=3)
    above = summation[summation[:, 0] > 1.9]
    assert above[0, 0] < 2 < above[-1, 0] - 8
    header = "E/MeV, antineutrinos per MeV and fission of U235, U238, Pu239, Pu241 (U235 after 4500 d, others 450 d)"
    write_table(OUT / "estienne_fallot.csv", header, above)

    facts = {
        "name": "reactor-flux",
        "title": "Reactor antineutrino spectra: tables",
        "citation": "Huber, arXiv:1106.0687; Mueller et al., arXiv:1101.2663; and the sources below",
        "source": "Vogel & Engel, Phys. Rev. D 39 (1989) 3378, table I; Kopeikin, Phys. Atom. Nucl. 75 (2012) 143, "
        "table 3 (as typed by a third party); Estienne, Fallot et al., Phys. Rev. Lett. 123 (2019) 022502, summation "
        "spectra (as stored by a third party); spectrum after neutron capture on U238, digitised by a third party",
        "doi": "10.1103/PhysRevD.39.3378, 10.1134/S1063778812020123, 10.1103/PhysRevLett.123.022502",
        "licence": "facts derived with attribution",
        "derived_with": "experiments/reactor-flux/convert.py",
        "units": "MeV, antineutrinos per MeV and fission",
        "adds": "there is no release",
        "release": [],
    }
    write_manifest(OUT, facts, hashes(sorted(OUT.glob("*.csv"))))


if __name__ == "__main__":
    main()
