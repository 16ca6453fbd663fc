"""Danger-zone files: the JSON of ``geomem danger-zone``, format ``geomem.danger-zone/1``."""

from __future__ import annotations

import json
import os
from typing import Any

from geomem.errors import InputError
from geomem.geometry.curves import Curves


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A danger-zone file, or the one in a directory. Raises InputError where it is not one."""
    path = os.fspath(path)
    if os.path.isdir(path):
        path = os.path.join(path, "danger-zone.json")
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make one with geomem danger-zone DATA --out DIR") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}); make one with geomem danger-zone DATA --out DIR") from None
    if not isinstance(document, dict) or document.get("format") != "geomem.danger-zone/1":
        raise InputError(f"{path} is not a danger-zone file; make one with geomem danger-zone DATA --out DIR")
    try:
        Curves.from_dict(document)
        zone = document.get("zone")
        if zone is not None and not 0 < zone["sigma_low"] <= zone["sigma_high"]:
            raise ValueError("its zone has no positive, ordered edges")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); make it again with geomem danger-zone") from None
    document.setdefault("zone", None)
    return document
