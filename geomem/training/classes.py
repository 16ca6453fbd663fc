"""The classes of a training: those of the data, and noise images as one more.

The latter is the dummy class of Dodson et al. 2026, Figure 4. The paper says "2k images of random noise" and no more.
Here a noise image is white Gaussian noise with the mean and standard deviation of all values of the training points,
drawn once: the set is as fixed as the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geomem.data import DataSet
from geomem.data.points import Values
from geomem.errors import InputError
from geomem.rng import generator

MAX_NOISE_IMAGES = 10_000_000


class WithNoiseImages:
    """(N + count, ...) float32: the training points (N, ...), then ``count`` noise images of their shape.

    Indexed by integer arrays, as the trainer does. ``labels`` (N + count,) are 0 for data and 1 for noise; or the given
    ones (N,) for data and the next number for noise.
    """

    def __init__(self, train: Values, count: int, mean: float, std: float, seed: int,
                 labels: np.ndarray | None = None) -> None:
        self.train = train
        noise = generator(seed, "dummy class").standard_normal((count, *train.shape[1:]), dtype=np.float32)
        self.noise = np.float32(mean) + np.float32(std) * noise
        known = np.zeros(len(train), dtype=np.int64) if labels is None else labels
        self.labels = np.concatenate([known, np.full(count, known.max() + 1)])
        self.shape = (len(train) + count, *train.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        points = np.empty((len(index), *self.shape[1:]), dtype=np.float32)
        real = index < len(self.train)
        points[real] = self.train[index[real]]
        points[~real] = self.noise[index[~real] - len(self.train)]
        return points


@dataclass(frozen=True)
class Classes:
    """What the trainer is given in place of the data set's points, and what the run records about classes.

    ``labels`` and ``validation_labels`` are numbered 0, 1, ... in the order of ``names``, the labels in the data, which
    the data call ``class_names``, where they have names for all.
    """

    train: Values | WithNoiseImages
    labels: np.ndarray | None = None
    validation_labels: np.ndarray | None = None
    count: int = 0
    names: list[int] | None = None
    dummies: int = 0
    class_names: list[str] | None = None

    @property
    def record(self) -> dict[str, Any]:
        return {"classes": self.count, "labels": self.names, "dummy_class": self.dummies,
                **({"class_names": self.class_names} if self.class_names else {})}

    @property
    def of_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Classes of the data's training and validation points, for a monitor; None for an unconditional denoiser."""
        if self.labels is None or self.validation_labels is None:
            return None
        return self.labels[:len(self.labels) - self.dummies], self.validation_labels

    def in_turns(self, n: int) -> np.ndarray | None:
        """Classes of n samples: those of the data take turns. None for an unconditional denoiser."""
        return None if self.labels is None else np.arange(n) % (1 if self.names is None else len(self.names))


def classes_of(dataset: DataSet, conditional: bool, dummy_class: int, seed: int) -> Classes:
    """The classes to train: those of the data where ``conditional``, and ``dummy_class`` noise images as one more.

    ``dummy_class`` 0 stands for none, -1 for as many as training points. Raises InputError for ``conditional`` without
    labels, or with labels that only held-out points have.
    """
    if not -1 <= dummy_class <= MAX_NOISE_IMAGES:
        raise InputError(f"--dummy-class {dummy_class}: give a number of noise images, or none for as many as points")
    classes = Classes(dataset.train)
    if conditional:
        if dataset.train_labels is None:
            raise InputError(f"--conditional: {dataset.name} has no labels; leave it out or give an .npz with "
                             "train_labels, a folder per class, or a UCR file")
        known, labels = np.unique(dataset.train_labels, return_inverse=True)
        names = known.tolist()
        called = [dataset.class_name(label) for label in names]
        held = (class_indices(dataset.validation_labels, names, dataset) if dataset.n_validation
                else np.empty(0, dtype=np.int64))
        classes = Classes(dataset.train, labels.astype(np.int64), held, len(names), names,
                          class_names=[name for name in called if name is not None] if all(called) else None)
    if not dummy_class:
        return classes
    count = len(dataset.train) if dummy_class == -1 else dummy_class
    both = WithNoiseImages(dataset.train, count, dataset.mean, dataset.std, seed, classes.labels)
    return replace(classes, train=both, labels=both.labels, count=int(both.labels.max()) + 1, dummies=count,
                   validation_labels=classes.validation_labels if conditional
                   else np.zeros(dataset.n_validation, dtype=np.int64))


def class_indices(labels: np.ndarray | None, names: list[int], data: DataSet, *, part: str = "held-out",
                  model: object = None) -> np.ndarray:
    """Labels of ``part`` of the data as classes 0, 1, ... of ``names``, int64: those of the training points, or of a
    class-conditional ``model`` that is there already. Raises InputError for no labels, or one that has no name.
    """
    known, advice = (("the training part", "shuffle the data, or train without --conditional") if model is None else
                     (model, "give the data that it was trained on"))
    if labels is None:
        raise InputError(f"{data.name}: the {part} points have no labels and {known} has classes; give train_labels "
                         "and heldout_labels" + (", or train without --conditional" if model is None else ""))
    if unknown := sorted(set(labels.tolist()) - set(names)):
        raise InputError(f"{data.name}: {part} points of class {unknown[0]}, but {known} has only "
                         f"{', '.join(map(str, names[:20]))}{', ...' if len(names) > 20 else ''}; {advice}")
    return np.searchsorted(names, labels).astype(np.int64)
