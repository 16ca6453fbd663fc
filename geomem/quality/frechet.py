"""Frechet distance in pixels, or of features.

For sample sets a and b in R^d with means ``mu_a, mu_b`` and covariances ``S_a, S_b`` (divisor n - 1):

    F(a, b) = |mu_a - mu_b|^2 + Tr( S_a + S_b - 2 (S_a S_b)^(1/2) )

the squared 2-Wasserstein distance of the two fitted Gaussians (Dowson and Landau 1982), in squared data
units. It is the formula of FID, squared as FID is, but on the values themselves instead of Inception
features, so it is no FID and must not be compared with one. Like FID it is biased upward, the more the fewer
points: only figures at the same n are comparable.

With factors ``S = R^T R``, R of at most min(n, d) rows, ``Tr (S_a S_b)^(1/2)`` is the nuclear norm (sum of
singular values) of ``R_a R_b^T``: no d x d matrix where n < d, no square root of a matrix, nothing complex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from geomem.errors import InputError, counted
from geomem.features import rows_in
from geomem.points import BLOCK_VALUES, Array, as_rows, runs
from geomem.statistics import standard_error

_PENALTY_BELOW, _NO_DISTANCE, _MIFID_ROUNDING = 0.1, 1e-8, 1e-14  # of torchmetrics' MiFID


def frechet_distance(a: Array, b: Array, *, features: Callable[..., Any] | None = None) -> float:
    """F(a, b) of the module docstring, in squared data units; symmetric and at least 0.

    a: (n, ...) and b: (m, ...), numpy or torch, flattened to d values each; computed in float64. features: as in
    ``memorization_rate``, for the distance of features. Raises InputError if a set has fewer than 2 points, the
    dimensions differ or a value is not finite.
    """
    return frechet_with_stderr(*rows_in(features, a=a, b=b))[0]


def frechet_with_stderr(a: Array, b: Array) -> tuple[float, float]:
    """F(a, b), and its standard error over the sampling of ``a``, with b held fixed.

    The error is the infinitesimal jackknife (Efron 1982, chapter 6): the derivative of F in the weight of
    each point of a, which at a point x is, up to the mean of this expression over a,

        2 (mu_a - mu_b).(x - mu_a) + |x - mu_a|^2 - (x - mu_a)^T T (x - mu_a)

    with T the optimal transport map from a's Gaussian to b's. If the rows of X are the centred points of a
    over sqrt(n - 1) and ``X R_b^T = U diag(s) V^T``, the last term is n - 1 times the diagonal of
    ``U diag(s) U^T``. A bootstrap would be biased upward, since resampling loses points and with them rank;
    this needs no random numbers and a single decomposition.
    """
    value, derivative = _value_and_derivative(a, b)
    return value, standard_error(derivative)


def mifid(samples: Array, train: Array) -> float:
    """The memorization-informed Frechet distance of features (Bai et al. 2021): F(samples, train) / M, where

        M = mean over training points t of  min over samples x of  1 - |cos(x, t)|,    1 where that is 0.1 or more

    as torchmetrics has it; Bai et al. take the mean over the samples and the minimum over the training points. The more
    samples are copies, the smaller M. samples: (n, F), train: (N, F), features of a network; rows that sum to 0 do not
    count for M. Raises InputError as ``frechet_distance`` does.
    """
    value = frechet_distance(samples, train)
    x, t = (_unit_rows(as_rows(part).astype(np.float64)) for part in (samples, train))
    nearest = [(1 - np.abs(t[block] @ x.T)).min(axis=1) for block in runs(0, len(t), max(1, BLOCK_VALUES // len(x)))]
    penalty = float(np.concatenate(nearest).mean())
    return value / ((penalty if penalty < _PENALTY_BELOW else 1) + _MIFID_ROUNDING) if value > _NO_DISTANCE else 0.0


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    rows = rows[rows.sum(axis=1) != 0]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def frechet_change(before: Array, after: Array, b: Array) -> tuple[float, float]:
    """F(after, b) - F(before, b) of samples made from the same seeds, in their order, and its standard error.

    What a seed does to both alike cancels: the error is that of the differences of the two derivatives, seed by seed.
    Raises InputError as ``frechet_distance`` does, and where the numbers of samples differ.
    """
    if len(before) != len(after):
        raise InputError(f"{counted(len(before), 'sample')} before and {len(after)} after; a change needs both for "
                         "every seed")
    (first, slope_before), (second, slope_after) = (_value_and_derivative(a, b) for a in (before, after))
    return second - first, standard_error(slope_after - slope_before)


def _value_and_derivative(a: Array, b: Array) -> tuple[float, np.ndarray]:
    """F(a, b), and its derivative in the weight of each point of a, up to a constant, (n,)."""
    a, b = (rows.astype(np.float64) for rows in rows_in(None, a=a, b=b))
    if min(len(a), len(b)) < 2:
        raise InputError(f"a covariance needs at least 2 points, not {min(len(a), len(b))}; give more samples")
    n, shift, centred = len(a), a.mean(axis=0) - b.mean(axis=0), a - a.mean(axis=0)
    basis, root_a = _factor(centred / np.sqrt(n - 1))
    _, root_b = _factor((b - b.mean(axis=0)) / np.sqrt(len(b) - 1))
    left, singular, _ = np.linalg.svd(root_a @ root_b.T, full_matrices=False)
    value = shift @ shift + np.sum(root_a**2) + np.sum(root_b**2) - 2 * singular.sum()

    transported = (n - 1) * (basis @ left) ** 2 @ singular
    return max(0.0, float(value)), 2 * centred @ shift + np.sum(centred**2, axis=1) - transported


def _factor(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q with orthonormal columns and R with ``Q R`` the rows, R of min(n, d) rows."""
    n, dimension = rows.shape
    return (np.eye(n), rows) if n <= dimension else np.linalg.qr(rows)
