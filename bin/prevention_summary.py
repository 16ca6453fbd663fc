"""The tables of bin/prevention-study: means over the seeds of each set and way, and ratios over all sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from geomem.statistics import Z_95, difference_over_seeds, mean_over_runs

FIRST_SETS = ("digits", "ecg", "faces16", "cars16", "pokemon16", "flowers16")


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each set, way and choice of weights: means over the seeds with 95% intervals, for fresh seeds.

    memorized, leaning, frechet: at the last step; leaning over the trainings that have it, None where all are of an
    older version. along: the same at each checkpoint. log_ratio: logarithm of the Frechet distance over that of a rival
    with the same seed, for each of ``RIVALS``; None without a seed in common, and without an interval for a single one.
    """
    rows = []
    cells = [cell for cell in cells if "rows" in cell]  # without those that were refused
    for name, way in dict.fromkeys((cell["set"], cell["way"]) for cell in cells):
        runs = [cell for cell in cells if (cell["set"], cell["way"]) == (name, way)]
        baseline = [cell for cell in cells if (cell["set"], cell["way"]) == (name, "none")]
        stopped = {cell["seed"]: cell["rows"] for cell in cells
                   if cell["set"] == name and cell["way"].startswith("stop at")}
        for weights in dict.fromkeys(row["weights"] for row in runs[0]["rows"]):
            lines = [[row for row in cell["rows"] if row["weights"] == weights] for cell in runs]
            ours = {cell["seed"]: line[-1]["quality"]["frechet"] for cell, line in zip(runs, lines, strict=True)}
            along = [{"step": at[0].get("step") if weights == "last" else None,
                      **{part: _mean(at, key, measure) for part, (key, measure) in MEASURES.items()}}
                     for at in zip(*lines, strict=True)]
            rows.append({"set": name, "way": way, "weights": weights, "seeds": [cell["seed"] for cell in runs],
                         **{part: along[-1][part] for part in MEASURES},
                         "along": along if weights == "last" else [],
                         "log_ratio": {rival: _log_ratio(ours, {
                             cell["seed"]: distance(cell["rows"], stopped.get(cell["seed"], [])) for cell in baseline})
                             for rival, distance in RIVALS.items()},
                         "floor": lines[0][-1]["quality"]["frechet_floor"],
                         "floor_n": lines[0][-1]["quality"]["floor_n"]})
    return rows


def _mean(at: Sequence[dict[str, Any]], key: str, measure: Callable[..., Any]) -> dict[str, Any] | None:
    """Over the seeds that have it, with the 95% interval for fresh seeds; that over the samples where there is one."""
    known = [measure(row) for row in at if key in row]
    return mean_over_runs(*zip(*known, strict=True)).to_dict() if known else None


def _log_ratio(ours: dict[int, float], rival: dict[int, float]) -> dict[str, Any] | None:
    common = sorted(ours.keys() & rival.keys())
    if not common:
        return None
    first, second = ({seed: math.log(values[seed]) for seed in common} for values in (ours, rival))
    if len(common) == 1:
        return {"mean": first[common[0]] - second[common[0]], "low": None, "high": None, "p": None, "seeds": common}
    return difference_over_seeds(first, second).to_dict()


def _distances(rows: list[dict[str, Any]], *weights: str) -> list[float]:
    return [row["quality"]["frechet"] for row in rows if row["weights"] in weights]


# What the plain training could have given with the same seed: Frechet distances of the rows of its file. The best is
# chosen afterwards from all its points that were judged, those of the same training that was stopped among them.
RIVALS: dict[str, Callable[[list[dict[str, Any]], list[dict[str, Any]]], float]] = {
    "best on the way": lambda rows, stopped: min(_distances([*rows, *stopped], "last", "early stop", "half the steps")),
    "last": lambda rows, stopped: _distances(rows, "last")[-1],
    "early stop": lambda rows, stopped: _distances(rows, "early stop")[0],
}


def over_sets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each way and choice of weights with two sets or more: the ranges of the memorized shares and of leaning (None
    unless all sets have it), and for each rival the geometric mean over the sets of the ratio of Frechet distances,
    with its 95% interval for other sets and its range.
    """
    found = []
    rows = [row for row in rows if row["set"] in FIRST_SETS]
    for way, weights in dict.fromkeys((row["way"], row["weights"]) for row in rows):
        lines = [row for row in rows if (row["way"], row["weights"]) == (way, weights) and row["log_ratio"]["last"]]
        if len(lines) < 2:
            continue
        ratios = {}
        for rival in RIVALS:
            if (way, weights, rival) not in (("none", "last", "last"), ("none", "early stop", "early stop")):
                logs = [row["log_ratio"][rival]["mean"] for row in lines]
                means = mean_over_runs(logs, [0.0] * len(logs))
                ratios[rival] = {name: math.exp(value) for name, value in (
                    ("mean", means.mean), ("low", means.low), ("high", means.high), ("least", min(logs)),
                    ("most", max(logs)))}
        found.append({"way": way, "weights": weights, "sets": [row["set"] for row in lines],
                      "seeds": [len(row["seeds"]) for row in lines],
                      **{part: _range([row[part] for row in lines]) for part in ("memorized", "leaning")},
                      "ratio": ratios})
    return found


def _range(means: list[dict[str, Any] | None]) -> dict[str, float] | None:
    known = [mean["mean"] for mean in means if mean]
    return {"least": min(known), "most": max(known)} if len(known) == len(means) else None


def _memorized(row: dict[str, Any]) -> tuple[float, float]:
    """Memorized share and its standard error, that of the Wilson interval."""
    found = row["memorized"]
    return found["rate"], (found["high"] - found["low"]) / (2 * Z_95)


def _leaning(row: dict[str, Any]) -> tuple[float, float]:
    return row["leaning"]["share"], row["leaning"]["stderr"]


def _frechet(row: dict[str, Any]) -> tuple[float, float]:
    found = row["quality"]
    return found["frechet"], (found["frechet_high"] - found["frechet"]) / Z_95


# What is averaged, the key of a training's row that holds it, and its value with its standard error.
MEASURES = {"memorized": ("memorized", _memorized), "leaning": ("leaning", _leaning), "frechet": ("quality", _frechet)}


def text_of(rows: list[dict[str, Any]]) -> list[str]:
    """A table for each set, in Markdown."""
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        lines += [f"\n{name}\n", "| way, weights | seeds | memorized | nearer to training | Frechet distance |",
                  "|---|---|---|---|---|"]
        for row in (row for row in rows if row["set"] == name):
            frechet, seeds = row["frechet"], len(row["seeds"])
            lines.append(f"| {row['way']}, {row['weights']} | {seeds} | {_share(row['memorized'], seeds)} | "
                         f"{_share(row['leaning'], seeds)} | {frechet['mean']:.2f} "
                         f"[{max(0, frechet['low']):.2f}, {frechet['high']:.2f}] |")
    lines += ["\nall sets, Frechet distance as a multiple of that of the plain training with the same seed\n",
              "| way, weights | sets | memorized | nearer to training | "
              + " | ".join(f"over {rival}" for rival in RIVALS) + " |",
              "|---|---|---|---|" + "---|" * len(RIVALS)]
    for row in over_sets(rows):
        ratios = ["{mean:.2f} [{low:.2f}, {high:.2f}], {least:.2f} to {most:.2f}".format(**row["ratio"][rival])
                  if rival in row["ratio"] else "" for rival in RIVALS]
        ranges = ["{least:.1%} to {most:.1%}".format(**row[part]) if row[part] else "-"
                  for part in ("memorized", "leaning")]
        lines.append(f"| {row['way']}, {row['weights']} | {len(row['sets'])} | " + " | ".join(ranges + ratios) + " |")
    return lines


def _share(mean: dict[str, Any] | None, seeds: int) -> str:
    """A mean share with its interval, cut to what is possible; a dash where it was not measured, and the number of
    seeds where not all have it.
    """
    if mean is None:
        return "-"
    told = f"{mean['mean']:.1%} [{max(0, mean['low']):.1%}, {min(1, mean['high']):.1%}]"
    return told if mean["runs"] == seeds else f"{told}, n = {mean['runs']}"
