"""The training loop of a run: steps, held-out losses, checkpoints, interruption."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem.noise.samplers import GapSampler
from geomem.processes import put_together, require_same
from geomem.rng import torch_generator
from geomem.training.best_weights import BestWeights
from geomem.training.earlier import EarlierWeights
from geomem.training.loss import heldout_losses
from geomem.training.run import Run
from geomem.training.trainer import Trainer, TrainingSettings

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

CHECKPOINT_SECONDS = 60.0
MAX_VALIDATION_POINTS = 256
_ENOUGH = 1 << 10  # above every signal number: what the look at a training asked for


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


def train(run: Run, trainer: Trainer, validation: np.ndarray | None, *,
          validation_labels: np.ndarray | None = None,
          on_step: Callable[[int, float | None], None] | None = None,
          on_evaluation: Callable[[dict[str, Any]], None] | None = None,
          on_checkpoint: Callable[[Trainer], None] | None = None,
          watch: Callable[[Trainer], bool] | None = None, watch_every: int | None = None,
          earlier: EarlierWeights | None = None, checkpoint_every: int | None = None,
          snapshot_dtype: torch.dtype | None = None) -> BestWeights | None:
    """Train to the settings' last step, going on from the run's checkpoint if it has one.

    ``validation`` (M, ...) are held-out points that may steer the training; None turns the best weights per noise
    level off. ``on_step(step, loss)`` is called after every step, with the loss at every tenth and None between
    (on a GPU reading it costs a wait); ``on_evaluation(line)`` with each line of stats.jsonl;
    ``on_checkpoint(trainer)`` after each checkpoint. ``watch(trainer)`` looks at the training at the ``watch_steps`` of
    ``watch_every`` images; where it returns True, the training is saved and ends early. ``earlier`` is given the
    weights of every evaluation and saved with the run; ``watch`` may tell it of copies. A checkpoint is written every
    ``checkpoint_every`` images (None: every minute); ``snapshot_dtype`` is that of the best weights per noise level.

    Of several processes (``trainer.group``) the first one evaluates, watches and writes, and None is the best weights
    of the others. SIGINT and SIGTERM, to any of them, finish the step, save, and raise Interrupted in all. A loss that
    is not finite raises TrainingDiverged and leaves the last checkpoint as it was.
    """
    settings, group = trainer.settings, trainer.group
    first = group is None or group.rank() == 0
    if first:
        run.tidy()
    best = run.restore(trainer, snapshot_dtype, earlier)
    if group is not None:
        require_same(trainer.steps_done, group)
    saved = trainer.steps_done or None
    if first:
        run.rewind(trainer.steps_done)
        if saved is not None:
            run.save(trainer, best, earlier)  # a kill may have come between the state and the files derived from it
    held_out = None
    if validation is not None and first:
        held_out = validation_batch(trainer, validation, validation_labels)
        if best is None:
            best = BestWeights.log_spaced(average_weights=loss_shares(trainer), dtype=snapshot_dtype)
    evaluations = set(evaluation_steps(settings.iterations))
    looks = set(watch_steps(settings.iterations, settings.batch, watch_every)) if watch and watch_every else set()
    started = last_saved = time.monotonic()
    with _signals(patient=group is not None) as received:
        while trainer.steps_done < settings.iterations:
            trainer.step()
            step, stop = trainer.steps_done, 0
            if on_step is not None:
                on_step(step, None if step % 10 else float(trainer.losses[-1]))
            if step in evaluations:
                _require_finite(run, trainer, saved)
                line: dict[str, Any] = {"step": step, "images": step * settings.batch, "loss": trainer.mean_loss,
                                        "seconds": round(time.monotonic() - started, 3)}
                trainer.losses.clear()
                if best is not None and held_out is not None:
                    mse = heldout_losses(trainer.ema, *held_out[:2], best.centres.tolist(), held_out[2])
                    best.update(step, mse, trainer.ema.state_dict())
                    line["heldout_mse"] = mse.tolist()
                if earlier is not None and first:
                    earlier.update(step, trainer.ema.state_dict())
                if first:
                    run.append("stats.jsonl", line)
                if first and on_evaluation is not None:
                    on_evaluation(line)
                if first and step in looks and watch is not None and watch(trainer):
                    stop = _ENOUGH
            stop = _agreed(max(stop, *received, 0), group)
            if first and (stop or step == settings.iterations or _is_due(step, settings, checkpoint_every, last_saved)):
                if trainer.losses:
                    _require_finite(run, trainer, saved)
                run.save(trainer, best, earlier)
                last_saved, saved = time.monotonic(), step
                if on_checkpoint is not None:
                    on_checkpoint(trainer)
            if stop == _ENOUGH:
                break
            if stop and step < settings.iterations:
                raise Interrupted(step, stop)
    return best if first else None


def _is_due(step: int, settings: TrainingSettings, checkpoint_every: int | None, last_saved: float) -> bool:
    if checkpoint_every is None:
        return time.monotonic() - last_saved > CHECKPOINT_SECONDS
    return step * settings.batch // checkpoint_every > (step - 1) * settings.batch // checkpoint_every


def _agreed(stop: int, group: ProcessGroup | None) -> int:
    """The largest of what the processes want, so that all stop after the same step; 0 to go on."""
    if group is None:
        return stop
    wanted = torch.tensor([stop])  # on the CPU: the GPU is not waited for
    put_together([("max", wanted)], group)
    return int(wanted)


def _require_finite(run: Run, trainer: Trainer, saved: int | None) -> None:
    if not _is_finite(trainer):
        step = trainer.steps_done
        kept = f"{run.path} keeps the checkpoint of step {saved}" if saved else "there is no checkpoint yet"
        raise TrainingDiverged(f"loss or weights are not finite between steps {step - len(trainer.losses)} and {step}; "
                               f"{kept}; start again in another --out with a lower --learning-rate")


def _is_finite(trainer: Trainer) -> bool:
    return math.isfinite(trainer.mean_loss) and all(bool(p.isfinite().all()) for p in trainer.ema.parameters())


def validation_batch(trainer: Trainer, validation: np.ndarray, labels: np.ndarray | None = None,
                     ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The held-out points that steer a training, their noise and their classes, the same at every evaluation."""
    points = torch.from_numpy(np.ascontiguousarray(validation[:MAX_VALIDATION_POINTS])).to(trainer.device)
    noise = torch.randn(points.shape, generator=torch_generator(trainer.settings.seed, "validation noise"))
    classes = None if labels is None else torch.from_numpy(labels[:MAX_VALIDATION_POINTS]).to(trainer.device)
    return points, noise.to(trainer.device), classes


def loss_shares(trainer: Trainer) -> np.ndarray:
    """Weight of each band's MSE in the expected training loss, shape (bands,): probability x loss weight.

    The law is the sampler's without its gap: what is generated passes through every level, a gap's too.
    """
    best = BestWeights.log_spaced()
    law = trainer.sampler.base if isinstance(trainer.sampler, GapSampler) else trainer.sampler
    mass = np.diff(law.cdf(best.edges))
    return mass * trainer.denoiser.loss_weight(torch.from_numpy(best.centres)).numpy()


@contextmanager
def _signals(patient: bool) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second one interrupts at once, unless ``patient``: torchrun passes on what the
    terminal has sent already.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and not patient:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
