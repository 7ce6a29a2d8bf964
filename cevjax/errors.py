"""The errors a user can cause, each with a message that says what was given and what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CevjaxError(Exception):
    """Base of all errors that cevjax raises on unusable input."""


class UnknownNameError(CevjaxError, KeyError):
    """A name that is not in the list of valid ones; the message offers the nearest."""

    def __init__(self, kind: str, name: str, valid: Iterable[str], hint: str = ""):
        self.kind, self.name, self.valid, self.hint = kind, name, sorted(valid), hint
        lower = {word.lower(): word for word in reversed(self.valid)}
        close = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
        if not hint and close:
            hint = f" Did you mean {lower[close[0]]!r}?"
        super().__init__(f"Unknown {kind} {name!r}.{hint} Valid names: {', '.join(self.valid) or '(none)'}.")

    def __str__(self) -> str:  # KeyError would show the repr
        return self.args[0]

    def __reduce__(self):  # so that it survives the way back from a worker process
        return type(self), (self.kind, self.name, self.valid, self.hint)


class InvalidValueError(CevjaxError, ValueError):
    """An argument whose value cannot be used."""


class ParameterClashError(CevjaxError, ValueError):
    """Two owners define the same parameter differently."""


class ReleaseFileError(CevjaxError, ValueError):
    """A data-release file that is missing or not laid out as its publisher lays it out."""


def check_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return ``name`` when it is valid, else raise :class:`UnknownNameError` with the nearest valid one."""
    valid = list(valid)
    if name not in valid:
        raise UnknownNameError(kind, name, valid)
    return name


def check_flag(name: str, value: bool | None) -> bool | None:
    """``value``, if it is True, False or None.

    Raises:
        InvalidValueError: it is something else.
    """
    if value is not None and not isinstance(value, bool):
        raise InvalidValueError(f"Argument `{name}` must be True, False or None, but was {value!r}.")
    return value
