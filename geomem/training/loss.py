"""The denoising loss. It receives noise and sigma; only a noise-level sampler ever chooses sigma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.devices import widest_float
from geomem.models.denoiser import Denoiser, expand_sigma, rows_of


def denoising_loss(denoiser: Denoiser, clean: Tensor, noise: Tensor, sigma: Tensor,
                   labels: Tensor | None = None, **conditioning: Any) -> Tensor:
    """Weighted squared error of the clean estimate, averaged over values and batch; a scalar.

    ``clean`` and standard normal ``noise`` have shape (B, ...), ``sigma`` shape (B,). The weight is the denoiser's
    own (EDM: Karras et al. 2022, Eq. 2 and Table 1; DDPM: the simple loss on the noise).
    """
    estimate = denoiser(clean + expand_sigma(sigma, clean) * noise, sigma, labels, **conditioning)
    error = (estimate - clean).square().flatten(1).mean(1)
    return (denoiser.loss_weight(sigma) * error).mean()


@torch.no_grad()
def heldout_losses(denoiser: nn.Module, clean: Tensor, noise: Tensor, sigmas: Sequence[float],
                   labels: Tensor | None = None, conditioning: Mapping[str, Any] | None = None,
                   chunk: int = 512) -> np.ndarray:
    """Mean squared denoising error per value at each noise level, shape (S,), float64; on mps the sums are float32.

    ``clean`` and ``noise`` have shape (M, ...), ``labels`` and the tensors of ``conditioning`` one entry for each. All
    levels use the same noise, and repeated calls with the same noise are comparable far beyond their sampling error.
    """
    totals = torch.zeros(len(sigmas), dtype=widest_float(clean.device), device=clean.device)
    for start in range(0, len(clean), chunk):
        part = slice(start, start + chunk)
        classes = None if labels is None else labels[part]
        given = rows_of(conditioning or {}, torch.arange(len(clean))[part], len(clean), clean.device)
        for k, sigma in enumerate(sigmas):
            estimate = denoiser(clean[part] + sigma * noise[part], sigma, classes, **given)
            totals[k] += (estimate - clean[part]).to(totals.dtype).square().sum()
    return totals.cpu().double().numpy() / clean.numel()
