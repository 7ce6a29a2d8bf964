"""Mean and variance of the Poisson deviance, and the p-value from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from cevjax.goodness import LARGE, deviance_moments, p_value


def brute(mu):
    n = np.arange(int(mu + 20 * np.sqrt(mu) + 60))
    weight = stats.poisson.pmf(n, mu)
    deviance = 2 * (mu - n + special.xlogy(n, n / mu))
    mean = weight @ deviance
    return mean, weight @ (deviance - mean) ** 2


@given(mu=st.floats(1e-6, 3000))
@settings(max_examples=60, deadline=None)
def test_moments_are_those_of_the_sum(mu):
    mean, variance = deviance_moments(mu)
    assert mean[0] == pytest.approx(brute(mu)[0], rel=1e-5, abs=1e-12)
    assert variance[0] == pytest.approx(brute(mu)[1], rel=1e-4, abs=1e-12)


def test_moments_vanish_with_the_expectation_and_are_those_of_chi2_for_many():
    mean, variance = deviance_moments([0.0, 1e-12, 1e9])
    np.testing.assert_allclose(mean, [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(variance, [0, 0, 2], atol=1e-8)


def test_moments_go_on_smoothly_where_the_expansion_begins():
    below, above = deviance_moments([LARGE * (1 - 1e-9), LARGE])[0]
    assert below == pytest.approx(above, abs=1e-5)


@pytest.mark.parametrize("ndof", [1, 7, 99, 960])
def test_p_value_is_that_of_chi2(ndof):
    for chi2 in (0.0, 0.5 * ndof, ndof, 1.3 * ndof):
        assert p_value(chi2, ndof, 2.0 * ndof) == pytest.approx(stats.chi2.sf(chi2, ndof), rel=1e-10)


def test_p_value_of_nothing():
    assert p_value(0.0, 0.0, 0.0) == 1.0 and p_value(1.0, 0.0, 0.0) == 0.0


def test_p_values_of_sparse_counts_are_uniform():
    """1,000 bins of 0.5 to 4 counts: most have p < 0.01 in the chi2 distribution."""
    rng = np.random.default_rng(2)
    mu = rng.uniform(0.5, 4, 1000)
    n = rng.poisson(mu, (3000, 1000))
    chi2 = 2 * np.sum(mu - n + special.xlogy(n, n / mu), axis=1)
    mean, variance = (float(np.sum(x)) for x in deviance_moments(mu))
    found = np.array([p_value(x, mean, variance) for x in chi2])
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(stats.chi2.sf(chi2, 1000) < 0.01) > 0.5
