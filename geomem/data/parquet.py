"""Parquet and Arrow files: tables with a column of encoded images or of paths to them, or of lists of floats, and
perhaps one of labels.

pyarrow reads them in a child process, some rows at a time: it makes room for whatever a file says of itself, and ends
the process over some of it. ``train-...parquet`` beside ``test-...`` or ``validation-...`` in a folder, or in folders
of such names, is the split, as in the data sets of the Hugging Face hub and what ``save_to_disk`` of its library
writes; files of one part follow each other by name. A path is followed below the folder of the table only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geomem.data.child import in_child
from geomem.data.hub import IMAGE_COLUMNS, LABEL_COLUMNS, chosen_column, other_columns
from geomem.data.labels import METADATA_FILES
from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import MAX_CLASS_NAME, class_names, joined_points
from geomem.data.source import HELDOUT_SPLITS, TRAIN_SPLITS, Part, Source, split_word
from geomem.data.unpacking import refuse_bomb
from geomem.errors import InputError, as_input_error, file_error
from geomem.files import require_file

SUFFIXES = (".parquet", ".arrow")
PATH_COLUMNS = (*IMAGE_COLUMNS, "file_name", "image_path", "path", "file", "filename")
_ADVICE = "fetch or write it again"
_ROWS = 256  # read at a time, fewer where by the file's own account they would take more than _BATCH_BYTES
_BATCH_BYTES = 1 << 26
_PIECE_BYTES = 1 << 24  # of images that are handed over together
_BUFFER = 1 << 20  # bytes read ahead; without a number, whole columns of a row group are


@dataclass(frozen=True)
class _Table:
    """What a file holds: ``column`` is one of encoded images, or of numbers."""

    rows: int
    column: str
    others: tuple[str, ...]
    images: bool
    label: str | None
    labels: np.ndarray | None
    packed: int  # bytes of the table, and of the files that it names
    classes: tuple[str, ...] | None  # names of the labels 0, 1, ...


def table_files(folder: Path) -> list[Path]:
    """The tables in a folder, or in its folders ``data``, ``default`` or of a split, by name.

    Left out are hidden ones, the caches of the library ``datasets``, and what belongs to images beside it.
    """
    places, found = [folder], []
    for place in places:
        with os.scandir(place) as entries:
            inside = sorted(Path(entry.path) for entry in entries if entry.is_dir() or entry.name.endswith(SUFFIXES))
        places += [path for path in inside if path.is_dir() and len(path.relative_to(folder).parts) < 4
                   and (split_word(path) == path.name.lower() or path.name in ("data", "default"))]
        found += [path for path in inside if path.name.endswith(SUFFIXES) and not path.is_dir()
                  and not path.name.startswith((".", "cache-")) and path.name not in METADATA_FILES]
    return found


def holds_points(path: Path) -> bool:
    """Whether a table has a column of points; some lie beside images and describe them."""
    try:
        return bool(list(_from_child(path, _describe, None, path.parent)))
    except InputError as error:
        return "has no column" not in str(error)


def read_table(path: Path, column: str | None = None) -> Source:
    """Points of one file."""
    return read_parquet([path], path, column)


def read_parquet(paths: list[Path], where: Path, column: str | None = None) -> Source:
    """Points of the files, in ``column`` or the usual one; the names of several files say which part each belongs to.
    """
    by_part: dict[str, list[Path]] = {}
    for path in paths:
        word = split_word(path) or (split_word(path.parent) if path.parent != where else "") or "train"
        by_part.setdefault(word, []).append(path)
    train = next((by_part[name] for name in TRAIN_SPLITS if name in by_part), [])
    held = next((by_part[name] for name in HELDOUT_SPLITS if name in by_part), [])
    if not train:
        train, held = held, []
    name = where.stem if where.suffix.lower() == ".parquet" else where.resolve().name
    parts = [_part(files, where, column) for files in (train, held) if files]
    return Source(name, parts[0].part, parts[1].part if held else None, parts[0].notes if column is None else (),
                  parts[0].classes)


class _Found(NamedTuple):
    """The points of some files, what to say of them, and names of classes."""

    part: Part
    notes: tuple[str, ...]
    classes: tuple[str, ...] | None


def _part(paths: list[Path], where: Path, wanted: str | None) -> _Found:
    root = where if where.is_dir() else where.parent
    tables = [table for path in paths for table in _from_child(path, _describe, wanted, root)]
    if len({(table.column, table.images, table.label) for table in tables}) > 1:
        raise file_error(where, "holds tables with other columns than each other; give them one by one")
    column, told = tables[0].column, other_columns(tables[0].column, tables[0].others)
    known = [table.labels for table in tables if table.labels is not None]
    labels = np.concatenate(known) if known else None
    if not tables[0].images:
        points = joined_points([_joined_numbers(path, column) for path in paths], where, labels)
        return _Found(points, told, tables[0].classes)
    starts = np.cumsum([0, *(table.rows for table in tables)])

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for path, low, high in zip(paths, starts, starts[1:], strict=False):
            inside = positions[(positions >= low) & (positions < high)] - low
            if len(inside):
                for contents in _from_child(path, _images, column, inside, root):
                    yield from contents

    size = sum(table.packed for table in tables)
    pictures = Pictures(str(where), read, lambda _: size, lambda i: f"row {i}", np.arange(starts[-1]), labels)
    return _Found(pictures, told, tables[0].classes)


def _joined_numbers(path: Path, column: str) -> np.ndarray:
    pieces, size, packed = [], 0, path.stat().st_size
    with as_input_error(f"{path}: {column}", "lists of floats of one length", _ADVICE):
        for piece in in_child(_numbers, path, column, file_bytes=packed):
            pieces.append(piece)
            size += piece.nbytes
            refuse_bomb(path, packed, size)
        return np.concatenate(pieces)


def _from_child(path: Path, reader: Any, *arguments: Any) -> Iterator[Any]:
    require_file(path, _ADVICE)
    with as_input_error(path, "a Parquet or Arrow file", _ADVICE):
        yield from in_child(reader, path, *arguments, file_bytes=path.stat().st_size)


# In the child


def _open(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def _arrow_batches(path: Path) -> Any:
    """The schema of an Arrow file, a stream as a rule, and its record batches, which lie in a memory map."""
    import pyarrow

    with open(path, "rb") as file:
        is_file = file.read(6) == b"ARROW1"
    source = pyarrow.memory_map(str(path))
    if not is_file:
        reader = pyarrow.ipc.open_stream(source)
        return reader.schema, iter(reader)
    whole = pyarrow.ipc.open_file(source)
    return whole.schema, map(whole.get_batch, range(whole.num_record_batches))


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() != ".arrow"


def _describe(path: Path, wanted: str | None, root: Path) -> Iterator[_Table]:
    """One ``_Table``. No more rows are believed than a file with one byte per row could hold."""
    size = path.stat().st_size
    if _is_parquet(path):
        table = _open(path)
        rows, schema = table.metadata.num_rows, table.schema_arrow
    else:
        schema, batches = _arrow_batches(path)
        rows = sum(batch.num_rows for batch in batches)
    if not 0 <= rows <= size:
        raise ValueError(f"{size:,} bytes announce {rows:,} rows")
    column, others, images, label = _columns(path, schema, wanted)
    named = sum(os.path.getsize(file) for file in _files_named(path, column, root)) if images else 0
    labels = None if label is None else _labels(path, label, rows)
    yield _Table(rows, column, others, images, label, labels, size + named, _class_names(schema, label))


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """Those of a column of labels that the library ``datasets`` wrote down, else None."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not (isinstance(names, list) and all(isinstance(name, str) and len(name) <= MAX_CLASS_NAME for name in names)):
        return None
    return tuple(names)


def _columns(path: Path, schema: Any, wanted: str | None) -> tuple[str, tuple[str, ...], bool, str | None]:
    """The column of images (the field of it that holds them), else of numbers: ``wanted``, or the first of a usual
    name, or the first; the others of that kind; whether they are images; and the column of labels.
    """
    import pyarrow.types as kinds

    plain = {field.name: _plain(field.type) for field in schema}
    label = next((name for name in LABEL_COLUMNS if name in plain and any(
        is_kind(plain[name]) for is_kind in (kinds.is_integer, kinds.is_string, kinds.is_large_string))), None)
    def is_binary(kind: Any) -> bool:
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    images = [name for name, kind in plain.items() if is_binary(kind) or (
        kinds.is_struct(kind) and kind.get_field_index("bytes") >= 0
        and (is_binary(_plain(kind.field("bytes").type)) or kinds.is_null(kind.field("bytes").type)))]
    numbers = [name for name, kind in plain.items() if (
        kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))
        and kinds.is_floating(kind.value_type)]
    texts = [name for name, kind in plain.items() if kinds.is_string(kind) or kinds.is_large_string(kind)]
    if wanted in texts:
        images = [wanted]
    elif not images and not numbers:
        images = [name for name in PATH_COLUMNS if name in texts]
    column = chosen_column(path, wanted, images, numbers, schema.names)
    others = tuple(name for name in (images if column in images else numbers) if name != column)
    return column, others, column in images, label


def _plain(kind: Any) -> Any:
    """The type in which the values of an extension or dictionary type are stored."""
    kind = getattr(kind, "storage_type", kind)
    return kind.value_type if hasattr(kind, "index_type") else kind


def _batches(path: Path, column: str) -> Iterator[Any]:
    """Arrays of some rows of a column, one after another."""
    if not _is_parquet(path):
        for batch in _arrow_batches(path)[1]:
            values = batch.column(column)
            values.validate(full=True)
            values = getattr(values, "storage", values)
            yield values.dictionary_decode() if hasattr(values, "dictionary") else values
        return
    table = _open(path)
    groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
    per_row = max(sum(leaf.total_uncompressed_size for leaf in map(group.column, range(group.num_columns))
                      if f"{leaf.path_in_schema}.".startswith(f"{column}.")) / max(1, group.num_rows)
                  for group in groups) if groups else 1
    rows = int(max(1, min(_ROWS, _BATCH_BYTES / max(1, per_row))))
    for batch in table.iter_batches(batch_size=rows, columns=[column], use_threads=False):
        values = getattr(batch.column(0), "storage", batch.column(0))
        yield values.dictionary_decode() if hasattr(values, "dictionary") else values


def _file_named(value: Any, path: Path, root: Path) -> Path | None:
    """The file that a cell names, below ``root``; None where it holds the image itself, or names nothing.

    Raises ValueError for a file that is elsewhere.
    """
    name = value if isinstance(value, str) else value.get("path") if isinstance(value, dict) and not value.get(
        "bytes") else None
    if not name:
        return None
    top = os.path.realpath(root)
    for folder in (path.parent, root):
        file = os.path.realpath(os.path.join(folder, name))
        if os.path.commonpath([top, file]) == top and os.path.isfile(file):
            return Path(file)
    raise ValueError(f"it is missing: below {root} there is no {name}")


def _files_named(path: Path, column: str, root: Path) -> set[Path]:
    """All files that a column names, as far as they are there; none where its first cell holds an image."""
    files: set[Path] = set()
    for values in _batches(path, column):
        for value in values:
            cell = value.as_py()
            if isinstance(cell, bytes) or (isinstance(cell, dict) and cell.get("bytes")):
                return files
            with suppress(ValueError):
                files |= {file} if (file := _file_named(cell, path, root)) else set()
    return files


def _images(path: Path, column: str, rows: np.ndarray, root: Path) -> Iterator[list[bytes]]:
    """Images in a column or in the files that it names, at ascending rows."""
    piece: list[bytes] = []
    first = size = 0
    for values in _batches(path, column):
        low, high = np.searchsorted(rows, (first, first + len(values)))
        for row in rows[low:high].tolist():
            content = values[row - first].as_py()
            with as_input_error(f"{path}: row {row}", "an image", _ADVICE):
                if file := _file_named(content, path, root):
                    require_file(file, _ADVICE, MAX_ENCODED_BYTES)
                    content = file.read_bytes()
                elif isinstance(content, dict):
                    content = content.get("bytes")
                if not isinstance(content, bytes) or len(content) > MAX_ENCODED_BYTES:
                    raise ValueError("it is missing" if content is None else "it is too large for one image")
            piece.append(content)
            size += len(content)
            if size > _PIECE_BYTES:
                yield piece
                piece, size = [], 0
        if high == len(rows):
            yield piece
            return
        first += len(values)
    raise ValueError("it holds fewer rows than it announces")


def _labels(path: Path, column: str, rows: int) -> np.ndarray:
    """Integers or class names ``(rows,)``."""
    with as_input_error(f"{path}: {column}", "labels", _ADVICE):
        found = [label for values in _batches(path, column) for label in values.to_pylist()]
        if None in found or len(found) != rows:
            raise ValueError("some are missing")
        return class_names(found) if found and isinstance(found[0], str) else np.array(found, dtype=np.int64)


def _numbers(path: Path, column: str) -> Iterator[np.ndarray]:
    """float ``(rows, values)`` of a column of lists, those read together of one length."""
    for values in _batches(path, column):
        flat = values.flatten()
        if values.null_count or flat.null_count:
            raise ValueError("some are missing")
        if hasattr(values, "value_lengths") and len(values.value_lengths().unique()) > 1:
            raise ValueError("they have several lengths")
        yield flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)
