"""Electromagnetic properties of neutrinos: magnetic moments, charge radii, millicharges, dipole to a sterile state."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..constants import ALPHA, G_F, M_ELECTRON, M_MUON, M_TAU, M_W, MEV2_TO_CM2
from ..couplings import COUPLINGS
from ..errors import check_name
from ..kinematics import Shape
from ..parameters import Parameter
from .base import FLAVOURS, ElectronCouplings, Interaction, Params
from .nsi import ENTRIES, flavour_matrix, latex_entry
from .standard_model import DEFAULT_COUPLINGS


def _dipole_term(squared_moments: Array, mass: float, charge: Array) -> Array:
    """Strength of pi alpha^2/m_e^2 mu^2 on a particle of some mass and charge, in the normalisation G_F^2 M/pi."""
    unit = (np.pi * ALPHA / (G_F * M_ELECTRON)) ** 2 / mass
    return jnp.multiply.outer(unit * squared_moments, charge**2)


def _moment(name: str, symbol: str, of: str, members: tuple[str, ...] = ()) -> Parameter:
    return Parameter(
        name,
        unit="mu_B",
        bounds=(0.0, 1e-6),
        scale=1e-9,
        window=(0.0, 2e-8),
        latex=f"${symbol}$",
        description=f"magnetic moment {of}",
        members=members,
    )


class MagneticMoment(Interaction):
    r"""Effective magnetic moments of the neutrino flavours.

    .. math::
        \frac{d\sigma_a}{dT} = \frac{\pi\alpha^2}{m_e^2}\Big(\frac1T - \frac1E\Big) Z^2 F_Z^2(q)
            \Big|\frac{\mu_{\nu_a}}{\mu_B}\Big|^2

    added to the standard model, and the same with Z F_Z = 1 on each electron. ``mu_nu_e``, ``mu_nu_mu`` and
    ``mu_nu_tau`` in units of the Bohr magneton, or ``mu_nu`` for all three. They enter squared, so that their
    derivative vanishes in the standard model: fits start at several points of the search range.

    Source: Vogel & Engel, Phys. Rev. D 39 (1989) 3378; arXiv:2205.09484 eq. 17.

    >>> [p.name for p in MagneticMoment().parameters]
    ['mu_nu_e', 'mu_nu_mu', 'mu_nu_tau', 'mu_nu']
    """

    name = "magnetic-moment"
    source = "Phys. Rev. D 39 (1989) 3378, arXiv:2205.09484"

    @property
    def parameters(self):
        own = tuple(_moment(f"mu_nu_{f}", rf"\mu_{{\nu_{latex_entry(f)}}}", f"of nu_{f}") for f in FLAVOURS)
        return *own, _moment("mu_nu", r"\mu_\nu", "of all flavours", tuple(p.name for p in own))

    def _moments(self, params: Params) -> Array:
        named = (params.get("mu_nu", params.get(f"mu_nu_{f}")) for f in FLAVOURS)
        return jnp.stack([jnp.asarray(value, float) for value in named])

    def incoherent_terms(self, params, nucleus, q):
        return {"magnetic": _dipole_term(self._moments(params) ** 2, nucleus.mass, nucleus.protons(q))}

    def electron_terms(self, params, q):
        return {"magnetic": _dipole_term(self._moments(params) ** 2, M_ELECTRON, jnp.ones_like(q))}


PMNS_ANGLES = (0.307, 0.561, 0.02195)
"""sin^2 of theta_12, theta_23, theta_13 (NuFIT 6.0, normal ordering, arXiv:2410.05380)."""
PMNS_PHASE = np.deg2rad(177.0)


def pmns(angles: tuple[float, float, float] = PMNS_ANGLES, phase: float = PMNS_PHASE) -> np.ndarray:
    """Mixing matrix U of flavours (rows) and masses, from sin^2 theta_12, theta_23, theta_13 and the Dirac phase.

    >>> bool(np.allclose(pmns() @ pmns().conj().T, np.eye(3)))
    True
    """
    (s12, s23, s13), (c12, c23, c13) = np.sqrt(angles), np.sqrt(1 - np.array(angles))
    e = np.exp(1j * phase)
    return np.array(
        [
            [c12 * c13, s12 * c13, s13 / e],
            [-s12 * c23 - c12 * s23 * s13 * e, c12 * c23 - s12 * s23 * s13 * e, s23 * c13],
            [s12 * s23 - c12 * c23 * s13 * e, -c12 * s23 - s12 * c23 * s13 * e, c23 * c13],
        ]
    )


class TransitionMagneticMoment(Interaction):
    r"""Transition magnetic moments of Majorana neutrinos: an antisymmetric, complex matrix.

    .. math::
        \lambda_{ij} = \sum_k \epsilon_{ijk} \Lambda_k, \quad \Lambda_k = |\Lambda_k| e^{i\zeta_k}, \qquad
        \mu_{\nu_a}^2 = \big(U \lambda^\dagger\lambda\, U^\dagger\big)_{aa}
            = \sum_k |\Lambda_k|^2 - \Big|\sum_k U_{ak}\Lambda_k\Big|^2

    gives the effective moments of the flavours at a short distance, which act as in :class:`MagneticMoment`. Parameters
    are the moduli ``lambda_k`` (mu_B) and the phases ``zeta_k`` (rad). In the flavour basis the matrix U is 1, and the
    phases have no effect. The moduli enter squared: fits start at several points of the search range.

    Args:
        basis: ``mass`` or ``flavour``, of the Lambda_k.

    The mixing matrix is that of :func:`pmns` at its default angles.

    Raises:
        UnknownNameError: no such basis.

    Source: arXiv:1905.03750 eq. 6-11.

    >>> [p.name for p in TransitionMagneticMoment().parameters]
    ['lambda_1', 'lambda_2', 'lambda_3', 'zeta_1', 'zeta_2', 'zeta_3']
    """

    name = "transition-magnetic-moment"
    source = "arXiv:1905.03750"
    basis: str = eqx.field(static=True, default="mass")

    def __check_init__(self):
        check_name("basis of transition-magnetic-moment", self.basis, ("mass", "flavour"))

    @property
    def parameters(self):
        labels = "123" if self.basis == "mass" else FLAVOURS
        moduli = tuple(
            _moment(f"lambda_{k}", rf"|\Lambda_{{{latex_entry(k)}}}|", f"Lambda_{k}, modulus") for k in labels
        )
        if self.basis == "flavour":
            return moduli
        return *moduli, *(
            Parameter(
                f"zeta_{k}",
                unit="rad",
                bounds=(-2 * np.pi, 2 * np.pi),
                scale=0.5,
                latex=rf"$\zeta_{k}$",
                description=f"phase of the transition magnetic moment Lambda_{k}",
            )
            for k in labels
        )

    def effective_moments_squared(self, params: Params) -> Array:
        """Squared effective moments of the three flavours, mu_B^2."""
        labels = "123" if self.basis == "mass" else FLAVOURS
        moduli = jnp.stack([jnp.asarray(params[f"lambda_{k}"], float) for k in labels])
        if self.basis == "flavour":
            return jnp.sum(moduli**2) - moduli**2
        phases = jnp.stack([jnp.asarray(params[f"zeta_{k}"], float) for k in labels])
        along = jnp.asarray(pmns()) @ (moduli * jnp.exp(1j * phases))
        return jnp.maximum(jnp.sum(moduli**2) - along.real**2 - along.imag**2, 0.0)

    def incoherent_terms(self, params, nucleus, q):
        return {"magnetic": _dipole_term(self.effective_moments_squared(params), nucleus.mass, nucleus.protons(q))}

    def electron_terms(self, params, q):
        return {"magnetic": _dipole_term(self.effective_moments_squared(params), M_ELECTRON, jnp.ones_like(q))}


def _photon(q: Array) -> Array:
    """1/q^2 of a photon, MeV^-2."""
    return 1 / jnp.maximum(q**2, 1e-150)


CHARGE_RADIUS = np.sqrt(2) * np.pi * ALPHA / (3 * G_F) / MEV2_TO_CM2
"""sqrt2 pi alpha/(3 G_F): a charge radius squared (cm^2) in units of g_V^p."""
SM_CHARGE_RADII = tuple(
    float(-G_F * MEV2_TO_CM2 / (2 * np.sqrt(2) * np.pi**2) * (3 - 4 * np.log(m / M_W)))
    for m in (M_ELECTRON, M_MUON, M_TAU)
)
"""Of nu_e, nu_mu, nu_tau in the standard model, cm^2: -0.83, -0.48, -0.30 e-32 (arXiv:hep-ph/0008114)."""


class ChargeRadius(Interaction):
    r"""Charge radii of the neutrinos, flavour-diagonal and transition.

    .. math::
        Q_{ba} \to Q_{ba}
            - \frac{\sqrt2\pi\alpha}{3 G_F}\big(\langle r^2_{ba}\rangle - \langle r^2_{ba}\rangle_0\big) Z F_Z(q)

    on nuclei, and :math:`g_V \to g_V` *plus* the same with Z F_Z = 1 on electrons. ``r2_nu_ee`` ... in cm^2 are the
    *total* charge radii: the radiative couplings ``2023`` and ``erler-su`` already hold those of the standard model, so
    with them the reference :math:`\langle r^2\rangle_0` and the nominal values are -0.83, -0.48, -0.30 e-32 cm^2 (e,
    mu, tau); with ``tree`` couplings both are zero. Electrons have tree-level couplings, and the same reference.
    Transition radii are real, and enter squared: fits start at several points of the search range.

    Args:
        couplings: those of the standard model that it is added to; None takes them as :class:`StandardModel` does.

    Raises:
        UnknownNameError: no such couplings.

    Source: arXiv:1810.05606 eq. 12-20; arXiv:2205.09484 eq. 21.

    >>> f"{ChargeRadius().parameters[0].nominal:.3g}", ChargeRadius("tree").parameters[0].nominal
    ('-8.28e-33', 0.0)
    """

    name = "charge-radius"
    source = "arXiv:1810.05606, arXiv:2205.09484"
    couplings: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.couplings is not None:
            check_name("couplings", self.couplings, COUPLINGS)

    def _reference(self, entry: str) -> float:
        """What the couplings hold already."""
        radiative = (self.couplings or DEFAULT_COUPLINGS) != "tree"
        return SM_CHARGE_RADII[ENTRIES.index(entry)] if radiative and entry in ENTRIES[:3] else 0.0

    @property
    def parameters(self):
        return tuple(
            Parameter(
                f"r2_nu_{entry}",
                self._reference(entry),
                "cm2",
                scale=1e-32,
                window=(-2e-30, 2e-30),
                latex=rf"$\langle r^2_{{\nu_{{{latex_entry(entry)}}}}}\rangle$",
                description=f"{'total' if entry in ENTRIES[:3] else 'transition'} charge radius squared, {entry}",
            )
            for entry in ENTRIES
        )

    def with_couplings(self, name):
        return self if self.couplings else ChargeRadius(name)

    def _matrix(self, params, q, charge):
        radii = {entry: jnp.asarray(params[f"r2_nu_{entry}"], float) - self._reference(entry) for entry in ENTRIES}
        return jnp.multiply.outer(CHARGE_RADIUS * flavour_matrix(radii), charge)

    def weak_charge(self, params, nucleus, q):
        return -self._matrix(params, q, nucleus.protons(q))

    def electron_couplings(self, params, q):
        vector = self._matrix(params, q, jnp.ones_like(q))
        return ElectronCouplings(vector, jnp.zeros_like(vector))


class Millicharge(Interaction):
    r"""Electric charges of the neutrinos, flavour-diagonal and transition.

    .. math:: Q_{ba} \to Q_{ba} + \frac{2\sqrt2\pi\alpha}{G_F\, 2MT}\, q_{\nu_{ba}} Z F_Z(q)

    on nuclei, and :math:`g_V \to g_V - 2\sqrt2\pi\alpha\, q_\nu/(G_F\, 2 m_e T)` on electrons, where it grows so much
    faster towards low recoils that the bound is two orders stronger. ``q_nu_ee`` ... in units of the elementary charge;
    transition charges are real, and enter squared: fits start at several points of the search range.

    Source: arXiv:1403.6344; arXiv:2205.09484 eq. 24-27.

    >>> Millicharge().parameters[0].name
    'q_nu_ee'
    """

    name = "millicharge"
    source = "arXiv:1403.6344, arXiv:2205.09484"

    @property
    def parameters(self):
        return tuple(
            Parameter(
                f"q_nu_{entry}",
                unit="e",
                scale=1e-10,
                decades=True,
                window=(-1e-5, 1e-5),
                latex=rf"$q_{{\nu_{{{latex_entry(entry)}}}}}$",
                description=f"electric charge of the neutrino, {entry}",
            )
            for entry in ENTRIES
        )

    def _matrix(self, params, q, charge):
        charges = flavour_matrix({entry: jnp.asarray(params[f"q_nu_{entry}"], float) for entry in ENTRIES})
        return jnp.multiply.outer(2 * np.sqrt(2) * np.pi * ALPHA / G_F * charges, charge * _photon(q))

    def weak_charge(self, params, nucleus, q):
        return self._matrix(params, q, nucleus.protons(q))

    def electron_couplings(self, params, q):
        vector = -self._matrix(params, q, jnp.ones_like(q))
        return ElectronCouplings(vector, jnp.zeros_like(vector))


def upscattering(E: Array, T: Array, M: Array, m: Array) -> Array:
    r"""Up-scattering by a dipole to a state of mass m, 1/MeV.

    .. math::
        \frac1T - \frac1E - \frac{m^2}{2ETM}\Big(1 - \frac{T}{2E} + \frac{M}{2E}\Big) + \frac{m^4(T - M)}{8E^2T^2M^2}
    """
    quadratic = m**2 / (2 * E * T * M) * (1 - T / (2 * E) + M / (2 * E))
    return 1 / T - 1 / E - quadratic + m**4 * (T - M) / (8 * E**2 * T**2 * M**2)


class DipolePortal(Interaction):
    r"""A magnetic dipole from active neutrinos to a massive sterile one: up-scattering on nuclei and electrons.

    .. math::
        \frac{d\sigma_a}{dT} = \frac{\pi\alpha^2}{m_e^2} Z^2 F_Z^2(q) \Big|\frac{\mu_{\nu_4 a}}{\mu_B}\Big|^2
            \Big[\frac1T - \frac1E - \frac{m_4^2}{2ETM}\Big(1 - \frac{T}{2E} + \frac{M}{2E}\Big)
            + \frac{m_4^4(T - M)}{8E^2T^2M^2}\Big]

    and the same with Z F_Z = 1 and M = m_e on each electron, between the two recoil energies that a state of mass m_4
    (MeV) leaves open; below the threshold :math:`E = m_4 + m_4^2/(2M)` there is none. ``mu_nu4_e``, ``mu_nu4_mu``,
    ``mu_nu4_tau`` are in units of the Bohr magneton. They enter squared: fits start at several points of the search
    range.

    Source: arXiv:1803.03262 eq. 2.3; arXiv:2211.11905 section 2.7.

    >>> [p.name for p in DipolePortal().parameters]
    ['m_4', 'mu_nu4_e', 'mu_nu4_mu', 'mu_nu4_tau']
    """

    name = "dipole-portal"
    source = "arXiv:1803.03262, arXiv:2211.11905"

    @property
    def parameters(self):
        mass = Parameter(
            "m_4", 1.0, "MeV", bounds=(0.0, 1e5), scale=0.1, decades=True, window=(0.1, 50.0), latex="$m_4$",
            description="mass of the sterile neutrino",
        )  # fmt: skip
        return mass, *(
            _moment(f"mu_nu4_{f}", rf"\mu_{{\nu_4 {latex_entry(f)}}}", f"of the transition nu_{f} to nu_4")
            for f in FLAVOURS
        )

    @property
    def shapes(self):
        return {"upscattering": Shape(upscattering, mass="m_4")}

    def _moments(self, params: Params) -> Array:
        return jnp.stack([jnp.asarray(params[f"mu_nu4_{f}"], float) for f in FLAVOURS])

    def incoherent_terms(self, params, nucleus, q):
        return {"upscattering": _dipole_term(self._moments(params) ** 2, nucleus.mass, nucleus.protons(q))}

    def electron_terms(self, params, q):
        return {"upscattering": _dipole_term(self._moments(params) ** 2, M_ELECTRON, jnp.ones_like(q))}
