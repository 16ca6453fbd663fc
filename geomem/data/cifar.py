"""CIFAR-10 as its authors give it out: a folder of *batches*, ``data_batch_1`` to ``data_batch_5`` and ``test_batch``.

A python batch is the pickle of a dictionary with ``data``, uint8 ``(n, 3072)``, and ``labels``, n integers; it is
unpickled in a child process, without NumPy and without any name but the four that it needs. A binary batch (``.bin``)
is n records of one label byte and 3,072 bytes of pixels. The pixels of an image are its red, green and blue planes,
row by row.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.child import in_child
from geomem.data.points import Points, joined_points
from geomem.data.source import Source
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_CLASSES = 10
_MAX_BYTES = 1 << 28  # of one batch; the official ones have 31 million
_ADVICE = "unpack the official archive again"
_NAME = re.compile(r"(data_batch_([1-9][0-9]?)|test_batch)(\.bin)?")


def batches(folder: Path) -> list[Path]:
    """The batches in a folder, those for training in their order; of one kind where there are both."""
    found = {match: path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    python = [match for match in found if match[3] is None]
    return [found[match] for match in sorted(python or found, key=lambda match: int(match[2] or 0))]


def read_cifar(folder: Path) -> Source:
    """Images ``(N, 3, 32, 32)`` with their labels; ``test_batch`` is held out."""
    paths = batches(folder)
    train = [path for path in paths if path.name.startswith("data")]
    if not train:
        raise file_error(folder, f"has no data_batch_1; {_ADVICE}")
    test = [path for path in paths if path not in train]
    return Source("cifar10", [_joined(folder, files) for files in (train, test) if files])


def read_batch_file(path: Path) -> Source:
    """One batch alone, all of it training points."""
    return Source(path.stem, [_joined(path, [path])])


def is_binary_batch(path: Path) -> bool:
    """Whether a file has the size of a binary batch and labels where it should."""
    size = path.stat().st_size
    if size == 0 or size % (1 + _PIXELS) or size > _MAX_BYTES:
        return False
    return bool((np.memmap(path, dtype=np.uint8, mode="r")[::1 + _PIXELS] < _CLASSES).all())


def _joined(where: Path, paths: list[Path]) -> Points:
    images, labels = [], []
    for path in paths:
        with as_input_error(path, "a CIFAR-10 batch", _ADVICE):
            require_file(path, _ADVICE, _MAX_BYTES)
            ((data, numbers),) = in_child(_read_batch, path)
            if len(numbers) != len(data):
                raise ValueError(f"{len(data):,} images have {len(numbers):,} labels")
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < _CLASSES:
                raise ValueError(f"a label is not in 0 to {_CLASSES - 1}")
            images.append(data.reshape(-1, *_SHAPE))
            labels.append(numbers)
    return joined_points(images, where, np.concatenate(labels))


def _read_batch(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """In the child: uint8 pixels ``(n, 3072)`` and integer labels ``(n,)``."""
    content = path.read_bytes()
    if content.startswith(b"\x80"):
        yield read_python_batch(content)
    elif len(content) % (1 + _PIXELS):
        raise ValueError(f"{len(content):,} bytes are no whole number of records of {1 + _PIXELS:,}")
    else:
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + _PIXELS)
        yield records[:, 1:], records[:, 0].astype(np.int64)


class _Array:
    """Stands for an array of NumPy, which would take whatever memory and type a pickle names."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or kind.code not in (b"u1", "u1") or fortran:
            raise ValueError("an array is not uint8 in C order")
        self.values = np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _Type:
    """Stands for a dtype of NumPy, of whose state one byte needs nothing."""

    def __init__(self, code: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


class _BatchUnpickler(pickle.Unpickler):
    """Looks no name up: the four in a batch stand for functions of this file, and every other one is refused."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        match module, name:
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return lambda *_: _Array()
            case ("numpy", "ndarray"):
                return lambda *_: None
            case ("numpy", "dtype"):
                return lambda code, *_: _Type(code)
            case ("_codecs", "encode"):  # Python 3 writes bytes so at protocol 2
                return lambda text, _: text.encode("latin1")
        raise ValueError(f"it asks for {module}.{name}, which no CIFAR batch needs")


def read_python_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """uint8 pixels ``(n, 3072)`` and integer labels ``(n,)``.

    Runs no code of the pickle, which can still ask for much memory. Raises ValueError, or what pickle raises.
    """
    batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict):
        raise ValueError("it is no dictionary")
    batch = {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in batch.items()}
    data, labels = getattr(batch["data"], "values", None), batch["labels"]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise ValueError(f"data is no array of {_PIXELS} pixels per image")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("labels is no list of integers")
    return data, np.array(labels, dtype=np.int64)
