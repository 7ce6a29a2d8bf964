"""Stages of a prediction, each differentiated once in the few parameters that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

Stage = Callable[[dict[str, ArrayLike], Any], Array]


def staged(function: Stage) -> Stage:
    """``function(params, structure)``, with a derivative that pays only for the parameters in ``params``.

    Forward mode over the ten nuisances of a fit pushes ten tangents through every operation, though the detector
    response, say, depends on three. Here the Jacobian by the perturbed members of ``params`` is taken once, at their
    number of tangents, and every tangent that comes along is a combination of its rows. Gradients, Jacobians, Hessians,
    ``vmap`` and ``jit`` work as ever, and derivatives by the arrays in ``structure`` take the usual way.

    >>> square = staged(lambda params, x: params["a"] * x**2)
    >>> float(jax.grad(lambda a: square({"a": a}, 3.0))(2.0))
    9.0
    >>> float(jax.grad(lambda x: square({"a": 2.0}, x))(3.0))
    12.0
    """

    @jax.custom_jvp
    def stage(params, structure):
        return function(params, structure)

    def rule(primals, tangents):
        params, structure = primals
        moved, reshaped = tangents
        is_zero = lambda t: isinstance(t, SymbolicZero)  # noqa: E731
        if not all(map(is_zero, jax.tree.leaves(reshaped, is_leaf=is_zero))):
            filled = jax.tree.map(lambda t: jnp.zeros(t.shape) if is_zero(t) else t, tangents, is_leaf=is_zero)
            return jax.jvp(function, primals, filled)
        names = [name for name, tangent in moved.items() if not is_zero(tangent)]

        def of_perturbed(values):
            return function({**params, **dict(zip(names, values, strict=True))}, structure)

        out, push = jax.linearize(of_perturbed, jnp.stack([params[name] for name in names]))
        jacobian = jax.vmap(push)(jnp.eye(len(names)))
        return out, jnp.tensordot(jnp.stack([moved[name] for name in names]), jacobian, axes=1)

    stage.defjvp(rule, symbolic_zeros=True)

    def call(params: Mapping[str, ArrayLike], structure: Any) -> Array:
        return stage({name: jnp.asarray(value, float) for name, value in params.items()}, structure)

    return call
