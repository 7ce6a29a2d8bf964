"""The best fit of a likelihood."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InvalidValueError
from ..likelihood import Likelihood
from ..parameters import check_members
from ..registry import check_parameter
from ..results import FitResult, LocalMinimum
from .minimize import BATCH, MAX_STEPS, Minimum, Space, hessian, minimize, space


class Problem(NamedTuple):
    """What is fitted, what is fixed and what is left out."""

    where: Space
    free: tuple[str, ...]
    fixed: dict[str, float]
    dropped: tuple[str, ...]


def check_likelihood(like: Likelihood) -> Likelihood:
    """``like``, if it is a likelihood and not the data alone.

    Raises:
        InvalidValueError: it is something else.
    """
    if isinstance(like, Likelihood):
        return like
    raise InvalidValueError(
        "Argument `like` must be a likelihood, such as cevjax.Likelihood([data], cevjax.StandardModel()), "
        f"but was a {type(like).__name__}."
    )


def problem(like: Likelihood, free: Sequence[str], values: Mapping[str, float] | None) -> Problem:
    """Sort the parameters of ``like`` into free, nuisance and fixed ones.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: no likelihood, or a parameter both free and fixed, or together with one that stands for it.
    """
    check_likelihood(like)
    free = (free,) if isinstance(free, str) else tuple(dict.fromkeys(free))
    known = like.parameters
    for name in free:
        check_parameter(name, known)
    values = dict(values or {})
    given = like.nominal(**values)
    for name in free:
        if name in values:
            raise InvalidValueError(f"Parameter `{name}` must be either free or set, but was both.")
        check_members(known[name], {*free, *values})
    open_ = [n for n in like.nuisances if n not in values and n not in free]
    dropped = tuple(n for n in open_ if any(n in known[name].supersedes for name in free))
    nuisances = tuple(n for n in open_ if n not in dropped)
    fitted = (*free, *nuisances)
    fixed = {name: value for name, value in given.items() if name not in fitted}
    return Problem(space(like, fitted), free, fixed, dropped)


def starting_points(like: Likelihood, task: Problem, count: int) -> np.ndarray:
    """The nominal point, and ``count - 1`` points spread evenly over the search ranges of the free parameters.

    The spread is the additive-recurrence sequence of the generalised golden ratio: deterministic, of low discrepancy.
    """
    points = np.tile([p.nominal for p in task.where.parameters], (max(count, 1), 1))
    d = len(task.free)
    if d and count > 1:
        root = 2.0
        for _ in range(30):
            root = (1 + root) ** (1 / (d + 1))
        steps = np.arange(1, count)[:, None] * root ** -np.arange(1.0, d + 1)
        for i, parameter in enumerate(task.where.parameters[:d]):
            low, high = parameter.encode(parameter.search_range())
            points[1:, i] = parameter.decode(low + (high - low) * ((0.5 + steps[:, i]) % 1))
    return points


def fit(
    like: Likelihood,
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    starts: int | None = None,
) -> FitResult:
    """Maximise the likelihood over the ``free`` parameters and the nuisances.

    Damped Fisher scoring from several starts at once: the nominal point and points spread over the search ranges of
    the free parameters, because couplings enter squared and the likelihood may have several minima.

    Args:
        like: likelihood.
        free: names of the parameters of interest.
        values: parameters held at values other than nominal.
        starts: number of starting points; None for 16, for 64 if two of the free parameters spread over decades, as the
            mass and the coupling of a mediator (minima are narrow there), or for 1 if only nuisances are fitted.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: a value out of bounds, or a parameter both free and set.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> result = cevjax.fit(like, free=("sin2_theta_w",))
    >>> result.converged, round(result.values["sin2_theta_w"], 2)
    (True, 0.23)
    """
    began = time.perf_counter()
    task = problem(like, free, values)
    if not task.where.names:
        raise InvalidValueError("Argument `free` must name a parameter: this likelihood has no nuisances to fit.")
    if starts is not None and starts < 1:
        raise InvalidValueError(f"Argument `starts` must be at least 1, but was {starts}.")
    decades = sum(like.parameters[name].decades for name in task.free)
    count = starts or (1 if not task.free else BATCH if decades < 2 else 4 * BATCH)
    found = _finish(like, task, minimize(like, task.where, starting_points(like, task, count), task.fixed))
    return result_of(like, task, found, began)


def _finish(like: Likelihood, task: Problem, found: Minimum) -> Minimum:
    """The same minima, except that those that are as low as any and have not converged got the steps to do so.

    The valley of a heavy mediator, along which coupling and mass grow alike, is curved, long and almost level.
    """
    lowest = np.min(found.nll, where=found.converged & np.isfinite(found.nll), initial=np.inf)
    rows = np.flatnonzero(~found.converged & np.isfinite(found.nll) & (found.nll <= lowest))
    if not len(rows):
        return found
    more = minimize(like, task.where, found.values[rows], task.fixed, max_steps=10 * MAX_STEPS)
    more = more._replace(steps=more.steps + found.steps[rows])
    whole = Minimum(*(old.copy() for old in found))
    for old, new in zip(whole, more, strict=True):
        old[rows] = new
    return whole


def result_of(like: Likelihood, task: Problem, found: Minimum, began: float) -> FitResult:
    """The lowest of the minima that were found, with its errors."""
    best = int(np.argmin(np.where(np.isfinite(found.nll), found.nll, np.inf)))
    where, values = task.where, found.values[best]
    at_bound = (values <= where.lower) | (values >= where.upper)
    covariance, flat, trouble = _covariance(hessian(like, where, values, task.fixed), where.slope(values), at_bound)
    errors = [float(e) if np.isfinite(e) else None for e in np.sqrt(np.diag(covariance))]
    names_at_bound, names_flat = (
        tuple(name for name, chosen in zip(where.names, mask, strict=True) if chosen) for mask in (at_bound, flat)
    )
    converged = bool(found.converged[best])
    message = "converged" if converged else f"not converged after {int(found.steps[best])} steps"
    if not np.isfinite(found.nll[best]):
        message += ": the likelihood is not finite"
    if names_at_bound:
        message += f"; at a bound: {', '.join(names_at_bound)} (the other errors hold it there)"
    if names_flat:
        message += f"; the likelihood does not depend on {', '.join(names_flat)}"
    return FitResult(
        likelihood=like,
        free=task.free,
        names=where.names,
        values={**task.fixed, **dict(zip(where.names, map(float, values), strict=True))},
        errors=dict(zip(where.names, errors, strict=True)),
        covariance=covariance,
        chi2_min=max(2 * float(found.nll[best]), 0.0),  # rounding can take that of Asimov data below zero
        converged=converged,
        message=message + trouble,
        at_bound=names_at_bound,
        flat=names_flat,
        dropped=task.dropped,
        other_minima=_others(task, found, best, flat),
        steps=int(found.steps[best]),
        seconds=time.perf_counter() - began,
    )


def _covariance(information: np.ndarray, slope: np.ndarray, at_bound: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Inverse of the information of the parameters that are neither at a bound nor without effect, nan elsewhere.

    Also which parameters have no effect, and a remark if there is no inverse.
    """
    covariance = np.full_like(information, np.nan)
    scale = np.sqrt(np.abs(np.diag(information)))
    flat = ~at_bound & (scale * slope < 1e-5)
    inside = np.flatnonzero(~at_bound & ~flat)
    block, scale = information[np.ix_(inside, inside)], scale[inside]
    if not len(inside) or not np.all(np.isfinite(block)):
        return covariance, flat, "" if np.all(np.isfinite(block)) else "; no errors: the information is not finite"
    if np.linalg.eigvalsh(block / np.outer(scale, scale))[0] <= 1e-10:
        return covariance, flat, "; no errors: the information is not positive (degenerate parameters)"
    covariance[np.ix_(inside, inside)] = np.linalg.inv(block)
    return covariance, flat, ""


def _others(task: Problem, found: Minimum, best: int, flat: np.ndarray) -> tuple[LocalMinimum, ...]:
    """Distinct converged minima besides the best, lowest first, that differ by more than a tenth of a step.

    Parameters without effect (``flat``) make no difference.
    """
    kept, u = [best], np.where(flat, 0.0, task.where.encode(found.values))
    for i in np.argsort(found.nll):
        apart = [np.max(np.abs(u[i] - u[k])) > 0.1 for k in kept]
        if found.converged[i] and all(apart):
            kept.append(int(i))
    names = task.where.names
    return tuple(
        LocalMinimum(2 * float(found.nll[i]), dict(zip(names, map(float, found.values[i]), strict=True)))
        for i in kept[1:]
    )
