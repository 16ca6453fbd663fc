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
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from geomem.data.child import in_child
from geomem.data.images import pictures_of_files, pictures_of_members
from geomem.data.source import Source
from geomem.errors import as_input_error, file_error

_ADVICE = "fetch it again"
_MAX_TEXT_BYTES = 1 << 26
_MAX_MAT_BYTES = 1 << 18
_PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv", "Eval/list_eval_partition.txt")
_IMAGES = ("img_align_celeba", "img_align_celeba.zip", "Img/img_align_celeba", "Img/img_align_celeba.zip")
_IMAGE_NAME = re.compile(r"[0-9]{1,9}\.(jpg|png)")


def celeba_files(folder: Path) -> tuple[Path, Path] | None:
    """The images and the partition of CelebA in a folder, or None."""
    images = next((folder / name for name in _IMAGES if (folder / name).exists()), None)
    partition = next((folder / name for name in _PARTITIONS if (folder / name).is_file()), None)
    return None if images is None or partition is None else (images, partition)


def read_celeba(images: Path, partition: Path) -> Source:
    """Aligned images; those for test are held out."""
    with as_input_error(partition, "CelebA's partition", _ADVICE):
        if partition.stat().st_size > _MAX_TEXT_BYTES:
            raise ValueError(f"it has {partition.stat().st_size:,} bytes")
        names, parts = read_partition(partition.read_bytes())
    if images.is_dir():
        inner = images / images.name
        folder = inner if inner.is_dir() else images
        pictures = pictures_of_files(images, folder, names)
    else:
        with as_input_error(images, "a zip file", _ADVICE), zipfile.ZipFile(images) as archive:
            there = {info.filename.rsplit("/", 1)[-1]: info.filename for info in archive.infolist()}
            if missing := [name for name in names if name not in there]:
                raise ValueError(f"it lacks {missing[0]}")
        pictures = pictures_of_members(images, [there[name] for name in names])
    train, heldout = (pictures.take(np.flatnonzero(parts == part)) for part in (0, 2))
    left = int((parts == 1).sum())
    notes = (f"{left:,} images of the validation partition left out",) if left else ()
    return Source("celeba", train, heldout if len(heldout) else None, notes)


def read_partition(content: bytes) -> tuple[list[str], np.ndarray]:
    """Names of images and their partitions ``(N,)``, 0, 1 or 2. Raises ValueError."""
    rows = [line.replace(",", " ").split() for line in content.decode("utf-8-sig").splitlines()]
    rows = [row for row in rows if row and row[0] != "image_id"]
    for row in rows:
        if len(row) != 2 or not _IMAGE_NAME.fullmatch(row[0]) or row[1] not in ("0", "1", "2"):
            raise ValueError(f"{' '.join(row)[:60]!r} is no image name and 0, 1 or 2")
    if not rows:
        raise ValueError("it is empty")
    return [row[0] for row in rows], np.array([int(row[1]) for row in rows])


def flowers_files(folder: Path) -> tuple[Path, Path] | None:
    """The images and the split of Flowers-102 in a folder, or None."""
    images, split = folder / "jpg", folder / "setid.mat"
    return (images, split) if images.is_dir() and split.is_file() else None


def read_flowers(images: Path, split: Path) -> Source:
    """Images of training and validation, those of test held out, with their classes where ``imagelabels.mat`` is."""
    parts = _mat_integers(split, ("trnid", "valid", "tstid"))
    numbers = np.unique(np.concatenate(list(parts.values())))
    if len(numbers) != sum(map(len, parts.values())) or not len(numbers) or numbers[0] < 1 or numbers[-1] > 99_999:
        raise file_error(split, "names an image twice, or one that cannot be; " + _ADVICE)
    labels = None
    if (file := split.with_name("imagelabels.mat")).is_file():
        labels = _mat_integers(file, ("labels",))["labels"]
        if len(labels) < numbers[-1]:
            raise file_error(file, f"has {len(labels):,} labels, too few for image {numbers[-1]:,}; {_ADVICE}")
        labels = labels[numbers - 1]
    names = [f"image_{number:05}.jpg" for number in numbers]
    pictures = replace(pictures_of_files(images, images, names), labels=labels)
    train = np.searchsorted(numbers, np.sort(np.concatenate([parts["trnid"], parts["valid"]])))
    heldout = np.searchsorted(numbers, np.sort(parts["tstid"]))
    return Source("flowers-102", pictures.take(train), pictures.take(heldout))


def _mat_integers(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named lists of whole numbers in a MATLAB file, each flat and int64."""
    with as_input_error(path, "a MATLAB file", _ADVICE):
        if path.stat().st_size > _MAX_MAT_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, too many for a list of images")
        (lists,) = in_child(_read_mat, path, names)
    return lists


def _read_mat(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, np.ndarray]]:
    """In the child, since scipy can crash on damaged files."""
    from scipy.io import loadmat

    found = loadmat(path, variable_names=names)
    for name in names:
        values = found[name]
        if values.dtype.kind not in "iuf" or values.ndim != 2 or min(values.shape) != 1 \
                or not (np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**31)).all():
            raise ValueError(f"{name} is no list of whole numbers")
    yield {name: found[name].ravel().astype(np.int64) for name in names}
