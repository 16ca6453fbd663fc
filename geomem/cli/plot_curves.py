"""``geomem plot-curves``: the picture of one or several danger-zone files."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from geomem.cli.options import say
from geomem.errors import InputError


@click.command("plot-curves")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--out", required=True, metavar="PICTURE", type=click.Path(dir_okay=False),
              help="Picture to write; its ending decides the format (.png, .pdf, .svg).")
@click.option("--label", "labels", multiple=True, metavar="TEXT",
              help="Name of a curve, once per file.  [default: the names of the data]")
@click.option("--title", metavar="TEXT")
def plot_curves(files: tuple[str, ...], out: str, labels: tuple[str, ...], title: str | None) -> None:
    """Plot FILE, a danger-zone.json or the directory that holds one; several files are laid over each other.

    Example: geomem plot-curves zones/digits zones/faces --out curves.png
    """
    from geomem import plots
    from geomem.files import atomic_path

    if labels and len(labels) != len(files):
        raise InputError(f"{len(labels)} --label for {len(files)} files; give one for each")
    if os.path.splitext(out)[1].lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"--out {out}: the ending must be .png, .pdf or .svg")
    documents = [read_document(path) for path in files]
    names = labels or tuple(document["data"]["name"] for document in documents)
    figure = plots.plot_curves(list(zip(names, documents, strict=True)), title=title)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=150)
    say(f"wrote {out}")


def read_document(path: str) -> dict[str, Any]:
    """A danger-zone file, or the one in a directory. Raises InputError where it is not one."""
    from geomem.geometry import Curves

    if os.path.isdir(path):
        path = os.path.join(path, "danger-zone.json")
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make one with geomem danger-zone DATA --out DIR") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}); make one with geomem danger-zone DATA --out DIR") from None
    if not isinstance(document, dict) or document.get("format") != "geomem.danger-zone/1":
        raise InputError(f"{path} is not a danger-zone file; make one with geomem danger-zone DATA --out DIR")
    try:
        Curves.from_dict(document)
        zone = document.get("zone")
        if zone is not None and not 0 < zone["sigma_low"] <= zone["sigma_high"]:
            raise ValueError("its zone has no positive, ordered edges")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); make it again with geomem danger-zone") from None
    document.setdefault("zone", None)
    return document
