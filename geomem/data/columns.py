"""Which columns of a table hold the points, and which their labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomem.data.points import MAX_CLASS_NAME
from geomem.data.table import points_columns
from geomem.errors import file_error

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
PATH_COLUMNS = (*IMAGE_COLUMNS, "file_name", "image_path", "path", "file", "filename")


@dataclass(frozen=True)
class Columns:
    """``points`` is a column of encoded images or paths to them, or of lists of numbers, and ``others`` could be it as
    well; "" where each row is a point and ``others`` are its values: a plain table.

    classes: names of the labels 0, 1, ... where the table has them.
    """

    points: str
    others: tuple[str, ...]
    images: bool
    label: str | None
    classes: tuple[str, ...] | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say where another column could have been meant."""
        return (f"points from column {self.points}; --column takes another: {', '.join(self.others)}",
                ) if self.others and self.points else ()


def choose_columns(where: object, schema: Any, wanted: str | None = None, label: str | None = None) -> Columns:
    """Those of an Arrow schema: ``wanted``, else of the columns of images the first of a usual name, else the first;
    without images the same of those of lists of floats, then of paths, else all. ``label``, or the first of a usual
    name.

    Raises InputError where there is not the one that is wanted.
    """
    from pyarrow import types

    kinds = {field.name: _stored(field.type) for field in schema}
    images = [name for name, kind in kinds.items() if _is_image(kind)]
    numbers = [name for name, kind in kinds.items() if _is_list(kind) and types.is_floating(_innermost(kind))]
    texts = [name for name, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)]
    if wanted in texts:
        images = [wanted]
    elif not images and not numbers:
        images = [name for name in PATH_COLUMNS if name in texts]
    found = images or numbers
    if wanted is not None and wanted not in images + numbers:
        raise file_error(where, f"has no column {wanted} of images or of lists of floats; there are "
                                f"{', '.join(kinds)}")
    if not found:
        return Columns("", tuple(points_columns(schema)), False, None, None)
    points = wanted or next((name for name in IMAGE_COLUMNS if name in found), found[0])
    others = [name for name in (images if points in images else numbers) if name != points]
    if label is not None and label not in kinds:
        raise file_error(where, f"has no column {label}; there are {', '.join(kinds)}")
    usual = [name for name in ([label] if label else LABEL_COLUMNS) if name in texts or (
        name in kinds and (types.is_integer(kinds[name]) or types.is_boolean(kinds[name])))]
    label = usual[0] if usual else None
    return Columns(points, tuple(others) if wanted is None else (), points in images, label,
                   _class_names(schema, label))


def numbers_of(values: Any) -> np.ndarray:
    """Floats ``(rows, ...)`` of an Arrow array of lists, perhaps of lists. Raises ValueError unless they fill it."""
    shape = [len(values)]
    while _is_list(values.type):
        inner = values.flatten()
        if values.null_count:
            raise ValueError("some are missing")
        if hasattr(values, "value_lengths") and len(values.value_lengths().unique()) > 1:
            raise ValueError("they have several lengths")
        shape.append(len(inner) // max(1, len(values)))
        values = inner
    if values.null_count:
        raise ValueError("some are missing")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def stored_values(values: Any) -> Any:
    """An Arrow array as the values that an extension type or a dictionary stands for."""
    values = getattr(values, "storage", values)
    return values.dictionary_decode() if hasattr(values, "dictionary") else values


def _stored(kind: Any) -> Any:
    kind = getattr(kind, "storage_type", kind)
    return kind.value_type if hasattr(kind, "index_type") else kind


def _is_image(kind: Any) -> bool:
    """Bytes, or what ``datasets`` stores of an image: its bytes and its path."""
    from pyarrow import types

    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inner = _stored(kind.field("bytes").type)
        return types.is_null(inner) or types.is_binary(inner) or types.is_large_binary(inner)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _innermost(kind: Any) -> Any:
    while _is_list(kind):
        kind = _stored(kind.value_type)
    return kind


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """Those of a column of labels that the library ``datasets`` wrote down, else None."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not (isinstance(names, list) and all(isinstance(name, str) and len(name) <= MAX_CLASS_NAME for name in names)):
        return None
    return tuple(names)
