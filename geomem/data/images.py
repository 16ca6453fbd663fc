"""Folders and zip files of images.

Images are taken recursively, in the order of their names. Folders that hold all the images are ignored; what
remains of a path decides: ``train/`` beside ``heldout/``, ``test/`` or ``val/`` is the split, and one folder
per class gives the labels. All images must have one size; grey images keep one channel. Of an animation the
first frame is taken. Zip members are read in memory and never extracted, and of many images only those that are
asked for are decoded.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.source import Source
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
HELDOUT_FOLDERS = ("heldout", "test", "val")

_ZIP_ADVICE = "it may be cut short: make it again"

Name = tuple[str, ...]  # the parts of a path inside the folder or zip file


def holds_images(folder: Path) -> bool:
    """Whether there is an image anywhere below the folder."""
    with as_input_error(folder, "a folder of images", "check its permissions"):
        return any(map(_is_image, _files_below(folder)))


def read_folder(folder: Path) -> Source:
    """Images below a folder; links to other folders are followed, a loop of links is refused."""
    with as_input_error(folder, "a folder of images", "check its permissions"):
        names = _image_names(folder, _files_below(folder))
    return _in_parts(folder, folder.resolve().name, names,
                     pictures_of_files(folder, folder, ["/".join(name) for name in names]))


def pictures_of_files(where: Path, folder: Path, names: Sequence[str]) -> Pictures:
    """Pictures in the files of these names in a folder."""

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for i in positions:
            with as_input_error(f"{where}: {names[i]}", "an image", "repair or remove it"):
                require_file(folder / names[i], "remove it", MAX_ENCODED_BYTES)
                content = (folder / names[i]).read_bytes()
            yield content

    def sizes(positions: np.ndarray) -> tuple[int, int]:
        paths = (os.path.join(folder, names[i]) for i in positions)
        size = sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
        return size, size

    return Pictures(str(where), read, sizes, names.__getitem__, np.arange(len(names)))


def read_zip(path: Path) -> Source:
    """Images in a zip file."""
    names = _image_names(path, set(member_names(path)))
    return _in_parts(path, path.stem, names, pictures_of_members(path, ["/".join(name) for name in names]))


def member_names(path: Path) -> list[Name]:
    """Names of all members of a zip file."""
    with as_input_error(path, "a zip file", _ZIP_ADVICE), zipfile.ZipFile(path) as archive:
        return [tuple(name.split("/")) for name in archive.namelist()]


def pictures_of_members(path: Path, names: Sequence[str]) -> Pictures:
    """Pictures in these members of a zip file."""

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        with zipfile.ZipFile(path) as archive:
            for i in positions:
                with as_input_error(f"{path}: {names[i]}", "an image", _ZIP_ADVICE):
                    if archive.getinfo(names[i]).file_size > MAX_ENCODED_BYTES:
                        raise file_error(f"{path}: {names[i]}", "is too large for one image; scale it down")
                    content = archive.read(names[i])
                yield content

    def sizes(positions: np.ndarray) -> tuple[int, int]:
        with zipfile.ZipFile(path) as archive:
            return path.stat().st_size, sum(archive.getinfo(names[i]).file_size for i in positions)

    return Pictures(str(path), read, sizes, names.__getitem__, np.arange(len(names)))


def _files_below(folder: Path) -> Iterator[Name]:
    """Names of all files; links are followed, and a folder that is met again is refused."""
    met: set[str] = set()
    waiting: list[Name] = [()]
    while waiting:
        above = waiting.pop()
        here = os.path.join(folder, *above)
        real = os.path.realpath(here)
        if real in met:
            raise file_error(here, "is a folder that is met on another way too; remove the link")
        met.add(real)
        with os.scandir(here) as entries:
            for entry in entries:
                name = (*above, entry.name)
                if entry.is_dir():
                    waiting.append(name)
                else:
                    yield name


def _image_names(where: Path, names: Iterable[Name]) -> list[Name]:
    """Sorted names of the images, without hidden files and the shadow files that macOS puts in zip files."""
    chosen = sorted(name for name in names if _is_image(name))
    if not chosen:
        raise file_error(where, f"holds no images; known are {', '.join(SUFFIXES)}")
    return chosen


def _is_image(name: Name) -> bool:
    return name[-1].lower().endswith(SUFFIXES) and not name[-1].startswith(".") and "__MACOSX" not in name


def _in_parts(where: Path, title: str, names: list[Name], pictures: Pictures) -> Source:
    """The split and the labels that the folders in the names give."""
    levels = zip(*(name[:-1] for name in names), strict=False)
    depth = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    folders = {name[depth] for name in names if len(name) > depth + 1}
    split = next((("train", top) for top in HELDOUT_FOLDERS if {"train", top} <= folders), None)
    if split is None:
        (train,), notes = _labelled([pictures], names, depth)
        return Source(title, train, None, tuple(notes))
    tops = np.array([name[depth] for name in names])
    parts = [pictures.take(np.flatnonzero(tops == top)) for top in split]
    (train, heldout), notes = _labelled(parts, names, depth + 1)
    if left := len(names) - sum(map(len, parts)):
        notes.insert(0, f"{left:,} images outside {split[0]}/ and {split[1]}/ left out")
    return Source(title, train, heldout, tuple(notes))


def _labelled(parts: list[Pictures], names: list[Name], depth: int) -> tuple[list[Pictures], list[str]]:
    """The parts with the names of the folders the images are in, where those are two or more."""
    inside = [[names[i] for i in part.chosen] for part in parts]
    classes = _class_names([name for part in inside for name in part], depth)
    if classes is None:
        return parts, []
    cuts = np.split(classes, np.cumsum([len(part) for part in inside])[:-1])
    return ([replace(part, labels=labels) for part, labels in zip(parts, cuts, strict=True)],
            [f"labels from {len(np.unique(classes))} folders, one per class"])


def _class_names(names: list[Name], depth: int) -> np.ndarray | None:
    """Name of the folder each image is in, or None where they are not in two or more folders."""
    if any(len(name) == depth + 1 for name in names):
        return None
    classes = np.array([name[depth] for name in names])
    return classes if len(np.unique(classes)) > 1 else None
