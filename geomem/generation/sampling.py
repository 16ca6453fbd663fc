"""Samples by seed: each starts from, and where a sampler draws noise is fed from, random streams of its own seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.devices import device_of
from geomem.errors import InputError
from geomem.generation.ddim import ddim_sample, timestep_levels
from geomem.generation.ode import edm_sample, flow_sample
from geomem.models import own_schedule, rows_of
from geomem.noise.flow_schedule import FlowSchedule
from geomem.noise.schedules import SIGMA_MAX, SIGMA_MIN, DDPMSchedule, NoiseSchedule, edm_steps
from geomem.rng import generator

MAX_BATCH_VALUES = 1 << 28
METHODS = ("heun", "euler", "ddim", "ddpm", "flow-euler", "flow-heun")
STEPS = {"ddim": 100, "ddpm": 1000, "flow-euler": 50}  # by default; of the others 18


def latents(seeds: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Standard normal starting points, (len(seeds), *shape), float32; each depends on its own seed alone."""
    return _draws(seeds, shape, "latent")


def _draws(seeds: Sequence[int], shape: Sequence[int], purpose: str, *index: int) -> np.ndarray:
    return np.stack([generator(seed, purpose, *index).standard_normal(tuple(shape), dtype=np.float32)
                     for seed in seeds])


def sampler_levels(method: str = "heun", steps: int | None = None, schedule: NoiseSchedule | None = None) -> np.ndarray:
    """Decreasing noise levels of a sampler, shape (steps,), without the final 0; None stands for the usual number.

    ``schedule``: the timesteps that ``ddim`` and ``ddpm`` go through; None is Ho et al.'s. ``heun`` and ``euler`` start
    at sigma 80, or at its last level where that is lower: no network knows what lies beyond. ``flow-euler`` and
    ``flow-heun`` take evenly spaced flow times, from pure noise on and with its shift where the schedule is one of flow
    matching, else between the ends of ``heun``.
    """
    schedule = schedule or DDPMSchedule()
    if method in ("ddim", "ddpm"):
        return timestep_levels(steps or min(STEPS[method], schedule.timesteps), schedule)
    steps = steps or STEPS.get(method, 18)
    if method not in ("flow-euler", "flow-heun"):
        first, last = schedule.sigmas[[0, -1]]
        return edm_steps(steps, min(SIGMA_MIN, first), min(SIGMA_MAX, last))
    if isinstance(schedule, FlowSchedule):
        return schedule.steps(steps)
    first, last = min(SIGMA_MAX, schedule.sigmas[-1]), min(SIGMA_MIN, schedule.sigmas[0])
    s = np.linspace(first / (1 + first), last / (1 + last), steps)
    return s / (1 - s)


def generate(denoiser: torch.nn.Module, seeds: Sequence[int], shape: Sequence[int], *, sigmas: np.ndarray | None = None,
             method: str = "heun", labels: np.ndarray | None = None,
             conditioning: Mapping[str, Any] | None = None, clip: float | None = None, batch: int = 256,
             progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Samples for the given seeds, (len(seeds), *shape), float32, in the scale of the training data.

    ``method``: ``heun`` or ``euler`` (EDM's sampler), ``ddim`` or ``ddpm`` (over timesteps), ``flow-euler`` or
    ``flow-heun`` (over flow times); ``sigmas``: by default
    those of ``sampler_levels`` with the denoiser's own schedule. ``labels`` (len(seeds),) are classes, for a
    class-conditional model; ``conditioning`` what else it takes by name, tensors with an entry for each seed.
    ``clip`` keeps the clean estimates in [-clip, clip] at every step, as DDPM's sampling of images does.
    Sample i depends on ``seeds[i]`` and its label alone; another batch size changes it by rounding only.
    ``progress(done, total)`` is called after each batch. Raises InputError for an unknown method and for a batch that
    is too large to hold.
    """
    if method not in METHODS:
        raise InputError(f"unknown sampler {method!r}; choose one of {', '.join(METHODS)}")
    if min(batch, len(seeds)) * math.prod(shape) > MAX_BATCH_VALUES:
        raise InputError(f"{min(batch, len(seeds)):,} samples at a time of shape {tuple(shape)} are too many for one "
                         f"batch; take at most {max(1, MAX_BATCH_VALUES // math.prod(shape)):,}")
    device = device_of(denoiser)
    sigmas = sampler_levels(method, schedule=own_schedule(denoiser)) if sigmas is None else sigmas

    parts = []
    for start in range(0, len(seeds), batch):
        part = seeds[start:start + batch]
        given = rows_of(conditioning or {}, torch.arange(start, start + len(part)), len(seeds), device)

        def estimate(x: Tensor, sigma: float, labels: Tensor | None, given: Any = given) -> Tensor:
            clean = denoiser(x, sigma, labels, **given)
            return clean if clip is None else clean.clamp(-clip, clip)

        latent = torch.from_numpy(latents(part, shape)).to(device)
        classes = None if labels is None else torch.as_tensor(labels[start:start + batch], device=device)
        if method in ("flow-euler", "flow-heun"):
            sample = flow_sample(estimate, latent, sigmas, heun=method == "flow-heun", labels=classes)
        elif method in ("heun", "euler"):
            sample = edm_sample(estimate, latent, sigmas, method=method, labels=classes)
        else:
            def noise(step: int, part: Sequence[int] = part) -> Tensor:
                return torch.from_numpy(_draws(part, shape, "ancestral noise", step)).to(device)

            sample = ddim_sample(estimate, latent, sigmas, eta=float(method == "ddpm"), noise=noise, labels=classes)
        parts.append(sample.cpu().numpy())
        if progress is not None:
            progress(min(start + batch, len(seeds)), len(seeds))
    return np.concatenate(parts)
