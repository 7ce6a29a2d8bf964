"""Reading what data sets are made of: embedded tables, and the files of official releases."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..errors import ReleaseFileError


def data_dir(name: str) -> Path:
    """Folder of an embedded data set: inside the installed package, or in the checkout that is being worked on."""
    installed = Path(str(files("cevjax") / "data" / name))
    return installed if installed.is_dir() else Path(__file__).parents[2] / "data" / name


def read_toml(path: Path) -> dict:
    with path.open("rb") as file:
        return tomllib.load(file)


def read_table(path: Path, columns: int | None = None, what: str = "", delimiter: str | None = None) -> np.ndarray:
    """Numbers of a text table with ``#`` comments.

    Args:
        path: file to read.
        columns: how many numbers each line must hold; None for as many as the first line.
        what: what a line holds, for the error message.
        delimiter: None for white space.

    Raises:
        ReleaseFileError: the file is missing, or a line is not such numbers; the message says file, line and what was
            expected.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise ReleaseFileError(f"File {path} does not exist; expected a table of {what or 'numbers'}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseFileError(f"File {path} cannot be read as text: {error}.") from None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        fields = text.split(delimiter)
        columns = columns or len(fields)
        try:
            row = [float(field) for field in fields]
        except ValueError:
            row = []
        if len(row) != columns or not np.all(np.isfinite(row)):
            expected = f"{columns} finite numbers" + (f" ({what})" if what else "")
            raise ReleaseFileError(f"File {path}, line {number}: expected {expected}, but found {line.strip()!r}.")
        rows.append(row)
    if not rows:
        raise ReleaseFileError(f"File {path} holds no data; expected lines of {columns} numbers ({what}).")
    return np.array(rows)
