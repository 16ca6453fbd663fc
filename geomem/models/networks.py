"""Networks ``net(x, noise_label, labels) -> output`` of the shape of x, and the presets that name them.

Images of 32 pixels and more use diffusers' ``UNet2DModel``. The others are our own: diffusers' ``UNet1DModel`` sees the
noise level only at its input and needs lengths divisible by a power of two, and its image networks spend on a few
pixels what they need for many.

The noise label is a real number of order one (``log(sigma)/4`` for EDM, ``t/T`` for DDPM), shape (B,). A network for n
classes takes labels 0..n-1; label n is the null class, which ``labels=None`` means for every point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geomem.errors import InputError

NOISE_LABEL_SCALE = 100.0  # sinusoids with periods from 2 pi / 100 of a noise label upwards: log sigma is resolved well


class NoiseEmbedding(nn.Module):
    """Sinusoidal features of the noise label through a two-layer perceptron, plus a class embedding if any."""

    def __init__(self, dim: int, classes: int | None = None) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * torch.arange(32) / 32), persistent=False)
        self.layers = nn.Sequential(nn.Linear(64, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        self.classes = nn.Embedding(classes + 1, dim) if classes else None

    def forward(self, noise_label: Tensor, labels: Tensor | None) -> Tensor:
        angle = NOISE_LABEL_SCALE * noise_label[:, None] * self.frequencies
        embedding = self.layers(torch.cat([angle.sin(), angle.cos()], dim=1))
        if self.classes is None:
            return embedding
        return embedding + self.classes(_labels_or_null(labels, noise_label, self.classes.num_embeddings))


class DenseBlocks(nn.Module):
    """Residual perceptron blocks on (B, width); the noise level scales and shifts the input of each."""

    def __init__(self, width: int, depth: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth))
        self.modulations = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in range(depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), _zero(nn.Linear(width, width)))
            for _ in range(depth)
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for norm, modulation, block in zip(self.norms, self.modulations, self.blocks, strict=True):
            scale, shift = modulation(embedding).chunk(2, dim=1)
            h = h + block(norm(h) * (1 + scale) + shift)
        return h


class ResidualMLP(nn.Module):
    """Residual perceptron on flattened points.

    Beside the blocks runs a linear path whose gains depend on the noise level: enough for the Gaussian linear
    denoiser (Dodson et al. 2026, Eq. 7), which is what the data ask for at large noise, and for passing a nearly clean
    point on.
    """

    def __init__(self, shape: Sequence[int], *, width: int, depth: int, dropout: float, classes: int | None) -> None:
        super().__init__()
        dim, embedding = math.prod(shape), width // 4
        self.embedding = NoiseEmbedding(embedding, classes)
        self.input = nn.Linear(dim, width)
        self.blocks = DenseBlocks(width, depth, embedding, dropout)
        self.output = nn.Sequential(nn.LayerNorm(width), _zero(nn.Linear(width, dim)))
        self.gains, self.direct = nn.Linear(embedding, width), _zero(nn.Linear(width, dim))

    def forward(self, x: Tensor, noise_label: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embedding(noise_label, labels)
        h = self.input(x.flatten(1))
        direct = self.direct(h * self.gains(embedding))
        return (self.output(self.blocks(h, embedding)) + direct).reshape(x.shape)


class ResidualBlock(nn.Module):
    """Two convolutions around a scale and shift by the noise level, with self-attention after them if asked.

    ``axes`` is 1 for signals (B, C, L) and 2 for images (B, C, H, W).
    """

    def __init__(self, axes: int, inputs: int, outputs: int, embedding: int, dropout: float,
                 attention: bool = False) -> None:
        super().__init__()
        convolution: Any = {1: nn.Conv1d, 2: nn.Conv2d}[axes]
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), convolution(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.norm2, self.dropout = nn.GroupNorm(8, outputs), nn.Dropout(dropout)
        self.conv2 = _zero(convolution(outputs, outputs, 3, padding=1))
        self.skip = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = nn.MultiheadAttention(outputs, 4, batch_first=True) if attention else None
        self.attention_norm = nn.GroupNorm(8, outputs) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        modulation = self.modulation(embedding)
        scale, shift = modulation.reshape(*modulation.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + scale) + shift
        h = self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        if self.attention is not None and self.attention_norm is not None:
            tokens = self.attention_norm(h).flatten(2).transpose(1, 2)
            tokens = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            h = h + tokens.transpose(1, 2).reshape(h.shape)
        return h


class DenseUNet(nn.Module):
    """U-Net for small images (B, C, H, W): convolutions down to a grid of at most 4 x 4, dense blocks there.

    On a CPU the dense blocks do the global work of many deep convolutions at a tenth of their cost.
    """

    def __init__(self, shape: Sequence[int], *, channels: int, depth: int, dropout: float, classes: int | None) -> None:
        super().__init__()
        halvings = max(0, math.ceil(math.log2(max(shape[1:]) / 4)))
        self.multiple = 2**halvings
        self.coarse = channels, *(-(-size // self.multiple) for size in shape[1:])
        width = math.prod(self.coarse)
        embedding = 4 * channels
        self.embedding = NoiseEmbedding(embedding, classes)
        self.input = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(2, channels, channels, embedding, dropout) for _ in range(halvings))
        self.middle = DenseBlocks(width, depth, embedding, dropout)
        self.up = nn.ModuleList(ResidualBlock(2, 2 * channels, channels, embedding, dropout) for _ in range(halvings))
        self.output = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(),
                                    _zero(nn.Conv2d(channels, shape[0], 3, padding=1)))

    def forward(self, x: Tensor, noise_label: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embedding(noise_label, labels)
        h = self.input(_padded(x, self.multiple))
        skips = []
        for block in self.down:
            h = block(h, embedding)
            skips.append(h)
            h = F.avg_pool2d(h, 2)
        h = self.middle(h.flatten(1), embedding).reshape(-1, *self.coarse)
        for block in self.up:
            h = block(torch.cat([F.interpolate(h, scale_factor=2.0), skips.pop()], dim=1), embedding)
        return self.output(h)[..., : x.shape[-2], : x.shape[-1]]


class UNet1d(nn.Module):
    """U-Net for signals (B, C, L) of any length, halved between levels; self-attention at the coarsest level."""

    def __init__(self, shape: Sequence[int], *, channels: Sequence[int], dropout: float, classes: int | None) -> None:
        super().__init__()
        embedding = 4 * channels[0]
        self.embedding = NoiseEmbedding(embedding, classes)
        self.input = nn.Conv1d(shape[0], channels[0], 3, padding=1)
        last = len(channels) - 1
        sizes = [channels[0], *channels]

        def block(inputs: int, level: int) -> ResidualBlock:
            return ResidualBlock(1, inputs, channels[level], embedding, dropout, attention=level == last)

        self.down = nn.ModuleList(block(sizes[level], level) for level in range(len(channels)))
        self.middle = block(channels[-1], last)
        self.up = nn.ModuleList(block(sizes[min(level + 2, last + 1)] + channels[level], level)
                                for level in reversed(range(len(channels))))
        self.output = nn.Sequential(nn.GroupNorm(8, channels[0]), nn.SiLU(),
                                    _zero(nn.Conv1d(channels[0], shape[0], 3, padding=1)))
        self.multiple = 2**last

    def forward(self, x: Tensor, noise_label: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embedding(noise_label, labels)
        h = self.input(_padded(x, self.multiple))
        skips = []
        for level, block in enumerate(self.down):
            h = block(h if level == 0 else F.avg_pool1d(h, 2), embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for level, block in enumerate(self.up):
            h = h if level == 0 else F.interpolate(h, scale_factor=2.0)
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.output(h)[..., : x.shape[-1]]


class ImageUNet(nn.Module):
    """diffusers' ``UNet2DModel`` for images (B, C, H, W) of any size."""

    def __init__(self, shape: Sequence[int], *, channels: Sequence[int], layers: int, attention: Sequence[int],
                 dropout: float, classes: int | None, heads_dim: int = 8, groups: int = 32,
                 embedding: int | None = None) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        levels = range(len(channels))
        self.multiple = 2 ** (len(channels) - 1)
        self.unet: Any = UNet2DModel(
            in_channels=shape[0], out_channels=shape[0], layers_per_block=layers, block_out_channels=tuple(channels),
            down_block_types=tuple("AttnDownBlock2D" if k in attention else "DownBlock2D" for k in levels),
            up_block_types=tuple("AttnUpBlock2D" if k in attention else "UpBlock2D" for k in reversed(levels)),
            add_attention=bool(attention), attention_head_dim=heads_dim, dropout=dropout, norm_num_groups=groups,
            time_embedding_dim=embedding, num_class_embeds=classes + 1 if classes else None,
        )

    def forward(self, x: Tensor, noise_label: Tensor, labels: Tensor | None = None) -> Tensor:
        padded, rows = _padded(x, self.multiple), self.unet.config.num_class_embeds
        labels = _labels_or_null(labels, noise_label, rows) if rows else None
        output = self.unet(padded, NOISE_LABEL_SCALE * noise_label, class_labels=labels, return_dict=False)[0]
        return output[..., : x.shape[-2], : x.shape[-1]]


def _labels_or_null(labels: Tensor | None, noise_label: Tensor, rows: int) -> Tensor:
    """The labels (B,), or for None the null class: the last of the embedding's rows."""
    if labels is None:
        return torch.full(noise_label.shape, rows - 1, dtype=torch.long, device=noise_label.device)
    return labels


def _zero(layer: nn.Module) -> nn.Module:
    """Start a residual branch at zero, so that the untrained network is the identity around it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _padded(x: Tensor, multiple: int) -> Tensor:
    """Repeat the far edges until every spatial size is a multiple."""
    missing = [(-size) % multiple for size in x.shape[2:]]
    if not any(missing):
        return x
    return F.pad(x, [side for size in reversed(missing) for side in (0, size)], mode="replicate")


@dataclass(frozen=True)
class Preset:
    """A named network: its class, its size, the learning rate it is usually trained with, what it is, and the shape of
    a point that it is meant for.
    """

    network: Callable[..., nn.Module]
    dims: tuple[int, ...]  # numbers of axes of a point that it takes: 1 vectors, 2 signals, 3 images, 4 volumes
    learning_rate: float
    options: dict[str, Any]
    about: str
    shape: tuple[int, ...]


NETWORKS: dict[str, Preset] = {
    "mlp": Preset(ResidualMLP, (1, 2, 3, 4), 2e-3, {"width": 384, "depth": 4},
                  "a residual perceptron on the values of a point", (64,)),
    "unet1d": Preset(UNet1d, (2,), 1e-3, {"channels": (32, 64, 128)},
                     "a U-Net over time, with attention at its coarsest level", (1, 140)),
    "unet-tiny": Preset(DenseUNet, (3,), 2e-3, {"channels": 24, "depth": 4},
                        "a U-Net with a perceptron on its coarsest grid, at most 4 x 4", (1, 8, 8)),
    "unet-small": Preset(ImageUNet, (3,), 1e-3, {"channels": (64, 128, 128), "layers": 2, "attention": (2,)},
                         "a UNet2DModel of diffusers", (3, 32, 32)),
    # The grey-face network of Dodson et al. 2026, Figure 5: 4,023,233 parameters where 4.06M are published. diffusers
    # has one head size for all levels: 16 gives the published 4 heads at the middle level, and 8 at the coarsest.
    "unet-grey": Preset(ImageUNet, (3,), 1e-4, {"channels": (32, 64, 128), "layers": 2, "attention": (1, 2),
                                               "heads_dim": 16, "groups": 8},
                        "a UNet2DModel, the grey-face network of Dodson et al. 2026", (1, 32, 32)),
    # The size of DDPM++ on CIFAR-10 (Karras et al. 2022): 54.3M parameters where 55.7M are published.
    "unet-cifar": Preset(ImageUNet, (3,), 2e-4, {"channels": (256, 256, 256), "layers": 4, "attention": (1,),
                                                "heads_dim": 256, "embedding": 512},
                         "a UNet2DModel of the size of DDPM++ on CIFAR-10 (Karras et al. 2022)", (3, 32, 32)),
}


def default_network(shape: Sequence[int]) -> str:
    """Preset for points of this shape: vectors (d,), signals (C, L), images (C, H, W)."""
    if len(shape) == 3:
        return "unet-tiny" if max(shape[1:]) <= 16 else "unet-small"
    return {1: "mlp", 2: "unet1d"}.get(len(shape), "mlp")


def networks_for(shape: Sequence[int]) -> list[str]:
    """The default preset for points of this shape, and for images the smaller one that takes its place where time is
    short.
    """
    return list(dict.fromkeys([default_network(shape), *(["unet-tiny"] if len(shape) == 3 else [])]))


def build_network(name: str, shape: Sequence[int], *, dropout: float = 0.0,
                  classes: int | None = None) -> nn.Module:
    """Untrained network of a preset for points of ``shape`` (without the batch axis).

    ``classes`` = n makes it class-conditional: labels 0..n-1, and n for the null class; None or 0: it ignores labels.
    Raises InputError for an unknown name or a shape it does not take.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    preset = NETWORKS[name]
    if len(shape) not in preset.dims:
        raise InputError(f"network {name!r} does not take points of shape {tuple(shape)}; "
                         + (f"use {default_network(shape)!r}" if len(shape) < 5 else "flatten them"))
    return preset.network(tuple(shape), dropout=dropout, classes=classes, **preset.options)
