"""Several sets of samples beside each other: how much of each is memorized, how good it is, means over runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from geomem.data import DataSet
from geomem.errors import InputError, counted
from geomem.features import PIXELS, FeatureSpace, InceptionFeatures
from geomem.generation import Samples
from geomem.memorization import Leaning, MemorizationRate, leaning
from geomem.memorization.ratio import RATIO, apply_ratio_rule, distinct_training
from geomem.memorization.views import Views
from geomem.points import as_rows
from geomem.quality.metrics import LIMITS, Judge, Measurement
from geomem.quality.report import QualityReport, quality_report
from geomem.statistics import MeanOverRuns, mean_over_runs

FORMAT = "geomem.quality/1"
MEMORIZED, LEANING, FRECHET = "memorized", "nearer to train", "Frechet (px)"  # titles of the first columns
LOG = logging.getLogger("geomem")
_SHORT = {"Frechet distance": "Frechet", "kernel distance": "MMD^2", "Wasserstein-1": "W1", "Jensen-Shannon": "JS",
          "mean distance": "mean L2"}
_FEATURES = {"pixels": "px", "Inception with other weights": "other Inception"}


class Column(NamedTuple):
    """A measure that is no ``Measurement``; the fields as there. floor: None where it has none."""

    name: str
    value: float
    low: float
    high: float
    stderr: float
    floor: float | None
    better: str = "lower"


@dataclass(frozen=True, eq=False)
class Row:
    """What was measured of one set of samples. leaning: None where too few test points are left. about: what is known
    of the samples.
    """

    label: str
    memorization: MemorizationRate
    leaning: Leaning | None
    quality: QualityReport
    metrics: list[Measurement]
    about: dict[str, Any]

    @property
    def columns(self) -> dict[str, Column | Measurement]:
        """By title, the memorized share first."""
        rate, s, q = self.memorization, self.leaning, self.quality
        columns: dict[str, Column | Measurement] = {
            MEMORIZED: Column("memorized", rate.rate, rate.low, rate.high, rate.stderr, None)}
        if s is not None:
            columns[LEANING] = Column("leaning", s.share, s.low, s.high, s.stderr,
                                      s.floor.share if s.floor else None)
        columns[FRECHET] = Column("Frechet distance", q.frechet, q.frechet_low, q.frechet_high, q.frechet_stderr,
                                  q.frechet_floor)
        for m in self.metrics:
            space = _FEATURES.get(m.features, m.features.replace("component ", "pc"))
            columns[_SHORT.get(m.name, m.name) + ("" if m.name in ("FID", "KID") else f" ({space})")] = m
        return columns

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"label": self.label, "memorization": self.memorization.to_dict(),
                "leaning": None if self.leaning is None else self.leaning.to_dict(), "quality": self.quality.to_dict(),
                "metrics": [measurement.to_dict() for measurement in self.metrics], "about": self.about}


@dataclass(frozen=True)
class SettingMean:
    """Means over the runs of one setting. n: samples of all of them. columns: by title.

    nearest_samples: mean over the runs of their median distances to the nearest training point, in data units.
    """

    label: str
    runs: int
    n: int
    columns: dict[str, MeanOverRuns]
    nearest_samples: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """What ``compare_samples`` found: a row for each set of samples, and a mean for each label that came several times.

    heldout: the ratio rule on the held-out points. data, settings: for JSON.
    """

    data: dict[str, Any]
    rows: list[Row]
    heldout: MemorizationRate
    means: list[SettingMean]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, of the format geomem.quality/1."""
        return {"format": FORMAT, "data": self.data, "rows": [row.to_dict() for row in self.rows],
                "heldout": {"memorization": self.heldout.to_dict()}, "means": [asdict(mean) for mean in self.means],
                "settings": self.settings}

    def pareto(self, of_metrics: bool = True) -> dict[str, Any]:
        """Arguments of ``geomem.plots.plot_pareto``: of each setting the share nearer to training, or the memorized
        share where leaning cannot be measured, and the first measure asked for that has a better and a worse, else, or
        not ``of_metrics``, the Frechet distance in pixels.
        """
        columns = self.rows[0].columns
        share = LEANING if all(LEANING in row.columns for row in self.rows) else MEMORIZED
        asked = [title for title, column in columns.items()
                 if title not in (MEMORIZED, LEANING, FRECHET) and column.better in ("lower", "higher")]
        first = asked[0] if asked and of_metrics else FRECHET
        quality = columns[first]

        settings = []
        averages = {mean.label: mean.columns for mean in self.means}
        for label in dict.fromkeys(row.label for row in self.rows):
            runs = [{part: {name: getattr(row.columns[title], name) for name in ("value", "low", "high")}
                     for part, title in (("quality", first), ("share", share))}
                    for row in self.rows if row.label == label]
            average = runs[0] if label not in averages else {
                part: {"value": mean.mean, "low": mean.low, "high": mean.high}
                for part, mean in (("quality", averages[label][first]), ("share", averages[label][share]))}
            settings.append((label, average, runs))
        sizes = sorted({row.memorization.n for row in self.rows})
        floor = self.heldout.rate if share == MEMORIZED else columns[share].floor
        meaning = ({"ylabel": "nearer to training points", "honest": 0.5} if share == LEANING else
                   {"ylabel": "memorized share", "honest": 0.0})
        return {"settings": settings, "floor": (quality.floor, floor), **meaning, "title": self.data["name"],
                "xlabel": f"{first}, {' or '.join(f'{n:,}' for n in sizes)} samples against "
                          f"{self.data['n_test']:,} held-out points", "better": quality.better}


def compare_samples(samples: Sequence[Samples], dataset: DataSet, *, labels: Sequence[str] | None = None,
                    metrics: Sequence[str] = (), features: str | FeatureSpace = PIXELS,
                    inception: InceptionFeatures | None = None,
                    seed: int = 0, device: str | torch.device = "auto",
                    progress: Callable[[int, int], None] | None = None) -> Comparison:
    """Measure each of ``samples`` against the training points and the test part of the held-out points.

    labels: of the settings, one for each of the samples; those of one label are runs of one setting. None for the names
        of the samples. metrics, features, inception, seed: as in ``Judge``. progress: called with (done, total).

    Raises InputError for fewer than 2 samples, 4 with metrics, and as ``Judge`` and ``quality_report`` do.
    """
    least = 4 if metrics else 2  # for a third neighbour; for a covariance
    for given in samples:
        if len(given.values) < least:
            raise InputError(f"{given.name} holds {counted(len(given.values), 'sample')}; what is measured needs "
                             f"{least} or more")
    test = dataset.test
    judge = Judge(dataset.train, test, metrics, features=features, inception=inception, seed=seed,
                  device=device) if metrics else None
    training = {flip: distinct_training(dataset.train, None, Views.of(dataset.train, mirrored=flip), device=device)
                for flip in {False, *(given.flip for given in samples)}}
    rows = []
    for label, given in zip(labels or [given.name for given in samples], samples, strict=True):
        report = quality_report(given.values, dataset.train, test, seed=seed, device=device)
        rate = apply_ratio_rule(as_rows(given.values, "samples"), training[given.flip], RATIO, device=device)
        rows.append(Row(label, rate, _leaning(given, dataset, seed, device), report,
                        judge.measure(given.values) if judge else [], given.about))
        if progress:
            progress(len(rows), len(samples))
    return Comparison(
        {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train), "n_test": len(test),
         "leaked": dataset.n_leaked}, rows,
        apply_ratio_rule(as_rows(test, "held-out points"), training[False], RATIO, device=device), _means(rows),
        {"metrics": list(dict.fromkeys(metrics)), "features": getattr(features, "name", features), "seed": seed,
         "fid_weights": None if inception is None else {"sha256": inception.sha256, "standard": inception.standard}})


def _leaning(samples: Samples, dataset: DataSet, seed: int, device: str | torch.device) -> Leaning | None:
    try:
        return leaning(samples.values, dataset.train, dataset.test, mirrored=samples.flip, seed=seed, device=device)
    except InputError as error:
        LOG.warning(f"warning: whether {samples.name} leans on the training points cannot be said: {error}")
        return None


def _means(rows: Sequence[Row]) -> list[SettingMean]:
    """Of each label of several rows; intervals are cut to what is possible."""
    means = []
    for label in dict.fromkeys(row.label for row in rows):
        runs = [row for row in rows if row.label == label]
        if len(runs) < 2:
            continue
        columns = {}
        for title in runs[0].columns:
            cells = [run.columns[title] for run in runs if title in run.columns]
            if len(cells) < len(runs):
                continue
            mean = mean_over_runs([cell.value for cell in cells], [cell.stderr for cell in cells])
            smallest, largest = LIMITS.get(cells[0].name, (0.0, math.inf))
            columns[title] = replace(mean, low=max(smallest, mean.low), high=min(largest, mean.high))
        means.append(SettingMean(label, len(runs), sum(run.memorization.n for run in runs), columns,
                                 sum(run.quality.nearest_samples for run in runs) / len(runs)))
    return means
