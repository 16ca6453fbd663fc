"""``geomem swap``: which noise levels make a model copy, and whether replacing them at sampling time cures it."""

from __future__ import annotations

import math
import os
import string
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    MAX_SAMPLES,
    Interval,
    answer,
    data_root_option,
    device_option,
    json_option,
    load,
    progress_bar,
    require_data,
    require_new_directory,
    say,
    tolerance_option,
)
from geomem.cli.swap_table import text_of
from geomem.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from geomem.data import DataSet
    from geomem.models import Window
    from geomem.training import Pretrained

SKIP = "skip"
WORDS = ("gaussian", "empirical", SKIP)  # what may be given in place of a run
DRAWN = 12  # samples of each row in the picture


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
@data_root_option
@click.option("--n-samples", type=click.IntRange(2, MAX_SAMPLES), default=1000, show_default=True, metavar="N",
              help="Samples of every row, all from the same seeds 0..N-1.")
@click.option("--steps", type=click.IntRange(2), help="Noise levels of the sampler.  [default: 18; 100 for ddim, 1000 "
              "for ddpm]")
@click.option("--sampler", "method", type=click.Choice(["heun", "euler", "ddim", "ddpm"]), default="heun",
              show_default=True, help="As in geomem generate.")
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="Samples made at a time.")
@tolerance_option
@device_option
@json_option
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write swap.json, swap.png (both shares over the noise levels) and samples.png (the same seeds in "
                   "every row).")
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
    from geomem.devices import resolve_device
    from geomem.files import write_json
    from geomem.generation import data_of, sampler_levels
    from geomem.geometry.neighbours import as_rows
    from geomem.memorization.ratio import RATIO, apply_ratio_rule, distinct_training
    from geomem.quality import quality_report
    from geomem.statistics import paired_share_difference
    from geomem.training import load_denoiser

    if out:
        require_new_directory(out, "swap.json")
    model = load_denoiser(run_a, weights_a)
    dataset = data_of({"data": model.data or None}, data, run_a, load=load)
    if dataset.train.shape[1:] != model.shape:
        raise InputError(f"{run_a} makes points of shape {model.shape}, those of {dataset.name} have "
                         f"{dataset.train.shape[1:]}; choose the data it was trained on with --data")
    runs = {"A": model, **_other_runs(others, weights_b, model, dataset)}
    sigmas = sampler_levels(method, steps, model.schedule)
    ranges = [_window(word, dataset, device)
              for word in dict.fromkeys(windows or ("large", "medium", "small"))]
    rows = list(_rows([*list(runs)[1:], *(word for word in others if word in WORDS)], ranges, sigmas, controls,
                      direction))
    started = time.perf_counter()
    on = resolve_device(device)
    sampling = _Sampling({name: one.to(on) for name, one in _denoisers(runs, others, dataset).items()}, sigmas,
                         model.shape, range(n_samples), method, batch, 0 if model.labels is None else len(model.labels))
    training = distinct_training(dataset.train, tolerance, device=device)
    heldout = apply_ratio_rule(as_rows(dataset.test), training, RATIO, device=device)
    unswapped = sampling.of(rows[0])
    report = quality_report(unswapped, dataset.train, dataset.test, device=device)
    results: dict[tuple[Any, ...], dict[str, Any]] = {}  # windows that hold the same steps share theirs
    with progress_bar(len(rows), "swaps", "row") as bar:
        for row in rows:
            if row.key not in results:
                samples = unswapped if row is rows[0] else sampling.of(row)
                rate = apply_ratio_rule(as_rows(samples, "samples"), training, RATIO, device=device)
                results[row.key] = {"rate": rate, "drawn": samples[:DRAWN], "quality": _frechet(samples, dataset.test)}
            bar.update()

    def change(row: Row) -> dict[str, Any] | None:
        """From the denoiser outside alone, of one alone from A."""
        if row is rows[0]:
            return None
        before = rows[0] if row.window is None else Row(row.outside)
        return paired_share_difference(results[before.key]["rate"].memorized,
                                       results[row.key]["rate"].memorized).to_dict()

    document = {
        "format": "geomem.swap/1",
        "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                 "n_test": len(dataset.test)},
        "models": {name: {"run": str(one.path), "weights": one.weights} for name, one in runs.items()},
        "sampler": {"method": method, "sigma": sigmas.tolist()},
        "rows": [{**row.to_dict(sigmas), "memorization": found["rate"].to_dict(), "difference": change(row),
                  "quality": found["quality"]}
                 for row in rows for found in (results[row.key],)],
        "heldout": {"memorization": heldout.to_dict(), "frechet": report.frechet_floor,
                    "floor_n": list(report.floor_n)},
        "seconds": round(time.perf_counter() - started, 3)}
    if out:
        _pictures(out, document, [(row, results[row.key]) for row in rows], dataset)
        write_json(os.path.join(out, "swap.json"), document)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


@dataclass(frozen=True)
class Row:
    """A row of the table: the denoiser ``inside`` in the window and ``outside`` elsewhere, or, without, one alone.

    steps: the first and the last step of the sampler in the window, counted from 0. control_of: the window that this
    one is compared with.
    """

    outside: str
    inside: str | None = None
    window: Window | None = None
    steps: tuple[int, int] | None = None
    control_of: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for rows with the same samples."""
        return self.outside, self.inside, self.steps

    def to_dict(self, sigmas: np.ndarray) -> dict[str, Any]:
        """For JSON; an end at infinity is None, and ``sigma`` are the largest and smallest level swapped."""
        window = None
        if self.window is not None and self.steps is not None:
            high = self.window.high
            window = {"name": self.window.name, "low": self.window.low, "high": high if math.isfinite(high) else None,
                      "steps": list(self.steps), "sigma": sigmas[list(self.steps)].tolist(),
                      "control_of": self.control_of}
        return {"outside": self.outside, "inside": self.inside, "window": window}


@dataclass(frozen=True)
class _Sampling:
    """How every row is sampled; ``classes`` take turns by seed, 0 for a model without any."""

    denoisers: dict[str, nn.Module]
    sigmas: np.ndarray
    shape: tuple[int, ...]
    seeds: range
    method: str
    batch: int
    classes: int

    def of(self, row: Row) -> np.ndarray:
        import numpy as np

        from geomem.generation import generate
        from geomem.memorization.swap import swapped_samples

        options: dict[str, Any] = {"sigmas": self.sigmas, "method": self.method, "batch": self.batch,
                                   "labels": np.asarray(self.seeds) % self.classes if self.classes else None}
        outside = self.denoisers[row.outside]
        if row.window is None:
            return generate(outside, self.seeds, self.shape, **options)
        inside = None if row.inside == SKIP else self.denoisers[str(row.inside)]
        return swapped_samples(outside, inside, row.window, self.seeds, self.shape, **options)


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
        runs[name] = load_denoiser(path, weights)
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


def _denoisers(runs: dict[str, Pretrained], others: Sequence[str], dataset: DataSet) -> dict[str, nn.Module]:
    """By their names in the rows."""
    import numpy as np
    import torch

    from geomem.models import EmpiricalDenoiser, GaussianDenoiser

    denoisers = {name: one.denoiser for name, one in runs.items()}
    for word, closed_form in (("gaussian", GaussianDenoiser), ("empirical", EmpiricalDenoiser)):
        if word in others:
            denoisers[word] = closed_form(torch.from_numpy(np.array(dataset.train)))
    return denoisers


def _window(word: str, dataset: DataSet, device: str) -> Window:
    """The noise levels that a value of --window names."""
    from geomem.models import PUBLISHED_WINDOWS, Window
    from geomem.noise import read_zone
    from geomem.noise.danger_zone import danger_zone

    if word in PUBLISHED_WINDOWS:
        return PUBLISHED_WINDOWS[word]
    if word == "zone":
        zone = danger_zone(dataset.train, dataset.heldout, device=device).zone
        if zone is None:
            raise InputError(f"--window zone: {dataset.name} has no danger zone; give LO:HI")
        return Window(zone.sigma_low, zone.sigma_high, word)
    if os.path.exists(word):
        return Window(*read_zone(word), word)
    try:
        low, high = Interval().convert(word, None, None)
        return Window(low, high, word)
    except click.BadParameter as error:
        raise InputError(f"--window {error.message}; give {', '.join(PUBLISHED_WINDOWS)}, zone, LO:HI in sigma or an "
                         "existing danger-zone.json") from None


def _rows(others: Sequence[str], windows: Sequence[Window], sigmas: np.ndarray, controls: int, direction: str
          ) -> Iterator[Row]:
    """The rows in order: each denoiser alone, then each pair of them with every window and its controls."""
    import numpy as np

    from geomem.memorization.swap import control_windows

    if direction == "b" and SKIP in others:
        raise InputError("skip puts no model inside, so nothing can be outside but RUN_A; use --direction a or both")
    ranges: list[tuple[Window, str | None]] = []
    for window in windows:
        beside = control_windows(window, sigmas, controls)
        if controls and not beside:
            say(f"note: {window.name} leaves no room for a control window of as many steps")
        ranges += [(window, None), *((control, window.name) for control in beside)]
    yield Row("A")
    yield from (Row(other) for other in others if other != SKIP)
    for other in others:
        for outside, inside in (("A", other), (other, "A")):
            if (direction == "a" and outside != "A") or (direction == "b" and inside != "A") or outside == SKIP:
                continue
            for window, control_of in ranges:
                steps = np.flatnonzero(window.holds(sigmas))
                if not len(steps):
                    raise InputError(f"--window {window.name} ({window.low:.4g}:{window.high:.4g}) holds none of the "
                                     f"sampler's {len(sigmas)} noise levels; give a wider window or more --steps")
                if inside == SKIP and len(steps) == len(sigmas):
                    raise InputError(f"--window {window.name} holds every noise level of the sampler and cannot be "
                                     "stepped over; give a narrower window")
                yield Row(outside, inside, window, (int(steps[0]), int(steps[-1])), control_of)


def _frechet(samples: np.ndarray, heldout: np.ndarray) -> dict[str, float]:
    """The distance to held-out points with its 95% interval over the samples."""
    from geomem.quality.frechet import frechet_with_stderr
    from geomem.statistics import Z_95

    value, stderr = frechet_with_stderr(samples, heldout)
    return {"frechet": value, "frechet_low": max(0.0, value - Z_95 * stderr), "frechet_high": value + Z_95 * stderr}


def _pictures(out: str, document: dict[str, Any], rows: list[tuple[Row, dict[str, Any]]], dataset: DataSet) -> None:
    from geomem.files import atomic_path
    from geomem.plots import plot_swap, plot_swap_samples

    figures = {"swap.png": plot_swap(document["rows"], document["sampler"]["sigma"], document["heldout"])}
    kinds = dataset.train.shape[1:]
    if len(kinds) == 2 or (len(kinds) == 3 and kinds[0] in (1, 3)):  # signals, or images that have colours
        strips = [(_caption(row), found["drawn"], found["rate"].memorized[:DRAWN])
                  for row, found in rows if row.control_of is None]
        figures["samples.png"] = plot_swap_samples(strips)
    for name, figure in figures.items():
        with atomic_path(os.path.join(out, name)) as temporary:
            figure.savefig(temporary, dpi=150)


def _caption(row: Row) -> str:
    if row.window is None:
        return row.outside
    return f"{row.outside}, {row.window.name} " + ("skipped" if row.inside == SKIP else f"from {row.inside}")
