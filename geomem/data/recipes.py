"""Recipes: one declarative TOML file per data set, in ``data_recipes/``.

    title, description, licence   for people
    [source]   kind = "sklearn", name = "load_digits"    a data set that scikit-learn carries
               kind = "file", path, heldout (optional)   paths of any other form, relative to the recipe
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

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.dataset import content_hash
from geomem.data.hub import HubData, read_hub
from geomem.data.pictures import Form, Pictures
from geomem.data.points import Points, as_points
from geomem.data.readers import read_path
from geomem.data.source import Part, Source, read_parts
from geomem.errors import as_input_error, file_error
from geomem.files import require_file
from geomem.rng import random_order

_TEXTS = {"title", "description", "licence"}
_HUB = {"name", "config", "revision", "train", "heldout", "column", "label"}
_TABLES = {"source": {"kind", "path"} | _HUB, "points": {"shape", "range", "grey", "size"},
           "split": {"rule", "seed", "train", "heldout", "class", "pool"},
           "expected": {"train", "heldout", "index_sha256", "sha256"}}
_LOCAL = {"path", "sha256"}
_ADVICE = "the tables and keys are described in geomem/data/recipes.py"
_SKLEARN = ("load_digits",)
_MAX_SIZE = 4096
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
    require_file(path, _ADVICE)
    with as_input_error(path, "a recipe", _ADVICE):
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        _refuse_unknown(recipe, path)
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
        pictures = Form(bool(form.get("grey")), _size(form.get("size"), path))
        points, notes = read_parts(parts, pictures)
        points = [_formed(part, form, path) for part in points]
        notes = [*source.notes, *notes]
        if recipe.get("source", {}).get("kind") in (None, "hub"):
            notes.insert(0, f"{path.stem} read from {origin}")
        checks = _checks(points, rows, recipe.get("expected", {}), known_hash, path)
    return Prepared(Source(path.stem, points[0], points[1] if len(points) > 1 else None, tuple(notes)), origin, checks)


def _refuse_unknown(recipe: dict[str, Any], path: Path) -> None:
    unknown = recipe.keys() - _TEXTS - _TABLES.keys() - {"local"}
    for table, keys in _TABLES.items():
        unknown |= {f"{table}.{key}" for key in recipe.get(table, {}).keys() - keys}
    for local in recipe.get("local", []):
        unknown |= {f"local.{key}" for key in local.keys() - _LOCAL}
        if "path" not in local:
            raise file_error(path, "has a [[local]] table without path; say where the official files are")
    if unknown:
        raise file_error(path, f"unknown in a recipe: {', '.join(sorted(unknown))}; remove or correct it")
    if "source" not in recipe and not recipe.get("local"):
        raise file_error(path, "has no [source] table; say where the data come from")


def _find_source(recipe: dict[str, Any], path: Path,
                 root: str | os.PathLike[str] | None) -> tuple[Source, str, str | None]:
    """The source, where it was found, and the hash that is known of what was found there."""
    local = recipe.get("local", [])
    if local and root is not None:
        if not Path(root).is_dir():
            raise file_error(root, "is no folder; give the one with the official files (--data-root or GEOMEM_DATA)")
        for entry in local:
            found = _below(Path(root), entry["path"])
            if found is not None:
                return read_path(found), str(found), entry.get("sha256")
    source = recipe.get("source")
    if source is None:
        paths = ", ".join(entry["path"] for entry in local)
        raise file_error(path.stem, f"is read from official files, and there are none in {root or 'the data root'}: "
                                    f"put one of {paths} there and name the folder with --data-root or GEOMEM_DATA")
    return _read_source(source, path, bool(local), root)


def _below(root: Path, name: str) -> Path | None:
    """The path below the root, or the root itself where it has that name."""
    if (root / name).exists():
        return root / name
    return root if root.resolve().name == name else None


def _read_source(source: dict[str, Any], path: Path, has_local: bool,
                 root: str | os.PathLike[str] | None) -> tuple[Source, str, str | None]:
    if source["kind"] == "sklearn" and source["name"] in _SKLEARN:
        from sklearn import datasets

        bunch = getattr(datasets, source["name"])()
        return Source(path.stem, as_points(bunch.data, path, bunch.target)), f"scikit-learn's {source['name']}", None
    if source["kind"] == "file":
        found = read_path(path.parent / source["path"])
        if "heldout" in source:
            found = replace(found, heldout=read_path(path.parent / source["heldout"]).train)
        return found, str(path.parent / source["path"]), None
    if source["kind"] == "hub":
        data = HubData(**{key: source[key] for key in _HUB & source.keys()})
        origin = f"the Hugging Face hub, {data.name}" + (f" at {data.revision}" if data.revision else "")
        try:
            return read_hub(data), origin, None
        except Exception as error:
            if has_local:
                looked = f"not found in {root}" if root is not None else "no folder given"
                raise file_error(path.stem, f"{error}; official files ({looked}) are read too, see "
                                             "--data-root") from error
            raise
    raise file_error(path, f"unknown source {source['kind']} {source.get('name', '')}; known are file, hub and sklearn "
                           f"{', '.join(_SKLEARN)}")


def _size(size: Any, path: Path) -> int | None:
    if size is not None and not (type(size) is int and 1 <= size <= _MAX_SIZE):
        raise file_error(path, f"[points] size is {size}; give a number of pixels from 1 to {_MAX_SIZE}")
    return size


def _chosen(source: Source, split: dict[str, Any] | None, path: Path) -> tuple[list[Part], list[np.ndarray]]:
    """Both parts as the split wants them, and the rows of the source that they are."""
    both: list[Part] = [source.train] if source.heldout is None else [source.train, source.heldout]
    if split is None:
        return both, [np.arange(len(part)) for part in both]
    rule = split["rule"]
    if rule == "permutation" and source.heldout is not None and not split.get("pool"):
        raise file_error(path, "has a [split] table, but its source has a held-out part; keep one of them, or add "
                               "pool = true")
    n_train, n_heldout = split["train"], split["heldout"]
    if rule == "permutation":
        both = [_pooled(both)]
        if min(n_train, n_heldout) < 0 or n_train + n_heldout > len(both[0]):
            raise _impossible(path, len(both[0]))
        order = random_order(len(both[0]), split["seed"], "split")
        rows = [order[:n_train], order[n_train:n_train + n_heldout]]
        return [both[0].take(index) for index in rows], rows
    if len(both) < 2 or rule not in ("first", "index"):
        raise _impossible(path, len(both[0]))
    rows = []
    for part, wanted in zip(both, (n_train, n_heldout), strict=True):
        if rule == "index":
            index = np.array(wanted, dtype=np.int64)
            impossible = index.ndim != 1 or (index < 0).any() or (index >= len(part)).any()
        else:
            index = _of_class(part, split.get("class"), path)[:wanted]
            impossible = len(index) != wanted
        if impossible:
            raise _impossible(path, len(part))
        rows.append(index)
    return [part.take(index) for part, index in zip(both, rows, strict=True)], rows


def _impossible(path: Path, n: int) -> Exception:
    return file_error(path, f"[split] cannot be made on {n:,} points; the rules are permutation, with train and "
                            "heldout together at most that many, and, where the source has a held-out part, first "
                            "and index")


def _of_class(part: Part, number: int | None, path: Path) -> np.ndarray:
    """Rows of one class; class names count from 0 in alphabetical order."""
    if number is None:
        return np.arange(len(part))
    if part.labels is None:
        raise file_error(path, f"[split] asks for class {number}, but the source has no labels")
    labels = part.labels
    if labels.dtype.kind == "U":
        labels = np.unique(labels, return_inverse=True)[1]
    return np.flatnonzero(labels == number)


def _pooled(parts: Sequence[Part]) -> Part:
    """Both parts as one: images in the order in which they lie, other points those of the first part first."""
    if len(parts) == 1:
        return parts[0]
    known = [part.labels for part in parts if part.labels is not None]
    labels = np.concatenate(known) if len(known) == len(parts) else None
    pictures = [part for part in parts if isinstance(part, Pictures)]
    if pictures:
        positions = np.concatenate([part.chosen for part in pictures])
        return replace(pictures[0], chosen=positions, labels=labels).take(np.argsort(positions, kind="stable"))
    points = [part for part in parts if isinstance(part, Points)]
    return replace(points[0], values=np.concatenate([np.asarray(part.values) for part in points]), labels=labels)


def _formed(points: Points, form: dict[str, Any], path: Path) -> Points:
    if "shape" not in form and "range" not in form:
        return points
    values = points.values
    if "range" in form:
        values = np.asarray(values)  # stored points are read: keep what is larger than memory in its final form
        low, high = form["range"]
        if not (np.isfinite([low, high]).all() and low < high):
            raise file_error(path, f"[points] range is {low} to {high}; give two finite numbers, the smaller one first")
        if points.pixels or values.min() < low or values.max() > high:
            raise file_error(path, f"[points] range is {low} to {high}, but the source holds "
                                   f"{'uint8 images' if points.pixels else f'{values.min()} to {values.max()}'}")
        values = (values - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
    if "shape" in form and list(values.shape[1:]) != form["shape"]:
        found = values.shape[1:]
        if not points.pixels:
            values = np.asarray(values).reshape(-1, *form["shape"])
        if points.pixels or len(values) != len(points):
            raise file_error(path, f"[points] shape is {form['shape']}, but the points of the source are {found}")
    return Points(values, points.labels, points.pixels)


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
