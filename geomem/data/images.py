"""Folders and zip files of images.

Images are taken recursively, in the order of their names. Folders that hold all the images are ignored; what remains
of a path decides: ``train/`` beside ``heldout/``, ``test/`` or another usual name, in any case, is the split, and one
folder per class gives the labels, unless a file beside the images does (:mod:`geomem.data.labels`). Folders that number
the files in them, as EDM's dataset tool and FFHQ have them, are *shards* and no classes. Hidden files and folders are
left out. All images must have one size; grey images keep one channel. Of an animation the first frame is taken. Zip
members are read in memory and never extracted, and of many images only those that are asked for are decoded.
"""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from geomem.data.labels import labels_beside
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
        names = list(_files_below(folder))
    return _in_parts(folder, folder.resolve().name, names, lambda chosen: pictures_of_files(folder, folder, chosen))


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
    return _in_parts(path, path.stem, set(member_names(path)), lambda chosen: pictures_of_members(path, chosen))


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


def _in_parts(where: Path, title: str, names: Iterable[Name], pictures_of: Callable[[list[str]], Pictures]) -> Source:
    """The images among files of these names, with the split that folders give, and labels from beside them or folders.
    """
    names = [name for name in names if not _is_hidden(name)]
    images = sorted(name for name in names if _is_image(name))
    if not images:
        raise file_error(where, f"holds no images; known are {', '.join(SUFFIXES)}")
    unread = [name for name in names if _is_image(name, UNREAD_SUFFIXES)]
    if unread:
        LOG.info(f"note: {where}: {len(unread):,} images are not read, {unread[0][-1]} for one; convert them to PNG")
    beside = labels_beside(where, names, images, lambda name: _content(pictures_of(["/".join(name)])))
    notes = []
    if beside is not None:
        notes += beside.notes
        images = beside.images
    split, folders = _split(images)
    chosen = [np.flatnonzero([top == part for top, _ in folders]) for part in split] or [np.arange(len(images))]
    if split and (left := len(images) - sum(map(len, chosen))):
        notes.append(f"{left:,} images outside {split[0]}/ and {split[1]}/ left out")
    labels = None if beside is None else beside.labels
    if beside is None:
        inside = [folders[i][bool(split)] for i in np.concatenate(chosen)]
        if "" not in inside and len(classes := set(inside)) > 1:
            if _are_shards([(folders[i][bool(split)], images[i][-1]) for i in np.concatenate(chosen)]):
                notes.append(f"{len(classes):,} folders number the images in them and are no classes")
            else:
                with as_input_error(where, "images in folders of classes", "rename the folder"):
                    labels = class_names([pair[bool(split)] for pair in folders])
                notes.append(f"labels from {len(classes)} folders, one per class")
    pictures = replace(pictures_of(["/".join(name) for name in images]), labels=labels)
    train, *heldout = (pictures.take(index) for index in chosen)
    return Source(title, train, heldout[0] if heldout else None, tuple(notes))


def _content(file: Pictures) -> bytes:
    """Of the only file."""
    with closing(file.read(np.arange(1))) as contents:
        return next(contents)


def _is_hidden(name: Name) -> bool:
    """So are the shadow files that macOS puts in zip files."""
    return any(part.startswith(".") and part not in (".", "..") for part in name) or "__MACOSX" in name


def _is_image(name: Name, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    return not _is_hidden(name) and name[-1].lower().endswith(suffixes)


def _split(names: list[Name]) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """The names of the folders with the training and the held-out points, as they are written, or (); and of each image
    the two folders that it is in below those that hold all images, "" where there is none.
    """
    levels = zip(*(name[:-1] for name in names), strict=False)
    depth = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    folders = [((*name[depth:-1], "", "")[0], (*name[depth:-1], "", "")[1]) for name in names]
    written = {top.lower(): top for top in sorted({top for top, _ in folders})}
    train, heldout = (next((written[name] for name in known if name in written), None)
                      for known in (TRAIN_FOLDERS, HELDOUT_FOLDERS))
    return () if train is None or heldout is None else (train, heldout), folders


def _are_shards(names: list[tuple[str, str]]) -> bool:
    """Whether the folder of each image, one of a thousand, follows from its number: ``00012/img00012345.png`` of EDM's
    and StyleGAN's tools, ``012000/012345.png`` of what EDM generates, ``12000/12345.png`` of FFHQ.
    """
    for folder, name in names:
        number = re.search(r"([0-9]{5,18})[^0-9]*$", name)
        if number is None or re.fullmatch(r"[0-9]{5,18}", folder) is None \
                or int(folder) not in (int(number[1]) // 1000, int(number[1]) // 1000 * 1000):
            return False
    return True
