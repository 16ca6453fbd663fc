"""[G] Remark A.3: near the data the optimal flow field points where the conditional one does.

The cosine of the two at training points over the flow time, beside the bound of Corollary A.2 (delta = 0.05).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Experiment, Outcome, claim, unlike
from experiments.pictures import captioned
from geomem import load_data
from geomem.plots.style import BLUE, GREEN, ORANGE
from geomem.theory import flow_cosine


@dataclass(frozen=True)
class Settings:
    data: str
    n_train: int
    points: int
    draws: int
    times: int = 40
    delta: float = 0.05
    seed: int = 0


SCALES = {"smoke": Settings("digits", 60, points=20, draws=2, times=12),
          "small": Settings("cifar", 1000, points=256, draws=4),
          "paper": Settings("cifar", 1000, points=1000, draws=16)}


def run(bench: Bench, settings: Settings) -> Outcome:
    path = sources.named(bench, settings.data, settings.n_train, n_heldout=1000)

    def find() -> dict[str, Any]:
        sigma = np.geomspace(0.02, 80, settings.times)
        found = flow_cosine(load_data(path).train, 1 / (1 + sigma), delta=settings.delta, points=settings.points,
                            draws=settings.draws, seed=settings.seed)
        return {name: getattr(found, name).tolist()
                for name in ("time", "sigma", "bound", "cosine", "cosine_stderr", "held", "informative")}

    result = bench.part("curves", find)
    time, cosine, bound = (np.array(result[name]) for name in ("time", "cosine", "bound"))
    nearly = float(time[cosine >= .99].min())
    proven = time[(np.array(result["informative"]) == 1) & (bound >= .99)]
    result |= {"measured_from": nearly, "proven_from": float(proven.min()) if len(proven) else None}
    return Outcome(result, [
        claim("the bound holds with probability 1 - delta", f"in {min(result['held']):.1%} of the draws at least",
              f"{1 - settings.delta:.0%}", min(result["held"]) >= 1 - settings.delta),
        unlike("close to the data the cosine is nearly 1",
               f"{cosine[-1]:.6f} at t = {time[-1]:.3f}; 0.99 or more from t = {nearly:.3f} on "
               f"(sigma {1 / nearly - 1:.3g}); by the bound for every point from "
               + (f"t = {proven.min():.3f} on" if len(proven) else "no t of the grid on"),
               "nearly 1", "no figure is at hand")], [
        "the formulas are derived again from the proof of Corollary A.2; [G]'s own number for the remark is not in the "
        "text at hand"])


def draw(document: Mapping[str, Any]) -> Figure:
    """Cosine, bound and the share of the points where the bound says something, over flow time."""
    result = document["result"]
    with captioned(document, "conditional against optimal flow field", 6.2, 4) as figure:
        axes = figure.subplots()
        axes.plot(result["time"], result["cosine"], ".-", color=BLUE, label="cosine, measured")
        axes.plot(result["time"], result["bound"], "--", color=ORANGE, label="lower bound, mean over points")
        axes.plot(result["time"], result["informative"], ":", color=GREEN, label="share of points with a bound")
        axes.set(xlabel="flow time t (0 noise, 1 data)", ylim=(-1.05, 1.05))
        axes.legend(loc="lower right")
    return figure


EXPERIMENT = Experiment("flow-cosine", "[G] Remark A.3", "cosine of conditional and optimal flow field", SCALES, run,
                        draw)
