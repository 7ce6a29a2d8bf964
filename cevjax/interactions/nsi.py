"""Non-standard neutral-current interactions of neutrinos with up and down quarks: vector and tensor."""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ..parameters import Parameter
from .base import FLAVOURS, Interaction

ENTRIES = ("ee", "mumu", "tautau", "emu", "etau", "mutau")
"""Entries of a symmetric flavour matrix: the diagonal, then what changes flavour."""


def flavour_matrix(entries: Mapping[str, ArrayLike], sign: int = 1) -> Array:
    """The (3, 3) matrix of the six :data:`ENTRIES`, symmetric or (``sign=-1``) antisymmetric."""
    rows = [["ee", "emu", "etau"], ["emu", "mumu", "mutau"], ["etau", "mutau", "tautau"]]
    matrix = [[jnp.asarray(entries.get(entry, 0.0), float) for entry in row] for row in rows]
    full = jnp.stack([jnp.stack(row) for row in matrix])
    return full if sign > 0 else jnp.triu(full) - jnp.tril(full)


def latex_entry(entry: str) -> str:
    """LaTeX of a pair of flavours."""
    return entry.replace("mu", r"\mu ").replace("tau", r"\tau ").strip()


def _parameter(quark: str, entry: str, kind: str, part: str = "") -> Parameter:
    symbol = rf"\varepsilon^{{{quark}{kind[0].upper()}}}_{{{latex_entry(entry)}}}"
    return Parameter(
        f"eps_{quark}{kind[0].upper()}_{entry}{part and '_im'}",
        bounds=(-2.0, 2.0),
        scale=0.05,
        window=(-1.0, 1.0),
        latex=rf"$\mathrm{{Im}}\,{symbol}$" if part else f"${symbol}$",
        description=f"{kind} NSI with {quark} quarks, {entry}" + (part and f", {part} part"),
    )


class NSI(Interaction):
    r"""Vector non-standard interactions, flavour-diagonal and flavour-changing.

    .. math::
        Q_{ba} = (2\varepsilon^u_{ba} + \varepsilon^d_{ba}) Z F_Z + (\varepsilon^u_{ba} + 2\varepsilon^d_{ba}) N F_N

    added to the standard-model charge; the rate of an incoming flavour a is :math:`\sum_b |Q_{ba}|^2`. The couplings
    :math:`\varepsilon` (dimensionless, in units of :math:`G_F`) form a hermitian matrix, real unless asked otherwise.
    They are bounded to twice the weak interaction. Of two couplings only one combination is measured: along the other
    the likelihood is all but flat, so a fit of both ends at a bound and says so; their allowed band is the result, not
    the point. Flavour-changing couplings enter squared: fits start at several points of the search range.

    Args:
        complex_entries: whether the flavour-changing couplings have imaginary parts too: ``eps_uV_emu_im`` is that of
            the entry e, mu, and that of mu, e has the opposite sign. They matter against the phase of the couplings to
            the other quark.

    Source: Barranco, Miranda & Rashba hep-ph/0508299; arXiv:2008.05022 eq. 8.

    >>> len(NSI().parameters), len(NSI(complex_entries=True).parameters)
    (12, 18)
    """

    name = "nsi"
    source = "arXiv:2008.05022"
    complex_entries: bool = eqx.field(static=True, default=False)

    @property
    def parameters(self):
        real = tuple(_parameter(quark, entry, "vector") for quark in "ud" for entry in ENTRIES)
        if not self.complex_entries:
            return real
        return *real, *(_parameter(quark, entry, "vector", "imaginary") for quark in "ud" for entry in ENTRIES[3:])

    def weak_charge(self, params, nucleus, q):
        protons, neutrons = nucleus.protons(q), nucleus.neutrons(q)
        up, down = self._matrix(params, "u"), self._matrix(params, "d")
        return jnp.multiply.outer(2 * up + down, protons) + jnp.multiply.outer(up + 2 * down, neutrons)

    def _matrix(self, params, quark: str) -> Array:
        real = flavour_matrix({entry: params[f"eps_{quark}V_{entry}"] for entry in ENTRIES})
        if not self.complex_entries:
            return real
        imaginary = {entry: params[f"eps_{quark}V_{entry}_im"] for entry in ENTRIES[3:]}
        return real + 1j * flavour_matrix(imaginary, sign=-1)


class TensorNSI(Interaction):
    r"""Tensor non-standard interactions with up and down quarks, flavour-diagonal.

    .. math::
        \frac{d\sigma_a}{dT} = \frac{4 G_F^2 M}{\pi} Q_T^2 \Big(1 - \frac{MT}{4E^2}\Big), \qquad Q_T =
        (2\varepsilon^{uT}_{aa} + \varepsilon^{dT}_{aa}) Z F_Z + (\varepsilon^{uT}_{aa} + 2\varepsilon^{dT}_{aa}) N F_N

    added to the standard model without interference. The couplings are dimensionless; they count quarks, as in their
    paper, where :class:`Generalized` has the tensor charges of the nucleons. They enter squared: their derivative
    vanishes in the standard model, and fits start at several points of the search range.

    Source: arXiv:1711.09773 eq. 10-12.

    >>> TensorNSI().parameters[0].name
    'eps_uT_ee'
    """

    name = "tensor-nsi"
    source = "arXiv:1711.09773"

    @property
    def parameters(self):
        return tuple(_parameter(quark, 2 * flavour, "tensor") for quark in "ud" for flavour in FLAVOURS)

    def incoherent_terms(self, params, nucleus, q):
        up, down = (
            jnp.stack([jnp.asarray(params[f"eps_{quark}T_{2 * flavour}"], float) for flavour in FLAVOURS])
            for quark in "ud"
        )
        charge = jnp.multiply.outer(2 * up + down, nucleus.protons(q))
        charge = charge + jnp.multiply.outer(up + 2 * down, nucleus.neutrons(q))
        return {"tensor": 4 * charge**2}
