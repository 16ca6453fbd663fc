"""EDM's deterministic sampler: the probability-flow ODE ``dx/dsigma = (x - D(x, sigma)) / sigma``.

Karras et al. 2022, Algorithm 1, from sigma_max down to 0, by Heun's second-order steps or Euler's first-order ones.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.noise.schedules import edm_steps


@torch.no_grad()
def edm_sample(denoiser: Callable[..., Tensor], latent: Tensor, sigmas: np.ndarray | None = None, *,
               method: str = "heun", labels: Tensor | None = None) -> Tensor:
    """Integrate from ``sigmas[0] * latent`` to noise level 0.

    ``latent`` (B, ...) is standard normal; ``sigmas`` decrease and leave out the final 0 (default: 18 EDM steps).
    The state is kept in float64. Returns float32 of the shape of the latent. Raises InputError for an unknown method.
    """
    if method not in ("heun", "euler"):
        raise InputError(f"unknown sampler {method!r}; choose heun or euler")
    levels = [*(edm_steps() if sigmas is None else sigmas).tolist(), 0.0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - denoiser(x.float(), sigma, labels).double()) / sigma

    x = latent.double() * levels[0]
    for current, following in pairwise(levels):
        d = slope(x, current)
        euler = x + (following - current) * d
        if method == "heun" and following > 0:
            x = x + (following - current) * (d + slope(euler, following)) / 2
        else:
            x = euler
    return x.float()
