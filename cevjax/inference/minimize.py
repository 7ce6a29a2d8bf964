"""Damped Fisher scoring: the minimiser under every fit, profile and interval.

For counts with expectation mu(theta) the gradient of the nll is J^T score and its expected curvature
J^T diag(information) J, with J the forward-mode Jacobian of mu: no second derivatives, and never indefinite. What the
residuals add to the curvature is learnt from the gradients on the way (symmetric rank-one updates), which turns linear
into superlinear convergence. Levenberg-Marquardt damping makes each step a descent, a projected active set keeps
bounds. All points of a batch run in one ``vmap`` of one ``while_loop``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from ..interactions.base import Interaction
from ..likelihood import Data, Likelihood, bins_of, constraint_nll
from ..measurement import Measurement
from ..parameters import Parameter

TOLERANCE = 1e-8
"""A fit has converged when the nll can fall by no more than this, estimated from the last quadratic model.

The step that would take it there is still made; what it gains is what the model says."""
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
    converged: np.ndarray
    steps: np.ndarray


def minimize(
    like: Likelihood,
    where: Space,
    starts: np.ndarray,
    fixed: Mapping[str, ArrayLike],
    held: Sequence[str] = (),
    batch: int = BATCH,
    data: Data | None = None,
    tolerance: float = TOLERANCE,
    max_steps: ArrayLike | None = None,
    bent: Sequence[str] = (),
    queue: int | None = None,
) -> Minimum:
    """Minimise the nll from each row of ``starts``.

    Args:
        like: likelihood.
        where: free parameters.
        starts: starting values, shape (points, free parameters), in the parameters' own units.
        fixed: values of all other parameters: numbers, or arrays with one entry a point.
        held: names in ``where`` that stay at their starting values. One compiled function does for any of them; where
            the same ones are held at many points, arrays in ``fixed`` are faster.
        batch: points that take their steps together.
        data: other data than those of ``like``, each array with one row a point.
        tolerance: in the nll; the last step gains less than that, and the error is a small part of the gain. Where the
            nll exceeds the number of bins by x, so that nothing fits, it is 1 + x/100 times as large.
        max_steps: after which a point counts as not converged, alike for all or not; None for :data:`MAX_STEPS`.
        bent: names in ``where`` by which second derivatives of the counts are taken too: couplings that enter squared,
            where the expected curvature vanishes at zero charge. That is cheap for folded likelihoods.
        queue: points per compiled call, the last of which is padded; None for one batch. In a longer queue the next
            point takes the place of one that has converged, so that none waits for the slowest of its batch.
    """
    u = where.encode(np.clip(starts, where.lower, where.upper))
    u, value, _, converged, steps = _run(like, where, u, fixed, held, batch, max_steps, data, tolerance, bent, queue)
    return Minimum(where.decode(u), value, converged, steps)


def _run(
    like, where, u, fixed, held=(), batch=BATCH, max_steps=None, data=None, tolerance=TOLERANCE, bent=(), queue=None
):
    """Call the compiled minimiser with numbers of points of one size, so that it is compiled once."""
    hold = np.array([name in held for name in where.names])
    each = tuple(name for name, value in fixed.items() if np.ndim(value))
    rest = tuple(name for name in fixed if name not in each)
    rest_values = np.array([float(fixed[name]) for name in rest])
    columns = np.stack([np.asarray(fixed[name], float) for name in each], axis=1) if each else np.zeros((len(u), 0))
    limits = np.broadcast_to(MAX_STEPS if max_steps is None else max_steps, len(u))
    box = where.encode(where.lower), where.encode(where.upper)
    centre = np.array([0.0 if p.decades else p.nominal for p in where.parameters])
    scale, decades = np.array([p.scale for p in where.parameters]), tuple(p.decades for p in where.parameters)
    numbers = hold, rest_values, centre, scale, *box, tolerance
    sharding = _over_devices()
    count = 1 if sharding is None else sharding.num_devices
    batch = -(-batch // count) * count
    size = batch if sharding is not None or queue is None else max(queue, batch)
    parts = []
    for first in range(0, len(u), size):
        rows = np.minimum(np.arange(first, first + size), len(u) - 1)
        points = jax.tree.map(lambda x: x[rows], (u, columns, data, limits))  # noqa: B023
        points = points if sharding is None else jax.device_put(points, sharding)
        real = min(size, len(u) - first)
        parts.append(_minimize(like, where.names, tuple(bent), rest, each, decades, batch, real, points, *numbers))
    # only now are the results waited for: XLA may run several calls at once
    return [np.concatenate(x)[: len(u)] for x in zip(*parts, strict=True)]


def _over_devices() -> NamedSharding | None:
    """How the points of a batch are spread over the devices of this process; None if there is one."""
    devices = jax.local_devices()
    return NamedSharding(Mesh(np.array(devices), ("points",)), PartitionSpec("points")) if len(devices) > 1 else None


class _Model(NamedTuple):
    """The nll around a point, to second order."""

    u: Array
    nll: Array
    gradient: Array
    curvature: Array  # the expected one
    bend: Array  # what second derivatives of the counts add to it, where they are taken


class _State(NamedTuple):
    best: _Model
    secant: Array  # what the gradients say the curvature has beyond the expected one
    trial: Array  # where to evaluate next
    predicted: Array  # fall of the nll that the model at `best` predicts for `trial`
    damping: Array
    distance: Array  # fall down to the minimum of the model, without damping
    stride: Array  # length of the step that led to `best`
    steps: Array


def reach(measurement: Measurement, interaction: Interaction, names: Sequence[str]) -> list[list[int]]:
    """Which of the parameters called ``names`` each component may depend on, by position."""
    known = {p.name for p in (*interaction.parameters, *measurement.parameters)}
    moved = [component.moved_by(interaction) for component in measurement.components]
    return [[i for i, name in enumerate(names) if name in (known if own is None else own)] for own in moved]


# several calls run at once, so that XLA need not split the small operations within each
ALONE = {"xla_cpu_multi_thread_eigen": False}


@partial(jax.jit, static_argnames=("names", "bent", "rest", "each", "decades", "batch"), compiler_options=ALONE)
def _minimize(
    like, names, bent, rest, each, decades, batch, n, points, hold, rest_values, centre, scale, lower, upper, tolerance
):
    """Minimise from the first ``n`` of the points, a batch of which takes steps together.

    Where there are more of them than a batch, the next one takes the place of one that has converged.
    """

    def descent(point):
        _, column, data, limit = point
        fixed = {**dict(zip(rest, rest_values, strict=True)), **dict(zip(each, column, strict=True))}
        here = (like if data is None else like.with_data(data)).hold(fixed)
        limits = {"hold": hold, "max_steps": limit, "tolerance": tolerance}
        return _descent(here, fixed, centre, scale, names, bent, decades, (lower, upper), **limits)

    if len(points[0]) == batch:
        return jax.vmap(lambda point: descent(point).run(_start(point[0])))(points)

    def of_batch(part):
        return jax.vmap(lambda point, state: getattr(descent(point), part)(state))

    advance, unfinished, end = map(of_batch, ("advance", "unfinished", "end"))

    def fill(rows):
        some = jax.tree.map(lambda x: x[rows], points)
        return some, jax.vmap(_start)(some[0])

    def busy(carry):
        return jnp.any(carry[1] < n)

    def step(carry):
        ahead, row, here, state, results = carry
        new = advance(here, state)
        done = (row < n) & ~unfinished(here, new)
        out = end(here, new)
        results = jax.tree.map(lambda old, x: old.at[jnp.where(done, row, len(old))].set(x, mode="drop"), results, out)
        following = ahead + jnp.cumsum(done) - 1
        row = jnp.where(done, following, row)
        fresh = fill(jnp.minimum(row, n - 1))
        kept = lambda a, b: jnp.where(jnp.expand_dims(done, range(1, a.ndim)), a, b)  # noqa: E731
        here, state = jax.tree.map(kept, fresh, (here, new))
        return ahead + jnp.sum(done), row, here, state, results

    row = jnp.arange(batch)
    here, state = fill(jnp.minimum(row, n - 1))
    shapes = jax.eval_shape(end, here, state)
    results = jax.tree.map(lambda x: jnp.zeros((len(points[0]), *x.shape[1:]), x.dtype), shapes)
    return jax.lax.while_loop(busy, step, (batch, row, here, state, results))[-1]


class _Descent(NamedTuple):
    """How a minimisation goes on and ends."""

    unfinished: Callable[[_State], Array]
    advance: Callable[[_State], _State]
    end: Callable[[_State], tuple[Array, ...]]

    def run(self, state: _State) -> tuple[Array, ...]:
        return self.end(jax.lax.while_loop(self.unfinished, self.advance, state))


def _start(u: Array) -> _State:
    n, inf = len(u), jnp.asarray(jnp.inf)
    nowhere = _Model(u, inf, jnp.zeros_like(u), jnp.eye(n), jnp.zeros((n, n)))
    return _State(nowhere, jnp.zeros((n, n)), u, -inf, jnp.asarray(1e-3), inf, inf, jnp.asarray(0))


def _descent(like, fixed, centre, scale, names, bent, decades, box, *, hold, max_steps, tolerance):
    """Minimisation of one nll."""
    (lower, upper), n = box, len(names)
    sigma = {p.name: p.constraint.sigma for p in like.constrained if p.constraint}
    penalty_curvature = jnp.array([1 / sigma[name] ** 2 if name in sigma else 0.0 for name in names]) * scale**2

    def params(u):
        values = [c + s * (jnp.sinh(x) if d else x) for x, c, s, d in zip(u, centre, scale, decades, strict=True)]
        return {**fixed, **dict(zip(names, values, strict=True))}

    def penalty(u):
        return constraint_nll(like, params(u))

    def counts_of(component, own, u):
        """Counts of a component, as a function of some coordinates."""

        def counts(moved):
            new = dict(zip(own, moved, strict=True))
            return component(params([new.get(i, u[i]) for i in range(n)]), like.interaction).ravel()

        return counts

    def linear(component, own, u):
        """Counts of a component, and their derivatives by the coordinates that it depends on."""
        value, tangent = jax.linearize(counts_of(component, own, u), u[np.array(own, int)])
        return value, jax.vmap(tangent)(jnp.eye(len(own)))

    def model(u):
        value, gradient = jax.value_and_grad(penalty)(u)
        curvature, bend = jnp.diag(penalty_curvature), jnp.zeros((n, n))
        for m in like.measurements:
            mu, rows, second = jnp.zeros(m.observed.size), {}, []
            for component, own in zip(m.components, reach(m, like.interaction, names), strict=True):
                counts, jacobian = linear(component, own, u)
                mu = mu + counts
                for i, row in zip(own, jacobian, strict=True):
                    rows[i] = rows[i] + row if i in rows else row
                which = [i for i in own if names[i] in bent]
                if which:
                    curve = jax.jacfwd(jax.jacfwd(counts_of(component, which, u)))
                    second.append((which, curve(u[np.array(which, int)])))
            at = bins_of(m, mu)
            value = value + jnp.sum(at.nll)
            if rows:
                jacobian = jnp.stack(list(rows.values()))
                place = dict(zip(rows, range(n), strict=False))  # where each parameter is; zero if nowhere
                spread = np.array([place.get(i, len(rows)) for i in range(n)])
                gradient = gradient + jnp.append(jacobian @ at.score, 0.0)[spread]
                block = (jacobian * at.information) @ jacobian.T
                curvature = curvature + jnp.pad(block, (0, 1))[spread][:, spread]
            for which, curves in second:
                bend = bend.at[np.ix_(which, which)].add(jnp.tensordot(at.score, curves, axes=1))
        return _Model(u, value, gradient, curvature, bend)

    def propose(at, secant, damping):
        """Damped step on the coordinates that are neither held nor pressed against a bound."""
        pressed = ((at.u <= lower) & (at.gradient > 0)) | ((at.u >= upper) & (at.gradient < 0))
        moving = jnp.where(hold | pressed, 0.0, 1.0)
        gradient = at.gradient * moving
        diagonal = jnp.maximum(jnp.diag(at.curvature), 1e-6)

        def newton(curvature, damping, moving, gradient):
            ridge = jnp.diag(jnp.where(moving > 0, (1e-13 + damping) * diagonal, 1.0))
            return -solve_positive(curvature * moving * moving[:, None] + ridge, gradient * moving)

        def definite(curvature, damping):
            """The step for a curvature, and whether it is positive as far as the step tells."""
            step = newton(curvature, damping, moving, gradient)
            return step, jnp.all(jnp.isfinite(step)) & (gradient @ step <= 0)

        learnt, positive = definite(at.curvature + at.bend + secant, damping)
        step = jnp.where(positive, learnt, newton(at.curvature, damping, moving, gradient))
        curvature = at.curvature + jnp.where(positive, at.bend + secant, 0.0)
        # where the step would leave the box, it ends there, and the other coordinates take their best for that
        inside = jnp.clip(at.u + step, lower, upper)
        leaves = (moving > 0) & (inside != at.u + step)
        ended = jnp.where(leaves, inside - at.u, 0.0)
        rest = newton(curvature, damping, jnp.where(leaves, 0.0, moving), gradient + curvature @ ended)
        step = jnp.where(leaves, ended, rest)
        trial = jnp.where(hold, at.u, jnp.clip(at.u + step, lower, upper))
        moved = trial - at.u
        predicted = -(gradient @ moved + 0.5 * moved @ curvature @ moved)
        # without damping, which would make any point look close to the minimum; what is so flat that all of its box is
        # worth less than the tolerance does not count
        flat = jnp.diag(tolerance / (n * (upper - lower) ** 2))
        last = newton(at.curvature + flat, 0.0, moving, gradient)
        if bent:
            exact, positive = definite(at.curvature + at.bend + flat, 0.0)
            last = jnp.where(positive, exact, last)
        distance = -0.5 * gradient @ last
        return trial, predicted, jnp.where(jnp.isfinite(at.nll) & jnp.isfinite(distance), distance, jnp.inf)

    bins = sum(m.observed.size for m in like.measurements)

    def enough(state):
        misfit = jnp.maximum(state.best.nll - bins, 0.0)
        return jnp.isfinite(state.distance) & (state.distance <= tolerance * (1 + misfit / 100))

    def unfinished(state):
        return ~enough(state) & (state.steps < max_steps) & (state.damping < 1e12)

    def advance(state):
        new, best = model(state.trial), state.best
        accept = jnp.isfinite(new.nll) & (new.nll <= best.nll + 1e-13 * (1 + jnp.abs(best.nll)))
        good = best.nll - new.nll > 0.5 * state.predicted
        smaller = jnp.where(good, jnp.where(state.damping < 1e-6, 0.0, state.damping * 0.1), state.damping)
        damping = jnp.where(accept, smaller, jnp.maximum(state.damping * 10, 1e-4))
        secant = jnp.where(accept, _rank_one(state.secant, best, new), 0.0)
        length = jnp.where(jnp.isfinite(best.nll), jnp.max(jnp.abs(state.trial - best.u), initial=0.0), jnp.inf)
        stride = jnp.where(accept, length, state.stride)
        best = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, best)
        trial, predicted, distance = propose(best, secant, damping)
        return _State(best, secant, trial, predicted, damping, distance, stride, state.steps + 1)

    def end(last):
        converged = enough(last)
        # where the curvature vanishes a last step may be long, and lead where the model does not hold
        short = jnp.max(jnp.abs(last.trial - last.best.u), initial=0.0) <= last.stride
        sound = converged & short & (last.predicted >= 0) & (last.predicted <= 2 * last.distance)
        u, value = jnp.where(sound, last.trial, last.best.u), last.best.nll - jnp.where(sound, last.predicted, 0.0)
        return u, value, last.best.gradient, converged, last.steps

    return _Descent(unfinished, advance, end)


def solve_positive(matrix: Array, vector: Array) -> Array:
    """Solution of a symmetric positive system, by elimination; nan where the matrix is not positive.

    LAPACK's Cholesky factorisation, called for a batch within a loop, can block the threads of XLA on a CPU for ever
    (jaxlib 0.10: workers wait in ``ParallelBatchMap`` for other workers).
    """
    n = len(vector)

    def eliminate(k, rows):
        below = jnp.where(jnp.arange(n) > k, rows[:, k], 0.0)
        return rows - jnp.outer(below, rows[k] / rows[k, k])

    def substitute(i, x):
        k = n - 1 - i
        return x.at[k].set((rows[k, -1] - rows[k, :-1] @ x) / rows[k, k])

    rows = jax.lax.fori_loop(0, n, eliminate, jnp.concatenate([matrix, vector[:, None]], axis=1))
    solution = jax.lax.fori_loop(0, n, substitute, jnp.zeros_like(vector))
    return jnp.where(jnp.all(jnp.diagonal(rows) > 0), solution, jnp.nan)


def _rank_one(secant, old, new):
    """Symmetric rank-one update: the curvature must reproduce the change of the gradient from ``old`` to ``new``."""
    moved = new.u - old.u
    missing = new.gradient - old.gradient - (new.curvature + new.bend + secant) @ moved
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
