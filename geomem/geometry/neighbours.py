"""Exact Euclidean nearest neighbours.

For queries ``q`` and points ``p_1..p_N`` in ``R^d``, ``nearest`` gives the k smallest ``|q - p_i|`` and which
points they are, ties by the lower index. A *filter* computes all distances fast but roughly, keeps a shortlist
of the nearest, and proves bounds on the true distances of those it kept and of all that it left out. What the
bounds do not exclude is measured again as ``|q - p_i|`` in float64. Where they do not prove the answer, the
next filter is asked, and at last all N distances of that query are computed directly. So the filters decide
the speed and never the answer. In the order in which they are asked:

* bytes: points and queries rounded to 256 levels; their distances are exact integers, and rounding moves a
  distance by at most ``|q - q'| + |p - p'|``. On CPUs with byte products, several times as fast as float32.
* faiss in float32, on the CPU or a GPU; torch in float64 where faiss is missing. Both expand
  ``|q|^2 + |p|^2 - 2 q.p``, which loses small distances between points far from the origin, so the data are
  centred first, and the error is bounded.

Points and queries are read in blocks, so both may lie on disk.

``approximate_nearest`` asks one of faiss's approximate indexes instead, measures what that proposes as exactly,
and reports how often it missed. What it returns is never nearer than the truth.

This is the only module that knows faiss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
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
_CACHED_VALUES = 2**17  # values that fit in a processor's cache, for work that goes over them many times
_BLOCK_POINTS = 8192  # at most so many points are compared with so many queries at once
_BLOCK_QUERIES = 512
_HELD_QUERIES = 2**27  # values of queries held during one pass over the points: 512 MiB of float32
_BYTES_PAY = 2**33  # products of two numbers, Q N d, from which rounding all to bytes first is worth it
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


class Filter(Protocol):
    """Compares queries with one block of points after another."""

    extra: int
    """How much longer than k the shortlist is: so long that the bounds rarely fail on images."""

    def prepare(self, queries: np.ndarray) -> Any:
        """What ``search`` and ``bounds`` need of queries (Q, d)."""

    def hold(self, points: np.ndarray) -> None:
        """Make these points (b, d) the current block."""

    def search(self, prepared: Any, size: int) -> tuple[Tensor, Tensor]:
        """Rough squared distances, up to a constant of each query, and places in the current block of the
        ``size`` points nearest by them, (Q, size) each; a place is negative where nothing was found."""

    def bounds(self, prepared: Any, rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds on the true squared distances, rising with ``rough``, once all points were held."""


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
    device: where the filter runs: on the CPU in bytes and then faiss; on CUDA faiss where it was built for GPUs;
        torch in float64 where faiss is missing.

    Returns distances (Q, k) float64, Euclidean, ascending, and indices (Q, k) int64; equal distances are
    ordered by index. Raises InputError if k is not in 1..N, the dimensions differ or a value is not finite.
    """
    asked, among = _checked(queries, points, k)
    distances = np.empty((asked.shape[0], k))
    indices = np.empty((asked.shape[0], k), dtype=np.int64)
    makers = _filters(asked, among, k, resolve_device(device))
    for held in _blocks(*asked.shape, values=_HELD_QUERIES):
        rows = asked.take(held)
        left = np.arange(len(rows))
        for maker in makers:
            if len(left):
                near, which, proven = _filtered(maker(), rows[left] if len(left) < len(rows) else rows, among, k)
                distances[held.start + left], indices[held.start + left] = near, which
                left = left[~proven]
        for row in left:
            distances[held.start + row], indices[held.start + row] = _search_all(rows[row], among, k)
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
        found = search(rows, min(k + _ExpansionFilter.extra, among.shape[0]))
        distances[block], indices[block] = _rank(rows, among, np.maximum(found, 0), found >= 0, k)
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


def _filters(queries: PointSource, points: PointSource, k: int, device: torch.device) -> list[Callable[[], Filter]]:
    """Makers of the filters worth asking, the fastest first; none where a shortlist would be all points.

    A filter is made when a query first needs it, since that takes a pass over the points.
    """
    n, d = points.shape
    makers: list[Callable[[], Filter]] = []
    if (device.type == "cpu" and queries.shape[0] * n * d >= _BYTES_PAY and n > k + _ByteFilter.extra
            and d in _ByteFilter.dimensions and _byte_products_are_exact()):
        makers.append(cache(lambda: _ByteFilter(points)))
    if n > k + _ExpansionFilter.extra:
        kind = _FaissFilter if _has_faiss(device, k + _FaissFilter.extra) else _TorchFilter
        makers.append(cache(lambda: kind(points, device)))
    return makers


def _filtered(filter: Filter, queries: np.ndarray, points: PointSource,
              k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances and indices (Q, k) by one filter, and where it proves them, (Q,)."""
    n, d = points.shape
    size = k + filter.extra
    parts = list(_blocks(len(queries), d, most=_BLOCK_QUERIES))
    prepared = [filter.prepare(queries[part]) for part in parts]
    rough = torch.full((len(queries), size), torch.inf, dtype=torch.float64)
    places = torch.zeros((len(queries), size), dtype=torch.int64)
    for block in _blocks(n, d, 4 * _BLOCK_VALUES, _BLOCK_POINTS):
        filter.hold(points.take(block))
        for part, query in zip(parts, prepared, strict=True):
            squared, place = filter.search(query, min(size, block.stop - block.start))
            squared = squared.double().masked_fill_(place < 0, torch.inf)
            place = torch.where(place < 0, 0, place + block.start)
            rough[part], order = torch.cat([rough[part], squared], 1).topk(size, largest=False)
            places[part] = torch.cat([places[part], place], 1).gather(1, order)

    distances, indices = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    proven = np.empty(len(queries), dtype=bool)
    for part, query in zip(parts, prepared, strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            lower, upper = filter.bounds(query, rough[part].numpy())
            possible = ~(lower > upper[:, k - 1:k])  # k points are at least as near as the k-th upper bound
            distances[part], indices[part] = _rank(queries[part], points, places[part].numpy(), possible, k)
            proven[part] = distances[part][:, -1] ** 2 < lower[:, -1]
    return distances, indices, proven


class _ExpansionFilter:
    """``|q|^2 + |p|^2 - 2 q.p`` of centred points, in floating point.

    Each of the three sums of d products has error at most ``gamma_n = n u / (1 - n u)`` times its sum of
    magnitudes, u the unit roundoff (Higham 2002, section 3.1): together ``gamma_n (|q| + |p|)^2``. Rounding
    the centred data and adding the three terms fits in n = d + 8; n is doubled for the rounding of the direct
    distances, which is never larger.
    """

    extra = 8
    precision: Precision = np.float64

    def __init__(self, points: PointSource) -> None:
        self.centre, self.radius = _centre_and_radius(points)

    def bounds(self, prepared: Any, rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        error = _squared_error(prepared[1] + self.radius, len(self.centre), self.precision)[:, None]
        sure = np.where(np.isfinite(rough), rough, -np.inf)  # where it overflowed nothing is known
        return sure - error, np.where(np.isfinite(rough), rough, np.inf) + error


def _centre_and_radius(points: PointSource) -> tuple[np.ndarray, float]:
    """The mean of the points, and their largest distance from it."""
    blocks = list(_blocks(*points.shape))
    centre = np.zeros(points.shape[1])
    for block in blocks:
        centre += points.take(block).sum(axis=0, dtype=np.float64) / points.shape[0]
    return centre, max(float(np.linalg.norm(points.take(block) - centre, axis=1).max()) for block in blocks)


def _squared_error(norms: np.ndarray, dimension: int, precision: Precision) -> np.ndarray:
    """Bound on the error of squared distances by the expansion; see ``_ExpansionFilter``.

    norms: (Q,), at least ``|q| + |p|`` for every point, centred. The last term is for products that underflow.
    """
    terms = (dimension + 8) * float(np.finfo(precision).eps)  # eps = 2 u
    if terms >= 0.5:  # no useful bound: every query is searched directly
        return np.full_like(norms, np.inf)
    return terms / (1 - terms) * norms**2 + 4 * dimension * float(np.finfo(precision).tiny)


class _TorchFilter(_ExpansionFilter):
    """Matrix products in float64."""

    def __init__(self, points: PointSource, device: torch.device) -> None:
        super().__init__(points)
        self.device = device

    def prepare(self, queries: np.ndarray) -> tuple[Tensor, np.ndarray]:
        centred = queries - self.centre
        return torch.from_numpy(centred), np.linalg.norm(centred, axis=1)

    def hold(self, points: np.ndarray) -> None:
        self.points = torch.from_numpy(points - self.centre).to(self.device)

    def search(self, prepared: tuple[Tensor, np.ndarray], size: int) -> tuple[Tensor, Tensor]:
        query = prepared[0].to(self.device)
        squared = query.square().sum(1, keepdim=True) + self.points.square().sum(1) - 2 * query @ self.points.T
        best, place = squared.topk(size, largest=False)
        return best.cpu(), place.cpu()


class _FaissFilter(_ExpansionFilter):
    """faiss's flat index in float32, on the CPU or a GPU."""

    precision = np.float32

    def __init__(self, points: PointSource, device: torch.device) -> None:
        import faiss

        super().__init__(points)
        self.index: Any = faiss.IndexFlatL2(len(self.centre))
        if device.type == "cuda":
            self.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, self.index)

    def prepare(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centred, norms = np.empty(queries.shape, dtype=np.float32), np.empty(len(queries))
        with np.errstate(over="ignore"):
            for part in _blocks(len(queries), queries.shape[1], _CACHED_VALUES):
                rows = queries[part] - self.centre
                centred[part], norms[part] = rows, np.linalg.norm(rows, axis=1)
        return centred, norms

    def hold(self, points: np.ndarray) -> None:
        self.index.reset()
        self.index.add(self.prepare(points)[0])

    def search(self, prepared: tuple[np.ndarray, np.ndarray], size: int) -> tuple[Tensor, Tensor]:
        squared, place = self.index.search(prepared[0], size)
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


class _ByteFilter:
    """Distances of points rounded to the 256 levels ``c + s m``, m = -128..127, between the extremes of all points.

    The products of levels are exact 32-bit integers; putting them together in float32 has an error of at most
    ``2^-22 (|q'| + |p'|)^2``, in levels. With ``r_q = |q - q'|`` and ``r_p = |p - p'|``, the true distance is
    within ``r_q + r_p`` of ``|q' - p'|``. uint8 images lie on the levels, so for them r is 0 but for rounding.
    """

    extra = 40
    dimensions = range(16, 2**17)  # fewer gain nothing; 128^2 d must fit in 31 bits

    def __init__(self, points: PointSource) -> None:
        low, high = np.inf, -np.inf
        for block in _blocks(*points.shape):
            rows = points.take(block)
            low, high = min(low, float(rows.min())), max(high, float(rows.max()))
        with np.errstate(over="ignore"):  # infinite steps prove nothing
            self.step = float(np.float32((high - low) / 255))
            self.offset = float(np.float32(low + 128 * self.step))
        self.moved = self.norm = 0.0  # the largest r_p and |p'| among the points held so far
        self.seen: set[tuple[int, ...]] = set()  # shapes of products that were checked

    def prepare(self, queries: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Levels m; r, in data units; |m|^2."""
        n, d = queries.shape
        levels, moved, squared = np.empty((n, d), dtype=np.int8), np.empty(n), np.empty(n)
        step, offset = np.float32(self.step), np.float32(self.offset)
        largest = abs(self.offset) + 128 * self.step + float(np.finfo(np.float32).tiny)
        with np.errstate(all="ignore"):  # what is not finite proves nothing
            for part in _blocks(n, d, _CACHED_VALUES):
                rows = queries[part].astype(np.float32)
                level = np.nan_to_num(((rows - offset) / step).round().clip(-128, 127))
                levels[part], squared[part] = level, _squared_norms(level)
                # Rounding in the line below and to float32: at most 2^-22 (|x| + |c| + 128 s) in each entry x.
                rounding = 2**-21 * (np.sqrt(_squared_norms(rows)) + d**0.5 * largest)
                moved[part] = np.sqrt(_squared_norms(rows - (level * step + offset))) + rounding
        return torch.from_numpy(levels), moved, squared

    def hold(self, points: np.ndarray) -> None:
        self.levels, moved, squared = self.prepare(points)
        self.squared = torch.from_numpy(squared).float()
        self.moved = max(self.moved, float(moved.max()))
        self.norm = max(self.norm, float(np.sqrt(squared.max())))

    def search(self, prepared: tuple[Tensor, np.ndarray, np.ndarray], size: int) -> tuple[Tensor, Tensor]:
        products = torch._int_mm(prepared[0], self.levels.T)
        if products.shape not in self.seen:
            # In some versions of torch these products silently go wrong, depending on shapes; then prove nothing.
            total = prepared[0].long() @ self.levels.sum(0)
            self.norm = self.norm if bool((products.sum(1) == total).all()) else np.inf
            self.seen.add(products.shape)
        best, place = torch.add(self.squared, products, alpha=-2).topk(size, largest=False)
        return best, place

    def bounds(self, prepared: tuple[Tensor, np.ndarray, np.ndarray],
               rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, moved, squared = (array[:, None] for array in prepared)
        error = 2**-22 * (np.sqrt(squared) + self.norm) ** 2
        near = self.step * np.sqrt(np.maximum(rough + squared - error, 0)) - (moved + self.moved)
        far = self.step * np.sqrt(np.maximum(rough + squared + error, 0)) + (moved + self.moved)
        rounding = 2**-30  # of the direct distances and of these lines
        return np.maximum(near, 0) ** 2 * (1 - rounding), far**2 * (1 + rounding)


def _squared_norms(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return np.einsum("nd,nd->n", rows, rows)


@cache
def _byte_products_are_exact() -> bool:
    """Whether the CPU multiplies bytes fast and into 32 bits; without such units sums may saturate at 16 bits."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not capabilities.get("avx512_vnni") or not hasattr(torch, "_int_mm"):
        return False
    low, high = (torch.full((64, 4096), value, dtype=torch.int8) for value in (-128, 127))
    return all(bool((torch._int_mm(a, b.T) == int(a[0, 0]) * int(b[0, 0]) * 4096).all())
               for a in (low, high) for b in (low, high))


def _approximate_index(points: PointSource, kind: str, effort: int,
                       seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """A search for so many near points of queries (Q, d): their indices, -1 where it found fewer."""
    try:
        import faiss
    except ImportError:
        raise InputError("an approximate search needs faiss; install faiss-cpu, or search exactly") from None
    n, d = points.shape
    centre, _ = _centre_and_radius(points)
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


def _rank(queries: np.ndarray, points: PointSource, candidates: np.ndarray, possible: np.ndarray,
          k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest among each query's possible candidates (Q, s), by direct float64 distances."""
    row, column = np.nonzero(possible)
    squared = np.full(candidates.shape, np.inf)
    for part in _blocks(len(row), queries.shape[1]):
        difference = points.take(candidates[row[part], column[part]]) - queries[row[part]].astype(np.float64)
        squared[row[part], column[part]] = np.einsum("nd,nd->n", difference, difference)
    by_index = np.argsort(candidates, axis=1)  # a stable sort by distance then breaks ties by index
    squared, candidates = np.take_along_axis(squared, by_index, 1), np.take_along_axis(candidates, by_index, 1)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squared, order, 1)), np.take_along_axis(candidates, order, 1)


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
    centre, radius = _centre_and_radius(points)
    picked = index[np.linspace(0, len(index) - 1, _FILTER_DIMENSIONS).astype(np.int64)]
    basis = np.linalg.qr((points.take(picked) - centre).T)[0]  # (d, min(d, 8)), orthonormal
    flat = np.concatenate([(points.take(index[block]) - centre) @ basis for block in _blocks(len(index), dimension)])
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
