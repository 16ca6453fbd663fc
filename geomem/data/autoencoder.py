"""Latents: the points of latent diffusion and flow models, made of pictures by a diffusers ``AutoencoderKL`` folder.

    config.json, diffusion_pytorch_model.safetensors

The encoder gives of each picture a normal posterior with mean m and standard deviation s per value. With E = m, or a
draw from it, the latents are those that diffusers' training scripts train on: ``(E - shift_factor) * scaling_factor``,
and ``(E - latents_mean) * scaling_factor / latents_std`` where the folder names these (train_dreambooth_lora_sdxl). The
scripts draw anew at each step, so the points of such a training are spread about the means by s, in latent units.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from geomem.data.points import Values
from geomem.devices import resolve_device, widest_float
from geomem.errors import InputError, as_input_error, file_error, reason
from geomem.files import atomic_path, read_json, require_file
from geomem.rng import torch_generator

if TYPE_CHECKING:
    import torch

MAX_PARAMETERS = 10**9
MAX_LAYERS, MAX_LEVELS, MAX_CHANNELS = 32, 16, 4096
BATCH_PIXELS = 2**19  # of the pictures that are encoded together: two of 512 x 512
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_ADVICE = "give the folder vae of a pipeline, saved with diffusers' save_pretrained as safetensors"


@dataclass(frozen=True)
class Latents:
    """How points were made of pictures: the folder, its factors, ``of`` the posterior's ``mean`` or a ``sample``.

    sha256: of the folder's configuration and weights; pictures_sha256: of the pictures, and the seed of a sample.
    posterior_std : root mean square of the posterior's standard deviation over all values of the training points, in
        units of the latents.
    """

    vae: str
    scaling_factor: float
    shift_factor: float
    of: str
    posterior_std: float
    sha256: str
    pictures_sha256: str


class Decoded:
    """Latents (N, c, h, w) as the pictures (N, C, H, W) that they stand for; each is decoded where it is indexed."""

    def __init__(self, latents: Values, encoder: Autoencoder) -> None:
        self._latents, self._encoder = latents, encoder
        self.shape = (len(latents), *encoder.picture_shape(latents.shape[1:]))
        self.ndim = 4

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, index: Any) -> np.ndarray:
        found = np.asarray(self._latents[index])
        return self._encoder.decoded(found) if found.ndim == 4 else self._encoder.decoded(found[None])[0]


class Autoencoder:
    """The encoder and decoder in a folder. Raises InputError for another class, weights that are missing or pickled,
    and factors that are no numbers.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        self.folder = Path(folder)
        config = read_json(self.folder / "config.json", _ADVICE)
        if config.get("_class_name") != "AutoencoderKL":
            raise file_error(self.folder, f"holds a {str(config.get('_class_name'))[:60]!r}, not an AutoencoderKL; "
                                          f"{_ADVICE}")
        self._require_sizes(config)
        self.notes: list[str] = []
        if "scaling_factor" not in config:
            self.notes.append(f"{self.folder} names no scaling_factor; 0.18215 is taken, as diffusers does")
        self.scaling = self._number(config, "scaling_factor", 0.18215)
        self.shift = 0.0 if config.get("shift_factor") is None else self._number(config, "shift_factor", 0.0)
        if self.scaling <= 0:
            raise file_error(self.folder, f"scaling_factor is {self.scaling:g}, not a positive number; {_ADVICE}")
        self.device = resolve_device(device)
        self.network = self._network(config).to(self.device)
        self._centre, self._scale = self._factors(config)

    def encoded(self, pictures: Values, draw: tuple[int, str] | None = None) -> tuple[np.ndarray, float]:
        """Latents (N, c, h, w) float32 of pictures (N, C, H, W) in [-1, 1], and the mean square of the posterior's
        standard deviation in them. ``draw``: seed and purpose of a draw from it for each picture; None for its mean.

        Raises InputError for points that are no such pictures, or too large for the memory of the device.
        """
        import torch
        from tqdm.auto import tqdm

        channels, multiple = self.network.config.in_channels, 2 ** (len(self.network.config.block_out_channels) - 1)
        shape = pictures.shape[1:]
        if len(shape) != 3 or shape[0] not in (1, channels) or any(size % multiple for size in shape[1:]):
            raise file_error(self.folder, f"takes pictures of {channels} channels whose sides are multiples of "
                                          f"{multiple}, not points of shape {tuple(shape)}; --size N scales pictures")
        size = max(1, BATCH_PIXELS // math.prod(shape[1:]))
        parts, variance = [], 0.0
        with torch.no_grad():
            for start in tqdm(range(0, len(pictures), size), desc="encoding", unit="batch", leave=False, delay=1,
                              disable=None):
                batch = torch.from_numpy(np.array(pictures[start:start + size])).to(self.device)
                posterior = self.network.encode(batch.expand(-1, channels, -1, -1)).latent_dist
                value = posterior.mean
                if draw is not None:
                    seed, purpose = draw
                    noise = [torch.randn(value.shape[1:], generator=torch_generator(seed, purpose, start + i))
                             for i in range(len(value))]
                    value = value + posterior.std * torch.stack(noise).to(self.device)
                parts.append(((value - self._centre) * self._scale).float().cpu().numpy())
                variance += float((posterior.std * self._scale).to(widest_float(self.device)).square().mean()
                                  ) * len(value) / len(pictures)
        latents = np.concatenate(parts)
        if not np.isfinite(latents).all() or not math.isfinite(variance):
            raise file_error(self.folder, "gives latents that are not finite; its weights are damaged")
        return latents, variance

    def decoded(self, latents: np.ndarray) -> np.ndarray:
        """Pictures (N, C, H, W) float32 in [-1, 1] of latents (N, c, h, w)."""
        import torch

        shape, parts = self.picture_shape(latents.shape[1:]), []
        with torch.no_grad():
            for rows in np.array_split(latents, -(-len(latents) * math.prod(shape[1:]) // BATCH_PIXELS)):
                batch = torch.from_numpy(np.array(rows)).to(self.device) / self._scale + self._centre
                parts.append(self.network.decode(batch).sample.clamp(-1, 1).float().cpu().numpy())
        return np.concatenate(parts)

    def picture_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(C, H, W) of the pictures of latents of a shape. Raises InputError where the folder makes no such latents."""
        config = self.network.config
        if len(shape) != 3 or shape[0] != config.latent_channels:
            raise file_error(self.folder, f"makes latents of {config.latent_channels} channels, not of shape {shape}; "
                                          "give the autoencoder that they were made with")
        height, width = (size * 2 ** (len(config.block_out_channels) - 1) for size in shape[1:])
        return config.out_channels, height, width

    def _number(self, config: dict[str, Any], name: str, usual: float) -> float:
        value = config.get(name, usual)
        if type(value) not in (int, float) or not abs(value) < 1e6:
            raise file_error(self.folder, f"{name} is {str(value)[:60]}, and without it nothing says how the latents "
                                          "are scaled for training; set it in config.json")
        return float(value)

    def _factors(self, config: dict[str, Any]) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """What is subtracted from the encoder's values, and what they are multiplied by then."""
        import torch

        moments = config.get("latents_mean"), config.get("latents_std")
        if moments == (None, None):
            return self.shift, self.scaling
        channels = self.network.config.latent_channels
        if not all(isinstance(values, list) and len(values) == channels
                   and all(type(value) in (int, float) and abs(value) < 1e6 for value in values) for values in moments):
            raise file_error(self.folder, f"latents_mean and latents_std are not {channels} numbers each; {_ADVICE}")
        mean, std = (torch.tensor(values, device=self.device).reshape(-1, 1, 1) for values in moments)
        return mean, self.scaling / std

    def _require_sizes(self, config: dict[str, Any]) -> None:
        channels = config.get("block_out_channels", [64])
        numbers = [*channels, config.get("in_channels", 3), config.get("latent_channels", 4)] if isinstance(
            channels, list) and 0 < len(channels) <= MAX_LEVELS else [None]
        layers = config.get("layers_per_block", 1)
        if not (all(type(number) is int and 0 < number <= MAX_CHANNELS for number in numbers)
                and type(layers) is int and 0 < layers <= MAX_LAYERS):
            raise file_error(self.folder, f"is no AutoencoderKL of at most {MAX_LEVELS} levels of {MAX_LAYERS} layers "
                                          f"and {MAX_CHANNELS:,} channels; {_ADVICE}")

    def _network(self, config: dict[str, Any]) -> Any:
        """In float32, as the scripts have it. It is counted on the device meta before its weights are read."""
        import torch

        model: Any = import_module("diffusers").AutoencoderKL
        weights = self.folder / _WEIGHTS
        require_file(weights, _ADVICE)
        options = {name: config[name] for name in inspect.signature(model.__init__).parameters if name in config}
        try:
            with torch.device("meta"):
                count = sum(p.numel() for p in model(**options).parameters())
            if count > MAX_PARAMETERS:
                raise InputError(f"it would have {count:.3g} parameters, more than {MAX_PARAMETERS:.0e}")
            network, found = model.from_pretrained(self.folder, use_safetensors=True, local_files_only=True,
                                                   torch_dtype=torch.float32, low_cpu_mem_usage=False,
                                                   output_loading_info=True)
        except Exception as error:  # whatever foreign code makes of foreign values
            raise file_error(self.folder, f"holds no AutoencoderKL that diffusers can read ({reason(error)[:200]}); "
                                          f"{_ADVICE}") from None
        if left := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
            raise file_error(weights, f"does not fit its config.json: {left[0]!r} is in one of them alone; {_ADVICE}")
        return network.eval()


def recorded_autoencoder(data: Mapping[str, Any], origin: object) -> Autoencoder | None:
    """The autoencoder that a record of data names, None for none. Raises InputError as ``require_same`` does."""
    require_same(data, origin)
    return Autoencoder(str(data["vae"])) if data.get("vae") else None


def require_same(data: Mapping[str, Any], origin: object) -> None:
    """Raises InputError where the autoencoder that a record of data names is missing, or another one now."""
    if data.get("vae") and content_of(Path(str(data["vae"]))) != data.get("vae_sha256"):
        raise InputError(f"{data['vae']} is no longer the autoencoder that {origin} was made with (its sha256 "
                         "differs); put that one back")


def content_of(folder: Path) -> str:
    """SHA-256 of the configuration and weights in a folder."""
    digest = sha256()
    for name in ("config.json", _WEIGHTS):
        require_file(folder / name, _ADVICE)
        with as_input_error(folder, "an AutoencoderKL", _ADVICE), open(folder / name, "rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return digest.hexdigest()


def cached(key: tuple[str, ...], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What ``make`` gives, kept for later commands in a file of ``GEOMEM_CACHE`` (~/.cache/geomem) that ``key`` names,
    where that can be written.
    """
    folder = Path(os.environ.get("GEOMEM_CACHE") or Path.home() / ".cache" / "geomem")
    path = folder / f"latents-{sha256(' '.join(key).encode()).hexdigest()[:32]}.npz"
    with suppress(OSError, ValueError, EOFError, BadZipFile), np.load(path) as file:  # none yet, or a damaged one
        return dict(file)
    arrays = make()
    with suppress(OSError), atomic_path(path) as temporary:  # no such place, or no room
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    return arrays
