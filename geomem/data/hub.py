"""Data sets of the Hugging Face hub, through its library ``datasets``: ``hf:NAME[:CONFIG]`` and recipes.

No code of a data set is run: ``datasets`` 4 and later read data files only. Images stay encoded in the library's
cache until they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import as_points, class_names
from geomem.data.source import HELDOUT_SPLITS, TRAIN_SPLITS, Part, Source
from geomem.errors import as_input_error, file_error

HUB_PREFIX = "hf:"
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
_ADVICE = "check the name, and that this machine reaches the hub or has the data set in its cache"


@dataclass(frozen=True)
class HubData:
    """A data set on the hub: ``revision`` is a commit, branch or tag; what is None is chosen by what is there."""

    name: str
    config: str | None = None
    revision: str | None = None
    train: str | None = None
    heldout: str | None = None
    column: str | None = None
    label: str | None = None


def read_hub_spec(spec: str, column: str | None = None) -> Source:
    """``hf:NAME[:CONFIG]``: its training split, its test or validation split where there is one, ``column``, or the one
    that ``chosen_column`` takes, and the labels where there are any.
    """
    name, _, config = spec.removeprefix(HUB_PREFIX).partition(":")
    if not name:
        raise file_error(repr(spec), "names no data set; give hf:NAME or hf:NAME:CONFIG, such as hf:ylecun/mnist")
    return read_hub(HubData(name, config or None, column=column))


def read_hub(data: HubData) -> Source:
    """Read both splits. Raises InputError where the hub cannot be reached or a split or column is missing."""
    where = f"hf:{data.name}" + (f":{data.config}" if data.config else "")
    with as_input_error(where, "a data set of the Hugging Face hub", _ADVICE):
        import datasets

        found = _load(data, datasets)
        train = _named(where, "split", data.train, TRAIN_SPLITS, list(found)) or next(iter(found))
        heldout = _named(where, "split", data.heldout, HELDOUT_SPLITS, list(found))
        splits = [found[train]] + ([found[heldout]] if heldout and heldout != train else [])
        features = splits[0].features
        images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        numbers = [name for name, feature in features.items() if _is_numbers(feature, datasets)]
        column = chosen_column(where, data.column, images, numbers, list(features))
        others = [name for name in (images if column in images else numbers) if name != column]
        label = _named(where, "column", data.label, LABEL_COLUMNS, list(features))
        parts = [_part(f"{where}: {part.split}", part, column, label, datasets) for part in splits]
        named = None if label is None else getattr(features[label], "names", None)  # of a ClassLabel
    return Source(data.name.rstrip("/").split("/")[-1], parts[0], parts[1] if len(parts) > 1 else None,
                  other_columns(column, others) if data.column is None else (), tuple(named) if named else None)


def _load(data: HubData, datasets: Any) -> Any:
    """From the hub or its cache; soon from the cache where the hub does not answer. ``datasets`` alone would look
    there only after half a minute.
    """
    hub = datasets.config.HF_ENDPOINT
    if datasets.config.HF_HUB_OFFLINE or os.path.exists(data.name) or _answers(hub, data):
        return datasets.load_dataset(data.name, data.config, revision=data.revision)
    datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(data.name, data.config, revision=data.revision)
    except ConnectionError as error:
        raise ConnectionError(f"{hub} does not answer, and the data set is not in the cache") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = False


def _answers(hub: str, data: HubData) -> bool:
    """Whether the hub says anything of the data set within ``HF_HUB_ETAG_TIMEOUT`` seconds, or 3."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi(hub).dataset_info(data.name, revision=data.revision,
                                timeout=float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 3))
    except HfHubHTTPError:
        return True  # with a refusal, which the library puts into words
    except Exception:  # of the library for HTTP, which is another one from version to version
        return False
    return True


def _named(where: str, kind: str, wanted: str | None, usual: tuple[str, ...], there: list[str]) -> str | None:
    """``wanted``, which must be there, or the first usual name that is."""
    if wanted is not None and wanted not in there:
        raise file_error(where, f"has no {kind} {wanted}; there are {', '.join(there)}")
    return wanted or next((name for name in usual if name in there), None)


def chosen_column(where: object, wanted: str | None, images: list[str], numbers: list[str], there: list[str]) -> str:
    """The column of the points: ``wanted``, else of those of images the first of a usual name, else the first; without
    images the same of those of numbers. Raises InputError where there is none.
    """
    found = images or numbers
    if wanted is not None and wanted not in images + numbers:
        raise file_error(where, f"has no column {wanted} of images or of lists of floats; there are {', '.join(there)}")
    if not found:
        raise file_error(where, f"has no column of images or of lists of floats; there are {', '.join(there)}")
    return wanted or next((name for name in IMAGE_COLUMNS if name in found), found[0])


def other_columns(chosen: str, others: Sequence[str]) -> tuple[str, ...]:
    """A note where other columns than the chosen one could be the points."""
    return (f"points from column {chosen}; --column takes another: {', '.join(others)}",) if others else ()


def _is_numbers(feature: Any, datasets: Any) -> bool:
    while hasattr(feature, "feature"):  # a list of lists of ...
        feature = feature.feature
    return str(getattr(feature, "dtype", "")).startswith("float") and not isinstance(feature, datasets.Audio)


def _is_label(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool", "string", "large_string"))


def _part(where: str, rows: Any, column: str, label: str | None, datasets: Any) -> Part:
    labels = None if label is None or not _is_label(rows.features[label]) else _labels(rows[label][:])
    if not isinstance(rows.features[column], datasets.Image):
        return as_points(np.asarray(rows.with_format("numpy", columns=[column])[:][column]), where, labels)
    encoded = rows.cast_column(column, datasets.Image(decode=False)).select_columns([column])
    allowed = [os.path.realpath(datasets.config.HF_CACHE_HOME), os.path.realpath(datasets.config.HF_DATASETS_CACHE)]

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for i in positions:
            with as_input_error(f"{where}: row {i}", "an image", "choose another data set"):
                content = _content(encoded[int(i)][column], allowed)
            yield content

    return Pictures(where, read, lambda _: encoded.data.nbytes, lambda i: f"row {i}", np.arange(len(encoded)), labels)


def _labels(values: list[Any]) -> np.ndarray | None:
    """Integers or class names; None for other values, such as lists of labels."""
    if all(isinstance(value, str) for value in values):
        return class_names(values)
    return np.array(values, dtype=np.int64) if all(isinstance(value, int) for value in values) else None


def _content(image: dict[str, Any], allowed: list[str]) -> bytes:
    """The encoded image of a row. A path is followed only into the library's own cache: rows come from strangers."""
    if image["bytes"] is not None:
        return image["bytes"]
    path = os.path.realpath(image["path"])
    if not any(os.path.commonpath([path, folder]) == folder for folder in allowed):
        raise ValueError(f"it is said to lie at {image['path']}, outside the cache")
    if os.path.getsize(path) > MAX_ENCODED_BYTES:
        raise ValueError("it is too large for one image")
    return Path(path).read_bytes()
