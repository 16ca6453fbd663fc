"""Denoisers: everything that maps (noisy point, noise level) to a clean estimate, trained or in closed form."""

from geomem.models.denoiser import Denoiser, EDMDenoiser, EpsilonDenoiser, expand_sigma
from geomem.models.networks import NETWORKS, build_network, default_network
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.models.reference import EmpiricalDenoiser, GaussianDenoiser

__all__ = [
    "NETWORKS",
    "Denoiser",
    "EDMDenoiser",
    "EmpiricalDenoiser",
    "EpsilonDenoiser",
    "GaussianDenoiser",
    "PiecewiseDenoiser",
    "build_network",
    "default_network",
    "expand_sigma",
]
