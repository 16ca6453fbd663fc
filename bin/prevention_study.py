"""What works against memorization: the trainings of bin/prevention-study; prevention_summary.py makes their tables.

A *set* is a data set made small enough that a network of about two million parameters learns it by heart in minutes;
some come again with more or fewer points, another network, or ten times the steps after which 90% are copies. A
*way* is a law of noise levels, a dummy class, or none of them. Every training of a set takes the same steps from the
same weights; at its checkpoints, and at the end with other choices of weights, 1,000 samples with the same seeds are
judged by held-out points that steered nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.sources import means_of_squares, zip_images
from prevention_summary import over_sets, summary, text_of
from rivals import ambient, clean, decayed, plain, slimmed, softened

from geomem import __version__, load_data
from geomem.data import DataSet
from geomem.files import write_json
from geomem.generation import generate
from geomem.memorization import default_watch_every, leaning, memorization_rate
from geomem.models.denoiser import expand_sigma
from geomem.quality import quality_report
from geomem.training import (
    BestWeights,
    Classes,
    Trainer,
    TrainingPlan,
    evaluation_steps,
    heldout_monitor,
    plan_training,
    watch_steps,
)
from geomem.training.trainer import Batch, bfloat16_products

SAMPLES = 1000
CHECKPOINTS = (1 / 8, 1 / 4, 1 / 2, 1)  # shares of the steps
FORMAT = "geomem.prevention-study/1"


@dataclass(frozen=True)
class Set:
    """A data set and how long a network is trained on it."""

    n_train: int
    network: str
    batch: int
    iterations: int
    images: Callable[[Path], tuple[np.ndarray, np.ndarray]] | None = None  # from the data folder: train, held out


def halved(images: np.ndarray, side: int = 16) -> np.ndarray:
    """(N, H, W[, C]) uint8 images as (N, C, side, side) float32 in [-1, 1], means of square blocks."""
    images = images[..., None] if images.ndim == 3 else images
    return (means_of_squares(images, side) / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)


def faces(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "faces_gray32.npz") as arrays:
        return halved(arrays["train_images"][:256]), halved(arrays["test_images"])


def cars(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "cifar10_exact.npz") as arrays:
        train = halved(arrays["train_images"][arrays["train_labels"] == 1])
        return train[:128], np.concatenate([train[128:], halved(arrays["test_images"][arrays["test_labels"] == 1])])


def from_zip(name: str, n_train: int, n_heldout: int) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        _, images = zip_images(folder / name)
        points = halved(images[np.random.default_rng(0).permutation(len(images))[:n_train + n_heldout]])
        return points[:n_train], points[n_train:]
    return load


SETS = {
    "digits": Set(200, "unet-tiny", 256, 1500),
    "ecg": Set(500, "mlp", 256, 12000),
    "ecg200": Set(200, "mlp", 256, 3000),
    "faces16": Set(256, "unet-tiny", 128, 2000, faces),
    "cars16": Set(128, "unet-tiny", 128, 1000, cars),
    "pokemon16": Set(128, "unet-tiny", 128, 1000, from_zip("pokemon64.zip", 128, 888)),
    "flowers16": Set(128, "unet-tiny", 128, 1000, from_zip("flowers64.zip", 128, 2000)),
}
SETS |= {
    "digits, 100": replace(SETS["digits"], n_train=100),
    "digits, 400": replace(SETS["digits"], n_train=400),
    "digits, mlp": replace(SETS["digits"], network="mlp", iterations=5500),
    **{f"{name}, long": replace(SETS[name], iterations=steps) for name, steps in (
        ("digits", 12000), ("ecg200", 45000), ("faces16", 13000), ("cars16", 8000), ("pokemon16", 8000),
        ("flowers16", 8000))},
}
class ClosingTrainer(Trainer):
    """At closed noise levels the target is not the clean point but what ``teacher`` makes of the noisy one.

    The loss compares the denoiser's estimate at clean + sigma noise with clean. With the teacher's estimate in the
    place of clean, and the noise that leads from it to the same noisy point, the same loss distils.
    """

    teacher: torch.nn.Module | None = None
    edges: np.ndarray
    closed: np.ndarray

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        band = np.searchsorted(self.edges[1:-1], batch.sigma.numpy(), side="right") if self.teacher else None
        if band is None or not (rows := torch.from_numpy(self.closed[band])).any():
            return batch
        clean, sigma = batch.clean[rows], batch.sigma[rows]
        spread = expand_sigma(sigma, clean)
        noisy = clean + spread * batch.noise[rows]
        with torch.no_grad(), bfloat16_products(self.device):
            target = self.teacher(noisy, sigma, None)
        batch.clean[rows], batch.noise[rows] = target, (noisy - target) / spread
        return batch

    def close(self, best: BestWeights, losses: np.ndarray) -> None:
        """Close the levels whose held-out loss is above its smallest by more than the tolerance; open the others."""
        self.edges, self.closed = best.edges, losses > (1 + best.tolerance) * best.smallest
        self.teacher = best.stitched(self.ema) if self.closed.any() else None


# Options of ``plan_training``; ``trainer``, what makes another trainer of a plan than the plain one; ``edges``, factors
# by which those of the recommended gap are moved; and ``stops``, the share of copies at which the training ends.
WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "gap auto": {"gap": "auto"},
    "ci auto": {"ci": "auto"},
    "dummy class": {"dummy_class": -1},
    "closed levels": {"trainer": partial(plain, kind=ClosingTrainer)},
    "stop at 3% copies": {"stops": 0.03},
    "gap zone": {"gap": "zone"},
    "gap auto, 10% kept": {"gap": "auto", "gap_keep": 0.1},
    "gap auto, lower edge / 2": {"edges": (0.5, 1.0)},
    "gap auto, lower edge x 2": {"edges": (2.0, 1.0)},
    "gap auto, upper edge / 2": {"edges": (1.0, 0.5)},
    "gap auto, upper edge x 2": {"edges": (1.0, 2.0)},
}
RIVALS: dict[str, dict[str, Any]] = {  # of others, see rivals.py
    "ambient": {"trainer": ambient},
    "softened weights": {"trainer": softened},
    "flow matching": {"objective": "flow"},
    "flow matching, U-shaped law": {"objective": "flow", "sampler": "u-shaped"},
    "clean prediction": {"trainer": clean},
    "epsilon prediction": {"objective": "ddpm"},
    "dropout 30%": {"dropout": 0.3},
    "weight decay 1": {"trainer": decayed},
    "a third of the width": {"trainer": slimmed},
}
WAYS |= RIVALS
STEERED = ("none", "gap auto", "closed levels", *RIVALS)  # also judged with weights that held-out losses choose


def load_set(name: str, folder: Path, out: Path) -> DataSet:
    """The data of a set; those that are made of images are written to OUT, for ``geomem train`` as well."""
    chosen = SETS[name]
    if chosen.images is None:
        if name.startswith("digits"):
            return load_data("digits", n_train=chosen.n_train)
        return load_data(str(folder / "ECG5000_TRAIN.txt"), heldout=str(folder / "ECG5000_TEST.txt"),
                         n_train=chosen.n_train, shuffle=chosen.n_train < 500)  # the file is sorted by class
    path = out / f"{_file_name(name)}.npz"
    if not path.exists():
        train, heldout_points = chosen.images(folder)
        temporary = out / f"{_file_name(name)}.{os.getpid()}.npz"
        np.savez(temporary, train=train, heldout=heldout_points)
        temporary.replace(path)
    return load_data(str(path))


def plan_of(name: str, way: str, seed: int, dataset: DataSet, precision: str = "bf16") -> TrainingPlan:
    """The training of a set by a way."""
    options = {option: value for option, value in WAYS[way].items() if option not in ("edges", "trainer", "stops")}
    if "edges" in WAYS[way]:
        (low, high), = plan_of(name, "gap auto", seed, dataset, precision).law.gaps
        factor_low, factor_high = WAYS[way]["edges"]
        options["gap"] = f"{low * factor_low:.6g}:{high * factor_high:.6g}"
    chosen = SETS[name]
    return plan_training(dataset, network=chosen.network, iterations=chosen.iterations, batch=chosen.batch,
                         precision=precision, seed=seed, device="cpu", **options)


def judged(denoiser: torch.nn.Module, dataset: DataSet, classes: Classes | None = None) -> dict[str, Any]:
    """What ``judged_samples`` finds of 1,000 samples."""
    labels = None if classes is None else classes.in_turns(SAMPLES)
    return judged_samples(generate(denoiser, range(SAMPLES), dataset.train.shape[1:], labels=labels), dataset)


def judged_samples(samples: np.ndarray, dataset: DataSet) -> dict[str, Any]:
    """Their memorized share, their leaning, and their distances to held-out points as ``geomem quality`` has them."""
    memorized = memorization_rate(samples, dataset.train)
    report = quality_report(samples, dataset.train, dataset.test)
    return {"memorized": {name: getattr(memorized, name) for name in ("rate", "low", "high", "n", "count")},
            "leaning": leaning(samples, dataset.train, dataset.test).to_dict(), "quality": report.to_dict()}


def told(row: dict[str, Any]) -> str:
    """What a row of ``judged`` holds, for people."""
    return (f"{row['memorized']['rate']:.1%} memorized, {row['leaning']['share']:.1%} nearer to training, Frechet "
            f"distance {row['quality']['frechet']:.3f}")


def study(name: str, way: str, seed: int, dataset: DataSet, precision: str = "bf16") -> dict[str, Any]:
    """Train one way and judge it."""
    plan = plan_of(name, way, seed, dataset, precision)
    classes, settings = plan.classes, plan.settings
    trainer = WAYS[way].get("trainer", plain)(plan)
    stops_at, steps = WAYS[way].get("stops"), settings.iterations
    looks = watch_steps(steps, settings.batch, default_watch_every(steps * settings.batch))
    monitor = heldout_monitor(trainer, dataset.train, dataset.validation if way in STEERED else None,
                              every=looks if stops_at else None, sigmas=[], device="cpu")
    evaluations = set(evaluation_steps(steps))
    checkpoints = set() if stops_at else {round(share * steps) for share in CHECKPOINTS}
    snapshots = {}
    rows: list[dict[str, Any]] = []
    started = time.monotonic()

    def judge(denoiser: torch.nn.Module, weights: str, **about: Any) -> None:
        rows.append({"weights": weights, **about, **judged(denoiser, dataset, classes)})

    for step in range(1, steps + 1):
        trainer.step()
        if step in evaluations:
            losses = monitor.evaluate(step, trainer.ema)
            if isinstance(trainer, ClosingTrainer) and losses is not None and monitor.best_weights is not None:
                trainer.close(monitor.best_weights, losses)
            if stops_at:
                snapshots[step] = {name: tensor.clone() for name, tensor in trainer.ema.state_dict().items()}
        if step in checkpoints:
            judge(trainer.ema, "last", step=step, loss=trainer.mean_loss)
            trainer.losses.clear()
        if monitor.is_due(step) and monitor.look(step, trainer.ema).rate >= stops_at:
            break
    if stops_at:
        half = max((kept for kept in snapshots if kept <= trainer.steps_done / 2), default=min(snapshots))
        for weights, step in (("last", trainer.steps_done), ("half the steps", half)):
            trainer.ema.load_state_dict(snapshots[step])
            judge(trainer.ema, weights, step=step)
    best = monitor.best_weights
    if best is not None:
        judge(best.stitched(trainer.ema), "per level", steps=best.steps)
        trainer.ema.load_state_dict(best.snapshots[best.early_stop])
        judge(trainer.ema, "early stop", step=best.early_stop)
    return {"format": FORMAT, "geomem": __version__, "set": name, "way": way, "seed": seed,
            "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                     "n_test": len(dataset.test), "shape": list(dataset.train.shape[1:])},
            "network": plan.config["network"], "parameters": sum(p.numel() for p in trainer.denoiser.parameters()),
            "settings": asdict(settings), "law": plan.law.summary(), "gaps": list(plan.law.gaps),
            "seconds": round(time.monotonic() - started), "rows": rows}


def _file_name(name: str) -> str:
    return name.replace(",", "").replace(" ", "-").replace("/", "by").replace("%", "percent")


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process is to do what leads to ``path``: it is not there and no other process is at it."""
    mark = path.with_suffix(".busy")
    with open(mark, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock of a process that has ended is gone
        except BlockingIOError:
            yield False
            return
        try:
            yield not path.exists()
        finally:
            mark.unlink(missing_ok=True)


def names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    """What reads an option of names separated by semicolons; a misspelt one ends the study before it begins."""
    def names(text: str) -> list[str]:
        given = [name.strip() for name in text.split(";")]
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of: {'; '.join(known)}")
        return given

    return names


def seeds_of(text: str) -> list[int]:
    """The seeds in "0,1,2"."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds such as 0,1,2")
    return [int(part) for part in text.split(",")]


def options_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """What the studies of training share: where their files and the real data are, and the seeds."""
    parser = argparse.ArgumentParser(prog=f"bin/{name}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GEOMEM_TEST_DATA", "../shared/data")),
                        metavar="DIR", help="the real data (%(default)s)")
    parser.add_argument("--seeds", default=[0, 1, 2], type=seeds_of, metavar="0,1,2", help="separated by commas")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16",
                        help="bf16 is slow on a CPU without units for it (%(default)s)")
    return parser


def main() -> None:
    parser = options_of("prevention-study", __doc__)
    parser.add_argument("--sets", default=list(SETS), type=names_among(SETS), metavar='"NAME;NAME"',
                        help=f"separated by semicolons: {'; '.join(SETS)}")
    parser.add_argument("--ways", default=list(WAYS), type=names_among(WAYS), metavar='"NAME;NAME"',
                        help="separated by semicolons: " + "; ".join(WAYS).replace("%", "%%"))
    parser.add_argument("--summary", type=Path, metavar="FILE.json", help="put all that is in OUT into one file")
    parser.add_argument("--earlier", type=Path, metavar="FILE.json",
                        help="an earlier summary, whose trainings that OUT lacks go into the new one too")
    given = parser.parse_args()
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"{given.out} is a file; name a directory")
    if given.summary:
        cells = [json.loads(path.read_text()) for path in sorted(given.out.glob("*/*.json"))]
        if not cells:
            parser.error(f"{given.out} holds no training to put into a summary; run some first")
        if given.earlier:
            there = {(cell["set"], cell["way"], cell["seed"]) for cell in cells}
            cells += [cell for cell in json.loads(given.earlier.read_text())["trainings"]
                      if (cell["set"], cell["way"], cell["seed"]) not in there]
        rows = summary(cells)
        write_json(given.summary, {"format": FORMAT, "rows": rows, "over_sets": over_sets(rows), "trainings": cells})
        print("\n".join(text_of(rows)))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed in given.seeds:
        for name in given.sets:
            dataset = load_set(name, given.data, given.out)
            for way in given.ways:
                path = given.out / _file_name(name) / f"{_file_name(way)}-{seed}.json"
                path.parent.mkdir(exist_ok=True)
                with claimed(path) as ours:
                    if not ours:
                        continue
                    try:
                        cell = study(name, way, seed, dataset, given.precision)
                    except ValueError as error:
                        cell = {"format": FORMAT, "set": name, "way": way, "seed": seed, "refused": str(error)}
                    write_json(path, cell)
                    ends = [f"{row['weights']} {row.get('step', '')}: {told(row)}" for row in cell.get("rows", [])]
                    print(f"{name}, {way}, seed {seed}: {' | '.join(ends) or cell['refused']} "
                          f"({cell.get('seconds')} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
