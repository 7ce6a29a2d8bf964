"""What the parts of a measurement share while it is built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidValueError, ReleaseFileError
from ..parameters import Parameter, pull, size_pull
from ..registry import DESCRIPTION as FILE
from ..response import PolynomialQuenching, Quenching
from ..tables import read_table

if TYPE_CHECKING:
    from .description import Description

DAYS_PER_YEAR = 365.25


class Context:
    """What the parts of a measurement share while it is built: the folder, the exposure, the nuisances."""

    def __init__(self, description: Description, folder: Path, factor: float):
        self.folder, self.factor, self.exposure = folder, factor, description.exposure
        self.name = description.name or folder.resolve().name
        self.prefix = re.sub(r"\W", "_", self.name)
        self.target, self.mass_kg = description.target.target(), description.target.mass_kg
        self.nuisances: dict[str, Parameter] = {}

    def error(self, key: str, message: str) -> InvalidValueError:
        return InvalidValueError(f"File {self.folder / FILE}: key `{key}` {message}.")

    @property
    def days(self) -> float:
        """Exposure in days."""
        if self.exposure is None:
            raise self.error("exposure", "is missing; it must give `days` or `years`, for what is given as a rate")
        days = self.exposure.days if self.exposure.days is not None else (self.exposure.years or 0.0) * DAYS_PER_YEAR
        return days * self.factor

    def curve(self, file: str, what: str, highest: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
        """The two columns of a table; the first increases, nothing is below 0, nor the second above ``highest``."""
        path = self.folder / file
        x, y = read_table(path, 2, what, delimiter=",").T
        if len(x) < 2 or not np.all(np.diff(x) > 0) or x[0] < 0 or np.any((y < 0) | (y > highest)):
            limit = "" if highest == np.inf else f" or above {highest:g} in the second"
            raise ReleaseFileError(
                f"File {path}: expected at least two lines ({what}), with a first column that increases and no number "
                f"below 0{limit}."
            )
        return x, y

    def bins(self, file: str, rows: int, columns: Sequence[int], what: str) -> np.ndarray:
        """A table with one line for each energy bin, of one of several widths."""
        path = self.folder / file
        table = read_table(path, None, what, delimiter=",")
        if len(table) != rows or table.shape[1] not in columns:
            widths = " or ".join(map(str, columns))
            raise ReleaseFileError(
                f"File {path}: expected {rows} lines, one for each energy bin, of {widths} numbers ({what}), but found "
                f"{table.shape[0]} of {table.shape[1]}."
            )
        return table

    def pull(self, suffix: str, description: str) -> str:
        """A nuisance of this measurement alone; its name."""
        return self._add(replace(pull(f"{self.prefix}_{suffix}", description), private=self.name))

    def norm(self, own: str, sigma: float, shared: str | None = None) -> tuple[str, float]:
        """A nuisance on a size: of this measurement alone, or in common under the name ``shared``."""
        parameter = size_pull(shared or f"{self.prefix}_{own}", sigma)
        return self._add(parameter if shared else replace(parameter, private=self.name)), sigma

    def _add(self, parameter: Parameter) -> str:
        if self.nuisances.setdefault(parameter.name, parameter) != parameter:
            raise self.error("nuisance", f"{parameter.name!r} must have the same meaning and error wherever it is used")
        return parameter.name

    def quenching_pull(self, relative_error: float | None) -> str | None:
        return self.pull("quenching", f"quenching, {100 * relative_error:g} %") if relative_error else None

    def polynomial(
        self, coefficients: Sequence[float], variations: Sequence[Sequence[float]], relative_error: float | None
    ) -> Quenching:
        names = [self.pull(f"quenching_{k}", f"quenching eigen-variation {k}") for k in range(len(variations))]
        shifts = [list(shift) for shift in variations]
        if name := self.quenching_pull(relative_error):
            names.append(name)
            shifts.append([(relative_error or 0.0) * c for c in coefficients])
        return PolynomialQuenching(np.array(coefficients), np.array(shifts), tuple(names))
