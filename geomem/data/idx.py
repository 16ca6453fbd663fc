"""IDX files, the form of MNIST and Fashion-MNIST, plain or compressed with gzip.

Two zero bytes, a type, the number n of dimensions, n sizes of four bytes each, most significant first, and the values
in C order. Images are unsigned bytes ``(N, H, W)``, labels unsigned bytes ``(N,)`` in a file of their own:
``train-images-idx3-ubyte.gz`` finds ``train-labels-idx1-ubyte.gz`` and, held out, ``t10k-images-idx3-ubyte.gz``.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from geomem.data.points import Points, as_points
from geomem.data.source import Source
from geomem.data.unpacking import refuse_bomb, scratch_array
from geomem.errors import as_input_error
from geomem.files import require_file

GZIP = b"\x1f\x8b"
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
_ADVICE = "it may be cut short: fetch it again"
_PIECE = 1 << 24


def is_idx(start: bytes) -> bool:
    """Whether a file that begins so (4 bytes or more) is an IDX file."""
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in _TYPES and 0 < start[3] <= _MAX_DIMENSIONS


def read_idx(path: Path) -> Source:
    """Points of one file, with labels and the held-out part from the files beside it where they are."""
    name = path.name.split("-images")[0] if "-images" in path.name else path.name.split(".")[0]
    files = [path]
    if path.name.startswith("train-"):
        name = path.resolve().parent.name
        files += [beside] if (beside := _beside(path, "train-", "t10k-")) else []
    return Source(name, [_read_points(file) for file in files])


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
    return next((other for other in map(path.with_name, (name, plain, plain + ".gz")) if other.is_file()), None)


def _read_file(path: Path) -> np.ndarray:
    """A memory map, or for a compressed file an array of what its header announces: no more is unpacked."""
    require_file(path, _ADVICE)
    with as_input_error(path, "an IDX file", _ADVICE), open(path, "rb") as file:
        is_packed = file.read(2) == GZIP
    with as_input_error(path, "an IDX file", _ADVICE), (gzip.open if is_packed else open)(path, "rb") as file:
        start = file.read(4)
        if not is_idx(start):
            raise ValueError("it does not begin as one")
        kind = np.dtype(_TYPES[start[2]])
        shape = tuple(np.frombuffer(file.read(4 * start[3]), dtype=">u4", count=start[3]).tolist())
        announced = math.prod(shape) * kind.itemsize
        if is_packed:
            refuse_bomb(path, path.stat().st_size, announced)
            values = scratch_array(path, (announced,))
            found = 0
            while piece := file.read(min(_PIECE, announced + 1 - found)):  # one byte more than there should be
                values[found:found + len(piece)] = np.frombuffer(piece, dtype=np.uint8)[:announced - found]
                found += len(piece)
        else:
            values = np.memmap(path, np.uint8, mode="r", offset=file.tell())
            found = len(values)
        if found != announced:
            raise ValueError(f"its header announces {announced:,} bytes of values, but {found:,} or more are there")
        return values.view(kind).reshape(shape)
