"""Where and how networks run: the torch device, and the mode of evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from geomem.errors import InputError

WITHOUT_FLOAT64 = {"mps"}  # kinds of devices

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | torch.device = "auto", *, float64: bool = False) -> torch.device:
    """``auto`` is CUDA where there is one, else Apple's mps for a single process (gloo knows none), else the CPU; with
    ``float64`` the CPU takes the place of mps, which has none. Raises InputError for a device that is not there.
    """
    import torch

    if device == "auto":
        mps = not float64 and torch.backends.mps.is_available() and not torch.distributed.is_initialized()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({str(error).splitlines()[0][:200]}); "
                         "use auto, cpu, cuda or mps") from error
    if resolved.type == "meta":
        raise InputError(f"device {device!r} holds no values; use auto, cpu, cuda or mps")
    return torch.device("cpu") if float64 and resolved.type in WITHOUT_FLOAT64 else resolved


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device without it."""
    import torch

    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def device_of(network: object, otherwise: str | torch.device = "cpu") -> torch.device:
    """Where a module's parameters are, or its buffers; ``otherwise`` for what has neither."""
    import torch

    held = chain(network.parameters(), network.buffers()) if isinstance(network, torch.nn.Module) else ()
    return next((tensor.device for tensor in held), torch.device(otherwise))


@contextmanager
def evaluation_mode(network: object) -> Iterator[None]:
    """Switch off dropout and the like, and put every submodule back as it was; what is no module is left alone."""
    from torch import nn

    training = [m for m in network.modules() if m.training] if isinstance(network, nn.Module) else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
