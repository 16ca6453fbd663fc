"""[G] Figure 3: posterior weight W and coverage C over the noise level, and where both are high.

Also the same curves for the data of Figures 4 and 5, automobiles and grey faces, from which [G] reads their gaps. What
[G]'s Figure 8 shows is not in the text at hand; these curves are what the text calls for at that place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import geomem
from experiments import sources
from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, measured, unlike
from experiments.pictures import band, captioned
from geomem import load_data
from geomem.plots.style import BLUE, GREY, ORANGE, sigma_axis

# [G] prints no figures of its curves. These are of an independent, unpublished run of the same estimators on the first
# 1,000 training and test images of CIFAR-10; that run has its own noise, of which no interval is known.
RERUN = "independent run"
KNOWN_C = {1.0: "0.1653", 1.5: "0.7140", 2.0: "0.9416", 3.0: "0.9940", 4.0: "0.998", 5.0: "0.9991", 8.0: "0.999"}
KNOWN_W = {2.0: "0.9996", 3.0: "0.9915", 4.0: "0.9357", 5.0: "0.8143", 8.0: "0.3755"}
KNOWN = {"crossing": "2.9", "sigma_low": "1.7", "sigma_high": "4.7"}
NOTES = {"sigma_high": "but the other run's W at sigma = 5 is 0.8143, so by its own curve the zone ends above 5"}
GAP = (100, 350)  # the DDPM timesteps of [G] Figure 5 lie within


@dataclass(frozen=True)
class Settings:
    """``data``: (name, training points, held-out points, side) of each data set."""

    data: tuple[tuple[str, int, int, int], ...]
    sigmas: str = "0.02,0.05,0.1,0.2,0.3,0.4,0.6,0.8,1,1.5,2,3,4,5,6,8,12,20,40,80"
    posterior_draws: int = 4
    coverage_draws: int = 8
    threshold: float = 0.8
    seed: int = 0


REAL = (("cifar", 1000, 1000, 32), ("cars", 2000, 1000, 32), ("faces", 1024, 1000, 32))
SCALES = {"smoke": Settings((("digits", 60, 60, 8),), sigmas="12", posterior_draws=2, coverage_draws=2),
          "small": Settings(REAL), "paper": Settings(REAL)}


def run(bench: Bench, settings: Settings) -> Outcome:
    found: dict[str, Any] = {}
    for name, n_train, n_heldout, side in settings.data:
        data = sources.named(bench, name, n_train, n_heldout, side)
        found[name] = bench.part(name, partial(danger_zone, data, settings))
    return Outcome(found, compared(found), [
        "[G] drew its 1,000 images at random and names no seed; ours are the first of each file",
        "[G] publishes no draws, grid or threshold for Figure 3; the known figures are those of an independent run on "
        f"the same images with 4 and 8 draws, and the threshold {settings.threshold:g} is ours",
        *(["automobiles come from lossy JPEG, 3.4 away from the exact images at neighbours 18 to 21 apart"]
          if "cars" in found else [])])


def danger_zone(path: Path, settings: Settings) -> dict[str, Any]:
    """What geomem danger-zone writes."""
    data = load_data(path)
    sigmas = [float(level) for level in settings.sigmas.split(",")]
    report = geomem.danger_zone(
        data.train, data.heldout, sigmas=int(sigmas[0]) if settings.sigmas.isdigit() else sigmas,
        posterior_draws=settings.posterior_draws, coverage_draws=settings.coverage_draws,
        threshold=settings.threshold, seed=settings.seed)
    return report.document(data)


def compared(found: dict[str, Any]) -> list[Compared]:
    """The curves of CIFAR-10 beside the known ones, and the zones."""
    rows = []
    for name, document in found.items():
        zone, curves = document["zone"], document["curves"]
        if name != "cifar":
            told = "none" if zone is None else f"{zone['sigma_low']:.3g} to {zone['sigma_high']:.3g}"
            rows.append(unlike(f"danger zone of {name}", told, "not published", "no figure to hold it against"))
            if name == "faces" and zone:
                rows.append(unlike("the same in DDPM timesteps", "{} to {}".format(*zone["ddpm_timesteps"]),
                                   f"gaps within {GAP[0]} to {GAP[1]}", "[G] chose its gaps by eye"))
            continue
        for label, key, known in (("C", "coverage", KNOWN_C), ("W", "max_posterior_weight", KNOWN_W)):
            for sigma, value in known.items():
                place = curves["sigma"].index(sigma)
                ours = Interval(*(curves[key][part][place] for part in ("estimate", "low", "high")))
                rows.append(measured(f"{label} at sigma = {sigma:g}", ours, value, ".4f", RERUN))
        ends = {"crossing": (zone["crossing_low"], zone["crossing_high"]), "sigma_low": zone["sigma_low_interval"],
                "sigma_high": zone["sigma_high_interval"]}
        rows += [measured(f"zone of cifar: {part}", Interval(zone[part], *ends[part]), value, ".3g", RERUN,
                          NOTES.get(part, "")) for part, value in KNOWN.items()]
    return rows


NAMES = {"cifar": "CIFAR-10", "cars": "CIFAR-10 automobiles", "faces": "grey faces, [0, 1]", "digits": "digits"}


def draw(document: Mapping[str, Any]) -> Figure:
    """W and C with their bands, the zone and the crossing, one panel for each data set."""
    found = document["result"]
    with captioned(document, "largest posterior weight and coverage", 1 + 3.6 * len(found), 3.6) as figure:
        for axes, (name, part) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
            curves, zone = part["curves"], part["zone"]
            band(axes, curves["sigma"], curves["max_posterior_weight"], BLUE, "weight W")
            band(axes, curves["sigma"], curves["coverage"], ORANGE, "coverage C")
            if zone:
                axes.axvspan(zone["sigma_low"], zone["sigma_high"], color=GREY, alpha=.15, lw=0,
                             label="both above {:g}".format(document["settings"]["threshold"]))
            sigma_axis(axes)
            size = part["data"]
            axes.set(title=f"{NAMES[name]}: {size['n_train']:,} and {size['n_heldout']:,} held out")
        figure.axes[0].legend(loc="center left")
    return figure


EXPERIMENT = Experiment("weight-and-coverage", "[G] Figures 3, 8", "posterior weight, coverage and danger zone",
                        SCALES, run, draw)
