"""Interaction plug-ins: one file a family, all on the protocol of :mod:`.base`."""

from ..registry import interaction_class
from .base import Interaction as Interaction
from .base import InteractionSum as InteractionSum
from .base import strengths as strengths
from .nsi import NSI as NSI
from .standard_model import StandardModel as StandardModel


def interaction(name: str, **choices) -> Interaction:
    """The interaction called ``name``, built with its choices.

    >>> (interaction("standard-model") + interaction("nsi")).name
    'standard-model + nsi'
    """
    return interaction_class(name)(**choices)
