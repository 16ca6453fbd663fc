"""Copies and quality with swapped windows. Reads results/reproduce_swapped_windows.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, COLOURS, GREY, ORANGE, look, new_figure

RATE, FRECHET = ("rate", "low", "high"), ("frechet", "frechet_low", "frechet_high")
COLOUR = {"few": BLUE, "many": ORANGE, "gaussian": COLOURS[2], "skip": COLOURS[3]}
PANELS = (("few", RATE, "memorized share"), ("few", FRECHET, "Frechet distance"), (None, RATE, "memorized share"))


def draw(document: Mapping[str, Any]) -> Figure:
    """One bar per window and replacement, with 95% intervals; dashed lines are the two models alone.

    Above and in the middle the model of few images is outside the window, below inside.
    """
    pair = document["settings"]["pair"]
    names = {"few": f"model of {pair['few']:,} images", "many": f"model of {pair['many']:,} images",
             "gaussian": "Gaussian denoiser", "skip": "stepped over"}
    rows = [row for row in document["result"]["rows"] if not row["control_of"]]
    alone = {row["outside"]: row for row in rows if row["window"] is None}
    windows = list(dict.fromkeys(row["window"] for row in rows if row["window"]))
    with look():
        figure = new_figure(2 + 1.1 * len(windows), 8)
        panels = figure.subplots(len(PANELS), sharex=True)
        for axes, (outside, keys, label) in zip(panels, PANELS, strict=True):
            side, other = ("outside", "inside") if outside else ("inside", "outside")
            bars(axes, [(windows.index(row["window"]), row[other], [row[key] for key in keys])
                        for row in rows if row["window"] and row[side] == "few"])
            for name in ("few", "many"):
                axes.axhline(alone[name][keys[0]], color=COLOUR[name], ls="--", lw=1)
            axes.set_ylabel(label)
            if keys == RATE:
                axes.set_ylim(-.03, 1.03)
        panels[0].set_title(f"{names['few']}, its denoiser in the window replaced", fontsize=9)
        panels[2].set_title(f"the window of the {names['few']} in another denoiser", fontsize=9)
        labels = {row["window"]: "{}\n{:.3g} to {:.3g}".format(row["window"], *row["sigma"])
                  for row in rows if row["window"]}
        panels[2].set_xticks(range(len(windows)), [labels[name] for name in windows], fontsize=8)
        for name, colour in COLOUR.items():
            panels[0].plot([], [], color=colour, lw=5, label=names[name])
        panels[0].plot([], [], color=GREY, ls="--", lw=1, label="a model alone, in its colour")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle(caption(document, f"{pair['data']} {pair['side']} x {pair['side']}, sigma of the first and "
                                "last step swapped"), fontsize=10)
    return figure


def bars(axes: Axes, found: list[tuple[int, str, list[float]]]) -> None:
    """Bars side by side at each place, one colour for each denoiser; (place, denoiser, value and interval) each."""
    names = list(dict.fromkeys(name for _, name, _ in found))
    width = .8 / len(names)
    for k, name in enumerate(names):
        at = [(place + (k - (len(names) - 1) / 2) * width, value) for place, one, value in found if one == name]
        middle = [value for _, (value, _, _) in at]
        axes.bar([x for x, _ in at], middle, .9 * width, color=COLOUR[name], ecolor=GREY, capsize=2,
                 yerr=[[value - low for _, (value, low, _) in at], [high - value for _, (value, _, high) in at]])


if __name__ == "__main__":
    save(draw, "swapped_windows")
