"""Points of a data set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.plots.samples import draw_pairs, image_range
from geomem.plots.style import plain

_COLUMNS = {"image": 12, "signal": 10}
_SIZE = {"image": (0.62, 0.66), "signal": (0.9, 0.64)}  # inches of one point
_LABEL = 0.12  # inches above it
_LETTERS = {"image": 10, "signal": 14}  # that have room above it


def plot_points(points: np.ndarray, labels: Sequence[Any] | np.ndarray | None = None, *, title: str = "") -> Figure:
    """The points in the order given, each under its label.

    points: (n, C, H, W) images with C = 1 or 3, or (n, C, L) or (n, d), drawn as curves over their index, all on one
        scale. labels: (n,), classes or their names, of which the beginning is written; or None.

    Raises InputError for other shapes.
    """
    kind = "image" if points.ndim == 4 else "signal"
    if len(points) == 0 or points.ndim not in (2, 3, 4) or (kind == "image" and points.shape[1] not in (1, 3)):
        raise InputError(f"points of shape {points.shape} cannot be drawn: images are (n, C, H, W) with C = 1 or 3, "
                         "signals (n, C, L) or (n, d)")
    width, height = _SIZE[kind]
    captions = [""] * len(points) if labels is None else [_caption(str(label), _LETTERS[kind]) for label in labels]
    return draw_pairs(points, None, captions, plain(title), drawn_range=image_range(points), columns=_COLUMNS[kind],
                      size=(width, height + (0 if labels is None else _LABEL)), width=4)


def _caption(name: str, most: int) -> str:
    return plain(name if len(name) <= most else f"{name[:most - 1]}…")
