"""Do points lie on the scale of the training points?

Pictures come on three usual ranges of values, [0, 1], [-1, 1] and [0, 255], and copies on another range than that of
the training points are never near them. ``require_one_scale`` refuses points that are seen to lie on another one:

1. the training points lie on a usual range B and reach both ends of it, and nearly all points lie on another one, A;
2. the linear map from A to B brings points nearer to the training points: either a quarter of them, where in addition
   hardly a point lies on B, or not one training point on A, and there are enough of both for that to be no chance; or
   some of them ten times nearer, as only copies are.

Latents, standardized series and whatever else fills no usual range fail 1. Points of B that happen to lie on A, such as
bright pictures or one class, fail 2: mapped, they are farther from the training points. So honest points are not
refused; where only the ranges of values differ there is a warning (``note_other_range``).
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from geomem.duplicates import nearest_distances
from geomem.errors import InputError
from geomem.points import BLOCK_VALUES, Points, as_points

USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_LOOKED_AT = 1000  # points of each kind, evenly spaced, or those of 64 MiB
_CHANCE = 1e-6  # that all of the points lie on A, and none of as many training points as there are
_COPY_DIMENSIONS = 8  # in which a point ten times nearer than before is no chance: 10^-8
_LOG = logging.getLogger("geomem")


def require_one_scale(name: str, points: Any, train: Any, train_name: str = "training points") -> None:
    """Raises InputError where points (n, ...) lie on another usual range of values than the training points (N, ...),
    in the sense of the module docstring; names are those of the message.
    """
    points, train = _few(as_points(name, points)), as_points(train_name, train)
    found = other_range(points, train)
    if found:
        (low, high), (low_train, high_train) = found
        factor = (high_train - low_train) / (high - low)
        times, offset = f"x / {1 / factor:g}" if factor < 1 else f"{factor:g} * x", low_train - factor * low
        plus = f" {'+' if offset > 0 else '-'} {abs(offset):g}" if offset else ""
        raise InputError(f"{name} have values on [{low:g}, {high:g}], {train_name} on [{low_train:g}, {high_train:g}], "
                         "where no copy of one is found in the other; bring both to one range, the former by "
                         f"{times}{plus}")


def values_apart(points: Any, train: Any) -> str:
    """Where the values of points (n, ...) lie, and those of training points (N, ...), in words, if that is apart by
    more than 0.4 of the width of the latter; else "". Of both the range without the outer hundredths is compared, of
    1,000 points at most.
    """
    found, known = (np.quantile(_few(as_points("points", part)).take(slice(None)), (0.01, 0.99))
                    for part in (points, train))
    if np.abs(found - known).max() <= 0.4 * (known[1] - known[0]):
        return ""
    return f"values from {found[0]:.3g} to {found[1]:.3g}, the training points from {known[0]:.3g} to {known[1]:.3g}"


def note_other_range(name: str, points: Any, train: Any) -> None:
    """A warning where ``values_apart``."""
    if apart := values_apart(points, train):
        _LOG.warning(f"warning: {name} have {apart} (98% of them); samples on another scale are never taken for copies")


def other_range(points: Points, train: Points) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The usual ranges of points and of training points where they differ, by the criterion above; else None."""
    if points.dim != train.dim:
        return None
    lows, highs = _ranges(points)
    known = _ranges(_few(train))
    for b in USUAL:
        if not (_on(b, *known, 0.1).all() and _reach(b, *known, 0.1)):
            continue
        for a in USUAL:
            if a == b or _on(a, lows, highs, 0.25).mean() < 0.95 or highs.max() - lows.min() < (a[1] - a[0]) / 2:
                continue
            apart = (min(_on(b, lows, highs, 0.1).mean() - 0.05, _on(a, *known, 0.1).mean()) <= 0
                     and math.comb(len(lows) + len(known[0]), len(lows)) >= 1 / _CHANCE)
            if not apart and points.dim < _COPY_DIMENSIONS:
                continue
            rows = points.take(slice(None)).astype(np.float64)
            mapped = (rows - a[0]) * ((b[1] - b[0]) / (a[1] - a[0])) + b[0]
            before, after = (nearest_distances(queries, train, 1)[:, 0] for queries in (rows, mapped))
            if (apart and (after < before).mean() > 0.25) or (
                    points.dim >= _COPY_DIMENSIONS and (after < before / 10).mean() >= 0.02):
                return a, b
    return None


def _few(points: Points) -> Points:
    at_most = min(_LOOKED_AT, max(1, BLOCK_VALUES // points.dim))
    return points.select(np.unique(np.linspace(0, len(points) - 1, at_most).astype(np.int64)))


def _ranges(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each point, (n,) and (n,)."""
    chunks = [(rows.min(axis=1), rows.max(axis=1)) for _, rows in points.chunks()]
    lows, highs = zip(*chunks, strict=True)
    return np.concatenate(lows), np.concatenate(highs)


def _on(usual: tuple[float, float], lows: np.ndarray, highs: np.ndarray, slack: float) -> np.ndarray:
    """Which points lie on a range widened by a share of its width on both sides, (n,) bool."""
    beyond = slack * (usual[1] - usual[0])
    return np.asarray((lows >= usual[0] - beyond) & (highs <= usual[1] + beyond))


def _reach(usual: tuple[float, float], lows: np.ndarray, highs: np.ndarray, slack: float) -> bool:
    short = slack * (usual[1] - usual[0])
    return bool(lows.min() <= usual[0] + short and highs.max() >= usual[1] - short)
