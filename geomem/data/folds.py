"""Folds: the training points cut into K parts, so that each can be left out of one training."""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import Any

import numpy as np

from geomem.duplicates import near_groups
from geomem.errors import InputError, are, counted
from geomem.rng import random_order


def cut_into_folds(points: Any, folds: int, seed: int = 0) -> np.ndarray:
    """The fold 0..folds-1 of each of the points (N, ...), (N,) int64.

    Equal and near-equal points are in one fold: a fold left out is then one that was not seen. The cut is random by
    ``seed``, and sizes differ by at most one unless a group of such points is larger than a fold. Raises InputError for
    fewer than 2 folds, and for more than there are distinct points.
    """
    if folds < 2:
        raise InputError(f"{counted(folds, 'fold')}: give at least 2")
    if folds > len(points):
        raise InputError(f"{folds} folds of {counted(len(points), 'point')}: give at most one fold per point")
    found = near_groups(points)
    size = np.bincount(found.group)
    if folds > len(size):
        raise InputError(f"{folds} folds of {len(points):,} points, of which only {len(size):,} {are(len(size))} "
                         f"distinct, and equal and near-equal ones are in one fold; give at most {len(size):,} folds")
    order = random_order(len(size), seed, "folds")
    chosen = np.empty(len(size), dtype=np.int64)
    filled = [(0, fold) for fold in range(folds)]
    heapify(filled)
    for group in order[np.argsort(-size[order], kind="stable")]:  # the largest first, each to the smallest fold
        count, fold = filled[0]
        chosen[group] = fold
        heapreplace(filled, (count + int(size[group]), fold))
    return chosen[found.group]
