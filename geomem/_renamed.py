"""Public names of 0.1.0 that have moved or have another name; they import from their old place for one release."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

RENAMED: dict[str, str] = {  # the old name: where it is now
    "geomem.geometry.CoverageBySize": "geomem.theory.CoverageBySize",
    "geomem.geometry.FlowCosine": "geomem.theory.FlowCosine",
    "geomem.geometry.LogLogSlope": "geomem.theory.LogLogSlope",
    "geomem.geometry.NearPoint": "geomem.theory.NearPoint",
    "geomem.geometry.ZoneBySize": "geomem.theory.ZoneBySize",
    "geomem.geometry.coverage_by_training_size": "geomem.theory.coverage_by_training_size",
    "geomem.geometry.denoiser_near_point": "geomem.theory.denoiser_near_point",
    "geomem.geometry.flow_cosine": "geomem.theory.flow_cosine",
    "geomem.geometry.zone_by_training_size": "geomem.theory.zone_by_training_size",
    "geomem.models.GaussianLaw": "geomem.theory.GaussianLaw",
    "geomem.models.PixelSensitivity": "geomem.theory.PixelSensitivity",
    "geomem.models.SensitivityBound": "geomem.theory.SensitivityBound",
    "geomem.models.circulant_eigenvalues": "geomem.theory.circulant_eigenvalues",
    "geomem.models.gaussian_law": "geomem.theory.gaussian_law",
    "geomem.models.pixel_sensitivity": "geomem.theory.pixel_sensitivity",
    "geomem.models.sensitivity_bound": "geomem.theory.sensitivity_bound",
    "geomem.memorization.Monitor": "geomem.training.Monitor",
}


def renamed(package: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package: looks up names of 0.1.0 in ``RENAMED``."""

    def __getattr__(name: str) -> Any:
        if f"{package}.{name}" not in RENAMED:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, new = RENAMED[f"{package}.{name}"].rsplit(".", 1)
        return getattr(import_module(module), new)

    return __getattr__
