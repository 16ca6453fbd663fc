"""One network taught by a cross-fitted one: the trainings and measurements of bin/distil-study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from folds_study import SETS, trained
from prevention_study import judged, load_set, options_of, told

from geomem import __version__
from geomem.data import DataSet
from geomem.data.points import Values
from geomem.files import write_json
from geomem.models import CrossFittedDenoiser
from geomem.rng import torch_generator
from geomem.training import Run, heldout_losses, plan_distillation, plan_training

FORMAT = "geomem.distil-study/1"
LEVELS = (0.2, 0.35, 0.5, 0.8, 1.2, 2.0)  # where errors at training and test points are compared
DRAWS = 2  # of noise for each of these points
LESSONS = ("samples", "training points", "both", "no teacher")


def error_ratios(denoiser: torch.nn.Module, data: DataSet) -> dict[str, float]:
    """Mean squared error at as many test points over that at training points, by noise level."""
    def errors(points: np.ndarray) -> np.ndarray:
        clean = torch.from_numpy(np.repeat(points[:len(data.train)], DRAWS, axis=0))
        noise = torch.randn(clean.shape, generator=torch_generator(0, "noise of error ratios"))
        return heldout_losses(denoiser, clean, noise, LEVELS)

    ratios = errors(data.test) / errors(np.asarray(data.train))
    return {f"{level:g}": float(ratio) for level, ratio in zip(LEVELS, ratios, strict=True)}


@torch.no_grad()
def towards_average(denoiser: torch.nn.Module, teacher: CrossFittedDenoiser, data: DataSet) -> dict[str, float]:
    """How far the answers at noisy training points are from the routed ones (0) to the mean of all networks (1): the
    regression of one difference on the other, by noise level.
    """
    clean = torch.from_numpy(np.asarray(data.train))
    noise = torch.randn(clean.shape, generator=torch_generator(0, "noise of answers"))
    found = {}
    for level in LEVELS:
        x = clean + level * noise
        routed = teacher(x, level)
        average = torch.stack([network(x, level) for network in teacher.denoisers]).mean(0) - routed
        found[f"{level:g}"] = float((average * (denoiser(x, level) - routed)).sum() / average.square().sum())
    return found


def lessons_of(words: str, data: DataSet, samples: Values | None) -> np.ndarray:
    """The clean points (n, ...) behind the noisy ones; of both kinds as many."""
    train = np.asarray(data.train)
    if samples is None:
        return train
    made = np.asarray(samples)
    return made if words == "samples" else np.concatenate([made, np.resize(train, made.shape)])


def steps_of(text: str) -> list[int]:
    """The steps in "100,200"."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = options_of("distil-study", __doc__)
    parser.add_argument("--set", choices=SETS, default="digits")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--until", type=int, metavar="STEP", help="end the training of each fold there")
    parser.add_argument("--lessons", choices=LESSONS, default="samples",
                        help="clean points behind the noisy ones on which the teacher answers; no teacher: an ordinary "
                             "training of the same length (%(default)s)")
    parser.add_argument("--samples", type=int, default=10_000, help="of the teacher (%(default)s)")
    parser.add_argument("--iterations", type=int, default=1000, help="of the distillation (%(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="of the distillation (%(default)s)")
    parser.add_argument("--judge-at", type=steps_of, default=[], metavar="STEP,STEP", help="steps to be judged, too")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    data, settings = load_set(given.set, given.data, given.out), SETS[given.set]
    document: dict[str, Any] = {"rows": []}
    if given.summary.exists():
        document = json.loads(given.summary.read_text())
    rows = document["rows"]
    training = {name: getattr(given, name) for name in ("lessons", "samples", "iterations", "batch")}
    if given.lessons in ("training points", "no teacher"):
        training["samples"] = 0

    for seed in given.seeds:
        options: dict[str, Any] = {"seed": seed, "device": "cpu", "decay": 1.0}
        folds = Run(given.out / f"folds-{given.folds}-{seed}")
        plan = plan_training(data, folds=given.folds, **settings, **options)
        if not folds.exists:
            folds.create(plan.config)
            folds.write_folds(plan.fold_of)
        for fold in range(given.folds):
            trained(plan.without_fold(fold), folds.without_fold(fold), given.until or settings["iterations"])
        plan = plan_distillation(folds.path, data=data, samples=given.samples, network=settings["network"],
                                 iterations=given.iterations, batch=given.batch, **options)
        assert plan.teaching is not None
        teacher = plan.teaching.teacher.denoiser
        assert isinstance(teacher, CrossFittedDenoiser)
        document.update({"format": FORMAT, "geomem": __version__, "set": given.set, "network": settings["network"],
                     "folds": given.folds, "data": {"name": data.name, "sha256": data.sha256,
                                                    "n_train": len(data.train), "n_test": data.n_test},
                     "teachers": {**document.get("teachers", {}), f"{seed}": {
                         "settings": folds.config["settings"], "steps_done": [
                             folds.without_fold(fold).steps_done for fold in range(given.folds)]}}})

        def measure(network: str, denoiser: torch.nn.Module, seed: int = seed, teacher: Any = teacher,
                    **about: Any) -> None:
            rows.append({"seed": seed, "network": network, **about, **judged(denoiser, data),
                         "test_over_training_error": error_ratios(denoiser, data),
                         "towards_average": towards_average(denoiser, teacher, data)})
            print(f"seed {seed}, {network} {about}: {told(rows[-1])}", flush=True)
            write_json(given.summary, document)

        there = [row for row in rows if row["seed"] == seed]
        if not any(row["network"] == "teacher" for row in there):
            measure("teacher", teacher)
        if any(training.items() <= row.items() for row in there):
            continue
        if given.lessons == "no teacher":  # an ordinary training, as long as the others
            plan = replace(plan, teaching=None)
        else:
            made = Run(given.out / f"distil-{given.samples}-{seed}")
            samples = None if given.lessons == "training points" else plan.teaching.samples(made, plan.device)
            plan = replace(plan, lessons=lessons_of(given.lessons, data, samples))
        trainer = plan.trainer(plan.denoiser())
        for step in range(1, given.iterations + 1):
            trainer.step()
            if step in (*given.judge_at, given.iterations):
                measure("one network", trainer.ema, **training, step=step, settings=plan.config["settings"])


if __name__ == "__main__":
    main()
