"""[G] Figure 6: coverage in trials with fresh training subsets, between the bounds of Theorem 4.8.

Each trial takes a random subset of the pool, one held-out image and a few noise draws, as [G] does. Beside it stands
the mean over all subsets at once, from one pass over the pool (``coverage_by_training_size``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments import sources
from experiments.bench import Bench, Compared, Outcome, claim, near
from geomem import load_data, shell_coverage, theorem_4_8_bounds
from geomem.geometry import coverage_by_training_size
from geomem.noise import edm_steps

NAME, PAPER, TITLE = "bounds-against-coverage", "[G] Figure 6", "coverage between the bounds of Theorem 4.8"
# First 1,000 training and test images of CIFAR-10, t = 5, exact g: lower, coverage, sharper upper bound.
KNOWN = {0.8: (.03608, .0354, .06884), 1.0: (.15146, .1653, .31611), 1.5: (.68074, .7140, .96687),
         2.0: (.92999, .9416, 1.0), 3.0: (.99263, .9940, 1.0)}


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
    path = (sources.digits if settings.data == "digits" else sources.cifar)(bench, settings.pool, settings.n_heldout)
    result = bench.part("curves", asdict(settings), lambda: curves(path, settings))
    ours = {name: np.array(result[name]) for name in ("trials", "all_subsets", "all_subsets_stderr")}
    # A trial looks from one image: its draws may all be covered, or none.
    spread = np.sqrt(ours["all_subsets"] * (1 - ours["all_subsets"]) / settings.trials)
    rows = [between("coverage in trials", ours["trials"], 4 * spread, result),
            between("coverage over all subsets", ours["all_subsets"], 4 * ours["all_subsets_stderr"], result)]
    if "known" in result:
        for k, (sigma, parts) in enumerate(KNOWN.items()):
            for name, value in zip(("lower", "coverage", "upper"), parts, strict=True):
                rows.append(near(f"{name} at sigma = {sigma:g}, first images", result["known"][name][k], value,
                                 .006 if name == "coverage" else .0006, ".4f"))
    return Outcome(result, {name: result[name] for name in ("sigma", "lower", "upper", "plain_upper", "trials",
                                                            "trials_stderr", "all_subsets")}, rows, [
        f"subsets of {settings.subset:,} of a pool of {settings.pool:,} training images"
        + ("; [G]'s pool is taken to be all 50,000" if settings.data == "cifar" and settings.pool < 50_000 else ""),
        *(["the pool is lossy JPEG beyond the 5,085 exact images"] if settings.pool > 5085 else []),
        "g is computed exactly; [G] drew it by Monte Carlo",
        f"bounds are averages over {settings.bound_subsets} subsets and {settings.n_heldout:,} held-out images",
        *(["digits stand in for CIFAR-10"] if settings.data == "digits" else [])])


def between(name: str, values: np.ndarray, error: np.ndarray, result: dict[str, Any]) -> Compared:
    """Whether a curve lies between the bounds, up to its error and .004 for those of the bounds themselves."""
    low, high = np.array(result["lower"]) - error - .004, np.array(result["upper"]) + error + .004
    outside = np.array(result["sigma"])[(values < low) | (values > high)]
    told = ", ".join(f"{sigma:.3g}" for sigma in outside)
    return claim(f"{name} lies between the bounds", f"not at sigma {told}" if told else f"at all {len(values)} levels",
                 "at all levels", not told)


def curves(path: Any, settings: Settings) -> dict[str, Any]:
    data = load_data(path)
    sigma = np.sort(edm_steps(settings.levels))
    random = np.random.default_rng(settings.seed)
    trials = np.empty((settings.trials, len(sigma)))
    for k in range(settings.trials):
        subset = random.choice(len(data.train), settings.subset, replace=False)
        image = data.heldout[random.integers(len(data.heldout))][None]
        trials[k] = shell_coverage(data.train[subset], image, sigma, draws=settings.draws, seed=k).estimate
    bounds = [theorem_4_8_bounds(data.train[random.choice(len(data.train), settings.subset, replace=False)],
                                 data.heldout, sigma) for _ in range(settings.bound_subsets)]
    everything = coverage_by_training_size(data.train, data.heldout, sigma, [settings.subset], seed=settings.seed)
    result: dict[str, Any] = {
        "sigma": sigma, "trials": trials.mean(0), "trials_stderr": trials.std(0, ddof=1) / len(trials) ** .5,
        "all_subsets": everything.estimate[0], "all_subsets_stderr": everything.stderr[0],
        **{name: np.mean([getattr(one, name) for one in bounds], axis=0) for name in ("lower", "upper",
                                                                                     "plain_upper")}}
    if settings.data == "cifar":
        first = data.train[:sources.EXACT_ROWS], data.heldout[:sources.EXACT_ROWS], list(KNOWN)
        known = theorem_4_8_bounds(*first)
        result["known"] = {"lower": known.lower.tolist(), "upper": known.upper.tolist(),
                           "coverage": shell_coverage(*first, draws=8).estimate.tolist()}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in result.items()}
