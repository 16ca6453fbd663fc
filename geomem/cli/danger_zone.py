"""``geomem danger-zone``: the two curves of a data set, and the noise levels where both are high."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click

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
@click.option("--per-class", is_flag=True, help="The zone of each class too, its points against their own class.")
@queries_option
@memory_option
@device_option
@json_option
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write danger-zone.json, curves.json, curves.csv and curves.png.")
def danger_zone(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int,
                components: int | None, per_class: bool, as_json: bool, out: str | None, **options: Any) -> None:
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
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed)
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
            report = measure(*points, progress=partial(_advance, bar), **options)
        if per_class:
            labels = dataset.train_labels, dataset.heldout_labels
            with progress_bar(0, "classes", "point") as bar:
                classes, notes = zones_by_class(*points, *labels, progress=partial(_advance, bar), **options)
            report = replace(report, notes=report.notes + notes)
    if not is_first():
        return
    document = report.document(dataset, space=space, classes=classes)
    document["seconds"] = round(time.perf_counter() - started, 3)
    if out:
        _write(out, document)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def _advance(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _write(out: str, document: dict[str, Any]) -> None:
    from geomem.files import write_figure
    from geomem.geometry.zone_file import write_document
    from geomem.plots import plot_curves

    write_figure(os.path.join(out, "curves.png"), plot_curves([(document["data"]["name"], document)]))
    write_document(out, document)


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    data, curves, zone = document["data"], document["curves"], document["zone"]
    weight, coverage = curves["max_posterior_weight"], curves["coverage"]
    lines = [f"{data['name']}: {data['n_train']:,} training and {data['n_heldout']:,} held-out points of "
             f"{data['dim']:,} values" + (f"; {data['duplicates']:,} duplicates" if data["duplicates"] else ""),
             "", f"{'sigma':>8}  {'posterior weight W':^24}  {'coverage C':^24}  {'bounds on C (Thm 4.8)':>21}"]
    for k, sigma in enumerate(curves["sigma"]):
        inside = zone is not None and zone["sigma_low"] <= sigma <= zone["sigma_high"]
        lines.append(
            f"{sigma:8.3g}  {weight['estimate'][k]:8.4f} [{weight['low'][k]:.4f}, {weight['high'][k]:.4f}]"
            f"  {coverage['estimate'][k]:6.4f} [{coverage['low'][k]:.4f}, {coverage['high'][k]:.4f}]"
            f"  {curves['coverage_lower_bound'][k]:8.4f} - {curves['coverage_upper_bound'][k]:.4f}"
            + ("  danger" if inside else ""))
    lines.append("")
    if zone is None:
        lines.append(f"no danger zone: {document['zone_reason']}")
    else:
        lines.append(f"danger zone  sigma {_with_interval(zone['sigma_low'], zone['sigma_low_interval'])} to "
                     f"{_with_interval(zone['sigma_high'], zone['sigma_high_interval'])}"
                     f"  (W and C both >= {zone['threshold']:g})")
        if zone["crossing"] is not None:
            lines.append(f"crossing     sigma {_crossing(zone)}")
        timesteps = zone["ddpm_timesteps"]
        lines.append(f"holds        {zone['edm_mass']:.1%} of the noise levels of EDM's published law; DDPM timesteps "
                     + (f"{timesteps[0]} to {timesteps[1]}" if timesteps else "none"))
        if zone["resolution"] is not None:
            lines.append(f"read         between levels {zone['resolution']:.2g} apart in log sigma "
                         f"({document['levels_added']} levels added); intervals: points resampled, 95%")
        if zone["note"]:
            lines.append(f"note         {zone['note']}")
    settings, space = document["settings"], document["space"]
    lines.append(f"draws        {settings['posterior_draws']} per training and {settings['coverage_draws']} per "
                 "held-out point")
    if "variance_kept" in space:
        lines.append(f"space        {space['dim']:,} principal components of {space['data_dim']:,} values, "
                     f"{space['variance_kept']:.1%} of the variance of the training points; W and C are those of the "
                     "projected points")
    lines += [f"note         {note}" for note in document["notes"]]
    below, above, disjoint = (document["thresholds"][name]
                              for name in ("concentrated_below", "spread_above", "disjoint_below"))
    lines.append(f"Theorem 4.2  on average one training point holds the weight below sigma {below['mean']:.3g}"
                 + (f", no longer above {above['mean']:.3g}" if above else "")
                 + (f"; shells disjoint below {disjoint:.3g}" if disjoint is not None else ""))
    return "\n".join(lines + _class_table(document.get("classes", [])))


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:#.4g}" + ("" if interval is None else f" [{interval[0]:#.4g}, {interval[1]:#.4g}]")


def _crossing(zone: dict[str, Any]) -> str:
    interval = None if zone["crossing_low"] is None else (zone["crossing_low"], zone["crossing_high"])
    return _with_interval(zone["crossing"], interval)


def _class_table(classes: list[dict[str, Any]]) -> list[str]:
    if not classes:
        return []
    lines = ["", f"{'class':>5}  {'training':>8}  {'held-out':>8}  {'danger zone, sigma':^49}  crossing, sigma"]
    for part in classes:
        zone, data = part["zone"], part["data"]
        start = f"{part['class']:>5}  {data['n_train']:>8,}  {data['n_heldout']:>8,}  "
        if zone is None:
            lines.append(f"{start}none: {part['zone_reason']}")
            continue
        span = (f"{_with_interval(zone['sigma_low'], zone['sigma_low_interval'])} to "
                f"{_with_interval(zone['sigma_high'], zone['sigma_high_interval'])}")
        lines.append(f"{start}{span:<49}  {_crossing(zone) if zone['crossing'] is not None else 'none'}")
    if limited := [str(part["class"]) for part in classes if part["notes"]]:
        lines.append("note         wider than the tolerance somewhere, for want of points or draws: class "
                     + ", ".join(limited))
    return lines
