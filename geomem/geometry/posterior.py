"""Posterior weights of the training points ([G] Eq. 2, 3, Def. 4.1).

For the query ``x_k + sigma Z`` at training point k, with ``u = 1/sigma`` and a, b as in ``projections``:

    w_i = exp(l_i) / sum_j exp(l_j),    l_i = -(a_i u^2 / 2 + b_i u),    l_k = 0.

W_sigma(D) is the mean over training points and noise of ``max_i w_i``, the self weight that of ``w_k``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geomem.devices import resolve_device
from geomem.geometry.estimates import Estimate, Tally
from geomem.geometry.points import as_draws, as_points, as_sigmas
from geomem.geometry.projections import Centres, NoisePool, QueryNoise
from geomem.geometry.sweep import sweep

LOG_2 = float(np.log(2))
NEGLIGIBLE = 1e-12  # a total weight this small beside the point's own is left out


def posterior_weights(a: torch.Tensor, b: torch.Tensor, count: torch.Tensor | None, copies: np.ndarray,
                      sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest weight and self weight for a block of training queries ([G] Eq. 2).

    ``a`` (queries, centres) is inf at the query's own centre; ``b`` (queries, draws, centres); ``count``
    (centres,) how often each centre occurs, None when each does once; ``copies`` (queries,) the count of the
    query's own centre; ``sigma`` ascending. Returns two float64 arrays (queries, draws, levels).

    The largest logit need not be subtracted: ``l_k = 0``, and ``l_i <= (Z.e)^2 / 2`` with e the unit vector
    from x_i to x_k, so ``exp(l_i)`` overflows float32 only where a normal ``Z.e`` exceeds 13.
    Levels run from the largest sigma down. A logit below 0 decreases with u from there on, so once the others
    weigh nothing they weigh nothing at any smaller sigma.
    """
    others = np.zeros((*b.shape[:2], len(sigma)), dtype=np.float32)
    largest = np.zeros_like(others)
    weight = torch.empty_like(b)
    for level in range(len(sigma) - 1, -1, -1):
        s = float(sigma[level])
        torch.add(a[:, None], b, alpha=2 * s, out=weight)
        weight.mul_(-0.5 / s**2 / LOG_2).exp2_()  # on the CPU exp, from another library, starts threads
        largest[:, :, level] = weight.amax(-1).cpu()
        if count is not None:
            weight.mul_(count)
        others[:, :, level] = weight.sum(-1).cpu()
        if others[:, :, level].max() < NEGLIGIBLE:
            break
    total = copies[:, None, None] + others.astype(np.float64)
    return np.maximum(largest, 1) / total, 1 / total


class PosteriorSums:
    """Collects the largest and the self weight of the training queries."""

    def __init__(self, centres: Centres, sigma: np.ndarray, draws: int, seed: int) -> None:
        self.noise = QueryNoise.assign("posterior radius", centres.n_train, draws, centres, seed)
        self.sigma = sigma
        self.largest = Tally(centres.n_train, self.noise.draws, self.noise.groups, len(sigma))
        self.own = Tally(centres.n_train, self.noise.draws, self.noise.groups, len(sigma))
        self._copies = centres.count[centres.member]
        self._count = None if centres.distinct else torch.from_numpy(centres.count).to(centres.device).float()

    def add(self, first: int, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """Add training queries first, first + 1, ...; ``c`` is common to all logits and drops out."""
        largest, own = posterior_weights(a, b, self._count, self._copies[first:first + len(a)], self.sigma)
        self.largest.add(first, largest)
        self.own.add(first, own)


@dataclass(frozen=True)
class PosteriorWeights:
    """W_sigma and the self weight, from the same draws."""

    max_posterior_weight: Estimate
    self_posterior_weight: Estimate


def max_posterior_weight(train: Any, sigmas: Any, *, draws: int = 4, seed: int = 0, device: Any = "auto",
                         chunk_size: int | None = None) -> PosteriorWeights:
    """W_sigma(D), the mean largest posterior weight at noisy training points, and the mean self weight
    ([G] Def. 4.1, Fig. 7).

    Arguments: ``train`` (N, ...), NumPy or torch, N >= 2; ``sigmas`` noise levels in the units of the data,
    in any order (ascending and each once in the result); ``draws`` noise draws per training point;
    ``chunk_size`` training points held at a time, a matter of memory alone.
    Raises InputError for input that is not as described.
    """
    sigma = as_sigmas(sigmas)
    centres = Centres(as_points("train", train), resolve_device(device))
    sums = PosteriorSums(centres, sigma, as_draws("draws", draws), seed)
    sweep(centres, None, noisy=sums, pool=NoisePool.draw(centres, seed, sums.noise), chunk_size=chunk_size)
    return PosteriorWeights(sums.largest.estimate(sigma, proportion=False),
                            sums.own.estimate(sigma, proportion=False))
