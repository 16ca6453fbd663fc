"""Other spaces than that of the data: the projection on the first K principal components.

With ``mu`` the mean of the training points and ``v_1, ..., v_K`` orthonormal eigenvectors of their covariance for
its K largest eigenvalues, ``y = ((x - mu).v_1, ..., (x - mu).v_K)``. Distances between projected points are those
between the projections in the space of the data, and noise is again N(0, sigma^2 I), now in K dimensions.

W and C of projected points answer another question than in pixels. K numbers of noise hide a point sooner or
later than d numbers do, and what the other components tell about it is gone. They say where a model *of the
projected data* is in danger, not one of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.points import as_points, runs

BLOCK_ENTRIES = 2**24  # float64 entries of the points held at a time (128 MiB)


@dataclass(frozen=True, eq=False)
class LinearProjection:
    """``x -> axes (x - mean)``: ``axes`` (K, d) orthonormal rows, ``mean`` (d,), float64.

    ``variance_kept``: share of the variance of the points it was fitted on that lies along the axes, in [0, 1].
    """

    mean: np.ndarray
    axes: np.ndarray
    variance_kept: float

    def __call__(self, points: Any) -> np.ndarray:
        """Points (n, ...) of d entries, NumPy or torch, as (n, K) float64. Raises InputError for another size."""
        rows = as_points("points", points)
        if rows.shape[1] != len(self.mean):
            raise InputError(f"points have {rows.shape[1]} entries, the projection was fitted on {len(self.mean)}; "
                             "give both the same shape")
        projected = np.empty((len(rows), len(self.axes)))
        for block in runs(0, len(rows), max(1, BLOCK_ENTRIES // rows.shape[1])):
            projected[block] = (rows[block] - self.mean) @ self.axes.T
        return projected


def principal_components(train: Any, components: int) -> LinearProjection:
    """Projection on the first ``components`` principal components of the training points (N, ...).

    Fit it on training points alone: held-out points must not shape the space they are judged in. The sign of an
    axis makes its largest entry positive, so a seed means the same noise everywhere.
    Raises InputError unless ``components`` is from 1 to min(N - 1, d), the most directions in which N points vary.
    """
    rows = as_points("train", train)
    n, dim = rows.shape
    if not 1 <= components <= min(n - 1, dim):
        raise InputError(f"{components} principal components: {n:,} training points of {dim:,} values have 1 to "
                         f"{min(n - 1, dim):,}")
    mean = rows.mean(axis=0, dtype=np.float64)
    if n <= dim:
        _, singular, right = torch.linalg.svd(torch.from_numpy(rows - mean), full_matrices=False)
        variance, axes = singular.numpy()**2, right.numpy()
    else:
        scatter = torch.zeros(dim, dim, dtype=torch.float64)
        for block in runs(0, len(rows), max(1, BLOCK_ENTRIES // rows.shape[1])):
            centred = torch.from_numpy(rows[block] - mean)
            scatter += centred.T @ centred
        ascending, columns = torch.linalg.eigh(scatter)
        variance, axes = ascending.numpy()[::-1].clip(min=0), columns.numpy().T[::-1]
    if variance.sum() == 0:
        raise InputError("all training points are equal; they have no principal components")
    axes = axes[:components]
    largest = np.take_along_axis(axes, abs(axes).argmax(axis=1)[:, None], axis=1)
    return LinearProjection(mean, axes * np.sign(largest), float(variance[:components].sum() / variance.sum()))
