"""COHERENT CENNS-10, liquid argon (arXiv:2003.10630): energy x F90 x recoil time.

The signal is computed from the cross section, with its correlation of energy and time; how events of an energy spread
in F90 (the fraction of the light in the first 90 ns, which tells nuclear from electron recoils and leaves nothing of
scattering on electrons), and all backgrounds, are templates of the official release.

Statistics:

- ``default``: Poisson likelihood of 12 x 8 x 10 cells. SNS flux (10 %, in common with the other COHERENT data), the
  rest of the signal's normalisation (8.7 %), neutron radius (5 %), pulse time (200 ns), F90 of nuclear recoils;
  energies, times and time width of the beam-related neutrons (of the systematic templates that part which their names
  say), and the normalisations of prompt and delayed ones and of the steady-state background. Helm form factor.
- ``2211.11905``: that paper's chi2 of 12 energies x 10 times: sum of squares, the variance N + SS/5 + (1.7 % BRN)^2,
  signal 13 %, BRN 32 % and 100 %, steady state 0.79 %, and the systematic templates of the release, whose two sides
  enter as a sum. Klein-Nystrand form factor, tree-level couplings; arrival times normalised within 6 us.
- ``2005.01645``: background-subtracted energies in 12 bins, signal 13.4 %, BRN 32 % and 100 %; all arrival times.
- ``2003.10630``: the fit of the collaboration: ``default`` with the release's own template of the signal, which has no
  correlation of energy and time, normalised to a free number of events, and no shape nuisances.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..constants import TAU_MUON, TAU_PION
from ..errors import ReleaseFileError, check_name
from ..fluxes import PionDecayAtRest, fluence
from ..form_factors import form_factor as make_form_factor
from ..measurement import Component, Measurement, Morph, Norm, ShapeChange, Spread, Template, normalisation
from ..nuclear_model import NuclearModel
from ..nuclei import target
from ..parameters import Parameter, pull
from ..releases import release_path
from ..response import (
    BinnedResponse,
    BinnedTime,
    ExponentialTimeEfficiency,
    GaussianResolution,
    PolynomialQuenching,
    Pulse,
    TabulatedEfficiency,
)
from ..scattering import Scattering, coherent_scattering
from ..tables import data_dir, read_table, read_toml

NAME = "coherent-lar-2020"
CITATION = "COHERENT, arXiv:2003.10630, Phys. Rev. Lett. 126 (2021) 012002; data release arXiv:2006.12659"
ENERGY_EDGES = tuple(float(e) for e in range(0, 121, 10))
F90_EDGES = tuple(round(0.5 + 0.05 * i, 2) for i in range(9))
TIME_EDGES = tuple(round(-0.1 + 0.5 * i, 1) for i in range(11))
TEMPLATES = {
    "cevns": "cevnspdf",
    "cevns_f90_plus": "cevnspdf+1sigF90",
    "cevns_f90_minus": "cevnspdf-1sigF90",
    "cevns_time": "cevnspdfCEvNSTimingMeanSyst",
    "brn": "brnpdf",
    "brn_energy_plus": "brnpdf+1sigEnergy",
    "brn_energy_minus": "brnpdf-1sigEnergy",
    "brn_time_plus": "brnpdf+1sigBRNTimingMean",
    "brn_time_minus": "brnpdf-1sigBRNTimingMean",
    "brn_width": "brnpdfBRNTimingWidthSyst",
    "brn_delayed": "delbrnpdf",
    "ssb": "bkgpdf",
}
"""Templates and the files of the release that hold them."""


class Statistic(NamedTuple):
    """What the statistics differ in."""

    form_factor: str = "helm"
    couplings: str = "2023"


STATISTICS = {
    "default": Statistic(),
    "2211.11905": Statistic("klein-nystrand", "tree"),
    "2005.01645": Statistic(couplings="erler-su"),
    "2003.10630": Statistic(),
}


@dataclass(frozen=True)
class Tables:
    """The contents of a release; every template is a product of a shape in energy x F90 and one in time."""

    counts: np.ndarray  # (energy, F90, time)
    energy_f90: dict[str, np.ndarray]  # events in (energy, F90), of all times
    time: dict[str, np.ndarray]  # fraction of the events in each time bin
    efficiency: np.ndarray  # rows: keVee, efficiency
    subtracted: np.ndarray  # (energy, 2): data less steady-state background, and its error

    def template(self, name: str) -> np.ndarray:
        """Events in (energy, F90, time)."""
        return self.energy_f90[name][:, :, None] * self.time[name]

    def over_f90(self, name: str) -> np.ndarray:
        """Events in (energy, time)."""
        return self.energy_f90[name].sum(axis=1)[:, None] * self.time[name]


def load(statistic: str = "default", release: str | Path | None = None, form_factor: str | None = None) -> Measurement:
    """The measurement.

    Args:
        statistic: ``default``, ``2211.11905``, ``2005.01645`` or ``2003.10630``.
        release: folder with the files of the official release; ``fetched`` after
            ``cevjax data fetch``; None for the embedded tables, which hold the same.
        form_factor: ``helm``, ``klein-nystrand``, ``fermi``; None for that of the statistic.

    Raises:
        UnknownNameError: no such statistic or form factor.
        ReleaseFileError: a file of the release is missing or malformed.

    >>> load().shape, load(statistic="2211.11905").shape
    ((12, 8, 10), (12, 10))
    """
    choice = STATISTICS[check_name("statistic", statistic, STATISTICS)]
    tables = read_embedded() if release is None else read_release(release_path(NAME, release))
    facts = read_toml(data_dir(NAME) / "measurement.toml")
    build = {
        "default": _default,
        "2211.11905": _energy_time,
        "2005.01645": _energies,
        "2003.10630": _released,
    }[statistic]
    axes, fields = build(tables, facts, make_form_factor(form_factor or choice.form_factor))
    edges = {"E_keVee": ENERGY_EDGES, "F90": F90_EDGES, "t_us": TIME_EDGES}
    return Measurement(
        name=NAME,
        statistic=statistic,
        axes=tuple((axis, edges[axis]) for axis in axes),
        couplings=choice.couplings,
        citation=CITATION,
        **fields,
    )


def _signal(tables: Tables, facts: dict, form_factor, norm: Norm, exposure: dict, time, **size) -> Scattering:
    detector, beam = facts["detector"], facts["flux"]
    return coherent_scattering(
        nuclear=NuclearModel(target(detector["target"]), form_factor, **size),
        mass_kg=exposure["mass_kg"],
        flux=PionDecayAtRest(),
        fluence=fluence(exposure["protons_on_target"], beam["per_proton"], detector["baseline_m"]),
        baseline_m=detector["baseline_m"],
        response=BinnedResponse(
            PolynomialQuenching(facts["quenching"]["coefficients"]),
            GaussianResolution(slope=facts["resolution"]["stochastic_kev"] ** 2),
            TabulatedEfficiency(*tables.efficiency.T),
            ENERGY_EDGES,
            order=4,
            panel=0.5,
        ),
        time=time,
        norm=norm,
        order=40,
    )


def _pulse(facts: dict) -> Pulse:
    prompt, delayed = (TAU_PION,), (TAU_PION, TAU_MUON)
    return Pulse(facts["flux"]["pulse_mean_us"], facts["flux"]["pulse_sigma_us"], [prompt, delayed, delayed])


def _arrivals(facts: dict, nuisance: str | None = None, until: float | None = None) -> BinnedTime:
    always = ExponentialTimeEfficiency(0.0, 0.0)
    return BinnedTime(_pulse(facts), always, TIME_EDGES, nuisance, facts["flux"]["timing_us"], until)


def _default(tables: Tables, facts: dict, form_factor):
    """Poisson likelihood of all cells."""
    errors, shapes, times = facts["uncertainties"], tables.energy_f90, tables.time
    nuisances = [
        pull("lar2020_radius", "nuclear radius, 5 %"),
        pull("lar2020_timing", f"time offset, {facts['flux']['timing_us']:g} us"),
    ]
    flux = facts["flux"]["relative_error"]
    own = (errors["signal"] ** 2 - errors["form_factor"] ** 2 - flux**2) ** 0.5
    signal = _signal(
        tables,
        facts,
        form_factor,
        normalisation(nuisances, ("sns_flux", flux), ("lar2020_signal", own)),
        {**facts["detector"], **facts["flux"]},
        _arrivals(facts, nuisance="lar2020_timing"),
        size_nuisance="lar2020_radius",
        size_sigma=errors["radius"],
    )
    in_f90 = _fractions(shapes["cevns"])
    plus, minus = (_fractions(shapes[f"cevns_f90_{side}"]) for side in ("plus", "minus"))
    f90 = ShapeChange((Morph.of_logarithms("lar2020_f90", in_f90, plus, minus),), axes=(1,))
    energy = [
        shapes[f"brn{side}"][:, :, None] / shapes[f"brn{side}"].sum() for side in ("", "_energy_plus", "_energy_minus")
    ]
    time = [times[f"brn{side}"] for side in ("", "_time_plus", "_time_minus", "_width")]
    morphs = (
        Morph.of_logarithms("lar2020_brn_energy", *energy),
        Morph.of_logarithms("lar2020_brn_time", *time[:3]),
        Morph.of_logarithms("lar2020_brn_width", time[0], time[3]),
    )
    nuisances += [pull(m.pull, "systematic templates") for m in (*f90.morphs, *morphs)]
    components = (
        Spread("cevns", signal, jnp.asarray(in_f90), f90),
        *_backgrounds(tables, facts, nuisances, ShapeChange(morphs)),
    )
    return ("E_keVee", "F90", "t_us"), {
        "observed": tables.counts,
        "components": components,
        "nuisances": tuple(nuisances),
    }


def _backgrounds(
    tables: Tables, facts: dict, nuisances: list[Parameter], neutrons: ShapeChange | None = None
) -> tuple[Component, ...]:
    """Prompt and delayed neutrons and the steady-state background in all cells."""
    errors = facts["uncertainties"]
    return tuple(
        Template(
            name,
            jnp.asarray(tables.template(name)),
            normalisation(nuisances, (f"lar2020_{name}", errors[name])),
            neutrons if name == "brn" else None,
        )
        for name in ("brn", "brn_delayed", "ssb")
    )


def _fractions(events: np.ndarray) -> np.ndarray:
    """Fractions of the events of each energy in each F90 bin; energies without events take those of the one before."""
    total = events.sum(axis=1, keepdims=True)
    known = (total > 1e-3)[:, 0]
    fractions = np.divide(events, total, out=np.zeros_like(events), where=known[:, None])
    last = np.flatnonzero(known)[-1]
    fractions[last + 1 :] = fractions[last]
    return fractions


def _released(tables: Tables, facts: dict, form_factor):
    """The signal's template of the release with a free number of events: no interaction moves it."""
    nuisances = [
        Parameter(
            "lar2020_cevns", unit="of 128 events", bounds=(-1.0, 10.0), nuisance=True,
            description="number of CEvNS events, less those predicted by the release",
        )
    ]  # fmt: skip
    signal = Template("cevns", jnp.asarray(tables.template("cevns")), Norm((("lar2020_cevns", 1.0),)))
    components = (signal, *_backgrounds(tables, facts, nuisances))
    return ("E_keVee", "F90", "t_us"), {
        "observed": tables.counts,
        "components": components,
        "nuisances": tuple(nuisances),
    }


def _energy_time(tables: Tables, facts: dict, form_factor):
    """The chi2 of arXiv:2211.11905."""
    counts = {name: tables.over_f90(name) for name in TEMPLATES}
    nuisances: list[Parameter] = []

    def summed(label: str, of: str, *sides: str) -> Morph:
        """The paper adds the relative changes of all templates under one pull."""
        nominal = np.where(counts[of] > 0, counts[of], np.inf)
        changes = [np.where(counts[of] > 0, counts[f"{of}_{side}"] / nominal - 1, 0.0) for side in sides]
        return Morph(f"lar2020_{label}", jnp.asarray(sum(changes)))

    signal = _signal(
        tables,
        facts,
        form_factor,
        normalisation(
            nuisances,
            ("lar2020_signal", facts["papers"]["signal"]),
            morphs=(summed("f90", "cevns", "f90_plus", "f90_minus"), summed("timing", "cevns", "time")),
        ),
        facts["papers"],
        _arrivals(facts, until=facts["papers"]["normalised_until_us"]),
    )
    brn_morphs = (
        summed("brn_energy", "brn", "energy_plus", "energy_minus"),
        summed("brn_time", "brn", "time_plus", "time_minus"),
        summed("brn_width", "brn", "width"),
    )
    errors = facts["uncertainties"]
    backgrounds = tuple(
        Template(
            name,
            jnp.asarray(counts[name]),
            normalisation(nuisances, (f"lar2020_{name}", errors[name]), morphs=brn_morphs if name == "brn" else ()),
        )
        for name in ("brn", "brn_delayed", "ssb")
    )
    observed = tables.counts.sum(axis=1)
    neutrons = counts["brn"] + counts["brn_delayed"]
    return ("E_keVee", "t_us"), {
        "observed": observed,
        "sigma": np.sqrt(observed + counts["ssb"] / 5 + (errors["brn_shape"] * neutrons) ** 2),
        "components": (signal, *backgrounds),
        "nuisances": tuple(nuisances),
    }


def _energies(tables: Tables, facts: dict, form_factor):
    """The chi2 of arXiv:2005.01645."""
    errors = facts["uncertainties"]
    nuisances: list[Parameter] = []
    norm = normalisation(nuisances, ("lar2020_signal", errors["signal"]))
    signal = _signal(tables, facts, form_factor, norm, facts["papers"], None)
    neutrons = {name: tables.energy_f90[name].sum(axis=1) for name in ("brn", "brn_delayed")}
    backgrounds = tuple(
        Template(name, jnp.asarray(counts), normalisation(nuisances, (f"lar2020_{name}", errors[name])))
        for name, counts in neutrons.items()
    )
    spread = errors["brn_shape"] * (neutrons["brn"] + neutrons["brn_delayed"])
    return ("E_keVee",), {
        "observed": tables.subtracted[:, 0],
        "sigma": np.hypot(tables.subtracted[:, 1], spread),
        "components": (signal, *backgrounds),
        "nuisances": tuple(nuisances),
    }


def read_embedded() -> Tables:
    """The tables that come with the package."""
    folder, names = data_dir(NAME), list(TEMPLATES)
    shape = len(ENERGY_EDGES) - 1, len(F90_EDGES) - 1
    cells = read_table(folder / "energy_f90.csv", len(names), ", ".join(names), delimiter=",")
    times = read_table(folder / "time.csv", len(names), ", ".join(names), delimiter=",")
    return Tables(
        counts=read_table(folder / "counts.csv", 10, "counts of one energy and F90", delimiter=",").reshape(*shape, 10),
        energy_f90={name: cells[:, i].reshape(shape) for i, name in enumerate(names)},
        time={name: times[:, i] for i, name in enumerate(names)},
        efficiency=read_table(folder / "efficiency.csv", 2, "keVee, efficiency", delimiter=","),
        subtracted=read_table(folder / "energies.csv", 2, "events, error", delimiter=","),
    )


def read_release(folder: Path) -> Tables:
    """The same from the files of the official release, in its folders or all in one.

    Raises:
        ReleaseFileError: a file is missing or malformed.
    """
    energy_f90, time = {}, {}
    for name, file in TEMPLATES.items():
        path = _find(folder, f"{file}.txt")
        cells = _read_cells(path)
        time[name] = cells.sum(axis=(0, 1)) / cells.sum()
        energy_f90[name] = cells.sum(axis=2)
        if np.max(np.abs(energy_f90[name][:, :, None] * time[name] - cells)) > 1e-5 * np.max(cells):
            raise ReleaseFileError(f"File {path}: expected a product of energy x F90 and time.")
    for name in TEMPLATES:  # one of the variations is not normalised like its nominal template
        nominal = name.split("_")[0]
        if name not in ("brn_delayed", "ssb", nominal):
            energy_f90[name] *= energy_f90[nominal].sum() / energy_f90[name].sum()
    return Tables(
        counts=_read_cells(_find(folder, "datanobkgsub.txt")),
        energy_f90=energy_f90,
        time=time,
        efficiency=_read_efficiency(_find(folder, "CENNS10AnlAEfficiency.txt")),
        subtracted=_read_energies(_find(folder, "energydata1d.txt")),
    )


def _read_efficiency(path: Path) -> np.ndarray:
    table = read_table(path, 3, "keVee, keVnr, efficiency")[:, [0, 2]]
    if np.any(np.diff(table[:, 0]) <= 0) or table[-1, 0] < 39 or np.any((table[:, 1] < 0) | (table[:, 1] > 1)):
        raise ReleaseFileError(f"File {path}: expected efficiencies from 0 to 1 at energies that increase to 40 keVee.")
    return table


def _read_energies(path: Path) -> np.ndarray:
    table = read_table(path, 8, "keVee, data, error, CEvNS, BRN, sum, systematic low, high", skip=1)
    if len(table) != 12 or not np.allclose(table[:, 0], np.arange(5, 120, 10)) or np.any(table[:, 2] <= 0):
        raise ReleaseFileError(f"File {path}: expected 12 energies from 5 to 115 keVee in order, with errors above 0.")
    return table[:, 1:3]


def _find(folder: Path, name: str) -> Path:
    places = (folder, folder / "SystErrors", folder / "OneDProjections")
    return next((place / name for place in places if (place / name).is_file()), folder / name)


def _read_cells(path: Path) -> np.ndarray:
    table = read_table(path, 4, "keVee, F90, us, events")
    edges = (ENERGY_EDGES, F90_EDGES, TIME_EDGES)
    centres = [(np.array(e)[1:] + np.array(e)[:-1]) / 2 for e in edges]
    expected = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 3)
    if table.shape[0] != len(expected) or not np.allclose(table[:, :3], expected, atol=1e-6):
        raise ReleaseFileError(f"File {path}: expected the {len(expected)} cells of energy x F90 x time in order.")
    if np.any(table[:, 3] < 0):
        raise ReleaseFileError(f"File {path}: expected no negative content, found {table[:, 3].min():g}.")
    if not np.any(table[:, 3]):
        raise ReleaseFileError(f"File {path}: expected some content, found none.")
    return table[:, 3].reshape([len(c) for c in centres])
