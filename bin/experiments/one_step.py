"""[G] Figures 11 on: images denoised in one step from several noise levels, by models of few and many images.

The text at hand names grids of one-step estimates and of samples of models trained with gaps as Figures 11 to 23, not
their numbers one by one; ``gap-samples`` holds the second kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from experiments.bench import Bench, Experiment, Outcome, unlike
from experiments.pair import PAPER as PAPER_PAIR
from experiments.pair import SMOKE, Pair, train_pair
from experiments.pictures import captioned, encoded, shown
from geomem import load_data, load_denoiser, memorization_rate
from geomem.models import EmpiricalDenoiser
from geomem.rng import generator

# Digits, whose licence allows to publish pictures of them.
SMALL = Pair("digits", 100, 597, 400, 8, "unet-tiny", iterations=500, batch=256, precision="bf16")


@dataclass(frozen=True)
class Settings:
    pair: Pair
    sigmas: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 5.0, 20.0)
    images: int = 6  # training images, and as many held-out ones
    seed: int = 0


SCALES = {"smoke": Settings(SMOKE, sigmas=(0.5, 5.0), images=2),
          "small": Settings(SMALL, sigmas=(0.1, 0.3, 0.5, 0.8, 1.5, 5.0), images=12),
          "paper": Settings(PAPER_PAIR)}


def run(bench: Bench, settings: Settings) -> Outcome:
    trained = train_pair(bench, settings.pair)

    def find() -> Any:
        data = load_data(trained["few"].data)
        denoisers: dict[str, Any] = {name: load_denoiser(model.run, "last").denoiser for name, model in trained.items()}
        denoisers["empirical"] = EmpiricalDenoiser(torch.from_numpy(np.array(data.train)))
        found: dict[str, Any] = {}
        for part, points in (("train", data.train[:settings.images]), ("heldout", data.test[:settings.images])):
            clean = torch.from_numpy(np.array(points))
            noise = torch.from_numpy(generator(settings.seed, f"one step {part}").standard_normal(clean.shape)).float()
            noisy = {sigma: clean + sigma * noise for sigma in settings.sigmas}
            rows, copied = [clean.numpy()], {}
            for name, denoiser in denoisers.items():
                with torch.inference_mode():
                    estimates = [denoiser(noisy[sigma], sigma).numpy() for sigma in settings.sigmas]
                rows += estimates
                copied[name] = [memorization_rate(made, data.train).count for made in estimates]
            found[part] = {"picture": encoded(rows, float(data.train.min()), float(data.train.max())), "copied": copied}
        return found

    found = bench.part("grids", find)
    heldout = found["heldout"]["copied"]
    return Outcome({"grids": found, "rows": ["clean", *(f"{model}, {sigma:g}" for model in heldout
                                                        for sigma in settings.sigmas)]}, [
        unlike("held-out images become training images in one step with the model of few, not of many",
               f"at most {max(heldout['few'])} of {settings.images} at one level, and {max(heldout['many'])}",
               "shown in pictures", "so few say little")], [
        *settings.pair.deviations(), f"{settings.images} images each, the first ones; [G]'s choice is not known"])


def draw(document: Mapping[str, Any]) -> Figure:
    """Training images on the left, held-out ones on the right; one row per model and noise level."""
    result, settings = document["result"], document["settings"]
    names = {"few": f"{settings['pair']['few']:,} images", "many": f"{settings['pair']['many']:,} images"}
    rows = [row if row == "clean" else "{}, $\\sigma$ = {}".format(
        names.get(row.split(", ")[0], row.split(", ")[0]), row.split(", ")[1]) for row in result["rows"]]
    with captioned(document, "one-step estimates", 2.4 + settings["images"], 0.6 + 0.5 * len(rows)) as figure:
        for axes, (part, title) in zip(figure.subplots(1, 2), (("train", "training images"),
                                                               ("heldout", "held-out images")), strict=True):
            shown(axes, result["grids"][part]["picture"], rows if part == "train" else len(rows))
            axes.set_title(title)
    return figure


EXPERIMENT = Experiment("one-step", "[G] Figures 11 on", "one-step estimates", SCALES, run, draw)
