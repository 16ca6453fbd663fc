"""Which training points were copied: copies of each training point.

For generated samples and training points ``x_1..x_N``:

    copies_i    how many samples are memorized by the ratio rule and have x_i as their nearest training point
    close_i     the same with one distance for all: of the n_m samples that are nearest to any training point,
                n_m the number memorized, how many have x_i as that point
    nearest_i   how many samples have x_i as their nearest training point, memorized or not

Points within the tolerance of the ratio rule count as one (see ``ratio``): a sample near them is a copy of the
group, and is counted at the group's first point.

The ratio rule compares distances to two training points, so it forgives a larger error at a point that is far
from all others. Whatever knows that distance agrees with ``copies`` partly because the rule knows it too. ``close``
calls as many samples copies without looking at a second training point, and tells the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from geomem.memorization.ratio import RATIO, MemorizationRate, memorization_rate
from geomem.points import Array


@dataclass(frozen=True, eq=False)
class CopyCounts:
    """Samples per training point, each (N,) int64 in the order of the training points (module docstring).

    Of a group of duplicates the first point carries the count and the others hold 0. ``close_distance``: the largest
    distance (data units) that counts in ``close``, None where nothing is memorized. ``rate`` is the ratio rule on
    the same samples.
    """

    copies: np.ndarray
    close: np.ndarray
    nearest: np.ndarray
    close_distance: float | None
    rate: MemorizationRate


def copies_per_point(samples: Array, train: Array, *, ratio: float = RATIO, tolerance: float | None = None,
                     device: str | torch.device = "auto") -> CopyCounts:
    """Count the copies of every training point among ``samples`` by the ratio rule (Dodson et al. 2026, section 3).

    samples: (n, ...). train: (N, ...). ratio, tolerance: as in ``memorization_rate``, which raises InputError
    for input that is not as described there.
    """
    rate = memorization_rate(samples, train, ratio=ratio, tolerance=tolerance, device=device)
    close = np.argsort(rate.nearest_distance, kind="stable")[:rate.count]
    copies, near, every = (np.bincount(rate.nearest[chosen], minlength=len(train))
                           for chosen in (rate.memorized, close, slice(None)))
    return CopyCounts(copies, near, every, float(rate.nearest_distance[close[-1]]) if rate.count else None, rate)
