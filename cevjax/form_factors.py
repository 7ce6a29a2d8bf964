"""Nuclear form factors, all as functions of momentum transfer ``q`` (MeV) and the *rms* radius (fm).

Each is 1 at ``q = 0`` and smooth there in value and derivatives.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .constants import HBARC
from .errors import check_name
from .nuclei import Nucleus


def _three_j1_over_x(x: Array) -> Array:
    """3 j1(x)/x. Below x = 0.3 by its series, which the closed form loses to cancellation."""
    small = jnp.abs(x) < 0.3
    y = jnp.where(small, 1.0, x)
    closed = 3 * (jnp.sin(y) - y * jnp.cos(y)) / y**3
    z = jnp.where(small, x, 0.0) ** 2
    # the next term, z^6/3.1e10, is below 2e-17
    series = 1 - z / 10 * (1 - z / 28 * (1 - z / 54 * (1 - z / 88 * (1 - z / 130))))
    return jnp.where(small, series, closed)


def _box_radius(square: Array) -> Array:
    """Square root, at least 0.01 fm: an rms radius smaller than the surface alone gives leaves no interior."""
    return jnp.sqrt(jnp.maximum(square, 1e-4))


def helm(q: ArrayLike, radius: ArrayLike, s: float = 0.9) -> Array:
    r"""Helm form factor :math:`3 j_1(qR_0)/(qR_0)\, e^{-q^2s^2/2}` with :math:`R_0^2 = \frac53(R^2 - 3s^2)`.

    Args:
        q: momentum transfer, MeV.
        radius: rms radius R, fm; must exceed :math:`\sqrt3 s`.
        s: surface thickness, fm.

    Source: arXiv:2005.01645 eq. 10-12.

    >>> float(helm(0.0, 4.8))
    1.0
    >>> round(float(helm(50.0, 4.8)), 4)
    0.7757
    """
    q, radius = jnp.asarray(q, float) / HBARC, jnp.asarray(radius, float)
    box = _box_radius(5 / 3 * (radius**2 - 3 * s**2))
    return _three_j1_over_x(q * box) * jnp.exp(-((q * s) ** 2) / 2)


def klein_nystrand(q: ArrayLike, radius: ArrayLike, a: float = 0.7) -> Array:
    r"""Klein-Nystrand form factor :math:`3 j_1(qR_A)/(qR_A)\,/(1 + q^2a^2)`, :math:`R_A^2 = \frac53(R^2 - 6a^2)`.

    Args:
        q: momentum transfer, MeV.
        radius: rms radius R, fm; must exceed :math:`\sqrt6 a`.
        a: range of the Yukawa potential, fm.

    Source: Klein & Nystrand, hep-ph/9902259; arXiv:2211.11905 eq. 2.4.

    >>> float(klein_nystrand(0.0, 4.8))
    1.0
    """
    q, radius = jnp.asarray(q, float) / HBARC, jnp.asarray(radius, float)
    box = _box_radius(5 / 3 * (radius**2 - 6 * a**2))
    return _three_j1_over_x(q * box) / (1 + (q * a) ** 2)


def symmetrized_fermi(q: ArrayLike, radius: ArrayLike, a: float = 0.52) -> Array:
    r"""Symmetrised Fermi form factor with half-density radius c from :math:`R^2 = \frac35c^2 + \frac75\pi^2a^2`.

    .. math:: F = \frac{3}{qc[(qc)^2 + (\pi qa)^2]} \frac{\pi qa}{\sinh \pi qa}
              \left[\frac{\pi qa \sin qc}{\tanh \pi qa} - qc\cos qc\right]

    Args:
        q: momentum transfer, MeV.
        radius: rms radius R, fm; must exceed :math:`\sqrt{7/5}\,\pi a`.
        a: surface diffuseness, fm.

    Source: Sprung & Martorell, J. Phys. A 30 (1997) 6525; arXiv:1711.09773 eq. 6.

    >>> float(symmetrized_fermi(0.0, 4.8))
    1.0
    """
    q, radius = jnp.asarray(q, float) / HBARC, jnp.asarray(radius, float)
    c = _box_radius(5 / 3 * radius**2 - 7 / 3 * (np.pi * a) ** 2)
    small = q * c < 0.05
    k = jnp.where(small, 1.0 / c, q)
    x, y = k * c, np.pi * k * a
    closed = 3 / (x * (x**2 + y**2)) * (y / jnp.sinh(y)) * (y * jnp.sin(x) / jnp.tanh(y) - x * jnp.cos(x))
    # moments of the density: F = 1 - <r^2> q^2/6 + <r^4> q^4/120 - <r^6> q^6/5040
    p, d = jnp.where(small, q, 0.0) ** 2, (np.pi * a) ** 2
    r4 = (3 * c**4 + 18 * d * c**2 + 31 * d**2) / 7
    r6 = c**6 / 3 + 11 / 3 * d * c**4 + 239 / 15 * d**2 * c**2 + 127 / 5 * d**3
    series = 1 - p * radius**2 / 6 + p**2 * r4 / 120 - p**3 * r6 / 5040
    return jnp.where(small, series, closed)


class FormFactor(eqx.Module):
    """A form-factor model: the function, its default radii, and what "larger by x" means for it."""

    name: ClassVar[str]

    @abc.abstractmethod
    def __call__(self, q: ArrayLike, radius: ArrayLike) -> Array:
        """F(q) for rms ``radius``."""

    def default_radii(self, nucleus: Nucleus) -> tuple[float, float]:
        """Default rms radii (proton, neutron) of ``nucleus``, fm."""
        return nucleus.R_p, nucleus.R_n

    def scale_radius(self, radius: ArrayLike, factor: ArrayLike) -> Array:
        """The rms radius after the model's size parameter has been multiplied by ``factor``."""
        return jnp.asarray(radius, float) * factor


class Helm(FormFactor):
    """:func:`helm`, with proton radii from charge radii and theory neutron radii (see :mod:`cevjax.nuclei`)."""

    name = "helm"
    s: float = 0.9

    def __call__(self, q, radius):
        return helm(q, radius, self.s)


class HelmOfMassNumber(FormFactor):
    """:func:`helm` with s = 0.5 fm and R_0^2 = (1.2 A^(1/3) fm)^2 - 5 s^2 for protons and neutrons alike.

    Source: arXiv:1711.09773 eq. 5.
    """

    name = "helm-1711.09773"
    s: float = 0.5

    def __call__(self, q, radius):
        return helm(q, radius, self.s)

    def default_radii(self, nucleus):
        radius = (3 / 5) ** 0.5 * 1.2 * nucleus.A ** (1 / 3)
        return radius, radius


class KleinNystrand(FormFactor):
    """:func:`klein_nystrand` with box radius 1.23 A^(1/3) fm for protons and neutrons alike."""

    name = "klein-nystrand"
    a: float = 0.7

    def __call__(self, q, radius):
        return klein_nystrand(q, radius, self.a)

    def default_radii(self, nucleus):
        radius = (3 / 5 * (1.23 * nucleus.A ** (1 / 3)) ** 2 + 6 * self.a**2) ** 0.5
        return radius, radius

    def scale_radius(self, radius, factor):
        surface = 6 * self.a**2
        return jnp.sqrt((jnp.asarray(radius, float) ** 2 - surface) * jnp.asarray(factor) ** 2 + surface)


class SymmetrizedFermi(FormFactor):
    """:func:`symmetrized_fermi` with half-density radius 1.23 A^(1/3) - 0.60 fm for protons and neutrons alike."""

    name = "fermi"
    a: float = 0.52

    def __call__(self, q, radius):
        return symmetrized_fermi(q, radius, self.a)

    def default_radii(self, nucleus):
        c = 1.23 * nucleus.A ** (1 / 3) - 0.60
        radius = (3 / 5 * c**2 + 7 / 5 * (np.pi * self.a) ** 2) ** 0.5
        return radius, radius


class Point(FormFactor):
    """F = 1: a point nucleus, for checks against closed forms."""

    name = "point"

    def __call__(self, q, radius):
        return jnp.ones_like(jnp.asarray(q, float))


FORM_FACTORS: dict[str, type[FormFactor]] = {
    model.name: model for model in (Helm, HelmOfMassNumber, KleinNystrand, SymmetrizedFermi, Point)
}


def form_factor(name: str) -> FormFactor:
    """The form-factor model called ``name``, one of :data:`FORM_FACTORS`."""
    return FORM_FACTORS[check_name("form factor", name, FORM_FACTORS)]()
