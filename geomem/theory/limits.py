"""The limit of large noise: the Gaussian law, and how far a pixel is felt (Dodson et al. 2026, Thm 4.11/C.4, 4.10/D.4).

*Gaussian law.* For large sigma the empirical optimal denoiser m differs from the linear m_lin (Dodson et al. 2026, Eq.
2, 3, 7) by O(sigma^-2), uniformly for x/(1 + sigma) bounded (Thm 4.11). Here it is measured at ``x = X + sigma Z``, X a
training point.

*Sensitivity.* m_lin has the Jacobian ``J = Sigma (Sigma + sigma^2 I)^-1``. For a circulant covariance with
eigenvalues ``lam_k``, ``rho_k = lam_k / (lam_k + sigma^2)`` and pixels p, q at wrap-around distance r (Thm 4.10),

    |J_pq| <= TV(rho) / (2 d sin(pi r / d)) <= TV(rho) / (4 r),    TV(rho) = sum_k |rho_{k+1} - rho_k|, cyclic.

Proof: ``J_pq = (1/d) sum_k rho_k w^k`` with ``w = exp(2 pi i (p-q)/d)``, and summation by parts bounds the sum by
``TV(rho) / |1 - w|``. On images, H x W pixels and shifts of both axes, the same step along one axis, for each
frequency of the other, gives

    |J_pq| <= mean_k1 TV_k2(rho) / (2 W sin(pi r_2 / W)),    and so with H and r_1;

at Chebyshev distance ``r = max(r_1, r_2)`` one of the two applies, so the larger of them at r bounds J.

The circulant covariance taken is the one nearest to Sigma in the Frobenius norm: Sigma averaged over all wrap-around
shifts, whose eigenvalues are the power spectrum ``E|DFT(X - mu)_k|^2 / d``; with several channels, the mean of
theirs. Real images are not periodic: for them the bound is that of the nearest periodic model, no theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.geometry.options import as_draws, as_sigmas
from geomem.geometry.projections import require_spread
from geomem.models.reference import EmpiricalDenoiser, GaussianDenoiser
from geomem.points import as_rows
from geomem.rng import generator
from geomem.theory.flow import query_points, stderr_by_point

RESAMPLES = 1000
FIT_RANGE = (4.0, 40.0)  # levels of the slope, in units of the largest distance of a point to the mean
FIT_LEVELS = 6
BATCH_ENTRIES = 2**22  # float64 entries of the logits of one batch
SENSITIVITY_LEVELS = (4.0, 16.0, 64.0)  # in standard deviations of the data
MOST_GAUSSIAN, MOST_QUERIES = 4096, 64  # training points of the Gaussian denoiser, and noisy ones


@dataclass(frozen=True)
class GaussianLaw:
    """Distance of the empirical optimal denoiser from the Gaussian one; arrays (levels,) over ``sigma``.

    ``difference`` is the mean of ``|m - m_lin|`` at ``X + sigma Z``, ``difference_stderr`` its standard error,
    clustered by point, and ``relative`` the mean over that of ``|m_lin - mu|``. ``slope`` is
    ``d log(difference) / d log(sigma)`` over ``fit_sigma``, from 4 to 40 times the largest ``|x_i - mu|``, with its
    95% bootstrap interval over the points; the law says -2 or steeper.
    """

    sigma: np.ndarray
    difference: np.ndarray
    difference_stderr: np.ndarray
    relative: np.ndarray
    slope: float
    slope_low: float
    slope_high: float
    fit_sigma: np.ndarray
    fit_difference: np.ndarray
    points: int
    draws: int


@dataclass(frozen=True)
class SensitivityBound:
    """Bounds on ``|J_pq|`` at wrap-around ``distance`` 1, 2, ... (distances,): ``sharp`` with the sine and ``simple``
    with 4 r. ``variation`` is TV(rho), on images the larger of the two means of it along an axis.
    """

    distance: np.ndarray
    sharp: np.ndarray
    simple: np.ndarray
    variation: float


@dataclass(frozen=True)
class PixelSensitivity:
    """Jacobian of one output value of a denoiser with respect to its input.

    ``jacobian`` (B, ...), the shape of x. By wrap-around ``distance`` 0, 1, ... (distances,), over the batch and the
    channels: ``mean`` and ``largest`` of ``|J|``, and ``count``, the number of inputs there for one point.
    """

    jacobian: np.ndarray
    distance: np.ndarray
    mean: np.ndarray
    largest: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class SensitivityByDistance:
    """Theorem 4.10 at one noise level: how the middle value of a denoiser's answer depends on its input.

    By wrap-around ``distance`` 1, 2, ... (distances,): ``mean`` and ``largest`` of ``|J|``, its ``bound``, with the
    sine, and ``simple_bound``. ``own``: the mean of ``|J|`` at distance 0.
    """

    sigma: float
    distance: np.ndarray
    mean: np.ndarray
    largest: np.ndarray
    bound: np.ndarray
    simple_bound: np.ndarray
    own: float


def gaussian_law(train: Any, sigmas: Any, *, points: int | None = None, draws: int = 4, seed: int = 0) -> GaussianLaw:
    """How fast the empirical optimal denoiser becomes linear (Dodson et al. 2026, Thm 4.11/C.4), measured.

    Arguments: ``train`` (N, ...), N >= 2, not all equal; ``sigmas`` noise levels in the units of the data, in any
    order (ascending and each once in the result); ``points`` how many training points to start from, at random
    (all by default); ``draws`` noise draws per point, common to all levels. Needs memory for a few float64 copies of
    the points and one singular value decomposition of them.
    Raises InputError for input that is not as described.
    """
    sigma, draws = as_sigmas(sigmas), as_draws("draws", draws)
    array, index = query_points(train, points, seed)
    n = len(array)
    # Both denoisers move with the data; around 0 their float32 output keeps its digits.
    centred = torch.from_numpy(array - array.mean(axis=0, dtype=np.float64))
    radius = float(torch.linalg.vector_norm(centred, dim=1).max())
    if radius == 0:
        raise InputError("train has fewer than 2 distinct points; the Gaussian law needs some spread")
    require_spread(radius)
    queries = centred[torch.from_numpy(index)]
    noise = torch.from_numpy(generator(seed, "gaussian law noise").standard_normal((draws, *queries.shape)))
    fit_sigma = radius * np.geomspace(*FIT_RANGE, FIT_LEVELS)
    empirical, gaussian = EmpiricalDenoiser(centred), GaussianDenoiser(centred)
    step = max(1, BATCH_ENTRIES // (draws * n))
    difference = np.empty((len(queries), len(sigma) + FIT_LEVELS))
    length = np.empty_like(difference)
    for level, s in enumerate([*sigma, *fit_sigma]):
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            x = queries[part] + s * noise[:, part]
            m, linear = (denoiser(x.flatten(0, 1), s).reshape(x.shape) for denoiser in (empirical, gaussian))
            difference[part, level] = (m - linear).norm(dim=2).mean(0)
            length[part, level] = linear.norm(dim=2).mean(0)
    asked, fit = difference[:, :len(sigma)], difference[:, len(sigma):]
    mean = fit.mean(axis=0)
    picks = generator(seed, "gaussian law bootstrap").integers(0, len(fit), (RESAMPLES, len(fit)))
    low, high = np.quantile([_slope(fit_sigma, fit[pick].mean(axis=0)) for pick in picks], [0.025, 0.975])
    mean_asked, mean_length = asked.mean(axis=0), length[:, :len(sigma)].mean(axis=0)
    return GaussianLaw(sigma, mean_asked, stderr_by_point(asked[:, None]), mean_asked / mean_length,
                       _slope(fit_sigma, mean), float(low), float(high), fit_sigma, mean, len(queries), draws)


def _slope(sigma: np.ndarray, difference: np.ndarray) -> float:
    return float(np.polyfit(np.log(sigma), np.log(difference), 1)[0])


def circulant_eigenvalues(train: Any) -> np.ndarray:
    """Eigenvalues ``lam_k`` of the circulant covariance nearest to that of ``train``.

    ``train`` is (N, d) or (N, C, L), signals, or (N, C, H, W), images. Returns (d,), (L,) or (H, W) float64, in the
    order of the discrete Fourier transform. Raises InputError for another number of axes.
    """
    array = train.detach().cpu().numpy() if isinstance(train, Tensor) else np.asarray(train)
    _require_places("train", array.shape)
    as_rows(array, "train")
    mean = array.mean(axis=0, dtype=np.float64)
    axes = (-2, -1) if array.ndim == 4 else (-1,)
    shape = array.shape[-len(axes):]
    power = np.zeros(shape)
    for point in array:  # one at a time: the spectra of all would be complex copies of the data
        spectrum = np.abs(np.fft.fftn(point - mean, axes=axes)) ** 2
        power += spectrum.reshape(-1, *shape).mean(axis=0)
    return power / (len(array) * np.prod(shape))


def _require_places(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3, 4):
        raise InputError(f"{name} has shape {shape}; give (points, values), (points, channels, length) or "
                         "(points, channels, height, width)")


def sensitivity_bound(eigenvalues: Any, sigma: float) -> SensitivityBound:
    """Bounds on the Jacobian of the linear denoiser by distance (Dodson et al. 2026, Thm 4.10/D.4).

    ``eigenvalues`` (d,) for signals or (H, W) for images, as from ``circulant_eigenvalues``. On images the distance
    is Chebyshev, ``max(r_1, r_2)``. Raises InputError for eigenvalues that are negative or of another shape.
    """
    lam = np.asarray(eigenvalues, dtype=np.float64)
    if lam.ndim not in (1, 2) or not (np.isfinite(lam) & (lam >= 0)).all():
        raise InputError(f"eigenvalues of shape {lam.shape} must be (d,) or (height, width) and not negative")
    rho = lam / (lam + float(as_sigmas([sigma])[0])**2)
    variation = [np.abs(rho - np.roll(rho, 1, axis)).sum(axis=axis).mean() for axis in range(rho.ndim)]
    distance = np.arange(1, max(rho.shape) // 2 + 1)
    sharp, simple = np.zeros(len(distance)), np.zeros(len(distance))
    for tv, size in zip(variation, rho.shape, strict=True):
        reached = distance <= size // 2  # along this axis no two pixels are farther apart
        r = distance[reached]
        sharp[reached] = np.maximum(sharp[reached], tv / (2 * size * np.sin(np.pi * r / size)))
        simple[reached] = np.maximum(simple[reached], tv / (4 * r))
    return SensitivityBound(distance, sharp, simple, float(max(variation)))


def pixel_sensitivity(denoiser: Callable[..., Tensor], x: Any, sigma: float,
                      index: int | tuple[int, ...]) -> PixelSensitivity:
    """How one output value of a denoiser, trained or in closed form, depends on each input value.

    ``x`` (B, ...) noisy points, one point per row: (B, d), (B, C, L) or (B, C, H, W); ``sigma`` their noise level;
    ``index`` the output value, a place in one point or its flat number. One vector-Jacobian product serves the batch.
    Raises InputError for an index outside the point.
    """
    x = torch.as_tensor(x)
    shape = tuple(x.shape[1:])
    _require_places("x", tuple(x.shape))
    try:
        flat = int(index) if isinstance(index, int | np.integer) else int(np.ravel_multi_index(index, shape))
        place = np.unravel_index(flat, shape)
    except (TypeError, ValueError) as error:
        raise InputError(f"index {index} is not a value of a point of shape {shape}") from error
    with torch.enable_grad():
        query = x.detach().clone().requires_grad_()
        output = denoiser(query, sigma).flatten(1)[:, flat].sum()
        jacobian = torch.autograd.grad(output, query)[0].cpu().double().numpy()
    space = 1 if len(shape) == 1 else len(shape) - 1  # axes that are places, not channels
    distance = np.zeros(shape, dtype=np.int64)
    for axis in range(len(shape) - space, len(shape)):
        offset = np.abs(np.arange(shape[axis]) - place[axis])
        wrapped = np.minimum(offset, shape[axis] - offset)
        distance = np.maximum(distance, wrapped.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    size = np.abs(jacobian)
    bins = range(int(distance.max()) + 1)
    return PixelSensitivity(
        jacobian=jacobian, distance=np.array(bins), mean=np.array([size[:, distance == r].mean() for r in bins]),
        largest=np.array([size[:, distance == r].max() for r in bins]),
        count=np.array([(distance == r).sum() for r in bins]))


def sensitivity_by_distance(train: Any, denoiser: Callable[..., Tensor] | None = None, *, points: int = MOST_QUERIES,
                            seed: int = 0) -> tuple[SensitivityByDistance, ...]:
    """Theorem 4.10 beside the truth, at 4, 16 and 64 standard deviations of the data.

    ``train`` (N, ...) of a shape as for ``circulant_eigenvalues``; ``denoiser`` on the CPU (None: the Gaussian one of
    at most 4,096 of the points); ``points`` how many noisy training points to measure at, 64 at most.
    """
    train = train.detach().cpu().numpy() if isinstance(train, Tensor) else train
    shape = tuple(train.shape[1:])
    rng = generator(seed, "sensitivity")
    chosen = train[np.sort(rng.choice(len(train), min(len(train), MOST_GAUSSIAN), replace=False))]
    if denoiser is None:
        denoiser = GaussianDenoiser(torch.from_numpy(chosen))
    eigenvalues = circulant_eigenvalues(chosen)
    clean = torch.from_numpy(chosen[:min(len(chosen), points, MOST_QUERIES)]).float()
    middle = (0,) * (len(shape) > 1) + tuple(length // 2 for length in shape[len(shape) > 1:])
    parts = []
    for sigma in float(chosen.std()) * np.array(SENSITIVITY_LEVELS):
        noise = torch.from_numpy(rng.standard_normal(clean.shape)).float()
        measured = pixel_sensitivity(denoiser, clean + sigma * noise, sigma, middle)
        bound = sensitivity_bound(eigenvalues, sigma)
        reached = len(measured.distance) - 1
        parts.append(SensitivityByDistance(
            float(sigma), measured.distance[1:], measured.mean[1:], measured.largest[1:], bound.sharp[:reached],
            bound.simple[:reached], float(measured.mean[0])))
    return tuple(parts)
