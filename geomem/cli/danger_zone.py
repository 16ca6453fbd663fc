"""``geomem danger-zone``: the two curves of a data set, and the noise levels where both are high."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, replace
from typing import Any

import click

from geomem.cli.danger_zone_table import cost_text, text_of
from geomem.cli.options import (
    curves_options,
    data_options,
    device_option,
    directory_option,
    json_option,
    load_chosen,
)
from geomem.cli.output import answer, progress_bar, require_new_directory, say
from geomem.cli.values import Number, Parsed
from geomem.errors import InputError
from geomem.processes import is_first, process_group

MAX_DRAWS = 1_000_000


class Space(Parsed):
    """``data``, or ``pca:K`` as the number K of principal components; None stands for ``data``."""

    name = "data|pca:K"

    def parse(self, text: str) -> int | None:
        match = re.fullmatch(r"data|pca:([0-9]{1,9})", text)
        if match is None:
            raise ValueError(f"{text!r} is no space; give data or pca:K, K the number of principal components")
        return int(match[1]) if match[1] else None


@click.command("danger-zone")
@data_options
@curves_options
@click.option("--posterior-draws", type=click.IntRange(1, MAX_DRAWS), default=4, show_default=True,
              help="Per training point.")
@click.option("--coverage-draws", type=click.IntRange(1, MAX_DRAWS), default=8, show_default=True,
              help="Per held-out point.")
@click.option("--tolerance", type=Number(0, 0.5, min_open=True, max_open=True), metavar="HALF",
              help="Raise the draws until every 95% interval of both curves is at most -+HALF, if draws can do that.")
@click.option("--max-draws", type=click.IntRange(2, MAX_DRAWS), default=128, show_default=True,
              help="The most draws per point that --tolerance may take.")
@click.option("--resolution", type=Number(1e-6), default=1e-3, show_default=True,
              help="Add levels until the zone and the crossing are read between two no farther apart in log sigma.")
@click.option("--space", "components", type=Space(), metavar="data|pca:K", show_default="data",
              help="pca:K projects on the first K principal components of the training points; W and C are then those "
                   "of the projected points, another question than in pixels.")
@click.option("--duplicates", type=click.Choice(["merge", "keep"]), default="merge", show_default=True,
              help="Equal and near-equal points count as one with their summed weight, or each is a point of its own, "
                   "as published.")
@click.option("--per-class", is_flag=True, help="The zone of each class too, its points against their own class.")
@click.option("--dry-run", is_flag=True, help="Print what that would take, seconds and memory on this machine, measure "
              "no curves and write nothing.")
@device_option
@json_option
@directory_option("danger-zone.json, curves.json, curves.csv and curves.png")
def danger_zone(components: int | None, per_class: bool, dry_run: bool, as_json: bool, out: str | None,
                **options: Any) -> None:
    """Find the noise levels where a model trained on DATA is in danger of memorizing it.

    DATA is a recipe (see geomem data list), an .npz with train and heldout, an .npy or a folder of them, a folder
    or zip of images, official files (CIFAR-10, IDX, UCR, ...), a .parquet, or hf:NAME on the Hugging Face hub.
    Features or latents are points like others. No training is needed.

    Examples:

    \b
      geomem danger-zone digits
      geomem danger-zone digits --per-class --tolerance 0.02
      geomem danger-zone photos/ --n-train 1000 --out photos-zone
      geomem danger-zone huge.npy --dry-run
      torchrun --nproc-per-node 4 -m geomem danger-zone huge.npy
    """
    if out and is_first():
        require_new_directory(out, "danger-zone.json")
    dataset = load_chosen(options)
    if per_class and (dataset.train_labels is None or dataset.heldout_labels is None):
        raise InputError(f"{dataset.name}: --per-class needs labels of the training and the held-out points; leave it "
                         "out or give an .npz with train_labels and heldout_labels, a folder per class, or a UCR file")
    from geomem.geometry import principal_components  # after the data, which are refused at once where they are wrong
    from geomem.noise.danger_zone import danger_zone as measure
    from geomem.noise.danger_zone import zones_by_class

    started = time.perf_counter()
    points, space = (dataset.train, dataset.heldout), None
    if components is not None:
        projection = principal_components(dataset.train, components)
        points = projection(dataset.train), projection(dataset.heldout)
        space = {"name": f"pca:{components}", "dim": components, "data_dim": dataset.dim,
                 "variance_kept": projection.variance_kept}
    classes = None
    with process_group() as group:
        if dry_run:
            if is_first():
                answer(_cost(dataset.name, *points, 1 if group is None else group.size(), options), cost_text, as_json)
            return
        options["group"] = group
        with progress_bar(0, "curves", "point") as bar:
            report = measure(*points, progress=bar.to, **options)
        if per_class:
            labels = dataset.train_labels, dataset.heldout_labels
            with progress_bar(0, "classes", "point") as bar:
                classes, notes = zones_by_class(*points, *labels, progress=bar.to, **options)
            report = replace(report, notes=report.notes + notes)
    if not is_first():
        return
    document = report.document(dataset, space=space, classes=classes)
    for part in document.get("classes") or []:
        part["name"] = dataset.class_name(part["class"])
    document["seconds"] = round(time.perf_counter() - started, 3)
    if out:
        _write(out, document)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def _cost(name: str, train: Any, heldout: Any, processes: int, options: dict[str, Any]) -> dict[str, Any]:
    import torch

    from geomem.duplicates import search_bytes
    from geomem.geometry.cost import curves_cost, rates
    from geomem.geometry.curves import levels_of
    from geomem.geometry.options import Options
    from geomem.geometry.sweep import Sweep
    from geomem.points import as_points

    given = {name: options[name] for name in ("posterior_draws", "coverage_draws", "shell_t", "queries", "seed",
                                              "device", "memory")}
    # The search for near-copies is left out: it takes longer than the estimate may.
    sweep = replace(Sweep.of(train, heldout, Options(**given, duplicates="keep"), reuse=True),
                    searched=0 if options["duplicates"] == "keep" else search_bytes(as_points("train", train)))
    cost, here = curves_cost(sweep, len(levels_of(options["sigmas"])), processes), rates(sweep)
    return {"format": "geomem.danger-zone-cost/1", "data": {
                "name": name, "n_train": len(train), "n_heldout": len(heldout), "dim": cost.dim},
            "device": str(sweep.centres.device), "threads": torch.get_num_threads(), "processes": processes,
            **asdict(cost), "work": cost.work()._asdict(), "rates": here._asdict(), "seconds": cost.seconds(here)}


def _write(out: str, document: dict[str, Any]) -> None:
    from geomem.files import draw_figure
    from geomem.geometry.zone_file import write_document
    from geomem.plots import plot_curves

    write_document(out, document)
    draw_figure(os.path.join(out, "curves.png"), lambda: plot_curves([(document["data"]["name"], document)]))
