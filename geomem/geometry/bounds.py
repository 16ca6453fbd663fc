"""Bounds on coverage from distances alone (Dodson et al. 2026, Def. 4.7, Thm 4.8).

    lower:          E_D[C_sigma] >= E[ g_sigma(R_NN) ],  R_NN from a held-out Y to its nearest training point
    plain upper:    E_D[C_sigma] <= min(1, N E[ g_sigma(|Y - X'|) ])
    sharper upper:  E[ min(1, sum_i g_sigma(|Y - x_i|)) ], the same proof given Y and D

Sums run over the distinct training points, since copies share their shell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.geometry import workers
from geomem.geometry.options import MEMORY, Options, as_sigmas
from geomem.geometry.shells import two_shell_table
from geomem.geometry.sweep import DistanceCollector, Sweep

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Ends of the runs of columns that are looked up together, fixed so that a sum does not depend on which rows
# stand together: a run is taken whole, or not at all where it is all zeros.
RUN_ENDS = 16 * 4 ** np.arange(20)


@dataclass(frozen=True)
class CoverageBounds:
    """Thm 4.8 at each noise level: ``lower``, ``upper`` (the sharper) and ``plain_upper``, (levels,)."""

    sigma: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    plain_upper: np.ndarray
    n_train: int
    n_heldout: int


def sorted_distances(a: torch.Tensor) -> torch.Tensor:
    """Distances from squared distances (n, m), each row ascending, float32."""
    if a.device.type == "cpu":  # NumPy sorts rows several times faster than torch here
        return torch.from_numpy(np.sqrt(np.sort(a.numpy(), axis=1)))
    return a.sort(dim=1).values.sqrt()


class BoundSums(DistanceCollector):
    """Collects sums of g over the distances of the held-out queries."""

    def __init__(self, sweep: Sweep, sigma: np.ndarray) -> None:
        centres = sweep.centres
        self.sigma, self.n_heldout, self.n_train = sigma, len(sweep.heldout_rows), centres.n_train
        self._g = two_shell_table(centres.dim, sweep.options.shell_t)
        self._nearest = torch.full((self.n_heldout,), torch.inf, device=centres.device)
        self._sum = torch.zeros(self.n_heldout, len(sigma), dtype=torch.float64, device=centres.device)

    def add(self, rows: slice, columns: slice, a: torch.Tensor) -> None:
        """Add some centres for some queries."""
        if workers.may_look(a):
            self._add_sorted(rows, sorted_distances(a).numpy())
            return
        distances = a.sqrt()
        torch.minimum(self._nearest[rows], distances.amin(1), out=self._nearest[rows])
        for level, sigma in enumerate(self.sigma):
            self._sum[rows, level] += self._g.of_tensor(distances / float(sigma)).sum(1)

    def _add_sorted(self, rows: slice, distances: np.ndarray) -> None:
        """Add ascending distances (queries, centres), leaving out what changes nothing: far centres; all once the
        queries together reach their number, so that the plain bound is 1; and those of one query once its sum
        reaches 1, where its part of the sharper bound is 1.
        """
        known, nearest = self._sum[rows].numpy(), self._nearest[rows].numpy()
        np.minimum(nearest, distances[:, 0], out=nearest)
        closest = distances.min(axis=0)
        ends = np.append(RUN_ENDS[:np.searchsorted(RUN_ENDS, distances.shape[1])], distances.shape[1])
        for level, sigma in enumerate(self.sigma):
            total = known[:, level]
            start = 0
            for end in ends:
                if closest[start] >= self._g.cut * sigma:
                    break
                needed = np.flatnonzero(total < 1) if total.sum() >= self.n_heldout else np.arange(len(total))
                total[needed] += self._g(distances[needed, start:end] / sigma).sum(axis=1)
                start = end

    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """The sums of one process."""
        return [("min", self._nearest[self.rows]), ("sum", self._sum[self.rows])]

    @property
    def nearest(self) -> np.ndarray:
        """Distance of each held-out query to its nearest training point, (n_heldout,)."""
        return self._nearest.cpu().numpy().astype(np.float64)

    def bounds(self) -> CoverageBounds:
        """The three bounds, once all centres have been added."""
        total = self._sum.cpu().numpy()
        lower = self._g(self.nearest[:, None] / self.sigma).mean(axis=0)
        upper = np.minimum(total, 1).mean(axis=0)
        plain = np.minimum(total.mean(axis=0), 1)
        return CoverageBounds(self.sigma, lower, upper, plain, self.n_train, self.n_heldout)


def coverage_bounds(train: Any, heldout: Any, sigmas: Any, *, shell_t: float = 5.0, seed: int = 0,
                    queries: int | None = None, device: Any = "auto", memory: int = MEMORY,
                    group: ProcessGroup | None = None) -> CoverageBounds:
    """Lower and upper bounds on coverage (Dodson et al. 2026, Thm 4.8), with the exact g: no noise is drawn.

    Arguments as for ``shell_coverage``; ``seed`` only chooses the ``queries``. Raises InputError for what it refuses.
    """
    sigma = as_sigmas(sigmas)
    options = Options(shell_t=shell_t, queries=queries, seed=seed, device=device, memory=memory, group=group)
    sweep = Sweep.of(train, heldout, options)
    sums = BoundSums(sweep, sigma)
    sweep.run(heldout=[sums])
    return sums.bounds()
