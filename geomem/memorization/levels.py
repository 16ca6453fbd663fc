"""Memorization and denoising error per noise level.

For a denoiser D, training points x, held-out points y and ``Z ~ N(0, I)``, at each noise level sigma:

    rate         share of ``D(y + sigma Z, sigma)`` memorized by the ratio rule   (section 3, Fig. 2)
    mse_train    E |D(x + sigma Z, sigma) - x|^2 / d                              (Fig. 1)
    mse_heldout  E |D(y + sigma Z, sigma) - y|^2 / d                              of Dodson et al. 2026

d the number of values of a point, so an error is per value (pixel), in squared data units. Each point is used
once per noise level, with one noise vector; so the Wilson interval and the standard errors are those of
independent draws. The j-th training and the j-th held-out point share the noise vector Z_j, and all noise
levels share it too, which makes the curves smooth and their differences precise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.devices import device_of, evaluation_mode, resolve_device
from geomem.errors import InputError
from geomem.memorization.ratio import RATIO, DistinctTraining, apply_ratio_rule, distinct_training
from geomem.models.denoiser import rows_of
from geomem.points import Array, as_rows
from geomem.rng import generator
from geomem.statistics import standard_error


@dataclass(frozen=True, eq=False)
class PerNoiseLevel:
    """One entry per noise level, (L,) float64 each; sigma in data units, errors in squared data units.

    rate, low, high: memorized share over n_heldout points and its 95% Wilson interval.
    mse_train, mse_heldout: mean squared error per value over n_train and n_heldout points.
    mse_train_stderr, mse_heldout_stderr: standard errors of the two.
    ratio, tolerance, merged: as in ``MemorizationRate``.
    """

    sigma: np.ndarray
    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mse_train: np.ndarray
    mse_train_stderr: np.ndarray
    mse_heldout: np.ndarray
    mse_heldout_stderr: np.ndarray
    n_train: int
    n_heldout: int
    ratio: float
    tolerance: float
    merged: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, arrays as lists."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in asdict(self).items()}


def memorization_per_noise_level(denoiser: Callable[..., Tensor], train: Array, heldout: Array,
                                 sigmas: Sequence[float] | np.ndarray, *, n: int = 512, seed: int = 0,
                                 batch_size: int = 256, ratio: float = RATIO, tolerance: float | None = None,
                                 labels: tuple[np.ndarray, np.ndarray] | None = None,
                                 conditioning: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
                                 training: DistinctTraining | None = None,
                                 device: str | torch.device = "auto") -> PerNoiseLevel:
    """Memorization rate and denoising error of a denoiser at each of ``sigmas`` (module docstring).

    denoiser: ``net(x, sigma, labels=None) -> x0``; a module runs where it is, in evaluation mode, else on ``device``.
    train: (N, ...), all points the denoiser was trained on; neighbours are looked up among all of them.
    heldout: (M, ...), points it has not seen.
    n: at most so many training and so many held-out points are denoised, a random choice by ``seed``.
    ratio, tolerance: as in ``memorization_rate``.
    labels: classes (N,) of the training and (M,) of the held-out points, for a class-conditional denoiser.
    conditioning: what else the denoiser takes by name, for the training and for the held-out points: tensors or arrays
        with an entry for each point.
    training: ``distinct_training(train, tolerance)``, where several denoisers are tested with one training set.

    The result does not depend on ``batch_size`` beyond the rounding of the denoiser itself. Raises InputError
    if shapes differ, there are fewer than 2 points, a noise level is not positive, or an output is not finite or no
    estimate of every point.
    """
    levels = np.asarray(sigmas, dtype=np.float64)
    if levels.ndim != 1 or len(levels) == 0 or not (np.isfinite(levels) & (levels > 0)).all():
        raise InputError("sigmas must be a list of positive noise levels")
    if train.shape[1:] != heldout.shape[1:]:
        raise InputError(f"training points have shape {tuple(train.shape[1:])} and held-out points "
                         f"{tuple(heldout.shape[1:])}; bring both to one shape")
    if batch_size < 1 or min(n, len(train), len(heldout)) < 2:
        raise InputError("standard errors need at least 2 training and 2 held-out points, "
                         "and batch_size must be at least 1")
    on = resolve_device(device)
    training = training or distinct_training(train, tolerance, device=on)
    chosen = [generator(seed, f"per-level {part} points").permutation(len(points))[:n]
              for points, part in ((train, "train"), (heldout, "heldout"))]  # a smaller n has the first of a larger one
    known, unknown = (torch.as_tensor(points[order]).float().cpu()
                      for points, order in zip((train, heldout), chosen, strict=True))
    classes = [None, None] if labels is None else [torch.from_numpy(part[order])
                                                   for part, order in zip(labels, chosen, strict=True)]
    given = [None, None] if conditioning is None else [
        rows_of(part, torch.from_numpy(order), len(points))
        for part, order, points in zip(conditioning, chosen, (train, heldout), strict=True)]
    noise = torch.from_numpy(np.stack([
        generator(seed, "per-level noise", j).standard_normal(known.shape[1:])
        for j in range(max(len(known), len(unknown)))])).float()

    rows = []
    with evaluation_mode(denoiser):
        for sigma in levels.tolist():
            _, error_train = denoise(denoiser, known, noise, sigma, classes[0], batch_size, on, given[0])
            estimate, error_heldout = denoise(denoiser, unknown, noise, sigma, classes[1], batch_size, on, given[1])
            memorized = apply_ratio_rule(estimate, training, ratio, device=on)
            rows.append([memorized.rate, memorized.low, memorized.high, error_train.mean(), standard_error(error_train),
                         error_heldout.mean(), standard_error(error_heldout)])
    rate, low, high, mse_train, mse_train_stderr, mse_heldout, mse_heldout_stderr = np.array(rows).T
    return PerNoiseLevel(
        sigma=levels, rate=rate, low=low, high=high, mse_train=mse_train, mse_train_stderr=mse_train_stderr,
        mse_heldout=mse_heldout, mse_heldout_stderr=mse_heldout_stderr, n_train=len(known),
        n_heldout=len(unknown), ratio=float(ratio), tolerance=training.tolerance,
        merged=training.distinct.merged, seed=seed)


def denoise(denoiser: Callable[..., Tensor], points: Tensor, noise: Tensor, sigma: float, classes: Tensor | None,
            batch_size: int, device: torch.device,
            conditioning: Mapping[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Estimates (n, d) of ``points + sigma noise`` for points (n, ...) and at least as many noise vectors, and their
    squared errors per value (n,), float64. classes: (n,) or None. conditioning: tensors with n entries, or None.
    """
    noisy, device = points + sigma * noise[:len(points)], device_of(denoiser, device)
    parts = [slice(start, start + batch_size) for start in range(0, len(points), batch_size)]
    outputs = []
    for part in parts:
        x, rows = noisy[part].to(device), torch.arange(len(points))[part]
        labels = () if classes is None else (classes[part].to(device),)
        given = rows_of(conditioning or {}, rows, len(points), device)
        with torch.inference_mode():
            outputs.append(denoiser(x, torch.full((len(x),), sigma, device=device), *labels, **given).float().cpu())
    estimate = as_rows(torch.cat(outputs), f"the denoiser's output at sigma = {sigma:g}").astype(np.float64)
    clean = as_rows(points)
    if estimate.shape != clean.shape:
        raise InputError(f"the denoiser gives {estimate.shape[0]} points of {estimate.shape[1]} values for "
                         f"{clean.shape[0]} of {clean.shape[1]}; it must give an estimate x0 for every noisy point")
    return estimate, ((estimate - clean) ** 2).mean(axis=1)
