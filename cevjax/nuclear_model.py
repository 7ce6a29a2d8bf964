"""Nuclei with their form factors and radii: what interactions see, and the parameters that change it."""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .form_factors import FormFactor
from .nuclei import Nucleus, Target
from .parameters import Parameter


class BoundNucleus(eqx.Module):
    """A nucleus with its form factor and radii at one parameter point: what interactions see.

    ``protons(q)`` and ``neutrons(q)`` are Z F_Z(q) and N F_N(q).
    """

    nucleus: Nucleus = eqx.field(static=True)
    form_factor: FormFactor
    R_p: Array
    R_n: Array

    @property
    def Z(self) -> int:
        return self.nucleus.Z

    @property
    def N(self) -> int:
        return self.nucleus.N

    @property
    def mass(self) -> float:
        return self.nucleus.mass

    def protons(self, q: ArrayLike) -> Array:
        return self.nucleus.Z * self.form_factor(q, self.R_p)

    def neutrons(self, q: ArrayLike) -> Array:
        return self.nucleus.N * self.form_factor(q, self.R_n)

    def spins(self, q: ArrayLike) -> tuple[Array, Array]:
        r"""What multiplies the axial couplings of protons and neutrons; zero without spin.

        .. math:: 2\sqrt{\frac{J + 1}{3J}}\,\big(\langle S_p\rangle F_Z(q), \langle S_n\rangle F_N(q)\big)

        so that a free nucleon has 1 (J = S = 1/2). The form factors of the spin are taken to be those of the density.
        """
        spin = self.nucleus.spin
        size = 2 * ((spin.J + 1) / (3 * spin.J)) ** 0.5 if spin else 0.0
        S_p, S_n = (spin.protons, spin.neutrons) if spin else (0.0, 0.0)
        return size * S_p * self.form_factor(q, self.R_p), size * S_n * self.form_factor(q, self.R_n)


class NuclearModel(eqx.Module):
    """The nuclei of a target, their form factor and what is free in it.

    Every nuclide has a neutron-radius parameter ``R_n_<nuclide>`` (fm); a compound of several also has the common
    radius ``R_n_<target>``, which replaces theirs where it is given. A size nuisance, if any, scales the radii by
    ``1 + sigma * nuisance``: the neutron radii alone, or protons and neutrons alike.
    """

    target: Target = eqx.field(static=True)
    form_factor: FormFactor
    size_nuisance: str | None = eqx.field(static=True, default=None)
    size_sigma: float = eqx.field(static=True, default=0.0)
    size_of_protons: bool = eqx.field(static=True, default=False)

    @property
    def common_radius(self) -> str:
        return f"R_n_{self.target.name}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        nuclides = self.target.nuclei
        own = tuple(self._radius(n.name, n.name, self.form_factor.default_radii(n)[1]) for n in nuclides)
        if len(own) == 1:
            return own
        mean = sum(p.nominal for p in own) / len(own)
        members = tuple(p.name for p in own)
        return *own, self._radius(self.target.name, f"the nuclei of {self.target.name}, in common", mean, members)

    def _radius(self, label: str, of: str, nominal: float, members: tuple[str, ...] = ()) -> Parameter:
        return Parameter(
            f"R_n_{label}",
            round(nominal, 6),
            "fm",
            bounds=(2.0, 12.0),
            scale=0.3,
            window=(2.0, 9.0),
            latex=rf"$R_n(\mathrm{{{label}}})$",
            description=f"neutron rms radius of {of}",
            supersedes=(self.size_nuisance,) if self.size_nuisance else (),
            members=members,
        )

    def bind(self, params: Mapping[str, ArrayLike]) -> tuple[BoundNucleus, ...]:
        """The nuclei at the radii of ``params``."""
        factor = 1 + self.size_sigma * jnp.asarray(params[self.size_nuisance]) if self.size_nuisance else 1.0
        return tuple(self._bind(nuclide, params, factor) for nuclide in self.target.nuclei)

    def _bind(self, nuclide: Nucleus, params: Mapping[str, ArrayLike], factor: ArrayLike) -> BoundNucleus:
        R_p = jnp.asarray(self.form_factor.default_radii(nuclide)[0], float)
        R_n = jnp.asarray(params.get(self.common_radius, params.get(f"R_n_{nuclide.name}")), float)
        if self.size_nuisance:
            R_n = self.form_factor.scale_radius(R_n, factor)
            R_p = self.form_factor.scale_radius(R_p, factor) if self.size_of_protons else R_p
        return BoundNucleus(nuclide, self.form_factor, R_p, R_n)
