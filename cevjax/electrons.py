"""Electrons of a target: how many of them a given energy can free.

Binding energies (keV) and occupancies of the atomic shells: X-Ray Data Booklet (LBNL/PUB-490), table 1-1.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .constants import M_ELECTRON
from .errors import check_name
from .nuclei import Target, element

# fmt: off
_OCCUPANCY = (2, 2, 2, 4, 2, 2, 4, 4, 6, 2, 2, 4, 4, 6, 2, 2, 4)  # K, L1-3, M1-5, N1-5, O1-3
_BINDING: dict[str, tuple[float, ...]] = {
    "Na": (1.0708, 0.0635, 0.0304, 0.0305),
    "Si": (1.839, 0.1497, 0.0998, 0.0992),
    "Ar": (3.2059, 0.3263, 0.2506, 0.2484, 0.0293, 0.0159, 0.0157),
    "Ge": (11.103, 1.4146, 1.2481, 1.2170, 0.1801, 0.1249, 0.1208, 0.0298, 0.0292),
    "I": (33.169, 5.188, 4.852, 4.557, 1.072, 0.931, 0.875, 0.6308, 0.6193, 0.186, 0.123, 0.123, 0.0506, 0.0489),
    "Xe": (34.561, 5.453, 5.107, 4.786, 1.1487, 1.0021, 0.9406, 0.689, 0.6764, 0.2132, 0.1467, 0.1455, 0.0695, 0.0675,
           0.0233, 0.0134, 0.0121),
    "Cs": (35.985, 5.714, 5.359, 5.012, 1.211, 1.071, 1.003, 0.7405, 0.7266, 0.2323, 0.1724, 0.1613, 0.0798, 0.0775,
           0.0227, 0.0142, 0.0121),
}
# fmt: on
ELEMENTS = tuple(_BINDING)
"""Elements whose shells are known."""


def _shells(symbol: str) -> list[tuple[float, int]]:
    """(binding energy in MeV, electrons) of each shell; the last entry is what is bound by less than any of them."""
    check_name("element with known atomic shells", symbol, ELEMENTS)
    left, shells = element(symbol).nuclei[0].Z, []
    for kev, occupancy in zip(_BINDING[symbol], _OCCUPANCY, strict=False):
        number = min(occupancy, left)
        shells.append((1e-3 * kev, number))
        left -= number
    return [*shells, (0.0, left)]


def binding_energies(symbol: str) -> tuple[float, ...]:
    """Binding energies of the shells of an element, MeV: where :func:`effective_charge` steps.

    Raises:
        UnknownNameError: the shells of this element are not known.
    """
    return tuple(energy for energy, _ in _shells(symbol) if energy > 0)


def effective_charge(symbol: str, energy: ArrayLike) -> Array:
    """Z_eff: electrons of an atom bound by no more than ``energy`` (MeV), which a recoil of that energy can free.

    Raises:
        UnknownNameError: the shells of this element are not known.

    >>> [int(effective_charge("Cs", 1e-3 * kev)) for kev in (0.5, 1.1, 5.5, 40.0)]
    [27, 43, 51, 55]
    """
    energy = jnp.asarray(energy, float)
    return sum((jnp.where(energy >= bound, n, 0) for bound, n in _shells(symbol)), jnp.zeros_like(energy))


class Electron(eqx.Module):
    """The free electron as a target: interactions see its mass through q."""

    @property
    def mass(self) -> float:
        return M_ELECTRON


def electrons_of(target: Target, mass_kg: float, energy: np.ndarray) -> np.ndarray:
    """Number of electrons in ``mass_kg`` of a target that a recoil of each ``energy`` (MeV) can free."""
    total = np.zeros(len(energy))
    for nuclide, atoms in zip(target.nuclei, target.atoms(mass_kg), strict=True):
        for bound, n in _shells(nuclide.element):
            total += atoms * n * (energy >= bound)
    return total
