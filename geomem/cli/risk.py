"""``geomem risk``: the training points a model is most likely to copy, held against the copies it made."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    data_options,
    device_option,
    directory_option,
    json_option,
    load_chosen,
    load_samples,
    require_data,
    tolerance_option,
)
from geomem.cli.output import answer, progress_bar, require_new_directory, say
from geomem.cli.risk_table import text_of
from geomem.errors import counted

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.memorization import RiskReport

MOST_DRAWN = 60


@click.command()
@data_options
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, metavar="K",
              help="Points in the table and, at most 60, in the picture.")
@click.option("--samples", metavar="FILE.npz", type=click.Path(),
              help="Samples of a model trained on DATA, as geomem generate writes them: count the copies of each "
                   "point, and correlate.")
@tolerance_option
@device_option
@json_option
@directory_option("risk.json, risk.csv (every point), risk.png (the riskiest beside their nearest other training "
                  "point) and, with --samples, copies.png")
def risk(top: int, samples: str | None, as_json: bool, out: str | None, **options: Any) -> None:
    """Rank the training points of DATA by how likely a model that memorizes is to copy them.

    The score is how often a point occurs (near duplicates count) times 2 r / (r + median r), r the distance to its
    nearest other: 1 is a usual point. It says which points come first, not whether anything is copied at all.

    Measured on three data sets: points that occur four times are copied 5 to 6 times as often; isolated points are
    copied more often by the ratio rule, which forgives more there, and not by distance alone.

    Examples:

    \b
      geomem risk photos/ --out photos-risk
      geomem generate runs/digits --weights last --seeds 0-3999 --out copies.npz
      geomem risk digits --n-train 200 --samples copies.npz
    """
    require_data(options["data"], options["heldout"])
    from geomem.generation import require_comparable
    from geomem.memorization import risk_report

    if out:
        require_new_directory(out, "risk.json")
    dataset = load_chosen(options)
    generated = None if samples is None else load_samples(samples, lambda: dataset)
    if generated is not None:
        require_comparable(generated, dataset)
        recorded = generated.about.get("data")
        if isinstance(recorded, dict) and recorded.get("sha256") != dataset.sha256:
            say(f"note: {samples} was made with other data than {dataset.name} as loaded here; give --n-train, "
                "--shuffle and --seed as in training")
    started = time.perf_counter()
    with progress_bar(len(dataset.train), "posterior weights", "point") as bar:
        report = risk_report(dataset.train, None if generated is None else generated.values,
                             labels=dataset.train_labels, progress=bar.to, **options)
    document = {**report.document(dataset, top), "seconds": round(time.perf_counter() - started, 3)}
    for row, file in zip(document["top"], dataset.files(row["index"] for row in document["top"]) or [], strict=False):
        row["file"] = file
    if generated is not None:
        document["samples"] = {"file": samples, "about": generated.about, **document["samples"]}
    if out:
        _write(out, document, dataset, report)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def _write(out: str, document: dict[str, Any], dataset: DataSet, report: RiskReport) -> None:
    """risk.csv, risk.json, which marks the directory as taken, and the pictures."""
    from geomem.files import draw_figure, write_csv, write_json
    from geomem.plots import plot_copies, plot_risk

    columns = {name: values.tolist() for name, values in report.columns().items()}
    files = dataset.files(columns["index"])
    write_csv(os.path.join(out, "risk.csv"), columns | ({"file": files} if files else {}))
    risk, counts = report.risk, report.counts
    top, ranking = document["top"][:MOST_DRAWN], risk.ranking()
    write_json(os.path.join(out, "risk.json"), document)
    draw_figure(os.path.join(out, "risk.png"), lambda: plot_risk(
        dataset.drawn(dataset.train), ranking[:len(top)], risk.nearest, [_caption(row, dataset) for row in top],
        score=risk.score, title=f"{dataset.name}: the {len(top)} riskiest of {len(ranking):,} training points"))
    if counts is not None:
        draw_figure(os.path.join(out, "copies.png"), lambda: plot_copies(
            risk.score[ranking], counts.copies[ranking], risk.group_size[ranking],
            title=f"{dataset.name}: copies among {counted(counts.rate.n, 'sample')}",
            correlation=_correlation_text(document["samples"]["correlations"].get("score"))))


def _caption(row: dict[str, Any], dataset: DataSet) -> str:
    """Two lines for above a picture."""
    who = [f"#{row['index']}"]
    if "label" in row:
        who.append(f"class {dataset.class_name(row['label']) or row['label']}")
    if row["group_size"] > 1:
        who.append(f"{row['group_size']} times")
    risk = [f"risk {row['score']:.2f}"]
    if "copies" in row:
        risk.append(f"{row['copies']} {'copy' if row['copies'] == 1 else 'copies'}")
    return ", ".join(who) + "\n" + ", ".join(risk)


def _correlation_text(pair: dict[str, Any] | None) -> str:
    copies = None if pair is None else pair["copies"]
    if copies is None or copies["rho"] is None:
        return "no rank correlation: one side is constant"
    interval = "" if copies["low"] is None else f" [{copies['low']:.2f}, {copies['high']:.2f}]"
    return f"rank correlation {copies['rho']:.2f}{interval}, p = {copies['p']:.1g}"
