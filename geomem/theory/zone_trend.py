"""How the danger zone moves with the number n of training points, and whether W and C part (Dodson et al. 2026, section
4.2).

At a fixed sigma more points lower W (the sum in its denominator grows) and raise C (more shells), so both edges

    sigma_low(n)   where C reaches the threshold,      sigma_high(n)   where W leaves it

fall with n: the zone moves towards smaller sigma. Whether it also closes is the question which edge falls
faster. W and C *part* at the n where ``width(n) = log(sigma_high / sigma_low)`` reaches 0; beyond it no sigma has
both at the threshold. There is reason to expect that they do not. Crude estimates with r the distance to the nearest
point, ``sigma_high ~ r / sqrt(2 log n)`` and ``sigma_low ~ r / sqrt(2 sqrt(d t))``: r cancels in the width, and they
meet only at about ``log n ~ sqrt(d t)``. And where the data fill a smooth set of k dimensions, more points only shrink
the picture around each of them, by n^(-1/k): both edges fall as that and the width tends to a constant. So width
against log n bends upwards, and a straight line through it puts the parting too early rather than too late.

C(n) is the mean over all subsets of n training points (``training_size``), W(n) the mean over a few random nested
ones. Its variance is that of one subset times ``n/N + (1 - n/N)/subsets``, as for a mean of independent values
over overlapping samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.geometry.curves import levels_of
from geomem.geometry.options import MEMORY, QUERIES
from geomem.geometry.posterior import max_posterior_weight
from geomem.geometry.zone import at_least, check_fraction, crossing_points
from geomem.points import as_train_and_heldout
from geomem.rng import generator
from geomem.theory.training_size import CoverageBySize, as_sizes, coverage_by_training_size

REPLICATES = 300
INTERPOLATION = 0.05  # error of an edge between two levels, in steps of the grid
FEWEST_SIZES = 4  # a line, its error, and one size left out in turn


@dataclass(frozen=True)
class LogLogSlope:
    """``d log(edge) / d log(n)`` with its 95% interval."""

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Trend:
    """How the zone moves with the training set size n, and where W and C part.

    ``low_slope``, ``high_slope``: how the edges move, None with fewer than 4 sizes that have both edges.
    ``parts_at``: the n from which on there is no zone, by a straight line through width against log n, with
    its 95% interval ``parts_low``, ``parts_high``; None where the trend does not support a number, and ``trend``
    says in one line why and what happens instead.
    """

    trend: str
    low_slope: LogLogSlope | None = None
    high_slope: LogLogSlope | None = None
    parts_at: float | None = None
    parts_low: float | None = None
    parts_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class ZoneBySize(Trend):
    """The two curves and the danger zone with ``sizes`` (n_sizes,) training points, at noise levels ``sigma``
    (levels,) in the units of the data.

    ``coverage`` holds C; ``weight``, ``weight_stderr`` (n_sizes, levels) W. For each size: ``sigma_low`` where C
    first reaches ``threshold``, ``sigma_high`` where W is last at it (NaN where that is not within the grid; there
    is a zone where low <= high), ``crossing`` where W = C, and ``peak``, the largest min(W, C) on the grid.
    """

    sigma: np.ndarray
    sizes: np.ndarray
    coverage: CoverageBySize
    weight: np.ndarray
    weight_stderr: np.ndarray
    sigma_low: np.ndarray
    sigma_high: np.ndarray
    crossing: np.ndarray
    peak: np.ndarray
    threshold: float


def zone_by_training_size(train: Any, heldout: Any, sizes: Any, *, sigmas: Any = 40, threshold: float = 0.8,
                          subsets: int = 4, posterior_draws: int = 4, coverage_draws: int = 8, shell_t: float = 5.0,
                          queries: int | None = QUERIES, seed: int = 0, device: Any = "auto",
                          memory: int = MEMORY) -> ZoneBySize:
    """W, C and the danger zone for every training set size of ``sizes``, and the n at which W and C part.

    Arguments as for ``geometry_curves``, its ``queries`` being chosen from each subset of the training points;
    ``sizes`` whole numbers from 2 to N; ``threshold`` of the zone, strictly between 0 and 1; ``subsets`` random subsets
    per size for W, each contained in the next larger one. Edges are
    interpolated in log sigma: more levels around the zone make them, and the trend, sharper.
    Raises InputError for input that is not as described.
    """
    sigma = levels_of(sigmas)
    train, heldout = as_train_and_heldout(train, heldout)
    n_train = train.shape[0]
    sizes = as_sizes(sizes, n_train, smallest=2)
    check_fraction("threshold", threshold)
    if subsets < 1:
        raise InputError(f"subsets is {subsets}; give 1 or more")
    coverage = coverage_by_training_size(train, heldout, sigma, sizes, draws=coverage_draws, shell_t=shell_t,
                                         seed=seed, queries=queries, device=device, memory=memory)
    orders = [generator(seed, "training subset", j).permutation(n_train) for j in range(subsets)]
    weight, stderr = np.empty(coverage.estimate.shape), np.empty(coverage.estimate.shape)
    for row, n in enumerate(sizes):
        # All of the points is one subset; in their own order W is that of ``max_posterior_weight``.
        chosen = [order[:n] for order in orders] if n < n_train else [np.arange(n)]
        parts = [max_posterior_weight(train.select(index), sigma, draws=posterior_draws, seed=seed,
                                      queries=queries, device=device, memory=memory).max_posterior_weight
                 for index in chosen]
        share = n / n_train
        weight[row] = np.mean([part.estimate for part in parts], axis=0)
        stderr[row] = np.sqrt(np.mean([part.stderr**2 for part in parts], axis=0)
                              * (share + (1 - share) / len(parts)))
    x = np.log(sigma)
    low, high = np.array([edges(x, w, c, threshold) for w, c in zip(weight, coverage.estimate, strict=True)]).T
    trend = fit_trend(x, sizes, weight, stderr, coverage.estimate, coverage.stderr, threshold, seed)
    return ZoneBySize(
        sigma=sigma, sizes=sizes, coverage=coverage, weight=weight, weight_stderr=stderr,
        sigma_low=np.exp(low), sigma_high=np.exp(high), crossing=np.exp(crossing_points(x, weight, coverage.estimate)),
        peak=np.minimum(weight, coverage.estimate).max(axis=1), threshold=float(threshold), **vars(trend))


def edges(x: np.ndarray, w: np.ndarray, c: np.ndarray, threshold: float) -> tuple[float, float]:
    """(low, high) in x: where c first reaches the threshold and where w is last at it; NaN where that is not
    strictly within the grid.
    """
    covered, concentrated = at_least(x, c, threshold), at_least(x, w, threshold)
    low = covered[0][0] if covered and covered[0][0] > x[0] else np.nan
    high = concentrated[-1][1] if concentrated and concentrated[-1][1] < x[-1] else np.nan
    return low, high


def fit_trend(x: np.ndarray, sizes: np.ndarray, w: np.ndarray, w_stderr: np.ndarray, c: np.ndarray,
              c_stderr: np.ndarray, threshold: float, seed: int) -> Trend:
    """Straight lines through both edges and their distance against log n, each size weighted by its error; curves
    (n_sizes, levels) over x.

    Intervals are percentiles over replicates. Each shifts every curve by normal errors of its size, independent
    between sizes (they share points, so that is cautious about slopes), and leaves out one size in turn, so that
    a bend shows as spread. Extrapolation goes no farther, in log n, than the sizes reach.
    """
    log_n = np.log(sizes)
    measured = np.array([edges(x, *pair, threshold) for pair in zip(w, c, strict=True)])
    usable = np.isfinite(measured).all(axis=1)
    if usable.sum() < FEWEST_SIZES:
        return Trend(f"{usable.sum()} of {len(sizes)} sizes have both edges of the zone within the grid; "
                     f"{FEWEST_SIZES} are needed for a trend")
    rng = generator(seed, "zone trend")
    kept = np.flatnonzero(usable)
    log_n, measured = log_n[kept], measured[kept]
    shift = rng.standard_normal((REPLICATES, 2, len(sizes), 1))
    moved = np.array([[edges(x, w[row] + z_w[row] * w_stderr[row], c[row] + z_c[row] * c_stderr[row], threshold)
                       for row in kept] for z_w, z_c in shift])
    complete = np.isfinite(moved).all(axis=(1, 2))
    if complete.mean() < 0.95:
        return Trend("an edge of the zone is too near the end of the grid for a trend")
    series, replicates = _with_width(measured), _with_width(moved[complete])
    # Interpolation between levels adds an error of its own: no size counts as exact.
    spread = np.hypot(replicates.std(axis=0), INTERPOLATION * np.diff(x).max(initial=0))
    best = _lines(log_n, series, spread)
    drawn = []
    for number, replicate in enumerate(replicates):
        rest = np.delete(np.arange(len(kept)), number % len(kept))
        drawn.append(_lines(log_n[rest], replicate[rest], spread[rest]))
    slope, intercept = np.moveaxis(np.array(drawn), 2, 0)  # (replicates, 3) each
    low_slope, high_slope = (LogLogSlope(float(best[k, 0]), *map(float, np.quantile(slope[:, k], [0.025, 0.975])))
                             for k in (0, 1))
    first, last = sizes[kept[0]], sizes[kept[-1]]
    moves = (f"sigma_low goes as n^{best[0, 0]:.3f} and sigma_high as n^{best[1, 0]:.3f}; sigma_high/sigma_low is "
             f"{np.exp(series[0, 2]):.2f} at n = {first:,} and {np.exp(series[-1, 2]):.2f} at n = {last:,}")
    if (series[:, 2] < 0).all():
        return Trend(f"W and C are apart at every size: {moves}", low_slope, high_slope)
    if np.quantile(slope[:, 2], 0.975) >= 0:
        start = "W and C do not part" if (series[:, 2] >= 0).all() else "W and C part at some sizes and not at others"
        return Trend(f"{start}: {moves}; no sure narrowing", low_slope, high_slope)
    root = -best[2, 1] / best[2, 0]
    reach = 2 * log_n[-1] - log_n[0]
    if root > reach:
        return Trend(f"W and C do not part: {moves}; not by n = {np.exp(reach):,.0f}, as far as these sizes allow to "
                     "look ahead", low_slope, high_slope)
    at, low, high = (float(np.exp(value)) for value in (root, *np.quantile(-intercept[:, 2] / slope[:, 2],
                                                                         [0.025, 0.975])))
    return Trend(f"W and C part at about n = {at:,.0f} [{low:,.0f}, {high:,.0f}], if they go on as they do: {moves}",
                 low_slope, high_slope, at, low, high)


def _with_width(both: np.ndarray) -> np.ndarray:
    """(..., 2) edges as (..., 3): low, high and high - low."""
    return np.concatenate([both, both[..., 1:] - both[..., :1]], axis=-1)


def _lines(log_n: np.ndarray, series: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(slope, intercept) of each column of ``series`` (sizes, 3) against log n, weighted by its ``spread``: (3, 2)."""
    return np.array([np.polyfit(log_n, series[:, k], 1, w=1 / spread[:, k]) for k in range(series.shape[1])])
