"""``geomem quality``: one table row per sample file: memorized share, distances to held-out data and to copies."""

from __future__ import annotations

import os
import re
from functools import cache

import click

from geomem.cli.options import device_option, json_option, load, load_samples, reading_options, require_data
from geomem.cli.output import answer, progress_bar, require_picture, say
from geomem.cli.quality_table import text_of
from geomem.errors import InputError, counted

CHEAP = ("frechet", "mmd", "pr", "components", "values", "mean-distance")
INCEPTION = ("fid", "kid", "inception-pr")


@click.command()
@click.argument("samples", nargs=-1, required=True, type=click.Path(), metavar="SAMPLES.npz...")
@click.option("--data", metavar="DATA", help="The training data; the default is what the first sample file names.")
@reading_options
@click.option("--label", "labels", multiple=True, metavar="TEXT",
              help="Name of a row, once per sample file. Files with the same label are runs of one setting, and their "
                   "mean over runs is added.  [default: the file names]")
@click.option("--metric", "metrics", multiple=True, type=click.Choice(CHEAP + INCEPTION),
              help="Also measure this; may be repeated. pr: improved precision and recall. components, values, "
                   "mean-distance: the measures of arXiv 2601.21348. fid, kid, inception-pr: on Inception features.")
@click.option("--all", "everything", is_flag=True, help="Every metric; those on Inception features if --fid-weights.")
@click.option("--features", default="pixels", show_default=True, metavar="pixels|pca:K|inception|FOLDER|FILE",
              help="What frechet, mmd and pr are measured on; pca:K are the first K principal components of the "
                   "training points; a network as in geomem audit --features.")
@click.option("--fid-weights", metavar="FILE", type=click.Path(),
              help="Inception weights, .pth or .safetensors.  [default: torch-fidelity's in torch's cache]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of the held-out halves and of resampling.")
@device_option
@json_option
@click.option("--out", metavar="FILE.json", type=click.Path(), help="Also write the JSON object here.")
@click.option("--pareto", metavar="PICTURE", type=click.Path(),
              help="Draw the share nearer to training points against the first --metric (else the Frechet distance in "
                   "pixels).")
def quality(samples: tuple[str, ...], data: str | None, labels: tuple[str, ...], metrics: tuple[str, ...],
            everything: bool, features: str, fid_weights: str | None, seed: int, device: str, as_json: bool,
            out: str | None, pareto: str | None) -> None:
    """Compare sample files: how much is memorized, how far they lean on the training points, and how close they are to
    held-out data.

    Evaluated on the test part of the held-out data, which plays no part in training. The last row holds the same
    figures for that part itself: the floor that perfect samples would reach.

    \b
    Examples: geomem quality none.npz gap.npz
              geomem quality a0.npz a1.npz b0.npz b1.npz --label a --label a --label b --label b --pareto ab.png
              geomem quality none.npz gap.npz --metric fid --metric kid --fid-weights inception.pth
    """
    require_data(data)
    from geomem.features import inception_features, load_features
    from geomem.files import require_writable, write_figure, write_json
    from geomem.generation import data_of, note_other_data, require_comparable
    from geomem.quality import compare_samples

    if labels and len(labels) != len(samples):
        raise InputError(f"{len(labels)} --label for {counted(len(samples), 'sample file')}; give one for each")
    if out:
        require_writable(out)
    if pareto:
        require_picture("--pareto", pareto)
    asked = metrics
    if everything:
        metrics = metrics + CHEAP + (INCEPTION if fid_weights else ())
    if features == "pixels":  # the Frechet distance in pixels is there in any case
        metrics = tuple(metric for metric in metrics if metric != "frechet")
    given = f"--features {features}"
    of_pixels = features == "pixels" or re.fullmatch(r"pca:[0-9]{1,6}", features)
    if not (of_pixels or features == "inception" or os.path.exists(features)):
        raise InputError(f"{given}: give pixels, pca:K for the first K principal components, inception, a file of its "
                         "weights, or the folder of a DINOv2")
    if features != "pixels" and not set(metrics) & {"frechet", "mmd", "pr"}:
        raise InputError(f"{given} has no effect without --metric frechet, mmd or pr, or --all")
    if fid_weights and not set(metrics) & set(INCEPTION):
        raise InputError(f"--fid-weights has no effect without --metric {', '.join(INCEPTION)}, or --all")
    space = features if of_pixels else load_features(features, device=device)
    inception = inception_features(fid_weights, device=device) if set(metrics) & set(INCEPTION) else None
    read = cache(load)
    files = [load_samples(path, lambda: None if data is None else read(data)) for path in samples]
    dataset = data_of(files[0].about, data, files[0].name, load=read)
    for file in files:
        require_comparable(file, dataset)
        made_with = file.about.get("data")
        if data is None and isinstance(made_with, dict) and made_with.get("sha256") != dataset.sha256:
            raise InputError(f"{file.name} was made with other training data than {files[0].name}; "
                             "compare them apart, or name the data for all with --data")
        if data is not None and file is not files[0]:
            note_other_data(file.about, dataset, data, file.name)
    with progress_bar(len(samples), "measuring", "file") as bar:
        comparison = compare_samples(files, dataset, labels=labels or samples, metrics=metrics, features=space,
                                     inception=inception, seed=seed, device=device,
                                     progress=bar.to)
    document = comparison.to_dict()
    if out:
        write_json(out, document)
    answer(document, lambda _: text_of(comparison), as_json)
    if pareto:
        from geomem.plots import plot_pareto

        write_figure(pareto, plot_pareto(**comparison.pareto(bool(asked) and asked[0] in metrics)))
        say(f"wrote {pareto}")
