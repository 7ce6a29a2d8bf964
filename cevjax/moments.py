"""Moments of the flux: what of a cross section meets the neutrino energy, on a fixed grid of recoil energies.

The flux meets a kinematic shape only through K_k(T) = int_{E_min(T)} dE phi(E) shape_k(E, T), which no coupling
touches, so moments are tabulated once. Two kinds of physics reach into them: oscillations, whose average over the
spectrum is a short series at any frequency (:class:`Wave`), and massive outgoing leptons, whose phase space moves
(:func:`weighted_moment`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from . import kinematics
from .electrons import binding_energies
from .errors import InvalidValueError
from .fluxes.base import Flux, FluxComponent
from .interactions.base import Oscillation
from .kinematics import Shape
from .nuclei import Nucleus
from .quadrature import gauss_legendre, legendre_projection, spherical_bessel

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
    coefficient: Array  # (..., *recoils, panels, orders)
    panels: Hashable = eqx.field(static=True)  # waves with the same panels, of one target, have this in common


def cosines(waves: Sequence[Wave], frequency: ArrayLike) -> list[Array]:
    """What each wave amounts to at a frequency; all panels of all of them at once."""
    twice = 2 * jnp.asarray(frequency, float)
    orders = max(wave.coefficient.shape[-1] for wave in waves)
    phase = twice * jnp.concatenate([jnp.ravel(wave.centre) for wave in waves])
    bessel = spherical_bessel(orders, twice * jnp.concatenate([jnp.ravel(wave.half) for wave in waves]))
    cos, sin = jnp.cos(phase), jnp.sin(phase)
    terms = bessel * jnp.stack([(cos, -sin, -cos, sin)[n % 4] for n in range(orders)])
    cuts = np.cumsum([wave.centre.size for wave in waves])[:-1]
    parts = []
    for wave, part in zip(waves, jnp.split(terms, cuts, axis=1), strict=True):
        n = wave.coefficient.shape[-1]
        at = jnp.moveaxis(part[:n].reshape(n, *wave.centre.shape), 0, -1)
        if wave.centre.ndim == 1:  # the same for all recoils: a matrix product
            parts.append(wave.coefficient.reshape(*wave.coefficient.shape[:-2], -1) @ at.ravel())
        else:
            parts.append(jnp.sum(wave.coefficient * at, axis=(-2, -1)))
    return parts


class Moment(eqx.Module):
    """Moment of one flux component and kinematic shape, and its oscillating part if there may be one."""

    flavour: int = eqx.field(static=True)
    whole: Array
    waves: tuple[Wave, ...] = ()

    def __call__(self, oscillation: Oscillation | None) -> Array:
        return Moments.of([self])(oscillation)[0]

    def __mul__(self, weight: ArrayLike) -> Moment:
        weight = jnp.asarray(weight)
        waves = (Wave(w.centre, w.half, w.coefficient * weight[..., None, None], w.panels) for w in self.waves)
        return Moment(self.flavour, self.whole * weight, tuple(waves))


class Moments(eqx.Module):
    """Several moments of one target, with what they share of their waves in common."""

    flavours: tuple[int, ...] = eqx.field(static=True)
    whole: Array  # (moments, *recoils)
    waves: tuple[Wave, ...]  # each with the coefficients of some moments
    rows: tuple[tuple[int, ...], ...] = eqx.field(static=True)  # which ones

    @classmethod
    def of(cls, moments: Sequence[Moment]) -> Moments:
        shared: dict[Hashable, list[tuple[int, Wave]]] = {}
        for row, m in enumerate(moments):
            for wave in m.waves:
                shared.setdefault(wave.panels, []).append((row, wave))
        waves, rows = [], []
        for panels, found in shared.items():
            first = found[0][1]
            waves.append(Wave(first.centre, first.half, jnp.stack([w.coefficient for _, w in found]), panels))
            rows.append(tuple(row for row, _ in found))
        flavours = tuple(m.flavour for m in moments)
        return cls(flavours, jnp.stack([m.whole for m in moments]), tuple(waves), tuple(rows))

    def __call__(self, oscillation: Oscillation | None) -> Array:
        """The moments of a flux that oscillates, or does not, shape (moments, *recoils)."""
        return evaluate([self], oscillation)[0]


def evaluate(tables: Sequence[Moments], oscillation: Oscillation | None) -> list[Array]:
    """The moments of several targets; their waves all at once."""
    waves = [wave for table in tables for wave in table.waves]
    if oscillation is None or not waves:
        return [table.whole for table in tables]
    found = iter(cosines(waves, oscillation.frequency))
    total = []
    for table in tables:
        cosine = jnp.zeros_like(table.whole)
        for rows in table.rows:
            cosine = cosine.at[np.array(rows)].add(next(found))
        half = oscillation.amplitude[np.array(table.flavours)] / 2
        half = half.reshape(half.shape + (1,) * (table.whole.ndim - 1))
        total.append((1 - half) * table.whole + half * cosine)
    return total


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
        waves.append(Wave(nodes.centre, nodes.half, values @ legendre_projection(values.shape[-1]), nodes.panels))
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


def recoil_grid(nuclei: Sequence[Nucleus], flux: Flux, order: int = 24, lowest: float = 0.0) -> RecoilGrid:
    """Grid over all nuclear recoils from ``lowest`` (MeV) on, in panels between the end points.

    Spectra have a kink or a step at the end point of each flux component on each nucleus; between them they are
    smooth, so panel-wise quadrature converges exponentially. Narrow panels get fewer nodes.
    """
    ends = {2 * c.energy_max**2 / (n.mass + 2 * c.energy_max) for n in nuclei for c in flux.components}
    edges = [lowest, *sorted(end for end in ends if end > lowest)]
    if len(edges) < 2:
        raise InvalidValueError(
            f"Argument `lowest` must be below the largest recoil, {max(ends):.4g} MeV, but was {lowest:.4g} MeV."
        )
    narrow = 0.2 * edges[-1]
    return RecoilGrid([(a, b, order if b - a > narrow else max(order // 5, 4)) for a, b in pairwise(edges)])


def electron_grid(
    symbols: Sequence[str], low: float, high: float, order: float = 8.0, width: float = np.inf
) -> RecoilGrid:
    """Grid over electron recoils from ``low`` to ``high`` (MeV), in panels between the binding energies.

    Between them the number of electrons that can be freed is constant. The panels are at most ``width`` wide, for
    responses that are sharper than recoils vary, and get ``order`` nodes for each unit of the logarithm of the energy,
    and two at least.
    """
    steps = {energy for symbol in symbols for energy in binding_energies(symbol) if low < energy < high}
    edges = [low, *sorted(steps), high]
    cuts = [np.linspace(a, b, int(np.ceil((b - a) / width)) + 1 if width < b - a else 2) for a, b in pairwise(edges)]
    panels = [pair for cut in cuts for pair in pairwise(map(float, cut))]
    return RecoilGrid([(a, b, 2 + int(order * np.log(b / a))) for a, b in panels])


def weighted_moment(
    component: FluxComponent, shape: Shape, mass: float, grid: RecoilGrid, outgoing: ArrayLike, **choices
) -> Callable[[Oscillation | None], Array]:
    """Moment times quadrature weight on the nodes of a grid.

    A massive outgoing lepton ends the phase space inside two of the panels, at energies that move with its mass. There
    the rest of the integrand (response, form factors) is interpolated between the nodes, and the moment integrated
    against the interpolating polynomials over what is open of the panel: smooth in the mass, as no counting of nodes
    could be.
    """
    if not shape.mass:
        return moment(component, shape, mass, grid.nodes, **choices) * grid.weights
    first, last = kinematics.recoil_energy_range(component.energy_max, mass, outgoing)
    high = np.array(grid.panels)[:, 1]
    begins, ends = jnp.searchsorted(high, first), jnp.minimum(jnp.searchsorted(high, last), len(high) - 1)
    begins = jnp.minimum(begins, ends)
    lower, upper = _Piece(grid, begins, first, last), _Piece(grid, ends, first, last)
    recoil = jnp.concatenate([grid.nodes, lower.recoil, upper.recoil])
    table = moment(component, shape, mass, recoil, outgoing=outgoing, **choices)

    def integrate(oscillation: Oscillation | None) -> Array:
        n = grid.nodes.size
        at_nodes, at_lower, at_upper = jnp.split(table(oscillation), [n, n + lower.recoil.size])
        panel = np.repeat(np.arange(len(high)), [n for _, _, n in grid.panels])
        closed = (begins < panel) & (panel < ends)
        total = jnp.where(closed, grid.weights * at_nodes, 0.0)
        total = total.at[lower.index].add(lower.weights(at_lower))
        return total.at[upper.index].add(jnp.where(begins < ends, upper.weights(at_upper), 0.0))

    return integrate


class _Piece:
    """What is open of one panel of a grid, between recoil energies that move: its own quadrature.

    The polynomials through the nodes of the panel come in their barycentric form (Berrut & Trefethen, SIAM Review 46
    (2004) 501), padded to the largest number of nodes.
    """

    def __init__(self, grid: RecoilGrid, panel: Array, first: Array, last: Array):
        low, high, orders = np.array(grid.panels).T
        orders = orders.astype(int)
        starts, size = np.cumsum(orders) - orders, int(orders.max())
        self.index = jnp.asarray(starts[:, None] + np.arange(size) * (np.arange(size) < orders[:, None]))[panel]
        self.factor = jnp.asarray(np.stack([np.pad(_barycentric(n), (0, size - n)) for n in orders]))[panel]
        self.nodes = grid.nodes[self.index]
        begin = jnp.clip(first, jnp.asarray(low)[panel], jnp.asarray(high)[panel])
        end = jnp.clip(last, jnp.asarray(low)[panel], jnp.asarray(high)[panel])
        x, w = gauss_legendre(size + 8)
        # cubic, because there is a 1/T behind the lower end
        self.recoil = jnp.where(end > begin, begin + (end - begin) * x**3, jnp.asarray((low + high) / 2)[panel])
        self.quadrature = 3 * x**2 * w * (end - begin)

    def weights(self, values: Array) -> Array:
        """Weights of the nodes :attr:`index`, for ``values`` times something that is given on the nodes."""
        distance = self.recoil - self.nodes[:, None]
        ratio = self.factor[:, None] / jnp.where(distance == 0, 1e-200, distance)
        # interpolate 1/T of it: moments grow like 1/T, and no detector sees the lowest recoils
        return (ratio / jnp.sum(ratio, axis=0)) @ (self.quadrature * values * self.recoil) / self.nodes


@cache
def _barycentric(n: int) -> np.ndarray:
    """Barycentric weights of the n Gauss-Legendre nodes."""
    x, w = gauss_legendre(n)
    return (-1.0) ** np.arange(n) * np.sqrt(x * (1 - x) * w)
