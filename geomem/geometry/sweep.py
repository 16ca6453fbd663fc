"""The pass over the queries: makes a, b, c of ``projections`` piece by piece and hands them to collectors.

Memory is bounded: a chunk of queries by all centres for ``a``, a small block of queries by draws by centres
for ``b``. No result depends on the chunks: products have shapes of their own, and where a reduction could
depend on which queries stand together, the blocks are cut at fixed places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.points import as_tensor
from geomem.geometry.projections import TILE, Centres, NoisePool, QueryNoise, elementwise_rows, one_thread, runs

CHUNK_ENTRIES = 2**25  # float32 entries of the distances of one chunk (128 MiB)


class DistanceCollector(Protocol):
    """Takes ``a`` (queries, centres) of queries first, first + 1, ...; 0 at a training point's own centre."""

    def add(self, first: int, a: torch.Tensor) -> None: ...


class NoiseCollector(Protocol):
    """Takes ``a`` (queries, centres), ``b`` (queries, draws, centres), both float32, and ``c`` (queries,
    draws), float64, of queries first, first + 1, ...; ``a`` is inf at a training point's own centre.
    """

    noise: QueryNoise

    def add(self, first: int, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None: ...


def sweep(centres: Centres, heldout: np.ndarray | None, *, distances: DistanceCollector | None = None,
          noisy: NoiseCollector | None = None, pool: NoisePool | None = None, chunk_size: int | None = None,
          advance: Callable[[int], None] | None = None) -> None:
    """Go through the held-out points (n, d), or through the training points where ``heldout`` is None.

    ``noisy`` needs a ``pool``. ``chunk_size`` queries, rounded up to whole tiles, are held at a time.
    ``advance`` is called with the number of queries just done.
    """
    n = centres.n_train if heldout is None else len(heldout)
    own_products = pool.own_products(centres, noisy.noise, heldout) if pool and noisy else None
    for chunk in runs(0, n, chunk_rows(centres, chunk_size)):
        if heldout is None:
            own = torch.from_numpy(centres.member[chunk]).to(centres.device)[:, None]
            a = centres.squared_distances(centres.centred(centres.points[own[:, 0]]), own)
        else:
            a = centres.squared_distances(centres.centred(as_tensor(heldout[chunk])))
        if distances:
            distances.add(chunk.start, a)
        if pool and noisy and own_products is not None:
            if heldout is None:
                a.scatter_(1, own, torch.inf)
            noise = noisy.noise
            with one_thread():
                for block in fixed_blocks(chunk, noise, centres):
                    vectors = noise.vectors(block)
                    c = noise.squared_radius[block]
                    length = c.sqrt() / pool.norm[vectors].view(c.shape)
                    b = own_products[block, :, None] - pool.products[vectors].view(*c.shape, -1)
                    noisy.add(block.start, a[block.start - chunk.start:block.stop - chunk.start],
                              b.mul_(length[:, :, None]).float(), c)
        if advance:
            advance(len(a))


def fixed_blocks(chunk: slice, noise: QueryNoise, centres: Centres) -> Iterator[slice]:
    """Cut a chunk into blocks of queries whose noise vectors follow each other in the pool."""
    length = elementwise_rows(noise.draws * len(centres), centres.device)
    for tile in runs(chunk.start, chunk.stop, TILE):
        for turn in runs(tile.start, tile.stop, noise.groups):
            yield from runs(turn.start, turn.stop, length)


def chunk_rows(centres: Centres, chunk_size: int | None) -> int:
    """Queries held at a time, in whole tiles: by default one; up to 4 where the centres do not fit in one
    float64 block, so that they are converted less often.
    """
    if chunk_size is None:
        most = 1 if len(centres.blocks) == 1 else 4
        return TILE * min(most, max(1, CHUNK_ENTRIES // (TILE * len(centres))))
    if chunk_size < 1:
        raise InputError(f"chunk_size is {chunk_size}; give how many points to hold at a time, 1 or more")
    return -(-int(chunk_size) // TILE) * TILE
