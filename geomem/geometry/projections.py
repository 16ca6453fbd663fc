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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.points import PointSource
from geomem.geometry.workers import Run, workers
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
POOL_TILE = 64  # vectors of one product


def runs(start: int, stop: int, length: int) -> Iterator[slice]:
    """Cut [start, stop) at the multiples of ``length``."""
    while start < stop:
        end = min(stop, (start // length + 1) * length)
        yield slice(start, end)
        start = end


def squared_norms(points: torch.Tensor) -> torch.Tensor:
    """``|p|^2`` of each row."""
    return torch.linalg.vecdot(points, points)


class Centres:
    """The distinct training points.

    Attributes: ``n_train``, counted with copies; ``dim``; ``member`` (n_train,), the centre that each training
    point is; ``count`` (n_centres,), how often each occurs; ``distinct``, whether each occurs once; ``blocks``,
    the slices of centres that are worked on together.
    """

    def __init__(self, train: PointSource, device: torch.device) -> None:
        self.n_train, self.dim = train.shape
        if self.n_train < 2:
            raise InputError(f"train has {self.n_train} point; give at least 2")
        self.device, self._train, self._precisions = device, train, product_precisions(device)
        read = list(runs(0, self.n_train, max(1, READ_ENTRIES // self.dim)))
        totals = np.empty((len(read), self.dim))
        digests: list[list[bytes]] = [[] for _ in read]

        def summarize(place: int) -> None:
            points = train.take(read[place])
            totals[place] = points.sum(axis=0, dtype=np.float64)
            points = points + 0.0  # makes -0.0 equal to 0.0
            digests[place] = [sha256(row.data).digest() for row in points]

        with workers(device) as run:
            run([partial(summarize, place) for place in range(len(read))])
        seen: dict[bytes, int] = {}
        self.member = np.array([seen.setdefault(digest, len(seen)) for part in digests for digest in part])
        self.count = np.bincount(self.member)
        self.distinct = len(self) == self.n_train
        self._first = None if self.distinct else np.unique(self.member, return_index=True)[1]
        self._mean = torch.from_numpy(totals.sum(axis=0) / self.n_train).to(device)
        self.blocks = list(runs(0, len(self), max(1, min(CENTRE_ROWS, CENTRE_ENTRIES // self.dim))))

    def __len__(self) -> int:
        return len(self.count)

    def digest(self) -> bytes:
        """Of the training points, to tell one training set from another."""
        return sha256(self.member.tobytes() + self._mean.cpu().numpy().tobytes()).digest()

    def centred(self, points: np.ndarray) -> Centred:
        """Points (n, d) minus the training mean, on the device."""
        # A read-only array (of a memory map) is copied: torch knows no read-only tensors.
        tensor = torch.from_numpy(points if points.flags.writeable else points.copy())
        exact = tensor.to(self.device, torch.float64) - self._mean
        norm = squared_norms(exact)
        return Centred({dtype: (exact.to(dtype), norm.to(dtype)) for dtype in self._precisions})

    def block(self, columns: slice) -> Block:
        """The centres of this slice."""
        return Block(columns, self.centred(self._train.take(columns if self._first is None else self._first[columns])))


class Centred(dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]]):
    """Centred points (n, d) and their squared norms (n,) in each precision that products are made in, the fast one
    first and float64 last.
    """

    @property
    def exact(self) -> torch.Tensor:
        """The points in float64."""
        return self[torch.float64][0]


def product_precisions(device: torch.device) -> tuple[torch.dtype, ...]:
    """float64 alone on GPUs that are made for it, else float32 before it, unless that means TF32."""
    if device.type == "cuda" and (torch.cuda.get_device_capability(device)[1] == 0
                                  or torch.backends.cuda.matmul.allow_tf32):
        return (torch.float64,)
    return torch.float32, torch.float64


@dataclass(frozen=True)
class Block:
    """Some of the centres: which (``columns``), and their ``points``."""

    columns: slice
    points: Centred

    def __len__(self) -> int:
        return self.columns.stop - self.columns.start

    def squared_distances(self, tile: Tile) -> torch.Tensor:
        """``a`` of these queries and centres, (queries, centres) float32; exactly 0 at a query's own centre."""
        for precision, (centre, centre_norm) in self.points.items():
            query, norm = tile.points[precision]
            a = torch.addmm(centre_norm, query, centre.T, alpha=-2).add_(norm[:, None])
            if tile.own is not None:
                a[self.owners(tile)] = torch.inf
            row, place = (a < CLOSE[precision] * norm[:, None]).nonzero(as_tuple=True)
            if len(row) <= MOST_CLOSE * a.numel():
                break
        for part in runs(0, len(row), max(1, READ_ENTRIES // centre.shape[1])):
            a[row[part], place[part]] = squared_norms(tile.points.exact[row[part]]
                                                      - self.points.exact[place[part]]).to(a.dtype)
        if tile.own is not None:
            a[self.owners(tile)] = 0
        return a.clamp_(min=0).float()

    def owners(self, tile: Tile) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries of the tile that are centres of this block, and which: rows and columns of ``a``."""
        assert tile.own is not None
        row = ((tile.own >= self.columns.start) & (tile.own < self.columns.stop)).nonzero()[:, 0]
        return row, tile.own[row] - self.columns.start


@dataclass(frozen=True)
class Tile:
    """Some queries that are worked on together.

    ``rows``: which; ``points``; ``own`` (queries,), the centre each query is, None for held-out ones; ``products``
    (queries, draws), ``V.(y - mean)`` of each with its own noise vectors, None where there is no noise.
    """

    rows: slice
    points: Centred
    own: torch.Tensor | None
    products: torch.Tensor | None


@dataclass(frozen=True)
class QueryNoise:
    """Which noise each query has: one of ``groups`` groups of ``draws`` vectors, and ``squared_radius`` R^2
    (queries, draws) float64.
    """

    draws: int
    groups: int
    squared_radius: torch.Tensor

    @classmethod
    def assign(cls, purpose: str, n_queries: int, draws: int, centres: Centres, seed: int) -> QueryNoise:
        """Noise for ``n_queries`` queries; the radii are the stream (seed, ``purpose``).

        P is 256, less where the queries need fewer or the pool would not fit, more where ``draws`` is more.
        """
        vectors = min(POOL_VECTORS, POOL_ENTRIES // centres.dim)
        groups = max(1, min(n_queries, vectors // draws))
        squared = generator(seed, purpose).chisquare(centres.dim, size=(n_queries, draws))
        return cls(draws, groups, torch.from_numpy(squared).to(centres.device))

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

        run([partial(fill, rows) for rows in runs(0, len(vectors), POOL_TILE)])
        shared = torch.from_numpy(vectors).to(centres.device)
        return cls(shared, squared_norms(shared).sqrt())

    def products(self, block: Block, run: Run) -> torch.Tensor:
        """``V.(x_i - mean)`` of all vectors and the centres of the block, (P, centres) float64."""
        out = torch.empty(len(self.vectors), len(block), dtype=torch.float64, device=self.vectors.device)
        run([partial(torch.matmul, self.vectors[rows], block.points.exact.T, out=out[rows])
             for rows in runs(0, len(out), POOL_TILE)])
        return out

    def own_products(self, points: torch.Tensor, first: int, noise: QueryNoise) -> torch.Tensor:
        """``V.(y - mean)`` of centred queries first, first + 1, ... (n, d) with their own vectors, (n, draws)."""
        groups, draws = noise.groups, noise.draws
        before = first % groups  # rows put before and after, so that each turn goes through all groups
        turns = -(-(before + len(points)) // groups)
        padded = torch.nn.functional.pad(points, (0, 0, before, turns * groups - before - len(points)))
        vectors = self.vectors[:groups * draws].view(groups, draws, -1)
        products = vectors @ padded.view(turns, groups, -1).permute(1, 2, 0)  # (groups, draws, turns)
        return products.permute(2, 0, 1).reshape(-1, draws)[before:before + len(points)]
