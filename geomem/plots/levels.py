"""Memorization and denoising error per noise level, of one or several denoisers (Dodson et al. 2026, Fig. 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geomem.errors import InputError
from geomem.plots.style import (
    COLOURS,
    GREY,
    Record,
    curve,
    fields,
    look,
    name_bands,
    new_figure,
    sigma_axis,
    zone_edges,
)


def plot_noise_levels(rows: Sequence[tuple[str, Record]], *, zone: Any = None) -> Figure:
    """Left: memorized share with its 95% band. Right: denoising MSE on held-out and on training points.

    rows: (label, ``PerNoiseLevel``) pairs, one per denoiser.
    zone: noise levels to shade, a danger zone or a gap (low, high).

    Raises InputError without rows.
    """
    if not rows:
        raise InputError("no per-noise-level results to plot; give at least one")
    drawn, edges = [(label, fields(record)) for label, record in rows], zone_edges(zone)
    with look():
        figure = new_figure(9, 4)
        rate, error = figure.subplots(1, 2)
        for i, (label, levels) in enumerate(drawn):
            sigma, colour = levels["sigma"], COLOURS[i % len(COLOURS)]
            curve(rate, sigma, levels["rate"], levels.get("low"), levels.get("high"), colour=colour, label=label,
                  width=max(1.2, 4 - 1.2 * i))  # thinner ones over wider ones: shares of 0 do not hide each other
            error.plot(sigma, levels["mse_heldout"], color=colour, lw=1.8)
            error.plot(sigma, levels["mse_train"], "--", color=colour, lw=1.8)
        name_bands(rate)
        for axes in (rate, error):
            sigma_axis(axes)
            if edges:
                axes.axvspan(*edges, color=GREY, alpha=0.13, lw=0,
                             label="gap" if isinstance(zone, Sequence) else "danger zone")
        rate.set(ylim=(-0.03, 1.03), ylabel="memorized share", title="denoised held-out points")
        error.set(yscale="log", ylabel="MSE per value (squared data units)", title="denoising error")
        error.legend(handles=[Line2D([], [], color=GREY, label="held-out"),
                              Line2D([], [], color=GREY, ls="--", label="training")], loc="best")
        # An error of almost 0 on training points, which a memorizing denoiser has, must not flatten the rest.
        floor = min(min(levels["mse_heldout"]) for _, levels in drawn) / 100
        error.set_ylim(bottom=max(floor, error.get_ylim()[0]))
        figure.legend(*rate.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
