"""The minimiser on problems whose solution is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.inference import minimize as m
from cevjax.likelihood import Data, nll


def _setup(like, free=()):
    names = [*free, *like.nuisances]
    where = m.space(like, names)
    fixed = {n: v for n, v in like.nominal().items() if n not in names}
    return where, fixed


def test_from_far_away_all_starts_reach_the_same_minimum(csi_likelihood):
    like = csi_likelihood("default")
    where, fixed = _setup(like, ["sin2_theta_w"])
    rng = np.random.default_rng(5)
    low, high = np.maximum(where.lower, -4), np.minimum(where.upper, 4)
    starts = rng.uniform(low, high, (16, len(where.names)))
    starts[:, 0] = rng.uniform(0.05, 0.5, 16)
    found = m.minimize(like, where, starts, fixed)
    assert np.all(found.converged)
    np.testing.assert_allclose(found.nll, found.nll.min(), atol=1e-7)
    spread = np.ptp(found.values, axis=0) / where.slope(found.values[0])
    assert np.all(spread < 0.02)


def test_bounds_are_respected_and_pressed_against(csi_likelihood):
    """Data that are later than the largest offset in the range: the best fit sits at the bound."""
    like = csi_likelihood("2211.11905-shape")

    def counts(timing):
        parts = like.expected(like.nominal(csi2021_timing=timing))["coherent-csi-2021"]
        return np.sum([np.asarray(part) for part in parts.values()], axis=0)

    shifted = like.with_observed([counts(1.0) + 0.5 * (counts(1.0) - counts(0.5))])
    where, fixed = _setup(shifted)
    found = m.minimize(shifted, where, np.zeros((1, len(where.names))), fixed)
    timing = found.values[0, where.names.index("csi2021_timing")]
    assert found.converged[0]
    assert timing == 1.0
    assert np.all((found.values >= where.lower) & (found.values <= where.upper))


def test_held_parameters_do_not_move(csi_likelihood):
    like = csi_likelihood("2303.09360")
    where, fixed = _setup(like, ["sin2_theta_w"])
    starts = np.zeros((3, len(where.names)))
    starts[:, 0] = [0.2, 0.25, 0.3]
    found = m.minimize(like, where, starts, fixed, held=("sin2_theta_w",))
    np.testing.assert_allclose(found.values[:, 0], [0.2, 0.25, 0.3], rtol=1e-15)
    assert np.all(found.converged)


def test_batches_do_not_change_the_result(csi_likelihood):
    like = csi_likelihood("2303.09360")
    where, fixed = _setup(like, ["sin2_theta_w"])
    starts = np.zeros((21, len(where.names)))
    starts[:, 0] = np.linspace(0.1, 0.4, 21)
    a = m.minimize(like, where, starts, fixed, held=("sin2_theta_w",), batch=16)
    b = m.minimize(like, where, starts, fixed, held=("sin2_theta_w",), batch=32)
    np.testing.assert_allclose(a.nll, b.nll, rtol=1e-13)


def test_hessian_is_that_of_automatic_differentiation(csi_likelihood):
    like = csi_likelihood("2303.09360")
    where, fixed = _setup(like, ["sin2_theta_w"])
    point = np.array([0.24, 0.3, -0.2, 0.1, 0.05])
    exact = jax.jit(jax.hessian(lambda v: nll(like, {**fixed, **dict(zip(where.names, v, strict=True))})))(point)
    scale = np.outer(where.slope(point), where.slope(point))
    np.testing.assert_allclose(m.hessian(like, where, point, fixed) * scale, exact * scale, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_too_few_steps_are_reported(csi_likelihood):
    like = csi_likelihood("default")
    where, fixed = _setup(like)
    u = where.encode(np.full((1, len(where.names)), 0.9))
    stopped = m.minimize(like, where, where.decode(u), fixed, max_steps=2)
    assert not stopped.converged[0]
    assert stopped.steps[0] == 2


def test_data_without_counts_and_without_background_do_not_break_it(csi_likelihood):
    like = csi_likelihood("2303.09360").with_observed([np.zeros((9, 11))])
    where, fixed = _setup(like, ["sin2_theta_w"])
    found = m.minimize(like, where, np.zeros((1, len(where.names))) + 0.1, fixed)
    assert np.isfinite(found.nll[0])
    assert np.all(np.isfinite(found.values))
    # nothing was seen: the steady-state background is pulled down as far as its constraint lets it
    assert found.values[0, where.names.index("csi2021_ssb")] < -10


def test_space_maps_back_and_forth(csi_likelihood):
    where = m.space(csi_likelihood("default"), ["sin2_theta_w", "R_n_CsI"])
    values = np.array([[0.2, 5.5], [0.0, 12.0]])
    np.testing.assert_allclose(where.decode(where.encode(values)), values, rtol=1e-14)
    assert where.decode(where.encode(values))[1, 1] <= 12.0


@pytest.mark.parametrize("statistic", ["default", "2211.11905"])
def test_few_steps_suffice(csi_likelihood, statistic):
    like = csi_likelihood(statistic)
    where, fixed = _setup(like, ["sin2_theta_w"])
    start = np.array([[like.parameters[n].nominal for n in where.names]])
    assert m.minimize(like, where, start, fixed).steps[0] <= 9


# --- what a scan needs


@pytest.mark.slow
def test_values_of_each_point_are_as_good_as_held_ones(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    rng = np.random.default_rng(3)
    columns = {"eps_uV_ee": rng.uniform(-0.3, 0.3, 21), "sin2_theta_w": rng.uniform(0.2, 0.3, 21)}
    where, fixed = _setup(like, list(columns))
    starts = np.column_stack([*columns.values(), np.zeros((21, len(like.nuisances)))])
    held = m.minimize(like, where, starts, fixed, held=tuple(columns))
    where, fixed = _setup(like)
    given = m.minimize(like, where, starts[:, 2:], {**fixed, **columns}, batch=8)
    np.testing.assert_allclose(given.nll, held.nll, atol=1e-8)
    np.testing.assert_allclose(given.values, held.values[:, 2:], atol=1e-4)
    assert np.all(given.converged) and given.steps.shape == (21,)


def test_data_of_each_point(csi_likelihood):
    like = csi_likelihood("2303.09360")
    where, fixed = _setup(like)
    rng = np.random.default_rng(4)
    counts = rng.poisson(np.asarray(like.measurements[0].observed) + 1.0, (5, 9, 11)).astype(float)
    auxiliary = rng.normal(size=(5, len(like.auxiliary)))
    data = Data((jnp.asarray(counts),), jnp.asarray(auxiliary))
    found = m.minimize(like, where, np.zeros((5, len(where.names))), fixed, batch=4, data=data)
    for i in range(5):
        other = like.with_data(Data((data.observed[0][i],), data.auxiliary[i]))
        alone = m.minimize(other, where, np.zeros((1, len(where.names))), fixed)
        assert found.nll[i] == pytest.approx(alone.nll[0], abs=1e-9)


@pytest.mark.parametrize("count", [3, 8, 50])
def test_a_queue_changes_nothing(csi_likelihood, count):
    """Points that take the places of others in a batch end where they do alone, after as many steps as they may."""
    like = csi_likelihood("2303.09360")
    where, fixed = _setup(like, ("sin2_theta_w",))
    rng = np.random.default_rng(8)
    starts = rng.normal(size=(count, len(where.names)))
    starts[:, 0] = rng.uniform(0.05, 0.6, count)
    counts = rng.poisson(np.asarray(like.measurements[0].observed) + 1.0, (count, 9, 11)).astype(float)
    data = Data((jnp.asarray(counts),), jnp.asarray(rng.normal(size=(count, len(like.auxiliary)))))
    limits = np.where(np.arange(count) % 3, 100, 2)
    alone = m.minimize(like, where, starts, fixed, data=data, max_steps=limits, batch=8)
    queue = m.minimize(like, where, starts, fixed, data=data, max_steps=limits, batch=8, queue=32)
    np.testing.assert_array_equal(queue.steps, alone.steps)
    np.testing.assert_array_equal(queue.converged, alone.converged)
    np.testing.assert_allclose(queue.nll, alone.nll, atol=1e-9)
    np.testing.assert_allclose(queue.values, alone.values, atol=1e-9)
    assert np.all(queue.steps[limits == 2] == 2) and np.all(queue.converged[limits == 100])
    if count == 50:
        assert len(set(queue.steps)) > 3  # some wait for none


@pytest.mark.slow
def test_a_looser_tolerance_takes_fewer_steps_and_keeps_its_promise(csi_likelihood):
    like = csi_likelihood("default", nsi=True)
    where, fixed = _setup(like)
    rng = np.random.default_rng(5)
    columns = {"eps_uV_ee": rng.uniform(-0.3, 0.5, 48), "eps_dV_ee": rng.uniform(-0.3, 0.5, 48)}
    starts = np.zeros((48, len(where.names)))
    sharp, loose = (
        m.minimize(like, where, starts, {**fixed, **columns}, tolerance=tolerance) for tolerance in (1e-8, 1e-4)
    )
    assert np.all(sharp.converged) and np.all(loose.converged)
    assert np.sum(loose.steps) < np.sum(sharp.steps)
    fits = sharp.nll < 99
    assert fits.sum() > 10 and np.max(np.abs(loose.nll - sharp.nll)[fits]) < 1e-4
    # where nothing fits less is asked
    allowed = 1e-4 * (1 + np.maximum(sharp.nll - 99, 0) / 100)
    assert np.all(np.abs(loose.nll - sharp.nll) < allowed)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("coherent-csi-2021",), id="csi"),
        pytest.param(("coherent-lar-2020", "conus-plus-2025"), id="lar and conus", marks=pytest.mark.slow),
        pytest.param(("dresden-ii-2022",), id="dresden", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_of_automatic_differentiation(names):
    """Components are differentiated by the parameters that they name, and nothing is lost between them."""
    like = cevjax.Likelihood([cevjax.load(name) for name in names], cevjax.StandardModel() + cevjax.NSI())
    where, fixed = _setup(like, ["sin2_theta_w", "eps_uV_ee", "eps_dV_mumu"])
    rng = np.random.default_rng(6)
    nominal = np.array([p.nominal for p in where.parameters])
    scale = np.array([p.scale for p in where.parameters])
    points = np.clip(nominal + 0.3 * scale * rng.normal(size=(3, len(nominal))), where.lower, where.upper)
    found = m._run(like, where, where.encode(points), fixed, max_steps=1)[2]
    slope = jax.jit(jax.grad(lambda v: nll(like, {**fixed, **dict(zip(where.names, v, strict=True))})))
    for point, gradient in zip(points, found, strict=True):
        truth = np.asarray(slope(point)) * where.slope(point)
        np.testing.assert_allclose(gradient, truth, rtol=1e-8, atol=1e-8 * np.max(np.abs(truth)))


def test_positive_systems_are_solved():
    rng, solve = np.random.default_rng(7), jax.jit(m.solve_positive)
    for n in (1, 2, 11, 27):
        factor = rng.normal(size=(n, n))
        matrix, vector = factor @ factor.T + 1e-2 * np.eye(n), rng.normal(size=n)
        found = np.asarray(solve(matrix, vector))
        np.testing.assert_allclose(found, np.linalg.solve(matrix, vector), rtol=1e-8)
        scale = np.geomspace(1e-6, 1e6, n)  # no pivots are needed, however different the scales
        np.testing.assert_allclose(solve(matrix * np.outer(scale, scale), vector * scale), found / scale, rtol=1e-8)
        assert np.all(np.isnan(solve(matrix - 2 * np.trace(matrix) * np.eye(n), vector)))
    assert np.all(np.isnan(solve(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2))))
    assert np.all(np.isnan(solve(np.zeros((2, 2)), np.ones(2))))


def test_a_parameter_without_effect_stays(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    where, fixed = _setup(like, ["eps_uV_tautau"])
    found = m.minimize(like, where, np.zeros((2, len(where.names))) + 0.1, fixed)
    assert np.all(found.converged) and np.all(found.values[:, 0] == 0.1)


def test_reach_is_what_components_say(csi_likelihood):
    (measurement,), acting = csi_likelihood("default", nsi=True).measurements, cevjax.StandardModel() + cevjax.NSI()
    names = ("sin2_theta_w", "csi2021_brn", "csi2021_timing", "eps_uV_ee")
    found = m.reach(measurement, acting, names)
    assert [c.name for c in measurement.components] == ["cevns", "brn", "nin", "ssb"]
    assert found == [[0, 2, 3], [1, 2], [2], []]
