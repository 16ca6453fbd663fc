"""One network beside cross-fitted ones: the trainings and measurements of bin/folds-study."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
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
ROW = "seed", "training", "weights", "routing"


def trained(plan: TrainingPlan, run: Run, until: int) -> None:
    """Train to step ``until`` of the plan, as Ctrl-C would end it there, unless that is done."""
    if run.exists and (run.steps_done or 0) >= until:
        return
    try:
        with closing(start_training(plan, run, resume=run.exists)) as states:
            for state in states:
                if state.step == until < plan.settings.iterations:
                    signal.raise_signal(signal.SIGINT)
    except Interrupted as stop:
        if (run.steps_done or 0) < until:  # by someone else
            raise SystemExit(f"{run.path}: {stop}") from None


class Averaged(torch.nn.Module):
    """The mean of several denoisers. Of cross-fitted ones whose folds are cut otherwise, each training point is left
    out by one network of each, so the subsets overlap.
    """

    def __init__(self, denoisers: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.denoisers = torch.nn.ModuleList(denoisers)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor | float, labels: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([denoiser(x, sigma, labels) for denoiser in self.denoisers]).mean(0)


def denoisers(single: Run, limited: Run, cuts: Sequence[Run], data: DataSet
              ) -> Iterator[tuple[str, str, str, Callable[[], torch.nn.Module]]]:
    """(training, weights, routing, what loads the denoiser) of all rows of a seed."""
    def of(run: Run, weights: str) -> Callable[[], torch.nn.Module]:
        return lambda: load_denoiser(run.path, weights).denoiser

    if single.steps_done == single.config["settings"]["iterations"]:
        yield "one network", "last", "", of(single, "last")
    for weights in ("early-stop", "per-level"):
        yield "one network", weights, "", of(single, weights)
    yield f"one network, --lean {LEAN}", "per-level", "", of(limited, "per-level")
    training = f"{cuts[0].folds} folds" if len(cuts) == 1 else f"{len(cuts)} x {cuts[0].folds} folds"
    for weights in ("early-stop", "per-level"):
        for routing in ("argmax", "soft"):
            loaded = partial(load_denoiser, weights=weights, data=data, routing=routing)
            yield training, weights, routing, lambda loaded=loaded: (
                loaded(cuts[0].path).denoiser if len(cuts) == 1 else
                Averaged([loaded(cut.path).denoiser for cut in cuts]))
    yield "Gaussian", "", "", lambda: GaussianDenoiser(torch.from_numpy(np.asarray(data.train)))


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
    parser.add_argument("--cuts", type=int, default=1, help="average so many cross-fitted denoisers, each of as many "
                        "folds, cut otherwise (%(default)s)")
    parser.add_argument("--until", type=int, metavar="STEP", help="end each training there, as Ctrl-C would")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE.json", help="rows that it has are kept")
    given = parser.parse_args()
    if given.cuts < 1:
        parser.error(f"--cuts is {given.cuts}; at least one cut of folds is needed")
    torch.set_num_threads(1)
    settings = SETS[given.set]
    given.out.mkdir(parents=True, exist_ok=True)
    dataset = load_set(given.set, given.data, given.out)
    until = given.until or settings["iterations"]
    document: dict[str, Any] = {"rows": [], "steps_done": {}}
    if given.summary.exists():
        document = json.loads(given.summary.read_text())
    rows = document["rows"]
    there = {tuple(row[name] for name in ROW) for row in rows}
    for seed in given.seeds:
        options: dict[str, Any] = {"data": dataset, "device": "cpu", "decay": 1.0, "precision": given.precision,
                                   **settings}
        single, limited = (Run(given.out / f"{name}-{seed}") for name in ("one", "lean"))
        trained(plan_training(seed=seed, **options), single, until)
        trained(plan_training(seed=seed, lean=LEAN, **options), limited, until)
        cuts = []
        for cut in range(given.cuts):
            plan = plan_training(folds=given.folds, seed=seed + 1000 * cut, **options)
            cuts.append(folds := Run(given.out / f"folds-{given.folds}-{seed + 1000 * cut}"))
            if not folds.exists:
                folds.create(plan.config)
                folds.write_folds(plan.fold_of)
            for fold in range(given.folds):
                trained(plan.without_fold(fold), folds.without_fold(fold), until)
        data = plan.dataset
        document["steps_done"] |= {run.path.name: run.steps_done for run in (single, limited, *cuts)}
        for training, weights, routing, load in denoisers(single, limited, cuts, data):
            if (seed, training, weights, routing) in there:
                continue
            rows.append({**dict(zip(ROW, (seed, training, weights, routing), strict=True)), **measured(load(), data)})
            print(f"seed {seed}, {training} {weights} {routing}: {told(rows[-1])}, AUC "
                  f"{rows[-1]['membership']['strongest']['area']:.3f}", flush=True)
            write_json(given.summary, {
                **document, "format": FORMAT, "geomem": __version__, "set": given.set,
                "network": plan.config["network"],
                "settings": {name: value for name, value in plan.config["settings"].items() if name != "seed"},
                "data": {"name": data.name, "sha256": data.sha256, "n_train": len(data.train), "n_test": data.n_test}})


if __name__ == "__main__":
    main()
