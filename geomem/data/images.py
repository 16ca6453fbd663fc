"""Folders and zip files of images.

Images are taken recursively, in the order of their names. Folders that hold all the images are ignored; what
remains of a path decides: ``train/`` beside ``heldout/``, ``test/`` or ``val/`` is the split, and one folder
per class gives the labels. All images must have one size; grey images keep one channel. Of an animation the
first frame is taken. Zip members are read in memory and never extracted.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from geomem.data.points import Points, Source, as_points
from geomem.data.refusal import reading, refuse_bomb, wrong

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
HELDOUT_FOLDERS = ("heldout", "test", "val")

Name = tuple[str, ...]  # the parts of a path inside the folder or zip file


def holds_images(folder: Path) -> bool:
    """Whether there is an image anywhere below the folder."""
    with reading(folder, "a folder of images", "check its permissions"):
        return any(_is_image(file.relative_to(folder).parts) for file in _files_below(folder, ()))


def read_folder(folder: Path) -> Source:
    """Images below a folder; links to other folders are followed, a loop of links is refused."""
    with reading(folder, "a folder of images", "check its permissions"):
        files = {file.relative_to(folder).parts: file for file in _files_below(folder, ())}
        names = _image_names(folder, files)
        size = sum(files[name].stat().st_size for name in names if files[name].exists())
    return _read_images(folder, folder.resolve().name, names, size, lambda name: files[name].read_bytes())


def read_zip(path: Path) -> Source:
    """Images in a zip file."""
    with reading(path, "a zip file", "it may be cut short: make it again"), zipfile.ZipFile(path) as archive:
        members = {tuple(info.filename.split("/")): info for info in archive.infolist()}
        names = _image_names(path, members)
        size = path.stat().st_size
        refuse_bomb(path, size, sum(members[name].file_size for name in names))
        return _read_images(path, path.stem, names, size, lambda name: archive.read(members[name]))


def _files_below(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        raise wrong(folder, "is a link to a folder that holds it; remove the link")
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files_below(entry, (*above, real))
        else:
            yield entry


def _image_names(where: Path, names: Iterable[Name]) -> list[Name]:
    """Sorted names of the images, without hidden files and the shadow files that macOS puts in zip files."""
    chosen = sorted(name for name in names if _is_image(name))
    if not chosen:
        raise wrong(where, f"holds no images; known are {', '.join(SUFFIXES)}")
    return chosen


def _is_image(name: Name) -> bool:
    return name[-1].lower().endswith(SUFFIXES) and not name[-1].startswith(".") and "__MACOSX" not in name


def _read_images(where: Path, title: str, names: list[Name], packed: int,
                 read: Callable[[Name], bytes]) -> Source:
    levels = zip(*(name[:-1] for name in names), strict=False)
    depth = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    folders = {name[depth] for name in names if len(name) > depth + 1}
    split = next((("train", top) for top in HELDOUT_FOLDERS if {"train", top} <= folders), None)
    notes: list[str] = []
    n_train = len(names)
    if split is not None:
        parts = [[name for name in names if name[depth] == top] for top in split]
        n_train = len(parts[0])
        if left := len(names) - sum(map(len, parts)):
            notes.append(f"{left:,} images outside {split[0]}/ and {split[1]}/ left out")
        names, depth = parts[0] + parts[1], depth + 1
    labels = _class_names(names, depth)
    if labels is not None:
        notes.append(f"labels from {len(np.unique(labels))} folders, one per class")
    images = _decode(where, names, packed, read, notes)

    def points(rows: slice) -> Points:
        return as_points(images[rows], where, None if labels is None else labels[rows])

    return Source(title, points(slice(n_train)), None if split is None else points(slice(n_train, None)),
                  tuple(notes))


def _class_names(names: list[Name], depth: int) -> np.ndarray | None:
    """Name of the folder each image is in, or None where they are not in two or more folders."""
    if any(len(name) == depth + 1 for name in names):
        return None
    classes = np.array([name[depth] for name in names])
    return classes if len(np.unique(classes)) > 1 else None


def _decode(where: Path, names: list[Name], packed: int, read: Callable[[Name], bytes],
            notes: list[str]) -> np.ndarray:
    """uint8 ``(N, H, W)`` when all images are grey, else ``(N, H, W, 3)``."""
    arrays: list[np.ndarray] = []
    size = None
    n_transparent = 0
    for name in tqdm(names, desc=f"reading {where.name}", unit="image", leave=False, delay=1, disable=None):
        here = f"{where}: {'/'.join(name)}"
        with reading(here, "an image", "repair or remove it"), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(read(name)))
            if size is None:
                size = image.size
                refuse_bomb(where, packed, len(names) * size[0] * size[1] * len(image.getbands()))
            if image.size != size:
                raise wrong(here, f"is {image.size[0]} x {image.size[1]}, but {'/'.join(names[0])} is "
                                  f"{size[0]} x {size[1]}; all images must have one size")
            if image.mode.startswith(("I", "F")):
                raise wrong(here, f"has more than 8 bits per value (mode {image.mode}); convert it to 8 bits")
            if "A" in image.getbands() or "transparency" in image.info:
                n_transparent += 1
                image = image.convert("RGBA" if image.mode == "P" else image.mode)
            arrays.append(np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")))
    if n_transparent:
        notes.append(f"transparency of {n_transparent:,} images dropped")
    n_grey = sum(array.ndim == 2 for array in arrays)
    if 0 < n_grey < len(arrays):
        notes.append(f"{n_grey:,} grey images made RGB beside {len(arrays) - n_grey:,} colour images")
        arrays = [np.stack([array] * 3, axis=-1) if array.ndim == 2 else array for array in arrays]
    return np.stack(arrays)
