"""Weights from before the copies: a choice that needs training points alone.

Held-out losses say best when each noise level has had enough (``best_weights``). Without held-out points there is still
the moment at which samples begin to be copies. Quality was best well before it: in six data sets the weights of half of
those steps copied next to nothing, at a distance to held-out data about as small as the training ever passed
(docs/which-gap.md). So snapshots are kept from half of the present step on.

Usable in any training loop::

    earlier = EarlierWeights()
    earlier.update(step, ema_model)     # now and then
    earlier.copies_seen(step)           # at the first look that finds copies
    ema_model.load_state_dict(earlier.snapshots[earlier.step], strict=False)   # an adapter has no base
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.training.best_weights import Snapshot, kept_copy

GROWTH = 1.15  # at least, from one snapshot to the next, in steps: six of them at most


class EarlierWeights:
    """Keeps snapshots of a training, thinly, and from the first copies on the one of half the steps.

    ``snapshots`` by step. ``copies_at``: the step at which copies were seen first, or None. ``dtype`` as for
    ``BestWeights``.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.snapshots: dict[int, Snapshot] = {}
        self.copies_at: int | None = None

    def update(self, step: int, snapshot: nn.Module | Mapping[str, Tensor]) -> None:
        """Take in the weights at ``step``, given as for ``BestWeights``; they are copied if they are kept. After the
        first copies nothing changes.
        """
        if self.copies_at is not None or (self.snapshots and step < GROWTH * max(self.snapshots)):
            return
        self.snapshots[step] = kept_copy(snapshot, self.dtype, self.snapshots)
        before = [kept for kept in sorted(self.snapshots) if kept <= step / 2]
        for kept in before[:-1]:
            del self.snapshots[kept]

    def copies_seen(self, step: int) -> None:
        """Choose the last snapshot up to half of ``step``, or the first one there is; later calls change nothing.

        Raises InputError before the first update.
        """
        if not self.snapshots:
            raise InputError("weights from before the copies need an update before copies are seen")
        if self.copies_at is None:
            self.copies_at = step
            chosen = max((kept for kept in self.snapshots if kept <= step / 2), default=min(self.snapshots))
            self.snapshots = {chosen: self.snapshots[chosen]}

    @property
    def step(self) -> int | None:
        """Step of the chosen weights; None as long as no copies were seen."""
        return None if self.copies_at is None else next(iter(self.snapshots))

    def to_dict(self) -> dict[str, Any]:
        """JSON state without the snapshots themselves."""
        return {"steps": sorted(self.snapshots), "copies_at": self.copies_at}

    def restore(self, state: Mapping[str, Any], snapshot: Callable[[int], Snapshot]) -> None:
        """Inverse of ``to_dict``; ``snapshot`` gives those kept by their step."""
        self.snapshots = {int(step): snapshot(int(step)) for step in state["steps"]}
        self.copies_at = None if state["copies_at"] is None else int(state["copies_at"])
