"""Samples beside their nearest training images. Reads results/reproduce_gap_samples.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save, shown

from geomem.plots.style import look, new_figure


def draw(document: Mapping[str, Any]) -> Figure:
    """Two rows per gap: samples above, nearest training images below."""
    found, settings = document["result"]["gaps"], document["settings"]
    with look():
        figure = new_figure(1.6 + 0.55 * settings["shown"], 0.6 + 1.35 * len(found))
        for axes, (gap, part) in zip(figure.subplots(len(found), 1), found.items(), strict=True):
            shown(axes, part["picture"], ["sample", "nearest"])
            axes.set_title(f"gap {gap}: {part['rate']:.0%} [{100 * part['low']:.0f}, {100 * part['high']:.0f}] of "
                           f"{part['n']:,} samples memorized, {sum(part['memorized'])} of these {settings['shown']}",
                           fontsize=9)
        figure.suptitle(caption(document, "samples and nearest training images"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "gap_samples")
