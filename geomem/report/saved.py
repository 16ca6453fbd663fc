"""What a run directory holds already. It may come from a stranger.

Files are read only up to a size; NaN, infinity and JSON nested without end are refused. An answer is built anew from
numbers that were checked against a form, so what nobody looked for goes no further.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.files import MAX_JSON_BYTES, read_json

MAX_SAMPLES_BYTES = 2**31
MAX_FILES = 200
MAX_LEVELS = 2000
LARGEST = 1e30  # figures beyond it are no results, and drawing them overflows
SIGMA_RANGE = (1e-12, 1e12)
_DEPTH = 2  # a report lies in the run directory or in a directory of it
_NOT_OURS = {"weights", "tensorboard"}


def files_in(run: Path, suffix: str) -> list[Path]:
    """Files of a run directory by suffix, in the order of their names; links and what has no end are left out."""
    files: list[Path] = []
    for folder, folders, names in os.walk(run):
        depth = len(Path(folder).relative_to(run).parts)
        folders[:] = sorted(name for name in folders if name not in _NOT_OURS) if depth < _DEPTH - 1 else []
        paths = [Path(folder, name) for name in sorted(names) if name.endswith(suffix)]
        files += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(files) >= MAX_FILES:
            break
    return files[:MAX_FILES]


def documents_in(run: Path, kind: str, read: Callable[[Path, dict[str, Any]], Any],
                 ignored: Callable[[str], None]) -> Iterator[tuple[Path, Any]]:
    """What ``read`` makes of the JSON files of a run whose format is ``kind``; ``ignored`` hears of the unreadable."""
    for path in files_in(run, ".json"):
        try:
            document = read_json(path, "it is left out")
        except InputError as error:
            ignored(str(error))
            continue
        if document.get("format") == kind:
            try:
                yield path, read(path, document)
            except InputError as error:
                ignored(f"{path}: {error}")


def require_readable(path: Path) -> None:
    """Raises InputError for a text file that is too long to read."""
    if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size:,} bytes, more than the {MAX_JSON_BYTES:,} that are "
                         "read")


def require_bounded(path: Path) -> None:
    """Raises InputError for a file of samples that would unpack to more than is held in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is not an .npz ({error})") from None
    if size > MAX_SAMPLES_BYTES:
        raise InputError(f"{path} unpacks to {size:,} bytes, more than the {MAX_SAMPLES_BYTES:,} that are read")


# --- values and forms: a form is a function that checks a value, or a mapping of names to forms ---------------------

def number(value: Any, low: float = -LARGEST, high: float = LARGEST) -> float:
    """A finite float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    value = float(value)
    if not low <= value <= high:  # nor is NaN
        raise ValueError(f"{value} is out of range")
    return value


def numbers(values: Any, low: float = -LARGEST, high: float = LARGEST) -> list[float]:
    """At most ``MAX_LEVELS`` finite floats in [low, high]."""
    if not isinstance(values, list) or len(values) > MAX_LEVELS:
        raise ValueError("a list of numbers is missing or too long")
    return [number(value, low, high) for value in values]


def levels(values: Any, least: int = 1) -> list[float]:
    """At least so many increasing noise levels."""
    sigma = numbers(values, *SIGMA_RANGE)
    if len(sigma) < least or sorted(set(sigma)) != sigma:
        raise ValueError("noise levels are missing or do not increase")
    return sigma


def whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= 10**15:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value


def pair(values: Any) -> list[float]:
    low, high = numbers(values, 0)
    return [low, high]


def text(value: Any) -> str:
    return str(value)[:500]


@dataclass(frozen=True)
class Maybe:
    """The form of a part that may be absent or null, and then is None."""

    form: Any


def checked(value: Any, form: Any) -> Any:
    """The parts of ``value`` that the form names; lists in one table with ``sigma`` are as long as it."""
    if isinstance(form, Maybe):
        return None if value is None else checked(value, form.form)
    if not isinstance(form, Mapping):
        return form(value)
    parts = {name: checked(value.get(name) if isinstance(part, Maybe) else value[name], part)
             for name, part in form.items()}
    tables = [parts, *(part for part in parts.values() if isinstance(part, dict))] if "sigma" in parts else []
    if any(len(column) != len(parts["sigma"]) for table in tables for column in table.values()
           if isinstance(column, list)):
        raise ValueError("columns differ in length")
    return parts


@contextmanager
def _damaged(name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{name} is damaged ({error!r})") from None


_POSITIVE, _UNIT, _SIGMA = partial(number, low=0), partial(number, low=0, high=1), partial(
    number, low=SIGMA_RANGE[0], high=SIGMA_RANGE[1])
_ERRORS, _SHARES = partial(numbers, low=0), partial(numbers, low=0, high=1)
_PROBABILITIES = partial(numbers, low=-1e-9, high=1 + 1e-9)
_CURVE = dict.fromkeys(("estimate", "low", "high"), _PROBABILITIES)
_INTERVAL = dict.fromkeys(("low", "high"), _UNIT)
_LEVELS = {"sigma": levels, **dict.fromkeys(("rate", "low", "high"), _SHARES),
           **dict.fromkeys(("mse_train", "mse_heldout"), _ERRORS), "n_heldout": partial(whole, least=1)}
_ZONE_FILE = {
    "data": {"sha256": text},
    "curves": {"sigma": levels,
               **dict.fromkeys(("max_posterior_weight", "self_posterior_weight", "coverage"), _CURVE),
               **dict.fromkeys(("coverage_lower_bound", "coverage_upper_bound"), _PROBABILITIES)},
    "zone": Maybe({"sigma_low": _SIGMA, "sigma_high": _SIGMA, "threshold": _UNIT,
                   **dict.fromkeys(("crossing", "crossing_low", "crossing_high", "edm_mass"), Maybe(_POSITIVE)),
                   **dict.fromkeys(("sigma_low_interval", "sigma_high_interval"), Maybe(pair)), "note": Maybe(text)}),
    "zone_reason": Maybe(text),
    "thresholds": {"concentrated_below": {"mean": _POSITIVE}, "spread_above": Maybe({"mean": _POSITIVE}),
                   "disjoint_below": Maybe(_POSITIVE)},
    "space": Maybe(lambda space: text(space.get("name", "data"))),
}


def share(part: Mapping[str, Any]) -> dict[str, Any]:
    """rate, low, high and n of a share with its interval."""
    clean = checked(part, {"rate": _UNIT, **_INTERVAL, "n": partial(whole, least=1)})
    if not clean["low"] - 1e-9 <= clean["rate"] <= clean["high"] + 1e-9:
        raise ValueError("a share lies outside its interval")
    return clean


def zone_document(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a danger-zone document that the page shows and draws, checked. Raises InputError."""
    with _damaged(path.name):
        clean = checked(document, _ZONE_FILE)
        if clean["zone"] and clean["zone"]["sigma_low"] > clean["zone"]["sigma_high"]:
            raise ValueError("the zone ends before it begins")
        return clean


def memorization(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Of a memorization report: its path, about (as in a file of samples), trajectory, per_noise_level and
    reference_denoisers. Raises InputError where it is damaged.
    """
    with _damaged(path.name):
        return {"path": path, **checked(document, {
            "trajectory": share, "per_noise_level": Maybe(_LEVELS),
            "reference_denoisers": Maybe({"empirical_optimal": _LEVELS, "gaussian_linear": _LEVELS})}),
            "about": {**(document["about"] if isinstance(document["about"], dict) else {}),
                      "data": {"sha256": document["data"]["sha256"]}}}


def training_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checked lines of stats.jsonl: step, loss and, where there was held-out data, heldout_mse per band."""
    with _damaged("stats.jsonl"):
        form = {"step": whole, "loss": number}
        clean = [checked(line, form | ({"heldout_mse": _ERRORS} if "heldout_mse" in line else {})) for line in lines]
        if len({len(line.get("heldout_mse", ())) for line in clean}) > 1:
            raise ValueError("lines differ in the number of noise levels")
        return clean


def watch_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checked lines of watch.jsonl, as ``plots.plot_watch`` takes them."""
    form = {"step": whole, "floor_high": _UNIT, "sigma": partial(levels, least=0), "mse_train": _ERRORS,
            "mse_heldout": _ERRORS, "has_set_in": lambda value: value is True,
            "leaning": Maybe({"share": _UNIT, **_INTERVAL,
                              "points": lambda value: "test" if value == "test" else "validation"})}
    with _damaged("watch.jsonl"):
        return [checked(line, form) | share(line) for line in lines]


def bands(part: Mapping[str, Any]) -> dict[str, Any]:
    """levels.json: edges of the bands, the chosen step of each, the one early stop. Raises InputError."""
    with _damaged("levels.json"):
        clean = checked(part, {"edges": partial(levels, least=2), "early_stop": whole,
                               "steps": lambda steps: [whole(step) for step in steps]})
        if len(clean["steps"]) != len(clean["edges"]) - 1:
            raise ValueError("bands and steps do not fit")
        return clean
