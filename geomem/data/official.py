"""CelebA and Flowers-102 as their authors give them out: a folder of images and a file that says which are held out.

* CelebA: ``img_align_celeba/`` or ``img_align_celeba.zip`` beside ``list_eval_partition.txt`` (or ``.csv``), with
  one line per image, its name and 0 for training, 1 for validation, 2 for test. Test images are held out,
  validation images left out.
* Flowers-102: ``jpg/`` beside ``setid.mat``, with the numbers of the images for training (``trnid``), validation
  (``valid``) and test (``tstid``), and ``imagelabels.mat``, with their classes. Both of the first are training images,
  test images are held out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from geomem.data.child import in_child
from geomem.data.images import folder_files, zip_files
from geomem.data.source import Source
from geomem.errors import as_input_error, counted, file_error
from geomem.files import require_file

_ADVICE = "fetch it again"
_MAX_TEXT_BYTES = 1 << 26
_MAX_MAT_BYTES = 1 << 18
_PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv", "Eval/list_eval_partition.txt")
_IMAGES = ("img_align_celeba", "img_align_celeba.zip", "Img/img_align_celeba", "Img/img_align_celeba.zip")
_ROW = re.compile(r"([0-9]{1,9}\.(?:jpg|png))[\s,]+([012])")


def celeba_files(folder: Path) -> tuple[Path, Path] | None:
    """The images and the partition of CelebA in a folder, or None."""
    images = next((folder / name for name in _IMAGES if (folder / name).exists()), None)
    partition = next((folder / name for name in _PARTITIONS if (folder / name).is_file()), None)
    return None if images is None or partition is None else (images, partition)


def read_celeba(images: Path, partition: Path) -> Source:
    """Aligned images; those for test are held out."""
    with as_input_error(partition, "CelebA's partition", _ADVICE):
        require_file(partition, _ADVICE, _MAX_TEXT_BYTES)
        lines = partition.read_text(encoding="utf-8-sig").splitlines()
        rows = [_partition_row(line) for line in lines if line.strip() and not line.startswith("image_id")]
        names, parts = [name for name, _ in rows], np.array([part for _, part in rows])
    files = folder_files(images) if images.is_dir() else zip_files(images)
    there = {name[-1]: name for name in files.names}
    if missing := [name for name in names if name not in there]:
        raise file_error(images, f"lacks {missing[0]}; {_ADVICE}")
    pictures = files.pictures([there[name] for name in names])
    train, heldout = (pictures.take(np.flatnonzero(parts == part)) for part in (0, 2))
    left = int((parts == 1).sum())
    notes = (f"{counted(left, 'image')} of the validation partition left out",) if left else ()
    return Source("celeba", [train, heldout] if len(heldout) else [train], notes)


def _partition_row(line: str) -> tuple[str, int]:
    """Name of an image and its partition: 0, 1 or 2."""
    if (match := _ROW.fullmatch(line.strip())) is None:
        raise ValueError(f"{line[:60]!r} is no image name and 0, 1 or 2")
    return match[1], int(match[2])


def flowers_files(folder: Path) -> tuple[Path, Path] | None:
    """The images and the split of Flowers-102 in a folder, or None."""
    images, split = folder / "jpg", folder / "setid.mat"
    return (images, split) if images.is_dir() and split.is_file() else None


def read_flowers(images: Path, split: Path) -> Source:
    """Images of training and validation, those of test held out, with their classes where ``imagelabels.mat`` is."""
    trnid, valid, tstid = _mat_integers(split, ("trnid", "valid", "tstid"))
    numbers = np.unique(np.concatenate([trnid, valid, tstid]))
    if len(numbers) != len(trnid) + len(valid) + len(tstid) or not len(numbers) or numbers[0] < 1 \
            or numbers[-1] > 99_999:
        raise file_error(split, "names an image twice, or one that cannot be; " + _ADVICE)
    labels = None
    if (file := split.with_name("imagelabels.mat")).is_file():
        (labels,) = _mat_integers(file, ("labels",))
        if len(labels) < numbers[-1]:
            raise file_error(file, f"has {len(labels):,} labels, too few for image {numbers[-1]:,}; {_ADVICE}")
        labels = labels[numbers - 1]
    pictures = folder_files(images).pictures([(f"image_{number:05}.jpg",) for number in numbers])
    pictures = replace(pictures, labels=labels)
    is_test = np.isin(numbers, tstid)
    return Source("flowers-102", [pictures.take(np.flatnonzero(chosen)) for chosen in (~is_test, is_test)])


def _mat_integers(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """The named lists of whole numbers in a MATLAB file, each flat and int64."""
    with as_input_error(path, "a MATLAB file", _ADVICE):
        require_file(path, _ADVICE, _MAX_MAT_BYTES)
        return list(in_child(_read_mat, path, names))


def _read_mat(path: Path, names: tuple[str, ...]) -> Iterator[np.ndarray]:
    """In the child, since scipy can crash on damaged files."""
    from scipy.io import loadmat

    lists = loadmat(path, variable_names=names)
    for name in names:
        values = lists[name]
        if values.dtype.kind not in "iuf" or values.ndim != 2 or min(values.shape) != 1 \
                or not (np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**31)).all():
            raise ValueError(f"{name} is no list of whole numbers")
        yield values.ravel().astype(np.int64)
