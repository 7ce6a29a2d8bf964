"""Interaction plug-ins: one file a family, all on the protocol of :mod:`.base`."""

from ..errors import InvalidValueError
from ..registry import check_choices, interaction_class
from .base import ElectronCouplings as ElectronCouplings
from .base import Interaction as Interaction
from .base import InteractionSum as InteractionSum
from .base import Oscillation as Oscillation
from .base import strengths as strengths
from .electromagnetic import ChargeRadius as ChargeRadius
from .electromagnetic import DipolePortal as DipolePortal
from .electromagnetic import MagneticMoment as MagneticMoment
from .electromagnetic import Millicharge as Millicharge
from .electromagnetic import TransitionMagneticMoment as TransitionMagneticMoment
from .generalized import Generalized as Generalized
from .generalized import NucleonCharges as NucleonCharges
from .leptoquarks import Leptoquark as Leptoquark
from .light_mediators import LightAxial as LightAxial
from .light_mediators import LightScalar as LightScalar
from .light_mediators import LightTensor as LightTensor
from .light_mediators import LightVector as LightVector
from .nsi import NSI as NSI
from .nsi import TensorNSI as TensorNSI
from .standard_model import Axial as Axial
from .standard_model import StandardModel as StandardModel
from .sterile import Sterile as Sterile


def interaction(name: str, **choices) -> Interaction:
    """The interaction called ``name``, built with its choices.

    Raises:
        UnknownNameError: no such interaction or choice; the message offers the nearest.
        InvalidValueError: a plug-in of that name that cannot be loaded, or is none.

    >>> (interaction("standard-model") + interaction("leptoquark", model="S3")).name
    'standard-model + leptoquark'
    """
    factory = interaction_class(name)
    check_choices("interaction", name, factory, choices)
    found = factory(**choices)
    if not isinstance(found, Interaction):
        raise InvalidValueError(f"Interaction {name!r} must make an Interaction, but made {found!r}.")
    return found
