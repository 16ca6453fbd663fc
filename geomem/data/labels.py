"""Files beside the images of a folder or archive that label them, or say which are meant.

* ``dataset.json`` of EDM and StyleGAN: ``{"labels": [[name, class], ...]}``, or null for none (Karras et al.). Labels
  that are vectors are no classes and are left out. Without the key ``labels`` the file is something else.

Names are relative to the folder of such a file, and are only looked up among those that are there. What is in it is
read in a child process with bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.child import in_child
from geomem.errors import as_input_error, file_error

EDM_FILE = "dataset.json"

Name = tuple[str, ...]  # the parts of a path inside the folder or archive


@dataclass(frozen=True)
class Beside:
    """The images that are meant, by name, and their labels, integers or class names ``(N,)``, or None for none."""

    images: list[Name]
    labels: np.ndarray | None
    notes: list[str]


def labels_beside(where: Path, names: list[Name], images: list[Name],
                  content: Callable[[Name], bytes]) -> Beside | None:
    """What files among ``names`` say of the images; None where there is no such file.

    Raises InputError for a file that is damaged, names an image that is not there, or gives no label to one that is.
    """
    known: dict[Name, int] = {}
    there, told, vectors = set(images), False, False
    for file in sorted(name for name in names if name[-1] == EDM_FILE):
        here = f"{where}: {'/'.join(file)}"
        with as_input_error(here, "a dataset.json of EDM or StyleGAN", "make it again, or remove it"):
            text = content(file)
            for paths, labels in in_child(_edm_labels, text, file_bytes=len(text)):
                told = True
                if labels is None:
                    vectors = True
                    continue
                full = [(*file[:-1], *path.split("/")) for path in paths]
                if missing := next((path for path, name in zip(paths, full, strict=True) if name not in there), None):
                    raise file_error(here, f"labels {missing}, which is not among the images; make it again, or "
                                           "remove it")
                known |= zip(full, labels.tolist(), strict=True)
    if not told:
        return None
    if not known:
        return Beside(images, None, [f"labels of {EDM_FILE} are vectors, no classes"] if vectors else [])
    if lacking := next((name for name in images if name not in known), None):
        raise file_error(f"{where}: {EDM_FILE}", f"gives no label to {'/'.join(lacking)}; label all images, or none")
    labels = np.array([known[name] for name in images], dtype=np.int64)
    return Beside(images, labels, [f"labels from {EDM_FILE}, {len(np.unique(labels)):,} classes"])


# In the child


def _edm_labels(content: bytes) -> Iterator[tuple[list[str], np.ndarray | None]]:
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
        yield names, np.array(labels, dtype=np.int64)
    else:
        raise ValueError("its labels are neither all whole numbers from 0 nor all vectors")
