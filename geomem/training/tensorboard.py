"""The losses of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoardLog:
    """Writes lines of stats.jsonl into the directory ``path``; the package tensorboard must be installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line. From the first one on, what a killed process wrote for the same and later steps is forgotten."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.path), purge_step=line["step"])
        self._writer.add_scalar("loss", line["loss"], line["step"])
        if "heldout_mse" in line:
            self._writer.add_scalar("heldout_mse", sum(line["heldout_mse"]), line["step"])
        self._writer.flush()
