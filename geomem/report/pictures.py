"""Figures and points as data inside the page: SVG for curves, PNG for images, lines for signals.

Nothing depends on the time, so the same facts give the same bytes.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from geomem.data.pixels import to_uint8
from geomem.errors import one_line, reason
from geomem.plots.samples import image_range

_MAX_SIDE = 96  # pixels of an image on the page; larger ones are made smaller
_MAX_VALUES = 160  # points of a line on the page
_COLUMNS = 8
_LOG = logging.getLogger("geomem")


def attempt(what: str, draw: Callable[[], Any]) -> Any:
    """What ``draw`` makes, or None and a warning: no picture costs the page."""
    try:
        return draw()
    except Exception as error:
        _LOG.warning(f"warning: no picture of {what}: {one_line(reason(error))}")
        return None


def figure_uri(what: str, draw: Callable[[], Figure]) -> str | None:
    """The figure as an SVG without background, letters as outlines, so that it looks alike everywhere; None where it
    cannot be drawn.
    """
    return attempt(what, lambda: _svg(draw))


def _svg(draw: Callable[[], Figure]) -> str:
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "geomem", "svg.fonttype": "path", "path.simplify": True}):
        draw().savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _uri("image/svg+xml", stream.getvalue())


def sheet(points: np.ndarray, alternative: str) -> Markup:
    """Points (k, ...) of one data set in rows of eight, as one picture."""
    if points.ndim < 4:
        return Markup("").join(Markup('<span class="signal">{}</span>').format(lines([point], alternative))
                               for point in points)
    low, high = image_range(points)
    images = [_pixels(point, low, high) for point in points]
    height, width, channels = images[0].shape
    rows, gap = -(-len(images) // _COLUMNS), max(1, width // 16)
    page = np.zeros((rows * (height + gap) - gap, min(len(images), _COLUMNS) * (width + gap) - gap, channels),
                    dtype=np.uint8)
    for k, image in enumerate(images):
        top, left = k // _COLUMNS * (height + gap), k % _COLUMNS * (width + gap)
        page[top:top + height, left:left + width] = image
    return _image(page, alternative, "sheet")


def pair(sample: np.ndarray, nearest: np.ndarray, scale: tuple[float, float], alternative: str) -> Markup:
    """A sample and its nearest training point: images side by side, signals over each other."""
    if sample.ndim < 3:
        return lines([sample, nearest], alternative)
    both = [_pixels(point, *scale) for point in (sample, nearest)]
    height, width, channels = both[0].shape
    gap = np.zeros((height, max(1, width // 16), channels), dtype=np.uint8)
    return _image(np.concatenate([both[0], gap, both[1]], axis=1), alternative, "pair")


def lines(signals: list[np.ndarray], alternative: str) -> Markup:
    """Signals (L,) or (C, L) as lines over each other, the first solid, the second dashed."""
    rows = [np.atleast_2d(signal)[:3] for signal in signals]
    low = min(float(row.min()) for row in rows)
    span = max(max(float(row.max()) for row in rows) - low, 1e-12)
    drawn = Markup("")
    for kind, signal in zip(("first", "second"), rows, strict=False):
        for row in signal:
            chosen = row[np.unique(np.linspace(0, len(row) - 1, _MAX_VALUES).astype(int))]
            x = np.linspace(1, 99, len(chosen)) if len(chosen) > 1 else np.array([50.0])
            y = 1 + 38 * (1 - (chosen - low) / span)
            places = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
            drawn += Markup('<polyline class="{}" points="{}"/>').format(kind, places)
    return Markup('<svg class="line" viewBox="0 0 100 40" role="img" aria-label="{}">{}</svg>').format(alternative,
                                                                                                   drawn)


def interval_bar(share: dict[str, Any], floor: dict[str, Any] | None, alternative: str) -> Markup:
    """A share on the line from 0 to 100% with its interval, and the held-out floor as a tick."""
    def place(share: float) -> str:
        return f"{2 + 200 * share:.1f}"

    mark = Markup("") if floor is None else Markup(
        '<line class="floor" x1="{0}" x2="{0}" y1="3" y2="21"/>').format(place(floor["rate"]))
    return Markup(
        '<svg class="bar" viewBox="0 0 204 24" role="img" aria-label="{}"><line class="rail" x1="2" x2="202" y1="12" '
        'y2="12"/>{}<rect class="band" x="{}" y="7" width="{}" height="10" rx="2"/><circle cx="{}" cy="12" r="4"/>'
        "</svg>").format(alternative, mark, place(share["low"]),
                         f"{max(1.0, 200 * (share['high'] - share['low'])):.1f}", place(share["rate"]))


def _pixels(point: np.ndarray, low: float, high: float) -> np.ndarray:
    """(C, H, W) as uint8 (H, W, C + 1), made smaller where it is large; full alpha, unlike what lies between images."""
    values = 2 * (np.asarray(point, dtype=np.float64) - low) / max(high - low, 1e-12) - 1
    pixels = to_uint8(values).transpose(1, 2, 0)
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.BOX)
    return np.asarray(image.convert("LA" if grey else "RGBA"))


def _image(pixels: np.ndarray, alternative: str, kind: str) -> Markup:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    height, width = pixels.shape[:2]
    return Markup('<img class="{}" src="{}" width="{}" height="{}" alt="{}">').format(
        kind, _uri("image/png", stream.getvalue()), width, height, alternative)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
