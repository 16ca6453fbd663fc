"""The data set: training points D = {x_1..x_N} in R^d and held-out points of the same law.

The held-out points are cut in two: *validation* points for model selection (the denoising loss per noise level, the
choice of weights), and *test* points, which are used for evaluation alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np

from geomem.data.autoencoder import Autoencoder, Decoded, Latents
from geomem.data.points import Names, Values
from geomem.data.table import TableEncoder
from geomem.errors import InputError
from geomem.points import first_equal, points_of
from geomem.rng import random_order

MAX_VALIDATION = 500
# Options of load_data that say how files are read, and what is made of them.
READ_AS = ("channels", "size", "crop", "column", "vae", "vae_sample")


@dataclass(frozen=True, eq=False)
class DataSet:
    """Points ready for use; made by :func:`geomem.data.load_data`.

    Attributes
    ----------
    name : what the data set is called in tables and figures.
    train, heldout : float32 ``(N, ...)`` and ``(M, ...)``: images ``(N, C, H, W)``, signals ``(N, 1, L)`` or
        vectors ``(N, d)``. ``train`` is a memory map where it is a float32 ``.npy`` file taken whole or its
        first rows, and :class:`StoredPoints` where it comes from ``.npy`` files and would take more than 1 GiB.
    train_labels, heldout_labels : integers ``(N,)`` and ``(M,)``, or None. class_names : of the labels 0, 1, ..., None
        where they have none: names of folders, or those that a table keeps.
    pixels : the points are images scaled from uint8 to [-1, 1], so samples can be turned back to uint8.
    notes : what a person should be told: a split that was made, channels dropped.
    leaked : ``(M,)`` bool, the held-out points that are equal or near-equal to a training point, or None for none.
        They are neither validation nor test points.
    train_names, heldout_names : what the files of the points are called, sequences ``(N,)`` and ``(M,)`` that make each
        name when it is asked for; None where points have no files of their own.
    latents : where pictures were encoded, by what and how; None for points in data units.
    split : whether the held-out points were set aside from all points when these were read.
    table : where points are rows of a table, what makes points of other rows; else None.
    read_as : those of the options ``READ_AS`` of ``load_data`` that were given.
    """

    name: str
    train: Values
    heldout: np.ndarray
    train_labels: np.ndarray | None = None
    heldout_labels: np.ndarray | None = None
    pixels: bool = False
    notes: tuple[str, ...] = ()
    leaked: np.ndarray | None = None
    read_as: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    train_names: Names | None = None
    heldout_names: Names | None = None
    latents: Latents | None = None
    table: TableEncoder | None = None
    split: bool = False

    def files(self, index: Iterable[int]) -> list[str] | None:
        """Names of these training points, None where they have none."""
        return None if self.train_names is None else [self.train_names[int(i)] for i in index]

    @property
    def record(self) -> dict[str, Any]:
        """What finds and checks the data again, beside the spec and how many points were taken."""
        made = {} if self.latents is None else {"vae_sha256": self.latents.sha256}
        return {"name": self.name, "sha256": self.sha256, **self.read_as, **made}

    def drawn(self, points: Any) -> Any:
        """Points (n, ...) as they are looked at: latents as pictures, decoded where they are indexed."""
        return points if self._autoencoder is None else Decoded(points, self._autoencoder)

    @cached_property
    def _autoencoder(self) -> Autoencoder | None:
        return None if self.latents is None else Autoencoder(self.latents.vae)

    @property
    def dim(self) -> int:
        """d, the number of values of one point."""
        return int(np.prod(self.train.shape[1:]))

    def class_name(self, label: int) -> str | None:
        """The name of a label, None where it has none."""
        names = self.class_names or ()
        return names[label] if 0 <= label < len(names) else None

    @property
    def n_leaked(self) -> int:
        """Number of held-out points that are equal or near-equal to a training point."""
        return 0 if self.leaked is None else int(self.leaked.sum())

    @property
    def n_validation(self) -> int:
        """min(500, M // 3), M without the leaked points: the number of held-out points for model selection."""
        return min(MAX_VALIDATION, (len(self.heldout) - self.n_leaked) // 3)

    @property
    def n_test(self) -> int:
        """Number of held-out points for evaluation; 0 where all are leaked."""
        return len(self.heldout) - self.n_leaked - self.n_validation

    @property
    def validation(self) -> np.ndarray:
        """Held-out points for model selection, ``(n_validation, ...)``. Empty when M < 3."""
        return self.heldout[self._is_validation]

    @property
    def validation_labels(self) -> np.ndarray | None:
        """``(n_validation,)``, or None."""
        return None if self.heldout_labels is None else self.heldout_labels[self._is_validation]

    @property
    def test_labels(self) -> np.ndarray | None:
        """Those of ``test``, or None."""
        return None if self.heldout_labels is None else self.heldout_labels[self._is_test]

    @property
    def test(self) -> np.ndarray:
        """All other held-out points, for evaluation: never shown to training in any form. Raises InputError for none.
        """
        if self.n_test == 0:
            raise InputError(f"{self.name}: all {len(self.heldout):,} held-out points are equal or nearly equal to "
                             "training points, so none is left to judge by; give other held-out points")
        return self.heldout[self._is_test]

    @cached_property
    def _is_validation(self) -> np.ndarray:
        """(M,) bool. A fixed random choice: files are often sorted by class, and the first points one-sided."""
        unseen = np.arange(len(self.heldout)) if self.leaked is None else np.flatnonzero(~self.leaked)
        chosen = np.zeros(len(self.heldout), dtype=bool)
        chosen[unseen[random_order(len(unseen), 0, "validation points")[:self.n_validation]]] = True
        return chosen

    @property
    def _is_test(self) -> np.ndarray:
        """(M,) bool."""
        return ~self._is_validation if self.leaked is None else ~(self._is_validation | self.leaked)

    @cached_property
    def sha256(self) -> str:
        """:func:`content_hash` of ``train`` and ``heldout``; it does not depend on name and labels. Of latents, whose
        last digits depend on the device, that of the pictures, the autoencoder and what was taken of it.
        """
        if (made := self.latents) is not None:
            return sha256(f"{made.pictures_sha256} {made.sha256} {made.of}".encode()).hexdigest()
        return content_hash(self.train, self.heldout)

    @cached_property
    def mean(self) -> float:
        """Mean of all values of the training points, in data units; float64."""
        return sum(float(rows.sum(dtype=np.float64)) for _, rows in points_of(self.train).chunks()) / self.train.size

    @cached_property
    def std(self) -> float:
        """Standard deviation of all values of the training points about their mean, in data units; float64."""
        mean = np.float64(self.mean)
        squares = sum(float(np.square(rows - mean).sum()) for _, rows in points_of(self.train).chunks())
        return math.sqrt(squares / self.train.size)

    @cached_property
    def duplicates(self) -> int:
        """Number of training points exactly equal to an earlier one."""
        return int((self.first_equal < np.arange(len(self.train))).sum())

    @cached_property
    def first_equal(self) -> np.ndarray:
        """(N,) int64: of each training point the first one that it is exactly equal to, itself as a rule."""
        return first_equal(points_of(self.train))


def content_hash(train: Values, heldout: Values) -> str:
    """SHA-256 over the shape, type and bytes of both parts; streamed, so points on disk are not loaded whole."""
    digest = sha256()
    for part in (train, heldout):
        digest.update(f"{part.shape} float32\n".encode())
        for _, rows in points_of(part).chunks():
            digest.update(rows.astype("<f4", copy=False).data)
    return digest.hexdigest()
