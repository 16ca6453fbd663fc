"""Quality of generated samples beside what real data reach.

A Frechet distance means nothing alone: it depends on the data, the scale and the number of points. So the
report gives the same figure for two disjoint parts of the held-out data (the *floor*, what perfect samples
would reach at those sizes), and for the training points themselves (what copying a small training set would
reach). The distance to the nearest training point is given for the samples and for held-out data: samples
much nearer than held-out data copy, samples much farther do not look like the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError, counted
from geomem.features import PIXELS, feature_space, rows_in
from geomem.geometry.neighbours import nearest
from geomem.points import Array, as_points
from geomem.quality.frechet import frechet_distance, frechet_with_stderr
from geomem.rng import generator
from geomem.statistics import normal_interval

SPLITS = 10  # of the held-out points, for the spread of the floor


@dataclass(frozen=True)
class QualityReport:
    """Frechet distances, in squared data units, and distances, in data units; or in those of the features ``space``.

    frechet, frechet_low, frechet_high, frechet_stderr: samples against held-out points, with a 95% interval and a
        standard error over the sampling of the samples (normal, from the infinitesimal jackknife; the held-out points
        are held fixed, and the upward bias of order d / n is not removed).
    frechet_floor: the same for ``floor_n[0]`` held-out points against ``floor_n[1]`` others.
    frechet_floor_low, frechet_floor_high: the smallest and largest of ``SPLITS`` such floors, each of another split.
    frechet_at_floor_size: the same for ``floor_n[0]`` of the samples against those ``floor_n[1]`` others; compare this
        with the floor, since a Frechet distance is larger the fewer the points.
    frechet_train: the same for ``frechet_train_n`` training points: as many as samples, or all there are.
    nearest_samples, nearest_heldout: median distance to the nearest training point.
    """

    frechet: float
    frechet_low: float
    frechet_high: float
    frechet_stderr: float
    frechet_floor: float
    frechet_floor_low: float
    frechet_floor_high: float
    floor_n: tuple[int, int]
    frechet_at_floor_size: float
    frechet_train: float
    frechet_train_n: int
    nearest_samples: float
    nearest_heldout: float
    n_samples: int
    n_train: int
    n_heldout: int
    seed: int
    space: str = PIXELS

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields."""
        return asdict(self)


def quality_report(samples: Array, train: Array, heldout: Array, *, features: Callable[..., Any] | None = None,
                   seed: int = 0, device: str | torch.device = "auto") -> QualityReport:
    """Compare samples (n, ...) with train (N, ...) and heldout (M, ...), all in one scale and shape.

    features: as in ``memorization_rate``; distances are then those of its features, not pixels.

    The floor takes n held-out points, or half of them if there are fewer than 2 n, against all the others;
    points are chosen at random by ``seed``. Raises InputError if shapes differ, a value is not finite, or
    there are fewer than 2 samples, 2 training or 4 held-out points.
    """
    shapes = {name: tuple(part.shape[1:])
              for name, part in (("samples", samples), ("train", train), ("heldout", heldout))}
    if len(set(shapes.values())) > 1:
        raise InputError(f"the points differ in shape: {shapes}; bring them to one")
    if len(heldout) < 4:
        raise InputError(f"{counted(len(heldout), 'held-out point')}; two halves to compare need at least 4")
    space = feature_space(features)
    samples, heldout = rows_in(space, samples=samples, heldout=heldout)
    source = as_points("train", train if space is None else space(train, "train"))
    frechet, stderr = frechet_with_stderr(samples, heldout)
    low, high = normal_interval(frechet, stderr, 0.0)
    floor, rest = split_heldout(len(heldout), len(samples), seed)
    subset = samples_at_floor_size(len(samples), len(floor), seed)
    splits = [(floor, rest), *(split_heldout(len(heldout), len(samples), seed, split) for split in range(1, SPLITS))]
    floors = [frechet_distance(heldout[part], heldout[others]) for part, others in splits]
    known = np.sort(generator(seed, "training points").permutation(source.shape[0])[:len(samples)])
    return QualityReport(
        frechet=frechet, frechet_low=low, frechet_high=high, frechet_stderr=stderr, frechet_floor=floors[0],
        frechet_floor_low=min(floors), frechet_floor_high=max(floors), floor_n=(len(floor), len(rest)),
        frechet_at_floor_size=frechet_distance(samples[subset], heldout[rest]),
        frechet_train=frechet_distance(source.take(known), heldout), frechet_train_n=len(known),
        nearest_samples=float(np.median(nearest(samples, source, 1, device=device)[0])),
        nearest_heldout=float(np.median(nearest(heldout, source, 1, device=device)[0])),
        n_samples=len(samples), n_train=source.shape[0], n_heldout=len(heldout), seed=seed,
        space=PIXELS if space is None else space.name)


def split_heldout(n_heldout: int, n_samples: int, seed: int, split: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two parts of the held-out points, as perfect samples and what to compare them with: as many as there
    are samples, or half where there are fewer than twice as many, and the others, at random by ``seed`` and ``split``.
    """
    order = generator(seed, "floor", *([split] if split else [])).permutation(n_heldout)
    size = max(2, min(n_samples, n_heldout // 2))
    return order[:size], order[size:]


def samples_at_floor_size(n_samples: int, size: int, seed: int) -> np.ndarray:
    """Indices of ``size`` of the samples, at random by ``seed``: as many as there are held-out points in the floor."""
    return generator(seed, "samples at the size of the floor").permutation(n_samples)[:size]
