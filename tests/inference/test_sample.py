"""Draws of posteriors: what must hold whatever the data are. That they are right is shown in validation/."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import cevjax
from cevjax import posteriors
from cevjax.inference import chains
from cevjax.inference.posterior import folded_posterior, make_posterior
from cevjax.inference.sample import SampleJob
from cevjax.inference.tempering import log_likelihood, log_prior

STATISTIC = "2303.09360"  # few nuisances


@pytest.fixture(scope="module")
def like(csi_likelihood):
    return csi_likelihood(STATISTIC)


@pytest.fixture(scope="module")
def result(like):
    return cevjax.sample(like, ("sin2_theta_w",), chains=4, draws=500, seed=1)


def values(result):
    return {str(name): x.values for name, x in result.posterior.data_vars.items()}


# ----------------------------------------------------------------------------------------------------------- posterior


def test_density_is_likelihood_times_priors(like):
    """Likelihood of the data, densities of all priors, and the slopes of the map from coordinates, by differences."""
    posterior = make_posterior(like, ("sin2_theta_w",), {"sin2_theta_w": "flat:0.1:0.4"})
    z = np.random.default_rng(1).normal(size=(20, len(posterior.names)))
    columns, up, down = (posterior.values(z + step) for step in (0.0, 1e-5, -1e-5))
    for i in range(len(z)):
        point = {name: float(x[i]) for name, x in columns.items()}
        constraints = sum(
            0.5 * ((point[p.name] - p.constraint.mean) / p.constraint.sigma) ** 2 for p in like.constrained
        )
        expected = constraints - float(like.nll(like.nominal(**point)))
        for prior, name in zip(posterior.priors, posterior.names, strict=True):
            expected += float(prior.log_density(point[name])) + np.log((up[name][i] - down[name][i]) / 2e-5)
        assert log_likelihood(posterior, z[[i]])[0] + log_prior(posterior, z[[i]])[0] == pytest.approx(
            expected, abs=1e-6
        )


def test_values_and_coordinates_are_inverse(like):
    posterior = make_posterior(like, ("sin2_theta_w",))
    z = np.random.default_rng(2).normal(size=(3, 5, len(posterior.names)))
    np.testing.assert_allclose(posterior.coordinates(posterior.values(z)), z, atol=1e-9)


def test_folded_posterior_is_close(csi_likelihood):
    posterior = make_posterior(csi_likelihood("default", nsi=True), ("eps_uV_ee", "eps_dV_ee"))
    z = np.random.default_rng(3).normal(size=(64, len(posterior.names)))
    exact, folded = log_likelihood(posterior, z), log_likelihood(folded_posterior(posterior), z)
    np.testing.assert_allclose(folded, exact, rtol=1e-5, atol=2e-3)


def test_auxiliary_results_are_the_means_of_priors(csi_likelihood):
    like = csi_likelihood()
    moved = like.with_data(like.data._replace(auxiliary=like.auxiliary + 0.5))
    before, after = (make_posterior(x, ("sin2_theta_w",)) for x in (like, moved))
    i = before.names.index("sns_flux")
    assert (before.priors[i].mean, after.priors[i].mean) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free": ("sin2_thet_w",)}, "Did you mean 'sin2_theta_w'"),
        ({"free": ("sin2_theta_w",), "priors": {"sin2_theta": "flat:0:1"}}, "Did you mean 'sin2_theta_w'"),
        ({"free": ("sin2_theta_w",), "priors": {"R_n_Cs133": "flat:4:6"}}, "name it in `free`"),
        ({"free": ("sin2_theta_w",), "priors": {"sin2_theta_w": "flat:-1:1"}}, "between 0 and 1"),
        ({"free": ("sin2_theta_w",), "priors": {"sin2_theta_w": "gauss:0:1"}}, "must read flat:a:b"),
        ({"free": ("sin2_theta_w",), "values": {"sin2_theta_w": 0.2}}, "either free or set"),
        ({"free": ("sin2_theta_w",), "chains": 0}, "`chains` must be a whole number"),
        ({"free": ("sin2_theta_w",), "draws": 1.5}, "`draws` must be a whole number"),
        ({"free": ("sin2_theta_w",), "seed": -1}, "`seed` must be a whole number"),
        ({"free": ("sin2_theta_w",), "out": "posterior.txt"}, "must end in .nc"),
    ],
)
def test_bad_input(like, options, message):
    with pytest.raises(cevjax.errors.CevjaxError, match=message):
        cevjax.sample(like, **options)


def test_no_likelihood():
    with pytest.raises(cevjax.errors.InvalidValueError, match="must be a likelihood"):
        cevjax.sample(cevjax.load("coherent-csi-2021"), ("sin2_theta_w",))


# --------------------------------------------------------------------------------------------------------------- draws


def test_gaussian_limit(like, result):
    """With much data per parameter the posterior is that of the fit: mean and width."""
    fit = cevjax.fit(like, ("sin2_theta_w",))
    x = result.posterior["sin2_theta_w"].values
    error = fit.errors["sin2_theta_w"]
    assert np.mean(x) == pytest.approx(fit.values["sin2_theta_w"], abs=0.15 * error)
    assert np.std(x) == pytest.approx(error, rel=0.06)


def test_same_seed_same_draws(like, result):
    again = cevjax.sample(like, ("sin2_theta_w",), chains=4, draws=500, seed=1)
    other = cevjax.sample(like, ("sin2_theta_w",), chains=4, draws=500, seed=2)
    for name, x in values(result).items():
        np.testing.assert_array_equal(x, values(again)[name])
        assert not np.any(x == values(other)[name])


@pytest.mark.parametrize("number", [1, 3])
def test_other_chains_make_no_difference(like, result, number):
    some = cevjax.sample(like, ("sin2_theta_w",), chains=number, draws=500, seed=1)
    for name, x in values(result).items():
        np.testing.assert_array_equal(x[:number], values(some)[name])


def test_more_draws_continue(like, result):
    """The first draws of a longer chain are those of a shorter one."""
    longer = cevjax.sample(like, ("sin2_theta_w",), chains=1, draws=620, seed=1)
    for name, x in values(result).items():
        np.testing.assert_array_equal(x[0], values(longer)[name][0, :500])


def test_exact_likelihood_if_asked(like, result):
    exact = cevjax.sample(like, ("sin2_theta_w",), chains=4, draws=250, seed=1, exact=True)
    assert posteriors.facts_of(exact)["method"] == "exact"
    assert posteriors.facts_of(result)["method"] == "folded"
    one, other = (x.posterior["sin2_theta_w"].values for x in (exact, result))
    assert np.mean(one) == pytest.approx(np.mean(other), abs=4 * np.std(other) / np.sqrt(500))


def test_folding_that_is_not_good_enough_is_not_used(like, monkeypatch):
    monkeypatch.setattr(sys.modules["cevjax.inference.sample"], "DEVIATION", -1.0)
    found = cevjax.sample(like, ("sin2_theta_w",), chains=1, draws=10, seed=1)
    assert posteriors.facts_of(found)["method"] == "exact"


def test_log_posterior_is_that_of_the_draws(like, result):
    posterior = make_posterior(like, ("sin2_theta_w",))
    z = posterior.coordinates({n: x[:, :20] for n, x in values(result).items()}).reshape(-1, len(posterior.names))
    expected = log_likelihood(posterior, z) + log_prior(posterior, z)
    np.testing.assert_allclose(result.sample_stats["lp"].values[:, :20].ravel(), expected, atol=5e-3)


def test_chains_do_not_depend_on_the_grouping(like):
    """A chain alone, with one neighbour or another, bit for bit."""
    posterior = folded_posterior(make_posterior(like, ("sin2_theta_w",)))
    job = SampleJob(posterior, 5, 10, 1, True)
    points = job.follow(0, [])
    _, mixture = job.acting(points)
    rng = np.random.default_rng(1)
    state = chains.State(rng.normal(size=(5, len(posterior.names))) * 0.1, np.full(5, np.log(0.5)))
    all_of_them = chains.advance(posterior, mixture, state, 1, 0, 7)
    alone = chains.advance(posterior, mixture, chains.State(*(x[:1] for x in state)), 1, 0, 7)
    np.testing.assert_array_equal(all_of_them.z[:1], alone.z)
    again = chains.advance(posterior, mixture, all_of_them.last, 1, 7, 3)
    longer = chains.advance(posterior, mixture, state, 1, 0, 10)
    np.testing.assert_array_equal(longer.z[:, 7:], again.z)


# --------------------------------------------------------------------------------------------------- resume, devices


SCRIPT = """
import sys
import cevjax
cevjax.enable_compilation_cache()
like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
cevjax.sample(like, ("sin2_theta_w",), chains=2, draws=2000, seed=5, out=sys.argv[1], resume="resume" in sys.argv)
"""


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    """Killed after the warm-up, and again after some pieces: the draws are those of one run, to the last bit."""
    whole, part = tmp_path / "whole.nc", tmp_path / "part.nc"
    subprocess.run([sys.executable, "-c", SCRIPT, str(whole)], check=True)
    folder = tmp_path / "part.nc.part"
    for wanted in (2, 4):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(part), "resume"])
        while process.poll() is None and len(list(folder.glob("chunk-*.npz"))) < wanted:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not part.exists()
    left = len(list(folder.glob("chunk-*.npz")))
    assert 4 <= left < 10
    subprocess.run([sys.executable, "-c", SCRIPT, str(part), "resume"], check=True)
    one, other = posteriors.load(whole), posteriors.load(part)
    for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
        for name, x in one[group].data_vars.items():
            np.testing.assert_array_equal(x.values, other[group][name].values, err_msg=f"{group}.{name}")
    assert not folder.exists()
    facts = [posteriors.facts_of(x) for x in (one, other)]
    assert facts[0]["log_evidence"] == facts[1]["log_evidence"]


def test_another_job_in_the_folder(like, tmp_path):
    out = tmp_path / "posterior.nc"
    job = SampleJob(make_posterior(like, ("sin2_theta_w",)), 1, 10, 1, False)
    cevjax.jobs.run(job, tmp_path / "posterior.nc.part")
    with pytest.raises(cevjax.errors.InvalidValueError, match="resume"):
        cevjax.sample(like, ("sin2_theta_w",), chains=1, draws=10, seed=1, out=out)
    with pytest.raises(cevjax.errors.InvalidValueError, match="`seed` was 1 and is 2"):
        cevjax.sample(like, ("sin2_theta_w",), chains=1, draws=10, seed=2, out=out, resume=True)
    with pytest.raises(cevjax.errors.InvalidValueError, match=r"priors.sin2_theta_w"):
        narrow = {"sin2_theta_w": "flat:0.1:0.4"}
        cevjax.sample(like, ("sin2_theta_w",), narrow, chains=1, draws=10, seed=1, out=out, resume=True)
    found = cevjax.sample(like, ("sin2_theta_w",), chains=1, draws=10, seed=1, out=out, resume=True)
    assert found.posterior.sizes["draw"] == 10 and out.is_file()


DEVICES = """
import sys, json
import jax
import cevjax
cevjax.enable_compilation_cache()
like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
result = cevjax.sample(like, ("sin2_theta_w",), chains=4, draws=50, seed=5)
json.dump([len(jax.devices()), result.posterior["sin2_theta_w"].values.tolist()], open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_several_devices(tmp_path):
    found = []
    for count in (1, 2):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        file = tmp_path / f"{count}.json"
        environment = {**os.environ, "XLA_FLAGS": flags}
        subprocess.run([sys.executable, "-c", DEVICES, str(file)], check=True, env=environment)
        number, draws = json.loads(file.read_text())
        assert number == count
        found.append(np.array(draws))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, cevjax; print([m for m in ('numpyro', 'arviz', 'optax', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_gradient_of_the_density(like):
    """Against finite differences."""
    posterior = make_posterior(like, ("sin2_theta_w",))
    z = 0.3 * np.random.default_rng(4).normal(size=len(posterior.names))
    value = jax.jit(lambda z: posterior.log_likelihood(z))
    gradient = np.asarray(jax.grad(value)(z))
    step = 1e-5
    for i in range(len(z)):
        away = step * np.eye(len(z))[i]
        difference = (float(value(z + away)) - float(value(z - away))) / (2 * step)
        assert gradient[i] == pytest.approx(difference, rel=1e-5, abs=1e-6)
