r"""Where the fits of toys start: their likelihoods, to second order around points that cover the parameter space.

Around a node :math:`u_j` the nll of counts n and auxiliary results a is, but for terms of the data alone,

.. math:: {\rm nll}(u_j + s) = c_j - n \cdot b_j + g_j(n, a) \cdot s + \tfrac{1}{2} s^T H_j s

with a gradient g that is linear in the data and the expected curvature H. Its minimum over s, and what the nll is
there, therefore cost two products with matrices, for all toys and all nodes at once. Whatever bands, mirror images and
bounds the parameters of interest have, the nodes where that is lowest lie in the right ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..likelihood import MU_FLOOR, Data, Likelihood, expected_flat, nll
from .fit import Problem

COUNT, LONGEST = 1024, 64
"""Nodes in all, about, and along one parameter at most."""
BATCH, POINTS = 16, 64  # nodes, and points, per compiled call
SURVEY = 256  # nodes of a survey, about
RELEVANT = 12.5
"""Nodes higher than the lowest by more than this, in the nll of the expectation, are never the lowest of a toy."""
DOUBT = 0.2
"""A minimum higher than the lowest by less than this, in the nll, may turn out to be the lowest."""
MOST = 3  # starts of a toy
APART = 2.0
"""Spacings of the nodes: a step goes hardly further, and two starts are that far apart, or they are one."""
RIDGE = 1e-2
"""Smallest curvature along a natural step of a nuisance."""
FEW = 0.5
"""Counts: in bins with a smaller expectation the expansion would be worthless, and is taken as flatter than it is."""


class Atlas(NamedTuple):
    """The nll around nodes, as a function of the data.

    The data of a toy are a row x: counts of all bins, results of the auxiliary measurements, 1.

    Attributes:
        u: coordinates of the nodes, shape (nodes, parameters).
        linear: the nll at the nodes is ``x @ linear``, shape (data, nodes).
        whitened: the gradient in coordinates in which the curvature is one, shape (data, nodes, parameters).
        root: from minus that to the step that leads to the minimum, shape (nodes, parameters, parameters).
        n_flat: parameters without effect at the first node.
        neighbours: of each node, -1 to fill up, shape (nodes, neighbours).
        spacing: of the nodes along each parameter; infinite along nuisances.
        box: lowest and highest coordinates.
    """

    u: np.ndarray
    linear: np.ndarray
    whitened: np.ndarray
    root: np.ndarray
    n_flat: int
    neighbours: np.ndarray
    spacing: np.ndarray
    box: tuple[np.ndarray, np.ndarray]

    @classmethod
    def around(
        cls,
        like: Likelihood,
        task: Problem,
        fixed: Mapping[str, Any],
        centre: np.ndarray,
        box: tuple[np.ndarray, np.ndarray],
        count: int = COUNT,
    ) -> Atlas:
        """Nodes at ``centre`` and all over the ranges of the parameters of interest.

        Args:
            like: folded or not.
            task: which parameters.
            fixed: values of all others.
            centre: coordinates; the nuisances are there at all nodes.
            box: lowest and highest coordinates.
            count: of the nodes, about; 1 for the centre alone.
        """
        axes = _axes(task, box, count)
        spacing = np.full(len(centre), np.inf)
        u = [centre]
        for i, axis in axes.items():
            spacing[i] = (axis[-1] - axis[0]) / (len(axis) - 1)
        for values in product(*axes.values()) if axes else ():
            node = centre.copy()
            node[list(axes)] = values
            u.append(node)
        neighbours = _neighbours([len(axis) for axis in axes.values()])
        u = np.array(u)
        mu, slopes = _expansions(like, task, fixed, u)
        parts = _quadratic(like, task, fixed, u, mu, slopes, spacing)
        return cls(u, *parts, neighbours, spacing, box)

    def near(self, x: np.ndarray) -> Atlas:
        """The nodes that may be the lowest of toys drawn at an expectation ``x``, and the first one."""
        value = self.values(x[None])[0][0]
        kept = np.flatnonzero((value < np.min(value) + RELEVANT) | (np.arange(len(value)) == 0))
        place = np.full(len(value) + 1, -1)
        place[kept] = np.arange(len(kept))
        return self._replace(
            u=self.u[kept],
            linear=self.linear[:, kept],
            whitened=self.whitened[:, kept],
            root=self.root[kept],
            neighbours=place[self.neighbours[kept]],
        )

    def with_centre(self, other: Atlas) -> Atlas:
        """The same nodes, with the first one of another atlas in place of the first."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ("u", "root"))
        new = {name: np.concatenate([theirs[:1], mine[1:]]) for name, mine, theirs in pairs}
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ("linear", "whitened"))
        new |= {name: np.concatenate([theirs[:, :1], mine[:, 1:]], axis=1) for name, mine, theirs in pairs}
        return self._replace(**new, n_flat=other.n_flat)

    def values(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nll in the minimum that each node points to, shape (toys, nodes), and the gradient there, whitened.

        Rounded, so that choices are the same whatever they are computed with.
        """
        n, (d, j, p) = len(x), self.whitened.shape
        gradient = (x @ self.whitened.reshape(d, j * p)).reshape(n, j, p)
        return np.round(x @ self.linear - 0.5 * np.einsum("njp,njp->nj", gradient, gradient), 6), gradient

    def starts(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """Where to start the fits of toys: the number of the toy, in increasing order, and the coordinates of each."""
        x = rows(data)
        value, gradient = self.values(x)
        if value.shape[1] == 1:
            return np.arange(len(x)), self._ends(np.zeros(len(x), int), gradient[:, 0])
        toy, node = np.nonzero(value < np.min(value, axis=1, keepdims=True) + DOUBT)
        height = value[toy, node]
        around = np.concatenate([value, np.full((len(value), 1), np.inf)], axis=1)
        lowest = np.all(around[toy[:, None], self.neighbours[node]] >= height[:, None], axis=1)
        order = np.lexsort((height, toy))
        order = order[lowest[order]]
        toy, node = toy[order], node[order]
        ends = self._ends(node, gradient[toy, node])
        first = np.searchsorted(toy, toy)  # the lowest of the same toy
        rank = np.arange(len(toy)) - first
        finite = np.isfinite(self.spacing)
        apart = np.any(np.abs(ends - ends[first])[:, finite] > APART * self.spacing[finite], axis=1)
        kept = (rank == 0) | (apart & (rank < MOST))
        return toy[kept], ends[kept]

    def _ends(self, node: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Where steps from nodes lead, rounded and within the box."""
        end = self.u[node] - np.einsum("npq,nq->np", self.root[node], gradient)
        return np.clip(np.round(np.where(np.isfinite(end), end, self.u[node]), 6), *self.box)


def rows(data: Data) -> np.ndarray:
    """The data of toys as an atlas wants them."""
    counts = [np.reshape(x, (len(x), -1)) for x in data.observed]
    return np.concatenate([*counts, np.asarray(data.auxiliary), np.ones((len(counts[0]), 1))], axis=1)


def evaluate(like: Likelihood, columns: Mapping[str, np.ndarray], data: Data | None = None) -> np.ndarray:
    """The nll at points, given as a column of values for each parameter; of other data, if given, at each."""
    return _in_batches(lambda some: _evaluate(like, *some), (dict(columns), data), POINTS)


def _in_batches(function: Callable[[Any], Any], points: Any, size: int) -> Any:
    """A function of points, arrays with one row for each, in batches of one size, so that it is compiled once."""
    n, found = len(jax.tree.leaves(points)[0]), []
    for first in range(0, n, size):
        which = np.minimum(np.arange(first, first + size), n - 1)
        some = function(jax.tree.map(lambda x: np.asarray(x)[which], points))  # noqa: B023
        found.append(jax.tree.map(lambda x: np.asarray(x)[: n - first], some))  # noqa: B023
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@jax.jit
def _evaluate(like: Likelihood, columns: dict[str, Array], data: Data | None) -> Array:
    if data is None:
        return jax.vmap(lambda params: nll(like, params))(columns)
    return jax.vmap(lambda params, data: nll(like.with_data(data), params))(columns, data)


def survey(
    like: Likelihood, task: Problem, columns: Mapping[str, np.ndarray], centre: np.ndarray, most: int
) -> np.ndarray:
    """Where fits at several points may start: minima along the parameters of interest, then nodes far from each other.

    Args:
        like: folded or not.
        task: which parameters are fitted.
        columns: values of all others, one entry a point.
        centre: values of the fitted parameters; the nuisances stay there.
        most: number of starts at a point.

    Returns:
        Values of the fitted parameters, shape (points, most, parameters).
    """
    where, n = task.where, len(next(iter(columns.values())))
    axes = _axes(task, (where.encode(where.lower), where.encode(where.upper)), SURVEY)
    nodes = np.array(list(product(*axes.values())))
    around = _neighbours([len(axis) for axis in axes.values()])[1:] - 1  # none: -2
    points = np.tile(where.encode(centre), (len(nodes), 1))
    points[:, list(axes)] = nodes
    values = where.decode(points)
    everywhere = {name: np.repeat(column, len(nodes)) for name, column in columns.items()}
    everywhere |= dict(zip(where.names, np.tile(values, (n, 1)).T, strict=True))
    height = np.nan_to_num(evaluate(like, everywhere).reshape(n, -1), nan=np.inf)
    padded = np.concatenate([height, np.full((n, 2), np.inf)], axis=1)
    lowest = np.all(padded[:, around] >= height[:, :, None], axis=2) & np.isfinite(height)
    spread = ((np.arange(most) + 0.5) * len(nodes) / most).astype(int)
    order = np.concatenate([np.argsort(np.where(lowest, height, np.inf), axis=1), np.tile(spread, (n, 1))], axis=1)
    usable = np.concatenate(
        [np.take_along_axis(lowest, order[:, : len(nodes)], axis=1), np.ones((n, most), bool)], axis=1
    )
    first = np.argsort(~usable, axis=1, kind="stable")[:, :most]
    return values[np.take_along_axis(order, first, axis=1)]


def _axes(task: Problem, box: tuple[np.ndarray, np.ndarray], count: int) -> dict[int, np.ndarray]:
    """Coordinates of the nodes along each parameter of interest, by its place."""
    if not task.free or count < 2:
        return {}
    length = int(np.clip(np.round(count ** (1 / len(task.free))), 2, LONGEST))
    found = {}
    for i, parameter in enumerate(task.where.parameters[: len(task.free)]):
        low, high = np.clip(parameter.encode(parameter.fit_range()), box[0][i], box[1][i])
        found[i] = np.linspace(low, high, length)
    return found


def _neighbours(lengths: list[int]) -> np.ndarray:
    """The numbers of the nodes next to each, along the diagonals too where that is not too many; none of the centre."""
    if not lengths:
        return np.full((1, 1), -1)
    d, total = len(lengths), int(np.prod(lengths))
    steps = [s for s in product((-1, 0, 1), repeat=d) if any(s) and (d <= 4 or sum(map(abs, s)) == 1)]
    place = np.stack(np.unravel_index(np.arange(total), lengths), axis=1)
    there = place[:, None] + np.array(steps)
    inside = np.all((there >= 0) & (there < np.array(lengths)), axis=2)
    number = np.ravel_multi_index(tuple(np.moveaxis(np.clip(there, 0, np.array(lengths) - 1), 2, 0)), lengths)
    found = np.where(inside, number + 1, -1)
    return np.concatenate([np.full((1, len(steps)), -1), found])


def _expansions(
    like: Likelihood, task: Problem, fixed: Mapping[str, Any], u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts at points, and their derivatives by the coordinates."""
    where = task.where
    values = where.decode(u)
    columns = {name: np.broadcast_to(np.asarray(value, float), len(u)) for name, value in fixed.items()}
    columns |= dict(zip(where.names, values.T, strict=True))
    mu, slopes = _in_batches(lambda some: _expand(like, where.names, some), columns, BATCH)
    return mu, slopes * np.reshape([where.slope(row) for row in values], (len(u), -1, 1))


@partial(jax.jit, static_argnames="names")
def _expand(like: Likelihood, names: tuple[str, ...], columns: dict[str, Array]) -> tuple[Array, Array]:
    """Expected counts, and their derivatives by the parameters."""

    def at(params):
        def expected(x):
            return expected_flat(like, {**params, **dict(zip(names, x, strict=True))})

        if not names:
            mu = expected_flat(like, params)
            return mu, jnp.zeros((0, len(mu)))
        mu, tangent = jax.linearize(expected, jnp.stack([params[name] for name in names]))
        return mu, jax.vmap(tangent)(jnp.eye(len(names)))

    return jax.vmap(at)(columns)


def _quadratic(
    like: Likelihood,
    task: Problem,
    fixed: Mapping[str, Any],
    u: np.ndarray,
    mu: np.ndarray,
    slopes: np.ndarray,
    spacing: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The linear part, the whitened gradient, the root of the inverse curvature and ``n_flat`` of an :class:`Atlas`."""
    (j, p), where, values = u.shape, task.where, task.where.decode(u)
    known = dict(zip(where.names, values.T, strict=True))
    names = [q.name for q in like.constrained]
    sigma = np.array([q.constraint.sigma for q in like.constrained if q.constraint])
    theta = np.reshape(
        [np.broadcast_to(known[name] if name in known else fixed[name], j) for name in names], (len(names), j)
    )
    pulls = np.zeros((j, p, len(names)))  # derivatives of the auxiliary results, in standard deviations
    for a, name in enumerate(names):
        if name in known:
            i = where.names.index(name)
            pulls[:, i, a] = [where.slope(row)[i] / sigma[a] for row in values]
    weight, slope, constant = (np.concatenate(parts, axis=1) for parts in zip(*_of_counts(like, mu), strict=True))
    rest = constant.sum(axis=1) + 0.5 * np.sum((theta.T / sigma) ** 2, axis=1)
    linear = [-slope.T, -(theta / sigma[:, None] ** 2), rest[None]]
    weighted = slopes * weight[:, None]
    trust = np.where(np.isfinite(spacing), 1 / (APART * spacing) ** 2, RIDGE)
    information = weighted @ slopes.transpose(0, 2, 1) + pulls @ pulls.transpose(0, 2, 1)
    curvature = information + np.diag(trust)
    gradient = [
        -weighted.transpose(2, 0, 1),
        -(pulls / sigma).transpose(2, 0, 1),
        (np.einsum("jpb,jb->jp", weighted, mu) + np.einsum("jpa,aj->jp", pulls, theta / sigma[:, None]))[None],
    ]
    usable = np.all(np.isfinite(curvature), axis=(1, 2)) & np.all(np.isfinite(mu), axis=1)
    curvature[~usable] = np.eye(p)
    size = np.sqrt(np.einsum("jpp->jp", curvature))
    correlation = curvature / (size[:, :, None] * size[:, None, :]) + 1e-9 * np.eye(p)
    inverse = np.linalg.inv(np.linalg.cholesky(correlation)) / size[:, None, :]
    linear, gradient = np.concatenate(linear), np.concatenate(gradient)
    linear[:, ~usable], gradient[:, ~usable] = 0.0, 0.0
    linear[-1, ~usable] = 1e300
    n_flat = int(np.sum(np.diag(information[0]) < 1e-10))
    return linear, np.einsum("jpq,djq->djp", inverse, gradient), inverse.transpose(0, 2, 1), n_flat


def _of_counts(like: Likelihood, mu: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For the bins of each measurement the curvature w, the b and the c in nll = c - n b and its slope w (mu - n)."""
    cuts, found = np.cumsum([m.observed.size for m in like.measurements])[:-1], []
    for m, part in zip(like.measurements, np.split(mu, cuts, axis=1), strict=True):
        if m.sigma is None:
            found.append((1 / np.maximum(part, FEW), np.log(np.maximum(part, MU_FLOOR)), part))
        else:
            weight = np.broadcast_to(np.asarray(m.sigma).ravel() ** -2.0, part.shape)
            found.append((weight, part * weight, 0.5 * part**2 * weight))
    return found
