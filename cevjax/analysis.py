"""From the words of a command line or a file to a likelihood."""

from __future__ import annotations

import inspect
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any, NamedTuple

import numpy as np

from .datasets import load
from .errors import InvalidValueError, check_name
from .interactions import Interaction, StandardModel, interaction
from .likelihood import Likelihood
from .measurement import Measurement
from .priors import Prior, parse_prior
from .registry import check_choices, dataset_loader, interaction_class
from .tables import read_toml


def parse_plugin(text: str, kind: str = "data set") -> tuple[str, dict[str, Any]]:
    """Name and choices of ``name:key=value,key=value``; a value ``a:b:n`` is n equal bins from a to b.

    >>> parse_plugin("coherent-csi-2021:form_factor=fermi")
    ('coherent-csi-2021', {'form_factor': 'fermi'})
    >>> parse_plugin("coherent-csi-2021:pe_edges=0:60:3")[1]
    {'pe_edges': (0.0, 20.0, 40.0, 60.0)}
    """
    if kind == "data set" and Path(text).exists():
        return text, {}
    found = re.search(r":(?=[\w-]+=)", text)  # a path may hold other colons
    name, rest = (text[: found.start()], text[found.end() :]) if found else text.partition(":")[::2]
    choices = {}
    for item in filter(None, rest.split(",")):
        key, separator, value = item.partition("=")
        if not separator or not key or not value:
            raise InvalidValueError(f"Choices of {kind} {name!r} must read key=value,key=value, but were {rest!r}.")
        key, value = key.strip().replace("-", "_"), _range(value.strip())
        if choices.setdefault(key, value) != value:
            raise InvalidValueError(f"Choices of {kind} {name!r} must be made once, but {key!r} came twice.")
    return name, choices


def typed_choices(kind: str, name: str, factory: Callable[..., Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Choices whose words are turned into what ``factory`` wants: ``true`` and ``false``, whole numbers.

    Raises:
        UnknownNameError: a choice that the plug-in does not offer.
        InvalidValueError: a word that is not of the kind that is wanted.
    """
    known = check_choices(kind, name, factory, choices)
    typed = dict(choices)
    for key, value in choices.items():
        annotation = str(known[key].annotation)
        if not isinstance(value, str):
            continue
        if annotation.startswith(("bool", "<class 'bool'")):
            if value.lower() not in ("true", "false"):
                raise InvalidValueError(f"Choice `{key}` of {kind} {name!r} must be true or false, but was {value!r}.")
            typed[key] = value.lower() == "true"
        elif annotation.startswith(("int", "<class 'int'")):
            if not re.fullmatch(r"[-+]?\d+", value):
                raise InvalidValueError(f"Choice `{key}` of {kind} {name!r} must be a whole number, but was {value!r}.")
            typed[key] = int(value)
    return typed


def _range(text: str) -> str | tuple[float, ...]:
    if not re.fullmatch(r"[-+.\de]+:[-+.\de]+:\d+", text):
        return text
    low, high, bins = text.split(":")
    return tuple(float(x) for x in np.linspace(float(low), float(high), int(bins) + 1))


def parse_assignments(items: Sequence[str], option: str) -> dict[str, float]:
    """Values of repeated ``NAME=VALUE``.

    >>> parse_assignments(["sin2_theta_w=0.23"], "--set")
    {'sin2_theta_w': 0.23}
    """
    values: dict[str, float] = {}
    for item in items:
        name, separator, text = item.partition("=")
        try:
            number = float(text)
        except ValueError:
            number, separator = 0.0, ""
        if not separator or not name:
            raise InvalidValueError(f"Option `{option}` must read NAME=VALUE with a number, but was {item!r}.")
        if name.strip() in values and values[name.strip()] != number:
            raise InvalidValueError(f"Option `{option}` must give each parameter once, but `{name}` came twice.")
        values[name.strip()] = number
    return values


def parse_grid(items: Sequence[str], option: str) -> dict[str, np.ndarray]:
    """Values of repeated ``NAME=a:b:n`` or ``NAME=a:b:n:log``.

    >>> parse_grid(["sin2_theta_w=0.2:0.3:3"], "--grid")["sin2_theta_w"]
    array([0.2 , 0.25, 0.3 ])
    >>> parse_grid(["m_zprime=0.1:10:3:log"], "--grid")["m_zprime"]
    array([ 0.1,  1. , 10. ])
    """
    grid: dict[str, np.ndarray] = {}
    for item in items:
        name, _, text = item.partition("=")
        found = re.fullmatch(r"([-+.\deE]+):([-+.\deE]+):(\d+)(:log)?", text.strip())
        try:
            low, high, count = (float(found[1]), float(found[2]), int(found[3])) if found else (1.0, 0.0, 0)
        except ValueError:
            low, high, count = 1.0, 0.0, 0
        logarithmic = bool(found and found[4])
        ordered = low < high or (low == high and count == 1)
        if not name or count < 1 or not ordered or (logarithmic and low <= 0):
            raise InvalidValueError(
                f"Option `{option}` must read NAME=a:b:n or NAME=a:b:n:log with a < b (and 0 < a with log) and n of at "
                f"least 1, but was {item!r}."
            )
        if name.strip() in grid:
            raise InvalidValueError(f"Option `{option}` must give each parameter once, but `{name}` came twice.")
        grid[name.strip()] = np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)
    return grid


def parse_priors(items: Sequence[str], option: str) -> dict[str, Prior]:
    """Priors of repeated ``NAME=KIND:NUMBERS``.

    >>> parse_priors(["g_zprime=log-flat:1e-6:1e-2"], "--prior")
    {'g_zprime': LogFlat(low=1e-06, high=0.01)}
    """
    priors: dict[str, Prior] = {}
    for item in items:
        name, separator, text = item.partition("=")
        name = name.strip()
        if not separator or not name:
            raise InvalidValueError(f"Option `{option}` must read NAME=PRIOR, but was {item!r}.")
        if name in priors:
            raise InvalidValueError(f"Option `{option}` must give each parameter once, but `{name}` came twice.")
        try:
            priors[name] = parse_prior(text)
        except InvalidValueError as error:
            raise InvalidValueError(f"Option `{option}` of `{name}`: {error}") from None
    return priors


def build_interaction(names: Sequence[str] = (), couplings: str | None = None, model: str | None = None) -> Interaction:
    """The standard model plus the interactions in ``names``, each ``name`` or ``name:key=value,...``.

    Args:
        names: of interactions.
        couplings: of the standard model; None for those of the statistic.
        model: the choice ``model`` of the one interaction that has it.

    Raises:
        InvalidValueError: none or several of the interactions have models; or one came twice.
    """
    standard: dict[str, Any] = {"couplings": couplings} if couplings else {}
    chosen: dict[str, dict[str, Any]] = {}
    for text in dict.fromkeys(names):
        name, words = parse_plugin(text, "interaction")
        choices = typed_choices("interaction", name, interaction_class(name), words)
        if name == StandardModel.name:
            standard = {**choices, **standard}
        elif name in chosen:
            raise InvalidValueError(f"Interaction {name!r} must be named once, but came twice.")
        else:
            chosen[name] = choices
    if model is not None:
        having = [name for name in chosen if "model" in inspect.signature(interaction_class(name)).parameters]
        if len(having) != 1:
            raise InvalidValueError(
                f"Option `--model` must go with one interaction that has models, but there are {having or 'none'}: "
                "write --interaction NAME:model=MODEL."
            )
        chosen[having[0]] = {"model": model, **chosen[having[0]]}
    total: Interaction = StandardModel(**standard)
    for name, choices in chosen.items():
        total = total + interaction(name, **choices)
    return total


def build_likelihood(
    datasets: Sequence[str],
    interactions: Sequence[str] = (),
    statistic: str | None = None,
    couplings: str | None = None,
    form_factor: str | None = None,
    asimov: Mapping[str, float] | None = None,
    *,
    model: str | None = None,
    es: bool | None = None,
) -> Likelihood:
    """The likelihood that the options of a command describe.

    Args:
        datasets: ``name`` or ``name:key=value,...`` each.
        statistic, form_factor, es: for every data set that does not choose its own; None for no choice.
        interactions, couplings, model: as in :func:`build_interaction`.
        asimov: replace the data by the expectation at nominal with these values.
    """
    common = {"statistic": statistic, "form_factor": form_factor, "es": es}
    common = {key: value for key, value in common.items() if value is not None}
    chosen = []
    for text in datasets:
        name, words = parse_plugin(text)
        chosen.append((name, typed_choices("data set", name, dataset_loader(name), words)))
    offered = {name: inspect.signature(dataset_loader(name)).parameters for name, _ in chosen}
    measurements: list[Measurement] = []
    for name, choices in chosen:
        # scattering on electrons is a choice only where a detector may mistake it for the signal
        skip = {"es"} - set(offered[name]) if any("es" in known for known in offered.values()) else set()
        measurements.append(load(name, **{**{k: v for k, v in common.items() if k not in skip}, **choices}))
    names = [m.name for m in measurements]
    if len(set(names)) < len(names):
        raise InvalidValueError(f"Argument `datasets` must name each data set once, but was {', '.join(names)}.")
    like = Likelihood(measurements, build_interaction(interactions, couplings, model))
    return like if asimov is None else like.asimov(like.nominal(**asimov))


class Run(NamedTuple):
    """One command of an analysis file: its table's name, its variant, and its words."""

    base: str
    variant: str
    words: list[str]

    @property
    def name(self) -> str:
        """That of the table, and of the variant."""
        return f"{self.base}-{self.variant}" if self.variant else self.base


NOT_RUNS = ("study", "row")
"""Tables of an analysis file that say what its results are compared with (:mod:`cevjax.studies`)."""


def read_runs(file: Path, commands: Mapping[str, Any], resume: bool = False) -> list[Run]:
    """The commands of an analysis file.

    The file holds tables ``[[run]]``, each with its ``command`` and that command's options by their long names: a
    repeatable one as a list, ``NAME=VALUE`` options as a table, a switch as true or false. Keys before the first table
    are for all commands that have such an option. ``name`` is what a run is called, and what ``{name}`` in a text
    stands for. ``variants`` are names of tables ``[variant.NAME]`` with further options: the command is run with each
    in turn, or with each combination if there are several lists of them; lists and tables add up.

    Args:
        file: to read.
        commands: {name: command of the command line, with its ``params``}.
        resume: whether to continue what was interrupted.

    Raises:
        InvalidValueError: the file is missing, is no TOML, or a value is not of the kind that is wanted.
        UnknownNameError: no such command, option or variant; the message offers the nearest.
    """
    content = read_analysis(file)
    for table in NOT_RUNS:
        content.pop(table, None)
    variants = content.pop("variant", {})
    runs = content.pop("run", None)
    if runs is None:
        runs, content = [content], {}
    if not isinstance(runs, list) or not runs or not all(isinstance(entry, dict) for entry in runs):
        raise InvalidValueError(f"Analysis file {file} must hold tables [[run]], each with a `command`.")
    if not isinstance(variants, dict) or not all(isinstance(options, dict) for options in variants.values()):
        raise InvalidValueError(f"Variants in {file} must be tables [variant.NAME].")
    known = {name: command for name, command in commands.items() if name not in ("run", "data", "reproduce")}
    used: set[str] = set()
    found: list[Run] = []
    for number, table in enumerate(runs, start=1):
        command = {**content, **table}.get("command")
        if command is None:
            raise InvalidValueError(f"Every [[run]] of {file} must have a `command`: one of {', '.join(known)}.")
        parameters = {
            p.name.rstrip("_").replace("_", "-"): p
            for p in known[check_name("command", command, known)].params
            if p.name
        }
        parameters |= {option.removeprefix("--"): p for p in parameters.values() for option in p.opts}
        base = str(table.get("name", f"{command}-{number}"))
        for variant, entry in _variants(file, table, variants):
            name = f"{base}-{variant}" if variant else base
            for key in entry:
                check_name(f"option of `{command}` in {file}", key.replace("_", "-"), parameters)
            shared = {key: value for key, value in content.items() if key.replace("_", "-") in parameters}
            used |= set(shared)
            arguments, options = [], []
            for key, value in {**shared, **entry}.items():
                parameter = parameters[key.replace("_", "-")]
                target = arguments if parameter.param_type_name == "argument" else options
                target += [word.replace("{name}", name) for word in _words(file, key, parameter, value)]
            if resume and "resume" in parameters and "--resume" not in options:
                options.append("--resume")
            found.append(Run(base, variant, [command, *arguments, *options]))
    for key in content:
        if key not in used and key != "command":
            raise InvalidValueError(f"Key `{key}` of {file} must be an option of one of its commands, but is of none.")
    twice = sorted(name for name, count in Counter(run.name for run in found).items() if count > 1)
    if twice:
        raise InvalidValueError(f"Runs of {file} must have different names, but these came twice: {', '.join(twice)}.")
    return found


def read_analysis(file: Path) -> dict[str, Any]:
    """The content of an analysis file.

    Raises:
        InvalidValueError: it is missing or no TOML.
    """
    try:
        return read_toml(file)
    except FileNotFoundError:
        raise InvalidValueError(f"Analysis file {file} does not exist.") from None
    except (OSError, UnicodeDecodeError, TOMLDecodeError) as error:
        raise InvalidValueError(f"Analysis file {file} cannot be read as TOML: {error}.") from None


def _variants(file: Path, table: dict[str, Any], known: Mapping[str, dict]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Variant and options of each run that a table [[run]] stands for."""
    options = {key: value for key, value in table.items() if key not in ("command", "name", "variants")}
    asked = table.get("variants", [])
    groups = [asked] if isinstance(asked, list) and asked and not isinstance(asked[0], list) else asked
    named = isinstance(groups, list) and all(isinstance(group, list) for group in groups)
    if not named or not all(isinstance(name, str) for group in groups for name in group):
        raise InvalidValueError(f"Key `variants` in {file} must be a list of names or of lists, but was {asked!r}.")
    for names in itertools.product(*groups):
        merged = dict(options)
        for name in names:
            for key, value in known[check_name(f"variant in {file}", name, known)].items():
                before = merged.get(key)
                if isinstance(before, list) and isinstance(value, list):
                    merged[key] = [*before, *value]
                elif isinstance(before, dict) and isinstance(value, dict):
                    merged[key] = {**before, **value}
                elif before is not None:
                    raise InvalidValueError(f"Option `{key}` in {file} is set twice, in the end by variant {name!r}.")
                else:
                    merged[key] = value
        yield "-".join(names), merged


def _words(file: Path, key: str, parameter: Any, value: Any) -> list[str]:
    """An option or argument with its value as on the command line."""
    argument = parameter.param_type_name == "argument"
    if not argument and parameter.is_flag:
        if not isinstance(value, bool):
            raise InvalidValueError(f"Option `{key}` in {file} must be true or false, but was {value!r}.")
        return [parameter.opts[0]] if value else parameter.secondary_opts[:1]
    if isinstance(value, dict):
        value = [f"{name}={text}" for name, text in value.items()]
    if isinstance(value, list) and not (parameter.nargs == -1 if argument else parameter.multiple):
        raise InvalidValueError(f"Option `{key}` in {file} must be one value, but was {value!r}.")
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in values):
        raise InvalidValueError(f"Option `{key}` in {file} must be text or numbers, but was {value!r}.")
    return [word for item in values for word in ((str(item),) if argument else (parameter.opts[0], str(item)))]
