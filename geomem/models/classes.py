"""A class-conditional denoiser asked for one class: to everything that knows no classes it is an ordinary denoiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FixedClass(nn.Module):
    """``denoiser(x, sigma, label)``, whatever labels are given; the contract of ``geomem.models.denoiser``."""

    def __init__(self, denoiser: nn.Module, label: int) -> None:
        super().__init__()
        self.denoiser, self.label = denoiser, label

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None,
                **conditioning: Any) -> Tensor:
        """Clean estimate of ``x`` (B, ...)."""
        labels = torch.full((len(x),), self.label, dtype=torch.int64, device=x.device)
        return self.denoiser(x, sigma, labels, **conditioning)
