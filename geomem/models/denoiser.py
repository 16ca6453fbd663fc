"""The denoiser contract, and the two parametrizations that turn a network into a denoiser.

Contract, everywhere in geomem: ``net(x, sigma, labels=None) -> x0`` with

    x       (B, ...) noisy points, clean + sigma noise (variance exploding, never rescaled), float32
    sigma   () or (B,) noise level in data units
    labels  (B,) integer classes, or None for an unconditional model
    x0      (B, ...) the estimate of the clean points, float32

What the network inside really sees and predicts (scaled input, noise, timesteps) stays inside these classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from geomem.noise.schedules import DDPMSchedule


def expand_sigma(sigma: Tensor | float, x: Tensor) -> Tensor:
    """sigma, () or (B,), as float32 of shape (B, 1, ...) that broadcasts against x, (B, ...)."""
    sigma = torch.as_tensor(sigma, dtype=torch.float32, device=x.device)
    return sigma.expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))


class Denoiser(nn.Module):
    """A trainable denoiser around ``net(x, noise_label, labels) -> output`` of the shape of x."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """Clean estimate; see the contract in the module docstring."""
        raise NotImplementedError

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error of the clean estimate in the training loss, shape of sigma."""
        raise NotImplementedError


class EDMDenoiser(Denoiser):
    """EDM preconditioning, Karras et al. 2022, Table 1 and Eq. 7-8.

    ``D = c_skip x + c_out F(c_in x, log(sigma) / 4)`` with ``c_skip = sd^2/(s^2+sd^2)``,
    ``c_out = s sd/sqrt(s^2+sd^2)``, ``c_in = 1/sqrt(s^2+sd^2)`` and loss weight ``(s^2+sd^2)/(s sd)^2``, which
    makes the loss that of F against a target of unit variance. ``sigma_data`` (sd) is the standard deviation of
    the data, in data units.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__(net)
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        s, sd = expand_sigma(sigma, x), self.sigma_data
        norm = s**2 + sd**2
        x = x.float()
        output = self.net(x / norm.sqrt(), s.flatten().log() / 4, labels)
        return (sd**2 / norm) * x + (s * sd / norm.sqrt()) * output.float()

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

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        s = expand_sigma(sigma, x)
        t = self.schedule.timestep(s.flatten().cpu().numpy().astype(np.float64)) / self.schedule.timesteps
        x = x.float()
        noise_label = torch.as_tensor(t, dtype=torch.float32, device=x.device)
        return x - s * self.net(x / (1 + s**2).sqrt(), noise_label, labels).float()

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma**2
