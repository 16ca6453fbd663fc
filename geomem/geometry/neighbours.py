"""Exact Euclidean nearest neighbours.

For queries ``q`` and points ``p_1..p_N`` in ``R^d``, ``nearest`` gives the k smallest ``|q - p_i|`` and which
points they are, ties by the lower index. A fast search proposes a shortlist a little longer than k, ranked by
approximate squared distances whose error has a proven bound; the distances of the shortlist are computed
again as ``|q - p_i|`` in float64. Where the bound does not exclude that a point outside the shortlist belongs
among the k, all N distances of that query are computed directly. So the fast search decides the speed and
never the answer.

The expansion ``|q|^2 + |p|^2 - 2 q.p``, which makes the search fast, loses small distances between points far
from the origin; the data are centred first, and its error never reaches a reported distance.

This is the only module that knows faiss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import torch
from scipy.spatial import cKDTree

from geomem.devices import resolve_device
from geomem.errors import InputError

Array: TypeAlias = np.ndarray | torch.Tensor

_EXTRA = 8  # shortlist beyond k: enough that the bound below rarely fails on images
_BLOCK_VALUES = 2**23  # float64 values held at once while distances are computed: 64 MiB
_FILTER_DIMENSIONS = 8  # of the projection that rules out most pairs of points

# A search takes centred queries (Q, d) and gives approximate squared distances and indices, (Q, s) each,
# the distances of all points left out being at least the last one.
Search: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Precision: TypeAlias = type[np.float32] | type[np.float64]


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


def as_rows(points: Array, name: str = "points") -> np.ndarray:
    """View (N, ...) numpy or torch values as (N, d) on the CPU, without a copy where that is possible.

    Raises InputError if there is no first axis, nothing in it, or a value is NaN or infinite.
    """
    if isinstance(points, torch.Tensor):
        points = points.detach().cpu()
        if points.dtype == torch.bfloat16:  # numpy has no such type
            points = points.float()
    array = np.asarray(points)
    if array.ndim < 1 or array.size == 0:
        raise InputError(f"{name} has shape {array.shape}; give at least one point, as (N, ...)")
    rows = array.reshape(len(array), -1)
    for block in _blocks(*rows.shape):
        if not np.isfinite(rows[block]).all():
            raise InputError(f"{name} holds NaN or infinite values; remove those points")
    return rows


def nearest(queries: Array, points: Array, k: int, *,
            device: str | torch.device = "auto") -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of every query, exactly.

    queries: (Q, ...) and points: (N, ...), numpy or torch, flattened to d values each.
    device: where the fast search runs; faiss on the CPU, torch in float64 on CUDA or where faiss is missing.

    Returns distances (Q, k) float64, Euclidean, ascending, and indices (Q, k) int64; equal distances are
    ordered by index. Raises InputError if k is not in 1..N, the dimensions differ or a value is not finite.
    """
    queries, points = as_rows(queries, "queries"), as_rows(points, "points")
    dimension = points.shape[1]
    if queries.shape[1] != dimension:
        raise InputError(f"queries have {queries.shape[1]} values each and points {dimension}; give the same")
    if not 1 <= k <= len(points):
        raise InputError(f"k = {k} nearest of {len(points)} points: k must be in 1..{len(points)}")

    size = min(len(points), k + _EXTRA)
    if size < len(points):
        candidates, beyond = _shortlist(queries, points, size, resolve_device(device))
    else:
        candidates = np.tile(np.arange(size), (len(queries), 1))
        beyond = np.full(len(queries), np.inf)

    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), dtype=np.int64)
    for block in _blocks(len(queries), size * dimension):
        distances[block], indices[block] = _rank(queries[block], points, candidates[block], k)
    for row in np.flatnonzero(distances[:, -1] ** 2 >= beyond):
        distances[row], indices[row] = _search_all(queries[row], points, k)
    return distances, indices


def distinct_points(points: Array, tolerance: float) -> DistinctPoints:
    """Treat points within ``tolerance`` (Euclidean, <=) of each other as one.

    points: (N, ...), numpy or torch. Groups are connected components, so a chain of close points is one
    group; exact duplicates are always merged, and with tolerance 0 only those. No N x N array is made.
    Raises InputError for a negative tolerance or values that are not finite.
    """
    rows = as_rows(points)
    if not tolerance >= 0:
        raise InputError(f"tolerance is {tolerance}; it is a distance, so it must be 0 or more")
    root = _first_equal(rows)
    if tolerance > 0:
        _join_close(rows, root, tolerance)
    index, group = np.unique(root, return_inverse=True)
    return DistinctPoints(index, group.astype(np.int64), len(rows) - len(index))


def _blocks(count: int, values_each: int) -> Iterator[slice]:
    """Slices over ``count`` items so that a block holds about 64 MiB of float64."""
    step = max(1, _BLOCK_VALUES // values_each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _shortlist(queries: np.ndarray, points: np.ndarray, size: int,
               device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (Q, size), and for each query a squared distance that no other point comes within, (Q,)."""
    centre = points.mean(axis=0, dtype=np.float64)
    radius = _largest_norm(points, centre)
    search, precision = _fast_search(points, centre, size, device)
    candidates = np.empty((len(queries), size), dtype=np.int64)
    beyond = np.empty(len(queries))
    for block in _blocks(*queries.shape):
        centred = queries[block] - centre
        squared, candidates[block] = search(centred)
        last = np.where(np.isfinite(squared[:, -1]), squared[:, -1], -np.inf)  # where it overflowed: unsafe
        norms = np.linalg.norm(centred, axis=1) + radius
        beyond[block] = last - _squared_error(norms, points.shape[1], precision)
    return candidates, beyond


def _largest_norm(rows: np.ndarray, centre: np.ndarray) -> float:
    return max(float(np.linalg.norm(rows[block] - centre, axis=1).max()) for block in _blocks(*rows.shape))


def _squared_error(norms: np.ndarray, dimension: int, precision: Precision) -> np.ndarray:
    """Bound on the error of squared distances computed as ``|q|^2 + |p|^2 - 2 q.p``.

    Each of the three sums of d products has error at most ``gamma_n = n u / (1 - n u)`` times its sum of
    magnitudes, u the unit roundoff (Higham 2002, section 3.1): together ``gamma_n (|q| + |p|)^2``. Rounding
    the centred data and adding the three terms fits in n = d + 8; n is doubled for the rounding of the direct
    distances, which is never larger. The last term is for products that underflow.
    norms: (Q,), at least ``|q| + |p|`` for every point, centred.
    """
    terms = (dimension + 8) * float(np.finfo(precision).eps)  # eps = 2 u
    if terms >= 0.5:  # no useful bound: every query is searched directly
        return np.full_like(norms, np.inf)
    return terms / (1 - terms) * norms**2 + 4 * dimension * float(np.finfo(precision).tiny)


def _fast_search(points: np.ndarray, centre: np.ndarray, size: int,
                 device: torch.device) -> tuple[Search, Precision]:
    """The search for a shortlist of ``size`` points, and the precision it computes in."""
    if device.type == "cpu":
        try:
            import faiss
        except ImportError:
            pass
        else:
            index = faiss.IndexFlatL2(points.shape[1])
            for block in _blocks(*points.shape):
                index.add((points[block] - centre).astype(np.float32))
            return lambda queries: index.search(queries.astype(np.float32), size), np.float32
    return lambda queries: _torch_search(queries, points, centre, size, device), np.float64


def _torch_search(queries: np.ndarray, points: np.ndarray, centre: np.ndarray, size: int,
                  device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Shortlist by float64 matrix products, one block of points after another."""
    query = torch.from_numpy(queries).to(device)
    best = torch.full((len(query), 0), torch.inf, dtype=torch.float64, device=device)
    which = torch.empty((len(query), 0), dtype=torch.int64, device=device)
    for block in _blocks(len(points), max(points.shape[1], len(queries))):
        point = torch.from_numpy(points[block] - centre).to(device)
        squared = query.square().sum(1, keepdim=True) + point.square().sum(1) - 2 * query @ point.T
        number = torch.arange(block.start, block.stop, device=device).expand(len(query), -1)
        best, order = torch.cat([best, squared], 1).topk(min(size, block.stop), largest=False)
        which = torch.cat([which, number], 1).gather(1, order)
    return best.cpu().numpy(), which.cpu().numpy()


def _rank(queries: np.ndarray, points: np.ndarray, candidates: np.ndarray,
          k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest among each query's candidates (Q, s), by direct float64 distances."""
    candidates = np.sort(candidates, axis=1)  # a stable sort by distance then breaks ties by index
    difference = points[candidates] - queries[:, None].astype(np.float64)
    squared = np.einsum("qsd,qsd->qs", difference, difference)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squared, order, 1)), np.take_along_axis(candidates, order, 1)


def _search_all(query: np.ndarray, points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of one query (d,) by direct float64 distances to every point."""
    squared = np.empty(len(points))
    for block in _blocks(*points.shape):
        difference = points[block] - query.astype(np.float64)
        squared[block] = np.einsum("nd,nd->n", difference, difference)
    order = np.argsort(squared, kind="stable")[:k]
    return np.sqrt(squared[order]), order


def _first_equal(rows: np.ndarray) -> np.ndarray:
    """For each row the lowest index of an equal row, (N,) int64."""
    first: dict[bytes, int] = {}
    root = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        row = row.astype(np.float64) + 0.0  # -0.0 equals 0.0 but has other bytes
        root[i] = first.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), i)
    return root


def _join_close(rows: np.ndarray, root: np.ndarray, tolerance: float) -> None:
    """Join, in ``root``, the groups of all pairs of rows within ``tolerance``.

    An orthogonal projection never lengthens a difference, so the pairs within reach in a few dimensions,
    found with a k-d tree, contain all pairs sought; only those are measured in full. The directions are
    spanned by a few of the points themselves, since these lie along what varies most.
    """
    index = np.unique(root)
    dimension = rows.shape[1]
    centre = rows.mean(axis=0, dtype=np.float64)
    picked = index[np.linspace(0, len(index) - 1, _FILTER_DIMENSIONS).astype(np.int64)]
    basis = np.linalg.qr((rows[picked] - centre).T)[0]  # (d, min(d, 8)), orthonormal
    flat = np.concatenate([(rows[index[block]] - centre) @ basis for block in _blocks(len(index), dimension)])
    # A pair that lies just within the tolerance must not be lost to rounding in the projection.
    rounding = 4 * (dimension + 8) * float(np.finfo(np.float64).eps)
    reach = tolerance + rounding * (tolerance + _largest_norm(rows, centre))

    tree = cKDTree(flat)
    for block in _blocks(len(index), 64 * len(index)):
        near = tree.query_ball_point(flat[block], reach)
        one = np.repeat(np.arange(block.start, block.stop), [len(found) for found in near])
        other = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
        one, other = index[one[one < other]], index[other[one < other]]
        apart = root[one] != root[other]
        one, other = one[apart], other[apart]
        for part in _blocks(len(one), dimension):
            difference = rows[one[part]].astype(np.float64) - rows[other[part]]
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
