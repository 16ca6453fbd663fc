"""What callers may pass: points, noise levels, draws. Everything wrong becomes an InputError here."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from geomem.errors import InputError


def as_points(name: str, points: Any) -> np.ndarray:
    """Array or tensor (n, ...) as a float32 or float64 array (n, d); other dtypes become float64.

    Raises InputError if there is no point, the dtype is not real, or an entry is NaN or infinite.
    """
    array = points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else np.asarray(points)
    if array.ndim == 0 or array.size == 0:
        raise InputError(f"{name} has shape {array.shape}; give an array of shape (points, ...)")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; give real numbers")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array.reshape(len(array), -1))
    # Far cheaper than a test of every entry, and finite whenever all entries are, but for overflow.
    with np.errstate(invalid="ignore", over="ignore"):
        total = array.sum(dtype=np.float64)
    if not np.isfinite(total) and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{name} has NaN or infinite entries, first in point {row}; remove or repair them")
    return array


def as_train_and_heldout(train: Any, heldout: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as ``as_points`` gives them. Raises InputError also if their points differ in size."""
    train, heldout = as_points("train", train), as_points("heldout", heldout)
    if train.shape[1] != heldout.shape[1]:
        raise InputError(f"heldout points have {heldout.shape[1]} entries, train points {train.shape[1]}; "
                         "give both the same shape")
    return train, heldout


def as_sigmas(sigmas: Any) -> np.ndarray:
    """Noise levels as a float64 array, ascending, each once. Raises InputError unless positive and finite."""
    try:
        levels = np.unique(np.asarray(sigmas, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"sigmas are not numbers ({error}); give positive noise levels") from error
    if levels.size == 0:
        raise InputError("sigmas is empty; give at least one noise level")
    wrong = levels[~(np.isfinite(levels) & (levels > 0))]
    if wrong.size:
        raise InputError(f"sigmas holds {wrong[0]:g}; give positive finite noise levels")
    return levels


def as_draws(name: str, draws: int) -> int:
    """Number of noise draws per point. Raises InputError unless it is a whole number, 1 or more."""
    if draws != int(draws) or draws < 1:
        raise InputError(f"{name} is {draws}; give a whole number of noise draws per point, 1 or more")
    return int(draws)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor, sharing memory where torch can (a read-only memory map is copied)."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
