"""DDIM and ancestral DDPM sampling over timesteps, through the denoiser contract.

Written for ``x = x_VP / sqrt(abar)``, with x0 = D(x, sigma) and ``s = eta (sigma'/sigma) sqrt(sigma^2 - sigma'^2)``, a
step from sigma to sigma' < sigma is

    x' = x0 + sqrt(sigma'^2 - s^2) (x - x0) / sigma + s Z

eta = 0 is DDIM (Song et al. 2021, Eq. 12), which draws no noise; eta = 1 is DDPM with the variance of the true
posterior (Ho et al. 2020, Eq. 6-7; diffusers' ``fixed_small``). The last step goes to sigma' = 0, where x' = x0.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from geomem.devices import widest_float
from geomem.errors import InputError, counted
from geomem.noise.schedules import DDPMSchedule, NoiseSchedule


def timestep_levels(n: int, schedule: NoiseSchedule | None = None) -> np.ndarray:
    """Decreasing noise levels of n evenly spaced timesteps, ``(T // n) k`` for k = n-1..0; shape (n,).

    The spacing is diffusers' default, ``leading``. Raises InputError unless 1 <= n <= T.
    """
    schedule = schedule or DDPMSchedule()
    if not 1 <= n <= schedule.timesteps:
        raise InputError(f"DDIM and DDPM take 1 to {counted(schedule.timesteps, 'step')} with this schedule, not {n}")
    return schedule.sigmas[np.arange(n)[::-1] * (schedule.timesteps // n)]


@torch.no_grad()
def ddim_sample(denoiser: Callable[..., Tensor], latent: Tensor, sigmas: np.ndarray, *, eta: float = 0.0,
                noise: Callable[[int], Tensor] | None = None, labels: Tensor | None = None) -> Tensor:
    """Sample from ``x_VP = latent`` at ``sigmas[0]`` down to noise level 0.

    ``latent`` (B, ...) is standard normal; ``sigmas`` decrease and leave out the final 0. ``noise(k)`` gives the
    standard normal Z of step k = 0.., of the latent's shape; only eta > 0 needs it. The state is float64, on mps
    float32. Returns float32 of latent's shape. Raises InputError unless 0 <= eta <= 1, with noise where eta > 0.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must lie in [0, 1], not {eta}")
    if eta and noise is None:
        raise InputError("eta > 0 draws noise at every step; give noise(k)")
    levels = [*sigmas.tolist(), 0.0]
    x = latent.to(widest_float(latent.device)) * (1 + levels[0] ** 2) ** 0.5
    for k, (current, following) in enumerate(pairwise(levels)):
        clean = denoiser(x.float(), current, labels).to(x.dtype)
        ratio = following / current
        fresh = eta * following * (1 - ratio**2) ** 0.5
        x = clean + (following**2 - fresh**2) ** 0.5 * (x - clean) / current
        if fresh and noise is not None:
            x = x + fresh * noise(k).to(x.dtype)
    return x.float()
