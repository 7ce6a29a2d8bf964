"""The posterior of a likelihood in coordinates without bounds and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtri

from ..errors import InvalidValueError
from ..folding import fold
from ..likelihood import Likelihood, bins, expected_flat
from ..priors import Prior, box_coordinate, box_log_density, check_prior, default_prior
from ..registry import check_parameter
from .fit import problem

REACH, PRECISE = 5.0, 1e-3
"""Range of nuisances of a folded likelihood, in standard deviations; terms left out, in standard deviations of the
counts."""


class Posterior(eqx.Module):
    r"""The posterior density of the sampled parameters: likelihood of the data times priors.

    The auxiliary measurement of a nuisance is its prior. The density is one of the coordinates z of the
    :mod:`~cevjax.priors`, :math:`\ln p(z) = \ln L(\theta(z)) + \sum_i \ln \pi_i(z_i)`, with normalised priors: so
    the evidence is its integral. The likelihood is relative to that of the saturated model, as everywhere.
    """

    like: Likelihood
    fixed: dict[str, Array]
    names: tuple[str, ...] = eqx.field(static=True)
    priors: tuple[Prior, ...] = eqx.field(static=True)
    lead: int = eqx.field(static=True)
    """How many of the first parameters are of interest."""

    def params(self, z: Array) -> dict[str, Array]:
        """All parameters at coordinates, shape (parameters,)."""
        return {**self.fixed, **{name: prior.value(z[i]) for i, (name, prior) in self._enumerated}}

    @property
    def _enumerated(self):
        return enumerate(zip(self.names, self.priors, strict=True))

    def log_prior(self, z: Array) -> Array:
        """Logarithm of the normalised density of coordinates before the data."""
        boxed = np.array([prior.boxed for prior in self.priors])
        normal, box = z[np.flatnonzero(~boxed)], z[np.flatnonzero(boxed)]
        return jnp.sum(box_log_density(box)) - 0.5 * jnp.sum(normal**2) - 0.5 * len(normal) * np.log(2 * np.pi)

    def draw_prior(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random coordinates before the data, shape (count, parameters)."""
        u = rng.random((count, len(self.priors)))
        columns = [box_coordinate(x) if p.boxed else ndtri(x) for p, x in zip(self.priors, u.T, strict=True)]
        return np.stack(columns, axis=1)

    def log_likelihood(self, z: Array) -> Array:
        """Of the data, without the auxiliary measurements."""
        return -jnp.sum(bins(self.like, expected_flat(self.like, self.params(z))).nll)

    def values(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """{parameter: values} at coordinates, the last axis of an array."""
        return {name: np.asarray(prior.value(z[..., i])) for i, (name, prior) in self._enumerated}

    def coordinates(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Coordinates of values of all sampled parameters, as the last axis."""
        return np.stack([prior.coordinate(values[name]) for _, (name, prior) in self._enumerated], axis=-1)


def make_posterior(
    like: Likelihood,
    free: Sequence[str],
    priors: Mapping[str, Prior | str] | None = None,
    values: Mapping[str, float] | None = None,
) -> Posterior:
    """The posterior of the ``free`` parameters and the nuisances.

    Args:
        like: likelihood.
        free: names of the parameters of interest.
        priors: {parameter: prior}, of free parameters or nuisances; the others have their default ones.
        values: parameters held at values other than nominal.

    Raises:
        UnknownNameError: no such parameter; the message offers the nearest.
        InvalidValueError: a value out of bounds, a parameter both free and set, or a prior of one that is not sampled.
    """
    task = problem(like, free, values)
    names = task.where.names
    if not names:
        raise InvalidValueError("Argument `free` must name a parameter: this likelihood has no nuisances to sample.")
    priors = dict(priors or {})
    for name in priors:
        if check_parameter(name, like.parameters) not in names:
            raise InvalidValueError(
                f"Argument `priors` must be about parameters that are sampled, but `{name}` is not: name it in `free`."
            )
    measured = dict(zip((p.name for p in like.constrained), np.asarray(like.auxiliary).tolist(), strict=True))
    chosen = tuple(
        check_prior(p, priors[p.name]) if p.name in priors else default_prior(p, measured.get(p.name))
        for p in task.where.parameters
    )
    fixed = {name: jnp.asarray(float(value)) for name, value in task.fixed.items()}
    return Posterior(like, fixed, names, chosen, len(task.free))


def folded_posterior(posterior: Posterior) -> Posterior:
    """The same with a likelihood that is folded where the priors have values."""
    like, names = posterior.like, posterior.names
    nuisances = [name for name in names if like.parameters[name].nuisance]
    held = {name: prior.reach() for name, prior in zip(names, posterior.priors, strict=True) if name not in nuisances}
    fixed = {name: float(value) for name, value in posterior.fixed.items()}
    return eqx.tree_at(lambda p: p.like, posterior, fold(like, nuisances, held, fixed, PRECISE, reach=REACH))
