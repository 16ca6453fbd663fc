"""[G] Figures 1 and 2: denoising error and memorization per noise level, of a model trained on few images, one trained
on many, and the empirical optimal denoiser of the few.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.bench import Bench, Compared, Outcome, claim
from experiments.pair import PAPER as PAPER_PAIR
from experiments.pair import SMALL, SMOKE, Pair, train_pair
from geomem import find_danger_zone, geometry_curves, load_data, load_denoiser, refined_curves
from geomem.devices import resolve_device
from geomem.memorization import memorization_per_noise_level
from geomem.models import EmpiricalDenoiser

NAME, PAPER, TITLE = "denoising", "[G] Figures 1, 2", "denoising error and memorization per noise level"


@dataclass(frozen=True)
class Settings:
    pair: Pair
    levels: int
    points: int  # training and held-out points per level
    sigma: tuple[float, float] = (0.01, 80.0)
    seed: int = 0


SCALES = {"smoke": Settings(SMOKE, levels=6, points=40), "small": Settings(SMALL, levels=24, points=512),
          "paper": Settings(PAPER_PAIR, levels=40, points=1000)}


def run(bench: Bench, settings: Settings) -> Outcome:
    trained = train_pair(bench, settings.pair)

    def find(name: str) -> Any:
        data = load_data(trained["few" if name == "empirical" else name].data)
        denoiser: Any = (EmpiricalDenoiser(torch.from_numpy(np.array(data.train))) if name == "empirical"
                         else load_denoiser(trained[name].run, "last").denoiser)
        return memorization_per_noise_level(
            denoiser.to(resolve_device()), data.train, data.test, np.geomspace(*settings.sigma, settings.levels),
            n=settings.points, seed=settings.seed).to_dict()

    found = {name: bench.part(name, asdict(settings), partial(find, name))
             for name in ("few", "many", "empirical")}
    zone = bench.part("zone", asdict(settings), lambda: danger_zone(trained["few"].data))
    table: dict[str, list[Any]] = {key: [] for key in ("model", "sigma", "rate", "mse_train", "mse_heldout")}
    for name, levels in found.items():
        table["model"] += [name] * len(levels["sigma"])
        for key in list(table)[1:]:
            table[key] += levels[key]
    return Outcome({"levels": found, "zone": zone}, table, compared(settings.pair, found, zone), [
        *settings.pair.deviations(), "last averaged weights, as in [G], not the best ones per noise level"])


def danger_zone(path: Path) -> dict[str, float] | None:
    """Of the few images."""
    data = load_data(path)
    zone = find_danger_zone(refined_curves(data.train, data.heldout, geometry_curves(data.train, data.heldout)))
    return None if zone is None else {"sigma_low": zone.sigma_low, "sigma_high": zone.sigma_high}


def compared(pair: Pair, found: dict[str, Any], zone: dict[str, float] | None) -> list[Compared]:
    few, many, empirical = (found[name] for name in ("few", "many", "empirical"))
    sigma = np.array(few["sigma"])
    ratio, ratio_many = (np.array(one["mse_heldout"]) / np.array(one["mse_train"]) for one in (few, many))
    top, top_many = int(ratio.argmax()), int(ratio_many.argmax())
    rate = np.array(few["rate"])
    peak = int(rate.argmax())
    half = float(sigma[1] / sigma[0]) ** .5
    edges = "none" if zone is None else f"{zone['sigma_low']:.3g} to {zone['sigma_high']:.3g}"
    return [
        claim(f"Figure 1: {pair.few:,} images, error held out over error in training",
              f"largest {ratio[top]:.2f} at sigma {sigma[top]:.2g}; {ratio[0]:.2f} at {sigma[0]:.2g} and "
              f"{ratio[-1]:.2f} at {sigma[-1]:.2g}", "apart at medium noise, together at both ends",
              bool(ratio[top] > 1.5 and max(ratio[0], ratio[-1]) < 1 + (ratio[top] - 1) / 2)),
        claim(f"Figure 1: {pair.many:,} images, the same", f"largest {ratio_many[top_many]:.2f} at sigma "
              f"{sigma[top_many]:.2g}", "together everywhere", bool(ratio_many[top_many] < 1.2)),
        claim(f"Figure 2: {pair.few:,} images, memorized per noise level",
              f"largest {rate[peak]:.1%} at sigma {sigma[peak]:.2g}; {rate[0]:.1%} at {sigma[0]:.2g} and "
              f"{rate[-1]:.1%} at {sigma[-1]:.2g}", "high at medium noise, none at both ends",
              bool(rate[peak] > .05 and max(rate[0], rate[-1]) < rate[peak] / 5)),
        claim("Figure 2: where it is largest, up to half a step of the grid",
              f"sigma {sigma[peak]:.3g}, danger zone {edges}", "in the danger zone",
              zone is not None and zone["sigma_low"] / half <= sigma[peak] <= zone["sigma_high"] * half),
        claim(f"Figure 2: {pair.many:,} images, the same", f"{max(many['rate']):.1%} at most", "0% everywhere",
              max(many["rate"]) < .01),
        claim("Figure 2: empirical optimal denoiser", f"{empirical['rate'][0]:.1%} at sigma {sigma[0]:.2g}, "
              f"{empirical['rate'][-1]:.1%} at {sigma[-1]:.2g}", "100% at small noise, falling at large",
              empirical["rate"][0] > .99 and empirical["rate"][-1] < .5)]
