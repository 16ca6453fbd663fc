"""What the callbacks share: one process looks at the model where a look is due, and all of them stop together."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn

from geomem.devices import device_of
from geomem.memorization import MemorizationCheck
from geomem.training.monitor import Monitor


def look_together(monitor: Monitor, denoiser: nn.Module, step: int,
                  first: bool) -> tuple[MemorizationCheck | None, bool]:
    """What the ``first`` process found after ``step`` steps, None in the others and where no look is due; and whether
    the monitor asks to stop, the same in all processes.

    ``denoiser``: the network whole in every process, without the wrapper that shares its gradients. What the adapter
    around it holds follows it to its device.
    """
    if not monitor.is_due(step):
        return None, False
    look = None
    if first:
        look = monitor(step, denoiser.to(device_of(denoiser)))
    stop = [monitor.should_stop]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(stop, src=0)
    return look, stop[0]
