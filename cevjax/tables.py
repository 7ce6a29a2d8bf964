"""Tables on disk: those embedded in the package, and the files of official releases."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from .errors import ReleaseFileError


def data_dir(name: str) -> Path:
    """Folder of an embedded data set: inside the installed package, or in the checkout that is being worked on."""
    installed = Path(str(files("cevjax") / "data" / name))
    return installed if installed.is_dir() else Path(__file__).parents[1] / "data" / name


def read_toml(path: Path) -> dict:
    """Contents of a TOML file."""
    with path.open("rb") as file:
        return tomllib.load(file)


def read_table(
    path: Path, columns: int | None = None, what: str = "", delimiter: str | None = None, skip: int = 0
) -> np.ndarray:
    """Numbers of a text table with ``#`` comments.

    Args:
        path: file to read.
        columns: how many numbers each line must hold; None for as many as the first line.
        what: what a line holds, for the error message.
        delimiter: None for white space.
        skip: lines of a header without ``#``.

    Raises:
        ReleaseFileError: the file is missing, or a line is not such numbers; the message says file, line and what was
            expected.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ReleaseFileError(f"File {path} does not exist; expected a table of {what or 'numbers'}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseFileError(f"File {path} cannot be read as text: {error}.") from None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if not text or number <= skip:
            continue
        fields = text.split(delimiter)
        expected = f"{columns} finite numbers" if columns else "finite numbers"
        if delimiter:
            expected += f" separated by {delimiter!r}"
        expected += f" ({what})" if what else ""
        columns = columns or len(fields)
        try:
            row = [float(field) for field in fields]
        except ValueError:
            row = []
        if len(row) != columns or not np.all(np.isfinite(row)):
            raise ReleaseFileError(f"File {path}, line {number}: expected {expected}, but found {line.strip()!r}.")
        rows.append(row)
    if not rows:
        raise ReleaseFileError(f"File {path} holds no data; expected lines of numbers ({what or 'a table'}).")
    return np.array(rows)


def write_table(path: Path, header: str, rows: ArrayLike, delimiter: str = ",") -> None:
    """Numbers as a text table that :func:`read_table` reads back exactly, under one comment line."""
    lines = [f"# {header}", *(delimiter.join(f"{float(x)!r}" for x in row) for row in np.asarray(rows))]
    path.write_text("\n".join(lines) + "\n")


def hashes(paths: Iterable[Path], folder: Path | None = None) -> dict[str, str]:
    """{name: sha256} of files; names relative to ``folder`` if it is given."""

    def name(path: Path) -> str:
        return path.relative_to(folder).as_posix() if folder else path.name

    return {name(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_manifest(
    folder: Path,
    facts: Mapping[str, str | Sequence[str]],
    derived: Mapping[str, str],
    release: Mapping[str, str] | None = None,
) -> None:
    """``manifest.toml`` of an embedded data set.

    Args:
        folder: of the data set.
        facts: name, title, source, doi, licence, ...
        derived, release: {file: hash} of the embedded tables, and of the files of the release.
    """
    quoted = lambda value: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'  # noqa: E731
    lines = []
    for key, value in facts.items():
        text = quoted(value) if isinstance(value, str) else f"[{', '.join(map(quoted, value))}]"
        lines.append(f"{key} = {text}")
    for kind, table in (("release", release), ("derived", derived)):
        if table:
            lines += ["", f"[sha256.{kind}]", *(f"{quoted(file)} = {quoted(value)}" for file, value in table.items())]
    (folder / "manifest.toml").write_text("\n".join(lines) + "\n")


def thin(table: np.ndarray, tolerance: float) -> np.ndarray:
    """The nodes (x, y) whose straight lines stay within ``tolerance`` of all others (Ramer-Douglas-Peucker)."""
    x, y = table.T
    distance = np.abs(y - np.interp(x, x[[0, -1]], y[[0, -1]]))
    worst = int(np.argmax(distance))
    if len(x) < 3 or distance[worst] <= tolerance:
        return table[[0, -1]]
    return np.concatenate([thin(table[: worst + 1], tolerance)[:-1], thin(table[worst:], tolerance)])
