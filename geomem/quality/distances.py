"""Mean distance to the training points, the measure of memorization in [C]."""

from __future__ import annotations

import numpy as np

from geomem.errors import InputError
from geomem.geometry.neighbours import Array, Points, as_rows
from geomem.geometry.points import as_source, runs

_BLOCK_ENTRIES = 2**22  # float64 values of points, or distances, held at a time


def mean_training_distance(samples: Array, train: Points) -> np.ndarray:
    """For each of the samples (n, ...) the mean Euclidean distance to all training points (N, ...), (n,) float64.

    [C] takes the mean of these as the distance of a model from its training set, the smaller the more it memorizes.
    But it is a mean over all of the training set: samples that shrink towards its middle lower it too, and copies of
    the points do not. So hold it against the same figure of held-out points, and against the ratio rule.

    Training points are read in blocks. Raises InputError if the points differ in size or a value is not finite.
    """
    rows, source = as_rows(samples, "samples"), as_source("train", train)
    if rows.shape[1] != source.shape[1]:
        raise InputError(f"samples have {rows.shape[1]} values each and training points {source.shape[1]}; "
                         "they must agree")
    total = np.zeros(len(rows))
    middle = rows.mean(axis=0, dtype=np.float64)
    length = max(1, min(_BLOCK_ENTRIES // rows.shape[1], int(_BLOCK_ENTRIES**0.5)))
    for part in runs(0, source.shape[0], length):
        x = source.take(part) - middle
        squared = np.einsum("nd,nd->n", x, x)
        for block in runs(0, len(rows), length):
            q = rows[block] - middle
            found = np.einsum("nd,nd->n", q, q)[:, None] + squared - 2 * q @ x.T
            total[block] += np.sqrt(found.clip(min=0)).sum(axis=1)
    return total / source.shape[0]
