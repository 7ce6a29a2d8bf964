"""Derive data/conus-plus-2025 from a digitisation of the excess of arXiv:2501.05206.

    python experiments/conus-plus-2025/convert.py path/to/excess_digitised.csv

The file, of a third party, holds bins in eV, the excess per kg and 10 eV in 119 days, and its error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cevjax.datasets import conus_plus_2025 as conus
from cevjax.tables import hashes, write_manifest, write_table

OUT = Path(__file__).parents[2] / "data" / conus.NAME
FACTS = {
    "name": conus.NAME,
    "title": "CONUS+ at Leibstadt, germanium",
    "citation": conus.CITATION,
    "source": "figure of arXiv:2501.05206, digitised by a third party",
    "doi": "10.1038/s41586-025-09322-2",
    "licence": "facts derived with attribution",
    "derived_with": "experiments/conus-plus-2025/convert.py",
    "units": "keVee, counts per kg and bin in 119 days",
    "adds": "there is no official release",
    "release": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digitised", type=Path)
    table = np.loadtxt(parser.parse_args().digitised, delimiter=",", skiprows=2)
    assert table.shape == (19, 4) and np.all(np.diff(table[:, 0]) == 10)
    total, error = table[:, 2].sum(), np.sqrt(np.sum(table[:, 3] ** 2))
    print(f"excess {total:.1f} +- {error:.1f} per kg in 119 days; {total * 327 / 119:.0f} counts in 327 kg days")
    table[:, :2] /= 1e3
    write_table(OUT / "excess.csv", "E_low/keVee, E_high/keVee, excess per kg in 119 days, its error", table)
    write_manifest(OUT, FACTS, hashes([OUT / "excess.csv", OUT / "measurement.toml"]))


if __name__ == "__main__":
    main()
