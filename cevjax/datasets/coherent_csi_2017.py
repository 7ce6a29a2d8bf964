"""COHERENT CsI[Na], first observation (arXiv:1708.01294, release arXiv:1804.09459): photo-electrons x arrival time.

The data of 2021 (``coherent-csi-2021``) contain these events: use one or the other.

Statistics:

- ``default``: Poisson likelihood of 12 PE x 12 time bins of the coincident events. SNS flux (10 %, in common with the
  other COHERENT data), the rest of the signal's normalisation (5 %), the scale of quenching, the neutron radius (5 %),
  beam-related neutrons (25 %), and the steady-state background (5 %: the anti-coincident counts, falling
  exponentially).
- ``2005.01645``: coincident less anti-coincident counts in 12 PE bins, variance their sum; signal 11.2 % and quenching
  5.1 %, neutrons 25 %; all arrival times; the quenching of arXiv:1907.04828; couplings ``erler-su``.
- ``1711.09773``: one bin, 142 events; signal 28 %, neutrons 25 %; all arrival times; constant quenching; that paper's
  form factor; tree-level couplings (and sin2_theta_w = 0.2312, to be set).

The number of photo-electrons is a whole number, Poisson-distributed. Nothing tells an electron from a nuclear recoil:
scattering on electrons counts as signal in ``default`` wherever an interaction beyond the standard model acts on
electrons, or as ``es`` says; the other statistics were defined without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..errors import ReleaseFileError, check_flag, check_name
from ..fluxes import PionDecayAtRest, fluence
from ..form_factors import FormFactor
from ..form_factors import form_factor as make_form_factor
from ..measurement import Component, Measurement, Norm, Template, normalisation
from ..nuclear_model import NuclearModel
from ..nuclei import target as known_target
from ..parameters import Parameter, pull
from ..releases import release_path
from ..response import UNQUENCHED, BinnedResponse, PoissonResolution, SigmoidEfficiency, TabulatedQuenching
from ..scattering import coherent_scattering, electron_scattering
from ..tables import data_dir, read_table, read_toml

NAME = "coherent-csi-2017"
CITATION = "COHERENT, arXiv:1708.01294, Science 357 (2017) 1123; data release arXiv:1804.09459"
PE_EDGES = tuple(range(6, 31, 2))
TIME_EDGES = tuple(0.5 * i for i in range(13))
TIMES = ("promptNeutrinos", "delayedNeutrinos", "promptNeutrons")
QUENCHING = ("constant", "birks")
ELECTRON_RECOILS_KEV = (0.05, 5.0)
"""Electron recoils that can reconstruct within the bins, up to 30 PE."""


class Statistic(NamedTuple):
    """What the statistics differ in."""

    quenching: str = "constant"
    form_factor: str = "helm"
    couplings: str = "2023"
    es: bool | None = False  # None: where it matters


STATISTICS = {
    "default": Statistic(es=None),
    "2005.01645": Statistic(quenching="birks", couplings="erler-su"),
    "1711.09773": Statistic(form_factor="helm-1711.09773", couplings="tree"),
}


@dataclass(frozen=True)
class Tables:
    """What comes from a release, on 12 PE x 12 time bins."""

    coincident: np.ndarray
    anticoincident: np.ndarray
    times: np.ndarray  # (12, 3): fractions of prompt and delayed neutrinos and of prompt neutrons
    neutrons: np.ndarray  # (12,): fractions of the neutrons in each PE bin


def load(
    statistic: str = "default",
    quenching: str | None = None,
    release: str | Path | None = None,
    form_factor: str | None = None,
    es: bool | None = None,
) -> Measurement:
    """The measurement.

    Args:
        statistic: ``default``, ``2005.01645`` or ``1711.09773``.
        quenching: ``constant`` (8.78 +- 1.66 %, of the release) or ``birks`` (of arXiv:1907.04828); None for that of
            the statistic.
        release: folder with the files of the official release, or ``fetched``; None for the embedded tables.
        form_factor: ``helm``, ``klein-nystrand``, ``fermi``; None for that of the statistic.
        es: whether scattering on electrons counts as signal; None as in the statistic.

    Raises:
        UnknownNameError: no such statistic, quenching or form factor.
        ReleaseFileError: a file of the release is missing or malformed.

    >>> load().shape, load(statistic="1711.09773").shape
    ((12, 12), (1,))
    """
    choice = STATISTICS[check_name("statistic", statistic, STATISTICS)]
    if es is not None:
        choice = choice._replace(es=check_flag("es", es))
    curve = check_name("quenching", quenching or choice.quenching, QUENCHING)
    tables = read_embedded() if release is None else read_release(release_path(NAME, release))
    facts = read_toml(data_dir(NAME) / "measurement.toml")
    build = {"default": _default, "2005.01645": _spectrum, "1711.09773": _one_bin}[statistic]
    form = make_form_factor(form_factor or choice.form_factor)
    fields = build(tables, facts, Signal(facts, form, curve, choice.es))
    return Measurement(name=NAME, statistic=statistic, couplings=choice.couplings, citation=CITATION, **fields)


class Signal(NamedTuple):
    """The signal of all statistics."""

    facts: dict
    form_factor: FormFactor
    curve: str
    es: bool | None

    def quenching(self, nuisance: str | None) -> TabulatedQuenching:
        entry = self.facts["quenching"][self.curve]
        if self.curve == "birks":
            curve = read_table(data_dir(NAME) / "quenching.csv", 2, "recoil in keV, quenching factor", delimiter=",")
        else:
            curve = np.array([[0.0, entry["factor"]], [1.0, entry["factor"]]])
        return TabulatedQuenching(*curve.T, sigma=entry["relative_error"], nuisance=nuisance)

    def components(
        self,
        norm: Norm,
        norm_of_electrons: Norm,
        edges: tuple[float, ...],
        time: np.ndarray | None = None,
        quenching_nuisance: str | None = None,
        **size,
    ) -> tuple[Component, ...]:
        """Scattering on nuclei, and on electrons unless it is left out; these are not quenched, nor is their norm."""
        detector, beam, response = self.facts["detector"], self.facts["flux"], self.facts["response"]
        target = replace(known_target(detector["target"]), molar_mass=detector["molar_mass"])
        resolution = PoissonResolution(response["light_yield"])
        selection = SigmoidEfficiency(response["efficiency"])
        common = {
            "mass_kg": detector["mass_kg"],
            "flux": PionDecayAtRest(),
            "fluence": fluence(beam["protons_on_target"], beam["per_proton"], detector["baseline_m"]),
            "baseline_m": detector["baseline_m"],
            "time": None if time is None else jnp.asarray(time),
        }
        nuclei = coherent_scattering(
            nuclear=NuclearModel(target, self.form_factor, **size),
            response=BinnedResponse(self.quenching(quenching_nuisance), resolution, selection, edges),
            norm=norm,
            **common,
        )
        if self.es is False:
            return (nuclei,)
        electrons = electron_scattering(
            target=target,
            recoil_kev=ELECTRON_RECOILS_KEV,
            response=BinnedResponse(UNQUENCHED, resolution, selection, edges),
            norm=norm_of_electrons,
            always=bool(self.es),
            **common,
        )
        return nuclei, electrons


def _default(tables: Tables, facts: dict, signal: Signal) -> dict:
    """Poisson likelihood in photo-electrons and time."""
    errors, sizes = facts["uncertainties"], facts["backgrounds"]
    scale = facts["quenching"][signal.curve]["relative_error"]
    nuisances = [
        pull("csi2017_quenching", f"scale of quenching, {100 * scale:g} %"),
        pull("csi2017_radius", "nuclear radius, 5 %"),
    ]
    flux = facts["flux"]["relative_error"]
    prompt, delayed, neutrons = tables.times.T
    norm = normalisation(nuisances, ("sns_flux", flux), ("csi2017_signal", (errors["signal"] ** 2 - flux**2) ** 0.5))
    signals = signal.components(
        norm,
        norm,
        PE_EDGES,
        np.stack([prompt, delayed, delayed]),
        "csi2017_quenching",
        size_nuisance="csi2017_radius",
        size_sigma=errors["radius"],
    )
    steady = tables.anticoincident.sum(axis=1) / tables.anticoincident.sum()
    falling = -np.diff(np.exp(-sizes["ssb"]["rate"] * np.array(TIME_EDGES)))
    shapes = {"brn": np.outer(tables.neutrons, neutrons), "ssb": np.outer(steady, falling / falling.sum())}
    return {
        "axes": (("PE", PE_EDGES), ("t_us", TIME_EDGES)),
        "observed": tables.coincident,
        "components": (*signals, *(_background(nuisances, n, sizes[n], shape) for n, shape in shapes.items())),
        "nuisances": tuple(nuisances),
    }


def _background(nuisances: list[Parameter], name: str, size: dict, shape: np.ndarray) -> Template:
    norm = normalisation(nuisances, (f"csi2017_{name}", size["relative_error"]))
    return Template(name, jnp.asarray(size["total"] * shape), norm)


def _spectrum(tables: Tables, facts: dict, signal: Signal) -> dict:
    """The chi2 of arXiv:2005.01645."""
    nuisances: list[Parameter] = []
    quenching = facts["quenching"]["birks"]["relative_error"]
    norm = normalisation(nuisances, ("csi2017_signal", facts["uncertainties"]["signal"]), ("csi2017_qf", quenching))
    neutrons = _background(nuisances, "brn", facts["backgrounds"]["brn"], tables.neutrons)
    on, off = tables.coincident.sum(axis=1), tables.anticoincident.sum(axis=1)
    return {
        "axes": (("PE", PE_EDGES),),
        "observed": on - off,
        "sigma": np.sqrt(on + off),
        "components": (*signal.components(norm, Norm(norm.pulls[:1]), PE_EDGES), neutrons),
        "nuisances": tuple(nuisances),
    }


def _one_bin(tables: Tables, facts: dict, signal: Signal) -> dict:
    """The chi2 of arXiv:1711.09773."""
    nuisances: list[Parameter] = []
    norm = normalisation(nuisances, ("csi2017_signal", facts["uncertainties"]["signal_with_quenching"]))
    neutrons = _background(nuisances, "brn", facts["backgrounds"]["brn"], np.ones(1))
    edges = (PE_EDGES[0], PE_EDGES[-1])
    on, off = tables.coincident.sum(), tables.anticoincident.sum()
    return {
        "axes": (("PE", edges),),
        "observed": [on - off],
        "sigma": [(on - off + 2 * off + facts["backgrounds"]["brn"]["total"]) ** 0.5],
        "components": (*signal.components(norm, norm, edges), neutrons),
        "nuisances": tuple(nuisances),
    }


def read_embedded() -> Tables:
    """The tables that come with the package."""
    folder = data_dir(NAME)
    events = "events of one PE bin"
    return Tables(
        coincident=read_table(folder / "coincident.csv", 12, events, delimiter=","),
        anticoincident=read_table(folder / "anticoincident.csv", 12, events, delimiter=","),
        times=read_table(folder / "times.csv", 3, "prompt and delayed neutrinos, prompt neutrons", delimiter=","),
        neutrons=read_table(folder / "neutrons.csv", 1, "fraction of the neutrons")[:, 0],
    )


def read_release(folder: Path) -> Tables:
    """The same from the files of the official release.

    Raises:
        ReleaseFileError: a file is missing or malformed.
    """
    times = [read_table(folder / f"arrivalTimePDF_{name}.txt", 2, "us, fraction", delimiter=",") for name in TIMES]
    for name, table in zip(TIMES, times, strict=True):
        in_order = len(table) >= 12 and np.allclose(table[:12, 0], np.arange(12) / 2 + 0.25)
        if not in_order or np.any(table[:, 1] < 0) or not np.any(table[:, 1] > 0):
            path = folder / f"arrivalTimePDF_{name}.txt"
            raise ReleaseFileError(f"File {path}: expected fractions, none negative nor all 0, each 0.5 us from 0 on.")
    return Tables(
        coincident=_read_counts(folder / "data_coincidence_beamOn.txt"),
        anticoincident=_read_counts(folder / "data_anticoincidence_beamOn.txt"),
        times=np.stack([table[:12, 1] for table in times], axis=1),
        # some copies of the release come without this file
        neutrons=_read_neutrons(file) if (file := folder / "promptPDF.txt").exists() else read_embedded().neutrons,
    )


def _read_counts(path: Path) -> np.ndarray:
    table = read_table(path, 3, "PE, us, events", delimiter=",")
    grid = np.stack(np.meshgrid(2.0 * np.arange(25) + 1, np.arange(24) / 2 + 0.25, indexing="ij"), axis=-1)
    if len(table) != 600 or not np.allclose(table[:, :2], grid.reshape(-1, 2)) or np.any(table[:, 2] < 0):
        raise ReleaseFileError(
            f"File {path}: expected 25 x 24 bins of 2 PE x 0.5 us, in order, and no negative counts."
        )
    return table[:, 2].reshape(25, 24)[3:15, :12]


def _read_neutrons(path: Path) -> np.ndarray:
    """Fractions of the selected neutrons in the PE bins, from their density before the selection."""
    table = read_table(path, 2, "PE, density before the selection", delimiter=",")
    in_order = len(table) >= 30 and np.allclose(table[:30, 0], np.arange(30) + 0.5)
    if not in_order or np.any(table[:, 1] < 0) or not np.any(table[6:30, 1] > 0):
        raise ReleaseFileError(
            f"File {path}: expected densities, none negative and not all 0, each photo-electron from 0 on."
        )
    efficiency = SigmoidEfficiency(read_toml(data_dir(NAME) / "measurement.toml")["response"]["efficiency"])
    selected = table[6:30, 1] * np.asarray(efficiency(table[6:30, 0], {}))
    return selected.reshape(12, 2).sum(axis=1) / selected.sum()
