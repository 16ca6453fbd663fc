"""One network beside cross-fitted ones: the trainings and measurements of bin/folds-study."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prevention_study import SAMPLES, judged_samples, load_set, options_of, told

from geomem import __version__
from geomem.data import DataSet
from geomem.files import write_json
from geomem.generation import generate
from geomem.memorization import membership, risk_report
from geomem.models import GaussianDenoiser
from geomem.run_training import start_training
from geomem.training import Interrupted, Run, TrainingPlan, load_denoiser, plan_training

LEAN = 1.2
SETS: dict[str, dict[str, Any]] = {  # how a network is trained on a set of bin/prevention-study
    "digits": {"iterations": 1500, "batch": 256, "network": "unet-tiny"},
    "ecg": {"iterations": 2500, "batch": 256, "network": "mlp"},
    **{name: {"iterations": 600, "batch": 128, "network": "unet-tiny"}
       for name in ("faces16", "cars16", "pokemon16", "flowers16")},
}
FORMAT = "geomem.folds-study/3"


def trained(plan: TrainingPlan, run: Run, until: int) -> None:
    """Train to step ``until`` of the plan, as Ctrl-C would end it there, unless that is done."""
    if run.exists and (run.steps_done or 0) >= until:
        return
    try:
        with closing(start_training(plan, run, resume=run.exists)) as states:
            for state in states:
                if state.step == until < plan.settings.iterations:
                    signal.raise_signal(signal.SIGINT)
    except Interrupted:
        pass


def denoisers(single: Run, limited: Run, folds: Run, data: DataSet) -> Iterator[tuple[str, str, str, torch.nn.Module]]:
    """(training, weights, routing, denoiser) of all rows of a seed."""
    if single.steps_done == single.config["settings"]["iterations"]:
        yield "one network", "last", "", load_denoiser(single.path, "last").denoiser
    for weights in ("early-stop", "per-level"):
        yield "one network", weights, "", load_denoiser(single.path, weights).denoiser
    yield f"one network, --lean {LEAN}", "per-level", "", load_denoiser(limited.path, "per-level").denoiser
    for weights in ("early-stop", "per-level"):
        for routing in ("argmax", "soft"):
            loaded = load_denoiser(folds.path, weights, data=data, routing=routing)
            yield f"{folds.folds} folds", weights, routing, loaded.denoiser
    yield "Gaussian", "", "", GaussianDenoiser(torch.from_numpy(np.asarray(data.train)))


def measured(denoiser: torch.nn.Module, data: DataSet) -> dict[str, Any]:
    """Of 1,000 samples, and of the model's errors at training and test points.

    risk: rank correlation of what ``geomem risk`` says of a training point with how many samples it is nearest to.
    """
    samples = generate(denoiser, range(SAMPLES), data.train.shape[1:])
    found, report = membership(denoiser, data.train, data.test), risk_report(data.train, samples)
    return {**judged_samples(samples, data),
            "risk": report.to_dict()["samples"]["correlations"]["score"]["nearest_samples"],
            "membership": {"p_value": found.p_value, "strongest": found.strongest.to_dict(),
                           "n_train": found.n_train, "n_heldout": found.n_heldout,
                           "loss_area": {f"{attack.sigma:.3g}": attack.area.value for attack in found.attacks
                                         if attack.statistic == "loss"}}}


def main() -> None:
    parser = options_of("folds-study", __doc__)
    parser.add_argument("--set", choices=SETS, default="digits")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--until", type=int, metavar="STEP", help="end each training there, as Ctrl-C would")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = SETS[given.set]
    given.out.mkdir(parents=True, exist_ok=True)
    dataset = load_set(given.set, given.data, given.out)
    until = given.until or settings["iterations"]
    rows: list[dict[str, Any]] = []
    steps_done: dict[str, int | None] = {}
    for seed in given.seeds:
        options: dict[str, Any] = {"data": dataset, "seed": seed, "device": "cpu", "decay": 1.0,
                                   "precision": given.precision, **settings}
        single, limited, folds = (Run(given.out / f"{name}-{seed}") for name in ("one", "lean", f"folds-{given.folds}"))
        trained(plan_training(**options), single, until)
        trained(plan_training(lean=LEAN, **options), limited, until)
        plan = plan_training(folds=given.folds, **options)
        if not folds.exists:
            folds.create(plan.config)
            folds.write_folds(plan.fold_of)
        for fold in range(given.folds):
            trained(plan.without_fold(fold), folds.without_fold(fold), until)
        data = plan.dataset
        steps_done |= {run.path.name: run.steps_done for run in (single, limited, folds)}
        for training, weights, routing, denoiser in denoisers(single, limited, folds, data):
            rows.append({"seed": seed, "training": training, "weights": weights, "routing": routing,
                         **measured(denoiser, data)})
            print(f"seed {seed}, {training} {weights} {routing}: {told(rows[-1])}, AUC "
                  f"{rows[-1]['membership']['strongest']['area']:.3f}", flush=True)
        write_json(given.summary, {
            "format": FORMAT, "geomem": __version__, "set": given.set, "network": plan.config["network"],
            "settings": plan.config["settings"], "steps_done": steps_done, "folds": given.folds,
            "data": {"name": data.name, "sha256": data.sha256, "n_train": len(data.train), "n_test": data.n_test},
            "rows": rows})


if __name__ == "__main__":
    main()
