"""The two steps of bin/risk-study that no command does: the data files, and the three results in one."""

import json
import sys
from pathlib import Path

import click
import numpy as np

from geomem import __version__, load_data
from geomem.files import write_json
from geomem.statistics import rank_correlation

TIMES = 4


@click.group()
def steps() -> None:
    pass


@steps.command()
@click.argument("out", type=Path)
@click.argument("data")
@click.option("--heldout")
@click.option("--n-train", type=int)
@click.option("--n-heldout", type=int)
@click.option("--shuffle", is_flag=True)
@click.option("--seed", type=int, default=0)
@click.option("--data-root")
def data(out: Path, data: str, **options: object) -> None:
    """plain.npz, the data as chosen, and planted.npz, as many points, a twentieth of them TIMES times."""
    points = load_data(data, **options)
    n = len(points.train)
    planted = n // 20
    kept = np.arange(n - (TIMES - 1) * planted)
    repeated = np.sort(np.random.default_rng(0).choice(len(kept), planted, replace=False))
    rows = np.concatenate([kept, *[repeated] * (TIMES - 1)])
    for name, chosen in (("plain", np.arange(n)), ("planted", rows)):
        labels = {} if points.train_labels is None else {"train_labels": points.train_labels[chosen]}
        np.savez(out / f"{name}.npz", train=points.train[chosen], heldout=points.heldout, **labels)
    write_json(out / "data.json", {"name": points.name, "sha256": points.sha256, "n_train": n, "dim": points.dim,
                                   "planted": repeated.tolist(), "times": TIMES,
                                   "n_train_option": options["n_train"], "shuffle": options["shuffle"],
                                   "seed": options["seed"]})


@steps.command()
@click.argument("out", type=Path)
def summary(out: Path) -> None:
    """study.json: settings, and for each training that is there the correlations; how far two trainings agree."""
    runs, copies = {}, {}
    for name in ("seed-0", "seed-1", "planted"):
        if not (out / name / "risk" / "risk.json").is_file():
            continue
        document = json.loads((out / name / "risk" / "risk.json").read_text())
        config = json.loads((out / name / "run" / "config.json").read_text())
        samples = document["samples"]
        runs[name] = {"network": config["network"], "settings": config["settings"],
                      "sampler": {key: samples["about"][key] for key in ("weights", "steps", "method")},
                      "risk_settings": document["settings"],
                      **{key: samples[key] for key in ("n", "memorized", "close_distance", "points_copied",
                                                       "riskiest_tenth", "by_group_size", "correlations")}}
        table = np.genfromtxt(out / name / "risk" / "risk.csv", delimiter=",", names=True)
        copies[name] = {part: table[part] for part in ("copies", "close_samples", "nearest_samples")}
    agreement = None if not {"seed-0", "seed-1"} <= set(copies) else {
        part: rank_correlation(copies["seed-0"][part], copies["seed-1"][part]).to_dict() for part in copies["seed-0"]}
    write_json(out / "study.json", {"format": "geomem.risk-study/1", "geomem": __version__,
                                    "data": json.loads((out / "data.json").read_text()),
                                    "agreement_of_two_trainings": agreement, "runs": runs})
    print(f"wrote {out / 'study.json'}", file=sys.stderr)


steps()
