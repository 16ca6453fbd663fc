"""Features of DINOv2 (Oquab et al. 2023), as Stein et al. (2023) use them to compare generated pictures.

Pictures are clipped to [-1, 1], made [0, 1], resized to the size that the network was trained for (224 pixels unless
the folder's preprocessor_config.json says otherwise; bicubic, antialiased), and standardized by the mean and standard
deviation of ImageNet's channels; grey ones are repeated into three. The feature is the class token after the last
layer norm, ``pooler_output`` in transformers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.files import read_json, require_file

MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224
_LARGEST = {"hidden_size": 4096, "num_hidden_layers": 64, "num_attention_heads": 64, "patch_size": 64,
            "image_size": 2048, "mlp_ratio": 16, "num_channels": 3}  # of ViT-g: 1536, 40, 24, 14, 518, 4, 3
_DETAILS = ("layer_norm_eps", "qkv_bias", "use_swiglu_ffn", "layerscale_value", "hidden_act", "use_mask_token")


class DINOv2(nn.Module):
    """Pictures (n, C, H, W) in [-1, 1], C = 1 or 3, to (n, hidden size). name: with the SHA-256 of the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, name: str, size: int = SIZE) -> None:
        super().__init__()
        self.network, self.name, self.size = network, name, size
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
            raise InputError(f"points of shape {tuple(pictures.shape[1:])} have no DINOv2 features; they are for "
                             "pictures (C, H, W) with 1 or 3 channels")
        values = (pictures.clamp(-1, 1) + 1) / 2
        values = nn.functional.interpolate(values, (self.size, self.size), mode="bicubic", antialias=True)
        values = (values.clamp(0, 1).expand(-1, 3, -1, -1) - self.mean) / self.std
        features: Tensor = self.network(pixel_values=values).pooler_output
        return features

    @classmethod
    def load(cls, path: str, device: str | torch.device = "auto") -> DINOv2:
        """The network in a folder of transformers. Raises InputError without transformers, for weights that are
        missing, pickled or of another network, and for sizes beyond those of any DINOv2.
        """
        try:
            from transformers import Dinov2Config, Dinov2Model
            from transformers.utils.logging import disable_progress_bar
        except ImportError:
            raise InputError(f"--features {path} needs transformers; pip install transformers, or leave --features "
                             "out") from None
        disable_progress_bar()
        folder, advice = Path(path), "save the network again with transformers' save_pretrained"
        config = read_json(folder / "config.json", advice)
        for name, largest in _LARGEST.items():
            value = config.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
                raise InputError(f"{folder / 'config.json'}: {name} is {str(value)[:60]}, not a number up to "
                                 f"{largest}; {advice}")
        file = folder / "model.safetensors"
        require_file(file, advice)
        described = {name: value for name, value in config.items() if name in {*_LARGEST, *_DETAILS}}
        try:
            network, found = Dinov2Model.from_pretrained(
                folder, config=Dinov2Config(**described), use_safetensors=True, local_files_only=True,
                output_loading_info=True)
        except Exception as error:  # transformers and safetensors refuse in many ways what does not fit together
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(f"{folder} holds no DINOv2 that transformers can read ({reason}); {advice}") from None
        if missing := sorted(found["missing_keys"]):
            raise InputError(f"{file} holds no tensor {missing[0]!r}, which the network needs; it belongs to another "
                             "network")
        with open(file, "rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        return cls(network.float(), f"dinov2 {sha256[:12]}", _size(folder)).to(resolve_device(device)).eval()


def _size(folder: Path) -> int:
    """Of the pictures that the network sees, from the folder's description where it has one."""
    if not (folder / "preprocessor_config.json").is_file():
        return SIZE
    described: Any = read_json(folder / "preprocessor_config.json", "repair or remove it")
    crop = described.get("crop_size")
    size = crop.get("height") if isinstance(crop, dict) else crop
    return size if isinstance(size, int) and 14 <= size <= _LARGEST["image_size"] else SIZE
