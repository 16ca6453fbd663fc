"""What callers may pass besides points: noise levels, draws, how many points to evaluate, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.errors import InputError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LARGEST = 1e15  # noise level; the smallest is its inverse
MEMORY = 2 * 2**30  # bytes, beside the points themselves
DUPLICATES = ("merge", "keep")
QUERIES = 4096  # of each kind; W and C then have standard errors below .008, however many points there are


@dataclass(frozen=True)
class Options:
    """How the curves are measured; see ``geometry_curves``."""

    posterior_draws: int = 4
    coverage_draws: int = 8
    shell_t: float = 5.0
    queries: int | None = None
    seed: int = 0
    device: Any = "auto"
    memory: int = MEMORY
    group: ProcessGroup | None = None
    progress: Callable[[int, int], None] | None = None
    duplicates: str = "keep"

    def __post_init__(self) -> None:
        """Raises InputError unless draws, queries and memory are whole numbers, 1 or more, and duplicates is known."""
        checked = {name: as_draws(name, getattr(self, name)) for name in ("posterior_draws", "coverage_draws")}
        if self.queries is not None:
            checked["queries"] = as_whole("queries", self.queries, "points to look from")
        checked["memory"] = as_whole("memory", self.memory, "bytes")
        if self.duplicates not in DUPLICATES:
            raise InputError(f"duplicates is {self.duplicates!r}; give {' or '.join(DUPLICATES)}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def as_sigmas(sigmas: Any) -> np.ndarray:
    """Noise levels as a float64 array, ascending, each once. Raises InputError unless they are numbers from 1e-15 to
    1e15, beyond which their squares leave float32.
    """
    try:
        levels = np.unique(np.asarray(sigmas, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"sigmas are not numbers ({error}); give positive noise levels") from error
    if levels.size == 0:
        raise InputError("sigmas is empty; give at least one noise level")
    wrong = levels[~((levels >= 1 / LARGEST) & (levels <= LARGEST))]
    if wrong.size:
        raise InputError(f"sigmas holds {wrong[0]:g}; give positive noise levels from {1 / LARGEST:g} to {LARGEST:g}")
    return levels


def as_draws(name: str, draws: int) -> int:
    """Number of noise draws per point. Raises InputError unless it is a whole number, 1 or more."""
    return as_whole(name, draws, "noise draws per point")


def as_whole(name: str, value: Any, what: str) -> int:
    """A whole number, 1 or more. Raises InputError for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value or isinstance(value, bool):
        raise InputError(f"{name} is {value}; give a whole number of {what}, 1 or more")
    return number
