"""Public names of 0.1.0 that have moved or have another name; they import from their old place for one release."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

RENAMED: dict[str, str] = {  # the old name: where it is now
    "geomem.memorization.Monitor": "geomem.training.Monitor",
}


def renamed(package: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package: looks up names of 0.1.0 in ``RENAMED``."""

    def __getattr__(name: str) -> Any:
        if f"{package}.{name}" not in RENAMED:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, new = RENAMED[f"{package}.{name}"].rsplit(".", 1)
        return getattr(import_module(module), new)

    return __getattr__
