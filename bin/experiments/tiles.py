"""Small pictures inside a JSON result: a grid of images as one PNG, in base64."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def encoded(rows: list[np.ndarray], low: float, high: float) -> str:
    """``rows`` of images, each (n, C, H, W) with C = 1 or 3, drawn on the range [low, high], framed by white pixels."""
    frame = ((0, 0), (1, 1), (1, 1))
    lines = [np.concatenate([np.pad(image, frame, constant_values=high) for image in row], axis=2) for row in rows]
    picture = np.concatenate(lines, axis=1).transpose(1, 2, 0)
    values = np.rint(255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
