"""One training step after another, and a state that continues bit for bit.

Every draw of step k comes from generators keyed by (seed, purpose, k), so the state is only weights, averaged
weights and optimizer moments: nothing about random generators or the data order has to be saved.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from geomem.data.points import Values
from geomem.errors import InputError
from geomem.models.denoiser import Denoiser
from geomem.noise.samplers import NoiseLevelSampler
from geomem.rng import generator, key, torch_generator
from geomem.training.loss import denoising_loss


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


class Trainer:
    """Trains a denoiser with AdamW and keeps an exponential moving average of its weights.

    Parameters
    ----------
    denoiser : trained in place, on its own device; ``trainer.ema`` is the averaged copy.
    sampler : chooses the noise levels.
    train : (N, ...) float32 points, an array, a memory map or stored points. labels : (N,) classes or None.
    """

    def __init__(self, denoiser: Denoiser, sampler: NoiseLevelSampler, train: Values, settings: TrainingSettings,
                 labels: np.ndarray | None = None) -> None:
        self.denoiser, self.sampler, self.data, self.settings, self.labels = denoiser, sampler, train, settings, labels
        self.ema = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(denoiser.parameters(), lr=settings.learning_rate, fused=True)
        self.device = next(denoiser.parameters()).device
        self.steps_done = 0
        self.losses: list[Tensor] = []
        """Losses of the last steps; whoever reports them clears the list."""

    def step(self) -> None:
        """Train on one batch; the loss is added to ``losses``."""
        s, k = self.settings, self.steps_done
        index = batch_indices(k, s.batch, len(self.data), s.seed)
        clean = torch.from_numpy(np.ascontiguousarray(self.data[index])).to(self.device)
        if s.flip:
            mirrored = torch.from_numpy(generator(s.seed, "flip", k).random(s.batch) < 0.5).to(self.device)
            clean[mirrored] = clean[mirrored].flip(-1)
        labels = None if self.labels is None else torch.from_numpy(self.labels[index]).to(self.device)
        sigma = torch.from_numpy(self.sampler.sample(s.batch, generator(s.seed, "training sigma", k)))
        sigma = sigma.float().to(self.device)
        draws = torch_generator(s.seed, "training noise", k, device=self.device.type)
        noise = torch.randn(clean.shape, generator=draws, device=self.device)
        torch.manual_seed(key(s.seed, "dropout", k) & (2**63 - 1))
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate_at(k)
        self.denoiser.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            loss = denoising_loss(self.denoiser, clean, noise, sigma, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_done += 1
        self._average()
        self.losses.append(loss.detach())

    @property
    def mean_loss(self) -> float:
        """Mean of ``losses``."""
        return float(torch.stack(self.losses).mean())

    @torch.no_grad()
    def _average(self) -> None:
        s = self.settings
        halflife = min(s.ema_halflife, s.ema_rampup * self.steps_done * s.batch)
        weight = 1 - 0.5 ** (s.batch / max(halflife, 1e-8))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.denoiser.parameters()), weight)

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
            moments.setdefault(int(index), {})[moment] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.losses = list(tensors["losses"].to(self.device).unbind()) if "losses" in tensors else []
        self.steps_done = steps_done
