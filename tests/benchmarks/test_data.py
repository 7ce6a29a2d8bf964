"""Speed of all the data together.

pytest tests/benchmarks/test_data.py -n 0 -m benchmark --benchmark-enable --benchmark-columns=median,iqr,rounds
"""

import subprocess
import sys

import jax
import numpy as np
import pytest

import cevjax
from cevjax.registry import dataset_names

pytestmark = pytest.mark.benchmark
TOGETHER = ("coherent-csi-2021", "coherent-lar-2020", "dresden-ii-2022")
LOAD = """
import time, cevjax
from cevjax.registry import dataset_names
names = dataset_names()
begin = time.perf_counter()
for name in names:
    cevjax.load(name)
print(time.perf_counter() - begin)
"""


def test_load_all_in_a_new_process(benchmark):
    """Seconds from the call of the first loader to the end of the last: nothing is compiled, nothing was imported."""
    seconds = []

    def run():
        done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    benchmark.extra_info["loading_s"] = float(np.median(seconds))
    print(f"\nloading {len(dataset_names())} data sets: median {np.median(seconds):.3f} s")


@pytest.fixture(scope="module", params=[*TOGETHER, "together"])
def like(request):
    names = TOGETHER if request.param == "together" else (request.param,)
    return cevjax.Likelihood([cevjax.load(name) for name in names], cevjax.StandardModel())


def test_nll(benchmark, like):
    params = like.nominal()
    like.nll(params)
    assert np.isfinite(benchmark(lambda: like.nll(params).block_until_ready()))


def test_nll_with_gradient(benchmark, like):
    params = like.nominal()
    both = jax.jit(jax.value_and_grad(like.nll))
    both(params)
    value, gradient = benchmark(lambda: jax.block_until_ready(both(params)))
    assert np.isfinite(value) and len(gradient) == len(params)


def test_fit(benchmark, like):
    cevjax.fit(like, ("sin2_theta_w",))
    assert benchmark.pedantic(lambda: cevjax.fit(like, ("sin2_theta_w",)), rounds=5).converged
