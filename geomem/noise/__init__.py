"""Noise schedules, conversions between parametrizations, and the samplers that choose training noise levels."""

from geomem._renamed import renamed
from geomem.noise.contribution import contribution, contribution_slope
from geomem.noise.flow_samplers import (
    FLOW_SAMPLERS,
    CosMapSampler,
    FlowSampler,
    LogitNormalSampler,
    ModeSampler,
    UniformFlowSampler,
    UShapedFlowSampler,
)
from geomem.noise.flow_schedule import FlowSchedule, schedule_of
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
    EDMSchedule,
    NoiseSchedule,
    edm_steps,
    flow_time_to_sigma,
    sigma_to_flow_time,
)

__all__ = [
    "FLOW_SAMPLERS",
    "SIGMA_MAX",
    "SIGMA_MIN",
    "ConfidenceIntervalSampler",
    "CosMapSampler",
    "DDPMSchedule",
    "EDMSchedule",
    "FlowSampler",
    "FlowSchedule",
    "GapSampler",
    "LogNormalSampler",
    "LogitNormalSampler",
    "ModeSampler",
    "NoiseLevelSampler",
    "NoiseSchedule",
    "ResolvedLaw",
    "UShapedFlowSampler",
    "UniformFlowSampler",
    "UniformTimestepSampler",
    "contribution",
    "contribution_slope",
    "edm_steps",
    "flow_time_to_sigma",
    "read_zone",
    "resolve_law",
    "schedule_of",
    "sigma_to_flow_time",
]
__getattr__ = renamed(__name__)
