"""Points of a data set side by side."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.plots.samples import draw_image, image_range
from geomem.plots.style import BLUE, GREY, look, new_figure, plain

_COLUMNS = {"image": 12, "signal": 10}
_SIZE = {"image": (0.62, 0.62), "signal": (0.9, 0.6)}  # inches of one point


def plot_points(points: np.ndarray, labels: np.ndarray | None = None, *, title: str = "") -> Figure:
    """The points in the order given, each under its label.

    points: (n, C, H, W) images with C = 1 or 3, or (n, C, L) or (n, d), drawn as curves over their index, all on one
        scale. labels: (n,) or None.

    Raises InputError for other shapes.
    """
    kind = "image" if points.ndim == 4 else "signal"
    if len(points) == 0 or points.ndim not in (2, 3, 4) or (kind == "image" and points.shape[1] not in (1, 3)):
        raise InputError(f"points of shape {points.shape} cannot be drawn: images are (n, C, H, W) with C = 1 or 3, "
                         "signals (n, C, L) or (n, d)")
    columns = min(_COLUMNS[kind], len(points))
    rows = -(-len(points) // columns)
    width, height = _SIZE[kind]
    above = 0.16 if labels is not None else 0.04
    with look():
        figure = new_figure(max(width * columns + 0.2, 4), (height + above) * rows + (0.4 if title else 0.1))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=kind == "signal").ravel()
        drawn_range = image_range(points)
        for i, axes in enumerate(grid):
            axes.set_axis_off()
            if i >= len(points):
                continue
            if kind == "image":
                draw_image(axes, points[i], drawn_range)
            else:
                for curve, colour in zip(np.atleast_2d(points[i]), [BLUE] + [GREY] * points.shape[-2], strict=False):
                    axes.plot(curve, color=colour, lw=0.7)
            if labels is not None:
                axes.set_title(plain(str(labels[i])), fontsize=6, color=GREY, pad=1)
        if title:
            figure.suptitle(plain(title), fontsize=9)
    return figure
