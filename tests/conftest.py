"""Shared by all tests: the compilation cache, the likelihoods, and where a full release may lie."""

import gc
import os
import sys
import time
from pathlib import Path

import jax
import pytest
from hypothesis import settings

import cevjax

sys.path.insert(0, str(Path(__file__).parent / "validation"))  # the reference implementations, imported by name
cevjax.enable_compilation_cache()

# the same examples at every run; HYPOTHESIS_PROFILE=explore draws new ones
settings.register_profile("reproducible", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "reproducible"))


# files that take minutes come first: one that a worker begins last would keep the others waiting
LONG = (
    "test_posterior.py", "test_folding.py", "inference/test_scan.py", "test_notebooks.py", "datasets/test_contract.py",
    "validation/test_scan.py", "test_studies.py", "interactions/test_contract.py", "test_cli.py", "test_toys.py",
    "test_sample.py", "test_published_joint.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.path.as_posix()
        return next((i for i, name in enumerate(LONG) if path.endswith(f"/{name}")), len(LONG))

    items.sort(key=place)


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def bounded_memory_maps():
    """Every compiled function takes some of the 65,530 memory maps of a process, which crashes without any left."""
    began = time.monotonic()
    yield
    if time.monotonic() - began < 0.5:  # nothing was compiled
        return
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def csi_likelihood():
    """Likelihood of the CsI data under a statistic, built once: ``csi_likelihood("2303.09360", nsi=True)``."""
    built = {}

    def make(statistic="default", nsi=False):
        if (statistic, nsi) not in built:
            interaction = cevjax.StandardModel() + cevjax.NSI() if nsi else cevjax.StandardModel()
            built[statistic, nsi] = cevjax.Likelihood(
                [cevjax.load("coherent-csi-2021", statistic=statistic)], interaction
            )
        return built[statistic, nsi]

    return make


@pytest.fixture(scope="session")
def csi_release():
    """Folder of the official CsI release; the test is skipped without it."""
    checkout = Path(__file__).parents[1]
    releases = Path(os.environ.get("CEVJAX_RELEASES", checkout.parent / "shared" / "releases"))
    folder = releases / "coherent-csi-2021"
    if not (folder / "dataBeamOnC.txt").is_file():
        pytest.skip("the release of arXiv:2110.07730 is not at hand: set CEVJAX_RELEASES to the folder that holds it")
    return folder
