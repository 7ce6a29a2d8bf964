"""Damped Fisher scoring: the minimiser under every fit, profile and interval.

For counts with expectation mu(theta) the gradient of the nll is J^T score and its expected curvature
J^T diag(information) J, with J the forward-mode Jacobian of mu: no second derivatives, and never indefinite. What the
residuals add to the curvature is learnt from the gradients on the way (symmetric rank-one updates), which turns linear
into superlinear convergence. Levenberg-Marquardt damping makes each step a descent, a projected active set keeps
bounds. All points of a batch run in one ``vmap`` of one ``while_loop``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from ..likelihood import Likelihood, bins, constraint_nll, expected_flat
from ..parameters import Parameter

TOLERANCE = 1e-8
"""A fit has converged when the nll can fall by no more than this, estimated from the last quadratic model."""
MAX_STEPS = 200
BATCH = 16


class Space(NamedTuple):
    """The free parameters of a problem: how they map to the dimensionless coordinates of the minimiser."""

    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    @property
    def lower(self) -> np.ndarray:
        return np.array([p.bounds[0] for p in self.parameters])

    @property
    def upper(self) -> np.ndarray:
        return np.array([p.bounds[1] for p in self.parameters])

    def encode(self, values: np.ndarray) -> np.ndarray:
        columns = [p.encode(values[..., i]) for i, p in enumerate(self.parameters)]
        return np.stack(columns, axis=-1) if columns else np.zeros(values.shape)

    def decode(self, u: np.ndarray) -> np.ndarray:
        columns = [p.decode(u[..., i]) for i, p in enumerate(self.parameters)]
        return np.stack(columns, axis=-1) if columns else np.zeros(u.shape)

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Derivative of the values by their coordinates."""
        pairs = zip(self.parameters, values, strict=True)
        return np.array([np.hypot(p.scale, v) if p.decades else p.scale for p, v in pairs])


def space(like: Likelihood, names: Sequence[str]) -> Space:
    """The space of the parameters called ``names``."""
    return Space(tuple(like.parameters[name] for name in names))


class Minimum(NamedTuple):
    """Where a minimisation ended. Arrays have one entry (row) a point of the batch."""

    values: np.ndarray
    nll: np.ndarray
    distance: np.ndarray
    steps: np.ndarray

    @property
    def converged(self) -> np.ndarray:
        return (self.distance < TOLERANCE) & np.isfinite(self.nll)


def minimize(
    like: Likelihood,
    where: Space,
    starts: np.ndarray,
    fixed: Mapping[str, float],
    held: Sequence[str] = (),
    batch: int = BATCH,
) -> Minimum:
    """Minimise the nll from each row of ``starts``.

    Args:
        like: likelihood.
        where: free parameters.
        starts: starting values, shape (points, free parameters), in the parameters' own units.
        fixed: values of all other parameters.
        held: names in ``where`` that stay at their starting values: the point of a profile.
        batch: points per compiled call; the last call is padded.
    """
    u = where.encode(np.clip(starts, where.lower, where.upper))
    u, value, _, distance, steps = _run(like, where, u, fixed, held, batch)
    return Minimum(where.decode(u), value, distance, steps)


def _run(like, where, u, fixed, held=(), batch=BATCH, max_steps=None):
    """Call the compiled minimiser in batches of one size, so that it is compiled once."""
    hold = np.array([name in held for name in where.names])
    rest = tuple(fixed)
    rest_values = np.array([float(fixed[name]) for name in rest])
    limit = MAX_STEPS if max_steps is None else max_steps
    box = where.encode(where.lower), where.encode(where.upper)
    centre = np.array([0.0 if p.decades else p.nominal for p in where.parameters])
    scale, decades = np.array([p.scale for p in where.parameters]), tuple(p.decades for p in where.parameters)
    maps = centre, scale, decades
    parts = []
    for first in range(0, len(u), batch):
        chunk = u[first : first + batch]
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])
        out = _minimize(like, where.names, rest, padded, hold, rest_values, *maps, *box, limit)
        parts.append([np.asarray(x)[: len(chunk)] for x in out])
    return [np.concatenate(x) for x in zip(*parts, strict=True)]


class _Model(NamedTuple):
    """The nll around a point, to second order."""

    u: Array
    nll: Array
    gradient: Array
    curvature: Array


class _State(NamedTuple):
    best: _Model
    secant: Array  # what the gradients say the curvature has beyond the expected one
    trial: Array  # where to evaluate next
    predicted: Array  # fall of the nll that the model at `best` predicts for `trial`
    damping: Array
    distance: Array
    steps: Array


@partial(jax.jit, static_argnames=("names", "rest", "decades"))
def _minimize(like, names, rest, starts, hold, rest_values, centre, scale, decades, lower, upper, max_steps):
    fixed = dict(zip(rest, rest_values, strict=True)) if rest else {}
    constraints = [like.parameters[name].constraint for name in names]
    penalty_curvature = jnp.array([0.0 if c is None else 1 / c.sigma**2 for c in constraints]) * scale**2

    def params(u):
        if any(decades):
            u = jnp.where(np.array(decades), jnp.sinh(jnp.where(np.array(decades), u, 0.0)), u)
        values = centre + scale * u
        return {**fixed, **dict(zip(names, values, strict=True))}

    def penalty(u):
        return constraint_nll(like, params(u))

    def model(u):
        mu, tangent = jax.linearize(lambda v: expected_flat(like, params(v)), u)
        jacobian = jax.vmap(tangent)(jnp.eye(len(names)))
        at = bins(like, mu)
        curvature = (jacobian * at.information) @ jacobian.T + jnp.diag(penalty_curvature)
        return _Model(u, jnp.sum(at.nll) + penalty(u), jacobian @ at.score + jax.grad(penalty)(u), curvature)

    def propose(at, secant, damping):
        """Damped step on the coordinates that are neither held nor pressed against a bound."""
        pressed = ((at.u <= lower) & (at.gradient > 0)) | ((at.u >= upper) & (at.gradient < 0))
        moving = jnp.where(hold | pressed, 0.0, 1.0)
        gradient = at.gradient * moving
        diagonal = jnp.maximum(jnp.diag(at.curvature), 1e-6)

        def newton(curvature, damping):
            ridge = jnp.diag(jnp.where(moving > 0, (1e-13 + damping) * diagonal, 1.0))
            return -cho_solve(cho_factor(curvature * moving * moving[:, None] + ridge), gradient)

        learnt = newton(at.curvature + secant, damping)
        definite = jnp.all(jnp.isfinite(learnt)) & (gradient @ learnt <= 0)
        step = jnp.where(definite, learnt, newton(at.curvature, damping))
        curvature = at.curvature + jnp.where(definite, secant, 0.0)
        trial = jnp.where(hold, at.u, jnp.clip(at.u + step, lower, upper))
        moved = trial - at.u
        predicted = -(gradient @ moved + 0.5 * moved @ curvature @ moved)
        # without damping, which would make any point look close to the minimum
        distance = -0.5 * gradient @ newton(at.curvature, 0.0)
        return trial, predicted, jnp.where(jnp.isfinite(at.nll) & jnp.isfinite(distance), distance, jnp.inf)

    def unfinished(state):
        return (state.distance > TOLERANCE) & (state.steps < max_steps) & (state.damping < 1e12)

    def advance(state):
        new, best = model(state.trial), state.best
        accept = jnp.isfinite(new.nll) & (new.nll <= best.nll + 1e-13 * (1 + jnp.abs(best.nll)))
        good = best.nll - new.nll > 0.5 * state.predicted
        smaller = jnp.where(good, jnp.where(state.damping < 1e-6, 0.0, state.damping * 0.1), state.damping)
        damping = jnp.where(accept, smaller, jnp.maximum(state.damping * 10, 1e-4))
        secant = jnp.where(accept, _rank_one(state.secant, best, new), 0.0)
        best = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, best)
        trial, predicted, distance = propose(best, secant, damping)
        return _State(best, secant, trial, predicted, damping, distance, state.steps + 1)

    def solve(u):
        n, inf = len(names), jnp.asarray(jnp.inf)
        nowhere = _Model(u, inf, jnp.zeros_like(u), jnp.eye(n))
        start = _State(nowhere, jnp.zeros((n, n)), u, -inf, jnp.asarray(1e-3), inf, jnp.asarray(0))
        last = jax.lax.while_loop(unfinished, advance, start)
        return last.best.u, last.best.nll, last.best.gradient, last.distance, last.steps

    return jax.vmap(solve)(starts)


def _rank_one(secant, old, new):
    """Symmetric rank-one update: the curvature must reproduce the change of the gradient from ``old`` to ``new``."""
    moved = new.u - old.u
    missing = new.gradient - old.gradient - (new.curvature + secant) @ moved
    size = missing @ moved
    stable = jnp.abs(size) > 1e-8 * jnp.sqrt((missing @ missing) * (moved @ moved))
    first = ~jnp.isfinite(old.nll)  # there was no gradient before the first evaluation
    update = jnp.outer(missing, missing) / jnp.where(stable, size, 1.0)
    return jnp.where(stable & ~first, secant + update, secant)


def hessian(like: Likelihood, where: Space, values: np.ndarray, fixed: Mapping[str, float]) -> np.ndarray:
    """Second derivatives of the nll by the free parameters, in their own units: the observed information.

    Central differences of the exact gradient, which the minimiser returns where it takes no step.
    """
    centre = where.encode(values)
    inside = where.encode(where.lower), where.encode(where.upper)
    ahead, behind = np.minimum(inside[1] - centre, 1e-3), np.minimum(centre - inside[0], 1e-3)
    points = np.concatenate([centre + np.diag(ahead), centre - np.diag(behind)])
    gradient = _run(like, where, points, fixed, max_steps=1)[2]
    n = len(centre)
    width = np.maximum(ahead + behind, 1e-300)[:, None]
    scaled = (gradient[:n] - gradient[n:]) / width
    slope = where.slope(values)
    return 0.5 * (scaled + scaled.T) / np.outer(slope, slope)
