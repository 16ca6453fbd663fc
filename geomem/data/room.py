"""Room for unpacked images: memory, or for many of them a temporary file without a name."""

from __future__ import annotations

import math
import shutil
import tempfile

import numpy as np

from geomem.data import points
from geomem.data.refusal import wrong


def room(where: object, shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array; a memory map where points of that shape would stay on disk.

    The file of the map vanishes with the process. Raises InputError where the disk has no room for it.
    """
    size = math.prod(shape)
    if 4 * size <= points.STORED_BYTES:
        return np.empty(shape, dtype=np.uint8)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise wrong(where, f"unpacks to {size:,} bytes, but {folder} has {free:,} free; set TMPDIR to a folder on a "
                           "larger disk, or take fewer points")
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
