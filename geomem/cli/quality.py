"""``geomem quality``: one table row per sample file: memorized share, distances to held-out data and to copies."""

from __future__ import annotations

import math
import re
import textwrap
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    answer,
    data_root_option,
    device_option,
    json_option,
    load,
    progress_bar,
    require_data,
    require_picture,
    say,
)

if TYPE_CHECKING:
    from geomem.quality import InceptionFeatures

CHEAP = ("frechet", "mmd", "pr", "components", "values", "mean-distance")
INCEPTION = ("fid", "kid", "inception-pr")
WIDTH = 118
SHORT = {"Frechet distance": "Frechet", "kernel distance": "MMD^2", "Wasserstein-1": "W1", "Jensen-Shannon": "JS",
         "mean distance": "mean L2"}
FEATURES = {"pixels": "px", "Inception": "Inception", "Inception with other weights": "other Inception"}
MEANING = {
    "Frechet distance": "Frechet: squared 2-Wasserstein distance of fitted Gaussians",
    "kernel distance": "MMD^2: squared maximum mean discrepancy with KID's kernel, unbiased",
    "FID": "FID: Frechet distance of Inception features",
    "KID": "KID: MMD^2 of Inception features, from all points at once",
    "precision": "precision: share of samples within reach of held-out points, out to the third nearest other",
    "recall": "recall: share of held-out points within reach of samples",
    "Wasserstein-1": "W1: Wasserstein-1 distance along a principal component of the training points",
    "Jensen-Shannon": "JS: Jensen-Shannon distance of histograms, 30 bins over the held-out range, the outer "
                      "two open",
    "mean distance": "mean L2: mean distance to all training points, to be held against held-out data",
}
LARGEST = {"precision": 1.0, "recall": 1.0, "Jensen-Shannon": 1.0}
SMALLEST = {"kernel distance": -math.inf, "KID": -math.inf}


@click.command()
@click.argument("samples", nargs=-1, required=True, type=click.Path(), metavar="SAMPLES.npz...")
@click.option("--data", metavar="DATA", help="The training data; the default is what the first sample file names.")
@data_root_option
@click.option("--label", "labels", multiple=True, metavar="TEXT",
              help="Name of a row, once per sample file. Files with the same label are runs of one setting, and their "
                   "mean over runs is added.  [default: the file names]")
@click.option("--metric", "metrics", multiple=True, type=click.Choice(CHEAP + INCEPTION),
              help="Also measure this; may be repeated. pr: improved precision and recall. components, values, "
                   "mean-distance: the measures of arXiv 2601.21348. fid, kid, inception-pr: on Inception features.")
@click.option("--all", "everything", is_flag=True, help="Every metric; those on Inception features if --fid-weights.")
@click.option("--features", default="pixels", show_default=True, metavar="pixels|pca:K",
              help="What frechet, mmd and pr are measured on; pca:K are the first K principal components of the "
                   "training points.")
@click.option("--fid-weights", metavar="FILE", type=click.Path(),
              help="Inception weights, .pth or .safetensors.  [default: torch-fidelity's in torch's cache]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of the held-out halves and of resampling.")
@device_option
@json_option
@click.option("--out", metavar="FILE.json", type=click.Path(), help="Also write the JSON object here.")
@click.option("--pareto", metavar="PICTURE", type=click.Path(),
              help="Draw the memorized share against the first --metric (else the Frechet distance in pixels).")
def quality(samples: tuple[str, ...], data: str | None, labels: tuple[str, ...], metrics: tuple[str, ...],
            everything: bool, features: str, fid_weights: str | None, seed: int, device: str, as_json: bool,
            out: str | None, pareto: str | None) -> None:
    """Compare sample files: how much is memorized, and how close they are to held-out data.

    Judged on the test part of the held-out data, which never steers a training. The last row holds the same figures
    for that part itself: the floor that perfect samples would reach.

    \b
    Examples: geomem quality none.npz gap.npz
              geomem quality a0.npz a1.npz b0.npz b1.npz --label a --label a --label b --label b --pareto ab.png
              geomem quality none.npz gap.npz --metric fid --metric kid --fid-weights inception.pth
    """
    require_data(data)
    from geomem.errors import InputError
    from geomem.files import atomic_path, require_writable, write_json
    from geomem.generation import data_of, note_other_data, read_samples, require_comparable
    from geomem.memorization.ratio import RATIO, apply_ratio_rule, distinct_training
    from geomem.quality import Judge, inception_features, quality_report

    if labels and len(labels) != len(samples):
        raise InputError(f"{len(labels)} --label for {len(samples)} sample files; give one for each")
    if out:
        require_writable(out)
    if pareto:
        require_picture("--pareto", pareto)
    if everything:
        metrics = metrics + CHEAP + (INCEPTION if fid_weights else ())
    if features == "pixels":  # the Frechet distance in pixels is there in any case
        metrics = tuple(metric for metric in metrics if metric != "frechet")
    given = f"--features {features}"
    if features != "pixels" and not re.fullmatch(r"pca:[0-9]{1,6}", features):
        raise InputError(f"{given}: give pixels, or pca:K for the first K principal components")
    if features != "pixels" and not set(metrics) & {"frechet", "mmd", "pr"}:
        raise InputError(f"{given} has no effect without --metric frechet, mmd or pr, or --all")
    if fid_weights and not set(metrics) & set(INCEPTION):
        raise InputError(f"--fid-weights has no effect without --metric {', '.join(INCEPTION)}, or --all")
    inception = inception_features(fid_weights, device=device) if set(metrics) & set(INCEPTION) else None
    read = [read_samples(path) for path in samples]
    dataset = data_of(read[0].about, data, read[0].name, load=load)
    least = 4 if metrics else 2  # for a third neighbour; for a covariance
    for one in read:
        require_comparable(one, dataset)
        if len(one.values) < least:
            raise InputError(f"{one.name} holds {len(one.values)} samples; what is measured needs {least} or more")
        made_with = one.about.get("data")
        if data is None and isinstance(made_with, dict) and made_with.get("sha256") != dataset.sha256:
            raise InputError(f"{one.name} was made with other training data than {read[0].name}; "
                             "compare them apart, or name the data for all with --data")
        if data is not None and one is not read[0]:
            note_other_data(one.about, dataset, data, one.name)
    judge = Judge(dataset.train, dataset.test, metrics, features=features, inception=inception, seed=seed,
                  device=device) if metrics else None
    training = distinct_training(dataset.train, None, device=device)
    rows = []
    with progress_bar(len(samples), "measuring", "file") as bar:
        for label, one in zip(labels or samples, read, strict=True):
            report = quality_report(one.values, dataset.train, dataset.test, seed=seed, device=device)
            memorized = apply_ratio_rule(one.values.reshape(len(one.values), -1), training, RATIO, device=device)
            rows.append({"label": label, "memorization": memorized.to_dict(), "quality": report.to_dict(),
                         "metrics": [found.to_dict() for found in judge.measure(one.values)] if judge else [],
                         "about": one.about})
            bar.update()
    test = dataset.test
    floor = apply_ratio_rule(test.reshape(len(test), -1), training, RATIO, device=device)
    document = {"format": "geomem.quality/1",
                "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                         "n_test": len(test)},
                "rows": rows, "heldout": {"memorization": floor.to_dict()}, "means": means(rows),
                "settings": {"metrics": list(dict.fromkeys(metrics)), "features": features, "seed": seed,
                             "fid_weights": _weights(inception)}}
    if out:
        write_json(out, document)
    if pareto:
        with atomic_path(pareto) as temporary:
            pareto_figure(document).savefig(temporary, dpi=150)
        say(f"wrote {pareto}")
    answer(document, table, as_json)


def _weights(inception: InceptionFeatures | None) -> dict[str, Any] | None:
    return None if inception is None else {"sha256": inception.sha256, "standard": inception.standard}


def figures(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a row says, by column: value, low, high, floor, and the smallest and largest value there can be."""
    m, q = row["memorization"], row["quality"]
    found = {"memorized": {"value": m["rate"], "low": m["low"], "high": m["high"], "name": "memorized"},
             "Frechet (px)": {"value": q["frechet"], "low": q["frechet_low"], "high": q["frechet_high"],
                              "floor": q["frechet_floor"], "name": "Frechet distance", "better": "lower"}}
    for one in row["metrics"]:
        title = SHORT.get(one["name"], one["name"])
        if one["name"] not in ("FID", "KID"):
            where = one["features"]
            title += f" ({FEATURES.get(where, where.replace('component ', 'pc'))})"
        found[title] = one
    return found


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each label of several rows, the mean of each column over them, as ``geomem.quality.MeanOverRuns``."""
    from geomem.statistics import Z_95, mean_over_runs

    found = []
    for label in dict.fromkeys(row["label"] for row in rows):
        runs = [figures(row) for row in rows if row["label"] == label]
        if len(runs) < 2:
            continue
        columns = {}
        for title, first in runs[0].items():
            values = [run[title]["value"] for run in runs]
            # An interval that was cut at the end of what is possible keeps its longer half.
            stderrs = [max(run[title]["high"] - run[title]["value"], run[title]["value"] - run[title]["low"]) / Z_95
                       for run in runs]
            mean = mean_over_runs(values, stderrs).to_dict()
            largest = 1.0 if title == "memorized" else LARGEST.get(first["name"], math.inf)
            columns[title] = mean | {"low": max(SMALLEST.get(first["name"], 0.0), mean["low"]),
                                     "high": min(largest, mean["high"])}
        nearest = [row["quality"]["nearest_samples"] for row in rows if row["label"] == label]
        found.append({"label": label, "runs": len(runs), "n": sum(row["memorization"]["n"] for row in rows
                                                                  if row["label"] == label),
                      "columns": columns, "nearest_samples": sum(nearest) / len(nearest)})
    return found


def pareto_figure(document: dict[str, Any]) -> Any:
    """Memorized share against the first metric that has a better and a worse, of each setting."""
    from geomem.plots import plot_pareto

    rows = document["rows"]
    first, *_ = [title for title, one in list(figures(rows[0]).items())[2:] if one["better"] in ("lower", "higher")
                 ] or ["Frechet (px)"]
    quality_of = figures(rows[0])[first]

    def point(columns: dict[str, Any]) -> dict[str, Any]:
        return {"quality": columns[first], "memorized": columns["memorized"]}

    settings = []
    averaged = {mean["label"]: mean for mean in document["means"]}
    for label in dict.fromkeys(row["label"] for row in rows):
        runs = [point(figures(row)) for row in rows if row["label"] == label]
        mean = runs[0]
        if label in averaged:
            mean = point({title: one | {"value": one["mean"]} for title, one in averaged[label]["columns"].items()})
        settings.append((label, mean, runs))
    sizes = sorted({row["memorization"]["n"] for row in rows})
    return plot_pareto(settings, (quality_of["floor"], document["heldout"]["memorization"]["rate"]),
                       xlabel=f"{first}, {' or '.join(f'{n:,}' for n in sizes)} samples against "
                              f"{document['data']['n_test']:,} held-out points",
                       title=document["data"]["name"], better=quality_of["better"])


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    rows, heldout = document["rows"], document["heldout"]["memorization"]
    titles = list(figures(rows[0]))
    lines = [["samples", "n", titles[0], titles[1], "median NN", *titles[2:]]]

    def line(label: str, n: int, columns: dict[str, Any], nearest: float) -> list[str]:
        cells = [_share(columns["memorized"]), *(_cell(columns[title]) for title in titles[1:])]
        return [label, f"{n:,}", *cells[:2], _distance(nearest), *cells[2:]]

    for row in rows:
        lines.append(line(row["label"], row["memorization"]["n"], figures(row), row["quality"]["nearest_samples"]))
    for mean in document["means"]:
        columns = {title: one | {"value": one["mean"]} for title, one in mean["columns"].items()}
        lines.append(line(f"mean of {mean['runs']}: {mean['label']}", mean["n"], columns, mean["nearest_samples"]))
    first = figures(rows[0])
    floors = [_number(first[title]["floor"], first[title]) for title in titles[1:]]
    q = rows[0]["quality"]
    lines.append(["held-out data", f"{heldout['n']:,}",
                  _share({"value": heldout["rate"], "low": heldout["low"], "high": heldout["high"]}), floors[0],
                  _distance(q["nearest_heldout"]), *floors[1:]])
    data, floor_n = document["data"], q["floor_n"]
    alike = all(row["quality"]["floor_n"] == floor_n for row in rows)
    smaller = [_distance(one["frechet_at_floor_size"]) + ("" if alike else _floor_of(one))
               for one in (row["quality"] for row in rows)]
    notes = [f"{data['name']}: {data['n_train']:,} training points; memorized: nearer than 1/3 of the distance to the "
             f"second nearest training point; held against {data['n_test']:,} held-out points, with 95% intervals over "
             "the samples; median NN: median distance to the nearest training point.",
             f"held-out data: {floor_n[0]:,} of them against {floor_n[1]:,} others, where others are needed"
             f"{'' if alike else ', for the first file'}. Fewer points make most figures worse: at "
             f"{'those sizes' if alike else 'the sizes of its own floor'} the Frechet distance (px) of the samples is "
             f"{', '.join(smaller)}."]
    notes += [f"{MEANING[name]}." for name in dict.fromkeys(one["name"] for one in list(first.values())[1:])]
    if document["means"]:
        notes.append("mean of k: over runs, with the interval for other seeds (Student's t).")
    return "\n".join([*_folded(lines), "", *(textwrap.fill(note, WIDTH) for note in notes)])


def _floor_of(quality: dict[str, Any]) -> str:
    few, others = quality["floor_n"]
    return f" ({few:,} against {others:,}, where held-out data reach {_distance(quality['frechet_floor'])})"


def _folded(lines: list[list[str]]) -> list[str]:
    """The lines as aligned columns, further columns below each other where they are wider than a page."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    pages: list[list[int]] = [[]]
    for k in range(1, len(widths)):
        if pages[-1] and widths[0] + sum(widths[j] + 2 for j in (*pages[-1], k)) > WIDTH:
            pages.append([])
        pages[-1].append(k)
    text: list[str] = []
    for page in pages:
        part = ["  ".join([line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in page)]) for line in lines]
        text += [*([""] if text else []), part[0], "-" * len(part[0]), *part[1:]]
    return text


def _share(one: dict[str, Any]) -> str:
    return f"{one['value']:.1%} [{one['low'] * 100:.1f}, {one['high'] * 100:.1f}]"


def _cell(one: dict[str, Any]) -> str:
    return f"{_number(one['value'], one)} [{_number(one['low'], one)}, {_number(one['high'], one)}]"


def _distance(value: float) -> str:
    return f"{value:.2f}" if value < 1e7 else f"{value:.3g}"


def _number(value: float, one: dict[str, Any]) -> str:
    """With two digits of the half width of its interval, or three behind the point where that is but rounding."""
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    half = (one["high"] - one["low"]) / 2
    return f"{value:z.{max(0, min(8, 1 - math.floor(math.log10(half)))) if half > 1e-9 * abs(value) else 3}f}"
