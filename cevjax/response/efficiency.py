"""Detection efficiencies in reconstructed energy and in time."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Efficiency(eqx.Module):
    """Detection efficiency in the reconstructed energy x.

    Attributes:
        nuisance: name of the pull that moves it, or None.
        highest_threshold: the largest :meth:`threshold` at any sensible pull.
        breaks: energies at which the curve has a kink or a step.
    """

    nuisance: eqx.AbstractVar[str | None]
    highest_threshold: eqx.AbstractVar[float]
    breaks: eqx.AbstractVar[tuple[float, ...]]

    @abc.abstractmethod
    def __call__(self, x: ArrayLike, params: Mapping[str, ArrayLike]) -> Array:
        """The efficiency at x."""

    def threshold(self, params: Mapping[str, ArrayLike]) -> ArrayLike:
        """Below it nothing is selected; it may move with the pull."""
        return -jnp.inf


class FlatEfficiency(Efficiency):
    """The same efficiency at all energies."""

    nuisance: str | None = eqx.field(static=True)
    highest_threshold: float = eqx.field(static=True)
    breaks: tuple[float, ...] = eqx.field(static=True)
    value: float

    def __init__(self, value: float = 1.0):
        self.nuisance, self.highest_threshold, self.breaks, self.value = None, -np.inf, (), value

    def __call__(self, x, params):
        return jnp.full_like(jnp.asarray(x, float), self.value)


class TabulatedEfficiency(Efficiency):
    """Efficiency interpolated linearly, constant beyond the ends of the table.

    Args:
        x: increasing reconstructed energies.
        values: efficiency at each.

    >>> float(TabulatedEfficiency([0.0, 10.0], [0.0, 1.0])(2.5, {}))
    0.25
    """

    values: Array
    nuisance: str | None = eqx.field(static=True)
    highest_threshold: float = eqx.field(static=True)
    breaks: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, x: ArrayLike, values: ArrayLike):
        self.breaks, self.values = tuple(map(float, np.asarray(x))), jnp.asarray(np.array(values, float))
        self.nuisance, self.highest_threshold = None, -np.inf

    def __call__(self, x, params):
        return jnp.interp(jnp.asarray(x, float), np.array(self.breaks), self.values)


class SigmoidEfficiency(Efficiency):
    r"""Turn-on curve :math:`\max\{0,\; a/(1 + e^{-b(x - c)}) + d\}` with one variation of its coefficients.

    Between the three sets the coefficients follow the parabola through them, so the curve stays a physical one at any
    pull: never negative, with its threshold moving smoothly.

    Args:
        coefficients: nominal (a, b, c, d).
        plus, minus: the sets at pull +1 and -1; with ``nuisance`` only.
        nuisance: name of the pull.

    >>> float(SigmoidEfficiency((1.0, 0.3, 10.0, 0.0))(10.0, {}))
    0.5
    """

    table: Array
    nuisance: str | None = eqx.field(static=True)
    highest_threshold: float = eqx.field(static=True)
    breaks: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        coefficients: ArrayLike,
        plus: ArrayLike | None = None,
        minus: ArrayLike | None = None,
        nuisance: str | None = None,
    ):
        centre = np.asarray(coefficients, float)
        up, down = (centre, centre) if nuisance is None else (np.asarray(plus, float), np.asarray(minus, float))
        table = np.stack([centre, (up - down) / 2, (up + down) / 2 - centre])
        self.table = jnp.asarray(table)
        self.nuisance, self.breaks = nuisance, ()
        # the largest :meth:`threshold` for pulls of up to 5 standard deviations
        pulls = np.linspace(-5, 5, 101) if nuisance else np.zeros(1)
        a, b, c, d = (pulls[:, None] ** np.arange(3) @ table).T
        cuts = (d < 0) & (a + d > 0)
        thresholds = c[cuts] - np.log(-a[cuts] / d[cuts] - 1) / b[cuts]
        self.highest_threshold = float(np.max(thresholds, initial=-np.inf))

    def coefficients(self, params: Mapping[str, ArrayLike]) -> Array:
        if self.nuisance is None:
            return self.table[0]
        pull = jnp.asarray(params[self.nuisance], float)
        return self.table[0] + pull * (self.table[1] + pull * self.table[2])

    def __call__(self, x: ArrayLike, params: Mapping[str, ArrayLike]) -> Array:
        a, b, c, d = self.coefficients(params)
        return jnp.maximum(a / (1 + jnp.exp(-b * (jnp.asarray(x, float) - c))) + d, 0.0)

    def threshold(self, params: Mapping[str, ArrayLike]) -> Array:
        """Where the curve leaves zero: -inf unless d < 0."""
        a, b, c, d = self.coefficients(params)
        cuts = (d < 0) & (a + d > 0)
        ratio = jnp.where(cuts, -a / jnp.where(cuts, d, -1.0) - 1, 1.0)
        return jnp.where(cuts, c - jnp.log(ratio) / b, -jnp.inf)


class ExponentialTimeEfficiency(eqx.Module):
    r"""Efficiency 1 before ``start`` and :math:`e^{-\kappa(t - t_0)}` after it (dead time grows in the window).

    Args:
        rate: kappa, 1/us.
        start: t_0, us.
    """

    rate: float
    start: float

    def __call__(self, t: ArrayLike) -> Array:
        return jnp.exp(-self.rate * jnp.maximum(jnp.asarray(t, float) - self.start, 0.0))
