"""Seeded orders and the split that is made when a data set has no held-out part."""

from __future__ import annotations

import numpy as np

from geomem.data.source import Part
from geomem.rng import generator

HELDOUT_SHARE = 5  # one point in so many
MAX_HELDOUT = 10_000


def random_order(n: int, seed: int, purpose: str) -> np.ndarray:
    """A permutation of 0..n-1.

    It sorts raw 64-bit draws: NumPy never changes those, while ``Generator.permutation`` may differ between
    versions, and recipes and published subsets depend on this order.
    """
    return np.argsort(generator(seed, purpose).bit_generator.random_raw(n), kind="stable")


def split_off_heldout(points: Part, seed: int) -> tuple[Part, Part]:
    """(training part in the order of the file, held-out part in random order, so that its first points are fair)."""
    n_heldout = min(MAX_HELDOUT, max(1, len(points) // HELDOUT_SHARE))
    order = random_order(len(points), seed, "split")
    return points.take(np.sort(order[n_heldout:])), points.take(order[:n_heldout])
