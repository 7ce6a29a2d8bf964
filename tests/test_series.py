"""Tabulated curves and sums of their products against the functions that they stand for."""

from functools import reduce

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cevjax import series as s
from cevjax.parameters import Parameter

LINEAR = s.Variable(Parameter("x", 0.3, scale=0.2), -0.7, 1.9)
DECADES = s.Variable(Parameter("m", 1.0, bounds=(0.0, 1e9), scale=1e-3, decades=True), 1e-3, 1e6)
BOTH_SIGNS = s.Variable(Parameter("q", scale=1e-3, decades=True), -1e3, 1e3)
VARIABLES = pytest.mark.parametrize("variable", [LINEAR, DECADES, BOTH_SIGNS], ids=lambda v: v.name)


def sample(variable, count, rng):
    """Values all over the range, evenly in the coordinate."""
    return variable.parameter.decode(rng.uniform(*variable.knots[[0, -1]], count))


def evaluate(function, variable, values):
    return np.asarray(jax.jit(jax.vmap(lambda x: function({variable.name: x})))(values))


# --- curves


@VARIABLES
def test_curves_go_through_their_values(variable):
    values = np.random.default_rng(1).normal(size=(s.KNOTS, 3))
    found = evaluate(s.Curves(variable, values), variable, variable.values)
    np.testing.assert_allclose(found, values, rtol=0, atol=1e-10)


@VARIABLES
def test_cubic_polynomials_of_the_coordinate_are_exact(variable):
    rng, t = np.random.default_rng(2), variable.knots
    middle, half = t.mean(), np.ptp(t) / 2
    powers = np.arange(4)
    curves = s.Curves(variable, ((t[:, None] - middle) / half) ** powers)
    x = np.concatenate([sample(variable, 200, rng), variable.values[[0, -1]]])
    expected = ((variable.parameter.encode(x)[:, None] - middle) / half) ** powers
    np.testing.assert_allclose(evaluate(curves, variable, x), expected, rtol=0, atol=1e-11)


@VARIABLES
def test_half_the_step_is_a_sixteenth_of_the_error(variable, monkeypatch):
    x = sample(variable, 2000, np.random.default_rng(3))
    start, width = variable.knots[0], np.ptp(variable.knots)
    function = lambda t: np.sin(9 * (t - start) / width + 0.4)  # noqa: E731
    errors = []
    for knots in (31, 61, 121):
        monkeypatch.setattr(s, "KNOTS", knots)
        found = evaluate(s.Curves(variable, function(variable.knots)[:, None]), variable, x)[:, 0]
        errors.append(np.max(np.abs(found - function(variable.parameter.encode(x)))))
    assert errors[0] < 1e-3
    np.testing.assert_allclose(np.log2(errors[:-1]) - np.log2(errors[1:]), 4, atol=0.4)


@VARIABLES
def test_derivatives_are_those_of_the_function(variable):
    """Within the range by the chain rule of the coordinate; and those that JAX takes are those of the values."""
    t, rng = variable.knots, np.random.default_rng(4)
    width = np.ptp(t)
    curves = s.Curves(variable, np.exp(np.sin(5 * (t - t[0]) / width))[:, None])
    x = sample(variable, 50, rng)
    u, parameter = variable.parameter.encode(x), variable.parameter
    found = np.asarray(jax.vmap(jax.grad(lambda x: curves({variable.name: x})[0]))(x))
    phase = 5 * (u - t[0]) / width
    slope = 1 / np.hypot(x, parameter.scale) if parameter.decades else 1 / parameter.scale
    truth = np.exp(np.sin(phase)) * np.cos(phase) * 5 / width * slope
    scale = np.max(np.abs(truth / slope)) * np.broadcast_to(slope, x.shape)
    np.testing.assert_allclose(found / scale, truth / scale, atol=2e-6)
    step = 1e-4 / np.broadcast_to(slope, x.shape)
    up, down = (evaluate(curves, variable, x + sign * step)[:, 0] for sign in (1, -1))
    inside = np.abs(u - np.clip(u, t[1], t[-2])) == 0
    np.testing.assert_allclose(found[inside] / scale[inside], ((up - down) / 2e-4 * slope / scale)[inside], atol=1e-6)


def test_a_power_law_over_nine_decades():
    values = DECADES.values[:, None] ** [-2.0, -0.5, 0.5] * [1e-6, 0.03, 1e-3]
    curves = s.Curves(DECADES, values)
    x = np.geomspace(2e-3, 9e5, 501)
    truth = x[:, None] ** [-2.0, -0.5, 0.5] * [1e-6, 0.03, 1e-3]
    np.testing.assert_allclose(evaluate(curves, DECADES, x), truth, rtol=3e-4, atol=1e-6)


def test_decades_on_both_sides_of_zero():
    """An even function stays even, and is smooth through zero."""
    curves = s.Curves(BOTH_SIGNS, (BOTH_SIGNS.knots**2)[:, None])
    x = np.array([0.0, 1e-5, 3e-4, 0.7, 800.0])
    plus, minus = (evaluate(curves, BOTH_SIGNS, sign * x)[:, 0] for sign in (1, -1))
    np.testing.assert_allclose(plus, minus, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(plus, np.arcsinh(x / 1e-3) ** 2, rtol=1e-10, atol=1e-13)


@VARIABLES
def test_beyond_the_range_curves_are_constant(variable):
    values = np.random.default_rng(5).normal(size=(s.KNOTS, 2))
    curves = s.Curves(variable, values)
    t = variable.knots
    linear = variable.parameter.encode(np.array([0.0, 1.0]))
    for end, side in ((0, -1), (-1, 1)):
        u = t[end] + side * np.array([0.0, 0.01, 1.0, 50.0])
        scale = variable.parameter.scale
        x = scale * np.sinh(u) if variable.parameter.decades else (u - linear[0]) * scale
        np.testing.assert_allclose(evaluate(curves, variable, x), values[[end] * 4], atol=1e-4)  # a millionth of a step
        slope = jax.vmap(jax.jacfwd(lambda x: curves({variable.name: x})))(x[1:])
        np.testing.assert_array_equal(slope, 0.0)


def test_curves_are_pytrees_that_compile_once():
    calls = []

    @jax.jit
    def both(curves, x):
        calls.append(1)
        return curves({"x": x})

    first, second = (s.Curves(LINEAR, np.full((s.KNOTS, 2), value)) for value in (1.0, 2.0))
    np.testing.assert_allclose([both(first, 0.1), both(second, 0.2)], [[1, 1], [2, 2]], rtol=1e-14)
    assert len(calls) == 1


# --- what happens along one parameter


@pytest.mark.parametrize("degree", [0, 1, 2, 4])
@pytest.mark.parametrize("variable", [LINEAR, DECADES], ids=lambda v: v.name)
def test_an_axis_finds_the_degree_of_polynomials(variable, degree):
    rng, t = np.random.default_rng(degree), variable.knots
    unit = 2 * (t - t[0]) / np.ptp(t) - 1
    slices = unit[:, None] ** np.arange(degree + 1) @ rng.normal(size=(degree + 1, 40))
    axis = s.Axis.of(variable, slices, 1e-8)
    assert axis.curves.shape == (s.KNOTS, degree + 1) and len(set(axis.nodes.tolist())) == degree + 1
    np.testing.assert_array_equal(axis.curves[:, 0], 1.0)
    assert np.max(np.abs(axis.curves)) <= 1 + 1e-12
    # the nodes tell the curves apart: any combination comes back from its values there, and errors do not grow much
    assert np.linalg.cond(axis.curves[axis.nodes]) < 100
    found = axis.curves @ (axis.inverse @ slices[axis.nodes])
    np.testing.assert_allclose(found, slices, atol=1e-9)
    np.testing.assert_array_equal(axis.nodes_of_variable, variable.values[axis.nodes])


def test_what_is_too_small_gets_no_curve():
    t = LINEAR.knots / np.max(np.abs(LINEAR.knots))
    slices = np.stack([t + 1e-5 * t**2, 2 * t - 1e-5 * np.sin(3 * t)], axis=1)
    assert s.Axis.of(LINEAR, slices, 1e-3).curves.shape[1] == 2
    assert s.Axis.of(LINEAR, slices, 1e-9).curves.shape[1] == 3
    # what is left out is smaller than that
    axis = s.Axis.of(LINEAR, slices, 1e-3)
    assert np.max(np.abs(axis.curves @ (axis.inverse @ slices[axis.nodes]) - slices)) < 1e-3


def test_a_function_that_does_not_move_needs_one_node():
    axis = s.Axis.of(LINEAR, np.full((s.KNOTS, 7), 3.0), 1e-12)
    assert axis.curves.shape == (s.KNOTS, 1) and len(axis.nodes) == 1
    np.testing.assert_allclose(axis.inverse, 1.0)


def test_grid_runs_over_the_last_axis_first():
    slices = np.stack([LINEAR.knots, LINEAR.knots**2], axis=1)
    a = s.Axis.of(LINEAR, slices, 1e-9)
    b = s.Axis.of(DECADES, DECADES.knots[:, None], 1e-9)
    columns = s.grid([a, b])
    assert list(columns) == ["x", "m"]
    np.testing.assert_array_equal(columns["x"], np.repeat(a.nodes_of_variable, 2))
    np.testing.assert_array_equal(columns["m"], np.tile(b.nodes_of_variable, 3))
    assert s.grid([]) == {} or not any(map(len, s.grid([]).values()))


# --- series

RANGES = [(-1.0, 1.0), (0.0, 2.0), (-3.0, -1.0), (0.5, 4.0)]
FOUR = [s.Variable(Parameter(name, 0.5 * sum(r), scale=0.5), *r) for name, r in zip("abcd", RANGES, strict=True)]


class Known:
    """A sum of products of polynomials and exponentials, on rows and columns of numbers."""

    def __init__(self, seed, variables, terms=3, shape=(4, 2), rates=(-0.6, 0.6)):
        rng = np.random.default_rng(seed)
        self.variables = variables
        self.weights = rng.normal(size=(terms, *shape))
        self.polynomials = rng.normal(size=(terms, len(variables), 3))
        self.rates = rng.uniform(*rates, size=(terms, len(variables))) * (rng.random((terms, len(variables))) < 0.5)
        self.base = 20.0 + 10 * rng.random(shape)

    def __call__(self, columns):
        """At points in columns, shape (points, rows, columns)."""
        factors = []
        for i, v in enumerate(self.variables):
            u = v.parameter.encode(columns[v.name])[:, None] / 4
            polynomial = np.sum(self.polynomials[:, i] * u[..., None] ** np.arange(3), axis=-1)
            factors.append(polynomial * np.exp(self.rates[:, i] * u))
        return self.base + np.tensordot(reduce(np.multiply, factors), self.weights, axes=1)

    def axis(self, variable, tolerance=1e-9):
        rng = np.random.default_rng(17)
        columns = {v.name: np.repeat(sample(v, 4, rng), s.KNOTS) for v in self.variables if v.name != variable.name}
        values = self({**columns, variable.name: np.tile(variable.values, 4)}).reshape(4, s.KNOTS, -1)
        return s.Axis.of(variable, np.moveaxis(values, 1, 0).reshape(s.KNOTS, -1), tolerance)

    def series(self, inner, tolerance=1e-9, variance=25.0):
        """With the first ``inner`` variables in the first group."""
        axes = [self.axis(v, tolerance / 100) for v in self.variables]
        columns = s.grid(axes) or {v.name: np.array([v.low]) for v in self.variables}
        values = self(columns)
        tensor = values.reshape(*(len(a.nodes) for a in axes), *values.shape[1:])
        rows = np.full(values.shape[1], variance)
        return s.series(axes[:inner], axes[inner:], tensor, rows, tolerance)

    def sample(self, count, seed=5):
        rng = np.random.default_rng(seed)
        return {v.name: sample(v, count, rng) for v in self.variables}


def many(function, columns):
    return np.asarray(jax.jit(jax.vmap(function))(columns))


@given(seed=st.integers(0, 2**20), count=st.integers(2, 4), data=st.data())
@settings(max_examples=8, deadline=None)
def test_a_series_is_the_function_that_it_was_made_of(seed, count, data):
    known = Known(seed, FOUR[:count])
    made = known.series(data.draw(st.integers(0, count)))
    assert set(made.names) <= {v.name for v in FOUR}
    columns = known.sample(50)
    np.testing.assert_allclose(many(made, columns), known(columns), rtol=0, atol=1e-6)


@pytest.mark.parametrize("inner", [0, 1, 2, 3])
def test_holding_the_outer_parameters_changes_nothing(inner):
    known = Known(3, FOUR[:3])
    made = known.series(inner)
    columns = known.sample(10)
    for i in range(10):
        point = {name: column[i] for name, column in columns.items()}
        outer = {v.name: point[v.name] for v in FOUR[inner:3]}
        held = made.hold(outer)
        assert held.outer.names == () and set(held.inner.names) == {v.name for v in FOUR[:inner]}
        rest = {name: value for name, value in point.items() if name not in outer}
        np.testing.assert_allclose(held(rest), made(point), rtol=1e-13, atol=1e-12)
        again = held.hold({})
        np.testing.assert_array_equal(again(rest), held(rest))


def test_gradients_of_a_series():
    """By its parameters, and of a held one by those that are left, against central differences of the function."""
    known = Known(8, FOUR[:3])
    made = known.series(2)
    point = {name: float(column[0]) for name, column in known.sample(1).items()}
    size = lambda f: lambda p: (f(p) ** 2).sum()  # noqa: E731
    gradient = jax.grad(size(made))(point)
    for name in point:
        up, down = ({n: np.array([x + (n == name) * e]) for n, x in point.items()} for e in (1e-5, -1e-5))
        difference = (np.sum(known(up) ** 2) - np.sum(known(down) ** 2)) / 2e-5
        assert float(gradient[name]) == pytest.approx(difference, abs=1e-3, rel=1e-5)
    held = made.hold({"c": point["c"]})
    rest = {"a": point["a"], "b": point["b"]}
    for name, value in jax.grad(size(held))(rest).items():
        assert float(value) == pytest.approx(float(gradient[name]), rel=1e-12)


def test_second_derivatives_and_those_by_the_coefficients():
    known = Known(14, FOUR[:3])
    made = known.series(2)
    point = np.array([float(column[0]) for column in known.sample(1).values()])
    size = lambda made, x: (made(dict(zip("abc", x, strict=True))) ** 2).sum()  # noqa: E731
    slope, h = jax.jit(jax.grad(size, argnums=1)), 1e-3
    curvature = jax.jit(jax.hessian(size, argnums=1))(made, point)
    for i in range(3):
        step = h * np.eye(3)[i]
        difference = slope(made, point + step) - slope(made, point - step)
        np.testing.assert_allclose(curvature[i], difference / (2 * h), rtol=1e-4, atol=1e-2)
    gradient = jax.jit(jax.grad(size))(made, point)
    # the function is linear in its coefficients, so its square gains twice itself
    scale = np.sum(np.asarray(gradient.coefficients) * np.asarray(made.coefficients))
    assert scale == pytest.approx(2 * float(size(made, point)), rel=1e-10)


def test_equal_functions_are_one_direction():
    """Terms whose coefficients are proportional are combined, whatever their number."""
    axes = [Known(2, FOUR[:2]).axis(v) for v in FOUR[:2]]
    shape = tuple(len(axis.nodes) for axis in axes)
    values = np.random.default_rng(6).normal(size=shape)
    tensor = values[..., None, None] * np.array([[1.0, 2.0], [-3.0, 0.5]])
    made = s.series(axes[:1], axes[1:], tensor, np.ones(2), 1e-9)
    assert made.coefficients.shape[0] <= min(shape) and made.coefficients.shape[2:] == (2, 2)
    x = {v.name: axis.nodes_of_variable for v, axis in zip(FOUR, axes, strict=False)}
    for i, a in enumerate(x["a"]):
        for j, b in enumerate(x["b"]):
            np.testing.assert_allclose(made({"a": a, "b": b}), tensor[i, j], atol=1e-7)


def test_series_of_no_parameter_and_of_one_group():
    known = Known(9, FOUR[:2])
    constant = s.series([], [], np.arange(6.0).reshape(3, 2), np.ones(3), 1e-3)
    np.testing.assert_array_equal(constant({}), np.arange(6.0).reshape(3, 2))
    assert constant.names == ()
    columns = known.sample(20)
    np.testing.assert_allclose(many(known.series(0), columns), many(known.series(2), columns), atol=1e-8)


def test_terms_that_are_left_out_are_within_the_tolerance():
    """In standard deviations of the counts: each term that is dropped is smaller, and few of them add up."""
    known = Known(11, FOUR[:3], terms=6)
    full, columns = known.series(2), known.sample(300)
    exact, sizes = known(columns), [full.coefficients[..., 0, 0].size]
    for tolerance in (1e-4, 1e-2, 0.3):
        made = known.series(2, tolerance)
        sizes.append(made.coefficients[..., 0, 0].size)
        deviation = np.linalg.norm(np.sum(many(made, columns) - exact, axis=2) / 5.0, axis=1)
        assert np.max(deviation) < 5 * tolerance
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 3


def test_a_function_that_is_nothing():
    axis = Known(1, FOUR[:1]).axis(FOUR[0])
    zero = s.series([axis], [], np.zeros((len(axis.nodes), 2, 1)), np.ones(2), 1e-3)
    np.testing.assert_array_equal(zero({"a": 0.4}), np.zeros((2, 1)))


def test_beyond_the_range_a_series_is_constant():
    known = Known(12, FOUR[:2])
    made = known.series(1)
    edge, beyond = {"a": 1.0, "b": 0.0}, {"a": 7.0, "b": -3.0}
    np.testing.assert_allclose(made(beyond), made(edge), rtol=1e-7)  # a millionth of a step beyond the edge
    gradient = jax.grad(lambda p: made(p).sum())(beyond)
    assert all(float(x) == 0.0 for x in gradient.values())
