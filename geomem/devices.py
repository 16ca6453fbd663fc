"""Where and how networks run: the torch device, and the mode of evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from geomem.errors import InputError

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU. Raises InputError for a device that is not there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({str(error).splitlines()[0][:200]}); "
                         "use auto, cpu or cuda") from error
    if resolved.type == "meta":
        raise InputError(f"device {device!r} holds no values; use auto, cpu or cuda")
    return resolved


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
