"""Posterior weight W, coverage C and their bounds along the noise schedule, in one pass over the data.

W_sigma (Dodson et al. 2026, Def. 4.1) falls and C_sigma (Dodson et al. 2026, Def. 4.6) rises with sigma; Thm 4.8 bounds
C, and Thm 4.2 says where W is near 1 and near 0. All of it needs the squared distances ``a`` and the noise projections
``b`` of ``projections`` and nothing else, so they are made once for every level and every quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.errors import InputError
from geomem.geometry.bounds import BoundSums
from geomem.geometry.coverage import CoverageSums
from geomem.geometry.options import MEMORY, QUERIES, Options, as_sigmas
from geomem.geometry.posterior import PosteriorSums
from geomem.geometry.sweep import Sweep
from geomem.geometry.thresholds import ThresholdSummary, ThresholdSums
from geomem.statistics import Estimate

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SIGMA_RANGE = (0.02, 80.0)
Q, DELTA = 0.95, 0.05  # of Thm 4.2
ESTIMATES = {"max_posterior_weight": ("n_train", "posterior_draws"),
             "self_posterior_weight": ("n_train", "posterior_draws"), "coverage": ("n_heldout", "coverage_draws")}
BOUNDS = ("coverage_lower_bound", "coverage_upper_bound", "coverage_plain_upper_bound")


@dataclass(frozen=True)
class Curves:
    """The curves of one training set and one held-out set; arrays (levels,) over ``sigma``, ascending.

    ``duplicates``: training points that are copies of an earlier one. ``heldout_nearest_distance``: the
    median distance of a held-out point to its nearest training point. ``weight_per_point`` and
    ``coverage_per_point`` (queries, levels), float32, are the means over the draws of each point looked from, for
    the bootstrap of the crossing; None in curves read from a file. ``merged``: training and held-out points merged into
    an equal or near-equal one, where duplicates are merged; the thresholds are then those of the distinct points.
    ``leaked``: held-out points that were left out then, because they are equal or near-equal to a training point.
    """

    sigma: np.ndarray
    max_posterior_weight: Estimate
    self_posterior_weight: Estimate
    coverage: Estimate
    coverage_lower_bound: np.ndarray
    coverage_upper_bound: np.ndarray
    coverage_plain_upper_bound: np.ndarray
    thresholds: ThresholdSummary
    heldout_nearest_distance: float
    n_train: int
    n_heldout: int
    dim: int
    duplicates: int
    settings: dict[str, Any]
    merged: tuple[int, int] = (0, 0)
    leaked: int = 0
    weight_per_point: np.ndarray | None = None
    coverage_per_point: np.ndarray | None = None

    @property
    def n_distinct(self) -> tuple[int, int]:
        """Training and held-out points without those merged or left out."""
        return self.n_train - self.merged[0], self.n_heldout - self.merged[1] - self.leaked

    @property
    def seed(self) -> int:
        """Seed of the noise."""
        return int(self.settings["seed"])

    def to_dict(self) -> dict[str, Any]:
        """The parts "data", "curves", "thresholds" and "settings" of a danger-zone file, ready for JSON."""
        curves = {name: value.tolist() if isinstance(value, np.ndarray) else
                  {part: getattr(value, part).tolist() for part in ("estimate", "stderr", "low", "high")}
                  for name, value in ((name, getattr(self, name)) for name in ("sigma", *ESTIMATES, *BOUNDS))}
        return {
            "data": {**{name: getattr(self, name) for name in ("n_train", "n_heldout", "dim", "duplicates")},
                     "merged": self.merged[0], "merged_heldout": self.merged[1], "left_out_heldout": self.leaked},
            "curves": {**curves, "heldout_nearest_distance": self.heldout_nearest_distance},
            "thresholds": asdict(self.thresholds), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Curves:
        """Curves from ``to_dict`` or from a whole danger-zone file, without the means per point.

        Raises InputError if a part is missing or is not what it should be.
        """
        try:
            data, curves, settings = content["data"], content["curves"], dict(content["settings"])
            if not all(1 <= data[part] < 2**63 for part in ("n_train", "n_heldout", "dim")):
                raise ValueError("it counts points in an impossible way")
            sigma = _checked("sigma", curves["sigma"])
            if not (sigma[0] > 0 and np.all(np.diff(sigma) > 0)):
                raise ValueError("sigma does not rise from above 0")
            most = settings.get("queries") or np.inf
            merged = int(data.get("merged", 0)), int(data.get("merged_heldout", 0))
            leaked = int(data.get("left_out_heldout", 0))
            distinct = {"n_train": data["n_train"] - merged[0], "n_heldout": data["n_heldout"] - merged[1] - leaked}
            if not (min(*merged, leaked) >= 0 and min(distinct.values()) >= 1):
                raise ValueError("it counts duplicates in an impossible way")
            fields: dict[str, Any] = {
                **{name: _estimate_from_dict(curves[name], sigma, int(min(distinct[points], most)),
                                             int(settings[draws]))
                   for name, (points, draws) in ESTIMATES.items()},
                **{name: _checked(name, curves[name], sigma) for name in BOUNDS},
                **{name: int(data[name]) for name in ("n_train", "n_heldout", "dim", "duplicates")}}
            return cls(sigma=sigma, thresholds=_checked_thresholds(content["thresholds"]), settings=settings,
                       merged=merged, leaked=leaked,
                       heldout_nearest_distance=float(curves["heldout_nearest_distance"]), **fields)
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
            raise InputError(f"curves lack a part or hold a wrong one ({type(error).__name__}: {error}); "
                             "give the JSON that geomem danger-zone wrote") from error


def _estimate_from_dict(parts: Mapping[str, Any], sigma: np.ndarray, n_points: int, draws: int) -> Estimate:
    estimate, stderr, low, high = (_checked(part, parts[part], sigma) for part in ("estimate", "stderr", "low", "high"))
    return Estimate(sigma, estimate, stderr, low, high, n_points, draws)


def _checked(name: str, values: Any, sigma: np.ndarray | None = None) -> np.ndarray:
    """A list of finite numbers as an array, one for each noise level. Raises ValueError or TypeError."""
    array = np.array(values)
    if array.ndim != 1 or array.dtype.kind not in "fiu" or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} is no list of finite numbers")
    if sigma is not None and array.shape != sigma.shape:
        raise ValueError(f"{name} has {len(array)} numbers for {len(sigma)} noise levels")
    return array.astype(np.float64)


def _checked_thresholds(parts: Mapping[str, Any]) -> ThresholdSummary:
    summary = ThresholdSummary(**parts)
    disjoint = [] if summary.disjoint_below is None else [summary.disjoint_below]
    numbers = [*summary.concentrated_below.values(), *(summary.spread_above or {}).values(), *disjoint, summary.b,
               summary.q, summary.delta]
    if _checked("thresholds", numbers).min() < 0:
        raise ValueError("a threshold is below 0")
    return summary


def geometry_curves(train: Any, heldout: Any, *, sigmas: Any = 40, posterior_draws: int = 4,
                    coverage_draws: int = 8, shell_t: float = 5.0, queries: int | None = QUERIES, seed: int = 0,
                    device: Any = "auto", memory: int = MEMORY, duplicates: str = "merge",
                    group: ProcessGroup | None = None,
                    progress: Callable[[int, int], None] | None = None) -> Curves:
    """W, self weight, C with the bounds of Thm 4.8 and the thresholds of Thm 4.2, all from one pass.

    Arguments: ``train`` (N, ...), N >= 2, and ``heldout`` (M, ...), points of one shape: NumPy or torch, or stored
    (a memory map, or anything with shape, dtype, len and [rows]), which is read block by block; ``sigmas`` a
    number of levels, log-spaced from 0.02 to 80, or the levels themselves, in the units of the data and any order;
    ``posterior_draws``, ``coverage_draws`` noise draws per training and per held-out query; ``shell_t`` the t of
    the shell radii; ``queries`` at most how many training points, and how many held-out points, to look from, a
    seeded random choice (all where None): every training point stays a centre; ``memory`` in bytes, beside the
    points; ``duplicates`` "merge" (equal and near-equal points count as one, with their summed weight) or "keep" (the
    published definition, each copy its own point); ``group`` a torch.distributed group whose processes all call this
    with the same arguments and share the training points: each gets the whole result; ``progress`` called as
    ``progress(done, total)``, in queries.
    Without duplicates, or with "keep", the result is the same as from ``max_posterior_weight`` and the other functions
    one by one.
    Raises InputError for input that is not as described.
    """
    options = Options(posterior_draws, coverage_draws, shell_t, queries, seed, device, memory, group, progress,
                      duplicates)
    return measured(Sweep.of(train, heldout, options), levels_of(sigmas))


def levels_of(sigmas: Any) -> np.ndarray:
    """Noise levels, ascending: so many log-spaced ones, or those given. Raises InputError for what are none."""
    return log_spaced(int(sigmas)) if isinstance(sigmas, int | np.integer) else as_sigmas(sigmas)


def measured(sweep: Sweep, sigma: np.ndarray, thresholds: ThresholdSummary | None = None) -> Curves:
    """The curves at these levels; the draws, shells and seed are those of the options, ``thresholds`` where known."""
    options, centres = sweep.options, sweep.centres
    weights, bounds, coverage = PosteriorSums(sweep, sigma), BoundSums(sweep, sigma), CoverageSums(sweep, sigma)
    if thresholds is None:
        distances = ThresholdSums(sweep, Q, DELTA)
        sweep.run(training=[distances, weights], heldout=[bounds, coverage])
        thresholds = distances.thresholds().summary()
    else:
        sweep.run(training=[weights], heldout=[bounds, coverage])
    theorem_4_8 = bounds.bounds()
    return Curves(
        sigma=sigma,
        max_posterior_weight=weights.largest.estimate(sigma, proportion=False),
        self_posterior_weight=weights.own.estimate(sigma, proportion=False),
        coverage=coverage.tally.estimate(sigma, proportion=True),
        coverage_lower_bound=theorem_4_8.lower,
        coverage_upper_bound=theorem_4_8.upper,
        coverage_plain_upper_bound=theorem_4_8.plain_upper,
        thresholds=thresholds,
        heldout_nearest_distance=float(np.median(bounds.nearest)),
        n_train=centres.n_train + sweep.merged[0],
        n_heldout=len(sweep.heldout or ()) + sweep.merged[1] + sweep.leaked,
        dim=centres.dim,
        duplicates=sweep.duplicates,
        merged=sweep.merged,
        leaked=sweep.leaked,
        settings={"posterior_draws": options.posterior_draws, "coverage_draws": options.coverage_draws,
                  "queries": options.queries, "shell_t": float(options.shell_t), "seed": int(options.seed),
                  "duplicates": options.duplicates},
        weight_per_point=weights.largest.point_mean(),
        coverage_per_point=coverage.tally.point_mean(),
    )


def log_spaced(levels: int) -> np.ndarray:
    """``levels`` noise levels from 0.02 to 80 with equal ratios. Raises InputError for fewer than 2."""
    if levels < 2:
        raise InputError(f"sigmas is {levels}; give 2 levels or more, or the levels themselves in a list")
    return np.geomspace(*SIGMA_RANGE, levels)
