"""The pass over queries and centres: makes a, b, c of ``projections`` piece by piece and hands them to collectors.

Centres are read block by block, so they may lie in a file larger than memory; queries are taken in passes, as many
at a time as the memory allows. Every collector adds up over blocks of centres, so several processes can share the
blocks and put their sums together at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.devices import resolve_device
from geomem.duplicates import near_groups, search_bytes
from geomem.errors import InputError
from geomem.geometry.options import Options
from geomem.geometry.projections import (
    TILE,
    Block,
    Centres,
    NoisePool,
    QueryNoise,
    Tile,
    largest_norm,
    require_spread,
)
from geomem.geometry.workers import Run, workers
from geomem.points import Points, as_points, as_train_and_heldout, distinct_points, runs
from geomem.processes import reduce, require_same
from geomem.rng import generator

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Entries that one elementwise operation takes: on the CPU they should stay in the cache.
CPU_ENTRIES = 2**18
GPU_ENTRIES = 2**24


class Collector:
    """Adds up one quantity over the centres, for every query.

    In each pass ``begin`` is called with its queries; ``add`` (see below) with every piece of centres; then, with the
    sums of all processes put together, ``finish`` with every tile of the pass and ``end``. ``add`` and ``finish`` may
    be called from several threads at once, for different queries.
    """

    def begin(self, rows: slice) -> None:
        """Queries ``rows`` are next: make room for them."""
        self.rows = rows

    def here(self, rows: slice) -> slice:
        """Their places among the queries of the pass."""
        return slice(rows.start - self.rows.start, rows.stop - self.rows.start)

    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """What this process has added up in the pass, each with the operation (sum, max, min) that puts processes
        together.
        """
        raise NotImplementedError

    def finish(self, rows: slice) -> None:
        """All centres have been added for queries ``rows``."""

    def end(self) -> None:
        """The pass is over."""

    def bytes_per_query(self) -> int:
        """Memory held for each query of a pass,"""
        return 0

    def bytes_per_thread(self) -> int:
        """by each thread in ``finish``,"""
        return 0

    def bytes_held(self) -> int:
        """and all the time."""
        return 0


class DistanceCollector(Collector):
    """Takes ``a`` (queries, centres) float32 of some queries and centres; 0 at a training point's own centre."""

    def add(self, rows: slice, columns: slice, a: torch.Tensor) -> None:
        raise NotImplementedError


class NoiseCollector(Collector):
    """Takes ``a`` (queries, centres) and ``b`` (queries, draws, centres), both float32, and ``c`` (queries, draws),
    float64; ``a`` is inf at a training point's own centre.
    """

    noise: QueryNoise

    def add(self, rows: slice, columns: slice, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Queries:
    """Points to look at, and who wants to know. ``own`` (n,) is the centre each is, None for held-out points."""

    points: Points
    own: np.ndarray | None
    distances: DistanceCollector | None = None
    noisy: NoiseCollector | None = None

    @classmethod
    def of(cls, points: Points, rows: np.ndarray, own: np.ndarray | None, collectors: Sequence[Collector]) -> Queries:
        """These rows of the points, with each of the collectors in its place."""
        return cls(points if len(rows) == len(points) else points.select(rows), own,
                   next((part for part in collectors if isinstance(part, DistanceCollector)), None),
                   next((part for part in collectors if isinstance(part, NoiseCollector)), None))

    def __len__(self) -> int:
        return len(self.points)

    def collectors(self) -> list[Collector]:
        """Those that are there."""
        return [collector for collector in (self.distances, self.noisy) if collector is not None]

    def are_all(self, centres: Centres) -> bool:
        """Whether the queries are all the centres, in order, and the centres one block."""
        return self.own is not None and len(centres.blocks) == 1 and len(self) == len(centres) == centres.n_train

    def digest(self) -> tuple[int, bytes]:
        """Of the number of queries and the first of them, to tell one set from another."""
        return len(self), sha256(self.points.take(slice(TILE)).tobytes()).digest()

    def tile(self, rows: slice, centres: Centres, pool: NoisePool) -> Tile:
        """The queries of this slice."""
        points = centres.rows(self.points.take(rows))
        exact = points.prepare(slice(None))
        own = None if self.own is None else torch.from_numpy(self.own[rows]).to(centres.device)
        products = pool.own_products(exact, rows.start, self.noisy.noise) if self.noisy else None
        return Tile(rows, points, own, products)


@dataclass(frozen=True)
class Piece:
    """What levels are measured from, of some queries (``rows``) and centres (``columns``): ``a`` and the places of the
    queries' own centres in it, the products of both with the noise vectors (``projections``), and ``norm``, of these.
    """

    rows: slice
    columns: slice
    a: torch.Tensor
    own: tuple[torch.Tensor, torch.Tensor] | None
    products: torch.Tensor | None
    centre_products: torch.Tensor
    norm: torch.Tensor


@dataclass(frozen=True)
class Sweep:
    """The training points and the points that they are seen from, ready for passes over them.

    ``merged``: how many of each were merged into others, with ``Options.duplicates`` "merge": a group of equal and
    near-equal points is then its first point, and a training point has the weight of its group. ``leaked``: held-out
    points that were left out because they are one with a training point; where all are, none is left out, and
    ``nothing_unseen``. ``duplicates``: training points that equal an earlier one.
    """

    train: Points
    heldout: Points | None
    centres: Centres
    options: Options
    merged: tuple[int, int] = (0, 0)
    leaked: int = 0
    duplicates: int = 0
    nothing_unseen: bool = False
    searched: int = 0  # bytes that the search for duplicates took beside the points
    reuse: bool = False  # whether to keep what was measured for another run
    _kept: list[list[Piece]] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, train: Any, heldout: Any, options: Options, *, reuse: bool = False) -> Sweep:
        """``train`` (N, ...), N >= 2, ``heldout`` (M, ...) or None. Raises InputError for what are no such points."""
        train, heldout = (as_points("train", train), None) if heldout is None else as_train_and_heldout(train, heldout)
        device, merged, leaked = resolve_device(options.device, float64=True), (0, 0), 0
        weight, duplicates, nothing_unseen = None, 0, False
        reference = train
        if options.duplicates == "merge":
            groups = near_groups(train)
            if groups.merged and len(groups.index) > 1:  # where all are one point, nothing is left to tell apart
                duplicates = distinct_points(train, 0).merged
                train, weight = train.select(groups.index), np.bincount(groups.group)
            merged = len(reference) - len(train), 0
            if heldout is not None:
                index, leaked = _unseen(reference, heldout)
                if not len(index):  # nothing else is left to look from
                    index, leaked, nothing_unseen = near_groups(heldout, reference).index, 0, True
                merged = merged[0], len(heldout) - leaked - len(index)
                heldout = heldout.select(index) if len(index) < len(heldout) else heldout
        centres = Centres(train, device, weight)
        return cls(train, heldout, centres, options, merged, leaked, duplicates + centres.n_train - len(centres),
                   nothing_unseen,
                   search_bytes(reference) if options.duplicates == "merge" else 0, reuse)

    @cached_property
    def training_rows(self) -> np.ndarray:
        """The training points that are queries, ascending."""
        return self._chosen(len(self.train), "training queries")

    @cached_property
    def own(self) -> np.ndarray:
        """(n,) the centre that each of them is."""
        return self.centres.member[self.training_rows]

    @cached_property
    def heldout_rows(self) -> np.ndarray:
        """The held-out points that are queries, ascending."""
        assert self.heldout is not None
        return self._chosen(len(self.heldout), "heldout queries")

    def _chosen(self, n: int, purpose: str) -> np.ndarray:
        """Which of n points are queries: a random choice, the stream (seed, ``purpose``)."""
        if self.options.queries is None or self.options.queries >= n:
            return np.arange(n)
        return np.sort(generator(self.options.seed, purpose).choice(n, self.options.queries, replace=False,
                                                                   shuffle=False))

    def plan(self, training: Sequence[Collector],
             heldout: Sequence[Collector]) -> tuple[list[Queries], list[list[slice]], bool, int]:
        """The queries of each kind that somebody collects from, and for them what ``_passes`` says."""
        queries = []
        if training:
            queries.append(Queries.of(self.train, self.training_rows, self.own, training))
        if heldout:
            assert self.heldout is not None
            queries.append(Queries.of(self.heldout, self.heldout_rows, None, heldout))
        return queries, *_passes(self.centres, queries, self.options.memory, self.searched)

    def run(self, *, training: Sequence[Collector] = (), heldout: Sequence[Collector] = ()) -> None:
        """Show all centres to the queries: of each kind at most one collector of distances and one of noise.

        With ``reuse`` distances and products are kept for the next call where the memory has room for them: only the
        noise levels are new then. Raises InputError if the memory is not enough for one tile of queries.
        """
        queries, passes, room, _ = self.plan(training, heldout)
        with workers(self.centres.device) as run:
            if not (room and self._kept):
                self._kept.clear()
                _sweep(self.centres, queries, self.options, passes, self._kept if room and self.reuse else None, run)
                return
            _begin(queries, passes[0])
            for pieces in self._kept:
                run([partial(_show, part, piece) for part in queries for piece in pieces
                     if (piece.own is None) == (part.own is None)])
            _end(queries, passes[0], self.options.group, run)
            if self.options.progress:
                self.options.progress(*2 * (sum(map(len, queries)),))


def _unseen(train: Points, heldout: Points) -> tuple[np.ndarray, int]:
    """The first of each group of equal and near-equal held-out points that holds no training point, and how many points
    are in the others.
    """
    parts = [train, heldout]
    if train.shape != (len(train), *heldout.shape[1:]):
        parts = [Points([part], lambda rows: np.asarray(rows, np.float32).reshape(len(rows), -1)) for part in parts]
    groups = near_groups(Points(parts), parts[0])
    first = groups.index[groups.group[len(train):]] - len(train)  # of each held-out point's group
    return np.unique(first[first >= 0]), int(np.count_nonzero(first < 0))


def _sweep(centres: Centres, queries: Sequence[Queries], options: Options, passes: list[list[slice]],
           kept: list[list[Piece]] | None, run: Run) -> None:
    """Read and measure all; the pieces of each block of centres go to ``kept``."""
    blocks, group, total = centres.blocks, options.group, sum(map(len, queries))
    if group is not None:
        require_same((centres.digest(), [part.digest() for part in queries], options.seed, len(passes)), group)
        blocks = blocks[group.rank()::group.size()]
    steps, done, spread = len(passes) * max(1, len(blocks)), 0, 0.0
    for part in queries:
        if part.noisy:
            part.noisy.noise.squared_radius  # noqa: B018 - drawn before threads ask for it
    pool = NoisePool.draw(centres, options.seed, [part.noisy.noise for part in queries if part.noisy], run)
    for rows in passes:
        _begin(queries, rows)
        reader = _Reader(centres, blocks, pool)
        reader.read()
        tiles = _tiles(centres, queries, rows, pool, run)
        while (block := reader.block) is not None:
            run([partial(block.prepare, part) for part in block.parts()])
            spread = max(spread, largest_norm(block.rows, *(tile.points for _, tile in tiles)))
            require_spread(spread)
            between = block.own_distances(run) if any(part.are_all(centres) for part in queries) else None
            pieces: list[Piece] = []
            run([reader.read, *(partial(_measure, part, tile, block, between if part.are_all(centres) else None,
                                        pieces) for part, tile in tiles)])
            if kept is not None:
                kept.append(pieces)
            done += 1
            if options.progress:
                options.progress(round(done / steps * total), total)
        _end(queries, rows, group, run)


def _begin(queries: Sequence[Queries], rows: Sequence[slice]) -> None:
    for part, own_rows in zip(queries, rows, strict=True):
        for collector in part.collectors():
            collector.begin(own_rows)


def _end(queries: Sequence[Queries], rows: Sequence[slice], group: ProcessGroup | None, run: Run) -> None:
    """All centres have been shown to these rows of the queries."""
    if group is not None:
        reduce([sums for part in queries for collector in part.collectors() for sums in collector.parts()], group)
    run([partial(collector.finish, tile) for part, own_rows in zip(queries, rows, strict=True)
         for tile in runs(own_rows.start, own_rows.stop, TILE) for collector in part.collectors()])
    for part in queries:
        for collector in part.collectors():
            collector.end()


class _Reader:
    """Reads one block ahead: ``block`` is the next one, None after the last."""

    def __init__(self, centres: Centres, blocks: list[slice], pool: NoisePool) -> None:
        self._centres, self._left, self._pool = centres, iter(blocks), pool
        self.block: Block | None = None

    def read(self) -> None:
        columns = next(self._left, None)
        self.block = None if columns is None else self._centres.block(columns, self._pool)


def _tiles(centres: Centres, queries: Sequence[Queries], rows: list[slice], pool: NoisePool,
           run: Run) -> list[tuple[Queries, Tile]]:
    """All tiles of a pass."""
    wanted = [(part, tile) for part, own_rows in zip(queries, rows, strict=True)
              for tile in runs(own_rows.start, own_rows.stop, TILE)]
    tiles: dict[int, tuple[Queries, Tile]] = {}

    def make(place: int) -> None:
        part, tile = wanted[place]
        tiles[place] = part, part.tile(tile, centres, pool)

    run([partial(make, place) for place in range(len(wanted))])
    return [tiles[place] for place in range(len(wanted))]


def _measure(part: Queries, tile: Tile, block: Block, between: torch.Tensor | None, pieces: list[Piece]) -> None:
    """Show one block of centres to one tile of queries; ``between``: the distances of all centres, where known."""
    a = block.squared_distances(tile) if between is None else between[tile.rows].clone()
    own = None if tile.own is None else block.owners(tile)
    piece = Piece(tile.rows, block.columns, a, own, tile.products, block.products, block.pool.norm)
    _show(part, piece)
    pieces.append(piece)


def _show(part: Queries, piece: Piece) -> None:
    """Show what was measured to the collectors."""
    a = piece.a
    if part.distances:
        part.distances.add(piece.rows, piece.columns, a)
    if part.noisy is None or piece.products is None:
        return
    if piece.own is not None:
        a[piece.own] = torch.inf
    noise, start = part.noisy.noise, piece.rows.start
    for rows in _noise_runs(piece.rows, noise, a):
        vectors, c = noise.vectors(rows), noise.squared_radius[rows]
        here = slice(rows.start - start, rows.stop - start)
        length = c.sqrt() / piece.norm[vectors].view(c.shape)
        b = piece.products[here, :, None] - piece.centre_products[vectors].view(*c.shape, -1)
        part.noisy.add(rows, piece.columns, a[here], b.mul_(length[:, :, None]).float(), c)
    if piece.own is not None:
        a[piece.own] = 0


def _noise_runs(rows: slice, noise: QueryNoise, a: torch.Tensor) -> Iterator[slice]:
    """Cut a tile into runs of queries whose noise vectors follow each other in the pool, of a length that suits
    elementwise operations.
    """
    entries = CPU_ENTRIES if a.device.type == "cpu" else GPU_ENTRIES
    for turn in runs(rows.start, rows.stop, noise.groups):
        yield from runs(turn.start, turn.stop, max(1, entries // (noise.draws * a.shape[1])))


def _passes(centres: Centres, queries: Sequence[Queries], memory: int,
            searched: int) -> tuple[list[list[slice]], bool, int]:
    """For each pass the rows of each of the queries, as few passes as fit in the memory, whether there is room for
    what is measured in a single one, and the bytes that it all takes beside the points.
    """
    tiles = [-(-len(part) // TILE) for part in queries]
    rows = [min(TILE, len(part)) for part in queries]  # of a tile
    each = [row * (8 * centres.dim + sum(collector.bytes_per_query() for collector in part.collectors()))
            for row, part in zip(rows, queries, strict=True)]
    collectors = [collector for part in queries for collector in part.collectors()]
    noises = [part.noisy.noise for part in queries if part.noisy]
    vectors = max((noise.groups * noise.draws for noise in noises), default=0)
    draws = max((noise.draws for noise in noises), default=0)
    width = max(block.stop - block.start for block in centres.blocks)
    # Two blocks as read and centred, all distances within one, the noise vectors and their products, the radii, and
    # what each thread works on: distances and float64 points of a tile, projections of a run, what it sorts.
    fixed = (20 * width * centres.dim + 4 * width**2 + 8 * vectors * (2 * width + centres.dim)
             + sum(8 * noise.queries * noise.draws for noise in noises)
             + sum(collector.bytes_held() for collector in collectors)
             + torch.get_num_threads() * max(
                 min(TILE, max(width, *rows)) * (24 * width + 16 * centres.dim) + 32 * max(CPU_ENTRIES, draws * width),
                 *(collector.bytes_per_thread() for collector in collectors)))

    def needed(count: int) -> int:
        return max(searched, fixed + sum(-(-n // count) * size for n, size in zip(tiles, each, strict=True)))

    count = next((count for count in range(1, max(tiles)) if needed(count) <= memory), max(tiles))
    if needed(count) > memory:
        raise InputError(f"the memory is limited to {memory / 2**20:,.0f} MiB; this needs "
                         f"{needed(count) / 2**20:,.0f} MiB beside the points: give more with --memory, or memory= in "
                         "Python")
    measured = 8 * vectors * len(centres) + sum(len(part) * (4 * len(centres) + 8 * draws) for part in queries)
    room = needed(1) + measured <= memory
    return [[slice(n * i // count * TILE, min(len(part), n * (i + 1) // count * TILE))
             for n, part in zip(tiles, queries, strict=True)] for i in range(count)], room, (
                 needed(count) + measured * room)
