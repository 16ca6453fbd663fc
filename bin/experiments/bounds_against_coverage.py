"""[G] Figure 6: coverage in trials with fresh training subsets, between the bounds of Theorem 4.8.

Each trial takes a random subset of the pool, one held-out image and a few noise draws, as [G] does. Beside it stands
the mean over all subsets at once, from one pass over the pool (``coverage_by_training_size``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import sources
from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, claim, computed, measured
from experiments.pictures import captioned
from geomem import coverage_bounds, load_data, shell_coverage
from geomem.noise import edm_steps
from geomem.plots.style import BLUE, GREEN, GREY, ORANGE, sigma_axis
from geomem.statistics import wilson
from geomem.theory import coverage_by_training_size

# Not of [G], whose figures are not printed: an independent, unpublished run on the first 1,000 training and test images
# of CIFAR-10, t = 5, exact g: lower bound, coverage by 8 draws, sharper upper bound.
RERUN = "independent run"
KNOWN = {0.8: ("0.03608", "0.0354", "0.06884"), 1.0: ("0.15146", "0.1653", "0.31611"),
         1.5: ("0.68074", "0.7140", "0.96687"), 2.0: ("0.92999", "0.9416", "1.000"),
         3.0: ("0.99263", "0.9940", "1.000")}


@dataclass(frozen=True)
class Settings:
    data: str
    pool: int
    n_heldout: int
    subset: int
    trials: int
    draws: int
    bound_subsets: int  # subsets over which the bounds are averaged
    levels: int = 40
    seed: int = 0


SCALES = {"smoke": Settings("digits", 120, 60, 60, trials=20, draws=4, bound_subsets=2, levels=8),
          "small": Settings("cifar", 5085, 1000, 1000, trials=350, draws=10, bound_subsets=5),
          "paper": Settings("cifar", 50_000, 1000, 1000, trials=350, draws=10, bound_subsets=5)}


def run(bench: Bench, settings: Settings) -> Outcome:
    path = sources.named(bench, settings.data, settings.pool, settings.n_heldout)
    result = bench.part("curves", lambda: curves(path, settings))
    rows = [between("coverage in trials", "trials", result),
            between("coverage over all subsets", "all_subsets", result)]
    if "known" in result:
        known = result["known"]
        for k, (sigma, (lower, coverage, upper)) in enumerate(KNOWN.items()):
            at = f"at sigma = {sigma:g}, first images"
            rows += [computed(f"lower bound {at}", known["lower"][k], lower, ".5f", RERUN),
                     measured(f"coverage {at}", Interval(*(known[part][k] for part in ("coverage", "low", "high"))),
                              coverage, ".4f", RERUN),
                     computed(f"upper bound {at}", known["upper"][k], upper, ".5f", RERUN)]
    return Outcome(result, rows, [
        f"subsets of {settings.subset:,} of a pool of {settings.pool:,} training images"
        + ("; [G]'s pool is taken to be all 50,000" if settings.pool < 50_000 else ""),
        *(["the pool is lossy JPEG beyond the 5,085 exact images"] if settings.pool > 5085 else []),
        "g is computed exactly; [G] drew it by Monte Carlo",
        f"bounds are averages over {settings.bound_subsets} subsets and {settings.n_heldout:,} held-out images"])


def between(quantity: str, name: str, result: dict[str, Any]) -> Compared:
    """Whether the 95% intervals of a curve reach the range between the bounds, whose own errors are left out."""
    value, low, high, lower, upper = (np.array(result[key]) for key in (name, f"{name}_low", f"{name}_high", "lower",
                                                                        "upper"))
    outside = np.array(result["sigma"])[(high < lower) | (low > upper)]
    within = int(((lower <= value) & (value <= upper)).sum())
    return claim(f"{quantity} lies between the bounds, as far as its 95% intervals tell",
                 f"the figure itself at {within} of {len(value)} levels, its interval "
                 + (f"not at sigma {', '.join(f'{sigma:.3g}' for sigma in outside)}" if len(outside) else "at all"),
                 "at all levels", not len(outside))


def curves(path: Any, settings: Settings) -> dict[str, Any]:
    data = load_data(path)
    sigma = np.sort(edm_steps(settings.levels))
    random = np.random.default_rng(settings.seed)
    trials = np.empty((settings.trials, len(sigma)))
    for k in range(settings.trials):
        subset = random.choice(len(data.train), settings.subset, replace=False)
        image = data.heldout[random.integers(len(data.heldout))][None]
        trials[k] = shell_coverage(data.train[subset], image, sigma, draws=settings.draws, seed=k).estimate
    # Of one image all draws may be covered or none: as many independent cases as trials, whatever the draws.
    trials_low, trials_high = wilson(trials.mean(0), np.full(len(sigma), float(settings.trials)))
    bounds = [coverage_bounds(data.train[random.choice(len(data.train), settings.subset, replace=False)],
                              data.heldout, sigma) for _ in range(settings.bound_subsets)]
    everything = coverage_by_training_size(data.train, data.heldout, sigma, [settings.subset], seed=settings.seed)
    result: dict[str, Any] = {
        "sigma": sigma, "trials": trials.mean(0), "trials_low": trials_low, "trials_high": trials_high,
        "all_subsets": everything.estimate[0], "all_subsets_low": everything.low[0],
        "all_subsets_high": everything.high[0],
        **{name: np.mean([getattr(of, name) for of in bounds], axis=0) for name in ("lower", "upper", "plain_upper")}}
    if settings.data == "cifar":
        first = data.train[:sources.EXACT_ROWS], data.heldout[:sources.EXACT_ROWS], list(KNOWN)
        known, coverage = coverage_bounds(*first), shell_coverage(*first, draws=8)
        result["known"] = {"lower": known.lower.tolist(), "upper": known.upper.tolist(),
                           "coverage": coverage.estimate.tolist(), "low": coverage.low.tolist(),
                           "high": coverage.high.tolist()}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in result.items()}


def draw(document: Mapping[str, Any]) -> Figure:
    """The trials with 95% intervals, the mean over all subsets, and the bounds."""
    result, settings = document["result"], document["settings"]
    sigma = result["sigma"]
    with captioned(document, f"subsets of {settings['subset']:,} of {settings['pool']:,} points", 6.4, 4.2) as figure:
        axes = figure.subplots()
        axes.plot(sigma, result["plain_upper"], "--", color=GREY, label="upper bound, plain")
        axes.plot(sigma, result["upper"], color=GREEN, label="upper bound, sharper")
        axes.plot(sigma, result["lower"], color=BLUE, label="lower bound")
        axes.plot(sigma, result["all_subsets"], ":", color=ORANGE, lw=2, label="mean over all subsets")
        sides = [[abs(end - trial) for end, trial in zip(result[name], result["trials"], strict=True)]
                 for name in ("trials_low", "trials_high")]
        axes.errorbar(sigma, result["trials"], sides, fmt=".", color=ORANGE, capsize=2,
                      label=f"{settings['trials']} trials, 95%")
        axes.set(ylabel="coverage", ylim=(-.03, 1.03))
        sigma_axis(axes)
        axes.legend(loc="center left")
    return figure


EXPERIMENT = Experiment("bounds-against-coverage", "[G] Figure 6", "coverage between the bounds of Theorem 4.8",
                        SCALES, run, draw)
