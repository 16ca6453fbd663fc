"""Which training points stand alone, and up to which noise level each of them holds the posterior weight.

A *group* is a training point with everything within a tolerance of it; tolerance 0 groups exact copies only. For
the point x_k, which occurs e times itself, in a group of g of the N points:

    r_2         distance to the nearest point outside its group
    threshold   sigma <= r_2 / s  =>  P(w_G >= q) >= 1 - delta,     s = z + sqrt(z^2 + 2 L),
                z = Phi^-1(1 - delta/R),    L = log( q (N - g) / ((1 - q) e) )
    sigma_half  the noise level where the expected weight E[w_G] at ``x_k + sigma Z`` falls to 1/2

with w_G the posterior weight of the whole group and R the number of distinct points outside it. With e = g = 1
and all points distinct the threshold is ``b r_2`` of Dodson et al. 2026, Thm 4.2.

The threshold of a group (derived): copies of one point are indistinguishable, so their weights are equal whatever
the noise and none reaches 1/2; what can concentrate is their sum. In the proof of Thm 4.2 every rival's logit is at
most ``-(s^2/2 - z s)``, ``s = r_2/sigma``, with probability 1 - delta: one event per distinct rival, R of them. The
N - g rivals then weigh at most ``(N - g) exp(-(s^2/2 - z s))`` against e for the point's own copies, which have
logit exactly 0, and ``w_G >= q`` as soon as ``s^2/2 - z s >= L`` and ``s >= z``. Near duplicates in the group only
add to w_G; since their logits depend on the noise they are not counted on. Where the point's copies outweigh all
others at any distance (``z^2 + 2 L < 0``) the threshold is infinite.

The score multiplies how often a point is trained on with a share that grows with its isolation and saturates: a
point that occurs once stays below 2 however far away it lies, one that occurs twice has 2 at the usual distance.
It is a rule with a reason, not a theorem, chosen on models of digits, ECG5000 and faces that memorize and then tried on
other trainings of them.
On all three, points that occurred four times were copied 5 to 6 times as often as the others; of the samples near a
point, the ratio rule of Dodson et al. 2026, section 3 calls a larger share copies the more isolated the point is (rank
correlation .40 to .64). That second part belongs to the rule: counted with one distance for all points, copies do not
follow isolation (-.18 to .10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.neighbours import nearest
from geomem.geometry.posterior import posterior_weights
from geomem.geometry.projections import require_spread
from geomem.geometry.thresholds import check_probabilities, concentration_factors
from geomem.points import Array, as_rows, distinct_points
from geomem.rng import generator

MAX_HALF_POINTS = 2000  # beyond so many distinct points sigma_half, which looks at all pairs, is left out
_BISECTIONS = 18  # of a range of about 10 in log sigma: sigma_half within 1 in 20,000 of the estimate's root
_PAIR_ENTRIES = 2**21  # (points x rivals) logits held at a time


@dataclass(frozen=True, eq=False)
class TrainingRisk:
    """One entry per training point, (N,) each, in the order given; distances and sigmas in data units.

    nearest_distance: r_2. nearest: index of that point. neighbour_distance: distance to the ``neighbours``-th nearest
        distinct point outside the group (the farthest there is, where there are fewer).
    multiplicity: how often the point itself occurs. group: index of the first point of its group. group_size: points
        in the group; more than ``multiplicity`` where there are near duplicates.
    concentrated_below: the threshold of the module docstring; inf where the weight is concentrated at every sigma.
    sigma_half: see there; inf where the group holds half of all points, None for more than 2,000 distinct points.
        From ``draws`` noise vectors, the same for every point; a root found by bisection, should there be several.
    score: ``2 g r_2 / (r_2 + median r_2)``, the median over groups: 1 for a usual point (module docstring).
    """

    nearest_distance: np.ndarray
    nearest: np.ndarray
    neighbour_distance: np.ndarray
    multiplicity: np.ndarray
    group: np.ndarray
    group_size: np.ndarray
    concentrated_below: np.ndarray
    sigma_half: np.ndarray | None
    score: np.ndarray
    q: float
    delta: float
    tolerance: float
    neighbours: int
    draws: int
    seed: int

    def ranking(self) -> np.ndarray:
        """First points of the groups, the highest score first, ties in their order: (groups,) int64."""
        first = np.unique(self.group)
        return first[np.argsort(-self.score[first], kind="stable")]


def training_risk(train: Array, *, q: float = 0.95, delta: float = 0.05, tolerance: float = 0.0, neighbours: int = 10,
                  draws: int = 16, seed: int = 0, device: str | torch.device = "auto",
                  progress: Callable[[int, int], None] | None = None) -> TrainingRisk:
    """Isolation, multiplicity and noise levels of every training point, and a score to rank them by.

    train: (N, ...), NumPy or torch. q, delta: weight in (1/2, 1) and allowed probability of failure of the threshold.
    tolerance: points within this distance (data units) are one group; a chain of close points is one.
    neighbours: K of ``neighbour_distance``. draws, seed: noise of ``sigma_half``.
    progress: called with (points done, points) while sigma_half is measured.

    Distances are exact at any size; their memory does not grow with N^2. Raises InputError for values out of range,
    or unless two groups are left.
    """
    check_probabilities(q, delta)
    for name, value in (("neighbours", neighbours), ("draws", draws)):
        if value < 1:
            raise InputError(f"{name} is {value}; give 1 or more")
    rows = as_rows(train, "train")
    require_spread(float(np.linalg.norm(rows.max(axis=0).astype(np.float64) - rows.min(axis=0))))
    exact = distinct_points(rows, 0)
    points, count = rows[exact.index] if exact.merged else rows, np.bincount(exact.group)
    near = distinct_points(points, tolerance)
    if len(near.index) < 2:
        raise InputError(f"train has {len(rows)} points but no two that are farther apart than the tolerance "
                         f"{tolerance:g}; give more points or a smaller tolerance")
    distances, others = _outside(points, near.group, neighbours, device)
    group_size = np.bincount(near.group, weights=count).astype(np.int64)[near.group]
    factor = concentration_factors(len(rows) - group_size, count, len(points) - np.bincount(near.group)[near.group], q,
                                   delta)
    first = distances[:, 0]
    half = None
    if len(points) <= MAX_HALF_POINTS:
        half = _sigma_half(points, count, near.group, first, draws, seed, progress)
    return TrainingRisk(
        nearest_distance=first[exact.group], nearest=exact.index[others[:, 0]][exact.group],
        neighbour_distance=distances[:, -1][exact.group], multiplicity=count[exact.group],
        group=exact.index[near.index[near.group]][exact.group], group_size=group_size[exact.group],
        concentrated_below=(factor * first)[exact.group], sigma_half=None if half is None else half[exact.group],
        score=(2 * group_size * first / (first + np.median(first[near.index])))[exact.group],
        q=q, delta=delta, tolerance=float(tolerance), neighbours=neighbours, draws=draws, seed=seed)


def _outside(points: np.ndarray, group: np.ndarray, k: int, device: str | torch.device
             ) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of the k nearest points of other groups, (M, k) each, for distinct points (M, d).

    Fewer columns where a group leaves fewer points outside.
    """
    size = np.bincount(group)[group]
    k = min(k, len(points) - int(size.max()))
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), dtype=np.int64)
    for alone in (True, False):  # only members of a group of several need a longer list
        rows = np.flatnonzero((size == 1) == alone)
        if len(rows) == 0:
            continue
        found, which = nearest(points[rows], points, k + int(size[rows].max()), device=device)
        found[group[which] == group[rows][:, None]] = np.inf
        order = np.argsort(found, axis=1, kind="stable")[:, :k]
        distances[rows], indices[rows] = (np.take_along_axis(part, order, axis=1) for part in (found, which))
    return distances, indices


def _sigma_half(points: np.ndarray, count: np.ndarray, group: np.ndarray, first: np.ndarray, draws: int, seed: int,
                progress: Callable[[int, int], None] | None) -> np.ndarray:
    """``sigma_half`` of distinct points (M, d) that occur ``count`` (M,) times, with r_2 ``first`` (M,): (M,)."""
    centred = points - points.mean(axis=0, dtype=np.float64)
    norm = np.einsum("nd,nd->n", centred, centred)
    products = generator(seed, "risk noise").standard_normal((draws, centred.shape[1])) @ centred.T
    half = np.empty(len(points))
    step = max(1, _PAIR_ENTRIES // len(points))
    for start in range(0, len(points), step):
        rows = np.arange(start, min(start + step, len(points)))
        a = norm[rows, None] + norm - 2 * centred[rows] @ centred.T
        same = group[rows, None] == group
        a = np.where(same, a.clip(min=0), np.maximum(a, first[rows, None] ** 2))  # no rival is nearer than r_2
        a[np.arange(len(rows)), rows] = 0
        b = products[:, rows, None] - products[:, None]
        half[rows] = _root_of_half([torch.from_numpy(part.astype(np.float32)) for part in (a, b, count, same)],
                                   first[rows])
        if progress:
            progress(int(rows[-1]) + 1, len(points))
    return half


def _root_of_half(parts: list[torch.Tensor], first: np.ndarray) -> np.ndarray:
    """Where the mean weight of the group falls to 1/2, by bisection in log sigma between r_2 / 50, where a rival
    would need a normal variable above 25, and ten times the largest distance, where all logits are about 0.

    parts: a (n, M) and b (draws, n, M) as in ``posterior``, count (M,), and (n, M), 1 within the group. first: (n,).
    """
    a, b, count, same = parts
    low, high = np.log(first / 50), np.log(10 * a.amax(1).double().sqrt().numpy())

    def at_least_half(log_sigma: np.ndarray) -> np.ndarray:
        sigma = torch.from_numpy(np.exp(log_sigma)).float()[:, None]
        weight = torch.zeros(len(a))
        for projections in b:
            weight += (posterior_weights(a, projections, sigma, count) * same).sum(1)
        return (weight >= len(b) / 2).numpy()

    always = at_least_half(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = at_least_half(middle)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(always, np.inf, np.exp(low))
