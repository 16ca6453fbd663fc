"""Small files in the forms in which data sets are given out, as their authors write them."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np


def python2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A CIFAR-10 batch as Python 2's cPickle wrote the official ones: protocol 2, text as byte strings.

    images: uint8 (n, 3, 32, 32); 2 <= n < 2**16.
    """
    n = len(images)
    counter = iter(range(1, 256))

    def put() -> bytes:
        return b"q" + bytes([next(counter)])

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value + put()

    def integer(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def string(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    dtype = (b"cnumpy\ndtype\n" + put() + text(b"u1") + b"K\x00K\x01\x87" + put() + b"R" + put() + b"(K\x03"
             + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" + put() + b"b")
    array = (b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put() + b"K\x00\x85" + put()
             + text(b"b") + b"\x87" + put() + b"R" + put() + b"(K\x01" + integer(n) + b"M\x00\x0c\x86" + put() + dtype
             + b"\x89" + string(images.tobytes()) + b"t" + put() + b"b")
    return (b"\x80\x02}" + put() + b"(" + text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + b"]"
            + put() + b"(" + b"".join(map(integer, labels)) + b"e" + text(b"data") + array + text(b"filenames") + b"]"
            + put() + b"(" + b"".join(text(b"a.png") for _ in range(3)) + b"eu.")


def python3_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """The same dictionary, its keys bytes, as Python 3 pickles it at protocol 2."""
    return pickle.dumps({b"labels": labels, b"data": images.reshape(len(images), -1), b"batch_label": b"x"}, 2)


def binary_batch(images: np.ndarray, labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, train: np.ndarray, held: np.ndarray, labels: np.ndarray, zipped: bool) -> Path:
    """Four IDX files; ``labels`` are those of both parts, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train-images-idx3-ubyte": train, "train-labels-idx1-ubyte": labels[:len(train)],
             "t10k-images-idx3-ubyte": held, "t10k-labels-idx1-ubyte": labels[len(train):]}
    for name, array in files.items():
        content = idx(array)
        (folder / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def ts(signals: np.ndarray, labels: list[str]) -> str:
    """signals: (N, C, L)."""
    lines = ["# a comment", "@problemName Beat", "@timeStamps false", "@missing false",
             f"@univariate {str(signals.shape[1] == 1).lower()}", "@equalLength true",
             f"@classLabel true {' '.join(dict.fromkeys(labels))}", "@data"]
    lines += [":".join([*(",".join(map(repr, channel)) for channel in signal.tolist()), label])
              for signal, label in zip(signals, labels, strict=True)]
    return "\n".join(lines) + "\n"


def arff(signals: np.ndarray, labels: list[str]) -> str:
    """signals: (N, L)."""
    lines = ["% a comment", "@relation Beat", *(f"@attribute att{i} numeric" for i in range(signals.shape[1])),
             f"@attribute target {{{','.join(dict.fromkeys(labels))}}}", "", "@data"]
    lines += [",".join([*map(repr, row), label]) for row, label in zip(signals.tolist(), labels, strict=True)]
    return "\n".join(lines) + "\n"
