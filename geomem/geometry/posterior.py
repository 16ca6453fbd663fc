"""Posterior weights of the training points (Dodson et al. 2026, Eq. 2, 3, Def. 4.1).

For the query ``x_k + sigma Z`` at training point k, with ``u = 1/sigma`` and a, b as in ``projections``:

    w_i = exp(l_i) / sum_j exp(l_j),    l_i = -(a_i u^2 / 2 + b_i u),    l_k = 0.

All weights of the package are made here, those of any other noisy point with its distances for a and without b.
W_sigma(D) is the mean over training points and noise of ``max_i w_i``, the self weight that of ``w_k``. Where equal and
near-equal points are merged, i and k run over their groups, w_i is the sum over the group and each group is seen once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.geometry import workers
from geomem.geometry.options import MEMORY, Options, as_draws, as_sigmas
from geomem.geometry.projections import TILE, QueryNoise
from geomem.geometry.sweep import NoiseCollector, Sweep
from geomem.points import runs
from geomem.statistics import Estimate, Tally

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LOG_2 = float(np.log(2))
NEGLIGIBLE = 1e-12  # a total weight this small beside the point's own is left out


def log2_weights(a: torch.Tensor, b: torch.Tensor | None, sigma: float | torch.Tensor,
                 out: torch.Tensor | None = None) -> torch.Tensor:
    """``l_i / log 2``, from ``a``, ``b`` (0 where None) and ``sigma`` that broadcast."""
    u = 1 / sigma
    squared = a * (-0.5 * u**2 / LOG_2)
    if b is None:
        return squared
    if isinstance(u, torch.Tensor):
        return squared - b * (u / LOG_2)
    return torch.add(squared, b, alpha=-u / LOG_2, out=out)


def posterior_weights(a: torch.Tensor, b: torch.Tensor | None, sigma: float | torch.Tensor,
                      count: torch.Tensor | None = None) -> torch.Tensor:
    """``w_i`` over the last axis, in the precision of ``a``, at any sigma > 0: the largest logit is subtracted first.

    ``a``, ``b``, ``sigma`` as in ``log2_weights``; ``count`` how often each centre occurs.
    """
    logits = log2_weights(a, b, sigma)
    weights = torch.exp2(logits - logits.amax(-1, keepdim=True))
    if count is not None:
        weights = weights * count
    return weights / weights.sum(-1, keepdim=True)


def log2_total(a: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """``log2 sum_i exp(l_i)`` over the last axis, for centres without ``b``; the largest logit is subtracted first.

    Of centres that come in parts, the total weights are in the ratio of the powers of 2 of these.
    """
    logits = log2_weights(a, None, sigma)
    largest = logits.amax(-1, keepdim=True)
    return (largest + torch.exp2(logits - largest).sum(-1, keepdim=True).log2())[..., 0]


def weight_sums(a: torch.Tensor, b: torch.Tensor, count: torch.Tensor | None, sigma: np.ndarray, *,
                merged: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum_i exp(l_i)`` and ``max_i exp(l_i)`` over some centres, for a run of training queries (Dodson et al. 2026,
    Eq. 2).

    ``a`` (queries, centres) is inf at a query's own centre; ``b`` (queries, draws, centres); ``count`` (centres,)
    how often each centre occurs, None when each does once; ``sigma`` ascending; ``merged``: the largest of
    ``count_i exp(l_i)`` in place of the latter. Returns two float32 tensors (queries, draws, levels).

    The largest logit need not be subtracted: ``l_k = 0``, and ``l_i <= (Z.e)^2 / 2`` with e the unit vector
    from x_i to x_k, so ``exp(l_i)`` overflows float32 only where a normal ``Z.e`` exceeds 13.
    Levels run from the largest sigma down. A logit below 0 decreases with u from there on, so a query and draw
    whose centres weigh nothing is left out at all smaller sigmas (on the CPU; elsewhere asking costs more).
    """
    shape = len(sigma), *b.shape[:2]
    rows = torch.arange(shape[1] * shape[2], device=b.device)  # the (query, draw) pairs still looked at
    total = torch.zeros(len(sigma), len(rows), device=b.device)
    largest = torch.zeros_like(total)
    weight = torch.empty_like(b)
    for level in range(len(sigma) - 1, -1, -1):
        log2_weights(a[:, None], b, float(sigma[level]), out=weight)
        weight.exp2_()  # on the CPU exp, from another library, starts threads
        if not merged:
            largest[level, rows] = weight.amax(-1).view(-1)
        if count is not None:
            weight.mul_(count)
        if merged:
            largest[level, rows] = weight.amax(-1).view(-1)
        total[level, rows] = here = weight.sum(-1).view(-1)
        if not workers.may_look(b):
            continue
        left = (here >= NEGLIGIBLE).nonzero()[:, 0]
        if len(left) == 0:
            break
        if len(left) < len(rows) / 2:
            a, b, rows = a[left // b.shape[1]], b.view(len(rows), 1, -1)[left], rows[left]
            weight = torch.empty_like(b)
    return total.view(shape).permute(1, 2, 0), largest.view(shape).permute(1, 2, 0)


class PosteriorSums(NoiseCollector):
    """Collects ``sum_i exp(l_i)`` and ``max_i exp(l_i)`` of the training queries."""

    def __init__(self, sweep: Sweep, sigma: np.ndarray) -> None:
        centres, n, draws = sweep.centres, len(sweep.own), sweep.options.posterior_draws
        self.noise = QueryNoise("posterior radius", n, draws, centres, sweep.options.seed)
        self.sigma = sigma
        self.largest, self.own = (Tally(n, draws, self.noise.groups, len(sigma)) for _ in range(2))
        self._device = centres.device
        self._merged = centres.weight is not None
        count = centres.count if centres.weight is None else centres.weight
        self._copies = count[sweep.own][:, None, None]
        self._count = (None if centres.distinct and not self._merged else
                       torch.from_numpy(count).to(centres.device).float())

    def bytes_per_query(self) -> int:
        """Of the sums."""
        return 12 * self.noise.draws * len(self.sigma)

    def begin(self, rows: slice) -> None:
        """Training queries ``rows`` are next."""
        super().begin(rows)
        shape = rows.stop - rows.start, self.noise.draws, len(self.sigma)
        self._total = torch.zeros(shape, dtype=torch.float64, device=self._device)
        self._most = torch.zeros(shape, device=self._device)

    def add(self, rows: slice, columns: slice, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """Add some centres for some queries; ``c`` is common to all logits and drops out."""
        total, most = weight_sums(a, b, None if self._count is None else self._count[columns], self.sigma,
                                  merged=self._merged)
        here = self.here(rows)
        self._total[here] += total
        torch.maximum(self._most[here], most, out=self._most[here])

    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """The sums of one process."""
        return [("sum", self._total), ("max", self._most)]

    def end(self) -> None:
        """The largest and the self weight of the queries of the pass."""
        for part in runs(0, len(self._total), TILE):  # the same parts, so the same rounding, in however many passes
            first = self.rows.start + part.start
            total = self._copies[first:self.rows.start + part.stop] + self._total[part].cpu().numpy()
            own = self._copies[first:self.rows.start + part.stop] if self._merged else 1
            self.largest.add(first, np.maximum(self._most[part].cpu().numpy(), own) / total)
            self.own.add(first, own / total)


@dataclass(frozen=True)
class PosteriorWeights:
    """W_sigma and the self weight, from the same draws."""

    max_posterior_weight: Estimate
    self_posterior_weight: Estimate


def max_posterior_weight(train: Any, sigmas: Any, *, draws: int = 4, seed: int = 0, queries: int | None = None,
                         device: Any = "auto", memory: int = MEMORY,
                         group: ProcessGroup | None = None) -> PosteriorWeights:
    """W_sigma(D), the mean largest posterior weight at noisy training points, and the mean self weight
    (Dodson et al. 2026, Def. 4.1, Fig. 7).

    Arguments: ``train`` (N, ...), N >= 2; ``sigmas`` noise levels, ascending and each once in the result; ``draws``
    noise draws per training point; the others as in ``geometry_curves``. Raises InputError for what it refuses.
    """
    sigma = as_sigmas(sigmas)
    options = Options(as_draws("draws", draws), queries=queries, seed=seed, device=device, memory=memory, group=group)
    sweep = Sweep.of(train, None, options)
    sums = PosteriorSums(sweep, sigma)
    sweep.run(training=[sums])
    return PosteriorWeights(sums.largest.estimate(sigma, proportion=False),
                            sums.own.estimate(sigma, proportion=False))
