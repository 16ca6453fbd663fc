"""Parquet files: tables with a column of encoded images, or of lists of floats, and perhaps one of labels.

A file is read page by page and image by image, after :mod:`geomem.data.pages` has looked at its sizes.
``train-...parquet`` beside ``test-...`` or ``validation-...`` in a folder is the split, as in the data sets of the
Hugging Face hub; files of one part follow each other by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.hub import HELDOUT_SPLITS, LABEL_COLUMNS, TRAIN_SPLITS
from geomem.data.pages import Footer, read_footer
from geomem.data.pictures import Pictures
from geomem.data.points import MAX_CLASS_NAME, class_names, joined_points
from geomem.data.refusal import reading, refuse_bomb, wrong
from geomem.data.source import Part, Source
from geomem.files import require_file

_ADVICE = "fetch or write it again"
_ROWS = 256  # read at a time, fewer where pages are so large that these could take more than _BATCH_BYTES
_BATCH_BYTES = 1 << 27
_LABEL_BYTES = 4 * MAX_CLASS_NAME + 8  # in UTF-8, with its length
_BUFFER = 1 << 20  # bytes read ahead; without a number, whole columns of a row group are


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files directly in a folder, by name; hidden ones are left out."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def read_parquet(paths: list[Path], where: Path) -> Source:
    """Points of the files; the names of several files say which part each belongs to."""
    by_part: dict[str, list[Path]] = {}
    for path in paths:
        word = re.split(r"[^a-z]", path.name.lower(), maxsplit=1)[0]
        by_part.setdefault(word if word in TRAIN_SPLITS + HELDOUT_SPLITS else "train", []).append(path)
    train = next((by_part[name] for name in TRAIN_SPLITS if name in by_part), [])
    held = next((by_part[name] for name in HELDOUT_SPLITS if name in by_part), [])
    if not train:
        train, held = held, []
    name = where.stem if where.suffix.lower() == ".parquet" else where.resolve().name
    return Source(name, _part(train, where), _part(held, where) if held else None)


def _part(paths: list[Path], where: Path) -> Part:
    columns = {_columns(path) for path in paths}
    if len(columns) > 1:
        raise wrong(where, "holds Parquet files with other columns than each other; give them one by one")
    (column, inner), label = columns.pop()
    counts = [_rows(path) for path in paths]
    labels = None if label is None else np.concatenate([_labels(path, label) for path in paths])
    if inner is None:
        return joined_points([_numbers(path, column) for path in paths], where, labels)
    starts = np.cumsum([0, *counts])
    leaf = f"{column}.{inner}" if inner else column

    def read(positions: np.ndarray) -> Iterator[bytes]:
        for path, low, high in zip(paths, starts, starts[1:], strict=False):
            inside = positions[(positions >= low) & (positions < high)] - low
            if len(inside):
                yield from images_of(path, leaf, inside)

    def sizes(positions: np.ndarray) -> tuple[int, int]:
        size = sum(path.stat().st_size for path in paths)
        return size, size

    return Pictures(str(where), read, sizes, lambda i: f"row {i}", np.arange(starts[-1]), labels)


def _open(path: Path, **options: Any) -> tuple[Any, Footer]:
    """pyarrow's ``ParquetFile``, and the footer that says what its columns take."""
    import pyarrow.parquet

    require_file(path, _ADVICE)
    footer = read_footer(path)
    return pyarrow.parquet.ParquetFile(path, metadata=footer.metadata(), buffer_size=_BUFFER, **options), footer


def _batch(footer: Footer, column: str) -> int:
    """How many rows of a column to read at a time; raises ValueError or InputError where it unpacks to too much."""
    return max(1, min(_ROWS, _BATCH_BYTES // max(1, footer.unpacked(column).largest)))


def _rows(path: Path) -> int:
    """Number of rows, which is no larger than a file with one byte per row could hold."""
    with reading(path, "a Parquet file", _ADVICE):
        rows, size = _open(path)[0].metadata.num_rows, path.stat().st_size
        if not 0 <= rows <= size:
            raise ValueError(f"{size:,} bytes announce {rows:,} rows")
        return rows


def _columns(path: Path) -> tuple[tuple[str, str | None], str | None]:
    """(column, field of it with the encoded images, "" for the column itself, None for numbers), column of labels."""
    import pyarrow as pa

    with reading(path, "a Parquet file", _ADVICE):
        schema = _open(path)[0].schema_arrow
        label = next((name for name in LABEL_COLUMNS if name in schema.names and (
            pa.types.is_integer(schema.field(name).type) or pa.types.is_string(schema.field(name).type))), None)
        for field in schema:
            kind = field.type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 \
                    and pa.types.is_binary(kind.field("bytes").type):
                return (field.name, "bytes"), label
            if pa.types.is_binary(kind):
                return (field.name, ""), label
        for field in schema:
            kind = field.type
            if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
                return (field.name, None), label
        raise wrong(path, f"has no column of images or of lists of floats; there are {', '.join(schema.names)}")


def images_of(path: Path, leaf: str, rows: np.ndarray) -> Iterator[bytes]:
    """Contents of a binary column, at ascending rows. Raises InputError.

    The column is kept as a dictionary, so that a value that stands in many rows is in memory once.
    """
    with reading(path, "a Parquet file", _ADVICE):
        table, footer = _open(path, read_dictionary=[leaf])
        size = _batch(footer, leaf)
        groups = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    starts = np.cumsum([0, *groups])
    for group, low, high in zip(range(len(groups)), starts, starts[1:], strict=False):
        inside = rows[(rows >= low) & (rows < high)] - low
        if not len(inside):
            continue
        first = 0
        batches = table.iter_batches(batch_size=size, row_groups=[group], columns=[leaf])
        while first <= inside[-1]:
            with reading(path, "a Parquet file", _ADVICE):
                batch = next(batches, None)
                if batch is None or not len(batch):
                    raise ValueError("it holds fewer rows than it announces")
                values = batch.column(0)
                values = values.field("bytes") if "." in leaf and hasattr(values, "field") else values
                wanted = inside[(inside >= first) & (inside < first + len(values))] - first
                first += len(values)
            for row in wanted:
                with reading(f"{path}: row {low + first - len(values) + row}", "an image", _ADVICE):
                    content = values[int(row)].as_py()
                    if not isinstance(content, bytes):
                        raise ValueError("it is missing")
                yield content


def _labels(path: Path, column: str) -> np.ndarray:
    """Integers or class names ``(rows,)``; names are kept as a dictionary until their lengths are known."""
    with reading(f"{path}: {column}", "labels", _ADVICE):
        table, footer = _open(path, read_dictionary=[column])
        if footer.unpacked(column).total > _BUFFER + _LABEL_BYTES * _rows(path):
            raise ValueError("they are too long for class names")
        values = table.read([column]).column(0)
        if values.null_count or len(values) != _rows(path):
            raise ValueError(f"{values.null_count or 'some'} are missing")
        return np.concatenate([
            class_names(chunk.dictionary.to_pylist())[chunk.indices.to_numpy(zero_copy_only=False)]
            if hasattr(chunk, "dictionary") else chunk.to_numpy(zero_copy_only=False) for chunk in values.chunks])


def _numbers(path: Path, column: str) -> np.ndarray:
    """float ``(rows, values)`` of a column of lists of one length."""
    with reading(f"{path}: {column}", "lists of floats", _ADVICE):
        pieces, found = [], 0
        table, footer = _open(path)
        for batch in table.iter_batches(batch_size=_batch(footer, column), columns=[column]):
            values = batch.column(0)
            flat = values.flatten()
            found += flat.nbytes
            refuse_bomb(path, path.stat().st_size, found)
            if values.null_count or flat.null_count or len(flat) % max(1, len(values)):
                raise ValueError("some are missing or of another length")
            if len(values.value_lengths().unique()) != 1:
                raise ValueError("they have several lengths")
            pieces.append(flat.to_numpy(zero_copy_only=False).reshape(len(values), -1))
        if len({piece.shape[1] for piece in pieces}) != 1:
            raise ValueError("they have several lengths")
        return np.concatenate(pieces)
