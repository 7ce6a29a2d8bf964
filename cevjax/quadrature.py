"""Fixed quadrature rules."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array


@cache
def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1].

    >>> x, w = gauss_legendre(4)
    >>> round(float(w @ x**7), 12)
    0.125
    """
    x, w = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, w / 2


@cache
def legendre_projection(n: int) -> np.ndarray:
    """Matrix B with B[i, k] = (2k + 1) P_k(2 x_i - 1) on the n Gauss-Legendre nodes of [0, 1].

    The k-th Legendre coefficient of the polynomial through values g_i is the sum of w_i g_i B[i, k].
    """
    x, _ = gauss_legendre(n)
    return np.polynomial.legendre.legvander(2 * x - 1, n - 1) * (2 * np.arange(n) + 1)


def lagrange(n: int, x: Array) -> Array:
    """The n polynomials that are 1 at one Gauss-Legendre node of [0, 1] and 0 at the others, shape (n, *x.shape)."""
    z, previous, current = 2 * x - 1, jnp.ones_like(x), 2 * x - 1
    legendre = [previous, current]
    for k in range(1, n - 1):
        previous, current = current, ((2 * k + 1) * z * current - k * previous) / (k + 1)
        legendre.append(current)
    _, w = gauss_legendre(n)
    return jnp.tensordot(w[:, None] * legendre_projection(n), jnp.stack(legendre[:n]), axes=1)


def spherical_bessel(n: int, x: Array) -> Array:
    r"""The spherical Bessel functions :math:`j_0 \dots j_{n-1}` at x >= 0, shape (n, *x.shape).

    Upward recursion, which is stable beyond x = 2.5 for the few orders that are needed here; below, the continued
    fraction of their ratios.

    >>> import jax.numpy as jnp
    >>> round(float(spherical_bessel(3, jnp.array(2.0))[2]), 10)
    0.1984479491
    """
    low = x < 2.5
    small, large = jnp.where(low, x, 1.0), jnp.where(low, 2.5, x)
    up = [jnp.sin(large) / large, jnp.sin(large) / large**2 - jnp.cos(large) / large]
    for k in range(1, n - 1):
        up.append((2 * k + 1) / large * up[k] - up[k - 1])
    ratio, ratios = jnp.zeros_like(small), []
    for k in range(n + 12, 0, -1):
        ratio = small / (2 * k + 1 - small * ratio)
        if k < n:
            ratios.append(ratio)
    down = [jnp.sinc(small / np.pi)]
    for ratio in reversed(ratios):
        down.append(down[-1] * ratio)
    return jnp.where(low, jnp.stack(down), jnp.stack(up[:n]))
