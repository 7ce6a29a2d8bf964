"""The command line: ``cevjax list | xsec | predict | fit | interval | scan | contours | toys |
feldman-cousins | forecast | sample | run | reproduce | data``.

Exit status: 0 on success, 2 on unusable input, 1 when the job itself failed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from . import analysis, cache, contours, jobs, posteriors, registry, releases, report, studies
from .couplings import COUPLINGS
from .datasets import load, statistics
from .electrons import Electron, effective_charge
from .errors import CevjaxError, InvalidValueError
from .form_factors import FORM_FACTORS, form_factor
from .inference import feldman_cousins as run_feldman_cousins
from .inference import fit as run_fit
from .inference import forecast as run_forecast
from .inference import interval as run_interval
from .inference import sample as run_sample
from .inference import scan as run_scan
from .inference import toys as run_toys
from .interactions import Interaction, interaction
from .interactions.base import CONTRIBUTIONS, FLAVOURS, contributes
from .kinematics import recoil_energy_max
from .likelihood import Likelihood
from .measurement import Measurement
from .nuclear_model import NuclearModel
from .nuclei import target
from .parameters import Parameter, check_values, merge
from .rates import differential_cross_section
from .results import (
    OPTIONS,
    UNFINISHED,
    FitResult,
    check_output,
    describe,
    load_json,
    remarks,
    save_json,
    to_json,
    write_atomically,
)
from .scans import ScanResult
from .tables import data_dir, read_toml

app = typer.Typer(
    name="cevjax",
    help="Coherent elastic neutrino-nucleus scattering: predictions, fits, intervals and scans on real data.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    name="data",
    help="The official releases behind the data sets: what they add, fetching and checking them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
# names and units are neither markup nor emoji
out = Console(highlight=False, markup=False, emoji=False)
err = Console(highlight=False, markup=False, emoji=False, stderr=True)

Datasets = Annotated[
    list[str],
    typer.Argument(
        metavar="DATASET...",
        help="Data sets, each NAME or NAME:choice=value,choice=value; or the folder of your own detector.",
    ),
]
Interactions = Annotated[
    list[str],
    typer.Option(
        "--interaction",
        metavar="NAME",
        help="Interaction added to the standard model, NAME or NAME:choice=value; repeatable.",
    ),
]
Set = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="Fix a parameter; repeatable.")]
Free = Annotated[list[str], typer.Option("--free", metavar="NAME", help="Parameter of interest; repeatable.")]
Statistic = Annotated[str | None, typer.Option(help="Statistic: default, or a paper's own.")]
CouplingsOption = Annotated[str | None, typer.Option(help=f"Standard-model couplings: {', '.join(COUPLINGS)}.")]
FormFactorOption = Annotated[str | None, typer.Option(help=f"Form factor: {', '.join(FORM_FACTORS)}.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model of an interaction that has several.")]
EsOption = Annotated[
    bool | None,
    typer.Option(
        "--es/--no-es", help="Count scattering on electrons as signal; default where it matters, as in the statistic."
    ),
]
Asimov = Annotated[
    list[str], typer.Option(metavar="NAME=VALUE", help="Replace the data by the expectation there; repeatable.")
]
Json = Annotated[str | None, typer.Option("--json", metavar="PATH", help="Write JSON to PATH; - for standard output.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Write a figure (png, pdf, svg; x.png,pdf: both).")
]


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(metadata.version("cevjax"))
        raise typer.Exit


class Flavour(StrEnum):
    e = "e"
    mu = "mu"
    tau = "tau"


class Topic(StrEnum):
    datasets = "datasets"
    forecasts = "forecasts"
    interactions = "interactions"
    parameters = "parameters"
    statistics = "statistics"


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register a command of a group; unusable input becomes one message and exit status 2."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        cache.enable_compilation_cache()
        try:
            function(*args, **kwargs)
        except CevjaxError as error:
            err.print(f"Error: {error}", soft_wrap=True)
            raise typer.Exit(2) from None
        except OSError as error:
            err.print(f"Error: {error}", soft_wrap=True)
            raise typer.Exit(1) from None

    name = function.__name__.removeprefix(f"{group.info.name}_").rstrip("_").replace("_", "-")
    return group.command(name)(wrapper)


def _setup(
    datasets: Datasets,
    interactions: Interactions = [],  # noqa: B006
    model: ModelOption = None,
    set_: Set = [],  # noqa: B006
    statistic: Statistic = None,
    couplings: CouplingsOption = None,
    form_factor: FormFactorOption = None,
    es: EsOption = None,
    asimov: Asimov = [],  # noqa: B006
) -> tuple[Likelihood, dict[str, float]]:
    """What all commands on data share: the likelihood that the options describe, and the values that are set."""
    point = analysis.parse_assignments(asimov, "--asimov") if asimov else None
    like = analysis.build_likelihood(
        datasets, interactions, statistic, couplings, form_factor, point, model=model, es=es
    )
    return like, analysis.parse_assignments(set_, "--set")


def data_command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command on data: it takes a likelihood and values, and its options come after those of all."""
    shared = inspect.signature(_setup, eval_str=True).parameters
    own = [
        p for name, p in inspect.signature(function, eval_str=True).parameters.items() if name not in ("like", "values")
    ]

    @functools.wraps(function)
    def wrapper(**kwargs: Any) -> None:
        _check_outputs(kwargs.get("plot"), kwargs.get("json"))
        asked = {name.rstrip("_"): x for name, x in kwargs.items() if name not in ("json", "plot")}
        options = {name: str(x) if isinstance(x, Path) else x for name, x in asked.items()}
        OPTIONS.set({"command": function.__name__, **options})
        like, values = _setup(**{name: kwargs.pop(name) for name in shared})
        function(like, values, **kwargs)
        if kwargs.get("json") != "-":
            for name, remark in remarks(like).items():
                out.print(f"Note on {name}: {remark}", soft_wrap=True)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared.values(), *own)]
    required = [p for p in parameters if p.default is inspect.Parameter.empty]
    wrapper.__signature__ = inspect.Signature([*required, *(p for p in parameters if p not in required)])  # pyright: ignore
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__wrapped__
    return command(wrapper)


LEADS = {"datasets": "citation", "interactions": "description"}


@command
def list_(
    topic: Annotated[Topic | None, typer.Argument(help="What to list; everything if left out.")] = None,
    json: Json = None,
) -> None:
    """List data sets, forecasts, interactions, parameters or statistics."""
    listing = _listing()
    topics = [topic.value] if topic else [t.value for t in Topic]
    if not _emit(json, {name: listing[name] for name in topics}):
        for name in topics:
            if name in LEADS:
                _print_paragraphs(name, listing[name], LEADS[name])
            else:
                _print_rows(name, listing[name])


def _print_paragraphs(title: str, rows: list[dict[str, Any]], lead: str) -> None:
    """One paragraph each, begun by the name and the entry ``lead``: there is too much to say for a table."""
    out.print(title, style="italic")
    for row in rows:
        out.print(f"{row['name']}", style="bold", end="")
        out.print(f": {row[lead]}")
        for label, text in row.items():
            if label not in ("name", lead) and text != "":
                out.print(
                    Padding(f"{label}: {text:g}" if isinstance(text, float) else f"{label}: {text}", (0, 0, 0, 4))
                )
    out.print()


def _listing() -> dict[str, list[dict[str, Any]]]:
    loaded = {name: load(name) for name in registry.dataset_names()}
    owners = [(name, i.parameters) for name, i in _interactions().items()]
    owners += [(name, m.parameters) for name, m in loaded.items()]
    return {
        "datasets": [
            {
                "name": name,
                "events": float(np.sum(m.observed)),
                "unit": m.unit,
                "bins": " x ".join(f"{n} {axis}" for n, (axis, _) in zip(m.shape, m.axes, strict=True)),
                "citation": m.citation,
                "statistics": ", ".join(statistics(name)),
                "choices": ", ".join(inspect.signature(registry.dataset_loader(name)).parameters),
                "remark": m.remark,
            }
            for name, m in loaded.items()
        ],
        "forecasts": [
            {"name": name, "title": read_toml(data_dir("future") / name / registry.DESCRIPTION)["title"]}
            for name in registry.forecast_names()
        ],
        "interactions": [_interaction_row(name) for name in registry.interaction_names()],
        "parameters": [_parameter_row(p) for p in merge(owners).values()],
        "statistics": [{"dataset": name, "name": statistic} for name in loaded for statistic in statistics(name)],
    }


def _interactions() -> dict[str, Interaction]:
    """All interactions that can be had; a plug-in that cannot does not spoil the list."""
    found = {}
    for name in registry.interaction_names():
        with contextlib.suppress(InvalidValueError):
            found[name] = interaction(name)
    return found


def _interaction_row(name: str) -> dict[str, Any]:
    try:
        model, factory = interaction(name), registry.interaction_class(name)
    except InvalidValueError as error:
        nothing = dict.fromkeys(("adds", "parameters", "choices", "source"), "")
        return {"name": name, **nothing, "description": str(error)}
    return {
        "name": name,
        "adds": ", ".join(what for what in CONTRIBUTIONS if contributes(model, what)),
        "parameters": _by_unit(model.parameters),
        "choices": ", ".join(inspect.signature(factory).parameters),
        "source": model.source,
        "description": (type(model).__doc__ or "").strip().splitlines()[0],
    }


def _by_unit(parameters: Sequence[Parameter]) -> str:
    """Names, with the unit after those that share it: ``m_phi [MeV], g_phi [1]``."""
    groups = itertools.groupby(parameters, lambda p: p.unit or "1")
    return ", ".join(f"{', '.join(p.name for p in group)} [{unit}]" for unit, group in groups)


def _parameter_row(parameter: Parameter) -> dict[str, Any]:
    c = parameter.constraint
    return {
        "name": parameter.name,
        "nominal": parameter.nominal,
        "unit": parameter.unit,
        "constraint": f"{c.mean:g} +- {c.sigma:g}" if c else "",
        "owner": parameter.owner,
        "description": parameter.description,
    }


@command
def xsec(
    target_name: Annotated[str, typer.Argument(metavar="TARGET", help="Nuclide, element or compound: Cs133, Ge, CsI.")],
    energy_mev: Annotated[float, typer.Option(help="Neutrino energy, MeV.")],
    recoil_kev: Annotated[
        str | None, typer.Option(metavar="a:b:n", help="Recoil energies, keV; default up to the end.")
    ] = None,
    interactions: Interactions = [],  # noqa: B006
    set_: Set = [],  # noqa: B006
    model: ModelOption = None,
    flavour: Annotated[Flavour, typer.Option(help="Flavour of the neutrino.")] = Flavour.e,
    electrons: Annotated[bool, typer.Option("--electrons", help="Scattering on the electrons instead.")] = False,
    antineutrino: Annotated[bool, typer.Option("--antineutrino", help="Antineutrinos; electrons tell.")] = False,
    couplings: CouplingsOption = None,
    form_factor_name: Annotated[str, typer.Option("--form-factor", help=f"{', '.join(FORM_FACTORS)}.")] = "helm",
    json: Json = None,
) -> None:
    """Differential cross section dsigma/dT, summed over the nuclei (or electrons) of a formula unit."""
    if not (np.isfinite(energy_mev) and energy_mev > 0):
        raise InvalidValueError(f"Option `--energy-mev` must be a positive number, but was {energy_mev}.")
    material = target(target_name)
    nuclear = NuclearModel(material, form_factor(form_factor_name))
    acting = analysis.build_interaction(interactions, couplings, model)
    parameters = merge([("the interaction", acting.parameters), (material.name, nuclear.parameters)])
    params = {p.name: p.nominal for p in parameters.values() if not p.members}
    params.update(check_values(analysis.parse_assignments(set_, "--set"), parameters))
    targets: list[Any] = [Electron()] if electrons else list(nuclear.bind(params))
    end = 1e3 * max(float(recoil_energy_max(energy_mev, t.mass)) for t in targets)
    recoil = np.linspace(end / 20, end, 20) if recoil_kev is None else _grid(recoil_kev, "--recoil-kev")
    # electrons of the formula unit that the recoil can free, or nuclei of each kind
    pairs = list(zip(material.nuclei, material.numbers, strict=True))
    free = [sum(n * effective_charge(nuclide.element, recoil / 1e3) for nuclide, n in pairs)] if electrons else []
    index, value = FLAVOURS.index(flavour.value), np.zeros_like(recoil)
    for body, number in zip(targets, free if electrons else material.numbers, strict=True):
        section = differential_cross_section(params, acting, body, energy_mev, recoil / 1e3, antineutrino)
        value += np.asarray(number * section[index])
    value = value / 1e3  # per keV
    data = {
        "target": material.name,
        "energy_mev": energy_mev,
        "flavour": flavour.value,
        "antineutrino": antineutrino,
        "electrons": electrons,
        "interaction": acting.name,
        "recoil_kev": recoil,
        "dsigma_dt_cm2_per_kev": value,
    }
    if not _emit(json, data):
        rows = [{"T [keV]": f"{t:.5g}", "dsigma/dT [cm2/keV]": f"{v:.6g}"} for t, v in zip(recoil, value, strict=True)]
        of = f"electrons of {material.name}" if electrons else material.name
        neutrino = f"{'nubar' if antineutrino else 'nu'}_{flavour.value}"
        _print_rows(f"{of}, {neutrino} of {energy_mev:g} MeV, {acting.name}", rows)
        if contributes(acting, "flux"):
            out.print("What changes the flux on its way does not change a cross section.")


@data_command
def predict(like: Likelihood, values: dict[str, float], plot: PlotOption = None, json: Json = None) -> None:
    """Expected counts, with nuisances at nominal."""
    expected = like.expected(like.nominal(**values))
    data: dict[str, Any] = {
        **describe(like, "predict"),
        "datasets": {
            m.name: {
                "axes": dict(m.axes),
                "observed": np.asarray(m.observed),
                "components": {c: np.asarray(counts) for c, counts in expected[m.name].items()},
            }
            for m in like.measurements
        },
    }
    if not _emit(json, data):
        for m in like.measurements:
            _print_counts(m, {c: float(v.sum()) for c, v in expected[m.name].items()})
    if plot:
        _save_spectra(plot, like, {m: {c: np.asarray(v) for c, v in parts.items()} for m, parts in expected.items()})


@data_command
def fit(
    like: Likelihood,
    values: dict[str, float],
    free: Free = [],  # noqa: B006
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Best fit of the free parameters and all nuisances."""
    result = run_fit(like, free, values)
    if not _emit(json, result.to_dict()):
        _print_fit(result)
    if plot:
        _save_spectra(plot, like, result.expected())
    if not result.converged:
        err.print(f"The fit did not converge: {result.message}.")
        raise typer.Exit(1)


@data_command
def interval(
    like: Likelihood,
    values: dict[str, float],
    poi: Annotated[str, typer.Option(metavar="NAME", help="Parameter of interest.")],
    cl: Annotated[list[float], typer.Option(help="Confidence level; repeatable.")] = [0.90],  # noqa: B006
    free: Free = [],  # noqa: B006
    within: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Values of --poi that count, as 3.448: (a side may be empty).")
    ] = ":",
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Profile-likelihood interval of one parameter: every disjoint piece."""
    result = run_interval(like, poi, cl, free, values, _ends(within))
    if not _emit(json, result.to_dict()):
        unit = like.parameters[poi].unit
        for level, found in result.levels.items():
            pieces = [{"from": _end(low, "open"), "to": _end(high, "open"), "unit": unit} for low, high in found]
            _print_rows(f"{poi} at {100 * level:g} % CL: best fit {result.best_fit:.5g} {unit}".rstrip(), pieces)
        remark = f"; {result.message}" if result.message else ""
        out.print(f"chi2_min {result.chi2_min:.3f}, {result.seconds:.2f} s{remark}")
    if plot:
        from . import plots

        plots.save(plots.profile_curve(result), plot)
    if not result.converged:
        err.print("The interval is not reliable: a minimisation behind it did not converge.")
        raise typer.Exit(1)


def _ends(text: str) -> tuple[float | None, float | None]:
    """The ends of LOW:HIGH, an empty one as None."""
    try:
        low, high = (float(end) if end.strip() else None for end in text.split(":"))
    except ValueError:
        raise InvalidValueError(f"Option `--within` must read LOW:HIGH, two numbers, but was {text!r}.") from None
    return low, high


Grid = Annotated[
    list[str],
    typer.Option(
        "--grid",
        metavar="NAME=a:b:n[:log]",
        help="Values of a parameter, n from a to b, evenly or (log) by a constant factor; repeatable.",
    ),
]
Levels = Annotated[list[float], typer.Option(help="Confidence level of regions and limits; repeatable.")]
Workers = Annotated[int, typer.Option(help="Processes to start on this machine; 0 to compute in this one.")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler, or its file, of a cluster that computes instead.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what an interrupted run to the same file has left.")]


@data_command
def scan(
    like: Likelihood,
    values: dict[str, float],
    grid: Grid,
    out_: Annotated[Path, typer.Option("--out", metavar="FILE", help="File of the result: .nc or .zarr.")],
    free: Free = [],  # noqa: B006
    cl: Levels = [0.6827, 0.90],  # noqa: B006
    exact: Annotated[bool, typer.Option("--exact", help="Never approximate the likelihood by a folded one.")] = False,
    resume: Resume = False,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Profile likelihood on a grid of parameters: chi2 with all others fitted at every point."""
    axes = analysis.parse_grid(grid, "--grid")
    for level in cl:
        contours.threshold(level)
    where = {"out": out_, "resume": resume, "workers": workers, "scheduler": scheduler}
    result = run_scan(like, axes, free, values, progress=True, exact=exact, **where)
    facts = result.facts
    data = {
        **describe(like, "scan"),
        "out": str(out_),
        "chi2_min": result.chi2_min,
        "best_fit": result.best_fit,
        **{
            key: facts[key]
            for key in ("grid", "n_points", "n_exact", "n_retried", "n_failed", "method", "accuracy", "seconds")
        },
        "regions": _regions(result, cl),
    }
    if not _emit(json, data):
        rows = [{"name": n, "best fit": f"{result.best_fit[n]:.5g}", "unit": like.parameters[n].unit} for n in axes]
        _print_rows(f"scan of {' x '.join(str(len(x)) for x in axes.values())} points", rows)
        for region in data["regions"]:
            out.print(region["text"], soft_wrap=True)
        how = f"{facts['n_retried']} points by the second method, {facts['n_failed']} did not converge"
        out.print(f"chi2_min {result.chi2_min:.3f}; {how}; {facts['seconds']:.2f} s; written to {out_}", soft_wrap=True)
    if plot:
        from . import plots

        figure = plots.plane(result, cl) if len(axes) == 2 else plots.projections(result)
        plots.save(figure, plot)
    if facts["n_failed"]:
        err.print(f"{facts['n_failed']} of {facts['n_points']} points did not converge: see `status` in the file.")
        raise typer.Exit(1)


def _regions(result: ScanResult, levels: Sequence[float]) -> list[dict[str, Any]]:
    """The allowed region of two parameters, or the allowed intervals of each, at each confidence level."""
    found: list[dict[str, Any]] = []
    if len(result.axes) == 2:
        for cl in levels:
            region = contours.regions(result, cl)
            pieces = f"{len(region.polygons)} piece{'s' if len(region.polygons) != 1 else ''}"
            state = "closed" if region.closed else "open at the edge of the grid"
            text = f"{100 * cl:g} % (2 dof): {pieces}, area {region.area:.4g}, {state}"
            text += f"; {region.message}" if region.message else ""
            found.append({"cl": cl, "dof": 2, "area": region.area, "closed": region.closed, "text": text})
    for name in result.axes:
        profile = contours.projection(result, name)
        for cl in levels:
            pieces = profile.interval(cl)
            text = ", ".join(f"[{_end(low, 'open')}, {_end(high, 'open')}]" for low, high in pieces)
            entry = {"cl": cl, "dof": 1, "parameter": name, "intervals": pieces}
            found.append({**entry, "text": f"{100 * cl:g} % (1 dof) {name}: {text or 'nothing in the grid'}"})
    return found


@command
def contours_(
    files: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="Files of scans of the same parameters.")],
    cl: Levels = [0.6827, 0.90],  # noqa: B006
    label: Annotated[list[str], typer.Option(help="Name of a scan in the figure, in the order of the files.")] = [],  # noqa: B006
    exclusion: Annotated[
        bool, typer.Option("--exclusion", help="Limits on a coupling at each mass, at the first level.")
    ] = False,
    projections: Annotated[bool, typer.Option("--projections", help="One-dimensional profiles as well.")] = False,
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Regions and limits of scans on disk, one or several in one figure."""
    _check_outputs(plot, json)
    for level in cl:
        contours.threshold(level)
    scans = {str(file): ScanResult.load(file) for file in files}
    data = {file: {"facts": result.facts, "regions": _regions(result, cl)} for file, result in scans.items()}
    if not _emit(json, data):
        for file, entry in data.items():
            out.print(f"{file}: {' + '.join(entry['facts']['datasets'])}", style="bold", soft_wrap=True)
            for region in entry["regions"]:
                out.print(f"    {region['text']}", soft_wrap=True)
    if plot:
        from . import plots

        results, names = list(scans.values()), label or None
        if exclusion:
            figure = plots.exclusions(results, cl[0], labels=names)
        elif len(results[0].axes) == 2:
            figure = plots.plane(results, cl, labels=names, projections=projections)
        else:
            figure = plots.projections(results, labels=names)
        plots.save(figure, plot)


@command
def compare(
    files: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="JSON of `interval`, folders or patterns (*.json).")
    ],
    label: Annotated[
        list[str], typer.Option(metavar="DATA=TEXT", help="What data sets, as DATASET + DATASET, are called.")
    ] = [],  # noqa: B006
    cl: Annotated[
        list[float], typer.Option(help="Confidence level of the table, repeatable; the highest if left out.")
    ] = [],  # noqa: B006
    table: Annotated[Path | None, typer.Option("--table", metavar="FILE", help="Write the table as Markdown.")] = None,
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Intervals of many parameters from many data, in one table and one figure."""
    _check_outputs(plot, json)
    if table is not None:
        check_output(table)
    found = report.by_parameter(_intervals(files))
    names = dict(item.rsplit("=", 1) for item in label if "=" in item)
    if len(names) < len(label):
        raise InvalidValueError(f"Option `--label` must read DATA=TEXT, but was {label}.")
    data = list(dict.fromkeys([*names, *(key for of in found.values() for key in of)]))
    rows = [
        {
            "parameter": f"{name}, {level:.6g}" if len(cl) > 1 else name,
            **{names.get(d, d): _cell(of.get(d), level) for d in data},
        }
        for name, of in found.items()
        for level in cl or [None]
    ]
    if not _emit(json, {"parameters": found}):
        _print_rows("intervals", rows)
    if table is not None:
        text = report.markdown([*rows[0]], [[*row.values()] for row in rows])
        write_atomically(table, lambda temporary: temporary.write_text(f"{text}\n"))
    if plot:
        from . import plots

        named = {name: {names.get(d, d): report.levels(of[d]) for d in data if d in of} for name, of in found.items()}
        plots.save(plots.forest(named), plot)


def _intervals(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The intervals in files, folders (in the order in which they were made) and patterns (in that of their names)."""
    found = []
    for file in files:
        several = file.is_dir() or "*" in file.name
        if file.is_dir():
            paths = sorted(file.glob("*.json"), key=lambda f: f.stat().st_mtime_ns)
        else:
            paths = sorted(file.parent.glob(file.name)) if several else [file]
        for path in paths:
            try:
                content = load_json(path)
            except (OSError, ValueError) as error:
                raise InvalidValueError(f"File {path} must be JSON of `interval --json`, but: {error}.") from None
            if isinstance(content, dict) and content.get("command") == "interval":
                found.append(content)
            elif not several:
                raise InvalidValueError(f"File {path} must be JSON of `interval --json`, but is not.")
    if not found:
        raise InvalidValueError(f"There is no result of `interval` in {', '.join(map(str, files))}.")
    return found


def _cell(result: Mapping[str, Any] | None, cl: float | None) -> str:
    if result is None:
        return ""
    levels = report.levels(result)
    if cl is not None and cl not in levels:
        known = ", ".join(f"{level:g}" for level in levels)
        raise InvalidValueError(f"Option `--cl` must be a level of every result, but was {cl:g}: there is {known}.")
    return report.pieces(levels[max(levels) if cl is None else cl])


@data_command
def toys(
    like: Likelihood,
    values: dict[str, float],
    poi: Annotated[
        list[str],
        typer.Option("--poi", metavar="NAME=VALUE", help="Value under test; repeatable; none: goodness of fit."),
    ] = [],  # noqa: B006
    n: Annotated[int, typer.Option("-n", "--n", help="Number of toys.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    free: Free = [],  # noqa: B006
    out_: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write every toy: .nc; interrupted runs can resume.")
    ] = None,
    resume: Resume = False,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """p-values, coverage and goodness of fit by toys: whole experiments drawn and fitted."""
    if out_ is not None and out_.suffix != ".nc":
        raise InvalidValueError(f"Output file {out_} must end in .nc.")
    if resume and out_ is None:
        raise InvalidValueError("Option `--resume` needs `--out`, the file that was to be written.")
    part = None if out_ is None else check_output(out_).with_name(f"{out_.name}.part")
    where = {"folder": part, "resume": resume, "workers": workers, "scheduler": scheduler}
    result = run_toys(like, analysis.parse_assignments(poi, "--poi"), n, seed, free, values, progress=True, **where)
    if out_ is not None and part is not None:
        result.save(out_)
        shutil.rmtree(part)
    data = {**result.to_dict(), **({} if out_ is None else {"out": str(out_)})}
    if not _emit(json, data):
        if result.p_value:
            tested = ", ".join(f"{name} = {value:g}" for name, value in result.poi.items())
            out.print(f"{tested}: t = {result.t_observed:.3f}", soft_wrap=True)
            p, error = result.p_value
            out.print(f"p = {p:.4f} +- {error:.4f} by toys, {result.asymptotic_p_value:.4f} asymptotically (Wilks)")
            rows = [
                {"confidence level": f"{100 * cl:g} %", "coverage": f"{100 * c:.2f} +- {100 * e:.2f} %"}
                | {"t of toys": f"{result.quantiles[cl][0]:.3f}", "chi2": f"{result.quantiles[cl][1]:.3f}"}
                for cl, (c, e) in result.coverage.items()
            ]
            _print_rows("intervals by the chi2 threshold, and where the threshold should be", rows)
        goodness, error = result.goodness
        asymptotic = result.asymptotic_goodness
        beside = "" if asymptotic is None else f", {asymptotic:.4f} asymptotically"
        out.print(f"goodness of fit: chi2_min {result.chi2_min:.3f}, p = {goodness:.4f} +- {error:.4f} by toys{beside}")
        out.print(f"{result.n} toys, {result.n_failed} failed; {result.seconds:.2f} s")
    if plot:
        from . import plots

        plots.save(plots.toys(result), plot)


@data_command
def feldman_cousins(
    like: Likelihood,
    values: dict[str, float],
    grid: Grid,
    out_: Annotated[Path, typer.Option("--out", metavar="FILE", help="File of the result: .nc or .zarr.")],
    cl: Levels = [0.6827, 0.90],  # noqa: B006
    n_first: Annotated[int, typer.Option(help="Toys of the first round at each point.")] = 100,
    n_max: Annotated[int, typer.Option(help="Largest number of toys at a point.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    free: Free = [],  # noqa: B006
    resume: Resume = False,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Confidence regions by toys at every point of a grid, and by Wilks' theorem beside."""
    axes = analysis.parse_grid(grid, "--grid")
    where = {"out": out_, "resume": resume, "workers": workers, "scheduler": scheduler, "progress": True}
    result = run_feldman_cousins(like, axes, tuple(cl), n_first, n_max, seed, free, values, **where)
    facts = result.scan.facts
    both = {"toys": _regions(result.toys, cl), "Wilks": _regions(result.wilks, cl)}
    numbers = {key: facts[key] for key in ("n_toys", "n_lost", "n_failed", "seconds")}
    data = {**describe(like, "feldman-cousins"), "out": str(out_), "chi2_min": result.scan.chi2_min, **numbers}
    if not _emit(json, {**data, "regions": both}):
        for name, regions in both.items():
            out.print(f"by {name}", style="italic")
            for region in regions:
                out.print(f"    {region['text']}", soft_wrap=True)
        toys_lost = f"{facts['n_toys']} toys, {facts['n_lost']} of them lost"
        out.print(f"{toys_lost}; {facts['n_failed']} points failed; {facts['seconds']:.2f} s; written to {out_}")
    if plot:
        from . import plots

        pair = [result.wilks, result.toys]
        legend: dict[str, Any] = {"labels": ["Wilks", "toys"], "method": "likelihood ratio"}
        figure = plots.plane(pair, cl, **legend) if len(axes) == 2 else plots.projections(pair, **legend)
        plots.save(figure, plot)
    if facts["n_failed"]:
        err.print(f"{facts['n_failed']} points failed: see `status` in the file.")
        raise typer.Exit(1)


@data_command
def forecast(
    like: Likelihood,
    values: dict[str, float],
    free: Free = [],  # noqa: B006
    exposure_factor: Annotated[
        list[float], typer.Option(help="Multiplies the exposure: one for all data sets, or one for each; repeatable.")
    ] = [1.0],  # noqa: B006
    sideband: Annotated[
        list[str], typer.Option(metavar="NAME", help="Pull whose error falls with the exposure; repeatable.")
    ] = [],  # noqa: B006
    cl: Annotated[float, typer.Option(help="Confidence level.")] = 0.90,
    asimov_at: Annotated[
        list[str], typer.Option("--at", metavar="NAME=VALUE", help="Point of the Asimov data; repeatable.")
    ] = [],  # noqa: B006
    json: Json = None,
) -> None:
    """Expected errors and intervals, from the Asimov data of all data sets."""
    at = analysis.parse_assignments(asimov_at, "--at") if asimov_at else None
    exposure = exposure_factor[0] if len(exposure_factor) == 1 else exposure_factor
    result = run_forecast(like, free, values, exposure, at, cl, sideband)
    data = result.to_dict()
    if not _emit(json, data):
        rows = [
            {
                "name": name,
                "value": f"{result.values[name]:.5g}",
                "expected error": _end(result.errors[name], "-"),
                f"{100 * cl:g} %": ", ".join(
                    f"[{_end(low, 'open')}, {_end(high, 'open')}]" for low, high in result.pieces(name, cl)
                ),
                "unit": like.parameters[name].unit,
            }
            for name in result.free
        ]
        _print_rows("forecast", rows)
        for name, factor in result.exposure.items():
            out.print(f"{name}: exposure x {factor:g}")
        out.print(f"{result.message or 'converged'}; {result.seconds:.2f} s", soft_wrap=True)
    if not result.converged:
        err.print(f"The forecast is not reliable: {result.message}.")
        raise typer.Exit(1)


@data_command
def sample(
    like: Likelihood,
    values: dict[str, float],
    free: Free,
    out_: Annotated[Path, typer.Option("--out", metavar="FILE", help="File of the result: .nc, for ArviZ.")],
    prior: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PRIOR",
            help="flat:a:b, log-flat:a:b or normal:mean:sigma[:a:b]; repeatable. Default: flat where it is looked for.",
        ),
    ] = [],  # noqa: B006
    chains: Annotated[int, typer.Option(help="Number of chains.")] = 4,
    draws: Annotated[int, typer.Option(help="Draws of each chain.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Never approximate the likelihood by a folded one.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if the result is not good.")] = False,
    resume: Resume = False,
    plot: PlotOption = None,
    json: Json = None,
) -> None:
    """Posterior of parameters: draws from all modes, with priors, evidence and whether to trust it."""
    priors = analysis.parse_priors(prior, "--prior")
    where = {"out": out_, "resume": resume, "progress": True}
    result = run_sample(like, free, priors, values, chains=chains, draws=draws, seed=seed, exact=exact, **where)
    data = {**posteriors.to_dict(result, like), "out": str(out_)}
    if not _emit(json, data):
        for title, names in (("parameters", free), ("nuisances", [n for n in data["parameters"] if n not in free])):
            rows = [_posterior_row(name, data["parameters"][name], like.parameters[name].unit) for name in names]
            if rows:
                _print_rows(title, rows)
        for name in free:
            out.print(f"prior of {name}: {data['priors'][name]}", soft_wrap=True)
        out.print(
            f"ln Z = {data['log_evidence']:.3f} +- {data['log_evidence_error']:.3f}; "
            f"expected log predictive density {data['elpd_loo']:.2f} +- {data['elpd_loo_se']:.2f} (leave one bin out)"
        )
        state = "good" if not data["complaints"] else "NOT GOOD: " + "; ".join(data["complaints"])
        out.print(
            f"{chains} x {draws} draws, {data['divergences']} divergences, {100 * data['jumped']:.0f} % jumps between "
            f"modes; {state}; {data['seconds']:.2f} s; written to {out_}",
            soft_wrap=True,
        )
    if plot:
        from . import plots, posterior_plots

        plots.save(posterior_plots.corner(result, free), plot)
    if strict and data["complaints"]:
        err.print(f"The posterior is not good: {'; '.join(data['complaints'])}.", soft_wrap=True)
        raise typer.Exit(1)


def _posterior_row(name: str, row: dict[str, Any], unit: str) -> dict[str, str]:
    pieces = ", ".join(f"[{low:.5g}, {high:.5g}]" for low, high in row["hdi90_pieces"])
    return {
        "name": name,
        "mean": f"{row['mean']:.5g}",
        "sd": f"{row['sd']:.3g}",
        "densest 90 %": pieces,
        "ESS": f"{row['ess_bulk']:.0f}",
        "R-hat": f"{row['r_hat']:.3f}",
        "unit": unit,
    }


@command
def run(
    file: Annotated[Path, typer.Argument(metavar="ANALYSIS.toml", help="Analysis file.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue interrupted scans.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and do nothing.")] = False,
) -> None:
    """Run the commands of an analysis file, one after the other."""
    group: Any = typer.main.get_command(app)
    for _, _, words in analysis.read_runs(file, group.commands, resume):
        out.print(f"cevjax {shlex.join(words)}", style="bold", soft_wrap=True)
        if not dry_run:
            status = group.main(words, prog_name="cevjax", standalone_mode=False)
            if status:
                raise typer.Exit(status)


@command
def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(metavar="[STUDY...]", help="Studies, by name or folder; a list of all if left out."),
    ] = [],  # noqa: B006
    all_: Annotated[bool, typer.Option("--all", help="All studies of the package.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only the rows that take little time.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Use no result of an earlier run of the same code.")] = False,
    out_: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write results.json and figures to FOLDER/STUDY."),
    ] = None,
    json: Json = None,
) -> None:
    """Published results beside cevjax's: the founding papers, or your own study."""
    if not names and not all_:
        rows = [_study_row(_study(name)) for name in studies.study_names()]
        if not _emit(json, {"studies": rows}):
            _print_rows("studies", rows)
        return
    if quick and out_ is not None:
        raise InvalidValueError("Option `--out` writes the results of everything, so `--quick` must not go with it.")
    _check_outputs(None, json)
    chosen = [_study(name) for name in dict.fromkeys([*names, *(studies.study_names() if all_ else ())])]
    reports, failed = {}, False
    for study in chosen:
        asked = study.quick() if quick else study
        with _workplace(study.name) as work:
            results, faults = _run_study(asked, work, anew)
            comparisons = [studies.compare(row, results) for row in asked.rows]
            reports[study.name] = studies.summary(asked, comparisons, results)
            if json != "-":
                _print_study(asked, comparisons)
            if out_ is not None:
                _publish(study, work, out_ / study.name, reports[study.name], comparisons)
        for name in faults:
            err.print(f"Run {name} of {study.name} did not end well: cevjax {shlex.join(faults[name])}", soft_wrap=True)
        failed = failed or bool(faults)
    _emit(json, reports)
    if failed:
        raise typer.Exit(1)


def _study(name: str) -> studies.Study:
    group: Any = typer.main.get_command(app)
    return studies.read_study(name, group.commands)


def _study_row(study: studies.Study) -> dict[str, Any]:
    published = sum(row.published is not None for row in study.rows)
    return {"name": study.name, "rows": len(study.rows), "published": published, "title": study.title}


@contextlib.contextmanager
def _workplace(name: str) -> Iterator[Path]:
    """A folder for the results of runs, which the next time are found there; a passing one if there is no cache."""
    with contextlib.ExitStack() as stack:
        place = cache.cache_dir(f"studies/{name}") or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for part in ("runs", "scans", "figures"):
            (place / part).mkdir(exist_ok=True)
        yield place.resolve()


RUNS_OF_A_CACHE = 16
"""After so many runs compiled functions are dropped: each keeps memory maps, of which a process may have 65,530."""


def _run_study(study: studies.Study, work: Path, anew: bool) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The JSON of each run (None if there is none), and the words of the runs that failed."""
    results: dict[str, Any] = {}
    faults: dict[str, list[str]] = {}
    for number, run in enumerate(study.runs, start=1):
        reads = study.runs[: number - 1] if run.words[0] in ("contours", "compare") else ()
        seal = studies.stamp(run, reads)
        results[run.name] = None if anew else studies.kept(work, run, seal)
        if results[run.name] is None:
            began = time.perf_counter()
            status, results[run.name] = _run_silently(run, work, seal)
            where = f"[{number}/{len(study.runs)}] {study.name}: {run.name}"
            err.print(f"{where}, {time.perf_counter() - began:.1f} s", style="dim", soft_wrap=True)
            if status:
                faults[run.name] = run.words
            if number % RUNS_OF_A_CACHE == 0:
                jax.clear_caches()
    return results, faults


def _run_silently(run: analysis.Run, work: Path, seal: str) -> tuple[int, dict[str, Any] | None]:
    """Exit status and JSON of a command; both are kept, and the seal if it ended well."""
    group: Any = typer.main.get_command(app)
    stamp, result = studies.record(work, run)
    for file in (stamp, result):
        file.unlink(missing_ok=True)
    words = [*run.words, "--json", str(result)]
    if "--out" in words and (work / f"{words[words.index('--out') + 1]}.part").exists():
        words.append("--resume")
    out.quiet = True
    try:
        with contextlib.chdir(work):
            status = group.main(words, prog_name="cevjax", standalone_mode=False) or 0
    finally:
        out.quiet = False
    if status == 0:
        write_atomically(stamp, lambda temporary: temporary.write_text(seal))
    return status, load_json(result) if result.exists() else None


VERDICTS = {
    studies.AGREE: "green",
    studies.WITHIN: "yellow",
    studies.DIFFERS: "red",
    studies.FAILED: "bold red",
    studies.UNPUBLISHED: "dim",
}


def _print_study(study: studies.Study, comparisons: Sequence[studies.Comparison]) -> None:
    out.print(f"{study.name}: {study.title} ({study.source})", style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in studies.HEADER:
        table.add_column(column, overflow="fold")
    for comparison in comparisons:
        *cells, verdict = comparison.cells()
        table.add_row(*cells, Text(verdict, style=VERDICTS[verdict]))
    out.print(table)
    counts = Counter(comparison.verdict for comparison in comparisons)
    out.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]), end="\n\n")


def _publish(
    study: studies.Study, work: Path, folder: Path, found: dict[str, Any], comparisons: Sequence[studies.Comparison]
) -> None:
    """Results, figures and tables into a folder, and what its README has a place for into that."""
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / "results.json", found)
    parts = studies.tables(comparisons)
    for file in studies.to_publish(study):
        if not (work / file).exists():
            continue  # of a run that failed, which is said
        shutil.copyfile(work / file, folder / file.name)
        if file.suffix == ".md":
            parts[file.name] = (work / file).read_text().rstrip()
    readme = folder / "README.md"
    if readme.is_file():
        text = studies.fill(readme.read_text(), parts)
        write_atomically(readme, lambda temporary: temporary.write_text(text))


# ``cevjax data``: the releases behind the data sets
app.add_typer(data_app)
release_command = functools.partial(command, group=data_app)


@release_command
def data_list(json: Json = None) -> None:
    """List the data sets: whether their embedded files are right and their releases are fetched."""
    rows = [_data_row(name) for name in releases.manifest_names()]
    if not _emit(json, {"datasets": rows}):
        _print_rows("data sets", rows)


def _data_row(name: str) -> dict[str, str]:
    files = releases.verify(name)
    embedded, release = ([f.state for f in files if f.kind == kind] for kind in ("embedded", "release"))
    if not release:
        condition = "nothing to fetch"
    elif "wrong hash" in release:
        condition = "damaged"
    elif "missing" in release:
        condition = "incomplete" if "ok" in release else "not fetched"
    else:
        condition = "fetched"
    return {
        "name": name,
        "title": releases.read_manifest(name).title,
        "embedded": "ok" if set(embedded) <= {"ok"} else "damaged",
        "release": condition,
    }


@release_command
def data_info(name: Annotated[str, typer.Argument(metavar="NAME", help="Data set.")], json: Json = None) -> None:
    """Tell where a data set comes from, what of it is embedded and what its release adds."""
    manifest, files = releases.read_manifest(name), releases.verify(name)
    state = _data_row(name)
    facts = {
        "title": manifest.title,
        "citation": manifest.citation,
        "source": manifest.source,
        "doi": manifest.doi,
        "licence": manifest.licence,
        "embedded": list(manifest.derived_sha256),
        "units": manifest.units,
        "derived_with": manifest.derived_with,
        "adds": manifest.adds,
        "release": list(manifest.release_sha256),
        "urls": list(manifest.release),
        "folder": str(releases.release_folder(name)) if manifest.release else "",
    }
    if not _emit(json, {"name": name, **facts, "files": [f._asdict() for f in files]}):
        out.print(name, style="bold")
        for key, value in facts.items():
            text = ", ".join(value) if isinstance(value, list) else value
            if text:
                condition = f" ({state[key]})" if key in ("embedded", "release") else ""
                out.print(f"    {key.replace('_', ' ')}{condition}: {text}", soft_wrap=True)


@release_command
def data_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Data sets.")],
    mirror: Annotated[
        list[str],
        typer.Option(metavar="URL", help="Fetch from here instead; {file} stands for the file's name; repeatable."),
    ] = [],  # noqa: B006
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep releases here, as CEVJAX_RELEASES=FOLDER does; default the cache."),
    ] = None,
) -> None:
    """Download releases: what is there is kept, what was begun is continued, what is wrong is replaced."""
    counts = {name: len(releases.read_manifest(name).release_sha256) for name in names}
    for name, count in counts.items():
        with _download_bar() as progress:
            folder = releases.fetch(name, mirror, to, progress)
        out.print(f"{name}: {count} files in {folder}", soft_wrap=True)


@contextlib.contextmanager
def _download_bar() -> Iterator[releases.Progress]:
    """What to tell about a download, for a bar on standard error where that is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        err.show_cursor()  # an interrupt ends the process at once and could not bring it back
        task = bar.add_task("", total=None)
        yield lambda file, here, total: bar.update(task, description=file, completed=here, total=total)


@release_command
def data_verify(
    names: Annotated[list[str], typer.Argument(metavar="[NAME...]", help="Data sets; all if left out.")] = [],  # noqa: B006
) -> None:
    """Check the embedded and the fetched files against their hashes; exit status 1 if one is wrong."""
    results = {name: releases.verify(name) for name in names or releases.manifest_names()}
    damaged = []
    for name, files in results.items():
        absent = [f for f in files if f.kind == "release" and f.state == "missing"]
        present = [f for f in files if f not in absent]
        damaged += [name for f in present if f.state != "ok"]
        _print_rows(name, [f._asdict() for f in present])
        if absent:
            out.print(f"Not fetched: {len(absent)} files of the release; `cevjax data fetch {name}` does.\n")
    if damaged:
        which = ", ".join(dict.fromkeys(damaged))
        err.print(f"Wrong files of {which}: fetch the release again; if embedded ones are, reinstall cevjax.")
        raise typer.Exit(1)


def _grid(text: str, option: str) -> np.ndarray:
    try:
        low, high, count = text.split(":")
        ends, n = (float(low), float(high)), int(count)
    except ValueError:
        ends, n = (0.0, 0.0), 0
    if n < 1 or not all(np.isfinite(end) and end > 0 for end in ends):
        raise InvalidValueError(f"Option `{option}` must read a:b:n with 0 < a, b and n >= 1, but was {text!r}.")
    return np.linspace(*ends, n)


def _check_outputs(plot: Path | None, json: str | None) -> None:
    """Refuse an output that cannot be written before the work and not after it."""
    files: list[Path] = []
    if plot:
        from . import plots

        files += plots.check_format(plot)
    if json == "":
        raise InvalidValueError("Option `--json` must name a file, or - for standard output, but was empty.")
    if json and Path(json) in files:
        raise InvalidValueError(f"Options `--plot` and `--json` must name different files, but were both {json}.")
    for path in (*files, *([Path(json)] if json and json != "-" else [])):
        check_output(path)


def _emit(json: str | None, data: dict[str, Any]) -> bool:
    """Write JSON where asked; True if standard output is taken by it."""
    if json == "-":
        sys.stdout.write(to_json(data))
        return True
    if json:
        save_json(json, data)
    return False


def _save_spectra(path: Path, like: Likelihood, expected: dict[str, dict[str, np.ndarray]]) -> None:
    from . import plots

    for m in like.measurements:
        name = path if len(like.measurements) == 1 else path.with_stem(f"{path.stem}-{m.name}")
        figure = plots.spectra(m, expected[m.name], f"{m.name} ({m.citation})", remarks(like).get(m.name, ""))
        plots.save(figure, name)


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    out.print(title, style="italic", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(rows[0] if rows else ()):
        table.add_column(column, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(f"{v:g}" if isinstance(v, float) else str(v) for v in row.values()))
    out.print(table)
    out.print()


def _print_counts(measurement: Measurement, components: dict[str, float]) -> None:
    counts = {**{c: f"{n:.1f}" for c, n in components.items()}, "sum": f"{sum(components.values()):.1f}"}
    counts["observed"] = f"{float(np.sum(measurement.observed)):.6g}"
    _print_rows(_title(measurement), [{"component": c, measurement.unit: text} for c, text in counts.items()])


def _title(measurement: Measurement) -> str:
    """Name, statistic and choices."""
    words = [f"{key}={value}" for key, value in (("statistic", measurement.statistic), *measurement.choices)]
    return f"{measurement.name} ({', '.join(words)})"


def _end(value: float | None, missing: str) -> str:
    return missing if value is None else f"{value:.5g}"


def _print_fit(result: FitResult) -> None:
    data = result.to_dict()
    for title in ("parameters", "nuisances"):
        rows = [
            {
                "name": name,
                "value": f"{entry['value']:.5g}",
                "error": _end(entry["error"], "-"),
                "unit": entry["unit"],
                "": "at its bound" if name in result.at_bound else "",
            }
            for name, entry in data[title].items()
        ]
        if rows:
            _print_rows(title, rows)
    for m in result.likelihood.measurements:
        _print_counts(m, data["expected"][m.name])
    if result.dropped:
        out.print(f"Left out, because a free parameter describes the same: {', '.join(result.dropped)}")
    for other in result.other_minima[:3]:
        where = ", ".join(f"{name} = {other.values[name]:.4g}" for name in result.free)
        out.print(f"Another minimum: chi2 {other.chi2:.3f} at {where}")
    probability = "" if result.p_value is None else f", p = {result.p_value:.3f}"
    out.print(
        f"chi2_min {result.chi2_min:.3f} for {result.ndof} degrees of freedom{probability}; "
        f"{result.message}; {result.seconds:.2f} s"
    )


def main() -> None:
    """Entry point of the ``cevjax`` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    app()


def _stop(number: int, _: object) -> None:
    """End at once: compiled code does not pass on an exception from a signal handler reliably."""
    for temporary in tuple(UNFINISHED):
        temporary.unlink(missing_ok=True)
    message = jobs.interrupted() or "Interrupted: no output was written."
    os.write(2, f"\n{message}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
