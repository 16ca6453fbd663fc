"""The danger zone, where both curves are high, and their crossing ([G] sections 4.2, 5).

W falls and C rises with sigma. The danger zone at a threshold is the range of noise levels where W and C are
both at or above it; the crossing is where W = C. Between the levels of the grid both curves are taken as
straight lines in log sigma. [G] chooses the zone by eye; the threshold is geomem's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomem.errors import InputError
from geomem.geometry.curves import Curves
from geomem.rng import generator

RESAMPLES = 1000
RESAMPLE_ENTRIES = 2**22  # (resamples x points) weights held at a time

Range = tuple[float, float]


@dataclass(frozen=True)
class DangerZone:
    """The noise levels [sigma_low, sigma_high] where W and C are both >= ``threshold``.

    ``crossing``: where W = C, None if nowhere on the grid. ``crossing_low``, ``crossing_high``: its 95%
    bootstrap interval over the points, None if the curves carry no means per point. ``note``: what limits
    these numbers (a zone that reaches an end of the grid, no interval, ...), "" if nothing does.
    """

    sigma_low: float
    sigma_high: float
    crossing: float | None
    crossing_low: float | None
    crossing_high: float | None
    threshold: float
    note: str = ""


def find_danger_zone(curves: Curves, threshold: float = 0.8) -> DangerZone | None:
    """The danger zone of these curves; None when W and C are nowhere both >= ``threshold`` (``zone_reason``
    says why). Of several ranges the one that holds the crossing counts, else the longest in log sigma.

    Raises InputError unless ``threshold`` is strictly between 0 and 1.
    """
    ranges = _both_high(curves, threshold)
    if not ranges:
        return None
    x = np.log(curves.sigma)
    w, c = curves.max_posterior_weight.estimate, curves.coverage.estimate
    at = float(_crossings(x, w[None], c[None])[0])
    low, high = max(ranges, key=lambda r: (r[0] <= at <= r[1], r[1] - r[0]))
    interval = _crossing_interval(curves)
    notes = []
    if low == x[0]:
        notes.append(f"the zone begins at or below {curves.sigma[0]:g}, the smallest sigma of the grid")
    if high == x[-1]:
        notes.append(f"the zone ends at or above {curves.sigma[-1]:g}, the largest sigma of the grid")
    if len(ranges) > 1:
        notes.append(f"W and C are both high on {len(ranges)} separate ranges of sigma")
    if np.isnan(at):
        notes.append("W and C do not cross on the grid")
    elif interval is None:
        notes.append("no interval for the crossing: " + (
            "the curves carry no means per point" if curves.weight_per_point is None
            else "too many resamples do not cross"))
    crossing_low, crossing_high = interval or (None, None)
    return DangerZone(float(np.exp(low)), float(np.exp(high)), None if np.isnan(at) else float(np.exp(at)),
                      crossing_low, crossing_high, float(threshold), "; ".join(notes))


def zone_reason(curves: Curves, threshold: float = 0.8) -> str:
    """Why there is no danger zone at this threshold, in one line; "" when there is one."""
    if _both_high(curves, threshold):
        return ""
    sigma = curves.sigma
    w, c = curves.max_posterior_weight.estimate, curves.coverage.estimate
    for name, curve in (("posterior weight W", w), ("coverage C", c)):
        if curve.max() < threshold:
            return (f"{name} is below {threshold:g} on the whole grid (at most {curve.max():.3g}, at sigma "
                    f"{sigma[curve.argmax()]:.3g})")
    last, first = sigma[w >= threshold].max(), sigma[c >= threshold].min()
    return (f"W and C are nowhere both >= {threshold:g}: W is up to sigma {last:.3g}, C only from "
            f"{first:.3g} on; a lower threshold gives a zone")


def widened_gap(curves: Curves, zone: DangerZone | None, *, kappa: float = 4.0, weight_floor: float = 0.8) -> Range:
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
    _check_fraction("weight_floor", weight_floor)
    low = curves.heldout_nearest_distance / np.sqrt(curves.dim * (kappa**2 - 1))
    ranges = _at_least(np.log(curves.sigma), curves.max_posterior_weight.estimate, weight_floor)
    high = np.exp(ranges[-1][1]) if ranges else low
    if zone is not None:
        low, high = min(low, zone.sigma_low), max(high, zone.sigma_high)
    if low >= high:
        raise InputError(f"no gap can be recommended: W is below {weight_floor:g} from sigma {low:.3g} on, where "
                         "shells begin to matter; choose a gap by hand or none")
    return float(low), float(high)


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; give a number strictly between 0 and 1")


def _both_high(curves: Curves, threshold: float) -> list[Range]:
    """Ranges of log sigma where W and C are both >= threshold, ascending."""
    _check_fraction("threshold", threshold)
    x = np.log(curves.sigma)
    both = [(max(w[0], c[0]), min(w[1], c[1]))
            for w in _at_least(x, curves.max_posterior_weight.estimate, threshold)
            for c in _at_least(x, curves.coverage.estimate, threshold)]
    return [(low, high) for low, high in both if low <= high]


def _at_least(x: np.ndarray, y: np.ndarray, level: float) -> list[Range]:
    """Ranges of x where the broken line through (x, y) is >= level, ascending."""
    above = y >= level
    edge = np.flatnonzero(above[1:] != above[:-1])
    cuts = x[edge] + (x[edge + 1] - x[edge]) * (level - y[edge]) / (y[edge + 1] - y[edge])
    ends = [*x[:1][above[:1]], *cuts, *x[-1:][above[-1:]]]
    return [(float(low), float(high)) for low, high in zip(ends[::2], ends[1::2], strict=True)]


def _crossings(x: np.ndarray, w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Where each row of W falls through the same row of C, (rows,) in x; NaN where it does not.

    ``x`` (levels,), ``w`` and ``c`` (rows, levels). Where they meet on several levels (both exactly 1, say)
    the middle of those levels counts; of several crossings the one with the largest W.
    """
    difference = w - c
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
    best = np.where(falls, height, -np.inf).argmax(axis=1)[:, None]
    return np.where(falls.any(axis=1), np.take_along_axis(place, best, axis=1)[:, 0], np.nan)


def _crossing_interval(curves: Curves) -> Range | None:
    """95% percentile interval of the crossing, training and held-out points resampled apart; None without
    means per point, or when more than 1 resample in 20 has no crossing.
    """
    if curves.weight_per_point is None or curves.coverage_per_point is None:
        return None
    rng = generator(curves.seed, "crossing bootstrap")
    w, c = (_resampled_means(rng, means) for means in (curves.weight_per_point, curves.coverage_per_point))
    crossings = _crossings(np.log(curves.sigma), w, c)
    found = crossings[np.isfinite(crossings)]
    if len(found) < 0.95 * RESAMPLES:
        return None
    low, high = np.exp(np.quantile(found, [0.025, 0.975]))
    return float(low), float(high)


def _resampled_means(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Means of RESAMPLES resamples of the rows of ``values`` (points, levels): (RESAMPLES, levels)."""
    n = len(values)
    parts = []
    for start in range(0, RESAMPLES, step := max(1, RESAMPLE_ENTRIES // n)):
        rows = min(step, RESAMPLES - start)
        picks = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
        parts.append(times.astype(np.float32) @ values / n)
    return np.concatenate(parts)
