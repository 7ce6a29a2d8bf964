"""Feldman-Cousins against the tables of their paper and against sums over all possible counts."""

import importlib

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import stats

import cevjax
from cevjax.contours import threshold
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.inference.feldman_cousins import FeldmanCousinsResult, feldman_cousins
from cevjax.likelihood import poisson_nll
from cevjax.measurement import Component, Measurement, Template
from cevjax.parameters import Parameter, pull
from cevjax.scans import FAILED, ScanResult

module = importlib.import_module("cevjax.inference.feldman_cousins")  # the package has a function of that name
SIGNAL = Parameter("s", 1.0, "events", bounds=(0.0, np.inf), scale=1.0, window=(0.0, 30.0))
OTHER = Parameter("r", 1.0, "events", bounds=(0.0, np.inf), scale=1.0, window=(0.0, 30.0))


class Yield(Component):
    """Counts proportional to a parameter, nan where it is large."""

    name: str = eqx.field(static=True)
    parameter: Parameter = eqx.field(static=True)
    counts: Array
    broken_above: float = eqx.field(static=True, default=np.inf)

    @property
    def parameters(self):
        return () if self.parameter.nuisance else (self.parameter,)

    def __call__(self, params, interaction):
        x = params[self.parameter.name]
        return jnp.where(x > self.broken_above, jnp.nan, x) * self.counts


def experiment(observed, components, nuisances=(), sigma=None):
    """A likelihood of bins with made-up components."""
    edges = tuple(float(x) for x in range(len(observed) + 1))
    fields = {"components": tuple(components), "nuisances": tuple(nuisances), "sigma": sigma}
    return cevjax.Likelihood(
        Measurement("made-up", "default", (("keV", edges),), observed, **fields), cevjax.StandardModel()
    )


def counting(n, b):
    """One bin: Poisson counts with mean s + b."""
    return experiment([n], [Yield("signal", SIGNAL, jnp.ones(1)), Template("background", jnp.array([b]))])


def gaussian(x):
    """One bin: a measurement of s >= 0 with error 1."""
    return experiment([x], [Yield("signal", SIGNAL, jnp.ones(1))], sigma=np.ones(1))


def t_of(n, s, b):
    """The test statistic of counts."""
    nll = lambda s: np.asarray(poisson_nll(s + b, n))  # noqa: E731
    return 2 * (nll(s) - nll(np.maximum(n - b, 0.0)))


def exact_p_value(n, s, b):
    """Probability of counts that are no more likely, relative to their best fit, than ``n``."""
    possible = np.arange(80)
    return np.sum(stats.poisson.pmf(possible, s + b)[t_of(possible, s, b) >= t_of(n, s, b) - 1e-9])


# Feldman & Cousins, physics/9711021, table IV: counts, background, interval of 90 %
TABLE = [(1, 3.0, 0.0, 1.88), (3, 3.0, 0.0, 4.42), (6, 3.0, 0.15, 8.47), (9, 3.0, 1.88, 12.30), (4, 0.0, 1.47, 8.60)]
MORE = [TABLE[0], *TABLE[2:4], (0, 3.0, 0.0, 0.95)]


@pytest.mark.parametrize(
    ("n", "b", "low", "high"), [TABLE[1], TABLE[4], *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)]
)
def test_counts_with_background_against_the_table(n, b, low, high):
    """The sums over all counts are those of the paper, and the toys those of the sums.

    For n = 0, b = 3 the paper gives 1.08: it keeps limits from falling with the background, the construction does not.
    """
    fine = np.arange(0.005, high + 3, 0.01)
    inside = fine[np.array([exact_p_value(n, s, b) for s in fine]) > 0.10]
    assert inside[0] == pytest.approx(max(low, 0.005), abs=0.011) and inside[-1] == pytest.approx(high, abs=0.011)
    coarse = np.linspace(0.05, high + 2, 12)
    exact = np.array([exact_p_value(n, s, b) for s in coarse])
    clear = np.abs(exact - 0.10) > 0.02
    grid, exact = coarse[clear], exact[clear]
    result = feldman_cousins(counting(float(n), b), {"s": grid}, cl=(0.90,), n_max=8000, seed=1)
    error = np.sqrt(np.clip(exact * (1 - exact), 1e-4, None) / result.dataset["n_toys"].values)
    assert np.all(np.abs(result.p_value - exact) < 4.5 * error)
    np.testing.assert_allclose(result.scan.delta_chi2, t_of(float(n), grid, b), atol=2e-3)
    np.testing.assert_array_equal(result.inside(0.90), exact > 0.10)


@pytest.mark.parametrize(
    ("x", "low", "high"), [(-2.0, 0.0, 0.40), (-1.0, 0.0, 0.81), (0.0, 0.0, 1.64), (2.0, 0.58, 3.64)]
)
def test_a_gaussian_with_a_boundary_against_the_table(x, low, high):
    """Table X of the same paper, at 90 %."""
    inside = [y for y in (low + 0.12, (low + high) / 2, high - 0.12) if y > 0]
    outside = [y for y in (low - 0.12, high + 0.12) if y > 0]
    grid = np.array(sorted([*inside, *outside]))
    result = feldman_cousins(gaussian(x), {"s": grid}, cl=(0.90,), n_first=1000, n_max=16_000, seed=3)
    np.testing.assert_array_equal(result.inside(0.90), np.isin(grid, inside))
    # Wilks does not know of the boundary
    end = np.sqrt(threshold(0.90) + min(x, 0.0) ** 2) + x
    np.testing.assert_array_equal(result.wilks.delta_chi2 < threshold(0.90), (grid < end) & (grid > 2 * x - end))


def test_toys_stop_where_it_is_clear_and_continue_where_it_is_not():
    n, b = 3.0, 3.0
    grid = np.array([1.0, 4.2, 12.0])
    result = feldman_cousins(counting(n, b), {"s": grid}, cl=(0.90,), n_max=3200, seed=2)
    drawn = result.dataset["n_toys"].values
    assert drawn[0] == 100 and drawn[2] == 100 and drawn[1] > 400
    assert result.inside(0.90)[0] and not result.inside(0.90)[2]  # that in between has p = 0.105
    everywhere = feldman_cousins(counting(n, b), {"s": grid}, cl=(0.90,), n_first=400, n_max=400, seed=2)
    assert np.all(everywhere.dataset["n_toys"].values == 400)


@pytest.mark.slow
def test_critical_values_of_gaussian_data_are_those_of_chi2():
    """Far from the boundary, and with a constrained nuisance."""
    components = [Yield("signal", SIGNAL, jnp.array([2.0, 1.0])), Yield("extra", pull("a", ""), jnp.array([1.0, -1.0]))]
    like = experiment([42.0, 20.0], components, [pull("a", "extra")], sigma=np.ones(2))
    result = feldman_cousins(like, {"s": np.array([19.7, 20.0, 21.0])}, cl=(0.6827, 0.90), n_first=4000, n_max=4000)
    t = result.scan.delta_chi2
    np.testing.assert_allclose(result.dataset["critical_90"], 2.706, atol=0.25)
    np.testing.assert_allclose(result.dataset["critical_68.27"], 1.0, atol=0.1)
    assert np.all(np.abs(result.p_value - stats.chi2.sf(t, 1)) < 4 * result.dataset["p_error"].values + 1e-3)
    # drawn as a scan, with thresholds of chi2, both regions are the same
    np.testing.assert_allclose(result.toys.delta_chi2, t, rtol=0.15, atol=0.1)
    assert result.toys.chi2_min == result.wilks.chi2_min


@pytest.mark.slow
def test_a_plane_of_two_independent_counts():
    """Two bins with a signal each: the p-value is a double sum."""
    b = 2.0
    components = [
        Yield("signal", SIGNAL, jnp.array([1.0, 0.0])),
        Yield("other", OTHER, jnp.array([0.0, 1.0])),
        Template("background", jnp.array([b, b])),
    ]
    like = experiment([4.0, 1.0], components)
    grid = {"s": np.array([0.5, 2.0, 7.0]), "r": np.array([0.3, 3.0])}
    result = feldman_cousins(like, grid, cl=(0.90,), n_first=3000, n_max=3000, seed=4)
    assert result.p_value.shape == (3, 2) and result.dof == 2
    n = np.arange(50)
    for i, s in enumerate(grid["s"]):
        for k, r in enumerate(grid["r"]):
            t = t_of(n, s, b)[:, None] + t_of(n, r, b)
            p = np.outer(stats.poisson.pmf(n, s + b), stats.poisson.pmf(n, r + b))
            exact = np.sum(p[t >= t_of(4.0, s, b) + t_of(1.0, r, b) - 1e-9])
            assert abs(result.p_value[i, k] - exact) < 4.5 * np.sqrt(exact * (1 - exact) / 3000) + 1e-12


def test_results_do_not_depend_on_chunks_and_threads(monkeypatch, tmp_path):
    like, grid = counting(3.0, 3.0), {"s": np.linspace(0.5, 8.0, 7)}
    whole = feldman_cousins(like, grid, n_max=400, seed=6)
    for points, rows, threads in ((2, 4096, "1"), (32, 150, "2"), (3, 64, "2")):
        monkeypatch.setattr(module, "POINTS", points)
        monkeypatch.setattr(module, "CHUNK", rows)
        monkeypatch.setenv("CEVJAX_THREADS", threads)
        other = feldman_cousins(like, grid, n_max=400, seed=6)
        for name in ("p_value", "n_toys", "chi2", "critical_90"):
            np.testing.assert_array_equal(other.dataset[name], whole.dataset[name])
    different = feldman_cousins(like, grid, n_max=400, seed=7)
    assert np.any(different.p_value != whole.p_value)


def test_an_interrupted_run_continues(monkeypatch, tmp_path):
    like, grid, out = counting(3.0, 3.0), {"s": np.linspace(0.5, 8.0, 6)}, tmp_path / "fc.nc"
    monkeypatch.setattr(module, "POINTS", 2)
    whole = feldman_cousins(like, grid, n_max=200, seed=6)
    compute = module.FeldmanCousinsJob.compute

    def stop(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return compute(self, index)

    monkeypatch.setattr(module.FeldmanCousinsJob, "compute", stop)
    with pytest.raises(KeyboardInterrupt):
        feldman_cousins(like, grid, n_max=200, seed=6, out=out)
    monkeypatch.setattr(module.FeldmanCousinsJob, "compute", compute)
    with pytest.raises(InvalidValueError, match="belongs to another job: `seed` was 6 and is 7 now"):
        feldman_cousins(like, grid, n_max=200, seed=7, out=out, resume=True)
    result = feldman_cousins(like, grid, n_max=200, seed=6, out=out, resume=True)
    np.testing.assert_array_equal(result.p_value, whole.p_value)
    saved = FeldmanCousinsResult(ScanResult.load(out))
    np.testing.assert_array_equal(saved.p_value, whole.p_value)
    np.testing.assert_array_equal(saved.inside(0.90), whole.inside(0.90))
    assert saved.scan.facts["n_toys"] == int(whole.dataset["n_toys"].sum())
    assert not (tmp_path / "fc.nc.part").exists()


def test_points_where_the_data_cannot_be_fitted_are_marked():
    signal = Yield("signal", SIGNAL, jnp.ones(1), broken_above=10.0)
    like = experiment([4.0], [signal, Template("background", jnp.array([3.0]))])
    result = feldman_cousins(like, {"s": np.array([2.0, 11.0])}, cl=(0.90,), n_max=100)
    assert result.scan.status[1] == FAILED and result.scan.status[0] != FAILED
    assert np.isnan(result.p_value[1]) and result.dataset["n_toys"].values[1] == 0
    assert result.scan.facts["n_failed"] == 1
    assert not result.inside(0.90)[1]


@pytest.mark.parametrize(
    ("grid", "options", "error", "message"),
    [
        ({"S": [1.0, 2.0]}, {}, UnknownNameError, "Did you mean 's'"),
        ({"s": [2.0, 1.0]}, {}, InvalidValueError, "increas"),
        ({"s": [-1.0, 1.0]}, {}, InvalidValueError, "between 0 and inf"),
        ({}, {}, InvalidValueError, "grid"),
        ({"s": [1.0, 2.0]}, {"cl": ()}, InvalidValueError, "at least one confidence level"),
        ({"s": [1.0, 2.0]}, {"cl": (1.5,)}, InvalidValueError, "cl"),
        ({"s": [1.0, 2.0]}, {"n_first": 0}, InvalidValueError, "Argument `n_first` must be a whole number, 1 or more"),
        ({"s": [1.0, 2.0]}, {"n_max": 50}, InvalidValueError, r"Argument `n_max` must be at least `n_first` \(100\)"),
        ({"s": [1.0, 2.0]}, {"seed": -1}, InvalidValueError, "Argument `seed` must be a whole number, 0 or more"),
        ({"s": [1.0, 2.0]}, {"out": "map.txt"}, InvalidValueError, "must end in .nc or .zarr"),
    ],
)
def test_unusable_arguments(grid, options, error, message):
    with pytest.raises(error, match=message):
        feldman_cousins(counting(3.0, 3.0), grid, **options)


@pytest.mark.slow
def test_csi_weak_mixing_angle_is_almost_that_of_wilks(csi_likelihood):
    like = csi_likelihood("default")
    grid = {"sin2_theta_w": np.linspace(0.16, 0.33, 8)}
    result = feldman_cousins(like, grid, cl=(0.90,), n_first=1000, n_max=1000, seed=1)
    asymptotic = stats.chi2.sf(result.scan.delta_chi2, 1)
    assert np.all(np.abs(result.p_value - asymptotic) < 4 * result.dataset["p_error"].values + 0.03)
    assert result.dataset["n_lost"].values.sum() == 0
    # t of the data is that of the exact likelihood
    profile = cevjax.profile(like, grid)
    np.testing.assert_allclose(result.scan.chi2, profile.chi2, atol=1e-3)
