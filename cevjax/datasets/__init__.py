"""Measurement plug-ins: one file each, found by name."""

from __future__ import annotations

import sys
from dataclasses import replace
from os import PathLike
from typing import Any

from ..errors import InvalidValueError
from ..measurement import Measurement
from ..registry import check_choices, dataset_loader


def load(name: str | PathLike[str], /, **choices: Any) -> Measurement:
    """Load a measurement by name, or a user's own from its folder.

    Args:
        name: such as ``coherent-csi-2021``; ``cevjax list datasets`` shows all. Or the path of a folder with a
            ``measurement.toml``, see :mod:`cevjax.detector`.
        choices: keywords of the data set, such as ``statistic="2211.11905"``; see its module in
            :mod:`cevjax.datasets`.

    Raises:
        UnknownNameError: no such data set, or no such choice; the message offers the nearest.

    >>> csi = load("coherent-csi-2021")
    >>> float(csi.observed.sum())
    1578.0
    """
    loader = dataset_loader(name)
    check_choices("data set", str(name), loader, choices)
    measurement = loader(**choices)
    if not isinstance(measurement, Measurement):
        raise InvalidValueError(f"Data set {name!r} must load as a Measurement, but gave {type(measurement).__name__}.")
    chosen = {key: value for key, value in choices.items() if value is not None and key != "statistic"}
    return replace(measurement, choices=tuple((key, str(value)) for key, value in chosen.items()))


def statistics(name: str) -> tuple[str, ...]:
    """Names of the statistics of a data set: the ``STATISTICS`` of its module."""
    module = getattr(dataset_loader(name), "__module__", "")
    return tuple(getattr(sys.modules.get(module), "STATISTICS", ()))
