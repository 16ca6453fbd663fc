"""Swap experiments: the memorized share and the quality over the noise levels swapped, and the same seeds side by side
(Dodson et al. 2026, Table 1, Figure 10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from geomem.errors import InputError
from geomem.plots.samples import draw_image, drawable, frame, image_range
from geomem.plots.style import COLOURS, GREY, look, new_figure, plain_log_axis, sigma_axis

_MEASURES = (("memorization", "rate", "low", "high", "memorized share"),
             ("quality", "frechet", "frechet_low", "frechet_high", "Frechet distance (px)"))
_CELL = 0.62  # inches of one sample


def plot_swap(rows: Sequence[Mapping[str, Any]], sigmas: Sequence[float], heldout: Mapping[str, Any]) -> Figure:
    """Above the memorized share, below the Frechet distance, over the noise levels swapped.

    Each swap is a bar over its window with its 95% interval, thin for a control, in the colour of the other denoiser;
    a dashed line is a denoiser alone. Left A is outside the window, right inside; a side without swaps is left out.

    rows, heldout: as in the swap.json of ``geomem swap``. sigmas: levels of the sampler, the ticks below.
    Raises InputError where no row has a window.
    """
    sides = [side for side in ("outside", "inside") if any(row["window"] and row[side] == "A" for row in rows)]
    if not sides:
        raise InputError("no swap to plot; give at least one row with a window")
    others = list(dict.fromkeys(name for row in rows for name in (row["outside"], row["inside"]) if name))
    colours = {name: GREY if name == "A" else COLOURS[(k - 1) % len(COLOURS)] for k, name in enumerate(others)}
    with look():
        figure = new_figure(4.6 * len(sides) + 1.6, 6.2)
        grid = figure.subplots(2, len(sides), squeeze=False, sharex=True, sharey="row")
        for column, side in enumerate(sides):
            for axes, (part, value, low, high, label) in zip(grid[:, column], _MEASURES, strict=True):
                for row in rows:
                    found = (row[part][value], row[part][low], row[part][high])
                    if row["window"] is None:
                        axes.axhline(found[0], color=colours[row["outside"]], lw=1.2, ls="--")
                    elif row[side] == "A":
                        other = row["inside" if side == "outside" else "outside"]
                        _bar(axes, row["window"], sigmas, found, colours[other], others.index(other),
                             apart=3.5 if part == "memorization" else 0)
                floor = heldout["memorization"]["rate"] if part == "memorization" else heldout["frechet"]
                axes.axhline(floor, color="0.2", lw=1, ls=":")
                axes.plot(sigmas, np.zeros(len(sigmas)), "|", color="0.2", ms=7, transform=axes.get_xaxis_transform(),
                          clip_on=False)
                sigma_axis(axes)
                axes.minorticks_off()
                axes.set_xlim(sigmas[-1] / 1.5, sigmas[0] * 1.5)
                if column == 0:
                    axes.set_ylabel(label)
            grid[1, column].set_yscale("log")
            grid[0, column].set(ylim=(-0.04, 1.04), xlabel="",
                                title="A outside the window, the other inside" if side == "outside" else
                                "the other outside the window, A inside")
        plain_log_axis(grid[1, 0].yaxis)
        for name, colour in colours.items():
            if name != "A":
                grid[0, -1].plot([], [], color=colour, lw=4, label=f"the other: {name}")
        if any(row["window"] and row["window"]["control_of"] is not None for row in rows):
            grid[0, -1].plot([], [], color="0.2", lw=1.2, alpha=0.7, label="in a control window")
        grid[0, -1].plot([], [], "|", color="0.2", ms=12, mew=1.2, label="95% interval of a swap")
        grid[0, -1].plot([], [], color="0.2", lw=1.2, ls="--", label="one denoiser alone (grey: A)")
        grid[0, -1].plot([], [], color="0.2", lw=1, ls=":", label="held-out data")
        grid[0, -1].plot([], [], "|", color="0.2", ms=7, label="a step of the sampler")
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _bar(axes: Axes, window: Mapping[str, Any], sigmas: Sequence[float], found: tuple[float, float, float],
         colour: Any, place: int, apart: float) -> None:
    """One swap: a bar over its window, clipped to the sampler's levels, with the interval near its middle.

    ``place``: which denoiser this is, from 1; later ones are thinner, moved to the right and up by ``apart`` points, so
    that equal shares, 0 above all, do not hide each other.
    """
    left = max(window["low"], sigmas[-1] / 1.5)
    right = min(window["high"] or np.inf, sigmas[0] * 1.5)
    pale = window["control_of"] is not None
    value, low, high = found
    moved = axes.transData + ScaledTranslation(0, (place - 2) * apart / 72, axes.figure.dpi_scale_trans)
    axes.plot([left, right], [value, value], color=colour, lw=1.2 if pale else max(2.0, 5.4 - 1.1 * place),
              alpha=0.7 if pale else 1, solid_capstyle="butt", transform=moved)
    axes.plot([(left * right) ** 0.5 * 1.15 ** (place - 2)] * 2, [low, high], color=colour, lw=1.2)


def plot_swap_samples(rows: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Samples of the same seeds in one column, each row with its caption; memorized ones in a red frame.

    rows: (caption, samples as ``plot_samples`` takes them, memorized (n,) bool). The first row sets the range of grey.
    Raises InputError for no rows, or rows of other shapes.
    """
    if not rows or any(len(samples) != len(rows[0][1]) or not drawable(samples.shape[1:]) for _, samples, _ in rows):
        raise InputError("samples of a swap experiment: give rows of as many images (n, C, H, W), with C = 1 or 3, or "
                         "signals (n, C, L)")
    columns = len(rows[0][1])
    drawn_range = image_range(rows[0][1])
    with look():
        figure = new_figure(_CELL * columns + 2.6, _CELL * 1.04 * len(rows) + 0.5)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (caption, samples, memorized) in zip(grid, rows, strict=True):
            for axes, sample, copied in zip(line, samples, memorized, strict=True):
                if samples.ndim == 4:
                    draw_image(axes, sample, drawn_range)
                else:
                    axes.plot(sample.T, lw=0.8)
                frame(axes, bool(copied))
            line[0].set_ylabel(caption, rotation=0, ha="right", va="center", fontsize=8)
        figure.suptitle(f"the same {columns} seeds in every row; red frame: memorized", fontsize=9)
    return figure
