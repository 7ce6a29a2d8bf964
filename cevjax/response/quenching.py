"""From nuclear recoil energy to the electron-equivalent (ionisation or scintillation) energy."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

LEAST_ENERGY = 1e-9
"""Least electron-equivalent energy, MeV: a large pull would turn it negative."""


class Quenching(eqx.Module):
    """Electron-equivalent energy of a nuclear recoil, with the pulls that move it."""

    @property
    @abc.abstractmethod
    def nuisances(self) -> tuple[str, ...]:
        """Names of the pulls."""

    @abc.abstractmethod
    def __call__(self, params: Mapping[str, ArrayLike], recoil: ArrayLike) -> Array:
        """E_ee in MeV at recoil energies in MeV."""


class PolynomialQuenching(Quenching):
    r"""Electron-equivalent energy as a polynomial without constant term, with eigen-variations.

    .. math:: E_{ee}(T) = \sum_{i=1}^{n} \Big(c_i + \sum_k a_k\,\delta_{ki}\Big) T^i

    Args:
        coefficients: c, shape (n,), for T and E_ee in MeV.
        variations: delta, shape (k, n): the shift of the coefficients by +1 standard deviation of each variation.
        nuisances: names of the k pulls a_k.

    >>> q = PolynomialQuenching([0.05, 4.0])
    >>> float(q({}, 0.01))
    0.0009
    """

    coefficients: Array
    variations: Array
    pulls: tuple[str, ...] = eqx.field(static=True)

    @property
    def nuisances(self):
        return self.pulls

    def __init__(
        self,
        coefficients: ArrayLike | Sequence[float],
        variations: ArrayLike | Sequence = (),
        nuisances: tuple[str, ...] = (),
    ):
        centre = np.asarray(coefficients, float)
        self.coefficients = jnp.asarray(centre)
        self.variations = jnp.asarray(np.asarray(variations, float).reshape(len(nuisances), len(centre)))
        self.pulls = tuple(nuisances)

    def __call__(self, params: Mapping[str, ArrayLike], recoil: ArrayLike) -> Array:
        """E_ee in MeV at recoil energies in MeV; kept positive, where a large pull would turn it negative."""
        recoil = jnp.asarray(recoil, float)
        pulls = jnp.stack([jnp.asarray(params[name], float) for name in self.nuisances]) if self.nuisances else 0.0
        c = self.coefficients + pulls @ self.variations if self.nuisances else self.coefficients
        energy = jnp.zeros_like(recoil)
        for coefficient in c[::-1]:
            energy = (energy + coefficient) * recoil
        return jnp.maximum(energy, LEAST_ENERGY)


class LindhardQuenching(Quenching):
    r"""Lindhard's model of the ionisation yield.

    .. math:: E_{ee} = T \frac{k g(\epsilon)}{1 + k g(\epsilon)},\quad
              g = 3\epsilon^{0.15} + 0.7\epsilon^{0.6} + \epsilon,\quad \epsilon = 11.5\,Z^{-7/3}\,T[\mathrm{keV}]

    Args:
        Z: of the nucleus.
        k: strength of the electronic energy loss.
        sigma: standard deviation of k; with ``nuisance`` only.
        nuisance: name of the pull on k.

    Source: Lindhard et al., Mat. Fys. Medd. 33 (1963) 10; arXiv:2501.17843 for germanium.

    >>> q = LindhardQuenching(32, 0.162)
    >>> round(float(q({}, 1e-3) / 1e-3), 4)
    0.1755
    """

    Z: int = eqx.field(static=True)
    k: float
    sigma: float = 0.0
    nuisance: str | None = eqx.field(static=True, default=None)

    @property
    def nuisances(self):
        return (self.nuisance,) if self.nuisance else ()

    def __call__(self, params, recoil):
        recoil = jnp.asarray(recoil, float)
        k = self.k + self.sigma * jnp.asarray(params[self.nuisance], float) if self.nuisance else self.k
        epsilon = 11.5 * self.Z ** (-7 / 3) * jnp.maximum(1e3 * recoil, 1e-9)  # its powers have no slope at zero
        loss = k * (3 * epsilon**0.15 + 0.7 * epsilon**0.6 + epsilon)
        return jnp.maximum(recoil * loss / (1 + loss), LEAST_ENERGY)


class TabulatedQuenching(Quenching):
    """Quenching factor interpolated linearly in the recoil energy, constant beyond the ends of the table.

    Args:
        recoil_kev: increasing recoil energies, keV.
        factor: E_ee/T at each.
        sigma: relative standard deviation of the whole curve; with ``nuisance`` only.
        nuisance: name of the pull that scales it.

    >>> q = TabulatedQuenching([0.0, 10.0], [0.2, 0.3])
    >>> round(1e3 * float(q({}, 5e-3)), 6)
    1.25
    """

    recoil_kev: Array
    factor: Array
    sigma: float
    nuisance: str | None = eqx.field(static=True)

    def __init__(self, recoil_kev: ArrayLike, factor: ArrayLike, sigma: float = 0.0, nuisance: str | None = None):
        self.recoil_kev, self.factor = jnp.asarray(np.array(recoil_kev, float)), jnp.asarray(np.array(factor, float))
        self.sigma, self.nuisance = sigma, nuisance

    @property
    def nuisances(self):
        return (self.nuisance,) if self.nuisance else ()

    def __call__(self, params, recoil):
        recoil = jnp.asarray(recoil, float)
        scale = 1 + self.sigma * jnp.asarray(params[self.nuisance], float) if self.nuisance else 1.0
        factor = scale * jnp.interp(1e3 * recoil, self.recoil_kev, self.factor)
        return jnp.maximum(recoil * factor, LEAST_ENERGY)


UNQUENCHED = PolynomialQuenching((1.0,))
"""Electron recoils: all of their energy is electron-equivalent."""
