"""Exact Euclidean nearest neighbours.

For queries ``q`` and points ``x_1..x_N`` in ``R^d``, ``nearest`` gives the k smallest ``|q - x_i|`` and which
points they are, ties by the lower index. Matrix products in float32 propose a few more than k points; these are
measured as ``|q - x|`` in float64, and a bound on the rounding of the products (``_rounding``) tells whether another
point may be as near. For the queries where one may, longer lists are proposed by products in float64, and at last all N
distances are measured. Where a CPU multiplies bfloat16 faster, a large search begins with that: of 5,000 images all
were proven, in 0.7 of the time. So the products decide the speed and never the answer.

Points and queries are read in blocks, so both may lie on disk.

``approximate_nearest`` asks one of faiss's approximate indexes instead, measures what that proposes as exactly,
and reports how often it missed. What it returns is never nearer than the truth. The exact search does without faiss,
whose BLAS is several times slower than torch's on processors it does not know.

This is the only module that knows faiss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from geomem.devices import resolve_device
from geomem.errors import InputError, counted
from geomem.geometry.projections import product_precision
from geomem.points import BLOCK_VALUES, Array, Points, as_points, runs, sampled
from geomem.rng import generator
from geomem.statistics import clopper_pearson_interval

_EXTRA = 8  # points proposed beyond k at first
_LONGER = 4  # times as many are proposed at the next try
_BLOCK_POINTS = 8192  # at most so many points are compared with so many queries at once
_BLOCK_QUERIES = 1024  # with fewer, the products of some BLAS are half as fast
_HELD_VALUES = 2**27  # numbers held of queries during one pass over the points: 512 MiB of float32
_LARGE = 2**33  # multiplications of a search, from which on it is worth a trial what kind of product is fast
_CACHED_VALUES = 2**18  # float64 values that fit in a processor's cache: 2 MiB
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
    device: where the products are made; the CPU in the place of mps, which has no float64.

    Returns distances (Q, k) float64, Euclidean, ascending, and indices (Q, k) int64; equal distances are
    ordered by index. Raises InputError if k is not in 1..N, the dimensions differ or a value is not finite.
    """
    asked, among = _checked(queries, points, k)
    distances = np.empty((len(asked), k))
    indices = np.empty((len(asked), k), dtype=np.int64)
    on = resolve_device(device, float64=True)
    centre = sampled(among).mean(axis=0).astype(np.promote_types(asked.dtype, among.dtype))
    left = np.arange(len(asked))
    large = on.type == "cpu" and len(asked) * len(among) * among.dim >= _LARGE
    for size, precision in _tries(k, len(among), large and _bfloat16_pays(), product_precision(on)):
        if not len(left):
            break
        proven = np.zeros(len(left), dtype=bool)
        most = max(1, _HELD_VALUES // (among.dim + 4 * size))
        trial = min(len(left), _BLOCK_QUERIES, most) if precision == torch.bfloat16 else 0
        rest = runs(trial, len(left), most)
        for held in (slice(0, trial), *rest) if trial else rest:
            chosen = left[held]
            some = asked if len(chosen) == len(asked) else asked.select(chosen)
            proposed = _proposed(some, among, size, centre, precision, on)
            distances[chosen], indices[chosen], proven[held] = _proven(some, among, k, proposed)
            if held.stop == trial and proven[held].mean() < 0.5:
                break  # so few digits tell too little here
        left = left[~proven]
    for part in runs(0, len(left), max(1, BLOCK_VALUES // max(len(among), among.dim))):
        distances[left[part]], indices[left[part]] = _search_all(asked.take(left[part]), among, k)
    return distances, indices


def _tries(k: int, count: int, coarse: bool, precision: torch.dtype) -> Iterator[tuple[int, torch.dtype]]:
    """How many points to propose, and by products in which precision, until all queries are proven."""
    size = k + _EXTRA
    if coarse and _LONGER * size < count:
        yield _LONGER * size, torch.bfloat16
    while size < count:
        yield size, precision
        size, precision = _LONGER * size, torch.float64


@cache
def _bfloat16_pays() -> bool:
    """Whether this CPU multiplies bfloat16 much faster than float32, and sums the products in float32."""
    rows, seconds = torch.ones(1024, 1024), {}
    for precision in 2 * (torch.float32, torch.bfloat16):  # the first time libraries are loaded
        values = rows.to(precision)
        started = time.perf_counter()
        values @ values.T
        seconds[precision] = time.perf_counter() - started
    return seconds[torch.bfloat16] < seconds[torch.float32] / 1.5 and _sums_in_float32()


def _sums_in_float32() -> bool:
    """Whether products of bfloat16 are, from block to block too: ones outlast a large number that comes and goes."""
    rows = torch.zeros(256, 8192, dtype=torch.bfloat16)
    rows[:, 0], rows[:, -1], rows[:, 63:-1:64] = 4096, -4096, 1
    return bool((rows @ torch.ones_like(rows).T == 127).all())


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
        found = search(rows, min(k + _EXTRA, len(among)))
        squared = np.full(found.shape, np.inf)
        _measure(squared, asked.select(block), among, np.maximum(found, 0), found >= 0)
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
        raise InputError(f"queries have {counted(asked.dim, 'value')} each and points {among.dim}; give the same")
    if not 1 <= k <= len(among):
        raise InputError(f"k = {k} nearest of {len(among)} points: k must be in 1..{len(among)}")
    return asked, among


@dataclass(frozen=True)
class _Proposed:
    """Points that may be nearest to each query, by products.

    places: (Q, s), which. rough: (Q, s), their squared distances by the products, ascending; those of all other points
    are at least the last. norms: (Q,), ``|q - c|``. radius: the largest ``|x - c|``. dim, precision: of the products.
    """

    places: np.ndarray
    rough: np.ndarray
    norms: np.ndarray
    radius: float
    dim: int
    precision: torch.dtype


def _proposed(queries: Points, points: Points, size: int, centre: np.ndarray, precision: torch.dtype,
              device: torch.device) -> _Proposed:
    """The ``size`` points nearest to each query by ``|q|^2 + |x|^2 - 2 q.x``, centred at c, in this precision."""
    count = len(queries)
    parts = list(runs(0, count, max(1, min(_BLOCK_QUERIES, BLOCK_VALUES // (points.dim + size)))))
    centred = [_centred(queries.take(part), centre, precision) for part in parts]
    held = [rows.to(device, precision) for rows, _ in centred]
    rough = torch.full((count, size), torch.inf, dtype=torch.float64, device=device)
    places = torch.zeros((count, size), dtype=torch.int64, device=device)
    largest = 0.0
    for block in points.blocks(4 * BLOCK_VALUES, _BLOCK_POINTS):
        rows, squares = _centred(points.take(block), centre, precision)
        largest = float(np.maximum(largest, squares.max()))  # NaN, after an overflow, proves nothing
        rows, norms = rows.to(device), torch.from_numpy(squares).to(device, rows.dtype)
        rows = rows.to(precision)
        for part, query in zip(parts, held, strict=True):
            products = (query @ rows.T).to(norms.dtype)
            torch.sub(norms, products, alpha=2, out=products)
            best, place = products.topk(min(size, len(rows)), largest=False)
            rough[part], order = torch.cat([rough[part], best.double()], 1).topk(size, largest=False)
            places[part] = torch.cat([places[part], place + block.start], 1).gather(1, order)
    own = np.concatenate([squares for _, squares in centred])
    with np.errstate(invalid="ignore"):
        return _Proposed(places.cpu().numpy(), rough.cpu().numpy() + own[:, None], np.sqrt(own), largest**0.5,
                         points.dim, precision)


def _centred(rows: np.ndarray, centre: np.ndarray, precision: torch.dtype) -> tuple[torch.Tensor, np.ndarray]:
    """Rows minus the centre (n, d), rounded to the precision, or to float32 where it is lower, and their squared norms
    (n,) in float64.
    """
    rounded = np.float64 if precision == torch.float64 else np.float32
    with np.errstate(over="ignore"):
        values = np.subtract(rows, centre, dtype=np.promote_types(centre.dtype, rounded)).astype(rounded, copy=False)
        return torch.from_numpy(values), np.einsum("nd,nd->n", values, values, dtype=np.float64)


def _proven(queries: Points, points: Points, k: int,
            proposed: _Proposed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances and indices (Q, k) of the nearest of the points proposed, and whether no other is as near, (Q,)."""
    squared = np.full(proposed.places.shape, np.inf)
    first = np.zeros(squared.shape, dtype=bool)
    first[:, :k] = True
    _measure(squared, queries, points, proposed.places, first)
    # The k-th distance is at most this, also of a point whose measured one is as large but for its own rounding.
    reach = squared[:, :k].max(axis=1) * (1 + 4 * _gamma(points.dim + 8, torch.float64))
    with np.errstate(invalid="ignore"):
        lower = proposed.rough - _rounding(proposed, reach)[:, None]
    proven = reach < lower[:, -1]
    _measure(squared, queries, points, proposed.places, (lower <= reach[:, None]) & proven[:, None] & ~first)
    squared, indices = _smallest(squared, proposed.places, k)
    return np.sqrt(squared), indices, proven


def _gamma(n: int, precision: torch.dtype) -> float:
    """``n u / (1 - n u)``, u the unit roundoff: the relative error of n roundings in a row; inf where n u >= 1/2."""
    total = n * torch.finfo(precision).eps / 2
    return total / (1 - total) if total < 0.5 else np.inf


def _rounding(proposed: _Proposed, reach: np.ndarray) -> np.ndarray:
    """Bound (Q,) on the error of the squared distances by products, of the points whose own are at most ``reach`` (Q,).

    Let a and b be q - c and x - c as rounded, A and B their norms, S = A + B, u the unit roundoff of the products and
    v that of float64. However a sum of n products is ordered, its error is at most ``gamma_n`` times the sum of their
    magnitudes (Higham 2002, section 3.1), which is at most AB for a.b, by Cauchy and Schwarz. So the errors are

        2 gamma_d(u) AB <= gamma_d(u) S^2 / 2    of 2 a.b,
        u B^2 + u (B^2 + 2 AB) <= 2 u S^2        of rounding |b|^2, and |b|^2 - 2 a.b,
        gamma_d+2(v) S^2                         of |a|^2 and |b|^2, summed in float64, and of adding |a|^2,
        2 u S^2                                  of |a - b|^2 for |q - x|^2, as |(a - b) - (q - x)| <= u S.

    Their sum is below ``(gamma_{d+8}(u) / 2 + gamma_{d+8}(v)) S^2`` but for factors 1 + gamma, which n = d + 16 covers.
    A product or a coordinate that underflows is wrong by the smallest normal number at most. A point within reach
    has ``|x - c| <= |q - c| + |q - x|``, so B need not be the largest of all, unless sums might overflow.

    Products in bfloat16 are those of float32 but for three roundings, of a, of b and of their product, each to a
    relative w: 1 + gamma becomes (1 + w)^3 (1 + gamma).
    """
    coarse = proposed.precision == torch.bfloat16
    precision = torch.float32 if coarse else proposed.precision
    n, info = proposed.dim + 16, torch.finfo(precision)
    three = (1 + torch.finfo(torch.bfloat16).eps / 2)**3 if coarse else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        sums = proposed.norms + np.minimum(proposed.radius, proposed.norms + np.sqrt(reach))
        bound = ((three * (1 + _gamma(n, precision)) - 1) / 2 + _gamma(n, torch.float64)) * sums**2 + 8 * n * info.tiny
        return np.where((proposed.norms + proposed.radius)**2 < info.max / 4, bound, np.inf)


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


def _measure(squared: np.ndarray, queries: Points, points: Points, candidates: np.ndarray,
             wanted: np.ndarray) -> None:
    """Fill in, in ``squared`` (Q, s), the direct float64 squared distances of the wanted candidates."""
    row, column = np.nonzero(wanted)
    for part in runs(0, len(row), max(1, _CACHED_VALUES // points.dim)):
        pair = row[part], column[part]
        difference = points.take(candidates[pair]).astype(np.float64)
        difference -= queries.take(row[part])
        squared[pair] = np.einsum("nd,nd->n", difference, difference)


def _smallest(squared: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row and their candidates, ties by the lower candidate."""
    order = np.lexsort((candidates, squared), axis=1)[:, :k]
    return np.take_along_axis(squared, order, 1), np.take_along_axis(candidates, order, 1)


def _search_all(queries: np.ndarray, points: Points, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices (Q, k) of the nearest to each query (Q, d), by direct float64 distances to every point."""
    squared = np.empty((len(queries), len(points)))
    for block in points.blocks(_CACHED_VALUES):
        rows = points.take(block).astype(np.float64)
        for values, query in zip(squared, queries, strict=True):
            difference = rows - query
            values[block] = np.einsum("nd,nd->n", difference, difference)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squared, order, 1)), order
