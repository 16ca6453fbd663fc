"""Parquet files byte by byte, whose footer and page headers may say anything (github.com/apache/parquet-format)."""

from __future__ import annotations

import struct
from typing import Any

PLAIN, RLE, DICTIONARY = 0, 3, 8  # encodings
UNCOMPRESSED, GZIP = 0, 2  # codecs


class Long(int):
    """An integer that is written as one of 64 bits."""


def thrift(fields: dict[int, Any]) -> bytes:
    """A struct in Thrift's compact protocol."""
    content, before = b"", 0
    for number, value in fields.items():
        content += bytes([number - before << 4 | _kind(value)]) + _value(value)
        before = number
    return content + b"\0"


def _kind(value: Any) -> int:
    return {int: 5, Long: 6, bytes: 8, list: 9, dict: 12}[type(value)]


def _value(value: Any) -> bytes:
    if isinstance(value, int):
        return varint(2 * value if value >= 0 else -2 * value - 1)
    if isinstance(value, bytes):
        return varint(len(value)) + value
    if isinstance(value, dict):
        return thrift(value)
    return bytes([0xF0 | (_kind(value[0]) if value else 12)]) + varint(len(value)) + b"".join(map(_value, value))


def varint(number: int) -> bytes:
    low = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(part | 128 for part in low[:-1]), low[-1]])


def page(content: bytes, values: int, *, kind: int = 0, size: int | None = None, packed: int | None = None,
         encoding: int = PLAIN) -> bytes:
    """A data page, or with kind 2 a dictionary, after a header that may say other sizes than are true."""
    body = {5: {1: values, 2: encoding, 3: RLE, 4: RLE}} if kind == 0 else {7: {1: values, 2: encoding}}
    sizes = {2: len(content) if size is None else size, 3: len(content) if packed is None else packed}
    return thrift({1: kind, **sizes, **body}) + content


def schema(names: list[bytes], floats: bool = False) -> list[dict[int, Any]]:
    """Columns of binary values, or of lists of floats."""
    if floats:
        columns = [column for name in names for column in
                   ({3: 1, 4: name, 5: 1, 6: 3}, {3: 2, 4: b"list", 5: 1}, {1: 4, 3: 0, 4: b"element"})]
    else:
        columns = [{1: 6, 3: 0, 4: name} for name in names]
    return [{4: b"schema", 5: len(names)}, *columns]


def parquet(pages: bytes, rows: int, *, values: int | None = None, floats: bool = False, codec: int = UNCOMPRESSED,
            footer: dict[int, Any] | None = None, chunk: dict[int, Any] | None = None) -> bytes:
    """A file with one column ``x`` and one row group; ``footer`` and ``chunk`` change what is said of them."""
    path = [b"x", b"list", b"element"] if floats else [b"x"]
    about = {1: 4 if floats else 6, 2: [PLAIN], 3: path, 4: codec, 5: Long(rows if values is None else values),
             6: Long(len(pages)), 7: Long(len(pages)), 9: Long(4)} | (chunk or {})
    group = {1: [{2: Long(4), 3: dict(sorted(about.items()))}], 2: Long(len(pages)), 3: Long(rows)}
    said = thrift({1: 1, 2: schema([b"x"], floats), 3: Long(rows), 4: [group]} | (footer or {}))
    return b"PAR1" + pages + said + struct.pack("<I", len(said)) + b"PAR1"


def plain(values: list[bytes]) -> bytes:
    """Binary values as a page of encoding PLAIN holds them."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def run(value: int, count: int) -> bytes:
    """``count`` times a number of at most 8 bits, as a run."""
    return varint(count << 1) + bytes([value])
