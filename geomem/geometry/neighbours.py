"""Exact Euclidean nearest neighbours.

For queries ``q`` and points ``x_1..x_N`` in ``R^d``, ``nearest`` gives the k smallest ``|q - x_i|`` and which
points they are, ties by the lower index. Most points are excluded by a *filter*: a map ``F`` that lengthens no
difference, ``|F(q) - F(x)| <= |q - x|``. The filter finds the points of smallest ``|F(q) - F(x)|^2`` by matrix
products, up to a rounding error that is bounded. A few of them are measured as ``|q - x|`` in float64, which
bounds the k-th distance from above, and then all whose lower bound is not beyond it. Where more points than the
shortlist holds may be that near, the next filter is asked, and at last all N distances of that query are
computed directly. So the filters decide the speed and never the answer. In the order in which they are asked:

* projected: ``F(x) = (B y, rho)`` with ``y = x - c``, K orthonormal rows ``B`` and ``rho = |y - B^T B y|``, what
  they leave: ``|q - x|^2 >= |B(q - x)|^2 + (rho_q - rho_x)^2``, by the triangle inequality in the complement
  of ``B``. Images keep nearly all their variance in far fewer than d directions, so these products are far smaller.
* whole: ``F(x) = x - c``, where the bound is the distance.

The products are those of faiss's flat index in float32, on the CPU or a GPU, or torch's in float64 where faiss
is missing. Both expand ``|q|^2 + |x|^2 - 2 q.x``, which loses small distances between points far from the origin:
hence the centre c.

Points and queries are read in blocks, so both may lie on disk.

``approximate_nearest`` asks one of faiss's approximate indexes instead, measures what that proposes as exactly,
and reports how often it missed. What it returns is never nearer than the truth.

This is the only module that knows faiss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.stats import beta
from torch import Tensor

from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.geometry.points import PointSource, Stored, SubsetSource, as_source
from geomem.rng import generator

Array: TypeAlias = np.ndarray | torch.Tensor | Stored
Points: TypeAlias = Array | PointSource

_BLOCK_VALUES = 2**23  # float64 values held at once while distances are computed: 64 MiB
_CACHED_VALUES = 2**18  # values that fit in a processor's cache, for work that goes over them many times
_BLOCK_POINTS = 8192  # at most so many points are compared with so many queries at once
_BLOCK_QUERIES = 1024  # with fewer, the products of some BLAS are half as fast
_HELD_VALUES = 2**27  # coordinates of queries held during one pass over the points: 512 MiB of float32
_SAMPLED_POINTS = 2048  # for the centre and the principal directions
_DIRECTIONS = 255  # of the projected filter, at most: beyond, products cost more than they exclude
_VALUES_PER_DIRECTION = 8  # of a point, and points of the sample, at least
_KEPT_VARIANCE = 0.9  # share of the variance below which the directions leave too much to exclude points
_POINTS_PER_CELL = 39  # below which faiss finds k-means cells unreliable
_FILTER_DIMENSIONS = 8  # of the projection that rules out most pairs of points

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


@dataclass(frozen=True)
class Recall:
    """How often an approximate search found a neighbour as near as the true one, rank by rank.

    share, low, high: (k,), of the queries checked against the exact search, with the 95% Clopper-Pearson
    interval for all queries. checked: how many they were, drawn at random.
    """

    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    checked: int


@dataclass(frozen=True)
class ApproximateNeighbours:
    """Points near each query: distances (Q, k) float64, Euclidean, ascending, and indices (Q, k) int64."""

    distances: np.ndarray
    indices: np.ndarray
    recall: Recall


class Products(Protocol):
    """Squared distances between queries and the points of one block, by the expansion in floating point."""

    precision: Precision

    def hold(self, points: np.ndarray) -> None:
        """Make these points (b, D), of ``precision``, the current block."""

    def smallest(self, queries: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        """Rough squared distances and places in the block of the ``size`` points nearest to each query (Q, D), of
        ``precision``; (Q, size) each. A place is negative where nothing was found."""


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


def nearest(queries: Points, points: Points, k: int, *,
            device: str | torch.device = "auto") -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of every query, exactly.

    queries: (Q, ...) and points: (N, ...), numpy, torch or stored elsewhere, flattened to d values each.
    device: where the filters run; on CUDA with faiss where it was built for GPUs, else with torch in float64.

    Returns distances (Q, k) float64, Euclidean, ascending, and indices (Q, k) int64; equal distances are
    ordered by index. Raises InputError if k is not in 1..N, the dimensions differ or a value is not finite.
    """
    asked, among = _checked(queries, points, k)
    distances = np.empty((asked.shape[0], k))
    indices = np.empty((asked.shape[0], k), dtype=np.int64)
    left = np.arange(asked.shape[0])
    for filter in _filters(asked, among, k, resolve_device(device)):
        unproven = [left[:0]]
        for held in _blocks(len(left), filter.dimension, _HELD_VALUES):
            chosen = left[held]
            some = asked if len(chosen) == asked.shape[0] else SubsetSource(asked, chosen)
            distances[chosen], indices[chosen], proven = _filtered(filter, some, among, k)
            unproven.append(chosen[~proven])
        left = np.concatenate(unproven)
    for query in left:
        distances[query], indices[query] = _search_all(asked.take(slice(query, query + 1))[0], among, k)
    return distances, indices


def approximate_nearest(queries: Points, points: Points, k: int, *, index: str = "ivf", effort: int = 32,
                        checked: int = 1000, seed: int = 0) -> ApproximateNeighbours:
    """k near points of every query, perhaps not the nearest, on the CPU.

    queries, points, k: as for ``nearest``. The index holds all points in memory, in float32.
    index: ``ivf`` compares a query with the points in the ``effort`` nearest of about ``4 sqrt(N)`` cells of a
        k-means partition; ``hnsw`` walks a graph of neighbours, keeping ``effort`` candidates.
    checked: how many of the queries are also searched exactly, for the recall.
    seed: of the partition and of the choice of those queries; faiss draws the graph from a seed of its own. The
        same seed gives the same result.

    The distances are those of the points returned, computed directly, so at each rank the distance is at least
    the true one. Raises InputError as ``nearest``, for an unknown index, and without faiss.
    """
    asked, among = _checked(queries, points, k)
    if min(effort, checked) < 1:
        raise InputError(f"effort = {effort}, checked = {checked}: both are counts of 1 or more")
    search = _approximate_index(among, index, effort, seed)
    distances = np.empty((asked.shape[0], k))
    indices = np.empty((asked.shape[0], k), dtype=np.int64)
    for block in _blocks(*asked.shape):
        rows = asked.take(block)
        found = search(rows, min(k + _Whole.extra, among.shape[0]))
        squared = np.full(found.shape, np.inf)
        _measure(squared, rows, among, np.maximum(found, 0), found >= 0)
        squared, indices[block] = _smallest(squared, found, k)
        distances[block] = np.sqrt(squared)
        few = np.flatnonzero((found >= 0).sum(axis=1) < k)  # the cells searched held fewer than k points
        if len(few):
            distances[block.start + few], indices[block.start + few] = nearest(rows[few], among, k, device="cpu")
    chosen = np.sort(generator(seed, "recall").permutation(asked.shape[0])[:checked])
    exact, _ = nearest(SubsetSource(asked, chosen), among, k, device="cpu")
    hits = (distances[chosen] <= exact * (1 + 1e-12)).sum(axis=0)
    return ApproximateNeighbours(distances, indices, _recall(hits, len(chosen)))


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


def _checked(queries: Points, points: Points, k: int) -> tuple[PointSource, PointSource]:
    asked, among = as_source("queries", queries), as_source("points", points)
    if asked.shape[1] != among.shape[1]:
        raise InputError(f"queries have {asked.shape[1]} values each and points {among.shape[1]}; give the same")
    if not 1 <= k <= among.shape[0]:
        raise InputError(f"k = {k} nearest of {among.shape[0]} points: k must be in 1..{among.shape[0]}")
    return asked, among


def _blocks(count: int, values_each: int, values: int | None = None, most: int | None = None) -> Iterator[slice]:
    """Slices over ``count`` items so that a block holds ``values`` numbers: by default 64 MiB of float64."""
    step = max(1, min((values or _BLOCK_VALUES) // values_each, most or count))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _sample(points: PointSource) -> np.ndarray:
    """Some of the points at random, always the same, in float64."""
    n, d = points.shape
    size = min(n, _SAMPLED_POINTS, max(1, _BLOCK_VALUES // d))
    chosen = generator(0, "neighbours").choice(n, size, replace=False, shuffle=False)
    return points.take(np.sort(chosen)).astype(np.float64)


def _filters(queries: PointSource, points: PointSource, k: int, device: torch.device) -> list[_Whole]:
    """The filters worth asking, the fastest first; none where a shortlist would be all points."""
    n, d = points.shape
    if n <= k + _Whole.extra:
        return []
    kind = _FaissProducts if _has_faiss(device, k + _Whole.extra) else _TorchProducts
    sample = _sample(points)
    centre, size = sample.mean(axis=0), len(sample)
    filters = [_Whole(centre, kind(d, device))]
    directions = min(_DIRECTIONS, d // _VALUES_PER_DIRECTION, size // _VALUES_PER_DIRECTION)
    if (device.type == "cpu" and directions > 0 and n > k + _Projected.extra
            and _projection_pays(queries.shape[0], n, d, directions, size)):
        basis = _principal_directions(sample - centre, directions)
        if basis is not None:
            filters.insert(0, _Projected(centre, basis, kind(directions + 1, device)))
    return filters


def _projection_pays(queries: int, n: int, d: int, directions: int, sampled: int) -> bool:
    """Whether finding the directions, projecting all and comparing them costs below half of comparing them whole.

    In products of two numbers in float32; those in float64 count twice, and the directions take four passes over
    the sample.
    """
    projecting = 2 * d * directions * (queries + n + 4 * sampled)
    return projecting + queries * n * directions < queries * n * d / 2


def _principal_directions(centred: np.ndarray, count: int) -> np.ndarray | None:
    """About the first principal components of centred points (m, d), orthonormal, (count, d); None if those
    keep too little of the variance. By one power iteration from random ones (Halko, Martinsson and Tropp 2011).
    """
    scale = np.abs(centred).max()
    if not 0 < scale < np.inf:
        return None
    rows = (centred / scale).astype(np.float32)  # any directions will do, if only they are orthonormal
    rough = np.linalg.qr(rows.T @ generator(0, "directions").standard_normal((len(rows), count), dtype=np.float32))[0]
    basis = np.linalg.qr((rows.T @ (rows @ rough)).astype(np.float64))[0]
    kept = ((rows @ basis.astype(np.float32)) ** 2).sum() / (rows**2).sum()
    return basis.T if kept >= _KEPT_VARIANCE else None


class _Whole:
    """``F(x) = x - c``, compared by products.

    Squared distances by the expansion are three sums of D products, each with error at most
    ``gamma_n = n u / (1 - n u)`` times its sum of magnitudes, u the unit roundoff (Higham 2002, section 3.1):
    together ``gamma_n S^2``, ``S = |F(q)| + |F(x)|``. Rounding the coordinates and adding the three terms fits in
    n = D + 8; n is doubled for the rounding of the direct distances, which is never larger.
    """

    extra = 8
    """How much longer than k the shortlist is."""
    slack = 0.0
    """Bound on ``|F(q) - F(x)|^2 - |q - x|^2``, over ``S^2``, from errors in F other than rounding its result."""

    def __init__(self, centre: np.ndarray, products: Products) -> None:
        self.centre, self.products = centre, products
        self.dimension = len(centre)
        self.radius = 0.0  # the largest |F(x)| among the points held so far

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        """F of rows (b, d) in float64, (b, D)."""
        return rows - self.centre

    def prepare(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F of rows (b, d), rounded, (b, D), and its norm, (b,)."""
        rounded, norms = np.empty((len(rows), self.dimension), dtype=self.products.precision), np.empty(len(rows))
        with np.errstate(over="ignore"):  # what overflows proves nothing
            for part in _blocks(len(rows), rows.shape[1], _CACHED_VALUES):
                mapped = self.coordinates(rows[part])
                rounded[part], norms[part] = mapped, np.linalg.norm(mapped, axis=1)
        return rounded, norms

    def hold(self, points: np.ndarray) -> None:
        rounded, norms = self.prepare(points)
        self.radius = max(self.radius, float(norms.max()))
        self.products.hold(rounded)

    def lower(self, norms: np.ndarray, rough: np.ndarray) -> np.ndarray:
        """Lower bounds on the true squared distances, for queries with those norms, once all points were held."""
        sums = norms + self.radius
        error = _squared_error(sums, self.dimension, self.products.precision) + self.slack * sums**2
        return np.where(np.isfinite(rough), rough, -np.inf) - error[:, None]


class _Projected(_Whole):
    """``F(x) = (B y, rho)``, ``y = x - c``: K orthonormal directions and the norm of what they leave.

    With ``e >= |B B^T - I|``, what B lacks in orthonormality: ``|B v|^2 + |v - B^T B v|^2 <= (1 + e) |v|^2`` for
    ``v = q - x``, and ``rho^2`` is ``|y|^2 - |B y|^2`` up to ``e |B y|^2``. Both are computed in float64, with
    errors of at most ``3 sqrt(K) gamma_{d+8} |y|^2`` in the squares, so that rho is wrong by ``sqrt(E) |y|`` at
    most, E the sum of these, and ``|F(q) - F(x)|^2`` by less than ``(E + 2.2 sqrt(E) + E) S^2``.
    """

    extra = 254

    def __init__(self, centre: np.ndarray, basis: np.ndarray, products: Products) -> None:
        super().__init__(centre, products)
        self.basis = basis
        count, d = basis.shape
        self.dimension = count + 1
        defect = float(np.linalg.norm(basis @ basis.T - np.eye(count)))
        wrong = defect + 8 * count**0.5 * (d + 8) * float(np.finfo(np.float64).eps)
        self.slack = 4 * wrong**0.5 if wrong < 0.1 else np.inf

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        centred = rows - self.centre
        along = centred @ self.basis.T
        left = np.einsum("nd,nd->n", centred, centred) - np.einsum("nd,nd->n", along, along)
        return np.column_stack([along, np.sqrt(np.maximum(left, 0))])


def _squared_error(norms: np.ndarray, dimension: int, precision: Precision) -> np.ndarray:
    """Bound on the error of squared distances by the expansion; see ``_Whole``.

    norms: (Q,), at least ``|F(q)| + |F(x)|`` for every point. The last term is for products that underflow.
    """
    terms = (dimension + 8) * float(np.finfo(precision).eps)  # eps = 2 u
    with np.errstate(over="ignore"):
        useless = (terms >= 0.5) | (norms**2 > float(np.finfo(precision).max) / 4)  # or sums may overflow
    return np.where(useless, np.inf, terms / (1 - terms) * norms**2 + 4 * dimension * float(np.finfo(precision).tiny))


class _TorchProducts:
    """Matrix products in float64."""

    precision: Precision = np.float64

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.device = device

    def hold(self, points: np.ndarray) -> None:
        self.points = torch.from_numpy(points).to(self.device)

    def smallest(self, queries: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        query = torch.from_numpy(queries).to(self.device)
        squared = query.square().sum(1, keepdim=True) + self.points.square().sum(1) - 2 * query @ self.points.T
        best, place = squared.topk(size, largest=False)
        return best.cpu(), place.cpu()


class _FaissProducts:
    """faiss's flat index in float32, on the CPU or a GPU."""

    precision: Precision = np.float32

    def __init__(self, dimension: int, device: torch.device) -> None:
        import faiss

        self.index: Any = faiss.IndexFlatL2(dimension)
        if device.type == "cuda":
            self.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, self.index)

    def hold(self, points: np.ndarray) -> None:
        self.index.reset()
        self.index.add(points)

    def smallest(self, queries: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        squared, place = self.index.search(queries, size)
        return torch.from_numpy(squared), torch.from_numpy(place)


def _has_faiss(device: torch.device, size: int) -> bool:
    """Whether faiss can search for ``size`` neighbours on the device."""
    try:
        import faiss
    except ImportError:
        return False
    if device.type == "cuda":
        return faiss.get_num_gpus() > 0 and size <= 2048  # faiss's limit
    return True


def _filtered(filter: _Whole, queries: PointSource, points: PointSource,
              k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances and indices (Q, k) by one filter, and where it proves them, (Q,)."""
    (count, d), n = queries.shape, points.shape[0]
    size = k + filter.extra
    parts = list(_blocks(count, d, most=_BLOCK_QUERIES))
    prepared = [filter.prepare(queries.take(part)) for part in parts]
    rough = torch.full((count, size), torch.inf, dtype=torch.float64)
    places = torch.zeros((count, size), dtype=torch.int64)
    for block in _blocks(n, d, 4 * _BLOCK_VALUES, _BLOCK_POINTS):
        filter.hold(points.take(block))
        for part, (coordinates, _) in zip(parts, prepared, strict=True):
            squared, place = filter.products.smallest(coordinates, min(size, block.stop - block.start))
            squared = squared.double().masked_fill_(place < 0, torch.inf)
            place = torch.where(place < 0, 0, place + block.start)
            rough[part], order = torch.cat([rough[part], squared], 1).topk(size, largest=False)
            places[part] = torch.cat([places[part], place], 1).gather(1, order)

    distances, indices = np.empty((count, k)), np.empty((count, k), dtype=np.int64)
    proven = np.empty(count, dtype=bool)
    for part, (_, norms) in zip(parts, prepared, strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            lower = filter.lower(norms, rough[part].numpy())
            distances[part], indices[part], proven[part] = _proven(queries.take(part), points, places[part].numpy(),
                                                                   lower, k)
    return distances, indices, proven


def _proven(queries: np.ndarray, points: PointSource, candidates: np.ndarray, lower: np.ndarray,
            k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest among each query's candidates (Q, s), and whether no other point can be as near, (Q,).

    lower: (Q, s), bounds on their squared distances; those of all other points are at least the last of them.
    """
    size = candidates.shape[1]
    squared = np.full(candidates.shape, np.inf)
    possible = np.ones(candidates.shape, dtype=bool)
    for start, stop in pairwise((0, k, min(4 * k + 16, size), size)):  # in order of the lower bounds
        wanted = possible.copy()
        wanted[:, :start] = wanted[:, stop:] = False
        _measure(squared, queries, points, candidates, wanted)
        kth = np.partition(squared, k - 1, axis=1)[:, k - 1:k]  # at least the true one
        possible = lower <= kth
        if start:  # give up where points beyond the last may still be nearer
            possible &= kth < lower[:, -1:]
    squared, indices = _smallest(squared, candidates, k)
    return np.sqrt(squared), indices, squared[:, -1] < lower[:, -1]


def _approximate_index(points: PointSource, kind: str, effort: int,
                       seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """A search for so many near points of queries (Q, d): their indices, -1 where it found fewer."""
    try:
        import faiss
    except ImportError:
        raise InputError("an approximate search needs faiss; install faiss-cpu, or search exactly") from None
    n, d = points.shape
    centre = _sample(points).mean(axis=0)
    index: Any
    if kind == "ivf":
        cells = max(1, min(int(4 * n**0.5), n // _POINTS_PER_CELL))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, cells)
        index.nprobe, index.cp.seed = min(effort, cells), seed % 2**31
        sample = generator(seed, "cells").permutation(n)[:cells * 2 * _POINTS_PER_CELL]
        index.train((points.take(np.sort(sample)) - centre).astype(np.float32))
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(d, 32)
        index.hnsw.efSearch = effort
    else:
        raise InputError(f"unknown index {kind!r}; choose ivf or hnsw")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # the graph depends on the order in which points are added
    try:
        for block in _blocks(n, d):
            index.add((points.take(block) - centre).astype(np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return lambda queries, size: index.search((queries - centre).astype(np.float32), size)[1]


def _recall(hits: np.ndarray, n: int) -> Recall:
    """Shares of n with their intervals (Clopper and Pearson 1934)."""
    low = np.where(hits > 0, beta.ppf(0.025, np.maximum(hits, 1), n - hits + 1), 0.0)
    high = np.where(hits < n, beta.ppf(0.975, hits + 1, np.maximum(n - hits, 1)), 1.0)
    return Recall(hits / n, low, high, n)


def _measure(squared: np.ndarray, queries: np.ndarray, points: PointSource, candidates: np.ndarray,
             wanted: np.ndarray) -> None:
    """Fill in, in ``squared`` (Q, s), the direct float64 squared distances of the wanted candidates."""
    row, column = np.nonzero(np.broadcast_to(wanted, candidates.shape))
    for part in _blocks(len(row), queries.shape[1]):
        found = points.take(candidates[row[part], column[part]])
        values = np.empty(len(found))
        for some in _blocks(len(found), found.shape[1], _CACHED_VALUES):
            difference = np.subtract(found[some], queries[row[part][some]], dtype=np.float64)
            values[some] = np.einsum("nd,nd->n", difference, difference)
        squared[row[part], column[part]] = values


def _smallest(squared: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row and their candidates, ties by the lower candidate."""
    order = np.lexsort((candidates, squared), axis=1)[:, :k]
    return np.take_along_axis(squared, order, 1), np.take_along_axis(candidates, order, 1)


def _search_all(query: np.ndarray, points: PointSource, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of one query (d,) by direct float64 distances to every point."""
    squared = np.empty(points.shape[0])
    for block in _blocks(*points.shape):
        difference = points.take(block) - query.astype(np.float64)
        squared[block] = np.einsum("nd,nd->n", difference, difference)
    order = np.argsort(squared, kind="stable")[:k]
    return np.sqrt(squared[order]), order


def _first_equal(points: PointSource) -> np.ndarray:
    """For each row the lowest index of an equal row, (N,) int64."""
    first: dict[bytes, int] = {}
    root = np.empty(points.shape[0], dtype=np.int64)
    for block in _blocks(*points.shape):
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
    centre = _sample(points).mean(axis=0)
    picked = index[np.linspace(0, len(index) - 1, _FILTER_DIMENSIONS).astype(np.int64)]
    basis = np.linalg.qr((points.take(picked) - centre).T)[0]  # (d, min(d, 8)), orthonormal
    flat, radius = np.empty((len(index), basis.shape[1])), 0.0
    for block in _blocks(len(index), dimension):
        centred = points.take(index[block]) - centre
        flat[block], radius = centred @ basis, max(radius, float(np.linalg.norm(centred, axis=1).max()))
    # A pair that lies just within the tolerance must not be lost to rounding in the projection.
    rounding = 4 * (dimension + 8) * float(np.finfo(np.float64).eps)
    reach = tolerance + rounding * (tolerance + radius)

    tree = cKDTree(flat)
    for block in _blocks(len(index), 64 * len(index)):
        near = tree.query_ball_point(flat[block], reach)
        one = np.repeat(np.arange(block.start, block.stop), [len(found) for found in near])
        other = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
        one, other = index[one[one < other]], index[other[one < other]]
        apart = root[one] != root[other]
        one, other = one[apart], other[apart]
        for part in _blocks(len(one), dimension):
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
