"""Noise-level samplers: the only places where a training noise level is chosen.

A sampler is a law on noise levels, given by its inverse CDF, so two samplers can be compared on the same
uniforms, and ``sample`` is nothing but the inverse CDF of stratified uniforms. Laws on DDPM timesteps are
discrete: their noise levels are the ``sigma_t`` of a schedule, ``log_prob`` is the log of a probability mass,
and the CDF jumps; for the lognormal ``log_prob`` is a log density in sigma.

``GapSampler`` ([G] section 5) conditions any of them to lie outside the danger zone; the confidence-interval
law is [C] Eq. 9-12.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtr, ndtri

from geomem.errors import InputError
from geomem.noise.schedules import DDPMSchedule

Gap = tuple[float, float]
_ROUNDING = 1e-12  # of a CDF: far above its rounding error, far below any mass that matters


@runtime_checkable
class Zone(Protocol):
    """Anything with two edges in sigma, such as a danger zone."""

    @property
    def sigma_low(self) -> float: ...
    @property
    def sigma_high(self) -> float: ...


class NoiseLevelSampler(ABC):
    """A probability law on noise levels sigma > 0."""

    @abstractmethod
    def icdf(self, u: np.ndarray) -> np.ndarray:
        """Smallest sigma with CDF >= u; u in (0, 1), any shape, float64."""

    @abstractmethod
    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        """P(level <= sigma), or P(level < sigma) where not inclusive; sigma of any shape."""

    @abstractmethod
    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        """Log density in sigma, or log probability mass where the law is discrete."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON description, enough to make the sampler again."""

    def sample(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Noise levels of shape (n,), float64, in random order.

        Stratified: one uniform in each of n cells of equal mass. Every single draw has the exact law, and a batch
        covers the law more evenly than independent draws would.
        """
        cells = generator.permutation(n)
        return self.icdf((cells + generator.uniform(np.finfo(float).tiny, 1.0, n)) / n)


class LogNormalSampler(NoiseLevelSampler):
    """``log sigma ~ N(mean, std^2)``: EDM's training law (Karras et al. 2022, Table 1: P_mean, P_std)."""

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise InputError(f"the lognormal sampler needs a finite mean and std > 0, not {mean} and {std}")
        self.mean, self.std = float(mean), float(std)

    @classmethod
    def for_data(cls, sigma_data: float) -> LogNormalSampler:
        """EDM's law moved with the scale of the data: P_mean = -1.2 belongs to its sigma_data of 0.5.

        Data and noise multiplied by one factor are the same problem, so the law of log sigma shifts with
        log sigma_data.
        """
        return cls(-1.2 + float(np.log(sigma_data / 0.5)))

    def _score(self, sigma: np.ndarray | float) -> np.ndarray:
        return (np.log(np.asarray(sigma, dtype=np.float64)) - self.mean) / self.std

    def icdf(self, u: np.ndarray) -> np.ndarray:
        return np.exp(self.mean + self.std * ndtri(u))

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        with np.errstate(divide="ignore"):  # log 0 = -inf is right
            return ndtr(self._score(sigma))

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        z = self._score(sigma)
        return -0.5 * z**2 - np.log(np.asarray(sigma) * self.std * np.sqrt(2 * np.pi))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "lognormal", "mean": self.mean, "std": self.std}


class TimestepSampler(NoiseLevelSampler):
    """A law on the timesteps 0..T-1 of a DDPM schedule, given by their probabilities, shape (T,)."""

    def __init__(self, probabilities: np.ndarray, schedule: DDPMSchedule) -> None:
        self.schedule = schedule
        self.probabilities = np.asarray(probabilities, dtype=np.float64)
        self._cumulative = np.concatenate([[0.0], np.cumsum(self.probabilities)])
        self._cumulative /= self._cumulative[-1]

    def icdf(self, u: np.ndarray) -> np.ndarray:
        return self.schedule.sigmas[self.timestep_icdf(u)]

    def timestep_icdf(self, u: np.ndarray) -> np.ndarray:
        """The same law as integer timesteps."""
        return np.clip(np.searchsorted(self._cumulative, u, side="left") - 1, 0, self.schedule.timesteps - 1)

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        levels = self.schedule.sigmas
        return self._cumulative[np.searchsorted(levels, np.asarray(sigma), side="right" if inclusive else "left")]

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        """Log mass; -inf where sigma is not the level of a timestep (relative tolerance 1e-9)."""
        sigma = np.asarray(sigma, dtype=np.float64)
        nearest = np.rint(self.schedule.timestep(sigma)).astype(int)
        on_level = np.isclose(self.schedule.sigmas[nearest], sigma, rtol=1e-9, atol=0)
        with np.errstate(divide="ignore"):
            return np.where(on_level, np.log(self.probabilities[nearest]), -np.inf)


class UniformTimestepSampler(TimestepSampler):
    """Every DDPM timestep equally likely (Ho et al. 2020)."""

    def __init__(self, schedule: DDPMSchedule | None = None) -> None:
        schedule = schedule or DDPMSchedule()
        super().__init__(np.full(schedule.timesteps, 1 / schedule.timesteps), schedule)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "uniform"}


class ConfidenceIntervalSampler(TimestepSampler):
    """Timesteps from a normal with central coverage ``coverage`` on [c_low, c_high]; [C] Eq. 9-12.

    ``mean = (c_low + c_high) / 2``, ``std = (c_high - c_low) / (2 z)`` with z the normal quantile of the central
    coverage (0.67449 for one half). With lam the mass of the normal inside [0, T],
    ``p(t) = lam p_trunc(t) + (1 - lam) / T``: the mass in the tails is spread evenly over all timesteps.
    Timestep t = 0..T-1 owns the cell [t, t+1] of continuous time, so the probabilities sum to one exactly.
    """

    def __init__(self, c_low: float, c_high: float, coverage: float = 0.5,
                 schedule: DDPMSchedule | None = None) -> None:
        schedule = schedule or DDPMSchedule()
        total = schedule.timesteps
        if not 0 <= c_low < c_high <= total:
            raise InputError(f"the confidence interval {c_low}:{c_high} must satisfy 0 <= low < high <= {total} "
                             "timesteps")
        if not 0 < coverage < 1:
            raise InputError(f"the central coverage of the confidence interval must lie in (0, 1), not {coverage}")
        self.c_low, self.c_high, self.coverage = float(c_low), float(c_high), float(coverage)
        self.mean = (self.c_low + self.c_high) / 2
        self.std = (self.c_high - self.c_low) / (2 * ndtri((1 + self.coverage) / 2))
        score = (np.arange(total + 1) - self.mean) / self.std
        # lam p_trunc integrated over a cell is the plain normal mass of the cell: lam cancels.
        cells = np.diff(ndtr(score))
        self.inside_mass = float(ndtr(score[-1]) - ndtr(score[0]))
        super().__init__(cells + (1 - self.inside_mass) / total, schedule)

    def log_density(self, t: np.ndarray | float) -> np.ndarray:
        """Log of [C] Eq. 12 as a density over continuous t in [0, T]; -inf outside."""
        t = np.asarray(t, dtype=np.float64)
        total = self.schedule.timesteps
        normal = np.exp(-0.5 * ((t - self.mean) / self.std) ** 2) / (self.std * np.sqrt(2 * np.pi))
        density = normal + (1 - self.inside_mass) / total
        with np.errstate(divide="ignore"):
            return np.where((t >= 0) & (t <= total), np.log(density), -np.inf)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "ci", "c_low": self.c_low, "c_high": self.c_high, "coverage": self.coverage}


class GapSampler(NoiseLevelSampler):
    """A base law conditioned to lie outside one or several closed ranges of noise levels; [G] section 5.

    Parameters
    ----------
    base : any noise-level sampler.
    zone : a danger zone, a pair ``(low, high)`` in sigma, or a sequence of either. Overlaps are merged.

    ``removed_mass`` is the share of the base law's draws that lay inside. Rejecting such draws and the inverse CDF
    used here give the same law. Raises InputError where low >= high, where a gap holds none of the base law (it
    would do nothing) or where nothing of the law is left.
    """

    def __init__(self, base: NoiseLevelSampler, zone: Zone | Gap | Sequence[Zone | Gap]) -> None:
        self.base = base
        self.gaps = _merged(_pairs(zone))
        starts = np.array([float(base.cdf(low, inclusive=False)) for low, _ in self.gaps])
        ends = np.array([float(base.cdf(high)) for _, high in self.gaps])
        for (low, high), mass in zip(self.gaps, ends - starts, strict=True):
            if mass < 1e-9:
                raise InputError(f"the gap {low:g}:{high:g} lies outside the noise levels that are trained; "
                                 "choose one inside the schedule")
        self.removed_mass = float((ends - starts).sum())
        if self.removed_mass > 1 - 1e-6:
            raise InputError("the gap leaves no noise level to train on; make it narrower")
        self._removed = np.stack([starts, ends], axis=1)
        # The kept law's CDF is the base's minus the mass removed below.
        self._shifts = np.concatenate([[0.0], np.cumsum(ends - starts)])
        self._starts = starts - self._shifts[:-1]

    def icdf(self, u: np.ndarray) -> np.ndarray:
        kept = np.asarray(u, dtype=np.float64) * (1 - self.removed_mass)
        base_u = kept + self._shifts[np.searchsorted(self._starts, kept, side="left")]
        # The gaps are closed, and rounding can leave u a hair inside one: step clear of it.
        for start, end in self._removed:
            inside = (base_u > start - _ROUNDING) & (base_u < end + _ROUNDING)
            to_start = inside & (base_u < (start + end) / 2) & (start > _ROUNDING)
            base_u = np.where(to_start, start - _ROUNDING, np.where(inside, end + _ROUNDING, base_u))
        return self.base.icdf(np.clip(base_u, np.finfo(float).tiny, 1 - 1e-16))

    def _inside(self, sigma: np.ndarray) -> np.ndarray:
        return np.any([(sigma >= low) & (sigma <= high) for low, high in self.gaps], axis=0)

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        sigma = np.asarray(sigma, dtype=np.float64)
        base = self.base.cdf(sigma, inclusive=inclusive)
        removed = sum(np.clip(base, start, end) - start for start, end in self._removed)
        return (base - removed) / (1 - self.removed_mass)

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        sigma = np.asarray(sigma, dtype=np.float64)
        return np.where(self._inside(sigma), -np.inf, self.base.log_prob(sigma) - np.log1p(-self.removed_mass))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "gap", "gaps": [list(gap) for gap in self.gaps], "removed_mass": self.removed_mass,
                "base": self.base.to_dict()}


def _pairs(zone: Zone | Gap | Sequence[Zone | Gap]) -> list[Gap]:
    if isinstance(zone, Zone):
        return [(float(zone.sigma_low), float(zone.sigma_high))]
    if len(zone) == 2 and all(np.isscalar(edge) for edge in zone):
        return [(float(zone[0]), float(zone[1]))]  # type: ignore[arg-type]
    return [pair for item in zone for pair in _pairs(item)]  # type: ignore[arg-type]


def _merged(gaps: list[Gap]) -> tuple[Gap, ...]:
    if not gaps:
        raise InputError("a gap sampler needs at least one gap")
    for low, high in gaps:
        if not (np.isfinite(low) and np.isfinite(high) and 0 < low < high):
            raise InputError(f"the gap {low:g}:{high:g} must satisfy 0 < low < high (sigma, in data units)")
    merged: list[Gap] = []
    for low, high in sorted(gaps):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)
