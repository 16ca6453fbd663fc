"""The figures of a file of samples that several experiments share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geomem.cli.samples import read_samples
from geomem.data import DataSet
from geomem.memorization import memorization_rate
from geomem.quality import quality_report


def judged(samples: Path, data: DataSet) -> dict[str, Any]:
    """Memorized share with its interval, and Frechet distance in pixels to the held-out points that did not steer."""
    values = read_samples(str(samples)).values
    rate, quality = memorization_rate(values, data.train), quality_report(values, data.train, data.test)
    return {"memorized": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n,
            "frechet": quality.frechet, "frechet_low": quality.frechet_low, "frechet_high": quality.frechet_high,
            "frechet_floor": quality.frechet_floor, "nearest": quality.nearest_samples,
            "nearest_heldout": quality.nearest_heldout}
