"""The memorized share as a metric of torchmetrics, summed over batches and processes::

    metric = MemorizedShare(train)
    metric.update(samples)      # (B, ...), in the scale of the training points
    metric.compute()            # {"rate": ..., "low": ..., "high": ..., "n": ...}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.memorization.ratio import RATIO, apply_ratio_rule, distinct_training
from geomem.memorization.views import Views
from geomem.points import Array, as_rows
from geomem.scales import require_one_scale
from geomem.statistics import wilson_interval

try:
    from torchmetrics import Metric
except ImportError:
    raise InputError("geomem.integrations.torchmetrics needs torchmetrics; pip install 'geomem[integrations]'"
                     ) from None


class MemorizedShare(Metric):
    """Share of samples that are memorized by the ratio rule, with its 95% Wilson interval, as ``memorization_rate``.

    The rule looks at each sample by itself, so the state is two counts, and nothing of the samples is kept.

    Parameters
    ----------
    train : (N, ...), the training points. ratio, tolerance : as in ``memorization_rate``.
    views : ``mirrored``, ``shifts``, ``brightness``, ``features``, as there. device : where distances are computed.
    options : of ``torchmetrics.Metric``.

    Raises InputError for what ``memorization_rate`` refuses, and in ``compute`` before the first sample.
    """

    is_differentiable, higher_is_better, full_state_update = False, False, False
    count: Tensor
    n: Tensor

    def __init__(self, train: Array, *, ratio: float = RATIO, tolerance: float | None = None,
                 views: dict[str, Any] | None = None, device: str | torch.device = "auto", **options: Any) -> None:
        super().__init__(**options)
        self.ratio, self._where, self._train = ratio, device, train
        self._training = distinct_training(train, tolerance, Views.of(train, **(views or {})), device=device)
        for name in ("count", "n"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, samples: Tensor) -> None:
        """Take in samples (B, ...) of the shape of the training points."""
        if samples.shape[1:] != self._train.shape[1:]:
            raise InputError(f"samples have shape {tuple(samples.shape[1:])} each and training points "
                             f"{tuple(self._train.shape[1:])}; bring both to one shape")
        require_one_scale("samples", samples, self._train)
        found = apply_ratio_rule(as_rows(samples, "samples"), self._training, self.ratio, device=self._where)
        self.count += found.count
        self.n += found.n

    def compute(self) -> dict[str, Tensor]:
        """``rate`` in [0, 1], its interval ``low``, ``high``, and the number ``n`` of samples, scalars."""
        count, n = int(self.count), int(self.n)
        if not n:
            raise InputError("no samples yet; update the metric with some before computing it")
        low, high = wilson_interval(count, n)
        shares = {"rate": count / n, "low": low, "high": high}
        return {**{name: torch.tensor(share, dtype=torch.float64) for name, share in shares.items()}, "n": self.n}
