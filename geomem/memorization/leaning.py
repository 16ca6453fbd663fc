"""Do samples lean on the training points? The share of them that is nearer to training than to unseen points.

For a sample x and random subsets D' of the training points and H' of held-out points, both of m points,

    s = P( d(x, D') < d(x, H') ) + P( d(x, D') = d(x, H') ) / 2,    d(x, A) = min over a in A of |x - a|.

A model that owes nothing to its training points has s = 1/2, whatever the dimension, and no threshold is needed. The
ratio rule sees a sample only once it is three times nearer to one training point than to any other; a model leans on
its points long before (Garnier-Brun et al. 2026, arXiv 2603.03469). Synthetic-data tools know s as the DCR share.

m is the size of the smaller of the two sets, so that set is used whole, and the mean over all subsets of the larger
one is exact: if j of its L points are nearer to x than the first of the smaller set, then none of those j is in a
random subset of m with probability

    u(j) = C(L - j, m) / C(L, m).

Neighbours from which on u is below 1e-4 are not looked at.

**Error.** Which points happen to be training and which held-out matters as much as which samples were drawn, and does
not fall with their number. Where model and points are independent, all labelings of the pooled points by "training" and
"held-out" are equally likely given the samples; the p value is the share of random relabelings with an s at least as
large, and the spread v of their s about 1/2 holds both sources of error. The interval is Wilson's with 1 / (4 v)
effective draws: it leaves out 1/2 where the relabelings say that s is too far from it, and shrinks at the ends as a
proportion's does. In 1,000 simulated honest models each, of 50 to 1,000 points of 2 to 3,072 normal coordinates and 200
samples, the interval held 1/2 in 94.4 to 96.2% and the test at 5% fired in 3.9 to 6.0% of the cases.

Points within the tolerance of the ratio rule count as one. Held-out points that close to a training point are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln

from geomem.data.table import encoded
from geomem.memorization.heldout import SMALLEST_SET, DistinctSets, comparable
from geomem.memorization.views import Views, nearest_points
from geomem.points import Array
from geomem.rng import generator
from geomem.statistics import wilson

RELABELINGS = 999
LARGER = 8  # points of the larger set for each of the smaller one, at most: more hardly make s more certain
_NEGLECTED = 1e-4  # u(j) from which on neighbours are not looked at: by so much the share of a sample may be off
_FEWEST = 20  # neighbours that are looked at, for ties
_NO_VARIANCE = 1e-12  # all samples are so far away that rounding makes all points as near


@dataclass(frozen=True, eq=False)
class Leaning:
    """Share of n samples nearer to training than to as many held-out points; 1/2 for an honest model.

    share, stderr, low, high: s, its standard error and 95% interval. p_value: of s = 1/2 against s > 1/2, by exchange
    of labels; null_stderr: the spread sqrt(v) of s about 1/2 under it.
    floor: the same of held-out points in the place of the samples, or None where there are too few of them.
    n: samples. m: points of each kind in a comparison. n_train, n_heldout: distinct points that were used.
    merged: points dropped as duplicates within one kind. leaked: held-out points left out because a training point is
    within ``tolerance`` (data units, or those of the views). views: what was looked through. per_sample: (n,) the share
    of each sample, over subsets.
    """

    share: float
    stderr: float
    low: float
    high: float
    p_value: float
    null_stderr: float
    floor: Leaning | None
    n: int
    m: int
    n_train: int
    n_heldout: int
    merged: int
    leaked: int
    tolerance: float
    seed: int
    views: Views
    per_sample: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields without ``per_sample``, the floor as a dictionary."""
        values = {name: value for name, value in vars(self).items() if name not in ("per_sample", "views")}
        return {**values, **self.views.to_dict(), "floor": None if self.floor is None else self.floor.to_dict()}


def leaning(samples: Array, train: Array, heldout: Array, *, tolerance: float | None = None,
            mirrored: bool = False, shifts: int = 0, brightness: bool = False,
            features: Callable[..., Any] | None = None, relabelings: int = RELABELINGS, seed: int = 0,
            device: str | torch.device = "auto") -> Leaning:
    """How far ``samples`` lean on the training points (module docstring).

    samples: (n, ...). train: (N, ...), the training points. heldout: (M, ...), points of the same law that neither
    trained nor selected the model. All in one scale and shape, numpy or torch, or all of them DataFrames
    (``geomem.data.table``).
    tolerance, mirrored, shifts, brightness, features: as in ``memorization_rate``; held-out points are looked at in the
    same way. relabelings: of the permutation test. seed: of them, of the choice of points where one kind has more than
    eight times as many as the other, and of the split for the floor.

    Raises InputError if shapes or usual ranges of values differ (``geomem.scales``), a value is not finite, or fewer
    than 10 distinct points of a kind remain.
    """
    train, samples, heldout = encoded(train, samples=samples, heldout=heldout)
    asked, sets = comparable(samples, train, heldout, tolerance, mirrored=mirrored, shifts=shifts,
                             brightness=brightness, features=features, device=device)
    floor = leaning_of_heldout(sets, relabelings=relabelings, seed=seed, device=device)
    return leaning_against(asked, sets, floor=floor, relabelings=relabelings, seed=seed, device=device)


def leaning_against(samples: np.ndarray, sets: DistinctSets, *, floor: Leaning | None = None,
                    relabelings: int = RELABELINGS, seed: int = 0,
                    device: str | torch.device = "auto") -> Leaning:
    """Leaning of samples (n, d), with the points they are held against made distinct beforehand."""
    train, heldout = sets.train, sets.heldout
    m, larger = sorted((len(train), len(heldout)))
    if larger > LARGER * m:
        larger = LARGER * m
        chosen = np.sort(generator(seed, "leaning subset").permutation(max(len(train), len(heldout)))[:larger])
        train, heldout = (part[chosen] if len(part) > larger else part for part in (train, heldout))
    pooled = np.concatenate([train, heldout])
    unseen = _chance_unseen(larger, m, len(pooled))
    looked_at = min(len(pooled), max(_FEWEST, int((unseen <= _NEGLECTED).argmax())))
    distances, neighbours = nearest_points(samples, pooled, looked_at, sets.views, device=device)
    train_is_smaller = len(train) == m
    smaller = (np.arange(len(pooled)) < len(train)) == train_is_smaller
    ties = (np.diff(distances, axis=1) == 0).any()

    def of_labels(labels: np.ndarray) -> np.ndarray:
        seen = labels[neighbours]
        wins = _with_ties(seen, distances, unseen) if ties else unseen[
            np.where(seen.any(axis=1), seen.argmax(axis=1), looked_at)]
        return wins if train_is_smaller else 1 - wins

    per_sample = of_labels(smaller)
    share = float(per_sample.mean())
    rng = generator(seed, "leaning relabelings")
    relabeled = np.array([of_labels(rng.permutation(smaller)).mean() for _ in range(relabelings)])
    null_stderr = float(np.sqrt(max(((relabeled - 0.5) ** 2).mean(), _NO_VARIANCE)))
    effective = 1 / (4 * null_stderr**2)
    low, high = wilson(np.array(share), np.array(effective))
    return Leaning(
        share=share, stderr=float(np.sqrt(share * (1 - share) / effective)), low=float(low), high=float(high),
        p_value=float((1 + (relabeled >= share - 1e-12).sum()) / (1 + relabelings)), null_stderr=null_stderr,
        floor=floor, n=len(samples), m=m, n_train=len(train), n_heldout=len(heldout), merged=sets.merged,
        leaked=sets.leaked, tolerance=sets.tolerance, seed=seed, views=sets.views, per_sample=per_sample)


def leaning_of_heldout(sets: DistinctSets, *, relabelings: int = RELABELINGS, seed: int = 0,
                       device: str | torch.device = "auto") -> Leaning | None:
    """The floor: half of the held-out points in the place of samples, against the rest; None where that is too few."""
    order = generator(seed, "leaning floor").permutation(len(sets.heldout))
    half = len(order) // 2
    if len(order) - half < SMALLEST_SET:
        return None
    rest = replace(sets, heldout=sets.heldout[order[half:]])
    return leaning_against(sets.unseen[order[:half]], rest, relabelings=relabelings, seed=seed, device=device)


def _chance_unseen(larger: int, m: int, most: int) -> np.ndarray:
    """u(j) for j = 0..most: none of j given points is in a random subset of m of ``larger`` points."""
    j = np.arange(most + 1)
    left = np.maximum(larger - j, 0)
    log_u = gammaln(left + 1) - gammaln(np.maximum(left - m, 0) + 1) - gammaln(larger + 1) + gammaln(larger - m + 1)
    return np.where(left >= m, np.exp(np.minimum(log_u - log_u[0], 0)), 0.0)  # rounding must not exceed a chance


def _with_ties(labels: np.ndarray, distances: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """``unseen`` at the first true label (n, k), with one half where points of the other kind are just as near."""
    first = np.where(labels.any(axis=1), labels.argmax(axis=1), labels.shape[1] - 1)
    nearest_smaller = np.where(labels.any(axis=1), np.take_along_axis(distances, first[:, None], 1)[:, 0], np.inf)
    nearer = (~labels & (distances < nearest_smaller[:, None])).sum(axis=1)
    as_near = (~labels & (distances <= nearest_smaller[:, None])).sum(axis=1)
    return (unseen[nearer] + unseen[as_near]) / 2
