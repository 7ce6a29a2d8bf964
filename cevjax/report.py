"""Results as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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
