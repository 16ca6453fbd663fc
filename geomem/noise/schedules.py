"""Noise schedules and the conversions between them.

sigma     standard deviation of the noise in data units; ``x_sigma = x + sigma Z`` (variance exploding, VE).
timestep  DDPM integer t in 0..T-1, as in diffusers; ``x_VP = sqrt(abar_t) x + sqrt(1 - abar_t) Z``, so that
          ``sigma_t = sqrt((1 - abar_t) / abar_t)`` and ``x_VE = x_VP / sqrt(abar_t)``.
flow time t in (0, 1]; ``x_t = t x + (1 - t) Z``, so that ``sigma = (1 - t) / t`` and ``x_VE = x_t / t``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geomem.errors import InputError

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""Ends of the EDM schedule (Karras et al. 2022, Table 1), in data units scaled to [-1, 1]."""


def edm_steps(n: int = 18, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = 7.0) -> np.ndarray:
    """Decreasing noise levels of the EDM sampler, without the final 0; shape (n,).

    Karras et al. 2022, Eq. 5: ``s_i = (smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho``.
    """
    if n < 2:
        raise InputError(f"the sampler needs at least 2 steps, not {n}")
    ramp = np.arange(n) / (n - 1)
    steps = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    steps[0], steps[-1] = sigma_max, sigma_min  # the powers round
    return steps


def flow_time_to_sigma(t: np.ndarray | float) -> np.ndarray:
    """sigma of flow-matching time t in (0, 1]: ``(1 - t) / t``."""
    t = np.asarray(t, dtype=np.float64)
    return (1 - t) / t


def sigma_to_flow_time(sigma: np.ndarray | float) -> np.ndarray:
    """Flow-matching time of sigma >= 0: ``1 / (1 + sigma)``."""
    return 1 / (1 + np.asarray(sigma, dtype=np.float64))


@dataclass(frozen=True)
class DDPMSchedule:
    """DDPM noise schedule with beta linear from ``beta_start`` to ``beta_end`` (Ho et al. 2020)."""

    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """Cumulative signal fraction abar_t, shape (T,), decreasing."""
        return np.cumprod(1 - np.linspace(self.beta_start, self.beta_end, self.timesteps))

    @cached_property
    def sigmas(self) -> np.ndarray:
        """VE noise level of each timestep, shape (T,), increasing."""
        return np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    def timestep(self, sigma: np.ndarray | float) -> np.ndarray:
        """Real-valued timestep of sigma, linear in log sigma between timesteps, clipped to [0, T-1]."""
        return np.interp(np.log(sigma), np.log(self.sigmas), np.arange(self.timesteps))

    def timesteps_within(self, low: float, high: float) -> tuple[int, int] | None:
        """First and last timestep with ``low <= sigma_t <= high``, or None where there is none."""
        inside = np.flatnonzero((self.sigmas >= low) & (self.sigmas <= high))
        return (int(inside[0]), int(inside[-1])) if inside.size else None
