"""Detector response: quenching, resolution, efficiency and timing."""

from .efficiency import ExponentialTimeEfficiency as ExponentialTimeEfficiency
from .efficiency import SigmoidEfficiency as SigmoidEfficiency
from .quenching import UNQUENCHED as UNQUENCHED
from .quenching import PolynomialQuenching as PolynomialQuenching
from .resolution import BinnedResponse as BinnedResponse
from .resolution import GammaResolution as GammaResolution
from .timing import BinnedTime as BinnedTime
from .timing import Pulse as Pulse
from .timing import TimeTemplate as TimeTemplate
from .timing import emg_cdf as emg_cdf
