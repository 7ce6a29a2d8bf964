"""What a parameter is, and how the parameters of several owners become one flat dictionary.

Values travel as ``dict[str, float]``; a :class:`Parameter` is everything else that is known about a name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .errors import InvalidValueError, ParameterClashError, check_name
from .priors import Prior


class Gaussian(NamedTuple):
    """An auxiliary measurement ``mean +- sigma``: adds ``(value - mean)^2 / sigma^2`` to chi2."""

    mean: float
    sigma: float


@dataclass(frozen=True)
class Parameter:
    """A named number of a model or a measurement.

    Args:
        name: stable ASCII name that users script against.
        nominal: value in the standard model, or before the data.
        unit: unit of ``nominal``, for display.
        bounds: physical range; a value outside is an error, and fits stay inside.
        constraint: auxiliary measurement that enters the likelihood. A parameter of interest has none.
        nuisance: whether every fit leaves it free, constrained or not.
        scale: size of a natural step. Minimisers and scans work on ``(value - nominal) / scale``.
        decades: whether values of interest spread over decades, down to ``scale``: minimisers and scans then work on
            ``asinh(value / scale)``, linear below the scale and logarithmic above, on both sides of zero.
        window: range searched for minima and interval ends when the bounds are infinite.
        latex: symbol for plots.
        description: one line.
        supersedes: nuisances that describe the same thing; they stay at nominal while this one is free.
        members: for a parameter that stands for several at once (``R_n_CsI``): where it is given, its value
            replaces theirs. Such a parameter is not part of the nominal point.
        private: name of the one measurement that it may belong to; empty if others may share it.
        prior: what is known of it before the data, where that is neither its constraint nor a flat distribution;
            posteriors use it and nothing else does.
        owner: who defines it (set by :func:`merge`).
    """

    name: str
    nominal: float = 0.0
    unit: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    constraint: Gaussian | None = None
    nuisance: bool = False
    scale: float = 1.0
    decades: bool = False
    window: tuple[float, float] | None = None
    latex: str = ""
    description: str = ""
    supersedes: tuple[str, ...] = field(default=(), compare=False)
    members: tuple[str, ...] = ()
    private: str = ""
    prior: Prior | None = None
    owner: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.nominal, int):  # whole numbers have no gradients
            object.__setattr__(self, "nominal", float(self.nominal))

    def search_range(self) -> tuple[float, float]:
        """Finite range in which minima and interval ends are looked for first."""
        low, high = self.window or self.bounds
        low = self.nominal - 10 * self.scale if math.isinf(low) else low
        high = self.nominal + 10 * self.scale if math.isinf(high) else high
        return max(low, self.bounds[0]), min(high, self.bounds[1])

    def fit_range(self) -> tuple[float, float]:
        """Where fits may well end: the search range, or the bounds if they are at most twice as far apart."""
        low, high = self.search_range()
        return self.bounds if self.bounds[1] - self.bounds[0] <= 2 * (high - low) else (low, high)

    def encode(self, value: ArrayLike) -> np.ndarray:
        """The dimensionless coordinate of minimisers and scans."""
        value = np.asarray(value, float)
        return np.arcsinh(value / self.scale) if self.decades else (value - self.nominal) / self.scale

    def decode(self, u: ArrayLike) -> np.ndarray:
        """The value at a coordinate, kept within the bounds, which rounding could leave."""
        u = np.asarray(u, float)
        if self.decades:
            return np.clip(self.scale * np.sinh(np.clip(u, -700, 700)), *self.bounds)  # it overflows beyond
        return np.clip(self.nominal + self.scale * u, *self.bounds)

    def check(self, value: float) -> float:
        """Return ``value`` as float when it is finite and within bounds, else raise ``InvalidValueError``."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InvalidValueError(f"Parameter `{self.name}` must be a number, but was {value!r}.") from None
        if not math.isfinite(number):
            raise InvalidValueError(f"Parameter `{self.name}` must be finite, but was {number}.")
        low, high = self.bounds
        if not low <= number <= high:
            unit = f" {self.unit}" if self.unit else ""
            raise InvalidValueError(
                f"Parameter `{self.name}` must be between {low:g} and {high:g}{unit}, but was {number:g}."
            )
        return number


def pull(name: str, description: str, bounds: tuple[float, float] = (-5.0, 5.0), unit: str = "sigma") -> Parameter:
    """A nuisance in units of its standard deviation, with its auxiliary measurement 0 +- 1."""
    return Parameter(name, 0.0, unit, bounds, constraint=Gaussian(0.0, 1.0), nuisance=True, description=description)


def size_pull(name: str, sigma: float) -> Parameter:
    """A nuisance on the size of something, of relative standard deviation ``sigma``, which stays above zero.

    The same name and sigma in two measurements make it a common one.
    """
    return pull(name, f"normalisation, {100 * sigma:.3g} %", bounds=(-1 / sigma, math.inf))


def merge(owners: Iterable[tuple[str, Iterable[Parameter]]]) -> dict[str, Parameter]:
    """Collect the parameters of several owners by name.

    Equal definitions are one shared parameter.

    Raises:
        ParameterClashError: two owners define one name differently; both are named.
    """
    merged: dict[str, Parameter] = {}
    for owner, parameters in owners:
        for parameter in parameters:
            known = merged.get(parameter.name)
            if known is None:
                merged[parameter.name] = Parameter(**{**parameter.__dict__, "owner": owner})
            elif known == parameter:
                both = tuple(dict.fromkeys((*known.supersedes, *parameter.supersedes)))
                merged[parameter.name] = Parameter(**{**known.__dict__, "supersedes": both})
            else:
                raise ParameterClashError(
                    f"Parameter `{parameter.name}` is defined differently by {known.owner} and by {owner}: "
                    f"{_difference(known, parameter)}."
                )
    return merged


def _difference(a: Parameter, b: Parameter) -> str:
    fields = ((f.name, getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a) if f.compare)
    different = {name: f"{name} {x!r} and {y!r}" for name, x, y in fields if x != y}
    telling = [different[name] for name in ("nominal", "unit", "constraint", "bounds", "private") if name in different]
    return ", ".join(telling or different.values())


def check_members(parameter: Parameter, given: Iterable[str]) -> None:
    """Refuse a parameter together with one of those that it stands for."""
    clash = sorted(set(parameter.members) & set(given))
    if clash:
        raise InvalidValueError(f"Parameter `{parameter.name}` stands for {', '.join(clash)}: use one or the other.")


def check_values(values: Mapping[str, float], parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Validate user-given values by name, finiteness and bounds."""
    for name in values:
        check_members(parameters[check_name("parameter", name, parameters)], values)
    return {name: parameters[name].check(value) for name, value in values.items()}
