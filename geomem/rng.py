"""Random generators keyed by (seed, purpose, index).

Every random draw of geomem comes from a generator made here for one purpose and one index (a noise vector, a
training step, a generated sample), so a result never depends on chunk size, batch size, device or the number
of processes, and a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key(seed: int, purpose: str, *index: int) -> int:
    """128-bit key of one stream; distinct arguments give unrelated streams."""
    text = ":".join([str(int(seed)), purpose, *(str(int(i)) for i in index)])
    return int.from_bytes(sha256(text.encode()).digest()[:16], "little")


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """NumPy generator of the stream (seed, purpose, index...)."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *index)))


def random_order(n: int, seed: int, purpose: str) -> np.ndarray:
    """A permutation of 0..n-1.

    It sorts raw 64-bit draws: NumPy never changes those, while ``Generator.permutation`` may differ between
    versions, and recipes and published subsets depend on this order.
    """
    return np.argsort(generator(seed, purpose).bit_generator.random_raw(n), kind="stable")


def torch_generator(seed: int, purpose: str, *index: int, device: str = "cpu") -> torch.Generator:
    """Torch generator of the stream (seed, purpose, index...); the draws depend on the kind of device."""
    import torch

    return torch.Generator(device).manual_seed(key(seed, purpose, *index) & (2**63 - 1))
