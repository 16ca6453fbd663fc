"""How ``geomem train`` divides its work, which classes it knows, and how it is watched."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import MAX_SAMPLES, Number, warn
from geomem.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from geomem.data import DataSet
    from geomem.data.points import Values
    from geomem.memorization import Watch
    from geomem.training import EarlierWeights, Run, Trainer, WithNoiseImages

MAX_GRIDS = 12


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that come to the command as ``**engine``."""
    options = [
        click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, metavar="N",
                     help="Put each batch through the network in N pieces: less memory, the same training."),
        click.option("--compile", "compiled", is_flag=True,
                     help="Fuse the network's operations (torch.compile); needs a C++ compiler."),
        click.option("--channels-last", is_flag=True, help="Keep the channels of images innermost in memory; faster on "
                     "some GPUs, slower on most CPUs."),
        click.option("--conditional", is_flag=True, help="Train class by class, with the labels of the data."),
        click.option("--dummy-class", is_flag=False, flag_value=-1, type=int, default=0, metavar="[COUNT]",
                     help="Add COUNT images of Gaussian noise as one more class (as many as training points, without "
                          "COUNT); samples are made of the data's class."),
        click.option("--watch-every", type=click.IntRange(0), metavar="IMAGES",
                     help="Look at memorization after so many images; 0 for never.  [default: within 5% of the time]"),
        click.option("--stop-at-memorization", "stop_at", type=Number(0, 1, min_open=True), metavar="SHARE",
                     help="Save and stop when this share of the watched samples is memorized."),
        click.option("--checkpoint-every", type=click.IntRange(1), metavar="IMAGES",
                     help="Write a checkpoint after so many images.  [default: every minute]"),
        click.option("--snapshots", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
                     help="Type in which the best weights per noise level are stored; bf16 takes half the space."),
        click.option("--tensorboard", is_flag=True, help="Write losses for TensorBoard too."),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def require_possible(engine: dict[str, Any], batch: int, processes: int) -> None:
    """Refuse what cannot be done, before anything is written."""
    from geomem.training.trainer import require_compiler, require_divisible

    if engine["stop_at"] and engine["watch_every"] == 0:
        raise InputError("--stop-at-memorization needs --watch-every above 0")
    require_divisible(batch, engine["accumulate"] * processes)
    if engine["compiled"]:
        require_compiler()
    if engine["tensorboard"] and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: the package tensorboard is not installed; pip install tensorboard, or leave "
                         "the option out (stats.jsonl holds the same)")


@dataclass(frozen=True)
class Classes:
    """What the trainer is given in place of the data set's points, and what the run records about classes.

    ``labels`` and ``validation_labels`` are numbered 0, 1, ... in the order of ``names``, the labels in the data.
    """

    train: Values | WithNoiseImages
    labels: np.ndarray | None = None
    validation_labels: np.ndarray | None = None
    count: int = 0
    names: list[int] | None = None
    dummies: int = 0

    @property
    def record(self) -> dict[str, Any]:
        return {"classes": self.count, "labels": self.names, "dummy_class": self.dummies}

    @property
    def of_data(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Classes of the training and the validation points, for a look at a class-conditional denoiser."""
        if self.names is None or self.labels is None or self.validation_labels is None:
            return None
        return self.labels[:len(self.labels) - self.dummies], self.validation_labels

    def unconditional(self, denoiser: Any) -> Any:
        """The denoiser of the data's class where noise images are the other one."""
        from geomem.models import FixedClass

        return FixedClass(denoiser, 0) if self.count and self.names is None else denoiser


def classes_of(dataset: DataSet, conditional: bool, dummy_class: int, seed: int) -> Classes:
    """The classes to train. Raises InputError for ``--conditional`` without labels, or labels held out only."""
    import numpy as np

    from geomem.training import WithNoiseImages
    from geomem.training.levels import class_indices

    if not -1 <= dummy_class <= MAX_SAMPLES:
        raise InputError(f"--dummy-class {dummy_class}: give a number of noise images, or none for as many as points")
    labels, names, held = None, None, None
    if conditional:
        if dataset.train_labels is None:
            raise InputError(f"--conditional: {dataset.name} has no labels; leave it out or give an .npz with "
                             "train_labels, a folder per class, or a UCR file")
        found, labels = np.unique(dataset.train_labels, return_inverse=True)
        names, labels = found.tolist(), labels.astype(np.int64)
        held = class_indices(dataset.validation_labels, names, dataset) if dataset.n_validation else None
    if dummy_class:
        count = len(dataset.train) if dummy_class == -1 else dummy_class
        both = WithNoiseImages(dataset.train, count, dataset.mean, dataset.std, seed, labels)
        held = np.zeros(dataset.n_validation, dtype=np.int64) if held is None else held
        return Classes(both, both.labels, held, int(both.labels.max()) + 1, names, count)
    return Classes(dataset.train, labels, held, 0 if names is None else len(names), names)


@dataclass
class Watcher:
    """Looks at a training, tells people once when memorization sets in, and says when it is enough."""

    run: Run
    watch: Watch
    classes: Classes
    stop_at: float | None
    earlier: EarlierWeights
    stopped: str | None = None
    warned: bool = field(init=False)

    def __post_init__(self) -> None:
        self.warned = any(line["has_set_in"] for line in self.run.lines("watch.jsonl"))

    def __call__(self, trainer: Trainer) -> bool:
        found = self.watch.look(self.classes.unconditional(trainer.ema))
        step = trainer.steps_done
        self.run.append("watch.jsonl", {"step": step, "images": step * trainer.settings.batch, **found.to_dict()})
        seen = (f"{found.rate:.1%} of {found.n} samples at step {step:,} [{found.low:.1%}, {found.high:.1%}], "
                f"{found.floor:.1%} of held-out points")
        if found.has_set_in and not self.warned:
            self.warned = True
            warn(f"warning: memorization has set in: {seen}")
        if found.shows_copies(self.stop_at):
            self.earlier.copies_seen(step)
            if self.stop_at is not None:
                self.stopped = f"stopped and saved, as --stop-at-memorization {self.stop_at:g} asks: {seen}"
        return self.stopped is not None

    def draw(self) -> None:
        """watch.png, from everything seen so far."""
        from geomem.files import atomic_path
        from geomem.plots import plot_watch

        lines = self.run.lines("watch.jsonl")
        if lines:
            with atomic_path(self.run.path / "watch.png") as temporary:
                plot_watch(lines, stop_at=self.stop_at).savefig(temporary, dpi=120)


def levels_to_watch(gaps: Sequence[tuple[float, float]], document: dict[str, Any] | None,
                    sigma_data: float) -> list[float]:
    """Both ends and the middle of the danger zone where it is known, else of the first gap, else around sigma_data.

    A gap that reaches to 0 or infinity ends where EDM's noise levels do.
    """
    from geomem.noise import SIGMA_MAX, SIGMA_MIN

    zone = None if document is None else document["zone"]
    low, high = (zone["sigma_low"], zone["sigma_high"]) if zone else gaps[0] if gaps else (sigma_data / 2,
                                                                                         sigma_data * 2)
    low = max(low, SIGMA_MIN)
    high = max(low, min(high, SIGMA_MAX))
    return sorted({low, (low * high) ** 0.5, high})


def thin_grids(run: Run) -> None:
    """Keep at most MAX_GRIDS pictures of samples: the first, the last, and others evenly spread in log step."""
    import math

    paths = sorted(run.path.glob("samples-*.png"))
    while len(paths) > MAX_GRIDS:
        places = [math.log(max(1, int(path.stem.split("-")[1]))) for path in paths]
        closest = min(range(1, len(paths) - 1), key=lambda k: places[k + 1] - places[k - 1])
        paths.pop(closest).unlink()


@dataclass
class Board:
    """Writes the lines of stats.jsonl for TensorBoard, into the run."""

    run: Run
    writer: Any = None

    def __call__(self, line: dict[str, Any]) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a process that was killed wrote from this step on, after its last checkpoint, is forgotten.
            self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=line["step"])
        self.writer.add_scalar("loss", line["loss"], line["step"])
        if "heldout_mse" in line:
            self.writer.add_scalar("heldout_mse", sum(line["heldout_mse"]), line["step"])
        self.writer.flush()
