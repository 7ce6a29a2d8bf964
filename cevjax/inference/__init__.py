"""Inference on a likelihood: functions, not methods."""

from .feldman_cousins import FeldmanCousinsResult as FeldmanCousinsResult
from .feldman_cousins import feldman_cousins as feldman_cousins
from .fit import fit as fit
from .forecast import fisher as fisher
from .forecast import forecast as forecast
from .intervals import interval as interval
from .model import numpyro_model as numpyro_model
from .profile import profile as profile
from .sample import sample as sample
from .scan import scan as scan
from .toys import toys as toys
from .variational import svi as svi
