"""Neutrinos from pions and muons that decay at rest."""

from __future__ import annotations

import numpy as np
from jax import Array

from ..constants import M_MUON, M_PION
from .base import Continuum, Flux, FluxComponent, Line

NU_MU_ENERGY = (M_PION**2 - M_MUON**2) / (2 * M_PION)
"""Energy of the prompt nu_mu line, 29.79 MeV."""
END_POINT = M_MUON / 2
"""End point of the spectra from muon decay, 52.83 MeV."""


def nu_e_density(E: Array) -> Array:
    r"""nu_e from muon decay: :math:`\frac{192 E^2}{m_\mu^3}\big(\frac12 - \frac{E}{m_\mu}\big)`, 1/MeV."""
    return 192 * E**2 / M_MUON**3 * (0.5 - E / M_MUON)


def nubar_mu_density(E: Array) -> Array:
    r"""nubar_mu from muon decay: :math:`\frac{64 E^2}{m_\mu^3}\big(\frac34 - \frac{E}{m_\mu}\big)`, 1/MeV."""
    return 64 * E**2 / M_MUON**3 * (0.75 - E / M_MUON)


class PionDecayAtRest(Flux):
    """One nu_mu, one nu_e and one nubar_mu for every stopped pi+, each spectrum normalised to 1.

    The nu_mu is prompt and monoenergetic (29.79 MeV); the others follow the muon (up to 52.83 MeV).

    Source: arXiv:2005.01645 eq. 14-16.

    >>> PionDecayAtRest().names
    ('nu_mu', 'nu_e', 'nubar_mu')
    """

    components: tuple[FluxComponent, ...] = (
        Line("nu_mu", 1, False, NU_MU_ENERGY),
        Continuum("nu_e", 0, False, nu_e_density, END_POINT, order=8),
        Continuum("nubar_mu", 1, True, nubar_mu_density, END_POINT, order=8),
    )


def fluence(protons_on_target: float, per_proton: float, baseline_m: float) -> float:
    r"""Neutrinos of each flavour through 1 cm^2 at the detector: :math:`r N_{POT}/(4\pi L^2)`.

    >>> f"{fluence(3.198e23, 0.0848, 19.3):.4e}"
    '5.7936e+14'
    """
    return per_proton * protons_on_target / (4 * np.pi * (100 * baseline_m) ** 2)
