"""[G] Figures up to 23: samples of the models trained with and without a gap, beside their nearest training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import timestep_gaps
from experiments.bench import Bench, Experiment, Interval, Outcome, order
from experiments.judged import changes
from experiments.pictures import captioned, encoded, shown
from geomem import load_data, memorization_rate
from geomem.generation import read_samples

# Digits, whose licence allows to publish pictures of them.
SMALL = timestep_gaps.Settings("digits", 200, 400, 8, "unet-tiny", iterations=1500, batch=256, samples=256, steps=50,
                               gaps=timestep_gaps.NAMED[:3], precision="bf16")


@dataclass(frozen=True)
class Settings:
    gaps: timestep_gaps.Settings
    shown: int = 12


SCALES = {scale: Settings(settings) for scale, settings in (timestep_gaps.SCALES | {"small": SMALL}).items()
          if scale != "medium"}


def run(bench: Bench, settings: Settings) -> Outcome:
    data, made = timestep_gaps.trained(bench, settings.gaps, settings.gaps.averaged)
    points = load_data(data)
    train = np.array(points.train)

    def find(path: Path) -> dict[str, Any]:
        samples = read_samples(str(path)).values
        rate, shown = memorization_rate(samples, train), samples[:settings.shown]
        return {"picture": encoded([shown, train[rate.nearest[:settings.shown]]], float(train.min()),
                                   float(train.max())),
                "memorized": rate.memorized[:settings.shown].tolist(), "rate": rate.rate, "low": rate.low,
                "high": rate.high, "n": rate.n}

    found = {gap: bench.part(gap, partial(find, path)) for gap, path in made.items()}
    nested = [gap for gap in reversed(timestep_gaps.NESTED) if gap in found]
    steps = changes(bench, made, points, pairwise(nested)).values()
    return Outcome({"gaps": found}, [
        order("the wider the gap, the less is memorized", [(gap, Interval.of(found[gap], "rate")) for gap in nested],
              "9% < 13% < 43% < 75%", differences=[Interval.of(step["memorized"], "difference") for step in steps])],
        [*settings.gaps.deviations(), "the first seeds are shown, not chosen ones"])


def draw(document: Mapping[str, Any]) -> Figure:
    """Two rows per gap: samples above, nearest training images below."""
    found, settings = document["result"]["gaps"], document["settings"]
    with captioned(document, "samples and nearest training images", 1.6 + 0.55 * settings["shown"],
                   0.6 + 1.35 * len(found)) as figure:
        for axes, (gap, part) in zip(figure.subplots(len(found), 1), found.items(), strict=True):
            shown(axes, part["picture"], ["sample", "nearest"])
            axes.set_title(f"gap {gap}: {part['rate']:.0%} [{100 * part['low']:.0f}, {100 * part['high']:.0f}] of "
                           f"{part['n']:,} samples memorized, {sum(part['memorized'])} of these {settings['shown']}",
                           fontsize=9)
    return figure


EXPERIMENT = Experiment("gap-samples", "[G] Figures to 23", "samples of models trained with gaps", SCALES, run, draw)
