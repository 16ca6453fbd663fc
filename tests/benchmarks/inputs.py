"""Points for the benchmarks: real images where a folder has them, else made from a seed.

A *smooth image* is a random field of 3 x side x side in [-1, 1]: white noise whose amplitudes fall as
(1 + frequency)^-1.5, with standard deviation 0.5 before the ends are cut off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomem import load_data
from geomem.data import from_uint8, to_uint8
from geomem.rng import generator

CHUNK = 4096
SIDE = 32  # of the images of CIFAR-10 and of ImageNet at 32 x 32


def smooth_images(n: int, side: int, part: str) -> np.ndarray:
    """``n`` smooth images, (n, 3 side^2) float32; ``part`` names the stream."""
    frequency = side * np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    amplitude = (1 + frequency) ** -1.5
    amplitude *= 0.5 / np.sqrt(np.mean(amplitude**2))
    half = amplitude[:, :side // 2 + 1].astype(np.float32)
    images = np.empty((n, 3 * side**2), dtype=np.float32)
    for first in range(0, n, CHUNK):
        rows = images[first:first + CHUNK]
        white = generator(0, f"smooth images: {part}", first).standard_normal((len(rows), 3, side, side),
                                                                              dtype=np.float32)
        fields = np.fft.irfft2(np.fft.rfft2(white) * half, s=(side, side))
        rows[:] = fields.reshape(len(rows), -1)
    return images.clip(-1, 1, out=images)


def small_images(n: int, data: Path | None) -> tuple[np.ndarray, np.ndarray, str]:
    """The first n training and test images of ``cifar10_exact.npz`` in the folder, or as many smooth images; and
    which of the two. n is at most 1,000: further images of the file do not follow one another.
    """
    if data is None:
        return smooth_images(n, SIDE, "train"), smooth_images(n, SIDE, "heldout"), "smooth random images"
    with np.load(data / "cifar10_exact.npz") as content:
        train, heldout = (from_uint8(content[f"{part}_images"][:n]).reshape(n, -1) for part in ("train", "test"))
    return train, heldout, f"first {n} training and test images of CIFAR-10"


def large_images(n: int, n_heldout: int, data: Path | None) -> tuple[np.ndarray, np.ndarray, str]:
    """n training and n_heldout held-out images of ``cifar10_jpeg.zip`` in the folder, in random order, or as many
    smooth images; and which of the two.
    """
    if data is None:
        return smooth_images(n, SIDE, "train"), smooth_images(n_heldout, SIDE, "heldout"), "smooth random images"
    images = load_data(data / "cifar10_jpeg.zip", n_train=n, n_heldout=n_heldout, shuffle=True)
    return (images.train.reshape(n, -1), images.heldout.reshape(n_heldout, -1),
            f"{n} training and {n_heldout} test images of CIFAR-10, from JPEG")


def write_huge(path: Path, n: int, bank: int) -> None:
    """Write n different uint8 images (n, 3072) to an ``.npy`` file, a chunk at a time.

    ``bank`` smooth images, each shifted around by another (rows, columns) whenever its turn comes; there are 1,024
    shifts, so n is at most 1,024 times the bank.
    """
    images = to_uint8(smooth_images(bank, SIDE, "bank")).reshape(bank, 3, SIDE, SIDE)
    shifts = generator(0, "shifts").permutation(SIDE**2)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, 3 * SIDE**2))
    for turn, first in enumerate(range(0, n, bank)):
        shifted = np.roll(images, divmod(int(shifts[turn]), SIDE), axis=(2, 3)).reshape(bank, -1)
        file[first:first + bank] = shifted[:n - first]
    file.flush()


def near_duplicates(n: int, dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points of norm 50, float32: half of the n training points lie 1e-3 from the other half, and half of the n
    held-out points 1e-3 from a training point.
    """
    points = directions(n + n % 2, dim, rng) * 50
    first, second = np.split(points, 2)
    train = np.concatenate([first, first + 1e-3 * directions(len(first), dim, rng)])[:n]
    heldout = np.concatenate([second, first + 1e-3 * directions(len(first), dim, rng)])[:n]
    return train.astype(np.float32), heldout.astype(np.float32)


def clusters(n: int, dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out points in 10 clusters of radius 0.1 with centres of norm 50, n of each, float32."""
    centres = directions(10, dim, rng) * 50
    train, heldout = (centres[np.arange(n) % 10] + 0.1 * directions(n, dim, rng) for _ in range(2))
    return train.astype(np.float32), heldout.astype(np.float32)


def directions(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform unit vectors, (n, dim)."""
    vectors = rng.standard_normal((n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
