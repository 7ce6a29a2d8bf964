"""The protocol that every interaction follows, and sums of interactions.

An interaction contributes to scattering in up to four ways and implements those it has:

1. :meth:`Interaction.weak_charge`: a matrix in flavour, added *coherently* between interactions. An incoming flavour a
   scatters with the strength sum_b |Q_ba|^2 and the ``vector`` shape.
2. :meth:`Interaction.incoherent_terms`: strengths that do not interfere, each with its kinematic shape; and
   :meth:`Interaction.axial_charge`, a matrix that interferes with those of its kind alone. Scalar and tensor terms of
   two interactions add as rates too, where their amplitudes would interfere.
3. On electrons the same two: :meth:`Interaction.electron_couplings` and :meth:`Interaction.electron_terms`.
4. :meth:`Interaction.flux_factor`: survival probability of the active flavours on the way; where it oscillates,
   :meth:`Interaction.oscillation`.

They depend on :attr:`Interaction.parameters`. The recoil spectrum is dsigma/dT = (G_F^2 M/pi) sum_k strength_k(q)
shape_k(E, T), so strengths are dimensionless times the inverse dimension of their shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ..electrons import Electron
from ..errors import InvalidValueError, check_name
from ..kinematics import SHAPES, Shape
from ..nuclear_model import BoundNucleus
from ..parameters import Parameter, merge

FLAVOURS = ("e", "mu", "tau")
Params = Mapping[str, ArrayLike]


class ElectronCouplings(NamedTuple):
    """Vector and axial couplings to electrons, flavour matrices g_ba of shape (3, 3, *q.shape)."""

    vector: Array
    axial: Array


class Oscillation(NamedTuple):
    """Survival probability 1 - amplitude_a sin^2(frequency / E): amplitudes of shape (3,), frequency in MeV."""

    amplitude: Array
    frequency: Array


class Interaction(eqx.Module):
    """Base class. Concrete interactions set ``name`` and ``source`` and override what they contribute.

    ``off`` holds the parameter values at which it contributes nothing, where those are not the nominal ones.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    off: ClassVar[Mapping[str, float]] = {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return ()

    def weak_charge(self, params: Params, nucleus: BoundNucleus, q: Array) -> Array | None:
        """Flavour matrix Q_ba of shape (3, 3, *q.shape), real or complex; None if there is no coherent part."""
        return None

    def axial_charge(self, params: Params, nucleus: BoundNucleus, q: Array) -> Array | None:
        """Flavour matrix like :meth:`weak_charge`, of the axial current, which acts on the spin (``axial`` shape)."""
        return None

    def incoherent_terms(self, params: Params, nucleus: BoundNucleus, q: Array) -> dict[str, Array]:
        """{kinematic shape: strength per incoming flavour, shape (3, *q.shape)}, none of them negative."""
        return {}

    @property
    def coherent_shape(self) -> str:
        """Kinematic shape of the coherent part."""
        return "vector"

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Kinematic shapes of its own, besides those of :data:`cevjax.kinematics.SHAPES`."""
        return {}

    def electron_couplings(self, params: Params, q: Array) -> ElectronCouplings | None:
        """Couplings to electrons at q = sqrt(2 m_e T), real or complex; None if there are none."""
        return None

    def electron_terms(self, params: Params, q: Array) -> dict[str, Array]:
        """Like :meth:`incoherent_terms`, on one free electron."""
        return {}

    def flux_factor(self, params: Params, energy: Array, baseline_m: ArrayLike) -> Array:
        """Probability to arrive as an active neutrino, for each produced flavour: shape (3, *energy.shape)."""
        wave = self.oscillation(params, baseline_m)
        if wave is None:
            return jnp.ones((3, *energy.shape))
        return 1 - jnp.multiply.outer(wave.amplitude, jnp.sin(wave.frequency / energy) ** 2)

    def oscillation(self, params: Params, baseline_m: ArrayLike) -> Oscillation | None:
        """The flux factor, where it has this form: fluxes are then averaged exactly, however fast it oscillates."""
        return None

    def with_couplings(self, name: str) -> Interaction:
        """The same interaction, with ``name`` for standard-model couplings that were left open."""
        return self

    def __add__(self, other: Interaction) -> Interaction:
        if not isinstance(other, Interaction):
            return NotImplemented
        return InteractionSum((*terms_of(self), *terms_of(other)))


class InteractionSum(Interaction):
    """Interactions acting together: charges add coherently, strengths add, survival probabilities multiply."""

    terms: tuple[Interaction, ...]

    def __init__(self, terms: Iterable[Interaction]):
        terms = tuple(terms)
        chosen = sorted({t.couplings for t in terms if getattr(t, "couplings", None)})  # pyright: ignore
        if len(chosen) > 1:
            listed = ", ".join(chosen)
            raise InvalidValueError(f"The terms of an interaction must have the same couplings, but have {listed}.")
        # what one term chooses is for all that leave it open
        self.terms = tuple(t.with_couplings(chosen[0]) for t in terms) if chosen else terms

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return " + ".join(term.name for term in self.terms)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(merge((f"interaction {t.name}", t.parameters) for t in self.terms).values())

    def weak_charge(self, params, nucleus, q):
        return _add(term.weak_charge(params, nucleus, q) for term in self.terms)

    def axial_charge(self, params, nucleus, q):
        return _add(term.axial_charge(params, nucleus, q) for term in self.terms)

    def incoherent_terms(self, params, nucleus, q):
        return _add_terms(term.incoherent_terms(params, nucleus, q) for term in self.terms)

    @property
    def coherent_shape(self):
        # exact kinematics, where one term asks for it, is for the whole charge
        return next((t.coherent_shape for t in self.terms if t.coherent_shape != "vector"), "vector")

    @property
    def shapes(self):
        own: dict[str, Shape] = {}
        for name, shape in ((n, s) for term in self.terms for n, s in term.shapes.items()):
            if own.setdefault(name, shape) != shape:
                raise InvalidValueError(f"Kinematic shape {name!r} is defined differently by two terms of {self.name}.")
        return own

    def electron_couplings(self, params, q):
        found = [g for g in (t.electron_couplings(params, q) for t in self.terms) if g is not None]
        vector, axial = _add(g.vector for g in found), _add(g.axial for g in found)
        return None if vector is None or axial is None else ElectronCouplings(vector, axial)

    def electron_terms(self, params, q):
        return _add_terms(term.electron_terms(params, q) for term in self.terms)

    def flux_factor(self, params, energy, baseline_m):
        factors = [t.flux_factor(params, energy, baseline_m) for t in self.terms if contributes(t, "flux")]
        return jnp.prod(jnp.stack(factors), axis=0) if factors else super().flux_factor(params, energy, baseline_m)

    def oscillation(self, params, baseline_m):
        waves = [w for w in (term.oscillation(params, baseline_m) for term in self.terms) if w is not None]
        if len(waves) > 1:
            raise InvalidValueError(f"Only one term of an interaction can oscillate, but {self.name} has {len(waves)}.")
        return waves[0] if waves else None

    def with_couplings(self, name):
        return InteractionSum(tuple(term.with_couplings(name) for term in self.terms))


def terms_of(interaction: Interaction) -> tuple[Interaction, ...]:
    """The interactions that a sum is made of."""
    return interaction.terms if isinstance(interaction, InteractionSum) else (interaction,)


def _add(matrices: Iterable[Array | None]) -> Array | None:
    found = [matrix for matrix in matrices if matrix is not None]
    return sum(found[1:], found[0]) if found else None


def _add_terms(parts: Iterable[dict[str, Array]]) -> dict[str, Array]:
    total: dict[str, Array] = {}
    for part in parts:
        for shape, strength in part.items():
            total[shape] = total[shape] + strength if shape in total else strength
    return total


CONTRIBUTIONS = {
    "coherent": ("weak_charge",),
    "incoherent": ("incoherent_terms", "axial_charge"),
    "electrons": ("electron_couplings", "electron_terms"),
    "flux": ("flux_factor", "oscillation"),
}
"""What an interaction may add, and the methods that add it."""


def contributes(interaction: Interaction, what: str) -> bool:
    """Whether an interaction has a contribution: ``coherent``, ``incoherent``, ``electrons`` or ``flux``."""
    methods = CONTRIBUTIONS[check_name("contribution", what, CONTRIBUTIONS)]
    return any(
        getattr(type(term), method) is not getattr(Interaction, method)
        for term in terms_of(interaction)
        for method in methods
    )


def smooth_part(interaction: Interaction) -> tuple[Interaction, ...]:
    """The terms that change the flux without oscillating."""
    own = Interaction.oscillation
    return tuple(t for t in terms_of(interaction) if contributes(t, "flux") and type(t).oscillation is own)


def strengths(interaction: Interaction, params: Params, target: BoundNucleus | Electron, q: Array) -> dict[str, Array]:
    r"""Strength per incoming flavour of each kinematic shape, shape (3, *q.shape).

    On a nucleus the coherent strength of flavour a is sum_b |Q_ba|^2 over the outgoing flavours b. On a free electron
    left- and right-handed couplings g_V +- g_A have a shape each, and their interference a third:

    .. math::
        \frac{d\sigma}{dT} = \frac{G_F^2 m_e}{2\pi}\Big[(g_V + g_A)^2 + (g_V - g_A)^2\Big(1 - \frac{T}{E}\Big)^2
            - (g_V^2 - g_A^2)\frac{m_e T}{E^2}\Big]
    """
    if isinstance(target, Electron):
        total = dict(interaction.electron_terms(params, q))
        coherent = _electron_strengths(interaction.electron_couplings(params, q))
    else:
        total = dict(interaction.incoherent_terms(params, target, q))
        charges = {
            interaction.coherent_shape: interaction.weak_charge(params, target, q),
            "axial": interaction.axial_charge(params, target, q),
        }
        coherent = {shape: _over_outgoing(Q) for shape, Q in charges.items() if Q is not None}
    return _add_terms([total, coherent]) or {"vector": jnp.zeros((3, *q.shape))}


def _over_outgoing(matrix: Array) -> Array:
    """Sum over outgoing flavours b of |M_ba|^2."""
    return jnp.sum(matrix.real**2 + matrix.imag**2 if jnp.iscomplexobj(matrix) else matrix**2, axis=0)


def _electron_strengths(g: ElectronCouplings | None) -> dict[str, Array]:
    if g is None:
        return {}
    return {
        "electron_left": _over_outgoing(g.vector + g.axial) / 2,
        "electron_right": _over_outgoing(g.vector - g.axial) / 2,
        "scalar": (_over_outgoing(g.axial) - _over_outgoing(g.vector)) / 2,
    }


def shapes_of(interaction: Interaction, target: BoundNucleus | Electron) -> dict[str, Shape]:
    """Kinematic shapes that an interaction uses, found by an abstract evaluation.

    Raises:
        InvalidValueError: the interaction uses a parameter that it does not declare, has a shape of its own with the
        name
            of another, or is no interaction.
        UnknownNameError: it names a kinematic shape that does not exist.
    """
    if not isinstance(interaction, Interaction):
        raise InvalidValueError(f"Argument `interaction` must be an Interaction, but was {interaction!r}.")
    params = {p.name: p.nominal for p in interaction.parameters if not p.members}
    try:
        found = jax.eval_shape(lambda q: strengths(interaction, params, target, q), jnp.ones(1))
    except KeyError as error:
        raise InvalidValueError(
            f"Interaction {interaction.name!r} must declare its parameters, but uses {error} without."
        ) from error
    if taken := set(SHAPES) & set(interaction.shapes):
        raise InvalidValueError(f"Interaction {interaction.name!r} must not redefine the shape {min(taken)!r}.")
    known = {**SHAPES, **interaction.shapes}
    return {name: known[check_name("kinematic shape", name, known)] for name in found}


def flavour_diagonal(entries: Array) -> Array:
    """Flavour matrix (3, 3, ...) with ``entries`` (3, ...) on the diagonal."""
    eye = jnp.eye(3).reshape((3, 3) + (1,) * (entries.ndim - 1))
    return eye * entries[None]
