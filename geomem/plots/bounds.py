"""The theorems beside the measurements, one panel each (the JSON of ``geomem bounds``, format ``geomem.bounds/1``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from geomem.errors import InputError, counted
from geomem.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Record,
    curve,
    fields,
    look,
    new_figure,
    plain,
    plain_log_axis,
    sigma_axis,
)

Z_95 = 1.96


def plot_bounds(document: Record) -> Figure:
    """Seven panels: coverage and Theorem 4.8; weight with Theorem 4.2 and Lemma A.1; the flow cosine of Corollary A.2;
    the Gaussian law; the sensitivity of Theorem 4.10; coverage and the danger zone by training set size.

    Solid lines are measured, with 95% bands; dotted ones are bounds. Raises InputError for another record.
    """
    content = fields(document)
    if content.get("format") != "geomem.bounds/1":
        raise InputError("this is no document of geomem bounds; make it with geomem bounds --json")
    with look():
        figure = new_figure(17, 9.2)
        *panels, last = figure.subplots(2, 4).flat
        last.set_axis_off()
        for axes, draw in zip(panels, (_coverage, _weight, _flow, _gaussian, _sensitivity, _coverage_by_size,
                                       _zone_by_size), strict=True):
            draw(axes, content)
        data = content["data"]
        figure.suptitle(f"{plain(data['name'])}: {data['n_train']:,} training and {data['n_heldout']:,} held-out "
                        f"points of {counted(data['dim'], 'value')}; bands: 95% intervals")
    return figure


def _measured(axes: Axes, x: Sequence[float], estimate: Sequence[float], stderr: Sequence[float], colour: Any,
              label: str, limits: tuple[float, float]) -> None:
    half = Z_95 * np.array(stderr)
    curve(axes, x, estimate, *(np.clip(np.array(estimate) + side, *limits) for side in (-half, half)), colour=colour,
          label=label)


def _coverage(axes: Axes, document: Mapping[str, Any]) -> None:
    sigma, c = document["sigma"], document["coverage"]
    curve(axes, sigma, c["estimate"], c["low"], c["high"], colour=ORANGE, label="measured")
    axes.plot(sigma, c["lower_bound"], ":", color=BLUE, lw=1.6, label="lower bound")
    axes.plot(sigma, c["upper_bound"], ":", color=GREEN, lw=1.6, label="upper bound, sharper")
    axes.plot(sigma, c["plain_upper_bound"], "--", color=GREY, lw=1, label="upper bound, plain")
    _mark(axes, document["thresholds"]["disjoint_below"], sigma, "shells disjoint below")
    _finish(axes, "Theorem 4.8: coverage C", "probability")


def _weight(axes: Axes, document: Mapping[str, Any]) -> None:
    sigma, w, near = document["sigma"], document["max_posterior_weight"], document["near_point"]
    settings = document["settings"]
    _measured(axes, sigma, w["estimate"], w["stderr"], BLUE, "largest weight W", (0, 1))
    _measured(axes, sigma, near["weight"], near["weight_stderr"], GREEN, "own weight $w_1$", (0, 1))
    axes.plot(sigma, near["weight_bound"], ":", color=GREEN, lw=1.6, label="Lemma A.1: $w_1$ at least")
    axes.plot(sigma, w["share_concentrated"], "--", color=GREY, lw=1.2,
              label=f"points with $w_1 \\geq {settings['q']:g}$ surely")
    axes.plot(sigma, w["share_spread"], "-.", color=GREY, lw=1.2,
              label=f"points with $w_1 \\leq {1 - settings['q']:.3g}$ surely")
    _finish(axes, "Theorem 4.2 and Lemma A.1: posterior weight", "weight, share of points")


def _flow(axes: Axes, document: Mapping[str, Any]) -> None:
    sigma, flow = document["sigma"], document["flow"]
    _measured(axes, sigma, flow["cosine"], flow["cosine_stderr"], ORANGE, "measured", (-1, 1))
    bound = np.where(np.array(flow["informative"]) > 0, flow["bound"], np.nan)
    axes.plot(sigma, bound, ":", color=BLUE, lw=1.6, label="bound, mean over points")
    axes.plot(sigma, flow["informative"], "--", color=GREY, lw=1, label="points with a bound")
    _finish(axes, "Corollary A.2: flow field at a training point", "cosine", bottom=-1.06)


def _gaussian(axes: Axes, document: Mapping[str, Any]) -> None:
    law = document["gaussian"]
    _measured(axes, document["sigma"], law["difference"], law["difference_stderr"], GREEN, "measured", (0, np.inf))
    fit = np.array(law["fit_sigma"])
    axes.plot(fit, law["fit_difference"], "o", color=GREEN, ms=4,
              label=f"slope {law['slope']:.3f} [{law['slope_low']:.3f}, {law['slope_high']:.3f}]")
    axes.plot(fit, law["fit_difference"][0] * (fit / fit[0]) ** -2, "--", color=GREY, lw=1, label=r"$\sigma^{-2}$")
    _finish(axes, "Theorem 4.11: nearness to Gaussian", "mean distance (data units)", bottom=None)
    axes.set_yscale("log")


def _sensitivity(axes: Axes, document: Mapping[str, Any]) -> None:
    if not document["sensitivity"][0]["distance"]:  # points of one value
        axes.set_axis_off()
        return
    import seaborn  # slow to import

    whose = document["settings"]["model"] or "Gaussian denoiser"
    colours = seaborn.color_palette("crest", len(document["sensitivity"]))
    for part, colour in zip(document["sensitivity"], colours, strict=True):
        axes.plot(part["distance"], part["largest"], color=colour, lw=1.8, label=f"$\\sigma$ = {part['sigma']:.3g}")
        axes.plot(part["distance"], part["bound"], ":", color=colour, lw=1.6)
    axes.set(xscale="log", yscale="log", xlabel="wrap-around distance r",
             ylabel="largest |J|; dotted: bound of a periodic model",
             title=f"Theorem 4.10: how far a value is felt\n({plain(whose)})")
    farthest = document["sensitivity"][0]["distance"][-1]
    ticks = [2**k for k in range(farthest.bit_length())]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    _legend(axes)


def _coverage_by_size(axes: Axes, document: Mapping[str, Any]) -> None:
    import seaborn  # slow to import

    by_size = document["by_size"]
    colours = seaborn.color_palette("flare", len(by_size["sizes"]))
    for n, coverage, stderr, colour in zip(by_size["sizes"], by_size["coverage"], by_size["coverage_stderr"], colours,
                                           strict=True):
        _measured(axes, document["sigma"], coverage, stderr, colour, f"n = {n:,}", (0, 1))
    _finish(axes, "coverage C with n training points", "probability")


def _zone_by_size(axes: Axes, document: Mapping[str, Any]) -> None:
    by_size, threshold = document["by_size"], document["settings"]["threshold"]
    n = np.array(by_size["sizes"])
    low, high, crossing = (np.array(by_size[name], dtype=float) for name in ("sigma_low", "sigma_high", "crossing"))
    axes.fill_between(n, low, high, where=list(low <= high), color=GREY, alpha=0.13, lw=0, label="danger zone")
    axes.plot(n, high, "o-", color=BLUE, ms=4, label=f"W leaves {threshold:g}")
    axes.plot(n, crossing, "o:", color=GREY, ms=4, label="crossing")
    axes.plot(n, low, "o-", color=ORANGE, ms=4, label=f"C reaches {threshold:g}")
    axes.set(xscale="log", yscale="log", xlabel="training points n", ylabel="noise level $\\sigma$ (data units)",
             title="the danger zone with n training points")
    axes.set_xticks(n, [f"{size:,}" for size in n])
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain_log_axis(axes.yaxis)
    _legend(axes)


def _mark(axes: Axes, value: float | None, sigma: Sequence[float], label: str) -> None:
    if value is not None and min(sigma) <= value <= max(sigma):
        axes.plot([value], [0], "<", color=GREY, ms=7, ls="none", clip_on=False, label=f"{label} {value:.3g}")


def _finish(axes: Axes, title: str, ylabel: str, bottom: float | None = -0.03) -> None:
    sigma_axis(axes)
    axes.set(title=title, ylabel=ylabel)
    if bottom is not None:
        axes.set_ylim(bottom, 1.03)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the panel: curves that go from corner to corner leave no room inside."""
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
