"""``geomem generate``: samples from a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    MAX_CLASSES,
    batch_option,
    device_option,
    load,
    reading_options,
    require_data,
    sampler_option,
    steps_option,
)
from geomem.cli.output import progress_bar, say
from geomem.cli.values import Seeds
from geomem.errors import InputError, counted
from geomem.files import require_writable

if TYPE_CHECKING:
    from geomem.generation import Samples
    from geomem.training import Pretrained


@click.command()
@click.argument("run", type=click.Path())
@click.option("--seeds", type=Seeds(), default="0-1023", show_default=True,
              help="One sample per seed; sample i depends on seed i alone.")
@click.option("--weights", default=None, metavar="per-level|early-stop|before-copies|last|STEP|cross-fitted",
              help="Which weights: the best ones for each noise level, the one early stop, those of half the steps at "
                   "which copies were seen, the last, or those of a kept step. cross-fitted, of a run with --folds: "
                   "near a training point the network answers that never saw it; the other words say which weights of "
                   "each network.  [default: cross-fitted where the run has folds, per-level where it kept "
                   "them, else before-copies where it saw copies, else last]")
@steps_option
@sampler_option
@batch_option
@click.option("--label", "labels", multiple=True, metavar="CLASS",
              help="For a class-conditional run: the class to make samples of, by its name in the data or its number "
                   "there (a name wins, and where all names are numbers they are meant); several take turns by seed.  "
                   "[default: all]")
@click.option("--routing", metavar="argmax|soft|GAMMA",
              help="Of a run with --folds: who answers at a noisy point. soft: all networks, in proportion to the "
                   "posterior weight of the points that each has not seen; GAMMA: to that power of it; argmax: the one "
                   "with the largest.  [default: argmax]")
@click.option("--data", metavar="DATA", help="The data of a run with --folds that was trained on arrays.")
@reading_options
@device_option
@click.option("--out", required=True, metavar="FILE.npz", type=click.Path(dir_okay=False),
              help="Written with the keys samples, seeds, about (JSON) and, of a class-conditional run, labels.")
@click.option("--pictures", metavar="DIR", type=click.Path(file_okay=False),
              help="Write each sample as a PNG, too, named by its seed: images on [-1, 1], or decoded latents.")
def generate(run: str, seeds: list[int], weights: str | None, steps: int | None, method: str, batch: int,
             labels: tuple[str, ...], routing: str | None, data: str | None, device: str, out: str,
             pictures: str | None) -> None:
    """Generate samples from RUN: a directory of geomem train or geomem export, or a diffusers folder.

    Example: geomem generate runs/digits --seeds 0-1023 --out samples.npz
    """
    require_data(data)
    from geomem.data.autoencoder import recorded_autoencoder
    from geomem.generation.samples import require_pictures
    from geomem.training import load_denoiser

    if not out.endswith(".npz"):
        raise InputError(f"--out {out}: the ending must be .npz")
    require_writable(out)
    model = load_denoiser(run, weights, routing=routing, load=load, data=None if data is None else load(data))
    if data is not None and model.routing is None:
        raise InputError("--data has no effect without a run of geomem train --folds; leave it out")
    decoder = None if pictures is None else recorded_autoencoder(model.data, run)
    if pictures is not None:
        require_pictures(model.shape if decoder is None else decoder.picture_shape(model.shape), pictures)
    samples = generated(model, seeds, steps=steps, sampler=method, batch=batch, labels=labels, device=device)
    samples.save(out)
    if pictures is not None:
        shown = samples if decoder is None else replace(samples, values=decoder.decoded(samples.values))
        shown.save_pictures(pictures)
    if model.class_names and model.labels:
        said = [f"{name} is label {label}" for name, label in zip(model.class_names, model.labels, strict=True)
                if name != str(label) and (not labels or label in map(model.label_of, labels))]
        if said:
            say(f"classes: {', '.join(said[:MAX_CLASSES])}{', ...' if len(said) > MAX_CLASSES else ''}")
    say(f"{counted(len(seeds), 'sample')} with weights {samples.about['weights']} -> {out}")


def generated(model: Pretrained, seeds: list[int], **options: Any) -> Samples:
    """``model.generate`` with a progress bar."""
    with progress_bar(len(seeds), "generating", "sample") as bar:
        return model.generate(seeds, **options, progress=bar.to)
