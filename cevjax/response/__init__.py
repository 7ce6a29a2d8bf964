"""Detector response: quenching, resolution, efficiency and timing."""

from .efficiency import Efficiency as Efficiency
from .efficiency import ExponentialTimeEfficiency as ExponentialTimeEfficiency
from .efficiency import FlatEfficiency as FlatEfficiency
from .efficiency import SigmoidEfficiency as SigmoidEfficiency
from .efficiency import TabulatedEfficiency as TabulatedEfficiency
from .quenching import UNQUENCHED as UNQUENCHED
from .quenching import LindhardQuenching as LindhardQuenching
from .quenching import PolynomialQuenching as PolynomialQuenching
from .quenching import Quenching as Quenching
from .quenching import TabulatedQuenching as TabulatedQuenching
from .resolution import BinnedResponse as BinnedResponse
from .resolution import GammaResolution as GammaResolution
from .resolution import GaussianResolution as GaussianResolution
from .resolution import PoissonResolution as PoissonResolution
from .resolution import Resolution as Resolution
from .timing import BinnedTime as BinnedTime
from .timing import Pulse as Pulse
from .timing import TimeTemplate as TimeTemplate
from .timing import emg_cdf as emg_cdf
