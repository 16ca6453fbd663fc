"""What an experiment works with: data, trained models, samples and partial results, all kept in one directory.

    OUT/data/NAME.npz              points as they are used
    OUT/models/NAME/               runs
    OUT/samples/NAME.npz           their samples
    OUT/parts/EXPERIMENT/NAME.json partial results
    OUT/EXPERIMENT.json, .png      the result and its picture

What is there is used again, so an experiment that was stopped goes on, and several share their models. A model that
was trained with other options is refused, and so are partial results of other settings.

A row of the comparison says what a fixed rule gives, one that was not chosen for it: whether a figure lies in our 95%
interval, whether several grow in a stated order (by the intervals of their differences where their samples share the
seeds, else by their own), whether a theorem held. What is published as a picture alone, or was measured on something
else, stands beside ours without a verdict.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import geomem
from geomem import load_denoiser
from geomem.errors import InputError
from geomem.files import TEMPORARY_PREFIX, atomic_path, write_json
from geomem.models.weights import read_tensors

OPTIONS = ("network", "batch", "learning_rate", "dropout", "precision", "seed")  # of geomem.train, in settings


@dataclass(frozen=True)
class Compared:
    """One figure of ours beside the published one; ``verdict`` says in plain words how they stand to each other."""

    quantity: str
    ours: str
    published: str
    verdict: str


@dataclass(frozen=True)
class Outcome:
    """What an experiment found."""

    result: dict[str, Any]
    compared: list[Compared]
    deviations: list[str]


class Interval(NamedTuple):
    """A figure of ours with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: dict[str, Any], name: str, low: str = "low", high: str = "high") -> Interval:
        return cls(row[name], row[low], row[high])

    def __neg__(self) -> Interval:
        return Interval(0 - self.value, 0 - self.high, 0 - self.low)  # of 0 it is 0, and not -0

    def told(self, digits: str) -> str:
        return f"{self.value:{digits}} [{self.low:{digits}}, {self.high:{digits}}]"


def rounding_to(printed: str) -> tuple[float, float]:
    """The numbers that a printed figure stands for: "0.165" for 0.1645 to 0.1655."""
    value = Decimal(printed)
    half = Decimal(1).scaleb(int(value.as_tuple().exponent)) / 2
    return float(value - half), float(value + half)


def measured(quantity: str, ours: Interval, printed: str, digits: str = ".3g", source: str = "", note: str = "",
             ) -> Compared:
    """A figure beside a printed one, with their difference and whether that one lies in our 95% interval."""
    least, most = rounding_to(printed)
    place = "inside" if ours.low <= most and least <= ours.high else "outside"
    return Compared(quantity, ours.told(digits), printed + (f" ({source})" if source else ""),
                    f"difference {ours.value - float(printed):+.2g}, {place} our 95% interval"
                    + (f": {note}" if note and place == "outside" else ""))


def ranged(quantity: str, ours: Interval, low: str, high: str, digits: str = ".3g") -> Compared:
    """A figure beside the smallest and the largest of several printed ones."""
    within = ours.low <= rounding_to(high)[1] and rounding_to(low)[0] <= ours.high
    return Compared(quantity, ours.told(digits), f"{low} to {high}",
                    f"our 95% interval {'reaches' if within else 'lies outside'} that range")


def computed(quantity: str, ours: float, printed: str, digits: str = ".6g", source: str = "") -> Compared:
    """A figure without any chance in it beside a printed one: equal to the digits printed, or not."""
    least, most = rounding_to(printed)
    return Compared(quantity, f"{ours:{digits}}", printed + (f" ({source})" if source else ""),
                    "equal to the digits printed" if least <= ours <= most
                    else f"NOT EQUAL to the digits printed, by {ours - float(printed):+.2g}")


def against(quantity: str, ours: Interval, value: float, published: str, digits: str = ".3g") -> Compared:
    """A figure of ours beside words of a paper that stand for ``value``, such as 0 for a difference."""
    told = "cannot be told" if ours.low <= value <= ours.high else "differs"
    return Compared(quantity, ours.told(digits), published, f"{told} from {value:g}, by our 95% interval")


def order(quantity: str, parts: Sequence[tuple[str, Interval]], published: str, digits: str = ".1%",
          differences: Sequence[Interval] | None = None) -> Compared:
    """Whether figures grow in the order given; two count as ordered where their 95% intervals are apart, or, with the
    paired ``differences`` of each from the one before it, where that interval lies above 0.
    """
    ours = ", ".join(f"{name} {part.told(digits)}" for name, part in parts)
    if differences is None:
        steps = [(b.low - a.high, b.high - a.low) for (_, a), (_, b) in pairwise(parts)]
        holds = "holds here too, all 95% intervals apart"
    else:
        steps = [(step.low, step.high) for step in differences]
        ours += "; paired differences " + ", ".join(step.told(f"+{digits}") for step in differences)
        holds = "holds here too, all paired differences above 0"
    wrong = [f"{first} and {second} {'are the other way round' if high < 0 else 'cannot be told apart'}"
             for ((first, _), (second, _)), (low, high) in zip(pairwise(parts), steps, strict=True) if low <= 0]
    verdict = "DOES NOT HOLD here" if any(high < 0 for _, high in steps) else "NOT SHOWN here"
    return Compared(quantity, ours, published, f"{verdict}: {'; '.join(wrong)}" if wrong else holds)


def claim(quantity: str, ours: str, published: str, holds: bool) -> Compared:
    """A theorem, which our result bears out or not."""
    return Compared(quantity, ours, published, "holds here too" if holds else "DOES NOT HOLD here")


def unlike(quantity: str, ours: str, published: str, why: str) -> Compared:
    """Two figures that stand beside each other but cannot be compared."""
    return Compared(quantity, ours, published, f"not comparable: {why}")


@dataclass(frozen=True)
class Experiment:
    """One experiment: ``scales`` are the settings by name, ``run(bench, settings)`` finds its ``Outcome`` and
    ``draw(document)`` its picture, from the result document alone.
    """

    name: str
    paper: str
    title: str
    scales: Mapping[str, Any]
    run: Callable[[Bench, Any], Outcome]
    draw: Callable[[Mapping[str, Any]], Figure]


@dataclass(frozen=True)
class Bench:
    """``out`` holds everything; ``folder`` is where the real data lie, None without them; ``settings`` are those of the
    experiment.
    """

    out: Path
    experiment: str
    folder: Path | None = None
    settings: Any = None
    used_again: list[str] = field(default_factory=list)  # but for data: what an earlier call had left here

    def dataset(self, name: str, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Path:
        """The training and held-out points that ``make()`` gives, as a file that commands can read."""
        path = self.out / "data" / f"{name}.npz"
        if not path.exists():
            self.say(f"data {name}")
            train, heldout = make()
            with atomic_path(path) as temporary:
                np.savez(temporary, train=train, heldout=heldout)
        return path

    def real_file(self, name: str) -> Path:
        """A file of the folder of real data. Raises InputError where it is not."""
        if self.folder is None or not (self.folder / name).is_file():
            raise InputError(f"{name} is not in {self.folder or 'any folder of data'}; name the folder with --data or "
                             "GEOMEM_TEST_DATA, or take --scale smoke")
        return self.folder / name

    def model(self, name: str, data: Path, iterations: int, of: Any = None, *, after: Path | None = None,
              **options: Any) -> Path:
        """The run ``name`` on ``data``, trained by ``geomem.train`` to ``iterations`` steps; goes on where it stopped.
        Options are those in the record ``of``, and those that are given.

        ``after`` is a run with the same options and fewer steps: training goes on from its state, and ends with the
        very weights of one long training.
        """
        run = self.out / "models" / name
        self._note(run)
        self.say(f"model {name}")
        if after is not None and not run.exists():
            temporary = run.parent / f"{TEMPORARY_PREFIX}{name}"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(after, temporary)
            config = json.loads((temporary / "config.json").read_text())
            config["settings"]["iterations"] = iterations
            write_json(temporary / "config.json", config)
            temporary.rename(run)
        options = {key: getattr(of, key) for key in OPTIONS if hasattr(of, key)} | options
        geomem.train(str(data), run, iterations=iterations, watch_every=0, resume=(run / "config.json").exists(),
                     **options)
        return run

    def samples(self, run: Path, n: int, *, averaged: bool = True, **options: Any) -> Path:
        """The samples of seeds 0..n-1 of a run with its last weights, their moving average or themselves; options as of
        ``Pretrained.generate``.
        """
        path = self.out / "samples" / f"{run.name}-{n}{'' if averaged else '-not-averaged'}.npz"
        self._note(path)
        if not path.exists():
            self.say(f"{n:,} samples of {path.stem}")
            loaded, start = load_denoiser(run, "last"), "denoiser."
            if not averaged:
                state = read_tensors(run / "state.safetensors")
                loaded.denoiser.load_state_dict({name.removeprefix(start): value for name, value in state.items()
                                                 if name.startswith(start)})
            loaded.generate(range(n), **options).save(path)
        return path

    def part(self, name: str, find: Callable[[], Any]) -> Any:
        """``find()``, which gives what JSON can hold; kept, and used again for the same settings."""
        path = self.out / "parts" / self.experiment / f"{name}.json"
        settings = json.loads(json.dumps(asdict(self.settings)))
        self._note(path)
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["settings"] != settings:
                raise InputError(f"{path} was found with other settings; remove it or take another --out")
            return kept["found"]
        self.say(name)
        found = find()
        write_json(path, {"settings": settings, "found": found})
        return json.loads(json.dumps(found))

    def _note(self, path: Path) -> None:
        if path.exists():
            self.used_again.append(str(path.relative_to(self.out)))

    def say(self, text: str) -> None:
        """A line for people."""
        print(f"{self.experiment}: {text}", file=sys.stderr, flush=True)
