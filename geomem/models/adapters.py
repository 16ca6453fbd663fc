"""Denoisers around networks that geomem did not make: noise, v, clean-point or velocity prediction over sigma,
timesteps or flow times.

With ``x = clean + sigma Z`` (variance exploding), ``abar = 1 / (1 + sigma^2)`` and ``x_VP = sqrt(abar) x``, a network's
answer F is one of three, and the clean estimate follows:

    epsilon   F = Z                                       D = x - sigma F
    v         F = sqrt(abar) Z - sqrt(1 - abar) clean     D = abar x - sqrt(1 - abar) F     (Salimans and Ho 2022)
    x0        F = clean                                   D = F

With flow times s (``noise.flow_schedule``) a network sees ``x_s = x / (1 + sigma)``, ``s = sigma / (1 + sigma)``, and
predicts the velocity:

    velocity  F = Z - clean (diffusers) or clean - Z (MONAI)             D = x_s - s F or x_s + s F

Any module serves whose forward takes ``(x, noise level)``, and ``(x, noise level, labels)`` where classes are given, by
position, or ``timestep`` and ``class_labels`` by name where it has them elsewhere, and other conditioning by name
(``encoder_hidden_states``, ``added_cond_kwargs``, ``pooled_projections``, ``guidance``, ...); it answers
with a tensor, a tuple that begins with one, or an object with ``.sample``, as diffusers' do::

    denoiser = TimestepDenoiser(unet, scheduler.alphas_cumprod)      # diffusers: UNet2DModel and DDPMScheduler
    denoiser = VelocityDenoiser(transformer)                         # diffusers: SD3; of FLUX: time_scale=1
    denoiser = SigmaDenoiser(net, "v", scaling="vp")                 # a network of sigma that sees x_VP
    denoiser = EDMDenoiser(ForeignNetwork(unet), sigma_data=0.5)     # diffusers: EDMEulerScheduler
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.denoiser import Denoiser, TimestepOfSigma, expand_sigma
from geomem.noise.flow_schedule import FlowSchedule
from geomem.noise.schedules import DDPMSchedule

PREDICTIONS = ("epsilon", "v", "x0")
_ON_TIMESTEP = 1e-3  # a float32 sigma gives its timestep back to about 1e-5


class ForeignNetwork(nn.Module):
    """Any network as ``net(x, noise_level, labels) -> output``: float32, of the shape of x.

    It is given x in the precision of its weights. Of a diffusers network with twice as many output as input channels,
    which also predicts a variance, the first half is the answer. Raises InputError where the answer has another shape,
    and for no labels or no prompt where a diffusers network needs them.
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        try:
            names = list(inspect.signature(getattr(network, "forward", network)).parameters)
        except ValueError:  # of a callable that is not written in Python
            names = []
        self._time_by_name = "timestep" in names and names.index("timestep") != 1
        self._labels_by_name = "class_labels" in names
        self._prompts = [name for name in ("encoder_hidden_states", "pooled_projections")
                         if name in names and hasattr(network, "config")]

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        config = getattr(self.network, "config", None)
        if labels is None and getattr(config, "num_class_embeds", None):
            raise InputError("the network is class-conditional and answers for no point without its class; give labels")
        if missing := [name for name in self._prompts if name not in conditioning]:
            raise InputError(f"the network needs {missing[0]}, which stands for the prompt of each point; give it by "
                             "name (conditioning=... of Monitor and generate)")
        parameters = self.network.parameters() if isinstance(self.network, nn.Module) else ()
        dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
        if noise_level.is_floating_point() and dtype == torch.float64:
            noise_level = noise_level.double()  # half precision would round timesteps
        arguments = [x.to(dtype)]
        if self._time_by_name:
            conditioning["timestep"] = noise_level
        else:
            arguments.append(noise_level)
        if labels is not None and self._labels_by_name:
            conditioning["class_labels"] = labels
        elif labels is not None:
            arguments.append(labels)
        answer = self.network(*arguments, **conditioning)
        if not isinstance(answer, Tensor):
            answer = answer[0] if isinstance(answer, tuple) else answer.sample
        if getattr(config, "out_channels", None) == 2 * x.shape[1]:
            answer = answer[:, :x.shape[1]]
        if answer.shape != x.shape:
            raise InputError(f"the network answers points of shape {tuple(x.shape[1:])} with "
                             f"{tuple(answer.shape[1:])}; wrap it so that both are the same")
        return answer.float()


class PredictionDenoiser(Denoiser):
    """A denoiser whose network predicts ``epsilon``, ``v`` or ``x0``; see the module docstring."""

    def __init__(self, network: Callable[..., Any], prediction: str) -> None:
        super().__init__(ForeignNetwork(network))
        if prediction not in PREDICTIONS:
            raise InputError(f"unknown prediction {prediction!r}; choose one of {', '.join(PREDICTIONS)}")
        self.prediction = prediction

    def clean_estimate(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """D of the network's output (B, ...), x (B, ...) and sigma of a shape that broadcasts."""
        if self.prediction == "epsilon":
            return x - sigma * output
        if self.prediction == "v":
            return x / (1 + sigma**2) - sigma / (1 + sigma**2).sqrt() * output
        return output

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """The weight that makes the loss that of the network's own target."""
        return {"epsilon": 1 / sigma**2, "v": 1 + 1 / sigma**2, "x0": torch.ones_like(sigma)}[self.prediction]


class SigmaDenoiser(PredictionDenoiser):
    """A network of a continuous noise level: ``network(x_in, sigma, labels)``, sigma of shape (B,).

    ``scaling`` says what x_in is: ``ve`` the noisy point itself, ``vp`` the point divided by ``sqrt(1 + sigma^2)``.
    """

    def __init__(self, network: Callable[..., Any], prediction: str = "epsilon", *, scaling: str = "ve") -> None:
        super().__init__(network, prediction)
        if scaling not in ("ve", "vp"):
            raise InputError(f"unknown scaling {scaling!r}; choose ve or vp")
        self.scaling = scaling

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        s, x = expand_sigma(sigma, x), x.float()
        seen = x if self.scaling == "ve" else x / (1 + s**2).sqrt()
        return self.clean_estimate(self.net(seen, s.flatten(), labels, **conditioning), x, s)


class TimestepDenoiser(PredictionDenoiser):
    """A network of DDPM timesteps: ``network(x_VP, t, labels)``, t of shape (B,).

    Parameters
    ----------
    alphas_cumprod : (T,) decreasing signal fractions, or a schedule that holds them.
    between : a sigma between two timesteps becomes the real t that is linear in log sigma (``interpolate``), or the
        integer nearest to that (``nearest``), for networks that look t up in a table. Beyond the ends t is clipped. x
        is scaled by its true sigma in every case.
    """

    def __init__(self, network: Callable[..., Any], alphas_cumprod: DDPMSchedule | Sequence[float] | Tensor,
                 prediction: str = "epsilon", *, between: str = "interpolate") -> None:
        super().__init__(network, prediction)
        if between not in ("interpolate", "nearest"):
            raise InputError(f"between timesteps: {between!r} is unknown; choose interpolate or nearest")
        self.schedule = (alphas_cumprod if isinstance(alphas_cumprod, DDPMSchedule)
                         else DDPMSchedule.from_alpha_bar(np.asarray(alphas_cumprod, dtype=np.float64)))
        self.timestep = TimestepOfSigma(self.schedule)
        self.between = between

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        s, x = expand_sigma(sigma, x), x.float()
        t = self.timestep(s.flatten())
        nearest = t.round()
        if self.between == "nearest":
            t = nearest.long()
        else:
            t = torch.where((t - nearest).abs() < _ON_TIMESTEP, nearest, t).float()
        return self.clean_estimate(self.net(x / (1 + s**2).sqrt(), t, labels, **conditioning), x, s)


class VelocityDenoiser(Denoiser):
    """A network of flow times: ``network(x_s, time_scale s, labels)`` predicts ``sign (Z - clean)``.

    Parameters
    ----------
    sign : +1 for diffusers, SD3 and FLUX, -1 for MONAI's RFlowScheduler and Lipman et al.'s direction.
    schedule : the flow times that the network was trained on, or their scheduler; None is 1,000 without a shift.
    time_scale : what s is multiplied by for the network; None is the number of the schedule's timesteps.

    The loss weight ``(1 + sigma)^2 / sigma^2`` makes the loss that of the velocity. It stays as it is below sigma 1e-5,
    where nothing but rounding would be left of the error that it multiplies.
    """

    def __init__(self, network: Callable[..., Any], sign: int = +1, *, schedule: Any = None,
                 time_scale: float | None = None) -> None:
        super().__init__(ForeignNetwork(network))
        if sign not in (1, -1):
            raise InputError(f"the sign of a velocity is +1 (noise - clean) or -1 (clean - noise), not {sign!r}")
        self.sign, self.schedule = int(sign), FlowSchedule.of(schedule)
        self.time_scale = float(self.schedule.timesteps if time_scale is None else time_scale)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        sigma, x = expand_sigma(sigma, x), x.float()
        seen, s = x / (1 + sigma), sigma / (1 + sigma)
        return seen - self.sign * s * self.net(seen, self.time_scale * s.flatten(), labels, **conditioning)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        return ((1 + sigma) / sigma.clamp(min=1e-5)) ** 2
