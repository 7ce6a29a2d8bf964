"""The profile likelihood: chi2 at fixed values of some parameters, minimised over all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidValueError
from ..likelihood import Likelihood
from ..results import ProfileResult
from .fit import Problem, problem, starting_points
from .minimize import BATCH, minimize

SPREAD_STARTS = 8
"""Starts per point when other parameters of interest are free: their modes may compete."""


def profile(
    like: Likelihood,
    points: Mapping[str, ArrayLike],
    free: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
) -> ProfileResult:
    """Profile the likelihood at given points.

    Args:
        like: likelihood.
        points: {parameter: values}, all of one length: the i-th point has the i-th value of each.
        free: further parameters of interest, profiled like the nuisances.
        values: parameters held at values other than nominal.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: values out of bounds or of different lengths.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> result = cevjax.profile(like, {"sin2_theta_w": [0.20, 0.23, 0.26]})
    >>> bool(result.chi2[1] < result.chi2[0])
    True
    """
    task = problem(like, (*points, *free), values)
    columns = {name: np.atleast_1d(np.asarray(column, float)) for name, column in points.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if not columns or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise InvalidValueError(f"Argument `points` must hold columns of one length, at least 1, but has {lengths}.")
    for name, column in columns.items():
        for extreme in (column.min(), column.max()):
            like.parameters[name].check(extreme)
    count = BATCH if len(task.free) > len(columns) else 1
    found = minimize(like, task.where, starting_points(like, task, count), task.fixed)
    return profile_at(like, task, columns, found.values[[np.argmin(found.nll)]])


def profile_at(
    like: Likelihood, task: Problem, columns: Mapping[str, np.ndarray], anchors: np.ndarray, batch: int = BATCH
) -> ProfileResult:
    """Profile at ``columns``, from the nuisances of each of the ``anchors`` (rows in the order of the task's names)."""
    names, held = task.where.names, tuple(columns)
    others = [i for i, name in enumerate(names) if name in task.free and name not in held]
    templates = anchors
    if others:
        spread = np.repeat(anchors[:1], SPREAD_STARTS, axis=0)
        spread[:, others] = starting_points(like, task, SPREAD_STARTS + 1)[1:, others]
        templates = np.concatenate([anchors, spread])
    n, k = len(next(iter(columns.values()))), len(templates)
    starts = np.repeat(templates[None], n, axis=0)
    for name, column in columns.items():
        starts[:, :, names.index(name)] = column[:, None]
    size = batch if n * k <= 16 * batch else 8 * batch
    found = minimize(like, task.where, starts.reshape(n * k, -1), task.fixed, held, size)
    nll = np.where(np.isfinite(found.nll), found.nll, np.inf).reshape(n, k)
    best = np.arange(n) * k + np.argmin(nll, axis=1)
    fitted = {name: found.values[best, i] for i, name in enumerate(names)}
    return ProfileResult(dict(columns), 2 * found.nll[best], fitted, found.converged[best])
