"""Coverage of held-out points by the shells of the training points ([G] Eq. 6, Def. 4.6).

    C_sigma(p, D) = P( Y + sigma Z in union_i S_sigma(x_i) ),    Y ~ p held out.

With ``u = 1/sigma`` and a, b, c as in ``projections``, centre i covers iff
``R_-^2 <= a_i u^2 + 2 b_i u + c <= R_+^2``. It is the exact union event: a point too close to its nearest
centre may be covered by another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.devices import resolve_device
from geomem.geometry import workers
from geomem.geometry.estimates import Estimate, Tally
from geomem.geometry.points import SubsetSource, as_draws, as_sigmas, as_train_and_heldout, chosen_rows
from geomem.geometry.projections import Centres, QueryNoise
from geomem.geometry.shells import squared_radii
from geomem.geometry.sweep import MEMORY, NoiseCollector, Queries, sweep

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
    """Which noisy held-out points lie in the shells of some centres, both sides of each ([G] Eq. 6, Def. 4.6).

    ``a`` (queries, centres); ``b`` (queries, draws, centres); ``low``, ``high`` as in ``shell_edges``; ``sigma``
    ascending; ``known``: a bool tensor like them, True where nobody needs to ask. Returns it with the centres'
    answer added.

    On the CPU only what is open is looked at. The smallest D of a few centres answers for most at large sigma. Else
    the smallest D of all decides unless it is below ``low``; only those few look at every centre again. And
    ``|y + sigma Z - x_i|^2 / sigma^2`` is convex in u and equals c at u = 0, so where it exceeds ``max(c, R_+^2)``
    it does so at every smaller sigma: levels run from the largest sigma down, and once all centres are that far
    from a query and draw, none covers it again.
    """
    _, draws, centres = b.shape
    inside = known.clone()
    open_ = torch.ones_like(known[0])
    moved = torch.empty_like(b)
    for level in range(len(sigma) - 1, -1, -1):
        step, lowest, highest = 2 * float(sigma[level]), low[level], high[level]
        if not workers.may_look(b):
            torch.add(a[:, None], b, alpha=step, out=moved)
            flat = moved.view(-1, centres)
            inside[level] |= ((flat >= lowest[:, None]) & (flat <= highest[:, None])).any(-1)
            continue
        few = torch.add(a[:, None, :FEW], b[..., :FEW], alpha=step).amin(-1).view(-1)
        inside[level] |= open_ & (few >= lowest) & (few <= highest)
        rows = (open_ & ~inside[level]).nonzero()[:, 0]
        if len(rows) == 0:
            if not open_.any():
                break
            continue
        if len(rows) > len(open_) / 2:
            rows = torch.arange(len(open_))
            flat = torch.add(a[:, None], b, alpha=step, out=moved).view(-1, centres)
        else:
            flat = torch.add(a[rows // draws], b.view(-1, centres)[rows], alpha=step)
        nearest = flat.amin(-1)
        lowest, highest = lowest[rows], highest[rows]
        inside[level, rows] |= (nearest >= lowest) & (nearest <= highest)
        close = (nearest < lowest).nonzero()[:, 0]
        if len(close):
            near = flat[close]
            inside[level, rows[close]] |= ((near >= lowest[close, None]) & (near <= highest[close, None])).any(-1)
        open_[rows] = nearest <= highest.clamp(min=0)
    return inside


class CoverageSums(NoiseCollector):
    """Collects which held-out queries and draws are covered."""

    def __init__(self, centres: Centres, n_heldout: int, sigma: np.ndarray, draws: int, shell_t: float,
                 seed: int) -> None:
        squared_radii(centres.dim, shell_t)  # a wrong shell_t stops here, before any work
        self.noise = QueryNoise.assign("coverage radius", n_heldout, draws, centres, seed)
        self.sigma, self.dim, self.shell_t = sigma, centres.dim, shell_t
        self._covered = torch.zeros(n_heldout, draws, len(sigma), dtype=torch.bool, device=centres.device)

    def add(self, rows: slice, columns: slice, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """Add some centres for some queries."""
        low, high = shell_edges(c, self.sigma, self.dim, self.shell_t)
        known = self._covered[rows].permute(2, 0, 1).reshape(low.shape)
        inside = covered(a, b, low, high, self.sigma, known)
        self._covered[rows] = inside.view(len(self.sigma), *c.shape).permute(1, 2, 0)

    def parts(self, rows: slice) -> list[tuple[str, torch.Tensor]]:
        """The answers of one process."""
        return [("max", self._covered[rows].view(torch.uint8))]

    def tally(self) -> Tally:
        """Coverage, once all centres have been added."""
        return Tally.of(self._covered.cpu().numpy().astype(np.float64), self.noise.groups)


def shell_coverage(train: Any, heldout: Any, sigmas: Any, *, draws: int = 8, shell_t: float = 5.0, seed: int = 0,
                   queries: int | None = None, device: Any = "auto", memory: int = MEMORY,
                   group: ProcessGroup | None = None) -> Estimate:
    """C_sigma, the probability that a noisy held-out point lies in a shell of a training point
    ([G] Def. 4.6).

    Arguments: ``train`` (N, ...), N >= 2, and ``heldout`` (M, ...), NumPy, torch or stored, points of one shape;
    ``sigmas`` noise levels in the units of the data, in any order (ascending and each once in the result);
    ``draws`` noise draws per held-out point; ``shell_t`` the t of the shell radii; ``queries`` how many held-out
    points to look from, a seeded random choice (all where None or not fewer); ``memory`` in bytes, beside the
    points; ``group`` processes that share the work (see ``geometry_curves``).
    Raises InputError for input that is not as described.
    """
    sigma = as_sigmas(sigmas)
    train, heldout = as_train_and_heldout(train, heldout)
    centres = Centres(train, resolve_device(device))
    chosen = chosen_rows(heldout.shape[0], queries, "heldout queries", seed)
    sums = CoverageSums(centres, len(chosen), sigma, as_draws("draws", draws), shell_t, seed)
    sweep(centres, [Queries(SubsetSource(heldout, chosen), None, noisy=sums)], seed, memory=memory, group=group)
    return sums.tally().estimate(sigma, proportion=True)
