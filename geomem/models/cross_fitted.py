"""The cross-fitted denoiser: no point is denoised by a network that saw the training points it is near to.

The training points are cut into K folds, and ``D_-k`` was trained without fold k. With the posterior weights w_i of
the training points at the noisy point x (Dodson et al. 2026, Eq. 2, 3),

    D(x, sigma) = sum_k q_k D_-k(x, sigma),    q_k = P_k^gamma / sum_j P_j^gamma,    P_k = sum over i in fold k of w_i.

Near a training point P of its fold is nearly 1, so the network answers that never saw it. At high noise levels the
weights are spread, and the answer is an average of networks. gamma = 1 is ``soft`` routing, gamma = infinity
``argmax``: the network that has not seen the fold with the largest P answers alone.
Ensembles whose members answer for what they did not see are known from classifiers (Tang et al. 2022, Split-AI).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.geometry.posterior import log2_total
from geomem.models.denoiser import ClosedForm, expand_sigma, rows_of
from geomem.points import Array, as_points, runs

NEGLIGIBLE = 2.0**-26
"""Shares of an answer up to a quarter of float32's rounding are left out."""
BLOCK_VALUES = 1 << 22  # float64 distances held at a time (32 MiB)


class CrossFittedDenoiser(ClosedForm):
    """Routes every noisy point to the networks that have not seen the training points near it (module docstring).

    It holds the training points, so it serves those who publish samples; it is no model to publish.

    Parameters
    ----------
    denoisers : K >= 2 networks ``net(x, sigma, labels=None) -> x0``; number k was trained without the points of fold k.
    folds : (N,) integers 0..K-1, the fold of each training point; no fold is empty. Equal and near-equal points belong
        in one fold (``geomem.data.cut_into_folds``): a network that saw a copy saw the point.
    train : (N, ...), the training points, as the networks get them.
    routing : ``argmax``, ``soft``, or gamma > 0.

    A call asks the device once which networks are needed, and evaluates each at the points that need it: at ``argmax``
    every point goes through one. Shares of an answer below ``NEGLIGIBLE`` are left out. Raises InputError where folds,
    networks and points do not fit.
    """

    points: Tensor
    squares: Tensor

    def __init__(self, denoisers: Sequence[nn.Module], folds: Sequence[int] | np.ndarray, train: Array,
                 routing: str | float = "argmax") -> None:
        super().__init__()
        fold, source = np.asarray(folds), as_points("train", train)
        if len(denoisers) < 2:
            raise InputError(f"a cross-fitted denoiser needs at least 2 networks, not {len(denoisers)}")
        if fold.shape != (len(source),):
            raise InputError(f"folds have shape {fold.shape}; give one for each of the {len(source):,} training points")
        if fold.dtype.kind not in "iu" or not np.array_equal(np.unique(fold), np.arange(len(denoisers))):
            raise InputError(f"folds must be the integers 0 to {len(denoisers) - 1}, one for each network, and none "
                             "may be empty")
        self.gamma = gamma_of(routing)
        self.denoisers = nn.ModuleList(denoisers)
        self.point_shape = source.shape[1:]
        rows = torch.from_numpy(source.take(np.argsort(fold, kind="stable")))
        mean = rows.mean(0, dtype=torch.float64)
        self.register_buffer("mean", mean)
        self.register_buffer("points", rows)
        self.register_buffer("squares", torch.cat([(part.double() - mean).square().sum(1)
                                                   for part in rows.split(max(1, BLOCK_VALUES // source.dim))]))
        ends = np.cumsum(np.bincount(fold)).tolist()
        self._folds = list(zip([0, *ends], ends, strict=False))

    def shares(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """q (B, K), float64: how much of the answer at the noisy points (B, ...) each network gives; rows sum to 1."""
        x = x.to(self.mean.device)
        query = x.double().flatten(1) - self.mean
        level = expand_sigma(sigma, x).double().flatten(1)
        block = max(1, BLOCK_VALUES // max(len(x), query.shape[1]))
        totals = []
        for start, end in self._folds:
            total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
            for part in runs(start, end, block):
                rows = self.points[part].double() - self.mean
                squared = self.squares[part] - 2 * query @ rows.T  # without |x|^2, which is common to all
                total = torch.logaddexp2(total, log2_total(squared, level))
            totals.append(total)
        logits = torch.stack(totals, 1)
        if self.gamma == math.inf:
            return nn.functional.one_hot(logits.argmax(1), len(totals)).double()
        weights = torch.exp2(self.gamma * (logits - logits.amax(1, keepdim=True)))
        return weights / weights.sum(1, keepdim=True)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate; the denoiser contract of ``geomem.models.denoiser``."""
        if x.shape[1:] != self.point_shape:
            raise InputError(f"points of shape {tuple(x.shape[1:])}; the training points of this cross-fitted denoiser "
                             f"have {tuple(self.point_shape)}")
        shares = self.shares(x, sigma)
        needed, shares = (shares > NEGLIGIBLE).cpu(), shares.float().to(x.device)
        result = torch.zeros_like(x, dtype=torch.float32)
        for k, denoiser in enumerate(self.denoisers):
            rows = needed[:, k].nonzero()[:, 0].to(x.device)
            if not len(rows):
                continue
            level, classes, given = (rows_of(value, rows, len(x)) for value in (sigma, labels, conditioning))
            estimate = denoiser(x[rows], level, classes, **given)
            if estimate.shape[1:] != x.shape[1:]:
                raise InputError(f"network {k} answers points of shape {tuple(x.shape[1:])} with "
                                 f"{tuple(estimate.shape[1:])}; all networks must denoise the training points")
            share = shares[rows, k].reshape(-1, *[1] * (x.ndim - 1))
            result.index_add_(0, rows, share * estimate.float())
        return result


def gamma_of(routing: str | float) -> float:
    """gamma of ``argmax`` (infinity), ``soft`` (1) or a number > 0. Raises InputError for anything else."""
    words = {"argmax": math.inf, "soft": 1.0}
    try:
        gamma = words[routing] if isinstance(routing, str) and routing in words else float(routing)
    except ValueError:
        gamma = math.nan
    if not gamma > 0:
        raise InputError(f"routing {routing!r}: give argmax, soft, or a number above 0 (1 is soft)")
    return gamma
