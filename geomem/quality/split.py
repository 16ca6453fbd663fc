"""Two disjoint parts of the held-out points: what perfect samples would be, and what to hold them against."""

from __future__ import annotations

import numpy as np

from geomem.rng import generator


def split_heldout(n_heldout: int, n_samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of as many held-out points as samples, or of half where there are fewer than twice as many, and of the
    others, at random by ``seed``.
    """
    order = generator(seed, "floor").permutation(n_heldout)
    size = max(2, min(n_samples, n_heldout // 2))
    return order[:size], order[size:]
