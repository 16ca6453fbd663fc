"""``geomem quality``: one table row per sample file: memorized share, Frechet distance, nearest training point."""

from __future__ import annotations

from typing import Any

import click

from geomem.cli.options import answer, data_root_option, device_option, json_option


@click.command()
@click.argument("samples", nargs=-1, required=True, metavar="SAMPLES.npz...")
@click.option("--data", metavar="DATA", help="The training data; the default is what the first sample file names.")
@data_root_option
@click.option("--label", "labels", multiple=True, metavar="TEXT",
              help="Name of a row, once per sample file.  [default: the file names]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the held-out halves.")
@device_option
@json_option
@click.option("--out", metavar="FILE.json", type=click.Path(dir_okay=False), help="Also write the JSON object here.")
def quality(samples: tuple[str, ...], data: str | None, labels: tuple[str, ...], seed: int, device: str, as_json: bool,
            out: str | None) -> None:
    """Compare sample files: how much is memorized, and how close they are to held-out data.

    Judged on the test part of the held-out data, which never steers a training. The last row holds the same figures
    for that part itself: the floor that perfect samples would reach.

    Example: geomem quality none.npz gap.npz
    """
    from geomem.cli.samples import data_of, read_samples, require_same_shape
    from geomem.errors import InputError
    from geomem.files import write_json
    from geomem.memorization import memorization_rate
    from geomem.quality import quality_report

    if labels and len(labels) != len(samples):
        raise InputError(f"{len(labels)} --label for {len(samples)} sample files; give one for each")
    read = [read_samples(path) for path in samples]
    dataset = data_of(read[0].about, data, read[0].label)
    for one in read:
        require_same_shape(one, dataset)
        made_with = one.about.get("data")
        if data is None and isinstance(made_with, dict) and made_with.get("sha256") != dataset.sha256:
            raise InputError(f"{one.label} was made with other training data than {read[0].label}; "
                             "compare them apart, or name the data for all with --data")
    rows = []
    for label, one in zip(labels or samples, read, strict=True):
        report = quality_report(one.values, dataset.train, dataset.test, seed=seed, device=device)
        memorized = memorization_rate(one.values, dataset.train, device=device)
        rows.append({"label": label, "memorization": memorized.to_dict(), "quality": report.to_dict(),
                     "about": one.about})
    floor = memorization_rate(dataset.test, dataset.train, device=device)
    document = {"format": "geomem.quality/1",
                "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                         "n_test": len(dataset.test)},
                "rows": rows, "heldout": {"memorization": floor.to_dict()}}
    if out:
        write_json(out, document)
    answer(document, table, as_json)


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    head = ("samples", "n", "memorized", "95% interval", "Frechet (px)", "95% interval", "median NN")
    lines = [head]
    for row in document["rows"]:
        m, q = row["memorization"], row["quality"]
        lines.append((row["label"], f"{m['n']:,}", f"{m['rate']:.1%}", f"{m['low']:.1%} - {m['high']:.1%}",
                      f"{q['frechet']:.3f}", f"{q['frechet_low']:.3f} - {q['frechet_high']:.3f}",
                      f"{q['nearest_samples']:.2f}"))
    m, q = document["heldout"]["memorization"], document["rows"][0]["quality"]
    lines.append(("held-out data", f"{m['n']:,}", f"{m['rate']:.1%}", f"{m['low']:.1%} - {m['high']:.1%}",
                  f"{q['frechet_floor']:.3f}", f"(n = {q['floor_n'][0]} / {q['floor_n'][1]})",
                  f"{q['nearest_heldout']:.2f}"))
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = ["  ".join(cell.ljust(width) if k == 0 else cell.rjust(width)
                      for k, (cell, width) in enumerate(zip(line, widths, strict=True))) for line in lines]
    text.insert(1, "-" * len(text[0]))
    return "\n".join([*text, "",
                      f"{document['data']['name']}: {document['data']['n_train']:,} training points; memorized: nearer "
                      "than 1/3 of the distance to the second nearest training point; Frechet distance in pixels "
                      f"(squared data units) to {document['data']['n_test']:,} held-out points; median NN: median "
                      "distance to the nearest training point."])
