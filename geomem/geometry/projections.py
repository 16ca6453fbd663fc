"""Squared distances and noise projections: the two products every curve is made of.

For a query ``y`` with noise ``Z`` and centres ``x_i`` (the distinct training points):

    a_i = |y - x_i|^2,    b_i = Z.(y - x_i),    c = |Z|^2,
    |y + sigma Z - x_i|^2 = (a_i + 2 sigma b_i) + sigma^2 c,

so one distance matrix and one noise product serve every noise level. The products are float64 and the data
are centred at the training mean first. An entry of ``a = |y|^2 + |x_i|^2 - 2 y.x_i`` is off by about 1e-15
times the squared norms; pairs so close that this could show in the seventh digit are measured directly. The
work per level after that is float32.

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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.points import as_tensor
from geomem.rng import generator

# Shapes of the matrix products follow from the data alone: the last bits of a product depend on its shape,
# and no result may depend on ``chunk_size``.
TILE = 256  # rows of one product
CENTRE_ENTRIES = 2**24  # float64 entries of one block of centres (128 MiB)
CLOSE = 2.0**-26  # squared distances below this times |y|^2 are measured directly
POOL_ENTRIES = 2**26  # float64 entries of the noise pool, and of its product with the centres (512 MiB)
# 256 directions add 7% to the standard error of W around the crossing on CIFAR-10 (1,000 images), and nothing
# to that of coverage; 1,024 would double the time.
POOL_VECTORS = 256


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
    """The distinct training points and their float64 products with other points.

    Attributes: ``dim``; ``n_train``, counted with copies; ``member`` (n_train,), the centre that each
    training point is; ``count`` (n_centres,), how often each occurs; ``distinct``, whether each occurs once.
    """

    def __init__(self, train: np.ndarray, device: torch.device) -> None:
        if len(train) < 2:
            raise InputError(f"train has {len(train)} point; give at least 2")
        self.n_train, self.dim = train.shape
        seen: dict[bytes, int] = {}
        self.member = np.array([seen.setdefault(_digest(row), len(seen)) for row in train])
        self.count = np.bincount(self.member)
        self.distinct = len(self) == self.n_train
        points = train if self.distinct else train[np.unique(self.member, return_index=True)[1]]
        self.device = device
        self.points = as_tensor(points).to(device)
        self._mean = torch.from_numpy(train.mean(axis=0, dtype=np.float64)).to(device)
        self.blocks = list(runs(0, len(points), max(1, CENTRE_ENTRIES // self.dim)))
        self._squared_norm = torch.cat([squared_norms(block) for _, block in self._centred_blocks()])

    def __len__(self) -> int:
        return len(self.count)

    def centred(self, points: torch.Tensor) -> torch.Tensor:
        """Points (n, d) minus the training mean, float64."""
        return points.to(self.device, torch.float64) - self._mean

    @cached_property
    def _only_block(self) -> torch.Tensor:
        return self.centred(self.points)

    def _centred_blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for block in self.blocks:
            yield block, self._only_block if len(self.blocks) == 1 else self.centred(self.points[block])

    def products(self, left: torch.Tensor) -> torch.Tensor:
        """``left . (x_i - mean)`` for float64 rows ``left`` (n, d): (n, n_centres) float64."""
        out = torch.empty(len(left), len(self), dtype=torch.float64, device=self.device)
        for columns, block in self._centred_blocks():
            for rows in runs(0, len(left), TILE):
                torch.matmul(left[rows], block.T, out=out[rows, columns])
        return out

    def squared_distances(self, centred: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
        """``a``: squared distances of centred float64 points (n, d) to the centres, (n, n_centres) float32.

        ``own`` (n, 1) is the centre that each point is, if it is one: exactly 0 there.
        """
        gram = self.products(centred)
        norm = squared_norms(centred)[:, None]
        out = torch.empty(gram.shape, dtype=torch.float32, device=self.device)
        with one_thread():
            for rows in runs(0, len(gram), elementwise_rows(len(self), self.device)):
                a = torch.add(self._squared_norm, gram[rows], alpha=-2).add_(norm[rows])
                if own is not None:
                    a.scatter_(1, own[rows], torch.inf)
                close = a < CLOSE * norm[rows]
                if close.any():
                    self._measure(a, close, centred[rows])
                if own is not None:
                    a.scatter_(1, own[rows], 0)
                out[rows] = a.clamp_(min=0)
        return out

    def _measure(self, a: torch.Tensor, where: torch.Tensor, centred: torch.Tensor) -> None:
        """Put directly measured squared distances in ``a`` at the places ``where``."""
        row, centre = where.nonzero(as_tuple=True)
        for part in runs(0, len(row), max(1, CENTRE_ENTRIES // self.dim)):
            difference = centred[row[part]] - self.centred(self.points[centre[part]])
            a[row[part], centre[part]] = squared_norms(difference)


def _digest(row: np.ndarray) -> bytes:
    return sha256((row + 0.0).data).digest()  # + 0.0 makes -0.0 equal to 0.0


def elementwise_rows(row_entries: int, device: torch.device) -> int:
    """Rows that one elementwise operation should take, at least 1: 2^15 entries on the CPU, which stay in the
    cache, 2^24 elsewhere.
    """
    return max(1, 2**(15 if device.type == "cpu" else 24) // row_entries)


@contextmanager
def one_thread() -> Iterator[None]:
    """Many short elementwise operations run on one CPU thread.

    Waiting for a second thread costs more than it saves at these sizes, and a thousand times more where another
    program keeps the second core busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
        vectors = min(POOL_VECTORS, POOL_ENTRIES // max(centres.dim, len(centres)))
        groups = max(1, min(n_queries, vectors // draws))
        squared = generator(seed, purpose).chisquare(centres.dim, size=(n_queries, draws))
        return cls(draws, groups, torch.from_numpy(squared).to(centres.device))

    def vectors(self, block: slice) -> slice:
        """Noise vectors of a block of queries that does not cross a multiple of ``groups``."""
        first = block.start % self.groups
        return slice(first * self.draws, (first + block.stop - block.start) * self.draws)


@dataclass(frozen=True)
class NoisePool:
    """P noise vectors V (P, d), their norms (P,) and products with the centres (P, n_centres), float64."""

    vectors: torch.Tensor
    norm: torch.Tensor
    products: torch.Tensor

    @classmethod
    def draw(cls, centres: Centres, seed: int, *noises: QueryNoise) -> NoisePool:
        """The vectors that these queries need."""
        vectors = torch.from_numpy(noise_vectors(seed, max(noise.groups * noise.draws for noise in noises),
                                                 centres.dim)).to(centres.device)
        return cls(vectors, squared_norms(vectors).sqrt(), centres.products(vectors))

    def own_products(self, centres: Centres, noise: QueryNoise, heldout: np.ndarray | None) -> torch.Tensor:
        """``V.(y - mean)`` of each query with its own vectors: (queries, draws) float64.

        The queries are the held-out points (n, d), or the training points where None.
        """
        groups, draws = noise.groups, noise.draws
        if heldout is None:
            vector = np.arange(centres.n_train)[:, None] % groups * draws + np.arange(draws)
            return self.products[torch.from_numpy(vector).to(centres.device),
                                 torch.from_numpy(centres.member[:, None]).to(centres.device)]
        vectors = self.vectors[:groups * draws].view(groups, draws, centres.dim)
        parts = []
        for part in runs(0, len(heldout), max(1, CENTRE_ENTRIES // (groups * centres.dim)) * groups):
            queries = centres.centred(as_tensor(heldout[part]))
            turns = -(-len(queries) // groups)  # times all groups are gone through
            padded = torch.nn.functional.pad(queries, (0, 0, 0, turns * groups - len(queries)))
            products = vectors @ padded.view(turns, groups, centres.dim).permute(1, 2, 0)
            parts.append(products.permute(2, 0, 1).reshape(-1, draws)[:len(queries)])
        return torch.cat(parts)


def noise_vectors(seed: int, count: int, dim: int) -> np.ndarray:
    """The first ``count`` shared vectors V of this seed, (count, dim) float64."""
    return np.stack([generator(seed, "geometry noise", j).standard_normal(dim) for j in range(count)])
