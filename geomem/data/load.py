"""From a spec to a data set: read, split, cut to size, decode, check.

A *spec* is a recipe name, a path, or an array. The order is fixed: the held-out part is settled first, and
only then are ``n_train`` and ``n_heldout`` applied, so asking for fewer training points never changes which
points are held out. Where a held-out part was given, images are decoded last, and those that were cut away are never
read; to make one, all are, since equal and near-equal points stay on one side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.autoencoder import Autoencoder, Latents, cached, content_of
from geomem.data.child import one_child
from geomem.data.dataset import DataSet, content_hash
from geomem.data.hub import HUB_PREFIX, read_hub_spec
from geomem.data.pictures import MAX_SIZE, Form
from geomem.data.points import Points, Values, as_points, with_channels
from geomem.data.readers import FORMS, read_path, refuse_column
from geomem.data.recipes import known_recipes, read_recipe
from geomem.data.source import Part, Source, read_parts
from geomem.data.table import Table, TableEncoder, is_table
from geomem.duplicates import leaked_points, near_groups
from geomem.errors import InputError, are, counted, file_error, one_line
from geomem.rng import random_order
from geomem.scales import require_one_scale

ROOT_VARIABLE = "GEOMEM_DATA"
HELDOUT_SHARE = 5  # one point in so many
MAX_HELDOUT = 10_000


@one_child()
def load_data(spec: Any, *, heldout: Any = None, n_train: int | None = None, n_heldout: int | None = None,
              shuffle: bool = False, seed: int = 0, channels: str | None = None, size: int | None = None,
              crop: bool = False, column: str | None = None, vae: str | os.PathLike[str] | None = None,
              vae_sample: bool = False, data_root: str | os.PathLike[str] | None = None) -> DataSet:
    """Load training and held-out points.

    Parameters
    ----------
    spec : a recipe name (``digits``); a path to a recipe ``.toml`` or to data of a form that
        :mod:`geomem.data.readers` lists; ``hf:NAME[:CONFIG]``, a data set on the Hugging Face hub; an array or
        tensor ``(N, ...)``, uint8 images or floats; or a DataFrame, see :mod:`geomem.data.table`. Training points in
        ``.npy`` files, and decoded images, stay on disk when they take more than 1 GiB.
    heldout : a second spec, whose training part becomes the held-out part, in place of any in ``spec``.
    n_train, n_heldout : take only the first so many points.
    shuffle : put each part in a random order before that; smaller subsets are nested in larger ones.
    seed : of that order, and of the split that is made when there is no held-out part: a fifth of the points,
        at most 10,000, announced in ``notes``. Equal and near-equal points stay on one side.
    channels : ``first`` or ``last``: which axis of arrays (N, C, H, W) or (N, H, W, C) are the channels. The default
        is announced in ``notes`` where it could be another one.
    size : scale all pictures to so many pixels a side, by Lanczos' filter, which averages where it shrinks. crop : take
        the square in the middle of each before that.
    column : of a table: the one of the pictures or numbers.
    vae : a diffusers ``AutoencoderKL`` folder; pictures become its latents, scaled as for training, see
        :mod:`geomem.data.autoencoder`: the mean of its posterior or, with ``vae_sample``, a draw from it by ``seed``.
    data_root : folder where recipes find official files; the default is the environment variable GEOMEM_DATA.

    Raises
    ------
    InputError : for anything wrong with the input, with a message of one line.
    """
    spec, heldout = map(expanded, (spec, heldout))
    root = data_root or os.environ.get(ROOT_VARIABLE) or None
    given = {"channels": channels, "size": size, "crop": crop, "column": column}
    read_as: dict[str, Any] = {name: value for name, value in given.items()
                               if value is not None and value is not False}
    _check_options(**read_as)
    form = Form(size=size, crop=crop)
    source = _read(spec, root, read_as)
    where = spec if isinstance(spec, str | os.PathLike) else source.name
    notes, parts, merged = list(source.notes), source.parts, None
    if heldout is not None:
        second = _read(heldout, root, read_as)
        parts = [source.train, second.train]
    elif len(parts) == 1:
        whole = parts[0]
        if isinstance(whole, Table):
            values = TableEncoder.of(whole).points(whole).values
        else:
            (whole,), told = read_parts(parts, form)  # all of them, since any may equal another
            notes, values = notes + told, whole.values
        parts, merged = _split(whole, values, seed)
    parts, class_names = _numbered_classes(parts, source.classes)
    chosen = [_cut(where, "train", parts[0], n_train, 2, shuffle, seed),
              _cut(where, "heldout", parts[1], n_heldout, 1, shuffle, seed)]
    table = TableEncoder.of(chosen[0]) if isinstance(chosen[0], Table) else None
    told_of_second: list[str] = []
    if heldout is None or any(isinstance(part, Table) for part in chosen):
        (train, held), told = read_parts(chosen, form)
    else:
        (train,), told = read_parts(chosen[:1], form)
        (held,), told_of_second = read_parts(chosen[1:], form)
    notes += told
    if heldout is not None:
        if source.heldout is not None:
            notes.append(f"held-out points from {second.name} in place of those of {source.name}")
        notes += [f"{second.name}: {note}" for note in (*second.notes, *told_of_second)]
    if merged is not None:
        notes.append(f"no held-out part: {len(parts[1]):,} of {len(whole):,} points held out at random (seed {seed})"
                     + (f"; {merged:,} that equal or nearly equal another are on its side" if merged else ""))
    _require_alike(where, train, held)
    notes += _missing_classes("training", train.labels, parts[0].labels)
    notes += _missing_classes("held-out", held.labels, parts[1].labels)
    heldout_values, leaked = np.asarray(held.values), None
    if merged != 0:  # a split of distinct points leaks none
        require_one_scale(f"{one_line(str(where))}: held-out points", heldout_values, train.values)
        found = leaked_points(train.values, heldout_values)
        if found.any():
            leaked = found
            first = f" ({held.names[int(found.argmax())]} for one)" if held.names is not None else ""
            notes.append(f"{found.sum():,} of {len(found):,} held-out points {are(found.sum())} equal or nearly equal "
                         f"to training points{first}; they select and judge nothing")
    latents = None
    if vae_sample and vae is None:
        raise InputError("--vae-sample needs --vae FOLDER; leave it out, or give the autoencoder")
    if vae is not None:
        read_as |= {"vae": os.path.abspath(expanded(os.fspath(vae))), **({"vae_sample": True} if vae_sample else {})}
        if not train.pixels:
            raise file_error(where, "holds no pictures, and --vae makes latents of pictures; leave it out")
        train, heldout_values, latents, told = _as_latents(train, heldout_values, vae, vae_sample, seed)
        notes += told
    return DataSet(one_line(source.name), train.values, heldout_values, train.labels, held.labels, train.pixels,
                   tuple(notes), leaked, read_as, class_names, train.names, held.names, latents, table,
                   merged is not None)


def _require_alike(where: object, train: Points, held: Points) -> None:
    """Raise InputError for too few points, and for parts of several shapes or types."""
    for name, points, least in (("train", train, 2), ("heldout", held, 1)):
        if len(points) < least:
            raise file_error(where, f"has {counted(len(points), f'{name} point')}; at least {least} are needed")
    if train.values.shape[1:] != held.values.shape[1:]:
        raise file_error(where, f"held-out points have shape {held.values.shape[1:]}, training points "
                                f"{train.values.shape[1:]}; give held-out points of the same shape")
    if train.pixels != held.pixels:
        kind = {False: "float", True: "uint8 images"}
        raise file_error(where, f"training points are {kind[train.pixels]}, held-out points {kind[held.pixels]}; give "
                                "both as one type: only uint8 is scaled to [-1, 1]")


def _as_latents(train: Points, heldout: np.ndarray, vae: str | os.PathLike[str], draw: bool,
                seed: int) -> tuple[Points, np.ndarray, Latents, list[str]]:
    """Both parts through the encoder; equal pictures were found before."""
    encoder = Autoencoder(expanded(os.fspath(vae)))
    pictures, content = content_hash(train.values, heldout) + (f" {seed}" if draw else ""), content_of(encoder.folder)

    def made() -> dict[str, np.ndarray]:
        (known, variance), (unseen, _) = (
            encoder.encoded(values, (seed, f"posterior of {name} pictures") if draw else None)
            for name, values in (("training", train.values), ("held-out", heldout)))
        return {"train": known, "heldout": unseen, "variance": np.array(variance)}

    parts = cached((pictures, content, encoder.device.type), made)
    latents = Latents(str(encoder.folder), encoder.scaling, encoder.shift, "sample" if draw else "mean",
                      math.sqrt(parts["variance"]), content, pictures)
    note = (f"latents of shape {parts['train'].shape[1:]}: {'a draw from' if draw else 'the mean of'} the posterior of "
            f"{encoder.folder}, scaled by {encoder.scaling:g}")
    return replace(train, values=parts["train"], pixels=False), parts["heldout"], latents, [*encoder.notes, note]


def expanded(spec: Any) -> Any:
    """A spec with ``~`` as the home folder, which shells leave alone in ``--data=~/photos``."""
    return os.path.expanduser(spec) if isinstance(spec, str) else spec


def require_there(spec: str) -> None:
    """Raise InputError where a spec is neither a recipe nor a path nor a name on the hub. Nothing is read."""
    spec = expanded(spec)
    if spec not in known_recipes() and not spec.startswith(HUB_PREFIX) and not os.path.lexists(spec):
        raise file_error(repr(spec), f"no such recipe or file; recipes: {', '.join(known_recipes()) or 'none'}; "
                                     f"paths: {FORMS} file, or a recipe .toml; on the Hugging Face hub: "
                                     "hf:NAME[:CONFIG]")


def _check_options(channels: str | None = None, size: int | None = None, crop: bool = False,
                   column: str | None = None) -> None:
    if channels not in (None, "first", "last"):
        raise InputError(f"channels is {channels!r}; give first or last")
    if size is not None and not (type(size) is int and 1 <= size <= MAX_SIZE):
        raise InputError(f"size is {size!r}; give a number of pixels from 1 to {MAX_SIZE}")
    if crop and size is None:
        raise InputError("crop needs a size; give --size N as well")


def _read(spec: Any, root: str | os.PathLike[str] | None, read_as: dict[str, Any]) -> Source:
    column, channels = read_as.get("column"), read_as.get("channels")
    if not isinstance(spec, str | os.PathLike):
        refuse_column("array", column)
        if hasattr(spec, "detach"):  # a tensor, recognised without importing torch
            spec = spec.detach().cpu()
            spec = (spec.float() if spec.is_floating_point() else spec).numpy()
        source = Source("array", [Table.of(spec, "table") if is_table(spec) else as_points(spec, "array")])
    elif str(spec).startswith(HUB_PREFIX):
        source = read_hub_spec(str(spec), column)
    else:
        require_there(str(spec))
        known = known_recipes().get(str(spec))
        if known is not None or Path(spec).suffix.lower() == ".toml":
            if read_as:
                raise file_error(spec, f"is a recipe, which says itself how data are read; leave out "
                                       f"{', '.join(f'--{name}' for name in read_as)}, or write a recipe of your own")
            return read_recipe(known or Path(spec), root)
        source = read_path(Path(spec), column)
    parts: list[Part] = []
    notes: dict[str, None] = dict.fromkeys(source.notes)
    for part in source.parts:
        if isinstance(part, Table):
            if read_as:
                raise file_error(source.name, "is a table of numbers and categories, which is read whole; leave out "
                                              f"{', '.join(f'--{name}' for name in read_as)}")
        elif isinstance(part, Points):
            if "size" in read_as:
                raise file_error(source.name, "holds arrays, and --size scales encoded pictures only; leave it out")
            part, note = with_channels(part, channels, source.name)
            notes |= {note: None} if note else {}
        elif channels:
            raise file_error(source.name, "holds encoded pictures, whose channels are known; leave out --channels")
        parts.append(part)
    return replace(source, parts=parts, notes=tuple(notes))


def _split(points: Points | Table, values: Values, seed: int) -> tuple[list[Part], int]:
    """A training part in the order of the file, a held-out part in random order, so that its first points are fair;
    and how many points stay with one that they equal or nearly equal. values: of all of them, (N, ...).

    Such points are held out together, where as many are still wanted, or not at all.
    """
    n_heldout = min(MAX_HELDOUT, max(1, len(points) // HELDOUT_SHARE))
    order = random_order(len(points), seed, "split")
    found = near_groups(values)
    size = np.bincount(found.group)
    chosen, left = np.zeros(len(size), dtype=bool), max(n_heldout, int(size.min()))
    for group in found.group[order]:
        if not chosen[group] and size[group] <= left:
            chosen[group] = True
            left -= size[group]
        if not left:
            break
    held = chosen[found.group[order]]
    if len(points) - held.sum() < 2:  # they nearly all equal one another: the held-out points are leaked
        held = np.arange(len(points)) < n_heldout
    return [points.take(np.sort(order[~held])), points.take(order[held])], found.merged


def _cut(where: object, part: str, points: Part, n: int | None, least: int, shuffle: bool, seed: int) -> Part:
    if n is not None and not least <= n <= len(points):
        raise file_error(f"n_{part}", f"{n} asked for, but {where} has {counted(len(points), f'{part} point')}; "
                                      f"give a number from {least} to {len(points)}")
    return points.take(random_order(len(points), seed, f"subset of {part}")[:n] if shuffle else slice(n))


def _numbered_classes(parts: Sequence[Part],
                      classes: tuple[str, ...] | None) -> tuple[list[Part], tuple[str, ...] | None]:
    """Labels as int64, and their names: ``classes`` for labels that are numbers. Class names are numbered in
    alphabetical order over all parts together, or in that of the numbers where all are whole numbers.
    """
    known = [part.labels for part in parts if part.labels is not None]
    if any(labels.dtype.kind == "U" for labels in known):
        known = [labels.astype(str) for labels in known]
        names, place = np.unique(np.concatenate(known), return_inverse=True)
        if all(name.isdecimal() and len(name) < 19 for name in names.tolist()):
            order = np.lexsort((names, names.astype(np.int64)))
            names, place = names[order], np.argsort(order)[place]
        classes = tuple(names.tolist())
        known = np.split(place, np.cumsum([len(labels) for labels in known])[:-1])
    numbers = iter(known)
    return [part if part.labels is None else replace(part, labels=next(numbers).astype(np.int64))
            for part in parts], classes if known else None


def _missing_classes(part: str, labels: np.ndarray | None, all_labels: np.ndarray | None) -> list[str]:
    """A note when points sorted by class are cut so that whole classes fall away."""
    if labels is None or all_labels is None or len(np.unique(labels)) == len(np.unique(all_labels)):
        return []
    return [f"the {counted(len(labels), f'{part} point')} {'holds' if len(labels) == 1 else 'hold'} "
            f"{len(np.unique(labels))} of {len(np.unique(all_labels))} classes; --shuffle mixes them"]
