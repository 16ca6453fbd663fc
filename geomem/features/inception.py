"""Features of the Inception network of FID, through torch-fidelity.

FID, KID and their like are defined by one network and one set of weights: TensorFlow's Inception of December 2015,
which torch-fidelity converted. Figures with other weights are other figures, so the weights are known by the
SHA-256 of their file, and only with those is anything called FID or KID.

torch-fidelity unpickles a weights file without restraint, and pickle runs what it finds. Here the file is read by
torch's restricted loader (``weights_only=True``) or as safetensors, and torch-fidelity is handed tensors alone. It
imports torchvision, which has to match the installed torch. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geomem.data.pixels import CHANNELS, to_uint8
from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.points import Array, as_rows, runs

WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"
_SHA256_START = "6726825d"  # which torch-fidelity, too, writes into the name
_BATCH = 64
_LAYER = "2048"


@dataclass(frozen=True)
class InceptionFeatures:
    """Images to the 2,048 pooled values of Inception.

    ``sha256``: of the weights file; ``standard``: they are those that define FID. ``device``: where the network is.
    """

    network: nn.Module
    sha256: str
    standard: bool
    device: torch.device

    @property
    def name(self) -> str:
        return "Inception" if self.standard else f"Inception with other weights, {self.sha256[:12]}"

    @classmethod
    def load(cls, path: str | None, device: str | torch.device = "auto") -> InceptionFeatures:
        """``inception_features``."""
        return inception_features(path, device=device)

    def __call__(self, images: Array, name: str = "images") -> np.ndarray:
        """Images (n, C, H, W) in [-1, 1], C = 1 or 3, as (n, 2048) float32.

        They are rounded to uint8 as image files are, values outside clipped, and grey ones repeated into three
        channels. Raises InputError for another shape or values that are not finite.
        """
        require_images(images, name)
        pixels = to_uint8(as_rows(images, name)).reshape(images.shape)
        features = np.empty((len(pixels), int(_LAYER)), dtype=np.float32)
        with torch.inference_mode():
            for block in runs(0, len(pixels), _BATCH):
                batch = torch.from_numpy(pixels[block]).expand(-1, 3, -1, -1).to(self.device)
                features[block] = self.network(batch)[0].cpu().numpy()
        return features


def require_images(points: Array, name: str) -> None:
    """Raises InputError for points that are no images."""
    if len(points.shape) != 4 or points.shape[1] not in CHANNELS:
        raise InputError(f"{name} have shape {tuple(points.shape)}; FID and KID are for images (n, C, H, W) in [-1, 1] "
                         "with 1 or 3 channels")


def inception_features(weights: str | None = None, *, device: str | torch.device = "auto") -> InceptionFeatures:
    """The network with the weights of a ``.pth`` or ``.safetensors`` file, by default the one in torch's hub cache.

    Raises InputError if torch-fidelity or torchvision is missing or does not run with this torch, there is no such
    file, or it holds anything else than the tensors of that network.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # torchvision for another torch: any of these
        raise InputError("Inception needs torch-fidelity and the torchvision that belongs to torch "
                         f"{torch.__version__} ({error}); install them with pip install 'geomem[fid]', or "
                         "leave its features out") from None
    cached = os.path.join(torch.hub.get_dir(), "checkpoints", WEIGHTS_NAME)
    if weights is None and not os.path.isfile(cached):
        raise InputError(f"Inception needs its weights and {cached} is not there; download {URL_INCEPTION_V3} and name "
                         "the file with --features, or with --fid-weights for FID")
    path = weights or cached
    tensors, sha256 = _read(path)
    held = io.BytesIO()
    torch.save(tensors, held)
    held.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", [_LAYER], feature_extractor_weights_path=held)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit torch-fidelity's Inception network "
                         f"({str(error).splitlines()[0]}); download {URL_INCEPTION_V3}") from None
    on = resolve_device(device)
    return InceptionFeatures(network.to(on), sha256, sha256.startswith(_SHA256_START), on)


def _read(path: str) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and the SHA-256 of the file. Nothing in the file is executed."""
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path), sha256
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"--fid-weights {path}: {error.strerror or error}; give a file of Inception weights") from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError,
            IndexError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise InputError(f"{path} is no file of tensors alone ({reason}); nothing in it was executed") from None
    except Exception as error:  # safetensors has an error of its own
        if type(error).__name__ != "SafetensorError":
            raise
        raise InputError(f"{path} is no safetensors file ({error})") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(f"{path} holds something else than tensors by name; give a file of Inception weights")
    return dict(tensors), sha256
