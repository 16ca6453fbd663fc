"""Memorization and quality along training. Reads results/reproduce_dummy_and_gap.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, images_of, save

from geomem.plots.style import COLOURS, look, new_figure


def draw(document: Mapping[str, Any]) -> Figure:
    """Memorized share and Frechet distance with 95% intervals over the steps, one line per method."""
    with look():
        figure = new_figure(9, 3.8)
        share, quality = figure.subplots(1, 2)
        for (method, rows), colour in zip(document["result"]["methods"].items(), COLOURS, strict=False):
            steps = [row["step"] for row in rows]
            for axes, name, low, high in ((share, "memorized", "low", "high"),
                                          (quality, "frechet", "frechet_low", "frechet_high")):
                axes.plot(steps, [row[name] for row in rows], ".-", color=colour, label=method)
                axes.fill_between(steps, [row[low] for row in rows], [row[high] for row in rows], color=colour,
                                  alpha=.2, lw=0)
        share.set(xlabel="step", ylabel="memorized share", ylim=(-.03, 1.03))
        quality.set(xlabel="step", ylabel="Frechet distance in pixels")
        share.legend()
        figure.suptitle(caption(document, images_of(document["settings"])), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "dummy_and_gap")
