"""Reading a ``measurement.toml``, and what is wrong with it in words."""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import InvalidValueError, UnknownNameError
from .context import FILE
from .description import Description


def read_description(folder: Path) -> Description:
    """The ``measurement.toml`` of a folder, validated.

    Raises:
        InvalidValueError: it is no TOML, or not such a description; the message lists all problems.
    """
    path = folder / FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidValueError(f"File {path} is not TOML: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"File {path} cannot be read as text: {error}.") from None
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        problems = [f"File {path}: {_problem(details)}." for details in error.errors()]
        raise InvalidValueError("\n".join(problems)) from None


def _problem(details: ErrorDetails) -> str:
    """What is wrong, in words that name the key and what was expected."""
    key, section, field = _locate(details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        owner, _, last = key.rpartition(".")
        valid = list(section.model_fields)
        return str(UnknownNameError(f"key of [{owner}]" if owner else "key", last, valid)).rstrip(".")
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        choice = context["discriminator"].strip("'")
        models = _models(field.annotation) if field else []
        valid = [tag for model in models for tag in get_args(model.model_fields[choice].annotation)]
        if kind == "union_tag_not_found":
            return f"key `{key}.{choice}` is missing; it must be one of {', '.join(valid)}"
        return str(UnknownNameError(f"`{key}.{choice}`", context["tag"], valid)).rstrip(".")
    if kind == "hint":
        return (f"key `{key}`: " if key else "") + details["msg"].rstrip(".")
    if kind == "section":
        return f"key `{key}` {details['msg']}"
    expected = _expected(field, inside=key.rpartition(".")[2] not in section.model_fields) if field else "a table"
    if kind == "missing":
        return f"key `{key}` is missing; it must be {expected}"
    return f"key `{key}` must be {expected}, but was {_shortened.repr(details['input'])}"


_shortened = reprlib.Repr()
_shortened.maxlist = _shortened.maxdict = 8
_shortened.maxstring = _shortened.maxother = 80


def _locate(loc: Sequence[int | str]) -> tuple[str, type[BaseModel], FieldInfo | None]:
    """The key that pydantic's location stands for, the section it is in, and what is known of it."""
    key, models, section, field = "", [Description], Description, None
    for part in loc:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part == "[key]":  # the location is that of the key of a dictionary
            continue
        elif len(models) > 1:  # the value of a discriminator
            models = [m for m in models if any(part in get_args(f.annotation) for f in m.model_fields.values())]
        else:
            key += f".{part}" if key else part
            if models:
                section = models[0]
                field = section.model_fields.get(part)
                models = _models(field.annotation) if field else []
    return key, models[0] if models and not field else section, field


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _expected(field: FieldInfo, inside: bool) -> str:
    """What a key must be, in words; or what is inside of it."""
    inner = list(_descriptions(field.annotation))
    return inner[-1] if inside and inner else field.description or inner[0]


def _descriptions(annotation: Any) -> Iterable[str]:
    """The descriptions that a type and its arguments bear, from the outside in."""
    yield from (
        text for meta in getattr(annotation, "__metadata__", ()) if (text := getattr(meta, "description", None))
    )
    for argument in get_args(annotation):
        yield from _descriptions(argument)
