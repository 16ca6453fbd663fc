"""Generation: the probability-flow ODE by Heun or Euler steps, DDIM and ancestral DDPM, with a denoiser."""

from geomem._renamed import renamed
from geomem.generation.ddim import ddim_sample, timestep_levels
from geomem.generation.edm import edm_sample
from geomem.generation.sampling import METHODS, generate, latents

__all__ = ["METHODS", "ddim_sample", "edm_sample", "generate", "latents", "timestep_levels"]
__getattr__ = renamed(__name__)
