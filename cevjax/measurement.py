"""A measurement: what was observed in which bins, and the components that are expected there.

A component is a function of the parameters and the interaction that returns expected counts on the bins; the signal and
every background is one. Nothing here knows a particular experiment.
"""

from __future__ import annotations

import abc
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from .errors import InvalidValueError
from .interactions.base import Interaction, Params
from .parameters import Parameter, pull, size_pull
from .response import BinnedTime
from .series import Curves, Table, Variable


class Folding(NamedTuple):
    """What a component needs to know to be folded: which parameters a fit moves, and where all the others are.

    Attributes:
        interaction: in force.
        params: every parameter; those that move are at their nominal values.
        inner: nuisances, with their ranges.
        outer: parameters of interest, with theirs.
        tolerance: in standard deviations of the counts of a bin.
    """

    interaction: Interaction
    params: Params
    inner: tuple[Variable, ...]
    outer: tuple[Variable, ...]
    tolerance: float


class Precision(NamedTuple):
    """How well the counts of a component must be known, as arrays on the bins.

    Attributes:
        variance: of the counts.
        limit: a smaller variance that goes for a bin where the data are many times what the other components expect:
            there chi2 depends steeply on small counts; infinite elsewhere.
    """

    variance: np.ndarray
    limit: np.ndarray

    def over(self, axis: int) -> Precision:
        """That of the counts in all bins along an axis."""
        return Precision(self.variance.sum(axis=axis), self.limit.min(axis=axis))

    @property
    def value(self) -> np.ndarray:
        """The variance to go by."""
        return np.minimum(self.variance, self.limit)


class Morph(eqx.Module):
    r"""Relative change of expected counts with a pull, from templates at -1, 0 and +1 standard deviations.

    .. math:: \eta(a) = \begin{cases} a\,u & a > 1 \\ a\,d & a < -1 \\
              a S + \frac{a^2 A}{8}(3a^4 - 10a^2 + 15) & \text{between} \end{cases}
              \qquad S = \frac{u + d}2,\; A = \frac{u - d}2

    with u = up/nominal - 1 and d = 1 - down/nominal: through all three, smooth to second order, linear outside.

    Args:
        pull: name of the parameter.
        up: u, of a shape that broadcasts with the counts.
        down: d; None for a template at +1 alone, whose change is linear.

    Source: ROOT's HistFactory, interpolation code 4p.

    >>> import jax.numpy as jnp
    >>> morph = Morph("a", jnp.array([0.1, 0.0]), jnp.array([0.2, 0.0]))
    >>> [round(float(morph({"a": x})[0]), 6) for x in (-2.0, -1.0, 0.0, 1.0)]
    [-0.4, -0.2, 0.0, 0.1]
    """

    pull: str = eqx.field(static=True)
    up: Array
    down: Array | None = None

    def __call__(self, params: Params) -> Array:
        a = jnp.asarray(params[self.pull], float)
        if self.down is None:
            return a * self.up
        straight, bent = (self.up + self.down) / 2, (self.up - self.down) / 16
        inside = a * straight + a**2 * (15 - 10 * a**2 + 3 * a**4) * bent
        return jnp.where(a > 1, a * self.up, jnp.where(a < -1, a * self.down, inside))

    @classmethod
    def between(cls, pull: str, nominal: np.ndarray, up: np.ndarray, down: np.ndarray | None = None) -> Morph:
        """From templates; where the nominal one is empty nothing changes."""
        u, d = _ratio(up, nominal) - 1, None if down is None else 1 - _ratio(down, nominal)
        return cls(pull, jnp.asarray(u), None if d is None else jnp.asarray(d))

    @classmethod
    def of_logarithms(cls, pull: str, nominal: np.ndarray, up: np.ndarray, down: np.ndarray | None = None) -> Morph:
        """The change of the logarithm; a template that is empty where the nominal one is not counts as 1e-4 of it."""
        log = lambda other: np.log(np.maximum(_ratio(other, nominal), 1e-4))  # noqa: E731
        return cls(pull, jnp.asarray(log(up)), None if down is None else jnp.asarray(-log(down)))


def _ratio(other: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    return np.where(nominal > 0, other / np.where(nominal > 0, nominal, 1.0), 1.0)


class ShapeChange(eqx.Module):
    """A change of shape that keeps the number of events, and never makes one negative.

    The counts are multiplied by the exponential of the sum of the morphs, which are those of logarithms, and scaled
    back to their sum over ``axes``.

    Args:
        morphs: changes of the logarithm.
        axes: over which the number of events stays; None for all.
    """

    morphs: tuple[Morph, ...]
    axes: tuple[int, ...] | None = eqx.field(static=True, default=None)

    @property
    def names(self) -> set[str]:
        """The pulls."""
        return {morph.pull for morph in self.morphs}

    def __call__(self, counts: Array, params: Params) -> Array:
        change = jnp.asarray(0.0)
        for morph in self.morphs:
            change = change + morph(params)
        varied = counts * jnp.exp(change)
        before, after = (jnp.sum(x, axis=self.axes, keepdims=True) for x in (counts, varied))
        return varied * jnp.where(after > 0, before / jnp.where(after > 0, after, 1.0), 1.0)


class Norm(eqx.Module):
    """Normalisation factor: 1 plus the sum of sigma * pull, and of the morphs.

    Args:
        pulls: (parameter name, relative standard deviation) of each pull.
        morphs: changes that differ from bin to bin.
    """

    pulls: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())
    morphs: tuple[Morph, ...] = ()

    @property
    def names(self) -> set[str]:
        """The pulls."""
        return {*(name for name, _ in self.pulls), *(morph.pull for morph in self.morphs)}

    def __call__(self, params: Params) -> Array:
        factor = jnp.asarray(1.0)
        for name, sigma in self.pulls:
            factor = factor + sigma * jnp.asarray(params[name])
        for morph in self.morphs:
            factor = factor + morph(params)
        return factor


def normalisation(nuisances: list[Parameter], *pulls: tuple[str, float], morphs: tuple[Morph, ...] = ()) -> Norm:
    """A normalisation whose pulls, and those of its morphs, join ``nuisances`` with unit constraints."""
    nuisances += [size_pull(name, sigma) for name, sigma in pulls]
    for morph in morphs:
        nuisances.append(pull(morph.pull, "systematic templates"))
    return Norm(pulls, morphs)


class Component(eqx.Module):
    """Expected counts of one origin on the bins of a measurement."""

    name: eqx.AbstractVar[str]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters that the component brings along, besides the nuisances of its measurement."""
        return ()

    @abc.abstractmethod
    def __call__(self, params: Params, interaction: Interaction) -> Array:
        """Expected counts, of the shape of the measurement's bins."""

    def relevant(self, interaction: Interaction) -> bool:
        """Whether the component has to be counted under ``interaction``."""
        return True

    def moved_by(self, interaction: Interaction) -> set[str] | None:
        """Names of all parameters that it depends on; None if that is not known. Fits spare the others."""
        return None

    def prepare(self, interaction: Interaction) -> Component:
        """The same component with everything tabulated that no parameter of ``interaction`` touches."""
        return self

    def fold(self, folding: Folding, precision: Precision) -> Component:
        """An approximation that is cheap in the parameters of ``folding``, as good as ``precision`` asks for."""
        return self

    def hold(self, params: Params) -> Component:
        """A folded component with everything evaluated that only parameters of interest reach, at ``params``."""
        return self


class Background(Component):
    """Energy shape, times time shape if there is one, normalised to a number of events.

    Args:
        name: of the component.
        energy: fraction of the events in each energy bin.
        time: one-row :class:`BinnedTime`, or fixed fractions of each time bin; None without a time axis.
        total: events before the time efficiency.
        norm: its normalisation nuisances.
    """

    name: str = eqx.field(static=True)
    energy: Array
    time: BinnedTime | FoldedTime | Array | None
    total: float
    norm: Norm

    def __call__(self, params, interaction):
        counts = self.norm(params) * self.total * self.energy
        if self.time is None:
            return counts
        return counts[:, None] * (self.time(params)[0] if callable(self.time) else self.time)

    def moved_by(self, interaction):
        return self.norm.names | time_names(self.time)

    def prepare(self, interaction):
        if isinstance(self.time, BinnedTime) and not self.time.nuisances:
            return eqx.tree_at(lambda c: c.time, self, _fixed_times(self.time)[0])
        return self

    def fold(self, folding, precision):
        return eqx.tree_at(lambda c: c.time, self, fold_time(self.time, folding), is_leaf=lambda x: x is None)


class Template(Component):
    """Expected counts on the bins, as they are.

    Args:
        name: of the component.
        counts: of the shape of the bins.
        norm: normalisation nuisances, and shape nuisances that add to them.
        shape: shape nuisances that keep the number of events.
    """

    name: str = eqx.field(static=True)
    counts: Array
    norm: Norm = Norm()
    shape: ShapeChange | None = None

    def __call__(self, params, interaction):
        counts = self.counts if self.shape is None else self.shape(self.counts, params)
        return self.norm(params) * counts

    def moved_by(self, interaction):
        return self.norm.names | (self.shape.names if self.shape else set())


class Spread(Component):
    """A component on (energy, time), spread over the bins of a further observable between them.

    Args:
        name: that of the component.
        inner: the component.
        fractions: shape (energy, observable): where its events lie in the observable.
        shape: shape nuisances of the fractions, which keep their sum over the observable.
    """

    name: str = eqx.field(static=True)
    inner: Component
    fractions: Array
    shape: ShapeChange | None = None

    @property
    def parameters(self):
        return self.inner.parameters

    def __call__(self, params, interaction):
        counts = self.inner(params, interaction)
        fractions = self.fractions if self.shape is None else self.shape(self.fractions, params)
        return fractions[:, :, None] * counts[:, None, :]

    def relevant(self, interaction):
        return self.inner.relevant(interaction)

    def moved_by(self, interaction):
        inner = self.inner.moved_by(interaction)
        return inner if inner is None or self.shape is None else inner | self.shape.names

    def prepare(self, interaction):
        return eqx.tree_at(lambda c: c.inner, self, self.inner.prepare(interaction))

    def fold(self, folding, precision):
        return eqx.tree_at(lambda c: c.inner, self, self.inner.fold(folding, precision.over(axis=1)))

    def hold(self, params):
        return Spread(self.name, self.inner.hold(params), self.fractions, self.shape)


@jax.jit
def _fixed_times(time: BinnedTime) -> Array:
    return time({})


class FoldedTime(eqx.Module):
    """The fractions of a :class:`BinnedTime` as splines in its one nuisance."""

    curves: Curves | Table
    shape: tuple[int, int] = eqx.field(static=True)

    def __call__(self, params: Params) -> Array:
        return self.curves(params).reshape(self.shape)

    @property
    def rows(self) -> np.ndarray:
        """All that is known of each row."""
        known = np.asarray(self.curves.coefficients if isinstance(self.curves, Curves) else self.curves.values)
        return np.moveaxis(known.reshape(-1, *self.shape), 1, 0).reshape(self.shape[0], -1)

    def some(self, which: np.ndarray) -> FoldedTime:
        """Some of the rows."""
        column = (which[:, None] * self.shape[1] + np.arange(self.shape[1])).ravel()
        where = (lambda c: c.coefficients) if isinstance(self.curves, Curves) else (lambda c: c.values)
        curves = eqx.tree_at(where, self.curves, where(self.curves)[:, column])
        return FoldedTime(curves, (len(which), self.shape[1]))


def time_names(time: BinnedTime | FoldedTime | Array | None) -> set[str]:
    """The nuisances of arrival times."""
    if isinstance(time, FoldedTime):
        return {time.curves.name}
    return set(time.nuisances) if isinstance(time, BinnedTime) else set()


def fold_time(time: BinnedTime | FoldedTime | Array | None, folding: Folding) -> FoldedTime | BinnedTime | Array | None:
    """Arrival times as cheap as ``folding`` allows: splines, or fixed fractions where nothing moves."""
    if not isinstance(time, BinnedTime):
        return time
    moving = [v for v in (*folding.inner, *folding.outer) if v.name in time.nuisances]
    if len(moving) > 1:
        return time
    if not moving:
        return _times_at(time, folding.params, (), np.zeros((1, 0)))[0]
    values = _times_at(time, folding.params, (moving[0].name,), moving[0].values[:, None])
    return FoldedTime(moving[0].curves(np.asarray(values).reshape(len(values), -1)), values.shape[1:])


@partial(jax.jit, static_argnames="names")
def _times_at(time: BinnedTime, params: Params, names: tuple[str, ...], points: Array) -> Array:
    return jax.vmap(lambda point: time({**params, **dict(zip(names, point, strict=True))}))(points)


class Measurement(eqx.Module):
    """Observed counts on a grid of bins and the components expected there.

    Args:
        name: of the data set.
        statistic: name of the statistic in use.
        axes: ((axis name, bin edges), ...), in the order of the array's axes.
        observed: counts, of the shape of the bins.
        components: signal and backgrounds.
        nuisances: parameters of the measurement itself.
        sigma: standard deviation of each bin, for Gaussian data; None for Poisson counts.
        couplings: standard-model couplings that the statistic uses where the interaction leaves them open.
        citation: what to cite.
        remark: what everyone who sees a result must know about the data.
        contains: names of data sets whose events are among these.
        unit: of the counts.
        choices: what was chosen when it was loaded, by name.

    Raises:
        InvalidValueError: counts of the wrong shape, negative or not finite; edges that do not increase.
    """

    name: str = eqx.field(static=True)
    statistic: str = eqx.field(static=True)
    axes: tuple[tuple[str, tuple[float, ...]], ...] = eqx.field(static=True)
    observed: Array = eqx.field(converter=lambda x: jnp.asarray(x, float))
    components: tuple[Component, ...]
    nuisances: tuple[Parameter, ...] = eqx.field(static=True)
    sigma: Array | None = eqx.field(default=None, converter=lambda x: x if x is None else jnp.asarray(x, float))
    couplings: str = eqx.field(static=True, default="2023")
    citation: str = eqx.field(static=True, default="")
    remark: str = eqx.field(static=True, default="")
    contains: tuple[str, ...] = eqx.field(static=True, default=())
    unit: str = eqx.field(static=True, default="events")
    choices: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        for axis, edges in self.axes:
            check_edges(f"{self.name}: edges of {axis}", edges)
        names = [component.name for component in self.components]
        if len(set(names)) < len(names):
            raise InvalidValueError(f"Components of {self.name} must have different names, but are {names}.")
        check_counts(self.name, np.asarray(self.observed), self.shape, negative=self.sigma is not None)
        if self.sigma is not None:
            sigma = np.asarray(self.sigma)
            if sigma.shape != self.shape or not np.all(np.isfinite(sigma) & (sigma > 0)):
                raise InvalidValueError(f"Errors of {self.name} must be finite, positive and of shape {self.shape}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of bins along each axis."""
        return tuple(len(edges) - 1 for _, edges in self.axes)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Nuisances, and the parameters that the components bring along."""
        return (*self.nuisances, *(p for component in self.components for p in component.parameters))

    def expected(self, params: Params, interaction: Interaction) -> dict[str, Array]:
        """Expected counts of each component, each of the shape of the bins."""
        counts = {component.name: component(params, interaction) for component in self.components}
        for name, values in counts.items():
            if values.shape != self.shape:
                raise InvalidValueError(
                    f"Component {name!r} of {self.name} must have counts of shape {self.shape}, not {values.shape}."
                )
        return counts

    def prepare(self, interaction: Interaction) -> Measurement:
        """The same measurement with the components that matter, and everything tabulated that no parameter touches."""
        relevant = tuple(c.prepare(interaction) for c in self.components if c.relevant(interaction))
        return eqx.tree_at(lambda m: m.components, self, relevant)

    def hold(self, params: Params) -> Measurement:
        """The same measurement with its folded components held: see :meth:`Component.hold`."""
        held = tuple(component.hold(params) for component in self.components)
        same = all(new is old for new, old in zip(held, self.components, strict=True))
        return self if same else eqx.tree_at(lambda m: m.components, self, held)

    def with_observed(self, observed: ArrayLike) -> Measurement:
        """The same measurement with other data, such as Asimov data or a toy. Counts need not be whole numbers."""
        observed = jnp.asarray(observed, float)
        if observed.shape != self.shape:
            raise InvalidValueError(f"Argument `observed` must have shape {self.shape}, but has {observed.shape}.")
        if not isinstance(observed, Tracer):
            check_counts(self.name, np.asarray(observed), self.shape, negative=self.sigma is not None)
        return eqx.tree_at(lambda m: m.observed, self, observed)


def check_edges(label: str, edges) -> tuple[float, ...]:
    """Bin edges as floats; they must be finite and increase."""
    try:
        values = np.asarray(edges, float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.isfinite(values)) or not np.all(np.diff(values) > 0):
        raise InvalidValueError(f"{label} must be at least two finite, increasing numbers, but are {edges!r}.")
    return tuple(float(v) for v in values)


def check_counts(label: str, counts: np.ndarray, shape: tuple[int, ...], negative: bool = False) -> np.ndarray:
    """Counts of the right shape, finite and (unless ``negative``) not below zero; else the error names a bad bin."""
    counts = np.asarray(counts, float)
    if counts.shape != shape:
        raise InvalidValueError(f"Counts of {label} must have shape {shape}, but have {counts.shape}.")
    for bad, what in ((~np.isfinite(counts), "finite"), ((counts < 0) & (not negative), "at least 0")):
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InvalidValueError(f"Counts of {label} must be {what}, but bin {where} holds {counts[where]}.")
    return counts
