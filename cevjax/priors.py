r"""Priors of parameters, each as a map from a coordinate without bounds and units, in which samplers work.

The coordinate z of a normal prior is standard normal. That of a flat prior is distributed over a box with smooth walls,
of variance 1 or so: :math:`\theta` is linear in z nearly everywhere, so that straight bands of couplings stay straight,
and only next to its bounds, which z never reaches, it bends.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import softplus
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike
from scipy import special

from .errors import InvalidValueError

if TYPE_CHECKING:
    from .parameters import Parameter

HALF, WALL = 1.7, 0.12
"""Half the width of the box of a flat prior, and the width of its walls, in the coordinate."""
FAR = 7.0
"""A bound further out than this, in standard deviations, cuts nothing off a normal prior."""


@dataclass(frozen=True)
class Prior(abc.ABC):
    """The distribution of a parameter before the data; ``str(prior)`` is what :func:`parse_prior` reads."""

    @property
    @abc.abstractmethod
    def support(self) -> tuple[float, float]:
        """Smallest interval that holds all values."""

    @abc.abstractmethod
    def value(self, z: ArrayLike) -> Array:
        """The value at a coordinate."""

    @property
    def boxed(self) -> bool:
        """Whether the coordinate is distributed over a box, and not normally."""
        return True

    @abc.abstractmethod
    def coordinate(self, value: ArrayLike) -> np.ndarray:
        """The coordinate of a value: the inverse of :meth:`value`."""

    @abc.abstractmethod
    def log_density(self, value: ArrayLike) -> np.ndarray:
        """Logarithm of the normalised density at a value; -inf outside."""

    @abc.abstractmethod
    def distribution(self) -> Any:
        """The same as a NumPyro distribution."""

    def reach(self) -> tuple[float, float]:
        """An interval that holds all values that ever occur."""
        low, high = np.asarray(self.value(np.array([-40.0, 40.0] if self.boxed else [-FAR, FAR])))
        return max(float(low), self.support[0]), min(float(high), self.support[1])


def box_log_density(z: ArrayLike) -> Array:
    """Of a coordinate that is distributed over the box: a uniform distribution convolved with a logistic one."""
    left, right = (jnp.asarray(z, float) + HALF) / WALL, (jnp.asarray(z, float) - HALF) / WALL
    inside = math.log1p(-math.exp(-2 * HALF / WALL)) - math.log(2 * HALF)
    return inside + left - softplus(left) - softplus(right)


def box_probability(z: ArrayLike) -> Array:
    """The distribution function of :func:`box_log_density`."""
    left, right = (jnp.asarray(z, float) + HALF) / WALL, (jnp.asarray(z, float) - HALF) / WALL
    return (softplus(left) - softplus(right)) * WALL / (2 * HALF)


def box_coordinate(probability: ArrayLike) -> np.ndarray:
    """The inverse of :func:`box_probability`."""
    p = np.asarray(probability, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.log(np.expm1(2 * HALF / WALL * p)) - np.log(-np.expm1(-2 * HALF / WALL * (1 - p)))
    return WALL * left - HALF


@dataclass(frozen=True)
class Flat(Prior):
    """The same density everywhere between two values.

    Raises:
        InvalidValueError: they are not finite, or not in order.

    >>> print(Flat(-1.0, 1.0), round(float(Flat(-1.0, 1.0).value(0.0)), 6))
    flat:-1:1 0.0
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _make_floats(self)
        _check_order(self, self.low, self.high)

    def __str__(self) -> str:
        return f"flat:{self.low!r}:{self.high!r}".replace(".0:", ":").removesuffix(".0")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def value(self, z: ArrayLike) -> Array:
        inside = self.low + (self.high - self.low) * box_probability(z)
        return jnp.clip(inside, self.low, self.high)  # rounding can leave the bounds

    def coordinate(self, value: ArrayLike) -> np.ndarray:
        return box_coordinate((np.asarray(value, float) - self.low) / (self.high - self.low))

    def log_density(self, value: ArrayLike) -> np.ndarray:
        value = np.asarray(value, float)
        return np.where((value >= self.low) & (value <= self.high), -math.log(self.high - self.low), -np.inf)

    def distribution(self) -> Any:
        import numpyro.distributions as dist

        return dist.Uniform(self.low, self.high)


@dataclass(frozen=True)
class LogFlat(Prior):
    """The same density of the logarithm everywhere between two positive values.

    Raises:
        InvalidValueError: they are not finite, not positive, or not in order.

    >>> print(LogFlat(1.0, 100.0), round(float(LogFlat(1.0, 100.0).value(0.0)), 6))
    log-flat:1:100 10.0
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _make_floats(self)
        _check_order(self, self.low, self.high)
        if self.low <= 0:
            raise InvalidValueError(f"A log-flat prior must begin above zero, but begins at {self.low:g}.")

    @property
    def _length(self) -> float:
        """Of the interval, in logarithms."""
        return math.log(self.high) - math.log(self.low)

    def __str__(self) -> str:
        return f"log-flat:{self.low!r}:{self.high!r}".replace(".0:", ":").removesuffix(".0")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def value(self, z: ArrayLike) -> Array:
        exponent = math.log(self.low) + self._length * box_probability(z)
        return jnp.clip(jnp.exp(exponent), self.low, self.high)  # rounding can leave the bounds

    def coordinate(self, value: ArrayLike) -> np.ndarray:
        return box_coordinate((np.log(np.asarray(value, float)) - math.log(self.low)) / self._length)

    def log_density(self, value: ArrayLike) -> np.ndarray:
        value = np.asarray(value, float)
        inside = (value >= self.low) & (value <= self.high)
        return np.where(inside, -np.log(np.where(inside, value, 1.0)) - math.log(self._length), -np.inf)

    def distribution(self) -> Any:
        import numpyro.distributions as dist

        return dist.LogUniform(self.low, self.high)


@dataclass(frozen=True)
class Normal(Prior):
    """A normal distribution, cut off at bounds and normalised between them.

    Raises:
        InvalidValueError: the width is not positive and finite, or there is nothing between the bounds.

    >>> print(Normal(0.0, 1.0), Normal(0.0, 1.0, -1.0, 1.0), round(float(Normal(0.0, 1.0, -1.0, 1.0).value(9.0)), 6))
    normal:0:1 normal:0:1:-1:1 1.0
    """

    mean: float
    sigma: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        _make_floats(self)
        if not (math.isfinite(self.mean) and 0 < self.sigma < math.inf):
            raise InvalidValueError(
                f"A normal prior must have a mean and a positive width, but has {self.mean:g} and {self.sigma:g}."
            )
        if not self.low < self.high or max(self._ends[0], -self._ends[1]) > FAR:
            raise InvalidValueError(
                f"A normal prior must overlap with its bounds, but is {self.mean:g} +- {self.sigma:g} between "
                f"{self.low:g} and {self.high:g}."
            )

    def __str__(self) -> str:
        bounds = "" if math.isinf(self.low) and math.isinf(self.high) else f":{self.low!r}:{self.high!r}"
        return f"normal:{self.mean!r}:{self.sigma!r}{bounds}".replace(".0:", ":").removesuffix(".0")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def boxed(self) -> bool:
        return False

    @property
    def _ends(self) -> tuple[float, float]:
        """The bounds in standard deviations."""
        return (self.low - self.mean) / self.sigma, (self.high - self.mean) / self.sigma

    @property
    def _whole(self) -> bool:
        """Whether the bounds cut nothing off."""
        return self._ends[0] < -FAR and self._ends[1] > FAR

    def value(self, z: ArrayLike) -> Array:
        z = jnp.asarray(z, float)
        if not self._whole:
            below, inside = self._mass
            z = ndtri(jnp.clip(below + inside * ndtr(z), 1e-300, 1 - 1e-16))
        return jnp.clip(self.mean + self.sigma * z, self.low, self.high)

    def coordinate(self, value: ArrayLike) -> np.ndarray:
        z = (np.asarray(value, float) - self.mean) / self.sigma
        if self._whole:
            return z
        below, inside = self._mass
        return special.ndtri(np.clip((special.ndtr(z) - below) / inside, 0.0, 1.0))

    def log_density(self, value: ArrayLike) -> np.ndarray:
        value = np.asarray(value, float)
        z = (value - self.mean) / self.sigma
        density = -0.5 * z**2 - math.log(self.sigma * math.sqrt(2 * math.pi)) - math.log(self._mass[1])
        return np.where((value >= self.low) & (value <= self.high), density, -np.inf)

    @property
    def _mass(self) -> tuple[float, float]:
        """Probability below the bounds and between them, of the whole normal distribution."""
        below, above = special.ndtr(self._ends[0]), special.ndtr(-self._ends[1])
        return float(below), float(1 - below - above)

    def distribution(self) -> Any:
        import numpyro.distributions as dist

        if math.isinf(self.low) and math.isinf(self.high):
            return dist.Normal(self.mean, self.sigma)
        ends = {"low": self.low, "high": self.high}
        finite: dict[str, Any] = {name: end for name, end in ends.items() if math.isfinite(end)}
        return dist.TruncatedNormal(self.mean, self.sigma, **finite)


def _make_floats(prior: Prior) -> None:
    """Numbers as Python has them, of which the text is what is read again."""
    for field in dataclasses.fields(prior):
        object.__setattr__(prior, field.name, float(getattr(prior, field.name)))


def _check_order(prior: Prior, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        name = {"Flat": "flat", "LogFlat": "log-flat"}[type(prior).__name__]
        raise InvalidValueError(f"A {name} prior must be between two finite values, but was from {low:g} to {high:g}.")


KINDS: dict[str, tuple[type[Prior], tuple[int, ...], str]] = {
    "flat": (Flat, (2,), "flat:a:b"),
    "log-flat": (LogFlat, (2,), "log-flat:a:b"),
    "normal": (Normal, (2, 4), "normal:mean:sigma or normal:mean:sigma:a:b"),
}


def parse_prior(text: str) -> Prior:
    """The prior that a text stands for.

    Raises:
        InvalidValueError: it stands for none.

    >>> parse_prior("normal:0.2386:0.0004")
    Normal(mean=0.2386, sigma=0.0004, low=-inf, high=inf)
    """
    kind, _, rest = str(text).strip().partition(":")
    try:
        numbers = [float(word) for word in rest.split(":")]
    except ValueError:
        numbers = []
    if kind not in KINDS or len(numbers) not in KINDS[kind][1]:
        forms = ", ".join(form for _, _, form in KINDS.values())
        raise InvalidValueError(f"A prior must read {forms}, but was {text!r}.")
    return KINDS[kind][0](*numbers)


def default_prior(parameter: Parameter, mean: float | None = None) -> Prior:
    """The prior of a parameter that nobody stated.

    Its own; or the normal distribution of its auxiliary measurement, within its bounds; or the same everywhere in the
    range where it is looked for, of the logarithm if values over decades are all positive.

    Args:
        parameter: that is to have a prior.
        mean: result of its auxiliary measurement; None for that of the constraint.
    """
    if parameter.prior is not None:
        return parameter.prior
    if parameter.constraint is not None:
        centre, sigma = parameter.constraint
        return _within(parameter, Normal(centre if mean is None else mean, sigma))
    low, high = parameter.search_range()
    return LogFlat(low, high) if parameter.decades and low > 0 else Flat(low, high)


def check_prior(parameter: Parameter, prior: Prior | str) -> Prior:
    """``prior``, or the one that a text stands for, cut off at the bounds of the parameter if it is normal.

    Raises:
        InvalidValueError: it is none, or has values out of bounds.
    """
    if isinstance(prior, str):
        try:
            prior = parse_prior(prior)
        except InvalidValueError as error:
            raise InvalidValueError(f"Prior of `{parameter.name}`: {error}") from None
    if not isinstance(prior, Prior):
        raise InvalidValueError(
            f"Prior of `{parameter.name}` must be cevjax.Flat, LogFlat or Normal, or a text, but was {prior!r}."
        )
    low, high = parameter.bounds
    if isinstance(prior, Normal):
        return _within(parameter, prior)
    if not low <= prior.support[0] < prior.support[1] <= high:
        raise InvalidValueError(f"Prior of `{parameter.name}` must be between {low:g} and {high:g}, but was {prior}.")
    return prior


def _within(parameter: Parameter, prior: Normal) -> Normal:
    """A normal prior, cut off at the bounds of its parameter."""
    low, high = parameter.bounds
    try:
        return Normal(prior.mean, prior.sigma, max(prior.low, low), min(prior.high, high))
    except InvalidValueError:
        raise InvalidValueError(
            f"Prior of `{parameter.name}` must overlap with its bounds, {low:g} and {high:g}, but was {prior}."
        ) from None
