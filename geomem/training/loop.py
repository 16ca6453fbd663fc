"""The training loop of a run: steps, held-out losses, checkpoints, interruption."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

from geomem.noise.samplers import GapSampler
from geomem.rng import torch_generator
from geomem.training.best_weights import BestWeights
from geomem.training.loss import heldout_losses
from geomem.training.run import Run
from geomem.training.trainer import Trainer

CHECKPOINT_SECONDS = 60.0
MAX_VALIDATION_POINTS = 256


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


def train(run: Run, trainer: Trainer, validation: np.ndarray | None, *,
          validation_labels: np.ndarray | None = None,
          on_step: Callable[[int, float | None], None] | None = None,
          on_checkpoint: Callable[[Trainer], None] | None = None) -> BestWeights | None:
    """Train to the settings' last step, going on from the run's checkpoint if it has one.

    ``validation`` (M, ...) are held-out points that may steer the training; None turns the best weights per noise
    level off. ``on_step(step, loss)`` is called after every step, with the loss at every tenth and None between
    (on a GPU reading it costs a wait); ``on_checkpoint(trainer)`` after each checkpoint. SIGINT and SIGTERM finish
    the step, save, and raise Interrupted. A loss that is not finite raises TrainingDiverged and leaves the last
    checkpoint as it was.
    """
    settings = trainer.settings
    best = run.restore(trainer)
    run.rewind_stats(trainer.steps_done)
    if trainer.steps_done:
        run.save(trainer, best)  # a kill may have come between the state and the files derived from it
    held_out = None
    if validation is not None:
        held_out = _validation_batch(trainer, validation, validation_labels)
        if best is None:
            best = BestWeights.log_spaced(average_weights=_loss_shares(trainer))
    evaluations = set(evaluation_steps(settings.iterations))
    started = last_saved = time.monotonic()
    with _signals() as received:
        while trainer.steps_done < settings.iterations:
            trainer.step()
            step = trainer.steps_done
            if on_step is not None:
                on_step(step, None if step % 10 else float(trainer.losses[-1]))
            if (received or step in evaluations) and not _is_finite(trainer):
                raise TrainingDiverged(
                    f"loss or weights are not finite between steps {step - len(trainer.losses)} and {step}; earlier "
                    "checkpoints are kept; start again in another --out with a lower --learning-rate")
            if step in evaluations:
                line: dict[str, Any] = {"step": step, "images": step * settings.batch, "loss": trainer.mean_loss,
                                        "seconds": round(time.monotonic() - started, 3)}
                trainer.losses.clear()
                if best is not None and held_out is not None:
                    mse = heldout_losses(trainer.ema, *held_out[:2], best.centres.tolist(), held_out[2])
                    best.update(step, mse, trainer.ema.state_dict())
                    line["heldout_mse"] = mse.tolist()
                run.append_stats(line)
            due = time.monotonic() - last_saved > CHECKPOINT_SECONDS
            # Only at evaluations, unless asked to stop: stats.jsonl then always ends where the state begins.
            if received or step == settings.iterations or (due and step in evaluations):
                run.save(trainer, best)
                last_saved = time.monotonic()
                if on_checkpoint is not None:
                    on_checkpoint(trainer)
            if received and step < settings.iterations:
                raise Interrupted(step, received[0])
    return best


def _is_finite(trainer: Trainer) -> bool:
    return math.isfinite(trainer.mean_loss) and all(bool(p.isfinite().all()) for p in trainer.ema.parameters())


def _validation_batch(trainer: Trainer, validation: np.ndarray, labels: np.ndarray | None,
                      ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    points = torch.from_numpy(np.ascontiguousarray(validation[:MAX_VALIDATION_POINTS])).to(trainer.device)
    noise = torch.randn(points.shape, generator=torch_generator(trainer.settings.seed, "validation noise"))
    classes = None if labels is None else torch.from_numpy(labels[:MAX_VALIDATION_POINTS]).to(trainer.device)
    return points, noise.to(trainer.device), classes


def _loss_shares(trainer: Trainer) -> np.ndarray:
    """Weight of each band's MSE in the expected training loss, shape (bands,): probability x loss weight.

    The law is the sampler's without its gap: what is generated passes through every level, a gap's too.
    """
    best = BestWeights.log_spaced()
    law = trainer.sampler.base if isinstance(trainer.sampler, GapSampler) else trainer.sampler
    mass = np.diff(law.cdf(best.edges))
    return mass * trainer.denoiser.loss_weight(torch.from_numpy(best.centres)).numpy()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second one interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
