"""Recipes: one declarative TOML file per data set, in ``data_recipes/``.

    title, description, licence   for people
    [source]   kind = "sklearn", name = "load_digits"    a data set that scikit-learn carries
               kind = "file", path, heldout (optional)   paths of any other form, relative to the recipe
    [points]   shape of one point; range = [low, high] of float values, mapped to [-1, 1]
    [split]    rule = "permutation", seed, train, heldout: the first ``train`` points of a seeded order, then
               the next ``heldout``; without this table the held-out part is that of the source
    [expected] sha256 of the data set, checked on every load

Only ``[source]`` must be there. An unknown table, key, kind or rule is refused, so that an old geomem never
reads a newer recipe wrongly.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data.dataset import content_hash
from geomem.data.points import Points, Source, as_points
from geomem.data.readers import read_path
from geomem.data.refusal import reading, wrong
from geomem.data.split import random_order

_TEXTS = {"title", "description", "licence"}
_TABLES = {"source": {"kind", "name", "path", "heldout"}, "points": {"shape", "range"},
           "split": {"rule", "seed", "train", "heldout"}, "expected": {"sha256"}}
_SKLEARN = ("load_digits",)


def recipe_folders() -> tuple[Path, Path]:
    """Where recipes lie: inside an installed package, else at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / "data_recipes", package.parent / "data_recipes"


def known_recipes() -> dict[str, Path]:
    """Name and file of every recipe, from the first of the folders that is there."""
    folder = next((folder for folder in recipe_folders() if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(path: Path) -> Source:
    """Read what a recipe describes and check it against the expected hash.

    Raises InputError for a recipe that is not well formed and for data that are not what it promises.
    """
    with reading(path, "a recipe", "the tables and keys are described in geomem/data/recipes.py"):
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
        _refuse_unknown(recipe, path)
        source = _read_source(recipe["source"], path)
        form = recipe.get("points", {})
        train = _formed(source.train, form, path)
        heldout = None if source.heldout is None else _formed(source.heldout, form, path)
        if "split" in recipe:
            if heldout is not None:
                raise wrong(path, "has a [split] table, but its source has a held-out part; keep one of them")
            train, heldout = _split(train, recipe["split"], path)
        if "expected" in recipe:
            _check_hash(train, heldout, recipe["expected"]["sha256"], path)
    return Source(path.stem, train, heldout, source.notes)


def _refuse_unknown(recipe: dict[str, Any], path: Path) -> None:
    unknown = recipe.keys() - _TEXTS - _TABLES.keys()
    for table, keys in _TABLES.items():
        unknown |= {f"{table}.{key}" for key in recipe.get(table, {}).keys() - keys}
    if unknown:
        raise wrong(path, f"unknown in a recipe: {', '.join(sorted(unknown))}; remove or correct it")
    if "source" not in recipe:
        raise wrong(path, "has no [source] table; say where the data come from")


def _read_source(source: dict[str, Any], path: Path) -> Source:
    if source["kind"] == "sklearn" and source["name"] in _SKLEARN:
        from sklearn import datasets

        bunch = getattr(datasets, source["name"])()
        return Source(path.stem, as_points(bunch.data, path, bunch.target))
    if source["kind"] == "file":
        found = read_path(path.parent / source["path"])
        if "heldout" not in source:
            return found
        return Source(path.stem, found.train, read_path(path.parent / source["heldout"]).train, found.notes)
    raise wrong(path, f"unknown source {source['kind']} {source.get('name', '')}; known are file and sklearn "
                      f"{', '.join(_SKLEARN)}")


def _formed(points: Points, form: dict[str, Any], path: Path) -> Points:
    if not form:
        return points
    values = np.asarray(points.values)  # stored points are read: keep what is larger than memory in its final form
    if "range" in form:
        low, high = form["range"]
        if points.pixels or values.min() < low or values.max() > high:
            raise wrong(path, f"[points] range is {low} to {high}, but the source holds "
                              f"{'uint8 images' if points.pixels else f'{values.min()} to {values.max()}'}")
        values = (values - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
    if "shape" in form:
        values = values.reshape(-1, *form["shape"])
        if len(values) != len(points):
            raise wrong(path, f"[points] shape is {form['shape']}, but the points of the source are "
                              f"{points.values.shape[1:]}")
    return Points(values, points.labels, points.pixels)


def _split(points: Points, split: dict[str, Any], path: Path) -> tuple[Points, Points]:
    n_train, n_heldout = split["train"], split["heldout"]
    if split["rule"] != "permutation" or n_train + n_heldout > len(points):
        raise wrong(path, f"[split] cannot be made on {len(points):,} points; the rule is permutation, and "
                          "train and heldout together are at most that many")
    order = random_order(len(points), split["seed"], "split")
    return points.take(order[:n_train]), points.take(order[n_train:n_train + n_heldout])


def _check_hash(train: Points, heldout: Points | None, expected: str, path: Path) -> None:
    if heldout is None:
        raise wrong(path, "has an expected hash but no held-out part; add a [split] table")
    found = content_hash(train.values, heldout.values)
    if found != expected:
        raise wrong(path, f"the data have sha256 {found}, but the recipe expects {expected}; the source has "
                          "changed, or a file was damaged: fetch it again")
