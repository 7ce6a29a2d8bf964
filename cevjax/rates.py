"""From cross sections to recoil spectra: flux moments on a fixed grid of recoil energies.

The flux meets a kinematic shape only through its moment K_k(T) = int_{E_min(T)} dE phi(E) shape_k(E, T), which no
coupling touches; so moments are tabulated once and an evaluation costs form factors and charges on the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from . import kinematics
from .constants import G_F, MEV2_TO_CM2
from .fluxes.base import Flux, FluxComponent
from .interactions.base import Interaction, Params, shapes_of, strengths
from .nuclear_model import BoundNucleus
from .nuclei import Nucleus
from .quadrature import gauss_legendre

PREFACTOR = G_F**2 / np.pi * MEV2_TO_CM2
"""G_F^2/pi in cm^2 MeV^-2: times a mass in MeV, the unit of dsigma/dT in cm^2/MeV."""


def differential_cross_section(
    params: Params, interaction: Interaction, nucleus: BoundNucleus, energy: ArrayLike, recoil: ArrayLike
) -> Array:
    r"""dsigma/dT of each incoming flavour, cm^2/MeV, shape (3, ...) over the broadcast of the energies.

    .. math:: \frac{d\sigma_a}{dT} = \frac{G_F^2 M}{\pi} \sum_k s_{k,a}(q)\, \mathrm{shape}_k(E, T), \quad q^2 = 2MT

    Args:
        params: parameter values, at least those of the interaction.
        interaction: what scatters.
        nucleus: nucleus bound to its radii.
        energy: neutrino energy, MeV.
        recoil: recoil energy, MeV. Beyond the end point the result is zero.
    """
    energy, recoil = jnp.broadcast_arrays(jnp.asarray(energy, float), jnp.asarray(recoil, float))
    q = kinematics.momentum_transfer(recoil, nucleus.mass)
    terms = strengths(interaction, params, nucleus, q)
    total = sum(s * kinematics.shape(name, energy, recoil, nucleus.mass) for name, s in terms.items())
    return PREFACTOR * nucleus.mass * jnp.asarray(total)


Survival = Callable[[Array], Array]
"""Probability to arrive as an active neutrino: energies (MeV) to an array (3, *energy.shape) over flavours."""


def moment(
    component: FluxComponent, shape: str, nucleus: Nucleus, recoil: Array, survival: Survival | None = None
) -> Array:
    """K(T) of one flux component and kinematic shape, per unit fluence, at recoil energies (MeV)."""
    energy, weight = component.quadrature(kinematics.neutrino_energy_min(recoil, nucleus.mass))
    if survival is not None:
        weight = weight * survival(energy)[component.flavour]
    return jnp.sum(weight * kinematics.shape(shape, energy, recoil[..., None], nucleus.mass), axis=-1)


def moments(
    flux: Flux, shapes: Sequence[str], nucleus: Nucleus, recoil: Array, survival: Survival | None = None
) -> dict[str, Array]:
    """{shape: K(T) of every flux component, shape (components, *recoil.shape)}."""
    return {name: jnp.stack([moment(c, name, nucleus, recoil, survival) for c in flux.components]) for name in shapes}


def survival_of(params: Params, interaction: Interaction, baseline_m: ArrayLike) -> Survival | None:
    """The survival probability under ``interaction`` at a distance; None if it leaves the flux alone."""
    if not interaction.changes_flux:
        return None
    return lambda energy: interaction.flux_factor(params, energy, baseline_m)


def recoil_spectrum(
    params: Params,
    interaction: Interaction,
    flux: Flux,
    nucleus: BoundNucleus,
    recoil: ArrayLike,
    baseline_m: ArrayLike = 0.0,
) -> Array:
    """Recoil spectrum per nucleus and unit fluence of each flux component, cm^2/MeV, shape (components, ...)."""
    recoil = jnp.asarray(recoil, float)
    survival = survival_of(params, interaction, baseline_m)
    tables = moments(flux, shapes_of(interaction, nucleus), nucleus.nucleus, recoil, survival)
    return fold_moments(tables, interaction, params, flux.flavours, nucleus, recoil)


def fold_moments(
    tables: dict[str, Array],
    interaction: Interaction,
    params: Params,
    flavours: np.ndarray,
    nucleus: BoundNucleus,
    recoil: Array,
) -> Array:
    """The recoil spectrum from tabulated moments: sum over shapes of moment times strength."""
    q = kinematics.momentum_transfer(recoil, nucleus.mass)
    terms = strengths(interaction, params, nucleus, q)
    total = sum(tables[name] * strength[flavours] for name, strength in terms.items())
    return PREFACTOR * nucleus.mass * jnp.asarray(total)


def recoil_grid(nuclei: Sequence[Nucleus], flux: Flux, order: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights (MeV) over all recoils, in panels between the end points.

    Spectra have a kink or a step at the end point of each flux component on each nucleus; between them they are
    smooth, so panel-wise quadrature converges exponentially. Narrow panels get fewer nodes.
    """
    ends = sorted({float(2 * c.energy_max**2 / (n.mass + 2 * c.energy_max)) for n in nuclei for c in flux.components})
    edges = np.array([0.0, *ends])
    parts = []
    for low, high in pairwise(edges):
        x, w = gauss_legendre(order if high - low > 0.2 * edges[-1] else max(order // 5, 4))
        parts.append((low + (high - low) * x, (high - low) * w))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def flux_averaged_cross_section(
    params: Params,
    interaction: Interaction,
    flux: Flux,
    nucleus: BoundNucleus,
    baseline_m: ArrayLike = 0.0,
    order: int = 64,
) -> Array:
    """Total cross section averaged over the spectrum of each flux component, cm^2, shape (components,)."""
    recoil, weight = recoil_grid([nucleus.nucleus], flux, order)
    return recoil_spectrum(params, interaction, flux, nucleus, jnp.asarray(recoil), baseline_m) @ weight
