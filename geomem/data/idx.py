"""IDX files, the form of MNIST and Fashion-MNIST, plain or compressed with gzip.

Two zero bytes, a type, the number n of dimensions, n sizes of four bytes each, most significant first, and the values
in C order. Images are unsigned bytes ``(N, H, W)``, labels unsigned bytes ``(N,)`` in a file of their own:
``train-images-idx3-ubyte.gz`` finds ``train-labels-idx1-ubyte.gz`` and, held out, ``t10k-images-idx3-ubyte.gz``.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.points import Points, as_points
from geomem.data.source import Source
from geomem.data.unpacking import refuse_bomb, scratch_array
from geomem.errors import as_input_error
from geomem.files import require_file

GZIP = b"\x1f\x8b"
_TYPES: dict[int, np.dtype] = {0x08: np.dtype("u1"), 0x09: np.dtype("i1"), 0x0B: np.dtype(">i2"), 0x0C: np.dtype(">i4"),
          0x0D: np.dtype(">f4"), 0x0E: np.dtype(">f8")}
_MAX_DIMENSIONS = 8
_ADVICE = "it may be cut short: fetch it again"
_PIECE = 1 << 24


def is_idx(start: bytes) -> bool:
    """Whether a file that begins so (4 bytes or more) is an IDX file."""
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in _TYPES and 0 < start[3] <= _MAX_DIMENSIONS


def read_idx(path: Path) -> Source:
    """Points of one file, with labels and the held-out part from the files beside it where they are."""
    name = path.name.split("-images")[0] if "-images" in path.name else path.name.split(".")[0]
    heldout = None
    if path.name.startswith("train-"):
        name = path.resolve().parent.name
        if (beside := _beside(path, "train-", "t10k-")) is not None:
            heldout = _read_points(beside)
    return Source(name, _read_points(path), heldout)


def images_in(folder: Path) -> Path | None:
    """``train-images...`` in a folder, or None."""
    return next((path for path in sorted(folder.glob("train-images*idx3-ubyte*"))
                 if path.suffix in ("", ".gz") or path.suffix.startswith(".idx")), None)


def _read_points(path: Path) -> Points:
    images, labels = _read_file(path), None
    if images.ndim == 3 and "images" in path.name and (beside := _beside(path, "images", "labels")) is not None:
        labels = _read_file(beside)
    return as_points(images, path, labels)


def _beside(path: Path, old: str, new: str) -> Path | None:
    """The file of that other part in the same folder, compressed or not."""
    name = path.name.replace(old, new, 1)
    if new == "labels":
        name = name.replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    return next((other for other in (path.with_name(name), path.with_name(plain), path.with_name(plain + ".gz"))
                 if other.is_file()), None)


def _read_file(path: Path) -> np.ndarray:
    require_file(path, _ADVICE)
    with as_input_error(path, "an IDX file", _ADVICE), open(path, "rb") as file:
        size = path.stat().st_size
        if file.read(2) == GZIP:
            file.seek(0)
            with gzip.open(file) as unpacked:
                return unpacked_array(unpacked, path, size)
        file.seek(0)
        kind, shape = read_header(file)
        found, announced = size - file.tell(), math.prod(shape) * kind.itemsize
        if found != announced:
            raise ValueError(f"it has {found:,} bytes of values, but its header announces {announced:,}")
        if announced == 0:
            return np.empty(shape, kind)
        return np.memmap(path, kind, mode="r", offset=file.tell(), shape=shape)


def read_header(file: Any) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape, from the start of an open file. Raises ValueError."""
    start = file.read(4)
    if not is_idx(start):
        raise ValueError("it does not begin as one")
    sizes = file.read(4 * start[3])
    if len(sizes) != 4 * start[3]:
        raise ValueError("its header is cut short")
    return _TYPES[start[2]], tuple(int(n) for n in np.frombuffer(sizes, dtype=">u4"))


def unpacked_array(file: Any, where: object, packed: int) -> np.ndarray:
    """The array of a compressed file of ``packed`` bytes, open as ``gzip`` opens it.

    No more is unpacked than the header announces. Raises InputError where that looks like a bomb, and ValueError,
    EOFError, OSError or zlib.error for a damaged file.
    """
    kind, shape = read_header(file)
    announced = math.prod(shape) * kind.itemsize
    refuse_bomb(where, packed, announced)
    values = scratch_array(where, (announced,)) if announced else np.empty(0, np.uint8)
    found = 0
    while found < announced and (piece := file.read(min(_PIECE, announced - found))):
        values[found:found + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        found += len(piece)
    if found < announced or file.read(1):
        raise ValueError(f"it unpacks to {'fewer' if found < announced else 'more'} bytes of values than the "
                         f"{announced:,} that its header announces")
    return values.view(kind).reshape(shape)
