"""Noise-level samplers: the only places where a training noise level is chosen.

A sampler is a law on noise levels sigma (data units), given by its inverse CDF, so two samplers can be compared on
the same uniforms, and ``sample`` is nothing but the inverse CDF of stratified uniforms. Laws on DDPM timesteps are
discrete: their noise levels are the ``sigma_t`` of a schedule, ``log_prob`` is the log of a probability mass,
and the CDF jumps; for the lognormal ``log_prob`` is a log density in sigma.

Any law can be drawn on the levels of any schedule, which are finitely many: a noise level becomes the one in whose cell
it lies (see ``schedules`` and ``flow_schedule``), so the probability of a level is the law's mass in that cell, a
difference of two values of the CDF. A law on timesteps keeps its own probabilities, and a gap takes out the levels that
lie in it. Training scripts take a draw as timesteps, as sigmas or as places in the scheduler's table.

``GapSampler`` (Dodson et al. 2026, section 5) conditions any of them to lie outside the danger zone; the
confidence-interval law is Vu et al. 2026, Eq. 9-12 (arXiv 2602.17846 and 2601.21348).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import ndtr, ndtri

from geomem.devices import widest_float
from geomem.errors import InputError
from geomem.noise.flow_schedule import schedule_from_dict, schedule_of
from geomem.noise.gaps import Gap, Zone, merged_gaps, number
from geomem.noise.schedules import DDPMSchedule, NoiseSchedule

if TYPE_CHECKING:
    import torch

Generator: TypeAlias = "np.random.Generator | torch.Generator"
_TINY, _BELOW_ONE = np.finfo(float).tiny, 1 - 2.0**-53  # where an inverse CDF is finite
_ROUNDING = 1e-12  # of a CDF: far above its rounding error, far below any mass that matters


class NoiseLevelSampler(ABC):
    """A probability law on noise levels sigma > 0."""

    discrete = False
    """Whether the law lives on the timesteps of a schedule."""

    @abstractmethod
    def icdf(self, u: np.ndarray) -> np.ndarray:
        """Smallest sigma with CDF >= u; u in (0, 1), any shape, float64."""

    @abstractmethod
    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        """P(level <= sigma), or P(level < sigma) where not inclusive; sigma of any shape; 0 for sigma < 0."""

    @abstractmethod
    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        """Log density in sigma, or log probability mass where the law is discrete; -inf where it has none."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON description, enough to make the sampler again with ``from_dict``."""

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> NoiseLevelSampler:
        """The sampler that ``to_dict`` described. Raises InputError where the document describes none."""
        from geomem.noise.flow_samplers import FLOW_SAMPLERS

        known: dict[str, Callable[..., NoiseLevelSampler]] = {
            "lognormal": lambda mean, std: LogNormalSampler(mean, std), "uniform": UniformTimestepSampler,
            "ci": ConfidenceIntervalSampler, **FLOW_SAMPLERS}
        try:
            kind, options = document["kind"], {name: value for name, value in document.items() if name != "kind"}
            if kind == "gap":
                gaps = [(low, np.inf if high is None else high) for low, high in document["gaps"]]
                return GapSampler(NoiseLevelSampler.from_dict(document["base"]), gaps, keep=document["keep"])
            if "schedule" in options:
                options["schedule"] = schedule_from_dict(options["schedule"])
            if kind in known:
                return known[kind](**options)
            raise InputError(f"unknown noise-level sampler {kind!r}; known are gap, {', '.join(known)}")
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not the description of a noise-level sampler ({error!r})") from None

    def sample(self, n: int, generator: Generator) -> Any:
        """Noise levels (n,), float64, in random order: an array for a NumPy generator, a tensor for a torch one.

        Stratified: one uniform in each of n cells of equal mass. Every single draw has the exact law, and a batch
        covers the law more evenly than independent draws would.
        """
        return _drawn(n, generator, self.icdf)

    def timesteps(self, n: int, scheduler: Any, generator: Generator) -> Any:
        """n timesteps (n,) in the place of a training script's own draw, stratified like those of ``sample``.

        ``scheduler``: of diffusers, one like MONAI's RFlowScheduler, or a schedule; None is DDPM's linear schedule.
        DDPM: int64, 0 with the least noise; flow matching and EDM: float32, entries of the scheduler's ``timesteps``.
        Their probabilities are ``timestep_probabilities(scheduler)``. Raises InputError for other schedulers.
        """
        schedule = schedule_of(scheduler)
        return self._drawn_from(n, schedule, schedule.times, 1.0, generator)

    def sigmas(self, n: int, scheduler: Any, generator: Generator) -> Any:
        """The same draws as ``timesteps`` by what the scheduler calls sigma: the noise fraction s of flow matching, of
        others sigma itself.
        """
        schedule = schedule_of(scheduler)
        return self._drawn_from(n, schedule, schedule.fractions, float(schedule.timesteps), generator)

    def indices(self, n: int, scheduler: Any, generator: Generator) -> Any:
        """The same draws as places in ``scheduler.timesteps``, int64 (n,), in whichever direction that table runs.

        Raises InputError where the scheduler holds no table of all its training timesteps.
        """
        schedule, table = schedule_of(scheduler), getattr(scheduler, "timesteps", None)
        name, size = type(scheduler).__name__, schedule.timesteps
        if schedule.continuous or table is None or isinstance(table, int) or len(table) != size:
            raise InputError(f"indices are places in a table of all {size} training timesteps, which this {name} does "
                             "not hold; draw timesteps, or give the scheduler before set_timesteps")
        places = np.arange(size)
        return self._drawn_from(n, schedule, places if table[0] < table[-1] else places[::-1], 1.0, generator)

    def _drawn_from(self, n: int, schedule: NoiseSchedule, values: np.ndarray, unit: float,
                    generator: Generator) -> Any:
        """n of the ``values`` (T,) of the schedule's levels, with the probabilities of the levels; of a continuous
        schedule any of its times, in this ``unit``.
        """
        if schedule.continuous:
            return _drawn(n, generator, lambda u: (schedule.timestep(self.icdf(u)) / unit).astype(np.float32))
        cumulative = np.cumsum(np.maximum(self.timestep_probabilities(schedule), 0.0))
        cumulative /= cumulative[-1]
        return _drawn(n, generator, lambda u: values[np.searchsorted(cumulative, u, side="left")])

    def timestep_probabilities(self, schedule: Any = None) -> np.ndarray:
        """Exact probability of each level of a schedule, shape (T,), float64, from the least noise on: the law's mass
        in the level's cell.

        ``schedule``: as for ``timesteps``. The first and the last level own all smaller and all larger noise levels.
        """
        schedule = schedule_of(schedule)
        return np.diff(self.cdf(schedule.cell_edges, inclusive=schedule.closed_above))


def _drawn(n: int, generator: Generator, of: Callable[[np.ndarray], np.ndarray]) -> Any:
    """``of`` one uniform number in each of n cells of (0, 1), in random order: an array for a NumPy generator, a tensor
    on the generator's device for a torch one.
    """
    if not isinstance(n, int | np.integer) or n < 0:
        raise InputError(f"the number of noise levels to draw must be 0 or more, not {n}")
    if isinstance(generator, np.random.Generator):
        cells, inside = generator.permutation(n), generator.uniform(_TINY, 1.0, n)
        return of(np.clip((cells + inside) / max(n, 1), _TINY, _BELOW_ONE))
    import torch

    if not isinstance(generator, torch.Generator):
        raise InputError(f"draws need a generator, numpy.random.default_rng(0) or torch.Generator(), not a "
                         f"{type(generator).__name__}")
    on, precision = generator.device, widest_float(generator.device)
    where: Any = {"generator": generator, "device": on}
    cells = torch.randperm(n, **where).cpu().numpy()
    inside = torch.rand(n, dtype=precision, **where).cpu().numpy()
    drawn = torch.from_numpy(of(np.clip((cells + inside) / max(n, 1), _TINY, _BELOW_ONE)))
    return (drawn.to(precision) if drawn.dtype == torch.float64 else drawn).to(on)


class LogNormalSampler(NoiseLevelSampler):
    """``log sigma ~ N(mean, std^2)``: EDM's training law (Karras et al. 2022, Table 1: P_mean, P_std)."""

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        self.mean, self.std = number(mean, "the lognormal sampler"), number(std, "the lognormal sampler")
        if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise InputError(f"the lognormal sampler needs a finite mean and std > 0, not {mean} and {std}")

    @classmethod
    def for_data(cls, sigma_data: float) -> LogNormalSampler:
        """EDM's law moved with the scale of the data: P_mean = -1.2 belongs to its sigma_data of 0.5.

        Data and noise multiplied by one factor are the same problem, so the law of log sigma shifts with
        log sigma_data.
        """
        if not sigma_data > 0:
            raise InputError(f"the standard deviation of the data must be positive, not {sigma_data}")
        return cls(-1.2 + float(np.log(sigma_data / 0.5)))

    def _score(self, sigma: np.ndarray | float) -> np.ndarray:
        with np.errstate(divide="ignore"):  # log 0 = -inf is right
            return (np.log(np.maximum(sigma, 0.0)) - self.mean) / self.std

    def icdf(self, u: np.ndarray) -> np.ndarray:
        return np.exp(self.mean + self.std * ndtri(u))

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        return ndtr(self._score(sigma))

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        sigma = np.asarray(sigma, dtype=np.float64)
        positive = np.where(sigma > 0, sigma, 1.0)
        density = -0.5 * self._score(positive) ** 2 - np.log(positive * self.std * np.sqrt(2 * np.pi))
        return np.where(sigma <= 0, -np.inf, density)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "lognormal", "mean": self.mean, "std": self.std}


class TimestepSampler(NoiseLevelSampler):
    """A law on the timesteps 0..T-1 of a schedule, given by their probabilities, shape (T,)."""

    discrete = True

    def __init__(self, probabilities: np.ndarray, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self.probabilities = np.asarray(probabilities, dtype=np.float64)
        self._cumulative = np.concatenate([[0.0], np.cumsum(self.probabilities)])
        self._cumulative /= self._cumulative[-1]

    def icdf(self, u: np.ndarray) -> np.ndarray:
        timestep = np.searchsorted(self._cumulative, u, side="left") - 1
        return self.schedule.sigmas[np.clip(timestep, 0, self.schedule.timesteps - 1)]

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        levels = self.schedule.sigmas
        return self._cumulative[np.searchsorted(levels, np.asarray(sigma), side="right" if inclusive else "left")]

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        """Log mass; -inf where sigma is not the level of a timestep (relative tolerance 1e-9)."""
        sigma = np.asarray(sigma, dtype=np.float64)
        nearest = self.schedule.owner(sigma)
        on_level = np.isclose(self.schedule.sigmas[nearest], sigma, rtol=1e-9, atol=0)
        with np.errstate(divide="ignore"):
            return np.where(on_level, np.log(self.probabilities[nearest]), -np.inf)

    def _schedule_to_dict(self) -> dict[str, Any]:
        """Nothing for the linear schedule, which is understood."""
        return {} if self.schedule == DDPMSchedule() else {"schedule": self.schedule.to_dict()}


class UniformTimestepSampler(TimestepSampler):
    """Every timestep of a schedule equally likely (Ho et al. 2020), the law of diffusers' training scripts.

    ``schedule``: a schedule or a diffusers scheduler; None is DDPM's linear schedule.
    """

    def __init__(self, schedule: Any = None) -> None:
        schedule = schedule_of(schedule)
        super().__init__(np.full(schedule.timesteps, 1 / schedule.timesteps), schedule)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "uniform", **self._schedule_to_dict()}


class ConfidenceIntervalSampler(TimestepSampler):
    """Timesteps from a normal with central coverage ``coverage`` on [c_low, c_high]; Vu et al. 2026, Eq. 9-12.

    ``mean = (c_low + c_high) / 2``, ``std = (c_high - c_low) / (2 z)`` with z the normal quantile of the central
    coverage (0.67449 for one half). With lam the mass of the normal inside [0, T],
    ``p(t) = lam p_trunc(t) + (1 - lam) / T``: the mass in the tails is spread evenly over all timesteps.
    Timestep t = 0..T-1 owns [t, t+1] of continuous time, so the probabilities sum to one exactly.
    ``schedule``: a schedule or a diffusers scheduler; None is DDPM's linear schedule.
    """

    def __init__(self, c_low: float, c_high: float, coverage: float = 0.5, schedule: Any = None) -> None:
        schedule = schedule_of(schedule)
        total = schedule.timesteps
        c_low, c_high, coverage = (number(value, "the confidence interval") for value in (c_low, c_high, coverage))
        if not 0 <= c_low < c_high <= total:
            raise InputError(f"the confidence interval {c_low}:{c_high} must satisfy 0 <= low < high <= {total} "
                             "timesteps")
        if not 0 < coverage < 1:
            raise InputError(f"the central coverage of the confidence interval must lie in (0, 1), not {coverage}")
        self.c_low, self.c_high, self.coverage = c_low, c_high, coverage
        self.mean = (self.c_low + self.c_high) / 2
        self.std = (self.c_high - self.c_low) / (2 * ndtri((1 + self.coverage) / 2))
        score = self._scores(schedule)
        # lam p_trunc integrated over a cell is the plain normal mass of the cell: lam cancels.
        cells = np.diff(ndtr(score))
        self.inside_mass = float(ndtr(score[-1]) - ndtr(score[0]))
        super().__init__(cells + (1 - self.inside_mass) / total, schedule)

    @classmethod
    def above(cls, sigma: float, coverage: float = 0.9, schedule: Any = None) -> ConfidenceIntervalSampler:
        """The interval [c_low, T] of all timesteps noisier than ``sigma``, the upper end of a danger zone.

        Vu et al. (2026) find training on larger timesteps to memorize less. No timestep is left out, but at most
        ``(1 - coverage) (1/2 + c_low/T)`` of the draws are at or below sigma. At 0.9 that is less than the uniform
        law's c_low/T from c_low = 0.056 T on; Vu et al.'s coverage of 0.5 promises it only from T/2 on.
        Raises InputError where no timestep is noisier than sigma.
        """
        schedule = schedule_of(schedule)
        c_low = int(np.searchsorted(schedule.sigmas, sigma, side="right"))
        if not sigma >= 0 or c_low == schedule.timesteps:
            raise InputError(f"no timestep of the schedule has more noise than sigma {sigma:g}; choose the confidence "
                             "interval by hand")
        return cls(c_low, schedule.timesteps, coverage, schedule)

    def _scores(self, schedule: NoiseSchedule) -> np.ndarray:
        """Ends of the timesteps in standard deviations from the mean, shape (T+1,)."""
        return (np.arange(schedule.timesteps + 1) - self.mean) / self.std

    def probability_slope(self) -> np.ndarray:
        """Derivative of ``probabilities`` in ``mean`` at fixed ``std``, per timestep, shape (T,)."""
        density = np.exp(-0.5 * self._scores(self.schedule) ** 2) / (self.std * np.sqrt(2 * np.pi))
        cells = -np.diff(density)
        return cells - cells.sum() / len(cells)  # what leaves [0, T] is spread over all timesteps

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "ci", "c_low": self.c_low, "c_high": self.c_high, "coverage": self.coverage,
                **self._schedule_to_dict()}


class GapSampler(NoiseLevelSampler):
    """A base law thinned inside one or several closed ranges of noise levels, or without them; Dodson et al. 2026,
    section 5.

    Parameters
    ----------
    base : any noise-level sampler, another gap sampler included.
    zone : a danger zone, a pair ``(low, high)`` in sigma, or a sequence of either. Overlaps are merged.
    keep : share of the draws inside that stay, in [0, 1). 0 is the hard gap of Dodson et al. (2026); above 0 the
        density inside is scaled by ``keep`` and the whole law renormalised.

    ``gap_mass`` is the share of the base law's draws that lay inside, ``removed_mass = (1 - keep) gap_mass`` the
    share of its draws that is removed. Rejecting such draws and the inverse CDF used here give the same law. Raises
    InputError where low >= high, where a gap holds none of the base law (it would do nothing), where nothing of the
    law lies outside, or for a zone that is None or no range.
    """

    def __init__(self, base: NoiseLevelSampler, zone: Zone | Gap | Sequence[Zone | Gap], *, keep: float = 0.0) -> None:
        if not isinstance(base, NoiseLevelSampler):
            raise InputError(f"a gap needs the noise-level sampler that it is cut from, not a {type(base).__name__}")
        self.base, self.keep, self.discrete = base, number(keep, "the share that a gap keeps"), base.discrete
        if not 0 <= keep < 1:
            raise InputError(f"the share of the draws that a gap keeps must lie in [0, 1), not {keep}")
        self.gaps = merged_gaps(zone)
        starts = np.array([float(base.cdf(low, inclusive=False)) for low, _ in self.gaps])
        ends = np.array([float(base.cdf(high)) for _, high in self.gaps])
        for (low, high), mass in zip(self.gaps, ends - starts, strict=True):
            if mass < 1e-9:
                raise InputError(f"the gap {low:g}:{high:g} lies outside the noise levels that are trained; "
                                 "choose one inside the schedule")
        self.gap_mass = float((ends - starts).sum())
        if self.gap_mass > 1 - 1e-6:
            raise InputError("the gap leaves no noise level to train on; make it narrower")
        self.removed_mass = (1 - self.keep) * self.gap_mass
        self._inside = np.stack([starts, ends], axis=1)
        # Mass kept below a value of the base's CDF: a broken line of slope 1 outside the gaps and keep inside.
        self._knots = np.concatenate([[0.0], self._inside.ravel(), [1.0]])
        self._slopes = np.resize([1.0, self.keep], len(self._knots) - 1)
        self._kept = np.concatenate([[0.0], np.cumsum(self._slopes * np.diff(self._knots))])

    def icdf(self, u: np.ndarray) -> np.ndarray:
        kept = np.asarray(u, dtype=np.float64) * self._kept[-1]
        piece = np.clip(np.searchsorted(self._kept, kept, side="left"), 1, len(self._slopes)) - 1
        base_u = self._knots[piece] + (kept - self._kept[piece]) / np.maximum(self._slopes[piece], _TINY)
        base_u = np.minimum(base_u, self._knots[piece + 1])
        if self.keep == 0:
            # The gaps are closed, and rounding can leave u a hair inside one: step clear of it.
            for start, end in self._inside:
                inside = (base_u > start - _ROUNDING) & (base_u < end + _ROUNDING)
                to_start = inside & (base_u < (start + end) / 2) & (start > _ROUNDING)
                base_u = np.where(to_start, start - _ROUNDING, np.where(inside, end + _ROUNDING, base_u))
        return self.base.icdf(np.clip(base_u, _TINY, _BELOW_ONE))

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        return np.interp(self.base.cdf(sigma, inclusive=inclusive), self._knots, self._kept) / self._kept[-1]

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        sigma = np.asarray(sigma, dtype=np.float64)
        with np.errstate(divide="ignore"):  # a hard gap keeps nothing
            scale = np.log(self._share_kept(sigma))
        return self.base.log_prob(sigma) + scale - np.log1p(-self.removed_mass)

    def timestep_probabilities(self, schedule: Any = None) -> np.ndarray:
        """Those of the base, thinned at the levels that lie inside: a level that is drawn is never in a hard gap.

        Raises InputError where nothing is left.
        """
        schedule = schedule_of(schedule)
        kept = self.base.timestep_probabilities(schedule) * self._share_kept(schedule.sigmas)
        if not kept.sum() > 1e-6:
            raise InputError("the gap leaves no timestep of the schedule to train on; make it narrower")
        return kept / kept.sum()

    def _share_kept(self, sigma: np.ndarray) -> np.ndarray:
        inside = np.any([(sigma >= low) & (sigma <= high) for low, high in self.gaps], axis=0)
        return np.where(inside, self.keep, 1.0)

    def to_dict(self) -> dict[str, Any]:
        gaps = [[low, high if np.isfinite(high) else None] for low, high in self.gaps]  # JSON has no infinity
        return {"kind": "gap", "gaps": gaps, "keep": self.keep, "removed_mass": self.removed_mass,
                "base": self.base.to_dict()}
