"""``geomem swap``: which noise levels make a model copy, and whether replacing them at sampling time cures it."""

from __future__ import annotations

import os
import string
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    batch_option,
    device_option,
    directory_option,
    json_option,
    load,
    reading_options,
    require_data,
    sampler_option,
    steps_option,
    tolerance_option,
)
from geomem.cli.output import answer, progress_bar, require_new_directory, say
from geomem.cli.swap_table import text_of
from geomem.cli.values import MAX_SAMPLES
from geomem.errors import InputError

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.quality import SwapTable
    from geomem.training import Pretrained

WORDS = ("gaussian", "empirical", "skip")  # what may be given in place of a run


@click.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("others", nargs=-1, required=True, metavar="RUN_B|gaussian|empirical|skip...")
@click.option("--window", "windows", multiple=True, metavar="NAME|LO:HI|zone|FILE",
              help="Noise levels LO <= sigma < HI in data units to swap; several are swapped one at a time. large, "
                   "medium, small are the steps 0-5, 6-13, 14-17 of 18 of the paper's table, large2, medium2, small2 "
                   "those of another place of it, one step lower; zone is the danger zone of the data, FILE a "
                   "danger-zone.json.  [default: large, medium and small]")
@click.option("--controls", type=click.IntRange(0), default=1, show_default=True, metavar="N",
              help="Also swap windows of as many steps as each window, up to N above and N below it.")
@click.option("--direction", type=click.Choice(["a", "b", "both"]), default="both", show_default=True,
              help="Which model is outside the window: RUN_A, the others, or each in turn.")
@click.option("--weights-a", metavar="per-level|early-stop|before-copies|last|STEP",
              help="Which weights of RUN_A.  [default: as geomem generate]")
@click.option("--weights-b", metavar="per-level|early-stop|before-copies|last|STEP",
              help="Which weights of the other runs.")
@click.option("--data", metavar="DATA", help="The training data to look for; the default is RUN_A's.")
@reading_options
@click.option("--n-samples", type=click.IntRange(2, MAX_SAMPLES), default=1000, show_default=True, metavar="N",
              help="Samples of every row, all from the same seeds 0..N-1.")
@steps_option
@sampler_option
@batch_option
@tolerance_option
@device_option
@json_option
@directory_option("swap.json, swap.png (both shares over the noise levels) and samples.png (the same seeds in every "
                  "row)")
def swap(run_a: str, others: tuple[str, ...], windows: tuple[str, ...], controls: int, direction: str,
         weights_a: str | None, weights_b: str | None, data: str | None, n_samples: int, steps: int | None, method: str,
         batch: int, tolerance: float | None, device: str, as_json: bool, out: str | None) -> None:
    """Sample RUN_A with another denoiser in its place in a window of noise levels, and the other way round.

    The other denoiser is a trained model (whatever geomem generate takes), the Gaussian linear denoiser of the
    training data (gaussian), their empirical optimal denoiser (empirical), or none: the sampler takes one long step
    across the window (skip). All rows share their seeds, so each is compared in pairs with the denoiser outside alone.

    Where RUN_A copies and a row does not, the copies come from the levels in that window; the Frechet distance says
    what the cure costs.

    Examples:

    \b
      geomem swap runs/small runs/large --weights-a last --out swaps
      geomem swap runs/small gaussian skip --weights-a last --direction a --window zone --window 0.1:1.5
    """
    require_data(data)
    from geomem.files import write_json
    from geomem.generation import data_of, sampler_levels
    from geomem.quality import named_window, swap_experiment, swap_rows
    from geomem.training import load_denoiser

    if out:
        require_new_directory(out, "swap.json")
    read = cache(load)  # a cross-fitted denoiser asks for the same data
    model = load_denoiser(run_a, weights_a, load=read, data=None if data is None else read(data))
    dataset = data_of({"data": model.data or None}, data, run_a, load=read)
    if dataset.train.shape[1:] != model.shape:
        raise InputError(f"{run_a} makes points of shape {model.shape}, those of {dataset.name} have "
                         f"{dataset.train.shape[1:]}; choose the data it was trained on with --data")
    runs = {"A": model, **_other_runs(others, weights_b, model, dataset)}
    sigmas = sampler_levels(method, steps, model.schedule)
    swapped = [named_window(word, dataset, device=device)
               for word in dict.fromkeys(windows or ("large", "medium", "small"))]
    rows = list(swap_rows([*list(runs)[1:], *(word for word in others if word in WORDS)], swapped, sigmas,
                          controls=controls, direction=direction))
    started = time.perf_counter()
    with progress_bar(len(rows), "swaps", "row") as bar:
        table = swap_experiment({name: run.denoiser for name, run in runs.items()}, rows, dataset, sigmas, n=n_samples,
                                method=method, batch=batch, classes=len(model.labels or ()), tolerance=tolerance,
                                mirrored=any(run.flip for run in runs.values()),
                                device=device, progress=bar.to)
    document = {
        "format": "geomem.swap/1",
        "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                 "n_test": len(dataset.test)},
        "models": {name: {"run": str(run.path), "weights": run.weights} for name, run in runs.items()},
        "sampler": {"method": method, "sigma": sigmas.tolist()},
        **table.to_dict(),
        "seconds": round(time.perf_counter() - started, 3)}
    if out:
        write_json(os.path.join(out, "swap.json"), document)
        _pictures(out, document, table)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def _other_runs(others: Sequence[str], weights: str | None, model: Pretrained, dataset: DataSet
                ) -> dict[str, Pretrained]:
    """The trained models among the others, as B, C, ..."""
    from geomem.training import load_denoiser

    twice = [word for word in others if others.count(word) > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice; " + (
            "once is enough" if twice[0] in WORDS else
            "to compare two weights of a run, name it as RUN_A and as RUN_B with --weights-a and --weights-b"))
    paths = [word for word in others if word not in WORDS]
    if weights and not paths:
        raise InputError("--weights-b has no effect without another run")
    if len(paths) >= len(string.ascii_uppercase):
        raise InputError(f"{len(paths)} other runs; give at most {len(string.ascii_uppercase) - 1}")
    runs = {}
    for name, path in zip(string.ascii_uppercase[1:], paths, strict=False):
        if not os.path.isdir(path):
            raise InputError(f"{path} is neither a directory of a model nor one of {', '.join(WORDS)}")
        runs[name] = load_denoiser(path, weights, load=load)
        if runs[name].shape != model.shape:
            raise InputError(f"{path} makes points of shape {runs[name].shape}, {model.path} of {model.shape}; "
                             "only models of the same points can be swapped")
        if runs[name].labels != model.labels:
            raise InputError(f"{path} and {model.path} were trained with different labels (or one without); "
                             "only models with the same classes can be swapped")
        _say_what_it_saw(runs[name], dataset)
    return runs


def _say_what_it_saw(run: Pretrained, dataset: DataSet) -> None:
    """A note where another model was trained on points that are to judge it here."""
    from geomem.generation import data_of

    if run.data.get("sha256") in (None, dataset.sha256):
        return
    try:
        train = data_of({"data": run.data}, None, str(run.path), load=load).train
        seen = {train[k].tobytes() for k in range(len(train))}
    except InputError as error:
        say(f"note: what {run.path} was trained on is not known here ({error})")
        return
    shared = sum(row.tobytes() in seen for row in dataset.test)
    if shared:
        say(f"note: {run.path} was trained on {shared:,} of the {len(dataset.test):,} held-out points of "
            f"{dataset.name}; where it is used, the Frechet distance flatters it")


def _pictures(out: str, document: dict[str, Any], table: SwapTable) -> None:
    from geomem.files import draw_figure
    from geomem.plots import plot_swap, plot_swap_samples

    draw_figure(os.path.join(out, "swap.png"),
                lambda: plot_swap(document["rows"], document["sampler"]["sigma"], document["heldout"]))
    draw_figure(os.path.join(out, "samples.png"), lambda: plot_swap_samples([
        (result.row.caption, result.shown, result.memorization.memorized[:len(result.shown)])
        for result in table.results if result.row.control_of is None]))
