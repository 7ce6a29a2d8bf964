r"""What a measurement will say before it is made: expected information, errors and intervals.

For counts with expectation mu the expected (Fisher) information of the parameters theta is

.. math:: I_{kl} = \sum_i \frac1{\mu_i} \frac{\partial\mu_i}{\partial\theta_k} \frac{\partial\mu_i}{\partial\theta_l}
          + \text{constraints}

with :math:`1/\sigma_i^2` in place of :math:`1/\mu_i` for Gaussian data, from forward-mode derivatives of the
prediction. The inverse is the covariance of the best fit where the likelihood is Gaussian. :func:`information` and
:func:`expected_errors` are pure functions, for ``jit``, ``vmap`` and gradients: of an expected error by the exposure
(:func:`cevjax.exposure.with_exposure`), say. :func:`forecast` adds intervals that hold where the likelihood is not
Gaussian: those of the Asimov data, which are the unrounded expectation.

Sources: Cowan, Cranmer, Gross & Vitells, arXiv:1007.1727 (Asimov data); Edwards & Weniger, arXiv:1704.05458 (Fisher
information of counts).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..errors import InvalidValueError, check_name
from ..exposure import check_factors, exposure_note, with_exposure
from ..likelihood import Likelihood, bins, expected_flat
from ..results import IntervalResult, describe
from .fit import Problem, problem
from .intervals import interval

ONE_SIGMA = 0.6827
FLAT = 1e-5
"""A parameter whose error would be more than 1/FLAT of its natural steps has no effect."""
SINGULAR = 1e-12
"""Eigenvalues of the information below it, for parameters in units of their errors, are those of a degeneracy."""
TAKES_PART = 1e-4
"""Parameters with a larger part in a degenerate direction have no error of their own."""


def information(like: Likelihood, params: Mapping[str, ArrayLike], names: Sequence[str]) -> Array:
    """The expected information of the parameters ``names``, the others fixed: a pure function.

    It works under ``jit``, ``vmap`` and ``grad``, by the parameters and by every array in ``like``. (By the widths of a
    gamma resolution there is no second derivative.)

    Args:
        like: likelihood; its data do not matter.
        params: all parameters.
        names: of the rows and columns.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    >>> information(like, like.nominal(), ("sin2_theta_w", *like.nuisances)).shape
    (3, 3)
    """
    names = tuple(names)

    def expected(x: Array) -> Array:
        return expected_flat(like, {**params, **dict(zip(names, x, strict=True))})

    constraints = (like.parameters[name].constraint for name in names)
    auxiliary = jnp.array([0.0 if c is None else 1 / c.sigma**2 for c in constraints])
    mu, tangent = jax.linearize(expected, jnp.stack([jnp.asarray(params[name], float) for name in names]))
    jacobian = jax.vmap(tangent)(jnp.eye(len(names)))
    return (jacobian * bins(like, mu).information) @ jacobian.T + jnp.diag(auxiliary)


def expected_errors(like: Likelihood, params: Mapping[str, ArrayLike], names: Sequence[str]) -> Array:
    """Expected standard deviations of the parameters ``names``, each with the others of them free: a pure function.

    All are nan if one of them has no effect; :func:`fisher` sorts that out.

    Args:
        like: likelihood.
        params: all parameters.
        names: the free parameters, usually with all nuisances: ``("sin2_theta_w", *like.nuisances)``.

    >>> import cevjax, jax
    >>> like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    >>> names = ("sin2_theta_w", *like.nuisances)
    >>> error = lambda factor: expected_errors(cevjax.exposure.with_exposure(like, factor), like.nominal(), names)[0]
    >>> bool(jax.jit(jax.grad(error))(1.0) < 0)
    True
    """
    matrix = information(like, params, names)
    scale = jnp.sqrt(jnp.diag(matrix))
    return jnp.sqrt(jnp.diag(jnp.linalg.inv(matrix / jnp.outer(scale, scale)))) / scale


@partial(jax.jit, static_argnames=("names",))
def _information(like: Likelihood, params: dict[str, float], names: tuple[str, ...]) -> Array:
    return information(like, params, names)


@dataclass(frozen=True)
class FisherResult:
    """The expected information at a point, with its inverse where there is one.

    Attributes:
        names: of the parameters, in the order of the matrices.
        values: all parameters at the point.
        matrix: the information, in the parameters' own units.
        covariance: its inverse, all other parameters free; nan for those that are flat or degenerate.
        flat: parameters without effect to first order, such as couplings at 0 that enter squared.
        degenerate: parameters of which only combinations are measured.
        at_bound: parameters that sit at a bound of their range: their errors do not know of it.
        dropped: nuisances left out because a free parameter describes the same thing.
    """

    names: tuple[str, ...]
    values: dict[str, float] = field(repr=False)
    matrix: np.ndarray = field(repr=False)
    covariance: np.ndarray = field(repr=False)
    flat: tuple[str, ...] = ()
    degenerate: tuple[str, ...] = ()
    at_bound: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def errors(self) -> dict[str, float | None]:
        """Expected standard deviations; None for parameters that are flat or degenerate."""
        sigma = np.sqrt(np.diag(self.covariance))
        return {name: float(s) if np.isfinite(s) else None for name, s in zip(self.names, sigma, strict=True)}

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the expected best fits; nan as in :attr:`covariance`."""
        sigma = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sigma, sigma)

    def profiled(self, names: Sequence[str]) -> np.ndarray:
        r"""The information of some parameters with all others eliminated.

        .. math:: I_{AA} - I_{AB} I_{BB}^{-1} I_{BA}

        It is the inverse of their block of the covariance, and is there even if they are degenerate: the eigenvectors
        of large and small eigenvalues are what is measured and what is not.

        Raises:
            UnknownNameError: no such parameter in the matrix; the message offers the nearest.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        kept = [self.names.index(check_name("parameter", name, self.names)) for name in names]
        rest = [i for i in range(len(self.names)) if i not in kept]
        mixed = self.matrix[np.ix_(kept, rest)]
        inverse, _ = _inverse(self.matrix[np.ix_(rest, rest)])
        return self.matrix[np.ix_(kept, kept)] - mixed @ inverse @ mixed.T


def fisher(
    like: Likelihood,
    params: Mapping[str, float] | None = None,
    free: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> FisherResult:
    """The expected information of the ``free`` parameters and all nuisances.

    Args:
        like: likelihood; its data do not matter.
        params: the point; parameters that it lacks are nominal.
        free: names of the parameters of interest.
        fixed: nuisances that are known exactly.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: a value out of bounds; a parameter both free and fixed; no parameter at all.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    >>> result = fisher(like, free=("sin2_theta_w",))
    >>> result.names, result.errors["sin2_theta_w"] < 0.1
    (('sin2_theta_w', 'ess_flux', 'ess_si_steady'), True)
    """
    point = like.nominal(**(params or {}))
    task = problem(like, free, {name: point[check_name("nuisance", name, like.nuisances)] for name in fixed})
    return _fisher(like, point, task)


def _fisher(like: Likelihood, point: Mapping[str, float], task: Problem) -> FisherResult:
    names = task.where.names
    if not names:
        raise InvalidValueError("Argument `free` must name a parameter: this likelihood has no nuisances.")
    point = {**{name: like.parameters[name].nominal for name in names}, **point}
    values = np.array([point[name] for name in names])
    matrix = np.asarray(_information(like, point, names))
    flat = np.sqrt(np.diag(matrix)) * task.where.slope(values) < FLAT
    solid = np.flatnonzero(~flat)
    inverse, part = _inverse(matrix[np.ix_(solid, solid)])
    mixed = np.zeros(len(names), bool)
    mixed[solid] = part > TAKES_PART
    inverse[part > TAKES_PART] = inverse[:, part > TAKES_PART] = np.nan
    covariance = np.full_like(matrix, np.nan)
    covariance[np.ix_(solid, solid)] = inverse
    at_bound = (values <= task.where.lower) | (values >= task.where.upper)
    flat, mixed, at_bound = (
        tuple(name for name, chosen in zip(names, mask, strict=True) if chosen) for mask in (flat, mixed, at_bound)
    )
    return FisherResult(names, dict(point), matrix, covariance, flat, mixed, at_bound, task.dropped)


def _inverse(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse on what is determined, and by how much each parameter takes part in what is not."""
    scale = np.sqrt(np.diag(matrix))
    scale = np.where(scale > 0, scale, 1.0)
    if not np.all(np.isfinite(matrix)):
        return np.full_like(matrix, np.nan), np.ones(len(matrix))
    size, direction = np.linalg.eigh(matrix / np.outer(scale, scale))
    known = size > SINGULAR
    inverse = (direction[:, known] / size[known]) @ direction[:, known].T / np.outer(scale, scale)
    return inverse, np.sqrt(np.sum(direction[:, ~known] ** 2, axis=1))


@dataclass(frozen=True)
class ForecastResult:
    """What is expected of measurements.

    Attributes:
        likelihood: with the exposures, and the Asimov data.
        free: names of the parameters of interest.
        values: all parameters at the point of the Asimov data.
        fixed: parameters held in the fits, with their values.
        exposure: {measurement: factor}.
        fisher: the expected information there.
        intervals: {parameter: {confidence level: expected interval}}, all others profiled; empty without them.
        cl: the confidence level asked for.
        converged: whether all minimisations did.
        message: what else to know.
        seconds: wall time.
    """

    likelihood: Likelihood = field(repr=False)
    free: tuple[str, ...]
    values: dict[str, float]
    fixed: dict[str, float] = field(repr=False)
    exposure: dict[str, float]
    fisher: FisherResult = field(repr=False)
    intervals: dict[str, dict[float, IntervalResult]] = field(repr=False)
    cl: float
    converged: bool
    message: str
    seconds: float = 0.0

    @property
    def errors(self) -> dict[str, float | None]:
        """Expected standard deviations of the parameters of interest; None where they are flat or degenerate."""
        return {name: self.fisher.errors[name] for name in self.free}

    @property
    def nuisances(self) -> tuple[str, ...]:
        return tuple(name for name in self.fisher.names if name not in self.free)

    def pieces(self, name: str, cl: float | None = None) -> list[list[float | None]]:
        """Expected interval of a parameter of interest: its disjoint pieces, None for an open end.

        Args:
            name: of the parameter.
            cl: 0.6827 or the confidence level of the forecast, which is the default.
        """
        known = self.intervals[check_name("parameter", name, self.intervals)]
        level = self.cl if cl is None else cl
        if level not in known:
            raise InvalidValueError(f"Argument `cl` must be {' or '.join(map(str, known))}, but was {cl}.")
        return known[level].intervals

    def expected(self) -> dict[str, dict[str, np.ndarray]]:
        """Expected counts: {measurement: {component: array}}."""
        expected = self.likelihood.expected(self.values)
        return {m: {c: np.asarray(counts) for c, counts in parts.items()} for m, parts in expected.items()}

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON output."""
        parameters, errors = self.likelihood.parameters, self.fisher.errors
        own = [self.fisher.names.index(name) for name in self.free]

        def entry(name: str) -> dict[str, Any]:
            return {"value": self.fisher.values[name], "error": errors[name], "unit": parameters[name].unit}

        def found(name: str) -> dict[str, Any]:
            return {_key(cl): result.intervals for cl, result in self.intervals.get(name, {}).items()}

        return {
            **describe(self.likelihood, "forecast"),
            "exposure": self.exposure,
            "asimov": self.values,
            "cl": self.cl,
            "n_bins": self.likelihood.n_bins,
            "converged": self.converged,
            "message": self.message,
            "parameters": {name: {**entry(name), **found(name)} for name in self.free},
            "nuisances": {name: entry(name) for name in self.nuisances},
            "fixed": self.fixed,
            "correlation": self.fisher.correlation[np.ix_(own, own)],
            "flat": list(self.fisher.flat),
            "degenerate": list(self.fisher.degenerate),
            "at_bound": list(self.fisher.at_bound),
            "dropped": list(self.fisher.dropped),
            "expected": {
                m: {c: float(counts.sum()) for c, counts in parts.items()} for m, parts in self.expected().items()
            },
            "seconds": self.seconds,
        }


def _key(cl: float) -> str:
    return "interval68" if cl == ONE_SIGMA else f"interval{100 * cl:.6g}"


def forecast(
    like: Likelihood,
    free: Sequence[str],
    values: Mapping[str, float] | None = None,
    exposure: float | Sequence[float] = 1.0,
    asimov: Mapping[str, float] | None = None,
    cl: float = 0.90,
    sideband: Sequence[str] = (),
    intervals: bool = True,
) -> ForecastResult:
    """Expected errors and intervals of the ``free`` parameters, from the Asimov data of all measurements.

    Real measurements and those to come may stand side by side; the data of the real ones do not matter.

    Args:
        like: likelihood.
        free: names of the parameters of interest.
        values: parameters held at values other than nominal.
        exposure: multiplies that of all measurements, or one factor for each; see :mod:`cevjax.exposure` for what it
            does not change.
        asimov: parameters of the Asimov data; those that it lacks are as in ``values``, or nominal.
        cl: confidence level of the intervals, besides 68.27 %.
        sideband: pulls whose errors fall like 1/sqrt(exposure), such as ``csi2021_ssb``.
        intervals: whether to profile; without, there are the errors of the expected information only.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: no free parameter, or one that is set; a value out of bounds, an exposure not above 0.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("ess-ge")], cevjax.StandardModel())
    >>> result = forecast(like, ("sin2_theta_w",), exposure=3.0)
    >>> [[round(x, 2) for x in piece] for piece in result.pieces("sin2_theta_w")]
    [[0.21, 0.27]]
    """
    began = time.perf_counter()
    if not 0 < cl < 1:
        raise InvalidValueError(f"Argument `cl` must be between 0 and 1 (0.90 for 90 %), but was {cl}.")
    task = problem(like, free, values)
    if not task.free:
        raise InvalidValueError("Argument `free` must name at least one parameter of interest, but is empty.")
    factors = check_factors(like, exposure)
    truth = like.nominal(**{**(values or {}), **(asimov or {})})
    data = _asimov(like, factors, sideband, truth)
    found: dict[str, dict[float, IntervalResult]] = {}
    for name in task.free if intervals else ():
        others = tuple(other for other in task.free if other != name)
        found[name] = {level: interval(data, name, level, others, values) for level in sorted({ONE_SIGMA, cl})}
    expected = _fisher(data, {**truth, **task.fixed}, task)
    results = [result for levels in found.values() for result in levels.values()]
    return ForecastResult(
        likelihood=data,
        free=task.free,
        values=truth,
        fixed=task.fixed,
        exposure={m.name: float(f) for m, f in zip(like.measurements, factors, strict=True)},
        fisher=expected,
        intervals=found,
        cl=cl,
        converged=all(result.converged for result in results),
        message=_message(task, expected, results),
        seconds=time.perf_counter() - began,
    )


def _asimov(like: Likelihood, factors: Sequence[Array], sideband: Sequence[str], truth: dict[str, float]) -> Likelihood:
    """The likelihood of the Asimov data; at the exposures that it has, of the very measurements: they are compiled."""
    if not sideband and all(float(f) == 1 for f in factors):
        return like.asimov(truth)
    data = with_exposure(like, factors, sideband).asimov(truth)
    data.note = "; ".join((exposure_note(like, factors), data.note))
    return data


def _message(task: Problem, expected: FisherResult, results: Sequence[IntervalResult]) -> str:
    """What a reader must know."""
    bounds = zip(expected.names, task.where.lower, task.where.upper, strict=True)
    wide = [name for name, low, high in bounds if (expected.errors[name] or 0.0) > high - low]
    notes = [
        (expected.flat, "no effect to first order, so no error: {}"),
        (expected.degenerate, "only combinations are measured, so no errors: {}"),
        (wide, "the error exceeds the range that it may have: {}"),
        (expected.at_bound, "at a bound, which the errors do not know of: {}"),
    ]
    said = [text.format(", ".join(names)) for names, text in notes if names]
    said += dict.fromkeys(f"{r.poi}: {r.message}" for r in results if r.message)
    said += dict.fromkeys(f"{r.poi}: not converged" for r in results if not r.converged)
    return "; ".join(said)
