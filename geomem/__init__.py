"""geomem: where a diffusion model will memorize its training data, and how to train one that does not.

The public names below are loaded on first use, so ``import geomem`` does not import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load_data": "geomem.data",
    "DataSet": "geomem.data",
    "geometry_curves": "geomem.geometry",
    "Curves": "geomem.geometry",
    "max_posterior_weight": "geomem.geometry",
    "shell_coverage": "geomem.geometry",
    "theorem_4_2_thresholds": "geomem.geometry",
    "theorem_4_8_bounds": "geomem.geometry",
    "refined_curves": "geomem.geometry",
    "training_risk": "geomem.geometry",
    "find_danger_zone": "geomem.geometry",
    "DangerZone": "geomem.geometry",
    "LogNormalSampler": "geomem.noise",
    "UniformTimestepSampler": "geomem.noise",
    "GapSampler": "geomem.noise",
    "ConfidenceIntervalSampler": "geomem.noise",
    "NoiseLevelSampler": "geomem.noise",
    "read_zone": "geomem.noise",
    "load_denoiser": "geomem.training",
    "memorization_rate": "geomem.memorization",
    "Monitor": "geomem.memorization",
    "InputError": "geomem.errors",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geomem' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
