"""Speed, beside NumPy + iminuit on the same likelihood.

    pytest tests/benchmarks -n 0 -m benchmark --benchmark-enable --benchmark-columns=median,iqr,rounds

Compilation is not timed; the whole commands are, with an empty and with a filled compilation cache.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from iminuit import Minuit
from reference_csi import ReferenceCsI

import cevjax
from cevjax.inference import minimize as m
from cevjax.inference.fit import problem
from cevjax.inference.profile import profile_at
from cevjax.interactions import interaction
from cevjax.registry import interaction_names

pytestmark = pytest.mark.benchmark


def timed(benchmark, function):
    """Result and timing of ``function``, compiled beforehand: the harness plans its rounds by the first call."""
    function()
    return benchmark(function)


COMMAND = ["fit", "coherent-csi-2021", "--free", "sin2_theta_w", "--plot", "fit.png"]


@pytest.fixture(scope="module")
def like():
    return cevjax.Likelihood([cevjax.load("coherent-csi-2021")], cevjax.StandardModel())


@pytest.fixture(scope="module")
def reference():
    return ReferenceCsI("default")


@pytest.mark.benchmark(group="nll")
def test_nll(benchmark, like):
    params = like.nominal()
    assert np.isfinite(timed(benchmark, lambda: like.nll(params).block_until_ready()))


@pytest.mark.benchmark(group="nll")
def test_nll_with_gradient(benchmark, like):
    params = like.nominal()
    both = jax.jit(jax.value_and_grad(like.nll))
    value, gradient = timed(benchmark, lambda: jax.block_until_ready(both(params)))
    assert np.isfinite(value) and len(gradient) == len(params)


@pytest.mark.benchmark(group="nll")
def test_nll_numpy(benchmark, reference, like):
    params = dict(like.nominal())
    steps = iter(range(10**9))

    def call():  # every nuisance moves, so that nothing comes from a cache
        shift = 1e-6 * next(steps)
        return reference.chi2({**params, **dict.fromkeys(like.nuisances, shift)})

    assert np.isfinite(timed(benchmark, call))


@pytest.fixture(scope="module", params=["default", "2211.11905"])
def with_interaction(request):
    """Likelihood with an interaction, electrons included, at a point where it acts."""
    built = {}

    def make(name):
        if name not in built:
            model = interaction(name)
            total = cevjax.StandardModel() if name == "standard-model" else cevjax.StandardModel() + model
            like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic=request.param, es=True)], total)
            moved = {p.name: float(p.decode(p.encode(p.nominal) + 0.3)) for p in model.parameters if not p.members}
            built[name] = like, like.nominal(**moved)
        return built[name]

    return make


@pytest.mark.benchmark(group="interactions: nll")
@pytest.mark.parametrize("name", interaction_names())
def test_interaction_nll(benchmark, with_interaction, name):
    like, params = with_interaction(name)
    assert np.isfinite(timed(benchmark, lambda: like.nll(params).block_until_ready()))


@pytest.mark.benchmark(group="interactions: gradient")
@pytest.mark.parametrize("name", interaction_names())
def test_interaction_gradient(benchmark, with_interaction, name):
    like, params = with_interaction(name)
    both = jax.jit(jax.value_and_grad(like.nll))
    value, gradient = timed(benchmark, lambda: jax.block_until_ready(both(params)))
    assert np.isfinite(value) and all(np.isfinite(g) for g in gradient.values())


def profile_setup(like, points):
    """``points`` values of sin2_theta_w with the nuisances started at the best fit: what a scan does."""
    task = problem(like, ("sin2_theta_w",), None)
    best = cevjax.fit(like, ("sin2_theta_w",))
    anchor = np.array([[best.values[name] for name in task.where.names]])
    return task, {"sin2_theta_w": np.linspace(0.19, 0.28, points)}, anchor


@pytest.mark.benchmark(group="profiled point")
@pytest.mark.parametrize("points", [1, 16, 128])
def test_profile_over_all_nuisances(benchmark, like, points):
    """Divide by ``points`` for the time of one."""
    task, columns, anchor = profile_setup(like, points)
    result = timed(benchmark, lambda: profile_at(like, task, columns, anchor, batch=points))
    benchmark.extra_info["microseconds_a_point"] = 1e6 * benchmark.stats.stats.median / points if benchmark.stats else 0
    assert np.all(result.converged)


@pytest.mark.benchmark(group="profiled point")
def test_profile_iminuit(benchmark, like, reference):
    task, _, anchor = profile_setup(like, 1)
    names = task.where.names

    def chi2(*values):
        return reference.chi2({**task.fixed, **dict(zip(names, values, strict=True))})

    def point():
        minuit = Minuit(chi2, *anchor[0], name=names)
        minuit.errordef, minuit.strategy = 1, 1
        for name, low, high in zip(names, task.where.lower, task.where.upper, strict=True):
            minuit.limits[name] = (low, high)
        minuit.errors = [0.02, *[0.5] * (len(names) - 1)]
        minuit.values["sin2_theta_w"], minuit.fixed["sin2_theta_w"] = 0.25, True
        return minuit.migrad()

    assert timed(benchmark, point).valid


@pytest.mark.benchmark(group="fit")
def test_fit(benchmark, like):
    """All 16 starts, the errors and the expected counts."""
    assert timed(benchmark, lambda: cevjax.fit(like, ("sin2_theta_w",))).converged


@pytest.mark.benchmark(group="fit")
def test_interval(benchmark, like):
    assert timed(benchmark, lambda: cevjax.interval(like, "sin2_theta_w")).converged


@pytest.mark.benchmark(group="command")
@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_command(benchmark, tmp_path, cache):
    runs = iter(range(10**6))

    def setup():
        folder = tmp_path / (str(next(runs)) if cache == "cold" else "cache")
        return (), {"folder": folder}

    def run(folder):
        environment = {**os.environ, "CEVJAX_CACHE": str(folder)}
        words = [sys.executable, "-m", "cevjax.cli", *COMMAND]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)

    benchmark.pedantic(run, setup=setup, rounds=5, warmup_rounds=1)
    assert (tmp_path / "fit.png").stat().st_size > 10_000


def test_minimum_is_accurate(like):
    """What the speed is worth: the profiled chi2 differs from a tightly converged one by less than 1e-6."""
    task, columns, anchor = profile_setup(like, 16)
    quick = profile_at(like, task, columns, anchor)
    tolerance, m.TOLERANCE = m.TOLERANCE, 1e-13
    try:
        m._minimize.clear_cache()
        tight = profile_at(like, task, columns, anchor)
    finally:
        m.TOLERANCE = tolerance
        m._minimize.clear_cache()
    np.testing.assert_allclose(quick.chi2, tight.chi2, atol=1e-6)
