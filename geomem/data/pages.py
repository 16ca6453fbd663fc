"""The pages of a Parquet file, looked at before any of them is unpacked.

A file's footer says how large its columns are, and need not be right: Arrow makes room for what the *pages* announce,
up to 2 GiB each, and a run-length encoding announces any number of values in a few bytes. Each page begins with a
small struct in Thrift's compact protocol, the page header (github.com/apache/parquet-format, parquet.thrift). It is
read here as Arrow reads it, from the same place on, as far as sizes go. What Arrow could understand otherwise, such
as a field that stands there twice, is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from geomem.data.refusal import refuse_bomb

_PAGE_BYTES = 1 << 26  # unpacked, of a page that is packed well; one of large photographs is larger, and hardly packed
_MAX_PAGES = 100_000  # of one column
_MAX_FIELDS = 32  # of one header
_VALUE_BYTES = 24  # that a value takes at most while it is read: its levels, itself, and copies
_PADDING = 100  # bytes that Arrow reads beyond a column, for old files that state a length without the first header
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # kinds of pages
_BODIES = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # the field of a header that describes a page of the kind
_ENCODINGS = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}  # the field of that description
_DELTA_BYTE_ARRAY = 7  # repeats the beginning of the value before, so that values outgrow their page


def refuse_large_footer(path: Path) -> None:
    """Raise ValueError for a footer that is large beside its file: each of its bytes may take 250 in memory."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if len(end) < 8 or length > (1 << 20) + size // 16:
        raise ValueError(f"{size:,} bytes have a footer of {length:,}")


@dataclass(frozen=True)
class Unpacked:
    """Bytes that the pages of a column take when they are unpacked, in all and the largest one."""

    total: int
    largest: int


def unpacked(path: Path, metadata: Any, column: str) -> Unpacked:
    """Of a column and the fields in it. Raises ValueError or InputError where that is too much.

    metadata: what pyarrow read from the footer.
    """
    sizes: list[int] = []
    with open(path, "rb") as file:
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(place)
                if f"{chunk.path_in_schema}.".startswith(f"{column}."):
                    sizes += _pages(file, chunk, _MAX_PAGES - len(sizes))
    refuse_bomb(path, path.stat().st_size, sum(sizes))
    return Unpacked(sum(sizes), max(sizes, default=0))


def _pages(file: BinaryIO, chunk: Any, most: int) -> list[int]:
    """What each page of a column in a row group takes unpacked, in bytes."""
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset or 0]
    place = min(start for start in starts if start > 0 or start == starts[0])
    end = place + chunk.total_compressed_size + _PADDING
    found: list[int] = []
    values_left = chunk.num_values
    file_end = file.seek(0, os.SEEK_END)
    if not 0 <= place < file_end:
        raise ValueError("a column is not in it")
    while values_left > 0 and place < end and len(found) < most:
        file.seek(place)
        kind, size, packed, values = _page(file)
        place = file.tell() + packed
        if place > file_end:
            raise ValueError(f"a page of {packed:,} bytes is not in it")
        if size > max(_PAGE_BYTES, 2 * packed):
            raise ValueError(f"a page of {packed:,} bytes unpacks to {size:,}; write it with smaller row groups")
        values_left -= values if kind in (_DATA, _DATA_V2) else 0
        found.append(max(size, _VALUE_BYTES * values))
    if values_left > 0:
        raise ValueError("a column holds fewer values than it announces, or too many pages")
    return found


def _page(file: BinaryIO) -> tuple[int, int, int, int]:
    """(kind, unpacked bytes, packed bytes, values) of the page whose header begins here."""
    header = _struct(file)
    kind, size, packed = (_number(header, field) for field in (1, 2, 3))
    if kind not in _BODIES:
        return kind, size, packed, 0
    body = header.get(_BODIES[kind])
    if not isinstance(body, dict):
        raise ValueError("a page header is incomplete")
    values, encoding = _number(body, 1), _number(body, _ENCODINGS[kind])
    if encoding == _DELTA_BYTE_ARRAY:
        raise ValueError("it uses the encoding DELTA_BYTE_ARRAY; write it with another")
    return kind, size, packed, values


def _number(fields: dict[int, Any], field: int) -> int:
    if type(found := fields.get(field)) is not int or found < 0:
        raise ValueError("a page header is incomplete")
    return found


def _struct(file: BinaryIO, depth: int = 0) -> dict[int, Any]:
    """The fields of a struct by their numbers: int, bool, None for values that say nothing here, or another struct."""
    fields: dict[int, Any] = {}
    number = 0
    while (start := _byte(file)) != 0:
        number = number + (start >> 4) if start >> 4 else _integer(file)
        if number in fields or len(fields) == _MAX_FIELDS or depth == 4:
            raise ValueError("a page header is like no other")
        fields[number] = _value(file, start & 15, depth)
    return fields


def _value(file: BinaryIO, kind: int, depth: int) -> Any:
    match kind:
        case 1 | 2:
            return kind == 1
        case 3:
            return _byte(file)
        case 4 | 5 | 6:
            return _integer(file)
        case 7 | 8:
            file.seek(8 if kind == 7 else _varint(file), os.SEEK_CUR)
            return None
        case 12:
            return _struct(file, depth + 1)
    raise ValueError("a page header is like no other")


def _integer(file: BinaryIO) -> int:
    """32 bits in zigzag order, which are all that a page header needs."""
    number = _varint(file)
    return (number >> 1) ^ -(number & 1)


def _varint(file: BinaryIO) -> int:
    number = 0
    for shift in range(0, 35, 7):
        byte = _byte(file)
        number |= (byte & 127) << shift
        if byte < 128 and number < 1 << 32:
            return number
    raise ValueError("a number in a page header is too large")


def _byte(file: BinaryIO) -> int:
    found = file.read(1)
    if not found:
        raise ValueError("it ends within a page header")
    return found[0]
