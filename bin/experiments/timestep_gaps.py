"""[G] Figures 5 and 9: grey faces with DDPM, ranges of timesteps left out: memorization, quality, Pareto front.

A first run at scale small, of 800 steps and five gaps, memorized only 5.5% without a gap; 1,500 steps were chosen then,
and three gaps to save time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, order, unlike
from experiments.judged import changes, judged
from experiments.pictures import captioned, images_of
from geomem import load_data
from geomem.plots.style import BLUE, GREY
from geomem.statistics import pareto_front

# Memorized shares, read from the text of [G].
PUBLISHED = {"none": .75, "100-350": .09, "100-200": .43, "100-275": .13}
NAMED = ("100-200", "100-275", "100-350", "150-250", "167-275")  # of the nine of [G]; the other four are not at hand
NESTED = ("none", "100-200", "100-275", "100-350")  # each within the next
OURS = ("zone", "200-350", "150-350", "100-150", "225-350")


@dataclass(frozen=True)
class Settings:
    data: str
    n_train: int
    n_heldout: int
    side: int
    network: str
    iterations: int
    batch: int
    samples: int
    gaps: tuple[str, ...]
    steps: int = 100
    averaged: bool = True  # the weights that are sampled from; if not, both are, and the others only told
    learning_rate: float | None = None
    dropout: float = 0.0
    precision: str = "fp32"
    seed: int = 0

    def deviations(self) -> list[str]:
        """What is not as in [G]."""
        return [
            f"{self.n_train:,} {'digits' if self.data == 'digits' else 'faces'} of {self.side} x {self.side} ([G]: "
            f"1,024 faces of 32 x 32), network {self.network}, {self.iterations:,} steps of {self.batch} ([G]: 100,000 "
            f"of 512), one seed, {self.samples:,} samples by {self.steps} steps of DDIM ([G]: 10,000 by 100 or 200)",
            f"AdamW{' and averaged weights; [G] averages none and' if self.averaged else '; [G]'} names both SGD and "
            "Adam",
            f"of [G]'s nine gaps these are known: {', '.join(NAMED)}",
            *(["smaller images have their nearest neighbours closer: the same timesteps are not the same place"]
              if self.side < 32 else [])]


SCALES = {"smoke": Settings("digits", 40, 200, 8, "mlp", iterations=20, batch=32, samples=16, steps=5,
                            gaps=("100-350",)),
          "small": Settings("faces", 128, 2000, 16, "unet-tiny", iterations=1500, batch=128, samples=256, steps=50,
                            gaps=NAMED[:3], precision="bf16"),
          "medium": Settings("faces", 128, 2000, 32, "unet-tiny", iterations=2000, batch=128, samples=256, steps=50,
                             gaps=("100-350", "zone"), averaged=False, precision="bf16"),
          "paper": Settings("faces", 1024, 8000, 32, "unet-grey", iterations=100_000, batch=512, samples=10_000,
                            gaps=NAMED + OURS, learning_rate=1e-4, dropout=.1, precision="bf16")}


def trained(bench: Bench, settings: Settings, averaged: bool) -> tuple[Path, dict[str, Path]]:
    """The file of the data, and the samples of the model without a gap and of those with one."""
    data = sources.named(bench, settings.data, settings.n_train, settings.n_heldout, settings.side)
    made = {}
    for gap in ("none", *settings.gaps):
        run = bench.model(f"{data.stem}-{settings.network}-ddpm-{settings.iterations}-gap-{gap}", data,
                          settings.iterations, settings, objective="ddpm",
                          gap="{}t:{}t".format(*gap.split("-")) if "-" in gap else gap)
        made[gap] = bench.samples(run, settings.samples, averaged=averaged, sampler="ddim", steps=settings.steps)
    return data, made


def run(bench: Bench, settings: Settings) -> Outcome:
    data, made = trained(bench, settings, settings.averaged)
    points = load_data(data)
    found = {gap: bench.part(gap, partial(judged, samples, points)) for gap, samples in made.items()}
    averaged = {} if settings.averaged else {
        gap: bench.part(f"{gap}, averaged", partial(judged, samples, points))
        for gap, samples in trained(bench, settings, averaged=True)[1].items()}
    steps = changes(bench, made, points, pairwise(gap for gap in NESTED if gap in made))
    best = pareto_front([row["frechet"] for row in found.values()], [row["memorized"] for row in found.values()])
    front = [list(found)[k] for k in best]
    rows = [*compared(found, steps), *told(found, "last weights"), *told(averaged, "averaged weights")]
    return Outcome({"gaps": found, "averaged": averaged, "front": front, "changes": steps}, rows, [
        *settings.deviations(), "Frechet distance in pixels in place of FID, to two thirds or more of "
        f"{settings.n_heldout:,} held-out images ([G]: 10,000)"])


def compared(found: dict[str, Any], changes: dict[str, Any]) -> list[Compared]:
    rates = {gap: Interval.of(row, "memorized") for gap, row in found.items()}
    nested = [gap for gap in NESTED if gap in found]
    shares, distances = ([Interval.of(changes[f"{a} to {b}"][part], "difference") for a, b in pairwise(nested)]
                         for part in ("memorized", "frechet"))
    return [*(unlike(f"memorized, gap {gap}", rates[gap].told(".1%"), f"{value:.0%}", "other sizes and far fewer steps")
              for gap, value in PUBLISHED.items() if gap in found),
            order("the wider the gap, the less is memorized",
                  [(gap, rates[gap]) for gap in reversed(nested)], "9% < 13% < 43% < 75%",
                  differences=[-change for change in reversed(shares)]),
            order("the wider the gap, the larger the Frechet distance",
                  [(gap, Interval.of(found[gap], "frechet", "frechet_low", "frechet_high")) for gap in nested],
                  "a Pareto front", ".2f", differences=distances)]


def told(found: dict[str, Any], weights: str) -> list[Compared]:
    """What [G] does not have, for each gap."""
    def ours(row: dict[str, Any]) -> str:
        parts = (Interval.of(row, "memorized").told(".1%"), Interval.of(row["leaning"], "share").told(".1%"),
                 Interval.of(row, "frechet", "frechet_low", "frechet_high").told(".2f"))
        return ", ".join(parts)

    return [unlike(f"gap {gap}, {weights}: memorized, nearer to training, Frechet distance", ours(row), "not in [G]",
                   "leaning, averaged weights and the danger zone are ours") for gap, row in found.items()]


def draw(document: Mapping[str, Any]) -> Figure:
    """One point per gap with 95% intervals; the Pareto front as a line."""
    result = document["result"]
    with captioned(document, images_of(document["settings"]), 6.2, 4.4) as figure:
        axes = figure.subplots()
        for gap, row in result["gaps"].items():
            x, y = row["frechet"], row["memorized"]
            axes.errorbar(x, y, xerr=[[x - row["frechet_low"]], [row["frechet_high"] - x]],
                          yerr=[[y - row["low"]], [row["high"] - y]], fmt="o", ms=4, capsize=2,
                          color=BLUE if gap in result["front"] else GREY)
            axes.annotate(gap, (x, y), xytext=(3, 5), textcoords="offset points", fontsize=8, rotation=40)
        front = sorted((result["gaps"][gap]["frechet"], result["gaps"][gap]["memorized"]) for gap in result["front"])
        axes.plot(*zip(*front, strict=True), "--", color=BLUE, lw=1, label="Pareto front of the estimates")
        axes.set(xlabel="Frechet distance in pixels", ylabel="memorized share", ylim=(0, None))
        axes.legend()
    return figure


EXPERIMENT = Experiment("timestep-gaps", "[G] Figures 5, 9", "ranges of DDPM timesteps left out, grey faces",
                        SCALES, run, draw)
