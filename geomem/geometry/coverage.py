"""Coverage of held-out points by the shells of the training points (Dodson et al. 2026, Eq. 6, Def. 4.6).

    C_sigma(p, D) = P( Y + sigma Z in union_i S_sigma(x_i) ),    Y ~ p held out.

With ``u = 1/sigma`` and a, b, c as in ``projections``, centre i covers iff
``R_-^2 <= a_i u^2 + 2 b_i u + c <= R_+^2``. It is the exact union event: a point too close to its nearest
centre may be covered by another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.geometry import workers
from geomem.geometry.options import MEMORY, Options, as_draws, as_sigmas
from geomem.geometry.projections import TILE, QueryNoise
from geomem.geometry.shells import squared_radii
from geomem.geometry.sweep import NoiseCollector, Sweep
from geomem.points import runs
from geomem.statistics import Estimate, Tally

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FEW = 32  # centres that are asked first


def shell_edges(c: torch.Tensor, sigma: np.ndarray, dim: int, shell_t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """``low = sigma^2 (R_-^2 - c)`` and ``high = sigma^2 (R_+^2 - c)``, (levels, queries x draws) float32.

    Centre i covers iff ``low <= D_i <= high``, where ``D_i = a_i + 2 sigma b_i``.
    """
    inner, outer = squared_radii(dim, shell_t)
    square = torch.from_numpy(sigma**2).to(c.device)[:, None]
    high = (square * (outer - c.reshape(-1))).float()
    # A ball (R_- = 0) has no inner side; rounding must not make one.
    low = (square * (inner - c.reshape(-1))).float() if inner > 0 else torch.full_like(high, -torch.inf)
    return low, high


def covered(a: torch.Tensor, b: torch.Tensor, low: torch.Tensor, high: torch.Tensor, sigma: np.ndarray,
            known: torch.Tensor) -> torch.Tensor:
    """Which noisy held-out points lie in the shells of some centres, both sides of each (Dodson et al. 2026, Eq. 6,
    Def. 4.6).

    ``a`` (queries, centres); ``b`` (queries, draws, centres); ``low``, ``high`` as in ``shell_edges``; ``known``: a
    bool tensor like them, True where nobody needs to ask. Returns it with the centres' answer added.

    On the CPU all centres are asked only where it takes that: the nearest of a few centres answers for most at large
    sigma, and at small sigma all are too far.
    """
    _, draws, centres = b.shape
    steps = torch.from_numpy(2 * sigma).to(b)
    if not workers.may_look(b):
        inside = known.clone()
        for k, step in enumerate(steps):
            moved = torch.addcmul(a[:, None], b, step).view(-1, centres)
            inside[k] |= ((moved >= low[k, :, None]) & (moved <= high[k, :, None])).any(-1)
        return inside
    few = torch.addcmul(a[:, None, :FEW], b[..., :FEW], steps[:, None, None, None]).amin(-1).view(low.shape)
    inside = known | (few >= low) & (few <= high)
    level, row = (~inside & ~all_too_far(a, b, high, steps)).nonzero(as_tuple=True)
    flat = b.view(-1, centres)
    for part in runs(0, len(row), max(1, b.numel() // centres)):
        rows, levels = row[part], level[part]
        moved = torch.addcmul(a[rows // draws], flat[rows], steps[levels, None])
        lowest, highest = low[levels, rows], high[levels, rows]
        nearest = moved.amin(-1)
        within = (nearest >= lowest) & (nearest <= highest)
        # The nearest one decides unless the query is too close to it: then another may cover.
        close = (nearest < lowest).nonzero()[:, 0]
        within[close] = ((moved[close] >= lowest[close, None]) & (moved[close] <= highest[close, None])).any(-1)
        inside[levels, rows] = within
    return inside


def all_too_far(a: torch.Tensor, b: torch.Tensor, high: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Where no centre is near enough to cover, (levels, queries x draws), proven from the nearest centre alone.

    With ``beta = max_i -b_i / sqrt(a_i)``, ``D_i >= a_i - 2 sigma beta sqrt(a_i)``, which grows with a_i from
    ``(sigma beta)^2`` on: if it exceeds ``high`` at the smallest a_i, and that is so far, it does for all.
    """
    beta = -(b * a.clamp(min=torch.finfo(a.dtype).tiny).rsqrt()[:, None]).amin(-1)
    nearest = a.amin(-1)[:, None]
    reach = (steps[:, None, None] * beta.clamp(min=0)).view(len(steps), *b.shape[:2])
    root = nearest.sqrt()
    rounding = 1e-5 * (nearest + reach * root)  # far above that of these lines and of D
    least = (nearest - reach * root - rounding).view(high.shape)
    return ((2 * root >= reach * (1 + 1e-5)).view(high.shape)) & (least > high.clamp(min=0))


class CoverageSums(NoiseCollector):
    """Collects which held-out queries and draws are covered."""

    def __init__(self, sweep: Sweep, sigma: np.ndarray) -> None:
        centres, options, n = sweep.centres, sweep.options, len(sweep.heldout_rows)
        squared_radii(centres.dim, options.shell_t)  # a wrong shell_t stops here, before any work
        self.noise = QueryNoise("coverage radius", n, options.coverage_draws, centres, options.seed)
        self.sigma, self.dim, self.shell_t = sigma, centres.dim, options.shell_t
        self.tally = Tally(n, options.coverage_draws, self.noise.groups, len(sigma))
        self._device = centres.device

    def bytes_per_query(self) -> int:
        """Of the answers."""
        return self.noise.draws * len(self.sigma)

    def begin(self, rows: slice) -> None:
        """Held-out queries ``rows`` are next."""
        super().begin(rows)
        self._covered = torch.zeros(rows.stop - rows.start, self.noise.draws, len(self.sigma), dtype=torch.bool,
                                    device=self._device)

    def add(self, rows: slice, columns: slice, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """Add some centres for some queries."""
        low, high = shell_edges(c, self.sigma, self.dim, self.shell_t)
        here = self.here(rows)
        known = self._covered[here].permute(2, 0, 1).reshape(low.shape)
        inside = covered(a, b, low, high, self.sigma, known)
        self._covered[here] = inside.view(len(self.sigma), *c.shape).permute(1, 2, 0)

    def parts(self) -> list[tuple[str, torch.Tensor]]:
        """The answers of one process."""
        return [("max", self._covered.view(torch.uint8))]

    def end(self) -> None:
        """The answers of the queries of the pass are complete."""
        for part in runs(0, len(self._covered), TILE):  # as for the posterior weights
            self.tally.add(self.rows.start + part.start, self._covered[part].cpu().numpy().astype(np.float64))


def shell_coverage(train: Any, heldout: Any, sigmas: Any, *, draws: int = 8, shell_t: float = 5.0, seed: int = 0,
                   queries: int | None = None, device: Any = "auto", memory: int = MEMORY,
                   group: ProcessGroup | None = None) -> Estimate:
    """C_sigma, the probability that a noisy held-out point lies in a shell of a training point
    (Dodson et al. 2026, Def. 4.6).

    Arguments: ``train`` (N, ...), N >= 2, and ``heldout`` (M, ...); ``sigmas`` noise levels, ascending and each once in
    the result; ``draws`` noise draws per held-out point; the others as in ``geometry_curves``.
    Raises InputError for what it refuses.
    """
    sigma = as_sigmas(sigmas)
    options = Options(coverage_draws=as_draws("draws", draws), shell_t=shell_t, queries=queries, seed=seed,
                      device=device, memory=memory, group=group)
    sweep = Sweep.of(train, heldout, options)
    sums = CoverageSums(sweep, sigma)
    sweep.run(heldout=[sums])
    return sums.tally.estimate(sigma, proportion=True)
