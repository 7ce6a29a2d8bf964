"""Neutrino fluxes: energy spectra by flavour."""

from .base import Continuum as Continuum
from .base import Fluence as Fluence
from .base import Flux as Flux
from .base import FluxComponent as FluxComponent
from .base import Line as Line
from .pion_decay_at_rest import PionDecayAtRest as PionDecayAtRest
from .pion_decay_at_rest import fluence as fluence
from .reactor import Reactor as Reactor
from .reactor import ReactorFluence as ReactorFluence
