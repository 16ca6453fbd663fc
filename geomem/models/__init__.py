"""Denoisers: everything that maps (noisy point, noise level) to a clean estimate, trained or in closed form."""

from geomem._renamed import renamed
from geomem.models.adapters import PREDICTIONS, ForeignNetwork, SigmaDenoiser, TimestepDenoiser, VelocityDenoiser
from geomem.models.cross_fitted import CrossFittedDenoiser
from geomem.models.denoiser import (
    Denoiser,
    EDMDenoiser,
    EpsilonDenoiser,
    FixedClass,
    expand_sigma,
    own_schedule,
    rows_of,
)
from geomem.models.networks import NETWORKS, build_network, default_network
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.models.reference import EmpiricalDenoiser, GaussianDenoiser
from geomem.models.swapped import PUBLISHED_WINDOWS, SkippingDenoiser, Window, swapped_denoiser

__all__ = [
    "NETWORKS",
    "PREDICTIONS",
    "PUBLISHED_WINDOWS",
    "CrossFittedDenoiser",
    "Denoiser",
    "EDMDenoiser",
    "EmpiricalDenoiser",
    "EpsilonDenoiser",
    "FixedClass",
    "ForeignNetwork",
    "GaussianDenoiser",
    "PiecewiseDenoiser",
    "SigmaDenoiser",
    "SkippingDenoiser",
    "TimestepDenoiser",
    "VelocityDenoiser",
    "Window",
    "build_network",
    "default_network",
    "expand_sigma",
    "own_schedule",
    "rows_of",
    "swapped_denoiser",
]
__getattr__ = renamed(__name__)
