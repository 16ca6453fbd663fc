"""geomem: where a diffusion model will memorize its training data, and how to train one that does not.

The public names below are loaded on first use, so ``import geomem`` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geomem._renamed import renamed

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors see
    from geomem.data import DataSet as DataSet
    from geomem.data import load_data as load_data
    from geomem.errors import InputError as InputError
    from geomem.geometry import Curves as Curves
    from geomem.geometry import DangerZone as DangerZone
    from geomem.geometry import concentration_thresholds as concentration_thresholds
    from geomem.geometry import coverage_bounds as coverage_bounds
    from geomem.geometry import find_danger_zone as find_danger_zone
    from geomem.geometry import geometry_curves as geometry_curves
    from geomem.geometry import max_posterior_weight as max_posterior_weight
    from geomem.geometry import refined_curves as refined_curves
    from geomem.geometry import shell_coverage as shell_coverage
    from geomem.geometry import training_risk as training_risk
    from geomem.memorization import memorization_rate as memorization_rate
    from geomem.memorization.leaning import Leaning as Leaning
    from geomem.memorization.leaning import leaning as leaning
    from geomem.noise import ConfidenceIntervalSampler as ConfidenceIntervalSampler
    from geomem.noise import GapSampler as GapSampler
    from geomem.noise import LogitNormalSampler as LogitNormalSampler
    from geomem.noise import LogNormalSampler as LogNormalSampler
    from geomem.noise import NoiseLevelSampler as NoiseLevelSampler
    from geomem.noise import UniformFlowSampler as UniformFlowSampler
    from geomem.noise import UniformTimestepSampler as UniformTimestepSampler
    from geomem.noise import read_zone as read_zone
    from geomem.noise.danger_zone import ZoneReport as ZoneReport
    from geomem.noise.danger_zone import danger_zone as danger_zone
    from geomem.run_audit import Audit as Audit
    from geomem.run_audit import audit as audit
    from geomem.run_forecast import forecast as forecast
    from geomem.run_training import distil as distil
    from geomem.run_training import train as train
    from geomem.training import Monitor as Monitor
    from geomem.training import Run as Run
    from geomem.training import load_denoiser as load_denoiser

_NAMES = {  # of each package, loaded on first use
    "geomem.noise.danger_zone": ("danger_zone", "ZoneReport"),
    "geomem.data": ("load_data", "DataSet"),
    "geomem.geometry": ("geometry_curves", "Curves", "max_posterior_weight", "shell_coverage",
                        "concentration_thresholds", "coverage_bounds", "refined_curves", "training_risk",
                        "find_danger_zone", "DangerZone"),
    "geomem.noise": ("LogNormalSampler", "LogitNormalSampler", "UniformFlowSampler",
                     "UniformTimestepSampler", "GapSampler", "ConfidenceIntervalSampler",
                     "NoiseLevelSampler", "read_zone"),
    "geomem.training": ("load_denoiser", "Monitor", "Run"),
    "geomem.memorization": ("memorization_rate",),
    "geomem.memorization.leaning": ("leaning", "Leaning"),
    "geomem.run_audit": ("audit", "Audit"),
    "geomem.run_forecast": ("forecast",),
    "geomem.run_training": ("train", "distil"),
    "geomem.errors": ("InputError",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    value = getattr(import_module(_HOME[name]), name) if name in _HOME else renamed(__name__)(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
