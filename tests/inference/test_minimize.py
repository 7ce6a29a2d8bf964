"""The minimiser on problems whose solution is known."""

import numpy as np
import pytest

from cevjax.inference import minimize as m


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
    import jax

    from cevjax.likelihood import nll

    like = csi_likelihood("2303.09360")
    where, fixed = _setup(like, ["sin2_theta_w"])
    point = np.array([0.24, 0.3, -0.2, 0.1, 0.05])
    exact = jax.jit(jax.hessian(lambda v: nll(like, {**fixed, **dict(zip(where.names, v, strict=True))})))(point)
    scale = np.outer(where.slope(point), where.slope(point))
    np.testing.assert_allclose(m.hessian(like, where, point, fixed) * scale, exact * scale, rtol=1e-6, atol=1e-6)


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
