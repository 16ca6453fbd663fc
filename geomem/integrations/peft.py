"""The best adapters per noise level (LoRA of peft), in the files that diffusers and peft read::

    save_adapters("adapters", monitor, denoiser)
    pipeline.load_lora_weights("adapters/step-0000500")              # where the network is one of diffusers
    PeftModel.from_pretrained(base, "adapters/step-0000500")         # where it is a PeftModel

    levels.json     ``edges`` (bands + 1) of the bands of noise levels, ``folders`` (bands) of their adapters, and
                    ``early_stop``, the folder of the adapter with the best average held-out loss
    step-0000500/   pytorch_lora_weights.safetensors, or adapter_model.safetensors and adapter_config.json
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.files import write_json
from geomem.models.weights import write_tensors
from geomem.training.best_weights import Snapshot
from geomem.training.level_files import new_folder
from geomem.training.monitor import Monitor

try:
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
except ImportError:
    raise InputError("geomem.integrations.peft needs peft; pip install 'geomem[integrations]'") from None

FORMAT = "geomem.best-adapters/1"


def save_adapters(folder: str | os.PathLike[str], monitor: Monitor, denoiser: nn.Module) -> None:
    """Write what ``monitor.save`` writes as adapters of peft, a folder for each, into a new ``folder``.

    ``denoiser`` : as the monitor was given it; somewhere in it is a diffusers network after ``add_adapter``, or a
    ``PeftModel``, with one adapter.
    Raises InputError as ``monitor.save`` does, and where more was trained than the adapter: such files cannot hold it.
    """
    place, network = next(((place, part) for place, part in denoiser.named_modules()
                           if getattr(part, "peft_config", None)), ("", None))
    names = list(network.peft_config) if network is not None else []
    if len(names) != 1:
        raise InputError(f"the network has {len(names) or 'no'} adapters of peft; train one (add_adapter or "
                         "get_peft_model), or take monitor.save")
    edges, steps, early_stop, snapshots = monitor.kept()
    with new_folder(folder) as temporary:
        for step in sorted({*steps, early_stop}):
            (temporary / _name(step)).mkdir()
            adapter = _adapter(network, names[0], f"{place}.", snapshots[step])
            _write(temporary / _name(step), network, names[0], adapter)
        write_json(temporary / "levels.json", {"format": FORMAT, "edges": edges, "early_stop": _name(early_stop),
                                               "folders": [_name(step) for step in steps]})


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _adapter(network: Any, name: str, place: str, snapshot: Snapshot) -> dict[str, Tensor]:
    """The adapter in a snapshot under peft's names; the network's own begin with ``place`` there. Raises InputError
    where the snapshot holds more that was trained.
    """
    state = {key.removeprefix(place): tensor for key, tensor in snapshot.items() if key.startswith(place)}
    adapter = get_peft_model_state_dict(network, state, name, save_embedding_layers=False)
    taken, now = {id(tensor) for tensor in adapter.values()}, network.state_dict()
    for key, tensor in state.items():
        if id(tensor) not in taken and not torch.equal(tensor, now[key].to(tensor)):
            raise InputError(f"{key!r} was trained beside the adapter, and a file of peft holds the adapter alone; "
                             "take monitor.save, or freeze the rest before the first look")
    return adapter


def _write(folder: Path, network: Any, name: str, adapter: dict[str, Tensor]) -> None:
    config = network.peft_config[name]
    if isinstance(network, PeftModel):
        write_tensors(folder / "adapter_model.safetensors", adapter, {"format": "pt"})
        config.save_pretrained(folder)
        return
    component = "unet" if "UNet" in type(network).__name__ else "transformer"  # its name in a pipeline
    about = {f"{component}.{key}": sorted(value) if isinstance(value, set) else value
             for key, value in config.to_dict().items()}
    write_tensors(folder / "pytorch_lora_weights.safetensors",
                  {f"{component}.{key}": tensor for key, tensor in adapter.items()},
                  {"format": "pt", "lora_adapter_metadata": json.dumps(about, sort_keys=True)})
