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
from geomem.points import Points, as_points

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
        source = as_points("points", points)
        if source.dim != len(self.mean):
            raise InputError(f"points have {source.dim} entries, the projection was fitted on {len(self.mean)}; "
                             "give both the same shape")
        projected = np.empty((len(source), len(self.axes)))
        for block in source.blocks(BLOCK_ENTRIES):
            projected[block] = (source.take(block) - self.mean) @ self.axes.T
        return projected


def principal_components(train: Any, components: int) -> LinearProjection:
    """Projection on the first ``components`` principal components of the training points (N, ...).

    Fit it on training points alone: held-out points must not shape the space they are judged in. The sign of an
    axis makes its largest entry positive, so a seed means the same noise everywhere.

    Points are read in blocks of 128 MiB, so they may be larger than memory: beside one or two blocks it takes the
    axes and a square matrix of min(N, d) rows, all in float64. Where that matrix is the one of inner products of the
    points (N <= d, more than one block), a component is as precise as its variance is a share of the largest: below
    about 1e-12 of that it is rounding.

    Raises InputError unless ``components`` is from 1 to min(N - 1, d), the most directions in which N points vary.
    """
    source = as_points("train", train)
    n, dim = len(source), source.dim
    if not 1 <= components <= min(n - 1, dim):
        raise InputError(f"{components} principal components: {n:,} training points of {dim:,} values have 1 to "
                         f"{min(n - 1, dim):,}")
    mean = sum(source.take(block).sum(axis=0, dtype=np.float64) for block in source.blocks(BLOCK_ENTRIES)) / n
    if n > dim:
        variance, axes = _from_covariance(source, mean)
    elif n * dim <= BLOCK_ENTRIES:
        _, singular, right = torch.linalg.svd(_centred(source, slice(0, n), mean), full_matrices=False)
        variance, axes = singular.numpy()**2, right.numpy()
    else:
        variance, axes = _from_inner_products(source, mean, components)
    if variance.sum() == 0:
        raise InputError("all training points are equal; they have no principal components")
    axes = axes[:components]
    largest = np.take_along_axis(axes, abs(axes).argmax(axis=1)[:, None], axis=1)
    return LinearProjection(mean, axes * np.sign(largest), float(variance[:components].sum() / variance.sum()))


def _from_covariance(source: Points, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N times all variances, descending, and the axes (d, d)."""
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in source.blocks(BLOCK_ENTRIES):
        centred = _centred(source, block, mean)
        scatter += centred.T @ centred
    ascending, columns = torch.linalg.eigh(scatter)
    return ascending.numpy()[::-1].clip(min=0), columns.numpy().T[::-1]


def _from_inner_products(source: Points, mean: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """N times all variances, descending, and the first axes: with ``A A^T u = lam u``, ``A^T u / sqrt(lam)``."""
    products = torch.empty(len(source), len(source), dtype=torch.float64)
    for block in source.blocks(BLOCK_ENTRIES):
        centred = _centred(source, block, mean)
        for other in source.blocks(BLOCK_ENTRIES):
            if other.start < block.start:
                products[block, other] = centred @ _centred(source, other, mean).T
                products[other, block] = products[block, other].T
        products[block, block] = centred @ centred.T
    ascending, columns = torch.linalg.eigh(products)
    combined = torch.zeros(components, len(mean), dtype=torch.float64)
    for block in source.blocks(BLOCK_ENTRIES):
        combined += columns[block].flip(1)[:, :components].T @ _centred(source, block, mean)
    axes = torch.linalg.qr(combined.T)[0].T  # axes of almost no variance are not orthogonal by themselves
    return ascending.numpy()[::-1].clip(min=0), axes.numpy()


def _centred(source: Points, block: slice, mean: np.ndarray) -> torch.Tensor:
    """Rows of the source minus the mean, (rows, d) float64."""
    return torch.from_numpy(source.take(block) - mean)
