"""Densities from draws, by kernels that have the shape of what the draws follow: bands stay as thin as they are."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import softmax

from .mixture import INFLATED, Mixture, fit_mixture

CELL, MOST = 0.5, 2000
"""Cells of the histogram that is smoothed, in widths of the kernel; and the most of them along an axis."""
OUT = 4.0
"""How far the kernel reaches, in its widths."""
SHARE = 1e-3
"""Part of a draw below which it does not count for a component."""
COUNTS = ((1, 2, 4), (1, 2, 4, 8))
"""Numbers of components that are tried in one and in two dimensions: with more, a flat density would look rough."""

Bounds = Sequence[tuple[float, float]]


def density(points: np.ndarray, axes: Sequence[np.ndarray], support: Bounds) -> np.ndarray:
    """The density of draws on a grid, in one or two dimensions, by normal kernels.

    A mixture describes the draws, and each is shared out among the components. The kernel of a component has its
    covariance, scaled by :math:`n^{-1/(d + 4)}` (D. Scott, Multivariate Density Estimation, 1992, eq. 6.43). Next to
    the bounds of the support it is divided by the part of it that is inside.

    Args:
        points: draws, shape (draws, dimensions).
        axes: of the grid, one array for each dimension.
        support: bounds of each dimension.

    Returns:
        Shape of the grid; its unit is that of one over the product of the axes.

    >>> x = np.random.default_rng(0).normal(size=(20000, 1))
    >>> abs(float(density(x, [np.array([0.0])], [(-9.0, 9.0)])[0]) - 0.399) < 0.02
    True
    """
    n, d = points.shape
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    mixture = fit_mixture(points, np.full(n, 1 / n), d, 0, COUNTS[d - 1])
    shares = softmax(np.asarray(_log_narrow(mixture, points)), axis=1)
    found = np.zeros(grid.shape[:-1])
    for share, root in zip(shares.T, np.asarray(mixture.root) / INFLATED, strict=False):
        chosen = share > SHARE
        if np.sum(share) > 1:
            width = np.sum(share) ** (-1 / (d + 4)) * root
            found += _smoothed(points[chosen], share[chosen], width, grid, support) / n
    return np.where(_inside(grid, support), found, 0.0)


_log_narrow = jax.jit(jax.vmap(Mixture.log_narrow, in_axes=(None, 0)))


def _smoothed(points: np.ndarray, weights: np.ndarray, width: np.ndarray, grid: np.ndarray, support: Bounds):
    """Weights of points, spread by a kernel with a root of its covariance, at the points of a grid."""
    # in units of the kernel it is round: a histogram there is smoothed in each direction alike
    y = np.linalg.solve(width, points.T).T
    low, high = y.min(axis=0) - OUT, y.max(axis=0) + OUT
    cells = np.clip(np.ceil((high - low) / CELL).astype(int), 1, MOST)
    counts, edges = np.histogramdd(y, bins=cells.tolist(), range=list(zip(low, high, strict=True)), weights=weights)
    sigma = cells / (high - low)
    centres = np.stack(np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij"), axis=-1) @ width.T
    inside = gaussian_filter(1.0 * _inside(centres, support), sigma, mode="nearest", truncate=OUT)
    smooth = gaussian_filter(counts, sigma, mode="constant", truncate=OUT) / np.maximum(inside, 0.1)
    where = np.linalg.solve(width, grid.reshape(-1, points.shape[1]).T)
    at = (where - low[:, None]) * sigma[:, None] - 0.5
    volume = np.prod(1 / sigma) * np.linalg.det(width)
    return map_coordinates(smooth / volume, at, order=1, mode="constant").reshape(grid.shape[:-1])


def _inside(points: np.ndarray, support: Bounds) -> np.ndarray:
    low, high = np.array(support).T
    return np.all((points >= low) & (points <= high), axis=-1)
