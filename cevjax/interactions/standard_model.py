"""The standard model: coherent scattering, scattering on electrons, and the axial term of odd nuclei."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from ..constants import AXIAL_CHARGE, SIN2_THETA_W
from ..couplings import COUPLINGS, couplings
from ..errors import check_name
from ..parameters import Parameter
from .base import ElectronCouplings, Interaction, flavour_diagonal

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
    r"""Coherent scattering by Z exchange, diagonal in flavour, and scattering on electrons by Z and W exchange.

    .. math::
        Q_a = g_V^p(a)\, Z F_Z(q) + g_V^n\, N F_N(q), \qquad
        \frac{d\sigma_a}{dT} = \frac{G_F^2 M}{\pi}\Big(1 - \frac{MT}{2E^2}\Big) Q_a^2

    on nuclei; on electrons :math:`g_V = 2\sin^2\theta_W \pm \frac12, g_A = \pm\frac12` at tree level, with the upper
    sign for :math:`\nu_e` and the lower for :math:`\nu_\mu, \nu_\tau` (and the opposite g_A for antineutrinos).

    Args:
        couplings: ``tree``, ``erler-su`` or ``2023``. None takes those of the statistic of the measurement that the
            interaction is used with, and ``2023`` outside a likelihood.
        exact_kinematics: keep the terms of relative size T/E (2E/M = 0.2 % of the argon cross section).

    Raises:
        UnknownNameError: no such couplings.

    Source: arXiv:2005.01645 eq. 2; arXiv:2303.09360 eq. 1; electrons arXiv:2205.09484 eq. 8.

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

    def electron_couplings(self, params, q):
        half, flat = jnp.array([0.5, -0.5, -0.5]), jnp.ones_like(q)
        vector = flavour_diagonal(jnp.multiply.outer(2 * params["sin2_theta_w"] + half, flat))
        return ElectronCouplings(vector, flavour_diagonal(jnp.multiply.outer(half, flat)))

    def with_couplings(self, name):
        return self if self.couplings else StandardModel(name, self.exact_kinematics)

    @property
    def coherent_shape(self):
        return "vector_exact" if self.exact_kinematics else "vector"


class Axial(Interaction):
    r"""Axial term of the standard model, which acts on the spin of odd nuclei. Off unless added.

    .. math::
        \frac{d\sigma}{dT} = \frac{G_F^2 M}{\pi}\Big(1 + \frac{MT}{2E^2}\Big) Q_A^2, \qquad
        Q_A = g_A\sqrt{\frac{J+1}{3J}}\,\big(\langle S_p\rangle F_Z - \langle S_n\rangle F_N\big)

    with the axial charge of the nucleon g_A (dimensionless) and the spin expectation values of the nucleus; for a free
    nucleon :math:`Q_A = \pm g_A/2`. The same for all flavours. It is of relative size 1/N^2: 1e-4 in caesium.

    Source: arXiv:1711.09773 eq. 1-2; arXiv:2007.08529 eq. 86 for the spins.

    >>> (StandardModel() + Axial()).name
    'standard-model + axial'
    """

    name = "axial"
    source = "arXiv:1711.09773, arXiv:2007.08529"
    off = {"g_A": 0.0}  # noqa: RUF012

    @property
    def parameters(self):
        description = "axial charge of the nucleon"
        return (Parameter("g_A", AXIAL_CHARGE, bounds=(0.0, 5.0), scale=0.1, latex="$g_A$", description=description),)

    def axial_charge(self, params, nucleus, q):
        protons, neutrons = nucleus.spins(q)
        charge = 0.5 * params["g_A"] * (protons - neutrons)
        return flavour_diagonal(jnp.broadcast_to(charge, (3, *q.shape)))
