"""Folders, zip and tar files of images.

Images are taken recursively, in the order of their names. Folders that hold all the images are ignored; what remains
of a path decides: ``train/`` beside ``heldout/``, ``test/`` or another usual name, in any case, is the split, and one
folder per class gives the labels, unless a file beside the images does (:mod:`geomem.data.labels`). Folders that number
the files in them, as EDM's dataset tool and FFHQ have them, are *shards* and no classes. Hidden files and folders are
left out. All images must have one size; grey images keep one channel. Of an animation the first frame is taken. Members
of archives are read in memory and never extracted, and of many images only those that are asked for are decoded.

In a tar file, as webdataset has them, files of one name up to its first dot belong together: ``7.jpg`` has the class in
``7.cls``, and of ``7.image.png`` and ``7.mask.png`` the former is read. Several tar files follow one another by name,
those named ``train-...`` beside ``test-...`` or ``validation-...`` as the split.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from geomem.data.child import in_child
from geomem.data.hub import IMAGE_COLUMNS
from geomem.data.labels import METADATA_FILES, labels_beside
from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import class_names
from geomem.data.source import Source, split_word
from geomem.data.unpacking import refuse_bomb
from geomem.errors import are, as_input_error, counted, file_error
from geomem.files import require_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN_FOLDERS = ("train", "training")
HELDOUT_FOLDERS = ("heldout", "held-out", "test", "testing", "val", "valid", "validation", "eval")
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".tga", ".dng", ".psd")  # images all the same
_OTHERS = (".npy", ".npz", ".parquet", ".arrow", ".zip", ".tar", ".tar.gz", ".tgz", ".tfrecord", ".tfrecords", ".h5",
           ".hdf5", ".mat")  # that look like data

_ZIP_ADVICE = "it may be cut short: make it again"

Name = tuple[str, ...]  # the parts of a path inside the folder or zip file


def holds_images(folder: Path) -> bool:
    """Whether there is an image anywhere below the folder."""
    with as_input_error(folder, "a folder of images", "check its permissions"):
        return any(map(_is_image, files_below(folder)))


def read_folder(folder: Path) -> Source:
    """Images below a folder; links to other folders are followed, a loop of links is refused."""
    with as_input_error(folder, "a folder of images", "check its permissions"):
        names = list(files_below(folder))
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


def read_tar(path: Path) -> Source:
    """Images in a tar file."""
    return read_tars([path], path)


def read_tars(paths: list[Path], where: Path) -> Source:
    """Images in tar files."""
    members: dict[Name, tuple[Path, int, int]] = {}
    for path in paths:
        word = split_word(path)
        with as_input_error(path, "a tar file", "unpack it, or make it again"):
            for piece in in_child(_tar_members, path):
                for name, offset, size in piece:
                    inside = tuple(part for part in name.split("/") if part not in ("", ".")) or (name,)
                    full = (word, *inside) if word and len(paths) > 1 else inside
                    if full in members and members[full][0] != path:
                        raise file_error(path, f"holds {name}, as {members[full][0].name} does; give them one by one")
                    members[full] = path, offset, size
    classes = {_key(name): name for name in members if name[-1].endswith(".cls")}
    fields = _image_fields(members)
    names = [name for name in members if not fields or not _is_image(name) or _field(name) == fields[0]]

    def pictures_of(names: list[str]) -> Pictures:
        places = [members[tuple(name.split("/"))] for name in names]

        def read(positions: np.ndarray) -> Generator[bytes, None, None]:
            for i in positions:
                path, offset, size = places[i]
                with as_input_error(f"{path}: {names[i]}", "an image", "make the file again"), open(path, "rb") as file:
                    if size > MAX_ENCODED_BYTES:
                        raise file_error(f"{path}: {names[i]}", "is too large for one image; scale it down")
                    file.seek(offset)
                    content = file.read(size)
                yield content

        return Pictures(str(where), read, lambda at: sum(places[i][2] for i in at), names.__getitem__,
                        np.arange(len(names)))

    title = where.resolve().name if where.is_dir() else where.stem
    source = _in_parts(where, title, names, pictures_of)
    if fields:
        note = f"of each example {fields[0]} is read, not {', '.join(fields[1:])}"
        source = replace(source, notes=(*source.notes, note))
    return source if not classes else _with_classes(source, where, classes, pictures_of)


def _key(name: Name) -> Name:
    """What the files of one example have in common."""
    return *name[:-1], name[-1].split(".")[0]


def _field(name: Name) -> str:
    """What a file is of its example: ``mask.png``."""
    return name[-1].partition(".")[2]


def _image_fields(members: Iterable[Name]) -> list[str]:
    """Where each example has the same several images: what they are called, the one to read first, else []."""
    images = [name for name in members if _is_image(name)]
    fields = list(dict.fromkeys(map(_field, images)))
    if len(fields) < 2 or len(images) != len(fields) * len({_key(name) for name in images}):
        return []
    usual = [field for field in fields if field.split(".")[0] in IMAGE_COLUMNS] + [
        field for field in fields if "." not in field]
    return list(dict.fromkeys([*usual, *fields]))


def _with_classes(source: Source, where: Path, classes: dict[Name, Name],
                  pictures_of: Callable[[list[str]], Pictures]) -> Source:
    """The source with the classes that files ``.cls`` name, in place of those of folders."""
    parts = []
    for part in filter(None, (source.train, source.heldout)):
        assert isinstance(part, Pictures)
        names = [tuple(part.name(int(i)).split("/")) for i in part.chosen]
        if lacking := next((name for name in names if _key(name) not in classes), None):
            raise file_error(where, f"holds no .cls beside {'/'.join(lacking)}; label all images, or none")
        files = pictures_of(["/".join(classes[_key(name)]) for name in names])
        with as_input_error(where, "images with classes in .cls files", "make it again"):
            texts = [content.decode().strip() for content in files.read(np.arange(len(names)))]
            numbers = all(re.fullmatch(r"[0-9]{1,18}", text) for text in texts)
            parts.append(replace(part, labels=np.array(texts, dtype=np.int64) if numbers else class_names(texts)))
    notes = tuple(note for note in source.notes if not note.startswith("labels from"))
    return replace(source, train=parts[0], heldout=parts[1] if len(parts) > 1 else None,
                   notes=(*notes, "labels from .cls files"))


def _tar_members(path: Path) -> Iterator[list[tuple[str, int, int]]]:
    """In the child: name, first byte and length of each file in a tar file, some at a time."""
    import tarfile

    size, piece = path.stat().st_size, []
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else all are kept
            if member.isreg() and not member.issparse():
                if not 0 <= member.offset_data <= member.offset_data + member.size <= size:
                    raise ValueError(f"{member.name} is cut short")
                piece.append((member.name, member.offset_data, member.size))
            if len(piece) == 10_000:
                yield piece
                piece = []
    yield piece


def files_below(folder: Path) -> Iterator[Name]:
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
        packed = sorted(name for name in names if name[-1].lower().endswith((".zip", ".tar")))
        raise file_error(where, f"holds no images but {'/'.join(packed[0])}; give that file itself, or unpack it"
                         if packed else f"holds no images; known are {', '.join(SUFFIXES)}")
    beside = labels_beside(where, names, images, lambda name: _content(pictures_of(["/".join(name)])))
    notes, images, labels = [*unread(set(names) - set(images)), *beside.notes], beside.images, beside.labels
    split, folders = _split(images)
    chosen = [np.flatnonzero([top == part for top, _ in folders]) for part in split] or [np.arange(len(images))]
    if split and (left := len(images) - sum(map(len, chosen))):
        notes.append(f"{counted(left, 'image')} outside {split[0]}/ and {split[1]}/ left out")
    if not beside.instead_of_folders:
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


def unread(names: Iterable[Name]) -> list[str]:
    """Notes of those of these files, which were not read, that look like data."""
    there = sorted(name for name in names if not _is_hidden(name) and name[-1] not in METADATA_FILES)
    notes = []
    for suffixes, what, advice in ((UNREAD_SUFFIXES, "image", "; convert them to PNG"),
                                   (SUFFIXES + _OTHERS, "other file", "")):
        if found := [name for name in there if name[-1].lower().endswith(suffixes)]:
            notes.append(f"{counted(len(found), what)} {are(len(found))} not read, "
                         f"{'/'.join(found[0])} for one{advice}")
    return notes


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
    """Whether the folder of each image follows from its number: ``00012/img00012345.png`` of EDM's and StyleGAN's
    tools, ``00012/000120345.jpg`` of img2dataset, ``012000/012345.png`` of what EDM generates, ``12000/12345.png`` of
    FFHQ.
    """
    for folder, name in names:
        number = re.search(r"([0-9]{5,18})[^0-9]*$", name)
        if number is None or re.fullmatch(r"[0-9]{5,18}", folder) is None or not (
                number[1].startswith(folder) or int(number[1]) // 1000 * 1000 == int(folder)):
            return False
    return True
