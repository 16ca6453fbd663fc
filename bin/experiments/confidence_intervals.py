"""[C] Figures 2 to 7: fine-tuning with every pair of a grid of timesteps as the confidence interval.

A model is trained with uniform timesteps, then fine-tuned once for each pair; of each fine-tuned model the mean
distance of its samples to all training points ([C] calls a smaller one less memorization), Wasserstein-1 and
Jensen-Shannon distances of two principal components and of all values, and, beside them, the ratio rule of [G].
Distance against mean location and width of the interval gives [C]'s correlations: r = -0.73 to -0.83 with the location
and +0.32 with the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, against, measured, ranged, unlike
from experiments.pictures import captioned
from geomem import ConfidenceIntervalSampler, leaning, load_data, memorization_rate
from geomem.data import DataSet
from geomem.generation import read_samples
from geomem.noise import UniformTimestepSampler, contribution
from geomem.plots.style import BLUE, COLOURS, GREY
from geomem.quality import Judge
from geomem.statistics import pearson_correlation

METRICS = ("components", "values", "mean-distance")
STEERED_BY = {"n_heldout": 30}  # its best weights per noise level are not used, and would take most of the time
SHOWN = ((100, 200), (400, 600), (700, 1000))  # intervals whose contributions are drawn


@dataclass(frozen=True)
class Settings:
    data: str
    n_train: int
    n_heldout: int
    network: str
    batch: int
    base_iterations: int
    tuned_iterations: int
    samples: int
    steps: int  # of DDIM
    side: int = 0
    timesteps: tuple[int, ...] = tuple(range(100, 1001, 100))
    base_rate: float = 1e-3
    tuned_rate: float = 1e-4
    precision: str = "fp32"
    seed: int = 0


SMOKE = Settings("digits", 40, 60, "mlp", batch=32, base_iterations=20, tuned_iterations=5, samples=16, steps=5,
                 timesteps=(100, 400, 700, 1000))


def run(bench: Bench, settings: Settings) -> Outcome:
    path = sources.named(bench, settings.data, settings.n_train, settings.n_heldout, settings.side)
    data = load_data(path)
    start = f"{path.stem}-{settings.network}-ddpm-{settings.base_iterations}"
    base = bench.model(start, path, settings.base_iterations, settings, objective="ddpm",
                       learning_rate=settings.base_rate, **STEERED_BY)
    judge = Judge(data.train, data.test, METRICS, seed=settings.seed)

    def of(run: Path) -> dict[str, Any]:
        samples = bench.samples(run, settings.samples, sampler="ddim", steps=settings.steps)
        return bench.part(run.name, lambda: figures(samples, data, judge))

    rows = [{"c_low": None, "c_high": None, **of(base)}]
    for low, high in combinations(settings.timesteps, 2):
        tuned = bench.model(f"{start}-ci-{low}-{high}", path, settings.tuned_iterations, settings, objective="ddpm",
                            network=None, init=base, learning_rate=settings.tuned_rate, ci=(float(low), float(high)),
                            **STEERED_BY)
        rows.append({"c_low": low, "c_high": high, **of(tuned)})
    middle = [(row["c_low"] + row["c_high"]) / 2 for row in rows[1:]]
    width = [row["c_high"] - row["c_low"] for row in rows[1:]]
    correlations = {name: {"mean": pearson_correlation([row[name] for row in rows[1:]], middle).to_dict(),
                           "width": pearson_correlation([row[name] for row in rows[1:]], width).to_dict()}
                    for name in ("mean_distance", "w1_1", "js_1", "w1_2", "js_2", "js_values", "nearest")}
    heldout = judge.measure(data.test[:settings.samples])[-1].value
    return Outcome({"rows": rows, "correlations": correlations, "contributions": contributions(),
                    "heldout_mean_distance": heldout}, compared(rows, correlations, heldout), [
        f"network {settings.network}, batch {settings.batch}: [C] names a U-Net with attention, and no sizes",
        f"{settings.base_iterations:,} steps at {settings.base_rate:g} "
        f"({settings.base_iterations * settings.batch / settings.n_train:.0f} epochs), then "
        f"{settings.tuned_iterations:,} at {settings.tuned_rate:g} "
        f"({settings.tuned_iterations * settings.batch / settings.n_train:.0f} epochs, the first 100 steps warm up) "
        f"for each of {len(rows) - 1} pairs ([C]: 45, of 30 epochs), one seed",
        f"{settings.samples:,} samples ([C]: 1,000) by {settings.steps} steps of DDIM",
        "intervals of r take the pairs for independent, but all models come from one and share ends",
        "components are fitted on the training points and bins cover the held-out range: [C] publishes neither",
        *([f"images of {settings.side} x {settings.side} ([C]: 64 x 64)"] if 0 < settings.side < 64 else [])])


def figures(samples: Path, data: DataSet, judge: Judge) -> dict[str, Any]:
    """The figures of one model, with 95% intervals of those that [C] correlates."""
    values = read_samples(str(samples)).values
    w1_1, js_1, w1_2, js_2, js_values, distance = judge.measure(values)
    rate, leans = memorization_rate(values, data.train), leaning(values, data.train, data.test)
    return {"mean_distance": distance.value, "mean_distance_low": distance.low, "mean_distance_high": distance.high,
            "w1_1": w1_1.value, "js_1": js_1.value, "w1_2": w1_2.value, "js_2": js_2.value,
            "js_values": js_values.value, "nearest": rate.median_nearest_distance, "memorized": rate.rate,
            "memorized_low": rate.low, "memorized_high": rate.high, "leaning": leans.to_dict()}


def contributions() -> dict[str, Any]:
    """C(t) = p(t) SNR(t) of some intervals, at every tenth timestep."""
    laws = {"uniform": UniformTimestepSampler(),
            **{f"{low} to {high}": ConfidenceIntervalSampler(low, high) for low, high in SHOWN}}
    return {"timestep": list(range(0, 1000, 10)), **{name: contribution(law)[::10].tolist()
                                                      for name, law in laws.items()}}


def compared(rows: list[dict[str, Any]], correlations: dict[str, Any], heldout: float) -> list[Compared]:
    tuned = rows[1:]
    top = max(tuned, key=lambda row: row["memorized"])
    distances = [row["mean_distance"] for row in tuned]
    location, width, component = (Interval.of(correlations[name][part], "r") for name, part in (
        ("mean_distance", "mean"), ("mean_distance", "width"), ("w1_1", "mean")))
    told = (f"{min(distances):.3g} to {max(distances):.3g}, {rows[0]['mean_distance']:.3g} before fine-tuning, "
            f"{heldout:.3g} of held-out points; memorized by the ratio rule {top['memorized']:.1%} "
            f"[{top['memorized_low']:.1%}, {top['memorized_high']:.1%}] at most (at {top['c_low']} to {top['c_high']})")
    most, least = (pick(rows, key=lambda row: row["leaning"]["share"])["leaning"] for pick in (max, min))
    leans = "; nearer to training " + " to ".join(Interval.of(part, "share").told(".1%") for part in (least, most))
    no_copies = "; by it no sample here is a copy, so the distance tells how far the samples miss the data"
    return [
        ranged("r of mean distance and mean location of the interval", location, "-0.83", "-0.73", "+.2f"),
        measured("r of mean distance and width of the interval", width, "+0.32", "+.2f"),
        against("the same, against none", width, 0, "r = +0.32", "+.2f"),
        against("r of Wasserstein-1 of component 1 and mean location", component, 0,
                "later steps bring the samples nearer to the data", "+.2f"),
        unlike("what the mean distance means", told + leans, "a smaller distance is less memorization",
               "[C] has no ratio rule" + ("" if top["memorized"] else no_copies))]


MAPS = (("mean_distance", "mean distance to the training set"), ("w1_1", "Wasserstein-1, component 1"),
        ("js_values", "Jensen-Shannon, all values"))


def draw(document: Mapping[str, Any]) -> Figure:
    """Contributions of some intervals, the distance over location and width, and three figures for every pair."""
    result = document["result"]
    tuned, base = result["rows"][1:], result["rows"][0]
    with captioned(document, f"{len(tuned)} intervals", 11, 6.6) as figure:
        (first, location, width), maps = figure.subplots(2, 3)
        draw_contributions(first, result["contributions"])
        for axes, key, x, label in (
                (location, "mean", [(row["c_low"] + row["c_high"]) / 2 for row in tuned], "mean location (timestep)"),
                (width, "width", [row["c_high"] - row["c_low"] for row in tuned], "width (timesteps)")):
            y, found = [row["mean_distance"] for row in tuned], result["correlations"]["mean_distance"][key]
            axes.errorbar(x, y, [[row["mean_distance"] - row["mean_distance_low"] for row in tuned],
                                 [row["mean_distance_high"] - row["mean_distance"] for row in tuned]],
                          fmt="o", ms=3, lw=.8, color=BLUE)
            axes.axhline(base["mean_distance"], color=GREY, ls="--", lw=1, label="before fine-tuning")
            axes.set(xlabel=label, title=f"r = {found['r']:+.2f}, p = {found['p']:.2g}")
        location.set_ylabel("mean distance to the training set")
        location.legend(fontsize=8)
        for axes, (name, title) in zip(maps, MAPS, strict=True):
            heat(figure, axes, tuned, name)
            axes.set(xlabel="lower end", ylabel="upper end", title=title)
    return figure


def draw_contributions(axes: Axes, laws: Mapping[str, Any]) -> None:
    """C(t) = p(t) SNR(t)."""
    for (name, values), colour in zip(list(laws.items())[1:], COLOURS, strict=False):
        axes.plot(laws["timestep"], values, color=colour, label=name)
    axes.set(yscale="log", xlabel="timestep", title="contribution p(t) SNR(t)")
    axes.legend(fontsize=8)


def heat(figure: Figure, axes: Axes, rows: list[Mapping[str, Any]], name: str) -> None:
    """One square per pair."""
    ends = sorted({row["c_low"] for row in rows} | {row["c_high"] for row in rows})
    values = np.full((len(ends), len(ends)), np.nan)
    for row in rows:
        values[ends.index(row["c_high"]), ends.index(row["c_low"])] = row[name]
    image = axes.imshow(values, origin="lower", cmap="viridis")
    axes.grid(False)
    axes.set_xticks(range(len(ends)), ends, fontsize=7, rotation=90)
    axes.set_yticks(range(len(ends)), ends, fontsize=7)
    figure.colorbar(image, ax=axes, shrink=.85)


def experiment(name: str, title: str, small: Settings, **paper: Any) -> Experiment:
    return Experiment(name, f"[C] Figures 2-7, {title}", "confidence intervals over timesteps",
                      {"smoke": SMOKE, "small": small, "paper": replace(small, samples=1000, **paper)}, run,
                      draw)


BEATS = Settings("ecg", 500, 4500, "mlp", batch=32, base_iterations=782, tuned_iterations=469, samples=500, steps=25)
IMAGES = Settings("pokemon", 800, 216, "unet-tiny", batch=32, base_iterations=1250, tuned_iterations=750, samples=500,
                  steps=20, side=16, precision="bf16")
ECG5000 = experiment("ci-ecg5000", "ECG5000", BEATS, network="unet1d", precision="bf16")
POKEMON = experiment("ci-pokemon", "Pokemon", IMAGES, network="unet-small", steps=100, base_iterations=5000, side=64)
FLOWERS = experiment("ci-flowers", "Flowers", replace(
    IMAGES, data="flowers", n_train=1000, n_heldout=400, base_iterations=1563, tuned_iterations=938),
    network="unet-small", n_train=6149, n_heldout=2040, batch=64, steps=100, base_iterations=20_000,
    tuned_iterations=2900, side=64)
