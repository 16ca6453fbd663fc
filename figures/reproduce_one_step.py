"""Images denoised in one step. Reads results/reproduce_one_step.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save, shown

from geomem.plots.style import look, new_figure


def draw(document: Mapping[str, Any]) -> Figure:
    """Training images on the left, held-out ones on the right; one row per model and noise level."""
    result, settings = document["result"], document["settings"]
    names = {"few": f"{settings['pair']['few']:,} images", "many": f"{settings['pair']['many']:,} images"}
    rows = [row if row == "clean" else "{}, $\\sigma$ = {}".format(
        names.get(row.split(", ")[0], row.split(", ")[0]), row.split(", ")[1]) for row in result["rows"]]
    with look():
        figure = new_figure(2.4 + settings["images"], 0.6 + 0.5 * len(rows))
        for axes, (part, title) in zip(figure.subplots(1, 2), (("train", "training images"),
                                                               ("heldout", "held-out images")), strict=True):
            shown(axes, result["grids"][part]["picture"], rows if part == "train" else len(rows))
            axes.set_title(title)
        figure.suptitle(caption(document, "one-step estimates"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "one_step")
