"""The danger zone of a data set in one call: curves, zone, thresholds, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.data.table import encoded
from geomem.errors import are, counted
from geomem.geometry.curves import Curves, levels_of, measured
from geomem.geometry.options import MEMORY, QUERIES, Options
from geomem.geometry.precision import measured_to_tolerance
from geomem.geometry.refine import refined
from geomem.geometry.sweep import Sweep
from geomem.geometry.thresholds import ThresholdSummary
from geomem.geometry.zone import DangerZone, find_danger_zone, zone_reason
from geomem.noise.samplers import LogNormalSampler
from geomem.noise.schedules import DDPMSchedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.distributed import ProcessGroup

    from geomem.data import DataSet

SMALLEST_CLASS = 3  # training points of a class below which nothing is read from its curves


@dataclass(frozen=True)
class ZoneReport:
    """What ``danger_zone`` measured.

    ``curves``: at the levels asked for. ``refined``: with levels added where the zone and the crossing are read.
    ``zone``: None where W and C are nowhere both high; ``reason`` then says why, in one line. ``notes``: what limits
    the curves, a line each. ``threshold``, ``resolution``, ``tolerance``: as asked for.
    """

    curves: Curves
    refined: Curves
    zone: DangerZone | None
    reason: str | None
    notes: tuple[str, ...]
    threshold: float
    resolution: float
    tolerance: float | None

    @property
    def thresholds(self) -> ThresholdSummary:
        """Where the posterior concentrates and spreads (Theorem 4.2)."""
        return self.curves.thresholds

    def to_dict(self) -> dict[str, Any]:
        """The object of format geomem.danger-zone/1, ready for JSON, without the name and hash of a data set."""
        body = self._body()
        asked = {"threshold": self.threshold, "resolution": self.resolution, "tolerance": self.tolerance}
        return {"format": "geomem.danger-zone/1", **body, "settings": {**body["settings"], **asked},
                "space": {"name": "data", "dim": self.curves.dim}, "notes": list(self.notes)}

    def document(self, dataset: DataSet, *, space: Mapping[str, Any] | None = None,
                 classes: Mapping[Any, ZoneReport] | None = None) -> dict[str, Any]:
        """``to_dict`` with the data set that the points are of: its name, hash and duplicates.

        ``space``: where the points were projected, what on. ``classes``: reports by class (``zones_by_class``).
        """
        document = self.to_dict()
        document["data"] = {"name": dataset.name, **document["data"], "sha256": dataset.sha256,
                            "duplicates": dataset.duplicates, "leaked": dataset.n_leaked}
        document["space"] = dict(space or document["space"])
        if dataset.latents is not None:
            document["latents"] = asdict(dataset.latents)
            spread = dataset.latents.posterior_std
            if self.zone is not None and spread > self.zone.sigma_low / 2:
                document["notes"].append(
                    f"warning: the autoencoder's posterior spreads the latents by {spread:.3g}, more than half of the "
                    f"zone's lower edge {self.zone.sigma_low:.3g}; a training that draws from it anew at each step "
                    "sees other points than these")
        if classes is not None:
            document["classes"] = [{"class": label, **part._body(), "notes": list(part.notes)}
                                   for label, part in classes.items()]
        return document

    def plot(self) -> Figure:
        """W, C and the zone over the noise level, as ``geomem danger-zone --out`` draws them."""
        from geomem.plots import plot_curves

        return plot_curves([("danger zone", self)])

    def _body(self) -> dict[str, Any]:
        """What is said of the whole set and of each class."""
        body = {**self.curves.to_dict(), "zone": self.zone and _zone_to_dict(self.zone),
                "levels_added": len(self.refined.sigma) - len(self.curves.sigma)}
        return body if self.zone else {**body, "zone_reason": self.reason}


def danger_zone(train: Any, heldout: Any, *, sigmas: Any = 40, posterior_draws: int = 4, coverage_draws: int = 8,
                threshold: float = 0.8, resolution: float = 1e-3, tolerance: float | None = None,
                max_draws: int = 128, shell_t: float = 5.0, queries: int | None = QUERIES, seed: int = 0,
                device: Any = "auto", memory: int = MEMORY, duplicates: str = "merge",
                group: ProcessGroup | None = None,
                progress: Callable[[int, int], None] | None = None) -> ZoneReport:
    """The noise levels where a model trained on ``train`` is in danger of memorizing it (Two Calm Ends and the Wild
    Middle, sections 4.2 and 5). No training is needed.

    Arguments: ``train`` (N, ...), N >= 2, and ``heldout`` (M, ...), points of one shape, NumPy, torch or stored, or
    DataFrames (``geomem.data.table``); ``threshold``: the zone is where W and C are both at least this high;
    ``resolution``: levels are added until the zone and the crossing are read between two no farther apart in log sigma;
    ``tolerance``: raise the draws, up to ``max_draws`` per point, until every 95% interval of both curves has at most
    this half-width, where draws can do that; ``progress`` called as ``progress(done, total)``, in queries, from 0 again
    for each pass; the others as in ``geometry_curves``.
    Raises InputError for input that is not as described.
    """
    options = Options(posterior_draws, coverage_draws, shell_t, queries, seed, device, memory, group, progress,
                      duplicates)
    train, heldout = encoded(train, heldout=heldout)
    sweep, sigma = Sweep.of(train, heldout, options, reuse=True), levels_of(sigmas)
    if tolerance is None:
        curves, notes = measured(sweep, sigma), []
    else:
        precise = measured_to_tolerance(sweep, sigma, tolerance, max_draws)
        curves, notes = precise.curves, list(precise.notes)
        drawn = {name: curves.settings[name] for name in ("posterior_draws", "coverage_draws")}
        sweep = replace(sweep, options=replace(options, **drawn))
    finer = refined(sweep, curves, threshold, resolution)
    looked = curves.max_posterior_weight.n_points, curves.coverage.n_points
    if looked != curves.n_distinct:
        notes.append(f"looked from {looked[0]:,} training and {looked[1]:,} held-out points, random ones (--queries)")
    if curves.leaked:
        notes.append(f"{counted(curves.leaked, 'held-out point')} equal or nearly equal to training points "
                     f"{are(curves.leaked)} left out of C")
    if sweep.nothing_unseen:
        notes.append("all held-out points are equal or nearly equal to training points, so C is that of points the "
                     "network was trained on and near 1 at any noise; give points that it has not seen")
    zone = find_danger_zone(finer, threshold)
    return ZoneReport(curves, finer, zone, None if zone else zone_reason(finer, threshold), tuple(notes),
                      threshold, resolution, tolerance)


def zones_by_class(train: Any, heldout: Any, train_labels: Any, heldout_labels: Any,
                   **options: Any) -> tuple[dict[Any, ZoneReport], tuple[str, ...]]:
    """The danger zone of each class, its points against their own class: {label: report}, and a line for each class
    that has too few points.

    Arguments: as for ``danger_zone``, and the labels (N,) and (M,) of the points. ``progress`` starts anew for each
    class.
    """
    reports, notes = {}, []
    for label in np.unique(np.concatenate([train_labels, heldout_labels])).tolist():
        inside, outside = train[train_labels == label], heldout[heldout_labels == label]
        if len(inside) < SMALLEST_CLASS or len(outside) < 1:
            notes.append(f"class {label} is left out: {counted(len(inside), 'training point')} and "
                         f"{counted(len(outside), 'held-out point')}; it needs {SMALLEST_CLASS} and 1")
        else:
            reports[label] = danger_zone(inside, outside, **options)
    return reports, tuple(notes)


def _zone_to_dict(zone: DangerZone) -> dict[str, Any]:
    """With the share of the noise levels of EDM's published law within the zone, and its DDPM timesteps."""
    edm = LogNormalSampler()
    return {**asdict(zone), "edm_mass": float(edm.cdf(zone.sigma_high) - edm.cdf(zone.sigma_low)),
            "ddpm_timesteps": DDPMSchedule().timesteps_within(zone.sigma_low, zone.sigma_high)}
