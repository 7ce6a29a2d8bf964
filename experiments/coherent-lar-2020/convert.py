"""Derive data/coherent-lar-2020 from the official release, arXiv:2006.12659.

    python experiments/coherent-lar-2020/convert.py path/to/release

Every template of the release is the product of a shape in energy x F90 and one in time, so these are what is written,
with the counts, the efficiency and the background-subtracted energies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cevjax.datasets import coherent_lar_2020 as lar
from cevjax.tables import hashes, write_manifest, write_table

OUT = Path(__file__).parents[2] / "data" / lar.NAME
FACTS = {
    "name": lar.NAME,
    "title": "COHERENT CENNS-10, liquid argon",
    "citation": lar.CITATION,
    "source": "data release arXiv:2006.12659",
    "doi": "10.5281/zenodo.3903810",
    "licence": "CC-BY-4.0",
    "derived_with": "experiments/coherent-lar-2020/convert.py",
    "units": "keVee, microseconds, events",
    "adds": "projections on F90 and time with their systematic errors",
    "release": [
        "https://zenodo.org/records/3903810/files/{file}?download=1",
        "https://zenodo.org/api/records/3903810/files/{file}/content",
    ],
}
PUBLISHED = {"cevns": 128, "brn": 497, "brn_delayed": 33, "ssb": 3152}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    release = parser.parse_args().release
    tables = lar.read_release(release)
    for name, events in PUBLISHED.items():
        assert abs(tables.energy_f90[name].sum() - events) < 0.01, name
    assert tables.counts.sum() == 3752
    counts = tables.counts.reshape(-1, 10)
    write_table(OUT / "counts.csv", "a row each energy (0-120 keVee) and F90 (0.5-0.9), a column each time", counts)
    names = ", ".join(lar.TEMPLATES)
    rows = np.stack([t.ravel() for t in tables.energy_f90.values()], axis=1)
    write_table(OUT / "energy_f90.csv", f"events, a row each energy and F90: {names}", np.round(rows, 6))
    rows = np.stack(list(tables.time.values()), axis=1)
    write_table(OUT / "time.csv", f"fractions, a row each time bin: {names}", np.round(rows, 9))
    write_table(OUT / "efficiency.csv", "E/keVee, efficiency", tables.efficiency)
    header = "events less steady-state background, statistical error, a row each energy"
    write_table(OUT / "energies.csv", header, tables.subtracted)
    files = [*lar.TEMPLATES.values(), "datanobkgsub", "CENNS10AnlAEfficiency", "energydata1d"]
    of_release = hashes(release / f"{name}.txt" for name in files)
    write_manifest(OUT, FACTS, hashes([*sorted(OUT.glob("*.csv")), OUT / "measurement.toml"]), of_release)
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
