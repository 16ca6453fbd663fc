"""Points: float32 arrays ``(N, ...)`` with one point per row, and how arrays of other types become points.

* uint8 arrays are images, ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` with C = 1 or 3. They become
  ``(N, C, H, W)`` and each value v becomes ``v / 127.5 - 1``, in [-1, 1].
* Floating-point arrays are taken as they are, whatever their range, as float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomem.data.refusal import wrong

CHANNELS = (1, 3)
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class Points:
    """One part of a data set.

    ``values`` is float32 ``(N, ...)``; ``labels`` is ``(N,)``, integers or class names, or None; ``pixels``
    says that the values were uint8 images.
    """

    values: np.ndarray
    labels: np.ndarray | None = None
    pixels: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: slice | np.ndarray) -> Points:
        """The chosen points with their labels; a slice of a memory map stays a memory map."""
        return Points(self.values[index], None if self.labels is None else self.labels[index], self.pixels)


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader found: a training part, the held-out part where there is one, and things to announce."""

    name: str
    train: Points
    heldout: Points | None = None
    notes: tuple[str, ...] = ()


def from_uint8(images: np.ndarray) -> np.ndarray:
    """``v / 127.5 - 1`` in float32: uint8 images of any shape to values in [-1, 1]."""
    values = np.array(images, dtype=np.float32, order="C")
    values /= 127.5
    values -= 1
    return values


def to_uint8(values: np.ndarray) -> np.ndarray:
    """The inverse of :func:`from_uint8`: values in [-1, 1] to uint8, rounded; values outside are clipped."""
    return (np.asarray(values) * 127.5 + 128).clip(0, 255).astype(np.uint8)


def as_points(array: Any, where: object, labels: Any = None) -> Points:
    """Turn an array into points; ``where`` names it in messages.

    Float32 arrays, memory maps included, are used without a copy. Raises InputError for another kind of
    array, an empty one, a shape that holds no points, labels that do not fit, and NaN or infinite values.
    """
    if not isinstance(array, np.ndarray):
        raise wrong(where, f"is a {type(array).__name__}, not an array; give a NumPy array or a tensor")
    if array.size == 0:
        raise wrong(where, f"is empty (shape {array.shape}); at least one point is needed")
    if array.ndim < 2:
        raise wrong(where, f"has shape {array.shape}; give one point per row, (N, values)")
    pixels = array.dtype == np.uint8
    if pixels:
        values = from_uint8(_channels_first(array, where))
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is refused below
            values = array if array.dtype == np.float32 else np.array(array, dtype=np.float32)
        _refuse_nonfinite(values, where)
    else:
        raise wrong(where, f"holds values of type {array.dtype}; convert them to uint8 (images, 0 to 255) "
                           "or to float")
    return Points(values, None if labels is None else _checked_labels(labels, len(values), where), pixels)


def row_chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) in runs of about 64 MB, so that a memory map is never loaded whole."""
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), rows):
        yield first, np.ascontiguousarray(array[first:first + rows])


def _channels_first(images: np.ndarray, where: object) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in CHANNELS:  # first, since channels-last wins where both fit
        return images.transpose(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[1] in CHANNELS:
        return images
    raise wrong(where, f"is uint8 of shape {images.shape}; images are (N, H, W), (N, H, W, C) or "
                       "(N, C, H, W) with 1 or 3 channels: reshape it, or convert to float what is no image")


def _refuse_nonfinite(values: np.ndarray, where: object) -> None:
    count, first_row = 0, -1
    for first, rows in row_chunks(values):
        bad = (~np.isfinite(rows)).reshape(len(rows), -1).sum(axis=1)
        if count == 0 and bad.any():
            first_row = first + int(np.flatnonzero(bad)[0])
        count += int(bad.sum())
    if count:
        raise wrong(where, f"holds {count:,} NaN or infinite values (as float32), the first in row "
                           f"{first_row} counted from 0; repair or remove them")


def _checked_labels(labels: Any, n: int, where: object) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iubU":
        raise wrong(where, f"labels have shape {labels.shape} and type {labels.dtype}; "
                           f"give one integer or class name for each of the {n:,} points")
    return labels
