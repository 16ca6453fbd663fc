"""diffusers folders: a ``UNet2DModel`` with its scheduler, read without executing anything in them, and written.

    unet/config.json, unet/diffusion_pytorch_model.safetensors, scheduler/scheduler_config.json

or the same three files at the top of the folder, as older ones have them. A DDPM scheduler gives a
``TimestepDenoiser``, an EDM scheduler an ``EDMDenoiser``, a flow-matching one a ``VelocityDenoiser``. Classes are
the rows of ``num_class_embeds``; of a network that also predicts a variance the mean is used.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.files import atomic_directory, read_json
from geomem.models.adapters import ForeignNetwork, TimestepDenoiser, VelocityDenoiser
from geomem.models.denoiser import Denoiser, EDMDenoiser
from geomem.models.networks import NOISE_LABEL_SCALE
from geomem.models.weights import read_matching, refuse_pickle
from geomem.noise.flow_schedule import FlowSchedule
from geomem.noise.schedules import DDPMSchedule

MAX_PARAMETERS = 2 * 10**9
MAX_CONFIG_BYTES = 2**20
MAX_LAYERS, MAX_LEVELS, MAX_PIXELS, MAX_TIMESTEPS, MAX_CLASSES = 32, 16, 4096, 10**5, 10**6

_LOG = logging.getLogger("geomem")
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_TIMESTEP_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler")
_EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
# Names of attention weights before diffusers 0.15.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def is_diffusers_folder(path: Path) -> bool:
    """Whether the directory is meant for diffusers: a pipeline, or a model of its own."""
    if (path / "model_index.json").is_file() or (path / "unet" / "config.json").is_file():
        return True
    return (path / "config.json").is_file() and "_class_name" in _read_config(path / "config.json")


def read_diffusers_configs(path: Path) -> dict[str, dict[str, Any]]:
    """The JSON descriptions ``unet`` and ``scheduler`` of a folder."""
    unet = path / "unet" if (path / "unet" / "config.json").is_file() else path
    scheduler = path / "scheduler" / "scheduler_config.json"
    scheduler = scheduler if scheduler.is_file() else path / "scheduler_config.json"
    if not (unet / "config.json").is_file() or not scheduler.is_file():
        raise InputError(f"{path} needs unet/config.json and scheduler/scheduler_config.json; "
                         "save the whole pipeline with diffusers' save_pretrained")
    return {"unet": _read_config(unet / "config.json"), "scheduler": _read_config(scheduler)}


def read_diffusers_weights(path: Path, denoiser: Denoiser) -> dict[str, Tensor]:
    """The folder's weights for the U-Net of a denoiser of ``diffusers_denoiser``, which may be on the device meta."""
    folder = path / "unet" if (path / "unet" / "config.json").is_file() else path
    weights = folder / _WEIGHTS
    if not weights.is_file():
        for other in sorted(folder.iterdir()):
            refuse_pickle(other)
        variants = sorted(folder.glob(_WEIGHTS.replace(".", ".*.")))
        if len(variants) != 1 or not variants[0].is_file():
            raise InputError(f"{weights} is missing; save the network in one safetensors file")
        weights = variants[0]
        _LOG.info(f"note: {path}: the weights are those of {weights.name}, the only ones there")
    if folder != path and (path / "unet_ema").is_dir():
        _LOG.info(f"note: {path} holds averaged weights in unet_ema, too; diffusers and geomem read unet")
    return read_matching(weights, denoiser.net.network, _new_name)  # type: ignore[arg-type]


def load_diffusers_folder(path: Path, configs: Mapping[str, Mapping[str, Any]]) -> Denoiser:
    """The folder's denoiser with its weights; nothing is built before they are known to fit its outline."""
    with torch.device("meta"):
        outline = diffusers_denoiser(configs, str(path))
    weights = read_diffusers_weights(path, outline)
    denoiser: Any = diffusers_denoiser(configs, str(path))
    denoiser.net.network.load_state_dict(weights)
    return denoiser


def diffusers_denoiser(configs: Mapping[str, Mapping[str, Any]], origin: str) -> Denoiser:
    """Untrained denoiser of the two descriptions; ``origin`` names them in errors.

    Raises InputError for another class than UNet2DModel, a scheduler of none of the three kinds, and sizes beyond
    2e9 parameters, 16 levels of 32 layers, 4096 pixels or 1e5 timesteps.
    """
    scheduler = configs.get("scheduler")
    if not isinstance(scheduler, dict) or not isinstance(configs.get("unet"), dict):
        raise InputError(f"{origin} lacks the descriptions of a UNet2DModel and its scheduler; save the model again")
    kind, prediction = scheduler.get("_class_name"), str(scheduler.get("prediction_type", "epsilon"))
    if kind in _TIMESTEP_SCHEDULERS and prediction in _PREDICTIONS:
        learned = scheduler.get("variance_type") in ("learned", "learned_range")
        unet = _unet(configs["unet"], origin, learned_variance=learned)
        between = "nearest" if unet.config.time_embedding_type == "learned" else "interpolate"
        return TimestepDenoiser(unet, _alphas_cumprod(scheduler, origin), _PREDICTIONS[prediction], between=between)
    sigma_data = scheduler.get("sigma_data", 0.5)
    if kind in _EDM_SCHEDULERS and prediction == "epsilon" and _is_number(sigma_data) and 0 < sigma_data < 1e6:
        return EDMDenoiser(ForeignNetwork(_unet(configs["unet"], origin)), sigma_data)
    if kind in _FLOW_SCHEDULERS:
        unet = _unet(configs["unet"], origin)
        if unet.config.time_embedding_type == "learned":
            raise InputError(f"{origin}: a UNet2DModel that looks timesteps up in a table has none for flow times; "
                             "save one with time_embedding_type positional")
        return VelocityDenoiser(unet, schedule=_flow_schedule(scheduler, origin))
    raise InputError(f"{origin}: the scheduler {kind!r} with prediction_type {prediction!r} is not supported; save the "
                     "model with a DDPMScheduler, a FlowMatchEulerDiscreteScheduler, or an EDMEulerScheduler that "
                     "predicts epsilon")


def diffusers_shape(configs: Mapping[str, Mapping[str, Any]], origin: str) -> tuple[int, int, int]:
    """Shape (C, H, W) of the folder's images."""
    size = configs["unet"].get("sample_size")
    size = [size, size] if type(size) is int else size
    channels = configs["unet"].get("in_channels", 3)
    if not (type(channels) is int and isinstance(size, list) and len(size) == 2
            and all(type(s) is int and 1 <= s <= MAX_PIXELS for s in size)):
        raise InputError(f"{origin}: sample_size {size!r} is not a number of pixels from 1 to {MAX_PIXELS}, or two")
    return channels, size[0], size[1]


def require_divisible(configs: Mapping[str, Mapping[str, Any]], shape: tuple[int, ...], origin: str) -> None:
    """Raises InputError unless the U-Net takes points of this shape."""
    multiple = 2 ** (len(configs["unet"].get("block_out_channels", range(4))) - 1)
    channels = configs["unet"].get("in_channels", 3)
    if len(shape) != 3 or shape[0] != channels or any(size % multiple for size in shape[1:]):
        raise InputError(f"{origin} takes images of {channels} channels whose sides are multiples of {multiple}, "
                         f"not points of shape {tuple(shape)}")


def diffusers_classes(configs: Mapping[str, Mapping[str, Any]]) -> list[int] | None:
    """The classes 0, 1, ... of the folder's network; None where it knows none."""
    count = configs["unet"].get("num_class_embeds")
    return list(range(count)) if count else None


def diffusers_clip(scheduler: Mapping[str, Any], origin: str) -> float | None:
    """Largest absolute value that a described scheduler leaves in clean estimates, or None where it clips none.

    Dynamic thresholding, which takes the place of clipping, is not done; a note says so. Raises InputError for a range
    that is no positive number.
    """
    if scheduler.get("thresholding"):
        _LOG.info(f"note: {origin} asks for dynamic thresholding of the estimates, which is not done here")
        return None
    if not _clips(scheduler):
        return None
    largest = scheduler.get("clip_sample_range", 1.0)
    if not (_is_number(largest) and largest > 0):
        raise InputError(f"{origin}: clip_sample_range is {str(largest)[:60]}, not a positive number; save the model "
                         "again")
    return float(largest)


def save_pipeline(out: Path, denoiser: Denoiser, shape: tuple[int, ...], readme: str,
                  scheduler: Mapping[str, Any] | None = None) -> None:
    """Write a folder that ``DDPMPipeline.from_pretrained`` reads; ``denoiser`` as ``can_be_pipeline`` wants it. Its
    scheduler is a DDPMScheduler, or of a ``VelocityDenoiser`` a FlowMatchEulerDiscreteScheduler, which steps through
    flow times there.

    ``scheduler``: the description of the scheduler that the denoiser was made with; all that these know of it is kept.
    Without one the denoiser's schedule is described.
    """
    diffusers: Any = import_module("diffusers")
    schedule: Any = denoiser.schedule
    network: Any = getattr(denoiser.net, "network", denoiser.net)
    flow = isinstance(schedule, FlowSchedule)
    kind = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDPMScheduler
    if scheduler is not None:
        known = inspect.signature(kind.__init__).parameters
        options = {name: value for name, value in scheduler.items() if name in known}
        if not flow:
            options["clip_sample"] = _clips(scheduler)
    else:
        options = _described(schedule)
    if isinstance(denoiser, TimestepDenoiser):
        options["prediction_type"] = {ours: theirs for theirs, ours in _PREDICTIONS.items()}[denoiser.prediction]
    unet = network
    if hasattr(network, "unet"):  # one of geomem's own
        unet = _twin(network.unet, shape, None if flow else schedule.timesteps)
    with atomic_directory(out) as temporary:
        diffusers.DDPMPipeline(unet, kind(**options)).save_pretrained(temporary)
        (temporary / "README.md").write_text(readme, encoding="utf-8")


def can_be_pipeline(denoiser: nn.Module, shape: tuple[int, ...]) -> str | None:
    """None where diffusers' DDPMPipeline can hold the denoiser, else the reason why it cannot."""
    if not hasattr(denoiser, "schedule"):
        return "it was not trained with the DDPM or the flow objective"
    network: Any = denoiser.net
    network = getattr(network, "network", network)
    unet = network if type(network).__name__ == "UNet2DModel" else getattr(network, "unet", None)
    if unet is None:
        return "its network is not a UNet2DModel"
    if unet.config.num_class_embeds:
        return "it is class-conditional, and DDPMPipeline gives no labels"
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    if any(size % multiple for size in shape[1:]):
        return f"the sides of its images are not multiples of {multiple}"
    return None


def _clips(scheduler: Mapping[str, Any]) -> bool:
    """Whether the described scheduler clips clean estimates; what it does not say is its class's default."""
    known = inspect.signature(getattr(import_module("diffusers"), scheduler["_class_name"]).__init__).parameters
    return "clip_sample" in known and bool(scheduler.get("clip_sample", known["clip_sample"].default))


def _described(schedule: DDPMSchedule | FlowSchedule) -> dict[str, Any]:
    """Options of diffusers' scheduler that steps through a schedule."""
    if isinstance(schedule, FlowSchedule):
        # The network's sinusoids are those of diffusers at NOISE_LABEL_SCALE s: that many timesteps.
        return {"num_train_timesteps": int(NOISE_LABEL_SCALE), "shift": schedule.shift}
    # clip_sample changes the estimates of the network, which was not asked for.
    options: dict[str, Any] = {"num_train_timesteps": schedule.timesteps, "clip_sample": False}
    if schedule.given is None:
        return options | {"beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    fractions = torch.as_tensor([1.0, *schedule.alpha_bar], dtype=torch.float64)
    return options | {"trained_betas": (1 - fractions[1:] / fractions[:-1]).tolist()}


def _twin(unet: Any, shape: tuple[int, ...], timesteps: int | None) -> Any:
    """The U-Net of an ImageUNet that knows the size of its images, and with integer ``timesteps`` where they are given:
    geomem's sinusoids of t/T become the rows of an embedding.
    """
    changed: dict[str, Any] = {"sample_size": tuple(shape[1:])}
    weights = unet.state_dict()
    if timesteps is not None:
        changed |= {"time_embedding_type": "learned", "num_train_timesteps": timesteps}
        weights |= {"time_proj.weight": unet.time_proj(NOISE_LABEL_SCALE * torch.arange(timesteps) / timesteps)}
    twin = type(unet)(**_constructor_options(unet.config) | changed)
    twin.load_state_dict(weights)
    return twin.to(unet.dtype).eval()


def _constructor_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _unet(config: Mapping[str, Any], origin: str, *, learned_variance: bool = False) -> Any:
    """UNet2DModel of a description, counted on the device meta before any memory is taken."""
    model: Any = import_module("diffusers").UNet2DModel
    if config.get("_class_name") != "UNet2DModel":
        raise InputError(f"{origin}: the network is a {config.get('_class_name')!r}; only UNet2DModel is supported")
    options, known = _constructor_options(config), inspect.signature(model.__init__).parameters
    if unknown := sorted(options.keys() - known.keys()):
        raise InputError(f"{origin}: UNet2DModel has no option {unknown[0]!r} here; a newer diffusers may know it")
    for name, value in options.items():
        usual = known[name].default
        if value is not None and not (isinstance(value, bool) if isinstance(usual, bool) else
                                      _is_number(value) if isinstance(usual, int | float) else True):
            raise InputError(f"{origin}: the option {name} of a UNet2DModel is {str(value)[:60]!r}, of another kind "
                             "than it should be; save the model again")
    if not 0 <= (options.get("dropout") or 0) < 1:
        raise InputError(f"{origin}: the dropout {options['dropout']} of a UNet2DModel must lie in [0, 1)")
    channels = options.get("block_out_channels", (224, 448, 672, 896))
    layers = options.get("layers_per_block", 2)
    if not (isinstance(channels, list | tuple) and len(channels) <= MAX_LEVELS and type(layers) is int
            and 1 <= layers <= MAX_LAYERS):
        raise InputError(f"{origin}: a UNet2DModel may have at most {MAX_LEVELS} levels of {MAX_LAYERS} layers")
    if options.get("class_embed_type") is not None:
        raise InputError(f"{origin}: the network is conditional by class_embed_type "
                         f"{str(options['class_embed_type'])[:60]!r}; only classes by num_class_embeds are supported")
    inputs, outputs = options.get("in_channels", 3), options.get("out_channels", 3)
    if outputs != inputs and not (learned_variance and outputs == 2 * inputs):
        raise InputError(f"{origin}: in_channels and out_channels differ ({inputs} and {outputs}); a network that "
                         "takes more than an image, or predicts other than one and a learned variance, is refused")
    embedded = options.get("num_class_embeds")
    if not (embedded is None or (type(embedded) is int and 1 <= embedded <= MAX_CLASSES)):
        raise InputError(f"{origin}: num_class_embeds is {str(embedded)[:60]!r}, not a number of classes from 1 to "
                         f"{MAX_CLASSES}; save the model again")
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in model(**options).parameters())
        if size <= MAX_PARAMETERS:
            return model(**options).eval()
    except Exception as error:  # whatever a foreign constructor makes of foreign values
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{origin}: diffusers cannot build this UNet2DModel ({reason or repr(error)})") from None
    raise InputError(f"{origin}: the UNet2DModel would have {size:.3g} parameters; "
                     f"at most {MAX_PARAMETERS:.0e} are read")


def _alphas_cumprod(config: Mapping[str, Any], origin: str) -> Tensor:
    options = {name: config[name] for name in _BETAS if config.get(name) is not None}
    timesteps, betas = options.get("num_train_timesteps", 1000), options.get("trained_betas", [])
    sound = (type(timesteps) is int and 2 <= timesteps <= MAX_TIMESTEPS and isinstance(betas, list)
             and len(betas) in (0, timesteps) and all(map(_is_number, betas))
             and all(_is_number(options.get(name, 0)) and options.get(name, 0) >= 0
                     for name in ("beta_start", "beta_end")))
    if not sound:
        raise InputError(f"{origin}: the scheduler needs 2 to {MAX_TIMESTEPS} timesteps and finite betas, one for each")
    try:
        with torch.device("cpu"):  # also where the network is only outlined
            return import_module("diffusers").DDPMScheduler(**options).alphas_cumprod
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{origin}: diffusers cannot build this scheduler ({str(error).splitlines()[0]})") from None


def _flow_schedule(config: Mapping[str, Any], origin: str) -> FlowSchedule:
    """Of a described flow-matching scheduler; one with dynamic shifting trains without a shift, as diffusers does."""
    if config.get("invert_sigmas"):
        raise InputError(f"{origin}: a scheduler with invert_sigmas counts flow times from the data and is not "
                         "supported; save one without")
    shift = 1.0 if config.get("use_dynamic_shifting") else config.get("shift", 1.0)
    try:
        return FlowSchedule(config.get("num_train_timesteps", 1000), shift)
    except InputError as error:
        raise InputError(f"{origin}: {error}; save the model again") from None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300


def _read_config(path: Path) -> dict[str, Any]:
    # diffusers writes infinity for some options of schedulers.
    return read_json(path, "save the model again", largest=MAX_CONFIG_BYTES, strict=False)


def _new_name(name: str) -> str:
    return re.sub(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.",
                  lambda match: f"{match[1]}.{_OLD_NAMES[match[2]]}.", name)
