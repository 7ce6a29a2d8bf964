"""Goodness of fit of binned counts, sparse ones too."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaincc, gammaln, xlogy

LARGE = 150.0
"""Expectations from here on take the first terms of the expansion in 1/mu; they are good to 1e-5."""


def deviance_moments(expected: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and variance of the Poisson deviance :math:`2[\mu - n + n\ln(n/\mu)]` of a bin.

    For many counts they are those of chi2 with one degree of freedom, 1 and 2, and
    :math:`1 + 1/(6\mu)` and :math:`2 + 2/(3\mu)` to the next order; the mean is largest around mu = 1.3, and both
    vanish with mu.

    >>> mean, variance = deviance_moments([0.01, 1.0, 1e4])
    >>> [round(float(x), 3) for x in (*mean, *variance)]
    [0.092, 1.147, 1.0, 0.524, 1.365, 2.0]
    """
    mu = np.atleast_1d(np.asarray(expected, float))
    mean, variance = 1 + 1 / (6 * np.maximum(mu, LARGE)), 2 + 2 / (3 * np.maximum(mu, LARGE))
    few = mu < LARGE
    if few.any():
        small = np.maximum(mu[few], 1e-300)[:, None]
        n = np.arange(int(np.ceil(small.max() + 12 * np.sqrt(small.max()) + 30)))
        probability = np.exp(xlogy(n, small) - small - gammaln(n + 1))
        deviance = 2 * (small - n + xlogy(n, n / small))
        mean[few] = np.sum(probability * deviance, axis=1)
        variance[few] = np.sum(probability * deviance**2, axis=1) - mean[few] ** 2
    return mean, variance


def p_value(chi2: float, mean: float, variance: float) -> float:
    """Probability of a larger chi2, if it is distributed like a gamma variate of this mean and variance.

    With ``variance = 2 mean`` that is the chi2 distribution with ``mean`` degrees of freedom.

    >>> round(p_value(3.84, 1.0, 2.0), 3)
    0.05
    """
    if mean <= 0 or variance <= 0:
        return 1.0 if chi2 <= 0 else 0.0
    return float(gammaincc(mean**2 / variance, max(chi2, 0.0) * mean / variance))
