"""``geomem data``: which data sets there are, what is in one, and whether it is what its recipe promises."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import MAX_CLASSES, data_root, data_root_option, json_option, load, reading_options
from geomem.cli.output import answer, require_picture, say
from geomem.errors import InputError, counted

if TYPE_CHECKING:
    from geomem.data import DataSet

MAX_FILES, SHOWN_FILES = 1000, 3  # names of duplicates in the JSON and for people
_PROMISES = {"train": "training points", "heldout": "held-out points", "index_sha256": "sha256 of the rows chosen",
             "sha256": "sha256"}


@click.group()
def data() -> None:
    """List data sets, show what is in one, check one against its recipe."""


@data.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the recipes: data sets that go by a name.

    Official files are read where --data-root DIR or GEOMEM_DATA names the folder that holds them.
    """
    from geomem.data.recipes import known_recipes

    entries = [_recipe_entry(path) for path in known_recipes().values()]
    answer({"format": "geomem.data-list/1", "data": entries}, _list_text, as_json)


def _list_text(document: dict[str, Any]) -> str:
    rows = [("name", "training", "held-out", "shape", "title")]
    for entry in document["data"]:
        n_train, n_heldout = (f"{entry[key]:,}" if entry[key] else "" for key in ("n_train", "n_heldout"))
        rows.append((entry["name"], n_train, n_heldout, " x ".join(map(str, entry["shape"] or [])),
                     entry["title"] or ""))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:<{width}}  {row[1]:>8}  {row[2]:>8}  {row[3]:<11}  {row[4]}" for row in rows)


@data.command()
@click.argument("spec", metavar="DATA")
@reading_options
@json_option
@click.option("--out", metavar="PICTURE", type=click.Path(dir_okay=False), help="Draw points of it (.png, .pdf, .svg).")
@click.option("--points", type=click.IntRange(1, 1000), default=60, show_default=True, metavar="N",
              help="How many points to draw: random training points, always the same ones.")
def show(spec: str, as_json: bool, out: str | None, points: int) -> None:
    """Show what is in DATA: numbers and shape of points, classes, licence, source, sigma_data.

    \b
    Examples:
      geomem data show digits --out digits.png
      geomem data show cifar10-1k --data-root ~/data
    """
    if out:
        require_picture("--out", out)
    dataset = load(spec)
    answer(document_of(spec, dataset), text_of, as_json)
    if out:
        _draw(dataset, out, points)
        say(f"wrote {out}")


@data.command()
@click.argument("recipe", metavar="NAME")
@data_root_option
@json_option
def check(recipe: str, as_json: bool) -> None:
    """Check the data of a recipe, NAME or a path to a .toml, against what it promises.

    The exit status is 2 where they differ.
    """
    from geomem.data.dataset import content_hash
    from geomem.data.recipes import known_recipes, prepare_recipe

    path = known_recipes().get(recipe) or Path(recipe)
    if path.suffix != ".toml" or not path.is_file():
        raise InputError(f"{recipe!r} is no recipe; give the path of a .toml or one of {', '.join(known_recipes())}")
    prepared = prepare_recipe(path, data_root())
    checks = [{"what": check.what, "expected": check.expected if isinstance(check.expected, int | None) else
               str(check.expected), "found": check.found, "kept": check.kept} for check in prepared.checks]
    source = prepared.source
    if source.heldout is not None and all(check["what"] != "sha256" for check in checks):
        found = content_hash(source.train.values, source.heldout.values)  # type: ignore[union-attr]
        checks.append({"what": "sha256", "expected": None, "found": found, "kept": True})
    wrong = [str(check["what"]) for check in checks if not check["kept"]]
    answer({"format": "geomem.data-check/1", "name": source.name, "source": prepared.origin, "kept": not wrong,
            "checks": checks}, _check_text, as_json)
    if wrong:
        raise InputError(f"{source.name} is not what its recipe promises ({', '.join(wrong)}); fetch the files again")


def _check_text(document: dict[str, Any]) -> str:
    lines = [f"{document['name']}, read from {document['source']}"]
    for check in document["checks"]:
        promise = ("no promise" if check["expected"] is None else "as promised" if check["kept"]
                   else f"PROMISED {check['expected']}")
        lines.append(f"  {_PROMISES[check['what']]} {check['found']}: {promise}")
    return "\n".join(lines)


def _recipe_entry(path: Path) -> dict[str, Any]:
    """What a recipe says, without reading the data."""
    from geomem.data.recipes import declared_source, recipe_table

    recipe = recipe_table(path)
    split, expected = recipe.get("split", {}), recipe.get("expected", {})
    return {"name": path.stem, **{key: recipe.get(key) for key in ("title", "description", "licence")},
            "source": declared_source(recipe), "shape": recipe.get("points", {}).get("shape"),
            "n_train": expected.get("train", split.get("train")),
            "n_heldout": expected.get("heldout", split.get("heldout"))}


def document_of(spec: str, dataset: DataSet) -> dict[str, Any]:
    """Everything that is shown."""
    from geomem.data.recipes import known_recipes
    from geomem.points import points_of

    path = known_recipes().get(spec) or (Path(spec) if spec.endswith(".toml") else None)
    about = {"title": None, "description": None, "licence": None, "source": spec}
    if path is not None:
        entry = _recipe_entry(path)
        about = {key: entry[key] for key in about}
    low, high = (float(extreme(getattr(rows, extreme.__name__)() for _, rows in points_of(dataset.train).chunks()))
                 for extreme in (min, max))
    return {"format": "geomem.data/1", "name": dataset.name, **about, "n_train": len(dataset.train),
            "n_heldout": len(dataset.heldout), "shape": list(dataset.train.shape[1:]), "dim": dataset.dim,
            "pixels": dataset.pixels, "min": low, "max": high, "mean": dataset.mean, "sigma_data": dataset.std,
            "classes": _classes(dataset), "duplicates": dataset.duplicates,
            "duplicate_files": _duplicate_files(dataset), "leaked": dataset.n_leaked,
            "sha256": dataset.sha256, "notes": list(dataset.notes)}


def _duplicate_files(dataset: DataSet) -> list[list[str]] | None:
    """Names of training points that equal an earlier one, each with the name of that one."""
    import numpy as np

    later = np.flatnonzero(dataset.first_equal < np.arange(len(dataset.train)))[:MAX_FILES]
    names, equal = dataset.files(later), dataset.files(dataset.first_equal[later])
    return None if names is None or equal is None else [list(pair) for pair in zip(names, equal, strict=True)]


def _named(pairs: list[list[str]]) -> str:
    shown = "; ".join(f"{name} equals {first}" for name, first in pairs[:SHOWN_FILES])
    return f": {shown}{'; ...' if len(pairs) > SHOWN_FILES else ''}" if shown else ""


def _classes(dataset: DataSet) -> list[dict[str, Any]] | None:
    """Numbers of training and held-out points of each class, in the order of the labels."""
    import numpy as np

    if dataset.train_labels is None:
        return None
    train, held = dataset.train_labels, dataset.heldout_labels
    labels = np.unique(train if held is None else np.concatenate([train, held])).tolist()
    return [{"class": label, "name": dataset.class_name(label), "train": int((train == label).sum()),
             "heldout": None if held is None else int((held == label).sum())} for label in labels]


def text_of(document: dict[str, Any]) -> str:
    """The table for people."""
    classes = document["classes"]
    lines = [("data", document["name"] + (f": {document['title']}" if document["title"] else "")),
             ("", document["description"]), ("licence", document["licence"]), ("source", document["source"]),
             ("points", f"{document['n_train']:,} for training, {document['n_heldout']:,} held out, "
                        f"{' x '.join(map(str, document['shape']))} ({counted(document['dim'], 'value')})"),
             ("values", f"{document['min']:.4g} to {document['max']:.4g}, mean {document['mean']:.4g}, sigma_data "
                        f"{document['sigma_data']:.4g}" + (" (uint8 scaled to [-1, 1])" if document["pixels"] else "")),
             ("duplicates", f"{counted(document['duplicates'], 'training point')} "
                            f"{'equals' if document['duplicates'] == 1 else 'equal'} an earlier one"
                            + _named(document["duplicate_files"] or [])),
             ("classes", None if classes is None else _class_line(classes)), ("sha256", document["sha256"])]
    return "\n".join(textwrap.fill(f"{name:<10}  {text}", 110, subsequent_indent=" " * 12, break_on_hyphens=False)
                     for name, text in lines if text)


def called(label: int, name: str | None) -> str:
    """A class for people: its name and its label where they differ."""
    return str(label) if name in (None, str(label)) else f"{name} (label {label})"


def _class_line(classes: list[dict[str, Any]]) -> str:
    shown = ", ".join(f"{called(entry['class'], entry['name'])}: {entry['train']:,}" for entry in classes[:MAX_CLASSES])
    return f"{len(classes)} (training points of each: {shown}{', ...' if len(classes) > MAX_CLASSES else ''})"


def _draw(dataset: DataSet, out: str, n: int) -> None:
    import numpy as np

    from geomem.files import write_figure
    from geomem.plots import plot_points
    from geomem.rng import random_order

    index = np.sort(random_order(len(dataset.train), 0, "points to show")[:n])
    figure = plot_points(np.asarray(dataset.train[index]),
                         None if dataset.train_labels is None else [
                             dataset.class_name(label) or str(label) for label in dataset.train_labels[index].tolist()],
                         title=f"{dataset.name}: {len(index)} of {len(dataset.train):,} training points")
    write_figure(out, figure)
