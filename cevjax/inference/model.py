"""The posterior as an ordinary NumPyro model, to extend and to run with whatever NumPyro offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ..errors import InvalidValueError
from ..likelihood import Likelihood, bins_of, total
from ..measurement import Measurement
from ..priors import Prior
from .posterior import folded_posterior, make_posterior


def numpyro_model(
    like: Likelihood,
    free: Sequence[str] = (),
    priors: Mapping[str, Prior | str] | None = None,
    values: Mapping[str, float] | None = None,
    *,
    folded: bool = False,
) -> Callable[..., dict[str, Array]]:
    """The model of the ``free`` parameters and the nuisances: a site for each, and one for the counts of each data set.

    The observed sites hold the log likelihood relative to the saturated model, as everywhere, so that data need not be
    whole numbers. Plain NUTS stays in the mode that it starts in, where there are several: :func:`cevjax.sample` does
    not.

    Args:
        like: likelihood.
        free: names of the parameters of interest.
        priors: {parameter: prior}, as in :func:`cevjax.sample`.
        values: parameters held at values other than nominal.
        folded: use the folded likelihood, faster by an order of magnitude.

    Returns:
        ``model(**given)``, which returns all parameters. ``given`` replaces sites by values or tracers of yours: that
        is how to build hierarchical models around it. With ``predict=True`` the counts are sampled, not observed.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: values or priors out of bounds.

    >>> import cevjax, jax, numpyro
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> model = cevjax.numpyro_model(like, free=("sin2_theta_w",))
    >>> sites = numpyro.handlers.trace(numpyro.handlers.seed(model, 1)).get_trace()
    >>> sites["coherent-csi-2021"]["is_observed"], sites["sin2_theta_w"]["is_observed"]
    (True, False)
    """
    import numpyro

    posterior = make_posterior(like, free, priors, values)
    posterior = folded_posterior(posterior) if folded else posterior
    distributions = {name: prior.distribution() for name, prior in zip(posterior.names, posterior.priors, strict=True)}
    fixed, acting, counts = posterior.fixed, posterior.like, _counts_class()

    def model(predict: bool = False, **given: ArrayLike) -> dict[str, Array]:
        for name in given:
            if name not in distributions:
                raise InvalidValueError(f"Argument `{name}` must be a sampled parameter: {', '.join(distributions)}.")
        params: dict[str, Any] = dict(fixed)
        for name, distribution in distributions.items():
            params[name] = given[name] if name in given else numpyro.sample(name, distribution)
        for m in acting.measurements:
            expected = total(m.expected(params, acting.interaction))
            numpyro.sample(m.name, counts(m, expected), obs=None if predict else m.observed)
        return params

    return model


def _counts_class() -> Any:
    """The distribution of counts, defined when NumPyro is there: it takes a second to import."""
    import jax
    import numpyro.distributions as dist

    class Counts(dist.Distribution):
        """Counts of a measurement around an expectation: Poisson or Gaussian, with the likelihood of cevjax."""

        support: Any = dist.constraints.independent(dist.constraints.real, 1)

        def __init__(self, measurement: Measurement, expected: Array):
            self.measurement, self.expected = measurement, expected
            super().__init__(event_shape=jnp.shape(expected))

        def log_prob(self, value):
            import equinox as eqx

            seen = eqx.tree_at(lambda m: m.observed, self.measurement, jnp.asarray(value, float))
            return -jnp.sum(bins_of(seen, self.expected.ravel()).nll)

        def sample(self, key: Any, sample_shape=()):
            shape = (*sample_shape, *self.event_shape)
            if self.measurement.sigma is None:
                return jax.random.poisson(key, jnp.maximum(self.expected, 0.0), shape).astype(float)
            return self.expected + self.measurement.sigma * jax.random.normal(key, shape)

    return Counts
