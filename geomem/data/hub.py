"""Data sets of the Hugging Face hub, through its library ``datasets``: ``hf:NAME[:CONFIG]`` and recipes.

No code of a data set is run: ``datasets`` 4 and later read data files only. Images stay encoded in the library's
cache until they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.columns import Columns, choose_columns, numbers_of, stored_values
from geomem.data.pictures import MAX_ENCODED_BYTES, Pictures
from geomem.data.points import as_labels, joined_points
from geomem.data.source import HELDOUT_SPLITS, TRAIN_SPLITS, Part, Source
from geomem.data.table import Table
from geomem.errors import as_input_error, file_error

HUB_PREFIX = "hf:"
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
    that ``choose_columns`` takes, and the labels where there are any.
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
        train = _split(where, data.train, TRAIN_SPLITS, list(found)) or next(iter(found))
        heldout = _split(where, data.heldout, HELDOUT_SPLITS, list(found))
        splits = [found[train]] + ([found[heldout]] if heldout and heldout != train else [])
        columns = choose_columns(where, splits[0].features.arrow_schema, data.column, data.label)
        parts = [_part(f"{where}: {rows.split}", rows, columns, datasets) for rows in splits]
    return Source(data.name.rstrip("/").split("/")[-1], parts, columns.notes, columns.classes)


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


def _split(where: str, wanted: str | None, usual: tuple[str, ...], there: list[str]) -> str | None:
    """``wanted``, which must be there, or the first usual name that is."""
    if wanted is not None and wanted not in there:
        raise file_error(where, f"has no split {wanted}; there are {', '.join(there)}")
    return wanted or next((name for name in usual if name in there), None)


def _part(where: str, rows: Any, columns: Columns, datasets: Any) -> Part:
    """The points of a split, with their labels where none is missing."""
    values = [] if columns.label is None else rows[columns.label][:]
    labels = as_labels(values) if values and None not in values else None
    if not columns.points:
        return Table.of(rows.with_format("arrow")[:], where)
    if not columns.images:
        arrays = rows.with_format("arrow", columns=[columns.points])[:][columns.points].chunks
        return joined_points([numbers_of(stored_values(array)) for array in arrays], where, labels)
    encoded = rows.cast_column(columns.points, datasets.Image(decode=False)).select_columns([columns.points])
    allowed = [os.path.realpath(datasets.config.HF_CACHE_HOME), os.path.realpath(datasets.config.HF_DATASETS_CACHE)]

    def read(positions: np.ndarray) -> Generator[bytes, None, None]:
        for i in positions:
            with as_input_error(f"{where}: row {i}", "an image", "choose another data set"):
                content = _content(encoded[int(i)][columns.points], allowed)
            yield content

    return Pictures(where, read, lambda _: encoded.data.nbytes, lambda i: f"row {i}", np.arange(len(encoded)), labels)


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
