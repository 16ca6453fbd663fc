"""How many steps until samples lean on the training points, or copy them: from trainings on parts of the points.

The step tau(N) at which a training on N points begins to memorize grows with N, in theory in proportion (Bonnaire,
Urfin, Biroli, Mezard 2025, arXiv 2505.17638). So trainings on parts of n = N/8, N/4 ... random points, no two of which
share a point, tell it at a fraction of the price: a straight line through log tau against log n, continued to N
(``statistics.power_law``).

**Onset.** Leaning has set in where a look at the training (``memorization.watch``) has at least ``LEANS`` of its
samples nearer to training than to as many held-out points, and the 95% interval of that share lies above 1/2; copies
where the ratio rule fires for ``COPIES`` of the samples and more often than chance explains. The step is interpolated
between that look and the one before.

**The clock.** The rate rises from 0 during the warm-up, so a step there counts by its rate: the line is one in steps at
the full rate.

**Cannot tell**: a part had not begun to memorize when its steps were used up, or had at its first look; the points lie
on no line with a slope near that of theory (``SLOPES``, and what chance explains); or the interval spans more than a
factor of ``WIDEST``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.files import read_json
from geomem.memorization.watch import COPIES, SAMPLES, STEPS, TRAINING_EVALUATIONS
from geomem.statistics import Z_95, PowerLaw, power_law
from geomem.training.trainer import TrainingSettings

FORMAT, FILE = "geomem.forecast/1", "forecast.json"
LEANS = 0.7
SLOPES = 0.5, 1.5
WIDEST = 5.0
SPREAD = 0.15  # of the log of the steps of a part, from one choice of its points to another
EVENTS = "leaning", "copies"
COMPARED = ("network", "objective", "data.sha256", "settings.batch", "settings.learning_rate", "sampler")


@dataclass(frozen=True)
class Part:
    """A training on n of the points: its steps, and the step at which leaning and copies set in, None where they did
    not, or before the first look. early_stop: step with the smallest held-out loss; falling: it was the last one, so
    that loss may have fallen on. path: of its run, below the forecast's directory.
    """

    n: int
    path: str
    steps: int
    leaning: float | None
    copies: float | None
    early_stop: int | None
    falling: bool


@dataclass(frozen=True)
class Onset:
    """The step at which something sets in on all points, with its 95% interval; all are None where ``reason`` says why
    it cannot be told. law: the line behind it, in steps at the full rate, where there is one.
    """

    step: float | None
    low: float | None
    high: float | None
    reason: str | None
    law: PowerLaw | None


@dataclass(frozen=True)
class Forecast:
    """What trainings on ``parts`` say of one on n points; steps are those of a training with the options of ``config``.

    until: the event that ended each part. best_from: the held-out loss is smallest at this step or later, as far as the
    parts tell; None without held-out points. price: of the parts, in steps of a training on all points. share: the same
    over the steps until ``until``, None where these cannot be told.
    """

    n: int
    until: str
    leaning: Onset
    copies: Onset
    best_from: int | None
    parts: tuple[Part, ...]
    price: float
    share: float | None
    config: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"format": FORMAT, **asdict(self)}


def has_set_in(line: Mapping[str, Any], event: str) -> bool:
    """Whether a look, a line of watch.jsonl, shows leaning or copies."""
    share, low = _above(line, event)
    return share >= 0 and low > 0


def onset_in(lines: Sequence[Mapping[str, Any]], event: str) -> float | None:
    """The step at which an event of ``EVENTS`` set in, in the lines of a watch.jsonl; None if it did not, or before the
    first look, where it cannot be told when.
    """
    for before, line in pairwise(lines):
        if has_set_in(line, event):
            if has_set_in(before, event):
                return None
            way = max(0.0 if a >= 0 else -a / (b - a) for a, b in zip(_above(before, event), _above(line, event),
                                                                      strict=True))
            return before["step"] + way * (line["step"] - before["step"])
    return None


def _above(line: Mapping[str, Any], event: str) -> tuple[float, float]:
    """The share in a look and the lower end of its interval, both less what they have to reach."""
    if event == "copies":
        return line["rate"] - COPIES, line["low"] - line["floor_high"]
    leaning = line["leaning"] or {"share": -math.inf, "low": -math.inf}  # too few points are known
    return leaning["share"] - LEANS, leaning["low"] - 0.5


def at_full_rate(step: float, settings: TrainingSettings) -> float:
    """So many steps, those of the warm-up counted by their rates."""
    w = settings.warmup
    return step**2 / (2 * w) if step < w else step - w / 2


def in_steps(time: float, settings: TrainingSettings) -> float:
    """Inverse of ``at_full_rate``."""
    w = settings.warmup
    return math.sqrt(2 * w * time) if time < w / 2 else time + w / 2


def onset_at(n: int, parts: Sequence[Part], event: str, settings: TrainingSettings) -> Onset:
    """What the parts say of an event in a training on n points."""
    def unknown(reason: str, law: PowerLaw | None = None) -> Onset:
        return Onset(None, None, None, reason, law)

    found = {part: getattr(part, event) for part in parts}
    for part, step in found.items():
        if step is None:
            return unknown(f"{event} did not set in between the first look and the last step, {part.steps:,}, of a "
                           f"part of {part.n:,} points")
    sizes, times = [part.n for part in parts], [at_full_rate(step, settings) for step in found.values()]
    law, slope = power_law(sizes, times, n, spread=SPREAD), float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    doubt = Z_95 * SPREAD / (len(sizes)**0.5 * float(np.std(np.log(sizes))))
    if not SLOPES[0] - doubt <= slope <= SLOPES[1] + doubt:
        return unknown(f"the steps until {event} grow with the points by the power {slope:.2g}, theory has 1", law)
    if law.high > WIDEST * law.low:
        return unknown(f"the interval spans a factor of {law.high / law.low:.2g}; more parts (--parts) narrow it", law)
    step, low, high = (in_steps(time, settings) for time in (law.value, law.low, law.high))
    return Onset(step, low, high, None, law)


def price_of(steps: int, looks: int, losses: int, batch: int) -> float:
    """Steps of a training that cost as much as these, with their looks and their evaluated held-out ``losses``."""
    return steps + (looks * SAMPLES * (2 * STEPS - 1) + losses) / (TRAINING_EVALUATIONS * batch)


def read_forecast(path: str | os.PathLike[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """A forecast.json, or that in a directory, for a training with the options of ``config``.

    Raises InputError for another file, and for a forecast of a training with other options.
    """
    path = os.path.join(path, FILE) if os.path.isdir(path) else os.fspath(path)
    advice = "give the forecast.json of geomem forecast"
    document = read_json(path, advice)
    if document.get("format") != FORMAT:
        raise InputError(f"{path} is not a {FORMAT} file; {advice}")
    try:
        for event in EVENTS:
            ends = [document[event][name] for name in ("low", "step", "high")]
            if ends != [None] * 3 and not 0 < ends[0] <= ends[1] <= ends[2] < math.inf:
                raise ValueError(f"{event} at {ends}")
        for name in COMPARED:
            theirs, ours = document["config"], config
            for key in name.split("."):
                theirs, ours = theirs[key], ours[key]
            if theirs != ours:
                raise InputError(f"--forecast {path} is for another training: its {name} is {theirs}, here {ours}; "
                                 "make one with the options of this training, or leave it out")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}); {advice}") from None
    return document


def place_in_forecast(document: Mapping[str, Any], step: int, before: int, iterations: int) -> list[str]:
    """Where step ``step`` of a training lies in its forecast: a line for each onset of which it passes an end of the
    interval, or the onset itself, after the step ``before``; at the beginning, 0 after -1, one for each that is told.
    """
    lines = []
    for event in EVENTS:
        onset = document[event]
        passed = onset["step"] is not None and any(before < onset[name] <= step for name in ("low", "step", "high"))
        if onset["step"] is not None and (passed or before < 0):
            lines.append(f"step {step:,} of {iterations:,}: the forecast has {event} set in at {words(onset)}")
    return lines


def words(onset: Mapping[str, Any]) -> str:
    """``step 750 [520, 1,080]``."""
    return f"step {onset['step']:,.0f} [{onset['low']:,.0f}, {onset['high']:,.0f}]"
