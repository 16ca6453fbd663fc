"""A denoiser that is one model outside a window of noise levels and another, or none, inside: Dodson et al.'s swap
experiments.

A window is ``low <= sigma < high``, with 0 for low and infinity for high where it has no end. Of a sampler's
decreasing noise levels ``s_0 > s_1 > ...`` the window of the steps i..j ends halfway, in log sigma, to the steps beside
it: ``sqrt(s_j s_(j+1)) <= sigma < sqrt(s_(i-1) s_i)``. So no rounding moves a step across.

Dodson et al. 2026, Table 1 cuts 18 EDM steps into three windows, given twice and one step apart:

    large    80 to 12.9       large2    80 to 8.40
    medium   8.40 to 0.140    medium2   5.32 to 0.0599
    small    0.0599 to 0.002  small2    0.0229 to 0.002
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.noise.schedules import edm_steps


@dataclass(frozen=True)
class Window:
    """The noise levels ``low <= sigma < high`` in data units, 0 <= low < high <= infinity."""

    low: float
    high: float
    name: str = "window"

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise InputError(f"the window {self.low:g}:{self.high:g} must satisfy 0 <= low < high (sigma, data units)")

    @classmethod
    def of_steps(cls, sigmas: np.ndarray, first: int, last: int, name: str = "window") -> Window:
        """The window of the steps first..last, counted from 0, of a sampler's decreasing levels (module docstring)."""
        if not 0 <= first <= last < len(sigmas):
            raise InputError(f"steps {first} to {last} of {len(sigmas)}: they are counted from 0 to {len(sigmas) - 1}")
        ends = np.concatenate([[np.inf], np.sqrt(sigmas[:-1] * sigmas[1:]), [0.0]])
        return cls(float(ends[last + 1]), float(ends[first]), name)

    def holds(self, sigmas: np.ndarray) -> np.ndarray:
        """Which of the noise levels lie in the window, bool of their shape."""
        return (sigmas >= self.low) & (sigmas < self.high)


PUBLISHED_WINDOWS = {name: Window.of_steps(edm_steps(18), first, last, name) for name, first, last in (
    ("large", 0, 5), ("medium", 6, 13), ("small", 14, 17),
    ("large2", 0, 6), ("medium2", 7, 14), ("small2", 15, 17))}
"""Dodson et al. 2026, Table 1; see the module docstring."""


def swapped_denoiser(outside: nn.Module, inside: nn.Module, window: Window) -> PiecewiseDenoiser:
    """The denoiser ``inside`` at the noise levels of the window, and ``outside`` at all others."""
    edges = [edge for edge in (window.low, window.high) if 0 < edge < math.inf]
    below, above = [outside] * (window.low > 0), [outside] * (window.high < math.inf)
    return PiecewiseDenoiser([*below, inside, *above], edges)


class SkippingDenoiser(nn.Module):
    """``denoiser`` outside the window; inside, its estimate from the last level above, without a call.

    While the estimate x0 is held the sampler's curve is straight, ``x' = x0 + (sigma'/sigma) (x - x0)``, so the steps
    in the window make one long step of Euler's or DDIM's from the last level above it; Heun's method still corrects at
    the first level below. Where no level is above, 0 is held: sampling then begins below the window, from pure noise.

    It serves samplers alone: sigma is one number, and a level above the one before begins other samples.
    """

    def __init__(self, denoiser: nn.Module, window: Window) -> None:
        super().__init__()
        self.denoiser, self.window = denoiser, window
        self._level, self._estimate = 0.0, torch.empty(0)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate; the denoiser contract of ``geomem.models.denoiser``, for one noise level."""
        level = float(sigma)
        if level > self._level:
            self._estimate = torch.zeros_like(x)
        self._level = level
        if not self.window.low <= level < self.window.high:
            self._estimate = self.denoiser(x, sigma, labels, **conditioning)
        return self._estimate
