"""Generated samples beside their nearest training points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.errors import InputError, counted
from geomem.plots.style import BLUE, GREY, RED, look, new_figure

_COLUMNS = {"image": 8, "signal": 4}
_PAIR = {"image": "left generated, right nearest training", "signal": "solid generated, dashed nearest training"}
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
    kind = _kind(samples, nearest)
    drawn = min(shown, len(samples))
    count = f"{int(np.sum(memorized)):,} of {counted(len(samples), 'sample')} memorized (red frame)"
    part = f"; first {drawn} shown" if drawn < len(samples) else ""
    title = f"{count}{part}\n{_PAIR[kind]}; above: distance to nearest / second nearest"
    nearest = nearest[:drawn]
    return draw_pairs(samples[:drawn], nearest, [f"{ratio:.2f}" for ratio in ratios[:drawn]], title,
                      framed=memorized, drawn_range=image_range(nearest), columns=_COLUMNS[kind], size=_SIZE[kind],
                      width=6.2)


def plot_closest(samples: np.ndarray, nearest: np.ndarray, distances: np.ndarray, n: int, *,
                 copied: np.ndarray | None = None) -> Figure:
    """The samples nearest to a training point, out of n, in the order given, each beside that point.

    samples, nearest: (k, ...) as for ``plot_samples``. distances: (k,) between them in data units, written above.
    copied: (k,) bool, those in a red frame.
    Raises InputError as ``plot_samples`` does.
    """
    kind = _kind(samples, nearest)
    title = f"the {len(samples)} of {n:,} samples nearest to a training point\n{_PAIR[kind]}; above: distance"
    title += "" if copied is None else f"; red frame: copies, {int(copied.sum()):,} of these"
    return draw_pairs(samples, nearest, [f"{distance:.3g}" for distance in distances], title,
                      framed=copied, drawn_range=image_range(nearest), columns=_COLUMNS[kind], size=_SIZE[kind],
                      width=6.2)


def _kind(samples: np.ndarray, nearest: np.ndarray) -> str:
    kind = "image" if samples.ndim == 4 else "signal"
    if not drawable(samples.shape[1:]) or samples.shape != nearest.shape or len(samples) == 0:
        raise InputError(f"samples of shape {samples.shape} and nearest of shape {nearest.shape} cannot be "
                         "drawn: images are (n, C, H, W) with C = 1 or 3, signals (n, L) or (n, C, L)")
    return kind


def drawable(shape: tuple[int, ...]) -> bool:
    """Whether points of this shape can be drawn: images (C, H, W) with C = 1 or 3, signals (L,) or (C, L)."""
    return len(shape) in (1, 2) or (len(shape) == 3 and shape[0] in (1, 3))


def draw_pairs(first: np.ndarray, second: np.ndarray | None, captions: Sequence[str], title: str, *,
               drawn_range: tuple[float, float], columns: int, size: tuple[float, float], width: float,
               framed: np.ndarray | None = None) -> Figure:
    """Images (n, C, H, W) side by side, or signals (n, L) or (n, C, L) over each other, each pair below its caption.

    second: None draws the first alone, signals on one scale. framed: (n,) or more bool, pairs in a red frame.
    drawn_range: values drawn black and white. size: inches of a pair; width: inches of the figure at least.
    """
    columns = min(columns, len(first))
    rows = -(-len(first) // columns)
    with look():
        figure = new_figure(max(size[0] * columns + 0.2, width), size[1] * rows + 0.7)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=second is None and first.ndim < 4).ravel()
        for axes in grid[len(first):]:
            axes.set_axis_off()
        for k, (axes, caption) in enumerate(zip(grid, captions, strict=False)):
            if first.ndim == 4:
                image = first[k]
                if second is not None:
                    gap = np.full((*image.shape[:2], max(1, image.shape[1] // 16)), drawn_range[1])
                    image = np.concatenate([image, gap, second[k]], axis=2)
                draw_image(axes, image, drawn_range)
            else:
                axes.plot(np.atleast_2d(first[k]).T, color=BLUE, lw=1.2)
                if second is not None:
                    axes.plot(np.atleast_2d(second[k]).T, "--", color="0.2", lw=0.9)
            red = framed is not None and bool(framed[k])
            axes.set_title(caption, fontsize=7, color=RED if red else GREY, pad=2)
            frame(axes, red)
        figure.suptitle(title, fontsize=9)
    return figure


def image_range(images: np.ndarray) -> tuple[float, float]:
    """Values drawn black and white: [-1, 1] if all images lie in it, give or take a tenth, else their range."""
    low, high = float(images.min()), float(images.max())
    return (-1.0, 1.0) if -1.1 <= low < 0 and high <= 1.1 else (low, high)


def draw_image(axes: Axes, image: np.ndarray, drawn_range: tuple[float, float]) -> None:
    """One image (C, H, W), C = 1 or 3."""
    low, high = drawn_range
    image = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)


def frame(axes: Axes, red: bool) -> None:
    """No ticks, no grid, and a red frame or none."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set(visible=red, color=RED, linewidth=2)
