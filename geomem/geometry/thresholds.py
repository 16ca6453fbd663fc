"""Noise levels below which the posterior concentrates and above which it spreads ([G] Thm 4.2).

For a training point with the other points at distances ``r_2 <= r_3 <= ...``, q in (1/2, 1), delta in (0, 1):

    sigma <= b r_2      =>  P(w_1 >= q) >= 1 - delta,      b = (-z + sqrt(z^2 + 2 L)) / (2 L),
                            z = Phi^-1(1 - delta/(N-1)),   L = log(q (N-1) / (1-q))
    sigma >= a r_{K+1}  =>  P(w_1 <= 1-q) >= 1 - delta,    a = (z + sqrt(z^2 + 2 c)) / (2 c),
                            z = Phi^-1(1 - delta/K),       c = log(K (1-q) / q),  any integer K > q/(1-q)

(derived: the formulas are lost in the text we have of [G]). The shells of x_i and x_j are disjoint while
``sigma < |x_i - x_j| / (2 R_+)`` ([G] Thm 4.9/B.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri

from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.geometry.bounds import sorted_distances
from geomem.geometry.points import as_points
from geomem.geometry.projections import Centres
from geomem.geometry.shells import shell_radii
from geomem.geometry.sweep import sweep

Summary = dict[str, float]  # mean, median, min, max


@dataclass(frozen=True)
class ThresholdSummary:
    """``Thresholds`` over the training points; None where there is no such level (see there)."""

    concentrated_below: Summary
    spread_above: Summary | None
    disjoint_below: float | None
    b: float
    q: float
    delta: float


@dataclass(frozen=True)
class Thresholds:
    """Thm 4.2 for every training point.

    ``concentrated_below`` (N,) is ``b r_2``: 0 for a point that occurs twice. ``spread_above`` (N,) is the
    smallest ``a r_{K+1}``: inf when N - 1 <= q/(1-q). ``disjoint_below`` is the smallest distance between
    distinct training points over 2 R_+, None when all are equal.
    """

    concentrated_below: np.ndarray
    spread_above: np.ndarray
    disjoint_below: float | None
    b: float
    q: float
    delta: float

    def summary(self) -> ThresholdSummary:
        """Mean, median, smallest and largest over the points."""
        spread = _summary(self.spread_above) if np.isfinite(self.spread_above).all() else None
        return ThresholdSummary(_summary(self.concentrated_below), spread, self.disjoint_below, self.b,
                                self.q, self.delta)


def _summary(values: np.ndarray) -> Summary:
    return {"mean": float(values.mean()), "median": float(np.median(values)), "min": float(values.min()),
            "max": float(values.max())}


def concentration_factor(n: int, q: float, delta: float) -> float:
    """``b`` of Thm 4.2 for n training points."""
    z = ndtri(1 - delta / (n - 1))
    scale = np.log(q * (n - 1) / (1 - q))
    return float((-z + np.sqrt(z**2 + 2 * scale)) / (2 * scale))


def spread_factors(n: int, q: float, delta: float) -> np.ndarray:
    """``a`` of Thm 4.2 for K = 1, ..., n - 1; inf where K <= q/(1-q)."""
    k = np.arange(1, n)
    factors = np.full(n - 1, np.inf)
    allowed = k * (1 - q) > q * (1 + 1e-12)  # strictly, whatever the rounding of q
    z = ndtri(1 - delta / k[allowed])
    c = np.log(k[allowed] * (1 - q) / q)
    factors[allowed] = (z + np.sqrt(z**2 + 2 * c)) / (2 * c)
    return factors


class ThresholdSums:
    """Collects Thm 4.2 from the distances of the training points."""

    def __init__(self, centres: Centres, q: float, delta: float, shell_t: float) -> None:
        if not 0.5 < q < 1:
            raise InputError(f"q is {q}; give a weight strictly between 0.5 and 1")
        if not 0 < delta < 1:
            raise InputError(f"delta is {delta}; give a probability strictly between 0 and 1")
        self.q, self.delta = q, delta
        n = centres.n_train
        self._b = concentration_factor(n, q, delta)
        self._a = spread_factors(n, q, delta)
        self._outer = shell_radii(centres.dim, shell_t)[1]
        self._member = None if centres.distinct else torch.from_numpy(centres.member).to(centres.device)
        self._concentrated = np.empty(n)
        self._spread = np.full(n, np.inf)
        self._smallest = np.inf

    def add(self, first: int, a: torch.Tensor) -> None:
        """Add training points first, first + 1, ... with squared distances ``a`` (points, centres)."""
        distances = sorted_distances(a if self._member is None else a[:, self._member])
        others = distances[:, 1:]  # the first is the point itself
        rows = slice(first, first + len(others))
        self._concentrated[rows] = self._b * others[:, 0]
        start = int(np.isinf(self._a).sum())  # only the first factors are inf
        if start < len(self._a):
            self._spread[rows] = (others[:, start:] * self._a[start:]).min(axis=1)
        self._smallest = min(self._smallest, others.min(initial=np.inf, where=others > 0))

    def thresholds(self) -> Thresholds:
        """The thresholds, once every point has been added."""
        disjoint = float(self._smallest / (2 * self._outer)) if np.isfinite(self._smallest) else None
        return Thresholds(self._concentrated, self._spread, disjoint, self._b, self.q, self.delta)


def theorem_4_2_thresholds(train: Any, *, q: float = 0.95, delta: float = 0.05, shell_t: float = 5.0,
                           device: Any = "auto", chunk_size: int | None = None) -> Thresholds:
    """Noise levels where the posterior of each training point concentrates and spreads ([G] Thm 4.2), and
    where all shells are disjoint ([G] Thm 4.9/B.6).

    Arguments: ``train`` (N, ...), NumPy or torch, N >= 2; ``q`` the weight, between 0.5 and 1; ``delta`` the
    allowed probability of failure; ``shell_t`` the t of the shell radii; ``chunk_size`` points held at a
    time, a matter of memory alone. Raises InputError for input that is not as described.
    """
    centres = Centres(as_points("train", train), resolve_device(device))
    sums = ThresholdSums(centres, q, delta, shell_t)
    sweep(centres, None, distances=sums, chunk_size=chunk_size)
    return sums.thresholds()
