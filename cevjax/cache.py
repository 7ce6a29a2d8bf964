"""The persistent compilation cache: compiled functions are kept on disk and reused by later processes."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> Path | None:
    """Keep compiled functions in the user's cache folder, unless the user configured JAX otherwise.

    ``CEVJAX_CACHE`` names another folder; ``CEVJAX_CACHE=off`` switches it off. Returns the folder in use.
    """
    choice = os.environ.get("CEVJAX_CACHE", "")
    if choice.lower() == "off" or jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    try:
        base = Path(choice) if choice else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cevjax"
        folder = base / "jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None  # no home or a read-only one must not stop a fit
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
