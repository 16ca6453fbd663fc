"""``geomem risk``: the training points a model is most likely to copy, held against the copies it made."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    answer,
    data_options,
    device_option,
    json_option,
    load,
    progress_bar,
    require_data,
    require_new_directory,
    say,
    tolerance_option,
)

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.geometry import TrainingRisk
    from geomem.memorization import CopyCounts

COLUMNS = ("index", "label", "multiplicity", "group_size", "group", "nearest", "nearest_distance",
           "neighbour_distance", "concentrated_below", "sigma_half", "score", "copies", "close_samples",
           "nearest_samples")
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
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write risk.json, risk.csv (every point), risk.png (the riskiest beside their nearest other "
                   "training point) and, with --samples, copies.png.")
def risk(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int, top: int,
         samples: str | None, tolerance: float | None, device: str, as_json: bool, out: str | None) -> None:
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
    require_data(data, heldout)
    from geomem.generation import read_samples, require_comparable
    from geomem.geometry import training_risk
    from geomem.memorization import copies_per_point
    from geomem.memorization.ratio import distinct_training

    if out:
        require_new_directory(out, "risk.json")
    generated = None if samples is None else read_samples(samples)
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed)
    if generated is not None:
        require_comparable(generated, dataset)
        recorded = generated.about.get("data")
        if isinstance(recorded, dict) and recorded.get("sha256") != dataset.sha256:
            say(f"note: {samples} was made with other data than {dataset.name} as loaded here; give --n-train, "
                "--shuffle and --seed as in training")
    started = time.perf_counter()
    if tolerance is None:
        tolerance = distinct_training(dataset.train, None, device=device).tolerance
    with progress_bar(len(dataset.train), "posterior weights", "point") as bar:
        found = training_risk(dataset.train, tolerance=tolerance, seed=seed, device=device,
                              progress=lambda done, total: bar.update(done - bar.n))
    counts = None if generated is None else copies_per_point(generated.values, dataset.train, tolerance=tolerance,
                                                             device=device)
    document = document_of(dataset, found, counts, top=top, seconds=time.perf_counter() - started)
    if counts is not None and generated is not None:
        document["samples"] = {"file": samples, "about": generated.about, **document["samples"]}
    if out:
        _write(out, document, dataset, found, counts)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def document_of(dataset: DataSet, found: TrainingRisk, counts: CopyCounts | None, *, top: int,
                seconds: float | None = None) -> dict[str, Any]:
    """The JSON object of the command (format geomem.risk/1)."""
    import numpy as np

    columns = columns_of(dataset, found, counts)
    ranking = found.ranking()
    half = found.sigma_half
    document: dict[str, Any] = {
        "format": "geomem.risk/1",
        "data": {"name": dataset.name, "n_train": len(dataset.train), "dim": dataset.dim, "sha256": dataset.sha256,
                 "duplicates": dataset.duplicates, "groups": len(ranking)},
        "top": [_row(columns, int(index)) for index in ranking[:top]],
        "median": {name: _number(np.median(values[ranking])) for name, values in
                   (("nearest_distance", found.nearest_distance), ("concentrated_below", found.concentrated_below),
                    *(() if half is None else (("sigma_half", half),)))},
        "samples": None,
        "settings": {"q": found.q, "delta": found.delta, "tolerance": found.tolerance, "neighbours": found.neighbours,
                     "draws": found.draws, "seed": found.seed, "top": top},
        "seconds": None if seconds is None else round(seconds, 3),
    }
    if counts is not None:
        document["samples"] = _comparison(dataset, found, counts, ranking)
    return document


def _comparison(dataset: DataSet, found: TrainingRisk, counts: CopyCounts, ranking: Any) -> dict[str, Any]:
    """The copies, and the rank correlation of each predictor with them over the groups."""
    import numpy as np

    from geomem.statistics import rank_correlation

    predictors = _predictors(dataset, found, ranking)
    outcomes = {"copies": counts.copies, "close_samples": counts.close, "nearest_samples": counts.nearest}
    correlations = {
        name: {outcome: rank_correlation(values[usable], count[ranking][usable], seed=found.seed).to_dict()
               for outcome, count in outcomes.items()}
        for name, values in predictors.items() if np.count_nonzero(usable := np.isfinite(values)) >= 3}
    copies, size, rate = counts.copies[ranking], found.group_size[ranking], counts.rate
    tenth = max(1, len(ranking) // 10)
    return {"n": rate.n, "memorized": {name: getattr(rate, name) for name in ("count", "rate", "low", "high")},
            "close_distance": counts.close_distance, "points_copied": int((copies > 0).sum()),
            "riskiest_tenth": {"points": tenth, "share_of_copies": float(copies[:tenth].sum() / max(1, copies.sum()))},
            "by_group_size": {str(times): _mean(copies[size == times]) for times in np.unique(size).tolist()},
            "correlations": correlations}


def _predictors(dataset: DataSet, found: TrainingRisk, ranking: Any) -> dict[str, Any]:
    """What might tell which points are copied, one value for each of ``ranking``."""
    import numpy as np

    from geomem.geometry.neighbours import as_rows

    predictors = {name: getattr(found, name)[ranking] for name in (
        "score", "group_size", "nearest_distance", "neighbour_distance", "concentrated_below", "sigma_half")
        if getattr(found, name) is not None}
    rows = as_rows(dataset.train, "train")
    predictors["distance_to_mean"] = np.linalg.norm(rows[ranking] - rows.mean(axis=0, dtype=np.float64), axis=1)
    return predictors


def _mean(values: Any) -> dict[str, Any]:
    """Number of points, mean and its standard error over the points (None for one point)."""
    n = len(values)
    return {"points": n, "mean_copies": float(values.mean()),
            "stderr": float(values.std(ddof=1) / n**0.5) if n > 1 else None}


def columns_of(dataset: DataSet, found: TrainingRisk, counts: CopyCounts | None) -> dict[str, Any]:
    """One array (N,) per column of the table, those there are."""
    import numpy as np

    columns = {name: getattr(found, name, None) for name in COLUMNS}
    columns["index"] = np.arange(len(dataset.train))
    columns["label"] = dataset.train_labels
    if counts is not None:
        columns |= {"copies": counts.copies, "close_samples": counts.close, "nearest_samples": counts.nearest}
    return {name: values for name, values in columns.items() if values is not None}


def _row(columns: dict[str, Any], index: int) -> dict[str, Any]:
    return {name: _number(values[index]) for name, values in columns.items()}


def _number(value: Any) -> int | float | None:
    """For JSON: a Python number, None for infinity."""
    number = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else None


def _write(out: str, document: dict[str, Any], dataset: DataSet, found: TrainingRisk,
           counts: CopyCounts | None) -> None:
    """risk.csv, the pictures, and last risk.json, which marks the directory as taken."""
    from geomem.files import atomic_path, write_csv, write_json
    from geomem.plots import plot_copies, plot_risk

    columns = columns_of(dataset, found, counts)
    write_csv(os.path.join(out, "risk.csv"), {name: values.tolist() for name, values in columns.items()})
    top, ranking = document["top"][:MOST_DRAWN], found.ranking()
    figures = {"risk.png": plot_risk(dataset.train, ranking[:len(top)], found.nearest, [_caption(row) for row in top],
                                     title=f"{dataset.name}: the {len(top)} riskiest of {len(ranking):,} training "
                                           "points", score=found.score)}
    if counts is not None:
        figures["copies.png"] = plot_copies(
            found.score[ranking], counts.copies[ranking], found.group_size[ranking],
            title=f"{dataset.name}: copies among {counts.rate.n:,} samples",
            correlation=_correlation_text(document["samples"]["correlations"].get("score")))
    for name, figure in figures.items():
        with atomic_path(os.path.join(out, name)) as temporary:
            figure.savefig(temporary, dpi=150)
    write_json(os.path.join(out, "risk.json"), document)


def _caption(row: dict[str, Any]) -> str:
    """Two lines for above a picture."""
    who = [f"#{row['index']}"]
    if "label" in row:
        who.append(f"class {row['label']}")
    if row["group_size"] > 1:
        who.append(f"{row['group_size']} times")
    risk = [f"risk {row['score']:.2f}"]
    if "copies" in row:
        risk.append(f"{row['copies']} copies")
    return ", ".join(who) + "\n" + ", ".join(risk)


def _correlation_text(pair: dict[str, Any] | None, part: str = "copies") -> str:
    one = None if pair is None else pair[part]
    if one is None or one["rho"] is None:
        return "no rank correlation: one side is constant"
    interval = "" if one["low"] is None else f" [{one['low']:.2f}, {one['high']:.2f}]"
    return f"rank correlation {one['rho']:.2f}{interval}, p = {one['p']:.1g}"


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    data, top, median, samples = document["data"], document["top"], document["median"], document["samples"]
    merged = data["n_train"] - data["groups"]
    lines = [f"{data['name']}: {data['n_train']:,} training points of {data['dim']:,} values"
             + (f"; {merged:,} within {document['settings']['tolerance']:.3g} of another count as one with it"
                if merged else ""), ""]
    names = {"index": "point", "label": "label", "group_size": "times", "nearest_distance": "nearest",
             "concentrated_below": "threshold", "sigma_half": "sigma 1/2", "score": "score", "copies": "copies"}
    shown = [name for name in names if name in top[0]]
    lines.append("  ".join([f"{'rank':>4}", *(f"{names[name]:>9}" for name in shown)]))
    for rank, row in enumerate(top, start=1):
        lines.append("  ".join([f"{rank:4}", *(f"{_cell(row[name]):>9}" for name in shown)]))
    lines.append("  ".join([f"{'':>4}", *(f"{_cell(median[name]) if name in median else '':>9}" for name in shown)])
                 + "  median of all")
    lines += ["", "times: occurrences, near duplicates included; nearest: distance to the nearest other point; "
                  "threshold: noise level", f"below which the point holds {document['settings']['q']:.0%} of the "
                  "posterior weight (Theorem 4.2); sigma 1/2: where its mean weight", "falls to a half; "
                  "score: times x 2 nearest / (nearest + median nearest)."]
    if "sigma_half" not in median:
        lines.append("note: sigma 1/2 is left out, it looks at all pairs of points")
    if samples:
        m, tenth = samples["memorized"], samples["riskiest_tenth"]
        lines += ["", f"{samples['n']:,} samples, memorized {m['rate']:.1%} [{m['low']:.1%}, {m['high']:.1%}]; "
                      f"{samples['points_copied']:,} of {data['groups']:,} points were copied"
                      + (f"; the riskiest {tenth['points']} hold {tenth['share_of_copies']:.1%} of the copies"
                         if samples["points_copied"] else ""),
                  f"{'rank correlation with':>24}  {'copies':^26}  {'close samples':^26}  {'nearest samples':^26}"]
        lines += [f"{name.replace('_', ' '):>24}  " + "  ".join(f"{_correlation_cell(one):^26}" for one in row.values())
                  for name, row in samples["correlations"].items() if row["nearest_samples"]["rho"] is not None]
        lines += ["copies: by the ratio rule, which forgives more at isolated points; close samples: as many, by "
                  "distance alone;", "nearest samples: all samples, each at its nearest training point; constant: the "
                  "same", "number at every point, so there is no correlation"]
        if len(samples["by_group_size"]) > 1:
            lines.append("mean copies of points that occur " + ", ".join(
                f"{times} x: {one['mean_copies']:.1f}" + ("" if one["stderr"] is None else f" +- {one['stderr']:.1f}")
                + f" ({one['points']} points)"
                for times, one in samples["by_group_size"].items()))
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: float | int | None) -> str:
    return "any" if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"


def _correlation_cell(one: dict[str, Any]) -> str:
    if one["rho"] is None:
        return "constant"
    interval = "" if one["low"] is None else f" [{one['low']:+.2f}, {one['high']:+.2f}]"
    return f"{one['rho']:+.2f}{interval}"
