"""What the curves of a data set cost, known before they are measured: operations, memory, and seconds on this machine.

For N training points of d values, Q and Q' training and held-out queries with s and s' draws, L levels and P shared
noise vectors, one pass over the training points (``sweep``) takes

    2 N d (Q + Q')                      operations of the products for the distances, float32 as a rule
    2 N d P + 2 d (Q s + Q' s')         of those for the noise, float64
    N (Q s L + c (Q s + Q' s') + ...)   steps of elementwise work: a level of one query, draw and training point each

K processes share the N points. Refinement adds levels in two more passes, which repeat the products unless the memory
holds what was measured. The work beside W's levels is counted in the same steps, by factors fitted to measured runs
(``bin/benchmark cost``), as is the share of its levels that W looks at. Seconds follow from the rates of the sweep's
own operations in its own shapes, measured when they are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from geomem.duplicates import ASKED
from geomem.geometry.bounds import BoundSums
from geomem.geometry.coverage import CoverageSums
from geomem.geometry.curves import DELTA, Q
from geomem.geometry.posterior import PosteriorSums, weight_sums
from geomem.geometry.projections import CENTRE_ENTRIES, CENTRE_ROWS, POOL_VECTORS, TILE
from geomem.geometry.sweep import CPU_ENTRIES, GPU_ENTRIES, Sweep
from geomem.geometry.thresholds import ThresholdSums
from geomem.geometry.workers import workers
from geomem.points import runs

ADDED_LEVELS, PASSES = 25, 3  # of refinement, and of all with it
LOOKED_AT = 0.7  # of the first levels of W: further down a point's own weight is all
PROJECTION, COVERAGE, BOUND, THRESHOLD = 3.0, 5.0, 15.0, 9.0  # steps of an entry
VALUE, POINT = 38.0, 14_000.0  # steps that a value and a point take in the search for near-copies


class Work(NamedTuple):
    """Floating-point operations of float32 and float64 products, and steps of elementwise work; or so many a second."""

    products32: float
    products64: float
    steps: float


@dataclass(frozen=True)
class Cost:
    """Of the curves of ``n`` distinct training points of ``dim`` values, by one of ``processes`` that share them.

    queries, draws: of training and of held-out points. vectors: of the shared noise. passes: over the training points,
    as few as the memory allows. kept: whether it holds what refinement needs again. looks: whether W and C leave out
    what changes nothing, as on a CPU. bytes: beside the points, 0 where unknown.
    """

    n: float
    dim: int
    queries: tuple[int, int]
    draws: tuple[int, int] = (4, 8)
    levels: int = 40
    vectors: int = POOL_VECTORS
    passes: int = 1
    kept: bool = True
    processes: int = 1
    looks: bool = True
    bytes: int = 0

    @property
    def distances(self) -> float:
        """Operations of the products for the distances; in each pass half of all where these are one block."""
        n, (own, other) = self.n / self.processes, self.queries
        pairs = own * n
        if own == self.n <= min(CENTRE_ROWS, CENTRE_ENTRIES // self.dim):
            pairs = self.passes * sum((part.stop - part.start) * (own - part.start) for part in runs(0, own, TILE))
        return 2.0 * self.dim * (pairs + n * other)

    @property
    def noise(self) -> float:
        """Operations of the products with the noise."""
        drawn = sum(queries * draws for queries, draws in zip(self.queries, self.draws, strict=True))
        return 2.0 * self.dim * (self.passes * self.vectors * self.n / self.processes + drawn)

    def work(self, *, refined: bool = True) -> Work:
        """Of curves, bounds and thresholds, and of the search for near-copies before."""
        times, added = (PASSES, ADDED_LEVELS) if refined else (1, 0)
        own, other = (self.n / self.processes * queries for queries in self.queries)
        weighed, covered = own * self.draws[0], other * self.draws[1]
        steps = (THRESHOLD * own + (VALUE * self.dim + POINT) * self.n + times * PROJECTION * (weighed + covered)
                 + added * weighed)
        if self.looks:
            steps += LOOKED_AT * self.levels * weighed + times * (COVERAGE * covered + BOUND * other)
        else:
            steps += self.levels * weighed + (self.levels + added) * (covered + other)
        products = 1 if self.kept else times
        search = 4.0 * self.dim * min(ASKED, self.n) ** 2
        return Work(products * self.distances, products * self.noise + search, steps)

    def seconds(self, rates: Work, *, refined: bool = True) -> float:
        """Of one process at these rates."""
        return sum(work / rate for work, rate in zip(self.work(refined=refined), rates, strict=True))


def curves_cost(sweep: Sweep, levels: int, processes: int = 1) -> Cost:
    """The cost of the curves of these points at so many levels; none is measured. Raises InputError where the memory is
    not enough.
    """
    sigma, options = np.ones(levels), sweep.options
    weights, coverage = PosteriorSums(sweep, sigma), CoverageSums(sweep, sigma)
    queries, passes, room, size = sweep.plan([ThresholdSums(sweep, Q, DELTA), weights],
                                             [BoundSums(sweep, sigma), coverage])
    vectors = max(noise.groups * noise.draws for noise in (weights.noise, coverage.noise))
    return Cost(len(sweep.centres), sweep.centres.dim, (len(queries[0]), len(queries[1])),
                (options.posterior_draws, options.coverage_draws), levels, vectors, len(passes), room and sweep.reuse,
                processes, sweep.centres.device.type == "cpu", size)


def rates(sweep: Sweep, clock: Callable[[], float] = time.perf_counter) -> Work:
    """Operations and steps a second, of all threads together, in the shapes of the sweep: the best of three runs."""
    centres = sweep.centres
    device, dim, cpu = centres.device, centres.dim, centres.device.type == "cpu"
    width, sigma = min(len(centres), CENTRE_ROWS, CENTRE_ENTRIES // dim), np.ones(8)
    rows = torch.rand(max(width, TILE), dim, device=device, dtype=centres.precision)
    pool = torch.rand(POOL_VECTORS, dim, device=device, dtype=torch.float64)
    a = torch.ones(max(1, (CPU_ENTRIES if cpu else GPU_ENTRIES) // (4 * width)), width, device=device)
    b = torch.zeros(len(a), 4, width, device=device)
    pieces = torch.get_num_threads() if cpu else 1  # of one thread each

    def best(piece: Callable[[], object], size: float) -> float:
        seconds = []
        for _ in range(3):
            started = clock()
            run([piece] * pieces)
            a[0, 0].item()  # waits for a GPU
            seconds.append(clock() - started)
        return pieces * size / max(min(seconds), 1e-9)

    with workers(device) as run:
        return Work(best(lambda: torch.addmm(rows[:width, 0], rows[:TILE], rows[:width].T), 2.0 * TILE * width * dim),
                    best(lambda: pool @ rows[:TILE].double().T, 2.0 * TILE * POOL_VECTORS * dim),
                    best(lambda: weight_sums(a, b, None, sigma), float(len(sigma) * b.numel())))
