"""``geomem.Monitor`` in a training loop with accelerate::

    for step, batch in enumerate(batches, start=1):
        ...                                                # the training itself
        if look_and_log(accelerator, monitor, denoiser, step):
            break
"""

from __future__ import annotations

from torch import nn

from geomem.errors import InputError
from geomem.integrations.looks import look_together
from geomem.training.monitor import Monitor

try:
    from accelerate import Accelerator
except ImportError:
    raise InputError("geomem.integrations.accelerate needs accelerate; pip install 'geomem[integrations]'") from None


def look_and_log(accelerator: Accelerator, monitor: Monitor, denoiser: nn.Module, step: int) -> bool:
    """Look where the monitor says, log what it found with the accelerator's trackers, and return whether the monitor
    asks to stop, the same in all processes.

    ``denoiser`` : the unwrapped network of the training, or its moving average, as ``D(x, sigma)``. ``step`` : steps of
    the optimizer so far. Of several processes each makes a monitor, and the first one looks.
    """
    look, stop = look_together(monitor, denoiser, step, accelerator.is_main_process)
    if look is not None:
        accelerator.log(look.scalars(), step=step)
    return stop
