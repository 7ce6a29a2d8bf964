r"""Where the fits of toys start: their likelihoods, to second order around points that cover the parameter space.

Around a node :math:`u_j` the nll of counts n and auxiliary results a is, but for terms of the data alone,

.. math:: {\rm nll}(u_j + s) = c_j - n \cdot b_j + g_j(n, a) \cdot s + \tfrac{1}{2} s^T H_j s

with a gradient g that is linear in the data and the expected curvature H. Its minimum over s, and what the nll is
there, therefore cost two products with matrices, for all toys and all nodes at once. Whatever bands, mirror images and
bounds the parameters of interest have, the nodes where that is lowest lie in the right ones.

An expansion tells little of what is far from its node. So only steps of up to one spacing count, nodes are dense where
minima of toys may lie, a start moves on to the node next to where it leads, and the nll itself tells rivals apart.
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

COUNT, DENSE, LONGEST = 1024, 576, 64
"""Nodes in all, about, also where they are as dense as can be, and along one parameter at most."""
ZOOMS = 4
BATCH, POINTS = 16, 256  # nodes, and points, per compiled call
SURVEY = 256  # nodes of a survey, about
RELEVANT = 12.5
"""Nodes higher than the lowest by more than this, in the nll of the expectation, are never the lowest of a toy."""
DOUBT = 2.5
"""A minimum higher than the lowest by less than this, in the nll, may turn out to be the lowest: by so much expansions
may be wrong."""
MOST = 4  # starts of a toy
FOLLOWED, ERROR = 3, 2.0
"""Times that a start moves on to where the node next to it points, because nodes tell little of what is far away; and
how much lower than expected, in units of what the start is higher, a minimum may be."""
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
        whitened: the gradient in coordinates in which the curvature is one, shape (data, nodes, parameters): first
            those that nuisances alone make up.
        root: from minus that to the step that leads to the minimum, shape (nodes, parameters, parameters).
        n_flat: parameters without effect at the first node.
        neighbours: of each node, -1 to fill up, shape (nodes, neighbours).
        grid: numbers of the nodes on the grid of the parameters of interest, -1 where there is none; without the first
            node, which is the centre.
        corner: coordinates of the first node on the grid, along the parameters of interest.
        spacing: of the nodes along each parameter; infinite along nuisances.
        box: lowest and highest coordinates.
    """

    u: np.ndarray
    linear: np.ndarray
    whitened: np.ndarray
    root: np.ndarray
    n_flat: int
    neighbours: np.ndarray
    grid: np.ndarray
    corner: np.ndarray
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
        extent: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Atlas:
        """Nodes at ``centre`` and all over the ranges of the parameters of interest.

        Args:
            like: folded or not.
            task: which parameters.
            fixed: values of all others.
            centre: coordinates; the nuisances are there at all nodes.
            box: lowest and highest coordinates.
            count: of the nodes, about; 1 for the centre alone.
            extent: lowest and highest coordinates of nodes; None for all of the ranges.
        """
        axes = _axes(task, extent or box, count)
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
        grid = 1 + np.arange(len(u) - 1).reshape([len(axis) for axis in axes.values()] if axes else 0)
        corner = np.array([axis[0] for axis in axes.values()])
        return cls(u, *parts, neighbours, grid, corner, spacing, box)

    @classmethod
    def over(
        cls,
        like: Likelihood,
        task: Problem,
        fixed: Mapping[str, Any],
        centre: np.ndarray,
        box: tuple[np.ndarray, np.ndarray],
        x: np.ndarray,
    ) -> Atlas:
        """Nodes at ``centre``, and others as dense as can be where toys drawn at expectations ``x`` may have minima."""
        atlas, extent = cls.around(like, task, fixed, centre, box), box
        axes = np.isfinite(atlas.spacing)
        for _ in range(ZOOMS if axes.any() else 0):
            nodes = atlas.u[1:][np.any(atlas.relevant(x)[:, 1:], axis=0)]
            if not len(nodes):
                break
            low, high = (np.clip(x, *extent) for x in (nodes.min(0) - atlas.spacing, nodes.max(0) + atlas.spacing))
            if np.all((high - low)[axes] > 0.8 * (atlas.spacing[axes] * (np.array(atlas.grid.shape) - 1))):
                break
            extent = np.where(axes, low, extent[0]), np.where(axes, high, extent[1])
            atlas = cls.around(like, task, fixed, centre, box, DENSE, extent)
        return atlas

    def relevant(self, x: np.ndarray) -> np.ndarray:
        """Which nodes may be the lowest of toys drawn at expectations ``x``, shape (expectations, nodes)."""
        value = self.values(x)[0]
        return value < np.min(value, axis=1, keepdims=True) + RELEVANT

    def near(self, x: np.ndarray) -> Atlas:
        """The nodes that may be the lowest of toys drawn at an expectation ``x``, and the first one."""
        value = self.relevant(x[None])[0]
        kept = np.flatnonzero(value | (np.arange(len(value)) == 0))
        place = np.full(len(value) + 1, -1)
        place[kept] = np.arange(len(kept))
        return self._replace(
            u=self.u[kept],
            linear=self.linear[:, kept],
            whitened=self.whitened[:, kept],
            root=self.root[kept],
            neighbours=place[self.neighbours[kept]],
            grid=place[self.grid],
        )

    def with_centre(self, other: Atlas) -> Atlas:
        """The same nodes, with the first one of another atlas in place of the first."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ("u", "root"))
        new = {name: np.concatenate([theirs[:1], mine[1:]]) for name, mine, theirs in pairs}
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ("linear", "whitened"))
        new |= {name: np.concatenate([theirs[:, :1], mine[:, 1:]], axis=1) for name, mine, theirs in pairs}
        return self._replace(**new, n_flat=other.n_flat)

    def values(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest nll within one spacing of each node, shape (toys, nodes), and the gradient there, whitened.

        Rounded, so that choices are the same whatever they are computed with.
        """
        n, (d, j, p) = len(x), self.whitened.shape
        gradient = (x @ self.whitened.reshape(d, j * p)).reshape(n, j, p)
        held = x @ self.linear
        axes = np.flatnonzero(np.isfinite(self.spacing))
        last = p - len(axes)  # those of the nuisances come first
        nuisances, others = gradient[..., :last], gradient[..., last:]
        held -= 0.5 * np.einsum("njp,njp->nj", nuisances, nuisances)
        if len(axes):
            long = np.zeros_like(held)  # length of the step along the parameters of interest
            for i in axes:
                step = sum(self.root[:, i, last + k] * others[..., k] for k in range(len(axes)))
                np.maximum(long, np.abs(step) / self.spacing[i], out=long)
            part = 1 / np.maximum(long, 1.0)
            held -= (part - part**2 / 2) * np.einsum("njp,njp->nj", others, others)
        return np.round(held, 6), gradient

    def starts(
        self, data: Data, evaluate: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where to start the fits of toys: the number of the toy, in increasing order, and the coordinates of each.

        Args:
            data: of the toys.
            evaluate: the nll of some toys at coordinates; with it starts that cannot win are given up.
        """
        x = rows(data)
        value, gradient = self.values(x)
        if value.shape[1] == 1:
            return np.arange(len(x)), self._ends(np.zeros(len(x), int), gradient[:, 0])
        toy, node = np.nonzero(value < np.min(value, axis=1, keepdims=True) + DOUBT)
        around = np.concatenate([value, np.full((len(value), 1), np.inf)], axis=1)
        lowest = np.all(around[toy[:, None], self.neighbours[node]] >= value[toy, node][:, None], axis=1)
        toy, node = toy[lowest], node[lowest]
        ends = self._ends(node, gradient[toy, node])
        for _ in range(FOLLOWED):
            node = self._nearest(ends, node)
            ends = self._ends(node, gradient[toy, node])
        height = value[toy, node]
        order = np.lexsort((node, height, toy))
        toy, ends, height = toy[order], ends[order], height[order]
        kept = (height < height[np.searchsorted(toy, toy)] + DOUBT) & self._apart(toy, ends)
        toy, ends, height = toy[kept], ends[kept], height[kept]
        few = np.arange(len(toy)) - np.searchsorted(toy, toy) < MOST
        toy, ends, height = toy[few], ends[few], height[few]
        if evaluate is not None:
            kept = self._may_win(x, toy, ends, height, evaluate)
            toy, ends = toy[kept], ends[kept]
        return toy, ends

    def _may_win(self, x, toy, ends, height, evaluate) -> np.ndarray:
        """Which starts may lead to the lowest minimum of their toy.

        The nll at a start is an upper limit of the minimum that it leads to, and tells how wrong the expansion is: the
        minimum may be lower than the expansion says by as much as the start is higher.
        """
        rivals = np.flatnonzero(np.bincount(toy)[toy] > 1)
        kept = np.ones(len(toy), bool)
        if not len(rivals):
            return kept
        centre = np.unique(toy[rivals])  # what depends on the data alone, from where the expansion is exact
        points = np.concatenate([ends[rivals], np.tile(self.u[0], (len(centre), 1))])
        actual = np.nan_to_num(evaluate(np.append(toy[rivals], centre), points), nan=np.inf)
        actual, rest = actual[: len(rivals)], actual[len(rivals) :] - x[centre] @ self.linear[:, 0]
        place = np.searchsorted(centre, toy[rivals])
        expected = height[rivals] + rest[place]
        best = np.full(len(centre), np.inf)
        np.minimum.at(best, place, actual)
        kept[rivals] = (expected - ERROR * np.abs(actual - expected) < best[place]) | (actual == best[place])
        return kept

    def _apart(self, toy: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Which starts are far from those of the same toy that come before."""
        finite = np.isfinite(self.spacing)
        scaled = ends[:, finite] / (APART * self.spacing[finite])
        apart = np.ones(len(toy), bool)
        for back in range(1, int(np.max(np.bincount(toy), initial=0))):
            near = np.all(np.abs(scaled[back:] - scaled[:-back]) < 1, axis=1)
            apart[back:] &= ~(near & (toy[back:] == toy[:-back]))
        return apart

    def _nearest(self, points: np.ndarray, node: np.ndarray) -> np.ndarray:
        """The nodes next to points, along the parameters of interest; where there is none, ``node``."""
        axes = np.isfinite(self.spacing)
        low, spacing = self.corner, self.spacing[axes]
        place = np.clip(np.rint((points[:, axes] - low) / spacing).astype(int), 0, np.array(self.grid.shape) - 1)
        found = self.grid[tuple(place.T)]
        distance = lambda u: np.max(np.abs(points[:, axes] - u) / spacing, axis=1)  # noqa: E731
        found = np.where(distance(self.u[0, axes]) < distance(low + place * spacing), 0, found)
        return np.where(found < 0, node, found)

    def _ends(self, node: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Where steps from nodes lead, rounded and within the box."""
        end = self.u[node] - np.einsum("npq,nq->np", self.root[node], gradient)
        return np.clip(np.round(np.where(np.isfinite(end), end, self.u[node]), 6), *self.box)


def rows(data: Data) -> np.ndarray:
    """The data of toys as an atlas wants them."""
    counts = [np.reshape(x, (len(x), -1)) for x in data.observed]
    return np.concatenate([*counts, np.asarray(data.auxiliary), np.ones((len(counts[0]), 1))], axis=1)


def expectations(like: Likelihood, task: Problem, fixed: Mapping[str, Any], u: np.ndarray) -> np.ndarray:
    """The expectation at points as an atlas wants it."""
    mu, values = _expansions(like, task, fixed, u)[0], dict(zip(task.where.names, task.where.decode(u).T, strict=True))
    known = [np.broadcast_to({**fixed, **values}[p.name], len(u)) for p in like.constrained]
    return np.column_stack([mu, *known, np.ones(len(u))])


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
    order = np.argsort(np.isfinite(spacing), kind="stable")  # nuisances first
    inverse = np.linalg.inv(np.linalg.cholesky(correlation[:, order][:, :, order])) / size[:, None, order]
    inverse = inverse[:, :, np.argsort(order)]
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
