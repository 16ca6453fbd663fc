"""Gaussian shells and the two-shell probability g (Dodson et al. 2026, Lemma 4.5, Def. 4.7).

    R_-^2 = max(0, d - 2 sqrt(d t)),    R_+^2 = d + 2 sqrt(d t) + 2 t
    P(R_- <= |Z| <= R_+) >= 1 - 2 exp(-t)
    shell S_sigma(x) = { y : sigma R_- <= |y - x| <= sigma R_+ }, ends included
    g_sigma(r) = P( R_- <= |(r/sigma) e_1 + Z| <= R_+ ), a function of s = r/sigma alone
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.special import chdtr, gammaln, xlogy

from geomem.errors import InputError

TAIL = 9.5  # standard deviations beyond which a normal tail is below 1e-20
NODES_PER_SCALE = 32  # exact values of g for each unit of s, or each width of its fall where that is wider
STEPS_PER_NODE = 64  # linear steps between two exact values
SMALLEST = 1e-15  # g below this is taken as 0 in the table


def shell_radii(d: int, t: float = 5.0) -> tuple[float, float]:
    """``(R_-, R_+)`` for dimension d and t > 0, in units of sigma (Dodson et al. 2026, Lemma 4.5).

    Raises InputError unless d >= 1 and t is from 1e-6 to 1e6.
    """
    inner, outer = squared_radii(d, t)
    return float(np.sqrt(inner)), float(np.sqrt(outer))


def squared_radii(d: int, t: float) -> tuple[float, float]:
    """``(R_-^2, R_+^2)`` (Dodson et al. 2026, Lemma 4.5). Raises InputError unless d >= 1 and t is from 1e-6 to 1e6."""
    if d < 1:
        raise InputError(f"dimension is {d}; give 1 or more")
    if not 1e-6 <= t <= 1e6:
        raise InputError(f"shell_t is {t}; give a positive number from 1e-6 to 1e6 (5 is usual)")
    root = 2 * float(np.sqrt(d * t))
    return max(0.0, d - root), d + root + 2 * t


def two_shell_probability(distance: Any, sigma: Any, dim: int, shell_t: float = 5.0) -> np.ndarray:
    """g_sigma(distance), exact, for arrays of distances and sigmas that broadcast (Dodson et al. 2026, Def. 4.7).

    ``|s e_1 + Z|^2`` is noncentral chi-square, a Poisson(s^2/2) mixture of chi-squares with d + 2j degrees of
    freedom, so ``g = sum_j Poisson(j; s^2/2) h_j`` with ``h_j = F(R_+^2; d + 2j) - F(R_-^2; d + 2j)``: a sum
    of terms >= 0, accurate for every d and s, where library routines for the noncentral CDF can fail.
    Raises InputError for a negative distance or a sigma that is not positive.
    """
    distance, sigma = np.asarray(distance, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if not ((distance >= 0).all() and (sigma > 0).all()):
        raise InputError("distance or sigma is out of range; give distances >= 0 and sigmas > 0")
    s = distance / sigma
    return _mixture(s.ravel(), dim, shell_t)[0].reshape(s.shape)


def _mixture(s: np.ndarray, dim: int, shell_t: float) -> tuple[np.ndarray, np.ndarray]:
    """g and its derivative ``g' = s sum_j Poisson(j; s^2/2) (h_{j+1} - h_j)``, for s (n,)."""
    inner, outer = squared_radii(dim, shell_t)
    freedom = dim + 2 * np.arange(_mixture_terms(dim, outer) + 1)
    h = chdtr(freedom, outer) - chdtr(freedom, inner)
    step = np.diff(h)
    g, slope = np.zeros(len(s)), np.zeros(len(s))
    for index, half in enumerate(s**2 / 2):
        width = TAIL * np.sqrt(half) + 3 * TAIL
        low, high = (int(end) for end in np.clip([half - width, half + width], 0, len(step)))
        j = np.arange(low, high)
        poisson = np.exp(xlogy(j, half) - half - gammaln(j + 1))
        g[index] = poisson @ h[low:high]
        slope[index] = s[index] * (poisson @ step[low:high])
    return g, slope


def _mixture_terms(dim: int, outer: float) -> int:
    """Number of terms j with a chi-square, of m = d + 2j degrees, that reaches down to R_+^2 at all."""
    root = TAIL / np.sqrt(2) + np.sqrt(TAIL**2 / 2 + outer)  # m - TAIL sqrt(2 m) = R_+^2 has m = root^2
    return int((root**2 - dim) / 2) + 2


class TwoShellTable:
    """g as a function of ``s = r/sigma`` by linear interpolation in a table, within 1e-7 of the exact value.

    Exact values and slopes at nodes, the cubic through them, and the cubic on STEPS_PER_NODE steps per node.
    The fall of g has a width of about ``sqrt(2 d) / (2 s_c)``, ``s_c^2 = 2 sqrt(d t)``, taken as at least 1,
    which sets the nodes. From ``cut`` on g is below 1e-15 and taken as 0.
    """

    def __init__(self, dim: int, shell_t: float) -> None:
        _, outer = squared_radii(dim, shell_t)
        width = max(1.0, np.sqrt(2 * dim) / (2 * np.sqrt(2 * np.sqrt(dim * shell_t)))) / NODES_PER_SCALE
        root = (TAIL + np.sqrt(TAIL**2 + 4 * _mixture_terms(dim, outer))) / 2  # of the largest s^2/2 needed
        g, slope = _mixture(np.arange(0, np.sqrt(2) * root + 1, width), dim, shell_t)
        last = int(np.flatnonzero(g > SMALLEST)[-1]) + 1
        self.cut = last * width
        self._per_unit = STEPS_PER_NODE / width
        x = np.arange(STEPS_PER_NODE) / STEPS_PER_NODE
        cubic = (np.outer(g[:last], (1 + 2 * x) * (1 - x)**2) + np.outer(g[1:last + 1], x**2 * (3 - 2 * x))
                 + np.outer(width * slope[:last], x * (1 - x)**2)
                 - np.outer(width * slope[1:last + 1], x**2 * (1 - x)))
        self._value = np.append(cubic.ravel().clip(0, 1), [0.0, 0.0])
        self._slope = np.diff(self._value)

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """g at each ``s >= 0``, any shape, float64."""
        place = np.minimum(s * self._per_unit, len(self._slope) - 1)
        index = place.astype(np.int32)
        return self._value.take(index) + (place - index) * self._slope.take(index)

    def of_tensor(self, s: torch.Tensor) -> torch.Tensor:
        """The same for a tensor on any device."""
        value, slope = (torch.from_numpy(part).to(s.device) for part in (self._value, self._slope))
        place = (s.double() * self._per_unit).clamp(max=len(self._slope) - 1)
        index = place.long()
        return value[index] + (place - index) * slope[index]


two_shell_table = lru_cache(maxsize=8)(TwoShellTable)  # each is made once
