"""Danger-zone files: the JSON of ``geomem danger-zone``, format ``geomem.danger-zone/1``."""

from __future__ import annotations

import os
from typing import Any

from geomem.errors import InputError
from geomem.files import read_json, write_csv, write_json
from geomem.geometry.curves import Curves
from geomem.geometry.options import LARGEST


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A danger-zone file, or the one in a directory. Raises InputError where it is not one."""
    path = os.fspath(path)
    if os.path.isdir(path):
        path = os.path.join(path, "danger-zone.json")
    advice = "make one with geomem danger-zone DATA --out DIR"
    document = read_json(path, advice)
    if document.get("format") != "geomem.danger-zone/1":
        raise InputError(f"{path} is not a danger-zone file; {advice}")
    document = {"zone": None, "space": {"name": "data"}, "classes": []} | document
    try:
        _check_part(document)
        for part in document["classes"]:
            _check_part(part)
        if not (isinstance(document["data"].get("name", ""), str) and isinstance(document["space"]["name"], str)):
            raise ValueError("its names are no text")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); make it again with geomem danger-zone") from None
    return document


def _check_part(part: dict[str, Any]) -> None:
    """Raises some error unless the curves and the zone of all points, or of a class, can be used as they are."""
    Curves.from_dict(part)
    zone = part["zone"]
    if zone is None:
        return
    if not (_are_levels(zone["sigma_low"], zone["sigma_high"]) and zone["sigma_low"] <= zone["sigma_high"]):
        raise ValueError("its zone has no positive, ordered edges")
    for name in ("crossing", "crossing_low", "crossing_high"):
        if zone[name] is not None and not _are_levels(zone[name]):
            raise ValueError(f"its {name} is no noise level")
    for name in ("sigma_low_interval", "sigma_high_interval"):
        interval = zone.get(name)
        if interval is not None and not (len(interval) == 2 and _are_levels(*interval)):
            raise ValueError(f"its {name} is no interval")


def _are_levels(*values: Any) -> bool:
    return all(type(value) in (int, float) and 0 < value <= LARGEST for value in values)


def write_document(directory: str | os.PathLike[str], document: dict[str, Any]) -> None:
    """curves.csv (a row per noise level), curves.json (without the zone) and danger-zone.json (all of it)."""
    columns: dict[str, list[float]] = {}
    for name, part in document["curves"].items():
        if isinstance(part, dict):
            columns |= {name if key == "estimate" else f"{name}_{key}": values for key, values in part.items()}
        elif isinstance(part, list):
            columns[name] = part
    write_csv(os.path.join(directory, "curves.csv"), columns)
    write_json(os.path.join(directory, "curves.json"), {name: part for name, part in document.items()
                                                        if name not in ("zone", "zone_reason", "classes", "seconds")})
    write_json(os.path.join(directory, "danger-zone.json"), document)
