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

import gzip
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from weakref import finalize

import numpy as np

from geomem.data.child import in_child
from geomem.data.columns import IMAGE_COLUMNS
from geomem.data.labels import METADATA_FILES, Name, labels_beside
from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import as_labels
from geomem.data.source import Source, split_word
from geomem.data.unpacking import refuse_bomb
from geomem.errors import are, as_input_error, counted, file_error, one_line
from geomem.files import TEMPORARY_PREFIX, require_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN_FOLDERS = ("train", "training")
HELDOUT_FOLDERS = ("heldout", "held-out", "test", "testing", "val", "valid", "validation", "eval")
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".tga", ".dng", ".psd")  # images all the same
TARS = (".tar", ".tar.gz", ".tgz")
PACKED = (".zip", *TARS)
_PIECE = 1 << 22  # bytes unpacked at a time
_OTHERS = (*PACKED, ".npy", ".npz", ".parquet", ".arrow", ".tfrecord", ".tfrecords", ".h5", ".hdf5", ".mat")  # of data


@dataclass(frozen=True)
class Files:
    """The files of a folder or archive: their ``names`` and, of each, the bytes that it has and its content.

    packed: the size of a compressed archive, None for what is not compressed.
    """

    where: Path
    names: Collection[Name]
    size: Callable[[Name], int]
    content: Callable[[Name], bytes]
    packed: int | None = None

    def read(self, name: Name) -> bytes:
        """The content of a file. Raises InputError where it cannot be read or is too large for an image."""
        here = f"{self.where}: {'/'.join(name)}"
        with as_input_error(here, "an image", "repair or remove it"):
            if self.size(name) > MAX_ENCODED_BYTES:
                raise file_error(here, "is too large for one image; scale it down")
            return self.content(name)

    def pictures(self, names: Sequence[Name]) -> Pictures:
        """Pictures in the files of these names."""

        def read(positions: np.ndarray) -> Generator[bytes, None, None]:
            return (self.read(names[i]) for i in positions)

        def size(positions: np.ndarray) -> int:
            return sum(self.size(names[i]) for i in positions) if self.packed is None else self.packed

        return Pictures(str(self.where), read, size, lambda i: "/".join(names[i]), np.arange(len(names)))


def holds_images(folder: Path) -> bool:
    """Whether there is an image anywhere below the folder."""
    with as_input_error(folder, "a folder of images", "check its permissions"):
        return any(map(_is_image, files_below(folder)))


def read_folder(folder: Path) -> Source:
    """Images below a folder; links to other folders are followed, a loop of links is refused."""
    return _in_parts(folder_files(folder), folder.resolve().name)


def folder_files(folder: Path) -> Files:
    """All files below a folder."""
    with as_input_error(folder, "a folder of images", "check its permissions"):
        names = list(files_below(folder))

    def size(name: Name) -> int:
        path = folder.joinpath(*name)
        return path.stat().st_size if path.is_file() else 0

    def content(name: Name) -> bytes:
        require_file(path := folder.joinpath(*name), "remove it")
        return path.read_bytes()

    return Files(folder, names, size, content)


def read_zip(path: Path) -> Source:
    """Images in a zip file."""
    return _in_parts(zip_files(path), path.stem)


def zip_files(path: Path) -> Files:
    """All members of a zip file."""
    with as_input_error(path, "a zip file", "it may be cut short: make it again"):
        archive = zipfile.ZipFile(path)  # closed when its last picture is read
        members = {tuple(member.filename.split("/")): member for member in archive.infolist()}
        packed = path.stat().st_size
        refuse_bomb(path, packed, sum(member.file_size for member in members.values()))
    return Files(path, members.keys(), lambda name: members[name].file_size, lambda name: archive.read(members[name]),
                 packed)


def read_tars(paths: list[Path], where: Path) -> Source:
    """Images in tar files."""
    members: dict[Name, tuple[Path, int, int]] = {}
    plain = {path: path for path in paths}  # each tar file itself, or the temporary one that it unpacks to

    def content(name: Name) -> bytes:
        path, offset, size = members[name]
        with open(plain[path], "rb") as file:
            file.seek(offset)
            return file.read(size)

    for path in paths:
        word = split_word(path)
        with as_input_error(path, "a tar file", "unpack it, or make it again"):
            if is_packed_tar(path):
                handle, scratch = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=".tar")
                plain[path] = Path(scratch)
                finalize(content, plain[path].unlink, missing_ok=True)  # when nothing reads it any more, or at exit
                _unpack(path, handle)
            for piece in in_child(_tar_members, plain[path]):
                for name, offset, size in piece:
                    inside = tuple(part for part in name.split("/") if part not in ("", ".")) or (name,)
                    full = (word, *inside) if word and len(paths) > 1 else inside
                    if full in members and members[full][0] != path:
                        raise file_error(path, f"holds {name}, as {members[full][0].name} does; give them one by one")
                    members[full] = path, offset, size

    classes = {_key(name): name for name in members if name[-1].endswith(".cls")}
    fields = _image_fields(members)
    names = [name for name in members if not fields or not _is_image(name) or _field(name) == fields[0]]
    packed = sum(path.stat().st_size for path in paths)
    files = Files(where, names, lambda name: members[name][2], content, packed)
    source = _in_parts(files, where.resolve().name if where.is_dir() else where.stem.removesuffix(".tar"))
    if fields:
        note = f"of each example {fields[0]} is read, not {', '.join(fields[1:])}"
        source = replace(source, notes=(*source.notes, note))
    return _with_classes(source, files, classes) if classes else source


def is_packed_tar(path: Path) -> bool:
    """Whether gzip unpacks the beginning of a file to that of a tar file."""
    with suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
        return file.read(512)[257:262] == b"ustar"
    return False


def _unpack(path: Path, handle: int) -> None:
    """Write what a ``.tar.gz`` unpacks to into an open file: in the archive, no file can be read without those before.
    """
    from tqdm.auto import tqdm

    folder = tempfile.gettempdir()
    with gzip.open(path) as archive, open(handle, "wb") as file, tqdm(
            desc=f"unpacking {one_line(path.name)}", unit="B", unit_scale=True, leave=False, delay=1,
            disable=None) as shown:
        while piece := archive.read(_PIECE):
            refuse_bomb(path, path.stat().st_size, file.tell() + len(piece))
            if len(piece) > shutil.disk_usage(folder).free:
                raise file_error(path, f"unpacks to more than {folder} has free; set TMPDIR to a folder on a larger "
                                       "disk")
            file.write(piece)
            shown.update(len(piece))


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


def _with_classes(source: Source, files: Files, classes: dict[Name, Name]) -> Source:
    """The source with the classes that files ``.cls`` name, in place of those of folders."""
    labelled = []
    for part in source.parts:
        assert isinstance(part, Pictures)
        names = [tuple(part.name(int(i)).split("/")) for i in part.chosen]
        if lacking := next((name for name in names if _key(name) not in classes), None):
            raise file_error(files.where, f"holds no .cls beside {'/'.join(lacking)}; label all images, or none")
        with as_input_error(files.where, "images with classes in .cls files", "make it again"):
            texts = [files.read(classes[_key(name)]).decode().strip() for name in names]
            numbers = all(re.fullmatch(r"[0-9]{1,18}", text) for text in texts)
            labelled.append(replace(part, labels=as_labels([int(text) for text in texts] if numbers else texts)))
    notes = tuple(note for note in source.notes if not note.startswith("labels from"))
    return Source(source.name, labelled, (*notes, "labels from .cls files"))


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


def _in_parts(files: Files, title: str) -> Source:
    """The images among the files, with the split that folders give, and labels from beside them or folders."""
    names = [name for name in files.names if not _is_hidden(name)]
    images = sorted(name for name in names if _is_image(name))
    if not images:
        packed = sorted(name for name in names if name[-1].lower().endswith(PACKED))
        raise file_error(files.where, f"holds no images but {'/'.join(packed[0])}; give that file itself, or unpack it"
                         if packed else f"holds no images; known are {', '.join(SUFFIXES)}")
    beside = labels_beside(files.where, names, images, files.read)
    notes, images, labels = [*unread(set(names) - set(images)), *beside.notes], beside.images, beside.labels
    split, folders = _split(images)
    chosen = [np.flatnonzero([top == part for top, _ in folders]) for part in split] or [np.arange(len(images))]
    if split and (left := len(images) - sum(map(len, chosen))):
        notes.append(f"{counted(left, 'image')} outside {split[0]}/ and {split[1]}/ left out")
    inside = [pair[bool(split)] for pair in folders]  # the folder that may be a class
    of_parts = [(inside[i], images[i][-1]) for i in np.concatenate(chosen)]
    classes = {folder for folder, _ in of_parts}
    if not beside.instead_of_folders and "" not in classes and len(classes) > 1:
        if _are_shards(of_parts):
            notes.append(f"{len(classes):,} folders number the images in them and are no classes")
        else:
            with as_input_error(files.where, "images in folders of classes", "rename the folder"):
                labels = as_labels(inside)
            notes.append(f"labels from {len(classes)} folders, one per class")
    pictures = replace(files.pictures(images), labels=labels)
    return Source(title, [pictures.take(index) for index in chosen], tuple(notes))


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


def _is_hidden(name: Name) -> bool:
    """So are the shadow files that macOS puts in zip files."""
    return any(part.startswith(".") and part not in (".", "..") for part in name) or "__MACOSX" in name


def _is_image(name: Name) -> bool:
    return not _is_hidden(name) and name[-1].lower().endswith(SUFFIXES)


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
