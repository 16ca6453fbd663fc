"""Training and held-out points made comparable: duplicates once, and no held-out point that is a training point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError, are, counted
from geomem.memorization.ratio import default_tolerance
from geomem.memorization.views import AS_THEY_ARE, Views, distinct
from geomem.points import Array, as_rows, points_of
from geomem.scales import require_one_scale

SMALLEST_SET = 10  # distinct points of each kind, below which nothing is said


class TooFewPoints(InputError):
    """Fewer than ``SMALLEST_SET`` distinct points of a kind are left."""


@dataclass(frozen=True, eq=False)
class DistinctSets:
    """Distinct training points (N, d) and held-out points (M, d) that are not among them, as ``views`` compares them.

    unseen: (M, ...), the held-out points as they are.
    index, heldout_index: (N,) and (M,), of each point in the array that was given. merged: points dropped as duplicates
    within a kind. leaked: held-out points left out because a training point is within ``tolerance`` (data units).
    """

    train: np.ndarray
    heldout: np.ndarray
    unseen: np.ndarray
    index: np.ndarray
    heldout_index: np.ndarray
    merged: int
    leaked: int
    tolerance: float
    views: Views = AS_THEY_ARE


def comparable(samples: Array, train: Array, heldout: Array, tolerance: float | None, *,
               device: str | torch.device = "auto", **how: Any) -> tuple[np.ndarray, DistinctSets]:
    """Samples (n, d) and what they may be held against; arguments as for ``leaning``. how: of the views.

    Raises InputError if shapes or usual ranges of values differ (``geomem.scales``), a value is not finite, or fewer
    than 10 distinct points of a kind remain.
    """
    if not samples.shape[1:] == train.shape[1:] == heldout.shape[1:]:
        raise InputError(f"samples, training and held-out points have shapes {tuple(samples.shape[1:])}, "
                         f"{tuple(train.shape[1:])} and {tuple(heldout.shape[1:])}; bring them to one")
    asked = as_rows(samples, "samples")
    sets = distinct_sets(train, heldout, tolerance, Views.of(train, **how), device=device)
    require_one_scale("samples", asked, train)
    require_one_scale("held-out points", heldout, train)
    return asked, sets


def distinct_sets(train: Array, heldout: Array, tolerance: float | None, views: Views = AS_THEY_ARE, *,
                  device: str | torch.device = "auto") -> DistinctSets:
    """Training points (N, ...) and held-out points (M, ...) of one shape, without duplicates and leaks.

    Raises InputError if a value is not finite, or fewer than 10 distinct points of a kind remain.
    """
    known, unseen = as_rows(train, "train"), as_rows(heldout, "heldout")
    both = points_of(np.concatenate([known, unseen]))
    compared = views.reference(both)
    if tolerance is None:
        tolerance = default_tolerance(compared[:len(known)], device=device)
    found = distinct(both, tolerance, views)
    is_train = found.index < len(known)  # a group's first point is a training point if any of it is one
    index, rest = found.index[is_train], found.index[~is_train] - len(known)
    leaked = int(is_train[found.group[len(known):]].sum())
    if min(len(index), len(rest)) < SMALLEST_SET:
        apart = f" ({leaked:,} more {are(leaked)} equal or nearly equal to training points)" if leaked else ""
        raise TooFewPoints(f"a comparison with held-out points takes at least {SMALLEST_SET} of each; "
                           f"{counted(len(index), 'distinct training point')} and "
                           f"{counted(len(rest), 'held-out point')} that selected nothing are left{apart}; give more")
    merged = len(known) + len(unseen) - leaked - len(index) - len(rest)
    return DistinctSets(compared.take(index), compared.take(found.index[~is_train]), unseen[rest], index, rest, merged,
                        leaked, float(tolerance), views)
