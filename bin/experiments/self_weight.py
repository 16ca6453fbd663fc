"""[G] Figure 7: the largest posterior weight beside the weight of the point that the noise was added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Experiment, Outcome, unlike
from experiments.pictures import band, captioned
from geomem import load_data, max_posterior_weight
from geomem.noise import edm_steps
from geomem.plots.style import BLUE, ORANGE, sigma_axis


@dataclass(frozen=True)
class Settings:
    data: str
    n_train: int
    points: int
    draws: int
    levels: int = 40
    seed: int = 0


SCALES = {"smoke": Settings("digits", 60, points=20, draws=10, levels=10),
          "small": Settings("cifar", 1000, points=100, draws=400),
          "paper": Settings("cifar", 1000, points=100, draws=400)}


def run(bench: Bench, settings: Settings) -> Outcome:
    path = sources.named(bench, settings.data, settings.n_train, n_heldout=1000)

    def find() -> dict[str, Any]:
        found = max_posterior_weight(load_data(path).train, edm_steps(settings.levels), draws=settings.draws,
                                     queries=settings.points, seed=settings.seed)
        return {"sigma": found.max_posterior_weight.sigma.tolist(),
                **{name: {part: getattr(getattr(found, name), part).tolist()
                          for part in ("estimate", "stderr", "low", "high")}
                   for name in ("max_posterior_weight", "self_posterior_weight")}}

    result = bench.part("curves", find)
    sigma = np.array(result["sigma"])
    largest, own = (np.array(result[name]["estimate"]) for name in ("max_posterior_weight", "self_posterior_weight"))
    apart = sigma[np.array(result["max_posterior_weight"]["low"]) > np.array(result["self_posterior_weight"]["high"])]
    at = int((largest - own).argmax())
    result |= {"apart_from": float(apart.min()) if len(apart) else None,
               "largest_difference": float(largest[at] - own[at])}
    told = (f"apart from sigma = {apart.min():.3g} on, where W is {largest[sigma == apart.min()][0]:.2f}" if len(apart)
            else "nowhere apart")
    return Outcome(result, [
        unlike("where the 95% intervals of the two part",
               f"{told}; farthest by {largest[at] - own[at]:.3f} at {sigma[at]:.3g}", "agree except at large sigma",
               "published as a picture, without a figure")], [
        "[G] drew its 1,000 images at random and names no seed; ours are the first"])


def draw(document: Mapping[str, Any]) -> Figure:
    """Both curves with their bands."""
    result, settings = document["result"], document["settings"]
    with captioned(document, f"{settings['points']} points, {settings['draws']} draws each, of "
                   f"{settings['n_train']:,}", 6.2, 4) as figure:
        axes = figure.subplots()
        band(axes, result["sigma"], result["max_posterior_weight"], BLUE, "largest weight W")
        band(axes, result["sigma"], result["self_posterior_weight"], ORANGE, "self weight")
        axes.set(ylabel="mean posterior weight", ylim=(-.03, 1.03))
        sigma_axis(axes)
        axes.legend()
    return figure


EXPERIMENT = Experiment("self-weight", "[G] Figure 7", "largest posterior weight against self weight", SCALES, run,
                        draw)
