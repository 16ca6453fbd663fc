"""A training that geomem does not run: looks at its memorization, and the best weights per noise level.

For a loop of one's own, or the callbacks of a trainer::

    monitor = Monitor(train, heldout, every=500)
    for step, batch in enumerate(batches, start=1):
        ...                                            # the training itself
        look = monitor(step, denoiser)                 # a Look at steps 500, 1000, ..., else None
    samples = generate(monitor.best(denoiser), range(1000), train.shape[1:])

Without held-out points, train until ``look.shows_copies()`` and take ``monitor.before_copies(denoiser)``.

``denoiser`` is the network that is trained, or its moving average, as ``D(x, sigma)``: see ``geomem.models.adapters``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from geomem.errors import InputError
from geomem.geometry.neighbours import Array, as_rows
from geomem.memorization.levels import evaluation_mode
from geomem.memorization.watch import SAMPLES, Look, Watch
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.rng import torch_generator
from geomem.training.best_weights import BestWeights
from geomem.training.earlier import EarlierWeights
from geomem.training.loss import heldout_losses

VALIDATION = 500  # held-out points whose loss chooses the weights, at most


class Monitor:
    """Looks at a denoiser at every so many steps and keeps its best weights per noise level.

    Nothing of the training changes: weights, gradients, modes of the modules and the global random numbers stay as they
    are.

    Parameters
    ----------
    train : (N, ...), all training points, as the network gets them. heldout : (M, ...) others that may steer, or None;
        without them no weights are chosen.
    every : steps between two looks.
    sigmas : noise levels at which a look measures errors; None takes half, once and twice the standard deviation of the
        training values.
    n : samples made at a look. seed : of the noise on held-out points.
    device : where distances are computed; the denoiser stays on its own.

    ``looks`` holds (step, Look) of every look so far. Raises InputError for ``every`` below 1 and for points that are
    not finite, or too few to judge samples by.
    """

    def __init__(self, train: Array, heldout: Array | None, *, every: int, sigmas: Sequence[float] | None = None,
                 n: int = SAMPLES, seed: int = 0, device: str | torch.device = "auto") -> None:
        if every < 1:
            raise InputError(f"a look every {every} steps: give 1 or more")
        if sigmas is None:
            sigma_data = float(as_rows(train, "train").std(dtype=np.float64, ddof=1))
            sigmas = [sigma_data / 2, sigma_data, 2 * sigma_data]
        known = (None if heldout is None or not len(heldout) else
                 as_rows(heldout, "heldout").reshape(tuple(heldout.shape)))
        self.every = every
        self.watch = Watch(train, known, sigmas, n=n, seed=seed, device=device)
        self.looks: list[tuple[int, Look]] = []
        self.earlier = EarlierWeights()
        self.best_weights: BestWeights | None = None
        if known is not None:
            self.best_weights = BestWeights.log_spaced()
            self._clean = torch.from_numpy(known[:VALIDATION]).float()
            self._noise = torch.randn(self._clean.shape, generator=torch_generator(seed, "validation noise"))

    def __call__(self, step: int, denoiser: nn.Module) -> Look | None:
        """A look at the weights after ``step`` steps, where ``every`` divides it; else None, and nothing is done."""
        if step % self.every:
            return None
        with evaluation_mode(denoiser):
            if self.best_weights is not None:
                device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
                losses = heldout_losses(denoiser, self._clean.to(device), self._noise.to(device),
                                        self.best_weights.centres.tolist())
                self.best_weights.update(step, losses, denoiser.state_dict())
            self.earlier.update(step, denoiser.state_dict())
            look = self.watch.look(denoiser)
        if look.shows_copies():
            self.earlier.copies_seen(step)
        self.looks.append((step, look))
        return look

    def best(self, denoiser: nn.Module) -> PiecewiseDenoiser:
        """A denoiser with the best weights for each noise level; ``denoiser`` gives the architecture.

        Raises InputError before the first look and without held-out points.
        """
        if self.best_weights is None:
            raise InputError("the best weights per noise level are chosen by held-out points; give the monitor some")
        return self.best_weights.stitched(denoiser)

    def before_copies(self, denoiser: nn.Module) -> nn.Module:
        """A copy of ``denoiser`` with the weights of half the steps at which copies were seen first.

        Raises InputError as long as no look found copies.
        """
        if self.earlier.step is None:
            raise InputError("no look has seen copies yet, so no weights are before them; train on, or take the last")
        found = copy.deepcopy(denoiser).eval()
        found.load_state_dict(self.earlier.snapshots[self.earlier.step])
        return found
