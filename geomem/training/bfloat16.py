"""Products in bfloat16, and what a CPU needs beside torch's autocast to gain by them.

Weights, their averages, the optimizer and the loss stay float32; activations are bfloat16, which carries 8 bits. On a
CPU with bfloat16 units convolutions are fastest with the channels of an image innermost in memory, but there torch's
group norm takes ten times as long as with the channels outermost, and more than all that the convolutions gain. Its
attention is several times slower in bfloat16 than in float32. Both are written out here in operations that are fast.

Group norm takes, with c = x - pivot the values of a channel less a number near their mean,

    y = a c + b,   a = w r,   b = bias + a d,   r = 1 / sqrt(variance + eps),   d = pivot - mean

where mean and variance are those of the group; with S = sum dy (c + d) and T = sum dy over the pixels of a channel,
and < > the mean over the channels of a group, divided by the number of pixels,

    dx = a dy + p c + q,   p = -r^3 <w S>,   q = p d - r <w T>,   dw = sum r S,   dbias = sum T.

Sums are taken in float32, and a and p are rounded before b and q are computed from them: what is rounded is small
beside the spread of the values, however far they are from zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

PIXELS_PER_PIVOT = 16  # one in so many pixels is looked at for the pivot of group norm
# diffusers lays images out anew here against a fault of old torch and a warning of DDP; nothing depends on the layout,
# and a step of ``unet-small`` takes 16% longer by it. Elsewhere a network may need what it asks for.
LAID_OUT_ANEW_IN = ("diffusers.models.resnet", "diffusers.models.upsampling")
ROWS_OF_A_SUM = 64  # pixels in a sum that is rounded to bfloat16: the total of 16 of them is four times as precise


@contextmanager
def bfloat16_products(device: torch.device, compiled: bool = False) -> Iterator[None]:
    """Within it networks compute in bfloat16; a ``compiled`` one is fused by torch's compiler instead.

    On a CPU, ``torch.utils.checkpoint`` must not be used in it with ``use_reentrant=False``: what it computes again
    while going backward is outside, where torch saves other tensors, and it raises CheckpointError.
    """
    with torch.autocast(device.type, torch.bfloat16):
        if device.type != "cpu":
            yield
        elif compiled:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            with _FastOnCPU():
                yield


class _FastOnCPU(TorchFunctionMode):
    """Calls what is fast in the place of what is asked for, with the same result up to rounding, in any network."""

    def __init__(self) -> None:
        super().__init__()
        self.doubled: _Doubled | None = None

    def __torch_function__(self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and _is_plain_attention(*args, **kwargs):
            return attention(*args)
        if not (args and isinstance(args[0], Tensor) and _is_halved_image(args[0])):
            return func(*args, **kwargs)
        if func is F.group_norm and _is_scaled_and_shifted(*args, **kwargs):
            return group_norm(*args, **kwargs)
        if func is Tensor.contiguous and sys._getframe(1).f_globals.get("__name__") in LAID_OUT_ANEW_IN:
            return args[0]
        if func is F.conv2d and self.doubled is not None and self.doubled.is_still(args[0]) and _is_three_by_three(
                args):
            small, self.doubled = self.doubled.small, None
            return convolution_after_doubling(small, args[1], args[2])
        result = func(*args, **kwargs)
        if func is F.interpolate and kwargs.get("mode", "nearest") == "nearest" and kwargs.get("scale_factor") == 2:
            self.doubled = _Doubled(result, args[0], (result._version, args[0]._version))
        return result


@dataclass(frozen=True, eq=False)
class _Doubled:
    """The last image of twice the size, the one that it was made from, and how often each was written to by then."""

    large: Tensor
    small: Tensor
    versions: tuple[int, int]

    def is_still(self, x: Tensor) -> bool:
        """Whether x is the large image, and neither was changed in place."""
        return x is self.large and (self.large._version, self.small._version) == self.versions


def _is_halved_image(x: Tensor) -> bool:
    return (x.ndim == 4 and x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_inference())


def _is_scaled_and_shifted(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
                           eps: float = 1e-5) -> bool:
    return weight is not None and bias is not None


def convolution_after_doubling(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3 x 3 convolution of x (N, C, H, W) with every pixel doubled along both axes, (N, D, 2 H, 2 W).

    It is the transposed convolution of x itself with kernels of 4 x 4, which takes 16 products where it takes 36: each
    kernel is the sum of the given one at the four places of a doubled pixel.
    """
    wide = F.pad(weight, (1, 1, 1, 1))
    kernels = F.avg_pool2d(wide, 2, stride=1, divisor_override=1)
    y = F.conv_transpose2d(x, kernels.flip(2, 3).transpose(0, 1), stride=2, padding=1)
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]  # torch takes long for a bias's gradient here


def _is_three_by_three(args: Sequence[Any]) -> bool:
    """Whether a convolution, called as torch's layer does, keeps the size: stride, padding, dilation and groups 1."""
    return len(args) == 7 and args[1].shape[2:] == (3, 3) and args[3:] == ((1, 1), (1, 1), (1, 1), 1)


def _is_plain_attention(*tensors: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
                        **named: Tensor) -> bool:
    """Whether it is called with three tensors as ``attention`` takes them, and with nothing else."""
    return (len(tensors) == 3 and not named
            and all(t.ndim == 4 and t.shape[:2] == tensors[0].shape[:2] for t in tensors)
            and all(t.dtype in (torch.float32, torch.bfloat16) for t in tensors)  # which autocast makes bfloat16
            and attn_mask is None and not dropout_p and not is_causal and scale is None and not enable_gqa)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of (B, heads, L, d) queries to (B, heads, M, d) keys and values; (B, heads, L, d)."""
    q, k, v = (tensor.flatten(0, 1).bfloat16() for tensor in (query, key, value))
    scores = torch.baddbmm(q.new_empty(1), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, query.shape[:2])


def group_norm(input: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """torch's group_norm of bfloat16 images (N, C, H, W) with the channels innermost; weight and bias (C,) float32."""
    return _GroupNorm.apply(input, num_groups, weight, bias, eps)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        rows = _rows(x)
        pixels = rows.shape[1]
        pivot = rows[:, ::PIXELS_PER_PIVOT].mean(1)
        c = rows - pivot[:, None]
        residual, square = _sums(c) / pixels, _sums(c * c) / pixels
        offset = pivot - _group_means(pivot + residual, groups)
        variance = _group_means(square + offset * (2 * residual + offset), groups)
        r = (variance + eps).rsqrt()
        a = (weight * r).bfloat16()
        b = (bias + a * offset).bfloat16()
        ctx.groups = groups
        ctx.save_for_backward(x, weight, pivot, offset, r, a)
        return _image(torch.addcmul(b[:, None], c, a[:, None]), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, pivot, offset, r, a = ctx.saved_tensors
        dy = _rows(dy.contiguous(memory_format=torch.channels_last))
        c = _rows(x) - pivot[:, None]
        pixels = c.shape[1]
        t = _sums(dy)
        s = _sums(dy * c) + offset * t
        p = (_group_means(weight * s, ctx.groups) * -r**3 / pixels).bfloat16()
        q = p * offset - _group_means(weight * t, ctx.groups) * r / pixels
        dx = torch.addcmul(q.bfloat16()[:, None], c, p[:, None]).addcmul_(dy, a[:, None])
        return _image(dx, x), None, (s * r).sum(0), t.sum(0), None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) with the channels innermost as (N, H W, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """Inverse of ``_rows``."""
    return rows.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _sums(rows: Tensor) -> Tensor:
    """(N, C) float32 sums over the pixels of (N, pixels, C)."""
    if rows.shape[1] % ROWS_OF_A_SUM or rows.shape[1] == ROWS_OF_A_SUM:
        return rows.sum(1).float()
    return rows.unflatten(1, (-1, ROWS_OF_A_SUM)).sum(2).sum(1, dtype=torch.float32)


def _group_means(values: Tensor, groups: int) -> Tensor:
    """Means of (N, C) over the channels of each group, repeated for each of them, (N, C) float32."""
    grouped = values.unflatten(1, (groups, -1))
    return grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)
