"""Bounds on what a file may unpack to, and where it is unpacked.

A *bomb* is a small file that unpacks to a huge one. Sizes are taken from headers, before unpacking.
"""

from __future__ import annotations

import math
import shutil
import tempfile

import numpy as np

from geomem.data import points
from geomem.errors import file_error

# Both must be passed: real data sets seldom shrink a hundredfold, and a GiB can always be unpacked, even where its
# bytes become floats.
MAX_UNPACKED_BYTES = 1 << 30
MAX_UNPACKED_RATIO = 100


def refuse_bomb(where: object, packed: int, unpacked: int) -> None:
    """Raise InputError when ``packed`` bytes announce an unreasonable number of ``unpacked`` bytes."""
    if unpacked > max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * packed):
        raise file_error(where, f"{packed:,} bytes would unpack to {unpacked:,}, which looks like a decompression "
                                "bomb; if the data are real, save them as a .npy file")


def scratch_array(where: object, shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array; a memory map where points of that shape would stay on disk.

    The file of the map has no name and vanishes with the process. Raises InputError where the disk is too small.
    """
    size = math.prod(shape)
    if 4 * size <= points.STORED_BYTES:
        return np.empty(shape, dtype=np.uint8)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise file_error(where, f"unpacks to {size:,} bytes, but {folder} has {free:,} free; set TMPDIR to a folder on "
                                "a larger disk, or take fewer points")
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
