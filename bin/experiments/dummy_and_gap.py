"""[G] Figure 4: automobiles along training: baseline, a dummy class of noise images, and a gap in the noise levels.

Scale small was to take 1,200 steps and 512 samples; it was cut to 800 and 256 to save time, before it was first run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, against, order, unlike
from experiments.judged import changes, judged
from experiments.pictures import band, captioned, images_of
from geomem import load_data
from geomem.plots.style import COLOURS

METHODS: dict[str, dict[str, Any]] = {"baseline": {}, "dummy": {"dummy_class": -1}, "gap": {"gap": "zone"},
                                      "gap-auto": {"gap": "auto"}}  # options of geomem.train
# Memorized shares at the end, read from the text of [G].
PUBLISHED = {"baseline": .788, "dummy": .090, "gap": .007}
ORDER = ("gap", "dummy", "baseline")  # of the memorized shares in [G]


@dataclass(frozen=True)
class Settings:
    data: str
    n_train: int
    n_heldout: int
    side: int
    network: str
    iterations: int
    checkpoints: int
    batch: int
    samples: int
    precision: str = "fp32"
    methods: tuple[str, ...] = tuple(METHODS)
    seed: int = 0


SCALES = {"smoke": Settings("digits", 40, 200, 8, "mlp", iterations=20, checkpoints=2, batch=32, samples=16,
                              methods=("baseline", "gap")),
          "small": Settings("cars", 128, 1000, 16, "unet-tiny", iterations=800, checkpoints=4, batch=128,
                            samples=256, precision="bf16"),
          "medium": Settings("cars", 128, 1000, 32, "unet-tiny", iterations=1200, checkpoints=6, batch=128,
                             samples=256, precision="bf16", methods=("baseline", "gap", "gap-auto")),
          "paper": Settings("cars", 2000, 4000, 32, "unet-cifar", iterations=40_000, checkpoints=8, batch=512,
                            samples=1024, precision="bf16")}


def run(bench: Bench, settings: Settings) -> Outcome:
    data = sources.named(bench, settings.data, settings.n_train, settings.n_heldout, settings.side)
    points = load_data(data)
    steps = [settings.iterations * k // settings.checkpoints for k in range(1, settings.checkpoints + 1)]
    found: dict[str, list[Any]] = {}
    last: dict[str, Path] = {}
    for method in settings.methods:
        found[method], run = [], None
        for step in steps:
            run = bench.model(f"{data.stem}-{settings.network}-{method}-{step}", data, step, settings, after=run,
                              **METHODS[method])
            last[method] = bench.samples(run, settings.samples)
            found[method].append({"step": step, **bench.part(f"{method}-{step}",
                                                             partial(judged, last[method], points))})
    between = changes(bench, last, points, pairs(last))
    return Outcome({"methods": found, "changes": between}, compared(found, between), [
        f"{settings.n_train:,} images of {settings.side} x {settings.side} ([G]: 2,000 of 32 x 32), "
        f"{settings.iterations:,} steps of {settings.batch}, network {settings.network}, one seed, "
        f"{settings.samples:,} samples; [G] does not publish batch size and gap",
        *(["half of each batch of the dummy class is noise: at equal steps it sees the data half as often"]
          if "dummy" in settings.methods else []),
        "the gap is geomem's danger zone at 0.8; gap-auto, the wider one, is ours and not in [G]",
        "Frechet distance in pixels to held-out images in place of FID",
        "images come from lossy JPEG"])


def pairs(methods: Iterable[str]) -> list[tuple[str, str]]:
    """Neighbours in the order of [G], and the baseline beside the gap, which costs quality or does not."""
    there = [method for method in ORDER if method in methods]
    return list(dict.fromkeys([*pairwise(there), ("baseline", "gap")]))


def compared(found: dict[str, list[Any]], changes: dict[str, Any]) -> list[Compared]:
    last = {method: rows[-1] for method, rows in found.items()}
    shares = {method: Interval.of(row, "memorized") for method, row in last.items()}
    there = [method for method in ORDER if method in last]
    seen = [row for row in found["baseline"] if "dummy" in last and 2 * row["step"] == last["dummy"]["step"]]
    return [
        *(unlike(f"memorized at the end, {method}", shares[method].told(".1%"), f"{value:.1%}",
                 "other sizes, networks and numbers of steps")
          for method, value in PUBLISHED.items() if method in last),
        *(unlike(f"nearer to training at the end, {method}", Interval.of(row["leaning"], "share").told(".1%"),
                 "not in [G]", "leaning is ours; 50% is what unseen images have") for method, row in last.items()),
        order(f"memorized at the end: {' < '.join(there)}", [(method, shares[method]) for method in there],
              "0.7% < 9.0% < 78.8%", differences=[Interval.of(changes[f"{a} to {b}"]["memorized"], "difference")
                                                  for a, b in pairwise(there)]),
        *(unlike("dummy at the end beside the baseline at half the steps, which saw the data as often",
                 f"{last['dummy']['memorized']:.1%} and {row['memorized']:.1%}", "not at hand",
                 "[G] compares at equal steps") for row in seen),
        against("Frechet distance at the end, gap less baseline, paired by seed", Interval.of(
            changes["baseline to gap"]["frechet"], "difference"), 0, "FID stays near the baseline's", ".2f")]


def draw(document: Mapping[str, Any]) -> Figure:
    """Memorized share and Frechet distance with 95% intervals over the steps, one line per method."""
    with captioned(document, images_of(document["settings"]), 9, 3.8) as figure:
        share, quality = figure.subplots(1, 2)
        for (method, rows), colour in zip(document["result"]["methods"].items(), COLOURS, strict=False):
            steps = [row["step"] for row in rows]
            for axes, *names in ((share, "memorized", "low", "high"),
                                 (quality, "frechet", "frechet_low", "frechet_high")):
                curve = {part: [row[name] for row in rows]
                         for part, name in zip(("estimate", "low", "high"), names, strict=True)}
                band(axes, steps, curve, colour, method, alpha=.2)
        share.set(xlabel="step", ylabel="memorized share", ylim=(-.03, 1.03))
        quality.set(xlabel="step", ylabel="Frechet distance in pixels")
        share.legend()
    return figure


EXPERIMENT = Experiment("dummy-and-gap", "[G] Figure 4", "baseline, dummy class and gap along training", SCALES, run,
                        draw)
