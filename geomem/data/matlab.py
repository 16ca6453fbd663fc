"""Lists of integers in MATLAB files of version 5, read without scipy, whose reader can crash on damaged files.

A file is a header of 128 bytes and *elements*: a type, a number of bytes, the content, and zeros up to a multiple of
eight bytes; content of four bytes or less may lie in the place of its own length. A variable is an element of
elements: its class, its shape, its name and its numbers, which may have a smaller type than the class; it may be
compressed as a whole. Of objects, cells and functions nothing is ever made.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod

import numpy as np

MAX_NUMBERS = 1_000_000  # in a list
_MAX_VARIABLE = 8 * MAX_NUMBERS + 4096  # bytes of one that was compressed
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_NUMERIC = range(6, 16)  # classes: double, single, and integers of all sizes
_COMPLEX = 0x800  # among the flags that hold the class


def read_mat_integers(content: bytes, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named variables of a file, each flat and int64. Raises ValueError, or what struct and zlib raise."""
    order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:128])
    if order is None:
        raise ValueError("it is not of version 5")
    found: dict[str, np.ndarray] = {}
    for kind, part in _elements(content, 128, order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(part, _MAX_VARIABLE)
            if not unpacker.eof:
                raise ValueError("a variable is cut short, or too large")
            kind, part = next(_elements(unpacked, 0, order), (0, b""))
        if kind != _MATRIX:
            raise ValueError("it holds something other than variables")
        parts = _elements(part, 0, order)
        flags, shape, name = (next(parts, (0, b""))[1] for _ in range(3))
        if (text := name.decode("latin1")) in found:
            raise ValueError(f"{text} is there twice")
        if text in names:
            found[text] = _integers(text, struct.unpack_from(f"{order}I", flags)[0], np.frombuffer(shape, f"{order}i4"),
                                    *next(parts, (0, b"")), order)
    for text in names:
        if text not in found:
            raise ValueError(f"it lacks {text}")
    return found


def _elements(content: bytes, place: int, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of one element after another."""
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, end = place + 8, place + 8 + size
        place = end if kind == _COMPRESSED else end + -size % 8
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, place = start - 4, start - 4 + min(size, 4), start
        if end > len(content):
            raise ValueError("it is cut short")
        yield kind, content[start:end]


def _integers(name: str, flags: int, shape: np.ndarray, kind: int, content: bytes, order: str) -> np.ndarray:
    of_class = flags & 0xFF
    if of_class not in _NUMERIC or kind not in _TYPES or flags & _COMPLEX:
        raise ValueError(f"{name} is of type {_CLASSES.get(of_class, of_class)}, not real numbers")
    if len(shape) != 2 or shape.min() != 1 or shape.max() > MAX_NUMBERS:
        raise ValueError(f"{name} has shape {tuple(shape.tolist())}, not that of a list")
    values = np.frombuffer(content, order + _TYPES[kind])
    if len(values) != prod(shape.tolist()):
        raise ValueError(f"{name} has {len(values):,} values, not those of its shape")
    if not np.isfinite(values).all() or (values != np.floor(values)).any() or values.min() < -2**31 \
            or values.max() > 2**31:
        raise ValueError(f"{name} holds what is no integer")
    return values.astype(np.int64)
