"""Membership: can someone who has the model tell training points from points that it never saw?

At a noise level sigma, the attack takes a point for a training point where its denoising error is small:

    loss        s(x) = - mean over J draws of |D(x + sigma Z_j, sigma) - x|^2
    calibrated  s(x) = - log of that error over the error of the Gaussian denoiser at the same noisy points

The second takes out how hard a point is to denoise at all; the Gaussian denoiser is fitted to the training and the
held-out points together, so it favours neither. The area under the receiver operating curve is 1/2 where training
points cannot be told from others and 1 where they all can. Of many attacks the losses are the simplest (Yeom et al.
2018); a stronger one may find more.

For samples this says nothing: whoever has only them is the matter of ``leaning``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.devices import evaluation_mode, resolve_device
from geomem.geometry.options import as_sigmas
from geomem.memorization.heldout import comparable
from geomem.memorization.levels import denoise
from geomem.models import GaussianDenoiser
from geomem.points import Array
from geomem.rng import generator
from geomem.statistics import AreaUnderCurve, area_under_curve, clopper_pearson_interval

SIGMAS = tuple(np.geomspace(0.02, 20, 8).tolist())
POINTS, DRAWS = 512, 2
FALSE_POSITIVES = (0.01, 0.001)


@dataclass(frozen=True)
class TruePositives:
    """Share of training points that are found where at most ``false_positives`` of the held-out points are taken for
    some, with its 95% Clopper-Pearson interval at that threshold; None with fewer held-out points than one over that.
    """

    false_positives: float
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Attack:
    """One statistic at one noise level. sigma: in data units. statistic: ``loss`` or ``calibrated``."""

    sigma: float
    statistic: str
    area: AreaUnderCurve
    true_positives: tuple[TruePositives, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: sigma, statistic, area, stderr, low, high, p_value, true_positives."""
        area = self.area.to_dict()
        return {"sigma": self.sigma, "statistic": self.statistic, "area": area.pop("value"), **area,
                "true_positives": [vars(part) for part in self.true_positives]}


@dataclass(frozen=True)
class Membership:
    """The attacks by noise level, both statistics. strongest: the one with the smallest p value. p_value: of that one,
    corrected for all of them (Bonferroni). n_train, n_heldout: points compared. draws: of noise, at each.
    """

    attacks: tuple[Attack, ...]
    strongest: Attack
    p_value: float
    n_train: int
    n_heldout: int
    draws: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields."""
        return {**vars(self), "attacks": [attack.to_dict() for attack in self.attacks],
                "strongest": self.strongest.to_dict()}


def membership(denoiser: Callable[..., Tensor], train: Array, heldout: Array, sigmas: Sequence[float] = SIGMAS, *,
               n: int = POINTS, draws: int = DRAWS, seed: int = 0, tolerance: float | None = None,
               labels: tuple[np.ndarray, np.ndarray] | None = None, batch_size: int = 256,
               device: str | torch.device = "auto", progress: Callable[[int, int], None] | None = None) -> Membership:
    """Attack ``denoiser`` by its errors at each of ``sigmas`` (module docstring).

    denoiser: as in ``memorization_per_noise_level``.
    train: (N, ...), the training points. heldout: (M, ...), points of the same law that neither trained nor selected
    the model; those within ``tolerance`` of a training point are left out, as in ``leaning``.
    n: at most so many points of each kind, a random choice by ``seed``. labels: classes (N,) and (M,) of the points.
    progress: called as ``progress(done, total)``, in noise levels.

    Raises InputError as ``leaning`` and ``memorization_per_noise_level`` do.
    """
    levels, on = as_sigmas(sigmas), resolve_device(device)
    _, sets = comparable(train, train, heldout, tolerance, device=on)
    members, others = (torch.from_numpy(np.ascontiguousarray(rows[order])).float().reshape(-1, *train.shape[1:])
                       for rows, order in ((sets.train, _choice(len(sets.train), n, seed, "training")),
                                           (sets.heldout, _choice(len(sets.heldout), n, seed, "held-out"))))
    classes: list[Tensor | None] = [None, None]
    if labels is not None:
        classes = [torch.from_numpy(part[index[_choice(len(index), n, seed, kind)]]) for part, index, kind in zip(
            labels, (sets.index, sets.heldout_index), ("training", "held-out"), strict=True)]
    gaussian = GaussianDenoiser(torch.cat([members, others])).to(on)
    most = max(len(members), len(others))
    attacks = []
    with evaluation_mode(denoiser):
        for k, sigma in enumerate(levels.tolist()):
            errors = np.zeros((2, 2, most))  # by denoiser and kind
            for j in range(draws):
                noise = torch.from_numpy(generator(seed, "membership noise", k, j).standard_normal(
                    (most, *train.shape[1:]))).float()
                for column, points in enumerate((members, others)):
                    _, of_model = denoise(denoiser, points, noise, sigma, classes[column], batch_size, on)
                    _, of_gaussian = denoise(gaussian, points, noise, sigma, None, batch_size, on)
                    errors[:, column, :len(points)] += np.stack([of_model, of_gaussian]) / draws
            scores = {"loss": -errors[0],
                      "calibrated": np.log(np.maximum(errors[1], 1e-300) / np.maximum(errors[0], 1e-300))}
            for name, (known, unseen) in scores.items():
                a, b = known[:len(members)], unseen[:len(others)]
                attacks.append(Attack(sigma, name, area_under_curve(a, b), tuple(
                    true_positives(a, b, share) for share in FALSE_POSITIVES)))
            if progress is not None:
                progress(k + 1, len(levels))
    strongest = min(attacks, key=lambda attack: attack.area.p_value)
    return Membership(tuple(attacks), strongest, min(1.0, len(attacks) * strongest.area.p_value), len(members),
                      len(others), draws, seed)


def true_positives(members: np.ndarray, others: np.ndarray, false_positives: float) -> TruePositives:
    """Of scores (m,) and (n,), the share of members above a threshold that at most ``false_positives`` of the others
    exceed.
    """
    allowed = int(false_positives * len(others) + 1e-9)
    if not allowed:
        return TruePositives(false_positives, None, None, None)
    threshold = np.sort(others)[::-1][allowed]
    count = int((members > threshold).sum())
    low, high = clopper_pearson_interval(count, len(members))
    return TruePositives(false_positives, count / len(members), float(low), float(high))


def _choice(size: int, n: int, seed: int, kind: str) -> np.ndarray:
    return np.sort(generator(seed, f"membership {kind} points").permutation(size)[:n])
