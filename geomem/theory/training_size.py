"""Coverage and the danger zone for every training set size, from one training set (Dodson et al. 2026, Thm 4.8, its
proof).

Let ``k`` of the N training points (copies counted) cover one noisy held-out point. A random n of the N miss it
with probability ``C(N-k, n) / C(N, n)``, so the coverage of a training set of n points, averaged over **all**
subsets of this one, is

    C_sigma(n) = 1 - E[ C(N-k, n) / C(N, n) ],    C(N-k, n) / C(N, n) = prod_{i<k} (1 - n/(N-i)),

the finite form of ``E_D[C_sigma] = 1 - E[(1 - p_sigma(Y_sigma))^N]``. One pass over the data counts k. At n = N
it is coverage itself (Dodson et al. 2026, Def. 4.6). The intervals are for other held-out points and other noise, given
this training set; the smaller n, the less the choice of the training set matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.coverage import shell_edges
from geomem.geometry.options import MEMORY, Options, as_draws, as_sigmas
from geomem.geometry.projections import QueryNoise
from geomem.geometry.sweep import NoiseCollector, Sweep
from geomem.geometry.workers import may_look
from geomem.statistics import Tally

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class CoverageBySize:
    """Coverage with ``sizes`` (n_sizes,) training points, ascending, at the noise levels ``sigma`` (levels,).

    ``estimate``, ``stderr`` and the 95% interval ``low``, ``high``: float64 arrays (n_sizes, levels).
    """

    sigma: np.ndarray
    sizes: np.ndarray
    estimate: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_train: int
    n_heldout: int
    draws: int


def as_sizes(sizes: Any, n_train: int, smallest: int = 1) -> np.ndarray:
    """Training set sizes, ascending, each once. Raises InputError unless whole and from ``smallest`` to N."""
    try:
        values = np.unique(np.asarray(sizes, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"sizes are not numbers ({error}); give whole numbers of training points") from error
    wrong = values[~((values >= smallest) & (values <= n_train) & (values == np.floor(values)))]
    if wrong.size or not values.size:
        what = f"holds {wrong[0]:g}" if wrong.size else "is empty"
        raise InputError(f"sizes {what}; give whole numbers of training points from {smallest} to {n_train:,}")
    return values.astype(np.int64)


def hit_probability(n_train: int, size: int) -> np.ndarray:
    """``1 - C(N-k, n) / C(N, n)`` for k = 0, ..., N: a random subset of ``size`` n of N = ``n_train`` points
    holds at least one of k marked ones. (N + 1,) float64; exactly 0 at k = 0 and 1 from k = N - n + 1 on.

    A sum of logarithms of one sign, so nothing cancels: the relative error is about k times 1e-16.
    """
    log_miss = np.full(n_train + 1, -np.inf)
    remaining = n_train - np.arange(n_train - size)  # N - i for i < N - n: beyond that no subset misses
    log_miss[0] = 0
    log_miss[1:n_train - size + 1] = np.cumsum(np.log1p(-size / remaining))
    return -np.expm1(log_miss)


class CoveringCounts(NoiseCollector):
    """Collects how many training points, copies counted, cover each noisy held-out point."""

    def __init__(self, sweep: Sweep, sigma: np.ndarray) -> None:
        centres, options, n = sweep.centres, sweep.options, len(sweep.heldout_rows)
        # The noise of ``shell_coverage``, so that the two agree at n = N.
        self.noise = QueryNoise("coverage radius", n, options.coverage_draws, centres, options.seed)
        self.sigma, self.dim, self.shell_t = sigma, centres.dim, options.shell_t
        self._shape = n, options.coverage_draws, len(sigma)
        self._device = centres.device
        self._copies = None if centres.distinct else torch.from_numpy(centres.count).to(centres.device)

    def bytes_held(self) -> int:
        """Of the counts, and of the probabilities looked up for them."""
        return 24 * math.prod(self._shape)

    def begin(self, rows: slice) -> None:
        """Held-out queries ``rows`` are next."""
        super().begin(rows)
        if rows.start == 0:
            self._counts = torch.zeros(self._shape, dtype=torch.int64, device=self._device)

    def add(self, rows: slice, columns: slice, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """Add some centres for some queries; the test and the stop are those of ``covered``."""
        for level, low, high in reversed(list(zip(range(len(self.sigma)), *shell_edges(c, self.sigma, self.dim,
                                                                                       self.shell_t), strict=True))):
            moved = torch.add(a[:, None], b, alpha=2 * float(self.sigma[level]))
            inside = (moved >= low.view(*c.shape, 1)) & (moved <= high.view(*c.shape, 1))
            self._counts[rows, :, level] += (inside if self._copies is None else inside * self._copies[columns]).sum(-1)
            if may_look(b) and (moved.amin(-1).view(-1) > high.clamp(min=0)).all():
                break

    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """The counts of one process."""
        return [("sum", self._counts[self.rows])]

    def counts(self) -> np.ndarray:
        """The counts, once all centres have been added, (n_heldout, draws, levels)."""
        return self._counts.cpu().numpy()


def coverage_by_training_size(train: Any, heldout: Any, sigmas: Any, sizes: Any, *, draws: int = 8,
                              shell_t: float = 5.0, seed: int = 0, queries: int | None = None, device: Any = "auto",
                              memory: int = MEMORY, group: ProcessGroup | None = None) -> CoverageBySize:
    """C_sigma with n training points for every n of ``sizes``, averaged over all subsets of ``train`` (Dodson et al.
    2026, Def. 4.6, proof of Thm 4.8), from one pass over the data.

    Arguments as for ``shell_coverage``, with which it agrees at n = N on the same seed; ``sizes`` whole numbers
    from 1 to N, in any order (ascending and each once in the result).
    Raises InputError for input that is not as described.
    """
    sigma = as_sigmas(sigmas)
    options = Options(coverage_draws=as_draws("draws", draws), shell_t=shell_t, queries=queries, seed=seed,
                      device=device, memory=memory, group=group)
    sweep = Sweep.of(train, heldout, options)
    n_train = len(sweep.train)
    sizes = as_sizes(sizes, n_train)
    covering = CoveringCounts(sweep, sigma)
    sweep.run(heldout=[covering])
    counts, parts = covering.counts(), []
    for size in sizes:
        tally = Tally(len(counts), counts.shape[1], covering.noise.groups, len(sigma))  # as for ``shell_coverage``
        tally.add(0, hit_probability(n_train, int(size))[counts])
        parts.append(tally.estimate(sigma, proportion=True))
    estimate, stderr, low, high = (np.stack([getattr(part, name) for part in parts])
                                   for name in ("estimate", "stderr", "low", "high"))
    return CoverageBySize(sigma, sizes, estimate, stderr, low, high, n_train, *counts.shape[:2])
