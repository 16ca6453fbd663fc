"""Exact Euclidean nearest neighbours.

For queries ``q`` and points ``x_1..x_N`` in ``R^d``, ``nearest`` gives the k smallest ``|q - x_i|`` and which
points they are, ties by the lower index. A filter finds a shortlist of points for which lower bounds on
``|q - x|`` are smallest, by matrix products. A few of them are measured as ``|q - x|`` in float64, which bounds
the k-th distance from above, and then all whose lower bound is not beyond that. Where more points than the
shortlist holds may be so near, the next filter is asked, and at last all N distances of that query are computed
directly. A filter that proves little of the first few queries is given up. So the filters decide the speed and never
the answer.

The products are those of faiss's flat index in float32, on the CPU or a GPU, or torch's in float64 where faiss
is missing. Both expand ``|q|^2 + |x|^2 - 2 q.x``, which loses small distances between points far from the origin:
hence the filters centre the points and bound the error.

Points and queries are read in blocks, so both may lie on disk.

``approximate_nearest`` asks one of faiss's approximate indexes instead, measures what that proposes as exactly,
and reports how often it missed. What it returns is never nearer than the truth.

This is the only module that knows faiss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.geometry.filters import (
    CACHED_VALUES,
    Precision,
    TorchProducts,
    Whole,
    filters_worth,
)
from geomem.points import BLOCK_VALUES, Array, Points, as_points, runs, sampled
from geomem.rng import generator
from geomem.statistics import clopper_pearson_interval

_BLOCK_POINTS = 8192  # at most so many points are compared with so many queries at once
_BLOCK_QUERIES = 1024  # with fewer, the products of some BLAS are half as fast
_HELD_VALUES = 2**27  # coordinates of queries held during one pass over the points: 512 MiB of float32
_PILOT_QUERIES = 512  # that a filter is tried on
_WORTHWHILE = 0.5  # share of the queries that a filter must prove, or the next one is asked: heavy noise hides them
_POINTS_PER_CELL = 39  # below which faiss finds k-means cells unreliable


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


def nearest(queries: Array, points: Array, k: int, *,
            device: str | torch.device = "auto") -> tuple[np.ndarray, np.ndarray]:
    """The k nearest points of every query, exactly.

    queries: (Q, ...) and points: (N, ...), numpy, torch or stored elsewhere, flattened to d values each.
    device: where the filters run; on CUDA with faiss where it was built for GPUs, else with torch in float64.

    Returns distances (Q, k) float64, Euclidean, ascending, and indices (Q, k) int64; equal distances are
    ordered by index. Raises InputError if k is not in 1..N, the dimensions differ or a value is not finite.
    """
    asked, among = _checked(queries, points, k)
    distances = np.empty((len(asked), k))
    indices = np.empty((len(asked), k), dtype=np.int64)
    left = np.arange(len(asked))
    on = resolve_device(device)
    kind = _FaissProducts if _has_faiss(on, k + Whole.extra) else TorchProducts
    filters = filters_worth(len(asked), among, k, on.type == "cpu", lambda dimension: kind(dimension, on))
    for filter in filters:
        pieces = _pieces(left, filter.dimension, pilot=filter is not filters[-1])
        unproven = [left[:0]]
        for number, chosen in enumerate(pieces, 1):
            some = asked if len(chosen) == len(asked) else asked.select(chosen)
            distances[chosen], indices[chosen], proven = _filtered(filter, some, among, k)
            unproven.append(chosen[~proven])
            if filter is not filters[-1] and proven.mean() < _WORTHWHILE:
                unproven += pieces[number:]
                break
        left = np.sort(np.concatenate(unproven))
    for query in left:
        distances[query], indices[query] = _search_all(asked.take(slice(query, query + 1))[0], among, k)
    return distances, indices


def approximate_nearest(queries: Array, points: Array, k: int, *, index: str = "ivf", effort: int = 32,
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
    distances = np.empty((len(asked), k))
    indices = np.empty((len(asked), k), dtype=np.int64)
    for block in asked.blocks(BLOCK_VALUES):
        rows = asked.take(block)
        found = search(rows, min(k + Whole.extra, len(among)))
        squared = np.full(found.shape, np.inf)
        _measure(squared, rows, among, np.maximum(found, 0), found >= 0)
        squared, indices[block] = _smallest(squared, found, k)
        distances[block] = np.sqrt(squared)
        few = np.flatnonzero((found >= 0).sum(axis=1) < k)  # the cells searched held fewer than k points
        if len(few):
            distances[block.start + few], indices[block.start + few] = nearest(rows[few], among, k, device="cpu")
    chosen = np.sort(generator(seed, "recall").permutation(len(asked))[:checked])
    exact, _ = nearest(asked.select(chosen), among, k, device="cpu")
    hits = (distances[chosen] <= exact * (1 + 1e-12)).sum(axis=0)
    return ApproximateNeighbours(distances, indices, _recall(hits, len(chosen)))


def _checked(queries: Array, points: Array, k: int) -> tuple[Points, Points]:
    asked, among = as_points("queries", queries), as_points("points", points)
    if asked.dim != among.dim:
        raise InputError(f"queries have {asked.dim} values each and points {among.dim}; give the same")
    if not 1 <= k <= len(among):
        raise InputError(f"k = {k} nearest of {len(among)} points: k must be in 1..{len(among)}")
    return asked, among


def _pieces(queries: np.ndarray, dimension: int, pilot: bool) -> list[np.ndarray]:
    """The queries in pieces whose coordinates may be held at once; ``pilot``: of many, a few spread over all first."""
    pieces = []
    if pilot and len(queries) >= 8 * _PILOT_QUERIES:
        first = np.zeros(len(queries), dtype=bool)
        first[::len(queries) // _PILOT_QUERIES] = True
        pieces, queries = [queries[first]], queries[~first]
    return pieces + [queries[held] for held in runs(0, len(queries), max(1, _HELD_VALUES // dimension))]


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


def _filtered(filter: Whole, queries: Points, points: Points,
              k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances and indices (Q, k) by one filter, and where it proves them, (Q,)."""
    count = len(queries)
    size = k + filter.extra
    parts = list(queries.blocks(BLOCK_VALUES, _BLOCK_QUERIES))
    prepared = [filter.prepare(queries.take(part)) for part in parts]
    rough = torch.full((count, size), torch.inf, dtype=torch.float64)
    places = torch.zeros((count, size), dtype=torch.int64)
    for block in points.blocks(4 * BLOCK_VALUES, _BLOCK_POINTS):
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


def _proven(queries: np.ndarray, points: Points, candidates: np.ndarray, lower: np.ndarray,
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


def _approximate_index(points: Points, kind: str, effort: int,
                       seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """A search for so many near points of queries (Q, d): their indices, -1 where it found fewer."""
    try:
        import faiss
    except ImportError:
        raise InputError("an approximate search needs faiss; install faiss-cpu, or search exactly") from None
    n, d = len(points), points.dim
    centre = sampled(points).mean(axis=0)
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
        for block in points.blocks(BLOCK_VALUES):
            index.add((points.take(block) - centre).astype(np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return lambda queries, size: index.search((queries - centre).astype(np.float32), size)[1]


def _recall(hits: np.ndarray, n: int) -> Recall:
    """Shares of n with their intervals (Clopper and Pearson 1934)."""
    low, high = clopper_pearson_interval(hits, n)
    return Recall(hits / n, low, high, n)


def _measure(squared: np.ndarray, queries: np.ndarray, points: Points, candidates: np.ndarray,
             wanted: np.ndarray) -> None:
    """Fill in, in ``squared`` (Q, s), the direct float64 squared distances of the wanted candidates."""
    row, column = np.nonzero(np.broadcast_to(wanted, candidates.shape))
    for part in runs(0, len(row), max(1, BLOCK_VALUES // queries.shape[1])):
        found = points.take(candidates[row[part], column[part]])
        values = np.empty(len(found))
        for some in runs(0, len(found), max(1, CACHED_VALUES // found.shape[1])):
            difference = np.subtract(found[some], queries[row[part][some]], dtype=np.float64)
            values[some] = np.einsum("nd,nd->n", difference, difference)
        squared[row[part], column[part]] = values


def _smallest(squared: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row and their candidates, ties by the lower candidate."""
    order = np.lexsort((candidates, squared), axis=1)[:, :k]
    return np.take_along_axis(squared, order, 1), np.take_along_axis(candidates, order, 1)


def _search_all(query: np.ndarray, points: Points, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of one query (d,) by direct float64 distances to every point."""
    squared = np.empty(len(points))
    for block in points.blocks(BLOCK_VALUES):
        difference = points.take(block) - query.astype(np.float64)
        squared[block] = np.einsum("nd,nd->n", difference, difference)
    order = np.argsort(squared, kind="stable")[:k]
    return np.sqrt(squared[order]), order
