"""Volumes: NIfTI files, ``.nii`` or ``.nii.gz``, read by nibabel: ``pip install 'geomem[medical]'``.

Points are (C, D, H, W), the axes of a file in its order: C is 1, or its fourth axis where that has 2 to 4 values.
Values are those that the header's slope and intercept give, as they are; orientation and spacing are not looked at, so
all files of a data set must be on one grid. nibabel reads in a child process with bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.child import in_child, one_child
from geomem.data.points import Names, Points, as_points
from geomem.data.source import HELDOUT_SPLITS, TRAIN_SPLITS, Source, split_word
from geomem.data.unpacking import refuse_bomb, scratch_array
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

SUFFIXES = (".nii", ".nii.gz")
_ADVICE = "write it again with nibabel.save"
_MAX_CHANNELS = 4
_USUAL = 10  # values beyond it are no usual scale of a diffusion model


def volume_files(folder: Path) -> list[Path]:
    """The volumes in a folder, by name, or in the folders of a split in it; hidden ones are left out."""
    places = [folder, *(path for path in folder.iterdir() if path.is_dir() and split_word(path) == path.name.lower())]
    return sorted(path for place in places for path in place.iterdir()
                  if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."))


def read_volumes(paths: list[Path], where: Path) -> Source:
    """Volumes of one shape; folders ``train`` beside ``test`` or ``validation`` are the split.

    Raises InputError where nibabel is missing, a file is damaged or hostile, or their shapes differ.
    """
    if find_spec("nibabel") is None:
        raise file_error(where, "is read by the package nibabel; pip install 'geomem[medical]'")
    by_part: dict[str, list[Path]] = {}
    for path in paths:
        by_part.setdefault(split_word(path.parent) if path.parent != where else "", []).append(path)
    found = [next((by_part[name] for name in names if name in by_part), [])
             for names in (TRAIN_SPLITS, HELDOUT_SPLITS)]
    parts = [_read(files, where) for files in (found if all(found) else [paths])]
    largest = max(float(np.abs(part.values[0]).max()) for part in parts)
    notes = [f"values such as {largest:.4g} are taken as they are; for noise levels in the units of a training save "
             "the volumes as it scales them, one .npy (N, 1, D, H, W)"] if largest > _USUAL else []
    return Source(where.name.removesuffix(".gz").removesuffix(".nii") or where.resolve().name, parts, tuple(notes))


def _read(paths: list[Path], where: Path) -> Points:
    from tqdm.auto import tqdm

    values, packed = np.empty(0, np.float32), sum(path.stat().st_size for path in paths)
    with one_child():
        shown = tqdm(paths, desc=f"reading {where}", unit="volume", leave=False, delay=1, disable=None)
        for i, path in enumerate(shown):
            require_file(path, _ADVICE)
            with as_input_error(path, "a NIfTI volume", _ADVICE):
                (volume,) = in_child(_volume, path, file_bytes=path.stat().st_size)
            if i == 0:
                shape = (len(paths), *volume.shape)
                refuse_bomb(where, packed, len(paths) * volume.nbytes)
                values = scratch_array(where, (*shape, 4)).view(np.float32)[..., 0]
            if volume.shape != values.shape[1:]:
                raise file_error(path, f"has shape {volume.shape}, but {paths[0].name} {values.shape[1:]}; resample "
                                       "all to one grid, with nibabel.processing.conform or MONAI's Spacing and Resize")
            values[i] = volume
    return replace(as_points(values, where), names=Names(lambda i: paths[i].name, np.arange(len(paths))))


def _volume(path: Path) -> Iterator[np.ndarray]:
    """In the child: its values (C, D, H, W) float32."""
    import nibabel

    image: Any = nibabel.load(path)
    shape, kind = image.shape, image.get_data_dtype()
    if kind.kind not in "iuf":
        raise ValueError(f"it holds values of type {kind}, no intensities")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] > _MAX_CHANNELS):
        raise ValueError(f"its shape is {shape}: a volume has three axes, and perhaps a fourth of at most "
                         f"{_MAX_CHANNELS} channels")
    values = image.get_fdata(dtype=np.float32, caching="unchanged")
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values: replace them")
    yield np.ascontiguousarray(np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None])
