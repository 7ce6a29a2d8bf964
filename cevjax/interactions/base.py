"""The protocol that every interaction follows, and sums of interactions.

An interaction contributes to scattering in up to four ways and implements those it has:

1. :meth:`Interaction.weak_charge`: a matrix in flavour, added *coherently* between interactions. An incoming flavour a
   scatters with the strength sum_b |Q_ba|^2 and the ``vector`` shape.
2. :meth:`Interaction.incoherent_terms`: strengths that do not interfere, each with its kinematic shape.
3. :meth:`Interaction.flux_factor`: survival probability of the active flavours on the way (with
   :attr:`Interaction.changes_flux`).
4. :attr:`Interaction.parameters`: the parameters that the three depend on.

The recoil spectrum is dsigma/dT = (G_F^2 M/pi) sum_k strength_k(q) shape_k(E, T), so strengths are dimensionless times
the inverse dimension of their shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ..errors import InvalidValueError, check_name
from ..kinematics import SHAPES
from ..nuclear_model import BoundNucleus
from ..parameters import Parameter, merge

FLAVOURS = ("e", "mu", "tau")
Params = Mapping[str, ArrayLike]


class Interaction(eqx.Module):
    """Base class. Concrete interactions set ``name`` and ``source`` and override what they contribute."""

    name: ClassVar[str]
    source: ClassVar[str] = ""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return ()

    def weak_charge(self, params: Params, nucleus: BoundNucleus, q: Array) -> Array | None:
        """Flavour matrix Q_ba of shape (3, 3, *q.shape), real or complex; None if there is no coherent part."""
        return None

    def incoherent_terms(self, params: Params, nucleus: BoundNucleus, q: Array) -> dict[str, Array]:
        """{kinematic shape: strength per incoming flavour, shape (3, *q.shape)}, none of them negative."""
        return {}

    @property
    def coherent_shape(self) -> str:
        """Kinematic shape of the coherent part."""
        return "vector"

    @property
    def changes_flux(self) -> bool:
        """Whether :meth:`flux_factor` is anything but 1."""
        return False

    def flux_factor(self, params: Params, energy: Array, baseline_m: ArrayLike) -> Array:
        """Probability to arrive as an active neutrino, for each produced flavour: shape (3, *energy.shape)."""
        return jnp.ones((3, *energy.shape))

    def with_couplings(self, name: str) -> Interaction:
        """The same interaction, with ``name`` for standard-model couplings that were left open."""
        return self

    def __add__(self, other: Interaction) -> Interaction:
        if not isinstance(other, Interaction):
            return NotImplemented
        return InteractionSum((*_terms(self), *_terms(other)))


class InteractionSum(Interaction):
    """Interactions acting together: charges add coherently, strengths add, survival probabilities multiply."""

    terms: tuple[Interaction, ...]

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return " + ".join(term.name for term in self.terms)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(merge((f"interaction {t.name}", t.parameters) for t in self.terms).values())

    def weak_charge(self, params, nucleus, q):
        charges = [Q for Q in (t.weak_charge(params, nucleus, q) for t in self.terms) if Q is not None]
        return sum(charges[1:], charges[0]) if charges else None

    def incoherent_terms(self, params, nucleus, q):
        total: dict[str, Array] = {}
        for term in self.terms:
            for shape, strength in term.incoherent_terms(params, nucleus, q).items():
                total[shape] = total[shape] + strength if shape in total else strength
        return total

    @property
    def coherent_shape(self):
        # exact kinematics, where one term asks for it, is for the whole charge
        return next((t.coherent_shape for t in self.terms if t.coherent_shape != "vector"), "vector")

    @property
    def changes_flux(self):
        return any(term.changes_flux for term in self.terms)

    def flux_factor(self, params, energy, baseline_m):
        factors = [t.flux_factor(params, energy, baseline_m) for t in self.terms if t.changes_flux]
        return jnp.prod(jnp.stack(factors), axis=0) if factors else super().flux_factor(params, energy, baseline_m)

    def with_couplings(self, name):
        return InteractionSum(tuple(term.with_couplings(name) for term in self.terms))


def _terms(interaction: Interaction) -> tuple[Interaction, ...]:
    return interaction.terms if isinstance(interaction, InteractionSum) else (interaction,)


def strengths(interaction: Interaction, params: Params, nucleus: BoundNucleus, q: Array) -> dict[str, Array]:
    """Strength per incoming flavour of each kinematic shape, shape (3, *q.shape).

    The coherent strength of flavour a is sum_b |Q_ba|^2 over the outgoing flavours b.
    """
    total = dict(interaction.incoherent_terms(params, nucleus, q))
    charge, shape = interaction.weak_charge(params, nucleus, q), interaction.coherent_shape
    if charge is not None:
        coherent = jnp.sum(charge.real**2 + charge.imag**2 if jnp.iscomplexobj(charge) else charge**2, axis=0)
        total[shape] = total[shape] + coherent if shape in total else coherent
    return total or {shape: jnp.zeros((3, *q.shape))}


def shapes_of(interaction: Interaction, nucleus: BoundNucleus) -> tuple[str, ...]:
    """Kinematic shapes that an interaction uses, found by an abstract evaluation.

    Raises:
        InvalidValueError: the interaction uses a parameter that it does not declare, or is no interaction.
        UnknownNameError: it names a kinematic shape that does not exist.
    """
    if not isinstance(interaction, Interaction):
        raise InvalidValueError(f"Argument `interaction` must be an Interaction, but was {interaction!r}.")
    params = {p.name: p.nominal for p in interaction.parameters if not p.members}
    try:
        found = jax.eval_shape(lambda q: strengths(interaction, params, nucleus, q), jnp.ones(1))
    except KeyError as error:
        raise InvalidValueError(
            f"Interaction {interaction.name!r} must declare its parameters, but uses {error} without."
        ) from error
    for name in found:
        check_name("kinematic shape", name, SHAPES)
    return tuple(found)


def flavour_diagonal(entries: Array) -> Array:
    """Flavour matrix (3, 3, ...) with ``entries`` (3, ...) on the diagonal."""
    eye = jnp.eye(3).reshape((3, 3) + (1,) * (entries.ndim - 1))
    return eye * entries[None]
