"""Toys of experiments whose distributions are known, and of the CsI data against another minimiser."""

import importlib
from functools import cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import stats

import cevjax
from cevjax import jobs
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.inference import pairs
from cevjax.inference.pseudo import poisson, pseudo_data
from cevjax.inference.toys import fraction, toys
from cevjax.likelihood import poisson_nll
from cevjax.measurement import Component, Measurement, Norm, Template
from cevjax.parameters import Parameter, pull
from cevjax.scans import FAILED, RETRIED

module = importlib.import_module("cevjax.inference.toys")  # the package has a function of that name
SIGNAL = Parameter("s", 0.0, "events", scale=1.0, window=(-30.0, 30.0))
POSITIVE = Parameter("s", 0.0, "events", bounds=(0.0, np.inf), scale=1.0, window=(0.0, 30.0))
BACKGROUND = Parameter("b", 10.0, "events", bounds=(0.0, np.inf), scale=1.0, nuisance=True)


class Yield(Component):
    """Counts proportional to a power of a parameter, or nan where another one is large."""

    name: str = eqx.field(static=True)
    parameter: Parameter = eqx.field(static=True)
    counts: Array
    power: int = eqx.field(static=True, default=1)
    broken_above: float = eqx.field(static=True, default=np.inf)

    @property
    def parameters(self):
        return () if self.parameter.nuisance else (self.parameter,)

    def __call__(self, params, interaction):
        x = params[self.parameter.name]
        return jnp.where(x > self.broken_above, jnp.nan, x**self.power) * self.counts


def experiment(observed, components, nuisances=(), sigma=None):
    """A likelihood of bins with made-up components."""
    edges = tuple(float(x) for x in range(len(observed) + 1))
    fields = {"components": tuple(components), "nuisances": tuple(nuisances), "sigma": sigma}
    return cevjax.Likelihood(
        Measurement("made-up", "default", (("keV", edges),), observed, **fields), cevjax.StandardModel()
    )


@cache
def counting(n=4.0, b=3.0, parameter=POSITIVE, power=1):
    """One bin: Poisson counts with mean s + b, or s^2 + b."""
    return experiment([n], [Yield("signal", parameter, jnp.ones(1), power), Template("background", jnp.array([b]))])


@cache
def on_off(n_on=20.0, n_off=24.0, tau=2.0):
    """Two bins with means s + b and tau b, both free."""
    signal = Yield("signal", SIGNAL, jnp.array([1.0, 0.0]))
    return experiment([n_on, n_off], [signal, Yield("background", BACKGROUND, jnp.array([1.0, tau]))], [BACKGROUND])


@cache
def linear():
    """Three Gaussian bins, one signal and one constrained nuisance: everything has a closed form."""
    components = [
        Yield("signal", SIGNAL, jnp.array([1.0, 2.0, 3.0])),
        Template("background", jnp.array([5.0, 5.0, 5.0]), Norm((("a", 0.2),))),
    ]
    return experiment([9.0, 5.0, 9.0], components, [pull("a", "background")], sigma=np.array([2.0, 1.0, 1.5]))


# ------------------------------------------------------------------------------------------------------- pseudo-data


@pytest.mark.parametrize("mu", [0.0, 1e-3, 0.7, 3.0, 40.0, 1e5])
def test_counts_are_poisson_quantiles(mu):
    uniform = np.concatenate([np.random.default_rng(1).uniform(size=500), [2.0**-53, 1e-9, 1 - 1e-6]])
    found = poisson(np.array([mu]), uniform[:, None])[:, 0]
    np.testing.assert_array_equal(found, np.maximum(stats.poisson.ppf(uniform, mu), 0))


def test_moments_of_counts_and_auxiliary_results(csi_likelihood):
    like = csi_likelihood("default")
    params = like.nominal(sns_flux=1.0, csi2021_brn=-0.5)
    n = 20_000
    data = pseudo_data(like, params, n, seed=3)
    parts = like.expected(params)["coherent-csi-2021"]
    mu = np.sum([np.asarray(x) for x in parts.values()], axis=0).ravel()
    counts = data.observed[0].reshape(n, -1)
    assert np.max(np.abs(counts.mean(axis=0) - mu) / np.sqrt(mu / n)) < 4.5
    # fourth central moment of a Poisson variable: mu + 3 mu^2
    error = np.sqrt((mu + 2 * mu**2) / n)
    assert np.max(np.abs(counts.var(axis=0) - mu) / error) < 5
    centre = np.array([params[p.name] for p in like.constrained])
    sigma = np.array([p.constraint.sigma for p in like.constrained])
    pulls = (data.auxiliary - centre) / sigma
    assert np.max(np.abs(pulls.mean(axis=0))) < 4.5 / np.sqrt(n)
    assert np.max(np.abs(pulls.var(axis=0) - 1)) < 5 * np.sqrt(2 / n)
    everything = np.concatenate([(counts - mu) / np.sqrt(mu), pulls], axis=1)
    correlation = np.corrcoef(everything.T) - np.eye(everything.shape[1])
    assert np.max(np.abs(correlation)) < 5.5 / np.sqrt(n)


def test_gaussian_counts_have_the_errors_of_the_measurement():
    like = linear()
    data = pseudo_data(like, like.nominal(s=1.0), 5000, seed=1)
    counts = data.observed[0]
    np.testing.assert_allclose(counts.mean(axis=0), [6, 7, 8], atol=4 * 2.0 / np.sqrt(5000))
    np.testing.assert_allclose(counts.std(axis=0), [2.0, 1.0, 1.5], rtol=0.05)
    assert stats.kstest((counts[:, 0] - 6) / 2, "norm").pvalue > 1e-3


def test_a_toy_does_not_depend_on_the_others():
    like = on_off()
    point = like.nominal(s=5.0)
    many, few = pseudo_data(like, point, 300, seed=7), pseudo_data(like, point, 40, seed=7, first=123)
    np.testing.assert_array_equal(many.observed[0][123:163], few.observed[0])
    other = pseudo_data(like, point, 300, seed=8)
    assert np.any(other.observed[0] != many.observed[0])


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_number_of_toys_must_be_one(n):
    like = counting()
    with pytest.raises(InvalidValueError, match="Argument `n` must be a whole number, 1 or more, but was"):
        pseudo_data(like, like.nominal(), n, seed=0)


# -------------------------------------------------------------------------------------------------------- closed forms


def counting_t(n, s, b):
    """t of one bin whose signal cannot be negative."""
    nll = lambda s: np.asarray(poisson_nll(s + b, n))  # noqa: E731
    return 2 * (nll(s) - nll(np.maximum(n - b, 0.0)))


@pytest.mark.parametrize("power", [1, 2])
def test_t_of_a_counting_experiment(power):
    """One that is linear in its parameter, and one whose parameter enters squared and is tested at zero."""
    s, b, n_obs = (2.0 if power == 1 else 0.0), 3.0, 6.0
    parameter = POSITIVE if power == 1 else SIGNAL
    like = counting(n_obs, b, parameter, power)
    result = toys(like, {"s": s}, n=2000, seed=5)
    counts = pseudo_data(like, like.nominal(s=s), 2000, seed=5).observed[0][:, 0]
    assert result.n_failed == 0
    np.testing.assert_allclose(result.t, counting_t(counts, s, b), atol=5e-4)
    assert result.t_observed == pytest.approx(counting_t(n_obs, s, b), abs=5e-4)
    possible = np.arange(60)
    p = np.sum(stats.poisson.pmf(possible, s + b)[counting_t(possible, s, b) >= result.t_observed - 1e-3])
    value, error = result.p_value
    assert abs(value - p) < 4 * error
    assert error == pytest.approx(np.sqrt(p * (1 - p) / 2000), rel=0.15)
    assert result.accuracy < 5e-4
    if power == 2:
        np.testing.assert_allclose(result.fitted["s"] ** 2, np.maximum(counts - b, 0), atol=0.15)


@pytest.mark.slow
def test_t_of_signal_and_background_measured_apart():
    """Li & Ma, ApJ 272 (1983) 317, equation 17."""
    tau = 2.0
    like = on_off()
    result = toys(like, {"s": 0.0}, n=1000, seed=2)
    b = (20 + 24) / (1 + tau)
    assert result.params["b"] == pytest.approx(b, rel=1e-4)
    on, off = pseudo_data(like, result.params, 1000, seed=2).observed[0].T
    share = np.array([1.0, tau])[:, None] / (1 + tau) * (on + off)
    t = 2 * np.sum([x * np.log(x / m) for x, m in zip((on, off), share, strict=True)], axis=0)
    np.testing.assert_allclose(result.t, t, atol=1e-3)
    np.testing.assert_allclose(result.fitted["s"], on - off / tau, atol=0.1)
    assert np.max(result.toys_chi2_min) < 1e-3


def test_a_linear_gaussian_experiment_follows_chi2():
    like = linear()
    result = toys(like, {"s": 1.0}, n=4000, seed=4)
    assert stats.kstest(result.t, "chi2", args=(1,)).pvalue > 1e-3
    # three bins and an auxiliary measurement, less two parameters
    assert stats.kstest(result.toys_chi2_min, "chi2", args=(2,)).pvalue > 1e-3
    for cl, (covered, error) in result.coverage.items():
        assert abs(covered - cl) < 4 * error
    for cl, (quantile, limit) in result.quantiles.items():
        assert limit == pytest.approx(stats.chi2.ppf(cl, 1))
        assert quantile == pytest.approx(limit, rel=0.15)
    value, error = result.p_value
    assert abs(value - result.asymptotic_p_value) < 4 * error
    value, error = result.goodness
    assert abs(value - result.asymptotic_goodness) < 4 * error
    assert result.asymptotic_goodness == pytest.approx(stats.chi2.sf(result.chi2_min, 2), rel=1e-6)


def test_t_of_the_linear_experiment_for_every_toy():
    like, s = linear(), 1.0
    result = toys(like, {"s": s}, n=300, seed=4)
    truth = result.params
    data = pseudo_data(like, truth, 300, seed=4)
    sigma = np.array([2.0, 1.0, 1.5])
    y = np.column_stack([(data.observed[0] - 5.0) / sigma, data.auxiliary])
    columns = np.column_stack([np.append([1.0, 2.0, 3.0] / sigma, 0.0), np.append(np.ones(3) / sigma, 1.0)])
    both = y - y @ columns @ np.linalg.inv(columns.T @ columns) @ columns.T
    rest, a = y - s * columns[:, 0], columns[:, 1]
    one = rest - np.outer(rest @ a / (a @ a), a)
    chi2_free, chi2_bound = (np.sum(x**2, axis=1) for x in (both, one))
    np.testing.assert_allclose(result.toys_chi2_min, chi2_free, atol=1e-3)
    np.testing.assert_allclose(result.t, chi2_bound - chi2_free, atol=1e-3)


def test_goodness_of_fit_alone():
    like = linear()
    result = toys(like, n=3000, seed=1)
    assert result.p_value is None and result.asymptotic_p_value is None and not result.coverage
    assert stats.kstest(result.toys_chi2_min, "chi2", args=(3,)).pvalue > 1e-3
    value, error = result.goodness
    assert abs(value - stats.chi2.sf(result.chi2_min, 3)) < 4 * error
    assert result.accuracy < 1e-3


def test_further_parameters_are_profiled():
    """With all others free and no nuisances, t of the one under test is that of a smaller experiment."""
    other = Parameter("other", 5.0, bounds=(0.0, np.inf), scale=1.0, window=(0.0, 30.0))
    components = [Yield("signal", SIGNAL, jnp.array([1.0, 0.0])), Yield("other", other, jnp.array([1.0, 2.0]))]
    like = experiment([20.0, 24.0], components)
    result = toys(like, {"s": 0.0}, n=200, seed=2, free=("other",))
    known = toys(on_off(), {"s": 0.0}, n=200, seed=2)
    assert set(result.fitted) == {"s", "other"}
    np.testing.assert_allclose(result.t, known.t, atol=2e-3)


# ----------------------------------------------------------------------------------------------------------- robustness


@pytest.mark.slow
def test_failed_fits_are_counted_and_left_out():
    """The prediction breaks down above two standard deviations of its nuisance: such toys have no minimum."""
    broken = pull("a", "breaks above 2")
    components = [
        Yield("signal", SIGNAL, jnp.array([1.0, 0.0])),
        Template("background", jnp.array([50.0, 50.0])),
        Yield("weak", broken, jnp.array([0.1, 0.1]), broken_above=2.0),
    ]
    like = experiment([50.0, 50.0], components, [broken])
    result = toys(like, {"s": 0.0}, n=1000, seed=3)
    auxiliary = pseudo_data(like, result.params, 1000, seed=3).auxiliary[:, 0]
    lost = auxiliary > 2.05
    assert 5 < lost.sum() < 60
    assert np.all(result.status[lost] == FAILED) and np.all(np.isnan(result.t[lost]))
    assert np.all(result.status[auxiliary < 1.9] != FAILED)
    assert result.n_failed == np.sum(result.status == FAILED) == result.to_dict()["n_failed"]
    good = result.t[result.good]
    assert np.all(np.isfinite(good))
    assert result.p_value[0] == np.mean(good >= result.t_observed - module.SLACK)
    assert result.quantiles[0.9][0] == np.quantile(good, 0.9)


@pytest.mark.parametrize(
    ("poi", "options", "error", "message"),
    [
        ({"S": 1.0}, {}, UnknownNameError, "Did you mean 's'"),
        ({"s": -1.0}, {}, InvalidValueError, "must be between 0 and inf events, but was -1"),
        ({"s": 1.0}, {"free": ("s",)}, InvalidValueError, "either under test or free, but was both"),
        ({"s": 1.0}, {"values": {"s": 2.0}}, InvalidValueError, "either free or set, but was both"),
        ({"s": 1.0}, {"n": 0}, InvalidValueError, "Argument `n` must be a whole number, 1 or more, but was 0"),
        ({"s": 1.0}, {"seed": -1}, InvalidValueError, "Argument `seed` must be a whole number, 0 or more, but was -1"),
        (("s",), {}, InvalidValueError, "Argument `poi` must be a table of names and values"),
        ({}, {}, InvalidValueError, "Argument `poi` must name a parameter"),
    ],
)
def test_unusable_arguments(poi, options, error, message):
    with pytest.raises(error, match=message):
        toys(counting(), poi, **options)


@pytest.mark.parametrize("modes", [1, 2])
def test_results_do_not_depend_on_how_they_are_computed(monkeypatch, modes):
    like, poi = (on_off(), {"s": 2.0}) if modes == 1 else (counting(20.0, 4.0, SIGNAL, 2), {"s": 3.0})
    whole = toys(like, poi, n=900, seed=1)
    for chunk, block, threads in ((4096, 512, "1"), (250, 512, "2"), (4096, 70, "2")):
        monkeypatch.setattr(module, "CHUNK", chunk)
        monkeypatch.setattr(module, "BLOCK", block)
        monkeypatch.setenv("CEVJAX_THREADS", threads)
        other = toys(like, poi, n=700, seed=1)
        np.testing.assert_array_equal(other.t, whole.t[:700])
        np.testing.assert_array_equal(other.fitted["s"], whole.fitted["s"][:700])


def test_an_interrupted_job_continues(monkeypatch, tmp_path):
    like = on_off()
    monkeypatch.setattr(module, "CHUNK", 100)
    whole = toys(like, {"s": 2.0}, n=350, seed=1)
    compute, computed = module.ToysJob.compute, []

    def stop_at_two(self, index):
        if index == 2 and not computed:
            computed.append(index)
            raise KeyboardInterrupt
        return compute(self, index)

    monkeypatch.setattr(module.ToysJob, "compute", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        toys(like, {"s": 2.0}, n=350, seed=1, folder=tmp_path / "job")
    with pytest.raises(InvalidValueError, match="belongs to another job: `seed` was 1 and is 2 now"):
        toys(like, {"s": 2.0}, n=350, seed=2, folder=tmp_path / "job", resume=True)
    again = toys(like, {"s": 2.0}, n=350, seed=1, folder=tmp_path / "job", resume=True)
    np.testing.assert_array_equal(again.t, whole.t)


def test_the_job_survives_the_way_to_a_worker():
    cloudpickle = pytest.importorskip("cloudpickle")
    like = on_off()
    setup = module.prepare(like, {"s": (2.0,)})
    job = module.ToysJob(module.Experiment.of(setup, {"s": 2.0}), 50, 1)
    sent = cloudpickle.loads(cloudpickle.dumps(job))
    assert dict(sent.identity) == dict(job.identity)
    np.testing.assert_array_equal(jobs.run(sent).columns()["t"], toys(like, {"s": 2.0}, n=50, seed=1).t)


# --------------------------------------------------------------------------------------------------------------- output


def test_output(tmp_path):
    import xarray as xr

    result = toys(on_off(), {"s": 2.0}, n=200, seed=1)
    fields = result.to_dict()
    assert fields["command"] == "toys" and fields["n"] == 200 and fields["dof"] == 1
    assert fields["p_value"] == result.p_value[0]
    assert fields["poi"] == {"s": {"value": 2.0, "unit": "events"}}
    assert [entry["cl"] for entry in fields["coverage"]] == list(module.LEVELS)
    assert cevjax.results.to_json(fields)
    with xr.open_dataset(result.save(tmp_path / "toys.nc"), engine="h5netcdf") as saved:
        np.testing.assert_array_equal(saved["t"], result.t)
        assert saved["s"].attrs["units"] == "events"
        assert '"seed": 1' in saved.attrs["facts"]


def test_fractions_have_errors_where_nothing_passes():
    value, error = fraction(np.zeros(99, bool))
    assert value == 0 and error == pytest.approx(0.0071, abs=1e-4)
    assert np.isnan(fraction(np.zeros(0, bool))[0])


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.slow
def test_csi_toys_against_another_minimiser(csi_likelihood):
    """t of a few toys by iminuit on the exact likelihood; one toy is out of the range of the folded one."""
    iminuit = pytest.importorskip("iminuit")
    like = csi_likelihood("default")
    poi = {"sin2_theta_w": 0.2387}
    result = toys(like, poi, n=400, seed=11)
    assert result.n_failed == 0
    assert result.accuracy < 1e-3
    assert result.p_value[0] == pytest.approx(result.asymptotic_p_value, abs=0.1)
    retried = np.flatnonzero(result.status == RETRIED)[:1]
    names = ("sin2_theta_w", *like.nuisances)
    data = pseudo_data(like, result.params, 400, seed=11)
    for i in (0, 1, 2, *retried):
        toy = like.with_data(
            cevjax.likelihood.Data((jnp.asarray(data.observed[0][i]),), jnp.asarray(data.auxiliary[i]))
        )
        toy.__dict__["_compiled"] = like._compiled
        minuit = iminuit.Minuit(
            lambda *x, toy=toy: float(toy.nll({**result.params, **dict(zip(names, map(float, x), strict=True))})),
            *(result.params[name] for name in names),
            name=names,
        )
        minuit.errordef, minuit.strategy = 0.5, 1
        minuit.limits = [like.parameters[name].bounds for name in names]
        minuit.fixed["sin2_theta_w"] = True
        minuit.migrad()
        fixed = minuit.fval
        minuit.fixed["sin2_theta_w"] = False
        minuit.migrad()
        assert result.t[i] == pytest.approx(2 * (fixed - minuit.fval), abs=1e-3)
        assert result.toys_chi2_min[i] == pytest.approx(2 * minuit.fval, abs=5e-3)


@pytest.mark.slow
def test_csi_weak_mixing_angle_follows_wilks(csi_likelihood):
    like = csi_likelihood("default")
    result = toys(like, {"sin2_theta_w": 0.2387}, n=10_000, seed=1)
    assert result.n_failed == 0
    assert stats.kstest(result.t, "chi2", args=(1,)).statistic < 0.02  # the Poisson counts of the data are few
    for cl, (covered, error) in result.coverage.items():
        assert abs(covered - cl) < 4 * error + 0.01
    value, error = result.goodness
    assert abs(value - result.asymptotic_goodness) < 4 * error + 0.02


@pytest.mark.slow
def test_signals_over_too_many_decades_are_not_folded():
    """Up to the largest coupling a series has no digits left for the small ones; elsewhere it does."""
    csi = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    vector = cevjax.Likelihood([csi], cevjax.StandardModel() + cevjax.LightVector(model="universal"))
    angle = cevjax.Likelihood([csi], cevjax.StandardModel())
    assert pairs.prepare(vector, {"g_zprime": (5e-5,)}).folded is vector
    assert pairs.prepare(angle, {"sin2_theta_w": (0.23,)}).folded is not angle
    result = toys(vector, {"g_zprime": 5e-5}, n=40, seed=11)
    assert result.n_failed == 0 and result.accuracy < 0.01


@pytest.mark.slow
def test_workers_give_the_same_bits(monkeypatch):
    pytest.importorskip("distributed")
    like = cevjax.Likelihood([cevjax.load("ess-si")], cevjax.StandardModel())
    here = toys(like, {"sin2_theta_w": 0.25}, n=5000, seed=1)
    there = toys(like, {"sin2_theta_w": 0.25}, n=5000, seed=1, workers=2)
    np.testing.assert_array_equal(here.t, there.t)
