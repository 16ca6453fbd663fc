"""``geomem danger-zone``: the two curves of a data set, and the noise levels where both are high."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.geometry import Curves, DangerZone


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

    started = time.perf_counter()
    points, space = (dataset.train, dataset.heldout), {"name": "data", "dim": dataset.dim}
    if components is not None:
        projection = principal_components(dataset.train, components)
        points = projection(dataset.train), projection(dataset.heldout)
        space = {"name": f"pca:{components}", "dim": components, "data_dim": dataset.dim,
                 "variance_kept": projection.variance_kept}
    classes = None
    with process_group() as group:
        curves, refined, notes = _measure(*points, "curves", seed=seed, group=group, **options)
        if per_class:
            classes, class_notes = _per_class(dataset, points, seed=seed, group=group, **options)
            notes += class_notes
    if not is_first():
        return
    settings = {name: options[name] for name in ("threshold", "resolution", "tolerance")}
    document = document_of(dataset, curves, refined, space=space, notes=notes, classes=classes,
                           seconds=time.perf_counter() - started, **settings)
    if out:
        write_documents(out, document)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def _measure(train: Any, heldout: Any, title: str, *, threshold: float, resolution: float, tolerance: float | None,
             max_draws: int, **options: Any) -> tuple[Curves, Curves, list[str]]:
    """The curves at the levels asked for, the same with the levels added for the zone, and what limits them."""
    from geomem.geometry import curves_to_tolerance, geometry_curves, refined_curves

    with progress_bar(0, title, "point") as bar:
        options["progress"] = functools.partial(_advance, bar)
        if tolerance is None:
            curves, notes = geometry_curves(train, heldout, **options), []
        else:
            precise = curves_to_tolerance(train, heldout, tolerance, max_draws=max_draws, **options)
            curves, notes = precise.curves, list(precise.notes)
        how = {name: options[name] for name in ("device", "memory", "group", "progress")}
        refined = refined_curves(train, heldout, curves, threshold=threshold, tolerance=resolution, **how)
    looked = curves.max_posterior_weight.n_points, curves.coverage.n_points
    if looked != (curves.n_train, curves.n_heldout):
        notes.append(f"looked from {looked[0]:,} training and {looked[1]:,} held-out points, random ones (--queries)")
    return curves, refined, notes


def _advance(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _per_class(dataset: DataSet, points: tuple[Any, Any], *, threshold: float,
               **options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The part "classes" of the document, and notes."""
    import numpy as np

    assert dataset.train_labels is not None
    assert dataset.heldout_labels is not None
    labels = dataset.train_labels, dataset.heldout_labels
    parts, notes = [], []
    for label in np.unique(np.concatenate(labels)).tolist():
        train, heldout = (part[known == label] for part, known in zip(points, labels, strict=True))
        if len(train) < 2 or len(heldout) < 1:
            notes.append(f"class {label} is left out: {len(train)} training and {len(heldout)} held-out points; it "
                         "needs 2 and 1")
            continue
        curves, refined, limits = _measure(train, heldout, f"class {label}", threshold=threshold, **options)
        parts.append({"class": label, **_part(curves, refined, threshold), "notes": limits})
    return parts, notes


def document_of(dataset: DataSet, curves: Curves, refined: Curves, *, threshold: float = 0.8,
                resolution: float = 1e-3, tolerance: float | None = None, space: dict[str, Any] | None = None,
                notes: Sequence[str] = (), classes: list[dict[str, Any]] | None = None,
                seconds: float | None = None) -> dict[str, Any]:
    """The JSON object of the command (format geomem.danger-zone/1): ``curves`` are shown, ``refined`` give the zone."""
    part = _part(curves, refined, threshold)
    document = {
        "format": "geomem.danger-zone/1",
        **part,
        "data": {"name": dataset.name, **part["data"], "sha256": dataset.sha256, "duplicates": dataset.duplicates},
        "space": space or {"name": "data", "dim": dataset.dim},
        "settings": {**part["settings"], "threshold": threshold, "resolution": resolution, "tolerance": tolerance},
        "notes": list(notes),
    }
    if classes is not None:
        document["classes"] = classes
    return {**document, "seconds": None if seconds is None else round(seconds, 3)}


def _part(curves: Curves, refined: Curves, threshold: float) -> dict[str, Any]:
    """What a document says of the whole set and of each class."""
    from geomem.geometry import find_danger_zone, zone_reason

    zone = find_danger_zone(refined, threshold)
    part = {**curves.to_dict(), "zone": zone and _zone_to_dict(zone),
            "levels_added": len(refined.sigma) - len(curves.sigma)}
    return part if zone else {**part, "zone_reason": zone_reason(refined, threshold)}


def _zone_to_dict(zone: DangerZone) -> dict[str, Any]:
    from dataclasses import asdict

    from geomem.noise import DDPMSchedule, LogNormalSampler

    edm = LogNormalSampler()
    return {**asdict(zone), "edm_mass": float(edm.cdf(zone.sigma_high) - edm.cdf(zone.sigma_low)),
            "ddpm_timesteps": DDPMSchedule().timesteps_within(zone.sigma_low, zone.sigma_high)}


def write_documents(out: str, document: dict[str, Any]) -> None:
    """danger-zone.json (everything), curves.json (without the zone), curves.csv and curves.png in ``out``."""
    from geomem.files import atomic_path, write_csv, write_json
    from geomem.plots import plot_curves

    write_json(os.path.join(out, "curves.json"), {name: part for name, part in document.items()
                                                  if name not in ("zone", "zone_reason", "classes", "seconds")})
    write_csv(os.path.join(out, "curves.csv"), _columns(document["curves"]))
    with atomic_path(os.path.join(out, "curves.png")) as temporary:
        plot_curves([(document["data"]["name"], document)]).savefig(temporary, dpi=150)
    write_json(os.path.join(out, "danger-zone.json"), document)


def _columns(curves: dict[str, Any]) -> dict[str, list[float]]:
    """Of curves.csv, a row per noise level."""
    columns: dict[str, list[float]] = {"sigma": curves["sigma"]}
    for name, part in curves.items():
        if isinstance(part, dict):
            columns |= {name if key == "estimate" else f"{name}_{key}": values for key, values in part.items()}
        elif isinstance(part, list):
            columns[name] = part
    return columns


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
