"""Memorization against training steps, as seen while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.plots.style import BLUE, COLOURS, GREY, ORANGE, RED, look, new_figure, plain_log_axis


def plot_watch(lines: Sequence[Mapping[str, Any]], *, stop_at: float | None = None) -> Figure:
    """Left: memorized share of the samples, and that nearer to training than to held-out points, with their 95% bands.
    Right: denoising error on held-out over training points.

    lines: those of watch.jsonl, ``MemorizationCheck.to_dict()`` with the step of each. stop_at: share at which training
        stops.

    Raises InputError without lines.
    """
    if not lines:
        raise InputError("no look at the training to plot; give at least one")
    steps = np.array([line["step"] for line in lines])
    rate, low, high = (np.array([line[name] for line in lines]) for name in ("rate", "low", "high"))
    first = next((line["step"] for line in lines if line["has_set_in"]), None)
    with look():
        figure = new_figure(9, 3.6)
        share, error = figure.subplots(1, 2)
        share.fill_between(steps, low, high, color=BLUE, alpha=0.2, lw=0)
        share.plot(steps, rate, "o-", color=BLUE, lw=1.8, ms=3, label=f"memorized of {lines[-1]['n']} samples")
        share.axhline(lines[-1]["floor_high"], color=GREY, lw=1.2, ls="--", label="held-out points, at most")
        if stop_at is not None:
            share.axhline(stop_at, color=RED, lw=1.2, ls=":", label="training stops")
        if first is not None:
            share.axvline(first, color=RED, lw=1, label="memorization sets in")
        leans = [(line["step"], line["leaning"]) for line in lines if line.get("leaning")]
        if leans:
            at, records = zip(*leans, strict=True)
            nearer, below, above = (np.array([record[name] for record in records]) for name in ("share", "low", "high"))
            share.fill_between(at, below, above, color=ORANGE, alpha=0.2, lw=0)
            share.plot(at, nearer, "s-", color=ORANGE, lw=1.8, ms=3,
                       label=f"nearer to training than to {records[-1]['points']} points")
            share.axhline(0.5, color=ORANGE, lw=1.2, ls="--", label="an honest model")
            high = np.append(high, above)
        share.set(xlabel="training steps", ylabel="share of the samples", ylim=(-0.03, max(0.2, high.max() * 1.05)))
        share.legend(loc="best")
        for k, sigma in enumerate(lines[-1]["sigma"]):
            gap = [line["mse_heldout"][k] / max(line["mse_train"][k], 1e-30) for line in lines]
            error.plot(steps, gap, "o-", color=COLOURS[(k + 1) % len(COLOURS)], lw=1.8, ms=3,
                       label=rf"$\sigma$ = {sigma:.3g}")
        if lines[-1]["sigma"]:
            error.axhline(1, color=GREY, lw=1.2, ls="--")
            error.set(xlabel="training steps", ylabel="MSE on held-out / training points", yscale="log")
            plain_log_axis(error.yaxis, (1, 2, 5))
            error.legend(loc="best")
        else:
            error.set_axis_off()
    return figure
