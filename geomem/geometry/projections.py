"""Squared distances and noise projections: the two products every curve is made of.

For a query ``y`` with noise ``Z`` and centres ``x_i`` (the distinct training points):

    a_i = |y - x_i|^2,    b_i = Z.(y - x_i),    c = |Z|^2,
    |y + sigma Z - x_i|^2 = (a_i + 2 sigma b_i) + sigma^2 c,

so one distance matrix and one noise product serve every noise level. The data are centred at the training mean
first. ``a = |y|^2 + |x_i|^2 - 2 y.x_i`` loses digits where it is small beside the norms. A float32 product of
images is off by 3e-8 of the norms (root mean square), so it serves where a is at least a quarter of |y|^2, and
closer pairs are measured directly; where many pairs are that close the product is float64, off by 1e-15, and only
pairs below 2^-26 |y|^2 are measured. b is a difference of float64 products. The work per level is float32.

Equal rows are one centre with a count. Copies of a point are then at distance exactly 0 from each other, and
``w_i = 1/2`` comes out exactly for a training set given twice.

Noise. ``Z = R V/|V|`` with V one of P shared normal vectors and ``R^2`` chi-square with d degrees of freedom,
drawn anew for each (query, draw): again exactly N(0, I). Only directions are shared, so P x N x d operations
serve all queries; sharing the lengths too would make whole groups of queries fall out of the shells together
(for coverage on CIFAR-10, P = 256, up to 5 times the variance). Vector j is the stream
(seed, "geometry noise", j); with G groups of ``draws`` vectors each, query k uses group k mod G.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.workers import Run, workers
from geomem.points import Points, fingerprints, first_equal, runs
from geomem.rng import generator

# Shapes of the matrix products follow from the data alone: the last bits of a product depend on its shape,
# and no result may depend on the memory, the threads or the processes at hand.
TILE = 256  # query rows of one product
CENTRE_ROWS = 4096  # of one block of centres, fewer where they would take more than
CENTRE_ENTRIES = 2**24  # float64 entries (128 MiB)
READ_ENTRIES = 2**20  # entries read at once where no product is made
# Squared distances below this times |y|^2 are measured directly, whatever the product says.
CLOSE = {torch.float32: 0.25, torch.float64: 2.0**-26}
MOST_CLOSE = 1 / 64  # of the pairs, beyond which a float64 product is cheaper than measuring
# 256 directions add 7% to the standard error of W around the crossing on CIFAR-10 (1,000 images), and nothing
# to that of coverage; 1,024 would double the time.
POOL_VECTORS = 256
POOL_ENTRIES = 2**26  # float64 entries of the noise vectors (512 MiB)
SMALLEST_SPREAD, LARGEST_SPREAD = 1e-12, 1e12  # distances whose squares, and those of 1e-6 of them, are float32
POOL_PIECE = 64  # vectors drawn by one thread


def squared_norms(points: torch.Tensor) -> torch.Tensor:
    """``|p|^2`` of each row."""
    return torch.linalg.vecdot(points, points)


class Centres:
    """The distinct training points.

    Attributes: ``n_train``, counted with copies; ``dim``; ``member`` (n_train,), the centre that each training
    point is; ``count`` (n_centres,), how often each occurs; ``distinct``, whether each occurs once; ``blocks``,
    the slices of centres that are worked on together; ``weight`` (n_centres,), how many points each stands for where
    equal and near-equal ones were merged, else None.
    """

    def __init__(self, train: Points, device: torch.device, weight: np.ndarray | None = None) -> None:
        self.weight = weight
        self.n_train, self.dim = len(train), train.dim
        if self.n_train < 2:
            raise InputError(f"train has {self.n_train} point; give at least 2")
        self.device, self._train, self.precision = device, train, product_precision(device)
        pieces = list(train.blocks(READ_ENTRIES))
        totals, prints = np.empty((len(pieces), self.dim)), np.empty(self.n_train, dtype=np.uint64)

        def summarize(place: int) -> None:
            points = train.take(pieces[place])
            totals[place] = points.sum(axis=0, dtype=np.float64)
            prints[pieces[place]] = fingerprints(points)

        with workers(device) as run:
            run([partial(summarize, place) for place in range(len(pieces))])
        self._first, self.member = np.unique(first_equal(train, prints), return_inverse=True)
        self.count = np.bincount(self.member)
        self.distinct = len(self) == self.n_train
        self._mean = torch.from_numpy(totals.sum(axis=0) / self.n_train).to(device)
        self.blocks = list(runs(0, len(self), max(1, min(CENTRE_ROWS, CENTRE_ENTRIES // self.dim))))

    def __len__(self) -> int:
        return len(self.count)

    def digest(self) -> bytes:
        """Of the training points, to tell one training set from another."""
        return sha256(self.member.tobytes() + self._mean.cpu().numpy().tobytes()).digest()

    def rows(self, points: np.ndarray) -> Rows:
        """Points (n, d), on the device, with room for their centred values."""
        # A read-only array (of a memory map) is copied: torch knows no read-only tensors.
        given = torch.from_numpy(points if points.flags.writeable else points.copy()).to(self.device)
        return Rows(given, self._mean, torch.empty(given.shape, dtype=self.precision, device=self.device),
                    torch.empty(len(given), dtype=self.precision, device=self.device))

    def block(self, columns: slice, pool: NoisePool) -> Block:
        """The centres of this slice, read but not yet prepared."""
        rows = self.rows(self._train.take(columns if self.distinct else self._first[columns]))
        return Block(columns, rows, pool, torch.empty(len(pool.vectors), len(rows.norm), dtype=torch.float64,
                                                      device=self.device))


def product_precision(device: torch.device) -> torch.dtype:
    """Of the distances: float64 on GPUs that are made for it, and where torch was told to round float32 products."""
    if device.type == "cpu":
        factor = torch.full((64, 64), 1 + 2.0**-12)  # which TF32 and bfloat16 take for 1
        rounds = float((factor @ factor)[0, 0]) < 64 * (1 + 2.0**-12)
    else:
        rounds = device.type == "cuda" and (torch.cuda.get_device_capability(device)[1] == 0
                                            or torch.backends.cuda.matmul.allow_tf32)
    return torch.float64 if rounds else torch.float32


@dataclass(frozen=True)
class Rows:
    """Points as given (n, d), and minus the training mean with squared norms (n,), in the precision of products."""

    given: torch.Tensor
    mean: torch.Tensor
    centred: torch.Tensor
    norm: torch.Tensor

    def exact(self, part: slice) -> torch.Tensor:
        """Some of them minus the mean, float64."""
        return torch.sub(self.given[part], self.mean)  # float64, as the mean is

    def prepare(self, part: slice) -> torch.Tensor:
        """``exact``, and the centred values and norms of this part from now on."""
        exact = self.exact(part)
        self.centred[part], self.norm[part] = exact, squared_norms(exact)
        return exact


def largest_norm(*rows: Rows) -> float:
    """The largest distance of any of these points to the training mean."""
    largest = max((float(part.norm.max()) for part in rows), default=0.0) ** 0.5
    if largest == 0:  # all equal, or so close that their squares are 0
        largest = max((float(part.centred.abs().max()) for part in rows), default=0.0)
    return largest


def require_spread(spread: float) -> None:
    """Raises InputError where squares of such distances leave float32. All points may be equal."""
    if not (spread == 0 or SMALLEST_SPREAD <= spread <= LARGEST_SPREAD):
        raise InputError(f"the points lie up to {spread:.3g} from the mean of the training points; multiply them (and "
                         f"sigma) by a number that brings this between {SMALLEST_SPREAD:g} and {LARGEST_SPREAD:g}")


@dataclass(frozen=True)
class Block:
    """Some of the centres: which (``columns``), the points, and ``products`` (P, centres) float64, ``V.(x_i - mean)``
    of the vectors of the ``pool``; ready once all of its ``parts`` are prepared.
    """

    columns: slice
    rows: Rows
    pool: NoisePool
    products: torch.Tensor

    def parts(self) -> list[slice]:
        """The slices of ``rows`` that are prepared together."""
        return list(runs(0, len(self.rows.norm), TILE))

    def prepare(self, part: slice) -> None:
        """Centre these rows and multiply them with the noise vectors."""
        self.products[:, part] = self.pool.vectors @ self.rows.prepare(part).T

    def squared_distances(self, tile: Tile) -> torch.Tensor:
        """``a`` of these queries and centres, (queries, centres) float32; exactly 0 at a query's own centre."""
        own = None if tile.own is None else self.owners(tile)
        return self._squared_distances(tile.points, slice(0, len(tile.points.norm)), 0, own)

    def own_distances(self, run: Run) -> torch.Tensor:
        """``a`` between all centres of the block, (centres, centres) float32, each pair computed once."""
        centres = len(self.rows.norm)
        a = torch.empty(centres, centres, device=self.rows.norm.device)

        def fill(part: slice) -> None:
            own = torch.arange(part.stop - part.start, device=a.device)
            right = self._squared_distances(self.rows, part, part.start, (own, own))
            a[part, part.start:] = right
            a[part.stop:, part] = right[:, part.stop - part.start:].T

        run([partial(fill, part) for part in self.parts()])
        return a

    def _squared_distances(self, queries: Rows, part: slice, start: int,
                           own: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """``a`` of some queries and the centres from ``start`` on; ``own``: the places of the queries' own centres."""
        centres, rest = self.rows, slice(start, len(self.rows.norm))
        a, close = _expanded(queries.centred[part], queries.norm[part], centres.centred[rest], centres.norm[rest], own)
        if len(close[0]) > MOST_CLOSE * a.numel() and a.dtype != torch.float64:
            query, centre = queries.exact(part), centres.exact(rest)
            a, close = _expanded(query, squared_norms(query), centre, squared_norms(centre), own)
        row, place = close
        for piece in runs(0, len(row), max(1, READ_ENTRIES // centres.given.shape[1])):
            difference = queries.given[part][row[piece]].double() - centres.given[rest][place[piece]]
            a[row[piece], place[piece]] = squared_norms(difference).to(a.dtype)
        if own is not None:
            a[own] = 0
        return a.clamp_(min=0).float()

    def owners(self, tile: Tile) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries of the tile that are centres of this block, and which: rows and columns of ``a``."""
        assert tile.own is not None
        row = ((tile.own >= self.columns.start) & (tile.own < self.columns.stop)).nonzero()[:, 0]
        return row, tile.own[row] - self.columns.start


def _expanded(query: torch.Tensor, query_norm: torch.Tensor, centre: torch.Tensor, centre_norm: torch.Tensor,
              own: tuple[torch.Tensor, torch.Tensor] | None) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """``|y|^2 + |x_i|^2 - 2 y.x_i``, inf at own centres, and the places where it is too small to be trusted."""
    a = torch.addmm(centre_norm, query, centre.T, alpha=-2).add_(query_norm[:, None])
    if own is not None:
        a[own] = torch.inf
    row, place = (a < CLOSE[a.dtype] * query_norm[:, None]).nonzero(as_tuple=True)
    return a, (row, place)


@dataclass(frozen=True)
class Tile:
    """Some queries that are worked on together.

    ``rows``: which; ``points``; ``own`` (queries,), the centre each query is, None for held-out ones; ``products``
    (queries, draws), ``V.(y - mean)`` of each with its own noise vectors, None where there is no noise.
    """

    rows: slice
    points: Rows
    own: torch.Tensor | None
    products: torch.Tensor | None


class QueryNoise:
    """Which noise each of ``queries`` has: one of ``groups`` groups of ``draws`` vectors, and R^2, the stream (seed,
    ``purpose``).

    P is 256, less where the queries need fewer or the pool would not fit, more where ``draws`` is more.
    """

    def __init__(self, purpose: str, queries: int, draws: int, centres: Centres, seed: int) -> None:
        self.draws = draws
        self.groups = max(1, min(queries, min(POOL_VECTORS, POOL_ENTRIES // centres.dim) // draws))
        self.queries, self._dim, self._device = queries, centres.dim, centres.device
        self._stream = seed, purpose

    @cached_property
    def squared_radius(self) -> torch.Tensor:
        """R^2, (queries, draws) float64."""
        squared = generator(*self._stream).chisquare(self._dim, size=(self.queries, self.draws))
        return torch.from_numpy(squared).to(self._device)

    def vectors(self, queries: slice) -> slice:
        """Noise vectors of a run of queries that does not cross a multiple of ``groups``."""
        first = queries.start % self.groups
        return slice(first * self.draws, (first + queries.stop - queries.start) * self.draws)


@dataclass(frozen=True)
class NoisePool:
    """P noise vectors V (P, d) and their norms (P,), float64."""

    vectors: torch.Tensor
    norm: torch.Tensor

    @classmethod
    def draw(cls, centres: Centres, seed: int, noises: list[QueryNoise], run: Run) -> NoisePool:
        """The vectors that these queries need."""
        vectors = np.empty((max((noise.groups * noise.draws for noise in noises), default=0), centres.dim))

        def fill(rows: slice) -> None:
            for j in range(rows.start, rows.stop):
                generator(seed, "geometry noise", j).standard_normal(out=vectors[j])

        run([partial(fill, rows) for rows in runs(0, len(vectors), POOL_PIECE)])
        shared = torch.from_numpy(vectors).to(centres.device)
        return cls(shared, squared_norms(shared).sqrt())

    def own_products(self, points: torch.Tensor, first: int, noise: QueryNoise) -> torch.Tensor:
        """``V.(y - mean)`` of centred queries first, first + 1, ... (n, d) with their own vectors, (n, draws)."""
        groups, draws = noise.groups, noise.draws
        before = first % groups  # rows put before and after, so that each turn goes through all groups
        turns = -(-(before + len(points)) // groups)
        padded = torch.nn.functional.pad(points, (0, 0, before, turns * groups - before - len(points)))
        vectors = self.vectors[:groups * draws].view(groups, draws, -1)
        products = vectors @ padded.view(turns, groups, -1).permute(1, 2, 0)  # (groups, draws, turns)
        return products.permute(2, 0, 1).reshape(-1, draws)[before:before + len(points)]
