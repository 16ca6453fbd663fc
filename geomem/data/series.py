"""UCR text files: one signal per line, its class label first, then its values.

Values are separated by blanks, tabs or commas and taken as they are. ``X_TRAIN.txt`` finds ``X_TEST.txt``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomem.data.points import Points, Source, as_points
from geomem.data.refusal import reading, wrong

_ADVICE = "each line is an integer label and then the values of a signal, with no header"
_MAX_LABEL = 2**31 - 1


def read_series(path: Path) -> Source:
    """Signals ``(N, 1, L)`` with integer labels; a ``_TEST`` file beside a ``_TRAIN`` file is held out."""
    train = _read_file(path)
    if not path.stem.endswith("_TRAIN"):
        return Source(path.stem, train)
    name = path.stem.removesuffix("_TRAIN")
    beside = path.with_name(f"{name}_TEST{path.suffix}")
    return Source(name, train, _read_file(beside) if beside.is_file() else None)


def _read_file(path: Path) -> Points:
    rows: list[np.ndarray] = []
    with reading(path, "UTF-8 text", _ADVICE), open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_read_line(line, f"{path}: line {number}", len(rows[0]) if rows else None))
    if not rows:
        raise wrong(path, f"is empty; {_ADVICE}")
    table = np.stack(rows)
    return as_points(table[:, None, 1:], path, table[:, 0].astype(np.int64))


def _read_line(line: str, where: str, expected: int | None) -> np.ndarray:
    with reading(where, "numbers", _ADVICE):
        row = np.array([float(field) for field in (line.split(",") if "," in line else line.split())])
    if len(row) < 2 or not row[0].is_integer() or abs(row[0]) > _MAX_LABEL:
        raise wrong(where, f"has no integer label followed by values; {_ADVICE}")
    if expected not in (None, len(row)):
        raise wrong(where, f"has {len(row)} numbers, the first line {expected}; "
                           "all signals must have one length")
    return row
