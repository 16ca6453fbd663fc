"""Points: float32 arrays ``(N, ...)`` with one point per row, and how arrays of other types become points.

* uint8 arrays are images, see :mod:`geomem.data.pixels`.
* Floating-point arrays are taken as they are, whatever their range, as float32. Of four axes, ``with_channels`` decides
  which are the channels.

Points in memory maps of which the float32 values take more than ``STORED_BYTES`` stay on disk. Images stay uint8
until ``in_memory_if_small`` is called, so that of many only the chosen ones are ever turned into floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from geomem.data.pixels import CHANNELS, channels_first, from_uint8
from geomem.errors import file_error, one_line
from geomem.points import Points as AnyPoints
from geomem.points import nonfinite, points_of

STORED_BYTES = 1 << 30
FLOAT_CHANNELS = (1, 2, 3, 4)
MAX_CLASS_NAME = 255  # as long as a folder's


class StoredPoints(AnyPoints):
    """Float32 points ``(N, ...)`` over arrays of one row shape and dtype, one after another, memory maps as a rule.

    They have the values, bit for bit, that they would have had in memory.

    Parameters
    ----------
    parts : uint8 images, which become ``(N, C, H, W)`` in [-1, 1], or floats of any precision.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        super().__init__(parts, _as_float32)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of the first array, as it is stored."""
        return tuple(self._parts[0].shape)

    def turned(self, axes: tuple[int, ...]) -> StoredPoints:
        """All rows of the arrays, with their axes in this order."""
        return StoredPoints([part.transpose(axes) for part in self._parts])


def _as_float32(rows: np.ndarray) -> np.ndarray:
    if rows.dtype == np.uint8:
        images = channels_first(rows)
        assert images is not None, "the shape is checked where the points are made"
        return from_uint8(images)
    with np.errstate(over="ignore"):  # beyond float32 lies infinity, which is refused where points are made
        return np.array(rows, dtype=np.float32, order="C")


Values: TypeAlias = np.ndarray | StoredPoints


@dataclass(frozen=True, eq=False)
class Names:
    """What N points are called where they come from, as a sequence: ``of`` names each of ``positions`` (N,) when asked.
    """

    of: Callable[[int], str]
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> str:
        return one_line(self.of(int(self.positions[index])))

    def take(self, index: slice | np.ndarray) -> Names:
        """Those of the chosen points."""
        return replace(self, positions=self.positions[index])


@dataclass(frozen=True, eq=False)
class Points:
    """One part of a data set.

    ``values`` is float32 ``(N, ...)``; ``labels`` is ``(N,)``, integers or class names, or None; ``pixels``
    says that the values were uint8 images; ``names`` are those of files, or None.
    """

    values: Values
    labels: np.ndarray | None = None
    pixels: bool = False
    names: Names | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: slice | np.ndarray) -> Points:
        """The chosen points with their labels; stored points stay stored, a slice of a memory map a memory map."""
        values = self.values.select(index) if isinstance(self.values, StoredPoints) else self.values[index]
        return Points(values, None if self.labels is None else self.labels[index], self.pixels,
                      None if self.names is None else self.names.take(index))


def as_points(array: Any, where: object, labels: Any = None) -> Points:
    """Turn an array into points; ``where`` names it in messages.

    Float32 arrays are used without a copy, memory maps included; large memory maps of any type stay on disk.
    Raises InputError for another kind of array, an empty one, a shape that holds no points, labels that do
    not fit, and NaN or infinite values.
    """
    if not isinstance(array, np.ndarray):
        raise file_error(where, f"is a {type(array).__name__}, not an array; give a NumPy array or a tensor")
    return joined_points([array], where, labels)


def joined_points(arrays: Sequence[np.ndarray], where: object, labels: Any = None) -> Points:
    """As ``as_points``, of arrays of one row shape and dtype, one after another."""
    first = arrays[0]
    if first.ndim == 0:
        raise file_error(where, "has shape (); give one point per row, (N, values)")
    shape = (sum(map(len, arrays)), *first.shape[1:])
    if 0 in shape:
        raise file_error(where, f"is empty (shape {shape}); at least one point is needed")
    if len(shape) < 2:
        raise file_error(where, f"has shape {shape}; give one point per row, (N, values)")
    pixels = first.dtype == np.uint8
    if pixels and channels_first(first) is None:
        raise file_error(where, f"is uint8 of shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 "
                                "or 3 channels: reshape it, or convert to float what is no image")
    if not pixels and first.dtype.kind != "f":
        raise file_error(where, f"holds values of type {first.dtype}; convert them to uint8 (images, 0 to 255) or "
                                "to float")
    stored = pixels or (isinstance(first, np.memmap) and 4 * math.prod(shape) > STORED_BYTES)
    values: Values = StoredPoints(arrays) if stored else first if len(arrays) == 1 else np.concatenate(arrays)
    if not stored and values.dtype != np.float32:
        values = _as_float32(np.asarray(values))
    if not pixels and (found := nonfinite(points_of(values))):
        raise file_error(where, f"holds {found[0]:,} NaN or infinite values (as float32), the first in row {found[1]} "
                                "counted from 0; repair or remove them")
    return Points(values, None if labels is None else _checked_labels(labels, len(values), where), pixels)


def with_channels(points: Points, channels: str | None, where: object) -> tuple[Points, str | None]:
    """Points of arrays with four axes as pictures (N, C, H, W), and what to say of a reading that could be another.

    channels : ``first`` or ``last`` in the arrays. None takes floats to be pictures of one to four channels, square
        ones where both could be, and else to have their channels first; uint8 to have 1 or 3 channels, last where both
        could be.
    Raises InputError for channels of points that are not such arrays, or of uint8 in any number but 1 and 3.
    """
    values = points.values
    shape = values.array_shape if isinstance(values, StoredPoints) else values.shape
    if len(shape) != 4:
        if channels:
            raise file_error(where, f"has points of shape {shape[1:]}; --channels is for arrays (N, H, W, C) or "
                                    "(N, C, H, W): leave it out")
        return points, None
    counts = CHANNELS if points.pixels else FLOAT_CHANNELS
    could_be = {"first": shape[1] in counts, "last": shape[3] in counts}
    usual = "last" if could_be["last"] and (points.pixels or (
        shape[2] != shape[3] and (not could_be["first"] or shape[1] == shape[2]))) else "first"
    chosen, other = channels or usual, "first" if (channels or usual) == "last" else "last"
    if points.pixels and not could_be[chosen]:
        raise file_error(where, f"holds uint8 images of shape {shape[1:]}, which do not have 1 or 3 channels {chosen}; "
                                f"give --channels {other}")
    said = None
    square = chosen == "first" and shape[2] == shape[3]
    if channels is None and not square and (could_be[other] or (chosen == "last" and not points.pixels)):
        said = (f"points of shape {shape[1:]} are read as {_pictures(shape, chosen)}; --channels {other} reads "
                f"{_pictures(shape, other)}")
    if chosen == (usual if points.pixels else "first"):
        return points, said
    axes = (0, 2, 3, 1) if points.pixels else (0, 3, 1, 2)  # uint8 is read with its channels last where both could be
    turned = values.turned(axes) if isinstance(values, StoredPoints) else np.ascontiguousarray(values.transpose(axes))
    return replace(points, values=turned), said


def _pictures(shape: tuple[int, ...], channels: str) -> str:
    count, height, width = (shape[1:] if channels == "first" else (shape[3], *shape[1:3]))
    return f"{height} x {width} with {count} channels"


def in_memory_if_small(points: Points) -> Points:
    """Float32 points in memory, but for those in memory maps that would take more than ``STORED_BYTES`` there."""
    values = points.values
    if isinstance(values, np.ndarray) or (values.on_disk and values.nbytes > STORED_BYTES):
        return points
    return replace(points, values=np.asarray(values))


def as_labels(labels: Sequence[int | str]) -> np.ndarray:
    """Labels ``(N,)`` as int64, or as class names where one of them is a name.

    Raises ValueError for a long name, since an array gives each the room of the longest.
    """
    if not any(isinstance(label, str) for label in labels):
        return np.array(labels, dtype=np.int64)
    names = [str(label) for label in labels]
    if any(len(name) > MAX_CLASS_NAME for name in names):
        raise ValueError(f"a class name has more than {MAX_CLASS_NAME} characters")
    return np.array(names, dtype=str)


def _checked_labels(labels: Any, n: int, where: object) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape == (n, 1):
        labels = labels[:, 0]  # as Keras has them
    if labels.shape != (n,) or labels.dtype.kind not in "iubU":
        raise file_error(where, f"labels have shape {labels.shape} and type {labels.dtype}; "
                                f"give one integer or class name for each of the {n:,} points")
    return labels
