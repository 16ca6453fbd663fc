"""As many noise draws as the asked precision of W and C needs.

A pilot run gives the parts of the variance at each level (``estimates``), these say how many draws would bring
the half-width of the 95% interval to the tolerance, and a run is made with that many, though at most 4 times
those of the last: near the limit of what draws can do the pilot's word is rough. Where it falls short, again.
More draws do not narrow what the points differ by: a level that would stay too wide with endless draws is
limited by the points, and no draws are spent on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.errors import InputError, counted
from geomem.geometry.curves import Curves, levels_of, measured
from geomem.geometry.options import MEMORY, QUERIES, Options
from geomem.geometry.sweep import Sweep
from geomem.statistics import Estimate, interval

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

MARGIN = 1.05  # on the predicted number of draws, so that a second run is rarely short
GROWTH = 4  # the most times the draws of one run that the next may take


@dataclass(frozen=True)
class PreciseCurves:
    """Curves drawn to a tolerance. ``notes``: for each curve that is wider somewhere, what limits it, one line;
    () where every level of both keeps to the tolerance. ``runs``: how often the curves were measured.
    """

    curves: Curves
    tolerance: float
    notes: tuple[str, ...]
    runs: int


def curves_to_tolerance(train: Any, heldout: Any, tolerance: float, *, sigmas: Any = 40, posterior_draws: int = 4,
                        coverage_draws: int = 8, max_draws: int = 128, shell_t: float = 5.0,
                        queries: int | None = QUERIES, seed: int = 0, device: Any = "auto", memory: int = MEMORY,
                        group: ProcessGroup | None = None,
                        progress: Callable[[int, int], None] | None = None) -> PreciseCurves:
    """W and C with 95% intervals of half-width ``tolerance`` or less at every level, where draws can do that.

    Arguments: as in ``geometry_curves``, where ``posterior_draws`` and ``coverage_draws`` (2 or more) are those of
    the pilot run and the least; ``max_draws`` the most per point, for each curve. The curves are those of
    ``geometry_curves`` with the draws in their ``settings``. The self weight has the draws of W and is not held to
    the tolerance. Raises InputError for a tolerance outside (0, 0.5), a single draw, or ``max_draws`` below the
    pilot's.
    """
    options = Options(posterior_draws, coverage_draws, shell_t, queries, seed, device, memory, group, progress)
    return measured_to_tolerance(Sweep.of(train, heldout, options), levels_of(sigmas), tolerance, max_draws)


def measured_to_tolerance(sweep: Sweep, sigma: np.ndarray, tolerance: float, max_draws: int) -> PreciseCurves:
    """``curves_to_tolerance``, the pilot's draws being those of the options."""
    if not 0 < tolerance < 0.5:
        raise InputError(f"tolerance is {tolerance}; give a half-width of the 95% intervals between 0 and 0.5")
    draws = [sweep.options.posterior_draws, sweep.options.coverage_draws]
    if min(draws) < 2 or max_draws < max(draws):
        raise InputError(f"{draws[0]} posterior and {draws[1]} coverage draws, at most {max_draws}: a tolerance needs "
                         "2 or more of each to begin with, and no more than the most")
    runs = 0
    while True:
        options = replace(sweep.options, posterior_draws=draws[0], coverage_draws=draws[1])
        curves = measured(replace(sweep, options=options), sigma)
        runs += 1
        pair = (_Drawn(curves.max_posterior_weight, False, tolerance), _Drawn(curves.coverage, True, tolerance))
        needed = [drawn.draws_needed(max_draws) for drawn in pair]
        if needed == draws:
            break
        draws = needed
    n_train, n_heldout = curves.n_distinct
    names = (("posterior weight W", _looked_from(curves.max_posterior_weight.n_points, n_train, "training")),
             ("coverage C", _looked_from(curves.coverage.n_points, n_heldout, "held-out")))
    notes = [drawn.limit(*name) for drawn, name in zip(pair, names, strict=True)]
    return PreciseCurves(curves, float(tolerance), tuple(filter(None, notes)), runs)


def _looked_from(looked: int, there_are: int, kind: str) -> str:
    return f"{counted(looked, f'{kind} point')}" + (f" looked from, of {there_are:,}" if looked < there_are else "")


@dataclass(frozen=True)
class _Drawn:
    """A measured curve against a tolerance."""

    estimate: Estimate
    proportion: bool
    tolerance: float

    @property
    def too_wide(self) -> np.ndarray:
        """(levels,) bool."""
        return self.estimate.half_width > self.tolerance

    def reached_with(self, draws: float) -> np.ndarray:
        """Which levels would keep to the tolerance with this many draws, (levels,) bool."""
        assert self.estimate.parts is not None  # there are 2 draws or more
        # Some variance is left wherever the cells differ: 0 would mean that all are equal.
        variance = np.maximum(self.estimate.parts.variance(draws), 1e-12)
        low, high = interval(self.estimate.estimate, variance, self.estimate.n_points, proportion=self.proportion)
        return high - low <= 2 * self.tolerance

    def draws_needed(self, most: int) -> int:
        """The draws of the next run, at most ``most``: those of this one where no more would help."""
        asked = self.too_wide & self.reached_with(math.inf)
        draws = self.estimate.draws
        if not asked.any():
            return draws
        most = min(most, GROWTH * draws)
        enough = next((n for n in range(draws + 1, most) if self.reached_with(n)[asked].all()), most)
        return max(draws, min(most, math.ceil(MARGIN * enough)))

    def limit(self, curve: str, points: str) -> str:
        """Why the curve is too wide somewhere, in one line; "" where it is not."""
        wide = self.too_wide
        if not wide.any():
            return ""
        worst = int(self.estimate.half_width.argmax())
        where = (f"at {wide.sum()} of {len(wide)} levels the 95% interval is wider than -+{self.tolerance:g} (at most "
                 f"-+{self.estimate.half_width[worst]:.2g}, at sigma {self.estimate.sigma[worst]:.3g})")
        attainable = wide & self.reached_with(math.inf)
        reasons = []
        if attainable.sum() < wide.sum():
            reasons.append(f"limited by the {points}; more draws cannot narrow it enough")
        if attainable.any():
            reasons.append(f"the most draws, {self.estimate.draws} per point, are reached")
        return f"{curve}: {where}: {'; elsewhere '.join(reasons)}"
