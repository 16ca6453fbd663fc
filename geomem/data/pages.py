"""The sizes of a Parquet file, looked at before anything in it is unpacked.

What a file says of itself need not be right. Arrow makes room for what *pages* announce, up to 2 GiB each, and a
run-length encoding announces any number of values in a few bytes; statistics that do not fit end the process. So the
*footer*, which tells where the columns lie, is read here, and Arrow is given only the fields of it that reading needs;
and of a column that will be read, the header of every page is looked at first. Both are structs in Thrift's compact
protocol (github.com/apache/parquet-format, parquet.thrift). What Arrow could understand otherwise is refused, such as
a field that stands there twice.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from geomem.data.refusal import refuse_bomb

# A value of the protocol is (kind, value); the fields of a struct are by their numbers, of a list (kind, values).
Fields: TypeAlias = dict[int, tuple[int, Any]]

# Kinds; besides, 1 and 2 are true and false, 3 and 4 integers of 8 and 16 bits, 10 and 11 sets and maps.
_I32, _I64, _DOUBLE, _BINARY, _LIST, _STRUCT = 5, 6, 7, 8, 9, 12
_FILE = {1: _I32, 2: _LIST, 3: _I64, 4: _LIST}  # version, schema, rows, row groups
_GROUP = {1: _LIST, 2: _I64, 3: _I64}  # columns, bytes, rows
_CHUNK = {2: _I64, 3: _STRUCT}  # place, and about the column in this row group:
_ABOUT = {1: _I32, 2: _LIST, 3: _LIST, 4: _I32, 5: _I64, 6: _I64, 7: _I64, 9: _I64, 11: _I64}
_VALUES, _SIZE, _PLACE, _DICTIONARY_PLACE = 5, 7, 9, 11

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # kinds of pages
_BODIES = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # the field of a page header that describes a page of the kind
_ENCODINGS = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}  # the field of that description
_DELTA_BYTE_ARRAY = 7  # repeats the beginning of the value before, so that values outgrow their page

_PAGE_BYTES = 1 << 26  # unpacked, of a page that is packed well; one of large photographs is larger, and hardly packed
_FOOTER_BYTES, _FOOTER_VALUES = 1 << 27, 1 << 22  # of tens of thousands of row groups
_HEADER_BYTES, _HEADER_VALUES = 1 << 16, 1 << 10
_MAX_PAGES = 100_000  # of one column
_MAX_FIELDS, _MAX_DEPTH = 32, 8  # of a struct
_VALUE_BYTES = 24  # that a value takes at most while it is read: its levels, itself, and copies
_PADDING = 100  # bytes that Arrow reads beyond a column, for old files that state a length without the first header


@dataclass(frozen=True)
class Unpacked:
    """Bytes that the pages of a column take when they are unpacked, in all and the largest one."""

    total: int
    largest: int


@dataclass(frozen=True)
class Footer:
    """What a file says of its columns. Methods raise ValueError or InputError."""

    path: Path
    fields: Fields

    def metadata(self) -> Any:
        """pyarrow's ``FileMetaData``, without statistics and other things that are not needed."""
        import pyarrow as pa
        import pyarrow.parquet

        content = _written(_STRUCT, self.fields)
        whole = b"PAR1" + content + struct.pack("<I", len(content)) + b"PAR1"
        return pyarrow.parquet.read_metadata(pa.BufferReader(whole))

    def unpacked(self, column: str) -> Unpacked:
        """Of a column and the fields in it, all of whose page headers are looked at."""
        schema = self.metadata().schema
        leaves = [place for place in range(len(schema.names))
                  if f"{schema.column(place).path}.".startswith(f"{column}.")]
        sizes: list[int] = []
        with open(self.path, "rb") as file:
            for group in self.fields[4][1][1]:
                chunks = group[1][1][1]
                for place in leaves:
                    if place < len(chunks):
                        sizes += _pages(file, chunks[place][3][1], _MAX_PAGES - len(sizes))
        refuse_bomb(self.path, self.path.stat().st_size, sum(sizes))
        return Unpacked(sum(sizes), max(sizes, default=0))


def read_footer(path: Path) -> Footer:
    """Raises ValueError where it is damaged, or large beside its file: a value of it may take 700 bytes in memory."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read(8)
        length = int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or length > min(_FOOTER_BYTES, (1 << 22) + size // 8, size - 8):
            raise ValueError(f"{size:,} bytes have a footer of {length:,}")
        file.seek(size - 8 - length)
        content = file.read(length)
    fields = _kept(_Reader(content, min(_FOOTER_VALUES, (1 << 18) + size // 64)).fields(), _FILE)
    _listed(fields, 2, _STRUCT)  # the schema
    groups = [_kept(group, _GROUP) for group in _listed(fields, 4, _STRUCT)]
    for group in groups:
        chunks = [_kept(chunk, _CHUNK) for chunk in _listed(group, 1, _STRUCT)]
        for chunk in chunks:
            about = _kept(_field(chunk, 3, _STRUCT), _ABOUT)
            _listed(about, 2, _I32)
            _listed(about, 3, _BINARY)
            chunk[3] = _STRUCT, about
        group[1] = _LIST, (_STRUCT, chunks)
    fields[4] = _LIST, (_STRUCT, groups)
    return Footer(path, fields)


def _kept(fields: Fields, kinds: dict[int, int]) -> Fields:
    """The fields of these numbers, which must have these kinds."""
    kept = {number: fields[number] for number in kinds if number in fields}
    if any(kept[number][0] != kinds[number] for number in kept):
        raise ValueError("its footer is like no other")
    return kept


def _listed(fields: Fields, number: int, kind: int) -> list[Any]:
    """The values of a list, which must have this kind: Arrow takes them for such, whatever they are said to be."""
    found, values = _field(fields, number, _LIST)
    if found != kind:
        raise ValueError("its footer is like no other")
    return values


def _field(fields: Fields, number: int, kind: int) -> Any:
    found, value = fields.get(number, (0, None))
    if found != kind:
        raise ValueError("its footer or a page header is incomplete")
    return value


def _pages(file: BinaryIO, about: Fields, most: int) -> list[int]:
    """What each page of a column in a row group takes unpacked, in bytes."""
    values_left, length, place = (_field(about, field, _I64) for field in (_VALUES, _SIZE, _PLACE))
    dictionary = about.get(_DICTIONARY_PLACE, (_I64, 0))[1]
    place = dictionary if 0 < dictionary < place else place
    end = place + length + _PADDING
    found: list[int] = []
    file_end = file.seek(0, os.SEEK_END)
    if not 0 <= place < file_end:
        raise ValueError("a column is not in it")
    while values_left > 0 and place < end and len(found) < most:
        file.seek(place)
        reader = _Reader(file.read(_HEADER_BYTES), _HEADER_VALUES)
        kind, size, packed, values = _page(reader.fields())
        place += reader.place + packed
        if place > file_end:
            raise ValueError(f"a page of {packed:,} bytes is not in it")
        if size > max(_PAGE_BYTES, 2 * packed):
            raise ValueError(f"a page of {packed:,} bytes unpacks to {size:,}; write it with smaller row groups")
        values_left -= values if kind in (_DATA, _DATA_V2) else 0
        found.append(max(size, _VALUE_BYTES * values))
    if values_left > 0:
        raise ValueError("a column holds fewer values than it announces, or too many pages")
    return found


def _page(header: Fields) -> tuple[int, int, int, int]:
    """(kind, unpacked bytes, packed bytes, values) of a page."""
    kind, size, packed = (_count(header, field) for field in (1, 2, 3))
    if kind not in _BODIES:
        return kind, size, packed, 0
    body = _field(header, _BODIES[kind], _STRUCT)
    if _count(body, _ENCODINGS[kind]) == _DELTA_BYTE_ARRAY:
        raise ValueError("it uses the encoding DELTA_BYTE_ARRAY; write it with another")
    return kind, size, packed, _count(body, 1)


def _count(fields: Fields, number: int) -> int:
    value = _field(fields, number, _I32)
    if not 0 <= value < 1 << 31:
        raise ValueError("a page header holds an impossible number")
    return value


class _Reader:
    """Reads structs of the compact protocol with ``most`` values. Raises ValueError."""

    def __init__(self, content: bytes, most: int) -> None:
        self.content = content
        self.place = 0
        self.values_left = most

    def fields(self, depth: int = 0) -> Fields:
        found: Fields = {}
        number = 0
        while start := self.byte():
            number = number + (start >> 4) if start >> 4 else self.integer()
            if number in found or not 0 < number < 1 << 15 or len(found) == _MAX_FIELDS or depth == _MAX_DEPTH:
                raise ValueError("a struct in it is like no other")
            found[number] = start & 15, self.value(start & 15, depth)
        return found

    def value(self, kind: int, depth: int) -> Any:
        self.values_left -= 1
        if self.values_left < 0:
            raise ValueError("its footer or a page header holds too many values")
        match kind:
            case 1 | 2:
                return None
            case 3:
                return self.byte()
            case 4 | 5 | 6:
                return self.integer()
            case 7 | 8:
                return self.bytes(8 if kind == _DOUBLE else self.varint())
            case 9:
                return self.list(depth)
            case 12:
                return self.fields(depth + 1)
        raise ValueError("a struct in it is like no other")

    def list(self, depth: int) -> tuple[int, list[Any]]:
        start = self.byte()
        kind, length = start & 15, start >> 4
        if kind not in (_I32, _I64, _BINARY, _STRUCT):
            raise ValueError("a list in it is like no other")
        return kind, [self.value(kind, depth) for _ in range(self.varint() if length == 15 else length)]

    def integer(self) -> int:
        """Of at most 64 bits, in zigzag order."""
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def varint(self) -> int:
        number = shift = 0
        while (byte := self.byte()) > 127:
            number |= (byte & 127) << shift
            shift += 7
        number |= byte << shift
        if number >> 64:
            raise ValueError("a number in it is too large")
        return number

    def byte(self) -> int:
        return self.bytes(1)[0]

    def bytes(self, length: int) -> bytes:
        start, self.place = self.place, self.place + length
        if self.place > len(self.content):
            raise ValueError("it ends within a struct")
        return self.content[start:self.place]


def _written(kind: int, value: Any) -> bytes:
    """A value in the compact protocol."""
    match kind:
        case 1 | 2:
            return b""
        case 3:
            return bytes([value])
        case 4 | 5 | 6:
            return _integer(value)
        case 7:
            return value
        case 8:
            return _varint(len(value)) + value
        case 9:
            return bytes([0xF0 | value[0]]) + _varint(len(value[1])) + b"".join(_written(value[0], x) for x in value[1])
    return b"".join(bytes([inner]) + _integer(number) + _written(inner, content)
                    for number, (inner, content) in value.items()) + b"\0"


def _integer(number: int) -> bytes:
    return _varint(number << 1 if number >= 0 else ~(number << 1))


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
