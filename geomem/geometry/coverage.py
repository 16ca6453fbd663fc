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

ROUNDING = 1e-5  # relative, far above that of m and of D


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


def covered(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, sigma: np.ndarray, dim: int, shell_t: float,
            known: torch.Tensor) -> torch.Tensor:
    """Which noisy held-out points lie in the shells of some centres, both sides of each (Dodson et al. 2026, Eq. 6,
    Def. 4.6).

    ``a`` (queries, centres); ``b`` (queries, draws, centres); ``c`` (queries, draws); ``known`` (levels, queries x
    draws) bool, True where nobody needs to ask. Returns it with the centres' answer added.

    On the CPU most levels are answered at once. With ``k = R_+^2 - c > 0`` the outer side of centre i is

        D_i <= sigma^2 k    iff    sigma k >= m_i,    m_i = b_i + sqrt(b_i^2 + a_i k),

    and the inner side holds at every sigma where ``b_i + sqrt(a_i (c - R_-^2)) >= 0``: the least m_i decides. Where
    that is not so for all centres, m would lose its digits or is within rounding of sigma k, they are asked one by one.
    """
    low, high = shell_edges(c, sigma, dim, shell_t)
    steps = torch.from_numpy(2 * sigma).to(b)
    flat = b.view(-1, b.shape[2])
    if not workers.may_look(b):
        inside = known.clone()
        for k, step in enumerate(steps):
            moved = torch.addcmul(a[:, None], b, step).view(flat.shape)
            inside[k] |= ((moved >= low[k, :, None]) & (moved <= high[k, :, None])).any(-1)
        return inside
    inner, outer = squared_radii(dim, shell_t)
    gap = outer - c
    least = torch.addcmul(b.square(), a[:, None], gap.clamp(min=0).float()[..., None]).sqrt_().add_(b).amin(-1).view(-1)
    slack = (torch.minimum(gap, c - inner) if inner > 0 else gap).clamp(min=0).sqrt().mul(1 - ROUNDING).float()
    doubtful = (slack == 0).view(-1) | (torch.addcmul(b, a.sqrt()[:, None], slack[..., None]).amin(-1).view(-1) < 0)
    reach = steps[:, None] / 2 * gap.float().view(-1)
    inside = known | (reach >= least) & ~doubtful
    level, row = (~known & (doubtful | ((reach - least).abs() <= ROUNDING * least))).nonzero(as_tuple=True)
    for part in runs(0, len(row), max(1, b.numel() // flat.shape[1])):
        rows, levels = row[part], level[part]
        moved = torch.addcmul(a[rows // b.shape[1]], flat[rows], steps[levels, None])
        inside[levels, rows] = ((moved >= low[levels, rows, None]) & (moved <= high[levels, rows, None])).any(-1)
    return inside


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
        here = self.here(rows)
        known = self._covered[here].permute(2, 0, 1).reshape(len(self.sigma), -1)
        inside = covered(a, b, c, self.sigma, self.dim, self.shell_t, known)
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
