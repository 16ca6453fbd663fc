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
from typing import Any

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


def labels_beside(where: Path, names: list[Name], images: list[Name], content: Callable[[Name], bytes]) -> Beside:
    """What files among ``names`` say of the images.

    Raises InputError for a file that is damaged, names an image that is not there, or gives no label to one that is.
    """
    edm = sorted(name for name in names if name[-1] == EDM_FILE)
    listing = sorted(name for name in names if name[-1] in METADATA_FILES)
    found = _edm(where, edm, images, content) or _metadata(where, listing, images, content)
    if other := sorted(name for name in names if name[-1] not in METADATA_FILES
                       and re.fullmatch(r"metadata.*\.(csv|jsonl|json|parquet)", name[-1])):
        found.notes.append(f"{'/'.join(other[0])} is not read; a file that lists the images is called "
                           f"{', '.join(METADATA_FILES)}")
    return found


def _edm(where: Path, files: list[Name], images: list[Name], content: Callable[[Name], bytes]) -> Beside | None:
    known: dict[Name, int] = {}
    told = vectors = False
    for file in files:
        here = f"{where}: {'/'.join(file)}"
        with as_input_error(here, "a dataset.json of EDM or StyleGAN", "make it again, or remove it"):
            text = content(file)
            for paths, labels in in_child(_edm_labels, text, file_bytes=len(text)):
                told = True
                if labels is None:
                    vectors = True
                else:
                    known |= zip(_there(here, file, paths, images), labels, strict=True)
    if not told:
        return None
    if not known:
        return Beside(images, None, [f"labels of {EDM_FILE} are vectors, no classes"] if vectors else [])
    return _labelled(where, EDM_FILE, images, known, [])


def _metadata(where: Path, files: list[Name], images: list[Name], content: Callable[[Name], bytes]) -> Beside:
    known: dict[Name, int | str] = {}
    listed: set[Name] = set()
    above: list[Name] = []  # folders of files that list images
    notes = []
    for file in files:
        here = f"{where}: {'/'.join(file)}"
        with as_input_error(here, f"a {file[-1]} of the library datasets", "make it again, or remove it"):
            text = content(file)
            for paths, labels, others in in_child(_listed, text, Path(file[-1]).suffix, file_bytes=len(text)):
                if paths is None:
                    notes.append(f"{'/'.join(file)} has no column file_name and is not read")
                    continue
                full = _there(here, file, paths, images)
                listed |= set(full)
                above.append(file[:-1])
                known |= {} if labels is None else zip(full, labels.tolist(), strict=True)
                if others:
                    notes.append(f"{'/'.join(file)} names other files, which are not read: {', '.join(others)}")
    if not listed:
        return Beside(images, None, notes, instead_of_folders=False)
    meant = [name for name in images if name in listed
             or not any(name[:len(folder)] == folder for folder in above)]
    if len(meant) < len(images):
        notes.append(f"{counted(len(images) - len(meant), 'image')} that {files[0][-1]} does not list left out")
    if not known:
        return Beside(meant, None, notes, instead_of_folders=False)
    return _labelled(where, files[0][-1], meant, known, notes)


def _there(here: str, file: Name, paths: list[str], images: list[Name]) -> list[Name]:
    """The names that paths beside ``file`` stand for."""
    there = set(images)
    full = [tuple(posixpath.normpath("/".join((*file[:-1], path))).split("/")) for path in paths]
    missing = next((path for path, name in zip(paths, full, strict=True) if name not in there), None)
    if missing is not None:
        raise file_error(here, f"names {missing}, which is not among the images; names are relative to the folder that "
                               f"{file[-1]} is in: make it again, or remove it")
    return full


def _labelled(where: Path, file: str, images: list[Name], known: dict[Name, Any], notes: list[str]) -> Beside:
    if lacking := next((name for name in images if name not in known), None):
        raise file_error(f"{where}: {file}", f"gives no label to {'/'.join(lacking)}; label all images, or none")
    labels = as_labels([known[name] for name in images])
    return Beside(images, labels, [*notes, f"labels from {file}, {counted(len(np.unique(labels)), 'class')}"])


# In the child


def _edm_labels(content: bytes) -> Iterator[tuple[list[str], list[int] | None]]:
    """Names and labels; None for vectors. Nothing for a file that is not EDM's."""
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
        yield names, None
    elif all(type(label) is int and 0 <= label < 2**31 for label in labels):
        yield names, labels
    else:
        raise ValueError("its labels are neither all whole numbers from 0 nor all vectors")


def _listed(content: bytes, suffix: str) -> Iterator[tuple[list[str] | None, np.ndarray | None, list[str]]]:
    """Names of images, their labels or None, and other columns of names. None in place of names for no such column."""
    import io

    import pyarrow as pa
    from pyarrow import csv, parquet
    from pyarrow import json as lines

    stream = io.BytesIO(content)
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
        yield None, None, []
        return
    names = table[column].cast(pa.string()).to_pylist()
    label = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    values = [] if label is None else table[label].to_pylist()
    if None in values:
        raise ValueError(f"in column {label} some are missing")
    labels = as_labels(values) if {type(value) for value in values} in ({str}, {int}) else None
    if None in names or len(set(names)) < len(names):
        raise ValueError(f"in column {column} a name is missing or stands twice")
    yield names, labels, [name for name in columns if name != column]
