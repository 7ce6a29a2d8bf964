"""From nuclear recoil energy to the electron-equivalent (ionisation or scintillation) energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class PolynomialQuenching(eqx.Module):
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
    nuisances: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        coefficients: ArrayLike | Sequence[float],
        variations: ArrayLike | Sequence = (),
        nuisances: tuple[str, ...] = (),
    ):
        centre = np.asarray(coefficients, float)
        self.coefficients = jnp.asarray(centre)
        self.variations = jnp.asarray(np.asarray(variations, float).reshape(len(nuisances), len(centre)))
        self.nuisances = tuple(nuisances)

    def __call__(self, params: Mapping[str, ArrayLike], recoil: ArrayLike) -> Array:
        """E_ee in MeV at recoil energies in MeV; kept above 1 eV, where a large pull would turn it negative."""
        recoil = jnp.asarray(recoil, float)
        pulls = jnp.stack([jnp.asarray(params[name], float) for name in self.nuisances]) if self.nuisances else 0.0
        c = self.coefficients + pulls @ self.variations if self.nuisances else self.coefficients
        energy = jnp.zeros_like(recoil)
        for coefficient in c[::-1]:
            energy = (energy + coefficient) * recoil
        return jnp.maximum(energy, 1e-6)


UNQUENCHED = PolynomialQuenching((1.0,))
"""Electron recoils: all of their energy is electron-equivalent."""
