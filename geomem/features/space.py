"""A feature space: what maps pictures to features, and the features of those that it has seen."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.devices import evaluation_mode
from geomem.errors import InputError
from geomem.points import Array, as_points, as_rows

PIXELS = "pixels"  # the name of the space without features
BATCH = 64


class FeatureSpace:
    """Points (n, ...) to features (n, F) by an extractor, 64 at a time; equal points go through it once.

    extractor: float32 tensor (n, ...) to tensor or array (n, F), on the device of its parameters where it is a module,
    which runs in evaluation mode. name: what results call the space. The features are kept as long as this object.
    """

    def __init__(self, extractor: Callable[[torch.Tensor], Any], name: str = "") -> None:
        self.extractor = extractor
        self.name = name or getattr(extractor, "name", "") or getattr(extractor, "__name__", type(extractor).__name__)
        self._known: dict[tuple[Any, ...], np.ndarray] = {}

    def __call__(self, points: Array, name: str = "points") -> np.ndarray:
        """Points (n, ...), numpy, torch or stored, as (n, F) float32.

        Raises InputError where the extractor does not give as many finite rows of one length.
        """
        source = as_points(name, points)
        return np.concatenate([self._of(source[block], name) for block in source.blocks(source.size, BATCH)])

    def _of(self, part: Any, name: str) -> np.ndarray:
        rows = np.ascontiguousarray(part, dtype=np.float32)
        keys = [(rows.shape[1:], blake2b(row.data, digest_size=16).digest()) for row in rows]
        new = {key: place for place, key in enumerate(keys) if key not in self._known}
        if new:
            self._known |= dict(zip(new, self._extracted(rows[list(new.values())], name), strict=True))
        return np.stack([self._known[key] for key in keys])

    def _extracted(self, rows: np.ndarray, name: str) -> np.ndarray:
        module = self.extractor if isinstance(self.extractor, nn.Module) else None
        weight = None if module is None else next(module.parameters(), None)
        given = torch.from_numpy(rows)
        with torch.inference_mode(), evaluation_mode(module):
            found = self.extractor(given if weight is None else given.to(weight.device))
        values = np.asarray(found.detach().float().cpu() if isinstance(found, torch.Tensor) else found, np.float32)
        if values.ndim != 2 or len(values) != len(rows) or not np.isfinite(values).all():
            raise InputError(f"the features {self.name} of {len(rows)} {name} have shape {values.shape}"
                             f"{' or are not finite' if values.ndim == 2 else ''}; an extractor gives finite (n, F)")
        return values


def feature_space(features: Callable[..., Any] | None) -> FeatureSpace | None:
    """A feature space as it is, any other extractor as one, None for pixels. Raises InputError for what is neither."""
    if features is None or isinstance(features, FeatureSpace):
        return features
    if not callable(features):
        raise InputError(f"features = {features!r} is no callable from pictures to features")
    return FeatureSpace(features)


def rows_in(features: Callable[..., Any] | None, **points: Array) -> list[np.ndarray]:
    """Sets of points (n, ...), by the names that messages give them, as rows (n, d), or as their features (n, F).

    Raises InputError where a value is not finite, the rows differ in length, or ``features`` is no extractor.
    """
    space = feature_space(features)
    rows = [as_rows(part, name) if space is None else space(part, name) for name, part in points.items()]
    sizes = [part.shape[1] for part in rows]
    if len(set(sizes)) > 1:
        raise InputError(f"{' and '.join(points)} have {' and '.join(map(str, sizes))} values each; they must agree")
    return rows
