"""[G] Remark 4.3: the noise levels of Theorem 4.2 in numbers, beside the weights measured there.

q = 0.95, delta = 0.05. Below ``b r_2`` of a point its weight is surely at least q, above its ``a r_{K+1}`` surely at
most 1 - q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Experiment, Outcome, claim, computed
from experiments.pictures import captioned
from geomem import concentration_thresholds, load_data, max_posterior_weight
from geomem.plots.style import BLUE, GREEN, GREY, ORANGE, sigma_axis

# Not printed in [G]: an independent, unpublished computation on the first 1,000 training images of CIFAR-10.
RERUN = "independent run"
KNOWN = {"b": "0.102117", "concentrated": "2.178", "spread": "46.20", "disjoint": "0.0936"}


@dataclass(frozen=True)
class Settings:
    data: str
    n_train: int
    draws: int = 16
    q: float = 0.95
    delta: float = 0.05
    seed: int = 0


SCALES = {"smoke": Settings("digits", 60, draws=4), "small": Settings("cifar", 1000),
          "paper": Settings("cifar", 1000)}


def run(bench: Bench, settings: Settings) -> Outcome:
    path = sources.named(bench, settings.data, settings.n_train, n_heldout=1000)

    def find() -> dict[str, Any]:
        train = load_data(path).train
        limits = concentration_thresholds(train, q=settings.q, delta=settings.delta)
        below, above = np.sort(limits.concentrated_below), np.sort(limits.spread_above)
        levels = np.geomspace(below.min() / 2, above.max() * 2, 60)
        own = max_posterior_weight(train, levels, draws=settings.draws, seed=settings.seed).self_posterior_weight
        return {"b": limits.b, "concentrated": float(below.mean()), "spread": float(above.mean()),
                "disjoint": limits.disjoint_below, "sigma": levels.tolist(), "self_weight": own.estimate.tolist(),
                "share_concentrated": (1 - np.searchsorted(below, levels) / len(below)).tolist(),
                "share_spread": (np.searchsorted(above, levels, side="right") / len(above)).tolist()}

    result = bench.part("thresholds", find)
    weight, sure, spread = (np.array(result[name]) for name in ("self_weight", "share_concentrated", "share_spread"))
    # Of the points that are concentrated a share of 1 - delta has weight q or more; of the spread ones 1 - q or less.
    least = sure * (1 - settings.delta) * settings.q
    most = spread * (1 - settings.q * (1 - settings.delta)) + (1 - spread)
    rounding = 1e-6  # of weights in float32
    inside = (weight >= least - rounding) & (weight <= most + rounding)
    rows = [claim("the mean self weight is within what the theorem allows",
                  f"at {int(inside.sum())} of {len(inside)} levels", "at every sigma", bool(inside.all()))]
    if settings.data == "cifar":
        labels = {"b": "factor b", "concentrated": "mean of b r_2", "spread": "mean of the smallest a r_(K+1)",
                  "disjoint": "shells disjoint below"}
        rows += [computed(labels[name], result[name], known, source=RERUN) for name, known in KNOWN.items()]
    else:
        rows += [claim("b r_2 < a r_(K+1)", f"{result['concentrated']:.3g} < {result['spread']:.3g}", "always",
                       result["concentrated"] < result["spread"])]
    return Outcome(result, rows, [
        "the formulas of Theorem 4.2 are derived again from its proof; the known figures are those of the first 1,000 "
        "training images with them, not printed in the text of [G] at hand"])


def draw(document: Mapping[str, Any]) -> Figure:
    """Self weight, and the shares of points for which the theorem speaks."""
    result, settings = document["result"], document["settings"]
    with captioned(document, f"means of the thresholds {result['concentrated']:.3g} and {result['spread']:.3g}", 6.4,
                   4) as figure:
        axes = figure.subplots()
        axes.plot(result["sigma"], result["self_weight"], color=BLUE, lw=2, label="mean self weight, measured")
        axes.plot(result["sigma"], result["share_concentrated"], "--", color=GREEN,
                  label=f"points with weight surely at least {settings['q']:g}")
        axes.plot(result["sigma"], result["share_spread"], "--", color=ORANGE,
                  label=f"points with weight surely at most {1 - settings['q']:.2g}")
        for name in ("concentrated", "spread"):
            axes.axvline(result[name], color=GREY, lw=.8)
        axes.set(ylabel="weight, share of points", ylim=(-.03, 1.03))
        sigma_axis(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=8)
    return figure


EXPERIMENT = Experiment("concentration", "[G] Remark 4.3", "Theorem 4.2 in numbers", SCALES, run, draw)
