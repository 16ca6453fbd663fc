"""The denoiser contract, and the two parametrizations that turn a network into a denoiser.

Contract, everywhere in geomem: ``net(x, sigma, labels=None, **conditioning) -> x0`` with

    x             (B, ...) noisy points, clean + sigma noise (variance exploding, never rescaled), float32
    sigma         noise level in data units: a number, or a tensor of shape () or (B,)
    labels        (B,) integer classes, or None for an unconditional model
    conditioning  whatever else a network takes by name; networks of geomem take nothing else
    x0            (B, ...) the estimate of the clean points, float32

What the network inside really sees and predicts (scaled input, noise, timesteps) stays inside these classes. A forward
pass asks the device for no value, so nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.devices import widest_float
from geomem.noise.schedules import DDPMSchedule, NoiseSchedule


def expand_sigma(sigma: Tensor | float, x: Tensor) -> Tensor:
    """sigma, a number, () or (B,), as float32 of shape (B, 1, ...) that broadcasts against x, (B, ...)."""
    if isinstance(sigma, int | float):
        sigma = torch.full((), sigma, dtype=torch.float32, device=x.device)  # is filled on the device
    sigma = torch.as_tensor(sigma, dtype=torch.float32).to(x.device)  # mps takes no float64
    return sigma.expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))


class ClosedForm(nn.Module):
    """Computes in float64 from its buffers: they keep their precision, and stay on the CPU for a device without it."""

    mean: Tensor

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ClosedForm:
        for module in self.children():
            module._apply(fn)
        on = fn(torch.empty(0, device=self.mean.device)).device
        for name, buffer in self.named_buffers(recurse=False):
            self._buffers[name] = buffer.to(on if widest_float(on) == torch.float64 else "cpu")
        return self


class TimestepOfSigma(nn.Module):
    """The real-valued DDPM timestep of sigma (B,): linear in log sigma, clipped to [0, T-1]; float64 (mps: float32)."""

    table: Tensor

    def __init__(self, schedule: DDPMSchedule) -> None:
        super().__init__()
        levels = np.log(schedule.sigmas)
        self._table = torch.from_numpy(np.stack([levels, np.append(1 / np.diff(levels), 0.0)]))
        self.register_buffer("table", self._table, persistent=False)

    def forward(self, sigma: Tensor) -> Tensor:
        levels, slopes = self.table
        level = sigma.to(levels.dtype).log()
        below = (torch.searchsorted(levels, level, right=True) - 1).clamp(min=0)
        return (slopes[below] * (level - levels[below]) + below).clamp(min=0)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TimestepOfSigma:
        on = fn(self.table[:0].float()).device  # another device, but no precision that is asked for
        self.table = self._table.to(widest_float(on)).to(on)
        return self


class Denoiser(nn.Module):
    """A trainable denoiser around ``net(x, noise_label, labels, **conditioning) -> output`` of the shape of x."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate; see the contract in the module docstring."""
        raise NotImplementedError

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error of the clean estimate in the training loss, shape of sigma."""
        raise NotImplementedError


def own_schedule(denoiser: nn.Module) -> NoiseSchedule | None:
    """The schedule of the timesteps that a denoiser's network, or that of one it is made of, knows; None for none."""
    schedules = (getattr(module, "schedule", None) for module in denoiser.modules())
    return next((schedule for schedule in schedules if isinstance(schedule, NoiseSchedule)), None)


def rows_of(conditioning: Any, rows: Tensor, count: int, device: torch.device | None = None) -> Any:
    """The conditioning of some of ``count`` points: ``rows`` of every tensor or array that has one entry for each of
    them, in mappings inside it too; the rest as it is. Tensors come to ``device``, or stay where they are.
    """
    if isinstance(conditioning, Mapping):
        return {name: rows_of(value, rows, count, device) for name, value in conditioning.items()}
    if isinstance(conditioning, np.ndarray):
        conditioning = torch.from_numpy(conditioning)
    if not isinstance(conditioning, Tensor):
        return conditioning
    if conditioning.shape[:1] == (count,):
        conditioning = conditioning[rows.to(conditioning.device)]
    return conditioning if device is None else conditioning.to(device)


class EDMDenoiser(Denoiser):
    """EDM preconditioning, Karras et al. 2022, Table 1 and Eq. 7-8.

    ``D = c_skip x + c_out F(c_in x, c_noise)`` with ``c_skip = sd^2/(s^2+sd^2)``, ``c_out = s sd/sqrt(s^2+sd^2)``,
    ``c_in = 1/sqrt(s^2+sd^2)``, ``c_noise = log(s)/4`` and loss weight ``1/c_out^2``, which makes the loss that of F
    against a target of unit variance. ``sigma_data`` (sd) is the standard deviation of the data, in data units.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__(net)
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        s, sigma_data = expand_sigma(sigma, x), self.sigma_data
        variance = s**2 + sigma_data**2
        root = variance.sqrt()  # 1 / c_in
        c_skip, c_out, c_noise = sigma_data**2 / variance, s * sigma_data / root, s.flatten().log() / 4
        x = x.float()
        return c_skip * x + c_out * self.net(x / root, c_noise, labels, **conditioning).float()

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


class EpsilonDenoiser(Denoiser):
    """DDPM noise prediction (Ho et al. 2020): the network sees ``x_VP = x / sqrt(1 + sigma^2)`` and a timestep.

    ``D = x - sigma eps(x_VP, t)``; the loss weight ``1 / sigma^2`` makes the loss that of the noise,
    ``|eps - Z|^2``. Between timesteps t is linear in log sigma. The network's noise label is ``t / T`` so that one
    network serves both parametrizations at similar scale.
    """

    def __init__(self, net: nn.Module, schedule: DDPMSchedule | None = None) -> None:
        super().__init__(net)
        self.schedule = schedule or DDPMSchedule()
        self.timestep = TimestepOfSigma(self.schedule)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        s, x = expand_sigma(sigma, x), x.float()
        noise_label = (self.timestep(s.flatten()) / self.schedule.timesteps).float()
        return x - s * self.net(x / (1 + s**2).sqrt(), noise_label, labels, **conditioning).float()

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma**2


class FixedClass(nn.Module):
    """``denoiser(x, sigma, label)``, whatever labels are given: to all that knows no classes an ordinary denoiser."""

    def __init__(self, denoiser: nn.Module, label: int) -> None:
        super().__init__()
        self.denoiser, self.label = denoiser, label

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate of ``x`` (B, ...)."""
        labels = torch.full((len(x),), self.label, dtype=torch.int64, device=x.device)
        return self.denoiser(x, sigma, labels, **conditioning)
