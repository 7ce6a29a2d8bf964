"""Weak neutral-current couplings of protons and neutrons, at tree level and with radiative corrections."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .constants import ALPHA, M_ELECTRON, M_MUON, M_TAU, M_W, SIN2_THETA_W, SIN2_THETA_W_MZ
from .errors import check_name

LEPTON_MASSES = (M_ELECTRON, M_MUON, M_TAU)
RHO = 1.00063
"""Low-energy neutral-current rho parameter."""
ALPHA_MZ = 1 / 127.952
ALPHA_S_MW = 0.123
ALPHA_S_MZ = 0.118


class Couplings(NamedTuple):
    """Vector couplings: ``proton`` per flavour (e, mu, tau), shape (3,); ``neutron``, a scalar."""

    proton: Array
    neutron: Array


def tree(sin2_theta_w: ArrayLike = SIN2_THETA_W) -> Couplings:
    r"""Tree level: :math:`g_V^p = \frac12 - 2\sin^2\theta_W`, :math:`g_V^n = -\frac12`.

    >>> round(float(tree().proton[0]), 5)
    0.02286
    """
    proton = 0.5 - 2 * jnp.asarray(sin2_theta_w, float)
    return Couplings(jnp.broadcast_to(proton, (3,)), jnp.asarray(-0.5, float))


def erler_su(sin2_theta_w: ArrayLike = SIN2_THETA_W) -> Couplings:
    r"""One-loop couplings in the form of Erler & Su: 0.0401 (e), 0.0318 (mu), -0.5094.

    .. math::
        g_V^p(l) &= \rho(\tfrac12 - 2s^2) - \frac{\hat\alpha_Z}{4\pi\hat s_Z^2}\Big(1 - 2\frac{\hat\alpha_s}{\pi}\Big)
                   + \frac{\alpha}{6\pi}\Big(3 - 2\ln\frac{m_l^2}{m_W^2}\Big) \\
        g_V^n &= -\frac{\rho}{2} - \frac{\hat\alpha_Z}{8\pi\hat s_Z^2}\Big(7 - 5\frac{\hat\alpha_s}{\pi}\Big)

    Source: Erler & Su arXiv:1303.5522; arXiv:2005.01645 eq. 5-7.
    """
    s2w = jnp.asarray(sin2_theta_w, float)
    loop = ALPHA_MZ / (4 * np.pi * SIN2_THETA_W_MZ)
    log = np.array([3 - 2 * np.log((m / M_W) ** 2) for m in LEPTON_MASSES])
    proton = RHO * (0.5 - 2 * s2w) - loop * (1 - 2 * ALPHA_S_MW / np.pi) + ALPHA / (6 * np.pi) * log
    neutron = -RHO / 2 - loop / 2 * (7 - 5 * ALPHA_S_MW / np.pi)
    return Couplings(proton, jnp.asarray(neutron, float))


def radiative_2023(sin2_theta_w: ArrayLike = SIN2_THETA_W) -> Couplings:
    r"""One-loop couplings with boxes and charge radius: 0.0382 (e), 0.0300 (mu), 0.0256 (tau), -0.5117.

    .. math::
        g_V^p(l) &= \rho(\tfrac12 - 2s^2) + 2X + B - 2\phi_l + \rho(2Z_{uL} + Z_{dL} - 2Z_{uR} - Z_{dR}) \\
        g_V^n &= -\tfrac{\rho}{2} + 2B + X + \rho(2Z_{dL} + Z_{uL} - 2Z_{dR} - Z_{uR})

    with the WW crossed box B, the WW box X, the ZZ boxes Z and the charge radius
    :math:`\phi_l = -\frac{\alpha}{6\pi}(\ln\frac{m_W^2}{m_l^2} + \frac32)`. Only ``sin2_theta_w`` floats; the loops
    stay at the Z-pole values.

    Source: arXiv:2303.09360 and arXiv:2205.09484, appendix B.
    """
    s2w = jnp.asarray(sin2_theta_w, float)
    s2z, c2z = SIN2_THETA_W_MZ, 1 - SIN2_THETA_W_MZ
    box_crossed = -ALPHA_MZ / (2 * np.pi * s2z) * (1 - ALPHA_S_MW / (2 * np.pi))
    box_ww = ALPHA_MZ / (8 * np.pi * s2z) * (1 + ALPHA_S_MW / np.pi)

    def box_zz(g):
        return -3 * ALPHA_MZ / (8 * np.pi * s2z * c2z) * g**2 * (1 - ALPHA_S_MZ / np.pi)

    u_left, d_left = box_zz(1 / 2 - 2 / 3 * s2z), box_zz(-1 / 2 + 1 / 3 * s2z)
    u_right, d_right = box_zz(-2 / 3 * s2z), box_zz(1 / 3 * s2z)
    phi = np.array([-ALPHA / (6 * np.pi) * (2 * np.log(M_W / m) + 3 / 2) for m in LEPTON_MASSES])
    boxes_proton = RHO * (2 * u_left + d_left - 2 * u_right - d_right)
    boxes_neutron = RHO * (2 * d_left + u_left - 2 * d_right - u_right)
    proton = RHO * (0.5 - 2 * s2w) + 2 * box_ww + box_crossed - 2 * phi + boxes_proton
    neutron = -RHO / 2 + 2 * box_crossed + box_ww + boxes_neutron
    return Couplings(proton, jnp.asarray(neutron, float))


COUPLINGS: dict[str, Callable[[ArrayLike], Couplings]] = {"tree": tree, "erler-su": erler_su, "2023": radiative_2023}


def couplings(name: str, sin2_theta_w: ArrayLike = SIN2_THETA_W) -> Couplings:
    """The couplings called ``name`` (``tree``, ``erler-su`` or ``2023``) at a weak mixing angle.

    Raises:
        UnknownNameError: no such couplings.
    """
    return COUPLINGS[check_name("couplings", name, COUPLINGS)](sin2_theta_w)
