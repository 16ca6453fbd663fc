"""Everything that the theorems say about one data set, each beside what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from geomem.geometry.bounds import CoverageBounds, coverage_bounds
from geomem.geometry.options import MEMORY, QUERIES
from geomem.geometry.thresholds import Thresholds, concentration_thresholds
from geomem.theory.flow import FlowCosine, NearPoint, denoiser_near_point, flow_cosine
from geomem.theory.limits import GaussianLaw, SensitivityByDistance, gaussian_law, sensitivity_by_distance
from geomem.theory.zone_trend import ZoneBySize, zone_by_training_size

if TYPE_CHECKING:
    from geomem.data import DataSet

PARTS = 7
HALVINGS, FEWEST_POINTS = 6, 10  # of the default training set sizes: N, N/2, ..., N/32, none below 10


@dataclass(frozen=True)
class Bounds:
    """The theorems for one data set, in the order of the measurements.

    ``by_size``: coverage and weight at every training set size, the whole set last. ``coverage_bounds``: Theorem 4.8.
    ``thresholds``: Theorems 4.2 and 4.9. ``near_point``: Lemma A.1. ``flow``: Corollary A.2. ``gaussian``: Theorem
    4.11. ``sensitivity``: Theorem 4.10 at 4, 16 and 64 standard deviations of the data. ``dim``: values of a point.
    ``settings``: as asked for.
    """

    by_size: ZoneBySize
    coverage_bounds: CoverageBounds
    thresholds: Thresholds
    near_point: NearPoint
    flow: FlowCosine
    gaussian: GaussianLaw
    sensitivity: tuple[SensitivityByDistance, ...]
    dim: int
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The object of format geomem.bounds/1, ready for JSON, without the name and hash of a data set."""
        by_size, coverage, bounds = self.by_size, self.by_size.coverage, self.coverage_bounds
        below, above = self.thresholds.concentrated_below[:, None], self.thresholds.spread_above[:, None]
        summary = self.thresholds.summary()
        return {
            "format": "geomem.bounds/1",
            "data": {"n_train": bounds.n_train, "n_heldout": coverage.n_heldout, "dim": self.dim},
            "sigma": by_size.sigma.tolist(),
            "coverage": {
                **{part: getattr(coverage, part)[-1].tolist() for part in ("estimate", "stderr", "low", "high")},
                "lower_bound": bounds.lower.tolist(), "upper_bound": bounds.upper.tolist(),
                "plain_upper_bound": bounds.plain_upper.tolist()},
            "max_posterior_weight": {
                "estimate": by_size.weight[-1].tolist(), "stderr": by_size.weight_stderr[-1].tolist(),
                "share_concentrated": (below >= by_size.sigma).mean(axis=0).tolist(),
                "share_spread": (above <= by_size.sigma).mean(axis=0).tolist()},
            "near_point": _fields(self.near_point, "weight weight_stderr weight_bound distance distance_stderr "
                                  "distance_bound held informative eta probability"),
            # Flow times fall as sigma rises.
            "flow": {name: values[::-1] if isinstance(values, list) else values for name, values in _fields(
                self.flow, "time cosine cosine_stderr bound held informative probability").items()},
            "gaussian": _fields(self.gaussian, "difference difference_stderr relative slope slope_low slope_high "
                                "fit_sigma fit_difference"),
            "sensitivity": [_fields(part, " ".join(vars(part))) for part in self.sensitivity],
            "by_size": {
                "sizes": by_size.sizes.tolist(), "coverage": coverage.estimate.tolist(),
                "coverage_stderr": coverage.stderr.tolist(),
                **_fields(by_size, "weight weight_stderr sigma_low sigma_high crossing peak parts_at parts_low "
                          "parts_high trend")},
            "thresholds": _fields(summary, "concentrated_below spread_above disjoint_below"),
            "settings": dict(self.settings),
        }

    def document(self, dataset: DataSet, *, model: str | None = None) -> dict[str, Any]:
        """``to_dict`` with the data set that the points are of, and the name of the model whose sensitivity it is."""
        document = self.to_dict()
        document["data"] = {"name": dataset.name, **document["data"], "sha256": dataset.sha256,
                            "duplicates": dataset.duplicates}
        document["settings"]["model"] = model
        return document


def _fields(record: Any, names: str) -> dict[str, Any]:
    """Fields of a record for JSON: arrays as lists, None where a value is not finite."""
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, list):
            return [plain(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: plain(getattr(record, name)) for name in names.split()}


def default_sizes(n_train: int) -> list[int]:
    """N, N/2, N/4, ..., six at most and none below 10 but N itself, ascending."""
    halves = {n_train >> k for k in range(HALVINGS)}
    return sorted(n for n in halves if n >= FEWEST_POINTS or n == n_train)


def bounds(train: Any, heldout: Any, *, sigmas: Any = 40, sizes: Sequence[int] | None = None, shell_t: float = 5.0,
           q: float = 0.95, delta: float = 0.05, threshold: float = 0.8, points: int = 256,
           denoiser: Callable[..., Tensor] | None = None, queries: int = QUERIES, seed: int = 0, device: Any = "auto",
           memory: int = MEMORY, progress: Callable[[int, int], None] | None = None) -> Bounds:
    """What the theorems of Two Calm Ends and the Wild Middle guarantee for a data set, beside what is measured.

    Arguments: ``train`` (N, ...), N >= 2, and ``heldout`` (M, ...), points of one shape; ``sizes`` training set sizes
    for coverage and zone (N is always among them; all, half, ..., 1/32 of the points where None); ``q`` and ``delta``
    the weight and the probability of failure of Theorem 4.2, the latter also of Lemma A.1 and Corollary A.2;
    ``threshold`` of the danger zone; ``points`` training points, random ones, for Lemma A.1, Corollary A.2 and Theorem
    4.11; ``denoiser`` on the CPU, whose sensitivity is measured (None: the Gaussian one of the data); ``progress``
    called as ``progress(done, total)`` after each of the seven parts; the others as in ``geometry_curves``.
    Raises InputError for input that is not as described.
    """
    n = len(train)
    points = min(points, n)
    how: dict[str, Any] = {"shell_t": shell_t, "queries": queries, "seed": seed, "device": device, "memory": memory}
    drawn = {"posterior_draws": 4, "coverage_draws": 8}
    near: dict[str, Any] = {"points": points, "draws": 1, "seed": seed}
    done = 0

    def counted(part: Any) -> Any:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, PARTS)
        return part

    by_size = counted(zone_by_training_size(train, heldout, sorted({*(sizes or default_sizes(n)), n}), sigmas=sigmas,
                                            threshold=threshold, **drawn, **how))
    sigma = by_size.sigma
    return Bounds(
        by_size,
        counted(coverage_bounds(train, heldout, sigma, **how)),
        counted(concentration_thresholds(train, q=q, delta=delta, **how)),
        counted(denoiser_near_point(train, sigma, delta=delta, **near)),
        counted(flow_cosine(train, 1 / (1 + sigma), delta=delta, **near)),
        counted(gaussian_law(train, sigma, **near)),
        counted(sensitivity_by_distance(train, denoiser, points=points, seed=seed)),
        int(np.prod(train.shape[1:])),
        {"shell_t": shell_t, "q": q, "delta": delta, "threshold": threshold, **drawn, "points": points,
         "point_draws": near["draws"], "queries": queries, "seed": seed})
