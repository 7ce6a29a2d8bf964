"""Smooth functions of a few parameters as sums of products of tabulated curves: found by probing, cheap to evaluate.

Along each parameter the functions that occur span a space of few dimensions (three for a coupling that enters
quadratically, four or five for most detector systematics), which a singular-value decomposition of slices finds. The
function itself is a tensor on the products of these curves, from its values at as many points, and most entries of the
tensor are too small to matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from scipy.interpolate import make_interp_spline
from scipy.linalg import qr

from .parameters import Parameter
from .response.timing import CARDINAL_CUBIC
from .staged import staged

KNOTS = 241
"""Knots of a curve over the range of its parameter."""


class Variable(NamedTuple):
    """A parameter with the range over which functions of it are tabulated, or the only values that it will take."""

    parameter: Parameter
    low: float
    high: float
    points: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def knots(self) -> np.ndarray:
        """Where functions are tabulated: the values that are taken, or even in the dimensionless coordinate."""
        if self.points:
            return self.parameter.encode(self.points)
        low, high = self.parameter.encode([self.low, self.high])
        return np.linspace(low, high, KNOTS)

    @property
    def values(self) -> np.ndarray:
        """The parameter at the knots."""
        return np.array(self.points) if self.points else self.parameter.decode(self.knots)

    def curves(self, values: np.ndarray) -> Curves | Table:
        """Functions of the parameter, from their values at the knots, shape (knots, functions)."""
        return Table(self, values) if self.points else Curves(self, values)


class Table(eqx.Module):
    """Functions of one parameter that takes given values only: what they are there, whatever they are between.

    Args:
        variable: the parameter with its values.
        values: of the functions, shape (values, functions).
    """

    name: str = eqx.field(static=True)
    points: Array
    values: Array

    def __init__(self, variable: Variable, values: np.ndarray):
        self.name = variable.name
        self.points, self.values = jnp.asarray(variable.values), jnp.asarray(values)

    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        """All functions at the value that is nearest, shape (functions,)."""
        middle = (self.points[1:] + self.points[:-1]) / 2
        return self.values[jnp.searchsorted(middle, jnp.asarray(params[self.name], float))]


class Curves(eqx.Module):
    """Functions of one parameter: cubic splines on even knots, constant outside.

    Args:
        variable: the parameter and its range.
        values: of the functions at the knots, shape (KNOTS, functions).
    """

    name: str = eqx.field(static=True)
    decades: bool = eqx.field(static=True)
    centre: Array
    scale: Array
    low: Array
    step: Array
    coefficients: Array

    def __init__(self, variable: Variable, values: np.ndarray):
        parameter, t = variable.parameter, variable.knots
        self.name, self.decades = parameter.name, parameter.decades
        self.centre, self.scale = jnp.asarray(0.0 if self.decades else parameter.nominal), jnp.asarray(parameter.scale)
        self.low, self.step = jnp.asarray(t[0]), jnp.asarray((t[-1] - t[0]) / (KNOTS - 1))
        self.coefficients = jnp.asarray(_cardinal(t, np.asarray(values, float)))

    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        """All functions, shape (functions,)."""
        u = (jnp.asarray(params[self.name], float) - self.centre) / self.scale
        u = jnp.arcsinh(u) if self.decades else u
        at = jnp.clip((u - self.low) / self.step, -1e-6, KNOTS - 1 + 1e-6)  # derivatives at the ends are those inside
        first = jnp.clip(jnp.floor(at).astype(int), 0, KNOTS - 2)
        weights = (at - first) ** np.arange(4) @ CARDINAL_CUBIC
        return weights @ self.coefficients[first + np.arange(4)]


def _cardinal(t: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients of the even cubic B-splines of the not-a-knot spline through ``values``, one more on either side."""
    spline = make_interp_spline(t, values, k=3)
    h = (t[-1] - t[0]) / (len(t) - 1)
    # on even knots a cubic spline s has the coefficients s - h^2 s''/6 (Marsden's identity for the quadratic part)
    inside = values - h**2 / 6 * spline(t, nu=2)
    before = 6 * values[0] - 4 * inside[0] - inside[1]
    after = 6 * values[-1] - 4 * inside[-1] - inside[-2]
    return np.concatenate([before[None], inside, after[None]])


class Products(eqx.Module):
    r"""Functions of a group of parameters: combinations of products of curves, one of each parameter.

    .. math:: \Phi_a(x) = \sum_k m_{ka} \prod_i \phi_{k_i}(x_i)

    Args:
        curves: of each parameter.
        terms: for each k, which curve of each parameter.
        mixture: shape (terms, functions); None if each term is a function.
    """

    curves: tuple[Curves | Table, ...]
    terms: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    mixture: Array | None = None

    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        """All functions, shape (functions,)."""
        own = {name: params[name] for name in self.names}
        return _mixed(own, self) if own else self.mix(own)

    def mix(self, params: Mapping[str, ArrayLike]) -> Array:
        """:meth:`__call__` before it is made a stage."""
        product = jnp.ones(len(self.terms))
        for curve, which in zip(self.curves, np.array(self.terms, int).reshape(len(self.terms), -1).T, strict=True):
            product = product * curve(params)[which]
        return product if self.mixture is None else product @ self.mixture

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(curve.name for curve in self.curves)


_mixed = staged(lambda params, products: products.mix(params))

ONE = Products((), ((),))
"""The only function of no parameter."""


class Series(eqx.Module):
    r"""A function of two groups of parameters, an array of any shape.

    .. math:: f(x, y) = \sum_{ab} c_{ab} \Phi_a(x) \Psi_b(y)

    Args:
        inner, outer: functions of the parameters x and y.
        coefficients: shape (inner functions, outer functions, ...).
    """

    inner: Products
    outer: Products
    coefficients: Array

    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        return _between(self.inner(params), self.coefficients, self.outer(params))

    def hold(self, params: Mapping[str, ArrayLike]) -> Series:
        """The same function with its outer parameters held."""
        if not self.outer.curves:
            return self
        held = jnp.tensordot(self.coefficients, self.outer(params), axes=(1, 0))
        return Series(self.inner, ONE, held[:, None])

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.inner.names, *self.outer.names)


@jax.custom_jvp
def _between(left: Array, matrix: Array, right: Array) -> Array:
    """The bilinear form, whose derivatives cost what it costs, however many there are."""
    return jnp.tensordot(left, jnp.tensordot(right, matrix, axes=(0, 1)), axes=1)


@partial(_between.defjvp, symbolic_zeros=True)
def _between_slopes(primals, tangents):
    left, matrix, right = primals
    by_right, by_left = jnp.tensordot(right, matrix, axes=(0, 1)), jnp.tensordot(left, matrix, axes=1)
    value = jnp.tensordot(left, by_right, axes=1)
    slope = jnp.zeros_like(value)
    moved, reshaped, turned = (None if isinstance(x, SymbolicZero) else x for x in tangents)
    if moved is not None:
        slope = slope + jnp.tensordot(moved, by_right, axes=1)
    if reshaped is not None:
        slope = slope + jnp.tensordot(left, jnp.tensordot(right, reshaped, axes=(0, 1)), axes=1)
    if turned is not None:
        slope = slope + jnp.tensordot(turned, by_left, axes=1)
    return value, slope


class Axis(NamedTuple):
    """The curves that span what happens along one parameter, and the knots that tell them apart."""

    variable: Variable
    curves: np.ndarray  # (knots, functions), the first one constant, each at most 1
    nodes: np.ndarray  # indices of as many knots

    @classmethod
    def of(cls, variable: Variable, slices: np.ndarray, tolerance: float) -> Axis:
        """From slices of a function along the parameter, shape (knots, anything)."""
        change = slices - slices[len(slices) // 2]
        left, size, _ = np.linalg.svd(change, full_matrices=False)
        reach = np.max(np.abs(left), axis=0)
        kept = (reach * size > tolerance) & (size > 1e-13 * size[:1].max(initial=0.0))
        curves = np.column_stack([np.ones(len(slices)), left[:, kept] / reach[kept]])
        return cls(variable, curves, qr(curves.T, pivoting=True, mode="r")[-1][: curves.shape[1]])

    @property
    def nodes_of_variable(self) -> np.ndarray:
        return self.variable.values[self.nodes]

    @property
    def inverse(self) -> np.ndarray:
        """From values at the nodes to coefficients of the curves."""
        return np.linalg.inv(self.curves[self.nodes])


def grid(axes: Sequence[Axis]) -> dict[str, np.ndarray]:
    """All combinations of the nodes, the last axis running fastest: {name: values}."""
    mesh = np.meshgrid(*(axis.nodes_of_variable for axis in axes), indexing="ij")
    return {axis.variable.name: values.ravel() for axis, values in zip(axes, mesh, strict=True)}


def series(
    inner: Sequence[Axis], outer: Sequence[Axis], values: np.ndarray, variance: np.ndarray, tolerance: float
) -> Series:
    """The series through ``values`` at the nodes, shape (inner nodes..., outer nodes..., rows, columns).

    An inner term is kept where it is larger than ``tolerance`` standard deviations of the rows at one of the outer
    nodes: counts with ``variance``, and as many more as there are at that node, where the signal may be a large one.
    Of what is left, combinations of terms are kept whose number is the rank of the tensor to that precision.
    """
    outer_shape = [axis.nodes.size for axis in outer]
    rows = values.shape[len(inner) + len(outer) :]
    tensor = _coefficients(values, inner, 0).reshape(-1, int(np.prod(outer_shape)), *rows)
    counts = np.sum(np.abs(tensor), axis=3)
    spread = np.sqrt(variance + counts[0])  # at each outer node
    size = np.linalg.norm(counts / spread, axis=2)
    first = np.flatnonzero(size.max(axis=1) > tolerance)
    first = first if len(first) else np.zeros(1, int)
    tensor = tensor[first]
    mixture = _directions(
        tensor / spread[..., None], tolerance / 4
    )  # so that it adds little to what was left out before
    tensor = np.tensordot(mixture.T, tensor, axes=1)
    tensor = _coefficients(tensor.reshape(-1, *outer_shape, *rows), outer, 1).reshape(len(tensor), -1, *rows)
    size = np.linalg.norm(np.sum(np.abs(tensor), axis=3) / np.sqrt(variance), axis=2)
    second = np.flatnonzero(size.max(axis=0) > tolerance / 1e3)
    second = second if len(second) else np.zeros(1, int)

    def products(group: Sequence[Axis], which: np.ndarray, mixture: Array | None = None) -> Products:
        shape = [axis.nodes.size for axis in group]
        terms = np.array(np.unravel_index(which, shape), int).T.tolist() if shape else [()]
        curves = tuple(axis.variable.curves(axis.curves) for axis in group)
        return Products(curves, tuple(map(tuple, terms)), mixture)

    # outer terms are not combined: along couplings over decades they are so different that digits would be lost
    return Series(products(inner, first, jnp.asarray(mixture)), products(outer, second), jnp.asarray(tensor[:, second]))


def _directions(terms: np.ndarray, tolerance: float) -> np.ndarray:
    """Combinations of terms, orthogonal, shape (terms, combinations): all others together are below ``tolerance``."""
    left, size, _ = np.linalg.svd(terms.reshape(len(terms), -1), full_matrices=False)
    rest = np.sqrt(np.cumsum(size[::-1] ** 2))[::-1]
    return left[:, : max(int(np.sum(rest > tolerance)), 1)]


def _coefficients(values: np.ndarray, axes: Sequence[Axis], first: int) -> np.ndarray:
    """Values at the nodes of ``axes``, which begin at axis ``first``, turned into coefficients of their curves."""
    for i, axis in enumerate(axes, start=first):
        values = np.moveaxis(np.tensordot(axis.inverse, values, axes=(1, i)), 0, i)
    return values
