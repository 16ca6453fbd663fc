"""Signals in the three text forms of the UCR and UEA archives. Values are taken as they are.

* ``.txt``, ``.tsv``, ``.csv``: one signal per line, its class label first, then its values, separated by blanks, tabs
  or commas.
* ``.ts``: lines that begin with @, ``@data``, then one signal per line: values separated by commas, after each
  channel a colon, at the end its class label. All signals must have one length, and time stamps are not read.
* ``.arff``: one attribute per value, the class label last.

``X_TRAIN`` finds ``X_TEST`` of the same form.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from geomem.data.points import Points, as_labels, as_points
from geomem.data.source import Source
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

SUFFIXES = (".txt", ".tsv", ".csv", ".ts", ".arff")
_ADVICE = "all signals must have one length; in text without a header each line is an integer label, then values"
_MAX_LABEL = 2**31 - 1
_MAX_LINE = 1 << 24  # characters, of which Python makes fifty times as many bytes

Table = tuple[np.ndarray, np.ndarray | None]


def read_series(path: Path) -> Source:
    """Signals ``(N, C, L)`` with labels; a ``_TEST`` file beside a ``_TRAIN`` file is held out."""
    name = path.stem.removesuffix("_TRAIN")
    beside = path.with_name(f"{name}_TEST{path.suffix}")
    files = [path, beside] if name != path.stem and beside.is_file() else [path]
    return Source(name, [_read_file(file) for file in files])


def training_file(folder: Path) -> Path | None:
    """``X_TRAIN`` in a folder, or None; of several forms of it the first in the order of the names' endings."""
    found = [path for path in folder.glob("*_TRAIN*")
             if path.stem.endswith("_TRAIN") and path.suffix in ("", *SUFFIXES)]
    if len(names := sorted({path.stem for path in found})) > 1:
        raise file_error(folder, f"holds several data sets ({', '.join(names[:4])}); give the file itself")
    return min(found, key=lambda path: (path.suffix not in (".txt", ".tsv", ".csv"), path.suffix), default=None)


def _read_file(path: Path) -> Points:
    require_file(path, "give a file of text")
    with as_input_error(path, "UTF-8 text of signals", _ADVICE), open(path, encoding="utf-8-sig") as file:
        first = _first_word(file)
        read = _read_arff if first == "@relation" else _read_ts if first else _read_ucr
        signals, labels = read(file)
    return as_points(signals, path, labels)


def _first_word(file: io.TextIOBase) -> str:
    """The first that begins a line with @, or nothing. The readers would take lines of any length: refused here."""
    word = ""
    while line := file.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise ValueError(f"a line has more than {_MAX_LINE:,} characters: save long signals as a .npy file")
        if not word and line.lstrip().startswith("@"):
            word = line.split()[0].lower()
    file.seek(0)
    return word


def _read_ucr(file: io.TextIOBase) -> Table:
    """Signals ``(N, 1, L)`` and integer labels."""
    lines = [line for line in file if line.strip()]
    if not lines:
        raise ValueError("it is empty")
    table = np.loadtxt(lines, delimiter="," if "," in lines[0] else None, comments=None, ndmin=2)
    labels = table[:, 0]
    if table.shape[1] < 2 or not _are_whole(labels).all():
        raise ValueError(f"no integer label followed by values at row {_are_whole(labels).argmin()}")
    return table[:, None, 1:], labels.astype(np.int64)


def _read_ts(file: io.TextIOBase) -> Table:
    """Signals ``(N, C, L)`` and labels, integers or names, or None where the file has none."""
    lines = (line.strip() for line in file)
    lines = (line for line in lines if line and not line.startswith("#"))
    labelled = True
    for line in lines:
        match line.lower().split():
            case ["@data", *_]:
                break
            case ["@classlabel", *rest]:
                labelled = rest[:1] == ["true"]
            case ["@timestamps", "true", *_]:
                raise ValueError("values with time stamps are not read: save the values alone")
            case [word, *_] if not word.startswith("@"):
                raise ValueError("a signal comes before @data")
    rows = [line.split(":") for line in lines]
    if not rows:
        raise ValueError("it has no signals")
    labels = _classes([row.pop().strip() for row in rows]) if labelled else None
    return np.stack([np.array([channel.split(",") for channel in row], np.float64) for row in rows]), labels


def _read_arff(file: io.TextIOBase) -> Table:
    """Signals ``(N, 1, L)`` and labels, integers or names. One channel: attributes within attributes are refused."""
    from scipy.io.arff import loadarff

    data, _ = loadarff(file)
    names = list(data.dtype.names or [])
    kinds = "".join(data.dtype[name].kind for name in names)
    if len(kinds) < 2 or kinds.rstrip("S") != "f" * (len(kinds) - 1):
        raise ValueError("an .arff file must have numeric attributes, and the class label last")
    labels = _classes([label.decode() for label in data[names[-1]]])
    return np.stack([data[name] for name in names[:-1]], axis=1)[:, None], labels


def _classes(labels: list[str]) -> np.ndarray:
    """Integers where all labels are whole numbers, else names."""
    try:
        numbers = np.array(labels, np.float64)
    except ValueError:
        return as_labels(labels)
    return numbers.astype(np.int64) if _are_whole(numbers).all() else as_labels(labels)


def _are_whole(numbers: np.ndarray) -> np.ndarray:
    return (numbers == np.floor(numbers)) & (np.abs(numbers) <= _MAX_LABEL)
