"""``geomem bounds``: what the theorems say about a data set, each beside the measured truth."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from geomem.cli.bounds_table import text_of
from geomem.cli.options import (
    curves_options,
    data_options,
    device_option,
    directory_option,
    json_option,
    load,
    load_chosen,
)
from geomem.cli.output import answer, progress_bar, require_new_directory, say
from geomem.cli.values import Number, Parsed
from geomem.errors import InputError


class Sizes(Parsed):
    """Training set sizes with commas between."""

    name = "N1,N2,..."

    def parse(self, text: str) -> list[int]:
        try:
            return [int(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"{text!r} is not a list of training set sizes such as 100,200,400") from None


@click.command()
@data_options
@curves_options
@click.option("--q", type=Number(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True,
              help="Posterior weight of Theorem 4.2: where is it surely at least q, where at most 1 - q.")
@click.option("--delta", type=Number(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
              help="Probability with which Theorem 4.2, Lemma A.1 and Corollary A.2 may fail for a point.")
@click.option("--sizes", type=Sizes(),
              help="Training set sizes for coverage and zone; all points are always among them.  "
                   "[default: all, half, ..., 1/32 of them]")
@click.option("--points", type=click.IntRange(1), default=256, show_default=True,
              help="Training points, random ones, for Lemma A.1, Corollary A.2 and the Gaussian law.")
@click.option("--model", metavar="RUN", help="Measure with this model how far a pixel is felt: a directory of geomem "
              "train or export, or a diffusers folder.  [default: the Gaussian denoiser of the data]")
@device_option
@json_option
@directory_option("bounds.json, bounds.csv and bounds.png")
def bounds(model: str | None, as_json: bool, out: str | None, **options: Any) -> None:
    """Show what the theorems guarantee for DATA at each noise level, beside what is measured.

    Coverage with its bounds (Theorem 4.8), the posterior weight with Theorem 4.2, denoiser and flow field near a
    training point (Lemma A.1, Corollary A.2), the Gaussian law of large noise (Theorem 4.11), how far a pixel is felt
    there (Theorem 4.10), and how coverage and the danger zone move with the number of training points. No training is
    needed; --model puts a trained one beside Theorem 4.10.

    Examples:

    \b
      geomem bounds digits
      geomem bounds photos/ --n-train 1000 --sizes 125,250,500 --out photos-bounds
    """
    if out:
        require_new_directory(out, "bounds.json")
    dataset = load_chosen(options)
    from geomem.theory import summary as theory

    denoiser = None if model is None else _denoiser(model, dataset.train.shape[1:])
    started = time.perf_counter()
    with progress_bar(theory.PARTS, "bounds", "part") as bar:
        report = theory.bounds(dataset.train, dataset.heldout, denoiser=denoiser, progress=bar.to,
                               **options)
    document = {**report.document(dataset, model=model), "seconds": round(time.perf_counter() - started, 3)}
    if out:
        _write(out, document)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def _denoiser(model: str, shape: tuple[int, ...]) -> Any:
    from geomem.training import load_denoiser

    loaded = load_denoiser(model, None, load=load)
    if tuple(loaded.shape) != tuple(shape):
        raise InputError(f"--model {model} makes points of shape {tuple(loaded.shape)}; the data have {tuple(shape)}")
    return loaded.denoiser


def _write(out: str, document: dict[str, Any]) -> None:
    """bounds.csv (a row per noise level), bounds.json (everything) and bounds.png in ``out``."""
    from geomem.files import draw_figure, write_csv, write_json
    from geomem.plots import plot_bounds

    write_csv(os.path.join(out, "bounds.csv"), _columns(document))
    write_json(os.path.join(out, "bounds.json"), document)
    draw_figure(os.path.join(out, "bounds.png"), lambda: plot_bounds(document))


def _columns(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Of bounds.csv, a row per noise level."""
    columns: dict[str, list[Any]] = {"sigma": document["sigma"]}
    for part in ("coverage", "max_posterior_weight", "near_point", "flow", "gaussian"):
        for name, values in document[part].items():
            if isinstance(values, list) and not name.startswith("fit_"):
                columns[part if name == "estimate" else f"{part}_{name}"] = values
    by_size = document["by_size"]
    for n, coverage, weight in zip(by_size["sizes"], by_size["coverage"], by_size["weight"], strict=True):
        columns |= {f"coverage_n{n}": coverage, f"max_posterior_weight_n{n}": weight}
    return columns
