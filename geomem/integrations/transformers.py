"""``geomem.Monitor`` in ``transformers.Trainer``::

    trainer = Trainer(model, settings, train_dataset=images)
    trainer.add_callback(MonitorCallback(geomem.Monitor(train, heldout, every=500, stop_at=0.03), denoiser, trainer))
"""

from __future__ import annotations

from typing import Any

from torch import nn

from geomem.errors import InputError
from geomem.integrations.looks import look_together
from geomem.training.monitor import Monitor

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
except ImportError:
    raise InputError("geomem.integrations.transformers needs transformers; pip install 'geomem[integrations]'"
                     ) from None


class MonitorCallback(TrainerCallback):
    """Looks where the monitor says, logs by the trainer what it found, and stops it where the monitor asks to.

    ``denoiser`` : the network of the training, or its moving average, as ``D(x, sigma)``. ``trainer`` : its ``log``
    reaches ``report_to`` and ``state.log_history``. Of several processes each makes a monitor, and the first one looks.
    """

    def __init__(self, monitor: Monitor, denoiser: nn.Module, trainer: Trainer) -> None:
        self.monitor, self.denoiser, self.trainer = monitor, denoiser, trainer

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        look, stop = look_together(self.monitor, self.denoiser, state.global_step, state.is_world_process_zero)
        if look is not None:
            due = control.should_log
            self.trainer.log(look.scalars())
            control.should_log = due  # the trainer's own line, which logging just now would leave out
        control.should_training_stop |= stop
