"""Speed of scans, toys and Feldman-Cousins, beside NumPy + iminuit on the same likelihood.

    pytest tests/benchmarks/test_scan.py -n 0 -m benchmark --benchmark-enable --benchmark-columns=median,iqr,rounds

Compilation is not timed, but for the commands, which are timed with an empty and with a filled cache.
"""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from iminuit import Minuit
from reference_csi import ReferenceCsI

import cevjax
from cevjax.inference.fit import fit, problem

scans = importlib.import_module("cevjax.inference.scan")
pytestmark = pytest.mark.benchmark
CSI, ALL = ("coherent-csi-2021",), ("coherent-csi-2021", "coherent-lar-2020", "dresden-ii-2022")
SIDE = 100
NSI = {"eps_uV_ee": np.linspace(-0.4, 0.6, SIDE), "eps_dV_ee": np.linspace(-0.4, 0.6, SIDE)}


def likelihood(names, interaction=None):
    return cevjax.Likelihood(
        [cevjax.load(name) for name in names], interaction or cevjax.StandardModel() + cevjax.NSI()
    )


def rate(benchmark, points):
    benchmark.extra_info["microseconds_a_point"] = 1e6 * benchmark.stats.stats.median / points if benchmark.stats else 0


@pytest.mark.benchmark(group="plane of 100 x 100 points, all nuisances profiled")
@pytest.mark.parametrize("names", [CSI, ALL], ids=["csi", "csi+lar+dresden"])
def test_the_points_of_a_plane(benchmark, names):
    """The minimisations alone: the fit, the folding and the file come on top once a scan."""
    like = likelihood(names)
    axes = scans.check_grid(like, NSI)
    task = problem(like, tuple(axes), None)
    job = scans.plan(like, axes, task, fit(like, tuple(axes)))

    def all_points():
        return [job.compute(i) for i in range(len(job.sizes))]

    chunks = all_points()
    benchmark.pedantic(all_points, rounds=5)
    rate(benchmark, SIDE**2)
    assert sum(np.sum(chunk["status"] == scans.FAILED) for chunk in chunks) == 0
    assert max(np.nanmax(chunk["deviation"]) for chunk in chunks) < 1e-3


@pytest.mark.benchmark(group="plane of 100 x 100 points, all nuisances profiled")
@pytest.mark.parametrize("names", [CSI, ALL], ids=["csi", "csi+lar+dresden"])
def test_a_whole_scan(benchmark, names):
    like = likelihood(names)
    cevjax.scan(like, NSI)
    result = benchmark.pedantic(lambda: cevjax.scan(like, NSI), rounds=3)
    rate(benchmark, SIDE**2)
    assert not result.facts["n_failed"]


@pytest.mark.benchmark(group="plane of 100 x 100 points, all nuisances profiled")
def test_points_by_iminuit(benchmark):
    """The same likelihood in NumPy, 20 points of the plane one after the other, each from its neighbour."""
    like, reference = likelihood(CSI), ReferenceCsI("default")
    task = problem(like, tuple(NSI), None)
    names = task.where.names[2:]

    def points():
        start, found = np.zeros(len(names)), []
        for eps in np.linspace(0.0, 0.2, 20):
            here = {"eps_uV_ee": eps, "eps_dV_ee": 0.0}
            minuit = Minuit(lambda *v, here=here: reference.chi2({**here, **dict(zip(names, v, strict=True))}), *start)
            minuit.errordef, minuit.strategy, minuit.errors = 1, 1, [0.5] * len(names)
            for i in range(len(names)):
                minuit.limits[i] = (task.where.lower[i + 2], task.where.upper[i + 2])
            minuit.migrad()
            start, found = np.array(minuit.values), [*found, minuit.fval]
        return found

    found = benchmark.pedantic(points, rounds=3, warmup_rounds=1)
    rate(benchmark, 20)
    ours = cevjax.scan(like, {"eps_uV_ee": np.linspace(0.0, 0.2, 20)}).chi2
    np.testing.assert_allclose(found, ours, atol=5e-3)


@pytest.mark.benchmark(group="commands")
@pytest.mark.parametrize("cache", ["empty", "filled"])
def test_the_command(benchmark, cache, tmp_path):
    grids = ["--grid", "eps_uV_ee=-0.4:0.6:100", "--grid", "eps_dV_ee=-0.4:0.6:100"]
    words = [sys.executable, "-m", "cevjax", "scan", *CSI, "--interaction", "nsi", *grids, "--out", "plane.nc"]
    runs = iter(range(10))

    def command():
        folder = tmp_path / (f"cache-{next(runs)}" if cache == "empty" else "cache")
        environment = {**os.environ, "CEVJAX_CACHE": str(folder)}
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)

    benchmark.pedantic(command, rounds=3, warmup_rounds=0 if cache == "empty" else 1)


@pytest.mark.benchmark(group="toys")
def test_toys(benchmark):
    """10,000 toys, each fitted twice."""
    like = likelihood(CSI, cevjax.StandardModel())
    cevjax.toys(like, {"sin2_theta_w": 0.2386}, n=10_000, seed=1)
    result = benchmark.pedantic(lambda: cevjax.toys(like, {"sin2_theta_w": 0.2386}, n=10_000, seed=2), rounds=3)
    rate(benchmark, 20_000)
    assert result.n_failed < 10


MAPS = {
    "angle and radius": (cevjax.StandardModel(), {"sin2_theta_w": (0.18, 0.3), "R_n_CsI": (4.0, 7.0)}),
    "two flavours": (None, {"eps_uV_ee": (-0.1, 0.3), "eps_uV_mumu": (-0.1, 0.3)}),
    "up and down": (None, {"eps_uV_ee": (-0.1, 0.3), "eps_dV_ee": (-0.1, 0.3)}),
}


@pytest.mark.benchmark(group="Feldman-Cousins")
@pytest.mark.parametrize("plane", MAPS)
def test_feldman_cousins(benchmark, plane):
    """Maps of 12 x 12 points with 1000 toys each, 288,000 fits; one of 50 x 50 points takes 17 times as long."""
    interaction, ranges = MAPS[plane]
    like = likelihood(CSI, interaction) if interaction else likelihood(CSI)
    grid = {name: np.linspace(*ends, 12) for name, ends in ranges.items()}
    options = {"cl": (0.90,), "n_first": 1000, "n_max": 1000, "seed": 1}
    cevjax.feldman_cousins(like, {name: values[:4] for name, values in grid.items()}, **options)
    found = benchmark.pedantic(lambda: cevjax.feldman_cousins(like, grid, **options), rounds=1)
    rate(benchmark, 288_000)
    assert int(found.dataset["n_lost"].sum()) < 100
