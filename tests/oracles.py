"""Plain float64 loops that define the estimators of geomem.geometry.

Nothing here is shared with the fast path but the keyed generator. Distances are taken between the points
themselves, one query and one level at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2, ncx2, norm

from geomem.rng import generator

NoiseOf = Callable[[str, int, int, int, int], np.ndarray]


def posterior_weights(train: np.ndarray, noise: np.ndarray, sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and self weight of each noisy training point, (N, draws, levels) each ([G] Eq. 2)."""
    shape = (*noise.shape[:2], len(sigmas))
    largest, own = np.empty(shape), np.empty(shape)
    for k, j, level in np.ndindex(shape):
        query = train[k] + sigmas[level] * noise[k, j]
        logits = -((query - train) ** 2).sum(axis=1) / (2 * sigmas[level] ** 2)
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        largest[k, j, level], own[k, j, level] = weights.max(), weights[k]
    return largest, own


def shell_radii(dim: int, t: float) -> tuple[float, float]:
    """``R_-, R_+`` ([G] Lemma 4.5)."""
    return np.sqrt(max(0, dim - 2 * np.sqrt(dim * t))), np.sqrt(dim + 2 * np.sqrt(dim * t) + 2 * t)


def coverage(train: np.ndarray, heldout: np.ndarray, noise: np.ndarray, sigmas: np.ndarray, t: float
             ) -> tuple[np.ndarray, np.ndarray]:
    """Covered or not, and the distance of the closest shell boundary in units of sigma, (M, draws, levels)."""
    inner, outer = shell_radii(train.shape[1], t)
    shape = (*noise.shape[:2], len(sigmas))
    inside, margin = np.empty(shape, dtype=bool), np.empty(shape)
    for k, j, level in np.ndindex(shape):
        query = heldout[k] + sigmas[level] * noise[k, j]
        distance = np.linalg.norm(query - train, axis=1) / sigmas[level]
        inside[k, j, level] = ((distance >= inner) & (distance <= outer)).any()
        margin[k, j, level] = min(abs(distance - outer).min(), abs(distance - inner).min() if inner else np.inf)
    return inside, margin


def two_shell(s: Any, dim: int, t: float) -> np.ndarray:
    """g from the library's noncentral chi-square ([G] Def. 4.7)."""
    inner, outer = shell_radii(dim, t)
    shift = np.where(np.equal(s, 0), 1, s) ** 2
    central = chi2.cdf(outer**2, dim) - chi2.cdf(inner**2, dim)
    return np.where(np.equal(s, 0), central, ncx2.cdf(outer**2, dim, shift) - ncx2.cdf(inner**2, dim, shift))


def bounds(train: np.ndarray, heldout: np.ndarray, sigma: float, t: float) -> tuple[float, float, float]:
    """Lower, sharper upper and plain upper bound ([G] Thm 4.8)."""
    s = np.linalg.norm(heldout[:, None] - train, axis=2) / sigma
    total = two_shell(s, train.shape[1], t).sum(axis=1)
    lower = two_shell(s.min(axis=1), train.shape[1], t).mean()
    return float(lower), float(np.minimum(1, total).mean()), min(1.0, float(total.mean()))


def thresholds(train: np.ndarray, q: float, delta: float, t: float) -> tuple[np.ndarray, np.ndarray, float]:
    """``b r_2``, smallest ``a r_{K+1}`` and the disjoint level ([G] Thm 4.2, 4.9)."""
    b, factors = threshold_factors(len(train), q, delta)
    r = np.sort(np.linalg.norm(train[:, None] - train, axis=2), axis=1)[:, 1:]
    usable = np.isfinite(factors)
    above = (factors[usable] * r[:, usable]).min(axis=1)
    return b * r[:, 0], above, r[:, 0].min() / (2 * shell_radii(train.shape[1], t)[1])


def near_a_boundary(train: np.ndarray, heldout: np.ndarray, noise: np.ndarray, sigmas: np.ndarray, t: float
                    ) -> np.ndarray:
    """Where rounding may decide whether a query is covered, (M, draws, levels) bool.

    With ``a = |y - x|^2`` and ``b = Z.(y - x)`` the squared distance is ``a + 2 sigma b + sigma^2 |Z|^2``. Rounding
    a, 2 sigma b, their sum and the boundary ``sigma^2 (R^2 - |Z|^2)``, which the sum equals there, to float32 moves
    the comparison by at most ``(a + 2 sigma |b|) (1 + 1 + 1) 2^-24``. The band is 4 of these units instead of 3, for
    what the float64 products before it leave in a and b.
    """
    inner, outer = shell_radii(train.shape[1], t)
    shape = (*noise.shape[:2], len(sigmas))
    near = np.empty(shape, dtype=bool)
    for k, j in np.ndindex(shape[:2]):
        difference = heldout[k] - train
        a, b = (difference**2).sum(axis=1), difference @ noise[k, j]
        for level, sigma in enumerate(sigmas):
            squared = ((difference + sigma * noise[k, j]) ** 2).sum(axis=1)
            band = 4 * 2.0**-24 * (a + 2 * sigma * abs(b))
            near[k, j, level] = any((abs(squared - (sigma * radius) ** 2) <= band).any()
                                    for radius in (inner, outer) if radius > 0)
    return near


def boundary_levels(train: np.ndarray, heldout: np.ndarray, noise: np.ndarray, t: float, shares: list[float]
                    ) -> np.ndarray:
    """Levels next to those where a query, with its first noise, comes into the shell of its nearest training point.

    ``shares`` of the level are added to it: (queries, shares). NaN for noise that is longer than R_+.
    """
    outer = shell_radii(train.shape[1], t)[1]
    levels = []
    for y, z in zip(heldout, noise[:, 0], strict=True):
        difference = y - train[((y - train) ** 2).sum(axis=1).argmin()]
        a, b, room = (difference**2).sum(), difference @ z, outer**2 - (z**2).sum()
        # a + 2 sigma b = sigma^2 room
        levels.append((b + np.sqrt(b**2 + a * room)) / room if room > 0 else np.nan)
    return np.array(levels)[:, None] * (1 + np.array(shares))


class NumpyCurves(NamedTuple):
    """At each level, (levels,); the thresholds of Thm 4.2 for each point, (N,)."""

    largest: np.ndarray
    own: np.ndarray
    covered: np.ndarray
    largest_stderr: np.ndarray
    covered_stderr: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    concentrated: np.ndarray
    spread: np.ndarray


def numpy_curves(train: np.ndarray, heldout: np.ndarray, sigmas: np.ndarray, posterior_draws: int = 4,
                 coverage_draws: int = 8, seed: int = 0, t: float = 5.0,
                 noise_of: NoiseOf | None = None) -> NumpyCurves:
    """The curves as one would write them in NumPy: float64, vectorised, one distance matrix for all levels, the noise
    of each query multiplied with all training points; errors, the bounds of Thm 4.8 from a table of g, and Thm 4.2.

    The noise is the package's, or from ``noise_of``. No copies among the training points.
    """
    noise_of = noise_of or query_noise
    mean = train.mean(axis=0, dtype=np.float64)
    train, heldout = train - mean, heldout - mean
    inner, outer = shell_radii(train.shape[1], t)

    a = squared_distances(train, train)
    np.fill_diagonal(a, 0)
    below, factors = threshold_factors(len(train), q=0.95, delta=0.05)
    others = np.sort(np.sqrt(a), axis=1)[:, 1:]
    concentrated, spread = below * others[:, 0], (others * factors).min(axis=1)
    noise = noise_of("posterior radius", len(train), posterior_draws, train.shape[1], seed)
    b = noise_projections(train, train, noise)
    largest, own, errors = (np.empty(len(sigmas)) for _ in range(3))
    for level, sigma in enumerate(sigmas):
        weights = -(a[:, None] / (2 * sigma**2) + b / sigma)
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        largest[level], errors[level] = mean_and_error(weights.max(axis=-1))
        own[level] = weights[np.arange(len(train)), :, np.arange(len(train))].mean()

    a = squared_distances(heldout, train)
    distances, nearest = np.sqrt(a), np.sqrt(a.min(axis=1))
    s, g = two_shell_grid(train.shape[1], t)
    noise = noise_of("coverage radius", len(heldout), coverage_draws, train.shape[1], seed)
    b = noise_projections(heldout, train, noise)
    c = (noise**2).sum(axis=-1)[:, :, None]
    covered, covered_errors, lower, upper = (np.empty(len(sigmas)) for _ in range(4))
    for level, sigma in enumerate(sigmas):
        squared = a[:, None] + 2 * sigma * b + sigma**2 * c
        inside = (squared >= (sigma * inner) ** 2) & (squared <= (sigma * outer) ** 2)
        covered[level], covered_errors[level] = mean_and_error(inside.any(axis=-1).astype(float))
        lower[level] = np.interp(nearest / sigma, s, g).mean()
        upper[level] = np.minimum(np.interp(distances / sigma, s, g).sum(axis=1), 1).mean()
    return NumpyCurves(largest, own, covered, errors, covered_errors, lower, upper, concentrated, spread)


def mean_and_error(cells: np.ndarray) -> tuple[float, float]:
    """Mean of cells (points, draws) and its standard error, clustered by point."""
    return cells.mean(), cells.mean(axis=1).std(ddof=1) / np.sqrt(len(cells))


@cache
def two_shell_grid(dim: int, t: float) -> tuple[np.ndarray, np.ndarray]:
    """g at 4,000 places from 0 to where it is 0."""
    inner, outer = shell_radii(dim, t)
    s = np.linspace(0, outer - inner + 20, 4000)
    return s, two_shell(s, dim, t)


def threshold_factors(n: int, q: float, delta: float) -> tuple[float, np.ndarray]:
    """``b``, and ``a`` for K = 1, ..., n - 1 (inf where K <= q/(1-q)), of Thm 4.2."""
    z, scale = norm.ppf(1 - delta / (n - 1)), np.log(q * (n - 1) / (1 - q))
    k = np.arange(1, n)
    c = np.log(k * (1 - q) / q)
    allowed = k > q / (1 - q) + 1e-9
    ends = norm.ppf(1 - delta / k)
    a = np.where(allowed, (ends + np.sqrt(ends**2 + 2 * c.clip(min=0))) / (2 * np.where(allowed, c, 1)), np.inf)
    return (-z + np.sqrt(z**2 + 2 * scale)) / (2 * scale), a


def independent_noise(purpose: str, n: int, draws: int, dim: int, seed: int) -> np.ndarray:
    """Normal noise for every query and draw, (n, draws, dim), as one would draw it."""
    return generator(seed, f"{purpose} alone").standard_normal((n, draws, dim))


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """|l - r|^2 by the expansion, (L, R)."""
    squared = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    return np.maximum(squared, 0)


def noise_projections(queries: np.ndarray, train: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Z.(y_k - x_i) for the noise (n, draws, dim) of each query, (n, draws, N)."""
    own = (noise @ queries[:, :, None])[:, :, 0]
    return own[:, :, None] - (noise.reshape(-1, train.shape[1]) @ train.T).reshape(*noise.shape[:2], -1)


def query_noise(purpose: str, n: int, draws: int, dim: int, seed: int, pool: int = 256) -> np.ndarray:
    """``Z = R V/|V|`` of each query, (n, draws, dim): V shared in groups, R drawn for each query and draw."""
    groups = max(1, min(n, pool // draws))
    vectors = np.stack([generator(seed, "geometry noise", j).standard_normal(dim) for j in range(groups * draws)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    radius = np.sqrt(generator(seed, purpose).chisquare(dim, size=(n, draws)))
    return radius[:, :, None] * vectors.reshape(groups, draws, dim)[np.arange(n) % groups]
