"""Theorems beside measurements of what they bound, for one data set.

    near a training point   denoiser and flow field              Dodson et al. 2026, Lemma A.1, Corollary A.2
    at large noise          pixel sensitivity, Gaussian limit    Dodson et al. 2026, Theorems 4.10 (D.4), 4.11 (C.4)
    by training set size    coverage and the danger zone         Dodson et al. 2026, Theorem 4.8, section 4.2
    bounds                  all of these, with Theorems 4.2, 4.8 and 4.9
"""

from geomem.theory.flow import FlowCosine, NearPoint, denoiser_near_point, flow_cosine
from geomem.theory.limits import (
    GaussianLaw,
    PixelSensitivity,
    SensitivityBound,
    SensitivityByDistance,
    circulant_eigenvalues,
    gaussian_law,
    pixel_sensitivity,
    sensitivity_bound,
    sensitivity_by_distance,
)
from geomem.theory.summary import Bounds, bounds
from geomem.theory.training_size import CoverageBySize, coverage_by_training_size
from geomem.theory.zone_trend import LogLogSlope, ZoneBySize, zone_by_training_size

__all__ = [
    "Bounds",
    "CoverageBySize",
    "FlowCosine",
    "GaussianLaw",
    "LogLogSlope",
    "NearPoint",
    "PixelSensitivity",
    "SensitivityBound",
    "SensitivityByDistance",
    "ZoneBySize",
    "bounds",
    "circulant_eigenvalues",
    "coverage_by_training_size",
    "denoiser_near_point",
    "flow_cosine",
    "gaussian_law",
    "pixel_sensitivity",
    "sensitivity_bound",
    "sensitivity_by_distance",
    "zone_by_training_size",
]
