"""Best weights per noise level in a folder of their own: of a network with an adapter, the adapter of each level.

    levels.json             ``edges`` (bands + 1) of the bands of noise levels, ``files`` (bands) of their weights, and
                            ``early_stop``, the file of the one snapshot with the best average held-out loss
    step-0000500.safetensors, ...   weights by their names in the network; frozen parameters are in none
    unchanged.safetensors   buffers that are the same in all of them, where there are any
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from geomem.errors import InputError, file_error
from geomem.files import atomic_directory, read_json, write_json
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.models.weights import read_matching, write_tensors
from geomem.training.best_weights import Snapshot, stitch

FORMAT = "geomem.best-weights/1"
UNCHANGED = "unchanged.safetensors"
_FOREIGN = "net.network."  # a network from elsewhere inside a denoiser: its own names come after this


def save_levels(folder: str | os.PathLike[str], edges: Sequence[float], steps: Sequence[int], early_stop: int,
                snapshots: Mapping[int, Snapshot]) -> None:
    """Write the weights of the chosen ``steps`` (bands) between ``edges`` (bands + 1), and those of ``early_stop``.

    The folder appears whole or not at all. Raises InputError where it exists and is not empty.
    """
    written = {step: snapshots[step] for step in sorted({*steps, early_stop})}
    first, *others = written.values()
    unchanged = {name for name, tensor in first.items() if others and all(s[name] is tensor for s in others)}
    foreign = all(name.startswith(_FOREIGN) for name in first)

    def write(name: str, tensors: Snapshot) -> None:
        write_tensors(temporary / name, {name[len(_FOREIGN) * foreign:]: tensor for name, tensor in tensors.items()})

    with new_folder(folder) as temporary:
        if unchanged:
            write(UNCHANGED, {name: first[name] for name in unchanged})
        for step, snapshot in written.items():
            write(_file_of(step), {name: tensor for name, tensor in snapshot.items() if name not in unchanged})
        write_json(temporary / "levels.json", {
            "format": FORMAT, "edges": list(edges), "files": [_file_of(step) for step in steps],
            "early_stop": _file_of(early_stop), "unchanged": UNCHANGED if unchanged else None})


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """``atomic_directory``. Raises InputError where the folder exists and is not empty."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise file_error(folder, "exists and is not empty; give a new folder")
    with atomic_directory(folder) as temporary:
        yield temporary


def load_best(folder: str | os.PathLike[str], denoiser: nn.Module) -> PiecewiseDenoiser:
    """``monitor.best(denoiser)`` from what ``monitor.save`` wrote, in evaluation mode.

    ``denoiser`` : the network that was trained, as then or wrapped as then, with its base's weights and the layers of
    its adapter; its frozen parameters are shared.
    Raises InputError for a folder that is damaged, and for weights that do not fit the network.
    """
    folder = Path(folder)
    table = read_json(folder / "levels.json", "give a folder that Monitor.save wrote")
    if not _is_sound(table):
        raise file_error(folder / "levels.json", "is not the table of a folder that Monitor.save wrote, or it is "
                                                 "damaged; save the weights again")
    foreign = _FOREIGN if all(name.startswith(_FOREIGN) for name in denoiser.state_dict()) else ""
    names = dict.fromkeys([*table["files"], *([table["unchanged"]] if table["unchanged"] else [])])
    read = {name: read_matching(folder / name, denoiser, foreign.__add__, partial=True) for name in names}
    unchanged = read.pop(table["unchanged"], {})
    snapshots = {name: {**snapshot, **unchanged} for name, snapshot in read.items()}
    try:
        return stitch(table["edges"], [snapshots[name] for name in table["files"]], denoiser)
    except InputError as error:
        raise file_error(folder, str(error)) from None


def _file_of(step: int) -> str:
    return f"step-{step:07d}.safetensors"


def _is_sound(table: Mapping[str, Any]) -> bool:
    """Whether levels.json is of this format, with ordered edges and names of files that lie in the folder itself."""
    edges, files = table.get("edges"), table.get("files")
    return (table.get("format") == FORMAT and isinstance(edges, list) and isinstance(files, list)
            and len(edges) == len(files) + 1 >= 2
            and all(type(edge) in (int, float) and 0 < edge < math.inf for edge in edges)
            and all(low < high for low, high in pairwise(edges))
            and table.get("unchanged") in (None, UNCHANGED)
            and all(isinstance(name, str) and Path(name).name == name and name not in (UNCHANGED, "..")
                    for name in files))
