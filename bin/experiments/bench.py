"""What an experiment works with: data, trained models, samples and partial results, all kept in one directory.

    OUT/data/NAME.npz              points as they are used
    OUT/models/NAME/               runs of geomem train
    OUT/samples/NAME.npz           samples of geomem generate
    OUT/parts/EXPERIMENT/NAME.json partial results
    OUT/EXPERIMENT.json, .csv, .png  the result, its table and its picture

What is there is used again, so an experiment that was stopped goes on, and several share their models. A model that
was trained with other options is refused, and so are partial results of other settings.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.cli.main import cli
from geomem.errors import InputError
from geomem.files import TEMPORARY_PREFIX, atomic_path, write_json


@dataclass(frozen=True)
class Compared:
    """One figure of ours beside the published one; ``verdict`` says in plain words whether they agree."""

    quantity: str
    ours: str
    published: str
    verdict: str


@dataclass(frozen=True)
class Outcome:
    """What an experiment found: ``result`` for JSON, ``table`` as columns for CSV."""

    result: dict[str, Any]
    table: dict[str, list[Any]]
    compared: list[Compared]
    deviations: list[str]


def near(quantity: str, ours: float, published: float, within: float, digits: str = ".3g", note: str = "") -> Compared:
    """Two numbers that should be equal up to ``within``; ``note`` is added where they are not."""
    if abs(ours - published) <= within:
        verdict = f"agrees within {within:.2g}"
    else:
        verdict = f"DISAGREES by {ours - published:+.2g}" + (f": {note}" if note else "")
    return Compared(quantity, f"{ours:{digits}}", f"{published:{digits}}", verdict)


def claim(quantity: str, ours: str, published: str, holds: bool) -> Compared:
    """A statement of a paper that our result bears out, or not."""
    return Compared(quantity, ours, published, "holds here too" if holds else "DOES NOT HOLD here")


def unlike(quantity: str, ours: str, published: str, why: str) -> Compared:
    """Two figures that stand beside each other but cannot be compared."""
    return Compared(quantity, ours, published, f"not comparable: {why}")


@dataclass(frozen=True)
class Bench:
    """``out`` holds everything; ``folder`` is where the real data lie, None without them."""

    out: Path
    experiment: str
    folder: Path | None = None

    def dataset(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> Path:
        """The points ``make()`` gives (``train``, ``heldout``, perhaps labels), as a file that commands can read."""
        path = self.out / "data" / f"{name}.npz"
        if not path.exists():
            self.say(f"data {name}")
            arrays = make()
            with atomic_path(path) as temporary:
                np.savez(temporary, **arrays)  # type: ignore[arg-type]
        return path

    def real_file(self, name: str) -> Path:
        """A file of the folder of real data. Raises InputError where it is not."""
        if self.folder is None or not (self.folder / name).is_file():
            raise InputError(f"{name} is not in {self.folder or 'any folder of data'}; name the folder with --data or "
                             "GEOMEM_TEST_DATA, or take --scale smoke")
        return self.folder / name

    def model(self, name: str, data: Path, iterations: int, *options: Any, after: str | None = None) -> Path:
        """The run ``name`` of geomem train on ``data``, trained to ``iterations`` steps; goes on where it stopped.

        ``after`` names a run with the same options and fewer steps: training goes on from its state, and ends with
        the very weights of one long training.
        """
        run = self.out / "models" / name
        if after is not None and not run.exists():
            self._lengthened(self.out / "models" / after, run, iterations)
        self.say(f"model {name}")
        geomem("train", data, "--out", run, "--iterations", iterations, "--watch-every", 0, *options,
               *(["--resume"] if (run / "config.json").exists() else []))
        return run

    def _lengthened(self, shorter: Path, run: Path, iterations: int) -> None:
        """A copy of a run that is to be trained for more steps."""
        temporary = run.parent / f"{TEMPORARY_PREFIX}{run.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(shorter, temporary)
        config = json.loads((temporary / "config.json").read_text())
        config["settings"]["iterations"] = iterations
        write_json(temporary / "config.json", config)
        temporary.rename(run)

    def samples(self, run: Path, n: int, *options: Any) -> Path:
        """The samples of seeds 0..n-1 of a run."""
        path = self.out / "samples" / f"{run.name}-{n}.npz"
        if not path.exists():
            self.say(f"{n:,} samples of {run.name}")
            geomem("generate", run, "--seeds", f"0-{n - 1}", "--out", path, *options)
        return path

    def part(self, name: str, settings: dict[str, Any], find: Callable[[], Any]) -> Any:
        """``find()``, which gives what JSON can hold; kept, and used again for the same ``settings``."""
        path = self.out / "parts" / self.experiment / f"{name}.json"
        settings = json.loads(json.dumps(settings))
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["settings"] != settings:
                raise InputError(f"{path} was found with other settings; remove it or take another --out")
            return kept["found"]
        self.say(name)
        found = find()
        write_json(path, {"settings": settings, "found": found})
        return json.loads(json.dumps(found))

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Adds the seconds of the block, stopped or not, to those spent before; gives a function that tells the sum."""
        path, started = self.out / "parts" / self.experiment / "seconds.json", time.monotonic()
        before = json.loads(path.read_text()) if path.exists() else 0.0

        def total() -> float:
            return round(before + time.monotonic() - started, 1)

        try:
            yield total
        finally:
            write_json(path, total())

    def say(self, text: str) -> None:
        """A line for people."""
        print(f"{self.experiment}: {text}", file=sys.stderr, flush=True)


def geomem(*arguments: Any) -> None:
    """Run a command of geomem in this process; its errors are raised, and what it prints for people is left out."""
    with redirect_stdout(io.StringIO()):
        cli.main([str(argument) for argument in arguments], prog_name="geomem", standalone_mode=False)
