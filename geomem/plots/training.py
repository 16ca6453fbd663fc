"""What a training did: its loss, and the held-out error per noise level with the weights chosen for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from geomem.errors import InputError
from geomem.plots.style import BLUE, GREY, RED, look, new_figure, plain_log_axis


def plot_training(lines: Sequence[Mapping[str, Any]], levels: Mapping[str, Any] | None = None) -> Figure:
    """Left: training loss. Right: held-out MSE of each band of noise levels over its smallest value, in its colour.

    lines: those of stats.jsonl. levels: bands and chosen steps as in levels.json; a dot marks the chosen step of each
    band, a vertical line the one early stop. Without it, or without held-out losses, the right side stays away.

    Raises InputError where there are no lines.
    """
    if not lines:
        raise InputError("no lines of a training to plot; give at least one")
    steps = np.array([line["step"] for line in lines])
    losses = np.array([line.get("heldout_mse", []) for line in lines], dtype=float)
    bands = 0 if levels is None else len(levels["steps"])
    two = bands > 0 and losses.shape == (len(lines), bands)
    with look():
        figure = new_figure(9 if two else 4.6, 3.6)
        left, *rest = figure.subplots(1, 2 if two else 1, squeeze=False)[0]
        left.plot(steps, [line["loss"] for line in lines], color=BLUE, lw=1.8)
        left.set(xlabel="training steps", ylabel="training loss")
        if levels is not None and two:
            _draw_bands(figure, rest[0], steps, losses, levels)
    return figure


def _draw_bands(figure: Figure, axes: Any, steps: np.ndarray, losses: np.ndarray, levels: Mapping[str, Any]) -> None:
    edges = np.array(levels["edges"], dtype=float)
    centres = np.sqrt(edges[:-1] * edges[1:])
    colours = ScalarMappable(LogNorm(centres[0], max(centres[-1], centres[0] * 1.01)), matplotlib.colormaps["viridis"])
    relative = losses / np.maximum(losses.min(axis=0), 1e-30)
    for k, centre in enumerate(centres):
        colour = colours.to_rgba(centre)
        axes.plot(steps, relative[:, k], color=colour, lw=1.2)
        place = int(np.abs(steps - levels["steps"][k]).argmin())
        axes.plot(steps[place], relative[place, k], "o", color=colour, ms=4, mec="white", mew=0.6, zorder=3)
    axes.axvline(levels["early_stop"], color=RED, lw=1, ls=":", label="one early stop")
    axes.plot([], [], "o", color=GREY, ms=4, label="weights chosen for a level")
    axes.set(xlabel="training steps", ylabel="held-out error / its smallest", yscale="log")
    axes.set_ylim(0.98, min(max(1.2, 1.05 * float(relative.max())), 10))
    plain_log_axis(axes.yaxis)
    axes.legend(loc="best")
    bar = figure.colorbar(colours, ax=axes, pad=0.02)
    bar.set_label(r"noise level $\sigma$")
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
