"""Light mediators between neutrinos and quarks or electrons: vector, axial-vector, scalar and tensor."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..constants import ALPHA, G_F, M_ELECTRON, M_MUON, M_TAU
from ..errors import InvalidValueError, check_name
from ..parameters import Parameter
from .base import ElectronCouplings, Interaction, flavour_diagonal
from .generalized import NucleonCharges, nucleon_charges
from .nsi import latex_entry

LEPTON_MASSES = (M_ELECTRON, M_MUON, M_TAU)


class Charges(NamedTuple):
    """U(1)' charges of up and down quarks and of the three lepton generations."""

    u: float
    d: float
    e: float
    mu: float
    tau: float


MODELS = {
    "universal": Charges(1, 1, 1, 1, 1),
    "b-l": Charges(1 / 3, 1 / 3, -1, -1, -1),
    "b-3le": Charges(1 / 3, 1 / 3, -3, 0, 0),
    "b-3lmu": Charges(1 / 3, 1 / 3, 0, -3, 0),
    "b-2le-lmu": Charges(1 / 3, 1 / 3, -2, -1, 0),
    "b-le-2lmu": Charges(1 / 3, 1 / 3, -1, -2, 0),
    "by+lmu+ltau": Charges(1 / 3, 1 / 3, 0, 1, 1),
    "le-lmu": Charges(0, 0, 1, -1, 0),
    "le-ltau": Charges(0, 0, 1, 0, -1),
    "lmu-ltau": Charges(0, 0, 0, 1, -1),
}
"""Charges of arXiv:2202.11002, table 1."""


def propagator(q: Array, mass: ArrayLike) -> Array:
    r""":math:`1/[\sqrt2 G_F (q^2 + m^2)]`: what a squared coupling is divided by to compare with the weak charge."""
    return 1 / (np.sqrt(2) * G_F * jnp.maximum(q**2 + jnp.asarray(mass, float) ** 2, 1e-30))


def _mass(name: str, label: str, of: str) -> Parameter:
    return Parameter(
        name,
        100.0,
        "MeV",
        bounds=(0.0, 1e9),
        scale=1e-3,
        decades=True,
        window=(1e-3, 1e6),
        latex=f"$m_{{{label}}}$",
        description=f"mass of the {of} mediator",
    )


def _coupling(name: str, label: str, of: str) -> Parameter:
    return Parameter(
        name,
        bounds=(0.0, 4 * np.pi),
        scale=1e-6,
        decades=True,
        window=(0.0, 10.0),
        latex=f"$g_{{{label}}}$",
        description=f"coupling of the {of} mediator",
    )


def vacuum_polarisation(r: Array) -> Array:
    r"""Lepton loop :math:`\int_0^1 x(1-x)\ln[1 + x(1-x)r]\,dx` at :math:`r = q^2/m^2 \ge 0`.

    .. math:: \frac16\Big[\frac4r - \frac53 + \Big(1 - \frac2r\Big)\beta\ln\frac{\beta + 1}{\beta - 1}\Big],
              \quad \beta = \sqrt{1 + 4/r}; \qquad \sum_k \frac{(-1)^{k+1} r^k}{k} B(k+2, k+2) \text{ for small } r

    >>> round(float(vacuum_polarisation(jnp.asarray(1e-3))), 10)
    3.33298e-05
    """
    small = r < 0.5
    x = jnp.where(small, r, 0.0)
    series = jnp.zeros_like(x)
    for k in range(16, 0, -1):
        series = x * (series + (-1) ** (k + 1) / k * math.factorial(k + 1) ** 2 / math.factorial(2 * k + 3))
    y = jnp.where(small, 1.0, r)
    beta = jnp.sqrt(1 + 4 / y)
    closed = (4 / y - 5 / 3 + (1 - 2 / y) * beta * jnp.log((beta + 1) ** 2 * y / 4)) / 6
    return jnp.where(small, series, closed)


class LightVector(Interaction):
    r"""A vector boson Z' of any mass, with charges of a U(1)'.

    .. math::
        Q_a \to Q_a + \frac{g^2 Q'_a}{\sqrt2 G_F(q^2 + m^2)}\big[(2Q'_u + Q'_d) Z F_Z + (Q'_u + 2Q'_d) N F_N\big]

    on nuclei, and :math:`g_V \to g_V + g^2 Q'_a Q'_e/[\sqrt2 G_F(2m_e T + m^2)]` on electrons. The purely leptonic
    models reach quarks through photon-Z' mixing by lepton loops, which acts on the electric charge:

    .. math::
        g_V^p(a) \to g_V^p(a) \pm Q'_a \frac{\sqrt2\,\alpha\,g^2}{\pi G_F(q^2 + m^2)}
            \sum_l Q'_l \int_0^1 x(1-x)\ln\frac{1}{m_l^2 + x(1-x)q^2}\,dx

    (and the opposite for electrons). The couplings are dimensionless, the mass in MeV. The rate is even in the
    coupling: its derivative vanishes in the standard model, and fits start at several points of the search range. The
    mass does nothing while the coupling is zero.

    Args:
        model: charges by name: ``universal``, ``b-l``, ``b-3le``, ``b-3lmu``, ``b-2le-lmu``, ``b-le-2lmu``,
            ``by+lmu+ltau``, ``le-lmu``, ``le-ltau``, ``lmu-ltau``. Of those with quarks, the charges are parameters
            too (loops are left out there, also where the quarks' charges are set to zero).
        loop_sign: sign of the loop term: +1 as in arXiv:2202.11002, -1 as in arXiv:2008.05022.

    Raises:
        UnknownNameError: no such model.
        InvalidValueError: a sign other than +1 and -1.

    Source: arXiv:2202.11002 eq. 7-13; arXiv:2008.05022 eq. 14-20.

    >>> LightVector(model="lmu-ltau").parameters[1].name
    'g_zprime'
    """

    name = "light-vector"
    source = "arXiv:2202.11002, arXiv:2008.05022"
    model: str = eqx.field(static=True, default="universal")
    loop_sign: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_name("model of light-vector", self.model, MODELS)
        if self.loop_sign not in (1, -1):
            raise InvalidValueError(f"Argument `loop_sign` must be 1 or -1, but was {self.loop_sign!r}.")

    @property
    def leptonic(self) -> bool:
        """Whether the Z' reaches quarks through loops alone."""
        return MODELS[self.model].u == MODELS[self.model].d == 0

    @property
    def parameters(self):
        own = _mass("m_zprime", "Z'", "vector"), _coupling("g_zprime", "Z'", "vector")
        if self.leptonic:
            return own
        charges = zip(Charges._fields, MODELS[self.model], strict=True)
        return (
            *own,
            *(
                Parameter(
                    f"charge_{f}",
                    charge,
                    window=(-3.0, 3.0),
                    latex=f"$Q'_{{{latex_entry(f)}}}$",
                    description=f"U(1)' charge of {f}",
                )
                for f, charge in charges
            ),
        )

    def _charges(self, params) -> Charges:
        if self.leptonic:
            return MODELS[self.model]
        return Charges(*(params[f"charge_{f}"] for f in Charges._fields))

    def _loop(self, charges: Charges, q: Array) -> Array:
        """sqrt2 alpha/pi * sqrt2 G_F times the loop sum: multiplies the propagator like a charge."""
        loops = (np.log(m) / 3 + vacuum_polarisation((q / m) ** 2) for m in LEPTON_MASSES)
        total = sum(charge * loop for charge, loop in zip(charges[2:], loops, strict=True))
        return -self.loop_sign * 2 * ALPHA / np.pi * jnp.asarray(total)

    def _shift(self, params, q: Array, charge: ArrayLike) -> Array:
        """Flavour matrix for something of a U(1)' ``charge``."""
        leptons = jnp.stack([jnp.asarray(c, float) for c in self._charges(params)[2:]])
        strength = jnp.asarray(params["g_zprime"], float) ** 2 * propagator(q, params["m_zprime"]) * charge
        return flavour_diagonal(jnp.multiply.outer(leptons, strength))

    def weak_charge(self, params, nucleus, q):
        charges, protons, neutrons = self._charges(params), nucleus.protons(q), nucleus.neutrons(q)
        if self.leptonic:
            return self._shift(params, q, self._loop(charges, q) * protons)
        u, d = charges.u, charges.d
        return self._shift(params, q, (2 * u + d) * protons + (u + 2 * d) * neutrons)

    def electron_couplings(self, params, q):
        charges = self._charges(params)
        loop = self._loop(charges, q) if self.leptonic else 0.0
        vector = self._shift(params, q, charges.e - loop * jnp.ones_like(q))
        return ElectronCouplings(vector, jnp.zeros_like(vector))


class LightAxial(Interaction):
    r"""An axial-vector boson of any mass, coupled equally to all neutrinos, up and down quarks and electrons.

    .. math:: Q_A \to Q_A + \frac{g^2}{\sqrt2 G_F(q^2 + m^2)}\, 2\sqrt{\frac{J+1}{3J}}\;\Delta_{u+d}\,
              (\langle S_p\rangle F_Z + \langle S_n\rangle F_N), \qquad \Delta_{u+d} = 0.440

    on the spin of odd nuclei, with the shape :math:`1 + MT/(2E^2)`; it interferes with the axial term of the standard
    model (:class:`Axial`) if that is added. On electrons :math:`g_A \to g_A + g^2/[\sqrt2 G_F(2 m_e T + m^2)]`. The
    coupling is dimensionless, the mass in MeV. The rate is even in the coupling: fits start at several points of the
    search range.

    Args:
        axial_singlet: axial charge of the nucleon for equal couplings to both quarks, Delta u + Delta d (lattice QCD).

    Source: arXiv:1711.09773 section 3; arXiv:2007.08529 for the spins.

    >>> [p.name for p in LightAxial().parameters]
    ['m_axial', 'g_axial']
    """

    name = "light-axial"
    source = "arXiv:1711.09773, arXiv:2007.08529"
    axial_singlet: float = 0.440

    @property
    def parameters(self):
        return _mass("m_axial", "A'", "axial-vector"), _coupling("g_axial", "A'", "axial-vector")

    def _shift(self, params, q, charge):
        strength = jnp.asarray(params["g_axial"], float) ** 2 * propagator(q, params["m_axial"]) * charge
        return flavour_diagonal(jnp.broadcast_to(strength, (3, *q.shape)))

    def axial_charge(self, params, nucleus, q):
        protons, neutrons = nucleus.spins(q)
        return self._shift(params, q, self.axial_singlet * (protons + neutrons))

    def electron_couplings(self, params, q):
        axial = self._shift(params, q, 1.0)
        return ElectronCouplings(jnp.zeros_like(axial), axial)


class LightScalar(Interaction):
    r"""A scalar boson of any mass, coupled equally to all neutrinos, up and down quarks and electrons.

    .. math:: \frac{d\sigma}{dT} = \frac{M^2 T\, g^4 Q_S^2}{4\pi E^2(q^2 + m^2)^2},\quad Q_S = c_S^p Z F_Z + c_S^n N F_N

    and the same with :math:`M \to m_e, Q_S \to 1` on electrons. The coupling is dimensionless, the mass in MeV. It is
    the coupling C_S of :class:`Generalized` with :math:`C_S = \sqrt2 g^2/[G_F(q^2 + m^2)]`, and enters to the fourth
    power: its first derivatives vanish in the standard model, and fits start at several points of the search range.

    Args:
        nucleon_charges: scalar charges of the nucleons: ``2211.11905``, ``1711.09773`` (14 A + 1.1 Z) or your own.

    Source: arXiv:1711.09773 eq. 24-27; arXiv:2211.11905 section 2.5.

    >>> LightScalar(nucleon_charges="1711.09773").nucleon_charges.scalar_p
    15.1
    """

    name = "light-scalar"
    source = "arXiv:1711.09773, arXiv:2211.11905"
    nucleon_charges: NucleonCharges = eqx.field(static=True, default="2211.11905", converter=nucleon_charges)

    @property
    def parameters(self):
        return _mass("m_phi", r"\phi", "scalar"), _coupling("g_phi", r"\phi", "scalar")

    def _strength(self, params, q, charge):
        amplitude = jnp.asarray(params["g_phi"], float) ** 2 * propagator(q, params["m_phi"]) * charge
        return {"scalar": jnp.broadcast_to(amplitude**2 / 2, (3, *q.shape))}

    def incoherent_terms(self, params, nucleus, q):
        c = self.nucleon_charges
        return self._strength(params, q, c.scalar_p * nucleus.protons(q) + c.scalar_n * nucleus.neutrons(q))

    def electron_terms(self, params, q):
        return self._strength(params, q, 1.0)


class LightTensor(Interaction):
    r"""A tensor mediator of any mass, coupled equally to all neutrinos and to up and down quarks.

    .. math:: \frac{d\sigma}{dT} = \frac{2 G_F^2 M}{\pi}\Big(1 - \frac{MT}{4E^2}\Big)
              \bigg[\frac{\sqrt2 g^2}{G_F(q^2 + m^2)}\big(c_T^p Z F_Z + c_T^n N F_N\big)\bigg]^2

    The coupling is dimensionless, the mass in MeV; it does not act on electrons here. It is the coupling C_T of
    :class:`Generalized`, and enters to the fourth power: its first derivatives vanish in the standard model, and fits
    start at several points of the search range.

    Args:
        nucleon_charges: tensor charges of the nucleons: ``2211.11905`` or your own.

    Source: arXiv:2211.11905 section 2.5; arXiv:1612.04150.

    >>> [p.name for p in LightTensor().parameters]
    ['m_tensor', 'g_tensor']
    """

    name = "light-tensor"
    source = "arXiv:2211.11905"
    nucleon_charges: NucleonCharges = eqx.field(static=True, default="2211.11905", converter=nucleon_charges)

    @property
    def parameters(self):
        return _mass("m_tensor", "T", "tensor"), _coupling("g_tensor", "T", "tensor")

    def incoherent_terms(self, params, nucleus, q):
        c = self.nucleon_charges
        charge = c.tensor_p * nucleus.protons(q) + c.tensor_n * nucleus.neutrons(q)
        amplitude = jnp.asarray(params["g_tensor"], float) ** 2 * propagator(q, params["m_tensor"]) * charge
        return {"tensor": jnp.broadcast_to(8 * amplitude**2, (3, *q.shape))}
