"""The data of the papers, cut to the sizes of an experiment, from the files of the data folder.

    cifar10_exact.npz    CIFAR-10: training images 0..1016 and 4,068 more, test images 0..1016
    cifar10_jpeg.zip     all of CIFAR-10, lossy, one folder per class; cifar10_labels_full.npz tells their order
    faces_gray32.npz     CelebA faces, grey, 32 x 32
    flowers64.zip, pokemon64.zip, ECG5000_TRAIN.txt, ECG5000_TEST.txt

Each source takes (bench, n_train, n_heldout, side) and gives training and held-out points. ``side`` is the side of the
images: a power of two below their own takes means of squares of pixels.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.bench import Bench
from geomem import load_data

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXACT_ROWS = 1000  # the first 1,000 training images of the exact file are those of CIFAR-10
Points = tuple[np.ndarray, np.ndarray]


def named(bench: Bench, name: str, n_train: int, n_heldout: int, side: int = 32) -> Path:
    """The file of a source, one of ``SOURCES``."""
    return bench.dataset(f"{name}{side}-{n_train}-{n_heldout}",
                         lambda: SOURCES[name](bench, n_train, n_heldout, side))


def means_of_squares(images: np.ndarray, side: int) -> np.ndarray:
    """Images (N, H, H, ...) as (N, side, side, ...), float64."""
    factor = images.shape[1] // side
    cut = images.reshape(len(images), side, factor, side, factor, *images.shape[3:])
    return cut.mean(axis=(2, 4), dtype=np.float64)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images (N, H, H, ...) as (N, side, side, ...): rounded means of squares."""
    return images if images.shape[1] == side else np.rint(means_of_squares(images, side)).astype(np.uint8)


def digits(bench: Bench, n_train: int, n_heldout: int, side: int) -> Points:
    """scikit-learn's digits, of 8 x 8 whatever ``side``: the stand-in where real data are not wanted."""
    data = load_data("digits", n_train=n_train, n_heldout=n_heldout)
    return data.train, data.heldout


def ecg(bench: Bench, n_train: int, n_heldout: int, side: int) -> Points:
    """The first beats of ECG5000's training and test files, which have no ``side``."""
    data = load_data(bench.real_file("ECG5000_TRAIN.txt"), heldout=bench.real_file("ECG5000_TEST.txt"),
                     n_train=n_train, n_heldout=n_heldout)
    return data.train, data.heldout


def cifar(bench: Bench, n_train: int, n_heldout: int, side: int) -> Points:
    """The first training and test images; beyond the first 1,000 the others of the exact file, as far as they go.
    More than these are the first of all 50,000, lossy where they are not in the exact file.
    """
    with np.load(bench.real_file("cifar10_exact.npz")) as exact:
        train, heldout, index = exact["train_images"], exact["test_images"][:n_heldout], exact["train_index"]
    if n_train > len(train):
        every = in_order(bench)
        every[index] = train
        train = every
    return shrunk(train[:n_train], side), shrunk(heldout, side)


def in_order(bench: Bench) -> np.ndarray:
    """The 50,000 lossy training images in the order of CIFAR-10, (50000, 32, 32, 3)."""
    with np.load(bench.real_file("cifar10_labels_full.npz")) as content:
        labels, number = content["train_labels"], content["train_file_number"]
    names, images = zip_images(bench.real_file("cifar10_jpeg.zip"), "train/")
    place = {name: row for row, name in enumerate(names)}
    return images[[place[f"train/{CLASSES[label]}/{k:04d}.jpg"] for label, k in zip(labels, number, strict=True)]]


def cars(bench: Bench, n_train: int, n_heldout: int, side: int) -> Points:
    """Automobiles of CIFAR-10, from the lossy file; held out are test images, then further training images."""
    path = bench.real_file("cifar10_jpeg.zip")
    train, test = (zip_images(path, f"{part}/automobile/")[1] for part in ("train", "test"))
    return shrunk(train[:n_train], side), shrunk(np.concatenate([test, train[n_train:]])[:n_heldout], side)


def faces(bench: Bench, n_train: int, n_heldout: int, side: int) -> Points:
    """Grey CelebA faces on [0, 1] less the mean of the training images, as in [G]; the test images, then further
    training images, are held out.
    """
    with np.load(bench.real_file("faces_gray32.npz")) as content:
        train, test = content["train_images"], content["test_images"]
    heldout = shrunk(np.concatenate([test, train[n_train:]])[:n_heldout], side) / np.float32(255)
    train = shrunk(train[:n_train], side) / np.float32(255)
    return (train - train.mean(axis=0))[:, None], (heldout - train.mean(axis=0))[:, None]


def pictures(file: str) -> Callable[[Bench, int, int, int], Points]:
    """Images of a zip file in a random order: the first are trained on, the next held out."""
    def load(bench: Bench, n_train: int, n_heldout: int, side: int) -> Points:
        images = shrunk(zip_images(bench.real_file(file))[1], side)
        images = images[np.random.default_rng(0).permutation(len(images))[:n_train + n_heldout]]
        return images[:n_train], images[n_train:]

    return load


SOURCES = {"digits": digits, "cifar": cifar, "cars": cars, "faces": faces, "ecg": ecg,
           "pokemon": pictures("pokemon64.zip"), "flowers": pictures("flowers64.zip")}


def zip_images(path: Path, start: str = "") -> tuple[list[str], np.ndarray]:
    """Names and RGB images (N, H, W, 3), uint8, of the members of a zip whose names begin with ``start``, by name."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist()
                       if name.startswith(start) and name.lower().endswith((".jpg", ".png")))
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return names, np.stack(images)
