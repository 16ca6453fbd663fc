"""Bounds on coverage from distances alone ([G] Def. 4.7, Thm 4.8).

    lower:          E_D[C_sigma] >= E[ g_sigma(R_NN) ],  R_NN from a held-out Y to its nearest training point
    plain upper:    E_D[C_sigma] <= min(1, N E[ g_sigma(|Y - X'|) ])
    sharper upper:  E[ min(1, sum_i g_sigma(|Y - x_i|)) ], the same proof given Y and D

Sums run over the distinct training points, since copies share their shell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geomem.devices import resolve_device
from geomem.geometry.points import as_sigmas, as_train_and_heldout
from geomem.geometry.projections import Centres
from geomem.geometry.shells import two_shell_table
from geomem.geometry.sweep import sweep

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


def sorted_distances(a: torch.Tensor) -> np.ndarray:
    """Distances from squared distances (n, m), each row ascending, float32."""
    if a.device.type == "cpu":  # NumPy sorts rows several times faster than torch here
        return np.sqrt(np.sort(a.numpy(), axis=1))
    return a.sort(dim=1).values.sqrt().cpu().numpy()


class BoundSums:
    """Collects sums of g over the distances of the held-out points."""

    def __init__(self, centres: Centres, n_heldout: int, sigma: np.ndarray, shell_t: float) -> None:
        self.sigma, self.n_heldout, self.n_train = sigma, n_heldout, centres.n_train
        self.nearest = np.empty(n_heldout)
        self._g = two_shell_table(centres.dim, shell_t)
        self._sum = np.zeros((n_heldout, len(sigma)))
        self._total = np.zeros(len(sigma))

    def add(self, first: int, a: torch.Tensor) -> None:
        """Add held-out points first, first + 1, ... with squared distances ``a`` (points, centres).

        Once the sums of all points together reach their number the plain bound is 1, and once the sum of one
        point reaches 1 its part of the sharper bound is 1: then its further terms change nothing.
        """
        distances = sorted_distances(a)
        rows = slice(first, first + len(distances))
        self.nearest[rows] = distances[:, 0]
        closest = distances.min(axis=0)
        ends = np.append(RUN_ENDS[:np.searchsorted(RUN_ENDS, distances.shape[1])], distances.shape[1])
        for level, sigma in enumerate(self.sigma):
            total = np.zeros(len(distances))
            start = 0
            for end in ends:
                if closest[start] >= self._g.cut * sigma:
                    break
                plain_is_1 = self._total[level] + total.sum() >= self.n_heldout
                needed = np.flatnonzero(total < 1) if plain_is_1 else np.arange(len(total))
                total[needed] += self._g(distances[needed, start:end] / sigma).sum(axis=1)
                start = end
            self._sum[rows, level] = total
            self._total[level] += total.sum()

    def bounds(self) -> CoverageBounds:
        """The three bounds, once every point has been added."""
        lower = self._g(self.nearest[:, None] / self.sigma).mean(axis=0)
        upper = np.minimum(self._sum, 1).mean(axis=0)
        plain = np.minimum(self._sum.mean(axis=0), 1)
        return CoverageBounds(self.sigma, lower, upper, plain, self.n_train, self.n_heldout)


def theorem_4_8_bounds(train: Any, heldout: Any, sigmas: Any, *, shell_t: float = 5.0, device: Any = "auto",
                       chunk_size: int | None = None) -> CoverageBounds:
    """Lower and upper bounds on coverage ([G] Thm 4.8), with the exact g: no noise is drawn.

    Arguments as for ``shell_coverage``. Raises InputError for input that is not as described there.
    """
    sigma = as_sigmas(sigmas)
    train, heldout = as_train_and_heldout(train, heldout)
    centres = Centres(train, resolve_device(device))
    sums = BoundSums(centres, len(heldout), sigma, shell_t)
    sweep(centres, heldout, distances=sums, chunk_size=chunk_size)
    return sums.bounds()
