"""The NumPyro model: the same density as the likelihood with its priors, and a model like any other."""

import jax
import numpy as np
import numpyro
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

import cevjax
from cevjax.inference.posterior import make_posterior


@pytest.fixture(scope="module")
def like(csi_likelihood):
    return csi_likelihood("2303.09360")


def test_log_density(like):
    """Priors plus log likelihood, at random points, jitted or not."""
    priors = {"sin2_theta_w": "normal:0.24:0.02"}
    model = cevjax.numpyro_model(like, ("sin2_theta_w",), priors)
    posterior = make_posterior(like, ("sin2_theta_w",), priors)
    z = np.random.default_rng(1).normal(size=(5, len(posterior.names)))
    for row in z:
        point = {name: float(x) for name, x in posterior.values(row).items()}
        found, _ = log_density(model, (), {}, point)
        pairs = zip(posterior.priors, posterior.names, strict=True)
        expected = sum(float(prior.log_density(point[name])) for prior, name in pairs)
        expected += float(posterior.log_likelihood(row))
        assert float(found) == pytest.approx(expected, abs=1e-8)
        jitted, _ = jax.jit(lambda point: log_density(model, (), {}, point)[0])(point), None
        assert float(jitted) == pytest.approx(expected, abs=1e-8)


def test_prediction_draws_counts(like):
    model = cevjax.numpyro_model(like, ("sin2_theta_w",))
    fixed = {p.name: 0.0 for p in like.constrained}
    drawn = [_counts(model, seed, fixed) for seed in range(40)]
    name = like.measurements[0].name
    expected = np.sum(list(like.expected(like.nominal())[name].values()), axis=0)
    total = np.array([np.sum(x) for x in drawn])
    assert np.mean(total) == pytest.approx(np.sum(expected), abs=4 * np.sqrt(np.sum(expected) / 40))
    assert all(np.all(x == np.round(x)) for x in drawn)


def _counts(model, seed, fixed):
    traced = numpyro.handlers.trace(numpyro.handlers.seed(model, seed)).get_trace(
        predict=True, sin2_theta_w=0.2386, **fixed
    )
    return np.asarray(traced["coherent-csi-2021"]["value"])


def test_extended(like):
    """A hierarchical extension: a site of one's own takes the place of a parameter."""
    inner = cevjax.numpyro_model(like, ("sin2_theta_w",))

    def model():
        shift = numpyro.sample("shift", numpyro.distributions.Normal(0.0, 0.01))
        inner(sin2_theta_w=0.2386 + shift)

    sites = numpyro.handlers.trace(numpyro.handlers.seed(model, 1)).get_trace()
    assert "shift" in sites and "sin2_theta_w" not in sites


def test_unknown_site(like):
    model = cevjax.numpyro_model(like, ("sin2_theta_w",))
    with pytest.raises(cevjax.errors.InvalidValueError, match="sin2_theta_w"):
        numpyro.handlers.seed(model, 1)(sin2_thet_w=0.2)


@pytest.mark.slow
def test_plain_nuts_agrees_where_there_is_one_mode(like):
    """NumPyro's own NUTS with its own bijections and adaptation, on the exact likelihood."""
    kernel = NUTS(cevjax.numpyro_model(like, ("sin2_theta_w",)))
    mcmc = MCMC(kernel, num_warmup=300, num_samples=1000, progress_bar=False)
    mcmc.run(jax.random.key(1))
    plain = np.asarray(mcmc.get_samples()["sin2_theta_w"])
    ours = cevjax.sample(like, ("sin2_theta_w",), draws=1000, seed=1).posterior["sin2_theta_w"].values
    assert np.mean(plain) == pytest.approx(np.mean(ours), abs=5 * np.std(ours) / np.sqrt(400))
    assert np.std(plain) == pytest.approx(np.std(ours), rel=0.12)
