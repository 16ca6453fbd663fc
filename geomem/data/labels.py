"""Files beside the images of a folder or archive that label them, or say which are meant.

* ``dataset.json`` of EDM and StyleGAN: ``{"labels": [[name, class], ...]}``, or null for none (Karras et al.). Labels
  that are vectors are no classes and are left out. Without the key ``labels`` the file is something else.
* ``metadata.csv``, ``.jsonl`` or ``.parquet`` of the library ``datasets``: a column ``file_name`` (or
  ``image_file_name``, ...) names the images that are meant; others below its folder are left out. A column of labels
  gives their classes.

Names are relative to the folder of such a file, and are only looked up among those that are there. What is in it is
read in a child process with bounded memory.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geomem.data.child import in_child
from geomem.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from geomem.data.points import as_labels
from geomem.errors import as_input_error, counted, file_error

EDM_FILE = "dataset.json"
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

Name = tuple[str, ...]  # the parts of a path inside the folder or archive

@dataclass(frozen=True)
class Beside:
    """The images that are meant, by name; their labels, integers or class names ``(N,)``, or None for none; whether
    folders are no classes.
    """

    images: list[Name]
    labels: np.ndarray | None
    notes: list[str]
    instead_of_folders: bool = True


class _Said(NamedTuple):
    """What one file says: the images that it names, their labels or None, and what to tell of it."""

    file: Name
    images: list[Name]
    labels: np.ndarray | None
    notes: list[str]


def labels_beside(where: Path, names: list[Name], images: list[Name], content: Callable[[Name], bytes]) -> Beside:
    """What files among ``names`` say of the images.

    Raises InputError for a file that is damaged, names an image that is not there, or gives no label to one that is.
    """
    def read(files: list[Name], kind: str, reader: Callable[..., Iterator[Any]]) -> Iterator[_Said]:
        there = set(images)
        for file in sorted(files):
            here = f"{where}: {'/'.join(file)}"
            with as_input_error(here, f"a {file[-1]} of {kind}", "make it again, or remove it"):
                text = content(file)
                for paths, labels, notes in in_child(reader, text, "/".join(file), file_bytes=len(text)):
                    yield _Said(file, _there(here, file, paths, there), labels, notes)

    said = list(read([name for name in names if name[-1] == EDM_FILE], "EDM or StyleGAN", _edm_labels))
    meant, is_list = images, not said
    if is_list:
        said = list(read([name for name in names if name[-1] in METADATA_FILES], "the library datasets", _listed))
    notes = list(dict.fromkeys(note for one in said for note in one.notes))
    if is_list and any(one.images for one in said):
        listed = {name for one in said for name in one.images}
        above = [one.file[:-1] for one in said if one.images]
        meant = [name for name in images if name in listed or not any(name[:len(folder)] == folder for folder in above)]
        if len(meant) < len(images):
            notes.append(f"{counted(len(images) - len(meant), 'image')} that {said[0].file[-1]} does not list left out")
    known = {name: label for one in said if one.labels is not None
             for name, label in zip(one.images, one.labels.tolist(), strict=True)}
    labels = None
    if known:
        file = said[0].file[-1]
        if lacking := next((name for name in meant if name not in known), None):
            raise file_error(f"{where}: {file}", f"gives no label to {'/'.join(lacking)}; label all images, or none")
        labels = as_labels([known[name] for name in meant])
        notes.append(f"labels from {file}, {counted(len(np.unique(labels)), 'class')}")
    if other := sorted(name for name in names if name[-1] not in METADATA_FILES
                       and re.fullmatch(r"metadata.*\.(csv|jsonl|json|parquet)", name[-1])):
        notes.append(f"{'/'.join(other[0])} is not read; a file that lists the images is called "
                     f"{', '.join(METADATA_FILES)}")
    return Beside(meant, labels, notes, instead_of_folders=labels is not None or not is_list)


def _there(here: str, file: Name, paths: list[str], there: set[Name]) -> list[Name]:
    """The names that paths beside ``file`` stand for."""
    full = [tuple(posixpath.normpath("/".join((*file[:-1], path))).split("/")) for path in paths]
    missing = next((path for path, name in zip(paths, full, strict=True) if name not in there), None)
    if missing is not None:
        raise file_error(here, f"names {missing}, which is not among the images; names are relative to the folder that "
                               f"{file[-1]} is in: make it again, or remove it")
    return full


# In the child


def _edm_labels(content: bytes, file: str) -> Iterator[tuple[list[str], np.ndarray | None, list[str]]]:
    """Names, labels and notes. Nothing for a file that is not EDM's."""
    whole = json.loads(content)
    if not isinstance(whole, dict) or "labels" not in whole:
        return
    pairs: Any = whole["labels"] or []
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, list) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise ValueError("labels is no list of [name, label]")
    names, labels = [name for name, _ in pairs], [label for _, label in pairs]
    if len(set(names)) < len(names):
        raise ValueError("it labels a name twice")
    if labels and all(isinstance(label, list) for label in labels):
        yield [], None, [f"labels of {EDM_FILE} are vectors, no classes"]
    elif all(type(label) is int and 0 <= label < 2**31 for label in labels):
        yield names, as_labels(labels), []
    else:
        raise ValueError("its labels are neither all whole numbers from 0 nor all vectors")


def _listed(content: bytes, file: str) -> Iterator[tuple[list[str], np.ndarray | None, list[str]]]:
    """Names of images, their labels or None, and notes; no names where there is no column of them."""
    import io

    import pyarrow as pa
    from pyarrow import csv, parquet
    from pyarrow import json as lines

    stream, suffix = io.BytesIO(content), Path(file).suffix
    if suffix == ".csv":
        table = csv.read_csv(stream, parse_options=csv.ParseOptions(newlines_in_values=True))
    elif suffix == ".jsonl":
        table = lines.read_json(stream, read_options=lines.ReadOptions(block_size=max(1 << 16, len(content))))
    else:
        table = parquet.read_table(stream)
    columns = [name for name in table.column_names if name == "file_name" or name.endswith("_file_name")]
    usual = ["file_name", *(f"{name}_file_name" for name in IMAGE_COLUMNS)]
    column = next((name for name in [*usual, *columns] if name in columns), None)
    if column is None:
        yield [], None, [f"{file} has no column file_name and is not read"]
        return
    names = table[column].cast(pa.string()).to_pylist()
    label = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    values = [] if label is None else table[label].to_pylist()
    if None in values:
        raise ValueError(f"in column {label} some are missing")
    labels = as_labels(values) if {type(value) for value in values} in ({str}, {int}) else None
    if None in names or len(set(names)) < len(names):
        raise ValueError(f"in column {column} a name is missing or stands twice")
    others = [name for name in columns if name != column]
    yield names, labels, [f"{file} names other files, which are not read: {', '.join(others)}"] if others else []
