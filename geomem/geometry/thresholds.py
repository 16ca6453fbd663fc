"""Noise levels below which the posterior concentrates and above which it spreads (Dodson et al. 2026, Thm 4.2).

For a training point with the other points at distances ``r_2 <= r_3 <= ...``, q in (1/2, 1), delta in (0, 1):

    sigma <= b r_2      =>  P(w_1 >= q) >= 1 - delta,      b = (-z + sqrt(z^2 + 2 L)) / (2 L),
                            z = Phi^-1(1 - delta/(N-1)),   L = log(q (N-1) / (1-q))
    sigma >= a r_{K+1}  =>  P(w_1 <= 1-q) >= 1 - delta,    a = (z + sqrt(z^2 + 2 c)) / (2 c),
                            z = Phi^-1(1 - delta/K),       c = log(K (1-q) / q),  any integer K > q/(1-q)

(derived: the formulas are lost in the text we have of Dodson et al. (2026)). The shells of x_i and x_j are disjoint
while ``sigma < |x_i - x_j| / (2 R_+)`` (Dodson et al. 2026, Thm 4.9/B.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import ndtri

from geomem.errors import InputError
from geomem.geometry.bounds import sorted_distances
from geomem.geometry.options import MEMORY, Options
from geomem.geometry.shells import shell_radii
from geomem.geometry.sweep import DistanceCollector, Sweep
from geomem.points import runs

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FINISH_ENTRIES = 2**18  # distances that a thread sorts at a time, or one query's

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
    distinct training points over 2 R_+, None when all are equal or only some of them were looked at.
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


def check_probabilities(q: float, delta: float) -> None:
    """Raises InputError unless q is in (1/2, 1) and delta in (0, 1)."""
    if not 0.5 < q < 1:
        raise InputError(f"q is {q}; give a weight strictly between 0.5 and 1")
    check_failure(delta)


def check_failure(delta: float) -> None:
    """Raises InputError unless delta is in (0, 1)."""
    if not 0 < delta < 1:
        raise InputError(f"delta is {delta}; give a probability strictly between 0 and 1")


def concentration_factors(rivals: Any, copies: Any, distinct_rivals: Any, q: float, delta: float) -> np.ndarray:
    """``b`` of Thm 4.2, for groups of copies (``risk``): inf where the weight is concentrated at every sigma.

    ``rivals``: points outside the group, N - 1 for a point that occurs once; ``copies``: how often the point itself
    occurs; ``distinct_rivals``: what the union bound counts. Numbers, 1 or more, that broadcast.
    """
    z = ndtri(1 - delta / np.asarray(distinct_rivals))
    scale = np.log(q * rivals / ((1 - q) * copies))
    square = z**2 + 2 * scale
    root = np.sqrt(square.clip(min=0))
    factor = np.full(square.shape, np.inf)
    np.divide(1, z + root, out=factor, where=(square >= 0) & (z + root > 0))
    np.divide(root - z, 2 * scale, out=factor, where=scale > 1e-3 * z**2)  # the same, but for a small L
    return factor


def spread_factors(n: int, q: float, delta: float) -> np.ndarray:
    """``a`` of Thm 4.2 for K = 1, ..., n - 1; inf where K <= q/(1-q)."""
    k = np.arange(1, n)
    factors = np.full(n - 1, np.inf)
    allowed = k * (1 - q) > q * (1 + 1e-12)  # strictly, whatever the rounding of q
    z = ndtri(1 - delta / k[allowed])
    c = np.log(k[allowed] * (1 - q) / q)
    factors[allowed] = (z + np.sqrt(z**2 + 2 * c)) / (2 * c)
    return factors


class ThresholdSums(DistanceCollector):
    """Collects Thm 4.2 from the distances of the training queries.

    The distances of a query to all centres are kept until they can be sorted.
    """

    def __init__(self, sweep: Sweep, q: float, delta: float) -> None:
        check_probabilities(q, delta)
        self.q, self.delta = q, delta
        self._centres = centres = sweep.centres
        self._b = float(concentration_factors(centres.n_train - 1, 1, centres.n_train - 1, q, delta))
        factors = spread_factors(centres.n_train, q, delta)
        self._start = int(np.isinf(factors).sum())  # only the first are inf
        self._a = torch.from_numpy(factors).to(centres.device)
        self._outer = shell_radii(centres.dim, sweep.options.shell_t)[1]
        self._member = None if centres.distinct else torch.from_numpy(centres.member).to(centres.device)
        self._everyone = len(np.unique(sweep.own)) == len(centres)
        self._nearest = torch.empty(len(sweep.own), device=centres.device)
        self._spread = torch.full((len(sweep.own),), torch.inf, dtype=torch.float64, device=centres.device)
        self._smallest = torch.full((len(sweep.own),), torch.inf, device=centres.device)

    def bytes_per_query(self) -> int:
        """Of its distances."""
        return 4 * len(self._centres)

    def bytes_per_thread(self) -> int:
        """Of what is sorted at a time."""
        return 32 * max(FINISH_ENTRIES, self._centres.n_train)

    def begin(self, rows: slice) -> None:
        """Training queries ``rows`` are next."""
        super().begin(rows)
        self._a_rows = torch.zeros(rows.stop - rows.start, len(self._centres), device=self._centres.device)

    def add(self, rows: slice, columns: slice, a: torch.Tensor) -> None:
        """Keep the distances of some queries to some centres."""
        self._a_rows[self.here(rows), columns] = a

    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """The distances, 0 for the centres of other processes."""
        return [("sum", self._a_rows)]

    def finish(self, rows: slice) -> None:
        """Thm 4.2 for these queries."""
        for part in runs(rows.start, rows.stop, max(1, FINISH_ENTRIES // self._centres.n_train)):
            a = self._a_rows[self.here(part)]
            distances = sorted_distances(a if self._member is None else a[:, self._member])
            others = distances[:, 1:]  # the first is the point itself
            self._nearest[part] = others[:, 0]
            if self._start < len(self._a):
                self._spread[part] = (others[:, self._start:] * self._a[self._start:]).amin(1)
            self._smallest[part] = torch.where(others > 0, others, torch.inf).amin(1)

    def thresholds(self) -> Thresholds:
        """The thresholds, once all centres have been added."""
        smallest = float(self._smallest.amin())
        disjoint = smallest / (2 * self._outer) if np.isfinite(smallest) and self._everyone else None
        return Thresholds(self._b * self._nearest.cpu().numpy().astype(np.float64), self._spread.cpu().numpy(),
                          disjoint, self._b, self.q, self.delta)


def concentration_thresholds(train: Any, *, q: float = 0.95, delta: float = 0.05, shell_t: float = 5.0, seed: int = 0,
                             queries: int | None = None, device: Any = "auto", memory: int = MEMORY,
                             group: ProcessGroup | None = None) -> Thresholds:
    """Noise levels where the posterior of each training point concentrates and spreads (Dodson et al. 2026, Thm 4.2),
    and where all shells are disjoint (Dodson et al. 2026, Thm 4.9/B.6).

    Arguments: ``train`` (N, ...), N >= 2; ``q`` the weight, between 0.5 and 1; ``delta`` the allowed probability of
    failure; the others as in ``geometry_curves``, the ``queries`` in ascending order. Raises InputError for what it
    refuses.
    """
    options = Options(shell_t=shell_t, queries=queries, seed=seed, device=device, memory=memory, group=group)
    sweep = Sweep.of(train, None, options)
    sums = ThresholdSums(sweep, q, delta)
    sweep.run(training=[sums])
    return sums.thresholds()
