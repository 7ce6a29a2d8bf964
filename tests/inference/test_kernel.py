"""Densities from draws against the densities that were drawn from."""

import numpy as np
import pytest
from scipy import stats
from scipy.interpolate import interpn

from cevjax.inference.kernel import density

DRAWS = 20_000
RNG = np.random.default_rng(1)


def box_of_bands(sigma=0.03):
    """Two thin bands across a box, one of weight 0.6, and their density."""

    def truth(x, y):
        away = y + 1.1 * x
        return (0.6 * stats.norm.pdf(away, 0, sigma) + 0.4 * stats.norm.pdf(away, 0.7, sigma)) / 4

    x = RNG.uniform(-1, 1, 4 * DRAWS)
    y = -1.1 * x + np.where(RNG.random(len(x)) < 0.6, 0.0, 0.7) + sigma * RNG.normal(size=len(x))
    inside = np.abs(y) < 1
    return np.stack([x, y], axis=1)[inside][:DRAWS], truth, (-1.0, 1.0)


def ring(sigma=0.05):
    angle, radius = RNG.uniform(0, 2 * np.pi, DRAWS), 1 + sigma * RNG.normal(size=DRAWS)

    def truth(x, y):
        r = np.hypot(x, y)
        return stats.norm.pdf(r, 1, sigma) / (2 * np.pi * np.maximum(r, 0.1))

    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), truth, (-1.5, 1.5)


def height(probabilities, cl):
    """The density above which a part of the probability lies."""
    order = np.sort(probabilities.ravel())[::-1]
    return order[np.searchsorted(np.cumsum(order) / np.sum(order), cl)]


@pytest.mark.parametrize("make", [box_of_bands, ring])
def test_thin_shapes_stay_thin(make):
    """Total variation distance 0.08; areas that hold a part of the draws to 5 %: a histogram of 50 bins makes them
    twice as large."""
    points, truth, ends = make()
    axis = np.linspace(*ends, 401)
    found = density(points, [axis, axis], [ends, ends])
    expected = truth(*np.meshgrid(axis, axis, indexing="ij"))
    cell = (axis[1] - axis[0]) ** 2
    assert np.sum(found) * cell == pytest.approx(1, abs=0.02)
    assert 0.5 * np.sum(np.abs(found / np.sum(found) - expected / np.sum(expected))) < 0.08
    at_draws = interpn((axis, axis), found, points, bounds_error=False, fill_value=0.0)
    for cl in (0.68, 0.9):
        area = np.sum(found > np.quantile(at_draws, 1 - cl))
        assert area == pytest.approx(np.sum(expected > height(expected, cl)), rel=0.05)


def test_a_density_ends_at_the_bounds():
    """It neither falls off before them, nor goes beyond."""
    x = np.abs(np.random.default_rng(2).normal(size=(DRAWS, 1)))
    at = np.linspace(-1, 4, 501)
    found = density(x, [at], [(0.0, 9.0)])
    assert np.all(found[at < 0] == 0)
    assert found == pytest.approx(2 * stats.norm.pdf(at) * (at >= 0), abs=0.06)


def test_modes_far_apart_keep_their_weights_and_widths():
    rng = np.random.default_rng(3)
    first = rng.random(DRAWS) < 0.3
    x = np.where(first, -5 + 0.01 * rng.normal(size=DRAWS), 5 + 0.1 * rng.normal(size=DRAWS))
    at = np.linspace(-5.1, -4.9, 401)
    found = density(x[:, None], [at], [(-9.0, 9.0)])
    mass = np.sum(found) * (at[1] - at[0])
    assert mass == pytest.approx(0.3, abs=0.015)
    assert np.sum(found * (at + 5) ** 2) * (at[1] - at[0]) / mass == pytest.approx(1e-4, rel=0.15)
