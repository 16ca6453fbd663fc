"""Denoiser and flow field near a training point: bounds beside Monte Carlo (Dodson et al. 2026, Lemma A.1, Cor. A.2).

Training points x_1..x_N; X = x_1 is one of them, the others lie at ``r_2 <= r_3 <= ...`` from it; Z normal;
``x_sigma = x_1 + sigma Z``; w_1 its posterior weight and m the empirical optimal denoiser (Dodson et al. 2026, Eq. 2,
3).

Lemma A.1 (derived). For any eta > 0 and ``sigma < r_2 / eta``, with probability >= ``1 - (N-1) Phi(-eta)``,

    w_1 >= 1 / (1 + (N-1) exp(-r_2^2 / (2 sigma^2) + eta r_2 / sigma)),
    |m(x_sigma) - x_1| <= (1 - w_1) max_i |x_i - x_1|.

A smaller eta is better in both, so eta is the one whose failure probability is the allowed ``delta``:
``eta = Phi^-1(1 - delta/(N-1))``, the same for every point and sigma.

Cor. A.2 (derived). Flow matching has ``x_t = t x_1 + (1-t) z``, so ``x_t/t`` is ``x_sigma`` with
``sigma = (1-t)/t``; the conditional field is ``x_1 - z`` and the empirical optimal one
``(m(x_t/t, sigma) - x_t)/(1-t) = x_1 - z + (m - x_1)/(1-t)``. Where ``|m - x_1|/(1-t) <= kappa < |x_1 - z|`` their
cosine is at least ``sqrt(1 - kappa^2 / |x_1 - z|^2)``, and with probability >= ``1 - Phi(-c_1) - exp(-c_2)``

    |x_1 - z|^2 >= |x_1|^2 - 2 c_1 |x_1| + d - 2 sqrt(d c_2).

Here delta is cut in parts: delta/2 for the lemma, ``Phi(-c_1) = exp(-c_2) = delta/4``.

Where a bound says nothing it takes the value that holds always: 0 for w_1, ``max_i |x_i - x_1|`` for the
distance, -1 for the cosine. ``informative`` is the share of the points where it says something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from geomem.errors import InputError
from geomem.geometry.options import as_draws, as_sigmas
from geomem.geometry.posterior import posterior_weights
from geomem.geometry.thresholds import check_failure
from geomem.points import as_rows
from geomem.rng import generator

ENTRIES = 2**23  # float64 entries of the largest array held (64 MiB)
ROUNDING = 1e-12


@dataclass(frozen=True)
class NearPoint:
    """Lemma A.1 at noise levels ``sigma`` (levels,), over ``points`` training points with ``draws`` draws each.

    Each bound holds with probability >= ``probability`` for each point. ``weight_bound``, ``distance_bound`` are
    means over the points, ``weight`` and ``distance`` the Monte Carlo means of w_1 and ``|m(x_sigma) - x_1|`` with
    ``weight_stderr``, ``distance_stderr`` clustered by point;
    ``held`` the share of the draws where both bounds hold; ``informative`` the share of the points with
    ``sigma < r_2/eta``. All (levels,). ``index`` (points,) are the training points taken; ``weight_bound_per_point``,
    ``distance_bound_per_point`` (points, levels); ``held_per_point`` (points, levels), shares of the draws.
    """

    sigma: np.ndarray
    weight_bound: np.ndarray
    weight: np.ndarray
    weight_stderr: np.ndarray
    distance_bound: np.ndarray
    distance: np.ndarray
    distance_stderr: np.ndarray
    held: np.ndarray
    informative: np.ndarray
    eta: float
    probability: float
    index: np.ndarray
    draws: int
    weight_bound_per_point: np.ndarray
    distance_bound_per_point: np.ndarray
    held_per_point: np.ndarray


@dataclass(frozen=True)
class FlowCosine:
    """Cor. A.2 at flow times ``time`` (levels,), ascending; ``sigma = (1-t)/t``.

    ``bound`` is the mean over the points of the lower bound on the cosine of conditional and optimal field, which
    holds with probability >= ``probability``; ``cosine`` the Monte Carlo mean with ``cosine_stderr`` clustered by
    point, ``held`` the share of the draws where the bound holds, ``informative`` the share of the points where it
    says something. All (levels,).
    ``bound_per_point``, ``held_per_point`` (points, levels).
    """

    time: np.ndarray
    sigma: np.ndarray
    bound: np.ndarray
    cosine: np.ndarray
    cosine_stderr: np.ndarray
    held: np.ndarray
    informative: np.ndarray
    probability: float
    index: np.ndarray
    draws: int
    bound_per_point: np.ndarray
    held_per_point: np.ndarray


def lemma_a1_odds(r_2: Any, sigma: Any, n_train: int, eta: float) -> np.ndarray:
    """Upper bound on ``(1 - w_1)/w_1`` (Dodson et al. 2026, Lemma A.1), so ``w_1 >= 1/(1 + odds)``, for distances
    ``r_2`` and ``sigma`` that broadcast; inf where ``sigma >= r_2 / eta``.
    """
    s = np.asarray(r_2, dtype=np.float64) / np.asarray(sigma, dtype=np.float64)
    return np.where(s > eta, (n_train - 1) * np.exp(np.where(s > eta, s * (eta - s / 2), 0)), np.inf)


def missing_weight(odds: np.ndarray) -> np.ndarray:
    """``1 - w`` for ``w = 1/(1 + odds)``, without cancellation where w is nearly 1."""
    return np.where(np.isinf(odds), 1.0, odds / (1 + np.where(np.isinf(odds), 0, odds)))


def squared_length_bound(norm: np.ndarray, dim: int, c_1: float, c_2: float) -> np.ndarray:
    """Lower bound on ``|x_1 - z|^2`` for points of these norms (Dodson et al. 2026, Cor. A.2), which holds with
    probability >= ``1 - Phi(-c_1) - exp(-c_2)``; it may be negative.
    """
    return norm**2 - 2 * c_1 * norm + dim - 2 * np.sqrt(dim * c_2)


def cosine_bound(kappa: Any, squared_norm: Any) -> np.ndarray:
    """``sqrt(1 - kappa^2/|x_1 - z|^2)`` (Dodson et al. 2026, Cor. A.2), -1 where kappa is not below the norm."""
    kappa, squared_norm = np.broadcast_arrays(kappa, squared_norm)
    informative = kappa**2 < squared_norm
    ratio = np.divide(kappa**2, squared_norm, out=np.zeros(kappa.shape), where=informative)
    return np.where(informative, np.sqrt(1 - ratio), -1.0)


def denoiser_near_point(train: Any, sigmas: Any, *, delta: float = 0.05, eta: float | None = None,
                        points: int | None = None, draws: int = 4, seed: int = 0) -> NearPoint:
    """Lemma A.1 beside the truth: how surely, and how exactly, the optimal denoiser returns the training point.

    Arguments: ``train`` (N, ...), N >= 2; ``sigmas`` noise levels in the units of the data, in any order
    (ascending and each once in the result); ``delta`` the allowed probability of failure, which sets ``eta``
    unless that is given; ``points`` how many training points to take, at random (all by default); ``draws``
    noise draws per point. The Monte Carlo part is float64 from direct differences and needs memory for one copy
    of the points beside blocks of bounded size.
    Raises InputError for input that is not as described.
    """
    sigma = as_sigmas(sigmas)
    points_in, index = query_points(train, points, seed)
    n = len(points_in)
    eta = _eta(n, delta) if eta is None else float(eta)
    if not (np.isfinite(eta) and eta > 0):
        raise InputError(f"eta is {eta}; give a positive number")
    draws = as_draws("draws", draws)
    shape = (len(index), draws, len(sigma))
    weight, distance = np.empty(shape), np.empty(shape)
    r_2, farthest = np.empty(len(index)), np.empty(len(index))
    for row, query in enumerate(_noisy_points(points_in, index, sigma, draws, seed, "lemma A.1 noise")):
        r_2[row], farthest[row] = query.nearest, query.farthest
        weight[row], distance[row] = query.weight, np.linalg.norm(query.error, axis=2)
    odds = lemma_a1_odds(r_2[:, None], sigma, n, eta)
    bound = 1 / (1 + odds)
    distance_bound = missing_weight(odds) * farthest[:, None]
    # With two training points the distance is its bound; rounding must not decide.
    held = (weight >= bound[:, None] - ROUNDING) & (distance <= distance_bound[:, None] * (1 + ROUNDING))
    return NearPoint(
        sigma=sigma, weight_bound=bound.mean(axis=0), weight=weight.mean(axis=(0, 1)),
        weight_stderr=stderr_by_point(weight), distance_bound=distance_bound.mean(axis=0),
        distance=distance.mean(axis=(0, 1)), distance_stderr=stderr_by_point(distance), held=held.mean(axis=(0, 1)),
        informative=(bound > 0).mean(axis=0), eta=eta, probability=max(0.0, 1 - (n - 1) * float(ndtr(-eta))),
        index=index, draws=draws, weight_bound_per_point=bound, distance_bound_per_point=distance_bound,
        held_per_point=held.mean(axis=1))


def flow_cosine(train: Any, times: Any, *, delta: float = 0.05, points: int | None = None, draws: int = 4,
                seed: int = 0) -> FlowCosine:
    """Cor. A.2 beside the truth: the cosine of the conditional and the optimal flow field at training points.

    ``times`` flow times strictly between 0 (noise) and 1 (data), in any order; the other arguments as for
    ``denoiser_near_point``. Raises InputError for input that is not as described.
    """
    time = _as_times(times)
    sigma = (1 - time) / time
    points_in, index = query_points(train, points, seed)
    n, dim = points_in.shape
    check_failure(delta)
    eta = _eta(n, delta / 2)
    c_1, c_2 = -float(ndtri(delta / 4)), float(np.log(4 / delta))
    draws = as_draws("draws", draws)
    cosine = np.empty((len(index), draws, len(time)))
    r_2, farthest = np.empty(len(index)), np.empty(len(index))
    for row, query in enumerate(_noisy_points(points_in, index, sigma, draws, seed, "flow noise")):
        r_2[row], farthest[row] = query.nearest, query.farthest
        field = points_in[index[row]].astype(np.float64) - query.noise  # (draws, d)
        optimal = field[:, None] + query.error / (1 - time)[:, None]
        norms = np.linalg.norm(field, axis=1)[:, None] * np.linalg.norm(optimal, axis=2)
        cosine[row] = np.einsum("jd,jld->jl", field, optimal) / norms
    norm = np.linalg.norm(points_in[index].astype(np.float64), axis=1)
    squared = squared_length_bound(norm, dim, c_1, c_2)
    kappa = missing_weight(lemma_a1_odds(r_2[:, None], sigma, n, eta)) * farthest[:, None] / (1 - time)
    bound = cosine_bound(kappa, squared[:, None])
    held = cosine >= bound[:, None] - ROUNDING
    return FlowCosine(
        time=time, sigma=sigma, bound=bound.mean(axis=0), cosine=cosine.mean(axis=(0, 1)),
        cosine_stderr=stderr_by_point(cosine), held=held.mean(axis=(0, 1)),
        informative=(bound > -1).mean(axis=0), probability=1 - delta, index=index, draws=draws, bound_per_point=bound,
        held_per_point=held.mean(axis=1))


@dataclass(frozen=True)
class _Noisy:
    """One training point with its draws: ``nearest`` r_2 and ``farthest`` of the distances to the others, ``noise``
    (draws, d), ``weight`` w_1 (draws, levels) and ``error`` ``m(x_sigma) - x_1`` (draws, levels, d).
    """

    nearest: float
    farthest: float
    noise: np.ndarray
    weight: np.ndarray
    error: np.ndarray


def _noisy_points(train: np.ndarray, index: np.ndarray, sigma: np.ndarray, draws: int, seed: int,
                  purpose: str) -> Iterator[_Noisy]:
    """Weights and denoiser at ``x_k + sigma Z`` for each k of ``index``, float64 from differences ``x_i - x_k``.

    The noise of point k is the stream (seed, ``purpose``, k), common to all levels.
    """
    n, dim = train.shape
    rows = max(1, ENTRIES // dim)
    held_levels = max(1, ENTRIES // (draws * max(n, dim)))
    for k in index:
        noise = generator(seed, purpose, int(k)).standard_normal((draws, dim))
        origin = train[k].astype(np.float64)
        a, b = np.empty(n), np.empty((draws, n))
        for start in range(0, n, rows):
            difference = origin - train[start:start + rows]
            a[start:start + rows] = np.einsum("id,id->i", difference, difference)
            b[:, start:start + rows] = noise @ difference.T
        weight = np.empty((draws, len(sigma)))
        error = np.zeros((draws, len(sigma), dim))
        for first in range(0, len(sigma), held_levels):
            levels = slice(first, first + held_levels)
            weights = posterior_weights(*map(torch.from_numpy, (a, b[:, None], sigma[levels, None]))).numpy()
            weight[:, levels] = weights[:, :, k]
            for start in range(0, n, rows):
                error[:, levels] += weights[:, :, start:start + rows] @ (train[start:start + rows] - origin)
        rivals = np.delete(a, k)
        yield _Noisy(float(np.sqrt(rivals.min())), float(np.sqrt(rivals.max())), noise, weight, error)


def query_points(train: Any, points: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training points (N, d) and the indices of ``points`` random ones, ascending; all where None or not fewer."""
    train = as_rows(train, "train")
    n = len(train)
    if n < 2:
        raise InputError(f"train has {n} point; give at least 2")
    if points is not None and points < 1:
        raise InputError(f"points is {points}; give how many training points to take, 1 or more")
    if points is None or points >= n:
        return train, np.arange(n)
    return train, np.sort(generator(seed, "query points").permutation(n)[:points])


def _eta(n_train: int, delta: float) -> float:
    """The eta whose failure probability ``(N-1) Phi(-eta)`` is delta; at least a tiny positive one."""
    check_failure(delta)
    return max(-float(ndtri(delta / (n_train - 1))), np.finfo(np.float64).tiny)


def stderr_by_point(cells: np.ndarray) -> np.ndarray:
    """Standard error of the mean of (points, draws, levels), clustered by point."""
    means = cells.mean(axis=1)
    return means.std(axis=0) / np.sqrt(max(len(means) - 1, 1))


def _as_times(times: Any) -> np.ndarray:
    try:
        time = np.unique(np.asarray(times, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"times are not numbers ({error}); give flow times between 0 and 1") from error
    if not time.size or not ((time > 0) & (time < 1)).all():
        raise InputError("times must be strictly between 0 (noise) and 1 (data), at least one")
    return time
