"""From cross sections to recoil spectra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from . import kinematics
from .constants import G_F, MEV2_TO_CM2
from .electrons import Electron
from .fluxes.base import Flux
from .interactions.base import Interaction, Oscillation, Params, shapes_of, smooth_part, strengths
from .kinematics import Shape
from .moments import RecoilGrid, Survival, moment, recoil_grid, weighted_moment
from .nuclear_model import BoundNucleus

PREFACTOR = G_F**2 / np.pi * MEV2_TO_CM2
"""G_F^2/pi in cm^2 MeV^-2: times a mass in MeV, the unit of dsigma/dT in cm^2/MeV."""


def differential_cross_section(
    params: Params,
    interaction: Interaction,
    target: BoundNucleus | Electron,
    energy: ArrayLike,
    recoil: ArrayLike,
    antineutrino: bool = False,
) -> Array:
    r"""dsigma/dT of each incoming flavour, cm^2/MeV, shape (3, ...) over the broadcast of the energies.

    .. math:: \frac{d\sigma_a}{dT} = \frac{G_F^2 M}{\pi} \sum_k s_{k,a}(q)\, \mathrm{shape}_k(E, T), \quad q^2 = 2MT

    Args:
        params: parameter values, at least those of the interaction.
        interaction: what scatters.
        target: nucleus bound to its radii, or a free electron.
        energy: neutrino energy, MeV.
        recoil: recoil energy, MeV. Beyond the end point the result is zero.
        antineutrino: whether it is one; electrons tell, nuclei do not.
    """
    energy, recoil = jnp.broadcast_arrays(jnp.asarray(energy, float), jnp.asarray(recoil, float))
    q = kinematics.momentum_transfer(recoil, target.mass)
    terms, shapes = strengths(interaction, params, target, q), shapes_of(interaction, target)

    def value(shape: Shape) -> Array:
        outgoing = outgoing_mass(shape, params)
        return kinematics.shape(kinematics.crossed(shape, antineutrino), energy, recoil, target.mass, outgoing)

    total = sum(strength * value(shapes[name]) for name, strength in terms.items())
    return PREFACTOR * target.mass * jnp.maximum(jnp.asarray(total), 0.0)


def outgoing_mass(shape: Shape, params: Params) -> ArrayLike:
    """Mass of the outgoing lepton that goes with a shape, MeV."""
    return params[shape.mass] if shape.mass else 0.0


class FluxEffects(NamedTuple):
    """What an interaction does to the flux on its way: a smooth survival probability and an oscillation."""

    survival: Survival | None
    oscillation: Oscillation | None


def flux_effects(params: Params, interaction: Interaction, baseline_m: ArrayLike) -> FluxEffects:
    """What ``interaction`` does to the flux over a distance."""
    smooth = smooth_part(interaction)

    def survival(energy: Array) -> Array:
        return jnp.prod(jnp.stack([term.flux_factor(params, energy, baseline_m) for term in smooth]), axis=0)

    return FluxEffects(survival if smooth else None, interaction.oscillation(params, baseline_m))


def recoil_spectrum(
    params: Params,
    interaction: Interaction,
    flux: Flux,
    target: BoundNucleus | Electron,
    recoil: ArrayLike,
    baseline_m: ArrayLike = 0.0,
) -> Array:
    """Recoil spectrum per nucleus (or electron) and unit fluence of each flux component, cm^2/MeV.

    The shape is (components, *recoil.shape).
    """
    recoil = jnp.asarray(recoil, float)
    survival, oscillation = flux_effects(params, interaction, baseline_m)
    choices = {"survival": survival, "oscillates": oscillation is not None}

    def table(shape: Shape) -> Array:
        m = outgoing_mass(shape, params)
        found = [moment(c, shape, target.mass, recoil, outgoing=m, **choices)(oscillation) for c in flux.components]
        return jnp.stack(found)

    tables = {name: table(shape) for name, shape in shapes_of(interaction, target).items()}
    return fold_moments(tables, interaction, params, flux.flavours, target, recoil)


def fold_moments(
    tables: Mapping[str, Array],
    interaction: Interaction,
    params: Params,
    flavours: np.ndarray,
    target: BoundNucleus | Electron,
    recoil: Array,
) -> Array:
    """The recoil spectrum from tabulated moments: sum over shapes of moment times strength."""
    q = kinematics.momentum_transfer(recoil, target.mass)
    terms = strengths(interaction, params, target, q)
    total = sum(tables[name] * strength[flavours] for name, strength in terms.items())
    return PREFACTOR * target.mass * jnp.asarray(total)


def flux_averaged_cross_section(
    params: Params,
    interaction: Interaction,
    flux: Flux,
    nucleus: BoundNucleus,
    baseline_m: ArrayLike = 0.0,
    order: int = 64,
) -> Array:
    """Total cross section averaged over the spectrum of each flux component, cm^2, shape (components,)."""
    grid = recoil_grid([nucleus.nucleus], flux, order)
    effects = flux_effects(params, interaction, baseline_m)
    shapes = shapes_of(interaction, nucleus)
    tables = {
        name: weighted_moments(flux, shape, nucleus.mass, grid, params, effects) for name, shape in shapes.items()
    }
    return jnp.sum(fold_moments(tables, interaction, params, flux.flavours, nucleus, grid.nodes), axis=-1)


def weighted_moments(
    flux: Flux, shape: Shape, mass: float, grid: RecoilGrid, params: Params, effects: FluxEffects
) -> Array:
    """Moments times quadrature weights of every flux component, shape (components, nodes)."""
    choices = {"survival": effects.survival, "oscillates": effects.oscillation is not None}
    outgoing = outgoing_mass(shape, params)
    found = [weighted_moment(c, shape, mass, grid, outgoing, **choices)(effects.oscillation) for c in flux.components]
    return jnp.stack(found)
