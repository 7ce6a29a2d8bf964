"""Two-body kinematics of neutrino-nucleus scattering, and the kinematic shapes of its cross sections.

Energies and masses in MeV. ``E``: neutrino energy, ``T``: recoil energy, ``M``: nuclear mass.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .errors import check_name


def recoil_energy_max(E: ArrayLike, M: ArrayLike) -> Array:
    r"""Largest recoil energy :math:`T_{max} = 2E^2/(M + 2E)`, MeV.

    >>> float(recoil_energy_max(30.0, 123_800.0))  # doctest: +ELLIPSIS
    0.01453...
    """
    E, M = jnp.asarray(E, float), jnp.asarray(M, float)
    return 2 * E**2 / (M + 2 * E)


def neutrino_energy_min(T: ArrayLike, M: ArrayLike) -> Array:
    r"""Smallest neutrino energy that gives recoil ``T``: :math:`(T + \sqrt{T^2 + 2MT})/2`, MeV."""
    T, M = jnp.asarray(T, float), jnp.asarray(M, float)
    return (T + jnp.sqrt(T**2 + 2 * M * T)) / 2


def momentum_transfer(T: ArrayLike, M: ArrayLike) -> Array:
    r"""Three-momentum transfer :math:`q = \sqrt{2MT}`, MeV (relative error :math:`T/4M < 10^{-6}`)."""
    T = jnp.asarray(T, float)
    # zero, with a slope of zero, where there is no recoil
    return jnp.where(T > 0, jnp.sqrt(2 * jnp.asarray(M, float) * jnp.where(T > 0, T, 1.0)), 0.0)


def vector(E: Array, T: Array, M: Array) -> Array:
    r"""Coherent vector current: :math:`1 - MT/(2E^2)`."""
    return 1 - M * T / (2 * E**2)


def vector_exact(E: Array, T: Array, M: Array) -> Array:
    r"""Coherent vector current without expansion in T/E: :math:`1 - T/E - MT/(2E^2) + T^2/(2E^2)`."""
    return 1 - T / E - M * T / (2 * E**2) + T**2 / (2 * E**2)


def axial(E: Array, T: Array, M: Array) -> Array:
    r"""Axial current: :math:`1 + MT/(2E^2)` [1711.09773 eq. 1]."""
    return 1 + M * T / (2 * E**2)


def scalar(E: Array, T: Array, M: Array) -> Array:
    r"""Scalar exchange: :math:`MT/E^2`."""
    return M * T / E**2


def tensor(E: Array, T: Array, M: Array) -> Array:
    r"""Tensor exchange: :math:`1 - MT/(4E^2)`."""
    return 1 - M * T / (4 * E**2)


def magnetic(E: Array, T: Array, M: Array) -> Array:
    r"""Magnetic moment: :math:`1/T - 1/E`, MeV^-1."""
    return 1 / T - 1 / E


SHAPES: dict[str, Callable[[Array, Array, Array], Array]] = {
    shape.__name__: shape for shape in (vector, vector_exact, axial, scalar, tensor, magnetic)
}
"""The shapes an interaction may name. Each is used through :func:`shape`, which closes the phase space."""


def shape(name: str, E: ArrayLike, T: ArrayLike, M: ArrayLike) -> Array:
    """Kinematic shape ``name``, zero where ``E`` is too small for recoil ``T`` and never negative.

    >>> float(shape("vector", 30.0, 0.005, 123_800.0))  # doctest: +ELLIPSIS
    0.6561...
    >>> float(shape("vector", 30.0, 0.02, 123_800.0))  # beyond the end point
    0.0
    """
    check_name("kinematic shape", name, SHAPES)
    E, T, M = (jnp.asarray(x, float) for x in (E, T, M))
    threshold = lax.stop_gradient(neutrino_energy_min(T, M))  # its slope at T = 0 is infinite and of no use
    allowed = (threshold <= E) & (T >= 0) & (E > 0)
    # the inner where keeps 1/E^2 and its derivative finite outside the phase space
    safe_E = jnp.where(allowed, E, threshold + 1.0)
    return jnp.where(allowed, jnp.maximum(SHAPES[name](safe_E, T, M), 0.0), 0.0)
