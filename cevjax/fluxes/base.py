"""What a neutrino flux is: components by flavour, each with a spectrum that knows its own quadrature."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..quadrature import gauss_legendre

WAVE_PANELS, WAVE_NODES = 4, 12
"""With them, averages over the spectrum of muon decay are good to 1e-9 at any frequency."""


class WaveNodes(NamedTuple):
    """Quadrature in panels of 1/E, where the phase of an oscillation is linear; shapes (..., panels[, nodes])."""

    centre: Array
    half: Array
    energy: Array
    weight: Array


class FluxComponent(eqx.Module):
    """Neutrinos of one flavour with one spectrum, normalised to the number of neutrinos that the flux counts.

    Attributes:
        name: ``nu_e``, ``nubar_mu``, ...
        flavour: 0, 1, 2 for e, mu, tau.
        antineutrino: whether it is one.
    """

    name: eqx.AbstractVar[str]
    flavour: eqx.AbstractVar[int]
    antineutrino: eqx.AbstractVar[bool]

    @property
    @abc.abstractmethod
    def energy_max(self) -> float:
        """Largest energy, MeV."""

    @abc.abstractmethod
    def quadrature(self, energy_min: Array) -> tuple[Array, Array]:
        """Energies and weights, shape (*energy_min.shape, n): the sum of weight * f(energy) is the integral of
        phi(E) f(E) dE from ``energy_min`` upwards."""

    @abc.abstractmethod
    def wave_nodes(self, energy_min: Array) -> WaveNodes:
        """The same integral in panels of 1/E, as the sum of weight * f(energy)."""


class Line(FluxComponent):
    """Neutrinos of one energy (MeV)."""

    name: str = eqx.field(static=True)
    flavour: int = eqx.field(static=True)
    antineutrino: bool = eqx.field(static=True)
    energy: float

    @property
    def energy_max(self):
        return self.energy

    def quadrature(self, energy_min):
        energy = jnp.broadcast_to(jnp.asarray(self.energy, float), (*energy_min.shape, 1))
        return energy, jnp.where(energy_min[..., None] <= energy, 1.0, 0.0)

    def wave_nodes(self, energy_min):
        energy, weight = self.quadrature(energy_min)
        return WaveNodes(1 / energy, jnp.zeros_like(energy), energy[..., None], weight[..., None])


class Continuum(FluxComponent):
    """Neutrinos with a smooth density phi(E) (1/MeV) up to ``end`` (MeV).

    Gauss-Legendre on [energy_min, end]: ``order`` nodes are exact when phi(E) times the kinematic shape is a polynomial
    of degree 2 order - 1, as for muon decay.
    """

    name: str = eqx.field(static=True)
    flavour: int = eqx.field(static=True)
    antineutrino: bool = eqx.field(static=True)
    density: Callable[[Array], Array] = eqx.field(static=True)
    end: float
    order: int = eqx.field(static=True, default=16)

    @property
    def energy_max(self):
        return self.end

    def quadrature(self, energy_min):
        x, w = gauss_legendre(self.order)
        width = jnp.maximum(self.end - energy_min, 0.0)[..., None]
        energy = jnp.minimum(energy_min[..., None], self.end) + width * x
        return energy, width * w * self.density(energy)

    def wave_nodes(self, energy_min):
        x, w = gauss_legendre(WAVE_NODES)
        # from a thousandth of the end point, below which there is nothing; each panel spans one factor in energy
        low = jnp.clip(energy_min, 1e-3 * self.end, self.end)[..., None]
        edge = (self.end / low) ** np.linspace(0, 1, WAVE_PANELS + 1) / self.end
        width = jnp.diff(edge, axis=-1)[..., None]
        inverse = edge[..., :-1, None] + width * x
        weight = width * w * self.density(1 / inverse) / inverse**2
        return WaveNodes((edge[..., 1:] + edge[..., :-1]) / 2, width[..., 0] / 2, 1 / inverse, weight)


class Flux(eqx.Module):
    """A sum of components."""

    components: eqx.AbstractVar[tuple[FluxComponent, ...]]

    @property
    def flavours(self) -> np.ndarray:
        """Flavour index of each component."""
        return np.array([component.flavour for component in self.components])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(component.name for component in self.components)
