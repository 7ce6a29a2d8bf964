"""Stages: the same values and derivatives of every order as without, at a fraction of the operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cevjax.staged import staged


def plain(params, structure):
    x, scale = structure
    return jnp.sin(params["a"] * x) * jnp.exp(-params["b"] * x) * scale


STRUCTURE = (jnp.linspace(0.1, 2, 7), 3.0)
POINT = {"a": 1.3, "b": 0.4}
stage = staged(plain)


def both(transform):
    return transform(lambda p: stage(p, STRUCTURE)), transform(lambda p: plain(p, STRUCTURE))


@pytest.mark.parametrize("transform", [jax.jit, jax.jacfwd, jax.jacrev, jax.hessian], ids=lambda t: t.__name__)
def test_derivatives_are_those_of_the_function(transform):
    ours, truth = both(transform)
    for a, b in zip(jax.tree.leaves(ours(POINT)), jax.tree.leaves(truth(POINT)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_a_parameter_that_does_not_move_costs_nothing():
    seen = []

    def watched(params, structure):
        seen.append({name for name, value in params.items() if isinstance(value, jax.core.Tracer)})
        return plain(params, structure)

    jax.jacfwd(lambda a: staged(watched)({"a": a, "b": 0.4}, STRUCTURE))(1.3)
    assert {"a"} in seen


def test_one_jacobian_serves_all_tangents():
    """Ten tangents through a stage of one parameter: the stage is pushed forward once."""

    def count(function):
        push = jax.vmap(jax.linearize(lambda v: function({"a": v[0], "b": 0.4}, STRUCTURE), jnp.ones(10))[1])
        return str(jax.make_jaxpr(push)(jnp.eye(10))).count("cos")

    assert count(stage) == 0  # nothing but the combination of rows is left

    text = str(jax.make_jaxpr(jax.jacfwd(lambda v: stage({"a": v[0], "b": 0.4}, STRUCTURE)))(jnp.ones(10)))
    assert "f64[10,7] = cos" not in text


def test_derivatives_by_the_structure():
    ours = jax.grad(lambda x: stage(POINT, (x, 3.0)).sum())(STRUCTURE[0])
    truth = jax.grad(lambda x: plain(POINT, (x, 3.0)).sum())(STRUCTURE[0])
    np.testing.assert_allclose(ours, truth, rtol=1e-13)
    ours = jax.grad(lambda s: stage({"a": s, "b": 0.4}, (STRUCTURE[0], s)).sum())(2.0)
    truth = jax.grad(lambda s: plain({"a": s, "b": 0.4}, (STRUCTURE[0], s)).sum())(2.0)
    assert float(ours) == pytest.approx(float(truth), rel=1e-13)


def test_vmap_is_a_loop():
    a = jnp.array([0.5, 1.0, 2.0])
    batched = jax.vmap(lambda x: stage({"a": x, "b": 0.4}, STRUCTURE))(a)
    np.testing.assert_allclose(batched, [plain({"a": x, "b": 0.4}, STRUCTURE) for x in a], rtol=1e-14)


def test_no_parameters_at_all():
    constant = staged(lambda params, x: 2 * x)
    np.testing.assert_array_equal(constant({}, jnp.arange(3.0)), [0, 2, 4])
    assert float(jax.grad(lambda x: constant({}, x))(1.0)) == 2.0
