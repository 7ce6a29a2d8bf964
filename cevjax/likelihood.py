"""The binned likelihood of one or several measurements under an interaction.

``nll`` is -ln(L/L_saturated) with the auxiliary measurements of the nuisances, so chi2 = 2 nll.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from .errors import InvalidValueError
from .interactions.base import Interaction, terms_of
from .measurement import Measurement
from .parameters import Parameter, check_values, merge
from .registry import check_parameter

MU_FLOOR = 1e-9
"""Below this expectation ln(mu) continues along its tangent: finite in value and gradient even at mu <= 0."""


def poisson_nll(expected: ArrayLike, observed: ArrayLike) -> Array:
    r"""Poisson deviance per bin over two: :math:`\mu - n + n\ln(n/\mu)`, zero at :math:`\mu = n`.

    Counts need not be whole numbers. Empty bins (n = 0) give mu; mu -> 0 stays finite.

    Source: Baker & Cousins, NIM 221 (1984) 437.

    >>> float(poisson_nll(3.0, 0.0))
    3.0
    """
    mu, n = jnp.asarray(expected, float), jnp.asarray(observed, float)
    safe = jnp.maximum(mu, MU_FLOOR)
    log_mu = jnp.where(mu > MU_FLOOR, jnp.log(safe), np.log(MU_FLOOR) + (mu - MU_FLOOR) / MU_FLOOR)
    log_n = jnp.log(jnp.where(n > 0, n, 1.0))
    return mu - n + n * (log_n - log_mu)


def gaussian_nll(expected: ArrayLike, observed: ArrayLike, sigma: ArrayLike) -> Array:
    r""":math:`(\mu - n)^2/(2\sigma^2)` per bin."""
    return 0.5 * ((jnp.asarray(expected, float) - observed) / sigma) ** 2


class Data(NamedTuple):
    """What was observed: counts of each measurement, and the results of the auxiliary measurements."""

    observed: tuple[Array, ...]
    auxiliary: Array


@jax.tree_util.register_pytree_node_class
class Likelihood:
    """Joint likelihood of measurements: a pytree whose ``nll`` is a pure function of ``dict[str, float]``.

    Args:
        measurements: one or several, from :func:`cevjax.load`.
        interaction: sum of interactions; the standard model is part of it only if it is in the sum.

    Raises:
        ParameterClashError: two owners define one parameter differently.
        InvalidValueError: the statistics want different couplings and the interaction leaves them open.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021")], cevjax.StandardModel())
    >>> params = like.nominal()
    >>> 40 < float(like.nll(params)) < 45
    True
    >>> gradient = jax.grad(like.nll)(params)
    """

    # A plain class and not an equinox Module, whose bound methods cost as much as an evaluation of the likelihood.

    measurements: tuple[Measurement, ...]
    interaction: Interaction
    auxiliary: Array
    """Results of the auxiliary measurements: the means of the constraints, one for each of :attr:`constrained`."""
    note: str = ""
    """What its data are, where they are not those of the measurements."""

    def __init__(self, measurements: Measurement | Sequence[Measurement], interaction: Interaction):
        if isinstance(measurements, Measurement):
            measurements = (measurements,)
        if not measurements:
            raise InvalidValueError("Argument `measurements` must hold at least one measurement, but is empty.")
        names = [m.name for m in measurements]
        if len(set(names)) < len(names):
            raise InvalidValueError(
                f"Argument `measurements` must hold each data set once, but holds {', '.join(names)}."
            )
        for whole in measurements:
            for part in set(whole.contains) & set(names):
                raise InvalidValueError(
                    f"Argument `measurements` must count each event once, but {whole.name} contains those of {part}."
                )
        if not isinstance(interaction, Interaction):
            raise InvalidValueError(f"Argument `interaction` must be an Interaction, but was {interaction!r}.")
        terms = [term.name for term in terms_of(interaction)]
        if len(set(terms)) < len(terms):
            raise InvalidValueError(f"Argument `interaction` must hold each term once, but was {interaction.name}.")
        self.interaction = interaction.with_couplings(_common_couplings(measurements, interaction))
        self.measurements = tuple(measurements)
        self.auxiliary = jnp.array([p.constraint.mean for p in self.constrained if p.constraint])
        self.measurements = tuple(m.prepare(self.interaction) for m in measurements)

    def tree_flatten(self):
        return (self.measurements, self.interaction, self.auxiliary), None

    @classmethod
    def tree_unflatten(cls, _, children):
        like = object.__new__(cls)
        like.measurements, like.interaction, like.auxiliary = children
        return like

    def __getstate__(self):
        """Without what was compiled, which no other process can take."""
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """All parameters by name: those of the interaction first, then those of the measurements."""
        owners = [
            ("the interaction", self.interaction.parameters),
            *((f"measurement {m.name}", m.parameters) for m in self.measurements),
        ]
        return merge(owners)

    @cached_property
    def constrained(self) -> tuple[Parameter, ...]:
        """The parameters that have an auxiliary measurement."""
        return tuple(p for p in self.parameters.values() if p.constraint)

    @property
    def nuisances(self) -> tuple[str, ...]:
        """Names of the nuisance parameters, free in every fit."""
        return tuple(p.name for p in self.parameters.values() if p.nuisance)

    @property
    def n_bins(self) -> int:
        return sum(int(np.prod(m.shape)) for m in self.measurements)

    def nominal(self, /, **values: float) -> dict[str, float]:
        """The nominal point, with ``values`` in place of some.

        Raises:
            UnknownNameError: no such parameter; the message offers the nearest.
            InvalidValueError: a value that is not finite or outside the bounds.
        """
        point = {p.name: p.nominal for p in self.parameters.values() if not p.members}
        for name in values:
            check_parameter(name, self.parameters)
        return {**point, **check_values(values, self.parameters)}

    def expected(self, params: Mapping[str, ArrayLike]) -> dict[str, dict[str, Array]]:
        """Expected counts {measurement: {component: array}}."""
        self._check_names(params)
        return _expected(self, dict(params))

    def nll(self, params: Mapping[str, ArrayLike]) -> Array:
        """-ln(L/L_saturated) of data and auxiliary measurements at ``params``; chi2 is twice it.

        Args:
            params: all parameters by name, as from :meth:`nominal`.

        Raises:
            UnknownNameError: a name the likelihood does not have.
            InvalidValueError: a parameter is missing.
        """
        names = self._names
        if len(params) == len(names):
            values = [params.get(name) for name in names]
            if all(isinstance(value, float) for value in values):  # one array costs less than a dozen scalars
                return self._compiled[1](np.array(values), self.data)
        self._check_names(params)
        return self._compiled[0](dict(params), self.data)

    def chi2(self, params: Mapping[str, ArrayLike]) -> Array:
        """2 :meth:`nll`."""
        return 2 * self.nll(params)

    def asimov(self, params: Mapping[str, ArrayLike]) -> Likelihood:
        """The same likelihood with the data replaced by the (unrounded) expectation at ``params``.

        The auxiliary measurements stay at their means: a nuisance moved in ``params`` costs its penalty there.
        """
        expected = self.expected(params)
        other = self.with_observed([total(expected[m.name]) for m in self.measurements])
        if not any(isinstance(value, Tracer) for value in params.values()):
            nominal = self.nominal()
            values = {name: float(np.asarray(value)) for name, value in params.items()}
            moved = [f"{name} = {value:.6g}" for name, value in values.items() if value != nominal.get(name)]
            other.note = f"Asimov data, the expectation at {', '.join(moved) or 'the nominal point'}"
        return other

    def with_observed(self, observed: Iterable[ArrayLike]) -> Likelihood:
        """The same likelihood with other counts, one array a measurement."""
        replaced = tuple(m.with_observed(o) for m, o in zip(self.measurements, observed, strict=True))
        other = Likelihood.tree_unflatten(None, (replaced, self.interaction, self.auxiliary))
        other.__dict__["_compiled"] = self._compiled
        return other

    def with_measurements(self, measurements: Iterable[Measurement]) -> Likelihood:
        """The same likelihood with its measurements in another form, unchecked."""
        other = Likelihood.tree_unflatten(None, (tuple(measurements), self.interaction, self.auxiliary))
        other.note = self.note
        return other

    def hold(self, params: Mapping[str, ArrayLike]) -> Likelihood:
        """A folded likelihood with everything evaluated that only parameters of interest reach, at ``params``."""
        return self.with_measurements(m.hold(params) for m in self.measurements)

    def with_data(self, data: Data) -> Likelihood:
        """The same likelihood with other data and results of auxiliary measurements, unchecked."""
        pairs = zip(self.measurements, data.observed, strict=True)
        measurements = tuple(eqx.tree_at(lambda m: m.observed, m, counts) for m, counts in pairs)
        return Likelihood.tree_unflatten(None, (measurements, self.interaction, data.auxiliary))

    def _check_names(self, params: Mapping[str, ArrayLike]) -> None:
        missing = [p.name for p in self.parameters.values() if not p.members and p.name not in params]
        if missing:
            raise InvalidValueError(f"Argument `params` must hold every parameter, but lacks {', '.join(missing)}.")
        for name in params:
            check_parameter(name, self.parameters)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.nominal())

    @property
    def data(self) -> Data:
        """Counts, and results of the auxiliary measurements."""
        return Data(tuple(m.observed for m in self.measurements), self.auxiliary)

    @cached_property
    def _compiled(self) -> tuple[Callable[..., Array], Callable[..., Array]]:
        """The nll of a dictionary and of a vector of parameters, and of the data: other data need no compilation."""

        def of_dict(params, data):
            return nll(self.with_data(data), params)

        def of_vector(values, data):
            return of_dict(dict(zip(self._names, values, strict=True)), data)

        return jax.jit(of_dict), jax.jit(of_vector)


def _common_couplings(measurements: Sequence[Measurement], interaction: Interaction) -> str:
    wanted = sorted({m.couplings for m in measurements})
    left_open = not eqx.tree_equal(interaction, interaction.with_couplings(wanted[0]))
    if len(wanted) > 1 and left_open:
        raise InvalidValueError(
            f"The statistics of the measurements use different couplings ({', '.join(wanted)}): choose with "
            "StandardModel(couplings=...), or --couplings."
        )
    return wanted[0]


def total(components: Mapping[str, Array]) -> Array:
    """Sum of the components."""
    return jnp.sum(jnp.stack(list(components.values())), axis=0)


def expected_flat(like: Likelihood, params: Mapping[str, ArrayLike]) -> Array:
    """Expected counts of all bins of all measurements in one vector."""
    return jnp.concatenate([total(m.expected(params, like.interaction)).ravel() for m in like.measurements])


class Bins(NamedTuple):
    """The nll of every bin, its first derivative by the expectation, and the expectation of its second."""

    nll: Array
    score: Array
    information: Array


def bins_of(measurement: Measurement, expected: Array) -> Bins:
    """How well ``expected``, the counts of all bins in one vector, describes the data of a measurement, bin by bin."""
    n = measurement.observed.ravel()
    if measurement.sigma is None:
        safe = jnp.maximum(expected, MU_FLOOR)
        return Bins(poisson_nll(expected, n), 1 - n / safe, 1 / safe)
    sigma = measurement.sigma.ravel()
    return Bins(gaussian_nll(expected, n, sigma), (expected - n) / sigma**2, 1 / sigma**2)


def bins(like: Likelihood, expected: Array) -> Bins:
    """:func:`bins_of` all measurements, for a vector as from :func:`expected_flat`."""
    cuts = np.cumsum([m.observed.size for m in like.measurements])[:-1]
    parts = [bins_of(m, mu) for m, mu in zip(like.measurements, jnp.split(expected, cuts), strict=True)]
    return Bins(*(jnp.concatenate(rows) for rows in zip(*parts, strict=True)))


def constraint_nll(like: Likelihood, params: Mapping[str, ArrayLike]) -> Array:
    """-ln of the auxiliary measurements, relative to their maxima."""
    if not like.constrained:
        return jnp.asarray(0.0)
    values = jnp.stack([jnp.asarray(params[p.name], float) for p in like.constrained])
    sigma = np.array([p.constraint.sigma for p in like.constrained if p.constraint])
    return jnp.sum(gaussian_nll(values, like.auxiliary, sigma))


@jax.jit
def _expected(like: Likelihood, params):
    return {m.name: m.expected(params, like.interaction) for m in like.measurements}


def nll(like: Likelihood, params: Mapping[str, ArrayLike]) -> Array:
    """:meth:`Likelihood.nll` as a pure function of the likelihood too: the data are arguments, not constants."""
    return jnp.sum(bins(like, expected_flat(like, params)).nll) + constraint_nll(like, params)
