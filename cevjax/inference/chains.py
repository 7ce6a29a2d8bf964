r"""Markov chains that visit every mode with its weight: jumps between modes, and NUTS within them.

A draw is made of two moves, each of which leaves the posterior as it is.

1. Jumps. Points of the :mod:`~cevjax.inference.mixture` compete with the present one, each with the ratio of posterior
   and mixture as its weight (iterated sampling importance resampling). Where the mixture is good, that is a new
   independent point, in whatever mode.
2. A transition of NumPyro's NUTS. A component k of the mixture is drawn with its responsibility for the present point,
   :math:`r_k(z)`, and while it is held the density is :math:`p(z)\,r_k(z)`: in the coordinates in which the component
   is a standard normal, one step size does for thin bands and wide ones. Where the mixture has missed something, this
   moves on.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .mixture import Mixture
from .pairs import in_threads
from .posterior import Posterior
from .pseudo import random_key

CHAINS = 1  # what a random key is used for
JUMPS = 4
"""Points of the mixture that compete with the present one."""
ACCEPTED = 0.9
"""Acceptance that the step size of NUTS is for."""
DEPTH = 7
"""Of the trees of NUTS at most: 127 steps."""
LANES = 2
"""Chains of a compiled call on a CPU, where one waits for the other; there is a thread for each core."""
LANES_ELSEWHERE = 256
SEGMENT = 50
"""Draws of a compiled call."""
FIRST_STEP, PACE, FORGET = 0.5, 2.0, 10.0
"""Step size at first, and how fast it adapts during warm-up: by ``PACE / (FORGET + draws)``."""


Numbers = Any
"""An array, of NumPy or within a compiled function."""


class State(NamedTuple):
    """Where chains are: one row each. Together with the number of the draw it is all that the next draw depends on."""

    z: Numbers
    log_step: Numbers


class Draws(NamedTuple):
    """Draws of chains, shape (chains, draws, ...)."""

    z: Numbers
    log_likelihood: Numbers
    jumped: Numbers
    """Whether one of the points of the mixture has won."""
    acceptance_rate: Numbers
    """Of NUTS, over its tree."""
    n_steps: Numbers
    diverging: Numbers
    energy: Numbers
    log_step: Numbers

    @property
    def last(self) -> State:
        """Where the chains are after the draws."""
        return State(self.z[:, -1], self.log_step[:, -1])


def advance(
    posterior: Posterior, mixture: Mixture, state: State, seed: int, first: int, count: int, adapt: bool = False
) -> Draws:
    """More draws of chains.

    A chain depends on the seed, its number and its own state, whatever other chains there are.

    Args:
        posterior: what is sampled.
        mixture: that describes it.
        state: of the chains.
        seed: of the random numbers.
        first: number of the next draw.
        count: number of draws.
        adapt: whether the step size changes, which makes draws that are to be thrown away.
    """
    devices, key = jax.local_devices(), random_key(seed, CHAINS)
    lanes = LANES if devices[0].platform == "cpu" else LANES_ELSEWHERE
    n = len(state.z)
    groups = [np.arange(i, min(i + lanes, n)) for i in range(0, n, lanes)]

    def run(numbered: tuple[int, np.ndarray]) -> Draws:
        number, group = numbered
        device = devices[number % len(devices)]
        padded = np.resize(group, lanes)
        keys = jax.vmap(partial(jax.random.fold_in, key))(padded)
        here = (posterior, mixture, State(*(x[padded] for x in state)), keys, np.array(adapt))
        acting, parts_of, there, own_keys, adapting = jax.device_put(here, device)
        parts = []
        for start in range(first, first + count, SEGMENT):
            length = min(SEGMENT, first + count - start)
            there, draws = _segment(acting, parts_of, there, own_keys, adapting, np.array(start), np.array(length))
            parts.append(jax.tree.map(lambda x: np.asarray(x)[: len(group), :length], draws))  # noqa: B023
        return jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *parts)

    groups = in_threads(run, list(enumerate(groups)))
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *groups)


@eqx.filter_jit
def _segment(posterior, mixture, state, keys, adapt, first, length) -> Any:
    """Draws of some chains; those after ``length`` of them repeat the last one."""

    def chain(state, key):
        def step(state, number):
            new, draw = _draw(posterior, mixture, state, jax.random.fold_in(key, first + number), first + number, adapt)
            return jax.tree.map(lambda a, b: jnp.where(number < length, a, b), new, state), draw

        return jax.lax.scan(step, state, jnp.arange(SEGMENT))

    return jax.vmap(chain)(state, keys)


def _draw(posterior: Posterior, mixture: Mixture, state: Any, key: Array, number: Array, adapt: Array) -> Any:
    """One draw of one chain."""
    from numpyro.infer.hmc import hmc

    first, second, third = jax.random.split(key, 3)
    z, jumped = _jump(posterior, mixture, state.z, first)
    k = jax.random.categorical(second, mixture.log_narrow(z))

    def potential(y):
        point = mixture.place(y, k)
        each = mixture.log_narrow(point)
        log_likelihood = posterior.log_likelihood(point)
        density = log_likelihood + posterior.log_prior(point) + each[k] - jax.nn.logsumexp(each)
        return jnp.where(jnp.isfinite(density), -density, jnp.inf)

    start, move = hmc(potential, algo="NUTS")
    step_size: Any = jnp.exp(state.log_step)
    fixed = {"adapt_step_size": False, "adapt_mass_matrix": False, "inverse_mass_matrix": jnp.ones(len(z))}
    begun = start(mixture.standardise(z, k), 0, step_size, max_tree_depth=DEPTH, rng_key=third, **fixed)
    ended = move(begun)
    new = mixture.place(ended.z, k)
    # the potential holds more than the likelihood: take the rest away again
    each = mixture.log_narrow(new)
    log_likelihood = -ended.potential_energy - posterior.log_prior(new) - each[k] + jax.nn.logsumexp(each)
    pace = PACE / (FORGET + number)
    log_step = state.log_step + jnp.where(adapt, pace * (ended.accept_prob - ACCEPTED), 0.0)
    draw = Draws(
        new, log_likelihood, jumped, ended.accept_prob, ended.num_steps, ended.diverging, ended.energy, log_step
    )
    return State(new, log_step), draw


def _jump(posterior: Posterior, mixture: Mixture, z: Array, key: Array) -> tuple[Array, Array]:
    """The point that wins against some of the mixture, and whether it is one of these."""
    first, second = jax.random.split(key)
    points = jnp.concatenate([z[None], jax.vmap(mixture.draw)(jax.random.split(first, JUMPS))])

    def weigh(point):
        return posterior.log_likelihood(point) + posterior.log_prior(point) - mixture.log_density(point)

    log_weight = jax.vmap(weigh)(points)
    winner = jax.random.categorical(second, jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf))
    return points[winner], winner > 0
