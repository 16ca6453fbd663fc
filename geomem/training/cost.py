"""What a training takes, told early: the memory of a step, and the time of all steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from geomem.processes import reduce

if TYPE_CHECKING:
    from geomem.training.trainer import Trainer

ACTIVATIONS = 4 << 30
"""Bytes of activations beyond which a batch goes through the network in pieces, unless somebody says otherwise."""

HOUR = 3600.0
PICTURES = 0.03
"""Share of a training's time that pictures of samples take at most."""

_TIMED_SECONDS, _MOST_TIMED = 2.0, 256


def activation_bytes(denoiser: nn.Module, shape: Sequence[int], conditional: bool = False) -> int:
    """Bytes of float32 that the backward pass keeps for each training point of ``shape``.

    ``denoiser`` on the device ``meta``: its operations are followed, and nothing is computed or held.
    """
    def kept(points: int) -> int:
        storages: dict[int, Tensor] = {}  # the tensors too, so that no storage ends and another takes its number
        weights = {parameter.untyped_storage()._cdata for parameter in denoiser.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor
            return tensor

        noisy = torch.empty(points, *shape, device="meta")
        labels = (torch.zeros(points, dtype=torch.int64, device="meta"),) if conditional else ()
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            error = denoiser(noisy, torch.ones(points, device="meta"), *labels) - noisy
            error.square().mean()
        return sum(tensor.untyped_storage().nbytes() for number, tensor in storages.items() if number not in weights)

    return kept(2) - kept(1)  # the rest is there once


def pieces_for(batch: int, processes: int, bytes_per_point: int, limit: int = ACTIVATIONS) -> int:
    """In how many pieces a process puts its share of a batch through the network to keep ``limit`` bytes at most."""
    share = math.ceil(batch / processes)
    return max(1, min(math.ceil(share / max(1, limit // max(1, bytes_per_point))), batch // processes))


def hours_advice(seconds_per_step: float, steps_left: int) -> str | None:
    """What to say of a training that has more than an hour left; None for others."""
    hours = seconds_per_step * steps_left / HOUR
    return None if hours <= 1 else (
        f"note: at {seconds_per_step:.2g} s a step, the {steps_left:,} steps that are left take about {hours:.2g} "
        f"hours; in one it makes {max(1, int(HOUR / seconds_per_step))} (--iterations). A smaller --batch or "
        "--network makes steps faster, --minutes 60 chooses both for an hour; Ctrl-C saves what is there")


def seconds_per_step(trainer: Trainer) -> float:
    """Of the steps of this trainer, which takes some: the first, then twice as many as before until they take 2 s. All
    its processes find the same, that of the slowest.
    """
    steps, seconds = 1, 0.0
    trainer.step()
    while seconds < _TIMED_SECONDS and steps < _MOST_TIMED:
        steps, started = 2 * steps, time.perf_counter()
        for _ in range(steps):
            trainer.step()
        float(trainer.losses[-1])  # waits for a GPU
        taken = torch.tensor([time.perf_counter() - started], dtype=torch.float64)
        if trainer.group is not None:
            reduce([("max", taken)], trainer.group)
        seconds = float(taken)
    return seconds / steps


def most_within(seconds: float, seconds_of: Callable[[int], float]) -> int:
    """The largest number of two digits and zeros for which ``seconds_of``, which grows, is at most ``seconds``; 1 where
    none is.
    """
    found = 1
    while (following := found + 10 ** max(0, len(str(found)) - 2)) and seconds_of(following) <= seconds:
        found = following
    return found
