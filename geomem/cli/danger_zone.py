"""``geomem danger-zone``: the two curves of a data set, and the noise levels where both are high."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from typing import Any

import click

from geomem.cli.danger_zone_table import text_of
from geomem.cli.options import (
    Number,
    Sigmas,
    answer,
    data_options,
    device_option,
    json_option,
    load,
    memory_option,
    progress_bar,
    queries_option,
    require_new_directory,
    say,
)
from geomem.errors import InputError
from geomem.processes import is_first, process_group

MAX_DRAWS = 1_000_000


class Space(click.ParamType):
    """``data``, or ``pca:K`` as the number K of principal components; None stands for ``data``."""

    name = "data|pca:K"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or isinstance(value, int):
            return value
        match = re.fullmatch(r"data|pca:([0-9]{1,9})", value)
        if match is None:
            self.fail(f"{value!r} is no space; give data or pca:K, K the number of principal components", param, ctx)
        return int(match[1]) if match[1] else None


@click.command("danger-zone")
@data_options
@click.option("--vae", metavar="FOLDER", type=click.Path(), help=(
    "Encode the pictures of DATA by a diffusers AutoencoderKL; W and C are those of its latents, scaled as training "
    "scripts scale them."))
@click.option("--vae-sample", is_flag=True,
              help="With --vae: a draw from each posterior, as training scripts take, in place of its mean.")
@click.option("--sigmas", type=Sigmas(), default=40, show_default=True,
              help="Noise levels in data units: how many (log-spaced from 0.02 to 80), or the levels with commas.")
@click.option("--posterior-draws", type=click.IntRange(1, MAX_DRAWS), default=4, show_default=True,
              help="Per training point.")
@click.option("--coverage-draws", type=click.IntRange(1, MAX_DRAWS), default=8, show_default=True,
              help="Per held-out point.")
@click.option("--tolerance", type=Number(0, 0.5, min_open=True, max_open=True), metavar="HALF",
              help="Raise the draws until every 95% interval of both curves is at most -+HALF, if draws can do that.")
@click.option("--max-draws", type=click.IntRange(2, MAX_DRAWS), default=128, show_default=True,
              help="The most draws per point that --tolerance may take.")
@click.option("--threshold", type=Number(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
              help="The zone is where both curves are at least this high.")
@click.option("--resolution", type=Number(1e-6), default=1e-3, show_default=True,
              help="Add levels until the zone and the crossing are read between two no farther apart in log sigma.")
@click.option("--shell-t", type=Number(0, min_open=True), default=5.0, show_default=True,
              help="Width t of the Gaussian shells: a shell holds 1 - 2 exp(-t) of its noise or more.")
@click.option("--space", "components", type=Space(), metavar="data|pca:K", show_default="data",
              help="pca:K projects on the first K principal components of the training points; W and C are then those "
                   "of the projected points, another question than in pixels.")
@click.option("--duplicates", type=click.Choice(["merge", "keep"]), default="merge", show_default=True,
              help="Equal and near-equal points count as one with their summed weight, or each is a point of its own, "
                   "as published.")
@click.option("--per-class", is_flag=True, help="The zone of each class too, its points against their own class.")
@queries_option
@memory_option
@device_option
@json_option
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write danger-zone.json, curves.json, curves.csv and curves.png.")
def danger_zone(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int,
                vae: str | None, vae_sample: bool, components: int | None, per_class: bool, as_json: bool,
                out: str | None, **options: Any) -> None:
    """Find the noise levels where a model trained on DATA is in danger of memorizing it.

    DATA is a recipe (see geomem data list), an .npz with train and heldout, an .npy or a folder of them, a folder
    or zip of images, official files (CIFAR-10, IDX, UCR, ...), a .parquet, or hf:NAME on the Hugging Face hub.
    Features or latents are points like others. No training is needed.

    Examples:

    \b
      geomem danger-zone digits
      geomem danger-zone digits --per-class --tolerance 0.02
      geomem danger-zone photos/ --n-train 1000 --out photos-zone
      torchrun --nproc-per-node 4 -m geomem danger-zone huge.npy
    """
    if out and is_first():
        require_new_directory(out, "danger-zone.json")
    if vae_sample and vae is None:
        raise InputError("--vae-sample needs --vae FOLDER; leave it out, or give the autoencoder")
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed, vae=vae,
                   vae_sample=vae_sample)
    if per_class and (dataset.train_labels is None or dataset.heldout_labels is None):
        raise InputError(f"{data}: --per-class needs labels of the training and the held-out points; leave it out or "
                         "give an .npz with train_labels and heldout_labels, a folder per class, or a UCR file")
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
        options |= {"seed": seed, "group": group}
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


def _write(out: str, document: dict[str, Any]) -> None:
    from geomem.files import draw_figure
    from geomem.geometry.zone_file import write_document
    from geomem.plots import plot_curves

    write_document(out, document)
    draw_figure(os.path.join(out, "curves.png"), lambda: plot_curves([(document["data"]["name"], document)]))
