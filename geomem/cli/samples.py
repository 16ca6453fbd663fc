"""Sample files: what ``geomem generate`` writes, and the data set they are to be held against."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.cli.options import load, say
from geomem.errors import InputError
from geomem.files import parse_json, require_file

if TYPE_CHECKING:
    import numpy as np

    from geomem.data import DataSet


SEEN = 1000  # training points that tell their scale


@dataclass(frozen=True)
class Samples:
    """Samples (n, ...) in the scale of the training data, and what is known about them."""

    label: str
    values: np.ndarray
    about: dict[str, Any]


def read_samples(path: str) -> Samples:
    """Read an ``.npz`` with the key ``samples`` and, from geomem, ``about``. Nothing in it is unpickled."""
    import numpy as np

    from geomem.data.arrays import arrays_of
    from geomem.geometry.points import LARGEST
    from geomem.models.weights import refuse_pickle

    def choose(there: Iterable[str]) -> tuple[str, ...]:
        if "samples" not in there:
            raise InputError(f"{path} has no key 'samples' (keys: {', '.join(there) or 'none'}); "
                             "save it with np.savez(path, samples=...)")
        return "samples", "about"

    if not os.path.lexists(path):
        raise InputError(f"{path}: no such samples file; make one with geomem generate")
    require_file(path, "give an .npz of samples")
    refuse_pickle(Path(path))
    found = arrays_of(Path(path), choose)
    values = found["samples"]
    about = parse_json(str(found.get("about", "{}")), f"{path}: about is not JSON",
                       "make it again with geomem generate")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    what = (f"hold {values.dtype}" if values.dtype.kind != "f" else f"have shape {values.shape}" if values.ndim < 2 else
            "are none" if not values.size else None if np.abs(values).max() <= LARGEST else
            f"hold NaN or values beyond {LARGEST:g}")
    if what:
        raise InputError(f"{path}: samples {what}; save floats (n, ...) in the scale of the data, images / 127.5 - 1")
    return Samples(path, values, about if isinstance(about, dict) else {})


def data_of(about: dict[str, Any], given: str | None, origin: str) -> DataSet:
    """The data set that samples or a run belong to: ``--data`` where given, else the recorded one, checked by hash."""
    recorded = about.get("data")
    if given is not None:
        data = load(given)
        note_other_data(about, data, given, origin)
        return data
    if not recorded:
        raise InputError(f"{origin} does not say which data it belongs to; name them with --data")
    try:
        spec, sha256 = str(recorded["spec"]), recorded["sha256"]
        options = {name: recorded[name] for name in ("heldout", "n_train", "n_heldout", "shuffle", "seed")}
        sound = (all(options[name] is None or type(options[name]) is int for name in ("n_train", "n_heldout"))
                 and isinstance(options["heldout"], str | None) and type(options["seed"]) is int)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise InputError(f"{origin} names its data in a way that cannot be read; name them with --data")
    data = load(spec, **options)
    if data.sha256 != sha256:
        raise InputError(f"{spec} is no longer the data that {origin} was made with (its sha256 differs); "
                         "name the right data with --data")
    return data


def note_other_data(about: dict[str, Any], data: DataSet, given: str, origin: str) -> None:
    """A note where samples or a run say that they were made with other training data than ``given``."""
    recorded = about.get("data")
    if isinstance(recorded, dict) and recorded.get("sha256") != data.sha256:
        say(f"note: {origin} was made with other data than {given}; copies of its points may go unseen")


def require_comparable(samples: Samples, data: DataSet) -> None:
    """Refuse samples of another shape than the training points; a note where they seem to be on another scale."""
    import numpy as np

    if samples.values.shape[1:] != data.train.shape[1:]:
        raise InputError(f"{samples.label}: samples have shape {samples.values.shape[1:]}, the points of {data.name} "
                         f"{data.train.shape[1:]}; choose the data they were made from with --data")
    (low, high), (low_train, high_train) = ((float(values.min()), float(values.max())) for values in (
        samples.values, np.asarray(data.train[:SEEN])))
    width = high_train - low_train
    if not 0.55 * width <= high - low <= 3 * width or abs(low + high - low_train - high_train) > width:
        say(f"note: {samples.label} has values from {low:.3g} to {high:.3g}, the training points of {data.name} from "
            f"{low_train:.3g} to {high_train:.3g}; samples on another scale are never taken for copies")
