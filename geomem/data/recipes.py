"""Recipes: one declarative TOML file per data set, in ``data_recipes/``.

    title, description, licence   for people
    [source]   kind = "sklearn", name = "load_digits"    a data set that scikit-learn carries
               kind = "file", path, heldout (optional)   paths of any other form, relative to the recipe;
                                                         column (optional) of a table
               kind = "hub", name, config, revision, train, heldout, column, label
                                                         a data set of the Hugging Face hub, see :mod:`geomem.data.hub`
    [[local]]  path; sha256 (optional)                   official files below the data root; the first path that is
                                                         there is read in place of the source
    [points]   shape of one point; range = [low, high] of float values, mapped to [-1, 1]; grey = true;
               size = the square in the middle of each image, scaled to so many pixels
    [split]    rule = "permutation", seed, train, heldout: the first ``train`` points of a seeded order of the training
                   part, then the next ``heldout``; pool = true takes both parts of the source together
               rule = "first", train, heldout, class (optional): the first points of each part, of one class
               rule = "index", train, heldout: lists of rows of the two parts, counted from 0
               Without this table both parts are taken whole
    [expected] train, heldout: numbers of points; index_sha256 of the rows chosen; sha256 of the data set

Only ``[source]`` or ``[[local]]`` must be there. What is expected is checked on every load. An unknown table, key, kind
or rule is refused, so that an old geomem never reads a newer recipe wrongly.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.dataset import content_hash
from geomem.data.hub import HubData, read_hub
from geomem.data.pictures import MAX_SIZE, Form, Pictures
from geomem.data.points import Points, as_points
from geomem.data.readers import read_path
from geomem.data.source import Part, Source, read_parts
from geomem.data.table import Table
from geomem.errors import as_input_error, file_error
from geomem.files import require_file
from geomem.rng import random_order

_HUB = {field.name for field in fields(HubData)}
_KEYS: dict[str, set[str]] = {"source": {"kind", "path"} | _HUB, "local": {"path", "sha256"},
                              "points": {"shape", "range", "grey", "size"},
                              "split": {"rule", "seed", "train", "heldout", "class", "pool"},
                              "expected": {"train", "heldout", "index_sha256", "sha256"}}
_TEXTS = {"title", "description", "licence"}
_ADVICE = "the tables and keys are described in geomem/data/recipes.py"
_SKLEARN = {"load_digits": "digits.csv.gz"}
_MAX_BYTES = 1 << 24


@dataclass(frozen=True)
class Check:
    """One promise of a recipe, a key of its table [expected]; ``expected`` is None where it promises nothing."""

    what: str
    expected: Any
    found: Any

    @property
    def kept(self) -> bool:
        return self.expected is None or self.expected == self.found


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a recipe gives: points ready for use, where they came from, and how its promises stand."""

    source: Source
    origin: str
    checks: tuple[Check, ...]


def recipe_folders() -> tuple[Path, Path]:
    """Where recipes lie: inside an installed package, else at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / "data_recipes", package.parent / "data_recipes"


def known_recipes() -> dict[str, Path]:
    """Name and file of every recipe, from the first of the folders that is there."""
    folder = next((folder for folder in recipe_folders() if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.toml"))}


def recipe_table(path: Path) -> dict[str, Any]:
    """The recipe as it is written. Raises InputError where it is not well formed."""
    require_file(path, _ADVICE, _MAX_BYTES)
    with as_input_error(path, "a recipe", _ADVICE):
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = recipe.keys() - _TEXTS - _KEYS.keys()
        for name in _KEYS.keys() & recipe.keys():
            for table in recipe[name] if name == "local" else [recipe[name]]:
                unknown |= {f"{name}.{key}" for key in table.keys() - _KEYS[name]}
        if unknown:
            raise file_error(path, f"unknown in a recipe: {', '.join(sorted(unknown))}; remove or correct it")
        if not all("path" in table for table in recipe.get("local", [])):
            raise file_error(path, "has a [[local]] table without path; say where the official files are")
        if "source" not in recipe and not recipe.get("local"):
            raise file_error(path, "has no [source] table; say where the data come from")
    return recipe


def declared_source(recipe: dict[str, Any]) -> str:
    """Where a recipe's data come from, for people."""
    source, local = recipe.get("source", {}), ", ".join(entry["path"] for entry in recipe.get("local", []))
    known = {"sklearn": f"scikit-learn's {source.get('name')}", "file": str(source.get("path")),
             "hub": f"hf:{source.get('name')} at {source.get('revision') or 'no fixed revision'}"}
    places = [known[source["kind"]]] if source.get("kind") in known else []
    return "; or ".join([*places, *([f"files {local}"] if local else [])])


def read_recipe(path: Path, root: str | os.PathLike[str] | None = None) -> Source:
    """Read what a recipe describes and check it against what the recipe expects.

    ``root`` is the folder below which official files are looked for. Raises InputError for a recipe that is not
    well formed and for data that are not what it promises.
    """
    prepared = prepare_recipe(path, root)
    for check in prepared.checks:
        if not check.kept:
            raise file_error(path, f"the data have {check.what} = {check.found}, but the recipe expects "
                                   f"{check.expected}; the source ({prepared.origin}) has changed, or a file was "
                                   "damaged: fetch it again")
    return prepared.source


def prepare_recipe(path: Path, root: str | os.PathLike[str] | None = None) -> Prepared:
    """As :func:`read_recipe`, but promises that are not kept are only reported."""
    recipe = recipe_table(path)
    with as_input_error(path, "a recipe", _ADVICE):
        source, origin, known_hash = _find_source(recipe, path, root)
        parts, rows = _chosen(source, recipe.get("split"), path)
        form = recipe.get("points", {})
        size = form.get("size")
        if size is not None and not (type(size) is int and 1 <= size <= MAX_SIZE):
            raise file_error(path, f"[points] size is {size}; give a number of pixels from 1 to {MAX_SIZE}")
        points, notes = read_parts(parts, Form(bool(form.get("grey")), size))
        points = [_shaped(_scaled(part, form, path), form, path) for part in points]
        if recipe.get("source", {}).get("kind") in (None, "hub"):
            notes = [f"{path.stem} read from {origin}", *source.notes, *notes]
        else:
            notes = [*source.notes, *notes]
        checks = _checks(points, rows, recipe.get("expected", {}), known_hash, path)
    prepared = Source(path.stem, points, tuple(notes), source.classes)
    return Prepared(prepared, origin, checks)


def _find_source(recipe: dict[str, Any], path: Path,
                 root: str | os.PathLike[str] | None) -> tuple[Source, str, str | None]:
    """The source, where it was found, and the hash that is known of what was found there."""
    local = recipe.get("local", [])
    if local and root is not None:
        if not Path(root).is_dir():
            raise file_error(root, "is no folder; give the one with the official files (--data-root or GEOMEM_DATA)")
        for entry in local:
            found = Path(root) / entry["path"]
            if not found.exists() and Path(root).resolve().name == entry["path"]:
                found = Path(root)
            if found.exists():
                return read_path(found), str(found), entry.get("sha256")
    if "source" not in recipe:
        raise file_error(path.stem, f"is read from official files, and there are none in {root or 'the data root'}: "
                                    f"put one of {', '.join(entry['path'] for entry in local)} there and name the "
                                    "folder with --data-root or GEOMEM_DATA")
    try:
        return *_read_source(recipe["source"], path), None
    except Exception as error:
        if not local or recipe["source"].get("kind") != "hub":
            raise
        looked = f"not found in {root}" if root is not None else "no folder given"
        raise file_error(path.stem, f"{error}; official files ({looked}) are read too, see --data-root") from error


def _read_source(source: dict[str, Any], path: Path) -> tuple[Source, str]:
    if source["kind"] == "sklearn" and source["name"] in _SKLEARN:
        package = find_spec("sklearn")  # its file alone: importing scikit-learn and pandas takes most of a second
        assert package is not None
        assert package.origin is not None
        table = np.loadtxt(Path(package.origin).parent / "datasets/data" / _SKLEARN[source["name"]], delimiter=",")
        points = as_points(table[:, :-1], path, table[:, -1].astype(np.int64))
        return Source(path.stem, [points]), f"scikit-learn's {source['name']}"
    if source["kind"] == "file":
        column = source.get("column")
        found = read_path(path.parent / source["path"], column)
        if "heldout" in source:
            found = replace(found, parts=[found.train, read_path(path.parent / source["heldout"], column).train])
        return found, str(path.parent / source["path"])
    if source["kind"] == "hub":
        data = HubData(**{key: source[key] for key in _HUB & source.keys()})
        return read_hub(data), f"the Hugging Face hub, {data.name}" + (f" at {data.revision}" if data.revision else "")
    raise file_error(path, f"unknown source {source['kind']} {source.get('name', '')}; known are file, hub and sklearn "
                           f"{', '.join(_SKLEARN)}")


def _chosen(source: Source, split: dict[str, Any] | None, path: Path) -> tuple[list[Part], list[np.ndarray]]:
    """Both parts as the split wants them, and the rows of the source that they are."""
    parts = list(source.parts)
    if split is None:
        return parts, [np.arange(len(part)) for part in parts]
    rule, wanted = split["rule"], [split["train"], split["heldout"]]
    rows = []
    if rule == "permutation":
        if len(parts) > 1 and not split.get("pool"):
            raise file_error(path, "has a [split] table, but its source has a held-out part; keep one of them, or add "
                                   "pool = true")
        parts = [_pooled(parts)] * 2
        order = random_order(len(parts[0]), split["seed"], "split")
        rows = [order[:wanted[0]], order[wanted[0]:sum(wanted)]]
    elif rule == "first" and len(parts) > 1:
        rows = [_of_class(part, split.get("class"), path)[:n] for part, n in zip(parts, wanted, strict=True)]
    elif rule == "index" and len(parts) > 1:
        rows = [np.array(index, dtype=np.int64) for index in wanted]
        wanted = [index.size for index in rows]
    if not rows or any(len(index) != n or ((index < 0) | (index >= len(part))).any()
                       for part, index, n in zip(parts, rows, wanted, strict=True)):
        there = " and ".join({f"{len(part):,}": None for part in parts})
        raise file_error(path, f"[split] cannot be made on {there} points; the rules are permutation, with train and "
                               "heldout together at most that many, and, where the source has a held-out part, first "
                               "and index")
    return [part.take(index) for part, index in zip(parts, rows, strict=True)], rows


def _of_class(part: Part, number: int | None, path: Path) -> np.ndarray:
    """Rows of one class; class names count from 0 in alphabetical order."""
    if number is None:
        return np.arange(len(part))
    if part.labels is None:
        raise file_error(path, f"[split] asks for class {number}, but the source has no labels")
    labels = part.labels if part.labels.dtype.kind != "U" else np.unique(part.labels, return_inverse=True)[1]
    return np.flatnonzero(labels == number)


def _pooled(parts: Sequence[Part]) -> Part:
    """Both parts as one: images in the order in which they lie, other points those of the first part first."""
    if len(parts) == 1:
        return parts[0]
    assert not isinstance(parts[0], Table), "tables are not pooled"
    known = [part.labels for part in parts if part.labels is not None]
    labels = np.concatenate(known) if len(known) == len(parts) else None
    if isinstance(parts[0], Pictures):
        positions = np.concatenate([part.chosen for part in parts if isinstance(part, Pictures)])
        return replace(parts[0], chosen=positions, labels=labels).take(np.argsort(positions, kind="stable"))
    values = [np.asarray(part.values) for part in parts if isinstance(part, Points)]
    return replace(parts[0], values=np.concatenate(values), labels=labels, names=None)


def _scaled(points: Points, form: dict[str, Any], path: Path) -> Points:
    """Float values in ``form["range"]`` mapped to [-1, 1]."""
    if "range" not in form:
        return points
    values = np.asarray(points.values)  # stored points are read: keep what is larger than memory in its final form
    low, high = form["range"]
    if not (np.isfinite([low, high]).all() and low < high):
        raise file_error(path, f"[points] range is {low} to {high}; give two finite numbers, the smaller one first")
    if points.pixels or values.min() < low or values.max() > high:
        raise file_error(path, f"[points] range is {low} to {high}, but the source holds "
                               f"{'uint8 images' if points.pixels else f'{values.min()} to {values.max()}'}")
    return replace(points, values=(values - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1))


def _shaped(points: Points, form: dict[str, Any], path: Path) -> Points:
    """Points of shape ``form["shape"]``, which images have already."""
    found = points.values.shape[1:]
    if list(found) == form.get("shape", list(found)):
        return points
    if points.pixels or math.prod(form["shape"]) != math.prod(found):
        raise file_error(path, f"[points] shape is {form['shape']}, but the points of the source are {found}")
    return replace(points, values=np.asarray(points.values).reshape(-1, *form["shape"]))


def _checks(points: list[Points], rows: list[np.ndarray], expected: dict[str, Any], known_hash: str | None,
            path: Path) -> tuple[Check, ...]:
    promised = known_hash or expected.get("sha256")
    if len(points) < 2:
        if promised or {"heldout", "index_sha256"} & expected.keys():
            raise file_error(path, "expects a hash or held-out points but has no held-out part; add a [split] table")
        return (Check("train", expected.get("train"), len(points[0])),)
    train, heldout = points
    counts = [Check("train", expected.get("train"), len(train)),
              Check("heldout", expected.get("heldout"), len(heldout)),
              Check("index_sha256", expected.get("index_sha256"), index_hash(*rows))]
    if promised is None:
        return tuple(counts)
    return (*counts, Check("sha256", promised, content_hash(train.values, heldout.values)))


def index_hash(train: np.ndarray, heldout: np.ndarray) -> str:
    """SHA-256 of the rows chosen, as text: those for training with commas between, a line break, those held out."""
    text = "".join(",".join(map(str, rows.tolist())) + "\n" for rows in (train, heldout))
    return sha256(text.encode()).hexdigest()
