"""Training points looked at through transformations, so that a copy is one although it was mirrored, moved or lit anew.

The distance of a sample x to a training point t is the smallest one over the *views* V of x,

    d(x, t) = min over V of |R(V x) - R(t)|

    mirrored    V is the identity or the left-right mirror image
    shifts      R leaves out a border of s pixels, and V takes as large a part of x that lies up to s pixels off in each
                direction: so nothing is made up at the edges, and crops that differ by a border are found
    brightness  R takes the mean from the values of a point and divides by their standard deviation (a point without any
                becomes 0)
    features    R then maps a picture to the values that a network gives it (``geomem.features``)

Distances are in the units of what R gives. Only the samples are looked at through views, one after the other, so no
training point is held more than once: the k points nearest over all views are among the k nearest of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geomem.errors import InputError
from geomem.features import PIXELS, FeatureSpace, feature_space
from geomem.geometry.neighbours import nearest
from geomem.points import Array, DistinctPoints, Points, as_points, distinct_points

_FLAT = 1e-6  # standard deviation over the largest value, below which a point is one value and rounding


@dataclass(frozen=True, eq=False)
class Views:
    """How points of one shape are compared (module docstring); by default as they are."""

    shape: tuple[int, ...] = ()
    mirrored: bool = False
    shifts: int = 0
    brightness: bool = False
    features: FeatureSpace | None = None

    @classmethod
    def of(cls, points: Array, *, mirrored: bool = False, shifts: int = 0, brightness: bool = False,
           features: Callable[..., Any] | None = None) -> Views:
        """The views of points (N, ...). Raises InputError where they have no such views."""
        shape = tuple(points.shape[1:])
        if (mirrored or shifts) and len(shape) != 3:
            raise InputError(f"points of shape {shape} have no mirror image and cannot be shifted; pictures are "
                             "(C, H, W)")
        if shifts < 0 or (shifts and 2 * shifts >= min(shape[1:])):
            raise InputError(f"shifts = {shifts}: give 0 or more pixels, less than half of the smaller side of the "
                             f"points of shape {shape}")
        if brightness and features is not None:
            raise InputError("brightness is taken from pixels, and features are not pixels; leave one of them out")
        return cls(shape, mirrored, shifts, brightness, feature_space(features))

    @property
    def as_they_are(self) -> bool:
        return not (self.mirrored or self.shifts or self.brightness or self.features)

    @property
    def space(self) -> str:
        """``pixels``, or the name of the features."""
        return PIXELS if self.features is None else self.features.name

    def to_dict(self) -> dict[str, Any]:
        """For JSON: space, mirrored, shifts, brightness."""
        return {"space": self.space, "mirrored": self.mirrored, "shifts": self.shifts, "brightness": self.brightness}

    def reference(self, points: Points) -> Points:
        """R of points (N, ...), made when they are read; features at once."""
        return self._mapped(points) if self.shifts or self.brightness or self.features else points

    def seen(self, queries: Points) -> Iterator[Points]:
        """R(V x) of queries (n, ...), view after view; the first are the points as they are."""
        yield self.reference(queries)
        by = range(-self.shifts, self.shifts + 1)
        for flip, down, right in product((False, True)[:1 + self.mirrored], by, by):
            if flip or down or right:
                yield self._mapped(queries, flip=flip, step=(down, right))

    def _mapped(self, points: Points, **view: Any) -> Points:
        pixels = Points([points], partial(self._compared, **view))
        return pixels if self.features is None else Points([self.features(pixels)])

    def _compared(self, rows: Any, flip: bool = False, step: tuple[int, int] = (0, 0)) -> np.ndarray:
        """R of points, or of their mirror images, and of what lies so many pixels down and right; float32."""
        rows = np.asarray(rows)
        pictures = rows.reshape(-1, *self.shape)[..., ::-1] if flip else rows.reshape(-1, *self.shape)
        if not (self.shifts or self.brightness or self.features):
            return pictures.reshape(rows.shape).astype(np.float32)
        if self.shifts:
            down, right = (slice(self.shifts + by, side - self.shifts + by) for by, side in zip(
                step, self.shape[1:], strict=True))
            pictures = pictures[..., down, right]
        if self.features:
            return np.ascontiguousarray(pictures, dtype=np.float32)
        values = pictures.reshape(len(pictures), -1)
        return (_of_unit_scale(values) if self.brightness else values).astype(np.float32)


def _of_unit_scale(values: np.ndarray) -> np.ndarray:
    """Rows (n, d) of mean 0 and standard deviation 1; of one that is flat but for rounding, zeros."""
    centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    scale = centred.std(axis=1, keepdims=True)
    flat = scale <= _FLAT * np.abs(values).max(axis=1, keepdims=True)
    return np.where(flat, 0, centred / np.where(flat, 1, scale))


AS_THEY_ARE = Views()


def pixels(count: int) -> str:
    """1 pixel, 2 pixels"""
    return f"{count} pixel{'s' if count > 1 else ''}"


def in_words(looked: Mapping[str, Any]) -> str:
    """What was looked for, as ``Views.to_dict`` has it, to follow "copies of"."""
    return "".join(("training points", " or their mirror images" if looked["mirrored"] else "",
                    f", moved by up to {pixels(looked['shifts'])}" if looked["shifts"] else "",
                    ", in any brightness and contrast" if looked["brightness"] else "",
                    "" if looked["space"] == PIXELS else f", by the features {looked['space']}"))


def nearest_points(queries: np.ndarray, points: Points | np.ndarray, k: int, views: Views, *,
                   device: str | torch.device = "auto") -> tuple[np.ndarray, np.ndarray]:
    """``geometry.nearest`` of queries (n, d) over their views; points: as compared, (N, d') (``Views.reference``)."""
    if views.as_they_are:
        return nearest(queries, points, k, device=device)
    found: tuple[np.ndarray, np.ndarray] | None = None
    for seen in views.seen(as_points("queries", queries)):
        now = nearest(seen, points, k, device=device)
        found = now if found is None else _nearer(found, now, k)
    assert found is not None
    return found


def _nearer(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray],
            k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of both, each point at the smaller of its distances; equal distances are ordered by index."""
    distances, indices = (np.concatenate(parts, axis=1) for parts in zip(a, b, strict=True))
    order = np.lexsort((distances, indices), axis=1)  # equal indices side by side, the nearer first
    distances, indices = (np.take_along_axis(part, order, axis=1) for part in (distances, indices))
    distances[:, 1:][indices[:, 1:] == indices[:, :-1]] = np.inf
    order = np.lexsort((indices, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


def distinct(points: Array | Points, tolerance: float, views: Views) -> DistinctPoints:
    """``points.distinct_points`` over views: points are one with those that a view of them comes within ``tolerance``
    of. points: (N, ...).
    """
    source = as_points("points", points)
    reference = views.reference(source)
    found, n = distinct_points(reference, tolerance), len(source)
    if views.as_they_are:
        return found
    links = [np.stack([np.arange(n), found.index[found.group]])]
    for view, seen in enumerate(views.seen(source)):
        if view:  # the first are the points as they are
            both = distinct_points(Points([reference, seen]), tolerance)
            first = both.index[both.group[n:]]  # the lowest of those that belong together, a point if any of them is
            links.append(np.stack([np.flatnonzero(first < n), first[first < n]]))
    low, high = np.concatenate(links, axis=1)
    _, first, joined = np.unique(connected_components(coo_array((np.ones(len(low)), (low, high)), shape=(n, n)),
                                                      directed=False)[1], return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups by their first points
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return DistinctPoints(first[order], place[joined], n - len(first))
