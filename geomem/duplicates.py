"""Equal and near-equal points: how close they must be, which belong together, and which held-out points leaked.

Points within a *tolerance* of each other count as one. By default it is a thousandth of the median distance from a
training point to its tenth nearest other (the nearest may itself be a duplicate): it merges what differs by rounding
only. Where the tenth is a near-copy too, since most points have ten or more, it is that of the points without
near-copies (``_beyond_near_copies``). A held-out point *leaked* when it belongs together with a training point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from geomem.errors import InputError
from geomem.points import BLOCK_VALUES, DistinctPoints, Points, as_points, distinct_points, runs, sampled

RELATIVE_TOLERANCE = 1e-3
NEIGHBOUR = 10
ASKED = 256  # points, enough for a median, and far cheaper than all pairs of a large training set
_SPARE = 16  # candidates beyond the nearest that are measured directly
_SMALL = 1e-8  # of the squared norms: below it rounding could be more than 1e-7 of a squared distance
_BLOCK_POINTS = 4096
_HELD_VALUES = 2**25  # float64 values of queries held at once: 256 MiB

# Distances (Q, k) of queries (Q, d) to the k nearest of the points, ascending.
Search: TypeAlias = Callable[[np.ndarray, Points, int], np.ndarray]


def default_tolerance(train: Any, search: Search | None = None) -> float:
    """A thousandth of the median distance to the tenth nearest other of the distinct points (N, ...), in data units,
    over at most 256 evenly spaced ones; without near-copies where most points have ten or more (see
    ``_beyond_near_copies``). ``search`` finds the distances; None for one that needs NumPy alone.
    """
    points = as_points("train", train)
    distinct = _without_copies(points, distinct_points(points, 0))
    return _beyond_near_copies(distinct, search or nearest_distances)


def near_groups(points: Any, reference: Any = None) -> DistinctPoints:
    """Points (N, ...) that are equal, or joined by a chain of pairs within the default tolerance of ``reference``
    (themselves where None), as ``distinct_points`` has them.

    The tolerance is not needed where no pair is even within an upper bound of it, which is far cheaper to find.
    """
    points = as_points("points", points)
    reference = points if reference is None else as_points("train", reference)
    equal = distinct_points(points, 0)
    distinct = _without_copies(reference, equal if reference is points else distinct_points(reference, 0))
    few = distinct[::max(1, len(distinct) // ASKED)]
    # The fewer the points, the farther the tenth nearest.
    bound = max(_tolerance(distinct, few, nearest_distances), _largest_tolerance(distinct))
    found = distinct_points(points, bound)
    if found.merged == equal.merged:
        return found
    return distinct_points(points, _beyond_near_copies(distinct, nearest_distances))


def leaked_points(train: Any, heldout: Any) -> np.ndarray:
    """Which held-out points (M, ...) are equal or near-equal to a training point (N, ...): (M,) bool.

    Raises InputError if their shapes differ or a value is not finite.
    """
    known, unseen = as_points("train", train), as_points("heldout", heldout)
    if known.shape[1:] != unseen.shape[1:]:
        raise InputError(f"held-out points have shape {unseen.shape[1:]}, training points {known.shape[1:]}; bring "
                         "both to one shape")
    groups = near_groups(Points([known, unseen]), known)
    first = groups.index[groups.group[len(known):]]  # the group's first point: a training point if any of it is one
    return np.asarray(first < len(known))


def _without_copies(points: Points, found: DistinctPoints) -> Points:
    return points.select(found.index) if found.merged else points


def _tolerance(distinct: Points, among: Points, search: Search) -> float:
    neighbours = min(NEIGHBOUR + 1, len(among))  # each point is its own nearest
    return float(RELATIVE_TOLERANCE * np.median(search(distinct.take(_asked(distinct)), among, neighbours)[:, -1]))


def _beyond_near_copies(distinct: Points, search: Search) -> float:
    """The tolerance of distinct points (N, ...); where near-copies hide each other, of those left without them.

    Twenty copies of each point that differ by rounding have a copy as tenth nearest, so a thousandth of that distance
    merges none. A larger tolerance t is right where it agrees with itself: t is a thousandth of the median distance
    to the tenth nearest among the points merged by t. The largest such t is taken where most points have their tenth
    nearest within t and are within t of the first of their group, and ten groups are left: three orders of magnitude
    lie between copies and others. In all other data no such t is found.
    """
    plain, tolerance = _tolerance(distinct, distinct, search), _largest_tolerance(distinct)
    while plain <= RELATIVE_TOLERANCE * tolerance:
        found = distinct_points(distinct, tolerance)
        kept = distinct.select(found.index)
        finer = min(tolerance, _tolerance(kept, kept, search))
        if finer == tolerance:
            asked = _asked(distinct)
            apart = distinct.take(asked).astype(np.float64) - kept.take(found.group[asked])
            tight = np.median(np.linalg.norm(apart, axis=1)) <= tolerance  # and no chain of many
            return tolerance if tight and len(kept) >= NEIGHBOUR else plain
        tolerance = finer
    return plain


def _largest_tolerance(distinct: Points) -> float:
    """A thousandth of twice the median distance between two of the points, over some of them: hardly any point has its
    tenth nearest farther off.
    """
    rows = sampled(distinct)
    if len(rows) < 2:
        return 0.0
    return float(2 * RELATIVE_TOLERANCE * np.median(nearest_distances(rows, Points([rows]), len(rows))[:, 1:]))


def _asked(points: Points) -> np.ndarray:
    return np.unique(np.linspace(0, len(points) - 1, ASKED).astype(np.int64))


def search_bytes(points: Points) -> int:
    """Memory that the search for near-copies takes beside the points, about: queries and a block of points centred, a
    block of distances and what is kept of it, and the differences that are measured directly.
    """
    asked, size = min(ASKED, len(points)), NEIGHBOUR + 1 + _SPARE
    block = min(len(points), _BLOCK_POINTS, max(1, BLOCK_VALUES // points.dim))
    return 8 * (2 * (asked + block) * points.dim + 3 * asked * block
                + 3 * min(BLOCK_VALUES // 8, asked * size * points.dim))


def nearest_distances(queries: np.ndarray, points: Points, k: int) -> np.ndarray:
    """By float64 products of the centred points; directly, for a few more points than are asked for, where the
    farthest distance of a query is so small beside the norms that rounding could be more than 1e-7 of its square.
    """
    centre = sampled(points).mean(axis=0)
    parts = runs(0, len(queries), max(1, _HELD_VALUES // points.dim))
    return np.concatenate([_nearest(queries[part], points, k, centre) for part in parts])


def _nearest(queries: np.ndarray, points: Points, k: int, centre: np.ndarray) -> np.ndarray:
    asked, size = queries - centre, min(len(points), k + _SPARE)
    own = np.einsum("nd,nd->n", asked, asked)
    squared: np.ndarray = np.empty((len(asked), 0))
    place: np.ndarray = np.empty((len(asked), 0), dtype=np.int64)
    largest = own.copy()
    for block in points.blocks(BLOCK_VALUES, _BLOCK_POINTS):
        rows = points.take(block) - centre
        norm = np.einsum("nd,nd->n", rows, rows)
        largest = np.maximum(largest, norm.max())
        here = own[:, None] + norm - 2 * (asked @ rows.T)
        squared = np.concatenate([squared, here], axis=1)
        place = np.concatenate([place, np.broadcast_to(np.arange(block.start, block.stop), here.shape)], axis=1)
        if squared.shape[1] > size:
            nearest = np.argpartition(squared, size - 1, axis=1)[:, :size]
            squared, place = (np.take_along_axis(values, nearest, 1) for values in (squared, place))
    distances = np.sort(np.sqrt(squared.clip(min=0)), axis=1)[:, :k]
    doubtful = np.flatnonzero(distances[:, -1] ** 2 < _SMALL * largest)
    for part in runs(0, len(doubtful), max(1, BLOCK_VALUES // 8 // (size * points.dim))):
        here = doubtful[part]
        difference = (points.take(place[here].ravel()).reshape(-1, size, points.dim)
                      - queries[here, None].astype(np.float64))
        distances[here] = np.sort(np.sqrt(np.einsum("qsd,qsd->qs", difference, difference)), axis=1)[:, :k]
    return distances
