"""Posterior weight and coverage per data set. Reads results/reproduce_weight_and_coverage.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, GREY, ORANGE, look, new_figure, sigma_axis

NAMES = {"cifar": "CIFAR-10", "cars": "CIFAR-10 automobiles", "faces": "grey faces, [0, 1]", "digits": "digits"}


def draw(document: Mapping[str, Any]) -> Figure:
    """W and C with their bands, the zone and the crossing, one panel for each data set."""
    found = document["result"]
    with look():
        figure = new_figure(1 + 3.6 * len(found), 3.6)
        for axes, (name, part) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
            curves, zone = part["curves"], part["zone"]
            for key, colour, label in (("max_posterior_weight", BLUE, "weight W"), ("coverage", ORANGE, "coverage C")):
                axes.plot(curves["sigma"], curves[key]["estimate"], ".-", color=colour, label=label)
                axes.fill_between(curves["sigma"], curves[key]["low"], curves[key]["high"], color=colour, alpha=.25,
                                  lw=0)
            if zone:
                axes.axvspan(zone["sigma_low"], zone["sigma_high"], color=GREY, alpha=.15, lw=0,
                             label="both above {:g}".format(document["settings"]["threshold"]))
            sigma_axis(axes)
            size = part["data"]
            axes.set(title=f"{NAMES[name]}: {size['n_train']:,} and {size['n_heldout']:,} held out")
        figure.axes[0].legend(loc="center left")
        figure.suptitle(caption(document, "largest posterior weight and coverage"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "weight_and_coverage")
