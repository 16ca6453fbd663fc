"""N points, in memory or on disk: the type through which everything reads its points.

``Points`` sees one or several arrays ``(n, ...)``, one after another, as one: NumPy arrays, memory maps, or anything
with ``shape``, ``dtype``, ``len`` and ``[slice or ascending integers]`` (an HDF5 data set). Rows are read, and
converted, when they are asked for; a subset is an index, so nothing is copied. ``take`` gives rows of d values,
``points[rows]`` those of their own shape. ``as_points`` makes them of whatever a caller passes.

Two points are duplicates when they are equal (``first_equal``), or joined by a chain of pairs within a tolerance
(``distinct_points``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import numpy as np

from geomem.errors import InputError
from geomem.rng import generator

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 2**26  # read at once where all points are gone through
BLOCK_VALUES = 2**23  # float64 values held at once while distances are computed: 64 MiB
_SAMPLED_POINTS = 256
_FILTER_DIMENSIONS = 8  # of the projection that rules out most pairs of points


class Stored(Protocol):
    """Points ``(n, ...)`` that are elsewhere: what an array, an HDF5 data set and ``Points`` have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


Array: TypeAlias = "np.ndarray | torch.Tensor | Stored"


def runs(start: int, stop: int, length: int) -> Iterator[slice]:
    """Cut [start, stop) at the multiples of ``length``."""
    while start < stop:
        end = min(stop, (start // length + 1) * length)
        yield slice(start, end)
        start = end


def cut_by_sum(counts: np.ndarray, most: int) -> Iterator[slice]:
    """Slices over the counts (n,), each of which adds up to ``most`` or less, or is one count."""
    ends, start = np.cumsum(counts), 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


class Points:
    """Points ``(n, ...)`` over arrays of one row shape and dtype, one after another.

    ``points[a:b]`` and ``points.select(index)`` are again ``Points``; ``points[index]``, with integers or a mask,
    ``points[i]`` and ``np.asarray(points)`` are arrays. ``dtype`` is float32 where the arrays are, else float64.

    Parameters
    ----------
    parts : the arrays.
    convert : turns rows of them into float32 rows, perhaps of another shape.
    """

    def __init__(self, parts: Sequence[Any], convert: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self._parts = tuple(part for part in parts if len(part)) or (parts[0],)
        self._starts = [0, *accumulate(len(part) for part in self._parts)]
        self._chosen = np.arange(self._starts[-1])
        self._convert = convert
        shape = self._parts[0].shape if convert is None else convert(self._parts[0][:1]).shape
        self._row_shape = tuple(int(length) for length in shape[1:])
        self.dim = math.prod(self._row_shape)
        single = convert is not None or self._parts[0].dtype == np.float32
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if single else np.float64)
        self.known_finite = False  # once they have been looked through

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
        """Bytes that the points would take in memory."""
        return self.dtype.itemsize * self.size

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
            return self._read(self._chosen[[int(index)]])[0]
        return self._read(self._places(index))

    def select(self, index: slice | Any) -> Self:
        """The chosen rows, in the order of the index, without reading them."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._chosen = self._places(index)
        return view

    def take(self, index: slice | np.ndarray) -> np.ndarray:
        """The chosen rows, (rows, d), C-contiguous. It may be a read-only view: do not write into it."""
        rows = self._read(self._places(index))
        return np.ascontiguousarray(rows.reshape(len(rows), self.dim))

    def blocks(self, values: int, most: int | None = None) -> Iterator[slice]:
        """Slices over the points, of about so many values and at most ``most`` points each."""
        return runs(0, len(self), max(1, min(values // self.dim, most or len(self))))

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows (n, d)) of all points, 64 MB at a time."""
        for block in self.blocks(CHUNK_BYTES // self.dtype.itemsize):
            yield block.start, self.take(block)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("stored points are read into memory, which is a copy")
        values = self._read(self._chosen)
        return values if dtype is None else values.astype(dtype, copy=False)

    def _places(self, index: Any) -> np.ndarray:
        """Rows of the parts, counted through, of a slice, integers ``(n,)`` or a mask ``(N,)``."""
        if isinstance(index, slice):
            return self._chosen[index]
        rows = np.asarray(index)
        if isinstance(index, tuple) or rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iub"):
            raise IndexError("stored points take a slice, one integer, or integers or a mask along the first axis; "
                             "other axes can be indexed in what that gives")
        return self._chosen[rows if rows.size else rows.astype(np.int64)]

    def _read(self, places: np.ndarray) -> np.ndarray:
        first = int(np.searchsorted(self._starts, places[0], side="right")) - 1 if len(places) else 0
        run = _as_slice(places - self._starts[first])
        if isinstance(run, slice) and run.stop <= len(self._parts[first]):
            return self._as_points(self._parts[first][run])
        if len(self._parts) == 1 and type(self._parts[0]) is np.ndarray:
            return self._as_points(self._parts[0][places])
        order = np.argsort(places, kind="stable")  # disks and page caches are read forwards, each row once
        values = np.empty((len(places), *self._row_shape), dtype=self.dtype)
        cuts = np.searchsorted(places, self._starts, sorter=order)
        for part, start, low, high in zip(self._parts, self._starts, cuts, cuts[1:], strict=False):
            if low < high:
                rows, back = np.unique(places[order[low:high]] - start, return_inverse=True)
                read = self._as_points(part[_as_slice(rows)])
                values[order[low:high]] = read if len(rows) == high - low else read[back]
        return values

    def _as_points(self, rows: Any) -> np.ndarray:
        return np.asarray(rows, dtype=self.dtype) if self._convert is None else self._convert(rows)


def _as_slice(rows: np.ndarray) -> slice | np.ndarray:
    """The same rows as a slice, of which arrays give views, where each follows the one before it."""
    if not len(rows):
        return slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1) if (np.diff(rows) == 1).all() else rows


def points_of(values: np.ndarray | Points) -> Points:
    """An array ``(n, ...)``, or points, as points, unchecked."""
    return values if isinstance(values, Points) else Points([values])


def as_points(name: str, values: Any) -> Points:
    """Points ``(n, ...)`` of any kind, checked: an array, a tensor, nested lists, or points stored elsewhere, which
    are read in runs of 64 MB for it.

    Raises InputError if there is no point, the dtype is not real, or a value is NaN or infinite; ``name`` names the
    points in messages.
    """
    if not isinstance(values, Points):
        if hasattr(values, "detach"):  # a tensor, sharing memory where that is possible
            values = values.detach().cpu()
            values = (values.float() if "bfloat16" in str(values.dtype) else values).numpy()  # NumPy has no bfloat16
        parts = ("shape", "dtype", "__len__", "__getitem__")
        # A table of named columns has these, but no one dtype; an array of one axis may be anything.
        if not (all(hasattr(values, part) for part in parts) and len(values.shape) > 1):
            values = np.asarray(values)
        _require_real(name, tuple(values.shape), values.dtype)
        values = Points([values])
    if not values.known_finite and (found := nonfinite(values)):
        raise InputError(f"{name} holds NaN or infinite values, the first in point {found[1]}; repair or remove them")
    values.known_finite = True
    return values


def as_rows(values: Any, name: str = "points") -> np.ndarray:
    """The same in memory, (n, d) float32 or float64, without a copy where that is possible."""
    return as_points(name, values).take(slice(None))


def as_train_and_heldout(train: Any, heldout: Any) -> tuple[Points, Points]:
    """Both as ``as_points`` gives them. Raises InputError also if their points differ in size."""
    train, heldout = as_points("train", train), as_points("heldout", heldout)
    if train.dim != heldout.dim:
        raise InputError(f"heldout points have {heldout.dim} entries, train points {train.dim}; "
                         "give both the same shape")
    return train, heldout


def _require_real(name: str, shape: tuple[int, ...], dtype: Any) -> None:
    if not shape or math.prod(shape) == 0:
        raise InputError(f"{name} has shape {shape}; give an array of shape (points, ...)")
    try:
        kind = np.dtype(dtype).kind
    except TypeError as error:
        raise InputError(f"{name} has dtype {dtype}, unknown to NumPy; give real numbers") from error
    if kind not in "fiub":
        raise InputError(f"{name} has dtype {dtype}; give real numbers")


def nonfinite(points: Points) -> tuple[int, int] | None:
    """How many values are NaN or infinite, and the first row with one; None where there are none."""
    count, first = 0, -1
    for start, rows in points.chunks():
        # Far cheaper than a test of every value, and finite whenever all are, but for overflow.
        with np.errstate(invalid="ignore", over="ignore"):
            if np.isfinite(rows.sum()):
                continue
        bad = (~np.isfinite(rows)).sum(axis=1)
        if count == 0 and bad.any():
            first = start + int(np.flatnonzero(bad)[0])
        count += int(bad.sum())
    return (count, first) if count else None


def sampled(points: Points) -> np.ndarray:
    """Some of the points at random, always the same, (m, d) float64: 256, or those of 64 MiB."""
    size = min(len(points), _SAMPLED_POINTS, max(1, BLOCK_VALUES // points.dim))
    chosen = generator(0, "neighbours").choice(len(points), size, replace=False, shuffle=False)
    return points.take(np.sort(chosen)).astype(np.float64)


def fingerprints(rows: np.ndarray) -> np.ndarray:
    """The sum of the bits of each row, (n,): equal for equal rows."""
    rows = rows + rows.dtype.type(0)  # makes -0.0 equal to 0.0
    return rows.view(f"u{rows.itemsize}").sum(axis=1, dtype=np.uint64)


def first_equal(points: Points, prints: np.ndarray | None = None) -> np.ndarray:
    """For each point the first one that equals it, (n,) int64; ``prints``: the fingerprints, where they are known.

    Only points with equal fingerprints are compared.
    """
    if prints is None:
        prints = np.concatenate([fingerprints(rows) for _, rows in points.chunks()])
    first = np.arange(len(prints))
    order = np.argsort(prints, kind="stable")
    same = prints[order[1:]] == prints[order[:-1]]
    suspects = np.sort(order[np.append(same, False) | np.insert(same, 0, False)])
    seen: dict[bytes, int] = {}
    for part in points.select(suspects).blocks(BLOCK_VALUES):
        for index, row in zip(suspects[part], points.take(suspects[part]) + points.dtype.type(0), strict=True):
            first[index] = seen.setdefault(blake2b(row.data, digest_size=16).digest(), index)
    return first


@dataclass(frozen=True)
class DistinctPoints:
    """Points with exact and near duplicates treated as one.

    index: (M,) int64, ascending: the representative of each group, its lowest index.
    group: (N,) int64: the position in ``index`` of each point's group.
    merged: N - M, how many points were dropped.
    """

    index: np.ndarray
    group: np.ndarray
    merged: int


def distinct_points(points: Any, tolerance: float) -> DistinctPoints:
    """Treat points within ``tolerance`` (Euclidean, <=) of each other as one.

    points: (N, ...), numpy, torch or stored elsewhere. Groups are connected components, so a chain of close
    points is one group; exact duplicates are always merged, and with tolerance 0 only those. No N x N array is
    made. Raises InputError for a negative tolerance or values that are not finite.
    """
    points = as_points("points", points)
    if not tolerance >= 0:
        raise InputError(f"tolerance is {tolerance}; it is a distance, so it must be 0 or more")
    root = first_equal(points)
    if tolerance > 0:
        _join_close(points, root, tolerance)
    index, group = np.unique(root, return_inverse=True)
    return DistinctPoints(index, group.astype(np.int64), len(root) - len(index))


def _join_close(points: Points, root: np.ndarray, tolerance: float) -> None:
    """Join, in ``root``, the groups of all pairs of rows within ``tolerance``.

    An orthogonal projection never lengthens a difference, so the pairs within reach in a few dimensions,
    found with a k-d tree, contain all pairs sought; only those are measured in full. The directions are
    spanned by a few of the points themselves, since these lie along what varies most.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    index = np.unique(root)
    centre = sampled(points).mean(axis=0)
    picked = index[np.linspace(0, len(index) - 1, _FILTER_DIMENSIONS).astype(np.int64)]
    basis = np.linalg.qr((points.take(picked) - centre).T)[0]  # (d, min(d, 8)), orthonormal
    flat, radius = np.empty((len(index), basis.shape[1])), 0.0
    for block in points.select(index).blocks(BLOCK_VALUES):
        centred = points.take(index[block]) - centre
        flat[block], radius = centred @ basis, max(radius, float(np.einsum("nd,nd->n", centred, centred).max() ** 0.5))
    # A pair that lies just within the tolerance must not be lost to rounding in the projection.
    rounding = 4 * (points.dim + 8) * float(np.finfo(np.float64).eps)
    reach = tolerance + rounding * (tolerance + radius)

    tree = cKDTree(flat)
    near = tree.query_ball_point(flat, reach, return_length=True)  # how many; which, only where a point is not alone
    crowded = np.flatnonzero(near > 1)
    for part in cut_by_sum(near[crowded], BLOCK_VALUES // 16):
        some = crowded[part]
        within = tree.query_ball_point(flat[some], reach)
        low, high = np.repeat(some, near[some]), np.concatenate([np.asarray(these, dtype=np.int64) for these in within])
        low, high = index[low[low < high]], index[high[low < high]]
        apart = root[low] != root[high]
        low, high = low[apart], high[apart]
        for pairs in points.select(low).blocks(BLOCK_VALUES):
            apart = root[low[pairs]] != root[high[pairs]]  # of many in one group most pairs are joined by now
            first, second = low[pairs][apart], high[pairs][apart]
            close = np.empty(len(first), dtype=bool)
            for few in runs(0, len(first), max(1, BLOCK_VALUES // 8 // points.dim)):
                difference = points.take(first[few]).astype(np.float64) - points.take(second[few])
                close[few] = np.sqrt(np.einsum("nd,nd->n", difference, difference)) <= tolerance
            if close.any():
                ends = root[first[close]], root[second[close]]
                joined = coo_array((np.ones(len(ends[0])), ends), shape=(len(root), len(root)))
                _, lowest, label = np.unique(connected_components(joined, directed=False)[1], return_index=True,
                                             return_inverse=True)
                root[:] = lowest[label][root]
