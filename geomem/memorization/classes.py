"""Copying and leaning class by class: a model can copy one class of its training points and no other.

For each class c with enough points of all kinds:

    ratio_rule   the samples of c are memorized more often than the held-out points of c: exact (Fisher 1935)
    leaning      the samples of c are nearer to the training points of c than to as many held-out points of c

The first looks for neighbours among all training points, as the rule does for all samples. Over the K classes the p
values of each are corrected by Holm's method (1979), which keeps the chance of a false alarm over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError
from geomem.memorization.heldout import SMALLEST_SET
from geomem.memorization.leaning import RELABELINGS, Leaning, leaning
from geomem.memorization.ratio import MemorizationRate
from geomem.points import Array
from geomem.statistics import excess_p_value, holm, wilson_interval

_RELABELINGS_PER_CLASS = 400  # so that the smallest possible p value is 1/400 once it is corrected


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class. n, n_train, n_heldout: its points.

    rate, low, high: the memorized share of its samples with its 95% Wilson interval; count, heldout_count: how many of
    its samples and of its held-out points are. leaning: of its samples. ratio_rule_p_value, leaning_p_value: corrected
    for the number of classes.
    """

    label: int
    n: int
    n_train: int
    n_heldout: int
    count: int
    heldout_count: int
    rate: float
    low: float
    high: float
    leaning: Leaning
    ratio_rule_p_value: float
    leaning_p_value: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, leaning as a dictionary."""
        return {**vars(self), "leaning": self.leaning.to_dict()}


Labels = tuple[np.ndarray, np.ndarray, np.ndarray]  # (n,), (N,) and (M,) integers


def by_class(rate: MemorizationRate, floor: MemorizationRate, samples: Array, train: Array, heldout: Array,
             classes: Labels, *, seed: int = 0, device: str | torch.device = "auto",
             **how: Any) -> tuple[ClassResult, ...]:
    """What each class with at least 10 samples, and as many distinct training and held-out points, shows; empty for
    fewer than two of them.

    rate, floor: the ratio rule on all samples (n, ...) and held-out points (M, ...) against train (N, ...).
    classes: of the samples, training and held-out points. how: as ``leaning`` takes it.

    Raises InputError for labels that are not as many as the points.
    """
    require_labels(classes, samples, train, heldout)
    labels, counts = np.unique(classes[0], return_counts=True)
    labels = labels[counts >= SMALLEST_SET]
    relabelings = max(RELABELINGS, _RELABELINGS_PER_CLASS * len(labels))
    found = []
    for label in labels.tolist():
        inside, known, unseen = (np.flatnonzero(part == label) for part in classes)
        try:
            leans = leaning(samples[inside], train[known], heldout[unseen], relabelings=relabelings, seed=seed,
                            device=device, **how)
        except InputError:  # too few distinct points
            continue
        n, m, count, other = (len(inside), len(unseen), int(rate.memorized[inside].sum()),
                              int(floor.memorized[unseen].sum()))
        found.append(ClassResult(label, n, len(known), m, count, other, count / n, *wilson_interval(count, n), leans,
                                 float(excess_p_value(count, n, other, m)), leans.p_value))
    if len(found) < 2:
        return ()
    copies, leans_p = (holm([getattr(part, name) for part in found]).tolist()
                       for name in ("ratio_rule_p_value", "leaning_p_value"))
    return tuple(replace(part, ratio_rule_p_value=p, leaning_p_value=q)
                 for part, p, q in zip(found, copies, leans_p, strict=True))


def require_labels(classes: Labels, *points: Array) -> None:
    """Raises InputError unless there is one label for each of the samples, training and held-out points."""
    sizes = tuple(len(part) for part in points)
    if tuple(map(np.shape, classes)) != tuple((size,) for size in sizes):
        raise InputError(f"classes of {', '.join(f'{len(part):,}' for part in classes)} samples, training and held-out "
                         f"points for {', '.join(f'{size:,}' for size in sizes)}; give one integer for each point")
