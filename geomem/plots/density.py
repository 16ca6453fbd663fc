"""The noise levels a training draws, and what each weighs in it (Vu et al. 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.noise import FlowSchedule, GapSampler, NoiseLevelSampler, NoiseSchedule, contribution, schedule_of
from geomem.plots.style import BLUE, COLOURS, GREY, RED, look, new_figure, sigma_axis, zone_edges

Labelled = Sequence[tuple[str, NoiseLevelSampler]]
_DECADES = 8  # of the contribution that are shown below its largest value
_TICKS = (0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1)  # timesteps on the upper axis, shares of T


def plot_density(samplers: NoiseLevelSampler | Labelled, zone: Any = None, schedule: Any = None) -> Figure:
    """Above: density of log sigma, so that equal areas are equal shares of the draws; below: C(t) = p(t) SNR(t).

    samplers: one sampler, or (label, sampler) pairs: first the law of reference, drawn in grey, if there are
        several. A law on timesteps is drawn as its mass over the width of the timestep's cell.
    zone: a danger zone, its mapping, or a pair (low, high) in sigma, to shade; None for none.
    schedule: of the timesteps on the upper axis and in C: a schedule or a diffusers scheduler; None is DDPM's
        linear schedule. C is shown as far as eight decades below its largest value.

    Raises InputError where there is no sampler to draw.
    """
    rows = [("training law", samplers)] if isinstance(samplers, NoiseLevelSampler) else list(samplers)
    if not rows:
        raise InputError("no noise-level sampler to plot; give at least one")
    schedule, edges = schedule_of(schedule), zone_edges(zone)
    colours = [BLUE] if len(rows) == 1 else [GREY, *(COLOURS[k % len(COLOURS)] for k in range(len(rows) - 1))]
    with look():
        figure = new_figure(6.4, 5.4)
        density, weight = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        sigma_axis(weight)
        weight.set_yscale("log")
        weight.set_xlim(_range([sampler for _, sampler in rows], schedule))
        largest = 0.0
        for k, ((label, sampler), colour) in enumerate(zip(rows, colours, strict=True)):
            _draw_density(density, sampler, schedule, colour, label, filled=k == 0)
            values = contribution(sampler, schedule)
            weight.plot(schedule.sigmas, np.where(values > 0, values, np.nan), color=colour, lw=1.6)
            largest = max(largest, values.max())
        weight.set_ylim(largest / 10**_DECADES, 3 * largest)
        if edges is not None:
            for axes in (density, weight):
                axes.axvspan(*edges, color=RED, alpha=0.1, lw=0, label="danger zone")
        density.set(xlabel="", ylabel=r"density of $\log\,\sigma$")
        density.set_ylim(bottom=0)
        weight.set_ylabel(r"$C(t) = p(t)\,\mathrm{SNR}(t)$")
        _timestep_axis(density, schedule)
        figure.legend(*density.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _range(samplers: Sequence[NoiseLevelSampler], schedule: NoiseSchedule) -> tuple[float, float]:
    """The schedule, and all but a thousandth of every law on either side; flow times end nowhere, so the laws alone."""
    ends = np.array([sampler.icdf(np.array([1e-3, 1 - 1e-3])) for sampler in samplers])
    if isinstance(schedule, FlowSchedule):
        return float(ends.min()), float(min(ends.max(), schedule.sigmas[-2]))
    return float(min(schedule.sigmas[0], ends.min())), float(max(schedule.sigmas[-1], ends.max()))


def _finite_edges(schedule: NoiseSchedule) -> np.ndarray:
    """Cell edges with the two open cells closed as far out as they reach inwards, or where a level lies on its edge as
    wide in log sigma as their neighbours, shape (T+1,).
    """
    edges = schedule.cell_edges.copy()
    inside = edges[[2, -3]] if isinstance(schedule, FlowSchedule) else edges[[1, -2]]
    centres = edges[[1, -2]] if isinstance(schedule, FlowSchedule) else schedule.sigmas[[0, -1]]
    edges[[0, -1]] = centres**2 / inside
    return edges


def _draw_density(axes: Axes, sampler: NoiseLevelSampler, schedule: NoiseSchedule, colour: Any, label: str, *,
                  filled: bool) -> None:
    if sampler.discrete:
        edges = _finite_edges(schedule)
        per_log = sampler.timestep_probabilities(schedule) / np.diff(np.log(edges))
        axes.stairs(per_log, edges, color=colour, lw=1.6, baseline=None, label=label)
        if filled:
            axes.stairs(per_log, edges, color=colour, alpha=0.15, lw=0, fill=True)
        return
    sigma = np.geomspace(*axes.get_xlim(), 1000)
    law = sampler
    while isinstance(law, GapSampler):  # both sides of every edge, so that a gap is drawn upright
        edges = np.array(law.gaps).ravel()
        sigma = np.concatenate([sigma, edges * (1 - 1e-9), edges * (1 + 1e-9)])
        law = law.base
    sigma = np.sort(sigma[(sigma > 0) & np.isfinite(sigma)])
    per_log = sigma * np.exp(sampler.log_prob(sigma))
    axes.plot(sigma, per_log, color=colour, lw=1.6, label=label)
    if filled:
        axes.fill_between(sigma, per_log, color=colour, alpha=0.15, lw=0)


def _timestep_axis(axes: Axes, schedule: NoiseSchedule) -> None:
    """Timesteps on the upper edge, those that have room."""
    last = schedule.timesteps - 1
    timesteps = sorted({round(share * last, -1 if 0.1 <= share < 1 else 0) for share in _TICKS})
    levels = np.minimum(np.searchsorted(schedule.times, timesteps), last)
    ends = np.array(axes.get_xlim())
    span = np.log(ends[1] / ends[0])
    shown: list[int] = []
    for t in levels.tolist():
        sigma = schedule.sigmas[t]
        if ends[0] <= sigma <= ends[1] and (not shown or np.log(sigma / schedule.sigmas[shown[-1]]) > 0.055 * span):
            shown.append(t)
    top = axes.secondary_xaxis("top")
    top.set_xticks(schedule.sigmas[shown], labels=[f"{schedule.times[t]:.0f}" for t in shown])
    top.minorticks_off()
    top.set_xlabel("flow timestep" if isinstance(schedule, FlowSchedule) else "DDPM timestep")
