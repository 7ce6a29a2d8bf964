"""Derive data/coherent-csi-2017 from the official release, arXiv:1804.09459.

    python experiments/coherent-csi-2017/convert.py path/to/release

Writes the counts, arrival times and the neutrons' photo-electrons on the analysis bins; and the quenching curve of
arXiv:1907.04828 as modelled here, after checking what measurement.toml says against the release.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from cevjax.constants import AVOGADRO
from cevjax.datasets import coherent_csi_2017 as csi
from cevjax.tables import hashes, read_toml, thin, write_manifest, write_table

OUT = Path(__file__).parents[2] / "data" / csi.NAME
FACTS = {
    "name": csi.NAME,
    "title": "COHERENT CsI[Na], first observation",
    "citation": csi.CITATION,
    "source": "data release arXiv:1804.09459",
    "doi": "10.5281/zenodo.1228631",
    "licence": "CC-BY-4.0",
    "derived_with": "experiments/coherent-csi-2017/convert.py",
    "units": "photo-electrons (PE), microseconds, events; recoil energy in keV",
    "adds": "times up to 12 us, up to 50 PE, and the data with the beam off",
    "release": [
        "https://zenodo.org/records/1228631/files/{file}?download=1",
        "https://zenodo.org/api/records/1228631/files/{file}/content",
    ],
}


RELEASE = {  # as published: a copy may lack the comments
    "data_coincidence_beamOn.txt": "e6cfa6d22345721a0af8abb9db938c0e5d9785c698c98d9305964aeebf31aa50",
    "data_coincidence_beamOff.txt": "05f493ab3b085a1fdacce9d4969dd2764a64efd940a14c61de7bd7d471dd1b6b",
    "data_anticoincidence_beamOn.txt": "3008578093927748e872ef4e01343b9833bd90ee0548260a88114723681f5b3d",
    "data_anticoincidence_beamOff.txt": "5ce17b22eb1c050705c28808e124ef571625a9c6668517c957db5367cb58cead",
    "arrivalTimePDF_promptNeutrinos.txt": "017c47dcbdedd4ba65f6cb604f350d219dd1a212e15c669c8bd8b2015f8c8ee9",
    "arrivalTimePDF_delayedNeutrinos.txt": "50f6c7830a718674f5983116e3b7b2d5100e1a1f041ba107dd3b25e3f07d8fe0",
    "arrivalTimePDF_promptNeutrons.txt": "0119ea56f000eda98b7637282040b2641784e856fc3125e722e9eff9fb289652",
    "promptPDF.txt": "6e74171096abb2e9a3fac3c1b1c85f3973501627b88b2a83de7e7e5121601efa",
    "coherent_parameters.yaml": "daa4f3feaeb5499cb1d876f8ea39f3cfd571f998a6ab92e9cdf552afc78b67e8",
}


def quenching(T: np.ndarray, k_B: float = 3.311e-3, E_a: float = 12.97) -> np.ndarray:
    r"""The modified Birks model of arXiv:1907.04828, :math:`(1 - e^{-T/E_a})/(k_B\,dE/dx)`; T in keV.

    The stopping powers are approximations to the tables that the paper uses: ZBL for nuclei, Lindhard-Scharff for
    electrons, of an ion of mean charge and mass in CsI. k_B in g/MeV/cm2, E_a in keV.
    """
    Z, A = 54.0, 129.9
    epsilon = 32.53 * T / (2 * Z**2 * 2 * Z**0.23)
    reduced = np.log1p(1.1383 * epsilon) / (2 * (epsilon + 0.01321 * epsilon**0.21226 + 0.19593 * np.sqrt(epsilon)))
    nuclear = 8.462 * Z**2 / (2 * 2 * Z**0.23) * reduced  # eV cm2 / 1e15 atoms
    electronic = 19.2 * Z ** (7 / 6) * Z / (2 * Z ** (2 / 3)) ** 1.5 * np.sqrt(T / A / 24.98)
    return -np.expm1(-T / E_a) / (k_B * (nuclear + electronic) * 1e-21 * AVOGADRO / A)


def fall(anticoincident: np.ndarray) -> float:
    """Rate (1/us) of the exponential that describes the times of the anti-coincident events best."""
    t = np.arange(12) / 2 + 0.25
    mean = anticoincident.sum(axis=0) @ t / anticoincident.sum()
    return float(brentq(lambda r: (t @ np.exp(-r * t)) / np.exp(-r * t).sum() - mean, -1, 1))  # pyright: ignore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    release = parser.parse_args().release
    tables = csi.read_release(release)
    assert tables.coincident.sum() == 547 and tables.anticoincident.sum() == 405
    facts = read_toml(OUT / "measurement.toml")
    rate = fall(tables.anticoincident)
    assert abs(rate - facts["backgrounds"]["ssb"]["rate"]) < 1e-3, rate

    header = "events, a row each 2 PE from 6 to 30, a column each 0.5 us from 0 to 6"
    write_table(OUT / "coincident.csv", header, tables.coincident)
    write_table(OUT / "anticoincident.csv", header, tables.anticoincident)
    header = "fractions of prompt neutrinos, delayed neutrinos, prompt neutrons, a row each 0.5 us"
    write_table(OUT / "times.csv", header, tables.times)
    header = "fraction of the selected neutrons, a row each 2 PE from 6 to 30"
    write_table(OUT / "neutrons.csv", header, np.round(tables.neutrons[:, None], 6))
    recoils = np.concatenate([[0.0], np.geomspace(0.05, 60, 2000)])
    curve = np.stack([recoils, quenching(np.maximum(recoils, 1e-3))], axis=1)
    curve[0, 1] = curve[1, 1]
    header = "recoil energy/keV, quenching factor: modified Birks model of arXiv:1907.04828"
    write_table(OUT / "quenching.csv", header, np.round(thin(curve, 1e-5), 6))

    write_manifest(OUT, FACTS, hashes([*sorted(OUT.glob("*.csv")), OUT / "measurement.toml"]), RELEASE)
    print(f"wrote {OUT}: steady state falls with {rate:.4f}/us")


if __name__ == "__main__":
    main()
