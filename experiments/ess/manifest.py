"""Write the manifest of data/future, the detectors that are described there.

python experiments/ess/manifest.py
"""

from pathlib import Path

from cevjax.tables import hashes, write_manifest

OUT = Path(__file__).parents[2] / "data" / "future"
FACTS = {
    "name": "future",
    "title": "Forecasts: detectors at the European Spallation Source, and coming detectors of COHERENT",
    "citation": "Baxter et al., arXiv:1911.00762, JHEP 02 (2020) 123; COHERENT",
    "source": "ESS: arXiv:1911.00762, table 1, with backgrounds before the reduction by the duty factor, assumed to be "
    "known to 1 %, per keV of the energy axis. COHERENT: plans of the collaboration, with response and backgrounds of "
    "arXiv:2003.10630 for argon. What is assumed is marked in each measurement.toml",
    "doi": "10.1007/JHEP02(2020)123",
    "licence": "facts derived with attribution",
    "derived_with": "experiments/ess/manifest.py; the files hold the published numbers as they are",
    "units": "kg, m, keV, microseconds; named in the keys",
    "adds": "there is no release",
    "release": [],
}

if __name__ == "__main__":
    files = sorted(path for path in OUT.glob("*/*") if path.is_file())
    write_manifest(OUT, FACTS, hashes(files, OUT))
