"""What callers may pass: points, noise levels, draws. Everything wrong becomes an InputError here.

Points ``(n, ...)`` are flattened to rows of d values. ``as_points`` gives them all in one array; ``as_source``
gives a ``PointSource``, which hands out chosen rows, so that points larger than memory (a memory map, an HDF5
data set, anything with ``shape``, ``dtype``, ``len`` and ``[rows]``) are never read whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from geomem.errors import InputError
from geomem.rng import generator

LARGEST = 1e15  # noise level; the smallest is its inverse
_CHUNK_BYTES = 2**26  # read at once while stored points are checked


class Stored(Protocol):
    """Points ``(n, ...)`` that are elsewhere: what an array, an HDF5 data set and stored points have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class PointSource(Protocol):
    """n points of d values each, finite, of which any rows can be had."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)"""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, of what ``take`` returns."""

    def take(self, index: slice | np.ndarray) -> np.ndarray:
        """The chosen rows, (rows, d), C-contiguous. It may be a read-only view: do not write into it.

        index: a slice, or integers (rows,) in any order, also repeated or negative.
        """


def runs(start: int, stop: int, length: int) -> Iterator[slice]:
    """Cut [start, stop) at the multiples of ``length``."""
    while start < stop:
        end = min(stop, (start // length + 1) * length)
        yield slice(start, end)
        start = end


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Points in memory: an array (n, d) as ``as_points`` gives it. A slice of it is taken without a copy."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def take(self, index: slice | np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.array[index])


@dataclass(frozen=True, eq=False)
class StoredSource:
    """Points elsewhere, (n, ...), read as they are asked for: in ascending order, each row once."""

    points: Any
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def take(self, index: slice | np.ndarray) -> np.ndarray:
        n, d = self.shape
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(n)
            return self._rows(slice(start, max(start, stop)), max(0, stop - start))
        rows, place = np.unique(np.arange(n)[index], return_inverse=True)
        return self._rows(rows, len(rows))[place] if len(rows) else np.empty((0, d), self.dtype)

    def _rows(self, index: slice | np.ndarray, count: int) -> np.ndarray:
        rows = np.asarray(self.points[index]).reshape(count, self.shape[1])
        return np.ascontiguousarray(rows, dtype=self.dtype)


@dataclass(frozen=True, eq=False)
class SubsetSource:
    """The rows ``index`` (m,) of another source, in that order, without reading them."""

    source: PointSource
    index: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index), self.source.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def take(self, index: slice | np.ndarray) -> np.ndarray:
        return self.source.take(self.index[index])


def as_points(name: str, points: Any) -> np.ndarray:
    """Array or tensor (n, ...) as a float32 or float64 array (n, d); other dtypes become float64.

    Points stored elsewhere are read into memory. Raises InputError if there is no point, the dtype is not
    real, or an entry is NaN or infinite.
    """
    array = np.asarray(_without_torch(points))
    dtype = _checked_type(name, array.shape, array.dtype)
    array = np.ascontiguousarray(array.reshape(len(array), -1), dtype=dtype)
    _refuse_nonfinite(name, array, 0)
    return array


def as_source(name: str, points: Any) -> PointSource:
    """Points (n, ...) of any kind as a source of rows, without reading stored ones into memory.

    NumPy memory maps, arrays that are neither float32 nor float64, and objects that are no arrays but have
    ``shape``, ``dtype``, ``len`` and ``[slice or ascending integers]``, stay as they are and are read in runs of
    64 MB; all else goes through ``as_points``. The dtypes are the same either way. Raises InputError as
    ``as_points`` does.
    """
    if isinstance(points, ArraySource | StoredSource | SubsetSource):
        return points
    points = _without_torch(points)
    if not _is_stored(points):
        return ArraySource(as_points(name, points))
    shape = tuple(int(length) for length in points.shape)
    dtype = _checked_type(name, shape, points.dtype)
    source = StoredSource(points, (shape[0], math.prod(shape[1:])), dtype)
    for rows in runs(0, shape[0], max(1, _CHUNK_BYTES // (source.shape[1] * dtype.itemsize))):
        _refuse_nonfinite(name, source.take(rows), rows.start)
    return source


def _without_torch(points: Any) -> Any:
    """A tensor as an array on the CPU, sharing memory where that is possible; all else as it is."""
    if not isinstance(points, torch.Tensor):
        return points
    points = points.detach().cpu()
    return (points.float() if points.dtype == torch.bfloat16 else points).numpy()  # numpy has no bfloat16


def _is_stored(points: Any) -> bool:
    """Not so a list, a table of named columns (it has no one dtype), or an array that needs no conversion."""
    if isinstance(points, np.ndarray):
        return isinstance(points, np.memmap) or points.dtype not in (np.float32, np.float64)
    return (all(hasattr(points, part) for part in ("shape", "dtype", "__len__", "__getitem__"))
            and len(points.shape) > 1)


def _checked_type(name: str, shape: tuple[int, ...], dtype: Any) -> np.dtype[Any]:
    """float32 or float64: the dtype in which points of this shape and dtype are handed out."""
    if not shape or math.prod(shape) == 0:
        raise InputError(f"{name} has shape {shape}; give an array of shape (points, ...)")
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise InputError(f"{name} has dtype {dtype}, unknown to NumPy; give real numbers") from error
    if dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {dtype}; give real numbers")
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def _refuse_nonfinite(name: str, array: np.ndarray, first: int) -> None:
    """``first``: the number of the first row among all points."""
    # Far cheaper than a test of every entry, and finite whenever all entries are, but for overflow.
    with np.errstate(invalid="ignore", over="ignore"):
        total = array.sum()
    if not np.isfinite(total) and not np.isfinite(array).all():
        row = first + int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{name} has NaN or infinite entries, first in point {row}; remove or repair them")


def as_train_and_heldout(train: Any, heldout: Any) -> tuple[PointSource, PointSource]:
    """Both as ``as_source`` gives them. Raises InputError also if their points differ in size."""
    train, heldout = as_source("train", train), as_source("heldout", heldout)
    if train.shape[1] != heldout.shape[1]:
        raise InputError(f"heldout points have {heldout.shape[1]} entries, train points {train.shape[1]}; "
                         "give both the same shape")
    return train, heldout


def as_sigmas(sigmas: Any) -> np.ndarray:
    """Noise levels as a float64 array, ascending, each once. Raises InputError unless they are numbers from 1e-15 to
    1e15, beyond which their squares leave float32.
    """
    try:
        levels = np.unique(np.asarray(sigmas, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"sigmas are not numbers ({error}); give positive noise levels") from error
    if levels.size == 0:
        raise InputError("sigmas is empty; give at least one noise level")
    wrong = levels[~((levels >= 1 / LARGEST) & (levels <= LARGEST))]
    if wrong.size:
        raise InputError(f"sigmas holds {wrong[0]:g}; give positive noise levels from {1 / LARGEST:g} to {LARGEST:g}")
    return levels


def as_draws(name: str, draws: int) -> int:
    """Number of noise draws per point. Raises InputError unless it is a whole number, 1 or more."""
    return as_whole(name, draws, "noise draws per point")


def as_whole(name: str, value: Any, what: str) -> int:
    """A whole number, 1 or more. Raises InputError for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value or isinstance(value, bool):
        raise InputError(f"{name} is {value}; give a whole number of {what}, 1 or more")
    return number


def subset(source: PointSource, rows: np.ndarray) -> PointSource:
    """These rows of the source, ascending; the source itself where that is all of them."""
    return source if len(rows) == source.shape[0] else SubsetSource(source, rows)


def chosen_rows(n: int, queries: int | None, purpose: str, seed: int) -> np.ndarray:
    """Which of n points to look from: a random choice (the stream (seed, ``purpose``)), ascending; all n where
    ``queries`` is None or not fewer. Raises InputError unless that is a whole number, 1 or more.
    """
    if queries is None or as_whole("queries", queries, "points to look from") >= n:
        return np.arange(n)
    return np.sort(generator(seed, purpose).choice(n, queries, replace=False, shuffle=False))
