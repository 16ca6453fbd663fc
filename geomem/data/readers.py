"""Which reader reads which path."""

from __future__ import annotations

from pathlib import Path

from geomem.data.arrays import read_npy, read_npz, read_shards, shards
from geomem.data.images import holds_images, read_folder, read_zip
from geomem.data.points import Source
from geomem.data.refusal import wrong
from geomem.data.series import read_series

_READERS = {".npz": read_npz, ".npy": read_npy, ".zip": read_zip,
            ".txt": read_series, ".tsv": read_series, ".csv": read_series}
FORMS = ".npz, .npy, a folder of .npy files, a folder or .zip of images, a UCR .txt, .tsv or .csv"


def read_path(path: Path) -> Source:
    """Read a file or folder by its kind. Raises InputError when it is of no known kind or cannot be read."""
    try:
        if path.is_dir():
            arrays = shards(path)
            return read_shards(path, arrays) if arrays and not holds_images(path) else read_folder(path)
        with open(path, "rb"):  # missing, not permitted, not a file: said once, for every reader
            pass
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror}); check the path and its permissions") from error
    if path.suffix.lower() not in _READERS:
        raise wrong(path, f"is of no known form; known are {FORMS}")
    return _READERS[path.suffix.lower()](path)
