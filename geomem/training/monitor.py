"""Monitoring a training: is it memorizing yet, which weights are best per noise level, and when is it enough?

For a loop of one's own, or the callbacks of a trainer::

    monitor = Monitor(train, heldout, every=500)
    for step, batch in enumerate(batches, start=1):
        ...                                            # the training itself
        look = monitor(step, denoiser)                 # a MemorizationCheck at steps 500, 1000, ..., else None
    samples = generate(monitor.best(denoiser), range(1000), train.shape[1:])

Without held-out points, train until ``look.shows_copies()`` and take ``monitor.before_copies(denoiser)``.

``denoiser`` is the network that is trained, or its moving average, as ``D(x, sigma)``: see ``geomem.models.adapters``.
``train_steps`` monitors the trainings of geomem in the same way, with more held-out losses than looks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.devices import device_of, evaluation_mode
from geomem.duplicates import leaked_points
from geomem.errors import InputError, are
from geomem.memorization.watch import SAMPLES, MemorizationCheck, Watch
from geomem.models.denoiser import rows_of
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.noise.schedules import SIGMA_MAX, SIGMA_MIN
from geomem.points import Array, Points, as_points, as_rows
from geomem.rng import generator, torch_generator
from geomem.training.best_weights import BestWeights, Snapshot, with_weights
from geomem.training.earlier import EarlierWeights
from geomem.training.level_files import save_levels
from geomem.training.loss import heldout_losses

LOG = logging.getLogger("geomem")
VALIDATION = 500  # held-out points whose loss chooses the weights, at most


class _Scored:
    """Some rows of points (N, ...) and the noise with which their losses are measured, the same each time."""

    def __init__(self, points: np.ndarray | Points, rows: np.ndarray, purpose: str, seed: int,
                 labels: np.ndarray | None, conditioning: Mapping[str, Any] | None) -> None:
        self.clean = torch.from_numpy(np.ascontiguousarray(points[rows])).float()
        self.noise = torch.randn(self.clean.shape, generator=torch_generator(seed, purpose))
        self.classes = None if labels is None else torch.from_numpy(labels[rows])
        self.conditioning = None if conditioning is None else rows_of(conditioning, torch.from_numpy(rows), len(points))

    def losses(self, denoiser: nn.Module, sigmas: Sequence[float]) -> np.ndarray:
        """Of ``denoiser`` at the noise levels (S,), (S,); the points stay on its device."""
        device = device_of(denoiser)
        self.clean, self.noise = self.clean.to(device), self.noise.to(device)
        self.classes = None if self.classes is None else self.classes.to(device)
        return heldout_losses(denoiser, self.clean, self.noise, sigmas, self.classes, self.conditioning)


class Monitor:
    """Measures a denoiser at every so many steps, keeps its best weights per noise level and says when to stop.

    Nothing of the training changes: weights, gradients, modes of the modules and the global random numbers stay as they
    are. Where a part of the denoiser's parameters is frozen (``requires_grad=False``), the other part and the buffers
    are kept: an adapter, without its base.

    Parameters
    ----------
    train : (N, ...), all training points, as the network gets them; None where there are no looks.
    heldout : (M, ...) validation points, or None; without them no weights are chosen. Those that are equal or
        near-equal to training points are left out, with a warning.
    test : (L, ...) held-out points that choose nothing, against which a look measures leaning; None takes the
        validation points, which say too little of the leaning of weights that they chose.
    every : steps between two looks, or the steps of the looks; None for no looks.
    sigmas : noise levels at which a look measures errors; None takes half, once and twice the standard deviation of the
        training values.
    n : samples made at a look. seed : of the noise on held-out points.
    device : where distances are computed; the denoiser stays on its own.
    labels : classes (N,) and (M,) of the points, for class-conditional denoisers.
    conditioning : what else the denoiser takes by name, for the training and for the held-out points: two mappings of
        tensors or arrays with an entry for each point (``encoder_hidden_states``, ``pooled_projections``, ...), in
        mappings inside them too (``added_cond_kwargs``). Samples take that of the training points in turn.
    stop_at : share of memorized samples at which ``should_stop`` becomes True; None for never. stop_at_leaning : the
        same for the share nearer to training, where its interval lies above 1/2, too; test points that end a training
        say too little of its leaning.
    validation : held-out points, at most, whose losses choose the weights.
    lean, average_weights, dtype : as ``BestWeights`` has them; ``lean`` needs training points, of which as many are
        evaluated as validation points.

    ``looks`` holds (step, MemorizationCheck) of every look so far. Raises InputError for ``every`` below 1 and for
    points that are not finite, or too few to judge samples by.
    """

    def __init__(self, train: Array | None, heldout: Array | None, *, every: int | Collection[int] | None,
                 test: Array | None = None, sigmas: Sequence[float] | None = None, n: int = SAMPLES, seed: int = 0,
                 device: str | torch.device = "auto", labels: tuple[np.ndarray, np.ndarray] | None = None,
                 conditioning: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
                 stop_at: float | None = None, stop_at_leaning: float | None = None, mirrored: bool = False,
                 validation: int = VALIDATION, lean: float | None = None,
                 average_weights: Sequence[float] | np.ndarray | None = None,
                 dtype: torch.dtype | None = None) -> None:
        if isinstance(every, int) and every < 1:
            raise InputError(f"a look every {every} steps: give 1 or more")
        known = (None if heldout is None or not len(heldout) else
                 as_rows(heldout, "heldout").reshape(tuple(heldout.shape)))
        if conditioning is not None:
            if not (isinstance(conditioning, tuple) and len(conditioning) == 2
                    and all(isinstance(part, Mapping) for part in conditioning)):
                raise InputError("conditioning is given as (that of train, that of heldout), two mappings of tensors "
                                 "by name")
            for part, points, of in zip(conditioning, (train, known), ("training", "held-out"), strict=True):
                if points is not None:
                    _require_rows(part, points, of)
        if train is not None and known is not None and (leaked := leaked_points(train, known)).any():
            LOG.warning(f"warning: {leaked.sum():,} of {len(known):,} held-out points {are(leaked.sum())} equal or "
                        "nearly equal to training points; they choose no weights")
            known = known[~leaked] if not leaked.all() else None
            labels = None if labels is None else (labels[0], labels[1][~leaked])
            conditioning = None if conditioning is None else (
                conditioning[0], rows_of(conditioning[1], torch.from_numpy(np.flatnonzero(~leaked)), len(leaked)))
        self.every, self.stop_at, self.stop_at_leaning, self.should_stop = every, stop_at, stop_at_leaning, False
        self.looks: list[tuple[int, MemorizationCheck]] = []
        self.watch: Watch | None = None
        self.earlier: EarlierWeights | None = None
        self.best_weights: BestWeights | None = None
        if every is not None:
            if train is None:
                raise InputError("looks need the training points")
            if sigmas is None:
                sigma_data = float(as_rows(train, "train").std(dtype=np.float64, ddof=1))
                sigmas = [sigma_data / 2, sigma_data, 2 * sigma_data]
            self.watch = Watch(train, known, sigmas, test=test, labels=labels, conditioning=conditioning, n=n,
                               seed=seed, mirrored=mirrored, device=device)
            self.earlier = EarlierWeights(dtype)
        self._validation: _Scored | None = None
        self._training: _Scored | None = None
        if known is not None:
            self.best_weights = BestWeights.log_spaced(average_weights=average_weights, lean=lean, dtype=dtype)
            self._validation = _Scored(known, np.arange(min(validation, len(known))), "validation noise", seed,
                                       labels and labels[1], conditioning and conditioning[1])
        if lean is not None:
            if train is None or known is None:
                raise InputError("a limit on held-out over training loss (--lean) needs training and validation "
                                 "points; give both, or leave it out")
            chosen = np.sort(generator(seed, "training points that are scored").permutation(len(train))[:validation])
            self._training = _Scored(as_points("train", train), chosen, "noise of training points", seed,
                                     labels and labels[0], conditioning and conditioning[0])

    def __call__(self, step: int, denoiser: nn.Module) -> MemorizationCheck | None:
        """Evaluate and look at the weights after ``step`` steps where a look is due; else None, and nothing is done."""
        if not self.is_due(step):
            return None
        self.evaluate(step, denoiser)
        return self.look(step, denoiser)

    def is_due(self, step: int) -> bool:
        """Whether a look is to be taken after ``step`` steps."""
        return self.every is not None and (step % self.every == 0 if isinstance(self.every, int) else
                                           step in self.every)

    def evaluate(self, step: int, denoiser: nn.Module) -> np.ndarray | None:
        """Held-out losses (bands,) of the weights after ``step`` steps, at ``best_weights.centres``, or None.

        The weights are kept where they are the best so far, and thinly for ``before_copies``.
        """
        if self.earlier is not None:
            self.earlier.update(step, denoiser)
        if self.best_weights is None or self._validation is None:
            return None
        sigmas = self.best_weights.centres.tolist()
        with evaluation_mode(denoiser):
            losses = self._validation.losses(denoiser, sigmas)
            training = None if self._training is None else self._training.losses(denoiser, sigmas)
        self.best_weights.update(step, losses, denoiser, training)
        return losses

    def look(self, step: int, denoiser: nn.Module) -> MemorizationCheck:
        """Whether a few samples are copies of training points, or lean on them.

        Raises InputError for a monitor without looks.
        """
        if self.watch is None or self.earlier is None:
            raise InputError("this monitor takes no looks; give every=...")
        self.earlier.update(step, denoiser)
        with evaluation_mode(denoiser):
            look = self.watch.look(denoiser)
        if look.shows_copies(self.stop_at):
            self.earlier.copies_seen(step)
            self.should_stop = self.stop_at is not None
        if self.stop_at_leaning is not None and look.leaning is not None:
            self.should_stop |= look.leaning.share >= self.stop_at_leaning and look.leaning.low > 0.5
        self.looks.append((step, look))
        return look

    def best(self, denoiser: nn.Module) -> PiecewiseDenoiser:
        """A denoiser with the best weights for each noise level; ``denoiser`` gives the architecture, and shares its
        frozen parameters.

        Raises InputError before the first look and without held-out points.
        """
        if self.best_weights is None:
            raise InputError("the best weights per noise level are chosen by held-out points; give the monitor some")
        return self.best_weights.stitched(denoiser)

    def before_copies(self, denoiser: nn.Module) -> nn.Module:
        """A copy of ``denoiser`` with the weights of half the steps at which copies were seen first; frozen parameters
        are shared.

        Raises InputError as long as no look found copies.
        """
        return with_weights(denoiser, self._before_copies()[1])

    def _before_copies(self) -> tuple[int, Snapshot]:
        if self.earlier is None or self.earlier.step is None:
            raise InputError("no look has seen copies yet, so no weights are before them; train on, or take the last")
        return self.earlier.step, self.earlier.snapshots[self.earlier.step]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the best weights for each noise level into a new folder, safetensors and JSON, for ``load_best``; of a
        network that is trained in part that part alone. Without held-out points those from before the copies are
        written, for all levels.

        Raises InputError where there are none yet, and for a folder that exists and is not empty.
        """
        save_levels(folder, *self.kept())

    def kept(self) -> tuple[list[float], list[int], int, dict[int, Snapshot]]:
        """What ``save`` writes: edges (bands + 1), the step of each band, that of the early stop, the states by step.

        Raises InputError as ``save`` does for weights.
        """
        if self.best_weights is not None:
            best = self.best_weights
            return best.edges.tolist(), best.steps, best.early_stop, best.snapshots
        step, snapshot = self._before_copies()
        return [SIGMA_MIN, SIGMA_MAX], [step], step, {step: snapshot}


def _require_rows(conditioning: Mapping[str, Any], points: Array, of: str) -> None:
    """Raises InputError unless each tensor in the mapping, and in those inside it, has an entry for each point."""
    for name, value in conditioning.items():
        if isinstance(value, Mapping):
            _require_rows(value, points, of)
        elif isinstance(value, torch.Tensor | np.ndarray) and value.ndim and len(value) != len(points):
            raise InputError(f"the conditioning {name} has {len(value)} entries for {len(points)} {of} points; "
                             "give one for each")
