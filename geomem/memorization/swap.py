"""Swap experiments: is a window of noise levels necessary, or sufficient, for memorization (Dodson et al. 2026, Table
1, Figure 10)?

Samples of the same seeds are drawn with a model A and again with another denoiser in its place inside a window. If the
copies go, A's own estimates in the window were necessary for them; if another model copies once A's are put into its
window, they were sufficient. A window of the same number of steps elsewhere (a *control*) tells what the noise levels
do from what any replacement would do.

The samples of two rows share their seeds, so the memorized shares are compared in pairs
(``geomem.statistics.paired_share_difference``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from geomem.errors import InputError
from geomem.generation import generate
from geomem.models import SkippingDenoiser, Window, swapped_denoiser


def swapped_samples(outside: nn.Module, inside: nn.Module | None, window: Window, seeds: Sequence[int],
                    shape: Sequence[int], *, sigmas: np.ndarray, **options: Any) -> np.ndarray:
    """Samples (len(seeds), *shape) of ``outside`` with ``inside`` in its place in the window.

    With None for ``inside`` the sampler steps over the window (``SkippingDenoiser``). ``sigmas`` decrease and leave out
    the final 0; other options as in ``geomem.generation.generate``. Raises InputError where no level of the sampler
    lies in the window, or with None where all do.
    """
    steps_to_swap(window, sigmas, skipped=inside is None)
    denoiser = SkippingDenoiser(outside, window) if inside is None else swapped_denoiser(outside, inside, window)
    return generate(denoiser, seeds, shape, sigmas=sigmas, **options)


def steps_to_swap(window: Window, sigmas: np.ndarray, *, skipped: bool) -> tuple[int, int]:
    """The first and the last step of the sampler in the window. Raises InputError for a window without any, and for one
    of all steps that are to be skipped.
    """
    steps = np.flatnonzero(window.holds(sigmas))
    if not len(steps):
        raise InputError(f"the window {window.name} ({window.low:.4g}:{window.high:.4g}) holds none of the sampler's "
                         f"{len(sigmas)} noise levels; give a wider one (--window) or more steps")
    if skipped and len(steps) == len(sigmas):
        raise InputError(f"the window {window.name} holds every noise level of the sampler and cannot be stepped over; "
                         "give a narrower one (--window)")
    return int(steps[0]), int(steps[-1])


def control_windows(window: Window, sigmas: np.ndarray, each_side: int = 1) -> list[Window]:
    """Windows of as many steps as ``window`` holds of the decreasing levels, next to it and to one another.

    sigmas: (n,), in data units. At most ``each_side`` above and as many below it, those that fit whole between the ends
    of the schedule; from large to small noise levels. None where the window holds no step.
    """
    steps = np.flatnonzero(window.holds(sigmas))
    if not len(steps):
        return []
    width = len(steps)
    firsts = steps[0] + width * np.arange(-each_side, each_side + 1)
    return [Window.of_steps(sigmas, int(first), int(first) + width - 1, f"{window.name}, control") for first in firsts
            if first != steps[0] and first >= 0 and first + width <= len(sigmas)]
