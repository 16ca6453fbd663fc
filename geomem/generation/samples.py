"""Samples with their seeds, and the ``.npz`` files that keep them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from geomem.data import DataSet, load_data
from geomem.data.arrays import arrays_of, shards
from geomem.data.autoencoder import require_same
from geomem.data.dataset import READ_AS
from geomem.data.images import holds_images
from geomem.data.pictures import Form
from geomem.data.pixels import CHANNELS, to_uint8
from geomem.data.points import Points, as_points, with_channels
from geomem.data.readers import read_path
from geomem.data.source import Source, read_parts
from geomem.data.table import Table
from geomem.data.volumes import volume_files
from geomem.errors import InputError
from geomem.files import atomic_directory, atomic_path, parse_json, require_file
from geomem.geometry.options import LARGEST
from geomem.models.weights import refuse_pickle
from geomem.scales import note_other_range, require_one_scale

FORMAT = "geomem.samples/1"
# Read as a data set is, and so are folders.
_AS_DATA = (".npy", ".zip", ".tar", ".gz", ".tgz", ".parquet", ".csv", ".tsv", ".nii")
_LOG = logging.getLogger("geomem")


@dataclass(frozen=True)
class Samples:
    """Samples (n, ...) in the scale of the training data, and what is known about them.

    about: the run, its weights and their fingerprint, sampler, steps and training data, as far as they are known.
    flip: whether they come from a model that was trained on mirror images as well, as far as ``about`` says.
    seeds, labels: (n,) integers, or None where they are not known. name: of the file or run, for messages.
    """

    values: np.ndarray
    about: dict[str, Any]
    seeds: np.ndarray | None = None
    labels: np.ndarray | None = None
    name: str = "samples"

    @property
    def flip(self) -> bool:
        return self.about.get("flip") is True

    def classes(self, data: DataSet) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Labels of the samples (n,), and of the training and test points of ``data``; None where some have none."""
        known = self.labels, data.train_labels, data.test_labels
        return None if any(part is None for part in known) else known  # type: ignore[return-value]

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with the keys samples and about (JSON) and, where they are known, seeds and labels."""
        arrays: dict[str, Any] = {"samples": self.values, "seeds": self.seeds, "labels": self.labels,
                                  "about": np.asarray(json.dumps(self.about))}
        with atomic_path(path) as temporary:
            np.savez(temporary, **{name: array for name, array in arrays.items() if array is not None})

    def save_pictures(self, folder: str | Path) -> None:
        """Write each sample as a PNG into the new directory ``folder``, named by its seed, or place where it has none.

        The samples are images (n, C, H, W) on [-1, 1]; values outside are clipped. Raises InputError for others, and
        where the directory holds anything already.
        """
        require_pictures(self.values.shape[1:], folder)
        names = range(len(self.values)) if self.seeds is None else self.seeds
        with atomic_directory(folder) as temporary:
            for name, image in zip(names, to_uint8(self.values), strict=True):
                pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
                Image.fromarray(pixels).save(temporary / f"{name:06d}.png")


def require_pictures(shape: tuple[int, ...], folder: str | Path) -> None:
    """Raises InputError where samples of a shape are no images, or ``folder`` holds anything already."""
    if len(shape) != 3 or shape[0] not in CHANNELS:
        raise InputError(f"--pictures {folder}: samples of shape {shape} are no images of 1 or 3 channels; leave it "
                         "out")
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise InputError(f"--pictures {folder} exists and is not empty; choose another folder")


def read_samples(path: str | Path, *, size: int | None = None, crop: bool = False,
                 data: Callable[[], DataSet | None] = lambda: None) -> Samples:
    """Read an ``.npz`` with the key ``samples`` (or ``arr_0``), perhaps ``labels`` and, from geomem, ``about`` and
    ``seeds``.

    A folder or zip file of pictures, or a folder of ``.npy`` files, is read as a data set is. uint8 images become
    [-1, 1]; nothing is unpickled. size, crop: of encoded pictures, as ``load_data`` has them. data: gives the data set
    whose encoder makes points of rows of a table. Raises InputError for whatever holds no samples.
    """
    def choose(there: Iterable[str]) -> tuple[str, ...]:
        there = list(there)
        if "samples" not in there and "arr_0" in there:
            return "arr_0", "about"  # numpy.savez without a name
        if "samples" not in there:
            raise InputError(f"{path} has no key 'samples' (keys: {', '.join(there) or 'none'}); "
                             "save it with np.savez(path, samples=...)")
        return "samples", "about"

    if not os.path.lexists(path):
        raise InputError(f"{path}: no such samples file; make one with geomem generate")
    if os.path.isdir(path) or Path(path).suffix.lower() in _AS_DATA:
        source = read_path(Path(path))
        if isinstance(source.train, Table):
            known = data()
            if known is None or known.table is None:
                raise InputError(f"{path} is a table; name the training table with --data")
            source = replace(source, parts=[known.table.points(part) for part in source.parts])
        return Samples(_values(source, str(path), Form(size=size, crop=crop)), {}, name=str(path))
    require_file(path, "give an .npz of samples")
    refuse_pickle(Path(path))
    arrays = arrays_of(Path(path), choose)
    values = arrays["samples" if "samples" in arrays else "arr_0"]
    about = parse_json(str(arrays.get("about", "{}")), f"{path}: about is not JSON",
                       "make it again with geomem generate")
    if not isinstance(about, dict):
        about = {}
    if values.dtype == np.uint8:
        values = _values(Source("samples", [as_points(values, path)]), str(path))
    elif values.ndim == 4 and values.dtype.kind == "f" and "format" not in about:
        values = _channels_first(Points(values), str(path))
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    what = (f"hold {values.dtype}" if values.dtype.kind != "f" else f"have shape {values.shape}" if values.ndim < 2 else
            "are none" if not values.size else None if np.abs(values).max() <= LARGEST else
            f"hold NaN or values beyond {LARGEST:g}")
    if what:
        raise InputError(f"{path}: samples {what}; save floats (n, ...) in the scale of the data, images / 127.5 - 1")
    ours = about.get("format") == FORMAT
    kept = arrays_of(Path(path), lambda there: ("seeds", "labels") if ours else ("labels",))
    labels = kept.get("labels")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != (len(values),)):
        _LOG.info(f"note: {path}: labels are not one integer for each sample, and are not used")
        labels = None
    return Samples(values, about, kept.get("seeds"), labels, str(path))


def holds_samples(folder: str | Path) -> bool:
    """Whether a folder holds pictures, arrays or volumes and no model."""
    folder = Path(folder)
    of_models = ("config.json", "model_index.json", "*.safetensors", "*/config.json")
    if any(True for pattern in of_models for _ in folder.glob(pattern)):
        return False
    return holds_images(folder) or bool(shards(folder) or volume_files(folder))


def _values(source: Source, path: str, form: Form | None = None) -> np.ndarray:
    """All points of what a reader found, float32 (n, ...)."""
    if source.heldout is not None:
        raise InputError(f"{path} has a training and a held-out part; give a folder or file of samples alone")
    (points,), notes = read_parts([source.train], form)
    for note in notes:
        _LOG.info(f"note: {path}: {note}")
    return _channels_first(points, path)


def _channels_first(points: Points, path: str) -> np.ndarray:
    points, note = with_channels(points, None, path)
    if note:
        _LOG.info(f"note: {path}: {note.split(';')[0]}")
    return np.asarray(points.values)


def data_of(about: Mapping[str, Any], given: str | None, origin: str, *,
            load: Callable[..., DataSet] = load_data) -> DataSet:
    """The data set that samples or a run belong to: ``given`` where it is, else the recorded one, checked by hash.

    about: what is known of them. origin: their name, for messages. load: reads a data set, as ``load_data`` does.
    Raises InputError where the data are not recorded or no longer the same.
    """
    recorded = about.get("data")
    if given is not None:
        data = load(given)
        note_other_data(about, data, given, origin)
        return data
    if not recorded or (isinstance(recorded, dict) and "spec" in recorded and recorded["spec"] is None):
        raise InputError(f"{origin} does not say which data it belongs to; name them with --data")
    try:
        spec, expected = str(recorded["spec"]), recorded["sha256"]
        options = {name: recorded[name] for name in ("heldout", "n_train", "n_heldout", "shuffle", "seed")}
        options |= {name: recorded[name] for name in READ_AS if recorded.get(name)}
        sound = (all(options[name] is None or type(options[name]) is int for name in ("n_train", "n_heldout"))
                 and isinstance(options["heldout"], str | None) and type(options["seed"]) is int)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise InputError(f"{origin} names its data in a way that cannot be read; name them with --data")
    require_same(recorded, origin)
    try:
        data = load(spec, **options)
    except InputError as error:
        raise InputError(f"the data that {origin} was made with cannot be read; name them with --data where they are "
                         f"now ({error})") from error
    if data.sha256 != expected:
        raise InputError(f"{spec} is no longer the data that {origin} was made with (its sha256 differs); "
                         "name the right data with --data")
    return data


def note_other_data(about: Mapping[str, Any], data: DataSet, given: str, origin: str) -> None:
    """A note where samples or a run say that they were made with other training data than ``given``."""
    recorded = about.get("data")
    if isinstance(recorded, dict) and recorded.get("sha256") != data.sha256:
        _LOG.info(f"note: {origin} was made with other data than {given}; copies of its points may go unseen")


def require_comparable(samples: Samples, data: DataSet) -> None:
    """Refuse samples of another shape or on another usual range of values than the training points; a warning where
    their ranges differ otherwise.
    """
    shape, expected = samples.values.shape[1:], data.train.shape[1:]
    if shape != expected:
        advice = "choose the data they were made from with --data"
        if len(shape) == len(expected) == 3 and shape[1:] == expected[1:]:
            advice = f"save them {'grey' if expected[0] == 1 else 'in colour'}, or {advice}"
        elif len(shape) == len(expected) == 3 and data.pixels:
            advice = f"read pictures of the data at their size with --size, or {advice}"
        raise InputError(f"{samples.name}: samples have shape {shape}, the points of {data.name} {expected}; {advice}")
    names = f"{samples.name}: samples", f"the training points of {data.name}"
    require_one_scale(names[0], samples.values, data.train, names[1])
    note_other_range(names[0], samples.values, data.train)


def doubts_of_split(samples: Samples, data: DataSet) -> list[str]:
    """Why the held-out points of ``data`` cannot clear samples that were not made with this very split; [] if they can.
    """
    made_with = samples.about.get("data")
    if not data.split or (isinstance(made_with, dict) and made_with.get("sha256") == data.sha256):
        return []
    return [f"The held-out points were set aside from {data.name} only now. A model that was trained on all of it was "
            "trained on them, too; give points that it never saw with --heldout."]


def fingerprint(denoiser: nn.Module) -> str:
    """SHA-256 of a denoiser's names, shapes and values: samples know by it whether a run has been trained on since."""
    digest = sha256()
    for name, tensor in denoiser.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
