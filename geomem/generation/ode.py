"""The probability-flow ODE from pure noise to a sample, by Heun's second-order steps or Euler's first-order ones.

    over sigma        dx/dsigma = (x - D(x, sigma)) / sigma                   Karras et al. 2022, Algorithm 1
    over flow times   dx_s/ds = (x_s - D(x_s/(1-s), s/(1-s))) / s             for x_s = (1 - s) x + s Z

are the same in another time. Euler's steps are the same too, and those of DDIM, at the same noise levels; Heun's are
not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from geomem.devices import widest_float
from geomem.errors import InputError
from geomem.noise.schedules import edm_steps


def edm_sample(denoiser: Callable[..., Tensor], latent: Tensor, sigmas: np.ndarray | None = None, *,
               method: str = "heun", labels: Tensor | None = None) -> Tensor:
    """EDM's deterministic sampler: integrate over sigma from ``sigmas[0] * latent`` to noise level 0.

    ``latent`` (B, ...) is standard normal; ``sigmas`` decrease and leave out the final 0 (default: 18 EDM steps).
    The state is float64 (mps: float32). Returns float32 of the latent's shape. Raises InputError for an unknown method.
    """
    if method not in ("heun", "euler"):
        raise InputError(f"unknown sampler {method!r}; choose heun or euler")
    return _integrate(denoiser, latent, edm_steps() if sigmas is None else sigmas, lambda sigma: 1.0, method == "heun",
                      labels)


def flow_sample(denoiser: Callable[..., Tensor], latent: Tensor, sigmas: np.ndarray, *, heun: bool = False,
                labels: Tensor | None = None) -> Tensor:
    """Integrate over flow times from ``x_s = s latent`` at ``sigmas[0]`` to noise level 0, by Euler's steps or Heun's;
    ``sigmas = s / (1 - s)``. The rest is as for ``edm_sample``.
    """
    return _integrate(denoiser, latent, sigmas, lambda sigma: 1 + sigma, heun, labels)


@torch.no_grad()
def _integrate(denoiser: Callable[..., Tensor], latent: Tensor, sigmas: np.ndarray, scale: Callable[[float], float],
               heun: bool, labels: Tensor | None) -> Tensor:
    """Over the time ``sigma / scale``, for the state ``x / scale``."""
    def time(sigma: float) -> float:
        return sigma / scale(sigma)

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - denoiser((x * scale(sigma)).float(), sigma, labels).to(x.dtype)) / time(sigma)

    levels = [*sigmas.tolist(), 0.0]
    x = latent.to(widest_float(latent.device)) * time(levels[0])
    for current, following in pairwise(levels):
        step = time(following) - time(current)
        d = slope(x, current)
        euler = x + step * d
        x = x + step * (d + slope(euler, following)) / 2 if heun and following > 0 else euler
    return x.float()
