"""The notebooks: complete as they are stored, and their numbers and pictures when they are run again."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
VARIES = "varies"
"""Tag of cells whose numbers hang on random draws."""
TOLERANCE = 1e-2
SECONDS = 900
"""For one cell."""


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def texts(cell: dict[str, Any]) -> Iterator[str]:
    """What a cell printed or returned, but for what stands for a picture."""
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield joined(output["text"])
        elif "image/png" not in output.get("data", {}):
            yield joined(output.get("data", {}).get("text/plain", ""))


def pictures(cell: dict[str, Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def numbers(cell: dict[str, Any]) -> list[tuple[float, float]]:
    """Each number that a cell printed, with a unit of its last digit."""
    return [(float(word), last_digit(word)) for text in texts(cell) for word in NUMBER.findall(text)]


def last_digit(word: str) -> float:
    """A unit of the last digit of a number as it is written.

    >>> last_digit("-1.25e3"), last_digit("7")
    (10.0, 1.0)
    """
    mantissa, _, exponent = word.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def test_there_are_notebooks():
    assert {"first_fit.ipynb", "your_own_interaction.ipynb", "your_own_detector.ipynb"} <= set(NOTEBOOKS)
    assert {"nsi_planes.ipynb", "gradients_to_design.ipynb"} <= set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_with_outputs(name: str):
    notebook = read(name)
    cells = code_cells(notebook)
    assert notebook["nbformat"] == 4 and notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "cevjax.enable_compilation_cache()" in joined(cells[0]["source"])
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert all(output["name"] == "stdout" for output in outputs if output["output_type"] == "stream")
    assert any(numbers(cell) for cell in cells) and any(pictures(cell) for cell in cells)
    assert (FOLDER / name).stat().st_size < 400_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_of_the_machine_is_in_it(name: str):
    notebook = read(name)
    written = [joined(cell["source"]) for cell in notebook["cells"]]
    written += [text for cell in code_cells(notebook) for text in texts(cell)]
    for place in ("/tmp", "/home", "/work", "/root", "/Users"):
        assert not [text for text in written if place in text], place
    assert "widgets" not in notebook["metadata"]
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_again(name: str, tmp_path: Path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(FOLDER / name, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    for stored, cell in zip(code_cells(read(name)), code_cells(notebook), strict=True):
        where = joined(cell["source"])
        assert pictures(cell) == pictures(stored), where
        assert all(output.get("name", "stdout") == "stdout" for output in cell["outputs"]), where
        if VARIES in stored["metadata"].get("tags", ()):
            continue
        found, expected = numbers(cell), numbers(stored)
        assert len(found) == len(expected), where
        for (value, _), (known, digit) in zip(found, expected, strict=True):
            assert value == pytest.approx(known, rel=TOLERANCE, abs=1.01 * digit), where
