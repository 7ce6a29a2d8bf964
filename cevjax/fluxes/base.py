"""What a neutrino flux is: components by flavour, each with a spectrum that knows its own quadrature."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..quadrature import gauss_legendre


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
