"""What is kept on disk to be used again: compiled functions, and the work of studies."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_dir(name: str) -> Path | None:
    """A folder for what can be made again, below ``CEVJAX_CACHE`` or the user's cache; None if there can be none."""
    choice = os.environ.get("CEVJAX_CACHE", "")
    if choice.lower() == "off":
        return None
    try:
        base = Path(choice) if choice else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cevjax"
        (base / name).mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None  # no home or a read-only one must not stop a fit
    return base / name


def enable_compilation_cache() -> Path | None:
    """Keep compiled functions in the user's cache folder, unless the user configured JAX otherwise.

    ``CEVJAX_CACHE`` names another folder; ``CEVJAX_CACHE=off`` switches it off. Returns the folder in use.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    folder = cache_dir("jax")
    if folder is None:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
