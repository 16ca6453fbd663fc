"""Means over (point, noise vector) cells, with standard errors for both kinds of sharing.

Cell (k, j) holds the value v_kj of point k with noise vector j. Cells share a point (its draws) or a noise
vector (the pool serves many points): they are clustered two ways. With m the mean of the T cells,

    V_point = sum_k (sum_j (v_kj - m))^2 / T^2,    V_noise = sum_j (sum_k (v_kj - m))^2 / T^2,
    V_cell = sum_kj (v_kj - m)^2 / T^2,            V = V_point + V_noise - V_cell

(Cameron, Gelbach and Miller 2011, section 2), each term times C/(C - 1) for its C clusters; V is never taken
below the larger of V_point and V_noise. The points count as a sample of the distribution of the data, not as
the only points there are. For coverage that is right: other held-out points, the same training set. For W the
points are also each other's rivals, which V ignores: over whole training sets drawn anew the spread of W was
1.2 to 1.3 times the reported error (150 points, 8 normal coordinates).

More draws narrow only a part of V. With K points, J draws each and P noise vectors,

    V = between + within + shared,    within = sum_kj (v_kj - v_k.)^2 / (K (J - 1)) / (K J)

where v_k. is the mean of point k: ``between = V_point - within`` is what the points differ by, ``shared = V_noise
- V_cell`` what points with the same noise vectors have in common. Within falls as 1/J, shared as 1/P.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class VarianceParts:
    """The squared standard error at ``draws`` draws as a sum of three, (levels,) float64 each, none below 0.

    ``between`` points: narrowed by more points only. ``within`` points: falls as 1/draws. ``shared`` between
    points by their noise vectors: falls as 1/``vectors``.
    """

    between: np.ndarray
    within: np.ndarray
    shared: np.ndarray
    draws: int
    vectors: int

    def variance(self, draws: float) -> np.ndarray:
        """What V would be with this many draws (math.inf for all there are), (levels,). There are as many vectors
        as now, or as draws where those are more.
        """
        return (self.between + self.within * (self.draws / draws)
                + self.shared * (self.vectors / max(self.vectors, draws)))


@dataclass(frozen=True)
class Estimate:
    """A mean in [0, 1] at each noise level, from ``n_points`` points with ``draws`` noise draws each.

    ``sigma``, ``estimate``, ``stderr`` and the 95% interval ``low``, ``high``: float64 arrays (levels,).
    ``parts``: what the variance is made of; None with a single draw, or read from a file.
    """

    sigma: np.ndarray
    estimate: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_points: int
    draws: int
    parts: VarianceParts | None = None

    @property
    def half_width(self) -> np.ndarray:
        """Half the width of the 95% interval, (levels,)."""
        return (self.high - self.low) / 2


class Tally:
    """Running sums over the cells of ``n_points`` points; point k has the noise vectors of group k mod ``groups``."""

    def __init__(self, n_points: int, draws: int, groups: int, levels: int) -> None:
        self.draws, self.groups = draws, groups
        self._point_sum = np.zeros((n_points, levels))
        self._noise_sum = np.zeros((groups * draws, levels))
        self._square_sum = np.zeros(levels)

    def add(self, first: int, cells: np.ndarray) -> None:
        """Add cells (points, draws, levels) of points first, first + 1, ..."""
        self._point_sum[first:first + len(cells)] += cells.sum(axis=1)
        self._square_sum += np.einsum("kjl,kjl->l", cells, cells)
        start = 0
        while start < len(cells):  # one turn through the groups, or what there is of it
            group = (first + start) % self.groups
            turn = cells[start:start + self.groups - group].reshape(-1, cells.shape[2])
            self._noise_sum[group * self.draws:group * self.draws + len(turn)] += turn
            start += self.groups - group

    def point_mean(self) -> np.ndarray:
        """Mean over the draws of each point, (n_points, levels) float32."""
        return (self._point_sum / self.draws).astype(np.float32)

    def estimate(self, sigma: np.ndarray, *, proportion: bool) -> Estimate:
        """Mean, two-way clustered standard error and 95% interval (``interval``)."""
        n = len(self._point_sum)
        cells = n * self.draws
        mean = self._point_sum.sum(axis=0) / cells
        uses = np.repeat(np.bincount(np.arange(n) % self.groups), self.draws)[:, None]  # of each vector
        v_point = np.square(self._point_sum - self.draws * mean).sum(axis=0) * factor(n) / cells**2
        v_noise = np.square(self._noise_sum - uses * mean).sum(axis=0) * factor(len(uses)) / cells**2
        v_cell = (self._square_sum - cells * mean**2).clip(min=0) * factor(cells) / cells**2
        variance = np.maximum(v_point + v_noise - v_cell, np.maximum(v_point, v_noise))
        parts = None
        if self.draws > 1:
            squares = (self._square_sum - np.square(self._point_sum).sum(axis=0) / self.draws).clip(min=0)
            within = squares / (n * (self.draws - 1)) / cells
            parts = VarianceParts((v_point - within).clip(min=0), within, (v_noise - v_cell).clip(min=0),
                                  self.draws, len(uses))
        low, high = interval(mean, variance, n, proportion=proportion)
        return Estimate(sigma, mean, np.sqrt(variance), low, high, n, self.draws, parts)


def factor(clusters: int) -> float:
    """Small-sample factor C/(C - 1)."""
    return clusters / max(clusters - 1, 1)


def interval(mean: np.ndarray, variance: np.ndarray, n_points: int, *,
             proportion: bool) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of means in [0, 1] whose estimates have this variance, (levels,) each.

    It is the mean -+ 1.96 standard errors, cut to [0, 1]. For a ``proportion`` (cells 0 or 1) it is Wilson's
    with the effective sample size m (1 - m) / V, which is the same to first order. When all cells are equal the
    effective size is the number of points, so the width is never 0.
    """
    if not proportion:
        half = Z_95 * np.sqrt(variance)
        return (mean - half).clip(min=0), (mean + half).clip(max=1)
    spread = mean * (1 - mean)
    size = np.divide(spread, variance, out=np.full(len(mean), float(n_points)),
                     where=(spread > 0) & (variance > 0))
    return wilson(mean, size)


def wilson(mean: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% score interval of proportions of ``size`` independent cases each (Wilson 1927); it holds the
    mean, and its ends are exactly 0 and 1 there.
    """
    square = Z_95**2 / size
    middle = (mean + square / 2) / (1 + square)
    half = Z_95 * np.sqrt(mean * (1 - mean) / size + square / (4 * size)) / (1 + square)
    return (middle - half).clip(0, mean), (middle + half).clip(mean, 1)


def newcombe(p: float, p_interval: tuple[float, float], q: float, q_interval: tuple[float, float],
             correlation: float = 0.0) -> tuple[float, float]:
    """Newcombe's 95% interval of the difference p - q of two proportions from their Wilson intervals.

    With [l, u] of p, [l', u'] of q and phi the ``correlation`` of paired cases, 0 for independent ones, it runs

        from  p - q - sqrt( (p - l)^2 - 2 phi (p - l) (u' - q) + (u' - q)^2 )
        to    p - q + sqrt( (u - p)^2 - 2 phi (u - p) (q - l') + (q - l')^2 )

    (Newcombe 1998, Statistics in Medicine 17: independent, p. 873, method 10; paired, p. 2635, method 10).
    """
    def combined(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    (l_p, u_p), (l_q, u_q) = p_interval, q_interval
    return p - q - combined(p - l_p, u_q - q), p - q + combined(u_p - p, q - l_q)
