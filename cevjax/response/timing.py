"""Arrival-time spectra integrated over time bins, in closed form and differentiable in the time offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import factorial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erfcx, ndtr
from jax.typing import ArrayLike

from ..staged import staged
from .efficiency import ExponentialTimeEfficiency


def _erfcx(x: Array) -> Array:
    """erfcx for x >= 0; from 20 on by its asymptotic series, because jax's own is wrong by 1 around x = 26.6."""
    y = 1 / jnp.maximum(x, 20.0) ** 2
    series = (1 - y / 2 * (1 - 3 * y / 2 * (1 - 5 * y / 2 * (1 - 7 * y / 2)))) / (jnp.maximum(x, 20.0) * np.sqrt(np.pi))
    return jnp.where(x < 20, erfcx(jnp.minimum(x, 20.0)), series)


def emg_cdf(t: ArrayLike, mean: ArrayLike, sigma: ArrayLike, tau: ArrayLike) -> Array:
    r"""Cumulative distribution of a Gaussian convolved with an exponential decay (exponentially modified Gaussian).

    .. math:: F(t) = \Phi(z) - \exp\Big(\frac{\sigma^2}{2\tau^2} - \frac{t-\mu}{\tau}\Big)\,
              \Phi\Big(z - \frac\sigma\tau\Big),\qquad z = \frac{t-\mu}{\sigma}
    """
    z = (jnp.asarray(t, float) - mean) / sigma
    r = sigma / jnp.asarray(tau, float)
    x = (r - z) / np.sqrt(2)
    # the scaled erfcx, because the exponential alone overflows where the lifetime is short against the pulse
    tail = 0.5 * jnp.exp(-(z**2) / 2) * _erfcx(jnp.abs(x))
    late = jnp.exp(jnp.minimum(r**2 / 2 - r * z, 0.0)) - tail
    return ndtr(z) - jnp.where(x > 0, tail, late)


class Pulse(eqx.Module):
    """Gaussian proton pulse followed, for each source, by a chain of decays.

    The density after a chain of two decays is a weighted sum of the densities after each alone, so all sources are
    combinations of few exponentially modified Gaussians.

    Args:
        mean, sigma: of the pulse, us.
        chains: for each source, the lifetimes (us) of the one or two decays that follow.
    """

    mean: float
    sigma: float
    lifetimes: Array
    mixture: Array

    def __init__(self, mean: float, sigma: float, chains: Sequence[tuple[float, ...]]):
        self.mean, self.sigma = mean, sigma
        lifetimes = list(dict.fromkeys(tau for chain in chains for tau in chain))
        mixture = np.zeros((len(chains), len(lifetimes)))
        for row, chain in zip(mixture, chains, strict=True):
            if len(chain) == 1:
                row[lifetimes.index(chain[0])] = 1.0
            else:
                first, second = chain
                row[lifetimes.index(first)] = first / (first - second)
                row[lifetimes.index(second)] = second / (second - first)
        self.lifetimes, self.mixture = jnp.asarray(np.array(lifetimes)), jnp.asarray(mixture)

    def integrals(self, early: Array, late: Array, offset: ArrayLike, rate: ArrayLike) -> tuple[Array, Array]:
        """Integrals up to times ``early`` of the densities, and up to ``late`` of the densities times exp(-rate t).

        All are delayed by ``offset``; shapes (sources, times). The exponential tilts each factor of a convolution, so
        a tilted exponentially modified Gaussian is another one.
        """
        t = jnp.concatenate([early, late])
        k = jnp.concatenate([jnp.zeros_like(early), jnp.full_like(late, rate)])
        mean, tau = self.mean + offset, self.lifetimes[:, None]
        tilted = tau / (1 + k * tau)
        factor = tilted / tau * jnp.exp(-k * mean + (k * self.sigma) ** 2 / 2)
        cumulative = self.mixture @ (factor * emg_cdf(t, mean - k * self.sigma**2, self.sigma, tilted))
        return cumulative[:, : early.size], cumulative[:, early.size :]


CARDINAL_CUBIC = np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6
"""Powers of u of the four cubic B-splines that overlap on 0 <= u < 1 (rows: powers)."""


class TimeTemplate(eqx.Module):
    """A measured or simulated time distribution, given by its cumulative fractions at evenly spaced knots.

    The density is the sum of one cubic B-spline for each interval, as high as its content: never negative, with the
    content preserved, smooth in the offset, and wider than the truth by 0.65 steps in quadrature.

    Args:
        knots: times, us.
        cumulative: fraction of the events before each knot.
        rate: kappa of the time efficiency, 1/us.
    """

    start: float = eqx.field(static=True)
    step: float = eqx.field(static=True)
    plain: Array
    tilted: Array

    def __init__(self, knots: ArrayLike, cumulative: ArrayLike, rate: float = 0.0):
        knots, content = np.asarray(knots, float), np.pad(np.diff(np.asarray(cumulative, float)), 4)
        self.step = float(knots[-1] - knots[0]) / (len(knots) - 1)
        # between the middles of two bins the splines of these and of the next on either side overlap
        self.start = float(knots[0]) - 2.5 * self.step
        around = np.stack([content[k : len(content) - 3 + k] for k in range(4)])
        density = CARDINAL_CUBIC @ around / self.step
        middles = self.start + self.step * np.arange(density.shape[1])
        # times exp(-rate t), to third order about each middle (relative error below 1e-12)
        series = [(-rate * self.step) ** k / factorial(k) for k in range(4)]
        product = np.zeros((7, density.shape[1]))
        for k, term in enumerate(series):
            product[k : k + 4] += term * density
        self.plain = jnp.asarray(_cumulated(density, self.step))
        self.tilted = jnp.asarray(_cumulated(product * np.exp(-rate * middles), self.step))

    def integrals(self, early: Array, late: Array, offset: ArrayLike, rate: ArrayLike) -> tuple[Array, Array]:
        """As :meth:`Pulse.integrals`, for one source; ``rate`` must be the one that the template was built with."""
        offset = jnp.asarray(offset, float)
        tilted = jnp.exp(-jnp.asarray(rate) * offset) * self._spline(self.tilted, late - offset)
        return self._spline(self.plain, early - offset)[None], tilted[None]

    def _spline(self, table: Array, t: Array) -> Array:
        u = jnp.clip((t - self.start) / self.step, 0.0, len(table))
        i = jnp.minimum(jnp.floor(u).astype(int), len(table) - 1)
        value = jnp.zeros_like(u)
        for coefficient in table[i].T[::-1]:
            value = value * (u - i) + coefficient
        return value


def _cumulated(density: np.ndarray, step: float) -> np.ndarray:
    """Antiderivative of a piecewise polynomial, continuous and zero at the start.

    ``density``: rows of coefficients of u^0, u^1, ... on pieces 0 <= u < 1 of width ``step``. Returns a row a piece.
    """
    powers = np.arange(1, len(density) + 1)[:, None]
    rising = step * density / powers
    before = np.concatenate([[0.0], np.cumsum(rising.sum(axis=0))[:-1]])
    return np.concatenate([before[None], rising]).T


class BinnedTime(eqx.Module):
    """Fraction of each source's events that is recorded in each time bin, with efficiency and a common offset.

    Args:
        source: :class:`Pulse` or :class:`TimeTemplate`.
        efficiency: in time.
        edges: of the time bins, us.
        nuisance: name of the offset's pull, or None.
        unit: offset (us) at pull 1.
        until: fractions are those of the events that happen between the first edge and this time, us; None for those of
            all events.
    """

    source: Pulse | TimeTemplate
    efficiency: ExponentialTimeEfficiency
    edges: tuple[float, ...] = eqx.field(static=True)
    nuisance: str | None = eqx.field(static=True, default=None)
    unit: float = eqx.field(static=True, default=1.0)
    until: float | None = eqx.field(static=True, default=None)

    @property
    def nuisances(self) -> tuple[str, ...]:
        return (self.nuisance,) if self.nuisance else ()

    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        """Shape (sources, bins)."""
        return _integrate({name: params[name] for name in self.nuisances}, self)

    def integrate(self, params: Mapping[str, ArrayLike]) -> Array:
        """:meth:`__call__` before it is made a stage."""
        offset = self.unit * jnp.asarray(params[self.nuisance], float) if self.nuisance else 0.0
        start, rate = self.efficiency.start, self.efficiency.rate
        edges = np.array(self.edges)
        # the efficiency is flat up to `start` and exponential after it: each part of a bin has its own integral
        early, late = self.source.integrals(jnp.minimum(edges, start), jnp.maximum(edges, start), offset, rate)
        fractions = jnp.diff(early) + jnp.exp(rate * start) * jnp.diff(late)
        if self.until is None:
            return fractions
        happened, _ = self.source.integrals(jnp.array([self.edges[0], self.until]), jnp.zeros(0), offset, rate)
        return fractions / jnp.diff(happened)


_integrate = staged(lambda params, time: time.integrate(params))
