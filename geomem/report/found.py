"""What a run directory holds already. It may come from a stranger.

Files are read only up to a size; NaN, infinity and JSON nested without end are refused. Each reader builds its answer
anew from numbers that it has checked, so what it did not look for goes no further.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Judgement:
    """What a memorization report says, of which weights.

    about: as in the samples file. trajectory, heldout, per_noise_level, references: as in ``RunFacts``.
    """

    path: Path
    about: dict[str, Any]
    trajectory: dict[str, Any]
    heldout: dict[str, Any]
    per_noise_level: dict[str, Any] | None
    references: dict[str, Any] | None


def files_in(run: Path, suffix: str) -> list[Path]:
    """Files of a run directory by suffix, in the order of their names; links and what has no end are left out."""
    found: list[Path] = []
    for folder, folders, names in os.walk(run):
        depth = len(Path(folder).relative_to(run).parts)
        folders[:] = sorted(name for name in folders if name not in _NOT_OURS) if depth < _DEPTH - 1 else []
        paths = [Path(folder, name) for name in sorted(names) if name.endswith(suffix)]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) >= MAX_FILES:
            break
    return found[:MAX_FILES]


def require_readable(path: Path) -> None:
    """Refuse a text file of a run that is too long to read."""
    if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size:,} bytes, more than the {MAX_JSON_BYTES:,} that are "
                         "read")


def documents_in(run: Path, kind: str, ignored: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """JSON files of a run whose format is ``kind``; ``ignored`` hears of those that cannot be read."""
    for path in files_in(run, ".json"):
        try:
            document = read_json(path, "it is left out")
        except InputError as error:
            ignored(str(error))
            continue
        if document.get("format") == kind:
            yield path, document


def zone_document(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a danger-zone document that the page shows and draws, checked. Raises InputError."""
    try:
        sigma = levels(document["curves"]["sigma"])
        curves: dict[str, Any] = {"sigma": sigma}
        for name in ("max_posterior_weight", "self_posterior_weight", "coverage"):
            curves[name] = {part: numbers(document["curves"][name][part], len(sigma), -1e-9, 1 + 1e-9)
                            for part in ("estimate", "low", "high")}
        for name in ("coverage_lower_bound", "coverage_upper_bound"):
            curves[name] = numbers(document["curves"][name], len(sigma), -1e-9, 1 + 1e-9)
        thresholds = document["thresholds"]
        return {
            "data": {name: whole(document["data"][name]) for name in ("n_train", "n_heldout", "dim", "duplicates")}
            | {"sha256": str(document["data"]["sha256"])[:64]},
            "curves": curves,
            "zone": None if document.get("zone") is None else _zone(document["zone"]),
            "zone_reason": str(document.get("zone_reason", ""))[:500],
            "thresholds": {"concentrated_below": {"mean": number(thresholds["concentrated_below"]["mean"], 0)},
                           "spread_above": thresholds["spread_above"] and {
                               "mean": number(thresholds["spread_above"]["mean"], 0)},
                           "disjoint_below": optional(thresholds["disjoint_below"])},
            "threshold": number(document["settings"].get("threshold", 0.8), 0, 1),
            "space": str(document.get("space", {}).get("name", "data"))[:40],
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path.name} is damaged ({error!r})") from None


def _zone(zone: Mapping[str, Any]) -> dict[str, Any]:
    low, high = levels([zone["sigma_low"], zone["sigma_high"]], strictly=False)
    clean: dict[str, Any] = {"sigma_low": low, "sigma_high": high, "threshold": number(zone["threshold"], 0, 1)}
    for name in ("crossing", "crossing_low", "crossing_high", "edm_mass"):
        clean[name] = optional(zone.get(name))
    for name in ("sigma_low_interval", "sigma_high_interval", "ddpm_timesteps"):
        clean[name] = None if zone.get(name) is None else numbers(zone[name], 2, 0)
    clean["note"] = str(zone.get("note", ""))[:500]
    return clean


def judgement(path: Path, document: Mapping[str, Any]) -> Judgement:
    """A memorization report, format geomem.memorization/1. Raises InputError where it is damaged."""
    try:
        about = document["about"] if isinstance(document["about"], dict) else {}
        whose = {"data": {"sha256": document["data"]["sha256"]}}
        per_level = document.get("per_noise_level")
        references = document.get("reference_denoisers")
        return Judgement(
            path, {**about, **whose}, share(document["trajectory"]), share(document["heldout"]),
            None if per_level is None else noise_levels(per_level),
            None if references is None else {name: noise_levels(references[name])
                                             for name in ("empirical_optimal", "gaussian_linear")})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path.name} is damaged ({error!r})") from None


def quality_rows(path: Path, document: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(about, figures) of each row of a file of ``geomem quality``, format geomem.quality/1. Raises InputError."""
    names = ("frechet", "frechet_low", "frechet_high", "frechet_floor", "frechet_train", "nearest_samples",
             "nearest_heldout")
    counts = ("frechet_train_n", "n_samples", "n_train", "n_heldout", "seed")
    try:
        rows = []
        for row in document["rows"][:MAX_FILES]:
            q = row["quality"]
            about = row["about"] if isinstance(row["about"], dict) else {}
            rows.append(({**about, "data": {"sha256": document["data"]["sha256"]}},
                         {**{name: number(q[name], 0) for name in names}, **{name: whole(q[name]) for name in counts},
                          "floor_n": [whole(n) for n in q["floor_n"][:2]]}))
        return rows
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path.name} is damaged ({error!r})") from None


def training_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checked lines of stats.jsonl: step, loss, seconds and, where there was held-out data, heldout_mse per band."""
    try:
        clean = []
        for line in lines:
            one: dict[str, Any] = {"step": whole(line["step"]), "loss": number(line["loss"])}
            if "heldout_mse" in line:
                one["heldout_mse"] = numbers(line["heldout_mse"], None, 0)
            clean.append(one)
        if len({len(line.get("heldout_mse", ())) for line in clean}) > 1:
            raise ValueError("lines differ in the number of noise levels")
        return clean
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"stats.jsonl is damaged ({error!r})") from None


def watch_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checked lines of watch.jsonl, as ``plots.plot_watch`` takes them."""
    try:
        return [{"step": whole(line["step"]), **share(line), "floor_high": number(line["floor_high"], 0, 1),
                 "sigma": (sigma := levels(line["sigma"], least=0)),
                 "mse_train": numbers(line["mse_train"], len(sigma), 0),
                 "mse_heldout": numbers(line["mse_heldout"], len(sigma), 0),
                 "has_set_in": line["has_set_in"] is True} for line in lines]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"watch.jsonl is damaged ({error!r})") from None


def share(part: Mapping[str, Any]) -> dict[str, Any]:
    """rate, low, high and n of a share with its interval."""
    clean = {name: number(part[name], 0, 1) for name in ("rate", "low", "high")}
    if not clean["low"] - 1e-9 <= clean["rate"] <= clean["high"] + 1e-9:
        raise ValueError("a share lies outside its interval")
    return {**clean, "n": whole(part["n"], 1)}


def noise_levels(part: Mapping[str, Any]) -> dict[str, Any]:
    """Memorized share and errors per noise level."""
    sigma = levels(part["sigma"])
    shares = {name: numbers(part[name], len(sigma), 0, 1) for name in ("rate", "low", "high")}
    errors = {name: numbers(part[name], len(sigma), 0) for name in ("mse_train", "mse_heldout")}
    return {"sigma": sigma, **shares, **errors, "n_heldout": whole(part["n_heldout"], 1)}


def bands(part: Mapping[str, Any]) -> dict[str, Any]:
    """levels.json: edges of the bands, the chosen step of each, the one early stop. Raises InputError."""
    try:
        edges = levels(part["edges"], least=2)
        if not isinstance(part["steps"], list) or len(part["steps"]) != len(edges) - 1:
            raise ValueError("bands and steps do not fit")
        return {"edges": edges, "steps": [whole(step) for step in part["steps"]],
                "early_stop": whole(part["early_stop"])}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"levels.json is damaged ({error!r})") from None


def levels(values: Any, *, least: int = 1, strictly: bool = True) -> list[float]:
    """At least so many increasing noise levels."""
    sigma = numbers(values, None, *SIGMA_RANGE)
    if len(sigma) < least or sorted(sigma) != sigma or (strictly and len(set(sigma)) < len(sigma)):
        raise ValueError("noise levels are missing or do not increase")
    return sigma


def numbers(values: Any, n: int | None = None, low: float = -LARGEST, high: float = LARGEST) -> list[float]:
    """A list of finite floats in [low, high], ``n`` of them or at most ``MAX_LEVELS``."""
    if not isinstance(values, list) or len(values) > MAX_LEVELS or (n is not None and len(values) != n):
        raise ValueError("a list of numbers is missing or has the wrong length")
    return [number(value, low, high) for value in values]


def number(value: Any, low: float = -LARGEST, high: float = LARGEST) -> float:
    """A finite float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    value = float(value)
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{value} is out of range")
    return value


def optional(value: Any) -> float | None:
    return None if value is None else number(value, 0)


def whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= 10**15:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value
