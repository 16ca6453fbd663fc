"""Noise schedules and the conversions between them. A schedule has a time of its own and T levels, from the least noise
on, and maps both to sigma and back.

sigma     standard deviation of the noise in data units; ``x_sigma = x + sigma Z`` (variance exploding, VE).
timestep  DDPM integer t in 0..T-1, as in diffusers; ``x_VP = sqrt(abar_t) x + sqrt(1 - abar_t) Z``, so that
          ``sigma_t = sqrt((1 - abar_t) / abar_t)`` and ``x_VE = x_VP / sqrt(abar_t)``; the signal to noise ratio
          is ``SNR_t = abar_t / (1 - abar_t) = 1 / sigma_t^2``. EDM's is ``log(sigma) / 4``; for flow matching see
          ``flow_schedule``.
cell      the noise levels that belong to a timestep: those between the geometric midpoints with its neighbours,
          ``sqrt(sigma_(t-1) sigma_t) < sigma <= sqrt(sigma_t sigma_(t+1))``; the first cell begins at 0, the last
          one has no end. Every sigma > 0 belongs to exactly one timestep, and sigma_t to t.
flow time t in (0, 1]; ``x_t = t x + (1 - t) Z``, so that ``sigma = (1 - t) / t`` and ``x_VE = x_t / t``: the time of
          Dodson et al. 2026, which grows towards the data. That of diffusers' schedulers is s = 1 - t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from geomem.errors import InputError

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""Ends of the EDM schedule (Karras et al. 2022, Table 1), in data units scaled to [-1, 1]."""


def edm_steps(n: int = 18, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = 7.0) -> np.ndarray:
    """Decreasing noise levels of the EDM sampler, without the final 0; shape (n,).

    Karras et al. 2022, Eq. 5: ``s_i = (smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho``.
    Raises InputError for fewer than 2.
    """
    if n < 2:
        raise InputError(f"the sampler needs at least 2 steps, not {n}")
    ramp = np.arange(n) / (n - 1)
    steps = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    steps[0], steps[-1] = sigma_max, sigma_min  # the powers round
    return steps


def flow_time_to_sigma(t: np.ndarray | float) -> np.ndarray:
    """sigma of flow-matching time t in (0, 1]: ``(1 - t) / t``."""
    t = np.asarray(t, dtype=np.float64)
    return (1 - t) / t


def sigma_to_flow_time(sigma: np.ndarray | float) -> np.ndarray:
    """Flow-matching time of sigma >= 0: ``1 / (1 + sigma)``."""
    return 1 / (1 + np.asarray(sigma, dtype=np.float64))


class NoiseSchedule(ABC):
    """T noise levels, numbered from 0, the least noise, and the time of the networks that know them."""

    timesteps: int
    continuous = False
    """Whether training draws any time, not one of the levels."""
    closed_above = True
    """Whether a cell holds its upper edge, else its lower one."""

    @property
    @abstractmethod
    def sigmas(self) -> np.ndarray:
        """VE noise level of each level, shape (T,), increasing, positive and finite."""

    @abstractmethod
    def timestep(self, sigma: np.ndarray | float) -> np.ndarray:
        """Real-valued time of sigma > 0."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON description, enough to make the schedule again (``flow_schedule.schedule_from_dict``)."""

    @abstractmethod
    def sigma_of(self, timestep: np.ndarray | float) -> np.ndarray:
        """Inverse of ``timestep``."""

    @property
    @abstractmethod
    def times(self) -> np.ndarray:
        """What a training script calls the timestep of each level, shape (T,)."""

    @property
    def fractions(self) -> np.ndarray:
        """What a training script calls the sigma of each level, shape (T,), float32."""
        return self.sigmas.astype(np.float32)

    @cached_property
    def snr(self) -> np.ndarray:
        """Signal to noise ratio of each level, ``1 / sigma^2``, shape (T,)."""
        return self.sigmas**-2.0

    @cached_property
    def cell_edges(self) -> np.ndarray:
        """Ends of the levels' cells, shape (T+1,), from 0 to infinity."""
        return np.concatenate([[0.0], np.sqrt(self.sigmas[:-1] * self.sigmas[1:]), [np.inf]])

    def owner(self, sigma: np.ndarray | float) -> np.ndarray:
        """The level, an integer, in whose cell sigma > 0 lies."""
        return np.searchsorted(self.cell_edges[1:-1], sigma, side="left" if self.closed_above else "right")

    def timesteps_within(self, low: float, high: float) -> tuple[int, int] | None:
        """First and last timestep with ``low <= sigma_t <= high``, or None where there is none."""
        inside = np.flatnonzero((self.sigmas >= low) & (self.sigmas <= high))
        return (int(inside[0]), int(inside[-1])) if inside.size else None

    def sigma_range(self, first: int, last: int) -> tuple[float, float]:
        """All noise levels that belong to the timesteps first..last, from 0 if first is 0, to infinity if last is T-1.

        Left out as a gap, they take exactly these timesteps out of every law. Raises InputError unless
        0 <= first <= last < T.
        """
        if not 0 <= first <= last < self.timesteps:
            raise InputError(f"the timesteps {first} to {last} must satisfy 0 <= first <= last <= {self.timesteps - 1}")
        return float(self.cell_edges[first]), float(self.cell_edges[last + 1])


@dataclass(frozen=True)
class DDPMSchedule(NoiseSchedule):
    """DDPM noise schedule: beta linear from ``beta_start`` to ``beta_end`` (Ho et al. 2020), or any other by its
    abar_t, one per timestep, in ``given`` (see ``of``).
    """

    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    given: tuple[float, ...] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, schedule: Any = None) -> DDPMSchedule:
        """The schedule of a diffusers scheduler, read from its ``alphas_cumprod``; None is the linear schedule.

        A last abar of exactly 0 (zero terminal SNR) counts as 2^-24, as in diffusers' Euler scheduler, or as half the
        one before where that is lower. Raises InputError where there is no ``alphas_cumprod`` or it does not decrease
        inside (0, 1).
        """
        if schedule is None:
            return cls()
        if isinstance(schedule, DDPMSchedule):
            return schedule
        alpha_bar = getattr(schedule, "alphas_cumprod", None)
        if alpha_bar is None:
            raise InputError(f"a schedule of timesteps has alphas_cumprod, which {type(schedule).__name__} lacks; give "
                             "a diffusers scheduler such as DDPMScheduler, or a DDPMSchedule")
        return cls.from_alpha_bar(alpha_bar.tolist() if hasattr(alpha_bar, "tolist") else alpha_bar)

    @classmethod
    def from_dict(cls, document: dict[str, Any] | None) -> DDPMSchedule:
        """Inverse of ``to_dict``; None is the linear schedule. Raises InputError where it is no schedule."""
        if document is None:
            return cls()
        try:
            if "alphas_cumprod" in document:
                return cls.from_alpha_bar(document["alphas_cumprod"])
            return cls(**document)
        except TypeError as error:
            raise InputError(f"not a schedule of timesteps ({error})") from None

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Any) -> DDPMSchedule:
        """Any schedule by its signal fractions (T,). Raises InputError unless they decrease inside (0, 1)."""
        values = np.asarray(alpha_bar).astype(np.float64)
        if values.ndim == 1 and values.size > 1 and values[-1] == 0:
            values[-1] = min(2.0**-24, values[-2] / 2)
        ordered = values.ndim == 1 and values.size > 1 and np.all(np.diff(values) < 0)
        if not (ordered and values[-1] > 0 and values[0] < 1):
            raise InputError("alphas_cumprod must be a list of numbers that decrease inside (0, 1)")
        return cls(len(values), given=tuple(values.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """JSON description, enough to make the schedule again."""
        if self.given is not None:
            return {"alphas_cumprod": list(self.given)}
        return {"timesteps": self.timesteps, "beta_start": self.beta_start, "beta_end": self.beta_end}

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """Cumulative signal fraction abar_t, shape (T,), decreasing."""
        if self.given is not None:
            return np.array(self.given)
        return np.cumprod(1 - np.linspace(self.beta_start, self.beta_end, self.timesteps))

    @cached_property
    def sigmas(self) -> np.ndarray:
        """VE noise level of each timestep, shape (T,), increasing."""
        return np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    def timestep(self, sigma: np.ndarray | float) -> np.ndarray:
        """Real-valued timestep of sigma > 0, linear in log sigma between timesteps, clipped to [0, T-1]."""
        return np.interp(np.log(sigma), np.log(self.sigmas), np.arange(self.timesteps))

    def sigma_of(self, timestep: np.ndarray | float) -> np.ndarray:
        """Inverse of ``timestep``."""
        return np.exp(np.interp(timestep, np.arange(self.timesteps), np.log(self.sigmas)))

    @property
    def times(self) -> np.ndarray:
        return np.arange(self.timesteps)


@dataclass(frozen=True)
class EDMSchedule(NoiseSchedule):
    """The levels of EDM's samplers (Karras et al. 2022), or of a diffusers scheduler for EDM; increasing ``levels``.

    Its time is what EDM's networks are given, ``log(sigma) / 4``, or by the rounding of a scheduler ``given``.
    """

    levels: tuple[float, ...] = tuple(edm_steps()[::-1].tolist())
    given: tuple[float, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        levels = np.asarray(self.levels, dtype=np.float64)
        if levels.size < 2 or not (levels[0] > 0 and np.all(np.diff(levels) > 0) and np.isfinite(levels[-1])):
            raise InputError("the sigmas of EDM's schedule must be distinct positive numbers, 2 or more")

    @classmethod
    def of(cls, scheduler: Any) -> EDMSchedule:
        """That of diffusers' EDMEulerScheduler, of its ``sigmas``. Raises InputError unless they are positive and in
        order.
        """
        times = np.sort(np.asarray(scheduler.timesteps, dtype=np.float64))
        levels = np.sort(np.asarray(scheduler.sigmas, dtype=np.float64)[:len(times)])
        return cls(tuple(levels.tolist()), tuple(times.tolist()))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "edm", "levels": list(self.levels)}

    @property
    def timesteps(self) -> int:  # type: ignore[override]
        return len(self.levels)

    @cached_property
    def sigmas(self) -> np.ndarray:
        return np.array(self.levels)

    def timestep(self, sigma: np.ndarray | float) -> np.ndarray:
        return np.log(sigma) / 4

    def sigma_of(self, timestep: np.ndarray | float) -> np.ndarray:
        return np.exp(4 * np.asarray(timestep, dtype=np.float64))

    @property
    def times(self) -> np.ndarray:
        return (self.timestep(self.sigmas) if self.given is None else np.array(self.given)).astype(np.float32)
