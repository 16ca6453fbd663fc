"""Points that stay on disk: one or several arrays, memory maps as a rule, seen as one float32 array ``(N, ...)``.

Rows are read, and turned into points, when they are asked for, with the same values bit for bit as if all had
been in memory. A subset is an index into the arrays, so a data set is never copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from geomem.data.pixels import channels_first, from_uint8


class StoredPoints:
    """Float32 points ``(N, ...)`` over arrays of one row shape and dtype, one after another.

    ``points[a:b]`` and ``points.select(index)`` are again stored points; ``points[index]``, with integers or a
    mask, and ``points[i]`` are float32 arrays in memory, and so is ``np.asarray(points)``.

    Parameters
    ----------
    parts : uint8 images, which become ``(N, C, H, W)`` in [-1, 1], or floats of any precision.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = tuple(part for part in parts if len(part))
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._chosen: range | np.ndarray = range(int(self._starts[-1]))
        self._row_shape = self._as_float32(self._parts[0][:1]).shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._chosen), *self._row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the float32 points would take in memory."""
        return 4 * self.size

    @property
    def on_disk(self) -> bool:
        """Whether the arrays are memory maps."""
        return all(isinstance(part, np.memmap) for part in self._parts)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.select(index)
        if np.asarray(index).ndim == 0 and np.asarray(index).dtype.kind in "iu":
            return self._read(np.array([self._chosen[int(index)]]))[0]
        return self._read(self._places(index))

    def select(self, index: slice | Any) -> StoredPoints:
        """The chosen rows, in the order of the index, still stored."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._chosen = self._chosen[index] if isinstance(index, slice) else self._places(index)
        return view

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start, ..., stop - 1 as a float32 array."""
        return np.asarray(self[start:stop])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("stored points are read into memory, which is a copy")
        values = self._read(self._chosen)
        return values if dtype is None else values.astype(dtype, copy=False)

    def _places(self, index: Any) -> np.ndarray:
        """Rows of the parts, counted through, of an index with integers ``(n,)`` or a mask ``(N,)``."""
        rows = np.asarray(index)
        if isinstance(index, tuple) or rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iub"):
            raise IndexError("stored points take a slice, one integer, or integers or a mask along the first axis; "
                             "other axes can be indexed in what that gives")
        return _numbers(self._chosen)[rows if rows.size else rows.astype(np.int64)]

    def _read(self, places: range | np.ndarray) -> np.ndarray:
        if isinstance(places, range) and places.step == 1:
            pieces = [part[max(0, places.start - start):max(0, places.stop - start)]
                      for part, start in zip(self._parts, self._starts, strict=False)]
            pieces = [piece for piece in pieces if len(piece)]
            if len(pieces) == 1:
                return self._as_float32(pieces[0])
            values = np.empty((len(places), *self._row_shape), dtype=np.float32)
            first = 0
            for piece in pieces:
                values[first:first + len(piece)] = self._as_float32(piece)
                first += len(piece)
            return values
        places = _numbers(places)
        order = np.argsort(places, kind="stable")  # disks and page caches are read forwards
        cuts = np.searchsorted(places[order], self._starts)
        values = np.empty((len(places), *self._row_shape), dtype=np.float32)
        for part, start, low, high in zip(self._parts, self._starts, cuts, cuts[1:], strict=False):
            if low < high:
                values[order[low:high]] = self._as_float32(part[places[order[low:high]] - start])
        return values

    @staticmethod
    def _as_float32(rows: np.ndarray) -> np.ndarray:
        if rows.dtype == np.uint8:
            images = channels_first(rows)
            assert images is not None, "the shape is checked where the points are made"
            return from_uint8(images)
        with np.errstate(over="ignore"):  # beyond float32 lies infinity, which is refused where points are made
            return np.array(rows, dtype=np.float32)


def _numbers(chosen: range | np.ndarray) -> np.ndarray:
    return np.arange(chosen.start, chosen.stop, chosen.step) if isinstance(chosen, range) else chosen
