"""Coverage between its bounds. Reads results/reproduce_bounds_against_coverage.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, GREEN, GREY, ORANGE, look, new_figure, sigma_axis


def draw(document: Mapping[str, Any]) -> Figure:
    """The trials with 95% intervals, the mean over all subsets, and the bounds."""
    result, settings = document["result"], document["settings"]
    sigma = result["sigma"]
    with look():
        figure = new_figure(6.4, 4.2)
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
        figure.suptitle(caption(document, f"subsets of {settings['subset']:,} of {settings['pool']:,} points"),
                        fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "bounds_against_coverage")
