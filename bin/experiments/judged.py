"""The figures of a file of samples that several experiments share, and what changes from one file to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments.bench import Bench
from geomem.data import DataSet
from geomem.generation import read_samples
from geomem.memorization import leaning, memorization_rate
from geomem.quality import quality_report
from geomem.quality.frechet import frechet_change
from geomem.statistics import Z_95, paired_share_difference


def judged(samples: Path, data: DataSet) -> dict[str, Any]:
    """Memorized share and leaning with their intervals, and Frechet distance in pixels to the held-out points that did
    not steer.
    """
    values = read_samples(str(samples)).values
    rate, quality = memorization_rate(values, data.train), quality_report(values, data.train, data.test)
    return {"memorized": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n,
            "leaning": leaning(values, data.train, data.test).to_dict(),
            "frechet": quality.frechet, "frechet_low": quality.frechet_low, "frechet_high": quality.frechet_high,
            "frechet_floor": quality.frechet_floor, "nearest": quality.nearest_samples,
            "nearest_heldout": quality.nearest_heldout}


def changes(bench: Bench, made: Mapping[str, Path], data: DataSet, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What changes from the first file to the second of each pair, by "first to second"."""
    return {f"{a} to {b}": bench.part(f"{a} to {b}", partial(changed, made[a], made[b], data)) for a, b in pairs}


def changed(before: Path, after: Path, data: DataSet) -> dict[str, dict[str, float]]:
    """Changes of the memorized share and of the Frechet distance between two files with the same seeds, each as
    ``difference``, ``low`` and ``high``. They are paired: what a seed does to both files alike cancels.
    """
    first, second = (read_samples(str(path)).values for path in (before, after))
    share = paired_share_difference(*(memorization_rate(values, data.train).memorized for values in (first, second)))
    distance, stderr = frechet_change(first, second, data.test)
    return {"memorized": {"difference": share.difference, "low": share.low, "high": share.high},
            "frechet": {"difference": distance, "low": distance - Z_95 * stderr, "high": distance + Z_95 * stderr}}
