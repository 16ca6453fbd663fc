"""Generated samples beside their nearest training points."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.plots.style import BLUE, GREY, RED, look, new_figure

_COLUMNS = {"image": 8, "signal": 4}
_SIZE = {"image": (1.3, 0.85), "signal": (2.3, 1.3)}  # inches of one pair


def plot_samples(samples: np.ndarray, nearest: np.ndarray, ratios: np.ndarray, memorized: np.ndarray, *,
                 shown: int = 32) -> Figure:
    """The first ``shown`` samples in the order given, memorized ones in a red frame.

    samples, nearest: (n, C, H, W) images with C = 1 or 3, each sample on the left of its nearest training
        image; or signals (n, L) or (n, C, L), the sample solid over its nearest training signal, dashed.
        ``nearest`` is ``train[result.nearest]`` of a ``MemorizationRate``.
    ratios, memorized: (n,) as in ``MemorizationRate``; the ratio d_1 / d_2 is written above each sample.

    Images are drawn on the range [-1, 1] if the training images lie in it, give or take a tenth, else on
    theirs. Raises InputError for other shapes.
    """
    kind = "image" if samples.ndim == 4 else "signal"
    fits = samples.ndim == 4 and samples.shape[1] in (1, 3) if kind == "image" else samples.ndim in (2, 3)
    if not fits or samples.shape != nearest.shape or len(samples) == 0:
        raise InputError(f"samples of shape {samples.shape} and nearest of shape {nearest.shape} cannot be "
                         "drawn: images are (n, C, H, W) with C = 1 or 3, signals (n, L) or (n, C, L)")
    drawn = min(shown, len(samples))
    columns = min(_COLUMNS[kind], drawn)
    rows = -(-drawn // columns)
    width, height = _SIZE[kind]
    with look():
        figure = new_figure(max(width * columns + 0.2, 6.2), height * rows + 0.7)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        low, high = image_range(nearest)
        for axes in grid[drawn:]:
            axes.set_axis_off()
        for i, axes in enumerate(grid[:drawn]):
            if kind == "image":
                draw_images(axes, samples[i], nearest[i], low, high)
            else:
                draw_signals(axes, samples[i], nearest[i])
            axes.set_title(f"{ratios[i]:.2f}", fontsize=7, color=RED if memorized[i] else GREY, pad=2)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set(visible=bool(memorized[i]), color=RED, linewidth=2)
        pair = "left generated, right nearest training" if kind == "image" else \
            "solid generated, dashed nearest training"
        count = f"{int(np.sum(memorized)):,} of {len(samples):,} samples memorized (red frame)"
        part = f"; first {drawn} shown" if drawn < len(samples) else ""
        figure.suptitle(f"{count}{part}\n{pair}; above: distance to nearest / second nearest", fontsize=9)
    return figure


def image_range(images: np.ndarray) -> tuple[float, float]:
    """Values drawn black and white: [-1, 1] if all images lie in it, give or take a tenth, else their range."""
    low, high = float(images.min()), float(images.max())
    return (-1.0, 1.0) if -1.1 <= low < 0 and high <= 1.1 else (low, high)


def draw_images(axes: Axes, sample: np.ndarray, nearest: np.ndarray, low: float, high: float) -> None:
    """Two images (C, H, W) side by side."""
    channels, height, _ = sample.shape
    gap = np.full((channels, height, max(1, height // 16)), high)
    pair = np.concatenate([sample, gap, nearest], axis=2)
    pair = np.clip((pair - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(pair[0] if channels == 1 else pair.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)


def draw_signals(axes: Axes, sample: np.ndarray, nearest: np.ndarray) -> None:
    """Two signals (L,) or (C, L), the first solid, the second dashed."""
    for one, other in zip(np.atleast_2d(sample), np.atleast_2d(nearest), strict=True):
        axes.plot(one, color=BLUE, lw=1.2)
        axes.plot(other, "--", color="0.2", lw=0.9)
