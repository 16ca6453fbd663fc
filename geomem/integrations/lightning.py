"""``geomem.Monitor`` in Lightning, as ``lightning`` or ``pytorch_lightning``::

    callback = MonitorCallback(geomem.Monitor(train, heldout, every=500, stop_at=0.03), denoiser)
    Trainer(max_steps=20_000, callbacks=[callback]).fit(module, batches)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from geomem.errors import InputError
from geomem.integrations.looks import look_together
from geomem.training.monitor import Monitor

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        raise InputError("geomem.integrations.lightning needs lightning; pip install 'geomem[integrations]'") from None


class MonitorCallback(Callback):
    """Looks where the monitor says, writes what it found with the trainer's loggers, and stops the trainer where the
    monitor asks to.

    ``denoiser`` : the network of the training, or its moving average, as ``D(x, sigma)``. Steps are the trainer's
    ``global_step``: with several optimizers those of all. Of several processes each makes a monitor, and the first one
    looks.
    """

    def __init__(self, monitor: Monitor, denoiser: nn.Module) -> None:
        self.monitor, self.denoiser, self.seen = monitor, denoiser, 0

    def on_train_batch_end(self, trainer: Any, *batch: Any) -> None:
        if trainer.global_step == self.seen:  # gradients are accumulated
            return
        self.seen = trainer.global_step
        look, stop = look_together(self.monitor, self.denoiser, self.seen, trainer.is_global_zero)
        if look is not None:
            for logger in trainer.loggers:
                logger.log_metrics(look.scalars(), step=self.seen)
        trainer.should_stop |= stop
