"""More noise levels where the danger zone is read, so that its numbers do not hang on the grid.

An edge of the zone, or the crossing, is read between two neighbouring levels, its *bracket*. Each pass puts up
to 15 log-spaced levels into every bracket wider than the tolerance, measures them all in one call and reads the
zone anew: from the default grid (0.21 apart in log sigma) to 0.001 takes two passes. The noise of the new
levels is that of the old ones (same seed, same draws), so the refined curves are those that one call with all
the levels would have given.

C on a finite sample is a step function of sigma and need not rise everywhere. A bracket that holds an edge is
below the threshold at one end and not at the other, so it holds a passage whatever happens between; of
several the one nearest to the crossing counts (``zone``), among the levels measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.errors import InputError
from geomem.geometry.curves import Curves, measured
from geomem.geometry.options import MEMORY, Options
from geomem.geometry.sweep import Sweep
from geomem.geometry.zone import find_danger_zone, zone_brackets

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LEVELS_PER_BRACKET = 15
INTERVAL_TOLERANCE = 0.02  # for the ends of the 95% intervals, which are far less certain than that
SMALLEST_TOLERANCE = 1e-6


def refined_curves(train: Any, heldout: Any, curves: Curves, *, threshold: float = 0.8, tolerance: float = 1e-3,
                   device: Any = "auto", memory: int = MEMORY, group: ProcessGroup | None = None,
                   progress: Callable[[int, int], None] | None = None) -> Curves:
    """``curves`` with levels added until each edge of the danger zone and the crossing are read between two
    levels at most ``tolerance`` apart in log sigma. ``find_danger_zone`` of the result gives the refined zone.

    Arguments: ``train`` (N, ...) and ``heldout`` (M, ...), the points that ``curves`` were measured on;
    ``threshold`` that of the zone; ``device``, ``memory``, ``group``, ``progress`` as in ``geometry_curves``, once per
    pass. The ends of the 95% intervals are read between levels at most 0.02 apart (``tolerance``, if larger).
    Where there is no zone the crossing alone is refined, and a zone between two levels comes to light; nothing
    is added outside the levels of ``curves``.
    Raises InputError for a tolerance below 1e-6, a threshold outside (0, 1), or points of another number or size.
    """
    settings = {name: curves.settings[name]
                for name in ("posterior_draws", "coverage_draws", "queries", "shell_t", "seed")}
    settings["duplicates"] = curves.settings.get("duplicates", "keep")
    options = Options(**settings, device=device, memory=memory, group=group, progress=progress)
    return refined(Sweep.of(train, heldout, options), curves, threshold, tolerance)


def refined(sweep: Sweep, curves: Curves, threshold: float, tolerance: float) -> Curves:
    """``refined_curves`` of curves that were measured with these options."""
    if not tolerance >= SMALLEST_TOLERANCE:
        raise InputError(f"tolerance is {tolerance}; give a distance in log sigma, {SMALLEST_TOLERANCE:g} or more")
    while len(sigmas := levels_to_add(curves, threshold, tolerance)):
        more = measured(sweep, sigmas)
        if (more.n_train, more.n_heldout, more.dim) != (curves.n_train, curves.n_heldout, curves.dim):
            raise InputError(f"the curves are of {curves.n_train:,} training and {curves.n_heldout:,} held-out points "
                             f"of {curves.dim:,} values; give these points, not {more.n_train:,} and "
                             f"{more.n_heldout:,} of {more.dim:,}")
        curves = _joined(curves, more, np.argsort(np.concatenate([curves.sigma, more.sigma])))
    return curves


def levels_to_add(curves: Curves, threshold: float, tolerance: float) -> np.ndarray:
    """The noise levels of the next pass, ascending: up to 15 in each bracket that is still too wide."""
    x = np.log(curves.sigma)
    allowed = dict.fromkeys(_interval_brackets(curves, threshold), max(tolerance, INTERVAL_TOLERANCE))
    allowed |= dict.fromkeys(zone_brackets(curves, threshold), tolerance)
    levels = []
    for bracket, widest in sorted(allowed.items()):
        width = x[bracket + 1] - x[bracket]
        parts = min(LEVELS_PER_BRACKET + 1, int(np.ceil(width / widest * (1 - 1e-9))))  # 1e-9: rounding of x
        levels.append(np.linspace(x[bracket], x[bracket + 1], parts + 1)[1:-1])
    return np.exp(np.concatenate(levels)) if levels else np.empty(0)


def _interval_brackets(curves: Curves, threshold: float) -> list[int]:
    """The brackets that hold an end of a 95% interval of the zone."""
    zone = find_danger_zone(curves, threshold)
    if zone is None or len(curves.sigma) < 2:
        return []
    ends = [end for interval in ((zone.crossing_low, zone.crossing_high), zone.sigma_low_interval,
                                 zone.sigma_high_interval) for end in interval or () if end is not None]
    after = np.searchsorted(curves.sigma, ends).clip(1, len(curves.sigma) - 1)
    return [int(bracket) for bracket in after - 1]


def _joined(first: Any, second: Any, order: np.ndarray) -> Any:
    """Two records of curves as one. Every array in them has the levels as its last axis; ``order`` sorts the
    levels of both. What is no array is the same in both.
    """
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second], axis=-1)[..., order]
    if is_dataclass(first) and not isinstance(first, type):
        return replace(first, **{field.name: _joined(getattr(first, field.name), getattr(second, field.name), order)
                                 for field in fields(first)})
    return first
