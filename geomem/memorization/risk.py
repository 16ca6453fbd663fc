"""The training points that a model is most likely to copy, held against the copies it made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.geometry.risk import TrainingRisk, training_risk
from geomem.memorization.copies import CopyCounts, copies_per_point
from geomem.memorization.ratio import distinct_training
from geomem.points import Array, as_rows
from geomem.statistics import rank_correlation

if TYPE_CHECKING:
    from geomem.data import DataSet

COLUMNS = ("index", "label", "multiplicity", "group_size", "group", "nearest", "nearest_distance",
           "neighbour_distance", "concentrated_below", "sigma_half", "score")
PREDICTORS = ("score", "group_size", "nearest_distance", "neighbour_distance", "concentrated_below", "sigma_half",
              "distance_to_mean")


@dataclass(frozen=True, eq=False)
class RiskReport:
    """The risk of every training point, (N,) each in the order given.

    ``counts``: the copies among samples of a model, None without samples. ``label``: classes, None where there are
    none. ``distance_to_mean``: of each point to the mean of all.
    """

    risk: TrainingRisk
    counts: CopyCounts | None
    label: np.ndarray | None
    distance_to_mean: np.ndarray
    dim: int

    def columns(self) -> dict[str, np.ndarray]:
        """One array (N,) per column of a table, those there are."""
        columns = {**vars(self.risk), "label": self.label, "index": np.arange(len(self.risk.score))}
        columns = {name: columns[name] for name in COLUMNS if columns[name] is not None}
        return columns | self._outcomes()

    def to_dict(self, top: int = 20) -> dict[str, Any]:
        """The object of format geomem.risk/1 with the ``top`` riskiest points, ready for JSON, without the name and
        hash of a data set.
        """
        risk, columns, ranking = self.risk, self.columns(), self.risk.ranking()
        medians = [name for name in ("nearest_distance", "concentrated_below", "sigma_half") if name in columns]
        return {
            "format": "geomem.risk/1",
            "data": {"n_train": len(risk.score), "dim": self.dim, "groups": len(ranking)},
            "top": [{name: _number(values[index]) for name, values in columns.items()} for index in ranking[:top]],
            "median": {name: _number(np.median(columns[name][ranking])) for name in medians},
            "samples": None if self.counts is None else self._comparison(self.counts),
            "settings": {**{name: getattr(risk, name) for name in ("q", "delta", "tolerance", "neighbours", "draws",
                                                                   "seed")}, "top": top},
        }

    def document(self, dataset: DataSet, top: int = 20) -> dict[str, Any]:
        """``to_dict`` with the data set that the points are of."""
        document = self.to_dict(top)
        document["data"] = {"name": dataset.name, **document["data"], "sha256": dataset.sha256,
                            "duplicates": dataset.duplicates}
        return document

    def _outcomes(self) -> dict[str, np.ndarray]:
        counts = self.counts
        return {} if counts is None else {"copies": counts.copies, "close_samples": counts.close,
                                          "nearest_samples": counts.nearest}

    def _comparison(self, counts: CopyCounts) -> dict[str, Any]:
        """The copies, and the rank correlation of each predictor with them over the groups."""
        ranking = self.risk.ranking()
        known = {**vars(self.risk), "distance_to_mean": self.distance_to_mean}
        predictors = {name: known[name][ranking] for name in PREDICTORS if known[name] is not None}
        correlations = {
            name: {outcome: rank_correlation(values[usable], count[ranking][usable], seed=self.risk.seed).to_dict()
                   for outcome, count in self._outcomes().items()}
            for name, values in predictors.items() if np.count_nonzero(usable := np.isfinite(values)) >= 3}
        copies, size, rate = counts.copies[ranking], self.risk.group_size[ranking], counts.rate
        tenth = max(1, len(ranking) // 10)
        return {"n": rate.n, "memorized": {name: getattr(rate, name) for name in ("count", "rate", "low", "high")},
                "close_distance": counts.close_distance, "points_copied": int((copies > 0).sum()),
                "riskiest_tenth": {"points": tenth,
                                   "share_of_copies": float(copies[:tenth].sum() / max(1, copies.sum()))},
                "by_group_size": {str(times): _mean(copies[size == times]) for times in np.unique(size).tolist()},
                "correlations": correlations}


def risk_report(train: Array, samples: Array | None = None, *, labels: np.ndarray | None = None,
                tolerance: float | None = None, seed: int = 0, device: str | torch.device = "auto",
                progress: Callable[[int, int], None] | None = None) -> RiskReport:
    """Rank the training points by how likely a model that memorizes is to copy them.

    Arguments: ``train`` (N, ...); ``samples`` (n, ...) of a model trained on them, to count the copies of each point;
    ``labels`` (N,) classes; ``tolerance`` within which points are one (None: that of ``memorization_rate``); ``seed``
    of the noise; ``progress`` called as ``progress(done, total)`` in points.
    Raises InputError as ``training_risk`` and ``copies_per_point`` do.
    """
    if tolerance is None:
        tolerance = distinct_training(train, None, device=device).tolerance
    risk = training_risk(train, tolerance=tolerance, seed=seed, device=device, progress=progress)
    counts = None if samples is None else copies_per_point(samples, train, tolerance=tolerance, device=device)
    rows = as_rows(train, "train")
    far = np.linalg.norm(rows - rows.mean(axis=0, dtype=np.float64), axis=1)
    return RiskReport(risk, counts, labels, far, rows.shape[1])


def _mean(values: np.ndarray) -> dict[str, Any]:
    """Number of points, mean and its standard error over the points (None for one point)."""
    n = len(values)
    return {"points": n, "mean_copies": float(values.mean()),
            "stderr": float(values.std(ddof=1) / n**0.5) if n > 1 else None}


def _number(value: Any) -> int | float | None:
    """For JSON: a Python number, None for infinity."""
    number = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else None
