"""Gaussian mixtures that follow points: normalisation, modes, slopes, and how many components there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from cevjax.inference.mixture import INFLATED, SLOPE, SPREAD, WIDE, Mixture, fit_mixture


def two_modes(n=3000, part=0.3, seed=1):
    """Points of two modes far apart: a part around (-4, 1) and the others around (3, -2)."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < part
    one = rng.multivariate_normal([-4.0, 1.0], [[0.5, 0.2], [0.2, 0.3]], n)
    two = rng.multivariate_normal([3.0, -2.0], [[0.2, -0.1], [-0.1, 0.6]], n)
    return np.where(first[:, None], one, two)


def fit(points, lead, seed=1, weights=None, **options):
    return fit_mixture(points, np.ones(len(points)) if weights is None else weights, lead, seed, **options)


def weights_of(mixture):
    return np.exp(np.asarray(mixture.log_weight))


def covariances(mixture):
    root = np.asarray(mixture.root)
    return root @ np.swapaxes(root, 1, 2)


def log_density(mixture, points):
    return np.asarray(jax.vmap(mixture.log_density)(jnp.asarray(points)))


def moments(mixture):
    """Mean and covariance of a mixture."""
    weight, mean = weights_of(mixture), np.asarray(mixture.mean)
    centre = weight @ mean
    away = mean - centre
    return centre, np.einsum("k,kij->ij", weight, covariances(mixture) + away[:, :, None] * away[:, None, :])


@pytest.fixture(scope="module")
def bimodal():
    return fit(two_modes(), lead=2)


# ---------------------------------------------------------------------------------------------------------- the density


def test_the_density_is_normalised(bimodal):
    x, y = np.linspace(-40, 40, 1201), np.linspace(-30, 30, 901)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    total = np.sum(np.exp(log_density(bimodal, grid))) * (x[1] - x[0]) * (y[1] - y[0])
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("lead", [0, 1, 2])
def test_the_density_is_that_of_scipy(lead):
    mixture = fit(two_modes(), lead)
    points = np.random.default_rng(2).uniform(-9, 9, (50, 2))
    each = [
        stats.multivariate_normal(mean, covariance).logpdf(points)
        for mean, covariance in zip(np.asarray(mixture.mean), covariances(mixture), strict=True)
    ]
    expected = logsumexp(np.asarray(mixture.log_weight)[:, None] + np.array(each), axis=0)
    assert log_density(mixture, points) == pytest.approx(expected, rel=1e-9)


def test_parts_of_a_mixture_belong_together(bimodal):
    root = np.asarray(bimodal.root)
    assert np.sum(weights_of(bimodal)) == pytest.approx(1.0, abs=1e-12)
    assert np.array_equal(root, np.tril(root)) and np.all(np.diagonal(root, axis1=1, axis2=2) > 0)
    assert np.asarray(bimodal.inverse) @ root == pytest.approx(np.broadcast_to(np.eye(2), root.shape), abs=1e-10)


def test_placed_points_are_standardised(bimodal):
    z = np.array([0.7, -2.0])
    for k in range(len(bimodal.log_weight)):
        y = bimodal.standardise(z, jnp.asarray(k))
        assert np.asarray(bimodal.place(y, jnp.asarray(k))) == pytest.approx(z, abs=1e-10)
        distance = stats.multivariate_normal(bimodal.mean[k], covariances(bimodal)[k]).logpdf(z)
        own = bimodal.log_weight[k] - jnp.sum(jnp.log(jnp.diagonal(bimodal.root[k]))) - 0.5 * y @ y - np.log(2 * np.pi)
        assert float(own - bimodal.log_weight[k]) == pytest.approx(distance, rel=1e-9)
        assert float(own) == pytest.approx(float(bimodal.log_each(z)[k]), rel=1e-12)


def test_random_points_have_the_moments_of_the_mixture(bimodal):
    n = 40_000
    drawn = np.asarray(jax.vmap(bimodal.draw)(jax.random.split(jax.random.key(3), n)))
    mean, covariance = moments(bimodal)
    assert np.all(np.abs(np.mean(drawn, axis=0) - mean) < 4 * np.sqrt(np.diag(covariance) / n))
    away = drawn - mean
    products = away[:, :, None] * away[:, None, :]
    error = np.std(products, axis=0) / np.sqrt(n)
    assert np.all(np.abs(np.mean(products, axis=0) - covariance) < 4 * error)


def test_random_points_have_the_density_of_the_mixture(bimodal):
    """The mean of f/q over points of q is the integral of f."""
    drawn = np.asarray(jax.vmap(bimodal.draw)(jax.random.split(jax.random.key(4), 20_000)))
    other = stats.multivariate_normal([3.0, -2.0], [[0.2, -0.1], [-0.1, 0.4]]).logpdf(drawn)
    ratio = np.exp(other - log_density(bimodal, drawn))
    assert abs(np.mean(ratio) - 1) < 4 * np.std(ratio) / np.sqrt(len(ratio)) < 0.1


# -------------------------------------------------------------------------------------------------------------- the fit


def test_two_modes_are_found(bimodal):
    weight, mean = weights_of(bimodal), np.asarray(bimodal.mean)
    assert weight[-1] == pytest.approx(WIDE)
    left = np.append(mean[:-1, 0] < 0, False)
    right = ~left & (np.arange(len(mean)) < len(mean) - 1)
    share = np.mean(two_modes()[:, 0] < 0)
    assert np.sum(weight[left]) == pytest.approx((1 - WIDE) * share, abs=0.003)
    for side, centre, shape in (
        (left, [-4.0, 1.0], [[0.5, 0.2], [0.2, 0.3]]),
        (right, [3.0, -2.0], [[0.2, -0.1], [-0.1, 0.6]]),
    ):
        part = Mixture(*(entry[side] for entry in bimodal))
        own = part._replace(log_weight=part.log_weight - logsumexp(np.asarray(part.log_weight)))
        found, covariance = moments(own)
        assert found == pytest.approx(centre, abs=0.1)
        # inflated; and drawn a little to the shape of all points, which is large
        assert covariance / INFLATED**2 == pytest.approx(np.array(shape), abs=0.12)


def test_the_wide_component_has_the_moments_of_all_points(bimodal):
    points = two_modes()
    assert np.asarray(bimodal.mean[-1]) == pytest.approx(np.mean(points, axis=0), abs=1e-10)
    assert covariances(bimodal)[-1] == pytest.approx(SPREAD**2 * np.cov(points.T, bias=True), rel=1e-8)


def test_weighted_points_are_those_of_another_distribution():
    """A wide normal distribution with weights that make it a narrow one elsewhere."""
    rng = np.random.default_rng(5)
    points = rng.normal(0.0, 2.0, (4000, 2))
    target = stats.multivariate_normal([1.0, -1.0], [[0.8, 0.3], [0.3, 0.5]])
    weights = np.exp(target.logpdf(points) - stats.norm(0, 2).logpdf(points).sum(axis=1))
    mixture = fit(points, 2, weights=weights, counts=(1,))
    assert np.asarray(mixture.mean[0]) == pytest.approx([1.0, -1.0], abs=0.08)
    assert covariances(mixture)[0] / INFLATED**2 == pytest.approx(np.array([[0.8, 0.3], [0.3, 0.5]]), abs=0.08)


def test_points_without_weight_do_not_count():
    """Two of three points have none: as if they were not there."""
    points = two_modes(1300)
    others = np.random.default_rng(6).normal(0, 30, (len(points), 2, 2))
    mixed = np.concatenate([points[:, None], others], axis=1).reshape(-1, 2)
    weights = np.tile([1.0, 0.0, 0.0], len(points))
    one, two = fit(mixed, 2, weights=weights, counts=(1,)), fit(points, 2, counts=(1,))
    for mine, other in zip(one, two, strict=True):
        assert np.asarray(mine) == pytest.approx(np.asarray(other), rel=1e-8, abs=1e-8)


def test_modes_are_found_with_weights():
    """The points have equal modes, their weights have not."""
    points = two_modes(4000, part=0.5)
    weights = np.where(points[:, 0] < 0, 0.1, 0.9)
    mixture = fit(points, 2, weights=weights)
    left = (np.asarray(mixture.mean)[:, 0] < 0)[:-1]
    expected = np.sum(weights[points[:, 0] < 0]) / np.sum(weights)
    assert np.sum(weights_of(mixture)[:-1][left]) == pytest.approx((1 - WIDE) * expected, abs=0.003)


def test_more_points_than_are_looked_at():
    """The same distribution from many points, and none of those without weight."""
    points, weights = two_modes(20_000, part=0.5), np.ones(20_000)
    weights[points[:, 0] < 0] = 0.0
    mixture = fit(points, 2, weights=weights, counts=(1,))
    right = points[points[:, 0] > 0]
    assert np.asarray(mixture.mean[0]) == pytest.approx(np.mean(right, axis=0), abs=0.02)
    assert covariances(mixture)[-1] / SPREAD**2 == pytest.approx(np.cov(right.T), abs=0.03)


def correlated(n=4000):
    """Points of four correlated coordinates, and their covariance."""
    root = np.array([[1.0, 0, 0, 0], [0.5, 0.8, 0, 0], [-0.7, 0.4, 0.6, 0], [0.2, -0.9, 0.3, 0.5]])
    return np.random.default_rng(7).normal(size=(n, 4)) @ root.T + [1.0, 2.0, 0.0, -1.0], root @ root.T


@pytest.mark.parametrize("lead", [1, 2])
def test_nuisances_follow_what_leads(lead):
    points, truth = correlated()
    mixture = fit(points, lead, counts=(1,))
    covariance = covariances(mixture)[0]
    slopes = np.linalg.solve(covariance[:lead, :lead], covariance[:lead, lead:])
    assert slopes == pytest.approx(np.linalg.solve(truth[:lead, :lead], truth[:lead, lead:]), abs=0.04)
    assert covariance[:lead, :lead] == pytest.approx(INFLATED**2 * truth[:lead, :lead], rel=0.08, abs=0.04)
    left = covariance[lead:, lead:] - slopes.T @ covariance[:lead, lead:]
    residual = truth[lead:, lead:] - truth[lead:, :lead] @ np.linalg.solve(truth[:lead, :lead], truth[:lead, lead:])
    assert left == pytest.approx(residual, rel=0.08, abs=0.04)


def test_nuisances_follow_differently_in_each_mode():
    rng = np.random.default_rng(8)
    n = 4000
    side = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    x = 4 * side + rng.normal(size=n)
    y = 2 * side + 0.8 * side * (x - 4 * side) + 0.3 * rng.normal(size=n)
    mixture = fit(np.stack([x, y], axis=1), lead=1, counts=(1, 2))
    mean, covariance = np.asarray(mixture.mean), covariances(mixture)
    order = np.argsort(mean[:2, 0])
    assert mean[order] == pytest.approx(np.array([[-4.0, -2.0], [4.0, 2.0]]), abs=0.15)
    belief = SLOPE / (n / 2)  # that both follow as all points do, against a variance of 1
    slopes = (np.array([-0.8, 0.8]) + belief * np.cov(x, y)[0, 1] / np.var(x)) / (1 + belief)
    assert covariance[order, 0, 1] / covariance[order, 0, 0] == pytest.approx(slopes, abs=0.02)
    rest = covariance[:2, 1, 1] - covariance[:2, 0, 1] ** 2 / covariance[:2, 0, 0]
    assert np.sqrt(rest) == pytest.approx([0.3, 0.3], rel=0.05)


def test_without_parameters_of_interest_there_is_one_component():
    points, truth = correlated()
    mixture = fit(points, lead=0)
    assert weights_of(mixture) == pytest.approx([1 - WIDE, WIDE])
    assert covariances(mixture)[0] == pytest.approx(np.cov(points.T, bias=True), abs=1e-6)
    assert covariances(mixture)[0] == pytest.approx(truth, rel=0.1, abs=0.06)
    assert np.asarray(mixture.mean[0]) == pytest.approx(np.mean(points, axis=0), abs=1e-10)


def test_without_nuisances():
    points, truth = correlated()
    mixture = fit(points, lead=4, counts=(1,))
    assert covariances(mixture)[0] == pytest.approx(INFLATED**2 * truth, rel=0.1, abs=0.06)


def test_the_same_arguments_give_the_same_bits():
    points = two_modes()
    one, again = fit(points, 2), fit(points.copy(), 2)
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, again, strict=True))


def test_more_components_for_a_ring():
    """A normal distribution is described by one component, a ring needs many; and these leave its middle empty."""
    rng = np.random.default_rng(9)
    angle, radius = rng.uniform(0, 2 * np.pi, 4000), rng.normal(3.0, 0.1, 4000)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    mixture = fit(ring, 2)
    assert len(fit(rng.normal(size=(4000, 2)), 2).log_weight) == 2
    assert len(mixture.log_weight) - 1 >= 8
    middle, on = log_density(mixture, np.array([[0.0, 0.0], [0.0, 3.0]]))
    assert middle < on - 2.5
    alone = fit(ring, 2, counts=(1,))
    assert np.mean(log_density(mixture, ring)) > np.mean(log_density(alone, ring)) + 0.5


def test_few_points_allow_few_components():
    """Each must have its share of what the weights leave."""
    points = two_modes()
    weights = np.zeros(len(points))
    weights[:20] = 1.0
    assert len(fit(points, 2, weights=weights).log_weight) == 2


def test_a_direction_without_spread_is_no_obstacle():
    points = np.random.default_rng(10).normal(size=(500, 3))
    points[:, 1] = 0.25
    for lead in (0, 1, 2, 3):
        mixture = fit(points, lead)
        assert np.all(np.isfinite(log_density(mixture, points)))


@pytest.mark.filterwarnings("error")
def test_points_that_judge_have_no_weight():
    points = np.random.default_rng(11).normal(size=(4000, 2))
    weights = np.where(np.arange(4000) % 4 == 3, 0.0, 1.0)
    assert len(fit(points, 2, weights=weights).log_weight) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("which", [0, 3])
def test_a_single_point_with_weight(which):
    points, weights = two_modes(40), np.zeros(40)
    weights[which] = 1.0
    mixture = fit(points, 2, weights=weights)
    assert np.asarray(mixture.mean) == pytest.approx(np.tile(points[which], (2, 1)), abs=1e-9)
