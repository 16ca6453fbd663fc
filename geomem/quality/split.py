"""Two disjoint parts of the held-out points, as perfect samples and what to hold them against, and samples to match."""

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


def samples_at_floor_size(n_samples: int, size: int, seed: int) -> np.ndarray:
    """Indices of ``size`` of the samples, at random by ``seed``: as many as there are held-out points in the floor."""
    return generator(seed, "samples at the size of the floor").permutation(n_samples)[:size]
