"""NumPy files: ``.npy`` (opened as a memory map), a folder of them, ``.npz`` (keys ``train``, optional ``heldout``).

The ``.npy`` files of a folder are *shards* of one array: the rows of one after those of another, in the order of
their names. None is ever unpickled: an array of Python objects is refused without running any of its code.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.points import as_points, joined_points
from geomem.data.source import Source
from geomem.data.unpacking import refuse_bomb
from geomem.errors import as_input_error, counted, file_error

# Points and labels, of both parts; the names of others are known too, Keras' last.
_KEYS = (("train", "train_labels", "heldout", "heldout_labels"),
         ("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"))
_MAX_HEADER = 1 << 16  # bytes
_ADVICE = "save it again as a plain uint8 or float array, without Python objects"


def read_npy(path: Path) -> Source:
    """All rows of the array are training points."""
    return Source(path.stem, [as_points(_memory_map(path), path)])


def shards(folder: Path) -> list[Path]:
    """The ``.npy`` files directly in a folder, by name; hidden ones are left out."""
    with as_input_error(folder, "a folder of arrays", "check its permissions"):
        return sorted(path for path in folder.iterdir()
                      if path.suffix.lower() == ".npy" and not path.name.startswith("."))


def read_shards(folder: Path, paths: list[Path]) -> Source:
    """All rows of all arrays are training points. Raises InputError unless row shapes and dtypes agree."""
    arrays = [_memory_map(path) for path in paths]
    kind = arrays[0].dtype, arrays[0].shape[1:]
    for path, array in zip(paths, arrays, strict=True):
        if array.ndim == 0 or (array.dtype, array.shape[1:]) != kind:
            raise file_error(path, f"holds {array.dtype} of shape {array.shape}, but {paths[0].name} {arrays[0].dtype} "
                                   f"of shape {arrays[0].shape}; shards have one type and one shape of a row")
    first, notes = arrays[0], []
    if first.ndim > 1 and len(first) < len(arrays) and len({len(array) for array in arrays}) == 1:
        notes.append(f"each of {len(arrays):,} files is read as {counted(len(first), 'point')} of shape "
                     f"{first.shape[1:]}; stack files that hold one point each into one array (N, ...), volumes "
                     "(N, 1, D, H, W)")
    return Source(folder.resolve().name, [joined_points(arrays, folder)], tuple(notes))


def _memory_map(path: Path) -> np.ndarray:
    with as_input_error(path, "a NumPy array", _ADVICE), _quiet():
        if not path.is_file():
            raise file_error(path, "is not a file; remove it or give the file itself")
        with open(path, "rb") as file:
            _check_header(file, path, path.stat().st_size)
        return np.lib.format.open_memmap(path, mode="r")


@contextmanager
def _quiet() -> Iterator[None]:
    """NumPy warns of headers that Python 2 wrote, with whole numbers like ``8L``; they are read all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _check_header(file: Any, where: object, size: int) -> None:
    """Raises InputError or ValueError unless the ``size`` bytes of a .npy file are what its header announces.

    NumPy itself would take the memory that a header announces, and for the header what its first bytes announce.
    """
    start = io.BytesIO(file.read(_MAX_HEADER))
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the form is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.subdtype is not None or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"it announces values of type {dtype} and shape {shape}")
    announced = start.tell() + math.prod(shape) * dtype.itemsize
    if announced != size:
        raise file_error(where, f"has {size:,} bytes, but its header announces {announced:,}; {_ADVICE}")


def read_npz(path: Path) -> Source:
    """``train`` and, where present, ``heldout``, ``train_labels`` and ``heldout_labels``; no other keys.

    ``train_images`` beside ``test_images`` and ``x_train`` beside ``x_test`` are read as well.
    """
    def choose(there: Iterable[str]) -> tuple[str, ...]:
        keys = next((keys for keys in _KEYS if keys[0] in there), None)
        if keys is None:
            raise file_error(path, f"has no key 'train' (keys: {', '.join(there) or 'none'}); "
                                   "save it with np.savez(path, train=..., heldout=...)")
        return keys

    arrays = arrays_of(path, choose)
    keys = choose(arrays)
    return Source(path.stem, [as_points(arrays[key], f"{path}: {key}", arrays.get(labels))
                              for key, labels in (keys[:2], keys[2:]) if key in arrays])


def arrays_of(path: Path, choose: Callable[[Iterable[str]], Iterable[str]]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that ``choose`` names, given the names there are; those that are there.

    Raises InputError for a damaged file, Python objects, and one that unpacks to too much.
    """
    with as_input_error(path, "an .npz file", "save it again with np.savez"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        wanted = {key: members[key] for key in choose(members) if key in members}
        refuse_bomb(path, path.stat().st_size, sum(info.file_size for info in wanted.values()))
        arrays = {}
        for key, info in wanted.items():
            with as_input_error(f"{path}: {key}", "a NumPy array", _ADVICE), _quiet():
                with archive.open(info) as file:
                    _check_header(file, f"{path}: {key}", info.file_size)
                with archive.open(info) as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays
