"""Scalar leptoquarks between neutrinos and quarks."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..errors import check_name
from ..parameters import Parameter
from .base import Interaction
from .light_mediators import propagator

MODELS = {"S1": (1, 2), "R2": (2, 1), "S3": (5, 4), "R2t": (1, 2)}
"""Multiplicities of protons and neutrons in the charge."""


class Leptoquark(Interaction):
    r"""A scalar leptoquark with one real coupling to electron and muon neutrinos.

    .. math::
        Q_{ba} \to Q_{ba} + \frac{g^2}{4\sqrt2 G_F(q^2 + m^2)} \times
            \begin{cases} Z F_Z + 2 N F_N & S_1,\ \tilde R_2 \\ 2 Z F_Z + N F_N & R_2 \\ 5 Z F_Z + 4 N F_N & S_3
            \end{cases} \qquad a, b \in \{e, \mu\}

    The coupling ``g_lq`` is dimensionless, the mass ``m_lq`` in MeV. Diagonal and flavour-changing entries are equal,
    so that the rate is the standard one again where :math:`(Q + Q_{LQ})^2 + Q_{LQ}^2 = Q^2`. It is even in the
    coupling: fits start at several points of the search range.

    Args:
        model: ``S1``, ``R2``, ``S3`` or ``R2t``.

    Raises:
        UnknownNameError: no such model.

    Source: arXiv:2307.13790 section II.

    >>> Leptoquark("R2").parameters[1].name
    'g_lq'
    """

    name = "leptoquark"
    source = "arXiv:2307.13790"
    model: str = eqx.field(static=True, default="S1")

    def __check_init__(self):
        check_name("model of leptoquark", self.model, MODELS)

    @property
    def parameters(self):
        return (
            Parameter(
                "m_lq", 1e6, "MeV", bounds=(0.0, 1e9), scale=1e-3, decades=True, window=(1e-3, 1e7),
                latex=r"$m_{LQ}$", description="mass of the leptoquark",
            ),
            Parameter(
                "g_lq", bounds=(0.0, 4 * np.pi), scale=1e-6, decades=True, window=(0.0, 10.0),
                latex=r"$g_{LQ}$", description="coupling of the leptoquark",
            ),
        )  # fmt: skip

    def weak_charge(self, params, nucleus, q):
        p, n = MODELS[self.model]
        strength = jnp.asarray(params["g_lq"], float) ** 2 / 4 * propagator(q, params["m_lq"])
        charge = strength * (p * nucleus.protons(q) + n * nucleus.neutrons(q))
        couples = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
        return jnp.multiply.outer(couples, charge)
