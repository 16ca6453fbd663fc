"""The danger zone, where both curves are high, and their crossing (Dodson et al. 2026, sections 4.2, 5).

W falls and C rises with sigma. The danger zone at a threshold is the range of noise levels where W and C are
both at or above it; the crossing is where W = C. Between two levels both curves are taken as straight lines in
log sigma; ``refine.refined_curves`` puts levels there until that no longer matters. Dodson et al. (2026) choose the
zone by eye; the threshold is geomem's.

Measured curves wiggle. Where a curve passes the threshold several times, the zone is the unbroken range that
holds the crossing, so the passage nearest to the crossing is the edge; if no range holds it, the longest range
in log sigma. Of several crossings the one with the largest W counts, at fine scale the first one. Curves that
differ by less than 1e-6, the rounding of the weights, count as equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from geomem.errors import InputError
from geomem.geometry.curves import Curves
from geomem.rng import generator
from geomem.statistics import percentile_interval, resampled_means

RESAMPLES = 1000
EQUAL = 1e-6  # W and C this close are equal: the rounding of float32 weights
WIGGLE = 0.02  # a separate range of log sigma no longer than this is a wiggle at the threshold

Range = tuple[float, float]


class Place(NamedTuple):
    """A place on the axis of log sigma, read between the levels ``bracket`` and ``bracket + 1``; ``bracket`` is
    None where the place is an end of the grid.
    """

    x: float
    bracket: int | None


@dataclass(frozen=True)
class DangerZone:
    """The noise levels [sigma_low, sigma_high] where W and C are both >= ``threshold``.

    ``crossing``: where W = C, None if nowhere on the grid. ``crossing_low``, ``crossing_high``,
    ``sigma_low_interval``, ``sigma_high_interval``: 95% bootstrap intervals over the points, None if the curves
    carry no means per point or the number is an end of the grid. ``resolution``: the distance in log sigma of
    the two levels that an edge or the crossing was read between, the largest of the three; None if none was
    read between levels. ``note``: what limits these numbers (a zone that reaches an end of the grid, no
    interval, ...), "" if nothing does.

    The intervals resample training points (W) and held-out points (C) apart. For what C decides, as a rule
    ``sigma_low`` and the crossing, that is the spread over other held-out points. The points of W are also each
    other's rivals, which resampling does not see: an interval of what W decides, as a rule ``sigma_high``, is
    the narrower for it (see ``estimates``). Of 1,000 runs with 100 training and 200 held-out points of 6 normal
    coordinates, 93% of the intervals of sigma_low held its value for that training set; over training sets drawn
    anew it was 94% for the crossing and 85% for sigma_high.
    """

    sigma_low: float
    sigma_high: float
    crossing: float | None
    crossing_low: float | None
    crossing_high: float | None
    threshold: float
    note: str = ""
    sigma_low_interval: Range | None = None
    sigma_high_interval: Range | None = None
    resolution: float | None = None


def find_danger_zone(curves: Curves, threshold: float = 0.8) -> DangerZone | None:
    """The danger zone of these curves; None when W and C are nowhere both >= ``threshold`` (``zone_reason``
    says why). The module says which range counts where there are several.

    Raises InputError unless ``threshold`` is strictly between 0 and 1.
    """
    x, w, c = _curves(curves)
    ranges, crossing = _both_high(x, w, c, threshold), _crossing(x, w, c)
    if not ranges:
        return None
    low, high = _counting(ranges, crossing)
    at_low, at_high, at_crossing = _intervals(curves, threshold)
    notes = []
    if low.bracket is None:
        notes.append(f"the zone begins at or below {curves.sigma[0]:g}, the smallest sigma of the grid")
    if high.bracket is None:
        notes.append(f"the zone ends at or above {curves.sigma[-1]:g}, the largest sigma of the grid")
    separate = sum(end.x - start.x > WIGGLE or (start, end) == (low, high) for start, end in ranges)
    if separate > 1:
        notes.append(f"W and C are both high on {separate} separate ranges of sigma")
    if not crossing:
        notes.append("W and C do not cross on the grid")
    if curves.weight_per_point is None:
        notes.append("no intervals: the curves carry no means per point")
    else:
        if crossing and at_crossing is None:
            notes.append("no interval for the crossing: too many resamples do not cross")
        if at_low is None:
            notes.append("no interval for the edges: too many resamples have no zone")
    crossing_low, crossing_high = (at_crossing if crossing else None) or (None, None)
    return DangerZone(
        sigma_low=float(np.exp(low.x)), sigma_high=float(np.exp(high.x)),
        crossing=float(np.exp(_middle(crossing))) if crossing else None,
        crossing_low=crossing_low, crossing_high=crossing_high, threshold=float(threshold), note="; ".join(notes),
        sigma_low_interval=None if low.bracket is None else at_low,
        sigma_high_interval=None if high.bracket is None else at_high,
        resolution=_resolution(x, [low, high, *crossing]))


def zone_brackets(curves: Curves, threshold: float = 0.8) -> list[tuple[int, float]]:
    """(i, x) of each place x in log sigma where an edge or the crossing is read, between levels i and i + 1; ascending.

    Without a zone, those of the crossing: W and C are high together there if anywhere.
    """
    x, w, c = _curves(curves)
    ranges, crossing = _both_high(x, w, c, threshold), _crossing(x, w, c)
    places = [*crossing, *(_counting(ranges, crossing) if ranges else ())]
    return sorted({(place.bracket, place.x) for place in places if place.bracket is not None})


def uncertain_ranges(curves: Curves, threshold: float = 0.8) -> list[Range]:
    """Where in log sigma each edge and the crossing would be read from curves at the ends of their 95% intervals.

    They hold the ends of the bootstrap intervals, which see the spread over the points and none over the noise.
    """
    if curves.weight_per_point is None:
        return []
    w, c = curves.max_posterior_weight, curves.coverage
    x = np.log(curves.sigma)
    found = _zones(x, np.stack([w.estimate, w.low, w.high, w.low, w.high]),
                   np.stack([c.estimate, c.low, c.high, c.high, c.low]), threshold)
    return [(float(np.nanmin(places)), float(np.nanmax(places))) for places in found if x[0] < places[0] < x[-1]]


def zone_reason(curves: Curves, threshold: float = 0.8) -> str:
    """Why there is no danger zone at this threshold, in one line; "" when there is one."""
    x, w, c = _curves(curves)
    if _both_high(x, w, c, threshold):
        return ""
    sigma = curves.sigma
    for name, curve in (("posterior weight W", w), ("coverage C", c)):
        if curve.max() < threshold:
            return (f"{name} is below {threshold:g} on the whole grid (at most {curve.max():.3g}, at sigma "
                    f"{sigma[curve.argmax()]:.3g})")
    last, first = sigma[w >= threshold].max(), sigma[c >= threshold].min()
    return (f"W and C are nowhere both >= {threshold:g}: W is up to sigma {last:.3g}, C only from "
            f"{first:.3g} on; a lower threshold gives a zone")


def recommended_gap(curves: Curves, zone: DangerZone | None, *, kappa: float = 4.0, weight_floor: float = 0.8) -> Range:
    """The noise levels (low, high) a training gap should leave out, from the curves alone.

    Networks extrapolate beyond the shells. With the radius relaxed by ``kappa > 1``, a held-out point at the
    median distance ``r_NN`` of its nearest training point is inside while
    ``r_NN^2 + sigma^2 d <= kappa^2 sigma^2 d``: the lower edge is ``r_NN / (sqrt(d) sqrt(kappa^2 - 1))``. The
    upper edge is where W falls to ``weight_floor``, or the end of the grid. Never narrower than the zone, if
    there is one.

    The rule is a guess with a reason, not a theorem: ``kappa`` and ``weight_floor`` were chosen on 200 digits,
    where a wider gap cost more quality and a narrower one let more copies through.
    Raises InputError for kappa <= 1, a floor outside (0, 1), or edges in the wrong order.
    """
    if not kappa > 1:
        raise InputError(f"kappa is {kappa}; give a factor above 1")
    check_fraction("weight_floor", weight_floor)
    low = curves.heldout_nearest_distance / np.sqrt(curves.dim * (kappa**2 - 1))
    ranges = at_least(np.log(curves.sigma), curves.max_posterior_weight.estimate, weight_floor)
    high = np.exp(ranges[-1][1]) if ranges else low
    if zone is not None:
        low, high = min(low, zone.sigma_low), max(high, zone.sigma_high)
    if low >= high:
        raise InputError(f"no gap can be recommended: W is below {weight_floor:g} from sigma {low:.3g} on, where "
                         "shells begin to matter; choose a gap by hand or none")
    return float(low), float(high)


def check_fraction(name: str, value: float) -> None:
    """Raises InputError unless the value is strictly between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; give a number strictly between 0 and 1")


def _curves(curves: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log sigma, W and C, (levels,) each."""
    return np.log(curves.sigma), curves.max_posterior_weight.estimate, curves.coverage.estimate


def _both_high(x: np.ndarray, w: np.ndarray, c: np.ndarray, threshold: float) -> list[tuple[Place, Place]]:
    """Ranges of x = log sigma where W and C are both >= threshold, ascending."""
    check_fraction("threshold", threshold)
    both = [(max(above_w[0], above_c[0], key=itemgetter(0)), min(above_w[1], above_c[1], key=itemgetter(0)))
            for above_w in _high(x, w, threshold) for above_c in _high(x, c, threshold)]
    return [(low, high) for low, high in both if low.x <= high.x]


def at_least(x: np.ndarray, y: np.ndarray, level: float) -> list[Range]:
    """Ranges of x where the broken line through (x, y) is >= level, ascending."""
    return [(low.x, high.x) for low, high in _high(x, y, level)]


def _high(x: np.ndarray, y: np.ndarray, level: float) -> list[tuple[Place, Place]]:
    """``at_least`` with the levels that the ends were read between."""
    above = y >= level
    edge = np.flatnonzero(above[1:] != above[:-1])
    cuts = x[edge] + (x[edge + 1] - x[edge]) * (level - y[edge]) / (y[edge + 1] - y[edge])
    ends = [Place(float(cut), int(bracket)) for cut, bracket in zip(cuts, edge, strict=True)]
    if above[0]:
        ends.insert(0, Place(float(x[0]), None))
    if above[-1]:
        ends.append(Place(float(x[-1]), None))
    return list(zip(ends[::2], ends[1::2], strict=True))


def _counting(ranges: list[tuple[Place, Place]], crossing: Sequence[Place]) -> tuple[Place, Place]:
    """Of several ranges the one that holds the crossing, else the longest."""
    at = _middle(crossing) if crossing else np.nan
    return max(ranges, key=lambda r: (r[0].x <= at <= r[1].x, r[1].x - r[0].x))


def _crossing(x: np.ndarray, w: np.ndarray, c: np.ndarray) -> tuple[Place, ...]:
    """Where W falls through C: one place; the two ends where they meet on several levels; () if nowhere."""
    at, start, stop = (part[0] for part in _crossings(x, w[None], c[None]))
    if np.isnan(at):
        return ()
    if stop == start + 1:
        return (Place(float(at), int(start)),)
    return Place(float(x[start + 1]), int(start)), Place(float(x[stop - 1]), int(stop - 1))


def _middle(places: Sequence[Place]) -> float:
    return sum(place.x for place in places) / len(places)


def _resolution(x: np.ndarray, places: Sequence[Place]) -> float | None:
    """The widest bracket of these places."""
    widths = [float(x[place.bracket + 1] - x[place.bracket]) for place in places if place.bracket is not None]
    return max(widths, default=None)


def crossing_points(x: np.ndarray, w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Where each row of W falls through the same row of C, (rows,) in x; NaN where it does not.

    ``x`` (levels,), ``w`` and ``c`` (rows, levels). Where they meet on several levels (both exactly 1, say)
    the middle of those levels counts; of several crossings the one with the largest W.
    """
    return _crossings(x, w, c)[0]


def _crossings(x: np.ndarray, w: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``crossing_points`` with the levels (rows,) before and after each where the rows differ."""
    difference = w - c
    difference[abs(difference) < EQUAL] = 0
    levels = np.arange(len(x))
    differs = np.maximum.accumulate(np.where(difference != 0, levels, -1), axis=1)
    # For each level, the last one before it where the curves differ; -1 if there is none.
    before = np.pad(differs, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    start = before.clip(min=0)
    drop = np.take_along_axis(difference, start, axis=1)
    falls = (difference < 0) & (before >= 0) & (drop > 0)
    part = np.divide(drop, drop - difference, out=np.zeros_like(drop), where=falls)
    adjacent = before == levels - 1
    last_equal = (levels - 1).clip(min=0)
    first_equal = (start + 1).clip(max=len(x) - 1)
    place = np.where(adjacent, x[start] + (x - x[start]) * part, (x[first_equal] + x[last_equal]) / 2)
    w_start = np.take_along_axis(w, start, axis=1)
    height = np.where(adjacent, w_start + (w - w_start) * part, w[:, last_equal])
    stop = np.where(falls, height, -np.inf).argmax(axis=1)
    row = np.arange(len(w))
    return np.where(falls.any(axis=1), place[row, stop], np.nan), start[row, stop], stop


def _zones(x: np.ndarray, w: np.ndarray, c: np.ndarray, threshold: float) -> np.ndarray:
    """Lower edge, upper edge and crossing, (3, rows) in x, of each row of W and C (rows, levels); NaN where none is."""
    crossing = crossing_points(x, w, c)
    start = np.searchsorted(x, crossing, side="right").clip(max=len(x) - 1) - 1  # NaN comes last
    width = x[start + 1] - x[start] if len(x) > 1 else 1.0
    values = np.minimum(*(_entry(y, start) + (_entry(y, (start + 1).clip(max=len(x) - 1)) - _entry(y, start))
                          * ((crossing - x[start]) / width) for y in (w, c)))
    held = np.flatnonzero(values >= threshold)
    edges = np.full((2, len(w)), np.nan)
    low, high = np.full(len(held), x[0]), np.full(len(held), x[-1])
    level, at = np.arange(len(x)), start[held, None]
    for y in (w[held], c[held]):
        before = np.where((y < threshold) & (level <= at), level, -1).max(axis=1)
        after = np.where((y < threshold) & (level > at), level, len(x)).min(axis=1)
        rises, falls = before >= 0, after < len(x)
        low[rises] = np.maximum(low[rises], _passages(x, y[rises], before[rises], threshold))
        high[falls] = np.minimum(high[falls], _passages(x, y[falls], after[falls] - 1, threshold))
    edges[:, held] = low, high
    for index in np.flatnonzero(~(values >= threshold)):  # both are high elsewhere than at the crossing, if at all
        if ranges := _both_high(x, w[index], c[index], threshold):
            places = () if np.isnan(crossing[index]) else (Place(crossing[index], None),)
            edges[:, index] = [end.x for end in _counting(ranges, places)]
    return np.stack([*edges, crossing])


def _entry(y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Of each row of y (rows, levels) the value at its level (rows,)."""
    return np.take_along_axis(y, level[:, None], axis=1)[:, 0]


def _passages(x: np.ndarray, y: np.ndarray, level: np.ndarray, threshold: float) -> np.ndarray:
    """Where each row of y (rows, levels) passes the threshold between its ``level`` (rows,) and the next."""
    first, second = _entry(y, level), _entry(y, level + 1)
    return x[level] + (x[level + 1] - x[level]) * (threshold - first) / (second - first)


def _intervals(curves: Curves, threshold: float) -> list[Range | None]:
    """95% percentile intervals of sigma_low, sigma_high and the crossing, training and held-out points resampled
    apart and each resample read as the curves are. None without means per point, or when more than 1 resample
    in 20 lacks the number.
    """
    if curves.weight_per_point is None or curves.coverage_per_point is None:
        return [None, None, None]
    rng = generator(curves.seed, "zone bootstrap")
    w, c = (resampled_means(rng, means, RESAMPLES) for means in (curves.weight_per_point, curves.coverage_per_point))
    ends = map(percentile_interval, _zones(np.log(curves.sigma), w, c, threshold))
    return [None if pair is None else (float(np.exp(pair[0])), float(np.exp(pair[1]))) for pair in ends]
