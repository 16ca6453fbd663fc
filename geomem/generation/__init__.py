"""Generation: the probability-flow ODE by Heun or Euler steps, over sigma or flow times, DDIM and ancestral DDPM; files
of samples.
"""

from geomem._renamed import renamed
from geomem.generation.ddim import ddim_sample, timestep_levels
from geomem.generation.ode import edm_sample, flow_sample
from geomem.generation.samples import (
    Samples,
    data_of,
    fingerprint,
    holds_samples,
    note_other_data,
    read_samples,
    require_comparable,
)
from geomem.generation.sampling import METHODS, generate, latents, sampler_levels

__all__ = [
    "METHODS",
    "Samples",
    "data_of",
    "ddim_sample",
    "edm_sample",
    "fingerprint",
    "flow_sample",
    "generate",
    "holds_samples",
    "latents",
    "note_other_data",
    "read_samples",
    "require_comparable",
    "sampler_levels",
    "timestep_levels",
]
__getattr__ = renamed(__name__)
