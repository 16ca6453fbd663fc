"""The training loop of a run: steps, held-out losses, checkpoints, interruption."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geomem.data.points import Values
from geomem.memorization.watch import MemorizationCheck
from geomem.noise.samplers import GapSampler
from geomem.processes import reduce, require_same
from geomem.training.best_weights import BestWeights
from geomem.training.checkpoint import restore_checkpoint, rewind, save_checkpoint, tidy
from geomem.training.monitor import Monitor
from geomem.training.run import Run
from geomem.training.trainer import Trainer, TrainingSettings

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LOG = logging.getLogger("geomem")
CHECKPOINT_SECONDS = 60.0
MAX_VALIDATION_POINTS = 256
_ENOUGH = 1 << 10  # above every signal number: the monitor asked for the end


class Interrupted(Exception):
    """A signal asked the training to stop; the run is saved at ``step``."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.signal_number = step, signal_number


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite."""


def evaluation_steps(iterations: int, first: int = 25, growth: float = 1.1) -> list[int]:
    """Steps at which held-out losses are measured: every 25 at first, then about 10% apart.

    Averaged weights change over a share of the training so far, so equal ratios resolve them evenly, and the early
    snapshots, the ones a small data set needs, are close together.
    """
    steps, step = [], 0
    while step < iterations:
        step = min(iterations, max(step + first, math.ceil(step * growth)))
        steps.append(step)
    return steps


def watch_steps(iterations: int, batch: int, every: int) -> list[int]:
    """Evaluation steps at which a training is looked at: the first after each ``every`` images, and the last."""
    steps, seen = [], 0
    for step in evaluation_steps(iterations):
        if step * batch // every > seen or step == iterations:
            seen = step * batch // every
            steps.append(step)
    return steps


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after a step.

    loss: of the step, a scalar on the device of the training; reading it waits for a GPU. evaluation: the line of
    stats.jsonl where held-out losses were measured, else None. look: what the monitor found where it looked, else None.
    saved: whether a checkpoint was written. fold: the fold that is left out, where a network is trained without each:
    steps are then counted over all trainings.
    """

    step: int
    loss: Tensor
    evaluation: dict[str, Any] | None = None
    look: MemorizationCheck | None = None
    saved: bool = False
    fold: int | None = None


def train_steps(run: Run, trainer: Trainer, monitor: Monitor | None = None, *,
                checkpoint_every: int | None = None, another_follows: bool = False) -> Generator[TrainingState]:
    """Train to the settings' last step, going on from the run's checkpoint if it has one; the state after each step.

    ``monitor`` measures held-out losses at the ``evaluation_steps`` and looks where a look is due; where it
    ``should_stop`` the training is saved and ends. A checkpoint is written every ``checkpoint_every`` images (None:
    every minute). Where ``another_follows`` a signal counts after the last step, too.

    Of several processes (``trainer.group``) the first one evaluates, looks and writes; the others need no monitor.
    SIGINT and SIGTERM, to any of them, finish the step, save, and raise Interrupted in all. A loss that is not finite
    raises TrainingDiverged and leaves the last checkpoint as it was. Whoever may leave the steps early closes them
    (``contextlib.closing``): until then the signals are theirs.
    """
    settings, group = trainer.settings, trainer.group
    first = group is None or group.rank() == 0
    if first:
        tidy(run)
    restore_checkpoint(run, trainer, monitor)
    if group is not None:
        require_same(trainer.steps_done, group)
    saved_at = trainer.steps_done or None
    if first:
        rewind(run, trainer.steps_done)
        if saved_at is not None:  # a kill may have come between the state and the files derived from it
            save_checkpoint(run, trainer, monitor)
    evaluations = set(evaluation_steps(settings.iterations))
    started = last_saved = time.monotonic()
    with _signals(patient=group is not None, speaks=first) as received:
        while trainer.steps_done < settings.iterations:
            trainer.step()
            step, images, loss = trainer.steps_done, trainer.steps_done * settings.batch, trainer.losses[-1]
            line, look = None, None
            if step in evaluations:
                _require_finite(run, trainer, saved_at)
                line = {"step": step, "images": images, "loss": trainer.mean_loss,
                        "seconds": round(time.monotonic() - started, 3)}
                trainer.losses.clear()
                losses = None if monitor is None else monitor.evaluate(step, trainer.ema)
                line |= {} if losses is None else {"heldout_mse": losses.tolist()}
                if first:
                    run.append("stats.jsonl", line)
            if monitor is not None and monitor.is_due(step):
                look = monitor.look(step, trainer.ema)
                run.append("watch.jsonl", {"step": step, "images": images, **look.to_dict()})
            enough = monitor is not None and monitor.should_stop
            stop = _agreed(_ENOUGH if enough else max(received, default=0), group)
            save = first and bool(stop or step == settings.iterations
                                  or _is_due(step, settings, checkpoint_every, last_saved))
            if save:
                if trainer.losses:
                    _require_finite(run, trainer, saved_at)
                save_checkpoint(run, trainer, monitor)
                last_saved, saved_at = time.monotonic(), step
            yield TrainingState(step, loss, line, look, save)
            if stop == _ENOUGH:
                break
            if stop and step < settings.iterations:
                raise Interrupted(step, stop)
        if another_follows and (stop := _agreed(max(received, default=0), group)):
            raise Interrupted(trainer.steps_done, stop)


def train(run: Run, trainer: Trainer, validation: np.ndarray | None = None, *,
          validation_labels: np.ndarray | None = None, checkpoint_every: int | None = None,
          snapshot_dtype: torch.dtype | None = None) -> BestWeights | None:
    """All of ``train_steps`` with held-out losses and without looks.

    Returns the best weights per noise level by ``validation`` points (M, ...) of classes ``validation_labels`` (M,),
    kept as ``snapshot_dtype``; None without such points.
    """
    labels = None if validation_labels is None else (np.empty(0), validation_labels)
    monitor = heldout_monitor(trainer, None, validation, every=None, labels=labels, dtype=snapshot_dtype)
    deque(train_steps(run, trainer, monitor, checkpoint_every=checkpoint_every), maxlen=0)
    return monitor.best_weights


def heldout_monitor(trainer: Trainer, train: Values | None, validation: np.ndarray | None, **options: Any) -> Monitor:
    """The monitor of geomem's own trainings, with the options of ``Monitor``: the one early stop is chosen by the
    expected training loss. A band's share in it is the probability of its noise levels x the weight of the loss; the
    law is that without the sampler's gap, since what is generated passes through every level.
    """
    best = BestWeights.log_spaced()
    law = trainer.sampler.base if isinstance(trainer.sampler, GapSampler) else trainer.sampler
    shares = np.diff(law.cdf(best.edges)) * trainer.denoiser.loss_weight(torch.from_numpy(best.centres)).numpy()
    return Monitor(train, validation, seed=trainer.settings.seed, mirrored=trainer.settings.flip,
                   validation=MAX_VALIDATION_POINTS, average_weights=shares, **options)


def _is_due(step: int, settings: TrainingSettings, checkpoint_every: int | None, last_saved: float) -> bool:
    if checkpoint_every is None:
        return time.monotonic() - last_saved > CHECKPOINT_SECONDS
    return step * settings.batch // checkpoint_every > (step - 1) * settings.batch // checkpoint_every


def _agreed(stop: int, group: ProcessGroup | None) -> int:
    """The largest of what the processes want, so that all stop after the same step; 0 to go on."""
    if group is None:
        return stop
    wanted = torch.tensor([stop])  # on the CPU: the GPU is not waited for
    reduce([("max", wanted)], group)
    return int(wanted)


def _require_finite(run: Run, trainer: Trainer, saved: int | None) -> None:
    weights = torch.stack([p.isfinite().all() for p in trainer.ema.parameters()])
    if not math.isfinite(trainer.mean_loss) or not weights.all():
        step = trainer.steps_done
        kept = f"{run.path} keeps the checkpoint of step {saved}" if saved else "there is no checkpoint yet"
        raise TrainingDiverged(f"loss or weights are not finite between steps {step - len(trainer.losses)} and {step}; "
                               f"{kept}; start again in another --out with a lower --learning-rate")


@contextmanager
def _signals(patient: bool, speaks: bool) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM and say at once what follows, if this process ``speaks``; a second one interrupts,
    unless ``patient``: torchrun passes on what the terminal has sent already. Outside the main thread, where Python
    hears no signals, none come.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        if received and not patient:
            raise KeyboardInterrupt
        received.append(number)
        if speaks and len(received) == 1:
            with suppress(RuntimeError):  # the signal came while a line was being written
                LOG.warning(f"{'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}: finishing this step and saving; "
                            "the same command with --resume goes on from there"
                            + ("" if patient else " (Ctrl-C again ends at once, without saving)"))

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
