"""NumPy files: ``.npy`` (opened as a memory map) and ``.npz`` (keys ``train``, optional ``heldout``).

Neither is ever unpickled: an array of Python objects is refused without running any of its code.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from geomem.data.points import Points, Source, as_points
from geomem.data.refusal import reading, refuse_bomb, wrong

_KEYS = ("train", "train_labels", "heldout", "heldout_labels")
_ADVICE = "save it again as a plain uint8 or float array, without Python objects"


def read_npy(path: Path) -> Source:
    """All rows of the array are training points."""
    with reading(path, "a NumPy array", _ADVICE):
        array = np.lib.format.open_memmap(path, mode="r")
    return Source(path.stem, as_points(array, path))


def read_npz(path: Path) -> Source:
    """``train`` and, where present, ``heldout``, ``train_labels`` and ``heldout_labels``; no other keys."""
    with reading(path, "an .npz file", "save it again with np.savez"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "train" not in members:
            raise wrong(path, f"has no key 'train' (keys: {', '.join(members) or 'none'}); "
                              "save it with np.savez(path, train=..., heldout=...)")
        wanted = {key: members[key] for key in _KEYS if key in members}
        refuse_bomb(path, path.stat().st_size, sum(info.file_size for info in wanted.values()))
        arrays = {}
        for key, info in wanted.items():
            with reading(f"{path}: {key}", "a NumPy array", _ADVICE), archive.open(info) as file:
                arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
    return Source(path.stem, _part(arrays, "train", path),
                  _part(arrays, "heldout", path) if "heldout" in arrays else None)


def _part(arrays: dict[str, np.ndarray], key: str, path: Path) -> Points:
    return as_points(arrays[key], f"{path}: {key}", arrays.get(f"{key}_labels"))
