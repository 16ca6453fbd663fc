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
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from geomem.data.points import Points, as_points, class_names
from geomem.data.source import Source
from geomem.errors import as_input_error, file_error
from geomem.files import require_file

_UCR = "each line is an integer label and then the values of a signal, with no header"
_TS = "after @data, each line is a signal's values with commas, a colon and its label"
_ARFF = "it has one numeric attribute per value and the class label last"
_MAX_LABEL = 2**31 - 1
_MAX_LINE = 1 << 24  # characters, of which Python makes fifty times as many bytes

Table = tuple[np.ndarray, np.ndarray | None]


def read_series(path: Path) -> Source:
    """Signals ``(N, C, L)`` with labels; a ``_TEST`` file beside a ``_TRAIN`` file is held out."""
    train = _read_file(path)
    if not path.stem.endswith("_TRAIN"):
        return Source(path.stem, train)
    name = path.stem.removesuffix("_TRAIN")
    beside = path.with_name(f"{name}_TEST{path.suffix}")
    return Source(name, train, _read_file(beside) if beside.is_file() else None)


def training_file(folder: Path) -> Path | None:
    """``X_TRAIN`` in a folder, or None; of several forms of it the first in the order of the names' endings."""
    found = [path for path in folder.glob("*_TRAIN*")
             if path.stem.endswith("_TRAIN") and path.suffix in ("", ".txt", ".tsv", ".csv", ".ts", ".arff")]
    if len({path.stem for path in found}) > 1:
        raise file_error(folder, f"holds several data sets ({', '.join(sorted({path.stem for path in found})[:4])}); "
                                 "give the file itself")
    return min(found, key=lambda path: (path.suffix not in (".txt", ".tsv", ".csv"), path.suffix), default=None)


def _read_file(path: Path) -> Points:
    require_file(path, "give a file of text")
    with as_input_error(path, "UTF-8 text", _UCR), open(path, encoding="utf-8-sig") as file:
        first = next((line for line in _lines(file, str(path)) if line.strip()), "")
        file.seek(0)
        reader: Callable[[io.TextIOBase, str], Table] = read_ucr
        if first.lstrip().startswith(("@", "#", "%")):
            reader = read_arff if _is_arff(_lines(file, str(path))) else read_ts
            file.seek(0)
        signals, labels = reader(file, str(path))
    return as_points(signals, path, labels)


def _is_arff(file: Iterator[str]) -> bool:
    """Whether the first line that begins with @ says @relation."""
    first = next((line for line in file if line.lstrip().startswith("@")), "")
    return first.lstrip().lower().startswith("@relation")


def read_ucr(file: io.TextIOBase, where: str) -> Table:
    """Signals ``(N, 1, L)`` and integer labels. Raises InputError."""
    rows: list[np.ndarray] = []
    for number, line in enumerate(_lines(file, where), start=1):
        if line.strip():
            rows.append(_read_line(line, f"{where}: line {number}", len(rows[0]) if rows else None))
    if not rows:
        raise file_error(where, f"is empty; {_UCR}")
    table = np.stack(rows)
    return table[:, None, 1:], table[:, 0].astype(np.int64)


def _lines(file: io.TextIOBase, where: str) -> Iterator[str]:
    while line := file.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise file_error(where, f"has a line of more than {_MAX_LINE:,} characters, too many for one signal as "
                                    "text; save long signals as a .npy file")
        yield line


def _read_line(line: str, where: str, expected: int | None) -> np.ndarray:
    with as_input_error(where, "numbers", _UCR):
        row = np.array([float(field) for field in (line.split(",") if "," in line else line.split())])
    if len(row) < 2 or not row[0].is_integer() or abs(row[0]) > _MAX_LABEL:
        raise file_error(where, f"has no integer label followed by values; {_UCR}")
    if expected not in (None, len(row)):
        raise file_error(where, f"has {len(row)} numbers, the first line {expected}; "
                                "all signals must have one length")
    return row


def read_ts(file: io.TextIOBase, where: str) -> Table:
    """Signals ``(N, C, L)`` and labels, integers or names, or None where the file has none. Raises InputError."""
    signals: list[np.ndarray] = []
    labels: list[str] = []
    labelled, inside = True, False
    for number, line in enumerate(_lines(file, where), start=1):
        line, here = line.strip(), f"{where}: line {number}"
        if not line or line.startswith("#"):
            continue
        if not inside:
            words = line.lower().split()
            if words[0] == "@classlabel":
                labelled = words[1:2] == ["true"]
            elif words[:2] == ["@timestamps", "true"]:
                raise file_error(here, "says that values have time stamps, which are not read; save the values alone")
            inside = words[0] == "@data"
            if not line.startswith("@"):
                raise file_error(here, f"comes before @data; {_TS}")
            continue
        fields = line.split(":")
        if labelled:
            labels.append(fields.pop().strip())
        with as_input_error(here, "a signal", _TS):
            signals.append(np.array([[float(value) for value in channel.split(",")] for channel in fields], np.float64))
        if signals[-1].shape != signals[0].shape or not signals[-1].size:
            raise file_error(here, f"has {_channels(signals[-1])}, the first signal {_channels(signals[0])}; all "
                                   "signals must have one length")
    if not signals:
        raise file_error(where, f"has no signals; {_TS}")
    with as_input_error(where, "signals", _TS):
        return np.stack(signals), _classes(labels) if labelled else None


def _channels(signal: np.ndarray) -> str:
    return f"{signal.shape[0]} x {signal.shape[1]} values" if signal.ndim == 2 else "no values"


def read_arff(file: io.TextIOBase, where: str) -> Table:
    """Signals ``(N, 1, L)`` and labels, integers or names. Raises InputError.

    One channel only: attributes within attributes are refused.
    """
    with as_input_error(where, "an ARFF file", _ARFF):
        from scipy.io.arff import loadarff

        for _ in _lines(file, where):  # scipy would read a line of any length
            pass
        file.seek(0)
        data, _ = loadarff(file)
        names = list(data.dtype.names or [])
        kinds = "".join(data.dtype[name].kind for name in names)
        if len(kinds) < 2 or kinds.rstrip("S") != "f" * (len(kinds) - 1):
            raise ValueError("its attributes are others")
        if not len(data):
            raise ValueError("it has no signals")
        signals = np.stack([data[name] for name in names[:-1]], axis=1)
        return signals[:, None], _classes([label.decode() for label in data[names[-1]]])


def _classes(labels: list[str]) -> np.ndarray:
    """Integers where all labels are whole numbers, else names."""
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError:
        return class_names(labels)
    whole = np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all() and np.abs(numbers).max() <= _MAX_LABEL
    return numbers.astype(np.int64) if whole else class_names(labels)
