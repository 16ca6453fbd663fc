"""A gap in the words of other trainers: what each can take, and how much of its draws that leaves inside.

    simpletuner     flow models: a list of flow times, one of which is drawn at random
    kohya           SD and SDXL: one range of timesteps, from MIN on and below MAX
    onetrainer      SD and SDXL: the same, as shares of the timesteps; flow models too, whose times are shifted after
                    the range was cut out
    diffusers-sdxl  train_text_to_image_sdxl.py: all timesteps, those of one range m > 0 times as often

Options and rules are those of SimpleTuner (``flow_custom_timesteps``), sd-scripts (``min_timestep``), OneTrainer
(``min_noising_strength``) and diffusers (``timestep_bias_strategy``) as of August 2026.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.noise.flow_samplers import LogitNormalSampler
from geomem.noise.flow_schedule import FlowSchedule, shifted
from geomem.noise.gaps import Gap, merged_gaps
from geomem.noise.samplers import GapSampler, NoiseLevelSampler, UniformTimestepSampler
from geomem.noise.schedules import DDPMSchedule, NoiseSchedule

STABLE_DIFFUSION = DDPMSchedule.from_alpha_bar(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
"""The schedule of Stable Diffusion 1, 2 and XL (diffusers: ``scaled_linear``)."""
LEVELS = 200  # in SimpleTuner's list
FAINT = 1e-6  # multiplier that stands for none, where a trainer takes no 0


@dataclass(frozen=True)
class TrainerLaw:
    """What a trainer is told, and what it then draws.

    trainer, options: its names and values. sigma, probability: (L,) the noise levels that it draws, and how often. gap:
    in sigma. mass_in_gap: share of its draws there. mass_untrained: share of the plain law outside the gap, on levels
    that are never drawn. notes: what it cannot express, a line each.
    """

    trainer: str
    options: dict[str, Any]
    sigma: np.ndarray
    probability: np.ndarray
    gap: Gap
    mass_in_gap: float
    mass_untrained: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object of format geomem.law/1, ready for JSON."""
        return {"format": "geomem.law/1", "trainer": self.trainer, "options": self.options,
                "gap": {"sigma_low": self.gap[0], "sigma_high": self.gap[1]}, "mass_in_gap": self.mass_in_gap,
                "mass_untrained": self.mass_untrained, "levels": int((self.probability > 0).sum()),
                "notes": list(self.notes)}

    def text(self) -> str:
        """The options in the trainer's own form: JSON for SimpleTuner and OneTrainer, TOML for sd-scripts
        (``--config_file``), arguments for diffusers.
        """
        if self.trainer in ("simpletuner", "onetrainer"):
            return json.dumps(self.options, indent=1) + "\n"
        if self.trainer == "kohya":
            return "".join(f"{name} = {value}\n" for name, value in self.options.items())
        return "".join(f"--{name}={value}\n" for name, value in self.options.items())


def law_for(trainer: str, zone: Any, *, keep: float = 0.0, shift: float | None = None, levels: int = LEVELS,
            side: str = "auto") -> TrainerLaw:
    """The options that keep a trainer out of a danger zone, as far as it can be kept out.

    zone : a danger zone or a pair (low, high) in sigma of the space that the trainer adds noise in (latents). keep :
    share of the draws inside that stay, which only ``simpletuner`` and ``diffusers-sdxl`` can take. shift : of flow
    times; ``simpletuner`` draws SD3's law with it (1 by default), ``onetrainer`` is told it. levels : length of
    SimpleTuner's list. side : of the gap on which a trainer of one range stays, ``above`` (more noise), ``below`` or
    ``auto``, where more of its draws are.
    Raises InputError for an unknown trainer, and for what a trainer cannot take at all.
    """
    if trainer not in TRAINERS:
        raise InputError(f"unknown trainer {trainer!r}; choose one of {', '.join(TRAINERS)}")
    if not 0 <= keep < 1:
        raise InputError(f"the share of the draws that a gap keeps must lie in [0, 1), not {keep}")
    if side not in ("auto", "above", "below"):
        raise InputError(f"a range lies above or below the gap, or auto, not {side!r}")
    gaps = merged_gaps(zone)
    if len(gaps) > 1:
        raise InputError("a trainer is told one gap; give one zone, or one LO:HI that holds them all")
    if shift is not None and trainer in ("kohya", "diffusers-sdxl"):
        raise InputError(f"{trainer} has no flow times to shift in this way; leave the shift out")
    if keep and trainer in ("kohya", "onetrainer"):
        raise InputError(f"{trainer} trains on one range of timesteps and cannot keep a share of a gap; leave it out")
    if levels != LEVELS and trainer != "simpletuner":
        raise InputError(f"{trainer} takes no list of flow times; leave its length out")
    if side != "auto" and trainer not in ("kohya", "onetrainer"):
        raise InputError(f"{trainer} trains on both sides of the gap; leave the side out")
    return TRAINERS[trainer](gaps[0], keep=keep, shift=shift, levels=levels, side=side)


def _simpletuner(gap: Gap, *, keep: float, shift: float | None, levels: int, **rest: Any) -> TrainerLaw:
    if not 2 <= levels <= 1000:
        raise InputError(f"a list of flow times has 2 to 1,000 of them, not {levels}")
    plain = LogitNormalSampler(shift=shift or 1.0)
    law = GapSampler(plain, gap, keep=keep)
    sigma = law.icdf((np.arange(levels) + 0.5) / levels)
    timesteps = np.round(1000 * sigma / (1 + sigma), 3)
    sigma = FlowSchedule().sigma_of(timesteps)
    notes = [f"{levels} flow times, equally likely, in the place of all: the middles of as many equal shares of SD3's "
             f"law (logit-normal, shift {plain.shift:g}){' without the gap' if not keep else ''}"]
    return _measured("simpletuner", {"--flow_custom_timesteps": ",".join(f"{t:g}" for t in timesteps),
                                     "--flow_timesteps_mode": "fixed-list"}, sigma, np.full(levels, 1 / levels), gap,
                     notes, 0.0)


def _kohya(gap: Gap, *, side: str, **rest: Any) -> TrainerLaw:
    first, last = _one_side(STABLE_DIFFUSION, gap, side)
    probability = np.zeros(1000)
    probability[first:last + 1] = 1 / (last + 1 - first)
    return _of_range("kohya", {"min_timestep": first, "max_timestep": last + 1}, STABLE_DIFFUSION, probability, gap)


def _onetrainer(gap: Gap, *, shift: float | None, side: str, **rest: Any) -> TrainerLaw:
    schedule = STABLE_DIFFUSION if shift is None else FlowSchedule()
    first, last = _one_side(schedule, gap, side)
    low, high = first / 1000, (last + 1) / 1000
    if shift is not None:  # the range is cut out of the times before the shift
        low, high = (float(shifted(end, 1 / shift)) for end in (low, high))
        low, high = np.ceil(1000 * low) / 1000, np.floor(1000 * high) / 1000
        if low >= high:
            raise InputError("no thousandth of the unshifted times lies on that side of the gap; choose the other side")
    # OneTrainer: u uniform on [int(T low), int(T high)), shifted, its whole part the index of a level.
    start, end = round(1000 * low), round(1000 * high)
    edges = np.clip(1000 * shifted(np.arange(1001) / 1000, 1 / (shift or 1.0)), start, end)
    options = {"timestep_distribution": "UNIFORM", "min_noising_strength": start / 1000,
               "max_noising_strength": end / 1000, "noising_weight": 0.0, "noising_bias": 0.0,
               "timestep_shift": shift or 1.0, "dynamic_timestep_shifting": False}
    return _of_range("onetrainer", options, schedule, np.diff(edges) / (end - start), gap)


def _diffusers_sdxl(gap: Gap, *, keep: float, **rest: Any) -> TrainerLaw:
    inside = STABLE_DIFFUSION.timesteps_within(*gap)
    if inside is None:
        raise InputError(f"no timestep of Stable Diffusion lies in sigma {gap[0]:g} to {gap[1]:g}; there is nothing "
                         "to leave out")
    probability = np.ones(1000)
    probability[inside[0]:inside[1] + 1] *= keep or FAINT
    notes = [] if keep else [f"the multiplier must be above 0: {FAINT:g} stands for it"]
    return _measured("diffusers-sdxl", {
        "timestep_bias_strategy": "range", "timestep_bias_multiplier": keep or FAINT, "timestep_bias_begin": inside[0],
        "timestep_bias_end": inside[1] + 1}, STABLE_DIFFUSION.sigmas, probability / probability.sum(), gap, notes, 0.0)


TRAINERS: dict[str, Callable[..., TrainerLaw]] = {
    "simpletuner": _simpletuner, "kohya": _kohya, "onetrainer": _onetrainer, "diffusers-sdxl": _diffusers_sdxl}


def _one_side(schedule: NoiseSchedule, gap: Gap, side: str) -> tuple[int, int]:
    """First and last level on one side of a gap."""
    below = int(np.searchsorted(schedule.sigmas, gap[0], side="left"))
    above = int(np.searchsorted(schedule.sigmas, gap[1], side="right"))
    total = schedule.timesteps
    if side == "auto":
        side = "above" if total - above >= below else "below"
    if (total - above if side == "above" else below) < 1:
        raise InputError(f"no timestep lies {side} sigma {gap[0]:g} to {gap[1]:g}; choose the other side of the gap")
    return (above, total - 1) if side == "above" else (0, below - 1)


def _of_range(trainer: str, options: dict[str, Any], schedule: NoiseSchedule, probability: np.ndarray,
              gap: Gap) -> TrainerLaw:
    plain: NoiseLevelSampler = UniformTimestepSampler(schedule)
    outside = (schedule.sigmas < gap[0]) | (schedule.sigmas > gap[1])
    lost = float(plain.timestep_probabilities(schedule)[outside & (probability == 0)].sum())
    drawn = schedule.sigmas[probability > 0]
    notes = [f"one range only: sigma {drawn[0]:.3g} to {drawn[-1]:.3g} is trained, what lies beyond the gap is not"]
    return _measured(trainer, options, schedule.sigmas, probability, gap, notes, lost)


def _measured(trainer: str, options: dict[str, Any], sigma: np.ndarray, probability: np.ndarray, gap: Gap,
              notes: list[str], lost: float) -> TrainerLaw:
    inside = (sigma >= gap[0]) & (sigma <= gap[1])
    return TrainerLaw(trainer, options, sigma, probability, gap, float(probability[inside].sum()), lost, tuple(notes))
