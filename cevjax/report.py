"""Results as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown(("what", "value"), [("chi2", "84.0")]))
    | what | value |
    | --- | --- |
    | chi2 | 84.0 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def span(best: float, pieces: Iterable[Sequence[float | None]], scale: float = 1.0, digits: int = 3) -> str:
    """A best fit with its interval, an open end of which is empty.

    >>> span(0.24, [(0.20, 0.28)])
    '0.240 [0.200, 0.280]'
    """
    end = lambda x: "" if x is None else f"{x / scale:.{digits}f}"  # noqa: E731
    return f"{best / scale:.{digits}f} " + " ".join(f"[{end(low)}, {end(high)}]" for low, high in pieces)


def by_parameter(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Intervals, as their JSON, sorted by what is asked for and by the data: {parameter: {data sets: result}}.

    A parameter goes with its unit, the values that were set and the model of the interaction, and data sets go with
    their choices, because results with others answer another question. Of two answers to one the later counts.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for result in results:
        options = result.get("options", {})
        models = [text.partition("model=")[2] for text in options.get("interactions", []) if "model=" in text]
        models += [options["model"]] if options.get("model") else []
        unit = f" [{result['unit']}]" if result["unit"] else ""
        given = [f"{name}={float(value):g}" for name, _, value in (x.partition("=") for x in options.get("set", []))]
        label = ", ".join([f"{result['poi']}{unit}", *models, *given])
        found.setdefault(label, {})[" + ".join(options.get("datasets") or result["datasets"])] = result
    return found


def levels(result: Mapping[str, Any]) -> dict[float, list[list[float | None]]]:
    """{confidence level: pieces} of the JSON of an interval."""
    several = result.get("levels") or [{"cl": result["cl"], "intervals": result["intervals"]}]
    return {entry["cl"]: entry["intervals"] for entry in several}


def pieces(found: Iterable[Sequence[float | None]], digits: int = 3) -> str:
    """Disjoint pieces as text.

    >>> pieces([(None, -0.1), (0.2, 0.30000001)])
    '[open, -0.1] [0.2, 0.3]'
    """
    end = lambda x: "open" if x is None else f"{x:.{digits}g}"  # noqa: E731
    return " ".join(f"[{end(low)}, {end(high)}]" for low, high in found)
