"""Memorized share with swapped windows. Reads results/reproduce_swapped_windows.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, GREY, ORANGE, look, new_figure


def draw(document: Mapping[str, Any]) -> Figure:
    """One bar per window and direction, with 95% intervals; lines are the two models alone."""
    rows, pair = document["result"]["rows"], document["settings"]["pair"]
    alone = {row["outside"]: row["rate"] for row in rows if row["window"] is None}
    windows = [row for row in rows if row["window"] is not None]
    names = list(dict.fromkeys(row["window"] for row in windows))
    with look():
        figure = new_figure(2 + 0.9 * len(names), 4)
        axes = figure.subplots()
        for outside, colour, shift in (("few", BLUE, -.2), ("many", ORANGE, .2)):
            of = [row for row in windows if row["outside"] == outside]
            axes.bar([names.index(row["window"]) + shift for row in of], [row["rate"] for row in of], .36,
                     yerr=[[row["rate"] - row["low"] for row in of], [row["high"] - row["rate"] for row in of]],
                     color=colour, capsize=2, ecolor=GREY,
                     label=f"model of {pair[outside]:,} images, window of the other")
            axes.axhline(alone[outside], color=colour, ls="--", lw=1, label=f"model of {pair[outside]:,} images alone")
        labels = {row["window"]: "{}\n{:.3g} to {:.3g}".format(row["window"], *row["sigma"]) for row in windows}
        axes.set_xticks(range(len(names)), [labels[name] for name in names], fontsize=8)
        axes.set(ylabel="memorized share", ylim=(-.03, 1.03))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        figure.suptitle(caption(document, f"{pair['data']} {pair['side']} x {pair['side']}, sigma of the first and "
                                "last step swapped"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "swapped_windows")
