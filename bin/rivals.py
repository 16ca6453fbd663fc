"""What others propose against memorization, as ways of bin/prevention-study: the plain training but for one thing.

ambient              Shah et al. 2025 (arXiv 2502.21278): above one noise level the network sees noisy points alone
softened weights     the target is the posterior mean of the training points at twice the temperature (arXiv 2601.19285)
U-shaped law         of flow times (arXiv 2603.13421), beside flow matching with its usual law
clean, epsilon       what the network predicts; flow matching predicts the velocity
dropout, weight decay, a third of the width
                     what textbooks advise
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from geomem import danger_zone
from geomem.errors import InputError
from geomem.models import EDMDenoiser, EmpiricalDenoiser
from geomem.models.denoiser import Denoiser, expand_sigma
from geomem.models.networks import NETWORKS
from geomem.rng import torch_generator
from geomem.training import TrainingPlan
from geomem.training.trainer import Batch, TaughtTrainer, Trainer, batch_indices

Preconditioned = TypeVar("Preconditioned", bound=EDMDenoiser)
TEMPERATURE = 2.0
WEIGHT_DECAY = 1.0  # of AdamW, a hundred times its default


class SoftenedEmpirical(nn.Module):
    """The empirical denoiser with posterior weights ``exp(-|x - x_i|^2 / (2 temperature sigma^2))``."""

    def __init__(self, train: np.ndarray, temperature: float) -> None:
        super().__init__()
        self.denoiser, self.factor = EmpiricalDenoiser(torch.from_numpy(np.array(train))), temperature**0.5

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.denoiser(x, self.factor * sigma)


class AmbientDenoiser(EDMDenoiser):
    """The loss of ``AmbientTrainer`` weighs the error of the denoised *noisy* point, above ``level``.

    With y = x_0 + s_n z and x = y + sqrt(s^2 - s_n^2) noise, E[s_n z | x, x_0] = (s_n / s)^2 (x - x_0), so the estimate
    of y is ``((s^2 - s_n^2) D(x, s) + s_n^2 x) / s^2``. Its error is that of D against the target of
    ``AmbientTrainer``, times ``1 - (s_n / s)^2``.
    """

    level: float

    def loss_weight(self, sigma: Tensor) -> Tensor:
        share = 1 - (self.level / sigma) ** 2
        return super().loss_weight(sigma) * torch.where(sigma > self.level, share**2, 1.0)


class AmbientTrainer(Trainer):
    """Above the noise level s_n of an ``AmbientDenoiser`` each training point comes with one noise of that level, the
    same at every step; below it clean points are trained on as usual.
    """

    denoiser: AmbientDenoiser

    def batch(self, step: int) -> Batch:
        clean, noise, sigma, labels = super().batch(step)
        settings, level = self.settings, self.denoiser.level
        above = sigma > level
        index = batch_indices(step, settings.batch, len(self.data), settings.seed)[above.numpy()]
        fixed = torch.randn((len(self.data), *clean.shape[1:]),
                            generator=torch_generator(settings.seed, "noise of ambient points"))[index]
        s = expand_sigma(sigma[above], clean[above])
        seen, beyond = clean[above] + level * fixed, s**2 - level**2
        noisy = seen + beyond.sqrt() * noise[above]
        target = (s**2 * seen - level**2 * noisy) / beyond
        clean[above], noise[above] = target, (noisy - target) / s
        return Batch(clean, noise, sigma, labels)


class CleanDenoiser(EDMDenoiser):
    """``D = F(c_in x, c_noise)``: the network predicts the clean point, with the loss weights of EDM."""

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        s = expand_sigma(sigma, x)
        root = (s**2 + self.sigma_data**2).sqrt()
        return self.net(x.float() / root, s.flatten().log() / 4, labels, **conditioning).float()


def plain(plan: TrainingPlan, kind: type[Trainer] = Trainer, denoiser: Denoiser | None = None, **given: Any) -> Trainer:
    """The trainer of a plan, of another kind or for another denoiser."""
    return kind(plan.denoiser() if denoiser is None else denoiser, plan.law.law, plan.classes.train, plan.settings,
                plan.classes.labels, **given)


def ambient(plan: TrainingPlan) -> Trainer:
    """From the middle of the danger zone upwards, where W and C cross."""
    denoiser = _preconditioned(AmbientDenoiser, plan)
    zone = danger_zone(plan.dataset.train, plan.dataset.validation).zone
    if zone is None:
        raise InputError("no danger zone, and so no noise level from which on the points are noisy")
    denoiser.level = zone.crossing
    return plain(plan, AmbientTrainer, denoiser)


def softened(plan: TrainingPlan) -> Trainer:
    """The target is the answer of ``SoftenedEmpirical``."""
    return plain(plan, TaughtTrainer, teacher=SoftenedEmpirical(np.asarray(plan.dataset.train), TEMPERATURE))


def clean(plan: TrainingPlan) -> Trainer:
    return plain(plan, denoiser=_preconditioned(CleanDenoiser, plan))


def decayed(plan: TrainingPlan) -> Trainer:
    """Weights decay by ``WEIGHT_DECAY`` times the learning rate in a step."""
    trainer = plain(plan)
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = WEIGHT_DECAY
    return trainer


def slimmed(plan: TrainingPlan) -> Trainer:
    """The same network of a third of the width, about a ninth of the weights."""
    denoiser, preset = plan.denoiser(), NETWORKS[plan.config["network"]]
    width = "width" if "width" in preset.options else "channels"
    options = preset.options | {width: preset.options[width] // 3}
    denoiser.net = preset.network(tuple(plan.dataset.train.shape[1:]), dropout=0.0, classes=None, **options)
    return plain(plan, denoiser=denoiser)


def _preconditioned(kind: type[Preconditioned], plan: TrainingPlan) -> Preconditioned:
    """An EDM denoiser of another kind, with the same initial weights."""
    denoiser = plan.denoiser()
    assert isinstance(denoiser, EDMDenoiser)
    return kind(denoiser.net, denoiser.sigma_data)
