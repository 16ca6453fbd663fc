"""The curves of a danger-zone document: maximum posterior weight and shell coverage over the noise level.

They come as ``Curves``, a ``ZoneReport``, or the JSON of ``geomem danger-zone --json`` (``geomem.danger-zone/1``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.plots.style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    Record,
    curve,
    fields,
    look,
    name_bands,
    new_figure,
    plain,
    sigma_axis,
)

Colour = tuple[float, float, float]

WEIGHT, SELF_WEIGHT, COVERAGE = "max_posterior_weight", "self_posterior_weight", "coverage"


def plot_curves(documents: Sequence[tuple[str, Record]], *, title: str | None = None) -> Figure:
    """W, C and the danger zone of one data set, or of several laid over each other (Dodson et al. 2026, Fig. 3, 6, 7).

    documents: (label, curves) pairs. One is drawn in full: W with its self weight, C with its bounds (Dodson et al.
    2026, Thm 4.8), 95% bands, the zone, the crossing with its interval, and the thresholds of Dodson et al. 2026,
    section 4 on the axis. Of several, each in its own colour, only W, C, zone and crossing are drawn.

    Raises InputError for no documents or one without curves.
    """
    rows = [(label, fields(document)) for label, document in documents]
    if not rows:
        raise InputError("no danger-zone documents to plot; give at least one")
    for label, document in rows:
        if "sigma" not in document.get("curves", {}):
            raise InputError(f"{label}: no curves in this file; make it with geomem danger-zone --json")
    with look():
        figure = new_figure(6.4, 4.8)
        axes = figure.subplots()
        if len(rows) == 1:
            _draw_one(axes, rows[0][1])
        else:
            _draw_several(axes, rows)
        sigma_axis(axes)
        axes.set(ylim=(-0.03, 1.03), ylabel="posterior weight W, coverage C")
        if title or len(rows) == 1:
            axes.set_title(plain(title or rows[0][0]))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw_one(axes: Axes, document: Mapping[str, Any]) -> None:
    curves, zone = document["curves"], document.get("zone")
    if zone:
        _draw_zone(axes, zone, GREY, f"danger zone {zone['sigma_low']:.3g}–{zone['sigma_high']:.3g}", "0.25")
        for edge in ("sigma_low_interval", "sigma_high_interval"):
            if zone.get(edge):
                axes.axvspan(*zone[edge], color=GREY, alpha=0.3, lw=0)
    for part in document.get("classes") or ():
        for name, colour in ((WEIGHT, BLUE), (COVERAGE, ORANGE)):
            axes.plot(part["curves"]["sigma"], part["curves"][name]["estimate"], color=colour, lw=0.6, alpha=0.5)
    if document.get("classes"):
        axes.plot([], [], color=GREY, lw=0.6, label="W and C of each class")
    for name, colour, style, label in ((WEIGHT, BLUE, "-", "max posterior weight W"),
                                       (SELF_WEIGHT, BLUE, "--", "self weight"), (COVERAGE, ORANGE, "-", "coverage C")):
        if part := curves.get(name):
            band = () if name == SELF_WEIGHT else (part["low"], part["high"])
            curve(axes, curves["sigma"], part["estimate"], *band, colour=colour, style=style, label=label)
    if curves.get("coverage_lower_bound") and curves.get("coverage_upper_bound"):
        axes.plot(curves["sigma"], curves["coverage_lower_bound"], ":", color=ORANGE, lw=1, label="bounds on C")
        axes.plot(curves["sigma"], curves["coverage_upper_bound"], ":", color=ORANGE, lw=1)
    _mark_thresholds(axes, document.get("thresholds") or {}, curves["sigma"])
    name_bands(axes)


def _draw_several(axes: Axes, documents: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    for style, label in (("-", "max posterior weight W"), ("--", "coverage C")):
        axes.plot([], [], style, color=GREY, label=label)
    for (label, document), colour in zip(documents, cycle(COLOURS), strict=False):
        if document.get("zone"):
            _draw_zone(axes, document["zone"], colour, None, colour)
        for name, style in ((WEIGHT, "-"), (COVERAGE, "--")):
            part = document["curves"][name]
            curve(axes, document["curves"]["sigma"], part["estimate"], part["low"], part["high"], colour=colour,
                  style=style, label=plain(label) if name == WEIGHT else None)
    if any(document.get("zone") for _, document in documents):
        axes.fill([], [], color=GREY, alpha=0.13, lw=0, label="danger zone")
        axes.plot([], [], color=GREY, lw=1, label="crossing")
    name_bands(axes)


def _draw_zone(axes: Axes, zone: Mapping[str, Any], colour: Colour | str, label: str | None,
               crossing_colour: Colour | str) -> None:
    """The zone shaded, and the crossing with its interval; nothing is named without a ``label``."""
    axes.axvspan(zone["sigma_low"], zone["sigma_high"], color=colour, alpha=0.13, lw=0, label=label)
    if zone.get("crossing") is None:  # the curves need not cross on the grid
        return
    axes.axvline(zone["crossing"], color=crossing_colour, lw=1,
                 label=f"crossing {zone['crossing']:.3g}" if label else None)
    if zone.get("crossing_low") is not None and zone.get("crossing_high") is not None:
        axes.axvspan(zone["crossing_low"], zone["crossing_high"], color=crossing_colour, alpha=0.3, lw=0)


def _mark_thresholds(axes: Axes, thresholds: Mapping[str, Any], sigma: Sequence[float]) -> None:
    """Triangles on the axis where theory takes over, those within the range drawn (Dodson et al. 2026, Thm 4.2,
    4.9).
    """
    marks = (("disjoint_below", "<", "shells disjoint below"),
             ("concentrated_below", "<", "weight concentrated below"),
             ("spread_above", ">", "weight spread above"))
    for (name, marker, label), colour in zip(marks, (GREY, GREEN, BLUE), strict=True):
        value = thresholds.get(name)
        if isinstance(value, Mapping):  # one threshold per training point, summarized
            value = value.get("mean")
        if isinstance(value, int | float) and min(sigma) <= value <= max(sigma):  # a file may hold anything
            axes.plot([value], [0], marker, color=colour, ms=7, ls="none", clip_on=False,
                      label=f"{label} {value:.3g}")
