"""Noise schedules, conversions between parametrizations, and the samplers that choose training noise levels."""

from geomem._renamed import renamed
from geomem.noise.contribution import contribution, contribution_slope
from geomem.noise.gaps import read_zone
from geomem.noise.resolve import ResolvedLaw, resolve_law
from geomem.noise.samplers import (
    ConfidenceIntervalSampler,
    GapSampler,
    LogNormalSampler,
    NoiseLevelSampler,
    UniformTimestepSampler,
)
from geomem.noise.schedules import (
    SIGMA_MAX,
    SIGMA_MIN,
    DDPMSchedule,
    edm_steps,
    flow_time_to_sigma,
    sigma_to_flow_time,
)

__all__ = [
    "SIGMA_MAX",
    "SIGMA_MIN",
    "ConfidenceIntervalSampler",
    "DDPMSchedule",
    "GapSampler",
    "LogNormalSampler",
    "NoiseLevelSampler",
    "ResolvedLaw",
    "UniformTimestepSampler",
    "contribution",
    "contribution_slope",
    "edm_steps",
    "flow_time_to_sigma",
    "read_zone",
    "resolve_law",
    "sigma_to_flow_time",
]
__getattr__ = renamed(__name__)
