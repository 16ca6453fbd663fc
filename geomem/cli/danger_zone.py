"""``geomem danger-zone``: the two curves of a data set, and the noise levels where both are high."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    Sigmas,
    data_options,
    device_option,
    json_option,
    load,
    progress_bar,
    require_new_directory,
    say,
)

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.geometry import Curves, DangerZone

CURVES = ("max_posterior_weight", "self_posterior_weight", "coverage")


@click.command("danger-zone")
@data_options
@click.option("--sigmas", type=Sigmas(), default=40, show_default=True,
              help="Noise levels in data units: how many (log-spaced from 0.02 to 80), or the levels with commas.")
@click.option("--posterior-draws", type=click.IntRange(1), default=4, show_default=True, help="Per training point.")
@click.option("--coverage-draws", type=click.IntRange(1), default=8, show_default=True, help="Per held-out point.")
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
              help="The zone is where both curves are at least this high.")
@click.option("--shell-t", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
              help="Width t of the Gaussian shells: a shell holds 1 - 2 exp(-t) of its noise or more.")
@device_option
@json_option
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write danger-zone.json, curves.json, curves.csv and curves.png.")
def danger_zone(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int,
                sigmas: int | list[float], posterior_draws: int, coverage_draws: int, threshold: float, shell_t: float,
                device: str, as_json: bool, out: str | None) -> None:
    """Find the noise levels where a model trained on DATA is in danger of memorizing it.

    DATA is a recipe (digits), an .npz with train and heldout, an .npy or a folder of them, a folder or zip of
    images, or a UCR text file. No training is needed.

    Examples:

    \b
      geomem danger-zone digits
      geomem danger-zone photos/ --n-train 1000 --out photos-zone
    """
    from geomem.geometry import find_danger_zone, geometry_curves

    if out:
        require_new_directory(out, "danger-zone.json")
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed)
    started = time.perf_counter()
    with progress_bar(len(dataset.train) + len(dataset.heldout), "curves", "point") as bar:
        curves = geometry_curves(dataset.train, dataset.heldout, sigmas=sigmas, posterior_draws=posterior_draws,
                                 coverage_draws=coverage_draws, shell_t=shell_t, seed=seed, device=device,
                                 progress=lambda done, total: bar.update(done - bar.n))
    zone = find_danger_zone(curves, threshold)
    document = document_of(dataset, curves, zone, threshold=threshold, seconds=time.perf_counter() - started)
    if out:
        write_documents(out, document)
        say(f"wrote {out}")
    click.echo(json.dumps(document, allow_nan=False) if as_json else text_of(document))


def document_of(dataset: DataSet, curves: Curves, zone: DangerZone | None, *, threshold: float = 0.8,
                seconds: float | None = None) -> dict[str, Any]:
    """The JSON object of the command (format geomem.danger-zone/1)."""
    from dataclasses import asdict

    from geomem.geometry import zone_reason
    from geomem.noise import DDPMSchedule, LogNormalSampler

    content = curves.to_dict()
    document: dict[str, Any] = {
        "format": "geomem.danger-zone/1",
        "data": {"name": dataset.name, **content["data"], "sha256": dataset.sha256, "duplicates": dataset.duplicates},
        "curves": content["curves"],
        "zone": None,
        "thresholds": content["thresholds"],
        "settings": {**content["settings"], "threshold": threshold},
        "seconds": None if seconds is None else round(seconds, 3),
    }
    if zone is None:
        document["zone_reason"] = zone_reason(curves, threshold)
    else:
        edm = LogNormalSampler()
        document["zone"] = {**asdict(zone), "edm_mass": float(edm.cdf(zone.sigma_high) - edm.cdf(zone.sigma_low)),
                            "ddpm_timesteps": DDPMSchedule().timesteps_within(zone.sigma_low, zone.sigma_high)}
    return document


def write_documents(out: str, document: dict[str, Any]) -> None:
    """danger-zone.json (everything), curves.json (without the zone), curves.csv and curves.png in ``out``."""
    from geomem.files import atomic_path, write_json, write_text
    from geomem.plots import plot_curves

    write_json(os.path.join(out, "curves.json"), {name: part for name, part in document.items()
                                                  if name not in ("zone", "zone_reason", "seconds")})
    write_text(os.path.join(out, "curves.csv"), _csv(document["curves"]))
    with atomic_path(os.path.join(out, "curves.png")) as temporary:
        plot_curves([(document["data"]["name"], document)]).savefig(temporary, dpi=150)
    write_json(os.path.join(out, "danger-zone.json"), document)


def _csv(curves: dict[str, Any]) -> str:
    columns: dict[str, list[float]] = {"sigma": curves["sigma"]}
    for name, part in curves.items():
        if isinstance(part, dict):
            columns |= {name if key == "estimate" else f"{name}_{key}": values for key, values in part.items()}
        elif isinstance(part, list):
            columns[name] = part
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return stream.getvalue()


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
        lines.append(f"danger zone  sigma {zone['sigma_low']:.3g} to {zone['sigma_high']:.3g}"
                     f"  (W and C both >= {zone['threshold']:g})")
        if zone["crossing"] is not None:
            interval = ("" if zone["crossing_low"] is None
                        else f"  [{zone['crossing_low']:.3g}, {zone['crossing_high']:.3g}]")
            lines.append(f"crossing     sigma {zone['crossing']:.3g}{interval}")
        timesteps = zone["ddpm_timesteps"]
        lines.append(f"holds        {zone['edm_mass']:.1%} of the noise levels of EDM's published law; DDPM timesteps "
                     + (f"{timesteps[0]} to {timesteps[1]}" if timesteps else "none"))
        if zone["note"]:
            lines.append(f"note         {zone['note']}")
    below, above, disjoint = (document["thresholds"][name]
                              for name in ("concentrated_below", "spread_above", "disjoint_below"))
    lines.append(f"Theorem 4.2  on average one training point holds the weight below sigma {below['mean']:.3g}"
                 + (f", no longer above {above['mean']:.3g}" if above else "")
                 + (f"; shells disjoint below {disjoint:.3g}" if disjoint is not None else ""))
    return "\n".join(lines)
