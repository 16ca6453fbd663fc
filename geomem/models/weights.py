"""Reading and writing weights: safetensors only, so nothing that is read can execute code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.files import atomic_path, require_file

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_pickle(path: Path) -> None:
    """Raises InputError for a file whose ending says that it is pickled."""
    if path.suffix.lower() in PICKLES:
        raise InputError(f"{path} is pickled, which can execute code, and is not read; save the weights as "
                         "safetensors (diffusers: save_pretrained with safe_serialization=True)")


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file as ``safe_open`` gives it. Raises InputError for one that is missing, pickled or not whole."""
    refuse_pickle(path)
    require_file(path, "give a file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give a file of weights that is there") from None
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def read_matching(path: Path, module: nn.Module, rename: Callable[[str], str] = str, *,
                  partial: bool = False) -> dict[str, Tensor]:
    """Tensors of a safetensors file for every entry of the module's state, by the module's names.

    ``rename`` turns the file's names into the module's. ``partial``: the file may hold some of the entries alone. The
    module may be on the device ``meta``. Raises InputError that names the first tensor that is missing, of another
    shape, left over, or not made of finite floats where the module's is of floats; shapes are compared before anything
    is read.
    """
    expected = module.state_dict()
    with open_tensors(path) as file:
        names = {rename(name): name for name in file.keys()}  # noqa: SIM118 (not a mapping)
        for name, tensor in expected.items():
            if partial and name not in names:
                continue
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
        tensors = {name: file.get_tensor(names[name]) for name in expected if name in names}
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() != expected[name].is_floating_point()
                or not bool(torch.isfinite(tensor).all())):
            raise InputError(f"{path}: tensor {name!r} does not hold finite floats; the file is damaged")
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; ``metadata`` goes into its header."""
    with atomic_path(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        except SafetensorError as error:  # hides the system's own error, a full disk above all
            raise OSError(f"{path} cannot be written: {error}") from None
