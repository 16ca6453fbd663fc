"""Exact and near duplicates among points, treated as one point.

Two points belong together when they are within a tolerance of each other, or when a chain of such pairs joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.spatial import cKDTree

from geomem.errors import InputError
from geomem.geometry.filters import BLOCK_VALUES, blocks, sampled
from geomem.geometry.neighbours import Points
from geomem.geometry.points import PointSource, as_source

_FILTER_DIMENSIONS = 8  # of the projection that rules out most pairs of points


@dataclass(frozen=True)
class DistinctPoints:
    """Points with exact and near duplicates treated as one.

    index: (M,) int64, ascending: the representative of each group, its lowest index.
    group: (N,) int64: the position in ``index`` of each point's group.
    merged: N - M, how many points were dropped.
    """

    index: np.ndarray
    group: np.ndarray
    merged: int


def distinct_points(points: Points, tolerance: float) -> DistinctPoints:
    """Treat points within ``tolerance`` (Euclidean, <=) of each other as one.

    points: (N, ...), numpy, torch or stored elsewhere. Groups are connected components, so a chain of close
    points is one group; exact duplicates are always merged, and with tolerance 0 only those. No N x N array is
    made. Raises InputError for a negative tolerance or values that are not finite.
    """
    rows = as_source("points", points)
    if not tolerance >= 0:
        raise InputError(f"tolerance is {tolerance}; it is a distance, so it must be 0 or more")
    root = _first_equal(rows)
    if tolerance > 0:
        _join_close(rows, root, tolerance)
    index, group = np.unique(root, return_inverse=True)
    return DistinctPoints(index, group.astype(np.int64), len(root) - len(index))


def _first_equal(points: PointSource) -> np.ndarray:
    """For each row the lowest index of an equal row, (N,) int64."""
    first: dict[bytes, int] = {}
    root = np.empty(points.shape[0], dtype=np.int64)
    for block in blocks(*points.shape, BLOCK_VALUES):
        for i, row in enumerate(points.take(block), start=block.start):
            row = row.astype(np.float64) + 0.0  # -0.0 equals 0.0 but has other bytes
            root[i] = first.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), i)
    return root


def _join_close(points: PointSource, root: np.ndarray, tolerance: float) -> None:
    """Join, in ``root``, the groups of all pairs of rows within ``tolerance``.

    An orthogonal projection never lengthens a difference, so the pairs within reach in a few dimensions,
    found with a k-d tree, contain all pairs sought; only those are measured in full. The directions are
    spanned by a few of the points themselves, since these lie along what varies most.
    """
    index = np.unique(root)
    dimension = points.shape[1]
    centre = sampled(points).mean(axis=0)
    picked = index[np.linspace(0, len(index) - 1, _FILTER_DIMENSIONS).astype(np.int64)]
    basis = np.linalg.qr((points.take(picked) - centre).T)[0]  # (d, min(d, 8)), orthonormal
    flat, radius = np.empty((len(index), basis.shape[1])), 0.0
    for block in blocks(len(index), dimension, BLOCK_VALUES):
        centred = points.take(index[block]) - centre
        flat[block], radius = centred @ basis, max(radius, float(np.linalg.norm(centred, axis=1).max()))
    # A pair that lies just within the tolerance must not be lost to rounding in the projection.
    rounding = 4 * (dimension + 8) * float(np.finfo(np.float64).eps)
    reach = tolerance + rounding * (tolerance + radius)

    tree = cKDTree(flat)
    for block in blocks(len(index), 64 * len(index), BLOCK_VALUES):
        near = tree.query_ball_point(flat[block], reach)
        one = np.repeat(np.arange(block.start, block.stop), [len(found) for found in near])
        other = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
        one, other = index[one[one < other]], index[other[one < other]]
        apart = root[one] != root[other]
        one, other = one[apart], other[apart]
        for part in blocks(len(one), dimension, BLOCK_VALUES):
            difference = points.take(one[part]).astype(np.float64) - points.take(other[part])
            close = np.sqrt(np.einsum("nd,nd->n", difference, difference)) <= tolerance
            for i, j in zip(one[part][close], other[part][close], strict=True):
                low, high = sorted((_root_of(root, i), _root_of(root, j)))
                root[high] = low
        root[:] = _flattened(root)


def _root_of(root: np.ndarray, i: int) -> int:
    """The lowest index known to be in the group of i."""
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


def _flattened(root: np.ndarray) -> np.ndarray:
    """Every entry replaced by the end of its chain of roots."""
    while (root[root] != root).any():
        root = root[root]
    return root
