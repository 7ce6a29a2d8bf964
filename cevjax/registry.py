"""Plug-ins found by name: the package's own, discovered from its files, and those of installed packages.

An interaction is a class with a ``name`` in a module of :mod:`cevjax.interactions`; a measurement is a module of
:mod:`cevjax.datasets` with a function ``load(**choices)``, or a folder that :mod:`cevjax.detector` understands. Other
packages offer theirs through the entry-point groups ``cevjax.interactions`` and ``cevjax.datasets``.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidValueError, UnknownNameError, check_name
from .tables import data_dir

if TYPE_CHECKING:
    from .interactions.base import Interaction
    from .measurement import Measurement


DESCRIPTION = "measurement.toml"
"""The file of a folder that describes a user's own detector."""


def _modules(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if m.name != "base" and not m.name.startswith("_"))


@cache
def _own_interactions() -> dict[str, type[Interaction]]:
    from .interactions.base import Interaction

    found: dict[str, type[Interaction]] = {}
    for module_name in _modules("cevjax.interactions"):
        module = importlib.import_module(f"cevjax.interactions.{module_name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Interaction) and cls.__module__ == module.__name__ and "name" in vars(cls):
                found[cls.name] = cls
    return found


@cache
def _offered(group: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=group)}


def _load(group: str, name: str) -> Any:
    """What another distribution offers, if it can be had."""
    point = _offered(group)[name]
    try:
        return point.load()
    except Exception as error:
        raise InvalidValueError(f"Plug-in {name!r} ({point.value}) cannot be loaded: {error!r}.") from error


def interaction_names() -> tuple[str, ...]:
    """Names of all interactions."""
    return tuple(dict.fromkeys((*_own_interactions(), *_offered("cevjax.interactions"))))


def interaction_class(name: str) -> Callable[..., Interaction]:
    """The interaction called ``name``.

    Raises:
        UnknownNameError: no such interaction; the message offers the nearest name.
    """
    check_name("interaction", name, interaction_names())
    own = _own_interactions()
    return own[name] if name in own else _load("cevjax.interactions", name)


def check_choices(
    kind: str, name: str, factory: Callable[..., Any], choices: Iterable[str]
) -> Mapping[str, inspect.Parameter]:
    """The choices that a plug-in offers, if all of ``choices`` are among them.

    Raises:
        UnknownNameError: one is not; the message offers the nearest.
        InvalidValueError: the plug-in is nothing that could be called.
    """
    try:
        known = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        raise InvalidValueError(f"Plug-in {name!r} must be a class or a function, but is {factory!r}.") from None
    for choice in choices:
        check_name(f"choice of {kind} {name!r}", choice, known)
    return known


def check_parameter(name: str, parameters: Iterable[str]) -> str:
    """``name``, if it is one of ``parameters``.

    Raises:
        UnknownNameError: it is not; the message says which interaction it belongs to, or offers the nearest name.
    """
    parameters = list(parameters)
    if name in parameters:
        return name
    for owner, cls in _own_interactions().items():
        if any(parameter.name == name for parameter in cls().parameters):
            hint = (
                f" It belongs to the interaction {owner!r}, which is not part of the model (add `{cls.__name__}()`, "
                f"from the shell `--interaction {owner}`), or is with other choices."
            )
            raise UnknownNameError("parameter", name, parameters, hint)
    raise UnknownNameError("parameter", name, parameters)


def dataset_names() -> tuple[str, ...]:
    """Names of all measurements with data."""
    own = (name.replace("_", "-") for name in _modules("cevjax.datasets"))
    return tuple(dict.fromkeys((*own, *_offered("cevjax.datasets"))))


def forecast_names() -> tuple[str, ...]:
    """Names of the detectors to come that the package describes: the folders in ``data/future``."""
    return tuple(sorted(file.parent.name for file in data_dir("future").glob(f"*/{DESCRIPTION}")))


def dataset_loader(name: str | os.PathLike[str]) -> Callable[..., Measurement]:
    """The function that loads the measurement called ``name``, or described by the folder ``name``.

    Raises:
        UnknownNameError: no such data set; the message offers the nearest name.
        InvalidValueError: neither a name nor a path.
    """
    if isinstance(name, os.PathLike):
        return partial(_folder_loader(), Path(name))
    if not isinstance(name, str):
        raise InvalidValueError(f"A data set must be given by its name or the path of a folder, but was {name!r}.")
    module_name = name.replace("-", "_")
    if name in dataset_names():
        if module_name in _modules("cevjax.datasets"):
            return importlib.import_module(f"cevjax.datasets.{module_name}").load
        return _load("cevjax.datasets", name)
    if name in forecast_names():
        return partial(_folder_loader(), data_dir("future") / name)
    if any(separator in name for separator in "/\\") or (name and Path(name).exists()):
        return partial(_folder_loader(), Path(name))
    raise UnknownNameError("data set", name, (*dataset_names(), *forecast_names()))


def _folder_loader() -> Callable[..., Measurement]:
    from .detector import load_folder

    return load_folder
