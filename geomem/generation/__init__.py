"""Generation: deterministic samplers that integrate the probability-flow ODE with a denoiser."""

from geomem.generation.edm import edm_sample, generate, latents

__all__ = ["edm_sample", "generate", "latents"]
