"""The compiler of JAX: what must be switched off for its results to be right."""

import os
from importlib.metadata import version

from jax._src import xla_bridge  # nothing public tells whether a backend is in use

WRONG = ("0.10.2", "0.11.0")
"""Releases of jaxlib whose compiler for CPUs hands sums to a library that can get them wrong, or crash.

Batches of 32 points and more had the signal of the first one: https://github.com/jax-ml/jax/issues/39103,
https://github.com/jax-ml/jax/issues/39257.
"""
SWITCH = "--xla_cpu_experimental_ynn_fusion_type"
"""The option for what that library does. Other releases may not know it, and stop at what they do not know."""


def mend_compiler() -> None:
    """Keep that library out, unless ``XLA_FLAGS`` says something about it already.

    Raises:
        ImportError: too late, since JAX has begun to compute.
    """
    installed, flags = version("jaxlib"), os.environ.get("XLA_FLAGS", "")
    if installed not in WRONG or SWITCH in flags:
        return
    if xla_bridge.backends_are_initialized():
        raise ImportError(
            f"jaxlib {installed} computes wrong sums on CPUs (https://github.com/jax-ml/jax/issues/39103), and JAX is "
            f"in use already: import cevjax before anything is computed, or set XLA_FLAGS={SWITCH}= before Python "
            "starts, or install another release of jax."
        )
    os.environ["XLA_FLAGS"] = f"{flags} {SWITCH}=".strip()
