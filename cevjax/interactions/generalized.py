"""Generalised neutrino interactions with nucleons: vector, scalar and tensor at once, and the charges of nucleons."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp

from ..constants import M_NEUTRON, M_PROTON
from ..errors import InvalidValueError, check_name
from ..parameters import Parameter
from .base import Interaction, flavour_diagonal


@dataclass(frozen=True)
class NucleonCharges:
    """Scalar and tensor charge of a nucleon for a unit coupling to up and down quarks: an input, not a constant.

    >>> round(NucleonCharges.named("2211.11905").scalar_p, 2), NucleonCharges.named("1711.09773").scalar_n
    (17.24, 14.0)
    """

    scalar_p: float
    scalar_n: float
    tensor_p: float = 0.784 - 0.204
    tensor_n: float = 0.784 - 0.204

    @classmethod
    def from_sigma_terms(
        cls, f_u_p: float, f_d_p: float, f_u_n: float, f_d_n: float, m_u: float = 2.16, m_d: float = 4.70
    ) -> NucleonCharges:
        """Scalar charges sum_q f_q m_nucleon/m_q, from nucleon mass fractions f_q and quark masses (MeV, PDG 2024)."""
        return cls(M_PROTON * (f_u_p / m_u + f_d_p / m_d), M_NEUTRON * (f_u_n / m_u + f_d_n / m_d))

    @classmethod
    def named(cls, name: str) -> NucleonCharges:
        """The charges that a paper uses.

        Raises:
            UnknownNameError: no such charges.
        """
        return NUCLEON_CHARGES[check_name("nucleon charges", name, NUCLEON_CHARGES)]


NUCLEON_CHARGES = {
    "2211.11905": NucleonCharges.from_sigma_terms(0.0208, 0.0411, 0.0189, 0.0451),
    "1711.09773": NucleonCharges(15.1, 14.0),  # Q_S = 14 A + 1.1 Z
}
"""Nucleon mass fractions f_q of arXiv:1506.04142 and tensor charges of lattice QCD; the older scalar charge."""


def nucleon_charges(charges: str | NucleonCharges) -> NucleonCharges:
    """Nucleon charges by name, or as they are."""
    if isinstance(charges, str):
        return NucleonCharges.named(charges)
    if not isinstance(charges, NucleonCharges):
        raise InvalidValueError(f"Argument `nucleon_charges` must be a name or NucleonCharges, but was {charges!r}.")
    return charges


def _coupling(name: str, kind: str, scale: float, window: float) -> Parameter:
    return Parameter(
        name,
        scale=scale,
        window=(-window, window),
        latex=f"$C_{name[-1]}$",
        description=f"{kind} coupling to up and down quarks, in units of G_F/sqrt(2)",
    )


class Generalized(Interaction):
    r"""Vector, scalar and tensor interactions with up and down quarks, the same for all flavours.

    .. math::
        \mathcal{L} &= \frac{G_F}{\sqrt2} \sum_X C_X (\bar\nu\Gamma_X\nu)(\bar q\Gamma_X q) \\
        \frac{d\sigma}{dT} &= \frac{G_F^2 M}{\pi}\Big\{ \mathcal{C}_S^2\frac{MT}{8E^2}
            + \Big(Q_{SM} + \frac{\mathcal{C}_V}{2}\Big)^2\Big(1 - \frac{MT}{2E^2}\Big)
            + 2\,\mathcal{C}_T^2\Big(1 - \frac{MT}{4E^2}\Big)\Big\}

    with the charges of the nucleus :math:`\mathcal{C}_V = 3 C_V (Z F_Z + N F_N)` and
    :math:`\mathcal{C}_{S,T} = C_{S,T}\,(c^p_{S,T} Z F_Z + c^n_{S,T} N F_N)`; the parameters are the dimensionless
    couplings C_V, C_S, C_T of the quarks. Scalar and tensor enter squared, so their derivative vanishes in the
    standard model: fits start at several points of the search range.

    The tensor coupling is normalised as in its paper, which is not how :class:`TensorNSI` normalises its own.

    Args:
        nucleon_charges: scalar and tensor charges of the nucleons: ``2211.11905``, ``1711.09773`` or your own
            :class:`NucleonCharges`.

    Source: arXiv:1612.04150 eq. 8; arXiv:2211.11905 section 2.4.

    >>> [p.name for p in Generalized().parameters]
    ['C_V', 'C_S', 'C_T']
    """

    name = "generalized"
    source = "arXiv:1612.04150, arXiv:2211.11905"
    nucleon_charges: NucleonCharges = eqx.field(static=True, default="2211.11905", converter=nucleon_charges)

    @property
    def parameters(self):
        return (
            _coupling("C_V", "vector", 0.02, 1.0),
            _coupling("C_S", "scalar", 0.02, 0.5),
            _coupling("C_T", "tensor", 0.2, 5.0),
        )

    def weak_charge(self, params, nucleus, q):
        charge = 1.5 * params["C_V"] * (nucleus.protons(q) + nucleus.neutrons(q))
        return flavour_diagonal(jnp.broadcast_to(charge, (3, *q.shape)))

    def incoherent_terms(self, params, nucleus, q):
        c = self.nucleon_charges
        scalar = params["C_S"] * (c.scalar_p * nucleus.protons(q) + c.scalar_n * nucleus.neutrons(q))
        tensor = params["C_T"] * (c.tensor_p * nucleus.protons(q) + c.tensor_n * nucleus.neutrons(q))
        return {
            "scalar": jnp.broadcast_to(scalar**2 / 8, (3, *q.shape)),
            "tensor": jnp.broadcast_to(2 * tensor**2, (3, *q.shape)),
        }
