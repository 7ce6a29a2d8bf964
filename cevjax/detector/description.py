"""What a ``measurement.toml`` may hold, section by section, and what each section builds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from scipy.special import ndtr

from ..constants import TAU_MUON, TAU_PION
from ..errors import UnknownNameError, check_name
from ..fluxes import Continuum, Fluence, Flux, PionDecayAtRest, Reactor, ReactorFluence, fluence
from ..fluxes.reactor import ISOTOPES, MODELS, Interpolated
from ..form_factors import form_factor as make_form_factor
from ..measurement import check_counts
from ..nuclei import Target, compound, element
from ..nuclei import target as known_target
from ..response import (
    UNQUENCHED,
    BinnedTime,
    Efficiency,
    ExponentialTimeEfficiency,
    FlatEfficiency,
    GammaResolution,
    GaussianResolution,
    LindhardQuenching,
    Pulse,
    Quenching,
    Resolution,
    SigmoidEfficiency,
    TabulatedEfficiency,
    TabulatedQuenching,
)
from .context import DAYS_PER_YEAR, Context

NEUTRINOS = {"nu_e": 0, "nu_mu": 1, "nu_tau": 2, "nubar_e": 0, "nubar_mu": 1, "nubar_tau": 2}


def _increasing(values: list[float]) -> list[float]:
    if len(values) < 2 or any(a >= b for a, b in pairwise(values)):
        raise ValueError
    return values


def _adding_up(values: dict[str, float]) -> dict[str, float]:
    if abs(sum(values.values()) - 1) > 0.02:
        raise ValueError
    return values


def _known_to(function: Callable[[str], Any]) -> AfterValidator:
    """Only names that ``function`` takes are good; the error offers the nearest."""

    def check(name: str) -> str:
        try:
            function(name)
        except UnknownNameError as error:
            raise _wrong("hint", str(error)) from None
        return name

    return AfterValidator(check)


def _wrong(kind: Literal["hint", "section"], message: str) -> PydanticCustomError:
    """An error whose words stand: after the name of the key ("hint"), or as what is wrong with it ("section")."""
    return PydanticCustomError(kind, "{message}", {"message": message})


Text = Annotated[str, Field(description="a text")]
File = Annotated[str, Field(min_length=1, description="the name of a file in the folder")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", description="a name of letters, digits, _, - and .")]
Number = Annotated[float, Field(description="a number")]
Positive = Annotated[float, Field(gt=0, description="a positive number")]
NotNegative = Annotated[float, Field(ge=0, description="a number that is not negative")]
RelativeError = Annotated[float, Field(gt=0, le=2, description="a relative error, above 0 and up to 2")]
Fraction = Annotated[float, Field(gt=0, le=1, description="a number above 0 and up to 1")]
Whole = Annotated[int, Field(ge=1, le=10_000, description="a whole number from 1 to 10000")]
Increasing = Annotated[
    list[Number], AfterValidator(_increasing), Field(description="a list of at least two increasing numbers")
]
Coefficients = Annotated[list[Number], Field(min_length=1, description="a list of numbers")]
Four = Annotated[list[Number], Field(min_length=4, max_length=4, description="a list of four numbers a, b, c, d")]


class Section(BaseModel):
    """A table of the file: unknown keys, words for numbers and infinities are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    def one_of(self, *ways: tuple[str, ...]) -> None:
        """Exactly one of several sets of keys must be given, and that one completely."""
        given = {key for way in ways for key in way if getattr(self, key) is not None}
        if given not in [set(way) for way in ways]:
            words = " or ".join(" and ".join(f"`{key}`" for key in way) for way in ways)
            found = ", ".join(f"`{key}`" for key in sorted(given)) or "none of them"
            raise _wrong("section", f"must give {words}, but gives {found}")


class TargetSection(Section):
    """``material``, or ``composition`` = numbers of each element in a formula unit; form factor and, optionally, a
    relative error of all neutron radii."""

    material: Annotated[Text, _known_to(known_target)] | None = None
    composition: (
        Annotated[
            dict[Annotated[str, _known_to(element)], Positive], Field(min_length=1, description="{element = number}")
        ]
        | None
    ) = None
    mass_kg: Annotated[float, Field(gt=0, le=1e9, description="a positive number up to 1e9")]
    form_factor: Annotated[Text, _known_to(make_form_factor)] = "helm"
    radius_relative_error: RelativeError | None = None

    @model_validator(mode="after")
    def _check(self):
        self.one_of(("material",), ("composition",))
        return self

    def target(self) -> Target:
        if self.composition is None:
            return known_target(str(self.material))
        formula = "".join(f"{symbol}{n:g}" if n != 1 else symbol for symbol, n in self.composition.items())
        return compound(formula, **self.composition)


class Source(NamedTuple):
    """Neutrinos at the detector."""

    flux: Flux
    fluence: float | Fluence
    baseline_m: float


class FluxSection(Section):
    """Distance, and the error of the total; ``nuisance`` names it, to share it with other measurements."""

    baseline_m: Positive
    relative_error: RelativeError | None = None
    nuisance: Name | None = None


class PionDecayFlux(FluxSection):
    """Neutrinos of each flavour a year, or protons on target in the whole exposure and neutrinos of each flavour for
    every proton."""

    source: Literal["pion-decay-at-rest"]
    protons_on_target: Positive | None = None
    neutrinos_per_proton: Positive | None = None
    neutrinos_per_year: Positive | None = None

    @model_validator(mode="after")
    def _check(self):
        self.one_of(("protons_on_target", "neutrinos_per_proton"), ("neutrinos_per_year",))
        return self

    def build(self, context: Context) -> Source:
        if self.neutrinos_per_year is not None:
            total = self.neutrinos_per_year * context.days / DAYS_PER_YEAR
        else:
            total = (self.protons_on_target or 0.0) * (self.neutrinos_per_proton or 0.0) * context.factor
        return Source(PionDecayAtRest(), fluence(total, 1.0, self.baseline_m), self.baseline_m)


class ReactorFlux(FluxSection):
    """Thermal power, or the flux at the detector; ``reactor`` begins the names of the fission fractions."""

    source: Literal["reactor"]
    power_gw: Positive | None = None
    flux_per_cm2_s: Positive | None = None
    fission_fractions: Annotated[
        dict[Annotated[str, _known_to(partial(check_name, "fissile isotope", valid=ISOTOPES))], NotNegative],
        AfterValidator(_adding_up),
        Field(description="{isotope = fraction} with a sum of 1"),
    ]
    model: Annotated[Text, _known_to(partial(check_name, "reactor flux", valid=MODELS))] = "hmve"
    reactor: Name | None = None

    @model_validator(mode="after")
    def _check(self):
        self.one_of(("power_gw",), ("flux_per_cm2_s",))
        return self

    def build(self, context: Context) -> Source:
        flux, common = Reactor(self.model), (context.days, self.fission_fractions, self.reactor or context.prefix)
        if self.power_gw is not None:
            through = ReactorFluence.of_power(flux, self.power_gw, self.baseline_m, *common)
        else:
            through = ReactorFluence.of_flux(flux, self.flux_per_cm2_s or 0.0, *common)
        return Source(flux, through, self.baseline_m)


class TableFlux(FluxSection):
    """One file for each kind of neutrino: energy (MeV), neutrinos per cm^2, s and MeV."""

    source: Literal["table"]
    spectra: Annotated[
        dict[Annotated[str, _known_to(partial(check_name, "neutrino", valid=NEUTRINOS))], File],
        Field(min_length=1, description="{nu_e = file, ...}"),
    ]

    def build(self, context: Context) -> Source:
        parts = tuple(self._component(context, name, file) for name, file in self.spectra.items())
        return Source(TabulatedFlux(parts), context.days * 86400.0, self.baseline_m)

    def _component(self, context: Context, name: str, file: str) -> Continuum:
        energy, density = context.curve(file, "energy in MeV, neutrinos per cm^2, s and MeV")
        points = tuple(map(float, energy))
        table = Interpolated(points, tuple(map(float, density)))
        antineutrino = name.startswith("nubar")
        return Continuum(name, NEUTRINOS[name], antineutrino, table, points[-1], order=6, breaks=points[:-1])


class TabulatedFlux(Flux):
    """Spectra from files."""

    components: tuple[Continuum, ...]


class Exposure(Section):
    """How long was measured."""

    days: Positive | None = None
    years: Positive | None = None

    @model_validator(mode="after")
    def _check(self):
        self.one_of(("days",), ("years",))
        return self


class NoQuenching(Section):
    """Reconstructed energies are those of the nuclear recoils."""

    model: Literal["none"]

    def build(self, context: Context) -> Quenching:
        return UNQUENCHED


class ConstantQuenching(Section):
    """The same factor at all energies."""

    model: Literal["constant"]
    factor: Fraction
    relative_error: RelativeError | None = None

    def build(self, context: Context) -> Quenching:
        return context.polynomial((self.factor,), (), self.relative_error)


class PolynomialQuenchingSection(Section):
    """E_ee = sum_i c_i T^i (i from 1, MeV); errors as +1 sigma shifts of all c, or one relative error."""

    model: Literal["polynomial"]
    coefficients: Coefficients
    variations: Annotated[list[Coefficients], Field(description="lists of numbers")] = []
    relative_error: RelativeError | None = None

    @model_validator(mode="after")
    def _check(self):
        if any(len(shift) != len(self.coefficients) for shift in self.variations):
            raise _wrong("section", "must give as many numbers in each of `variations` as in `coefficients`")
        return self

    def build(self, context: Context) -> Quenching:
        return context.polynomial(self.coefficients, self.variations, self.relative_error)


class LindhardSection(Section):
    """Lindhard's model; ``Z`` where the target has several elements."""

    model: Literal["lindhard"]
    k: Fraction
    Z: Whole | None = None
    relative_error: RelativeError | None = None

    def build(self, context: Context) -> Quenching:
        charges = {nuclide.Z for nuclide in context.target.nuclei}
        if self.Z is None and len(charges) > 1:
            raise context.error("quenching.Z", f"must be given, because {context.target.name} has several elements")
        pull_name = context.quenching_pull(self.relative_error)
        return LindhardQuenching(self.Z or charges.pop(), self.k, self.k * (self.relative_error or 0.0), pull_name)


class TableQuenching(Section):
    """A file: recoil energy (keV), E_ee/T; constant beyond its ends."""

    model: Literal["table"]
    file: File
    relative_error: RelativeError | None = None

    def build(self, context: Context) -> Quenching:
        recoil, factor = context.curve(self.file, "recoil energy in keV, quenching factor", highest=1.0)
        return TabulatedQuenching(
            recoil, factor, self.relative_error or 0.0, context.quenching_pull(self.relative_error)
        )


class NoResolution(Section):
    """Bins are steps in the recoil energy."""

    kind: Literal["none"]

    @property
    def per_kev(self) -> float:
        """Units of the reconstructed energy for each keV."""
        return 1.0

    def build(self) -> Resolution | None:
        return None

    def sigma_kev(self, energy: np.ndarray) -> np.ndarray:
        return np.zeros_like(energy)


class GaussianSection(Section):
    """sigma^2 = noise^2 + stochastic^2 E + (relative E)^2, E in keV."""

    kind: Literal["gaussian"]
    noise_kev: NotNegative = 0.0
    stochastic: NotNegative = 0.0
    relative: NotNegative = 0.0

    @property
    def per_kev(self) -> float:
        return 1.0

    @model_validator(mode="after")
    def _check(self):
        if self.noise_kev + self.stochastic + self.relative == 0:
            raise _wrong("section", "must give at least one of `noise_kev`, `stochastic` and `relative` above 0")
        return self

    def build(self) -> Resolution | None:
        return GaussianResolution(self.noise_kev, self.stochastic**2, self.relative)

    def sigma_kev(self, energy: np.ndarray) -> np.ndarray:
        return np.sqrt(self.noise_kev**2 + self.stochastic**2 * energy + (self.relative * energy) ** 2)


class GammaSection(Section):
    """Photo-electrons, gamma-distributed around light yield times E_ee with relative variance 1/(1 + beta E_ee).

    Without ``beta_per_kev`` the variance is that of counted photo-electrons.
    """

    kind: Literal["gamma"]
    light_yield_pe_per_kev: Positive
    beta_per_kev: Positive | None = None

    @property
    def per_kev(self) -> float:
        return self.light_yield_pe_per_kev

    @property
    def beta(self) -> float:
        return self.beta_per_kev or self.light_yield_pe_per_kev

    def build(self) -> Resolution | None:
        return GammaResolution(1 / self.light_yield_pe_per_kev, self.beta)

    def sigma_kev(self, energy: np.ndarray) -> np.ndarray:
        energy = np.maximum(energy, 1 / self.light_yield_pe_per_kev)  # of one photo-electron
        return energy / np.sqrt(1 + self.beta * energy)


class FlatSection(Section):
    """The same at all energies."""

    kind: Literal["flat"]
    value: Fraction

    def build(self, context: Context) -> Efficiency:
        return FlatEfficiency(value=self.value)


class ThresholdSection(Section):
    """Nothing below a reconstructed energy ``at``, ``value`` above it."""

    kind: Literal["threshold"]
    at: Positive
    value: Fraction = 1.0

    def build(self, context: Context) -> Efficiency:
        return TabulatedEfficiency(np.array([self.at * (1 - 1e-9), self.at]), np.array([0.0, self.value]))


class SigmoidSection(Section):
    """a/(1 + exp(-b (x - c))) + d, never below 0; with ``plus`` and ``minus`` one nuisance."""

    kind: Literal["sigmoid"]
    coefficients: Four
    plus: Four | None = None
    minus: Four | None = None

    @model_validator(mode="after")
    def _check(self):
        if self.plus or self.minus:
            self.one_of(("plus", "minus"))
        return self

    def build(self, context: Context) -> Efficiency:
        pull_name = context.pull("efficiency", "energy efficiency") if self.plus else None
        nominal, plus, minus = (np.array(c or self.coefficients) for c in (self.coefficients, self.plus, self.minus))
        return SigmoidEfficiency(nominal, plus, minus, pull_name)


class TableEfficiency(Section):
    """A file: reconstructed energy, efficiency; constant beyond its ends."""

    kind: Literal["table"]
    file: File

    def build(self, context: Context) -> Efficiency:
        return TabulatedEfficiency(*context.curve(self.file, "reconstructed energy, efficiency", highest=1.0))


class Bins(Section):
    """Edges, or a range and the number of bins in it, of equal width in the energy, its logarithm or square root. The
    last keeps pace with a stochastic resolution."""

    edges: Increasing | None = None
    low: NotNegative | None = None
    high: Positive | None = None
    number: Whole | None = None
    spacing: Annotated[Literal["linear", "log", "sqrt"], Field(description="'linear', 'log' or 'sqrt'")] = "linear"

    @model_validator(mode="after")
    def _check(self):
        self.one_of(("edges",), ("low", "high", "number"))
        message = ""
        if self.edges and self.edges[0] < 0:
            message = f"must not go below 0, but begins at {self.edges[0]:g}"
        elif self.edges is None and (self.low or 0.0) >= (self.high or 0.0):
            message = f"must have `low` below `high`, but has {self.low:g} and {self.high:g}"
        elif self.spacing == "log" and self.low == 0:
            message = "must have `low` above 0 for logarithmic bins"
        if message:
            raise _wrong("section", message)
        return self

    def values(self) -> tuple[float, ...]:
        if self.edges is not None:
            return tuple(map(float, self.edges))
        there, back = {"linear": (float, float), "log": (np.log, np.exp), "sqrt": (np.sqrt, np.square)}[self.spacing]
        low, high = float(self.low or 0.0), float(self.high or 0.0)
        inner = np.linspace(there(low), there(high), (self.number or 1) + 1)[1:-1]
        return (low, *(float(back(x)) for x in inner), high)


class Time(Section):
    """Arrival times at a pulsed source: a Gaussian proton pulse and the decays after it. Detection falls as
    exp(-loss (t - start)) after ``loss_start_us``; all times may be off by ``offset_error_us``."""

    edges_us: Increasing
    pulse_mean_us: Number = 0.0
    pulse_sigma_us: Positive
    offset_error_us: Positive | None = None
    loss_per_us: NotNegative = 0.0
    loss_start_us: NotNegative = 0.0

    def build(self, context: Context) -> BinnedTime:
        pulse = Pulse(self.pulse_mean_us, self.pulse_sigma_us, [(TAU_PION,), *[(TAU_PION, TAU_MUON)] * 2])
        loss = ExponentialTimeEfficiency(self.loss_per_us, self.loss_start_us)
        error = self.offset_error_us
        offset = context.pull("timing", f"time offset, {error:g} us") if error else None
        return BinnedTime(pulse, loss, tuple(self.edges_us), offset, error or 1.0)

    def fractions(self, like: str) -> np.ndarray:
        """Of a background in each bin."""
        edges = np.array(self.edges_us)
        if like == "pulse":
            return np.diff(ndtr((edges - self.pulse_mean_us) / self.pulse_sigma_us))
        return np.diff(edges) / (edges[-1] - edges[0])


class BackgroundSection(Section):
    """``time``: uniform in the window, or as the proton pulse; ``nuisance``: name of the pull on its size."""

    name: Name
    relative_error: RelativeError | None = None
    nuisance: Name | None = None
    time: Annotated[Literal["uniform", "pulse"], Field(description="'uniform' or 'pulse'")] = "uniform"

    def energies(self, context: Context, edges_kev: np.ndarray) -> np.ndarray:
        """Events in each energy bin."""
        raise NotImplementedError

    def counts(self, context: Context, edges_kev: np.ndarray, time: Time | None) -> np.ndarray:
        events = self.energies(context, edges_kev)
        return events if time is None else events[:, None] * time.fractions(self.time)


class RatedBackground(BackgroundSection):
    """Events in all bins, or a rate; ``duty_factor`` is the fraction of all time that is looked at."""

    events: NotNegative | None = None
    rate_per_kev_kg_day: NotNegative | None = None
    duty_factor: Fraction = 1.0

    @model_validator(mode="after")
    def _check(self):
        self.one_of(("events",), ("rate_per_kev_kg_day",))
        return self

    def integrals(self, edges_kev: np.ndarray) -> np.ndarray:
        """Integral over each bin of the shape whose rate is given."""
        raise NotImplementedError

    def energies(self, context, edges_kev):
        shape = self.integrals(edges_kev)
        if self.rate_per_kev_kg_day is not None:
            return self.rate_per_kev_kg_day * context.mass_kg * context.days * self.duty_factor * shape
        total = shape.sum()
        if not total > 0:
            raise context.error(f"backgrounds ({self.name})", "must have events in the bins, but has none")
        return (self.events or 0.0) * context.factor * shape / total


class FlatBackground(RatedBackground):
    """The same at all energies."""

    shape: Literal["flat"]

    def integrals(self, edges_kev):
        return np.diff(edges_kev)


class ExponentialBackground(RatedBackground):
    """Falls as exp(-E/scale); the rate is that at E = 0."""

    shape: Literal["exponential"]
    scale_kev: Positive

    def integrals(self, edges_kev):
        return -self.scale_kev * np.diff(np.exp(-edges_kev / self.scale_kev))


class LineBackground(BackgroundSection):
    """A Gaussian line; ``events`` are those of the whole line."""

    shape: Literal["line"]
    events: NotNegative
    energy_kev: Positive
    sigma_kev: Positive

    def energies(self, context, edges_kev):
        return self.events * context.factor * np.diff(ndtr((edges_kev - self.energy_kev) / self.sigma_kev))


class TableBackground(BackgroundSection):
    """A file with the events of each energy bin, one column for each time bin."""

    shape: Literal["table"]
    file: File

    def counts(self, context, edges_kev, time):
        columns = 1 if time is None else len(time.edges_us) - 1
        table = context.bins(self.file, len(edges_kev) - 1, (columns,), f"events of the background {self.name!r}")
        table = check_counts(f"file {context.folder / self.file}", table, table.shape) * context.factor
        return table[:, 0] if time is None else table


class NuisanceSection(Section):
    """One pull on the size of several components: ``cevns``, ``es``, and backgrounds by name.

    ``shared``: other measurements with a nuisance of this name and error have it in common.
    """

    name: Name
    relative_error: RelativeError
    shared: bool = False
    on: Annotated[list[str], Field(min_length=1, description="a list of names of components")]


class Counts(Section):
    """A file with the counts of each energy bin, one column for each time bin; then, for Gaussian data, as many with
    their standard deviations."""

    file: File


class Description(Section):
    """A ``measurement.toml``."""

    name: Name | None = None
    title: Text = ""
    citation: Text = ""
    remark: Text = ""
    electron_recoils: Annotated[Literal["signal", "rejected"], Field(description="'signal' or 'rejected'")] = "rejected"
    target: Annotated[TargetSection, Field(description="a table")]
    flux: Annotated[PionDecayFlux | ReactorFlux | TableFlux, Field(discriminator="source", description="a table")]
    exposure: Annotated[Exposure, Field(description="a table")] | None = None
    quenching: Annotated[
        NoQuenching | ConstantQuenching | PolynomialQuenchingSection | LindhardSection | TableQuenching,
        Field(discriminator="model", description="a table"),
    ]
    resolution: Annotated[
        NoResolution | GaussianSection | GammaSection, Field(discriminator="kind", description="a table")
    ]
    efficiency: Annotated[
        FlatSection | ThresholdSection | SigmoidSection | TableEfficiency,
        Field(discriminator="kind", description="a table"),
    ] = FlatSection(kind="flat", value=1.0)
    bins: Annotated[Bins, Field(description="a table")]
    time: Annotated[Time, Field(description="a table")] | None = None
    backgrounds: Annotated[
        list[
            Annotated[
                FlatBackground | ExponentialBackground | LineBackground | TableBackground,
                Field(discriminator="shape"),
            ]
        ],
        Field(description="a list of tables"),
    ] = []
    nuisances: Annotated[list[NuisanceSection], Field(description="a list of tables")] = []
    counts: Annotated[Counts, Field(description="a table")] | None = None

    @model_validator(mode="after")
    def _check(self):
        if message := "; ".join(self._contradictions()):
            raise _wrong("hint", message)
        return self

    def _contradictions(self) -> Iterable[str]:
        names = ["cevns", "es", *(background.name for background in self.backgrounds)]
        twice = {n.name for n in self.nuisances if sum(other.name == n.name for other in self.nuisances) > 1}
        if twice:
            yield f"keys `nuisances.name` must be different names, but {sorted(twice)[0]!r} came twice"
        if self.electron_recoils == "signal" and self.quenching.model == "none":
            yield "key `electron_recoils` must be 'rejected' where energies are those of nuclear recoils"
        if len(set(names)) < len(names):
            yield f"keys `backgrounds.name` must be different names, and not cevns or es, but are {names[2:]}"
        for nuisance in self.nuisances:
            if len(set(nuisance.on)) < len(nuisance.on):
                yield f"key `nuisances.on` of {nuisance.name!r} must name each component once, but is {nuisance.on}"
            for name in nuisance.on:
                if name not in names:
                    yield f"key `nuisances.on` of {nuisance.name!r}: {UnknownNameError('component', name, names)}"
        if self.time is not None and self.flux.source != "pion-decay-at-rest":
            yield f"key `time` must go with a pulsed source, pion-decay-at-rest, but the source is {self.flux.source}"
        pulsed = [background.name for background in self.backgrounds if background.time == "pulse"]
        if self.time is None and pulsed:
            yield f"key `time` is missing; the background {pulsed[0]!r} follows the pulse"
        if self.quenching.model == "none" and self.resolution.kind == "gamma":
            yield "key `quenching.model` must not be 'none' for photo-electrons, the unit of a gamma resolution"
        moving = [*_given(self.quenching, "relative_error", "variations"), *_given(self.efficiency, "plus")]
        if self.resolution.kind == "none" and moving:
            yield f"key `resolution.kind` must not be 'none' where `{moving[0]}` would move steps"
        if isinstance(self.resolution, GaussianSection) and not self.resolution.noise_kev and not self.bins.values()[0]:
            yield "key `bins` must begin above 0, or key `resolution.noise_kev` be given: sigma vanishes at 0"


def _given(section: Section, *keys: str) -> list[str]:
    """Which of some keys a section has."""
    return [key for key in keys if getattr(section, key, None)]
