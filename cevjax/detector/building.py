"""From a description to a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..electrons import binding_energies
from ..errors import InvalidValueError, ReleaseFileError, UnknownNameError
from ..fluxes import Flux
from ..form_factors import form_factor as make_form_factor
from ..interactions import StandardModel
from ..likelihood import Likelihood
from ..measurement import Component, Measurement, Norm, Template, check_counts
from ..moments import RecoilGrid, recoil_grid
from ..nuclear_model import NuclearModel
from ..response import (
    UNQUENCHED,
    BinnedResponse,
    BinnedTime,
    Efficiency,
    Quenching,
    Resolution,
    TabulatedQuenching,
)
from ..scattering import Electrons, Nuclei, Scattering
from .context import FILE, Context
from .description import Counts, Description, GammaSection, GaussianSection, NoResolution, Source

FORECAST = "forecast: no data, counts are the expectation in the standard model"


def build(
    description: Description, folder: Path, form_factor: str | None, es: bool | None, factor: float
) -> Measurement:
    """Put the components together, and the data, or the expectation in their context."""
    context, edges = Context(description, folder, factor), description.bins.values()
    if description.counts and factor != 1:
        raise InvalidValueError(f"Argument `exposure_factor` is for forecasts, but {context.name} has counts.")
    source = description.flux.build(context)
    time = description.time.build(context) if description.time else None
    detector = Detector(
        description.resolution.build(),
        description.resolution,
        description.efficiency.build(context),
        edges,
    )
    norms = _norms(description, context)
    components: list[Component] = [
        _nuclear_recoils(description, context, detector, source, time, norms["cevns"], form_factor)
    ]
    if es and description.quenching.model == "none":
        raise InvalidValueError(
            f"Scattering on electrons of {context.name} cannot be counted where energies are those of nuclear recoils."
        )
    if es or (es is None and description.electron_recoils == "signal"):
        components.append(_electron_recoils(context, detector, source, time, norms["es"], always=bool(es)))
    edges_kev = np.array(edges) / description.resolution.per_kev
    components += [
        Template(
            background.name,
            jnp.asarray(background.counts(context, edges_kev, description.time)),
            norms[background.name],
        )
        for background in description.backgrounds
    ]
    axes = ((_axis(description), edges), *((("t_us", tuple(description.time.edges_us)),) if description.time else ()))
    shape = tuple(len(e) - 1 for _, e in axes)
    counts, sigma = _data(description.counts, context, shape) if description.counts else (np.zeros(shape), None)
    remarks = [*([] if description.counts else [FORECAST]), description.remark]
    measurement = Measurement(
        name=context.name,
        statistic="default",
        axes=axes,
        observed=counts,
        components=tuple(components),
        nuisances=tuple(context.nuisances.values()),
        sigma=sigma,
        citation=description.citation,
        remark="; ".join(filter(None, remarks)),
    )
    if description.counts:
        return measurement
    like = Likelihood(measurement, StandardModel())
    (expected,) = like.expected(like.nominal()).values()
    return measurement.with_observed(np.sum([np.asarray(part) for part in expected.values()], axis=0))


def _axis(description: Description) -> str:
    if description.resolution.kind == "gamma":
        return "PE"
    return "T_keVnr" if description.quenching.model == "none" else "E_keVee"


def _norms(description: Description, context: Context) -> dict[str, Norm]:
    """The nuisances on the size of each component."""
    flux = description.flux
    pulls: dict[str, list[tuple[str, float]]] = {"cevns": [], "es": []}
    if flux.relative_error:
        pulls = {component: [context.norm("flux", flux.relative_error, flux.nuisance)] for component in pulls}
    for background in description.backgrounds:
        error = background.relative_error
        pulls[background.name] = [context.norm(background.name, error, background.nuisance)] if error else []
    for nuisance in description.nuisances:
        for component in nuisance.on:
            shared = nuisance.name if nuisance.shared else None
            pulls[component].append(context.norm(nuisance.name, nuisance.relative_error, shared))
    return {component: Norm(tuple(found)) for component, found in pulls.items()}


def _data(counts: Counts, context: Context, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Counts, and their standard deviations if the file has them."""
    columns = int(np.prod(shape[1:]))
    table = context.bins(counts.file, shape[0], (columns, 2 * columns), "counts, or counts and standard deviations")
    gaussian = table.shape[1] == 2 * columns
    label = f"file {context.folder / counts.file}"
    observed = check_counts(label, table[:, :columns].reshape(shape), shape, negative=gaussian)
    if not gaussian:
        return observed, None
    sigma = table[:, columns:].reshape(shape)
    if np.any(sigma <= 0):
        raise ReleaseFileError(f"F{label[1:]}: expected standard deviations above 0, but found {sigma.min():g}.")
    return observed, sigma


PANEL_SIGMAS, PANEL_NODES = 3.0, 8
"""Bins wider than so many standard deviations are cut; with so many nodes a piece is good to 1e-6."""
REACH, NODES_PER_SIGMA = 6.0, 1.6
"""An edge is felt by recoils up to so many standard deviations away, and they get so many nodes for each."""
PULLS = 3.0
"""The grid follows the edges to these values of the quenching's nuisances."""


class Detector(NamedTuple):
    """What becomes of the electron-equivalent energy."""

    resolution: Resolution | None
    widths: NoResolution | GaussianSection | GammaSection
    efficiency: Efficiency
    edges: tuple[float, ...]

    def response(self, quenching: Quenching, recoil: jnp.ndarray) -> BinnedResponse | jnp.ndarray:
        """Of recoils; without resolution, fixed on these nodes."""
        if self.resolution is None:
            x = 1e3 * np.asarray(quenching({}, recoil))
            inside = (x >= np.array(self.edges[:-1])[:, None]) & (x < np.array(self.edges[1:])[:, None])
            return jnp.where(inside, self.efficiency(x, {}), 0.0)
        low, high = np.array(self.edges[:-1]), np.array(self.edges[1:])
        sigma = self.widths.per_kev * self.widths.sigma_kev(low / self.widths.per_kev)
        wide = high - low > PANEL_SIGMAS * sigma
        panel = float(np.min(PANEL_SIGMAS * sigma, where=wide, initial=high[-1] - low[0]))
        return BinnedResponse(quenching, self.resolution, self.efficiency, self.edges, PANEL_NODES, panel)

    def grid(self, quenching: Quenching, lowest: float, kinks: Iterable[float], highest: float) -> RecoilGrid | None:
        """Recoils (MeV) that reach the bins, from ``lowest`` to ``highest``; None if there are none.

        Panels end at the ``kinks`` of the spectrum, and have as many nodes as the resolution asks for around the edges.
        """
        steps = np.array([x for x in self.efficiency.breaks if self.edges[0] < x < self.edges[-1]])
        energy = np.union1d(self.edges, steps if self.resolution is None else []) / self.widths.per_kev
        blur = self.widths.sigma_kev(energy)
        at = partial(_recoils_at, quenching, highest=2 * highest)
        edge, sigma = at(energy), at(energy + blur) - at(energy)
        moved = [abs(at(energy, pulls={name: sign * PULLS}) - edge) for name in quenching.nuisances for sign in (-1, 1)]
        reach = REACH * sigma + np.sum(moved, axis=0)
        low, high = max(lowest, edge[0] - reach[0]), min(highest, edge[-1] + reach[-1])
        if low >= high:
            return None
        cuts, resolve = [float(low)], []
        around = zip(edge - reach, edge + reach, sigma, strict=True)
        for cut, scale in (pair for a, b, width in around for pair in ((a, np.inf), (b, width))):
            if cuts[-1] < min(cut, high):
                cuts.append(float(min(cut, high)))
                resolve.append(scale)
        inner = sorted({float(kink) for kink in kinks if low < kink < high})
        panels: list[tuple[float, float, int]] = []
        for (a, b), scale in zip(pairwise(cuts), resolve, strict=True):
            ends = [a, *(kink for kink in inner if a < kink < b), b]
            panels += [(c, d, _nodes(c, d, scale)) for c, d in pairwise(ends) if d - c > 1e-12 * high]
        return RecoilGrid(panels)


def _nodes(low: float, high: float, sigma: float) -> int:
    """For spectra that fall like powers of the energy, and a response that changes within ``sigma``."""
    smooth = 24 if low == 0 else min(8 + int(4 * np.log2(high / low)), 32)
    return max(smooth, 4 + int(NODES_PER_SIGMA * (high - low) / sigma))


def _recoils_at(
    quenching: Quenching, energy_kev: np.ndarray, highest: float, pulls: Mapping[str, float] | None = None
) -> np.ndarray:
    """Recoil energies (MeV) with these electron-equivalent energies, up to ``highest``: by bisection."""
    params = dict.fromkeys(quenching.nuisances, 0.0) | dict(pulls or {})
    low, high = np.zeros_like(energy_kev), np.full_like(energy_kev, highest)
    for _ in range(60):
        middle = (low + high) / 2
        above = 1e3 * np.asarray(quenching(params, middle)) > energy_kev
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high


def _nuclear_recoils(
    description: Description,
    context: Context,
    detector: Detector,
    source: Source,
    time: BinnedTime | None,
    norm: Norm,
    form_factor: str | None,
) -> Scattering:
    target, radius_error = description.target, description.target.radius_relative_error
    nuclear = NuclearModel(
        target=context.target,
        form_factor=make_form_factor(form_factor or target.form_factor),
        size_nuisance=context.pull("radius", f"neutron radii, {100 * radius_error:g} %") if radius_error else None,
        size_sigma=radius_error or 0.0,
    )
    quenching = description.quenching.build(context)
    _check_rising(context, quenching, source.flux)
    ends = [high for _, high, _ in recoil_grid(context.target.nuclei, source.flux).panels]
    knots = 1e-3 * quenching.recoil_kev if isinstance(quenching, TabulatedQuenching) else ()
    grid = detector.grid(quenching, 0.0, [*ends, *map(float, knots)], ends[-1])
    if grid is None:
        raise context.error("bins", f"must begin below the largest recoil, {1e3 * ends[-1]:.4g} keV")
    return Scattering(
        name="cevns",
        scatterers=Nuclei(nuclear, context.mass_kg),
        grid=grid,
        response=detector.response(quenching, grid.nodes),
        time=time,
        norm=norm,
        **source._asdict(),
    )


def _check_rising(context: Context, quenching: Quenching, flux: Flux) -> None:
    """Energies must grow with the recoils."""
    lightest = min(nuclide.mass for nuclide in context.target.nuclei)
    highest = max(2 * c.energy_max**2 / (lightest + 2 * c.energy_max) for c in flux.components)
    energy = np.asarray(quenching(dict.fromkeys(quenching.nuisances, 0.0), highest * np.linspace(0, 1, 101)[1:]))
    if not np.all(np.isfinite(energy)) or np.any(np.diff(energy) <= 0):
        raise context.error("quenching", f"must give energies that grow with recoils up to {1e3 * highest:.4g} keV")


def _electron_recoils(
    context: Context, detector: Detector, source: Source, time: BinnedTime | None, norm: Norm, always: bool
) -> Scattering:
    highest = max(component.energy_max for component in source.flux.components)
    try:
        shells = {energy for nuclide in context.target.nuclei for energy in binding_energies(nuclide.element)}
        grid = detector.grid(UNQUENCHED, 1e-6, shells, highest)
    except UnknownNameError as error:
        raise InvalidValueError(
            f"Scattering on the electrons of {context.name} cannot be counted: {error} Choose es = False, or "
            f'electron_recoils = "rejected" in {context.folder / FILE}.'
        ) from None
    if grid is None:
        raise context.error("bins", f"must begin below the largest electron recoil, {1e3 * highest:.4g} keV")
    return Scattering(
        name="es",
        scatterers=Electrons(context.target, context.mass_kg, grid),
        grid=grid,
        response=detector.response(UNQUENCHED, grid.nodes),
        time=time,
        norm=norm,
        always=always,
        **source._asdict(),
    )
