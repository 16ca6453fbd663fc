"""Parquet files: tables with a column of encoded images, or of lists of floats, and perhaps one of labels.

pyarrow reads them in a child process, some rows at a time: it makes room for whatever a file says of itself, and ends
the process over some of it. ``train-...parquet`` beside ``test-...`` or ``validation-...`` in a folder is the split, as
in the data sets of the Hugging Face hub; files of one part follow each other by name.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.child import in_child
from geomem.data.hub import HELDOUT_SPLITS, LABEL_COLUMNS, TRAIN_SPLITS, chosen_column, other_columns
from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import class_names, joined_points
from geomem.data.source import Part, Source
from geomem.data.unpacking import refuse_bomb
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

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


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files directly in a folder, by name; hidden ones are left out."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def read_table(path: Path, column: str | None = None) -> Source:
    """Points of one file."""
    return read_parquet([path], path, column)


def read_parquet(paths: list[Path], where: Path, column: str | None = None) -> Source:
    """Points of the files, in ``column`` or the usual one; the names of several files say which part each belongs to.
    """
    by_part: dict[str, list[Path]] = {}
    for path in paths:
        word = re.split(r"[^a-z]", path.name.lower(), maxsplit=1)[0]
        by_part.setdefault(word if word in TRAIN_SPLITS + HELDOUT_SPLITS else "train", []).append(path)
    train = next((by_part[name] for name in TRAIN_SPLITS if name in by_part), [])
    held = next((by_part[name] for name in HELDOUT_SPLITS if name in by_part), [])
    if not train:
        train, held = held, []
    name = where.stem if where.suffix.lower() == ".parquet" else where.resolve().name
    parts = [_part(files, where, column) for files in (train, held) if files]
    return Source(name, parts[0][0], parts[1][0] if held else None, parts[0][1] if column is None else ())


def _part(paths: list[Path], where: Path, wanted: str | None) -> tuple[Part, tuple[str, ...]]:
    """The points of some files, and a note."""
    tables = [table for path in paths for table in _from_child(path, _describe, wanted)]
    if len({(table.column, table.images, table.label) for table in tables}) > 1:
        raise file_error(where, "holds Parquet files with other columns than each other; give them one by one")
    column, told = tables[0].column, other_columns(tables[0].column.removesuffix(".bytes"), tables[0].others)
    known = [table.labels for table in tables if table.labels is not None]
    labels = np.concatenate(known) if known else None
    if not tables[0].images:
        return joined_points([_joined_numbers(path, column) for path in paths], where, labels), told
    starts = np.cumsum([0, *(table.rows for table in tables)])

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for path, low, high in zip(paths, starts, starts[1:], strict=False):
            inside = positions[(positions >= low) & (positions < high)] - low
            if len(inside):
                for contents in _from_child(path, _images, column, inside):
                    yield from contents

    size = sum(path.stat().st_size for path in paths)
    return Pictures(str(where), read, lambda _: size, lambda i: f"row {i}", np.arange(starts[-1]), labels), told


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
    with as_input_error(path, "a Parquet file", _ADVICE):
        yield from in_child(reader, path, *arguments, file_bytes=path.stat().st_size)


# In the child


def _open(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def _describe(path: Path, wanted: str | None) -> Iterator[_Table]:
    """One ``_Table``. No more rows are believed than a file with one byte per row could hold."""
    rows, size = (table := _open(path)).metadata.num_rows, path.stat().st_size
    if not 0 <= rows <= size:
        raise ValueError(f"{size:,} bytes announce {rows:,} rows")
    column, others, images, label = _columns(path, table.schema_arrow, wanted)
    yield _Table(rows, column, others, images, label, None if label is None else _labels(path, label, rows))


def _columns(path: Path, schema: Any, wanted: str | None) -> tuple[str, tuple[str, ...], bool, str | None]:
    """The column of images (the field of it that holds them), else of numbers: ``wanted``, or the first of a usual
    name, or the first; the others of that kind; whether they are images; and the column of labels.
    """
    import pyarrow.types as kinds

    plain = {field.name: _plain(field.type) for field in schema}
    label = next((name for name in LABEL_COLUMNS if name in plain and any(
        is_kind(plain[name]) for is_kind in (kinds.is_integer, kinds.is_string, kinds.is_large_string))), None)
    images = {}  # name of a column: where in it the images are
    for name, kind in plain.items():
        field = name
        if kinds.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            field, kind = f"{name}.bytes", _plain(kind.field("bytes").type)
        if kinds.is_binary(kind) or kinds.is_large_binary(kind):
            images[name] = field
    numbers = [name for name, kind in plain.items() if (
        kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))
        and kinds.is_floating(kind.value_type)]
    column = chosen_column(path, wanted, list(images), numbers, schema.names)
    kind = list(images) if column in images else numbers
    others = tuple(name for name in kind if name != column)
    return images.get(column, column), others, column in images, label


def _plain(kind: Any) -> Any:
    """The type in which the values of an extension or dictionary type are stored."""
    kind = getattr(kind, "storage_type", kind)
    return kind.value_type if hasattr(kind, "index_type") else kind


def _batches(path: Path, column: str) -> Iterator[Any]:
    """Arrays of some rows of a column, one after another."""
    table = _open(path)
    groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
    per_row = max(sum(leaf.total_uncompressed_size for leaf in map(group.column, range(group.num_columns))
                      if f"{leaf.path_in_schema}.".startswith(f"{column}.")) / max(1, group.num_rows)
                  for group in groups) if groups else 1
    rows = int(max(1, min(_ROWS, _BATCH_BYTES / max(1, per_row))))
    for batch in table.iter_batches(batch_size=rows, columns=[column], use_threads=False):
        values = getattr(batch.column(0), "storage", batch.column(0))
        values = values.field("bytes") if column.endswith(".bytes") and hasattr(values, "field") else values
        yield values.dictionary_decode() if hasattr(values, "dictionary") else values


def _images(path: Path, column: str, rows: np.ndarray) -> Iterator[list[bytes]]:
    """Contents of a binary column, at ascending rows."""
    piece: list[bytes] = []
    first = size = 0
    for values in _batches(path, column):
        low, high = np.searchsorted(rows, (first, first + len(values)))
        for row in rows[low:high].tolist():
            content = values[row - first].as_py()
            with as_input_error(f"{path}: row {row}", "an image", _ADVICE):
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
