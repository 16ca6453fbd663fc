"""Parquet and Arrow files: tables with a column of encoded images or of paths to them, or of lists of floats, and
perhaps one of labels; or plain ones, of numbers and categories.

pyarrow reads them in a child process, some rows at a time: it makes room for whatever a file says of itself, and ends
the process over some of it. ``train-...parquet`` beside ``test-...`` or ``validation-...`` in a folder, or in folders
of such names, is the split, as in the data sets of the Hugging Face hub and what ``save_to_disk`` of its library
writes; files of one part follow each other by name. A path is followed below the folder of the table only.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.child import in_child
from geomem.data.columns import Columns, choose_columns, numbers_of, stored_values
from geomem.data.labels import METADATA_FILES
from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import as_labels, joined_points
from geomem.data.source import HELDOUT_SPLITS, TRAIN_SPLITS, Part, Source, split_word
from geomem.data.table import Column, Table, as_column
from geomem.data.unpacking import refuse_bomb
from geomem.errors import InputError, as_input_error, file_error
from geomem.files import require_file

SUFFIXES = (".parquet", ".arrow")
_ADVICE = "fetch or write it again"
_ROWS = 256  # read at a time, fewer where by the file's own account they would take more than _BATCH_BYTES
_BATCH_BYTES = 1 << 26
_PIECE_BYTES = 1 << 24  # of images that are handed over together
_BUFFER = 1 << 20  # bytes read ahead; without a number, whole columns of a row group are


@dataclass(frozen=True)
class _Table:
    """What a file holds; ``packed``: bytes of it and of the files that it names."""

    rows: int
    columns: Columns
    labels: np.ndarray | None
    packed: int


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
    """Whether a table has a column of points, or is damaged; some lie beside images and describe them."""
    try:
        return bool(_table(path, None, path.parent).columns.points)
    except InputError:
        return True


def read_tables(paths: list[Path], where: Path, column: str | None = None) -> Source:
    """Points of the files, in ``column`` or the usual one; the names of several files say which part each belongs to.
    """
    by_part: dict[str, list[Path]] = {}
    for path in paths:
        word = split_word(path) or (split_word(path.parent) if path.parent != where else "") or "train"
        by_part.setdefault(word, []).append(path)
    found = [next((by_part[name] for name in names if name in by_part), []) for names in (TRAIN_SPLITS, HELDOUT_SPLITS)]
    name = where.stem if where.suffix.lower() == ".parquet" else where.resolve().name
    parts, columns = zip(*(_part(files, where, column) for files in found if files), strict=True)
    return Source(name, parts, columns[0].notes, columns[0].classes)


def _part(paths: list[Path], where: Path, wanted: str | None) -> tuple[Part, Columns]:
    root = where if where.is_dir() else where.parent
    tables = [_table(path, wanted, root) for path in paths]
    columns, size = tables[0].columns, sum(table.packed for table in tables)
    if len({(table.columns.points or table.columns.others, table.columns.images, table.columns.label)
            for table in tables}) > 1:
        raise file_error(where, "holds tables with other columns than each other; give them one by one")
    if not columns.points:
        with as_input_error(where, "a table of numbers and categories", _ADVICE):
            return Table.made_of(str(where), in_child(_plain, paths, columns.others, str(where), file_bytes=size),
                                 size), columns
    known = [table.labels for table in tables if table.labels is not None]
    labels = np.concatenate(known) if known else None
    if not columns.images:
        return joined_points([_joined_numbers(path, columns.points) for path in paths], where, labels), columns
    starts = np.cumsum([0, *(table.rows for table in tables)])

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for path, low, high in zip(paths, starts, starts[1:], strict=False):
            inside = positions[(positions >= low) & (positions < high)] - low
            if len(inside):
                for contents in _from_child(path, _images, columns.points, inside, root):
                    yield from contents

    return Pictures(str(where), read, lambda _: size, lambda i: f"row {i}", np.arange(starts[-1]), labels), columns


def _table(path: Path, wanted: str | None, root: Path) -> _Table:
    (table,) = _from_child(path, _describe, wanted, root)
    return table


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


class _Parquet:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        from pyarrow.parquet import ParquetFile

        self.file = ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        self.schema, self.rows = self.file.schema_arrow, self.file.metadata.num_rows

    def values(self, column: str) -> Iterator[Any]:
        """Arrays of some rows of a column, one after another."""
        groups = map(self.file.metadata.row_group, range(self.file.num_row_groups))
        per_row = [sum(leaf.total_uncompressed_size for leaf in map(group.column, range(group.num_columns))
                       if f"{leaf.path_in_schema}.".startswith(f"{column}.")) / max(1, group.num_rows)
                   for group in groups]
        rows = int(max(1, min(_ROWS, _BATCH_BYTES / max(1, *per_row, 1))))
        for batch in self.file.iter_batches(batch_size=rows, columns=[column], use_threads=False):
            yield stored_values(batch.column(0))


class _Arrow:
    """An Arrow file, a stream as a rule, whose record batches lie in a memory map."""

    def __init__(self, path: Path) -> None:
        from pyarrow import ipc, memory_map

        with open(path, "rb") as file:
            is_stream = file.read(6) != b"ARROW1"
        source = memory_map(str(path))
        reader = ipc.open_stream(source) if is_stream else ipc.open_file(source)
        self.schema = reader.schema
        self.batches = list(reader if is_stream else map(reader.get_batch, range(reader.num_record_batches)))
        self.rows = sum(batch.num_rows for batch in self.batches)

    def values(self, column: str) -> Iterator[Any]:
        """Arrays of some rows of a column, one after another."""
        for batch in self.batches:
            values = batch.column(column)
            values.validate(full=True)
            yield stored_values(values)


def _open(path: Path) -> _Parquet | _Arrow:
    with open(path, "rb") as file:
        is_parquet = file.read(4) == b"PAR1" or path.suffix.lower() != ".arrow"
    return _Parquet(path) if is_parquet else _Arrow(path)


def _describe(path: Path, wanted: str | None, root: Path) -> Iterator[_Table]:
    """One ``_Table``. No more rows are believed than a file with one byte per row could hold."""
    size, table = path.stat().st_size, _open(path)
    if not 0 <= table.rows <= size:
        raise ValueError(f"{size:,} bytes announce {table.rows:,} rows")
    columns = choose_columns(path, table.schema, wanted)
    labels: np.ndarray | None = None
    if columns.label is not None:
        with as_input_error(f"{path}: {columns.label}", "labels", _ADVICE):
            found = [label for values in table.values(columns.label) for label in values.to_pylist()]
            if None in found or len(found) != table.rows:
                raise ValueError("some are missing")
            labels = as_labels(found)
    named = _files_named(table.values(columns.points), path, root) if columns.images else set()
    yield _Table(table.rows, columns, labels, size + sum(map(os.path.getsize, named)))


def _numbers(path: Path, column: str) -> Iterator[np.ndarray]:
    """Floats ``(rows, ...)``, those of some rows at a time."""
    yield from map(numbers_of, filter(len, _open(path).values(column)))


def _plain(paths: list[Path], names: tuple[str, ...], where: str) -> Iterator[tuple[str, Column]]:
    """The columns of several files that follow each other."""
    import pyarrow as pa

    for name in names:
        values = pa.chunked_array([part for path in paths for part in _open(path).values(name)])
        yield name, as_column(f"{where}: column {name}", values)


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


def _files_named(column: Iterable[Any], path: Path, root: Path) -> set[Path]:
    """All files that a column names, as far as they are there; none where its first cell holds an image."""
    files: set[Path] = set()
    for values in column:
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
    for values in _open(path).values(column):
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
