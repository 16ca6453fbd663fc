"""[G] Figures 1 and 2: denoising error and memorization per noise level, of a model trained on few images, one trained
on many, and the empirical optimal denoiser of the few.

The models of scales small and medium were to take 1,500 steps; 1,000 were chosen before the first whole run, to save
time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import geomem
from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, claim, measured, order
from experiments.pair import MEDIUM, SMALL, SMOKE, Pair, train_pair
from experiments.pair import PAPER as PAPER_PAIR
from experiments.pictures import caption
from geomem import load_data, load_denoiser
from geomem.devices import resolve_device
from geomem.memorization import memorization_per_noise_level
from geomem.models import EmpiricalDenoiser
from geomem.plots import plot_noise_levels
from geomem.statistics import Z_95


@dataclass(frozen=True)
class Settings:
    pair: Pair
    levels: int
    points: int  # training and held-out points per level
    sigma: tuple[float, float] = (0.01, 80.0)
    seed: int = 0


SCALES = {"smoke": Settings(SMOKE, levels=6, points=40), "small": Settings(SMALL, levels=24, points=512),
          "medium": Settings(MEDIUM, levels=24, points=512), "paper": Settings(PAPER_PAIR, levels=40, points=1000)}


def run(bench: Bench, settings: Settings) -> Outcome:
    trained = train_pair(bench, settings.pair)

    def find(name: str) -> Any:
        data = load_data(trained["few" if name == "empirical" else name].data)
        denoiser: Any = (EmpiricalDenoiser(torch.from_numpy(np.array(data.train))) if name == "empirical"
                         else load_denoiser(trained[name].run, "last").denoiser)
        return memorization_per_noise_level(
            denoiser.to(resolve_device()), data.train, data.test, np.geomspace(*settings.sigma, settings.levels),
            n=settings.points, seed=settings.seed).to_dict()

    found = {name: bench.part(name, partial(find, name)) for name in ("few", "many", "empirical")}
    zone = bench.part("zone", lambda: danger_zone(trained["few"].data))
    return Outcome({"levels": found, "zone": zone}, compared(settings.pair, found, zone), [
        *settings.pair.deviations(), "last averaged weights, as in [G], not the best ones per noise level"])


def danger_zone(path: Path) -> dict[str, float] | None:
    """Of the few images."""
    data = load_data(path)
    zone = geomem.danger_zone(data.train, data.heldout).zone
    return None if zone is None else {"sigma_low": zone.sigma_low, "sigma_high": zone.sigma_high}


def compared(pair: Pair, found: dict[str, Any], zone: dict[str, float] | None) -> list[Compared]:
    few, many = found["few"], found["many"]
    sigma, last = few["sigma"], len(few["sigma"]) - 1
    errors, errors_many = error_ratios(few), error_ratios(many)
    top = max(range(len(sigma)), key=lambda k: errors[k].value)
    rates, rates_many, rates_empirical = (list(map(Interval, levels["rate"], levels["low"], levels["high"]))
                                          for levels in found.values())
    peak, peak_many = (max(range(len(sigma)), key=lambda k, of=of: of[k].value) for of in (rates, rates_many))
    apart = sum(not ratio.low <= 1 <= ratio.high for ratio in errors_many)
    ratio = f"Figure 1: {pair.few:,} images, error held out over error in training, sigma"
    return [
        *(claim(f"{ratio} = {sigma[k]:.2g}", errors[k].told(".3g"), published, holds) for k, published, holds in (
            (0, "together at the small end", errors[0].low <= 1 <= errors[0].high),
            (top, "apart at medium noise", errors[top].low > 1),
            (last, "together at the large end", errors[last].low <= 1 <= errors[last].high))),
        claim(f"Figure 1: {pair.many:,} images, 1 lies inside our 95% interval",
              f"at {len(sigma) - apart} of {len(sigma)} levels; ratio {min(errors_many).value:.3f} to "
              f"{max(errors_many).value:.3f}", "together everywhere", not apart),
        *(order(f"Figure 2: {pair.few:,} images, memorized at sigma = {sigma[end]:.2g} and where it is most",
                [(f"{sigma[end]:.2g}", rates[end]), (f"{sigma[peak]:.2g}", rates[peak])],
                "high at medium noise, none at both ends") for end in (0, last)),
        most_memorized(sigma, rates, zone),
        measured(f"Figure 2: {pair.many:,} images, memorized where it is most, percent", percent(rates_many[peak_many]),
                 "0", ".2f"),
        measured("Figure 2: empirical optimal denoiser, memorized at the smallest noise, percent",
                 percent(rates_empirical[0]), "100", ".2f"),
        order("Figure 2: empirical optimal denoiser, memorized", [(f"sigma {sigma[k]:.2g}", rates_empirical[k])
                                                                  for k in (last, 0)], "falling at large noise")]


def most_memorized(sigma: list[float], rates: list[Interval], zone: dict[str, float] | None) -> Compared:
    """Whether the levels that may be the one where most is memorized, those whose intervals reach that of the largest
    rate, lie in the danger zone.
    """
    peak = max(range(len(sigma)), key=lambda k: rates[k].value)
    near = [level for level, rate in zip(sigma, rates, strict=True) if rate.high >= rates[peak].low]
    inside = [zone is not None and zone["sigma_low"] <= level <= zone["sigma_high"] for level in near]
    edges = "none" if zone is None else f"{zone['sigma_low']:.3g} to {zone['sigma_high']:.3g}"
    verdict = ("inside" if all(inside) else "OUTSIDE the danger zone" if not any(inside) else
               "cannot be told: some of these levels are in the danger zone and some are not")
    return Compared("Figure 2: where it is most", f"sigma {sigma[peak]:.3g}, its interval reached by those at "
                    f"{near[0]:.3g} to {near[-1]:.3g}; danger zone {edges}", "in the danger zone", verdict)


def error_ratios(levels: dict[str, Any]) -> list[Interval]:
    """Held-out over training error per noise level, with intervals for the logarithm by its standard error."""
    found = []
    for heldout, train, a, b in zip(levels["mse_heldout"], levels["mse_train"], levels["mse_heldout_stderr"],
                                    levels["mse_train_stderr"], strict=True):
        factor = math.exp(Z_95 * math.hypot(a / heldout, b / train))
        found.append(Interval(heldout / train, heldout / train / factor, heldout / train * factor))
    return found


def percent(share: Interval) -> Interval:
    return Interval(*(100 * part for part in share))


def draw(document: Mapping[str, Any]) -> Figure:
    """Few images, many images, and the empirical optimal denoiser of the few."""
    pair, levels = document["settings"]["pair"], document["result"]["levels"]
    figure = plot_noise_levels([*((f"{pair[name]:,} images", levels[name]) for name in ("few", "many")),
                                ("empirical optimal", levels["empirical"])], zone=document["result"]["zone"])
    figure.suptitle(caption(document, f"{pair['data']} {pair['side']} x {pair['side']}"), fontsize=10)
    return figure


EXPERIMENT = Experiment("denoising", "[G] Figures 1, 2", "denoising error and memorization per noise level",
                        SCALES, run, draw)
