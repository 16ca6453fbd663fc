"""More noise levels where the danger zone is read, so that its numbers do not hang on the grid.

An edge of the zone, or the crossing, is read between two neighbouring levels, its *bracket*. The first pass puts levels
0.02 apart where the 95% intervals of the curves let it lie; in a bracket of that width a straight line tells its place
to about the tolerance, and the second pass puts four levels there, a tolerance apart. A third is rare. The noise of the
new levels is that of the old ones (same seed, same draws), so the refined curves are those that one call with all the
levels would have given; distances and projections are kept between passes where the memory has room (``sweep``).

Few levels suffice as both curves are all but monotone: a noisy point with ``|Z| <= R_+`` that is near enough to a
centre stays so as sigma grows, so C falls only by the inner sides of the shells. Of several passages the one
nearest to the crossing counts (``zone``), among the levels measured.
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
from geomem.geometry.zone import uncertain_ranges, zone_brackets

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NEAR = (-1.35, -0.45, 0.45, 1.35)  # new levels beside the place expected, in steps of the tolerance
FEWEST_STEPS = 40  # to a bracket: longer ones where the tolerance is far smaller
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
    return refined(Sweep.of(train, heldout, options, reuse=True), curves, threshold, tolerance)


def refined(sweep: Sweep, curves: Curves, threshold: float, tolerance: float) -> Curves:
    """``refined_curves`` of curves that were measured with these options."""
    if not tolerance >= SMALLEST_TOLERANCE:
        raise InputError(f"tolerance is {tolerance}; give a distance in log sigma, {SMALLEST_TOLERANCE:g} or more")
    while len(sigmas := levels_to_add(curves, threshold, tolerance)):
        more = measured(sweep, sigmas, curves.thresholds)
        if (more.n_train, more.n_heldout, more.dim) != (curves.n_train, curves.n_heldout, curves.dim):
            raise InputError(f"the curves are of {curves.n_train:,} training and {curves.n_heldout:,} held-out points "
                             f"of {curves.dim:,} values; give these points, not {more.n_train:,} and "
                             f"{more.n_heldout:,} of {more.dim:,}")
        curves = _joined(curves, more, np.argsort(np.concatenate([curves.sigma, more.sigma])))
    return curves


def levels_to_add(curves: Curves, threshold: float, tolerance: float) -> np.ndarray:
    """The noise levels of the next pass, ascending: about 0.02 apart where an interval may reach, and in brackets of
    that width four around the place, ``tolerance`` apart.
    """
    x = np.log(curves.sigma)
    coarse = max(tolerance, INTERVAL_TOLERANCE)
    levels = []
    for low, high in uncertain_ranges(curves, threshold):
        for i in np.flatnonzero((x[:-1] <= high) & (x[1:] >= low)).tolist():
            levels.append(_even(x, i, coarse, low - coarse, high + coarse))
    for i, at in zone_brackets(curves, threshold):
        narrow, at_end = _parts(x, i, coarse) == 1, at in (x[i], x[i + 1])
        if at_end or _parts(x, i, tolerance) <= len(NEAR):
            levels.append(_even(x, i, tolerance if narrow else coarse, x[i], x[i + 1]))
        elif narrow:
            step = max(tolerance, (x[i + 1] - x[i]) / FEWEST_STEPS)
            near = step * (round(at / step, 1) + np.array(NEAR))  # round: the same levels on another machine
            levels.append(near[(near > x[i]) & (near < x[i + 1])])
        else:
            levels.append(_even(x, i, coarse, at - coarse, at + coarse))
    return np.exp(np.unique(np.concatenate(levels))) if levels else np.empty(0)


def _parts(x: np.ndarray, bracket: int, widest: float) -> int:
    """In how many parts no wider than this a bracket has to be cut."""
    return int(np.ceil((x[bracket + 1] - x[bracket]) / widest * (1 - 1e-9)))  # 1e-9: rounding of x


def _even(x: np.ndarray, bracket: int, widest: float, low: float, high: float) -> np.ndarray:
    """Where to cut a bracket in equal parts no wider than this, as far as that is between ``low`` and ``high``."""
    cuts = np.linspace(x[bracket], x[bracket + 1], _parts(x, bracket, widest) + 1)[1:-1]
    return cuts[(cuts >= low) & (cuts <= high)]


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
