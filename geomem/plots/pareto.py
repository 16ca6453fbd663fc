"""Leaning, or the memorized share, against quality: which of several samples are beaten in both by others (Dodson et
al. 2026, Fig. 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from geomem.errors import InputError
from geomem.plots.style import COLOURS, GREY, look, new_figure, plain
from geomem.statistics import pareto_front

Point = Mapping[str, Any]


def plot_pareto(settings: Sequence[tuple[str, Point, Sequence[Point]]], floor: tuple[float, float | None], *,
                xlabel: str, title: str, ylabel: str = "memorized share", honest: float = 0.0,
                better: str = "lower") -> Figure:
    """One mark for each setting, with 95% intervals in both directions, and the staircase of the Pareto front.

    settings: (label, mean, runs); ``mean`` and each of ``runs`` hold ``quality`` and ``share``, each with
        ``value``, ``low`` and ``high``. Several runs are shown small and without intervals beside their mean.
    floor: quality and share of held-out data, marked with a star unless the share is None.
    honest: the share of a model that owes nothing to its training points.
    better: ``lower`` or ``higher``, of the quality; the axis is turned so that better is always to the left.

    Raises InputError if there is nothing to draw.
    """
    if not settings:
        raise InputError("no settings to plot; give at least one")
    sign = -1 if better == "higher" else 1
    with look():
        figure = new_figure(6.4, 4.4)
        axes = figure.subplots()
        x, y = (np.array([mean[part]["value"] for _, mean, _ in settings]) for part in ("quality", "share"))
        for i, (label, mean, runs) in enumerate(settings):
            colour = COLOURS[i % len(COLOURS)]
            reach = [[[mean[part]["value"] - mean[part]["low"]], [mean[part]["high"] - mean[part]["value"]]]
                     for part in ("quality", "share")]
            axes.errorbar(x[i], y[i], xerr=reach[0], yerr=reach[1], fmt="o", ms=7, color=colour, lw=1.2, capsize=2.5,
                          label=_name(label) + (f" ({len(runs)} runs)" if len(runs) > 1 else ""), zorder=3)
            if len(runs) > 1:
                axes.scatter([run["quality"]["value"] for run in runs], [run["share"]["value"] for run in runs],
                             s=12, color=colour, alpha=0.55, lw=0, zorder=2)
        if floor[1] is not None:
            axes.plot(floor[0], floor[1], "*", ms=13, color="0.15", ls="", label="held-out data", zorder=4)
        if honest:
            axes.axhline(honest, color=GREY, lw=0.8, zorder=0, label="owes nothing to training")
        axes.set(xlabel=f"{xlabel}\n{better} is better", ylabel=ylabel, title=plain(title))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_ylim(min(honest - 0.02, axes.get_ylim()[0]), max(honest + 0.1, axes.get_ylim()[1]))
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= min(1, axes.get_ylim()[1])])  # of a share
        front = pareto_front(sign * x, y)
        worst = axes.get_xlim()[1 if sign == 1 else 0]
        axes.step([*x[front], worst], [*y[front], y[front][-1]], where="post", color=GREY, lw=1, ls="--", zorder=1,
                  label="Pareto front")
        if sign == 1:
            axes.set_xlim(right=worst)
        else:
            axes.set_xlim(left=worst)
            axes.invert_xaxis()
        handles, labels = axes.get_legend_handles_labels()  # lines come first, but the settings are the matter
        lines = len(labels) - len(settings)
        figure.legend(handles[lines:] + handles[:lines], labels[lines:] + labels[:lines], loc="outside lower center",
                      ncols=2)
    return figure


def _name(label: str) -> str:
    """As it is; a legend would leave out what begins with an underscore."""
    return plain(f" {label}" if label.startswith("_") else label)
