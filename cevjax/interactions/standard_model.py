"""Coherent scattering in the standard model."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from ..constants import SIN2_THETA_W
from ..couplings import COUPLINGS, couplings
from ..errors import check_name
from ..parameters import Parameter
from .base import Interaction, flavour_diagonal

DEFAULT_COUPLINGS = "2023"

SIN2 = Parameter(
    "sin2_theta_w",
    SIN2_THETA_W,
    bounds=(0.0, 1.0),
    scale=0.02,
    window=(0.0, 1.0),
    latex=r"$\sin^2\theta_W$",
    description="weak mixing angle at q -> 0 (MS-bar)",
)


class StandardModel(Interaction):
    r"""Coherent scattering by Z exchange, diagonal in flavour.

    .. math::
        Q_a = g_V^p(a)\, Z F_Z(q) + g_V^n\, N F_N(q), \qquad
        \frac{d\sigma_a}{dT} = \frac{G_F^2 M}{\pi}\Big(1 - \frac{MT}{2E^2}\Big) Q_a^2

    Args:
        couplings: ``tree``, ``erler-su`` or ``2023``. None takes those of the statistic of the measurement that the
            interaction is used with, and ``2023`` outside a likelihood.
        exact_kinematics: keep the terms of relative size T/E (2E/M = 0.2 % of the argon cross section).

    Raises:
        UnknownNameError: no such couplings.

    Source: arXiv:2005.01645 eq. 2; arXiv:2303.09360 eq. 1.

    >>> StandardModel(couplings="tree").parameters[0].name
    'sin2_theta_w'
    """

    name = "standard-model"
    source = "arXiv:2303.09360"
    couplings: str | None = eqx.field(static=True, default=None)
    exact_kinematics: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.couplings is not None:
            check_name("couplings", self.couplings, COUPLINGS)

    @property
    def parameters(self):
        return (SIN2,)

    def weak_charge(self, params, nucleus, q):
        g = couplings(self.couplings or DEFAULT_COUPLINGS, params["sin2_theta_w"])
        charge = jnp.multiply.outer(g.proton, nucleus.protons(q)) + g.neutron * nucleus.neutrons(q)
        return flavour_diagonal(charge)

    def with_couplings(self, name):
        return self if self.couplings else StandardModel(name, self.exact_kinematics)

    @property
    def coherent_shape(self):
        return "vector_exact" if self.exact_kinematics else "vector"
