"""Swap experiments: is a window of noise levels necessary, or sufficient, for memorization ([G] Table 1, Figure 10)?

Samples of the same seeds are drawn with a model A and again with another denoiser in its place inside a window. If the
copies go, A's own estimates in the window were necessary for them; if another model copies once A's are put into its
window, they were sufficient. A window of the same number of steps elsewhere (a *control*) tells what the noise levels
do from what any replacement would do.

The samples of two rows share their seeds, so the memorized shares p and q are compared in pairs. With b samples that
are memorized in the first row only and c in the second only, the difference is ``q - p = (c - b) / n``. Its 95%
interval is Newcombe's (1998, Statistics in Medicine 17:2635, method 10): Wilson's intervals [l, u] of p and [l', u']
of q, put together with the correlation of the pairs,

    low  = q - p - sqrt( (q - l')^2 - 2 phi (q - l') (u - p) + (u - p)^2 )
    high = q - p + sqrt( (u' - q)^2 - 2 phi (u' - q) (p - l) + (p - l)^2 )

phi is that of the 2 x 2 table with a continuity correction where it is positive (0 at least), and 0 where a margin is
empty. Unlike a bootstrap it has a width where no two samples of a pair differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from geomem.errors import InputError
from geomem.generation import generate
from geomem.geometry.estimates import newcombe
from geomem.memorization.ratio import wilson_interval
from geomem.models import SkippingDenoiser, Window, swapped_denoiser


@dataclass(frozen=True)
class PairedShareDifference:
    """Difference of two memorized shares over the same n seeds, second minus first, with its 95% interval.

    lost: samples memorized in the first row only. gained: in the second only.
    """

    difference: float
    low: float
    high: float
    lost: int
    gained: int
    n: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields."""
        return asdict(self)


def swapped_samples(outside: nn.Module, inside: nn.Module | None, window: Window, seeds: Sequence[int],
                    shape: Sequence[int], *, sigmas: np.ndarray, **options: Any) -> np.ndarray:
    """Samples (len(seeds), *shape) of ``outside`` with ``inside`` in its place in the window.

    With None for ``inside`` the sampler steps over the window (``SkippingDenoiser``). ``sigmas`` decrease and leave out
    the final 0; other options as in ``geomem.generation.generate``. Raises InputError where no level of the sampler
    lies in the window, or with None where all do.
    """
    replaced = window.holds(sigmas)
    if not replaced.any():
        raise InputError(f"the window {window.name} ({window.low:.4g}:{window.high:.4g}) holds none of the sampler's "
                         f"{len(sigmas)} noise levels; give a wider one or more steps")
    if inside is None and replaced.all():
        raise InputError(f"the window {window.name} holds every noise level of the sampler and cannot be stepped over; "
                         "give a narrower one")
    denoiser = SkippingDenoiser(outside, window) if inside is None else swapped_denoiser(outside, inside, window)
    return generate(denoiser, seeds, shape, sigmas=sigmas, **options)


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


def paired_share_difference(first: np.ndarray, second: np.ndarray) -> PairedShareDifference:
    """How far the memorized share moved from one row to another; (n,) bool each, of the same seeds in order.

    Raises InputError where the lengths differ or there is no seed.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise InputError(f"memorized or not, of shapes {first.shape} and {second.shape}: give one value per seed, in "
                         "the same order")
    n = len(first)
    both, lost = int((first & second).sum()), int((first & ~second).sum())
    gained = int((~first & second).sum())
    neither = n - both - lost - gained
    p, q = (both + lost) / n, (both + gained) / n
    low, high = newcombe(q, wilson_interval(both + gained, n), p, wilson_interval(both + lost, n),
                         _correlation(both, lost, gained, neither))
    return PairedShareDifference((gained - lost) / n, low, high, lost, gained, n)


def _correlation(both: int, lost: int, gained: int, neither: int) -> float:
    """phi of the table, with Newcombe's continuity correction."""
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    product = float(both * neither - lost * gained)
    if product > 0:
        product = max(product - (both + lost + gained + neither) / 2, 0.0)
    return product / margins**0.5
