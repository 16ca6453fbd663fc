"""Neighbours and duplicates where a picture and its left-right mirror image count as one.

With M the mirroring, |x - M t| = |M x - t|: so the distance of x to the pair {t, M t} is the smaller of the distances
of x and of M x to t, and nothing but the queries is mirrored. The k nearest pairs are among the k nearest points of x
and the k nearest of M x.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geomem.errors import InputError
from geomem.geometry.neighbours import nearest
from geomem.points import Array, DistinctPoints, Points, as_points, distinct_points

Picture = tuple[int, ...]  # (C, H, W)


def picture_shape(points: Array, mirrored: bool) -> Picture | None:
    """The shape of a picture of ``points`` where mirror images count, else None; InputError where they are none."""
    if mirrored and len(points.shape) != 4:
        raise InputError(f"points of shape {tuple(points.shape[1:])} have no mirror image; pictures are (C, H, W)")
    return tuple(points.shape[1:]) if mirrored else None


def nearest_points(queries: np.ndarray, points: Points | np.ndarray, k: int, picture: Picture | None, *,
                   device: str | torch.device = "auto") -> tuple[np.ndarray, np.ndarray]:
    """``geometry.nearest``; with ``picture``, the distance of a query to a point is the smaller one of both ways."""
    if picture is None:
        return nearest(queries, points, k, device=device)
    both = [nearest(rows, points, k, device=device) for rows in (queries, _mirrored(queries, picture))]
    distances, indices = (np.concatenate(parts, axis=1) for parts in zip(*both, strict=True))
    order = np.lexsort((distances, indices), axis=1)  # equal indices side by side, the nearer first
    distances, indices = (np.take_along_axis(part, order, axis=1) for part in (distances, indices))
    distances[:, 1:][indices[:, 1:] == indices[:, :-1]] = np.inf
    order = np.lexsort((indices, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


def distinct(points: Array | Points, tolerance: float, picture: Picture | None) -> DistinctPoints:
    """``points.distinct_points``; with ``picture``, points within ``tolerance`` of each other's mirror images are one
    as well. points: (N, ...), with ``picture`` in memory.
    """
    if picture is None:
        return distinct_points(points, tolerance)
    source = as_points("points", points)
    rows, n = source.take(np.arange(source.shape[0])), source.shape[0]
    group = distinct_points(np.concatenate([rows, _mirrored(rows, picture)]), tolerance).group
    links = coo_array((np.ones(n), (group[:n], group[n:])), shape=(group.max() + 1,) * 2)
    _, first, joined = np.unique(connected_components(links, directed=False)[1][group[:n]], return_index=True,
                                 return_inverse=True)
    order = np.argsort(first)  # groups by their first points
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return DistinctPoints(first[order], place[joined], n - len(first))


def _mirrored(rows: np.ndarray, picture: Picture) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, *picture)[..., ::-1]).reshape(len(rows), -1)
