"""Likelihoods with the detector folded in: everything that no fitted parameter touches is done once.

Between its parameters and its counts a signal runs through form factors, cross sections, spectra and the response of
the detector on a hundred nodes. The counts are smooth functions of the few parameters that a fit moves, so
:func:`fold` replaces the spectra by :mod:`series <cevjax.series>` in them, as accurate as asked for within a range, and
the arrival times by splines in their offset. Nothing else changes: what comes back is a likelihood like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import numpy as np

from .likelihood import Likelihood
from .measurement import Folding, Measurement, Precision
from .series import KNOTS, Curves, Variable

REACH = 3.5
"""Range of a constrained nuisance, in standard deviations from the mean of its auxiliary measurement."""
TOLERANCE = 1e-3
"""Largest term that is left out of a series, in standard deviations of the counts."""
STEEP, SMALL = 3.0, 1e-2
"""Slope of the nll by the counts of a bin from which on it counts, and the smallest expectation that is looked at."""


def fold(
    like: Likelihood,
    fitted: Sequence[str],
    held: Mapping[str, tuple[float, float]],
    fixed: Mapping[str, float],
    tolerance: float = TOLERANCE,
    points: Mapping[str, Sequence[float]] | None = None,
    reach: float | None = None,
) -> Likelihood:
    """``like`` with its signals folded, for fits of ``fitted`` at values of ``held`` within ranges.

    Args:
        like: likelihood.
        fitted: names of the parameters that a fit moves.
        held: {name: (low, high)} of parameters that stay at other values in each fit.
        fixed: values of all others.
        tolerance: in standard deviations of the counts of a bin; what is left out of a series is smaller.
        points: {name: values} of parameters that stay at one of these in each fit, and need no range.
        reach: range of constrained nuisances, in standard deviations; None for :data:`REACH`.

    Returns:
        A likelihood for parameters within :func:`ranges`, where it agrees with ``like`` about as well as ``tolerance``
        says. Components that cannot be folded are as they were.
    """
    points = {name: tuple(map(float, values)) for name, values in (points or {}).items()}
    held = {**held, **{name: (values[0], values[-1]) for name, values in points.items()}}
    where = {name: pair for name, pair in ranges(like, fitted, held, reach or REACH).items() if name not in fixed}
    variables = {n: Variable(like.parameters[n], *pair, points.get(n, ())) for n, pair in where.items()}
    nuisances = {name for name in fitted if like.parameters[name].nuisance}
    moving = {name: float(np.clip(like.parameters[name].nominal, *pair)) for name, pair in where.items()}
    params = {**like.nominal(), **fixed, **moving}
    folding = Folding(
        like.interaction,
        params,
        tuple(v for n, v in variables.items() if n in nuisances),
        tuple(v for n, v in variables.items() if n not in nuisances),
        tolerance,
    )
    expected = like.expected(params)
    measurements = []
    for m in like.measurements:
        counts = {name: np.asarray(part) for name, part in expected[m.name].items()}
        total = np.sum(list(counts.values()), axis=0)
        components = tuple(c.fold(folding, precision(m, total, total - counts[c.name])) for c in m.components)
        measurements.append(eqx.tree_at(lambda m: m.components, m, components))
    return like.with_measurements(measurements)


def precision(measurement: Measurement, total: np.ndarray, others: np.ndarray) -> Precision:
    """How well a component must be known, from the expectation of all components and of all others."""
    if measurement.sigma is not None:
        sigma = np.asarray(measurement.sigma)
        return Precision(sigma**2, np.full_like(sigma, np.inf))
    slope = np.asarray(measurement.observed) / np.maximum(others, SMALL) - 1  # of the nll by counts, without this one
    return Precision(np.maximum(total, SMALL), np.where(slope > STEEP, 1 / np.maximum(slope, STEEP) ** 2, np.inf))


def ranges(
    like: Likelihood, fitted: Sequence[str], held: Mapping[str, tuple[float, float]], reach: float = REACH
) -> dict[str, tuple[float, float]]:
    """Where a folded likelihood is made for: {name: (low, high)} of all parameters that are not fixed."""
    found = dict(held)
    for name in fitted:
        parameter = like.parameters[name]
        low, high = parameter.fit_range()
        if parameter.constraint:
            mean, sigma = parameter.constraint
            low, high = max(parameter.bounds[0], mean - reach * sigma), min(parameter.bounds[1], mean + reach * sigma)
        found[name] = (low, high)
    return found


def tabulated(like: Likelihood, fitted: Sequence[str]) -> dict[str, tuple[float, float]]:
    """{name: (low, high)} of the fitted parameters that a folded likelihood is made for only within a range.

    An end at a bound of the parameter is none: nothing lies beyond.
    """
    found = {}
    for curves in jax.tree.leaves(like.measurements, is_leaf=lambda x: isinstance(x, Curves)):
        if isinstance(curves, Curves) and curves.name in fitted:
            parameter = like.parameters[curves.name]
            ends = float(curves.low) + float(curves.step) * np.array([0, KNOTS - 1])
            low, high = parameter.decode(ends)
            inner, outer = parameter.decode(ends + 1e-3 * np.ptp(ends) * np.array([1, -1]))
            found[curves.name] = (
                -np.inf if low <= parameter.bounds[0] else inner,
                np.inf if high >= parameter.bounds[1] else outer,
            )
    return found
