"""What the experiments' pictures share: the line above them, and grids of images inside a JSON result."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from geomem.plots.style import look, new_figure


def caption(document: Mapping[str, Any], text: str) -> str:
    """Paper, scale and what is specific to the picture."""
    return f"{document['paper']}, scale {document['scale']}: {text}"


@contextmanager
def captioned(document: Mapping[str, Any], text: str, width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches with its caption, to be drawn on inside."""
    with look():
        figure = new_figure(width, height)
        yield figure
        figure.suptitle(caption(document, text), fontsize=10)


def images_of(settings: Mapping[str, Any]) -> str:
    """What was trained on."""
    return f"{settings['n_train']:,} images of {settings['data']}, {settings['side']} x {settings['side']}, one seed"


def band(axes: Axes, x: Sequence[float], curve: Mapping[str, Any], colour: Any, label: str, alpha: float = .25) -> None:
    """``estimate`` of a curve with the band from ``low`` to ``high``."""
    axes.plot(x, curve["estimate"], ".-", color=colour, label=label)
    axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=alpha, lw=0)


def shown(axes: Axes, picture: str, rows: Sequence[str] | int) -> None:
    """A grid of images, a PNG in base64, with the names of its rows, or without where only their number is given."""
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks([])
    if isinstance(rows, int):
        axes.set_yticks([])
    else:
        height = len(image) / len(rows)
        axes.set_yticks([height * (k + .5) for k in range(len(rows))], rows, fontsize=7)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def encoded(rows: list[np.ndarray], low: float, high: float) -> str:
    """``rows`` of images, each (n, C, H, W) with C = 1 or 3, drawn on the range [low, high], framed by white pixels."""
    frame = ((0, 0), (1, 1), (1, 1))
    lines = [np.concatenate([np.pad(image, frame, constant_values=high) for image in row], axis=2) for row in rows]
    picture = np.concatenate(lines, axis=1).transpose(1, 2, 0)
    values = np.rint(255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
