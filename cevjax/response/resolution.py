"""Energy resolution, integrated over the bins of the analysis together with the efficiency."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln, ndtr
from jax.typing import ArrayLike

from ..quadrature import gauss_legendre
from ..staged import staged
from .efficiency import Efficiency
from .quenching import Quenching


class Resolution(eqx.Module):
    """Distribution of the reconstructed energy x that belongs to an electron-equivalent energy.

    A ``discrete`` one lives on whole numbers: sums take the place of integrals.
    """

    discrete: ClassVar[bool] = False

    @abc.abstractmethod
    def density(self, x: Array, energy: Array) -> Array:
        """p(x) at x, shape (...), for energies in MeV, shape (k,): shape (..., k)."""


class GaussianResolution(Resolution):
    r"""Reconstructed energy x in keVee: a Gaussian around E_ee.

    .. math:: \sigma^2 = \sigma_0^2 + s\,E_{ee} + (r\,E_{ee})^2

    Args:
        noise: sigma_0, keVee.
        slope: s, keVee: Fano factor times energy per pair; or the square of a stochastic term.
        relative: r, constant term.
        positive: whether energies are never reconstructed below zero: the part of the Gaussian above is normalised.

    >>> import jax.numpy as jnp
    >>> p = GaussianResolution(noise=0.1).density(jnp.array([1.0]), jnp.array([1e-3]))
    >>> round(float(p[0, 0]), 6)
    3.989423
    """

    noise: float = 0.0
    slope: float = 0.0
    relative: float = 0.0
    positive: bool = eqx.field(static=True, default=False)

    def density(self, x, energy):
        kev = 1e3 * energy
        variance = self.noise**2 + self.slope * kev + (self.relative * kev) ** 2
        density = jnp.exp(-((x[..., None] - kev) ** 2) / (2 * variance)) / jnp.sqrt(2 * np.pi * variance)
        if self.positive:
            density = jnp.where(x[..., None] < 0, 0.0, density / ndtr(kev / jnp.sqrt(variance)))
        return density


class PoissonResolution(Resolution):
    """Whole numbers x of photo-electrons, Poisson-distributed around ``light_yield`` (PE/keVee) times E_ee.

    >>> import jax.numpy as jnp
    >>> p = PoissonResolution(10.0).density(jnp.array([2.0]), jnp.array([2e-4]))
    >>> round(float(p[0, 0]), 6)
    0.270671
    """

    light_yield: float
    discrete: ClassVar[bool] = True

    def density(self, x, energy):
        mean, n = 1e3 * energy * self.light_yield, x[..., None]
        return jnp.exp(n * jnp.log(mean) - mean - gammaln(n + 1))


class GammaResolution(Resolution):
    r"""Photo-electrons x from an electron-equivalent energy: a gamma distribution.

    .. math:: p(x) = \frac{[a(1+b)]^{1+b}}{\Gamma(1+b)}\, x^b e^{-a(1+b)x}, \qquad
              a = \frac{\alpha}{E_{ee}},\quad b = \beta E_{ee}

    of mean :math:`1/a` and variance :math:`1/[a^2(1+b)]`.

    Args:
        alpha: keVee; the inverse of the light yield (PE/keVee).
        beta: 1/keVee.

    Source: arXiv:2110.07730, supplemental material.
    """

    alpha: float
    beta: float

    def density(self, x, energy):
        kev = 1e3 * energy
        b = self.beta * kev
        rate = self.alpha / kev * (1 + b)
        norm = (1 + b) * jnp.log(rate) - gammaln(1 + b)
        return jnp.exp(norm + jnp.log(x)[..., None] * b - x[..., None] * rate)


class BinnedResponse(eqx.Module):
    """Probability that a recoil of energy T is reconstructed and selected in each bin.

    R_i(T) = int over bin i of efficiency(x) p(x | E_ee(T)) dx, with Gauss-Legendre nodes in panels of at most
    ``panel`` units that begin at the efficiency's threshold and end at its kinks: no bin-centre approximation, and
    differentiable to any order in every nuisance. A discrete resolution is summed over the whole numbers in [low, high)
    of each bin, at which the efficiency is taken too.

    Args:
        quenching, resolution, efficiency: of the detector.
        edges: of the bins, in the units of x.
        order: nodes of each panel.
        panel: largest width of a panel; not much wider than the resolution.
    """

    quenching: Quenching
    resolution: Resolution
    efficiency: Efficiency
    edges: tuple[float, ...] = eqx.field(static=True)
    order: int = eqx.field(static=True)
    panel: float = eqx.field(static=True)
    reached: int = eqx.field(static=True)
    densities: Array | None

    def __init__(self, quenching, resolution, efficiency, edges, order: int = 6, panel: float = 10.0):
        self.quenching, self.resolution, self.efficiency = quenching, resolution, efficiency
        self.edges = tuple(float(e) for e in edges)
        self.order, self.panel = (1, 1.0) if resolution.discrete else (order, panel)
        # the panels that the threshold may move into come first, and their nodes move with it
        self.reached = int(np.sum(self._panels()[0] < efficiency.highest_threshold))
        self.densities = None

    @property
    def nuisances(self) -> tuple[str, ...]:
        own = (self.efficiency.nuisance,) if self.efficiency.nuisance else ()
        return (*self.quenching.nuisances, *own)

    def __call__(self, params: Mapping[str, ArrayLike], recoil: ArrayLike) -> Array:
        """R_i(T), shape (bins, recoils), at recoil energies in MeV."""
        own = {name: params[name] for name in self.nuisances}
        return _integrate(own, (self, jnp.asarray(recoil, float)))

    def integrate(self, params: Mapping[str, ArrayLike], recoil: Array) -> Array:
        """:meth:`__call__` before it is made a stage."""
        energy = self.quenching(params, recoil)
        low, high, bin_of_panel = self._panels()
        k = self.reached
        cut = jnp.clip(self.efficiency.threshold(params), low[:k], high[:k])
        low = jnp.concatenate([cut, low[k:]])
        nodes = self._nodes(low, high)
        if self.densities is None:
            density = self.resolution.density(nodes, energy)
        else:
            density = jnp.concatenate([self.resolution.density(nodes[:k], energy), self.densities])
        weights = (high - low)[:, None] * gauss_legendre(self.order)[1] * self.efficiency(nodes, params)
        panels = jnp.sum(weights[..., None] * density, axis=1)
        n_bins = len(self.edges) - 1
        return panels if len(low) == n_bins else jnp.zeros((n_bins, panels.shape[1])).at[bin_of_panel].add(panels)

    def _panels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.resolution.discrete:
            return _panels(tuple(float(e) for e in np.ceil(self.edges)), 1.0)
        return _panels(self.edges, self.panel, self.efficiency.breaks)

    def _nodes(self, low: ArrayLike, high: ArrayLike) -> Array:
        low, high = jnp.asarray(low), jnp.asarray(high)
        if self.resolution.discrete:
            return low[:, None]
        return low[:, None] + (high - low)[:, None] * gauss_legendre(self.order)[0]

    def prepare(self, recoil: Array) -> BinnedResponse:
        """The same response for these recoils alone, with the densities tabulated that no nuisance moves."""
        if self.quenching.nuisances:
            return self
        low, high, _ = self._panels()
        nodes = self._nodes(low[self.reached :], high[self.reached :])
        table = self.resolution.density(nodes, self.quenching({}, recoil))
        return eqx.tree_at(lambda r: r.densities, self, table, is_leaf=lambda x: x is None)


_integrate = staged(lambda params, structure: structure[0].integrate(params, structure[1]))


def _panels(
    edges: tuple[float, ...], width: float, breaks: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Panels of at most ``width`` that no break lies in: their lower and upper edges, and the bin each belongs to."""
    rows = []
    for i, (low, high) in enumerate(pairwise(edges)):
        pieces = [low, *sorted(b for b in set(breaks) if low < b < high), high]
        for start, end in pairwise(pieces):
            cuts = np.linspace(start, end, max(1, int(np.ceil((end - start) / width - 1e-9))) + 1)
            rows += [(a, b, i) for a, b in pairwise(cuts)]
    low, high, owner = (np.array(column) for column in zip(*rows, strict=True))
    return low, high, owner.astype(int)
