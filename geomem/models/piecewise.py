"""One denoiser per range of noise levels: best weights per noise level and Dodson et al.'s swap experiments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.denoiser import rows_of


class PiecewiseDenoiser(nn.Module):
    """Uses ``denoisers[k]`` for ``edges[k-1] <= sigma < edges[k]``; the first and last ranges are open.

    Where sigma is a number, or a tensor on the CPU, each point is given to one denoiser. A tensor elsewhere is not
    asked for its values: every point is given to every distinct denoiser, and the right estimates are taken.

    Parameters
    ----------
    denoisers : one more than there are edges; entries may repeat, and are then held once.
    edges : increasing noise levels in data units.
    """

    edges: Tensor
    choice: Tensor

    def __init__(self, denoisers: Sequence[nn.Module], edges: Sequence[float]) -> None:
        super().__init__()
        if len(denoisers) != len(edges) + 1:
            raise InputError(f"{len(edges)} edges need {len(edges) + 1} denoisers, not {len(denoisers)}")
        if any(a >= b for a, b in pairwise(edges)):
            raise InputError("the edges between denoisers must increase")
        distinct = list({id(denoiser): denoiser for denoiser in denoisers}.values())
        place = {id(denoiser): k for k, denoiser in enumerate(distinct)}
        self.denoisers = nn.ModuleList(distinct)
        # Twice: numbers are compared on the host, tensors where they are, with edges rounded up to float32.
        self._host_edges = torch.tensor(list(edges), dtype=torch.float64, device="cpu")
        self._host_choice = torch.tensor([place[id(denoiser)] for denoiser in denoisers], device="cpu")
        edge = self._host_edges.float()
        self.register_buffer("edges", torch.where(edge < self._host_edges, edge.nextafter(edge + torch.inf), edge))
        self.register_buffer("choice", self._host_choice.clone(), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate; the denoiser contract of ``geomem.models.denoiser``."""
        if isinstance(sigma, Tensor) and sigma.device.type != "cpu":
            chosen = self.choice[torch.bucketize(sigma.float(), self.edges, right=True).expand(len(x))]
            chosen = chosen.reshape(-1, *[1] * (x.ndim - 1))
            result = self.denoisers[0](x, sigma, labels, **conditioning)
            for k, denoiser in enumerate(self.denoisers[1:], start=1):
                result = torch.where(chosen == k, denoiser(x, sigma, labels, **conditioning), result)
            return result
        level = torch.as_tensor(sigma, dtype=torch.float64)
        chosen = self._host_choice[torch.bucketize(level, self._host_edges, right=True)]
        used = chosen.unique().tolist()
        if len(used) == 1:
            return self.denoisers[used[0]](x, sigma, labels, **conditioning)
        result = torch.empty_like(x, dtype=torch.float32)
        for k in used:
            rows = chosen == k
            part = rows_of(conditioning, rows, len(rows))
            result[rows] = self.denoisers[k](x[rows], level[rows], None if labels is None else labels[rows], **part)
        return result
