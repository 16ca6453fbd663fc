"""Folders and zip files of images.

Images are taken recursively, in the order of their names. Folders that hold all the images are ignored; what remains
of a path decides: ``train/`` beside ``heldout/``, ``test/`` or another usual name, in any case, is the split, and one
folder per class gives the labels. Hidden files and folders are left out. All images must have one size; grey images
keep one channel. Of an animation the first frame is taken. Zip members are read in memory and never extracted, and of
many images only those that are asked for are decoded.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import class_names
from geomem.data.source import Source
from geomem.data.unpacking import refuse_bomb
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN_FOLDERS = ("train", "training")
HELDOUT_FOLDERS = ("heldout", "held-out", "test", "testing", "val", "valid", "validation", "eval")
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".tga", ".dng", ".psd")  # images all the same

LOG = logging.getLogger("geomem")
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
    return _in_parts(folder.resolve().name, names,
                     pictures_of_files(folder, folder, ["/".join(name) for name in names]))


def pictures_of_files(where: Path, folder: Path, names: Sequence[str]) -> Pictures:
    """Pictures in the files of these names in a folder."""

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for i in positions:
            with as_input_error(f"{where}: {names[i]}", "an image", "repair or remove it"):
                require_file(folder / names[i], "remove it", MAX_ENCODED_BYTES)
                content = (folder / names[i]).read_bytes()
            yield content

    def size(positions: np.ndarray) -> int:
        paths = (os.path.join(folder, names[i]) for i in positions)
        return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))

    return Pictures(str(where), read, size, names.__getitem__, np.arange(len(names)))


def read_zip(path: Path) -> Source:
    """Images in a zip file."""
    names = _image_names(path, set(member_names(path)))
    return _in_parts(path.stem, names, pictures_of_members(path, ["/".join(name) for name in names]))


def member_names(path: Path) -> list[Name]:
    """Names of all members of a zip file."""
    with as_input_error(path, "a zip file", _ZIP_ADVICE), zipfile.ZipFile(path) as archive:
        return [tuple(name.split("/")) for name in archive.namelist()]


def pictures_of_members(path: Path, names: Sequence[str]) -> Pictures:
    """Pictures in these members of a zip file."""

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(path, path.stat().st_size, sum(archive.getinfo(names[i]).file_size for i in positions))
            for i in positions:
                with as_input_error(f"{path}: {names[i]}", "an image", _ZIP_ADVICE):
                    if archive.getinfo(names[i]).file_size > MAX_ENCODED_BYTES:
                        raise file_error(f"{path}: {names[i]}", "is too large for one image; scale it down")
                    content = archive.read(names[i])
                yield content

    return Pictures(str(path), read, lambda _: path.stat().st_size, names.__getitem__, np.arange(len(names)))


def _files_below(folder: Path) -> Iterator[Name]:
    """Names of all files; links are followed, and a folder that is met again is refused."""
    def fail(error: OSError) -> None:
        raise error

    met: set[str] = set()
    for here, _, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(here)
        if real in met:
            raise file_error(here, "is a folder that is met on another way too; remove the link")
        met.add(real)
        above = Path(here).relative_to(folder).parts
        yield from ((*above, name) for name in files)


def _image_names(where: Path, names: Iterable[Name]) -> list[Name]:
    """Sorted names of the images, without what is hidden and the shadow files that macOS puts in zip files."""
    names = list(names)
    chosen = sorted(name for name in names if _is_image(name))
    unread = [name for name in names if _is_image(name, UNREAD_SUFFIXES)]
    if chosen and unread:
        LOG.info(f"note: {where}: {len(unread):,} images are not read, {unread[0][-1]} for one; convert them to PNG")
    if not chosen:
        raise file_error(where, f"holds no images; known are {', '.join(SUFFIXES)}")
    return chosen


def _is_image(name: Name, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    hidden = any(part.startswith(".") and part not in (".", "..") for part in name) or "__MACOSX" in name
    return not hidden and name[-1].lower().endswith(suffixes)


def _in_parts(title: str, names: list[Name], pictures: Pictures) -> Source:
    """The split and the labels that the folders in the names give."""
    levels = zip(*(name[:-1] for name in names), strict=False)
    depth = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    folders = _folders(names, depth)
    split = _split_folders(set(folders.tolist()))
    chosen = [np.flatnonzero(folders == top) for top in split] or [np.arange(len(names))]
    notes = []
    if split and (left := len(names) - sum(map(len, chosen))):
        notes.append(f"{left:,} images outside {split[0]}/ and {split[1]}/ left out")
    labels = _folders(names, depth + 1) if split else folders
    classes = np.unique(labels[np.concatenate(chosen)])
    if "" not in classes and len(classes) > 1:
        with as_input_error(pictures.where, "images in folders of classes", "rename the folder"):
            pictures = replace(pictures, labels=class_names(labels.tolist()))
        notes.append(f"labels from {len(classes)} folders, one per class")
    train, *heldout = (pictures.take(index) for index in chosen)
    return Source(title, train, heldout[0] if heldout else None, tuple(notes))


def _split_folders(folders: set[str]) -> tuple[str, ...]:
    """The names of the folders with the training and the held-out points, as they are written, or ()."""
    written = {folder.lower(): folder for folder in sorted(folders)}
    train, heldout = (next((written[name] for name in known if name in written), None)
                      for known in (TRAIN_FOLDERS, HELDOUT_FOLDERS))
    return () if train is None or heldout is None else (train, heldout)


def _folders(names: list[Name], depth: int) -> np.ndarray:
    """The folder at a depth that each image is in, "" where it is in none there."""
    return np.array([name[depth] if len(name) > depth + 1 else "" for name in names], dtype=object)
