"""What a neutrino flux is: components by flavour, each with a spectrum that knows its own quadrature."""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..parameters import Parameter
from ..quadrature import gauss_legendre

WAVE_PANELS, WAVE_NODES = 20, 12
"""Panels of a factor sqrt2 in energy down to a thousandth of the end point, and their nodes: they describe the spectrum
of muon decay times a kinematic shape to 1e-9."""


class WaveNodes(NamedTuple):
    """Quadrature in panels of 1/E, where the phase of an oscillation is linear.

    Shapes (panels,) or (*energy_min.shape, panels) of the middle and the half-width of each panel, the same with
    (nodes,) of the energies, and (*energy_min.shape, panels, nodes) of the weights. ``panels`` tells which they are:
    components with the same ones share the work.
    """

    centre: Array
    half: Array
    energy: Array
    weight: Array
    panels: Hashable


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
    def wave_nodes(self, energy_min: Array) -> tuple[WaveNodes, ...]:
        """The same integral in panels of 1/E, as the sum of weight * f(energy) over all of them."""


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
        weight = self.quadrature(energy_min)[1]
        centre = jnp.reshape(1 / jnp.asarray(self.energy, float), (1,))
        return (WaveNodes(centre, jnp.zeros(1), 1 / centre[:, None], weight[..., None], self.name),)


class Continuum(FluxComponent):
    """Neutrinos with a smooth density phi(E) (1/MeV) up to ``end`` (MeV).

    Gauss-Legendre on [energy_min, end]: ``order`` nodes are exact when phi(E) times the kinematic shape is a polynomial
    of degree 2 order - 1, as for muon decay. A density with kinks gives its ``breaks``, from its lowest energy on, and
    gets ``order`` nodes between each two of them.
    """

    name: str = eqx.field(static=True)
    flavour: int = eqx.field(static=True)
    antineutrino: bool = eqx.field(static=True)
    density: Callable[[Array], Array] = eqx.field(static=True)
    end: float = eqx.field(static=True)
    order: int = eqx.field(static=True, default=16)
    breaks: tuple[float, ...] = eqx.field(static=True, default=())

    @property
    def energy_max(self):
        return self.end

    @property
    def total(self) -> float:
        """Integral of the density."""
        x, w = gauss_legendre(self.order)
        edges = np.array([*(self.breaks or (0.0,)), self.end])
        width = np.diff(edges)[:, None]
        density: Callable[[np.ndarray], ArrayLike] = self.density  # pyright: ignore[reportAssignmentType]
        return float(np.sum(width * w * np.asarray(density(edges[:-1, None] + width * x))))

    def quadrature(self, energy_min):
        x, w = gauss_legendre(self.order)
        low, high = np.array([*(self.breaks or (0.0,))]), np.array([*self.breaks[1:], self.end])
        first = jnp.clip(energy_min[..., None], low, high)[..., None]
        width = high[:, None] - first
        energy, weight = first + width * x, width * w
        flat = (*energy_min.shape, low.size * self.order)
        return energy.reshape(flat), (weight * self.density(energy)).reshape(flat)

    def wave_nodes(self, energy_min):
        # fixed panels, each spanning a factor of sqrt2 at most, that are open as a whole; and what is open of the next
        edges = 2.0 ** (np.arange(WAVE_PANELS + 1) / 2) / self.end
        if self.breaks:
            inverse = 1 / np.array([b for b in self.breaks if b > 0])
            edges = np.unique(np.concatenate([edges[edges < inverse.max()], inverse]))
        open_ = (edges[1:] * energy_min[..., None] <= 1) * 1.0
        fixed = self._panels("fixed", edges[:-1], edges[1:])
        next_edge = jnp.max(jnp.where(edges * energy_min[..., None] <= 1, edges, edges[0]), axis=-1)
        low = jnp.clip(energy_min, 1 / edges[-1], self.end)
        partial = self._panels("partial", next_edge[..., None], jnp.maximum(1 / low, next_edge)[..., None])
        return fixed._replace(weight=fixed.weight * open_[..., None]), partial

    def _panels(self, kind: str, near: ArrayLike, far: ArrayLike) -> WaveNodes:
        """Panels of 1/E from ``near`` to ``far``."""
        x, w = gauss_legendre(WAVE_NODES)
        near, far = jnp.asarray(near), jnp.asarray(far)
        width = (far - near)[..., None]
        inverse = near[..., None] + width * x
        weight = width * w * self.density(1 / inverse) / inverse**2
        return WaveNodes((near + far) / 2, width[..., 0] / 2, 1 / inverse, weight, (kind, self.end, self.breaks))


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


class Fluence(eqx.Module):
    """Neutrinos of each component of a flux through 1 cm^2 at the detector, where parameters move them."""

    @property
    @abc.abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """What moves them."""

    @abc.abstractmethod
    def __call__(self, params: Mapping[str, ArrayLike]) -> Array:
        """Shape (components,)."""
