"""What ``geomem memorization`` and ``geomem audit`` have in common: samples, their data, and how copies are looked for.
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from geomem.cli.generate import generated
from geomem.cli.options import (
    load,
    load_samples,
    reading_options,
    require_data,
    sampler_option,
    steps_option,
    together,
    tolerance_option,
)
from geomem.cli.output import require_new_directory
from geomem.cli.values import MAX_SAMPLES
from geomem.errors import InputError, are, counted

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.generation import Samples
    from geomem.training import Pretrained

SHOWN_FILES = 5

judged_options = together(
    click.argument("target", type=click.Path(), metavar="RUN|SAMPLES.npz"),
    click.option("--data", metavar="DATA", help="The training data; the default is what the run or the file names."),
    click.option("--heldout", metavar="DATA", help="With --data: held-out points in place of its own."),
    reading_options,
    click.option("--n-samples", type=click.IntRange(1, MAX_SAMPLES), default=1000, show_default=True, metavar="N",
                 help="For a RUN: samples to generate, seeds 0..N-1."),
    click.option("--weights", metavar="per-level|early-stop|before-copies|last|STEP",
                 help="For a RUN: which weights."),
    steps_option,
    sampler_option,
    tolerance_option,
    click.option("--mirrored", is_flag=True,
                 help="Look for mirror images of training pictures, too; always done for a run trained with --flip."),
    click.option("--shifts", type=click.IntRange(0), default=0, show_default=True, metavar="PIXELS",
                 help="Look for training pictures moved by up to so many pixels in each direction, or cropped by as "
                      "many; a border of that width is not compared."),
    click.option("--brightness", is_flag=True,
                 help="Look for training points in another brightness and contrast: compared without their mean and "
                      "scale."),
    click.option("--features", metavar="inception|FOLDER|FILE", help=(
        "Compare by the features of a network in place of pixels: Inception (weights in torch's cache, or a FILE of "
        "them), any network in an .onnx FILE, or a DINOv2 in a FOLDER as transformers saves it (config.json, "
        "model.safetensors).")))


class Judged(NamedTuple):
    """``model``: None for given samples. ``how``: copies are looked for. ``head``: of the answer's document."""

    samples: Samples
    dataset: DataSet
    model: Pretrained | None
    how: dict[str, Any]
    head: dict[str, Any]


def judged(out: str | None, made: str, *, target: str, data: str | None, heldout: str | None, n_samples: int,
           weights: str | None, steps: int | None, method: str, device: str, features: str | None,
           **how: Any) -> Judged:
    """The samples of ``target``: a file, a folder of pictures, or what a model makes of seeds 0..n_samples - 1, kept in
    the directory ``out``, which must not yet hold the file ``made``.
    """
    require_data(data, heldout)
    if heldout is not None and data is None:
        raise InputError(f"--heldout {heldout} needs --data, the training data; give both, or leave it out")
    from geomem.features import load_features
    from geomem.generation import data_of, holds_samples, require_comparable
    from geomem.training import load_denoiser

    if out:
        require_new_directory(out, made)
    how |= {"device": device, "features": load_features(features, device=device) if features else None}
    read = cache(partial(load, heldout=heldout) if heldout else load)  # more than one asks for the same data
    model = (load_denoiser(target, weights, load=read, data=None if data is None else read(data))
             if os.path.isdir(target) and not holds_samples(target) else None)
    if model is None:
        samples = load_samples(target, lambda: None if data is None else read(data))
        if steps is not None or method != "heun":
            raise InputError(f"--sampler and --steps have no effect on the samples in {target}; leave them out or give "
                             "a run")
        dataset = data_of(samples.about, data, target, load=read)
    else:
        dataset = data_of({"data": model.data or None}, data, target, load=read)
        model.classes_of(dataset)  # labels that do not fit are refused before the long work, and nothing is written
        samples = generated(model, list(range(n_samples)), steps=steps, sampler=method, device=device)
        if out:
            samples.save(os.path.join(out, "samples.npz"))
    require_comparable(samples, dataset)
    how["mirrored"] |= samples.flip
    return Judged(samples, dataset, model, how, {
        "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                 "leaked": dataset.n_leaked}, "about": samples.about})


def near_copy_lines(near: dict[str, Any]) -> list[str]:
    """The nearest of the near-copies that were found, each with the file of its training point."""
    pairs = list(zip(near["samples"], near["file"] or [], strict=False))
    return [f"sample {sample} is nearest to {file}" for sample, file in pairs[:SHOWN_FILES]]


def more_heldout(dataset: DataSet) -> str:
    """Where the held-out points of a data set went, and how to give more."""
    told = [f"{dataset.n_validation:,} went to the choice of weights", f"{dataset.n_test:,} {are(dataset.n_test)} left"]
    if dataset.n_leaked:
        told.insert(1, f"{dataset.n_leaked:,} {are(dataset.n_leaked)} equal or nearly equal to training points")
    return (f"Of {counted(len(dataset.heldout), 'held-out point')} in {dataset.name} {', '.join(told)} to test with; "
            "give more that the model never saw with --data and --heldout.")
