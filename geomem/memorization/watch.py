"""A cheap look at a training: does the model copy training points yet?

Of n generated samples with the seeds 0..n-1, the same at every look, a share r is memorized by the ratio rule (Dodson
et al. 2026, section 3), with its 95% Wilson interval [l, u]. The floor is the share of held-out points for which the
rule fires too, with the interval [l', u']. **Memorization has set in** where l > u'. Beside it, at a few noise levels,
the denoising error on training and on held-out points (``levels``): copying shows there as an error that is small on
training points only.

The ratio rule sees copies alone, so the same samples are also asked whether they lean on the training points
(``leaning``): how many of them are nearer to training than to as many held-out points.

The held-out points of floor and errors must be validation points, not those that test the result: a look may stop the
training. Leaning stops nothing, so it is measured against test points where they are given. Against validation points
it is as good for the weights that a look has seen; of weights that those points chose it would say too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.errors import InputError
from geomem.generation import generate
from geomem.memorization.heldout import DistinctSets, distinct_sets
from geomem.memorization.leaning import leaning_against, leaning_of_heldout
from geomem.memorization.levels import memorization_per_noise_level
from geomem.memorization.ratio import RATIO, apply_ratio_rule, distinct_training
from geomem.memorization.views import Views, nearest_points
from geomem.models.denoiser import rows_of
from geomem.noise.schedules import edm_steps
from geomem.points import Array, as_points, as_rows
from geomem.rng import generator

SAMPLES = 64
STEPS = 9  # Heun evaluates the model 17 times
# Images through the network at one look: 17 a sample, and at each level as many training as held-out points.
EVALUATIONS = SAMPLES * (2 * STEPS - 1 + 2 * 3)
TRAINING_EVALUATIONS = 3  # of a training image, forward and twice as much backward
SHARE = 0.04  # of the training's own time
LOOKS = 25  # at most so many by default
POINTS, VALUES = 4096, 2**27  # training points, and held-out ones, for leaning, at most: 512 MiB of each
RELABELINGS = 199  # the standard error of leaning is known to 5%
COPIES = 0.03  # share of the samples, two of 64, from which on a model copies


@dataclass(frozen=True)
class LeaningCheck:
    """Leaning of the samples of a look.

    share, low, high: of n samples, nearer to training than to as many held-out points, m of each kind, with its 95%
    interval; 1/2 for an honest model. floor: the share of held-out points themselves, or None for too few of them.
    points: ``test``, held-out points that choose nothing, or ``validation``.
    """

    share: float
    low: float
    high: float
    n: int
    m: int
    floor: float | None
    points: str


@dataclass(frozen=True)
class MemorizationCheck:
    """Memorization of a model in training, as one look found it.

    rate, low, high, n: memorized share of the samples with its 95% Wilson interval. floor, floor_high: that of held-out
    points and the upper end of its interval, 0 where there are none. sigma, mse_train, mse_heldout, rate_per_level: at
    each noise level, empty without held-out points; errors per value in squared data units. leaning: of the same
    samples, None where fewer than 10 distinct training or held-out points are known.
    """

    rate: float
    low: float
    high: float
    n: int
    floor: float
    floor_high: float
    sigma: list[float]
    mse_train: list[float]
    mse_heldout: list[float]
    rate_per_level: list[float]
    leaning: LeaningCheck | None = None

    @property
    def has_set_in(self) -> bool:
        """Whether the samples are memorized more often than chance explains: the two intervals are apart."""
        return self.low > self.floor_high

    def shows_copies(self, share: float | None = None) -> bool:
        """Whether memorization has set in, and this share of the samples or more (by default 3%) is memorized."""
        return self.has_set_in and self.rate >= (share or COPIES)

    def scalars(self) -> dict[str, float]:
        """For the tracker of a training: shares in [0, 1] with their intervals, under names that begin with geomem/."""
        found = {"memorized": self.rate, "memorized_low": self.low, "memorized_high": self.high,
                 "memorized_heldout": self.floor}
        if self.leaning is not None:
            found |= {"leaning": self.leaning.share, "leaning_low": self.leaning.low, "leaning_high": self.leaning.high}
        return {f"geomem/{name}": value for name, value in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        leaning = None if self.leaning is None else vars(self.leaning)
        return {**vars(self), "leaning": leaning, "has_set_in": self.has_set_in}


class Watch:
    """Looks at denoisers with the same samples, points and noise each time.

    Parameters
    ----------
    train : (N, ...), all points the denoiser is trained on. heldout : (M, ...) validation points, or None.
    test : (L, ...) held-out points for leaning alone; None takes the validation points.
    sigmas : noise levels at which errors are measured.
    labels : classes (N,) and (M,) of the points, for class-conditional denoisers; samples take the classes in turn.
    conditioning : what else the denoiser takes by name, of the training and of the held-out points; samples take that
        of the training points in turn.
    mirrored : whether mirror images count as the points themselves, as in ``memorization_rate``.
    """

    def __init__(self, train: Array, heldout: np.ndarray | None, sigmas: Sequence[float], *,
                 test: Array | None = None, labels: tuple[np.ndarray, np.ndarray] | None = None,
                 conditioning: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None, n: int = SAMPLES,
                 seed: int = 0, ratio: float = RATIO, mirrored: bool = False,
                 device: str | torch.device = "auto") -> None:
        if n < 2:
            raise InputError(f"a look needs at least 2 samples, not {n}")
        self.train, self.sigmas, self.labels, self.n, self.seed = train, list(sigmas), labels, n, seed
        self.ratio, self.device, self.conditioning = ratio, device, conditioning
        self.heldout = None if heldout is None or len(heldout) < 2 else heldout
        self.training = distinct_training(train, None, Views.of(train, mirrored=mirrored), device=device)
        self.floor = (0.0, 0.0)
        if self.heldout is not None:
            floor = apply_ratio_rule(as_rows(self.heldout), self.training, ratio, device=device)
            self.floor = floor.rate, floor.high
        self.points = "validation" if test is None else "test"
        self.compared = self._points_for_leaning(self.heldout if test is None else test)
        self.floor_of_leaning = None if self.compared is None else leaning_of_heldout(
            self.compared, relabelings=RELABELINGS, seed=seed, device=device)

    def look(self, denoiser: nn.Module) -> MemorizationCheck:
        """A look at ``denoiser``, on its own device."""
        classes = None if self.labels is None else np.arange(self.n) % (int(self.labels[0].max()) + 1)
        given = None if self.conditioning is None else rows_of(
            self.conditioning[0], torch.arange(self.n) % len(self.train), len(self.train))
        samples = generate(denoiser, range(self.n), self.train.shape[1:], sigmas=edm_steps(STEPS), labels=classes,
                           conditioning=given)
        rows = as_rows(samples, "samples")
        rate = apply_ratio_rule(rows, self.training, self.ratio, device=self.device)
        levels: dict[str, list[float]] = {"sigma": [], "mse_train": [], "mse_heldout": [], "rate": []}
        if self.heldout is not None and self.sigmas:
            result = memorization_per_noise_level(
                denoiser, self.train, self.heldout, self.sigmas, n=self.n, seed=self.seed, ratio=self.ratio,
                labels=self.labels, conditioning=self.conditioning, training=self.training,
                device=self.device).to_dict()
            levels = {name: result[name] for name in levels}
        return MemorizationCheck(rate.rate, rate.low, rate.high, rate.n, *self.floor, levels["sigma"],
                                 levels["mse_train"], levels["mse_heldout"], levels["rate"], self._leaning(rows))

    def _points_for_leaning(self, heldout: Array | None) -> DistinctSets | None:
        """At most POINTS training and as many held-out points, random ones, none of which is a training point; None
        for too few of them.
        """
        if heldout is None:
            return None
        unseen, most = as_points("held-out points", heldout), min(POINTS, VALUES // self.training.points.dim)
        chosen, rows = (points.take(np.sort(generator(self.seed, f"{kind} points for leaning")
                                            .permutation(len(points))[:most]))
                        for kind, points in (("training", self.training.points), ("held-out", unseen)))
        distance, _ = nearest_points(rows, self.training.points, 1, self.training.views, device=self.device)
        rows = rows[distance[:, 0] > self.training.tolerance]
        try:
            return distinct_sets(chosen, rows, self.training.tolerance, self.training.views, device=self.device)
        except InputError:
            return None

    def _leaning(self, samples: np.ndarray) -> LeaningCheck | None:
        if self.compared is None:
            return None
        measured = leaning_against(samples, self.compared, relabelings=RELABELINGS, seed=self.seed, device=self.device)
        floor = None if self.floor_of_leaning is None else self.floor_of_leaning.share
        return LeaningCheck(measured.share, measured.low, measured.high, measured.n, measured.m, floor, self.points)


def default_watch_every(images: int) -> int:
    """Images between two looks, for a training on ``images`` of them: at most LOOKS looks, and SHARE of the training's
    evaluations of the network.
    """
    return max(int(EVALUATIONS / (TRAINING_EVALUATIONS * SHARE)), -(-images // LOOKS))
