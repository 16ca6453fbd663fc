"""The training points most likely to be copied, and their copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geomem.data.points import Values
from geomem.errors import InputError
from geomem.plots.samples import draw_pairs, image_range
from geomem.plots.style import BLUE, RED, look, new_figure, plain

_COLUMNS = {"image": 5, "signal": 4}
_SIZE = {"image": (1.6, 1.12), "signal": (2.3, 1.45)}  # inches of one pair
_SPAN_POINTS = 2000  # points that decide the plane on which vectors are drawn


def plot_risk(train: Values, ranking: np.ndarray, nearest: np.ndarray, captions: Sequence[str], *, title: str,
              score: np.ndarray) -> Figure:
    """The riskiest training points, the first of ``ranking`` first.

    train: (N, C, H, W) images with C = 1 or 3: each point on the left of its nearest other training point; signals
        (N, C, L): the point solid over its nearest other, dashed; or anything else, flattened: all points on the
        plane of their first two principal components (two coordinates as they are, one against its score), the
        riskiest numbered.
    ranking: (K,) indices of the points to show. nearest, score: (N,) as in ``TrainingRisk``.
    captions: K texts of two short lines, written above each pair; not used for vectors.

    Raises InputError for no points or another number of captions.
    """
    if len(ranking) == 0 or len(captions) != len(ranking):
        raise InputError(f"{len(ranking)} points and {len(captions)} captions; give one caption for each point")
    kind = "image" if train.ndim == 4 and train.shape[1] in (1, 3) else "signal" if train.ndim == 3 else None
    if kind is None:
        return _scatter(np.asarray(train).reshape(len(train), -1), ranking, score, title)
    pair = "left the point, right its nearest other training point" if kind == "image" else \
        "solid the point, dashed its nearest other training point"
    points = np.asarray(train[ranking])
    return draw_pairs(points, np.asarray(train[nearest[ranking]]), captions, f"{plain(title)}\n{pair}",
                      drawn_range=image_range(points), columns=_COLUMNS[kind], size=_SIZE[kind], width=5)


def plot_copies(score: np.ndarray, copies: np.ndarray, multiplicity: np.ndarray, *, title: str,
                correlation: str) -> Figure:
    """Copies of each training point against its score, (n,) each, points that occur several times in red.

    correlation: one line, written below the title.
    """
    with look():
        figure = new_figure(5.2, 3.8)
        axes = figure.subplots()
        for several, colour, label in ((False, BLUE, "occurs once"), (True, RED, "occurs several times")):
            chosen = (multiplicity > 1) == several
            if chosen.any():
                axes.scatter(score[chosen], copies[chosen], s=14, color=colour, alpha=0.6, lw=0, label=label)
        axes.set(xlabel="risk score (1 is a usual point)", ylabel="copies among the samples",
                 title=f"{plain(title)}\n{correlation}")
        axes.set_ylim(bottom=-0.03 * max(1, copies.max()), top=None if copies.max() else 1)
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if (multiplicity > 1).any():
            axes.legend()
    return figure


def _scatter(rows: np.ndarray, ranking: np.ndarray, score: np.ndarray, title: str) -> Figure:
    x, y, names = _plane(rows, score)
    with look():
        figure = new_figure(6, 4.6)
        axes: Axes = figure.subplots()
        axes.scatter(x, y, s=8, color=BLUE, alpha=0.4, lw=0)
        axes.scatter(x[ranking], y[ranking], s=16, color=RED, lw=0)
        for index in ranking:
            axes.annotate(str(index), (x[index], y[index]), xytext=(3, 2), textcoords="offset points", fontsize=7,
                          color=RED)
        axes.set(xlabel=names[0], ylabel=names[1])
        figure.suptitle(f"{plain(title)}, in red with their index", fontsize=9)
    return figure


def _plane(rows: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    if rows.shape[1] == 1:
        return rows[:, 0], score, ("value", "risk score")
    if rows.shape[1] == 2:
        return rows[:, 0], rows[:, 1], ("first value", "second value")
    mean = rows.mean(axis=0, dtype=np.float64)
    some = rows[np.unique(np.linspace(0, len(rows) - 1, _SPAN_POINTS).astype(np.int64))] - mean
    plane = (rows - mean) @ np.linalg.svd(some, full_matrices=False)[2][:2].T
    if plane.shape[1] == 1:  # two points span a line
        return plane[:, 0], score, ("first principal component", "risk score")
    return plane[:, 0], plane[:, 1], ("first principal component", "second principal component")
