"""Fixed quadrature rules."""

from __future__ import annotations

from functools import cache, partial

import jax
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


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def spherical_bessel(n: int, x: Array) -> Array:
    r"""The spherical Bessel functions :math:`j_0 \dots j_{n-1}` at x >= 0, shape (n, *x.shape).

    Upward recursion where it is stable; below, the downward one for :math:`h_k = (2k + 1)!!\, x^{-k} j_k
    = h_{k+1} - x^2 h_{k+2}/[(2k + 3)(2k + 5)]`, started by the series of the highest.

    >>> import jax.numpy as jnp
    >>> round(float(spherical_bessel(3, jnp.array(2.0))[2]), 10)
    0.1984479491
    """
    x = jnp.asarray(x, float)
    low = x < SWITCH
    small, large = jnp.where(low, x, 1.0), jnp.where(low, SWITCH, x)
    inverse, square = 1 / large, small**2

    def upward(last, odd):
        current, following, power = last
        return (following, odd * inverse * following - current, power * small / odd), (current, power)

    def downward(last, factor):
        higher, current = last
        lower = current - square * factor * higher
        return (current, lower), lower

    # loops, because what is unrolled takes long to compile, and longer to run
    first = jnp.sin(large) * inverse
    start = first, (first - jnp.cos(large)) * inverse, jnp.ones_like(small)
    _, (up, powers) = jax.lax.scan(upward, start, 2.0 * np.arange(n) + 3)
    k = np.arange(n - 1.0, -1.0, -1.0)
    _, h = jax.lax.scan(downward, (_highest(n + 1, square), _highest(n, square)), 1 / ((2 * k + 3) * (2 * k + 5)))
    return jnp.where(low, h[::-1] * powers, up)


SWITCH = 4.0


def _highest(k: int, square: Array) -> Array:
    """(2k + 1)!! x^-k j_k by its power series."""
    total = jnp.ones_like(square)
    for m in range(12, 0, -1):
        total = 1 - square * (1 / (2 * m * (2 * k + 2 * m + 1))) * total
    return total


@spherical_bessel.defjvp
def _(n, primals, tangents):
    (x,), (dx,) = primals, tangents
    values = spherical_bessel(n + 1, x)
    k = np.arange(n).reshape((n,) + (1,) * x.ndim)
    before = jnp.concatenate([values[:1], values[: n - 1]])  # multiplied by zero where there is none
    return values[:n], (k * before - (k + 1) * values[1:]) / (2 * k + 1) * dx
