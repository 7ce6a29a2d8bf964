"""COHERENT CsI[Na], full data set (arXiv:2110.07730): photo-electrons times recoil time.

Nothing tells an electron from a nuclear recoil in this detector, so neutrino-electron scattering counts as signal
(component ``es``): in ``default`` wherever an interaction beyond the standard model acts on electrons (in the standard
model alone it is 1e-4 events), and with ``es=True`` always; the other statistics were defined without it.

Statistics:

- ``default``: every source of uncertainty as its own nuisance with a unit constraint: flux, both eigen-variations of
  the quenching, efficiency, timing (250 ns, and bounded there), neutron radius (5 %), and the BRN, NIN and steady-state
  normalisations. Helm form factor.
- ``2211.11905``: that paper's chi2 with timing and efficiency at nominal: signal 11 %, BRN 25 %, NIN 35 %, SSB 2.1 %,
  radius 5 %. Klein-Nystrand form factor, tree-level couplings. With ``es``: signal 10 %, and 3.8 % of quenching on
  CEvNS.
- ``2211.11905-shape``: the same with timing and efficiency free within their ranges, without penalty.
- ``2211.11905-window``: the same, with arrival times normalised within the 6 us of the data, as it is done for argon in
  that paper: 334 signal events instead of 311. It is closest to the published limits (experiments/2211.11905).
- ``2303.09360``: signal 12 %, BRN 25 %, NIN 35 %, SSB 2.1 %; Helm form factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ..constants import TAU_MUON, TAU_PION
from ..errors import InvalidValueError, ReleaseFileError, check_flag, check_name
from ..fluxes import PionDecayAtRest, fluence
from ..form_factors import form_factor as make_form_factor
from ..measurement import Background, Measurement, Norm, check_edges, normalisation
from ..nuclear_model import NuclearModel
from ..nuclei import Target, compound
from ..parameters import Parameter, pull
from ..releases import release_path
from ..response import (
    UNQUENCHED,
    BinnedResponse,
    BinnedTime,
    ExponentialTimeEfficiency,
    GammaResolution,
    PolynomialQuenching,
    Pulse,
    SigmoidEfficiency,
    TimeTemplate,
)
from ..scattering import coherent_scattering, electron_scattering
from ..tables import data_dir, read_table, read_toml

NAME = "coherent-csi-2021"
CITATION = "COHERENT, arXiv:2110.07730, Phys. Rev. Lett. 129 (2022) 081801"
PE_EDGES = (0, 8, 12, 16, 20, 24, 32, 40, 50, 60)
TIME_EDGES = (0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 2, 4, 6)
ELECTRON_RECOILS_KEV = (0.05, 10.0)
"""Electron recoils that can reconstruct within the region of interest, up to 60 PE."""
TEMPLATE_KNOTS = np.round(np.arange(-0.25, 6.2501, 0.01), 10)

Role = Literal["fixed", "constrained", "free"]


class Statistic(NamedTuple):
    """What varies, and by how much: the part in which the papers differ."""

    signal: tuple[tuple[str, float], ...]
    signal_with_es: tuple[tuple[str, float], ...] = ()
    quenching: Role = "fixed"
    efficiency: Role = "fixed"
    timing: Role = "fixed"
    radius: Role = "constrained"
    radius_of_protons: bool = False
    form_factor: str = "helm"
    couplings: str = "2023"
    es: bool | None = False  # None: where it matters
    within_window: bool = False  # where arrival times are normalised, instead of at all times


_PAPER = Statistic(
    (("csi2021_signal", 0.11),),
    signal_with_es=(("csi2021_signal", 0.10), ("csi2021_qf", 0.038)),
    radius_of_protons=True,
    form_factor="klein-nystrand",
    couplings="tree",
)
STATISTICS = {
    "default": Statistic(
        (("sns_flux", 0.10),), quenching="constrained", efficiency="constrained", timing="constrained", es=None
    ),
    "2211.11905": _PAPER,
    "2211.11905-shape": _PAPER._replace(efficiency="free", timing="free"),
    "2211.11905-window": _PAPER._replace(efficiency="free", timing="free", within_window=True),
    "2303.09360": Statistic((("csi2021_signal", 0.12),), radius="fixed"),
}


@dataclass(frozen=True)
class Tables:
    """The data and templates on analysis bins, from the embedded tables or from a release."""

    pe_edges: tuple[float, ...]
    time_edges: tuple[float, ...]
    counts: np.ndarray  # (PE, t), coincident events
    anticoincident: np.ndarray  # (PE,), within the region of interest in time
    anticoincident_total: float  # in the region of interest
    brn_energy: np.ndarray  # fraction of the events with PE < 60 in each PE bin
    nin_energy: np.ndarray
    brn_time: np.ndarray  # fraction of the events before each of TEMPLATE_KNOTS
    nin_time: np.ndarray
    quenching: np.ndarray  # (1 + variations, coefficients): nominal, then +1 sigma shifts
    efficiency: np.ndarray  # (3, 4): nominal, +1 sigma, -1 sigma


def load(
    statistic: str = "default",
    release: str | Path | None = None,
    pe_edges: ArrayLike | None = None,
    time_edges: ArrayLike | None = None,
    form_factor: str | None = None,
    es: bool | None = None,
) -> Measurement:
    """The measurement.

    Args:
        statistic: ``default``, ``2211.11905``, ``2211.11905-shape``, ``2211.11905-window`` or ``2303.09360``.
        release: folder with the files of the official release, or ``fetched`` after ``cevjax data fetch``; None for the
            embedded 9 x 11 bins.
        pe_edges, time_edges: bins in photo-electrons (up to 250) and us (up to 6); other than the default ones need
            ``release``.
        form_factor: ``helm``, ``klein-nystrand``, ``fermi``; None for that of the statistic.
        es: whether scattering on electrons, which the detector cannot tell, counts as signal; None as in the statistic,
            which for ``default`` is where it matters.

    Raises:
        UnknownNameError: no such statistic or form factor.
        InvalidValueError: unusable bins, or bins without a release to take them from.
        ReleaseFileError: a file of the release is missing or malformed.

    >>> load(statistic="2303.09360").shape
    (9, 11)
    """
    choice = STATISTICS[check_name("statistic", statistic, STATISTICS)]
    if form_factor is not None:
        choice = choice._replace(form_factor=form_factor)
    if es is not None:
        choice = choice._replace(es=check_flag("es", es))
    facts = read_toml(data_dir(NAME) / "measurement.toml")
    if release is not None:
        tables = read_release(release_path(NAME, release), pe_edges, time_edges)
    elif pe_edges is None and time_edges is None:
        tables = read_embedded()
    else:
        raise InvalidValueError(
            "Arguments `pe_edges` and `time_edges` need `release`, the folder of the official release: the embedded "
            "counts are on fixed bins."
        )
    return build(tables, statistic, choice, facts)


def build(tables: Tables, name: str, statistic: Statistic, facts: dict) -> Measurement:
    """Put the components together."""
    nuisances: list[Parameter] = []

    def nuisance(role: Role, suffix: str, description: str, bounds: tuple[float, float] = (-5.0, 5.0)) -> str | None:
        """Name of the nuisance for a role; None if the statistic leaves it fixed."""
        if role == "fixed":
            return None
        parameter = pull(f"csi2021_{suffix}", description, bounds)
        if role == "free":
            parameter = replace(parameter, constraint=None, bounds=(-1.0, 1.0), unit="range")
        nuisances.append(parameter)
        return parameter.name

    efficiency, detector, beam = facts["efficiency"], facts["detector"], facts["flux"]
    time_efficiency = ExponentialTimeEfficiency(efficiency["time_rate"], efficiency["time_start"])
    with_es = statistic.es and statistic.signal_with_es
    signal_norm = normalisation(nuisances, *(statistic.signal_with_es if with_es else statistic.signal))

    vary_quenching = statistic.quenching != "fixed"
    qf = tuple(n for k in (0, 1) if (n := nuisance(statistic.quenching, f"qf{k}", f"quenching eigen-variation {k}")))
    quenching = PolynomialQuenching(tables.quenching[0], tables.quenching[1:] if vary_quenching else (), qf)
    selection = SigmoidEfficiency(
        *tables.efficiency, nuisance=nuisance(statistic.efficiency, "efficiency", "energy efficiency")
    )
    timing = nuisance(statistic.timing, "timing", f"time offset, {facts['uncertainties']['timing_us']:g} us", (-1, 1))

    def binned_time(source: Pulse | TimeTemplate, until: float | None = None) -> BinnedTime:
        unit = facts["uncertainties"]["timing_us"]
        return BinnedTime(source, time_efficiency, tables.time_edges, timing, unit, until)

    prompt, delayed = (TAU_PION,), (TAU_PION, TAU_MUON)
    pulse = Pulse(beam["pulse_mean_us"], beam["pulse_sigma_us"], [prompt, delayed, delayed])
    resolution = GammaResolution(facts["resolution"]["alpha"], facts["resolution"]["beta"])
    beam_on_target = {
        "flux": PionDecayAtRest(),
        "fluence": fluence(beam["protons_on_target"], beam["per_proton"], detector["baseline_m"]),
        "baseline_m": detector["baseline_m"],
        "time": binned_time(pulse, facts["backgrounds"]["region_us"] if statistic.within_window else None),
    }
    target = _target(detector)
    signal = coherent_scattering(
        nuclear=NuclearModel(
            target=target,
            form_factor=make_form_factor(statistic.form_factor),
            size_nuisance=nuisance(statistic.radius, "radius", "nuclear radius, 5 %"),
            size_sigma=facts["uncertainties"]["radius"],
            size_of_protons=statistic.radius_of_protons,
        ),
        mass_kg=detector["mass_kg"],
        response=BinnedResponse(quenching, resolution, selection, tables.pe_edges),
        norm=signal_norm,
        **beam_on_target,
    )
    electrons = electron_scattering(
        target=target,
        mass_kg=detector["mass_kg"],
        recoil_kev=ELECTRON_RECOILS_KEV,
        response=BinnedResponse(UNQUENCHED, resolution, selection, tables.pe_edges),
        norm=Norm(signal_norm.pulls[:1]),  # of the flux; quenching is not theirs
        always=bool(statistic.es),
        **beam_on_target,
    )

    sizes = facts["backgrounds"]

    def template(label: str, energy: np.ndarray, cumulative: np.ndarray) -> Background:
        source = TimeTemplate(TEMPLATE_KNOTS, cumulative, time_efficiency.rate)
        size = sizes[label]
        pulls = normalisation(nuisances, (f"csi2021_{label}", size["relative_error"]))
        return Background(label, jnp.asarray(energy), binned_time(source), size["total"], pulls)

    steady = Background(
        "ssb",
        jnp.asarray(tables.anticoincident / tables.anticoincident_total),
        jnp.asarray(_steady_time(tables.time_edges, time_efficiency.rate, sizes["region_us"])),
        sizes["ssb"]["total"],
        normalisation(nuisances, ("csi2021_ssb", sizes["ssb"]["relative_error"])),
    )
    return Measurement(
        name=NAME,
        statistic=name,
        axes=(("PE", tables.pe_edges), ("t_us", tables.time_edges)),
        observed=jnp.asarray(tables.counts),
        components=(
            signal,
            *(() if statistic.es is False else (electrons,)),
            template("brn", tables.brn_energy, tables.brn_time),
            template("nin", tables.nin_energy, tables.nin_time),
            steady,
        ),
        nuisances=tuple(nuisances),
        couplings=statistic.couplings,
        citation=CITATION,
        contains=("coherent-csi-2017",),
    )


def _target(detector: dict) -> Target:
    return replace(compound("CsI", Cs=1, I=1), molar_mass=detector["molar_mass"])


def _steady_time(edges: tuple[float, ...], rate: float, region: float) -> np.ndarray:
    """Fraction of the steady-state background of the region in each time bin: it falls as exp(-rate t)."""
    return -np.diff(np.exp(-rate * np.array(edges))) / (1 - np.exp(-rate * region))


def read_embedded() -> Tables:
    """The tables of the analysis bins that come with the package."""
    folder = data_dir(NAME)
    facts = read_toml(folder / "measurement.toml")
    counts = read_table(folder / "counts.csv", what="counts of one PE bin", delimiter=",")
    energy = read_table(folder / "energy.csv", 5, "PE_low, PE_high, ssb, brn, nin", delimiter=",")
    time = read_table(folder / "time.csv", 3, "t_us, brn, nin", delimiter=",")
    quenching, efficiency = facts["quenching"], facts["efficiency"]
    return Tables(
        pe_edges=(*(float(e) for e in energy[:, 0]), float(energy[-1, 1])),
        time_edges=tuple(float(t) for t in TIME_EDGES),
        counts=counts,
        anticoincident=energy[:, 2],
        anticoincident_total=float(energy[:, 2].sum()),
        brn_energy=energy[:, 3],
        nin_energy=energy[:, 4],
        brn_time=time[:, 1],
        nin_time=time[:, 2],
        quenching=np.array([quenching["coefficients"], *quenching["variations"]]),
        efficiency=np.array([efficiency[key] for key in ("nominal", "plus", "minus")]),
    )


def read_release(folder: Path, pe_edges: ArrayLike | None = None, time_edges: ArrayLike | None = None) -> Tables:
    """The tables on any bins from the files of the official release, as COHERENT publishes them.

    Raises:
        ReleaseFileError: a file is missing or malformed.
        InvalidValueError: edges that do not increase or leave the range of the release (0-250 PE, 0-6 us).
    """
    facts = read_toml(data_dir(NAME) / "measurement.toml")["backgrounds"]
    pe = _edges_within("pe_edges", PE_EDGES if pe_edges is None else pe_edges, 250.0)
    time = _edges_within("time_edges", TIME_EDGES if time_edges is None else time_edges, 6.0)
    event = "recoil energy in PE, recoil time in us"
    on = read_table(folder / "dataBeamOnC.txt", 2, event)
    off = read_table(folder / "dataBeamOnAC.txt", 2, event)
    for path, events, expected in (("dataBeamOnC.txt", on, 1578), ("dataBeamOnAC.txt", off, 1295)):
        inside = np.sum((events[:, 0] < facts["region_pe"]) & (events[:, 1] < facts["region_us"]))
        if np.any(events < 0) or inside != expected:
            raise ReleaseFileError(
                f"File {folder / path}: expected {expected} events with PE < 60 and t < 6 us and none below zero, "
                f"found {inside} in that region and {np.sum(np.any(events < 0, axis=1))} below zero."
            )
    off = off[off[:, 1] < facts["region_us"]]
    curves = read_table(folder / "scintRespCoefficients.txt", 4, "coefficients a b c d")
    if len(curves) != 5:
        raise ReleaseFileError(f"File {folder / 'scintRespCoefficients.txt'}: expected 5 curves, found {len(curves)}.")
    efficiency = read_table(folder / "effCoefficients.txt", 4, "coefficients a b c d")
    if len(efficiency) != 3:
        raise ReleaseFileError(f"File {folder / 'effCoefficients.txt'}: expected 3 curves, found {len(efficiency)}.")
    return Tables(
        pe_edges=pe,
        time_edges=time,
        counts=_histogram(on, pe, time),
        anticoincident=np.histogram(off[:, 0], bins=pe)[0].astype(float),
        anticoincident_total=float(np.sum(off[:, 0] < facts["region_pe"])),
        brn_energy=_energy_template(folder / "brnPE.txt", pe, facts["region_pe"]),
        nin_energy=_energy_template(folder / "ninPE.txt", pe, facts["region_pe"]),
        brn_time=_time_template(folder / "brnTrec.txt", facts["region_us"]),
        nin_time=_time_template(folder / "ninTrec.txt", facts["region_us"]),
        quenching=np.array([curves[0], curves[1] - curves[0], curves[3] - curves[0]]),
        efficiency=efficiency,
    )


def _edges_within(label: str, edges: ArrayLike, high: float) -> tuple[float, ...]:
    values = check_edges(f"Argument `{label}`", edges)
    if values[0] < 0 or values[-1] > high:
        raise InvalidValueError(f"Argument `{label}` must lie between 0 and {high:g}, but was {list(values)}.")
    return values


def _histogram(events: np.ndarray, pe: tuple[float, ...], time: tuple[float, ...]) -> np.ndarray:
    """Counts on half-open bins [low, high), the last one too."""
    inside = (events[:, 0] < pe[-1]) & (events[:, 1] < time[-1])
    return np.histogram2d(*events[inside].T, bins=(pe, time))[0]


def _cumulative(path: Path, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Bin edges and events before each, of a template given by bin centres and contents."""
    centre, content = read_table(path, 2, what).T
    width = np.diff(centre)
    covered = len(centre) > 2 and centre[0] < 1 and centre[-1] > 6 and np.sum(content) > 0
    if not covered or width[0] <= 0 or not np.allclose(width, width[0], rtol=1e-6) or np.any(content < 0):
        raise ReleaseFileError(
            f"File {path}: expected evenly spaced, increasing bin centres that cover the region, and contents that are "
            "not negative and not all zero."
        )
    edges = np.append(centre - width[0] / 2, centre[-1] + width[0] / 2)
    return edges, np.concatenate([[0.0], np.cumsum(content)])


def _energy_template(path: Path, pe: tuple[float, ...], region: float) -> np.ndarray:
    edges, events = _cumulative(path, "PE, content")
    return np.diff(np.interp(pe, edges, events)) / np.interp(region, edges, events)


def _time_template(path: Path, region: float) -> np.ndarray:
    edges, events = _cumulative(path, "recoil time in us, content")
    return np.interp(TEMPLATE_KNOTS, edges, events) / np.interp(region, edges, events)
