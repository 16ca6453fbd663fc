"""The extractors that are known by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from geomem.errors import InputError
from geomem.features.dinov2 import DINOv2
from geomem.features.inception import InceptionFeatures
from geomem.features.onnx import ONNXFeatures
from geomem.features.space import FeatureSpace
from geomem.files import read_json

# By name, by the model_type of a folder's config.json, and by a file's suffix: classes with ``load(path, device)``.
EXTRACTORS: dict[str, Any] = {"inception": InceptionFeatures, "dinov2": DINOv2, ".onnx": ONNXFeatures}


def load_features(word: str, *, device: str | torch.device = "auto") -> FeatureSpace:
    """The feature space that ``word`` names: ``inception`` (weights in torch's cache), a file of Inception's weights,
    a network in a ``.onnx`` file, or a DINOv2 as transformers saves it: a folder with config.json and
    model.safetensors, or the name on the hub of one that lies in the Hugging Face cache, such as facebook/dinov2-base.
    Nothing is downloaded.

    Raises InputError for anything else, and where a library or weights are missing.
    """
    path = Path(word)
    if word == "inception":
        return FeatureSpace(InceptionFeatures.load(None, device))
    if path.is_file():
        return FeatureSpace(EXTRACTORS.get(path.suffix.lower(), InceptionFeatures).load(word, device))
    if not path.is_dir():
        path = _in_cache(word)
    kind = read_json(path / "config.json", "give the folder of a network as transformers saves it").get("model_type")
    if kind not in EXTRACTORS:
        raise InputError(f"--features {word} holds a network of type {str(kind)[:60]!r}; known are dinov2 folders and "
                         "inception")
    return FeatureSpace(EXTRACTORS[kind].load(str(path), device))


def _in_cache(name: str) -> Path:
    from huggingface_hub import snapshot_download

    if "sscd" in name.lower():
        raise InputError(f"--features {name}: SSCD is published as TorchScript, which is code, and geomem runs none "
                         "from files; export it to ONNX, or load it in Python and pass it on as features=")
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):  # not there, or no name of the hub
        raise InputError(f"--features {name}: give inception, a file of its weights, a folder with config.json and "
                         "model.safetensors of a DINOv2, or the name of one in the Hugging Face cache, such as "
                         "facebook/dinov2-base; pixels is the default") from None
