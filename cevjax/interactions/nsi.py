"""Non-standard neutral-current interactions of neutrinos with up and down quarks."""

from __future__ import annotations

import jax.numpy as jnp

from ..parameters import Parameter
from .base import Interaction

ENTRIES = ("ee", "mumu", "tautau", "emu", "etau", "mutau")


def _parameter(quark: str, entry: str) -> Parameter:
    flavours = entry.replace("mu", r"\mu ").replace("tau", r"\tau ")
    return Parameter(
        f"eps_{quark}V_{entry}",
        bounds=(-2.0, 2.0),
        scale=0.05,
        window=(-1.0, 1.0),
        latex=rf"$\varepsilon^{{{quark}V}}_{{{flavours.strip()}}}$",
        description=f"vector NSI with {quark} quarks, {entry}",
    )


class NSI(Interaction):
    r"""Vector non-standard interactions, flavour-diagonal and flavour-changing.

    .. math::
        Q_{ba} = (2\varepsilon^u_{ba} + \varepsilon^d_{ba}) Z F_Z + (\varepsilon^u_{ba} + 2\varepsilon^d_{ba}) N F_N

    added to the standard-model charge; the rate of an incoming flavour a is :math:`\sum_b |Q_{ba}|^2`. The couplings
    :math:`\varepsilon` (dimensionless, in units of :math:`G_F`) form a symmetric matrix. They are bounded to twice the
    weak interaction. Of two couplings only one combination is measured: along the other the likelihood is all but flat,
    so a fit of both ends at a bound and says so; their allowed band is the result, not the point.

    Source: Barranco, Miranda & Rashba hep-ph/0508299; arXiv:2008.05022 eq. 8.

    >>> len(NSI().parameters)
    12
    """

    name = "nsi"
    source = "arXiv:2008.05022"

    @property
    def parameters(self):
        return tuple(_parameter(quark, entry) for quark in "ud" for entry in ENTRIES)

    def weak_charge(self, params, nucleus, q):
        protons, neutrons = nucleus.protons(q), nucleus.neutrons(q)
        up, down = _matrix(params, "u"), _matrix(params, "d")
        return jnp.multiply.outer(2 * up + down, protons) + jnp.multiply.outer(up + 2 * down, neutrons)


def _matrix(params, quark):
    """Symmetric (3, 3) matrix of the couplings to one quark."""
    rows = [["ee", "emu", "etau"], ["emu", "mumu", "mutau"], ["etau", "mutau", "tautau"]]
    return jnp.stack([jnp.stack([jnp.asarray(params[f"eps_{quark}V_{e}"], float) for e in row]) for row in rows])
