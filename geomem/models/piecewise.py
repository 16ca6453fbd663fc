"""One denoiser per range of noise levels: best weights per noise level and [G]'s swap experiments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from geomem.errors import InputError


class PiecewiseDenoiser(nn.Module):
    """Uses ``denoisers[k]`` for ``edges[k-1] <= sigma < edges[k]``; the first and last ranges are open.

    Parameters
    ----------
    denoisers : one more than there are edges; entries may repeat, and are then held once.
    edges : increasing noise levels in data units.
    """

    edges: Tensor

    def __init__(self, denoisers: Sequence[nn.Module], edges: Sequence[float]) -> None:
        super().__init__()
        if len(denoisers) != len(edges) + 1:
            raise InputError(f"{len(edges)} edges need {len(edges) + 1} denoisers, not {len(denoisers)}")
        if any(a >= b for a, b in pairwise(edges)):
            raise InputError("the edges between denoisers must increase")
        distinct = list({id(denoiser): denoiser for denoiser in denoisers}.values())
        place = {id(denoiser): k for k, denoiser in enumerate(distinct)}
        self.denoisers = nn.ModuleList(distinct)
        self.choice = [place[id(denoiser)] for denoiser in denoisers]
        self.register_buffer("edges", torch.tensor(list(edges), dtype=torch.float64))

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """Clean estimate; the denoiser contract of ``geomem.models.denoiser``."""
        sigma = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
        ranges = torch.bucketize(sigma, self.edges, right=True)
        chosen = torch.tensor(self.choice, device=x.device)[ranges]
        if chosen.numel() == 1 or bool((chosen == chosen.flatten()[0]).all()):
            return self.denoisers[int(chosen.flatten()[0])](x, sigma, labels)
        result = torch.empty_like(x, dtype=torch.float32)
        for k in chosen.unique().tolist():
            rows = chosen == k
            result[rows] = self.denoisers[k](x[rows], sigma[rows], None if labels is None else labels[rows])
        return result
