"""The signal: recoils of nuclei and of electrons under a flux of neutrinos."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from .measurement import Component, FoldedTime, Folding, Norm, Precision, fold_time, time_names
from .moments import Moments, RecoilGrid, electron_grid, evaluate, moment, recoil_grid
from .nuclear_model import BoundNucleus, NuclearModel
from .nuclei import Target
from .parameters import Parameter
from .rates import flux_effects, fold_moments, weighted_moments
from .response import BinnedResponse, BinnedTime
from .series import Axis, Series, Variable, grid, series
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
    time: BinnedTime | FoldedTime | Array | None
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
        names = self.moving_recoils(interaction)
        own = {name: value for name, value in params.items() if name in names}
        return _recoils(own, (self, interaction))

    def moving_recoils(self, interaction: Interaction) -> set[str]:
        """Names of all parameters that recoils depend on."""
        return {p.name for p in (*interaction.parameters, *self.parameters)} | set(self.scatterers.nominal)

    def moved_by(self, interaction):
        response = self.response.nuisances if isinstance(self.response, BinnedResponse) else ()
        return self.moving_recoils(interaction) | {*response} | time_names(self.time) | self.norm.names

    def sum_targets(self, params: Params, interaction: Interaction) -> Array:
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
        return self.norm(params) * (by_component @ (self.time(params) if callable(self.time) else self.time))

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

    def fold(self, folding, precision):
        return fold(self, folding, precision)


_recoils = staged(lambda params, structure: structure[0].sum_targets(params, structure[1]))
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


class FoldedScattering(Component):
    """A :class:`Scattering` as a series in the parameters that move it.

    Args:
        name: of the component.
        spectra: counts in energy bins, shape (bins, groups of flux components that arrive alike).
        time: arrival times of each group; None without a time axis.
        norm: normalisation nuisances.
        inherited: parameters of what was folded.
    """

    name: str = eqx.field(static=True)
    spectra: Series
    time: FoldedTime | BinnedTime | Array | None
    norm: Norm
    inherited: tuple[Parameter, ...] = eqx.field(static=True)

    @property
    def parameters(self):
        return self.inherited

    def __call__(self, params, interaction):
        spectra = self.spectra(params)
        if self.time is None:
            return self.norm(params) * jnp.sum(spectra, axis=1)
        return self.norm(params) * (spectra @ (self.time(params) if callable(self.time) else self.time))

    def moved_by(self, interaction):
        return {*self.spectra.names} | time_names(self.time) | self.norm.names

    def hold(self, params):
        if not all(curve.name in params for curve in self.spectra.outer.curves):
            return self
        return FoldedScattering(self.name, self.spectra.hold(params), self.time, self.norm, self.inherited)


LARGEST_FOLD = 2e7
"""Numbers in the largest tensor that :func:`fold` makes, and no more evaluations than 1/1000 of that."""


def fold(signal: Scattering, folding: Folding, precision: Precision) -> Component:
    """``signal`` as a series in the parameters of ``folding``; as it is where that would be too large."""
    time, groups = fold_time(signal.time, folding), np.arange(len(signal.flux.components))
    if time is None:
        groups = np.zeros_like(groups)
    elif not isinstance(time, BinnedTime):
        rows = np.asarray(time) if isinstance(time, Array) else time.rows
        _, first, groups = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        time = time[first] if isinstance(time, Array) else time.some(first)
    variance = (precision if precision.variance.ndim == 1 else precision.over(axis=1)).value
    probe = _Probe(signal, folding, groups.ravel(), 1 / np.sqrt(variance))
    slices = {v: probe.slices(v) for v in (*folding.inner, *folding.outer)}
    if not all(np.all(np.isfinite(found)) for found in slices.values()):
        return signal
    axes = {v.name: Axis.of(v, found, folding.tolerance / 100) for v, found in slices.items()}
    moving = {name for name, axis in axes.items() if axis.nodes.size > 1}
    inner, outer = ([axes[v.name] for v in group if v.name in moving] for group in (folding.inner, folding.outer))
    by_response, by_recoils = probe.split((*inner, *outer))
    n_response, n_recoils = (int(np.prod([a.nodes.size for a in part])) for part in (by_response, by_recoils))
    size = n_response * n_recoils * len(variance) * (groups.max() + 1)
    if size > LARGEST_FOLD or 1e3 * max(n_response, n_recoils) > LARGEST_FOLD:
        return signal
    tensor = probe.spectra(probe.responses(grid(by_response)), probe.recoils(grid(by_recoils)))
    if not np.all(np.isfinite(tensor)):
        return signal
    shape = [a.nodes.size for a in (*by_response, *by_recoils)]
    order = [[a.variable.name for a in (*by_response, *by_recoils)].index(a.variable.name) for a in (*inner, *outer)]
    tensor = np.moveaxis(tensor.reshape(*shape, *tensor.shape[2:]), order, range(len(order)))
    spectra = series(inner, outer, tensor, variance, folding.tolerance)
    return FoldedScattering(signal.name, spectra, time, signal.norm, signal.parameters)


class _Probe:
    """The factors of a signal at many points: response matrices, and recoils of groups of flux components."""

    def __init__(self, signal: Scattering, folding: Folding, groups: np.ndarray, weight: np.ndarray):
        self.signal, self.folding, self.weight = signal, folding, weight
        self.sum = (groups[:, None] == np.arange(groups.max() + 1)).astype(float)
        self.moving = signal.response.nuisances if isinstance(signal.response, BinnedResponse) else ()
        self.own = signal.moving_recoils(folding.interaction)

    def split(self, axes: Sequence[Axis]) -> tuple[list[Axis], list[Axis]]:
        """Axes of parameters of the response, and of all others."""
        moving = [axis for axis in axes if axis.variable.name in self.moving]
        return moving, [axis for axis in axes if axis.variable.name not in self.moving]

    def responses(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Shape (points, bins, nodes)."""
        if not self.moving:
            fixed = self.signal.response
            return np.asarray(_response_at(fixed, {}, self.signal.grid.nodes) if callable(fixed) else fixed)[None]
        params = {name: self.folding.params[name] for name in self.moving}
        evaluate = lambda points: _many_responses(self.signal.response, self.signal.grid.nodes, points)  # noqa: E731
        return _in_blocks(evaluate, params, columns)

    def recoils(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Shape (points, groups, nodes)."""
        params = {n: v for n, v in self.folding.params.items() if n in self.own}
        evaluate = lambda points: _many_recoils(self.signal, self.folding.interaction, points)  # noqa: E731
        return np.einsum("pcn,cg->pgn", _in_blocks(evaluate, params, columns), self.sum)

    def spectra(self, responses: np.ndarray, recoils: np.ndarray) -> np.ndarray:
        """Shape (points of one, points of the other, bins, groups)."""
        flat = responses.reshape(-1, responses.shape[2]) @ recoils.reshape(-1, recoils.shape[2]).T
        flat = flat.reshape(*responses.shape[:2], *recoils.shape[:2])
        return np.moveaxis(flat, 1, 2)

    def slices(self, variable: Variable) -> np.ndarray:
        """The signal along one parameter, in units of its precision, at several values of all the others."""
        knots, others = len(variable.values), (*self.folding.inner, *self.folding.outer)
        probes = self.probes([v for v in others if v.name in self.own and v.name != variable.name])
        count = len(next(iter(probes.values()))) if probes else 1
        columns = {name: np.repeat(values, knots) for name, values in probes.items()}
        columns[variable.name] = np.tile(variable.values, count)
        if variable.name in self.moving:
            slices = self.spectra(self.responses({variable.name: variable.values}), self.recoils(probes))
        elif variable.name in self.own:
            slices = self.spectra(self.responses({}), self.recoils(columns))
            slices = np.moveaxis(slices.reshape(-1, count, knots, *slices.shape[2:]), 2, 0)
        else:
            slices = np.zeros((knots, 1, 1))
        return (slices * self.weight[: slices.shape[-2], None]).reshape(knots, -1)

    def probes(self, others: Sequence[Variable]) -> dict[str, np.ndarray]:
        """Values of the other parameters: nominal, some in general position, and all corners of those of interest.

        Where a signal is large, it is so in a corner.
        """
        outer = [v for v in others if v in self.folding.outer][:4]
        corners = np.array(list(itertools.product((0.0, 1.0), repeat=len(outer))))
        found = {}
        for k, other in enumerate(others):
            middle = (np.arange(1, 3) * (0.382 + 0.11 * k)) % 1
            ends = corners[:, outer.index(other)] if other in outer else np.full(len(corners), 0.5)
            values = other.values[np.round(np.append(middle, ends) * (len(other.values) - 1)).astype(int)]
            found[other.name] = np.append(self.folding.params[other.name], values)
        return found


BLOCK = 128
"""Points that are evaluated at once, so that one compiled function does for any number."""


def _in_blocks(
    evaluate: Callable[[dict[str, np.ndarray]], Array], params: Params, columns: Mapping[str, np.ndarray]
) -> np.ndarray:
    """``evaluate`` at many points: those of ``columns``, and ``params`` for the rest."""
    n = len(next(iter(columns.values()))) if columns else 1
    full = {name: np.broadcast_to(columns.get(name, value), (n,)) for name, value in params.items()}
    parts = []
    for first in range(0, n, BLOCK):
        rows = np.minimum(np.arange(first, first + BLOCK), n - 1)
        parts.append(np.asarray(evaluate({name: column[rows] for name, column in full.items()}))[: n - first])
    return np.concatenate(parts)


@jax.jit
def _response_at(response: BinnedResponse, params: Params, nodes: Array) -> Array:
    return response(params, nodes)


@jax.jit
def _many_responses(response: BinnedResponse, nodes: Array, points: Params) -> Array:
    return jax.vmap(lambda point: response(point, nodes))(points)


@jax.jit
def _many_recoils(signal: Scattering, interaction: Interaction, points: Params) -> Array:
    return jax.vmap(lambda point: signal.recoils(point, interaction))(points)


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
