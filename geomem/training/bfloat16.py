"""Products in bfloat16: torch's autocast, and on a CPU a group norm that is fast with channels innermost.

On a CPU with bfloat16 units convolutions are fastest with the channels of an image innermost in memory, but there
torch's group norm takes ten times as long, more than all that they gain. Here, with c = x - pivot the values of a
channel less a number near their mean, r = 1 / sqrt(variance + eps) and d = pivot - mean of the group, y = a c + b,
a = weight r, b = bias + a d. Sums are float32; what is rounded is small beside the spread of the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def bfloat16_products(device: torch.device, compiled: bool = False) -> Iterator[None]:
    """Within it networks compute in bfloat16; torch's compiler makes a fast group norm itself."""
    on_cpu = device.type == "cpu"
    attention = sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()  # the fused one is slow in bfloat16
    with (torch.autocast(device.type, torch.bfloat16), attention,
          _FastGroupNorm() if on_cpu and not compiled else nullcontext()):
        yield


class _FastGroupNorm(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (group_norm if func is F.group_norm else func)(*args, **(kwargs or {}))


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """torch's, another way for bfloat16 images (N, C, H, W) with the channels innermost."""
    if (weight is None or bias is None or input.ndim != 4 or input.dtype != torch.bfloat16 or input.is_inference()
            or not input.is_contiguous(memory_format=torch.channels_last)):
        return F.group_norm(input, num_groups, weight, bias, eps)
    rows = _GroupNorm.apply(input.permute(0, 2, 3, 1).flatten(1, 2), num_groups, weight, bias, eps)
    return rows.unflatten(1, input.shape[2:]).permute(0, 3, 1, 2)


class _GroupNorm(torch.autograd.Function):
    # Of (N, pixels, C). With S = sum dy (c + d), T = sum dy over the pixels and < > means over the channels of a
    # group, dx = a dy + p c + q, p = -r^3 <weight S> / pixels, q = p d - r <weight T> / pixels.
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        pivot = x[:, ::16].mean(1)
        c = x - pivot[:, None]
        residual, square = (_sums(part) / x.shape[1] for part in (c, c * c))
        offset = pivot - _group_means(pivot + residual, groups)
        r = (_group_means(square + offset * (2 * residual + offset), groups) + eps).rsqrt()
        a = (weight * r).bfloat16()
        ctx.groups = groups
        ctx.save_for_backward(x, weight, pivot, offset, r, a)
        return torch.addcmul((bias + a * offset).bfloat16()[:, None], c, a[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, pivot, offset, r, a = ctx.saved_tensors
        c, t = x - pivot[:, None], _sums(dy)
        s = _sums(dy * c) + offset * t
        p = (_group_means(weight * s, ctx.groups) * -r**3 / x.shape[1]).bfloat16()
        q = p * offset - _group_means(weight * t, ctx.groups) * r / x.shape[1]
        dx = torch.addcmul(q.bfloat16()[:, None], c, p[:, None]).addcmul_(dy, a[:, None])
        return dx, None, (s * r).sum(0), t.sum(0), None


def _sums(rows: Tensor) -> Tensor:
    """(N, C) float32 sums over the pixels of (N, pixels, C), of at most 64 at a time in bfloat16."""
    return sum((part.sum(1).float() for part in rows.split(64, 1)), torch.zeros((), device=rows.device))


def _group_means(values: Tensor, groups: int) -> Tensor:
    """Means of (N, C) over the channels of each group, repeated for each of them."""
    return values.unflatten(1, (groups, -1)).mean(2).repeat_interleave(values.shape[1] // groups, 1)
