"""Oscillation into a sterile neutrino."""

from __future__ import annotations

import jax.numpy as jnp

from ..constants import HBARC
from ..parameters import Parameter
from .base import Interaction, Oscillation

PHASE = 1e-12 / (4 * HBARC * 1e-15)
"""1/(4 hbar c) in MeV/(eV^2 m): the phase is PHASE dm2 L/E, with 1.267 for L/E in m/MeV."""


def _angle(name: str, of: str, members: tuple[str, ...] = ()) -> Parameter:
    flavour = name.removeprefix("sin2_2theta").strip("_").replace("mu", r"\mu ")
    return Parameter(
        name,
        bounds=(0.0, 1.0),
        scale=0.1,
        latex=rf"$\sin^2 2\theta_{{{flavour.strip()}}}$" if flavour else r"$\sin^2 2\theta$",
        description=f"amplitude of the disappearance of {of}",
        members=members,
    )


class Sterile(Interaction):
    r"""Disappearance of active neutrinos into a sterile one over a short baseline.

    .. math:: P_{aa} = 1 - \sin^2(2\theta_{aa})\,
              \sin^2\Big(1.267\,\frac{\Delta m^2_{41}[\mathrm{eV}^2]\, L[\mathrm{m}]}{E[\mathrm{MeV}]}\Big)

    The amplitudes ``sin2_2theta_ee`` and ``sin2_2theta_mumu`` (or ``sin2_2theta`` for both) are dimensionless,
    ``dm2_41`` is in eV^2. Averages over the neutrino energies are exact at any frequency; over recoils they are as good
    as the recoil grid (4e-6 of all counts, 1e-4 of those in a bin). Source and detector are points: a line in the
    spectrum keeps oscillating, beyond 200 eV^2 faster than the size of either would let it. The mass splitting does
    nothing while both amplitudes are zero.

    Source: arXiv:1711.09773 eq. 18.

    >>> [p.name for p in Sterile().parameters]
    ['sin2_2theta_ee', 'sin2_2theta_mumu', 'sin2_2theta', 'dm2_41']
    """

    name = "sterile"
    source = "arXiv:1711.09773"

    @property
    def parameters(self):
        own = _angle("sin2_2theta_ee", "nu_e"), _angle("sin2_2theta_mumu", "nu_mu")
        return (
            *own,
            _angle("sin2_2theta", "nu_e and nu_mu", tuple(p.name for p in own)),
            Parameter(
                "dm2_41", 1.0, "eV2", bounds=(0.0, 1e6), scale=0.1, decades=True, window=(0.1, 1e3),
                latex=r"$\Delta m^2_{41}$", description="mass splitting of the sterile state",
            ),
        )  # fmt: skip

    def oscillation(self, params, baseline_m):
        amplitudes = [params.get("sin2_2theta", params.get(f"sin2_2theta_{flavour}")) for flavour in ("ee", "mumu")]
        amplitude = jnp.stack([*(jnp.asarray(a, float) for a in amplitudes), jnp.asarray(0.0)])
        return Oscillation(amplitude, PHASE * jnp.asarray(params["dm2_41"], float) * baseline_m)
