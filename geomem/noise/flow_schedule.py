"""The schedule of flow matching, and schedulers of any kind as schedules.

With the flow time s, the noise fraction, ``x_s = (1 - s) x + s Z`` and

    sigma = s / (1 - s),     s = sigma / (1 + sigma),     x_VE = x_s / (1 - s).

diffusers calls s sigma, and T s the timestep. A shift a takes s to ``a s / (1 + (a - 1) s)`` (Esser et al. 2024, Eq.
23), and so sigma to ``a sigma``. The T levels are the shifted s of ``k/T``; which of them an s between two belongs to
is the ``rounding``: diffusers' scripts draw u in [0, 1) and take entry ``floor(u T)`` of a table that falls from s = 1
to 1/T, so they round 1 - u **up** to the next k/T; MONAI's RFlowScheduler rounds **down**, or not at all.

A level of s = 1, pure noise, has no sigma: 1 - s counts as 2^-24 there, or as half the one before where that is lower;
and a level of s = 0 counts as half the next one.

Esser et al. 2024 is arXiv 2403.03206.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.noise.schedules import DDPMSchedule, EDMSchedule, NoiseSchedule

ROUNDINGS = ("up", "down", "none")


def shifted(s: np.ndarray | float, shift: float) -> np.ndarray:
    """Flow times after a shift (Esser et al. 2024, Eq. 23), float64."""
    s = np.asarray(s, dtype=np.float64)
    return shift * s / (1 + (shift - 1) * s)


@dataclass(frozen=True)
class FlowSchedule(NoiseSchedule):
    """Flow times ``k/T``, shifted, or any others by a table, ``given`` (see ``of``); the module docstring has the rest.

    rounding: ``up``, ``down`` or ``none``.
    """

    timesteps: int = 1000
    shift: float = 1.0
    rounding: str = "up"
    given: tuple[float, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if type(self.timesteps) is not int or not 2 <= self.timesteps <= 10**5:
            raise InputError(f"a flow schedule has 2 to 100,000 timesteps, not {str(self.timesteps)[:60]}")
        if not (isinstance(self.shift, int | float) and 0 < self.shift < 1e6):
            raise InputError(f"the shift of flow times must be a positive number, not {str(self.shift)[:60]}")
        if self.rounding not in ROUNDINGS:
            raise InputError(f"flow times are rounded {', '.join(ROUNDINGS)}, not {str(self.rounding)[:60]!r}")
        given = None if self.given is None else np.asarray(self.given, dtype=np.float64)
        if given is not None and not (given.shape == (self.timesteps,) and given[0] >= 0 and given[-1] <= 1
                                      and np.all(np.diff(given) > 0)):
            raise InputError(f"a table of flow times holds {self.timesteps} numbers that increase inside [0, 1]")

    @classmethod
    def of(cls, scheduler: Any = None, *, mu: float | None = None,
           size: Sequence[int] | None = None) -> FlowSchedule:
        """The schedule of diffusers' FlowMatchEulerDiscreteScheduler, read from its table, or of an object like MONAI's
        RFlowScheduler; None is that of 1,000 timesteps without a shift.

        ``mu``: of a scheduler with ``use_dynamic_shifting`` whose table is not shifted yet; without it the table is
        taken as it is, which is what diffusers' scripts for FLUX train on. ``size``: of an image, (height, width) or
        (height, width, depth), for an RFlowScheduler with ``use_timestep_transform``.
        Raises InputError for other schedulers, and where the table is not that of the training.
        """
        if scheduler is None or isinstance(scheduler, FlowSchedule):
            return scheduler or cls()
        if callable(getattr(scheduler, "sample_timesteps", None)) and hasattr(scheduler, "num_train_timesteps"):
            return cls._of_rflow(scheduler, size)
        name = type(scheduler).__name__
        config: Any = getattr(scheduler, "config", None)
        if hasattr(scheduler, "alphas_cumprod") or not hasattr(config, "shift") or not hasattr(scheduler, "sigmas"):
            raise InputError(f"{name} has no known flow times; give a FlowMatchEulerDiscreteScheduler, an "
                             "RFlowScheduler or a FlowSchedule")
        if getattr(config, "invert_sigmas", False):
            raise InputError(f"{name} with invert_sigmas counts flow times from the data; load it with "
                             "invert_sigmas=False")
        total, times = config.num_train_timesteps, np.asarray(scheduler.timesteps)
        table = np.asarray(scheduler.sigmas, dtype=np.float64)[:len(times)][::-1]
        if len(table) != total or not (table[0] > 0 and table[-1] <= 1 and np.all(np.diff(table) > 0)):
            raise InputError(f"{name} holds {len(table)} flow times that are not its {total} of training; give it as "
                             "it was loaded, before set_timesteps")
        shift = float(getattr(scheduler, "shift", config.shift))
        if getattr(config, "use_dynamic_shifting", False):
            shift = 1.0
            if mu is not None:
                shift = float(mu if config.time_shift_type == "linear" else np.exp(mu))
                table = shifted(table, shift)
        elif mu is not None:
            raise InputError(f"mu belongs to schedulers with use_dynamic_shifting, which this {name} has not; leave it "
                             "out")
        return cls(total, shift, given=tuple(table.astype(np.float32).tolist()))

    @classmethod
    def _of_rflow(cls, scheduler: Any, size: Sequence[int] | None) -> FlowSchedule:
        shift = 1.0
        if getattr(scheduler, "use_timestep_transform", False):
            if size is None:
                raise InputError("an RFlowScheduler with use_timestep_transform shifts by the size of the image; give "
                                 "FlowSchedule.of(scheduler, size=(height, width, depth))")
            shift = float((math.prod(size) / scheduler.base_img_size_numel) ** (1 / len(size)))
        rounding = "down" if getattr(scheduler, "use_discrete_timesteps", False) else "none"
        return cls(int(scheduler.num_train_timesteps), shift, rounding)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> FlowSchedule:
        """Inverse of ``to_dict``. Raises InputError where it is no flow schedule."""
        try:
            options = {**document, "given": document.get("given") and tuple(map(float, document["given"]))}
            return cls(**{name: value for name, value in options.items() if name != "kind"})
        except (TypeError, ValueError) as error:
            raise InputError(f"not a schedule of flow times ({error})") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON description, enough to make the schedule again."""
        given = {} if self.given is None else {"given": list(self.given)}
        return {"kind": "flow", "timesteps": self.timesteps, "shift": self.shift, "rounding": self.rounding, **given}

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        return self.rounding == "none"

    @property
    def closed_above(self) -> bool:  # type: ignore[override]
        return self.rounding != "down"

    @cached_property
    def flow_times(self) -> np.ndarray:
        """s of each level, shape (T,), increasing."""
        if self.given is not None:
            return np.array(self.given)
        return shifted((np.arange(self.timesteps) + self.closed_above) / self.timesteps, self.shift)

    @cached_property
    def sigmas(self) -> np.ndarray:
        s = self.flow_times.copy()
        if s[-1] == 1:
            s[-1] = 1 - min(2.0**-24, (1 - s[-2]) / 2)
        if s[0] == 0:
            s[0] = s[1] / 2
        return s / (1 - s)

    @cached_property
    def cell_edges(self) -> np.ndarray:
        s = self.flow_times
        inner = s[:-1] if self.closed_above else s[1:]
        return np.concatenate([[0.0], inner / (1 - inner), [np.inf]])

    def sigma_range(self, first: int, last: int) -> tuple[float, float]:
        """As for every schedule; the edge that a neighbour's level lies on is left to the neighbour."""
        low, high = super().sigma_range(first, last)
        if self.closed_above:
            return (float(np.nextafter(low, np.inf)) if first else low), high
        return low, float(np.nextafter(high, 0.0)) if last < self.timesteps - 1 else high

    def timestep(self, sigma: np.ndarray | float) -> np.ndarray:
        sigma = np.asarray(sigma, dtype=np.float64)
        return self.timesteps * sigma / (1 + sigma)

    def sigma_of(self, timestep: np.ndarray | float) -> np.ndarray:
        s = np.asarray(timestep, dtype=np.float64) / self.timesteps
        return s / (1 - s)

    @property
    def times(self) -> np.ndarray:
        if self.rounding == "down" and self.shift == 1:
            return np.arange(self.timesteps)
        return self.fractions * np.float32(self.timesteps)

    @property
    def fractions(self) -> np.ndarray:
        return self.flow_times.astype(np.float32)

    def steps(self, n: int) -> np.ndarray:
        """Decreasing sigmas of n sampling steps, without the final 0; shape (n,): flow times evenly spaced from 1 to
        the least of the levels, then shifted, as diffusers' ``set_timesteps(n)`` has them.
        """
        s = shifted(np.linspace(1, self.flow_times[0] or 1 / self.timesteps, n), self.shift)
        return np.divide(s, 1 - s, out=np.full(n, 2.0**24), where=s < 1)


def schedule_of(scheduler: Any = None) -> NoiseSchedule:
    """The schedule of a scheduler of diffusers, or of one like MONAI's RFlowScheduler; None is DDPM's linear schedule.

    Raises InputError for a scheduler without a known schedule.
    """
    if isinstance(scheduler, NoiseSchedule):
        return scheduler
    config, name = getattr(scheduler, "config", None), type(scheduler).__name__
    if getattr(config, "use_flow_sigmas", False):
        raise InputError(f"the training table of a {name} with use_flow_sigmas is not that of its flow times; give a "
                         "FlowMatchEulerDiscreteScheduler")
    if scheduler is None or hasattr(scheduler, "alphas_cumprod"):
        return DDPMSchedule.of(scheduler)
    if hasattr(config, "sigma_data") and hasattr(scheduler, "sigmas"):
        return EDMSchedule.of(scheduler)
    if hasattr(scheduler, "sample_timesteps") or hasattr(config, "shift"):
        return FlowSchedule.of(scheduler)
    raise InputError(f"a schedule has alphas_cumprod, sigmas or flow times, which {name} lacks; give a diffusers "
                     "scheduler such as DDPMScheduler or FlowMatchEulerDiscreteScheduler, or a schedule of geomem")


def schedule_from_dict(document: dict[str, Any] | None) -> NoiseSchedule:
    """The schedule that ``to_dict`` described; None is DDPM's linear one."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind == "flow":
        return FlowSchedule.from_dict(document or {})
    if kind == "edm":
        return EDMSchedule(tuple(map(float, (document or {})["levels"])))
    return DDPMSchedule.from_dict(document)
