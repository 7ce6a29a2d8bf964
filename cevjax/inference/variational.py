"""Fast approximate posteriors: stochastic variational inference by optax, with normal and flow guides."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from .. import posteriors
from ..errors import check_name
from ..likelihood import Likelihood
from ..priors import Prior
from ..provenance import provenance
from .posterior import Posterior, folded_posterior, make_posterior
from .pseudo import check_count, random_key
from .tempering import densities, pilot

if TYPE_CHECKING:
    from arviz import InferenceData

GUIDES = ("normal", "flow")
POINTS = 16  # of each step
PARTICLES = 1024  # of each step of the pilot
RATIO, MISSED = 20.0, 0.05
"""The posterior is missed where its density is so many times that of the guide; and the part of it that may be."""
SVI, DRAWS = 6, 7  # what random keys are used for
SEGMENT = 250
"""Steps of a compiled call."""


class Guided(NamedTuple):
    """What :func:`svi` returns.

    Attributes:
        draws: of the guide, an InferenceData with the group ``posterior``, and ``sample_stats`` with ``log_weight``.
        elbo: mean of the evidence lower bound over each piece of the steps.
        pareto_k: of the weights of posterior against guide: above 0.7 the guide is no approximation (arXiv:1802.02538).
        effective: part of the draws that these weights leave effective.
        missed: part of the posterior where the guide is less than a twentieth of it, such as another mode, which those
            weights cannot tell: by points that represent the posterior (those that :func:`cevjax.sample` starts from).
        seconds: wall time.
    """

    draws: InferenceData
    elbo: np.ndarray
    pareto_k: float
    effective: float
    missed: float
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the guide is close enough that weights could mend it."""
        return self.pareto_k < 0.7 and self.missed < MISSED


def svi(
    like: Likelihood,
    free: Sequence[str] = (),
    priors: Mapping[str, Prior | str] | None = None,
    values: Mapping[str, float] | None = None,
    *,
    guide: str = "normal",
    steps: int = 2000,
    rate: float = 0.02,
    draws: int = 4000,
    seed: int = 0,
    exact: bool = False,
) -> Guided:
    """Fit a guide to the posterior and draw from it: seconds, but one mode, and only as good as the result says.

    Args:
        like, free, priors, values, exact: as in :func:`cevjax.sample`.
        guide: ``normal``, a multivariate normal distribution in the coordinates of :mod:`~cevjax.priors`; or ``flow``,
            two inverse autoregressive flows there.
        steps: of Adam, with 16 random points each, at a rate that falls to a hundredth (cosine).
        rate: that of the first step.
        draws: of the guide.
        seed: of the random numbers.

    Raises:
        UnknownNameError: no such parameter or guide.
        InvalidValueError: values or priors out of bounds.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> result = cevjax.svi(like, free=("sin2_theta_w",), steps=500, seed=1)
    >>> round(float(result.draws.posterior["sin2_theta_w"].mean()), 1), result.good
    (0.2, True)
    """
    import optax
    from numpyro.infer import SVI as Inference
    from numpyro.infer import Trace_ELBO

    began = time.perf_counter()
    check_name("guide", guide, GUIDES)
    for name, value in (("steps", steps), ("draws", draws)):
        check_count(name, value)
    exactly = make_posterior(like, free, priors, values)
    posterior = exactly if exact else folded_posterior(exactly)
    model, approximation = partial(_model, posterior), _guide(guide, posterior)
    schedule = optax.cosine_decay_schedule(rate, steps, alpha=0.01)
    optimiser = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
    inference = Inference(model, approximation, optimiser, Trace_ELBO(num_particles=POINTS))
    state = inference.init(random_key(seed, SVI))

    @jax.jit
    def advance(state):
        return jax.lax.scan(lambda state, _: inference.stable_update(state), state, None, length=SEGMENT)

    losses = []
    for _ in range(-(-steps // SEGMENT)):
        state, loss = advance(state)
        losses.append(-float(np.mean(loss)))
    params = inference.get_params(state)
    z, log_guide = _draw(approximation, params, random_key(seed, DRAWS), draws)
    log_weight = np.sum(densities(posterior, z), axis=0) - log_guide
    az = posteriors.arviz()
    _, k = az.psislw(log_weight.copy())
    weights = np.exp(log_weight - np.max(log_weight))
    found = az.from_dict(
        posterior={name: x[None] for name, x in posterior.values(z).items()},
        sample_stats={"log_weight": log_weight[None]},
    )
    found.attrs["facts"] = json.dumps({**provenance(like, "svi"), "guide": guide, "seed": seed})
    effective = float(np.sum(weights) ** 2 / np.sum(weights**2) / draws)
    missed = _missed(approximation.get_posterior(params), posterior, seed)
    return Guided(found, np.array(losses), float(k), effective, missed, time.perf_counter() - began)


def _model(posterior: Posterior) -> None:
    """The posterior in its coordinates."""
    import numpyro
    import numpyro.distributions as dist

    z: Any = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), (len(posterior.names),)))
    value = posterior.log_likelihood(z) + posterior.log_prior(z)
    numpyro.factor("data", jnp.where(jnp.isfinite(value), value, -1e10))


def _guide(kind: str, posterior: Posterior) -> Any:
    from numpyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal

    model = partial(_model, posterior)
    if kind == "normal" or len(posterior.names) < 2:
        return AutoMultivariateNormal(model, init_scale=0.3)
    return AutoIAFNormal(model, num_flows=2, hidden_dims=[4 * len(posterior.names)] * 2)


def _missed(distribution: Any, posterior: Posterior, seed: int) -> float:
    """The part of a posterior where a distribution is much lower."""
    points = pilot(posterior, seed, PARTICLES)
    log_evidence = logsumexp(points.log_weight) - np.log(len(points.z))
    log_guide = np.asarray(eqx.filter_jit(distribution.log_prob)(jnp.asarray(points.z)))
    higher = points.log_likelihood + points.log_prior - log_evidence - log_guide > np.log(RATIO)
    return float(np.sum(points.weights[higher]))


def _draw(guide: Any, params: Any, key: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a guide, and its log density there."""
    distribution = guide.get_posterior(params)

    @eqx.filter_jit
    def draws(key):
        if hasattr(distribution, "transforms"):  # a flow knows the density of a draw from the way to it
            return distribution.sample_with_intermediates(key, (count,))
        return distribution.sample(key, (count,)), None

    z, way = draws(key)
    log_density = distribution.log_prob(z) if way is None else distribution.log_prob(z, way)
    return np.asarray(z), np.asarray(log_density)
