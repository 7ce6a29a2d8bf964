"""cevjax: coherent elastic neutrino-nucleus scattering on JAX.

Pure, jitted kernels feed a differentiable likelihood of real data, so that gradients drive every fit.
"""

import jax as _jax

from .compiler import mend_compiler as _mend_compiler

_mend_compiler()
_jax.config.update("jax_enable_x64", True)

from .cache import enable_compilation_cache as enable_compilation_cache  # noqa: E402
from .datasets import load as load  # noqa: E402
from .exposure import scaled as scaled  # noqa: E402
from .exposure import with_exposure as with_exposure  # noqa: E402
from .inference import feldman_cousins as feldman_cousins  # noqa: E402
from .inference import fisher as fisher  # noqa: E402
from .inference import fit as fit  # noqa: E402
from .inference import forecast as forecast  # noqa: E402
from .inference import interval as interval  # noqa: E402
from .inference import numpyro_model as numpyro_model  # noqa: E402
from .inference import profile as profile  # noqa: E402
from .inference import sample as sample  # noqa: E402
from .inference import scan as scan  # noqa: E402
from .inference import svi as svi  # noqa: E402
from .inference import toys as toys  # noqa: E402
from .interactions import NSI as NSI  # noqa: E402
from .interactions import Axial as Axial  # noqa: E402
from .interactions import ChargeRadius as ChargeRadius  # noqa: E402
from .interactions import DipolePortal as DipolePortal  # noqa: E402
from .interactions import Generalized as Generalized  # noqa: E402
from .interactions import Interaction as Interaction  # noqa: E402
from .interactions import Leptoquark as Leptoquark  # noqa: E402
from .interactions import LightAxial as LightAxial  # noqa: E402
from .interactions import LightScalar as LightScalar  # noqa: E402
from .interactions import LightTensor as LightTensor  # noqa: E402
from .interactions import LightVector as LightVector  # noqa: E402
from .interactions import MagneticMoment as MagneticMoment  # noqa: E402
from .interactions import Millicharge as Millicharge  # noqa: E402
from .interactions import NucleonCharges as NucleonCharges  # noqa: E402
from .interactions import StandardModel as StandardModel  # noqa: E402
from .interactions import Sterile as Sterile  # noqa: E402
from .interactions import TensorNSI as TensorNSI  # noqa: E402
from .interactions import TransitionMagneticMoment as TransitionMagneticMoment  # noqa: E402
from .interactions import interaction as interaction  # noqa: E402
from .interactions.base import flavour_diagonal as flavour_diagonal  # noqa: E402
from .likelihood import Likelihood as Likelihood  # noqa: E402
from .measurement import Measurement as Measurement  # noqa: E402
from .parameters import Parameter as Parameter  # noqa: E402
from .priors import Flat as Flat  # noqa: E402
from .priors import LogFlat as LogFlat  # noqa: E402
from .priors import Normal as Normal  # noqa: E402
from .priors import Prior as Prior  # noqa: E402
from .results import FitResult as FitResult  # noqa: E402
from .results import IntervalResult as IntervalResult  # noqa: E402
from .results import ProfileResult as ProfileResult  # noqa: E402
from .scans import ScanResult as ScanResult  # noqa: E402
