"""How long until a training memorizes, by trainings on parts of its points."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from geomem.plots.style import BLUE, ORANGE, Record, fields, look, new_figure, plain_log_axis


def plot_forecast(forecast: Record) -> Figure:
    """Steps until leaning and until copies against the number of training points, in logs: one mark for each part, and
    for all points what the parts say, with its 95% interval.

    forecast: a ``training.forecast.Forecast`` or its ``to_dict()``.
    """
    from geomem.training.forecast import in_steps  # other figures need no training
    from geomem.training.trainer import TrainingSettings

    found = fields(forecast)
    parts, n, settings = found["parts"], found["n"], TrainingSettings(**found["config"]["settings"])
    with look():
        figure = new_figure(5.6, 4)
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlabel="training points", ylabel="training steps")
        for event, colour, mark in (("leaning", ORANGE, "s"), ("copies", BLUE, "o")):
            onset, seen = found[event], [(part["n"], part[event]) for part in parts if part[event] is not None]
            if seen:
                axes.plot(*np.transpose(seen), mark, color=colour, ms=5, label=f"{event} sets in, on a part")
            if (law := onset["law"]) is not None:
                size = np.geomspace(min(part["n"] for part in parts), n)
                axes.plot(size, [in_steps(law["value"] * (k / n) ** law["slope"], settings) for k in size], ":",
                          color=colour, lw=1)
            if onset["step"] is not None:
                reach = [[onset["step"] - onset["low"]], [onset["high"] - onset["step"]]]
                axes.errorbar([n], [onset["step"]], yerr=reach, fmt=mark, color=colour, ms=8, mfc="white", capsize=3,
                              label=f"{event} on {n:,} points, forecast with 95% interval")
        for axis in (axes.xaxis, axes.yaxis):
            plain_log_axis(axis)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=1, fontsize=8)
    return figure
