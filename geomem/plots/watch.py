"""Memorization against training steps, as seen while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.plots.style import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    RED,
    curve,
    look,
    name_bands,
    new_figure,
    plain_log_axis,
)


def plot_watch(lines: Sequence[Mapping[str, Any]], *, stop_at: float | None = None) -> Figure:
    """Left: memorized share of the samples, and that nearer to training than to held-out points, with their 95% bands.
    Right: denoising error on held-out over training points.

    lines: those of watch.jsonl, ``MemorizationCheck.to_dict()`` with the step of each. stop_at: share at which training
        stops.

    Raises InputError without lines.
    """
    if not lines:
        raise InputError("no look at the training to plot; give at least one")
    steps = [line["step"] for line in lines]
    first = next((line["step"] for line in lines if line["has_set_in"]), None)
    leans = [(line["step"], line["leaning"]) for line in lines if line.get("leaning")]
    with look():
        figure = new_figure(9, 4)
        share, error = figure.subplots(1, 2)
        curve(share, steps, *([line[name] for line in lines] for name in ("rate", "low", "high")), colour=BLUE,
              style="o-", label=f"memorized of {lines[-1]['n']} samples")
        share.axhline(lines[-1]["floor_high"], color=BLUE, lw=1.2, ls="--", label="held-out points memorized, at most")
        if leans:
            at, records = zip(*leans, strict=True)
            curve(share, at, *([record[name] for record in records] for name in ("share", "low", "high")),
                  colour=ORANGE, style="s-", label=f"nearer to training than to {records[-1]['points']} points")
            share.axhline(0.5, color=ORANGE, lw=1.2, ls="--", label="nearer to training, of an honest model")
        if stop_at is not None:
            share.axhline(stop_at, color=RED, lw=1.2, ls=":", label="training stops")
        if first is not None:
            share.axvline(first, color=RED, lw=1, label="memorization sets in")
        name_bands(share)
        top = max(0.2, *(line["high"] for line in lines), *(record["high"] for _, record in leans))
        share.set(xlabel="training steps", ylabel="share of the samples", ylim=(-0.03, 1.05 * top))
        for k, sigma in enumerate(lines[-1]["sigma"]):
            gap = [line["mse_heldout"][k] / max(line["mse_train"][k], 1e-30) for line in lines]
            curve(error, steps, gap, colour=COLOURS[(k + 1) % len(COLOURS)], style="o-",
                  label=rf"$\sigma$ = {sigma:.3g}")
        if lines[-1]["sigma"]:
            error.axhline(1, color=GREY, lw=1.2, ls="--", label="no difference")
            error.set(xlabel="training steps", ylabel="MSE on held-out / training points", yscale="log")
            plain_log_axis(error.yaxis)
        else:
            error.set_axis_off()
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure
