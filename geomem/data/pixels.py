"""Images as points: uint8 ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` with C = 1 or 3 become float32
``(N, C, H, W)``, each value v becoming ``v / 127.5 - 1``, in [-1, 1].
"""

from __future__ import annotations

import numpy as np

CHANNELS = (1, 3)


def from_uint8(images: np.ndarray) -> np.ndarray:
    """``v / 127.5 - 1`` in float32: uint8 images of any shape to values in [-1, 1]."""
    values = np.array(images, dtype=np.float32, order="C")
    values /= 127.5
    values -= 1
    return values


def to_uint8(values: np.ndarray) -> np.ndarray:
    """The inverse of :func:`from_uint8`: values in [-1, 1] to uint8, rounded; values outside are clipped."""
    return (np.asarray(values) * 127.5 + 128).clip(0, 255).astype(np.uint8)


def channels_first(images: np.ndarray) -> np.ndarray | None:
    """A view ``(N, C, H, W)`` of images, or None where the shape is not one of images."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in CHANNELS:  # first, since channels-last wins where both fit
        return images.transpose(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[1] in CHANNELS:
        return images
    return None
