"""Near-copies without a ratio: samples nearer to a training point than held-out points ever are.

Let ``r_(1) <= ... <= r_(M)`` be the distances of M held-out points to their nearest training points. A model that owes
nothing to its training points gives samples whose distances are exchangeable with these. So the number of n samples
nearer than ``r_(j)`` follows the negative hypergeometric law: among the n + M distances in order, it counts the samples
before the j-th held-out one. Each j has its p value from that law, exact for any dimension, n and M,

    p_j = P( K_j >= k_j ),    K_j ~ NegativeHypergeometric(n + M, n, j),    E[K_j] = j n / (M + 1),

and the tests together are corrected by Bonferroni. The first, j = 1, asks which samples are nearer to a training
point than any held-out point is; the others are at the 1% and 5% quantiles of the held-out distances, for sets where
a few unusual held-out points hide the rest. The rule needs no second neighbour, so a sample between two training
points, or near one of a pair of similar ones, is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom

from geomem.memorization.heldout import comparable
from geomem.memorization.views import Views, nearest_points
from geomem.points import Array

QUANTILES = (0.0, 0.01, 0.05)  # of the held-out distances; 0 is the smallest of them
LEVEL = 0.05  # of all tests together


@dataclass(frozen=True)
class QuantileTest:
    """The test at one quantile of the held-out distances. distance: that quantile, in data units.

    count, expected: samples nearer than that to a training point, and how many of an honest model are. p_value: exact,
    of this test alone.
    """

    quantile: float
    distance: float
    count: int
    expected: float
    p_value: float


@dataclass(frozen=True, eq=False)
class NearCopies:
    """Samples nearer to a training point than held-out points are.

    tests: by quantile. p_value: over all tests, corrected. n: samples. n_heldout, leaked: held-out points compared
    with, and those left out because a training point is within ``tolerance`` of them. views: what was looked through;
    distances are in data units or those of the views.
    found: (n,) bool, the samples of the test with the smallest p value, none of them where ``p_value`` is above 5%.
    nearest: (n,) the index of the nearest training point of each sample; nearest_distance: (n,), in data units.
    """

    tests: tuple[QuantileTest, ...]
    p_value: float
    n: int
    n_heldout: int
    leaked: int
    tolerance: float
    views: Views
    found: np.ndarray
    nearest: np.ndarray
    nearest_distance: np.ndarray

    @property
    def best(self) -> QuantileTest:
        """The test with the smallest p value, the first of equal ones."""
        return min(self.tests, key=lambda test: test.p_value)

    @property
    def share(self) -> float:
        """Of the samples, by ``best``, significant or not. Beside it ``expected``, of an honest model."""
        return self.best.count / self.n

    @property
    def expected(self) -> float:
        return self.best.expected / self.n

    @property
    def count(self) -> int:
        """Samples in ``found``; of an honest model there are none in 95 of 100 cases."""
        return int(self.found.sum())

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the numbers, and the indices of the samples found, those nearest to a training point first."""
        order = np.flatnonzero(self.found)[np.argsort(self.nearest_distance[self.found], kind="stable")]
        return {"p_value": self.p_value, "significant": self.p_value <= LEVEL, "share": self.share,
                "expected": self.expected, "count": self.count, "n": self.n,
                "n_heldout": self.n_heldout, "leaked": self.leaked, "tolerance": self.tolerance, **self.views.to_dict(),
                "tests": [vars(test) for test in self.tests],
                "samples": order.tolist(), "nearest": self.nearest[order].tolist()}


def near_copies(samples: Array, train: Array, heldout: Array, *, tolerance: float | None = None,
                mirrored: bool = False, shifts: int = 0, brightness: bool = False,
                features: Callable[..., Any] | None = None, device: str | torch.device = "auto") -> NearCopies:
    """Which ``samples`` are nearer to a training point than held-out points are (module docstring).

    samples: (n, ...). train: (N, ...). heldout: (M, ...), points of the same law that neither trained nor selected
    the model. All in one scale and shape, numpy or torch. tolerance, mirrored, shifts, brightness,
    features: as in ``memorization_rate``.

    Raises InputError if shapes or usual ranges of values differ (``geomem.scales``), a value is not finite, or fewer
    than 10 distinct points of a kind remain.
    """
    asked, sets = comparable(samples, train, heldout, tolerance, mirrored=mirrored, shifts=shifts,
                             brightness=brightness, features=features, device=device)
    distance, index = (part[:, 0] for part in nearest_points(asked, sets.train, 1, sets.views, device=device))
    limits = np.sort(nearest_points(sets.unseen, sets.train, 1, sets.views, device=device)[0][:, 0])
    n, m = len(asked), len(limits)
    tests = []
    for quantile in QUANTILES:
        j = max(1, int(np.ceil(quantile * m)))
        count = int((distance < limits[j - 1]).sum())
        tests.append(QuantileTest(quantile, float(limits[j - 1]), count, j * n / (m + 1),
                                  float(p_value_of(count, n, m, j))))
    best = min(tests, key=lambda test: test.p_value)
    together = min(1.0, len(tests) * best.p_value)
    found = (distance < best.distance) & (together <= LEVEL)
    return NearCopies(tuple(tests), together, n, m, sets.leaked, sets.tolerance, sets.views, found, sets.index[index],
                      distance)


def p_value_of(count: Any, n: int, m: int, j: int) -> Any:
    """P(K_j >= count), exact also where it is tiny, as scipy's ``nhypergeom`` is not: of the first ``count + j - 1``
    of all distances, at least ``count`` are of samples. count: a number or an array of them.
    """
    return hypergeom(n + m, n, count + j - 1).sf(count - 1)
