"""Euler and Heun steps over flow times, for ``x_s = (1 - s) x + s Z``.

    dx_s/ds = (x_s - D(x_s/(1-s), s/(1-s))) / s

is the probability-flow ODE of EDM in another time. Euler's steps are those over sigma, and of DDIM, at the same noise
levels; Heun's are not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def flow_sample(denoiser: Callable[..., Tensor], latent: Tensor, sigmas: np.ndarray, *, heun: bool = False,
                labels: Tensor | None = None) -> Tensor:
    """Integrate from ``x_s = s latent`` at ``sigmas[0]`` to noise level 0, by Euler's steps or Heun's.

    ``latent`` (B, ...) is standard normal; ``sigmas = s / (1 - s)`` decrease and leave out the final 0. The state is
    kept in float64. Returns float32 of the shape of the latent.
    """
    levels = [*sigmas.tolist(), 0.0]

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return (x - denoiser((x * (1 + sigma)).float(), sigma, labels).double()) * (1 + sigma) / sigma

    x = latent.double() * levels[0] / (1 + levels[0])
    for current, following in pairwise(levels):
        step = following / (1 + following) - current / (1 + current)
        v = velocity(x, current)
        euler = x + step * v
        x = x + step * (v + velocity(euler, following)) / 2 if heun and following > 0 else euler
    return x.float()
