"""Which training points were copied: copies of each training point, and what goes with them.

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

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from geomem.errors import InputError
from geomem.geometry.neighbours import Array
from geomem.memorization.ratio import RATIO, MemorizationRate, memorization_rate
from geomem.rng import generator

RESAMPLES = 2000
MIN_RESAMPLES = 200
_RESAMPLE_ENTRIES = 2**22  # (resamples x points) ranks held at a time


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


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation over n points, ties at their mean rank.

    rho, p: the correlation and its two-sided p value under independence (Student's t).
    low, high: 95% percentile interval from a bootstrap over the points.
    All but n are None where one side is constant; the interval also where too few resamples are not.
    """

    rho: float | None
    p: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields."""
        return asdict(self)


def copies_per_point(samples: Array, train: Array, *, ratio: float = RATIO, tolerance: float | None = None,
                     device: str | torch.device = "auto") -> CopyCounts:
    """Count the copies of every training point among ``samples`` by the ratio rule ([G] section 3).

    samples: (n, ...). train: (N, ...). ratio, tolerance: as in ``memorization_rate``, which raises InputError
    for input that is not as described there.
    """
    rate = memorization_rate(samples, train, ratio=ratio, tolerance=tolerance, device=device)
    close = np.argsort(rate.nearest_distance, kind="stable")[:rate.count]
    copies, near, every = (np.bincount(rate.nearest[chosen], minlength=len(train))
                           for chosen in (rate.memorized, close, slice(None)))
    return CopyCounts(copies, near, every, float(rate.nearest_distance[close[-1]]) if rate.count else None, rate)


def rank_correlation(x: np.ndarray, y: np.ndarray, *, resamples: int | None = None, seed: int = 0) -> RankCorrelation:
    """Spearman's rank correlation of x and y, (n,) finite numbers each, with a bootstrap interval over the n points.

    resamples: None for 2,000, fewer beyond 2,000 points, but at least 200. A resample where one side is constant has
        no correlation and is left out; when that happens to more than 1 in 20 there is no interval.

    Raises InputError if the lengths differ, n < 3, a value is not finite or there is no resample.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if resamples is None:
        resamples = min(RESAMPLES, max(MIN_RESAMPLES, _RESAMPLE_ENTRIES // max(1, x.size)))
    if resamples < 1:
        raise InputError(f"{resamples} resamples; give 1 or more")
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise InputError(f"x and y have shapes {x.shape} and {y.shape}; give two values for each of 3 points or more")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("x or y holds NaN or infinite values; leave those points out")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return RankCorrelation(None, None, None, None, len(x))
    found = spearmanr(x, y)
    values = _resampled(x, y, resamples, seed)
    values = values[np.isfinite(values)]
    low, high = (np.quantile(values, [0.025, 0.975]).tolist() if len(values) >= 0.95 * resamples else (None, None))
    return RankCorrelation(float(found.statistic), float(found.pvalue), low, high, len(x))


def _resampled(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The correlation in resamples of the points, (resamples,); NaN where one side is constant."""
    rng = generator(seed, "rank correlation bootstrap")
    parts = []
    for start in range(0, resamples, step := max(1, _RESAMPLE_ENTRIES // len(x))):
        picks = rng.integers(0, len(x), size=(min(step, resamples - start), len(x)))
        a, b = (rankdata(values[picks], axis=1) - (len(x) + 1) / 2 for values in (x, y))
        size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        parts.append(np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 0))
    return np.concatenate(parts)
