"""Reading weights: safetensors only, so nothing that is read can execute code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.files import require_file

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_pickle(path: Path) -> None:
    """Raises InputError for a file whose ending says that it is pickled."""
    if path.suffix.lower() in PICKLES:
        raise InputError(f"{path} is pickled, which can execute code, and is not read; save the weights as "
                         "safetensors (diffusers: save_pretrained with safe_serialization=True)")


def read_matching(path: Path, module: nn.Module, rename: Callable[[str], str] = str) -> dict[str, Tensor]:
    """Tensors of a safetensors file for every entry of the module's state, by the module's names.

    ``rename`` turns the file's names into the module's. The module may be on the device ``meta``. Raises InputError
    that names the first tensor that is missing, of another shape, left over, or not made of finite floats; shapes are
    compared before anything is read.
    """
    refuse_pickle(path)
    require_file(path, "give a file of weights")
    expected = module.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = {rename(name): name for name in file.keys()}  # noqa: SIM118 (not a mapping)
            for name, tensor in expected.items():
                if name not in names:
                    raise InputError(f"{path} holds no tensor {name!r}, which the network needs; "
                                     "it belongs to another network")
                shape = tuple(file.get_slice(names[name]).get_shape())
                if shape != tuple(tensor.shape):
                    raise InputError(f"{path}: tensor {name!r} has shape {shape}, the network needs "
                                     f"{tuple(tensor.shape)}; it belongs to another network or other data")
            left = [name for name in names if name not in expected]
            if left:
                raise InputError(f"{path} holds a tensor {left[0]!r} that the network does not have; "
                                 "it belongs to another network")
            tensors = {name: file.get_tensor(names[name]) for name in expected}
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give a file of weights that is there") from None
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error})") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: tensor {name!r} does not hold finite floats; the file is damaged")
    return tensors
