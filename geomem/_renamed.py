"""Public names of 0.1.0 that have moved or have another name; they import from their old place for one release."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

RENAMED: dict[str, str] = {  # the old name: where it is now
    "geomem.theorem_4_2_thresholds": "geomem.geometry.concentration_thresholds",
    "geomem.theorem_4_8_bounds": "geomem.geometry.coverage_bounds",
    "geomem.geometry.CoverageBySize": "geomem.theory.CoverageBySize",
    "geomem.geometry.FlowCosine": "geomem.theory.FlowCosine",
    "geomem.geometry.LogLogSlope": "geomem.theory.LogLogSlope",
    "geomem.geometry.NearPoint": "geomem.theory.NearPoint",
    "geomem.geometry.ZoneBySize": "geomem.theory.ZoneBySize",
    "geomem.geometry.coverage_by_training_size": "geomem.theory.coverage_by_training_size",
    "geomem.geometry.denoiser_near_point": "geomem.theory.denoiser_near_point",
    "geomem.geometry.flow_cosine": "geomem.theory.flow_cosine",
    "geomem.geometry.theorem_4_2_thresholds": "geomem.geometry.concentration_thresholds",
    "geomem.geometry.theorem_4_8_bounds": "geomem.geometry.coverage_bounds",
    "geomem.geometry.widened_gap": "geomem.geometry.recommended_gap",
    "geomem.geometry.zone_by_training_size": "geomem.theory.zone_by_training_size",
    "geomem.models.GaussianLaw": "geomem.theory.GaussianLaw",
    "geomem.models.PixelSensitivity": "geomem.theory.PixelSensitivity",
    "geomem.models.SensitivityBound": "geomem.theory.SensitivityBound",
    "geomem.models.circulant_eigenvalues": "geomem.theory.circulant_eigenvalues",
    "geomem.models.gaussian_law": "geomem.theory.gaussian_law",
    "geomem.models.pixel_sensitivity": "geomem.theory.pixel_sensitivity",
    "geomem.models.sensitivity_bound": "geomem.theory.sensitivity_bound",
    "geomem.memorization.Look": "geomem.memorization.MemorizationCheck",
    "geomem.memorization.Monitor": "geomem.training.Monitor",
    "geomem.memorization.PairedShareDifference": "geomem.statistics.PairedShareDifference",
    "geomem.memorization.RankCorrelation": "geomem.statistics.RankCorrelation",
    "geomem.memorization.paired_share_difference": "geomem.statistics.paired_share_difference",
    "geomem.memorization.rank_correlation": "geomem.statistics.rank_correlation",
    "geomem.memorization.wilson_interval": "geomem.statistics.wilson_interval",
    "geomem.quality.Correlation": "geomem.statistics.Correlation",
    "geomem.quality.DifferenceOverSeeds": "geomem.statistics.DifferenceOverSeeds",
    "geomem.quality.MeanOverRuns": "geomem.statistics.MeanOverRuns",
    "geomem.quality.difference_over_seeds": "geomem.statistics.difference_over_seeds",
    "geomem.quality.mean_over_runs": "geomem.statistics.mean_over_runs",
    "geomem.quality.pareto_front": "geomem.statistics.pareto_front",
    "geomem.quality.pearson_correlation": "geomem.statistics.pearson_correlation",
    "geomem.training.Origin": "geomem.training.InitialWeights",
}


def renamed(package: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package: looks up names of 0.1.0 in ``RENAMED``."""

    def __getattr__(name: str) -> Any:
        if f"{package}.{name}" not in RENAMED:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, new = RENAMED[f"{package}.{name}"].rsplit(".", 1)
        return getattr(import_module(module), new)

    return __getattr__
