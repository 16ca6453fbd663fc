"""[G] Figure 7: the largest posterior weight beside the weight of the point that the noise was added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Experiment, Outcome, unlike
from experiments.pictures import caption
from geomem import load_data, max_posterior_weight
from geomem.noise import edm_steps
from geomem.plots.style import BLUE, ORANGE, look, new_figure, sigma_axis


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

    result = bench.part("curves", asdict(settings), find)
    sigma = np.array(result["sigma"])
    largest, own = (np.array(result[name]["estimate"]) for name in ("max_posterior_weight", "self_posterior_weight"))
    apart = sigma[np.array(result["max_posterior_weight"]["low"]) > np.array(result["self_posterior_weight"]["high"])]
    at = int((largest - own).argmax())
    result |= {"apart_from": float(apart.min()) if len(apart) else None,
               "largest_difference": float(largest[at] - own[at])}
    told = (f"apart from sigma = {apart.min():.3g} on, where W is {largest[sigma == apart.min()][0]:.2f}" if len(apart)
            else "nowhere apart")
    return Outcome(result, {"sigma": result["sigma"], "max_posterior_weight": largest.tolist(),
                            "self_posterior_weight": own.tolist()}, [
        unlike("where the 95% intervals of the two part",
               f"{told}; farthest by {largest[at] - own[at]:.3f} at {sigma[at]:.3g}", "agree except at large sigma",
               "published as a picture, without a figure")], [
        "[G] drew its 1,000 images at random and names no seed; ours are the first",
        *(["digits stand in for CIFAR-10"] if settings.data == "digits" else [])])


def draw(document: Mapping[str, Any]) -> Figure:
    """Both curves with their bands."""
    result, settings = document["result"], document["settings"]
    with look():
        figure = new_figure(6.2, 4)
        axes = figure.subplots()
        for name, colour, label in (("max_posterior_weight", BLUE, "largest weight W"),
                                    ("self_posterior_weight", ORANGE, "self weight")):
            part = result[name]
            axes.plot(result["sigma"], part["estimate"], ".-", color=colour, label=label)
            axes.fill_between(result["sigma"], part["low"], part["high"], color=colour, alpha=.25, lw=0)
        axes.set(ylabel="mean posterior weight", ylim=(-.03, 1.03))
        sigma_axis(axes)
        axes.legend()
        figure.suptitle(caption(document, f"{settings['points']} points, {settings['draws']} draws each, "
                                f"of {settings['n_train']:,}"), fontsize=10)
    return figure


EXPERIMENT = Experiment("self-weight", "[G] Figure 7", "largest posterior weight against self weight", SCALES, run,
                        draw)
