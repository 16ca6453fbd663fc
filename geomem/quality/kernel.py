"""Kernel distance: the squared maximum mean discrepancy with the kernel of KID.

With ``k(x, y) = (x.y / d + 1)^3`` (Binkowski et al. 2018), samples a and reference b of n and m points,

    U(a, b) = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

is unbiased for MMD^2, so figures at different n can be compared, and below 0 about half of the time where both
have one law. On Inception features it is KID, here from all points at once instead of the mean over random
subsets: the same expectation, less noise. On pixels or principal components it is no KID and is never called so.
The kernel is neither shift- nor scale-invariant: it belongs to the scale of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import polynomial_kernel

from geomem.errors import InputError, counted
from geomem.features import rows_in
from geomem.points import Array, runs

_BLOCK_ENTRIES = 2**23  # kernel values held at a time: 64 MiB


def kernel_distance(a: Array, b: Array, *, features: Callable[..., Any] | None = None) -> tuple[float, float]:
    """U(a, b) of the module docstring and its standard error over the sampling of ``a``, with b held fixed.

    a: (n, ...), n >= 3, and b: (m, ...), m >= 2, numpy or torch, flattened to d values; computed in float64. The error
    is the jackknife over the points of a, exact for this statistic through the sums over rows of the kernel; its
    expectation is never too small (Efron and Stein 1981). features: as in ``memorization_rate``. Raises InputError for
    fewer points, another size, values that are not finite, or so large that sixth powers of them overflow.
    """
    a, b = rows_in(features, a=a, b=b)
    n, m = len(a), len(b)
    if n < 3 or m < 2:
        raise InputError(f"{counted(n, 'sample')} and {counted(m, 'reference point')}; a kernel distance with its "
                         "error needs 3 and 2")
    with np.errstate(over="ignore", invalid="ignore"):
        value, stderr = _estimate(a, b)
    if not (np.isfinite(value) and np.isfinite(stderr)):
        largest = max(float(abs(points.astype(np.float64)).max()) for points in (a, b))
        raise InputError(f"a kernel distance overflows at values as large as {largest:.3g}; leave it out, or bring the "
                         "points to the scale of the data")
    return value, stderr


def _estimate(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """U(a, b) and its standard error, for rows (n, d) and (m, d)."""
    n, m = len(a), len(b)
    within, across = _row_sums(a, a) - _diagonal(a), _row_sums(a, b)
    reference = float((_row_sums(b, b) - _diagonal(b)).sum()) / (m * (m - 1))
    value = within.sum() / (n * (n - 1)) - 2 * across.sum() / (n * m) + reference
    left_out = (within.sum() - 2 * within) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / ((n - 1) * m)
    return float(value), float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))


def _row_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``sum_j k(a_i, b_j)``, (n,) float64."""
    b = b.astype(np.float64, copy=False)
    return np.concatenate([polynomial_kernel(a[block].astype(np.float64, copy=False), b).sum(axis=1)
                           for block in runs(0, len(a), max(1, _BLOCK_ENTRIES // len(b)))])


def _diagonal(a: np.ndarray) -> np.ndarray:
    """``k(a_i, a_i)``, (n,) float64."""
    return (np.einsum("nd,nd->n", a, a, dtype=np.float64) / a.shape[1] + 1) ** 3
