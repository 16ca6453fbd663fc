"""``geomem plot-curves``: the picture of one or several danger-zone files."""

from __future__ import annotations

import click

from geomem.cli.output import require_picture, say
from geomem.errors import InputError, counted


@click.command("plot-curves")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--out", required=True, metavar="PICTURE", type=click.Path(dir_okay=False),
              help="Picture to write; its ending decides the format (.png, .pdf, .svg).")
@click.option("--label", "labels", multiple=True, metavar="TEXT",
              help="Name of a curve, once per file.  [default: the names of the data, and the file beside those of "
                   "one name]")
@click.option("--title", metavar="TEXT", help="Text above the picture.  [default: the name of the data, of one FILE]")
def plot_curves(files: tuple[str, ...], out: str, labels: tuple[str, ...], title: str | None) -> None:
    """Plot FILE, a danger-zone.json or the directory that holds one; several files are laid over each other.

    Example: geomem plot-curves zones/digits zones/faces --out curves.png
    """
    from geomem import plots
    from geomem.files import write_figure
    from geomem.geometry.zone_file import read_document

    if labels and len(labels) != len(files):
        raise InputError(f"{len(labels)} --label for {counted(len(files), 'file')}; give one for each")
    require_picture("--out", out)
    documents = [read_document(path) for path in files]
    names = labels or tuple(document["data"]["name"] for document in documents)
    if not labels:  # those of one data set are told apart by their files
        names = tuple(f"{name} ({path})" if names.count(name) > 1 else name
                      for name, path in zip(names, files, strict=True))
    write_figure(out, plots.plot_curves(list(zip(names, documents, strict=True)), title=title))
    say(f"wrote {out}")
