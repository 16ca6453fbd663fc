"""What do earlier weights cost? One training, its weights chosen in many ways: the measurements of bin/knobs-study."""

from __future__ import annotations

from typing import Any

import torch
from folds_study import measured
from prevention_study import load_set, options_of, plan_of, told
from torch import nn

from geomem import __version__
from geomem.data import DataSet
from geomem.files import write_json
from geomem.memorization import default_watch_every
from geomem.rng import torch_generator
from geomem.training import BestWeights, EarlierWeights, Trainer, evaluation_steps, heldout_monitor, watch_steps
from geomem.training.best_weights import with_weights
from geomem.training.loss import heldout_losses

TOLERANCES = (0.005, 0.02, 0.05, 0.1, 0.2)
LIMITS = (1.4, 1.2, 1.1, 1.05)
FORMAT = "geomem.knobs-study/1"


def chosen(name: str, seed: int, data: DataSet, share: float) -> dict[str, tuple[Any, nn.Module]]:
    """After ``share`` of the steps of a set of bin/prevention-study: (steps, denoiser) of each choice of weights."""
    plan = plan_of(name, "none", seed, data, "fp32")
    settings, denoiser = plan.settings, plan.denoiser()
    trainer = Trainer(denoiser, plan.law.law, data.train, settings, None)
    looks = watch_steps(settings.iterations, settings.batch, default_watch_every(settings.iterations * settings.batch))
    monitor = heldout_monitor(trainer, data.train, data.validation, every=looks, sigmas=[], device="cpu")
    best = {f"tolerance {value:g}": BestWeights.log_spaced(tolerance=value) for value in TOLERANCES}
    best |= {f"lean {value:g}": BestWeights.log_spaced(lean=value) for value in LIMITS}
    before = {kind: EarlierWeights() for kind in ("copies", "leaning")}
    clean = torch.from_numpy(data.train)
    noise = torch.randn(clean.shape, generator=torch_generator(seed, "noise of training points"))
    evaluations = set(evaluation_steps(settings.iterations))
    for step in range(1, round(share * settings.iterations) + 1):
        trainer.step()
        if step in evaluations or monitor.is_due(step):
            losses = monitor.evaluate(step, trainer.ema)
            assert losses is not None
            training = heldout_losses(trainer.ema, clean, noise, BestWeights.log_spaced().centres.tolist())
            for weights in best.values():
                weights.update(step, losses, trainer.ema, training)
            for earlier in before.values():
                earlier.update(step, trainer.ema)
        if monitor.is_due(step):
            look = monitor.look(step, trainer.ema)
            assert look.leaning is not None
            if look.shows_copies():
                before["copies"].copies_seen(step)
            if look.leaning.low > 0.5:
                before["leaning"].copies_seen(step)
    assert monitor.best_weights is not None
    stop = monitor.best_weights.early_stop
    found: dict[str, tuple[Any, nn.Module]] = {
        "early stop": (stop, with_weights(trainer.ema, monitor.best_weights.snapshots[stop]))}
    for kind, earlier in before.items():
        if earlier.step is not None:
            found[f"half the steps at which {kind} appear"] = (
                earlier.step, with_weights(trainer.ema, earlier.snapshots[earlier.step]))
    return found | {way: (weights.steps, weights.stitched(trainer.ema)) for way, weights in best.items()}


def main() -> None:
    parser = options_of("knobs-study", __doc__)
    parser.add_argument("--set", default="digits")
    parser.add_argument("--share", type=float, default=0.5, help="of the set's steps that are done (%(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    data = load_set(given.set, given.data, given.out)
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        for way, (steps, denoiser) in chosen(given.set, seed, data, given.share).items():
            rows.append({"seed": seed, "weights": way, "steps": steps, **measured(denoiser, data)})
            print(f"seed {seed}, {way}: {told(rows[-1])}, AUC {rows[-1]['membership']['strongest']['area']:.3f}",
                  flush=True)
            write_json(given.out / f"knobs-{given.set}.json", {
                "format": FORMAT, "geomem": __version__, "set": given.set, "share_of_steps": given.share,
                "data": {"name": data.name, "sha256": data.sha256, "n_train": len(data.train), "n_test": data.n_test},
                "rows": rows})


if __name__ == "__main__":
    main()
