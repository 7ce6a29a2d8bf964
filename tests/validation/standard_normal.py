"""What samplers need of a posterior besides its likelihood, for priors that are all standard normal."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np


class StandardNormal(eqx.Module):
    """Coordinates that are standard normal before the data."""

    def log_prior(self, z):
        return -0.5 * jnp.sum(z**2) - 0.5 * len(z) * np.log(2 * np.pi)

    def draw_prior(self, rng, count):
        return rng.normal(size=(count, len(self.names)))
