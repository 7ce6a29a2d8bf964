"""Where fits of toys start: against closed forms, and against fits from everywhere."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy.optimize import lsq_linear

import cevjax
from cevjax.inference import minimize as minimizer
from cevjax.inference import pairs, starts
from cevjax.inference.fit import problem
from cevjax.inference.pseudo import Truth, random_key
from cevjax.inference.toys import Experiment
from cevjax.likelihood import Data
from cevjax.measurement import Component, Measurement
from cevjax.parameters import Parameter

X = Parameter("x", 0.0, bounds=(-8.0, 8.0), scale=1.0, window=(-8.0, 8.0))
Y = Parameter("y", 0.0, bounds=(-8.0, 8.0), scale=1.0, window=(-8.0, 8.0))


class Powers(Component):
    """Counts proportional to x^power + slope y, upon a constant."""

    name: str = eqx.field(static=True)
    counts: Array
    slopes: Array
    constant: Array
    power: int = eqx.field(static=True, default=1)
    names: tuple[str, ...] = eqx.field(static=True, default=("x", "y"))

    @property
    def parameters(self):
        return tuple(p for p in (X, Y) if p.name in self.names)

    def __call__(self, params, interaction):
        y = params["y"] if "y" in self.names else 0.0
        return self.constant + self.counts * params["x"] ** self.power + self.slopes * y


def experiment(observed, counts, slopes=0.0, constant=0.0, power=1, sigma=None):
    n = len(observed)
    fill = lambda values: jnp.broadcast_to(jnp.asarray(values, float), (n,))  # noqa: E731
    names = ("x", "y") if np.any(slopes) else ("x",)
    component = Powers("signal", fill(counts), fill(slopes), fill(constant), power, names)
    axis = ("keV", tuple(map(float, range(n + 1))))
    measurement = Measurement(
        "made-up", "default", (axis,), observed, components=(component,), nuisances=(), sigma=sigma
    )
    return cevjax.Likelihood(measurement, cevjax.StandardModel())


def atlas_of(like, free, count=starts.COUNT):
    task = problem(like, free, None)
    box = task.where.encode(task.where.lower), task.where.encode(task.where.upper)
    nominal = np.array([p.nominal for p in task.where.parameters])
    return task, starts.Atlas.around(like, task, task.fixed, task.where.encode(nominal), box, count)


def test_a_linear_experiment_is_described_exactly():
    """With the penalty that keeps steps short: least squares with two more rows, and up to one spacing from a node."""
    rng = np.random.default_rng(1)
    sigma, columns = np.array([1.0, 2.0, 0.5, 1.0]), np.array([[3.0, 1.0], [1.0, 4.0], [2.0, 2.0], [0.5, 6.0]])
    like = experiment(np.zeros(4), columns[:, 0], columns[:, 1], sigma=sigma)
    _, atlas = atlas_of(like, ("x", "y"), count=100)
    toys = columns @ [1.3, -2.1] + sigma * rng.normal(size=(40, 4))
    data = Data((toys,), np.zeros((40, 0)))
    value, _ = atlas.values(starts.rows(data))
    spacing = 16 / 9
    scaled, penalty = columns / sigma[:, None], np.eye(2) / (starts.APART * spacing)
    for k in (0, 1, 37, 100):
        misfit = np.concatenate([(toys - columns @ atlas.u[k]) / sigma, np.zeros((40, 2))], axis=1)
        step = np.linalg.lstsq(np.concatenate([scaled, penalty]), misfit.T, rcond=None)[0]
        rest = misfit.T - np.concatenate([scaled, penalty]) @ step
        whole, least = np.sum(misfit**2, axis=1), np.sum(rest**2, axis=0)
        part = 1 / np.maximum(np.max(np.abs(step), axis=0) / spacing, 1)  # of the step that ends at one spacing
        expected = whole - (2 * part - part**2) * (whole - least) - np.sum((toys / sigma) ** 2, axis=1)
        np.testing.assert_allclose(2 * value[:, k], expected, rtol=1e-6, atol=1e-5)
    toy, found = atlas.starts(data)
    np.testing.assert_array_equal(toy, np.arange(40))
    exact = np.linalg.lstsq(scaled, (toys / sigma).T, rcond=None)[0].T
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_both_signs_of_a_square_are_started_from():
    like = experiment(np.array([20.0]), 1.0, constant=4.0, power=2)
    _, atlas = atlas_of(like, ("x",))
    toys = np.array([[20.0], [4.0], [2.0], [13.0]])
    toy, found = atlas.starts(Data((toys,), np.zeros((4, 0))))
    for i, ends in ((0, [-4.0, 4.0]), (3, [-3.0, 3.0])):
        np.testing.assert_allclose(np.sort(found[toy == i, 0]), ends, atol=0.2)
    for i in (1, 2):
        assert np.all(np.abs(found[toy == i, 0]) < 1.0)


def test_only_nodes_near_an_expectation_are_kept():
    like = experiment(np.array([20.0]), 1.0, constant=4.0, power=2)
    _, atlas = atlas_of(like, ("x",))
    near = atlas.near(np.array([20.0, 1.0]))
    assert 10 < len(near.u) < len(atlas.u)
    toys = Data((np.array([[20.0], [15.0]]),), np.zeros((2, 0)))
    for mine, theirs in zip(near.starts(toys), atlas.starts(toys), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_neighbours():
    around = starts._neighbours([3, 4])
    assert set(around[0]) == {-1}  # the centre has none
    assert set(around[1]) == {-1, 2, 5, 6}  # a corner; numbers count from the centre
    assert set(around[1 + 1 * 4 + 1]) == {1, 2, 3, 5, 7, 9, 10, 11}


def test_starts_do_not_depend_on_how_many_toys_there_are(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    setup = pairs.prepare(like, {"eps_uV_ee": (0.1,)})
    centre = setup.free.where.encode(np.array([p.nominal for p in setup.free.where.parameters]))
    atlas = starts.Atlas.around(
        setup.folded, setup.free, setup.free.fixed, centre, pairs.box_of(setup, setup.free.where)
    )
    data = Truth.at(like, like.nominal(eps_uV_ee=0.1)).draw(random_key(1), np.arange(60))
    toy, points = atlas.starts(data)
    for i in (0, 17, 59):
        _, alone = atlas.starts(pairs.take(data, [i]))
        np.testing.assert_array_equal(alone, points[toy == i])


PLANES = {
    "four mirror images": ({"eps_uV_ee": 0.05, "eps_uV_mumu": 0.05}, 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("plane", PLANES)
def test_toys_end_in_their_lowest_places(csi_likelihood, plane):
    """Against fits from 49 points all over the plane."""
    poi, reach = PLANES[plane]
    like = csi_likelihood("default", nsi=True)
    setup = pairs.prepare(like, {name: (value,) for name, value in poi.items()})
    where, fixed = setup.free.where, setup.free.fixed
    made = Experiment.at(setup, poi, np.zeros(len(setup.bound.where.names)))
    data = made.truth.draw(random_key(3), np.arange(48))
    begin = made.starting_points(data)[1]
    tries = pairs.attempt(setup.folded, where, begin, fixed, data)
    found = pairs.settle(setup.folded, where, tries, fixed, data)
    grid = np.stack(np.meshgrid(*[np.linspace(-reach, reach, 7)] * 2), axis=-1).reshape(-1, 2)
    many = np.zeros((len(grid), len(where.names)))
    many[:, :2] = grid
    toy = np.repeat(np.arange(48), len(grid))
    everywhere = pairs.descend(setup.folded, where, np.tile(many, (48, 1)), fixed, pairs.take(data, toy))
    lowest = np.min(everywhere.nll.reshape(48, -1), axis=1)
    assert np.all(found.converged)
    lost = found.nll - lowest
    assert np.mean(lost > 1e-3) < 0.1 and np.max(lost) < 0.2 and np.mean(lost) < 0.005
    assert len(begin[0]) < 4 * 48


def test_starts_that_cannot_win_are_given_up(csi_likelihood):
    """Of two mirror images the higher one; the lower one never."""
    like = csi_likelihood("2303.09360", nsi=True)
    setup = pairs.prepare(like, {"eps_uV_ee": (0.1,)})
    made = Experiment.at(setup, {"eps_uV_ee": 0.1}, np.zeros(len(setup.bound.where.names)))
    data = made.truth.draw(random_key(5), np.arange(100))
    (all_toys, all_ends), (toy, ends) = made.starts[1].starts(data), made.starting_points(data)[1]
    assert set(toy) == set(range(100)) and 100 < len(toy) < len(all_toys)

    def below(toy, ends):
        fits = pairs.descend(setup.folded, setup.free.where, ends, setup.free.fixed, pairs.take(data, toy))
        return pairs.lowest(pairs.Tries(toy, fits)).nll

    np.testing.assert_allclose(below(toy, ends), below(all_toys, all_ends), atol=1e-3)


def test_nodes_are_dense_where_minima_may_be(csi_likelihood):
    """In the plane of two charges, whose allowed ring is a small part of their ranges."""
    like = csi_likelihood("2303.09360", nsi=True)
    poi = {"eps_uV_ee": 0.05, "eps_uV_mumu": 0.05}
    setup = pairs.prepare(like, {name: (value,) for name, value in poi.items()})
    where, box = setup.free.where, pairs.box_of(setup, setup.free.where)
    centre = where.encode(np.array([like.nominal(**poi)[name] for name in where.names]))
    x = starts.expectations(setup.folded, setup.free, setup.free.fixed, centre[None])
    truth = Truth.at(like, like.nominal(**poi))
    np.testing.assert_allclose(x, starts.rows(truth.asimov), rtol=1e-4, atol=1e-6)
    coarse = starts.Atlas.around(setup.folded, setup.free, setup.free.fixed, centre, box)
    dense = starts.Atlas.over(setup.folded, setup.free, setup.free.fixed, centre, box, x)
    assert np.all(dense.spacing[:2] < coarse.spacing[:2] / 2)
    assert np.sum(dense.relevant(x)) > 3 * np.sum(coarse.relevant(x))


def test_a_survey_finds_the_minima_along_a_parameter():
    like = experiment(np.array([20.0]), 1.0, constant=4.0, power=2)
    task = problem(like, ("x",), None)
    columns = {name: np.full(2, value) for name, value in task.fixed.items()}
    found = starts.survey(like, task, columns, np.zeros(1), 6)
    assert found.shape == (2, 6, 1)
    np.testing.assert_allclose(np.sort(found[0, :2, 0]), [-4.0, 4.0], atol=0.2)
    assert np.ptp(found[0, 2:, 0]) > 8  # the others are spread


# --- what the minimiser owes to them


@pytest.mark.parametrize("seed", range(6))
def test_steps_end_at_bounds_and_the_rest_takes_its_best_for_that(seed):
    """Correlated parameters whose minimum lies outside the box: one step, or two, as the problem is quadratic."""
    rng = np.random.default_rng(seed)
    columns = np.array([1.0, 1.0, 1.0, 1.0])[:, None] * [3.0, 3.2] + 0.3 * rng.normal(size=(4, 2))
    observed = columns @ rng.uniform(-20, 20, 2)
    like = experiment(observed, columns[:, 0], columns[:, 1], sigma=np.ones(4))
    task = problem(like, ("x", "y"), None)
    found = minimizer.minimize(like, task.where, np.zeros((1, 2)), task.fixed)
    exact = lsq_linear(columns, observed, bounds=(-8.0, 8.0), tol=1e-12)
    assert found.converged[0] and found.steps[0] < 12
    np.testing.assert_allclose(found.values[0], exact.x, atol=2e-3)
    np.testing.assert_allclose(found.nll[0], exact.cost, rtol=1e-8, atol=1e-7)


def test_second_derivatives_take_fits_through_where_the_first_vanish():
    """At x = 0 counts with x^2 have no slope: with fewer counts than the constant the minimum is there."""
    like = experiment(np.array([1.0, 2.0]), 1.0, constant=4.0, power=2)
    task = problem(like, ("x",), None)
    begin = np.array([[3.0], [-0.7]])
    plain = minimizer.minimize(like, task.where, begin, task.fixed)
    bent = minimizer.minimize(like, task.where, begin, task.fixed, bent=("x",))
    assert np.all(bent.converged) and np.all(bent.steps <= plain.steps)
    np.testing.assert_allclose(bent.values, 0.0, atol=1e-3)
    np.testing.assert_allclose(bent.nll, plain.nll, atol=1e-6)
