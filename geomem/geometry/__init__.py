"""Where a diffusion model will memorize its training set, from the geometry of the data alone.

    W_sigma(D)     mean largest posterior weight at noisy training points; falls with sigma       Def. 4.1
    C_sigma(p, D)  coverage of noisy held-out points by the shells of the training points; rises  Def. 4.6
    danger zone    the noise levels where both are high; it holds their crossing                  section 4.2

All of Dodson et al. 2026 (arXiv 2602.17846). Arrays in (NumPy or torch, (points, ...), flattened inside), frozen
records of float64 NumPy arrays out.
"""

from geomem._renamed import renamed
from geomem.geometry.bounds import CoverageBounds, coverage_bounds
from geomem.geometry.coverage import shell_coverage
from geomem.geometry.curves import Curves, geometry_curves
from geomem.geometry.posterior import PosteriorWeights, max_posterior_weight
from geomem.geometry.precision import PreciseCurves, curves_to_tolerance
from geomem.geometry.refine import refined_curves
from geomem.geometry.risk import TrainingRisk, training_risk
from geomem.geometry.shells import shell_radii, two_shell_probability
from geomem.geometry.spaces import LinearProjection, principal_components
from geomem.geometry.thresholds import Thresholds, ThresholdSummary, concentration_thresholds
from geomem.geometry.zone import DangerZone, find_danger_zone, recommended_gap, zone_reason
from geomem.statistics import Estimate

__all__ = [
    "CoverageBounds",
    "Curves",
    "DangerZone",
    "Estimate",
    "LinearProjection",
    "PosteriorWeights",
    "PreciseCurves",
    "ThresholdSummary",
    "Thresholds",
    "TrainingRisk",
    "concentration_thresholds",
    "coverage_bounds",
    "curves_to_tolerance",
    "find_danger_zone",
    "geometry_curves",
    "max_posterior_weight",
    "principal_components",
    "recommended_gap",
    "refined_curves",
    "shell_coverage",
    "shell_radii",
    "training_risk",
    "two_shell_probability",
    "zone_reason",
]
__getattr__ = renamed(__name__)
