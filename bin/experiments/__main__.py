"""``bin/reproduce``: run one experiment, write its result and its picture, print ours beside the published figures."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import geomem
from experiments import MODULES, RESULTS
from experiments.bench import Bench, Compared, Experiment
from geomem.errors import InputError
from geomem.files import write_figure, write_json

FORMAT = "geomem.reproduce/1"
FIGURES = Path(__file__).parents[2] / "figures"
SCALES = ("smoke", "small", "medium", "paper")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("experiment", required=False)
@click.option("--scale", type=click.Choice(SCALES), default="small", show_default=True,
              help="smoke: seconds, on digits. small: two cores, under an hour, real data in cut sizes. medium: hours, "
                   "32 x 32 pixels. paper: the papers' sizes; most need a GPU.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Data, models and results; what is there is used again.  [default: reproduce/SCALE]")
@click.option("--data", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="The real data.  [default: GEOMEM_TEST_DATA]")
@click.option("--list", "listed", is_flag=True, help="Show all experiments and which of them have been run.")
@click.option("--draw", "drawn", is_flag=True, help="Draw the pictures of the results in figures/results again.")
def reproduce(experiment: str | None, scale: str, out: Path | None, folder: Path | None, listed: bool,
              drawn: bool) -> None:
    """Repeat an experiment of [G] arXiv 2602.17846 or [C] arXiv 2601.21348."""
    known = all_experiments()
    if listed:
        click.echo(overview(known))
        return
    if drawn:
        for drawable in known.values():
            for kept in results_of(drawable).values():
                write_figure(picture_of(kept), drawable.draw(json.loads(kept.read_text())))
        return
    if experiment not in known:
        raise InputError(f"{'no experiment is named' if experiment is None else f'unknown experiment {experiment!r}'}; "
                         f"choose one of {', '.join(known)}")
    if scale not in known[experiment].scales:
        raise InputError(f"{experiment} has no scale {scale}; choose one of {', '.join(known[experiment].scales)}")
    if folder is None and os.environ.get("GEOMEM_TEST_DATA"):
        folder = Path(os.environ["GEOMEM_TEST_DATA"])
    click.echo(report(perform(known[experiment], scale, out or Path("reproduce") / scale, folder)))


def all_experiments() -> dict[str, Experiment]:
    """By name, in the order of ``RESULTS``."""
    found = [value for name in MODULES for value in vars(import_module(f"experiments.{name}")).values()
             if isinstance(value, Experiment)]
    by_name = {experiment.name: experiment for experiment in found}
    return {name: by_name[name] for name in (result.replace("_", "-") for result in RESULTS)}


def results_of(experiment: Experiment) -> dict[str, Path]:
    """The results that are kept, by their scale; those of scale small have it not in their names."""
    stem = f"reproduce_{experiment.name.replace('-', '_')}"
    paths = {scale: FIGURES / "results" / f"{stem}{'' if scale == 'small' else f'_{scale}'}.json"
             for scale in experiment.scales}
    return {scale: path for scale, path in paths.items() if path.exists()}


def picture_of(result: Path) -> Path:
    """The picture of a result that is kept."""
    return FIGURES / f"{result.stem.replace('_', '-')}.png"


def perform(experiment: Experiment, scale: str, out: Path, folder: Path | None) -> dict[str, Any]:
    """Run an experiment; its result document, written to ``out`` with its picture.

    ``seconds`` are those of the whole experiment, or None where models, samples or partial results were there already.
    """
    settings = experiment.scales[scale]
    bench = Bench(out.absolute(), experiment.name, folder, settings)
    started = time.monotonic()
    outcome = experiment.run(bench, settings)
    seconds = None if bench.used_again else round(time.monotonic() - started, 1)
    rows, deviations = outcome.compared, outcome.deviations
    if scale == "smoke":
        rows = [replace(row, verdict="not judged at scale smoke") for row in rows]
        deviations = [*deviations, "digits stand in for the data of the paper"]
    document = json.loads(json.dumps({
        "format": FORMAT, "experiment": experiment.name, "paper": experiment.paper, "title": experiment.title,
        "scale": scale, "geomem": geomem.__version__, "settings": asdict(settings), "seconds": seconds,
        "compared": [asdict(row) for row in rows], "deviations": deviations, "result": outcome.result}))
    write_json(out / f"{experiment.name}.json", document)
    write_figure(out / f"{experiment.name}.png", experiment.draw(document))
    click.echo(f"wrote {out / experiment.name}.json and .png", err=True)
    return document


def report(document: dict[str, Any]) -> str:
    """Ours beside the published figures, and the deviations."""
    rows = [Compared(**row) for row in document["compared"]]
    lines = [f"{document['experiment']}: {document['title']} ({document['paper']}), scale {document['scale']}, "
             + (f"{document['seconds']:g} s" if document["seconds"] else "parts were there before, so not timed"), ""]
    for row in rows:
        lines += [row.quantity, f"    ours       {row.ours}", f"    published  {row.published}", f"    {row.verdict}"]
    settings = ", ".join(f"{name} {value}" for name, value in document["settings"].items())
    return "\n".join([*lines, "", f"settings: {settings}", "deviations:",
                      *(f"  - {line}" for line in document["deviations"])])


def overview(experiments: dict[str, Experiment]) -> str:
    """Each experiment with the scales of the results that are kept in figures/results."""
    table = []
    for name, experiment in experiments.items():
        done = results_of(experiment)
        state = ", ".join(f"{scale}: {'run' if scale in done else 'not yet run'}" for scale in experiment.scales
                          if scale != "smoke")
        table.append((name, experiment.paper, state, experiment.title))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in table)


def main() -> None:
    """Exit status 0 done, 2 for what the caller got wrong, 130 for Ctrl-C."""
    try:
        reproduce.main(prog_name="bin/reproduce", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except (InputError, OSError) as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


def _fail(message: str) -> None:
    click.echo(f"bin/reproduce: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
