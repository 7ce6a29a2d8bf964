"""Studies: an analysis file whose results are put beside published ones.

A study is a folder with an ``analysis.toml`` (:func:`cevjax.analysis.read_runs`) that also holds tables ``[[row]]``:
which number of which run is compared with what, and how close it must be. Those of the package are in ``experiments``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, StringConstraints, ValidationError

from .analysis import Run, read_analysis, read_runs
from .errors import InvalidValueError, UnknownNameError, check_name
from .report import markdown, pieces

FILE = "analysis.toml"
SHORT = {"upper": "intervals.-1.1", "lower": "intervals.0.0"}
"""Names of paths into the JSON of an interval: the ends of all its pieces."""
AUTOMATIC = {"fit": "chi2_min", "interval": "intervals"}
"""What is shown of a run without rows, by its command, unless a table of `compare` has it."""
AGREE, WITHIN, DIFFERS, FAILED, UNPUBLISHED = "agree", "within uncertainty", "differs", "failed", "not published"
KEPT = ("poi", "unit", "cl", "best_fit", "chi2_min", "n_bins", "ndof", "p_value", "intervals", "levels", "parameters")
KEPT += ("regions", "grid", "converged", "message", "seconds")
"""What the results of a study keep of the JSON of a run."""

Value = float | list[list[float | None]] | None


@dataclass(frozen=True)
class Row:
    """One line of the table of a study.

    Attributes:
        what: in words.
        run: name of the run.
        of: which of its numbers, as a path into its JSON (``chi2_min``, ``intervals``, ``levels.0.intervals``), one of
            :data:`SHORT`, or ``fall``: how much lower chi2_min is than that of the run ``than``.
        than: that run.
        unit: that numbers are divided by.
        published: number or pieces; None if there is nothing to compare with.
        agree: largest difference that is called agreement.
        within: largest difference that is put down to what the source leaves open.
        why: the reason for both.
        where: in the source.
        quick: whether the run is part of the quick subset.
    """

    what: str
    run: str
    of: str
    than: str = ""
    unit: float = 1.0
    published: Value = None
    agree: float = 0.0
    within: float = 0.0
    why: str = ""
    where: str = ""
    quick: bool = False


@dataclass(frozen=True)
class Study:
    """A study as its file describes it."""

    name: str
    folder: Path
    title: str
    source: str
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]

    def quick(self) -> Study:
        """The quick subset: the rows that are marked so, and the runs behind them."""
        rows = tuple(row for row in self.rows if row.quick)
        wanted = {name for row in rows for name in (row.run, row.than)}
        return Study(
            self.name, self.folder, self.title, self.source, tuple(r for r in self.runs if r.name in wanted), rows
        )


@dataclass(frozen=True)
class Comparison:
    """A row with the number that was found.

    Attributes:
        row: of the study.
        ours: the number, in the unit of the row; None if the run failed.
        difference: ours - published, of pieces that of the end that is furthest off.
        verdict: in words.
    """

    row: Row
    ours: Value
    difference: float | None = field(default=None)
    verdict: str = UNPUBLISHED

    def cells(self) -> tuple[str, str, str, str, str]:
        """What, published, ours, difference, verdict."""
        difference = "" if self.difference is None else f"{self.difference:+.2g}"
        return self.row.what, show(self.row.published), show(self.ours), difference, self.verdict


def experiments_dir() -> Path:
    """Folder of the studies: inside the installed package, or in the checkout that is being worked on."""
    installed = Path(str(files("cevjax") / "experiments"))
    return installed if installed.is_dir() else Path(__file__).parents[1] / "experiments"


def study_names() -> tuple[str, ...]:
    """Names of the studies of the package."""
    return tuple(sorted(file.parent.name for file in experiments_dir().glob(f"*/{FILE}")))


Percent = Annotated[str, StringConstraints(pattern=r"^[0-9.]+ ?%$")]
Tolerance = Annotated[NonNegativeFloat | Percent, Field(description="a number or a percentage such as '3 %'")]
Piece = Annotated[list[float], Field(min_length=2, max_length=2)]
Printed = Annotated[float | Piece | list[Piece], Field(description="a number, a piece [low, high] or a list of pieces")]
Text = Annotated[str, Field(min_length=1, description="a text")]


class Table(BaseModel):
    """A table of the file: unknown keys and values of another kind are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tolerances(Table):
    """``[study.tolerance.QUANTITY]``, for all rows of that."""

    agree: Tolerance = 0.0
    within: Tolerance = 0.0
    why: Text | None = None


class About(Table):
    """``[study]``."""

    title: Text
    source: Text
    tolerance: Annotated[dict[str, dict], Field(description="tables, one a quantity")] = {}


class RowTable(Tolerances):
    """``[[row]]``: a line for each variant of its run."""

    run: Text
    of: Text
    what: Text | None = None
    than: Text | None = None
    unit: Annotated[float, Field(gt=0, description="a number above zero")] = 1.0
    published: (
        Annotated[
            Printed | dict[str, Printed],
            Field(description="a number, a piece [low, high], a list of pieces, or a table of these by variant"),
        ]
        | None
    ) = None
    where: str = ""
    quick: Annotated[bool, Field(description="true or false")] = False


def read_study(name: str, commands: Mapping[str, Any]) -> Study:
    """The study called ``name``, or that in the folder ``name``.

    Raises:
        UnknownNameError: no such study, run or key.
        InvalidValueError: the file cannot be used; the message says why.
    """
    folder = Path(name)
    if not (folder / FILE).is_file():
        folder = experiments_dir() / check_name("study", name, study_names())
    file = folder / FILE
    content = read_analysis(file)
    runs = read_runs(file, commands)
    for run in runs:
        if "--json" in run.words:
            raise InvalidValueError(f"A run of {file} must not have `json`, which is kept anyway: {run.name!r}.")
    about = _validated(About, content.get("study", {}), f"[study] of {file}")
    common = {of: _validated(Tolerances, t, f"[study.tolerance.{of}] of {file}") for of, t in about.tolerance.items()}
    rows = []
    for table in content.get("row", []):
        checked = _validated(RowTable, table, f"a [[row]] of {file}")
        rows += _rows(file, checked, common.get(checked.of, Tolerances()), runs)
    shown = {row.run for row in rows}
    compared = [word for run in runs if run.words[0] == "compare" for word in run.words[1:]]
    shown |= {run.name for run in runs if any(fnmatch(f"runs/{run.name}.json", pattern) for pattern in compared)}
    for run in runs:
        if run.name not in shown and run.words[0] in AUTOMATIC:
            rows.append(Row(run.name, run.name, AUTOMATIC[run.words[0]]))
    order = {run.name: number for number, run in enumerate(runs)}
    rows.sort(key=lambda row: order[row.run])
    return Study(folder.resolve().name, folder, about.title, about.source, tuple(runs), tuple(rows))


T = TypeVar("T", bound=Table)


def _validated(model: type[T], table: Any, where: str) -> T:
    """The table, checked; what is wrong is said with the key, what it must be and what it was."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        faults = {str(fault["loc"][0]) if fault["loc"] else "": fault["type"] for fault in error.errors()}
    unknown = [key for key, kind in faults.items() if kind == "extra_forbidden"]
    if unknown:
        raise UnknownNameError(f"key of {where}", unknown[0], model.model_fields)
    key, kind = next(iter(faults.items()))
    if not key:
        raise InvalidValueError(f"{where} must be a table, but was {table!r}.")
    wanted = model.model_fields[key].description
    if kind == "missing":
        raise InvalidValueError(f"The key `{key}` of {where} is missing: it must be {wanted}.")
    raise InvalidValueError(f"Key `{key}` of {where} must be {wanted}, but was {table[key]!r}.")


def _rows(file: Path, table: RowTable, common: Tolerances, runs: Sequence[Run]) -> Iterator[Row]:
    """The rows that a table [[row]] stands for."""
    check_name(f"run in {file}", table.run, {run.base for run in runs})
    check_name(f"quantity of a [[row]] in {file}", table.of.split(".")[0], (*KEPT, *SHORT, "fall"))
    variants = {run.variant: run for run in runs if run.base == table.run}
    given = table.published
    published = given if isinstance(given, dict) else dict.fromkeys(variants, given)
    for variant in published:
        check_name(f"variant of run {table.run!r} in {file}", variant, variants)
    own = table.model_fields_set
    agree, within, why = (getattr(table if key in own else common, key) for key in ("agree", "within", "why"))
    if published and given is not None and not (agree and why):
        raise InvalidValueError(
            f"A [[row]] of {file} with a published value must say what agrees with it (`agree`) and `why`, or "
            f"[study.tolerance.{table.of}] must: run {table.run!r}."
        )
    for variant, run in variants.items():
        value = _pieces(published.get(variant))
        yield Row(
            what=(table.what or table.run) + (f", {variant}" if variant else ""),
            run=run.name,
            of=table.of,
            than=_counterpart(file, table.than, variant, runs) if table.than else "",
            unit=table.unit,
            published=value,
            agree=_tolerance(agree, value),
            within=_tolerance(within, value),
            why=why or "",
            where=table.where,
            quick=table.quick,
        )


def _counterpart(file: Path, base: str, variant: str, runs: Sequence[Run]) -> str:
    """The run called ``base`` in the same variant, or in what that begins with."""
    parts = variant.split("-") if variant else []
    names = ["-".join([base, *parts[:n]]) for n in range(len(parts), -1, -1)]
    known = {run.name for run in runs}
    return next((name for name in names if name in known), None) or check_name(f"run in {file}", base, known)


def _pieces(value: float | list | None) -> Value:
    """Pieces [low, high], an infinite end being open; one piece may stand without its outer brackets."""
    if not isinstance(value, list):
        return value
    pieces = value if isinstance(value[0], list) else [value]
    return [[None if math.isinf(end) else float(end) for end in piece] for piece in pieces]


def _tolerance(given: float | str, published: Value) -> float:
    """A number, or a percentage of a published number or of the length of the longest published piece."""
    if not isinstance(given, str):
        return float(given)
    if isinstance(published, list):
        size = max((high - low for low, high in published if low is not None and high is not None), default=0.0)
    else:
        size = abs(published or 0.0)
    return float(given.removesuffix("%")) / 100 * size


def compare(row: Row, results: Mapping[str, Mapping[str, Any] | None]) -> Comparison:
    """The row with what the runs have given.

    Args:
        row: of a study.
        results: {run: its JSON, or None if it failed}.
    """
    found = results.get(row.run)
    before = results.get(row.than) if row.than else {}
    if found is None or before is None:
        return Comparison(row, None, verdict=FAILED)
    ours = _quantity(row, found, before)
    if row.published is None:
        return Comparison(row, ours)
    difference = _difference(ours, row.published)
    if difference is None:
        return Comparison(row, ours, verdict=DIFFERS)
    size = abs(difference)
    verdict = AGREE if size <= row.agree else WITHIN if size <= row.within else DIFFERS
    return Comparison(row, ours, difference, verdict)


def _quantity(row: Row, found: Mapping[str, Any], before: Mapping[str, Any]) -> Value:
    if row.of == "fall":
        return before["chi2_min"] - found["chi2_min"]
    value: Any = found
    for key in SHORT.get(row.of, row.of).split("."):
        if isinstance(value, list):
            valid = [str(i) for i in range(-len(value), len(value))]
            value = value[int(check_name(f"part of {row.of!r} of run {row.run!r}", key, valid))]
        elif isinstance(value, Mapping):
            value = value[check_name(f"part of {row.of!r} of run {row.run!r}", key, value)]
        else:
            raise InvalidValueError(f"There is no {row.of!r} in the results of run {row.run!r}.")
    return _scaled(value, row.unit)


def _scaled(value: Any, unit: float) -> Any:
    if isinstance(value, list):
        return [_scaled(item, unit) for item in value]
    return None if value is None else value / unit


def _difference(ours: Value, published: Value) -> float | None:
    """Ours - published; None where they cannot be subtracted: another number of pieces, an end that is open in one."""
    if isinstance(published, list):
        if not isinstance(ours, list) or len(ours) != len(published):
            return None
        pairs = [pair for one, other in zip(ours, published, strict=True) for pair in zip(one, other, strict=True)]
        if any((a is None) != (b is None) for a, b in pairs):
            return None
        return max((a - b for a, b in pairs if a is not None and b is not None), key=abs, default=0.0)
    return None if ours is None or isinstance(ours, list) or published is None else ours - published


def show(value: Value) -> str:
    """A number or pieces as text.

    >>> show([[None, -0.1], [0.2, 0.30000001]])
    '[open, -0.1] [0.2, 0.3]'
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return pieces(value, 4)
    return f"{value:.5g}"


HEADER = ("what", "published", "ours", "difference", "verdict")


def summary(study: Study, comparisons: Iterable[Comparison], results: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, as JSON can hold it."""
    return {
        "study": study.name,
        "title": study.title,
        "source": study.source,
        "rows": [
            {**asdict(c.row), "ours": c.ours, "difference": c.difference, "verdict": c.verdict} for c in comparisons
        ],
        "runs": {
            run.name: {"words": run.words, **{k: v for k, v in (results.get(run.name) or {}).items() if k in KEPT}}
            for run in study.runs
            if run.words[0] not in ("contours", "compare")
        },
    }


def outputs(run: Run) -> list[Path]:
    """The files that a run writes."""
    return [file for option in ("--out", "--plot", "--table") for file in _of_option(run, option)]


def to_publish(study: Study) -> list[Path]:
    """The figures and tables of a study."""
    return [file for run in study.runs for option in ("--plot", "--table") for file in _of_option(run, option)]


def _of_option(run: Run, option: str) -> list[Path]:
    if option not in run.words:
        return []
    path = Path(run.words[run.words.index(option) + 1])  # of a figure perhaps in several formats: x.png,pdf
    return [path.with_suffix(f".{ending.removeprefix('.')}") for ending in path.suffix.split(",")]


def kept(work: Path, run: Run, seal: str) -> dict[str, Any] | None:
    """The result of an earlier run of the same code, if it ended well and its files are still there."""
    stamp, result = record(work, run)
    try:
        same = stamp.read_text() == seal and all((work / file).exists() for file in outputs(run))
        return json.loads(result.read_text()) if same else None
    except (OSError, ValueError):
        return None


def record(work: Path, run: Run) -> tuple[Path, Path]:
    """Where the stamp and the JSON of a run are kept."""
    return work / "runs" / f"{run.name}.stamp", work / "runs" / f"{run.name}.json"


def fill(text: str, parts: Mapping[str, str]) -> str:
    """The text of a README with ``parts`` anew, each between its marks ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    for name, part in parts.items():
        marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        text = marks.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text)
    return text


def tables(comparisons: Iterable[Comparison]) -> dict[str, str]:
    """In Markdown, {mark in the README: table}: ``results``, what is published beside ours, and ``ours``, the rest."""
    comparisons = list(comparisons)
    published = [c.cells() for c in comparisons if c.row.published is not None]
    rest = [(c.row.what, show(c.ours)) for c in comparisons if c.row.published is None]
    return {"results": markdown(HEADER, published), "ours": markdown(("what", "ours"), rest)}


NOT_PHYSICS = ("cli.py", "report.py", "studies.py")
"""Files that no result depends on."""


@cache
def fingerprint() -> str:
    """Of the code and data of the package: results of another one are not used again."""
    root = Path(str(files("cevjax")))
    data = root / "data" if (root / "data").is_dir() else root.parent / "data"
    digest = hashlib.sha256()
    for folder, pattern in ((root, "*.py"), (data, "*.csv"), (data, "*.toml")):
        for file in sorted(file for file in folder.rglob(pattern) if file.name not in NOT_PHYSICS):
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def stamp(run: Run, earlier: Iterable[Run] = ()) -> str:
    """What a result belongs to: the code, the data, the words of its run and of the ``earlier`` ones that it reads."""
    words = [run.words, *(other.words for other in earlier)]
    return hashlib.sha256(json.dumps([fingerprint(), words]).encode()).hexdigest()[:16]
