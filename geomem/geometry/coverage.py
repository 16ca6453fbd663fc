"""Coverage of held-out points by the shells of the training points ([G] Eq. 6, Def. 4.6).

    C_sigma(p, D) = P( Y + sigma Z in union_i S_sigma(x_i) ),    Y ~ p held out.

With ``u = 1/sigma`` and a, b, c as in ``projections``, centre i covers iff
``R_-^2 <= a_i u^2 + 2 b_i u + c <= R_+^2``. It is the exact union event: a point too close to its nearest
centre may be covered by another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from geomem.devices import resolve_device
from geomem.geometry.estimates import Estimate, Tally
from geomem.geometry.points import as_draws, as_sigmas, as_train_and_heldout
from geomem.geometry.projections import Centres, NoisePool, QueryNoise
from geomem.geometry.shells import squared_radii
from geomem.geometry.sweep import sweep


def covered(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, sigma: np.ndarray, dim: int,
            shell_t: float) -> np.ndarray:
    """Which noisy held-out points lie in the union of shells, both sides of each shell ([G] Eq. 6, Def. 4.6).

    ``a`` (queries, centres), ``b`` (queries, draws, centres), ``c`` (queries, draws), ``sigma`` ascending.
    Returns a bool array (queries, draws, levels).

    With ``D_i = a_i + 2 sigma b_i`` centre i covers iff ``low <= D_i <= high``, where
    ``low = sigma^2 (R_-^2 - c)`` and ``high = sigma^2 (R_+^2 - c)``. The smallest D decides unless it is
    below ``low``; only those few rows look at every centre again. Levels run from the largest sigma down.
    ``|y + sigma Z - x_i|^2 / sigma^2`` is convex in u and equals c at u = 0, so where it exceeds
    ``max(c, R_+^2)`` it does so at every smaller sigma: once all centres are that far, none covers again.
    """
    inner, outer = squared_radii(dim, shell_t)
    square = torch.from_numpy(sigma**2).to(b.device)[:, None, None]
    high = (square * (outer - c)).float()  # (levels, queries, draws)
    # A ball (R_- = 0) has no inner side; rounding must not make one.
    low = (square * (inner - c)).float() if inner > 0 else torch.full_like(high, -torch.inf)
    gone = high.clamp(min=0)
    nearest = torch.full_like(high, torch.inf)
    by_another = torch.zeros_like(high, dtype=torch.bool)
    moved = torch.empty_like(b)
    for level in range(len(sigma) - 1, -1, -1):
        torch.add(a[:, None], b, alpha=2 * float(sigma[level]), out=moved)
        torch.amin(moved, -1, out=nearest[level])
        too_close = nearest[level] < low[level]
        if too_close.any():
            rest = moved[too_close]
            inside = (rest >= low[level, too_close, None]) & (rest <= high[level, too_close, None])
            by_another[level, too_close] = inside.any(-1)
        if (nearest[level] > gone[level]).all():
            break
    inside = (nearest >= low) & (nearest <= high) | by_another
    return inside.permute(1, 2, 0).cpu().numpy()


class CoverageSums:
    """Collects coverage of the held-out queries."""

    def __init__(self, centres: Centres, n_heldout: int, sigma: np.ndarray, draws: int, shell_t: float,
                 seed: int) -> None:
        squared_radii(centres.dim, shell_t)  # a wrong shell_t stops here, before any work
        self.noise = QueryNoise.assign("coverage radius", n_heldout, draws, centres, seed)
        self.sigma, self.dim, self.shell_t = sigma, centres.dim, shell_t
        self.tally = Tally(n_heldout, draws, self.noise.groups, len(sigma))

    def add(self, first: int, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        """Add held-out queries first, first + 1, ..."""
        self.tally.add(first, covered(a, b, c, self.sigma, self.dim, self.shell_t).astype(np.float64))


def shell_coverage(train: Any, heldout: Any, sigmas: Any, *, draws: int = 8, shell_t: float = 5.0,
                   seed: int = 0, device: Any = "auto", chunk_size: int | None = None) -> Estimate:
    """C_sigma, the probability that a noisy held-out point lies in a shell of a training point
    ([G] Def. 4.6).

    Arguments: ``train`` (N, ...), N >= 2, and ``heldout`` (M, ...), NumPy or torch, points of one shape;
    ``sigmas`` noise levels in the units of the data, in any order (ascending and each once in the result);
    ``draws`` noise draws per held-out point; ``shell_t`` the t of the shell radii; ``chunk_size`` held-out
    points held at a time, a matter of memory alone. Raises InputError for input that is not as described.
    """
    sigma = as_sigmas(sigmas)
    train, heldout = as_train_and_heldout(train, heldout)
    centres = Centres(train, resolve_device(device))
    sums = CoverageSums(centres, len(heldout), sigma, as_draws("draws", draws), shell_t, seed)
    sweep(centres, heldout, noisy=sums, pool=NoisePool.draw(centres, seed, sums.noise), chunk_size=chunk_size)
    return sums.tally.estimate(sigma, proportion=True)
