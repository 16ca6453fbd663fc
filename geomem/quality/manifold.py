"""Improved precision and recall (Kynkaanniemi et al. 2019).

The manifold of a point set is estimated as the union of balls around its points, each out to the k-th nearest
other point of the set, k = 3. *Precision* is the share of samples on the manifold of the reference: do they look
like the data? *Recall* is the share of reference points on the manifold of the samples: is all of the data there?
Copies of a training set have precision as any real points; they lose recall where the training set is small.

Both depend on the sizes of the two sets, through the radii: compare at equal n, and with the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError
from geomem.features import rows_in
from geomem.geometry.neighbours import nearest
from geomem.points import Array, runs
from geomem.statistics import share_stderr, wilson_interval

NEIGHBOURS = 3
_BLOCK_ENTRIES = 2**22  # distances held at a time


@dataclass(frozen=True)
class PrecisionRecall:
    """Both shares with their 95% Wilson intervals and standard errors (``share_stderr``): of precision over the n
    samples, the reference held fixed; of recall over the reference_n reference points, the samples held fixed.
    """

    precision: float
    precision_low: float
    precision_high: float
    precision_stderr: float
    recall: float
    recall_low: float
    recall_high: float
    recall_stderr: float
    neighbours: int
    n: int
    reference_n: int


def precision_recall(samples: Array, reference: Array, *, neighbours: int = NEIGHBOURS,
                     features: Callable[..., Any] | None = None,
                     device: str | torch.device = "auto") -> PrecisionRecall:
    """Precision of samples (n, ...) and recall of reference (m, ...) by the k-th nearest ``neighbours``.

    features: as in ``memorization_rate``; balls and distances are then those of features.
    Distances are exact where it matters: what is within rounding of a radius is measured directly in float64.
    Raises InputError if the points differ in size, a value is not finite, or a set has no k other points.
    """
    samples, reference = rows_in(features, samples=samples, reference=reference)
    n, m = len(samples), len(reference)
    if not 1 <= neighbours < min(n, m):
        raise InputError(f"the {neighbours}-th nearest other point of {min(n, m)}: give more points or fewer "
                         "neighbours, 1 at least")
    radii = [nearest(points, points, neighbours + 1, device=device)[0][:, -1] for points in (reference, samples)]
    real = int(_in_some_ball(samples, reference, radii[0]).sum())
    covered = int(_in_some_ball(reference, samples, radii[1]).sum())
    return PrecisionRecall(real / n, *wilson_interval(real, n), share_stderr(real, n),
                           covered / m, *wilson_interval(covered, m), share_stderr(covered, m), neighbours, n, m)


def _in_some_ball(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Which points (n, d) lie in a ball ``|x - c_j| <= r_j`` around one of the centres (m, d), (n,) bool."""
    inside = np.zeros(len(points), dtype=bool)
    middle = centres.mean(axis=0, dtype=np.float64)
    length = max(1, min(_BLOCK_ENTRIES // points.shape[1], int(_BLOCK_ENTRIES**0.5)))
    rounding = 4 * (points.shape[1] + 8) * np.finfo(np.float64).eps
    for part in runs(0, len(centres), length):
        c = centres[part] - middle
        c_squared = np.einsum("nd,nd->n", c, c)
        for block in runs(0, len(points), length):
            x = points[block] - middle
            scale = np.einsum("nd,nd->n", x, x)[:, None] + c_squared
            beyond = scale - 2 * x @ c.T - np.square(radii[part])
            inside[block] |= (beyond < -rounding * scale).any(axis=1)
            row, column = np.nonzero((abs(beyond) <= rounding * scale) & ~inside[block][:, None])
            for pairs in runs(0, len(row), length):
                apart = np.subtract(points[block][row[pairs]], centres[part][column[pairs]], dtype=np.float64)
                near = np.sqrt(np.einsum("nd,nd->n", apart, apart)) <= radii[part][column[pairs]]
                inside[block.start + row[pairs][near]] = True
    return inside
