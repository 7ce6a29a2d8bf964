"""Where a result comes from: enough to know later what was computed, and whether two computations are the same."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import wadler_lindig

from .likelihood import Likelihood
from .results import describe


def hashes(like: Likelihood) -> dict[str, str]:
    """sha256 of everything in each measurement that is an array: data, templates and tables; first 16 digits."""
    return {m.name: _hash(m) for m in like.measurements}


def _hash(tree: Any) -> str:
    """Of the arrays in a pytree, and of everything else in it as text."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes() if eqx.is_array_like(leaf) else repr(leaf).encode())
    # as text with all defaults, without places in memory, which differ from process to process
    text = wadler_lindig.pformat(tree, hide_defaults=False)
    digest.update(re.sub(r" at 0x[0-9a-f]+", "", text).encode())
    return digest.hexdigest()[:16]


def identity(like: Likelihood, command: str) -> dict[str, Any]:
    """All of a likelihood that results depend on, as JSON can hold it."""
    parameters = {
        p.name: [p.nominal, *p.bounds, *(p.constraint or ()), p.nuisance, p.scale] for p in like.parameters.values()
    }
    described = {key: value for key, value in describe(like, command).items() if key != "options"}
    return {
        **described,
        "hashes": hashes(like),
        "interaction_hash": _hash(like.interaction),
        "auxiliary": np.asarray(like.auxiliary).tolist(),
        "parameters": hashlib.sha256(repr(parameters).encode()).hexdigest()[:16],
        "jax": version("jax"),
    }


def provenance(like: Likelihood, command: str) -> dict[str, Any]:
    """:func:`identity`, and by which version, when and on what machine."""
    devices = jax.local_devices()
    return {
        **describe(like, command),
        **identity(like, command),
        "commit": commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {len(devices)} x {devices[0].device_kind}",
    }


def commit(root: Path | None = None) -> str:
    """The commit of the checkout that the package is in; empty if it is in none."""
    git = (root or Path(__file__).parents[1]) / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        name = head.removeprefix("ref: ")
        if name == head:
            return head
        if (git / name).is_file():
            return (git / name).read_text().strip()
        packed = (line.split() for line in (git / "packed-refs").read_text().splitlines())
        return next((line[0] for line in packed if line[1:] == [name]), "")
    except OSError:
        return ""


def labels(like: Likelihood) -> Mapping[str, tuple[str, str]]:
    """{parameter: (symbol, unit)}, for plots and files."""
    return {p.name: (p.latex or p.name, p.unit) for p in like.parameters.values()}
