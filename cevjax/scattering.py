"""The signal: recoils of nuclei and of electrons under a flux of neutrinos."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .electrons import Electron, electrons_of
from .fluxes.base import Fluence, Flux
from .interactions.base import Interaction, Params, contributes, shapes_of, smooth_part, terms_of
from .interactions.standard_model import StandardModel
from .kinematics import Shape
from .measurement import Component, Norm
from .moments import Moments, RecoilGrid, electron_grid, evaluate, moment, recoil_grid
from .nuclear_model import BoundNucleus, NuclearModel
from .nuclei import Target
from .parameters import Parameter
from .rates import flux_effects, fold_moments, weighted_moments
from .response import BinnedResponse, BinnedTime
from .staged import staged

Tables = tuple[Moments, ...]
"""Weighted moments of each target, for every tabulated shape and flux component."""


class Scatterers(eqx.Module):
    """What scatters in a detector, and how many of it there are."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return ()

    @property
    def nominal(self) -> dict[str, float]:
        """Every parameter that :meth:`bind` looks at, at its nominal value."""
        return {}

    @abc.abstractmethod
    def bind(self, params: Params) -> tuple[tuple[Array, BoundNucleus | Electron], ...]:
        """Each target at a parameter point, with its number: one, or one for every node of the recoil grid."""


class Nuclei(Scatterers):
    """The nuclei of a material.

    Args:
        nuclear: form factor and radii.
        mass_kg: mass of the material.
    """

    nuclear: NuclearModel
    atoms: Array

    def __init__(self, nuclear: NuclearModel, mass_kg: float):
        self.nuclear = nuclear
        self.atoms = jnp.asarray(np.array(nuclear.target.atoms(mass_kg)))

    @property
    def parameters(self):
        return self.nuclear.parameters

    @property
    def nominal(self):
        size = self.nuclear.size_nuisance
        return {p.name: p.nominal for p in self.parameters if not p.members} | ({size: 0.0} if size else {})

    def bind(self, params):
        return tuple(zip(self.atoms, self.nuclear.bind(params), strict=True))


class Electrons(Scatterers):
    """The electrons of a material, free for recoils above their binding energy.

    Args:
        target: the material.
        mass_kg: its mass.
        grid: recoil energies.

    Raises:
        UnknownNameError: the atomic shells of an element of the target are not known.
    """

    number: Array

    def __init__(self, target: Target, mass_kg: float, grid: RecoilGrid):
        self.number = jnp.asarray(electrons_of(target, mass_kg, np.asarray(grid.nodes)))

    def bind(self, params):
        return ((self.number, Electron()),)


class Scattering(Component):
    r"""Recoils of a flux on some targets, in reconstructed energy and, for a pulsed source, in time.

    .. math:: N_{ij} = \sum_{n,a} \Phi \int dT\, N_n(T)\, R_i(T)\, \frac{d\sigma_{n,a}}{dT}\; \tau_{aj}

    with the cross section of flux component a on target n, folded with its spectrum, the binned response R and the
    binned arrival times tau. :func:`coherent_scattering` and :func:`electron_scattering` build it.

    Args:
        name: of the component.
        scatterers: nuclei or electrons.
        grid: quadrature over recoil energies.
        flux: its components, each of unit normalisation.
        fluence: neutrinos of each component through 1 cm^2, all alike or moved by parameters.
        baseline_m: distance from the source, m.
        response: energy response, or its fixed matrix on the recoil grid.
        time: arrival times of each flux component, or their fixed fractions; None without a time axis.
        norm: normalisation nuisances.
        always: whether it counts in the standard model too, and not only where another interaction acts on electrons.
        tables: flux moments of each target, once prepared for an interaction.
    """

    name: str = eqx.field(static=True)
    scatterers: Scatterers
    grid: RecoilGrid
    flux: Flux
    fluence: float | Fluence
    baseline_m: float
    response: BinnedResponse | Array
    time: BinnedTime | Array | None
    norm: Norm
    always: bool = eqx.field(static=True, default=True)
    tables: Tables | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*self.scatterers.parameters, *(self.fluence.parameters if isinstance(self.fluence, Fluence) else ()))

    def shapes(self, interaction: Interaction) -> tuple[dict[str, Shape], ...]:
        """Kinematic shapes that the interaction uses on each target."""
        nominal = self.scatterers.nominal
        return tuple(shapes_of(interaction, target) for _, target in self.scatterers.bind(nominal))

    def relevant(self, interaction):
        beyond = (term for term in terms_of(interaction) if not isinstance(term, StandardModel))
        return self.always or any(contributes(term, "electrons") for term in beyond)

    def recoils(self, params: Params, interaction: Interaction) -> Array:
        """Recoils of each flux component in the whole target: spectrum times quadrature weight on the nodes."""
        names = {p.name for p in (*interaction.parameters, *self.parameters)} | set(self.scatterers.nominal)
        own = {name: value for name, value in params.items() if name in names}
        return _recoils(own, (self, interaction))

    def fold(self, params: Params, interaction: Interaction) -> Array:
        """:meth:`recoils` before it is made a stage."""
        total = jnp.zeros(())
        moments = self.moments(params, interaction)
        for (number, target), tables in zip(self.scatterers.bind(params), moments, strict=True):
            spectrum = fold_moments(tables, interaction, params, self.flux.flavours, target, self.grid.nodes)
            total = total + number * spectrum
        fluence = self.fluence(params)[:, None] if isinstance(self.fluence, Fluence) else self.fluence
        return fluence * total

    def moments(self, params: Params, interaction: Interaction) -> list[dict[str, Array]]:
        """Weighted moments of each target: tabulated, or a stage of their own where parameters reach into them."""
        shapes = self.shapes(interaction)
        reaching = moving_parameters(interaction, shapes)
        own = {name: value for name, value in params.items() if name in reaching}
        flat = _moments(own, (self, interaction)) if own else self.flat_moments(own, interaction)
        rows = iter(flat)
        return [{name: next(rows) for name in found} for found in shapes]

    def flat_moments(self, params: Params, interaction: Interaction) -> Array:
        """:meth:`moments` one after the other, shape (targets times shapes, components, nodes)."""
        effects = flux_effects(params, interaction, self.baseline_m)
        tables = evaluate(self.tables, effects.oscillation) if self.tables else []
        rows: list[Array] = []
        for k, found in enumerate(self.shapes(interaction)):
            shapes = tabulated(found) if tables else {}
            n = len(self.flux.components)
            known = {name: tables[k][i * n : (i + 1) * n] for i, name in enumerate(shapes)}
            for name, shape in found.items():
                if name not in known:
                    mass = self.masses[k]
                    known[name] = weighted_moments(self.flux, shape, mass, self.grid, params, effects)
                rows.append(known[name])
        return jnp.stack(rows)

    @property
    def masses(self) -> tuple[float, ...]:
        """Mass of each target, MeV."""
        return tuple(target.mass for _, target in self.scatterers.bind(self.scatterers.nominal))

    def __call__(self, params, interaction):
        response = self.response
        if isinstance(response, BinnedResponse):
            response = response(params, self.grid.nodes)
        by_component = response @ self.recoils(params, interaction).T
        if self.time is None:
            return self.norm(params) * jnp.sum(by_component, axis=1)
        time = self.time(params) if isinstance(self.time, BinnedTime) else self.time
        return self.norm(params) * (by_component @ time)

    def prepare(self, interaction):
        prepared = self
        if not smooth_part(interaction):
            shapes = tuple(tuple(tabulated(found).values()) for found in self.shapes(interaction))
            tables = _tabulate(self.flux, self.masses, shapes, self.grid, contributes(interaction, "flux"))
            prepared = eqx.tree_at(lambda c: c.tables, prepared, tables, is_leaf=lambda x: x is None)
        if isinstance(self.response, BinnedResponse):
            make = _prepared_response if self.response.nuisances else _fixed_response
            prepared = eqx.tree_at(lambda c: c.response, prepared, make(self.response, self.grid.nodes))
        if isinstance(self.time, BinnedTime) and not self.time.nuisances:
            prepared = eqx.tree_at(lambda c: c.time, prepared, _fixed_times(self.time))
        return prepared


_recoils = staged(lambda params, structure: structure[0].fold(params, structure[1]))
_moments = staged(lambda params, structure: structure[0].flat_moments(params, structure[1]))


def moving_parameters(interaction: Interaction, shapes: Iterable[Mapping[str, Shape]]) -> set[str]:
    """Names of the parameters that reach into the moments: of the flux on its way, and masses of outgoing leptons."""
    changing = (term for term in terms_of(interaction) if contributes(term, "flux"))
    flux = {p.name for term in changing for p in term.parameters}
    return flux | {shape.mass for found in shapes for shape in found.values() if shape.mass}


def tabulated(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes whose moments no parameter touches, or an oscillation alone."""
    return {name: shape for name, shape in shapes.items() if not shape.mass}


@partial(jax.jit, static_argnums=(1, 2, 4))
def _tabulate(
    flux: Flux, masses: tuple[float, ...], shapes: tuple[tuple[Shape, ...], ...], grid: RecoilGrid, oscillates: bool
) -> Tables | None:
    def table(mass: float, found: tuple[Shape, ...]) -> Moments:
        pairs = [(shape, component) for shape in found for component in flux.components]
        return Moments.of([moment(c, s, mass, grid.nodes, oscillates=oscillates) * grid.weights for s, c in pairs])

    return tuple(table(mass, found) for mass, found in zip(masses, shapes, strict=True)) if all(shapes) else None


@jax.jit
def _fixed_response(response: BinnedResponse, recoil: Array) -> Array:
    return response({}, recoil)


@jax.jit
def _prepared_response(response: BinnedResponse, recoil: Array) -> BinnedResponse:
    return response.prepare(recoil)


@jax.jit
def _fixed_times(time: BinnedTime) -> Array:
    return time({})


def coherent_scattering(
    *,
    nuclear: NuclearModel,
    mass_kg: float,
    flux: Flux,
    order: int = 24,
    recoil_min_kev: float = 0.0,
    name: str = "cevns",
    **fields,
) -> Scattering:
    """Scattering on the nuclei of ``mass_kg`` of a target, with ``order`` recoil nodes in each wide panel.

    Recoils below ``recoil_min_kev`` do nothing. The other keywords are those of :class:`Scattering`.
    """
    grid = recoil_grid(nuclear.target.nuclei, flux, order, 1e-3 * recoil_min_kev)
    return Scattering(name=name, scatterers=Nuclei(nuclear, mass_kg), grid=grid, flux=flux, **fields)


def electron_scattering(
    *,
    target: Target,
    mass_kg: float,
    recoil_kev: tuple[float, float],
    order: float = 8.0,
    panel_kev: float = np.inf,
    name: str = "es",
    **fields,
) -> Scattering:
    """Scattering on the electrons of ``mass_kg`` of a target, for recoils in the range ``recoil_kev``.

    ``order`` and ``panel_kev`` are those of :func:`cevjax.moments.electron_grid`: panels no wider than the resolution.
    The range must hold all recoils that the detector can see; below it nothing is reconstructed. An electron recoil is
    not quenched: the response belongs to ``cevjax.response.UNQUENCHED``.

    Raises:
        UnknownNameError: the atomic shells of an element of the target are not known.
    """
    low, high = 1e-3 * recoil_kev[0], 1e-3 * recoil_kev[1]
    grid = electron_grid([n.element for n in target.nuclei], low, high, order=order, width=1e-3 * panel_kev)
    return Scattering(name=name, scatterers=Electrons(target, mass_kg, grid), grid=grid, **fields)
