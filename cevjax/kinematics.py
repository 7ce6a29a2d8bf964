"""Two-body kinematics of neutrino-nucleus scattering, and the kinematic shapes of its cross sections.

Energies and masses in MeV. ``E``: neutrino energy, ``T``: recoil energy, ``M``: nuclear mass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def recoil_energy_range(E: ArrayLike, M: ArrayLike, m: ArrayLike) -> tuple[Array, Array]:
    r"""Smallest and largest recoil energy where the outgoing lepton has the mass ``m``, MeV.

    .. math:: M(M + 2E)\,T^2 - [2ME^2 - (M + E)m^2]\,T + m^4/4 = 0

    Both are zero below the threshold :math:`E = m + m^2/(2M)`.

    >>> [round(1e3 * float(T), 4) for T in recoil_energy_range(30.0, 123_800.0, 15.0)]
    [0.0652, 12.6503]
    """
    E, M, m = (jnp.asarray(x, float) for x in (E, M, m))
    above = (E > 0) & (m + m**2 / (2 * M) <= E)
    product = m**4 / (4 * M * (M + 2 * E))
    total = (2 * M * E**2 - (M + E) * m**2) / (M * (M + 2 * E))
    # factored, so that nothing cancels at threshold; its slope there is infinite and of no use
    discriminant = (2 * M * (E - m) - m**2) * (2 * M * (E + m) - m**2) * (E / (M * (M + 2 * E))) ** 2
    open_ = above & (discriminant > 0)
    largest = (total + jnp.sqrt(jnp.where(open_, discriminant, 1.0)) * open_) / 2
    largest = jnp.where(above, largest, 0.0)
    return jnp.where(above, product / jnp.where(above, largest, 1.0), 0.0), largest


def neutrino_energy_min(T: ArrayLike, M: ArrayLike, m: ArrayLike = 0.0) -> Array:
    r"""Smallest neutrino energy that gives recoil ``T``, MeV, with an outgoing lepton of mass ``m``.

    .. math:: E_{min} = \frac12\Big(T + \sqrt{T^2 + 2MT}\Big)\Big(1 + \frac{m^2}{2MT}\Big)
    """
    T, M, m = (jnp.asarray(x, float) for x in (T, M, m))
    moving = T > 0
    massive = 1 + m**2 / jnp.where(moving, 2 * M * T, 1.0)
    energy = (T + jnp.sqrt(jnp.where(moving, T**2 + 2 * M * T, 1.0))) / 2 * massive
    return jnp.where(moving, energy, jnp.where(m > 0, jnp.inf, 0.0))


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
    r"""Scalar exchange, and the interference of left- and right-handed electrons: :math:`MT/E^2`."""
    return M * T / E**2


def tensor(E: Array, T: Array, M: Array) -> Array:
    r"""Tensor exchange: :math:`1 - MT/(4E^2)`."""
    return 1 - M * T / (4 * E**2)


def magnetic(E: Array, T: Array, M: Array) -> Array:
    r"""Magnetic moment: :math:`1/T - 1/E`, MeV^-1."""
    return 1 / T - 1 / E


def electron_left(E: Array, T: Array, M: Array) -> Array:
    """Neutrinos on left-handed, antineutrinos on right-handed electrons: 1."""
    return jnp.ones_like(E * T)


def electron_right(E: Array, T: Array, M: Array) -> Array:
    r"""Neutrinos on right-handed, antineutrinos on left-handed electrons: :math:`(1 - T/E)^2`."""
    return (1 - T / E) ** 2


@dataclass(frozen=True)
class Shape:
    """How a cross section depends on the energies at a fixed momentum transfer.

    Args:
        function: of E, T, M, and of the mass of the outgoing lepton where that is a parameter.
        mass: name of that parameter; "" where the outgoing lepton is massless.
        crossed: name of the shape that antineutrinos have instead; "" for the same.
    """

    function: Callable[..., Array]
    mass: str = ""
    crossed: str = ""


SHAPES: dict[str, Shape] = {
    **{f.__name__: Shape(f) for f in (vector, vector_exact, axial, scalar, tensor, magnetic)},
    "electron_left": Shape(electron_left, crossed="electron_right"),
    "electron_right": Shape(electron_right, crossed="electron_left"),
}
"""The shapes an interaction may name. Each is used through :func:`shape`, which closes the phase space."""


def crossed(kind: str | Shape, antineutrino: bool = True) -> Shape:
    """A shape, or what antineutrinos have in its place."""
    found = SHAPES[check_name("kinematic shape", kind, SHAPES)] if isinstance(kind, str) else kind
    return SHAPES[found.crossed] if antineutrino and found.crossed else found


def shape(kind: str | Shape, E: ArrayLike, T: ArrayLike, M: ArrayLike, m: ArrayLike = 0.0) -> Array:
    """A kinematic shape, zero where ``E`` is too small for recoil ``T`` and never negative.

    ``m`` is the mass of the outgoing lepton, for the shapes that know one.

    >>> float(shape("vector", 30.0, 0.005, 123_800.0))  # doctest: +ELLIPSIS
    0.6561...
    >>> float(shape("vector", 30.0, 0.02, 123_800.0))  # beyond the end point
    0.0
    """
    kind = crossed(kind, antineutrino=False)
    E, T, M, m = (jnp.asarray(x, float) for x in (E, T, M, m))
    threshold = lax.stop_gradient(neutrino_energy_min(T, M, m))  # its slope at T = 0 is infinite and of no use
    allowed = (threshold <= E) & (T >= 0) & (E > 0)
    # the inner where keeps 1/E^2 and its derivative finite outside the phase space
    safe_E = jnp.where(allowed, E, threshold + 1.0)
    value = kind.function(safe_E, T, M, m) if kind.mass else kind.function(safe_E, T, M)
    return jnp.where(allowed, jnp.maximum(value, 0.0), 0.0)
