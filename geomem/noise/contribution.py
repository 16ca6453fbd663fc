"""How much a timestep counts under a law of timesteps, weighted by the signal left in it (Vu et al. 2026).

    C(t) = p(t) SNR(t),   SNR(t) = abar_t / (1 - abar_t)

With the simple loss on the noise a timestep's error in the clean point is weighted by SNR(t), so C(t) is its
weight in training; Vu et al. (2026) bend p so that C favours the timesteps that memorize less, the larger ones.

Vu et al. 2026 is arXiv 2601.21348.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.noise.flow_schedule import schedule_of
from geomem.noise.samplers import ConfidenceIntervalSampler, NoiseLevelSampler


def contribution(sampler: NoiseLevelSampler, schedule: Any = None) -> np.ndarray:
    """``C(t) = p(t) SNR(t)`` of each timestep, shape (T,); p are the sampler's ``timestep_probabilities``.

    ``schedule``: a schedule or a diffusers scheduler; None is DDPM's linear schedule.
    """
    schedule = schedule_of(schedule)
    return sampler.timestep_probabilities(schedule) * schedule.snr


def contribution_slope(sampler: ConfidenceIntervalSampler) -> np.ndarray:
    """Derivative of C(t) when the confidence interval moves up by one timestep at fixed width, shape (T,).

    Vu et al. 2026, Eq. 8, ``dC/dmu = SNR(t) p(t) (t - mu) / s^2`` for a normal p: negative below the interval's middle
    and positive above. Here it is integrated over each timestep, together with the tails of Eq. 12, whose mass changes
    as the normal moves. Raises InputError for another sampler.
    """
    if not isinstance(sampler, ConfidenceIntervalSampler):
        raise InputError(f"only a confidence interval has a middle to move, not a {type(sampler).__name__}")
    return sampler.schedule.snr * sampler.probability_slope()
