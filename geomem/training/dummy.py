"""The dummy class of Dodson et al. 2026, Figure 4: images of random noise as a second class beside the data.

The paper says "2k images of random noise" and no more. Here a noise image is white Gaussian noise with the mean and
standard deviation of all values of the training points, drawn once: the set is as fixed as the data.
"""

from __future__ import annotations

import numpy as np

from geomem.data.points import Values
from geomem.rng import generator


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
