"""What the page says, as frozen records. A part that is None is missing, and a ``Missing`` says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geomem.noise import NoiseLevelSampler


@dataclass(frozen=True)
class Missing:
    """Something the page would like to show: what, why it is not there, and the command that adds it, if one does."""

    what: str
    why: str
    command: str = ""


@dataclass(frozen=True, eq=False)
class DataFacts:
    """A data set and its geometry.

    shape: of one point. n_validation, n_test: held-out points for model selection, and those kept from it.
    duplicates: training points that equal an earlier one. shown: the first training points (k, ...) for the picture.
    zone: a danger-zone document; zone_origin: where it came from.
    """

    name: str
    sha256: str
    shape: tuple[int, ...]
    n_train: int
    n_heldout: int
    n_validation: int
    n_test: int
    duplicates: int
    notes: tuple[str, ...]
    shown: np.ndarray
    zone: dict[str, Any] | None
    zone_origin: str
    zone_command: str

    @property
    def dim(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class SampleFacts:
    """The samples that judge a run, in the order of their seeds.

    rows: (k, ...) those to show, ``nearest`` the training point nearest to each, ``ratios`` (k,) the distance to it
    over the distance to the second nearest, ``memorized`` (k,) bool. The first ``n_first`` are the first samples as
    they come; the others those with the smallest ratios of all.
    """

    rows: np.ndarray
    nearest: np.ndarray
    ratios: np.ndarray
    memorized: np.ndarray
    n_first: int


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run and what was found out about it.

    name: the directory as the caller gave it. command: ``geomem train`` as it can be repeated, '' where unknown.
    law: of the training noise levels. stats, watch: checked lines of stats.jsonl and watch.jsonl.
    levels: bands with the chosen step of each, None where the run kept no best weights.
    weights, sampling: which weights made the samples, and how.
    trajectory, heldout: shares ``{"rate", "low", "high", "n"}`` of samples and of held-out points.
    leaning: as ``Leaning.to_dict()``, None where it could not be measured. audit: as ``Audit.to_dict()``, None where
    there are no samples to look at, or too few held-out points.
    per_noise_level, references: of the model, and of denoisers known exactly, by name.
    quality: as ``QualityReport.to_dict()``.
    others: reports found in the run on other weights or samples: (file, weights, share).
    used: a line for each thing the page rests on. commands: those that repeat it.
    """

    name: str
    data: DataFacts
    config: dict[str, Any]
    command: str
    steps_done: int | None
    law: NoiseLevelSampler | None
    stats: list[dict[str, Any]]
    watch: list[dict[str, Any]]
    levels: dict[str, Any] | None
    weights: str
    sampling: str = ""
    trajectory: dict[str, Any] | None = None
    heldout: dict[str, Any] | None = None
    leaning: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    per_noise_level: dict[str, Any] | None = None
    references: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    samples: SampleFacts | None = None
    others: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    used: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    commands: tuple[str, ...] = ()
