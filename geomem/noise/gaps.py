"""Gaps: ranges of noise levels, from danger zones, pairs of numbers, timesteps or files.

A gap is a closed range [low, high] of sigma in data units, 0 <= low < high <= infinity.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np

from geomem.errors import InputError

Gap = tuple[float, float]
_WANTED = "give a danger zone, a pair (low, high) in sigma, or a list of them"


@runtime_checkable
class Zone(Protocol):
    """Anything with two edges in sigma, such as a danger zone."""

    @property
    def sigma_low(self) -> float: ...
    @property
    def sigma_high(self) -> float: ...


def read_zone(path: str | os.PathLike[str]) -> Gap:
    """Edges (sigma_low, sigma_high) of the zone in a danger-zone file, or in the one of a directory.

    Raises InputError where there is no such file or no zone in it.
    """
    from geomem.geometry.zone_file import read_document

    zone = read_document(path)["zone"]
    if zone is None:
        raise InputError(f"{os.fspath(path)}: the file holds no danger zone; choose the noise levels by hand")
    return float(zone["sigma_low"]), float(zone["sigma_high"])


def parse_range(text: str) -> Gap:
    """``LO:HI``, two numbers. Raises InputError unless both are finite and LO < HI."""
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"{text!r} is not LO:HI, two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{text!r}: low must be less than high, and both finite")
    return low, high


def merged_gaps(zone: Any) -> tuple[Gap, ...]:
    """Disjoint gaps, ascending, that cover the same noise levels as ``zone``: one zone, one pair, or several.

    Raises InputError for anything else, for no gap at all, and unless 0 <= low < high.
    """
    gaps = _pairs(zone)
    if not gaps:
        raise InputError("a gap sampler needs at least one gap")
    for low, high in gaps:
        if not 0 <= low < high:
            raise InputError(f"the gap {low:g}:{high:g} must satisfy 0 <= low < high (sigma, in data units)")
    merged: list[Gap] = []
    for low, high in sorted(gaps):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _pairs(zone: Any) -> list[Gap]:
    if isinstance(zone, Zone):
        return [(number(zone.sigma_low, "a gap"), number(zone.sigma_high, "a gap"))]
    if isinstance(zone, str | bytes | Mapping) or not isinstance(zone, Sequence | np.ndarray):
        raise InputError(f"{_short(zone)} is no gap; {_WANTED}" + (
            "; a file is read by read_zone" if isinstance(zone, str | os.PathLike) else ""))
    if len(zone) == 2 and not any(isinstance(edge, Zone | Sequence | np.ndarray) for edge in zone):
        return [(number(zone[0], "a gap"), number(zone[1], "a gap"))]
    return [pair for item in zone for pair in _pairs(item)]


def number(value: Any, of: str) -> float:
    """The value as a float. Raises InputError where it is none, a string or a tensor for instance."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(f"{of} is given by numbers, not by {_short(value)}")
    return float(value)


def _short(value: Any) -> str:
    """What was given, in a few words on one line."""
    return repr(value) if isinstance(value, str | int | float | None) and len(repr(value)) < 60 else (
        f"a {type(value).__name__}")
