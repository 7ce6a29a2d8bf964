"""Antineutrinos from a nuclear reactor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..errors import InvalidValueError, check_name
from ..parameters import Parameter
from ..tables import data_dir, read_table
from .base import Continuum, Fluence, Flux, FluxComponent

MEV_PER_GJ = 6.241509074e21

HUBER_MUELLER: dict[str, tuple[float, ...]] = {
    "U235": (4.367, -4.577, 2.100, -0.5294, 0.06186, -0.002777),
    "U238": (0.4833, 0.1927, -0.1283, -0.006762, 0.002233, -0.0001536),
    "Pu239": (4.757, -5.392, 2.563, -0.6596, 0.07820, -0.003536),
    "Pu241": (2.990, -2.882, 1.278, -0.3343, 0.03905, -0.001754),
}
"""a_p of S(E) = exp(sum_p a_p E^(p-1)), antineutrinos per MeV and fission, 2-8 MeV: Huber, arXiv:1106.0687 (U235,
Pu239, Pu241), and Mueller et al., arXiv:1101.2663 (U238)."""
ISOTOPES = tuple(HUBER_MUELLER)
ENERGY_PER_FISSION = {"U235": 202.36, "U238": 205.99, "Pu239": 211.12, "Pu241": 214.26}
"""MeV of heat; Ma et al., arXiv:1212.6625."""
JUNCTION, END = 2.0, 10.0
"""Where the spectra above the tables begin and end, MeV. Those of Huber and Mueller were fitted up to 8 MeV."""


def _module(x: Array) -> Any:
    """NumPy for its own arrays, so that nothing is compiled while data are loaded."""
    return np if isinstance(x, np.ndarray) else jnp


class Polynomial(NamedTuple):
    """exp of a polynomial in E."""

    coefficients: tuple[float, ...]

    def __call__(self, E: Array) -> Array:
        exponent = 0.0 * E
        for coefficient in self.coefficients[::-1]:
            exponent = exponent * E + coefficient
        return _module(E).exp(exponent)


class Interpolated(NamedTuple):
    """Straight lines between nodes, and from the first one to zero; above the last, ``beyond``, or zero."""

    energy: tuple[float, ...]
    density: tuple[float, ...]
    beyond: Polynomial | None = None

    def __call__(self, E: Array) -> Array:
        energy, density = np.array([0.0, *self.energy]), np.array([0.0, *self.density])
        line = _module(E).interp(E, energy, density, right=0.0)
        return line if self.beyond is None else _module(E).where(np.array(self.energy[-1]) <= E, self.beyond(E), line)


class LogInterpolated(NamedTuple):
    """Exponentials between nodes."""

    energy: tuple[float, ...]
    density: tuple[float, ...]

    def __call__(self, E: Array) -> Array:
        return _module(E).exp(_module(E).interp(E, np.array(self.energy), np.log(self.density)))


Density = Polynomial | Interpolated | LogInterpolated


@cache
def _table(name: str) -> np.ndarray:
    return read_table(data_dir("reactor-flux") / f"{name}.csv", delimiter=",").T


def _columns(name: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, column)) for column in _table(name)]


def _component(name: str, density: Density, breaks: tuple[float, ...], end: float = END, order: int = 6) -> Continuum:
    return Continuum(name, 0, True, density, end, order=order, breaks=breaks)


def _huber_mueller(isotope: str) -> Continuum:
    return _component(isotope, Polynomial(HUBER_MUELLER[isotope]), (JUNCTION, 3.0, 4.0, 6.0, 8.0))


def _huber_mueller_vogel_engel(isotope: str) -> Continuum:
    energy, *columns = _columns("vogel_engel")
    density = Interpolated(energy, columns[ISOTOPES.index(isotope)], Polynomial(HUBER_MUELLER[isotope]))
    return _component(isotope, density, (0.0, *energy[:-1], JUNCTION, 3.0, 4.0, 6.0, 8.0))


def _estienne_fallot(isotope: str) -> Continuum:
    energy, *columns = _columns("estienne_fallot")
    density = LogInterpolated(energy, columns[ISOTOPES.index(isotope)])
    breaks = (JUNCTION, *(e for e in energy if JUNCTION < e < END))
    return _component(isotope, density, breaks, order=3)


def _tabulated(name: str) -> Continuum:
    energy, density = _columns(name)
    return _component(name, Interpolated(energy, density), (0.0, *energy[:-1]), energy[-1])


class Reactor(Flux):
    r"""Antineutrinos per MeV and fission: a component for each fissile isotope, and what has no fission fraction.

    Args:
        model: ``hmve``: Huber and Mueller above 2 MeV, Vogel and Engel below, and 1.2 antineutrinos a fission that
            follow neutron capture on U238; ``hmk``: Huber and Mueller above 2 MeV, the total spectrum of Kopeikin
            below, captures included; ``efk``: the summation spectra of Estienne, Fallot et al. above 2 MeV, Kopeikin
            below.
        captures: False leaves out the captures of ``hmve``.

    Spectra end at 10 MeV.

    Source: arXiv:1106.0687 (Huber), 1101.2663 (Mueller et al.), Phys. Rev. D 39 (1989) 3378 (Vogel & Engel), Phys.
    Atom. Nucl. 75 (2012) 143 (Kopeikin), arXiv:1904.09358 (Estienne, Fallot et al.).

    Raises:
        UnknownNameError: no such model.

    >>> Reactor("hmk").names
    ('U235', 'U238', 'Pu239', 'Pu241', 'kopeikin')
    >>> [round(c.total, 2) for c in Reactor("hmve").components]
    [5.72, 6.76, 5.12, 5.91, 1.2]
    """

    components: tuple[FluxComponent, ...]

    def __init__(self, model: str = "hmve", captures: bool = True):
        check_name("reactor flux", model, MODELS)
        low = "neutron_capture" if model == "hmve" else "kopeikin"
        extra = (_tabulated(low),) if captures or model != "hmve" else ()
        self.components = (*map(MODELS[model], ISOTOPES), *extra)


MODELS = {"hmve": _huber_mueller_vogel_engel, "hmk": _huber_mueller, "efk": _estienne_fallot}


class ReactorFluence(Fluence):
    r"""Antineutrinos through 1 cm^2, from the heat of a reactor and the fission fractions of its fuel.

    .. math:: \Phi_c = \frac{W}{\sum_i f_i e_i / \sum_i f_i}\, w_c,\qquad w_c = f_c/\textstyle\sum_i f_i
              \text{ for an isotope, 1 otherwise}

    with W the heat released during the exposure over 4 pi L^2 and e_i the heat of a fission. The fractions are
    parameters ``<prefix>_fission_U235``, ...: weights that are normalised to their sum (all zero: the nominal ones). W
    stays as it is when they move.

    Args:
        flux: what it belongs to.
        heat: W, MeV/cm^2.
        fractions: nominal fission fractions.
        prefix: of the parameters' names, one for each reactor.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    heat: float
    fractions: tuple[float, ...] = eqx.field(static=True)
    prefix: str = eqx.field(static=True)

    def __init__(self, flux: Flux, heat: float, fractions: Mapping[str, float], prefix: str):
        for isotope in fractions:
            check_name("fissile isotope", isotope, ISOTOPES)
        values = tuple(float(fractions.get(isotope, 0.0)) for isotope in ISOTOPES)
        if min(values) < 0 or not 0 < sum(values) < np.inf:
            raise InvalidValueError(f"Fission fractions must be at least 0 and not all 0, but were {dict(fractions)}.")
        self.names, self.heat = flux.names, heat
        self.fractions, self.prefix = tuple(v / sum(values) for v in values), prefix

    @classmethod
    def of_power(
        cls, flux: Flux, power_gw: float, baseline_m: float, days: float, fractions: Mapping[str, float], prefix: str
    ) -> ReactorFluence:
        """From thermal power, distance and time."""
        heat = power_gw * MEV_PER_GJ * days * 86400 / (4 * np.pi * (100 * baseline_m) ** 2)
        return cls(flux, heat, fractions, prefix)

    @classmethod
    def of_flux(
        cls,
        flux: Flux,
        per_cm2_s: float,
        days: float,
        fractions: Mapping[str, float],
        prefix: str,
        reference: Flux | None = None,
    ) -> ReactorFluence:
        """From the total flux at nominal fission fractions.

        Args:
            flux: what it belongs to.
            per_cm2_s: antineutrinos of all energies through 1 cm^2 in a second.
            days: of the exposure.
            fractions, prefix: as above.
            reference: the flux whose total is meant, if it is another one: both then have the same fissions.
        """
        reference = flux if reference is None else reference
        nominal = dict(zip(ISOTOPES, cls(reference, 1.0, fractions, prefix).fractions, strict=True))
        totals = {c.name: c.total for c in reference.components if isinstance(c, Continuum)}
        per_fission = sum(nominal.get(name, 1.0) * total for name, total in totals.items())
        heat_of_fission = sum(nominal[isotope] * e for isotope, e in ENERGY_PER_FISSION.items())
        return cls(flux, per_cm2_s * days * 86400 * heat_of_fission / per_fission, fractions, prefix)

    @property
    def parameters(self):
        return tuple(
            Parameter(
                f"{self.prefix}_fission_{isotope}", round(fraction, 6), bounds=(0.0, 1.0), scale=0.05,
                description=f"weight of {isotope} among the fissions, which are normalised to the sum of the four",
            )
            for isotope, fraction in zip(ISOTOPES, self.fractions, strict=True)
        )  # fmt: skip

    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        f = jnp.stack([jnp.asarray(params[p.name], float) for p in self.parameters])
        total = jnp.sum(f)
        f = jnp.where(total > 0, f / jnp.where(total > 0, total, 1.0), np.array(self.fractions))
        fissions = self.heat / (f @ np.array([ENERGY_PER_FISSION[i] for i in ISOTOPES]))
        share = dict(zip(ISOTOPES, f, strict=True))
        return fissions * jnp.stack([jnp.asarray(share.get(name, 1.0)) for name in self.names])
