"""Which reader reads which path. The content decides, and only where it says nothing the name.

=====================================================  ==========================================
``.npy``, ``.npz``, a folder of ``.npy``               :mod:`geomem.data.arrays`
a folder, ``.zip``, ``.tar``, ``.tar.gz`` of images    :mod:`geomem.data.images`
a folder of tar files, as webdataset has them          :mod:`geomem.data.images`
UCR text, ``.ts``, ``.arff``, a folder with X_TRAIN    :mod:`geomem.data.series`
``.csv``, ``.tsv`` whose first line is no numbers      :mod:`geomem.data.table`
CIFAR-10 batches, python and binary                    :mod:`geomem.data.cifar`
IDX, plain or ``.gz``, a folder with train-images      :mod:`geomem.data.idx`
CelebA's and Flowers-102's folders                     :mod:`geomem.data.official`
``.parquet``, ``.arrow``, a folder of them             :mod:`geomem.data.parquet`
``.nii``, ``.nii.gz``, a folder of them                :mod:`geomem.data.volumes`
=====================================================  ==========================================
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomem.data.arrays import read_npy, read_npz, read_shards, shards
from geomem.data.cifar import batches, is_binary_batch, read_batch_file, read_cifar
from geomem.data.idx import GZIP, images_in, is_idx, read_idx
from geomem.data.images import (
    TARS,
    files_below,
    holds_images,
    is_packed_tar,
    read_folder,
    read_tars,
    read_zip,
    unread,
)
from geomem.data.labels import METADATA_FILES
from geomem.data.official import celeba_files, flowers_files, read_celeba, read_flowers
from geomem.data.parquet import holds_points, read_tables, table_files
from geomem.data.series import SUFFIXES, read_series, training_file
from geomem.data.source import Source
from geomem.data.table import read_csv
from geomem.data.volumes import SUFFIXES as NIFTI
from geomem.data.volumes import read_volumes, volume_files
from geomem.errors import InputError, as_input_error, file_error
from geomem.files import read_json, require_file

FORMS = (".npz, .npy, a folder of .npy files, a folder, .zip, .tar or .tar.gz of images, a UCR .txt, .tsv, .csv, .ts "
         "or .arff, a .csv table, CIFAR-10 batches, IDX or IDX .gz, CelebA's or Flowers-102's folder, a .parquet or "
         ".arrow, or a NIfTI .nii or .nii.gz")
_FILE = "give a file or a folder"
_HEADS = ("@relation", "@problemname", "@timestamps", "@univariate", "@classlabel", "@data")


def read_path(path: Path, column: str | None = None) -> Source:
    """Read a file or folder by its kind; ``column``: of a table, the one of the points.

    Raises InputError when it is of no known kind or cannot be read.
    """
    try:
        if path.is_dir():
            return _read_folder(path, column)
        require_file(path, _FILE)
        with open(path, "rb") as file:  # missing or not permitted: said once, for every reader
            start = file.read(512)
    except OSError as error:
        raise file_error(path, f"cannot be read ({error.strerror}); check the path and its permissions") from error
    reader = _by_content(path, start) or _BY_SUFFIX.get(path.suffix.lower())
    if reader is None:
        raise file_error(path, f"is of no known form; known are {FORMS}")
    if reader is _read_table:
        return read_tables([path], path, column)
    refuse_column(path, column)
    return reader(path)


def _read_table(path: Path) -> Source:
    return read_tables([path], path)


def _read_csv(path: Path) -> Source:
    return Source(path.stem, [read_csv(path)])


def _read_volume(path: Path) -> Source:
    return read_volumes([path], path)


def _read_tar(path: Path) -> Source:
    return read_tars([path], path)


_BY_SUFFIX: dict[str, Callable[[Path], Source]] = {
    ".npz": read_npz, ".npy": read_npy, ".zip": read_zip, ".tar": _read_tar, ".gz": read_idx, ".parquet": _read_table,
    ".arrow": _read_table, **dict.fromkeys(SUFFIXES, read_series), ".csv": _read_csv, ".tsv": _read_csv}


def refuse_column(where: object, column: str | None) -> None:
    """Raise InputError for a column of what is no table."""
    if column is not None:
        raise file_error(where, f"is no table of pictures or lists, so it has no column {column}; leave out --column")


def _read_folder(folder: Path, column: str | None) -> Source:
    _refuse_run(folder)
    with as_input_error(folder, "a folder of data", "check its permissions"):
        tables = table_files(folder)
        if tables and (not holds_images(folder) or holds_points(tables[0])):
            return _said(read_tables(tables, folder, column), folder, tables)
        refuse_column(folder, column)
        if batches(folder):
            return read_cifar(folder)
        if (images := images_in(folder)) is not None:
            return read_idx(images)
        if (faces := celeba_files(folder)) is not None:
            return read_celeba(*faces)
        if (flowers := flowers_files(folder)) is not None:
            return read_flowers(*flowers)
        if (series := training_file(folder)) is not None:
            return read_series(series)
        if volumes := volume_files(folder):
            return _said(read_volumes(volumes, folder), folder, volumes)
    if holds_images(folder):
        return read_folder(folder)
    if arrays := shards(folder):
        return _said(read_shards(folder, arrays), folder, arrays)
    tars = sorted(path for path in folder.iterdir()
                  if path.name.lower().endswith(TARS) and not path.name.startswith("."))
    return _said(read_tars(tars, folder), folder, tars) if tars else read_folder(folder)


def _refuse_run(folder: Path) -> None:
    """Its pictures of samples would be read as data."""
    config: Any = None
    with suppress(InputError):
        config = read_json(folder / "config.json", "")
    if isinstance(config, dict) and str(config.get("format")).startswith("geomem.run/"):
        known = config.get("data")
        raise file_error(folder, "is a run, and its pictures are no data; give the data that it was trained on"
                         + (f", {known['spec']}" if isinstance(known, dict) and known.get("spec") else ""))


def _said(source: Source, folder: Path, read: list[Path]) -> Source:
    """The source with a note of other files of data in its folder."""
    used = {path.relative_to(folder).parts for path in read}
    left = [name for name in files_below(folder) if name not in used and not name[-1].startswith("cache-")]
    return replace(source, notes=(*source.notes, *unread(left)))


def _by_content(path: Path, start: bytes) -> Callable[[Path], Source] | None:
    if start.startswith(b"\x93NUMPY"):
        return read_npy
    if start.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with as_input_error(path, "a zip file", "it may be cut short: make it again"), zipfile.ZipFile(path) as archive:
            return read_npz if any(name.endswith(".npy") for name in archive.namelist()) else read_zip
    if path.name.lower().endswith(NIFTI):
        return _read_volume
    if start.startswith(GZIP):
        return _read_tar if is_packed_tar(path) or path.name.lower().endswith(TARS) else read_idx
    if start.startswith((b"PAR1", b"ARROW1")):
        return _read_table
    if path.name in METADATA_FILES:
        return lambda path: read_folder(path.parent)
    if start[257:262] == b"ustar":
        return _read_tar
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03"):
        return read_batch_file
    if is_idx(start):
        return read_idx
    if is_binary_batch(path):
        return read_batch_file
    return read_series if _is_series(path, start) else None


def _is_series(path: Path, start: bytes) -> bool:
    """Text whose first line is the head of a ``.ts`` or ``.arff`` file, or numbers."""
    try:
        lines = start.decode("utf-8-sig", errors="ignore").lower().splitlines()
        line = next((line for line in lines if line.strip() and line.lstrip()[0] not in "#%"), "")
        if line.lstrip().startswith(_HEADS):
            return True
        words = [float(word) for word in line.replace(",", " ").split()[:-1]]
        return len(words) > (path.suffix.lower() not in (".csv", ".tsv"))
    except ValueError:
        return False
