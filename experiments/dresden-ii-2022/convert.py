"""Derive data/dresden-ii-2022 from the ancillary files of arXiv:2202.09672.

    python experiments/dresden-ii-2022/convert.py path/to/release

Writes the spectrum with the reactor on in its 130 bins, the two quenching curves on the nodes that describe them to
1e-5, and the manifest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cevjax.datasets import dresden_ii_2022 as dresden
from cevjax.tables import hashes, thin, write_manifest, write_table

OUT = Path(__file__).parents[2] / "data" / dresden.NAME
FILES = ("data_release.txt", "QF_Fef_YBe.txt")
FACTS = {
    "name": dresden.NAME,
    "title": "Dresden-II reactor, germanium",
    "citation": dresden.CITATION,
    "source": "ancillary files of arXiv:2202.09672",
    "doi": "10.1103/PhysRevLett.129.211802",
    "licence": "arXiv non-exclusive licence; facts derived with attribution",
    "derived_with": "experiments/dresden-ii-2022/convert.py",
    "units": "keVee, counts per 10 eV, 3 kg and day",
    "adds": "the spectrum with the reactor off, and the quenching curves on a grid of 10 eV",
    "release": ["https://arxiv.org/src/2202.09672/anc/{file}"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    release = parser.parse_args().release
    spectrum, curves = dresden.read_release(release)
    header = "E_low/keVee, E_high/keVee, rate with the reactor on, its error"
    write_table(OUT / "spectrum.csv", header, spectrum)
    recoils = np.unique(np.concatenate([thin(curves[:, [0, k]], 1e-5)[:, 0] for k in (1, 2)]))
    kept = np.column_stack([recoils, *(np.interp(recoils, curves[:, 0], curves[:, k]) for k in (1, 2))])
    write_table(OUT / "quenching.csv", "recoil energy/keV, quenching factors fef, ybe", kept)
    derived = [OUT / name for name in ("spectrum.csv", "quenching.csv", "measurement.toml")]
    write_manifest(OUT, FACTS, hashes(derived), hashes(release / name for name in FILES))
    print(f"wrote {OUT}: {len(spectrum)} bins, {len(kept)} nodes")


if __name__ == "__main__":
    main()
