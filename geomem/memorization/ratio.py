"""The ratio rule for memorized samples.

For a sample x, ``d_1 <= d_2`` are its Euclidean distances (not squared) to the nearest and the second nearest
training point. x is *memorized* when ``d_1 < d_2 / 3``, strictly (Dodson et al. 2026, section 3).

Training points that occur twice would switch the rule off, since then ``d_1 = d_2`` for every copy of them.
So points within a *tolerance* of each other count as one, represented by the one that comes first. The
default tolerance is a thousandth of the median distance from a training point to its tenth nearest other (the
nearest may itself be a duplicate), without near-copies where most points have ten or more (``geomem.duplicates``): it
merges what differs by rounding only and leaves the published rule as it is elsewhere. The tolerance and the number of
points merged are part of every result; a data set with re-encoded copies needs a larger tolerance, chosen by looking
at them.

The rate means little alone: the same rule applied to held-out points, ``memorization_rate(heldout, train)``,
is the floor that honest samples reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geomem import duplicates
from geomem.data.table import encoded
from geomem.errors import InputError, counted
from geomem.geometry.neighbours import nearest
from geomem.memorization.views import AS_THEY_ARE, Views, distinct, nearest_points
from geomem.points import Array, DistinctPoints, Points, as_points, as_rows
from geomem.scales import require_one_scale
from geomem.statistics import share_stderr, wilson_interval

RATIO = 1 / 3
_QUANTILES = np.linspace(0, 1, 21)


@dataclass(frozen=True, eq=False)
class DistinctTraining:
    """Training points (M, d) without duplicates, as ``views`` compares them, and how they were told apart."""

    points: Points
    distinct: DistinctPoints
    tolerance: float
    views: Views = AS_THEY_ARE


@dataclass(frozen=True, eq=False)
class MemorizationRate:
    """Memorized share of n samples.

    rate, low, high, stderr: count / n, its 95% Wilson interval and its standard error (``share_stderr``).
    ratio: the threshold on d_1 / d_2. views: the transformations that were looked through; mirrored: whether mirror
    images were among them.
    ratios: (n,) float64, d_1 / d_2 of each sample.
    nearest: (n,) int64, index of the nearest training point in the array that was given.
    nearest_distance: (n,) float64, d_1 in data units or those of the views; its median beside it.
    memorized: (n,) bool.
    merged, tolerance: how many training points were dropped as duplicates, and the distance that decided.
    """

    rate: float
    low: float
    high: float
    stderr: float
    n: int
    count: int
    ratio: float
    views: Views
    tolerance: float
    merged: int
    median_nearest_distance: float
    ratios: np.ndarray
    nearest: np.ndarray
    nearest_distance: np.ndarray
    memorized: np.ndarray

    @property
    def mirrored(self) -> bool:
        return self.views.mirrored

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the numbers, and the distributions of the ratio and of d_1 as quantiles (every 5%)."""
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float | int)}
        return {**numbers, **self.views.to_dict(), "quantiles": {"probability": _QUANTILES.round(2).tolist(),
                                         "ratio": np.quantile(self.ratios, _QUANTILES).tolist(),
                                         "nearest_distance": np.quantile(self.nearest_distance, _QUANTILES).tolist()}}


def memorization_rate(samples: Array, train: Array, *, ratio: float = RATIO, tolerance: float | None = None,
                      mirrored: bool = False, shifts: int = 0, brightness: bool = False,
                      features: Callable[..., Any] | None = None,
                      device: str | torch.device = "auto") -> MemorizationRate:
    """Share of ``samples`` that are memorized from ``train`` by the ratio rule, Dodson et al. 2026, section 3.

    samples: (n, ...), generated points; for the floor, held-out ones.
    train: (N, ...), the training points, in the same scale and shape; or both DataFrames (``geomem.data.table``).
    ratio: the rule fires when ``d_1 < ratio * d_2``.
    tolerance: training points within this distance (data units) count as one; None for the default of the
        module docstring, 0 for exact duplicates only.
    mirrored, shifts, brightness: also look for mirror images of training pictures (C, H, W), for their parts up to so
        many pixels off, or for points in another brightness and contrast (``geomem.memorization.views``).
    features: a network or another callable from pictures (n, C, H, W) to (n, F), or a ``geomem.features.FeatureSpace``;
        distances are then those of its features. None for the pixels themselves.

    Raises InputError if shapes or usual ranges of values differ (``geomem.scales``), a value is not finite, a parameter
    is out of range, or fewer than two distinct training points remain.
    """
    train, samples = encoded(train, samples=samples)
    if samples.shape[1:] != train.shape[1:]:
        raise InputError(f"samples have shape {tuple(samples.shape[1:])} each and training points "
                         f"{tuple(train.shape[1:])}; bring both to one shape")
    views = Views.of(train, mirrored=mirrored, shifts=shifts, brightness=brightness, features=features)
    training = distinct_training(train, tolerance, views, device=device)
    require_one_scale("samples", samples, train)
    return apply_ratio_rule(as_rows(samples, "samples"), training, ratio, device=device)


def heldout_rate(heldout: Array, train: Array, **how: Any) -> tuple[MemorizationRate, np.ndarray]:
    """The floor: ``memorization_rate`` of held-out points (M, ...) without those that are training points, or views of
    some, and which are left, (M,) bool. Where none is, the rate is that of all. how: as ``memorization_rate`` takes it.
    """
    train, heldout = encoded(train, heldout=heldout)
    if heldout.shape[1:] != train.shape[1:]:
        raise InputError(f"held-out points have shape {tuple(heldout.shape[1:])} each and training points "
                         f"{tuple(train.shape[1:])}; bring both to one shape")
    require_one_scale("held-out points", as_rows(heldout, "heldout"), train)
    found = memorization_rate(heldout, train, **how)
    unseen = found.nearest_distance > found.tolerance
    if unseen.all() or not unseen.any():
        return found, unseen
    return memorization_rate(heldout[unseen], train, **how), unseen


def distinct_training(train: Array, tolerance: float | None, views: Views = AS_THEY_ARE, *,
                      device: str | torch.device = "auto") -> DistinctTraining:
    """Merge duplicates in train, (N, ...), over ``views``; tolerance as in ``memorization_rate``."""
    rows = as_points("train", train)
    compared = views.reference(rows)
    if tolerance is None:
        tolerance = default_tolerance(compared, device=device)
    found = distinct(rows, tolerance, views)
    if len(found.index) < 2:
        raise InputError(f"train has {counted(rows.shape[0], 'point')} but only {len(found.index)} distinct at "
                         f"tolerance {tolerance:g}; the ratio rule needs two: give more points or a smaller tolerance")
    return DistinctTraining(compared.select(found.index) if found.merged else compared, found, float(tolerance), views)


def apply_ratio_rule(samples: np.ndarray, training: DistinctTraining, ratio: float, *,
                     device: str | torch.device = "auto") -> MemorizationRate:
    """The rule on samples (n, d) as they are, with duplicates in the training set merged beforehand."""
    if not 0 < ratio <= 1:
        raise InputError(f"ratio is {ratio}; the nearest distance is compared with this share of the second "
                         "nearest, so it must be in (0, 1]")
    distances, indices = nearest_points(samples, training.points, 2, training.views, device=device)
    memorized = distances[:, 0] < ratio * distances[:, 1]
    count, n = int(memorized.sum()), len(samples)
    low, high = wilson_interval(count, n)
    return MemorizationRate(
        rate=count / n, low=low, high=high, stderr=share_stderr(count, n), n=n, count=count, ratio=float(ratio),
        views=training.views, tolerance=training.tolerance, merged=training.distinct.merged,
        median_nearest_distance=float(np.median(distances[:, 0])),
        ratios=distances[:, 0] / distances[:, 1],  # d_2 > 0, since no two points are equal
        nearest=training.distinct.index[indices[:, 0]],
        nearest_distance=distances[:, 0],
        memorized=memorized)


def default_tolerance(train: Array, *, device: str | torch.device = "auto") -> float:
    """The tolerance of the module docstring, of training points (N, ...), in data units."""
    return duplicates.default_tolerance(
        train, lambda queries, points, k: nearest(queries, points, k, device=device)[0])
