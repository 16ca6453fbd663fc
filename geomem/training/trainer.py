"""One training step after another, and a state that continues bit for bit.

Every draw of step k comes from generators keyed by (seed, purpose, k), so the state is only weights, averaged
weights and optimizer moments: nothing about random generators or the data order has to be saved.

A batch of B points may be divided: among processes, and by each process into pieces that go through the network one
after another. The draws are always those of the whole batch, and a piece of b points counts b/B, so the gradient is
the undivided one up to rounding, also where the pieces are of different sizes. The division is no part of the state:
a run may go on with another. Only the masks of dropout, drawn inside the network, depend on it.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from geomem.data.points import Values
from geomem.errors import InputError
from geomem.models.denoiser import Denoiser, expand_sigma
from geomem.noise.samplers import NoiseLevelSampler
from geomem.processes import reduce
from geomem.rng import generator, key, torch_generator
from geomem.training.classes import WithNoiseImages
from geomem.training.loss import denoising_loss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class TrainingSettings:
    """How a denoiser is trained. Durations are in steps unless they say images."""

    iterations: int
    batch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 100
    """Steps over which the learning rate rises linearly from zero."""
    decay: float = 0.0
    """Share of the steps, at the end, over which the learning rate falls linearly to zero."""
    ema_halflife: float = 500e3
    """Half-life of the weight average, in images."""
    ema_rampup: float = 0.05
    """Upper bound on the half-life as a share of the images seen so far, so that early averages are useful."""
    flip: bool = False
    """Mirror each image along its last axis with probability one half."""
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise InputError(f"the learning rate must be positive, not {self.learning_rate}")
        if not 0 <= self.decay <= 1:
            raise InputError(f"decay, a share of the steps, must lie in [0, 1], not {self.decay}")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"unknown precision {self.precision!r}; choose fp32 or bf16")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: warm-up, constant, decay."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.iterations - step) / (self.decay * self.iterations) if self.decay else 1.0
        return self.learning_rate * min(1.0, rise, fall)


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, "data order", epoch).permutation(n)


def batch_indices(step: int, batch: int, n: int, seed: int) -> np.ndarray:
    """Training points of a step, shape (batch,): consecutive pieces of one random permutation per epoch."""
    positions = step * batch + np.arange(batch)
    return np.concatenate([_order(n, seed, int(epoch))[positions[positions // n == epoch] % n]
                           for epoch in np.unique(positions // n)])


class Batch(NamedTuple):
    """What one step trains on: (B, ...) clean points and noise, (B,) noise levels, (B,) labels or None."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    labels: Tensor | None

    def part(self, rows: slice) -> Batch:
        return Batch(self.clean[rows], self.noise[rows], self.sigma[rows],
                     None if self.labels is None else self.labels[rows])


def pieces(size: int, count: int) -> list[slice]:
    """``count`` slices of ``range(size)``, one after another, whose lengths differ by at most one."""
    ends = [size * k // count for k in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(ends)]


@contextmanager
def bfloat16_products(device: torch.device) -> Iterator[None]:
    """torch's autocast, on a CPU without the fused attention, which is slow in bfloat16."""
    with (torch.autocast(device.type, torch.bfloat16),
          sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()):
        yield


class Trainer:
    """Trains a denoiser with AdamW and keeps an exponential moving average of its weights.

    Parameters
    ----------
    denoiser : trained in place, on its own device; ``trainer.ema`` is the averaged copy.
    sampler : chooses the noise levels.
    train : (N, ...) float32 points, an array, a memory map or stored points. labels : (N,) classes or None.
    accumulate : pieces in which a process puts its share of the batch through the network; less memory, more time.
    compiled : fuse the network's operations with torch.compile; the first step takes minutes for a large network.
    channels_last : keep images (B, C, H, W) with the channels innermost, which suits the convolutions of some devices.
    group : processes that share every batch; all are given the same arguments and take the same steps.

    Raises InputError where the batch is smaller than the number of its pieces, and without a compiler for ``compiled``.
    """

    def __init__(self, denoiser: Denoiser, sampler: NoiseLevelSampler, train: Values | WithNoiseImages,
                 settings: TrainingSettings, labels: np.ndarray | None = None, *, accumulate: int = 1,
                 compiled: bool = False, channels_last: bool = False, group: ProcessGroup | None = None) -> None:
        self.denoiser, self.sampler, self.data, self.settings, self.labels = denoiser, sampler, train, settings, labels
        self.device = next(denoiser.parameters()).device
        self.group, self.compiled = group, compiled
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        share = 0 if group is None else group.rank()
        divisions = accumulate * (1 if group is None else group.size())
        require_divisible(settings.batch, divisions)
        self.pieces = pieces(settings.batch, divisions)[share * accumulate:(share + 1) * accumulate]
        if channels_last:
            denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(denoiser.parameters(), lr=settings.learning_rate, fused=True)
        self._parameters: list[Tensor] = list(denoiser.parameters())
        self._averages: list[Tensor] = list(self.ema.parameters())
        if compiled:
            require_compiler()
            denoiser.net.compile()
        self.steps_done = 0
        self.losses: list[Tensor] = []
        """Losses of the last steps; whoever reports them clears the list."""

    def batch(self, step: int) -> Batch:
        """The whole batch of a step, counted from 0."""
        s, k = self.settings, step
        index = batch_indices(k, s.batch, len(self.data), s.seed)
        clean = torch.from_numpy(np.ascontiguousarray(self.data[index]))
        if s.flip:
            mirrored = torch.from_numpy(generator(s.seed, "flip", k).random(s.batch) < 0.5)
            clean[mirrored] = clean[mirrored].flip(-1)
        clean = self._moved(clean)
        labels = None if self.labels is None else self._moved(torch.from_numpy(self.labels[index]))
        sigma = torch.from_numpy(self.sampler.sample(s.batch, generator(s.seed, "training sigma", k)))
        draws = torch_generator(s.seed, "training noise", k, device=self.device.type)
        noise = torch.randn(clean.shape, generator=draws, device=self.device)
        return Batch(clean, noise, self._moved(sigma.float()), labels)

    def _moved(self, values: Tensor) -> Tensor:
        """On the device; a CUDA GPU fetches them while it still works on the step before."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else \
            values.to(self.device)

    def step(self) -> None:
        """Train on one batch; the loss is added to ``losses``. Raises LostProcess if another process has ended."""
        s, k = self.settings, self.steps_done
        batch = self.batch(k)
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate_at(k)
        if not self.denoiser.training:
            self.denoiser.train()
        losses = [self._add_gradient(batch.part(piece), piece.start) for piece in self.pieces]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        if self.group is not None:
            loss = self._reduced(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_done += 1
        self._average()
        self.losses.append(loss)

    def _add_gradient(self, piece: Batch, start: int) -> Tensor:
        """Add the gradient of the piece that begins at row ``start``; returns its part of the loss, a scalar."""
        s = self.settings
        torch.manual_seed(key(s.seed, "dropout", self.steps_done, *([start] if start else [])) & (2**63 - 1))
        clean, noise = piece.clean, piece.noise
        if clean.ndim == 4:
            clean, noise = (values.contiguous(memory_format=self.memory_format) for values in (clean, noise))
        with bfloat16_products(self.device) if s.precision == "bf16" else nullcontext():
            loss = denoising_loss(self.denoiser, clean, noise, piece.sigma, piece.labels) * (len(piece.sigma) / s.batch)
        loss.backward()
        return loss.detach()

    def _reduced(self, loss: Tensor) -> Tensor:
        """Replace the gradients by their sums over the processes; returns the summed loss. One message for all."""
        assert self.group is not None
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        flat = torch.cat([loss[None], *(gradient.reshape(-1) for gradient in gradients)])
        reduce([("sum", flat)], self.group)
        total_loss, *sums = flat.split([1, *(gradient.numel() for gradient in gradients)])
        for parameter, total in zip(self._parameters, sums, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(total.view(parameter.shape))
        return total_loss[0].clone()

    @property
    def mean_loss(self) -> float:
        """Mean of ``losses``."""
        return float(torch.stack(self.losses).mean())

    @torch.no_grad()
    def _average(self) -> None:
        s = self.settings
        halflife = min(s.ema_halflife, s.ema_rampup * self.steps_done * s.batch)
        weight = 1 - 0.5 ** (s.batch / max(halflife, 1e-8))
        torch._foreach_lerp_(self._averages, self._parameters, weight)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors (``steps_done`` is kept beside them)."""
        tensors = {f"denoiser.{name}": value for name, value in self.denoiser.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        if self.losses:
            tensors["losses"] = torch.stack(self.losses)
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor], steps_done: int) -> None:
        """Inverse of ``state``."""
        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}

        self.denoiser.load_state_dict(part("denoiser."))
        self.ema.load_state_dict(part("ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            index, moment = name.split(".", 1)
            like = self._parameters[int(index)]
            if value.shape == like.shape:
                # In memory like its parameter: fused AdamW goes through both as they lie there, whatever their axes.
                value = torch.empty_like(like).copy_(value).detach()
            moments.setdefault(int(index), {})[moment] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.losses = list(tensors["losses"].to(self.device).unbind()) if "losses" in tensors else []
        self.steps_done = steps_done


class TaughtTrainer(Trainer):
    """The target is not the clean point but what ``teacher`` makes of the noisy one.

    The loss compares D(clean + sigma noise, sigma) with clean. With the teacher's answer in the place of clean, and the
    noise that leads from it to the same noisy point, the same loss distils.
    """

    def __init__(self, *given: Any, teacher: nn.Module, **options: Any) -> None:
        super().__init__(*given, **options)
        self.teacher = teacher.to(self.device).eval()

    def _add_gradient(self, piece: Batch, start: int) -> Tensor:
        spread = expand_sigma(piece.sigma, piece.clean)
        noisy = piece.clean + spread * piece.noise
        with torch.no_grad():
            target = self.teacher(noisy, piece.sigma, piece.labels)
        return super()._add_gradient(Batch(target, (noisy - target) / spread, piece.sigma, piece.labels), start)


def require_divisible(batch: int, divisions: int) -> None:
    """Raises InputError unless each piece of a batch has a point."""
    if not 1 <= divisions <= batch:
        raise InputError(f"a batch of {batch} cannot be divided into {divisions} pieces; take a larger batch, or fewer "
                         "processes or accumulated pieces")


def require_compiler() -> None:
    """Raises InputError without a C++ compiler: torch.compile would fail deep inside, at the first step."""
    asked = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([asked] if asked else ["g++", "clang++"])):
        raise InputError(f"--compile: there is no C++ compiler {asked or 'g++ or clang++'} here; install one, name it "
                         "in the environment variable CXX, or leave --compile out")
