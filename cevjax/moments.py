"""Moments of the flux: what of a cross section meets the neutrino energy, on a fixed grid of recoil energies.

The flux meets a kinematic shape only through K_k(T) = int_{E_min(T)} dE phi(E) shape_k(E, T), which no coupling
touches, so moments are tabulated once. Two kinds of physics reach into them: oscillations, whose average over the
spectrum is a short series at any frequency (:class:`Wave`), and massive outgoing leptons, whose phase space moves
(:func:`weighted_moment`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from . import kinematics
from .electrons import binding_energies
from .fluxes.base import Flux, FluxComponent
from .interactions.base import Oscillation
from .kinematics import Shape
from .nuclei import Nucleus
from .quadrature import gauss_legendre, lagrange, legendre_projection, spherical_bessel

Survival = Callable[[Array], Array]
"""Probability to arrive as an active neutrino: energies (MeV) to an array (3, *energy.shape) over flavours."""


class Wave(eqx.Module):
    r"""What oscillates in the moment of one flux component.

    .. math:: \int dE\, \phi f \cos\frac{2\omega}{E}
              = \sum_{p,n} c_{pn}\, j_n(2\omega h_p)\, \cos\Big(2\omega u_p + \frac{n\pi}{2}\Big)

    over panels p of half-width h around u in 1/E, where the phase is linear, with the Legendre coefficients c of
    everything else: exact at any frequency for as much of phi f as a polynomial describes. Panels that are the same for
    all recoils cost next to nothing.

    Source: Bakhvalov & Vasil'eva, USSR Comput. Math. Math. Phys. 8 (1968) 241.
    """

    centre: Array  # (panels,) or (*recoils, panels)
    half: Array
    coefficient: Array  # (*recoils, panels, orders)

    def __call__(self, frequency: ArrayLike) -> Array:
        orders = self.coefficient.shape[-1]
        twice = 2 * jnp.asarray(frequency, float)
        bessel = spherical_bessel(max(orders, 2), twice * self.half)[:orders]
        phase = twice * self.centre
        cos, sin = jnp.cos(phase), jnp.sin(phase)
        turned = jnp.stack([(cos, -sin, -cos, sin)[n % 4] for n in range(orders)])
        return jnp.einsum("...pn,n...p,n...p->...", self.coefficient, bessel, turned)


class Moment(eqx.Module):
    """Moment of one flux component and kinematic shape, and its oscillating part if there may be one."""

    flavour: int = eqx.field(static=True)
    whole: Array
    waves: tuple[Wave, ...] = ()

    def __call__(self, oscillation: Oscillation | None) -> Array:
        if oscillation is None or not self.waves:
            return self.whole
        half = oscillation.amplitude[self.flavour] / 2
        cosine = sum(wave(oscillation.frequency) for wave in self.waves)
        return (1 - half) * self.whole + half * cosine

    def __mul__(self, weight: ArrayLike) -> Moment:
        weight = jnp.asarray(weight)
        waves = (Wave(w.centre, w.half, w.coefficient * weight[..., None, None]) for w in self.waves)
        return Moment(self.flavour, self.whole * weight, tuple(waves))


def moment(
    component: FluxComponent,
    shape: str | Shape,
    mass: float,
    recoil: Array,
    survival: Survival | None = None,
    outgoing: ArrayLike = 0.0,
    oscillates: bool = False,
) -> Moment:
    """K(T) of one flux component and kinematic shape, per unit fluence, at recoil energies (MeV).

    Args:
        component: of the flux.
        shape: kinematic shape.
        mass: of the target, MeV.
        recoil: recoil energies, MeV.
        survival: smooth survival probability.
        outgoing: mass of the outgoing lepton, MeV.
        oscillates: whether to tabulate the oscillating part too.
    """
    shape = kinematics.crossed(shape, component.antineutrino)
    energy_min = kinematics.neutrino_energy_min(recoil, mass, outgoing)

    def integrand(energy: Array, inner: int = 1) -> Array:
        at = recoil.reshape(recoil.shape + (1,) * inner)
        value = kinematics.shape(shape, energy, at, mass, outgoing)
        return value if survival is None else value * survival(energy)[component.flavour]

    energy, weight = component.quadrature(energy_min)
    whole = jnp.sum(weight * integrand(energy), axis=-1)
    if not oscillates:
        return Moment(component.flavour, whole)
    waves = []
    for nodes in component.wave_nodes(energy_min):
        values = nodes.weight * integrand(nodes.energy, inner=2)
        waves.append(Wave(nodes.centre, nodes.half, values @ legendre_projection(values.shape[-1])))
    return Moment(component.flavour, whole, tuple(waves))


class RecoilGrid(eqx.Module):
    """Gauss-Legendre nodes over recoil energies (MeV), in panels (low, high, number of nodes)."""

    panels: tuple[tuple[float, float, int], ...] = eqx.field(static=True)
    nodes: Array
    weights: Array

    def __init__(self, panels: Sequence[tuple[float, float, int]]):
        self.panels = tuple(panels)
        rules = [(low, high - low, *gauss_legendre(order)) for low, high, order in panels]
        self.nodes = jnp.asarray(np.concatenate([low + width * x for low, width, x, _ in rules]))
        self.weights = jnp.asarray(np.concatenate([width * w for _, width, _, w in rules]))


def recoil_grid(nuclei: Sequence[Nucleus], flux: Flux, order: int = 24) -> RecoilGrid:
    """Grid over all nuclear recoils, in panels between the end points.

    Spectra have a kink or a step at the end point of each flux component on each nucleus; between them they are
    smooth, so panel-wise quadrature converges exponentially. Narrow panels get fewer nodes.
    """
    ends = {float(kinematics.recoil_energy_max(c.energy_max, n.mass)) for n in nuclei for c in flux.components}
    edges = [0.0, *sorted(ends)]
    narrow = 0.2 * edges[-1]
    return RecoilGrid([(a, b, order if b - a > narrow else max(order // 5, 4)) for a, b in pairwise(edges)])


def electron_grid(symbols: Sequence[str], low: float, high: float, order: float = 8.0) -> RecoilGrid:
    """Grid over electron recoils from ``low`` to ``high`` (MeV), in panels between the binding energies.

    Between them the number of electrons that can be freed is constant. The panels get ``order`` nodes for each unit of
    the logarithm of the energy, and two at least.
    """
    steps = {energy for symbol in symbols for energy in binding_energies(symbol) if low < energy < high}
    edges = [low, *sorted(steps), high]
    return RecoilGrid([(a, b, 2 + int(order * np.log(b / a))) for a, b in pairwise(edges)])


def weighted_moment(
    component: FluxComponent, shape: Shape, mass: float, grid: RecoilGrid, outgoing: ArrayLike, **choices
) -> Callable[[Oscillation | None], Array]:
    """Moment times quadrature weight on the nodes of a grid.

    A massive outgoing lepton ends the phase space inside the panels, at energies that move with its mass. There the
    rest of the integrand (response, form factors) is interpolated between the nodes, and the moment integrated
    against the interpolating polynomials over the part of each panel that is open: exact in the same sense, and smooth
    in the mass.
    """
    if not shape.mass:
        return moment(component, shape, mass, grid.nodes, **choices) * grid.weights
    first, last = kinematics.recoil_energy_range(component.energy_max, mass, outgoing)

    def integrate(oscillation: Oscillation | None) -> Array:
        parts: dict[int, Array] = {}
        for order in {n for _, _, n in grid.panels}:  # all panels of one order at once
            chosen = [(i, low, high) for i, (low, high, n) in enumerate(grid.panels) if n == order]
            low, high = np.array([row[1:] for row in chosen]).T[..., None]
            begin, end = jnp.clip(first, low, high), jnp.clip(last, low, high)
            x, w = gauss_legendre(order + 2)
            recoil = begin + (end - begin) * x
            value = moment(component, shape, mass, recoil, outgoing=outgoing, **choices)(oscillation)
            basis = lagrange(order, (recoil - low) / (high - low))
            rows = jnp.einsum("nij,ij->in", basis, (end - begin) * w * value)
            parts |= {i: row for (i, _, _), row in zip(chosen, rows, strict=True)}
        return jnp.concatenate([parts[i] for i in range(len(grid.panels))])

    return integrate
