"""From the words of a command line or a file to a likelihood."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .datasets import load
from .errors import InvalidValueError
from .interactions import Interaction, StandardModel, interaction
from .likelihood import Likelihood
from .measurement import Measurement


def parse_dataset(text: str) -> tuple[str, dict[str, Any]]:
    """Name and choices of ``name:key=value,key=value``; a value ``a:b:n`` is n equal bins from a to b.

    >>> parse_dataset("coherent-csi-2021:form_factor=fermi")
    ('coherent-csi-2021', {'form_factor': 'fermi'})
    >>> parse_dataset("coherent-csi-2021:pe_edges=0:60:3")[1]
    {'pe_edges': (0.0, 20.0, 40.0, 60.0)}
    """
    name, _, rest = text.partition(":")
    choices = {}
    for item in filter(None, rest.split(",")):
        key, separator, value = item.partition("=")
        if not separator or not key or not value:
            raise InvalidValueError(f"Choices of data set {name!r} must read key=value,key=value, but were {rest!r}.")
        key, value = key.strip().replace("-", "_"), _range(value.strip())
        if choices.setdefault(key, value) != value:
            raise InvalidValueError(f"Choices of data set {name!r} must be made once, but {key!r} came twice.")
    return name, choices


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


def build_interaction(names: Sequence[str] = (), couplings: str | None = None) -> Interaction:
    """The standard model plus the interactions called ``names``."""
    total: Interaction = StandardModel(couplings)
    for name in dict.fromkeys(names):
        if name != StandardModel.name:
            total = total + interaction(name)
    return total


def build_likelihood(
    datasets: Sequence[str],
    interactions: Sequence[str] = (),
    statistic: str | None = None,
    couplings: str | None = None,
    form_factor: str | None = None,
    asimov: Mapping[str, float] | None = None,
) -> Likelihood:
    """The likelihood that the options of a command describe.

    Args:
        datasets: ``name`` or ``name:key=value,...`` each.
        interactions: names, added to the standard model.
        statistic, form_factor: for every data set that does not choose its own.
        couplings: of the standard model; None for those of the statistic.
        asimov: replace the data by the expectation at nominal with these values.
    """
    common: dict[str, Any] = {"statistic": statistic, "form_factor": form_factor}
    measurements: list[Measurement] = []
    for text in datasets:
        name, choices = parse_dataset(text)
        measurements.append(load(name, **{**{k: v for k, v in common.items() if v is not None}, **choices}))
    names = [m.name for m in measurements]
    if len(set(names)) < len(names):
        raise InvalidValueError(f"Argument `datasets` must name each data set once, but was {', '.join(names)}.")
    like = Likelihood(measurements, build_interaction(interactions, couplings))
    return like if asimov is None else like.asimov(like.nominal(**asimov))
