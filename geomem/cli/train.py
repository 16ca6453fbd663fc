"""``geomem train``: train a denoiser on a data set, with or without a gap in its noise levels."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.engine import (
    Board,
    Classes,
    Watcher,
    classes_of,
    engine_options,
    levels_to_watch,
    require_possible,
    thin_grids,
)
from geomem.cli.noise_levels import noise_level_options
from geomem.cli.options import (
    MAX_SAMPLES,
    Number,
    data_options,
    device_option,
    lasting_spec,
    load,
    progress_bar,
    require_data,
    say,
    warn,
)
from geomem.errors import InputError
from geomem.processes import is_first, process_group, require_same

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.noise import ResolvedLaw
    from geomem.training import Origin, Run


@click.command()
@data_options
@click.option("--out", required=True, metavar="RUN", type=click.Path(file_okay=False), help="Run directory to make.")
@noise_level_options
@click.option("--objective", type=click.Choice(["edm", "ddpm"]), default="edm", show_default=True,
              help="edm predicts the preconditioned clean point, ddpm the noise.")
@click.option("--network", metavar="NAME",
              help="mlp, unet1d, unet-tiny, unet-small, unet-grey, unet-cifar.  [default: by shape]")
@click.option("--init", metavar="RUN|FOLDER|FILE.safetensors", type=click.Path(),
              help="Start from the last weights of a run, from a diffusers folder (UNet2DModel and its scheduler), "
                   "which also decide the network and the objective, or from a file of weights of the same network.")
@click.option("--iterations", type=click.IntRange(1), default=4000, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(1, MAX_SAMPLES), default=128, show_default=True, help="Points per step.")
@click.option("--learning-rate", type=Number(0, min_open=True),
              help="Of AdamW, after a warm-up of 100 steps.  [default: by network]")
@click.option("--decay", type=Number(0, 1), default=0.0, show_default=True, metavar="SHARE",
              help="Share of the steps, at the end, over which the learning rate falls to zero.")
@click.option("--dropout", type=Number(0, 1, max_open=True), default=0.0, show_default=True,
              help="Share of the features dropped in training; it hides memorization.")
@click.option("--flip", is_flag=True, help="Mirror every image left to right with probability one half in training; "
              "it hides memorization.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
              help="bf16 is slow on processors without bf16 units.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint: repeat the same command with --resume.")
@click.option("--dry-run", is_flag=True, help="Print the resolved options and the law of the noise levels as JSON, "
              "write nothing.")
@engine_options
@device_option
def train(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int,
          out: str, gaps: tuple[str, ...], gap_keep: float, sampler: str | None, ci: tuple[float, float] | str | None,
          objective: str, network: str | None, init: str | None, iterations: int, batch: int,
          learning_rate: float | None, decay: float, dropout: float, flip: bool, precision: str, resume: bool,
          dry_run: bool, device: str, **engine: Any) -> None:
    """Train a denoiser on DATA.

    A third of the held-out points, at most 500, steer: their denoising loss per noise level picks the best weights for
    each level, which geomem generate uses. The other held-out points only judge.

    Ctrl-C saves and stops; so does kill. Now and then a few samples are held against the training points (watch.jsonl,
    watch.png), with a warning when they begin to be copies.

    Examples:

    \b
      geomem train digits --gap auto --out runs/digits
      torchrun --nproc-per-node 4 -m geomem train photos/ --out runs/photos
    """
    require_data(data, heldout)
    from dataclasses import asdict

    import torch

    from geomem import __version__
    from geomem.devices import resolve_device
    from geomem.memorization import Watch, default_watch_every
    from geomem.models import NETWORKS, build_network, default_network
    from geomem.noise import resolve_law
    from geomem.training import (
        EarlierWeights,
        Interrupted,
        Origin,
        Run,
        Trainer,
        TrainingDiverged,
        TrainingSettings,
        initial_denoiser,
    )
    from geomem.training import train as run_training

    group = click.get_current_context().with_resource(process_group())
    require_possible(engine, batch, 1 if group is None else group.size())
    run = Run(out)
    if not resume and is_first():
        run.require_new()
    device_found = resolve_device(device)
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed)
    shape = dataset.train.shape[1:]
    origin = Origin(init, shape) if init else None
    taken = {} if origin is None else _taken_from(origin, network, objective)
    network, objective = taken.get("network", network or default_network(shape)), taken.get("objective", objective)
    if "diffusers" not in taken:
        build_network(network, shape)  # refuses an unknown name or shape before anything is written
    elif dropout:
        taken["diffusers"]["unet"]["dropout"] = dropout
    if flip and len(shape) != 3:
        raise InputError(f"--flip mirrors images; the points of {data} have shape {shape}")
    sigma_data = dataset.std
    if not 0.05 <= sigma_data <= 10:
        raise InputError(f"{data}: the standard deviation of the values is {sigma_data:.3g}, but the noise levels, "
                         "0.002 to 80, suit one near 0.5; rescale the data so that it lies in [0.05, 10]")
    if len(dataset.train) - dataset.duplicates < 2:
        raise InputError(f"{data}: all training points are equal; at least 2 distinct ones are needed")
    classes = classes_of(dataset, engine["conditional"], engine["dummy_class"], seed)
    if classes.count and "diffusers" in taken:
        raise InputError(f"--init {init}: a diffusers network is trained without classes; leave out --conditional and "
                         "--dummy-class")
    levels = resolve_law(dataset, objective, sampler=sampler, ci=ci, gaps=gaps, gap_keep=gap_keep, seed=seed,
                         device=device)
    usual_rate = NETWORKS[network].learning_rate if network in NETWORKS else 1e-4
    division = {name: engine[name] for name in ("accumulate", "compiled", "channels_last")}
    settings = TrainingSettings(iterations=iterations, batch=batch, precision=precision, seed=seed, decay=decay,
                                learning_rate=learning_rate or usual_rate, flip=flip)
    config = {
        "geomem": __version__,
        "data": {"spec": lasting_spec(data), "heldout": lasting_spec(heldout), "n_train": n_train,
                 "n_heldout": n_heldout, "shuffle": shuffle, "seed": seed, "name": dataset.name,
                 "sha256": dataset.sha256},
        "shape": list(shape), "objective": objective, "network": network, "dropout": dropout, **classes.record,
        "sigma_data": sigma_data, "sampler": levels.law.to_dict(), "gap": list(gaps), "snapshots": engine["snapshots"],
        "settings": asdict(settings), **taken, "init": None if init is None else os.path.abspath(init),
        "engine": {**division, "processes": 1 if group is None else group.size(),
                   "watch_every": engine["watch_every"], "stop_at": engine["stop_at"]},
    }
    if dry_run:
        if is_first():
            click.echo(json.dumps({"config": config, "noise_levels": levels.summary()}, indent=1))
        return
    denoiser = initial_denoiser(config, seed, data)
    if origin is not None:
        origin.load_into(denoiser)  # refuses weights that do not fit before anything is written
    if group is not None:
        require_same(config, group)
    if is_first():
        if resume:
            run.continue_with(config)
        else:
            run.create(config)
            _draw_law(run, levels)
        if levels.document is not None:
            run.write_json("danger-zone.json", levels.document)
    trainer = Trainer(denoiser.to(device_found), levels.law, classes.train, settings, classes.labels, group=group,
                      **division)
    every, watcher = engine["watch_every"], None
    if every != 0:
        every = every or default_watch_every(iterations * batch)
    snapshot_dtype = torch.bfloat16 if engine["snapshots"] == "bf16" else None
    earlier = None
    if is_first() and (every or (run.path / "before-copies.json").exists()):
        earlier = EarlierWeights(snapshot_dtype)
    if every and earlier is not None:
        watch = Watch(dataset.train, dataset.validation if dataset.n_validation else None,
                      levels_to_watch(levels.gaps, levels.document, sigma_data),
                      labels=classes.of_data, seed=seed, device=device_found)
        watcher = Watcher(run, watch, classes, engine["stop_at"], earlier)
    validation = dataset.validation if dataset.n_validation else None
    parameters = sum(p.numel() for p in trainer.denoiser.parameters())
    say(f"{network} ({parameters / 1e6:.2f}M parameters) on {len(dataset.train):,} points of {dataset.name}; "
        f"{dataset.n_validation:,} held-out points steer, {len(dataset.test):,} judge")
    with progress_bar(iterations, "training", "step") as bar:
        def on_step(step: int, loss: float | None) -> None:
            bar.update(step - bar.n)
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.3g}")

        try:
            best = run_training(run, trainer, validation, on_step=on_step,
                                validation_labels=classes.validation_labels,
                                on_evaluation=Board(run) if engine["tensorboard"] else None,
                                on_checkpoint=lambda trainer: _pictures(run, trainer, dataset, classes, watcher),
                                watch=watcher, watch_every=every or None, earlier=earlier,
                                checkpoint_every=engine["checkpoint_every"], snapshot_dtype=snapshot_dtype)
        except Interrupted as stop:
            warn(f"geomem: stopped at step {stop.step:,} and saved; repeat the command with --resume to go on")
            raise SystemExit(128 + stop.signal_number) from None
        except TrainingDiverged as error:
            warn(f"geomem: {error}")
            raise SystemExit(1) from None
    if watcher is not None and watcher.stopped:
        say(f"{out}: {watcher.stopped}")
    say(f"{out}: {trainer.steps_done:,} steps done")
    if best is not None:
        first, last = min(best.steps), max(best.steps)
        chosen = (f"step {last:,} for all" if first == last else
                  f"{len(set(best.steps))} snapshots, steps {first:,} to {last:,}")
        say(f"best weights per noise level: {chosen}; one early stop: step {best.early_stop:,}")
    if earlier is not None and earlier.step is not None:
        say(f"copies were seen at step {earlier.copies_at:,}; weights before-copies: step {earlier.step:,}")


def _taken_from(origin: Origin, network: str | None, objective: str) -> dict[str, Any]:
    """The options that --init decides. Raises InputError where one was given that says otherwise."""
    asked = {"network": network}
    source = click.get_current_context().get_parameter_source("objective")
    asked["objective"] = objective if source is click.core.ParameterSource.COMMANDLINE else None
    for name, value in asked.items():
        if value is not None and origin.config.get(name, value) != value:
            raise InputError(f"--init {origin.path} has the {name} {origin.config[name]}; leave out --{name} {value}")
    return origin.config


def _draw_law(run: Run, levels: ResolvedLaw) -> None:
    """The picture of the law beside the plain one."""
    from geomem.files import atomic_path
    from geomem.plots import plot_density

    with atomic_path(run.path / "noise-level-law.png") as temporary:
        plot_density(levels.named, (levels.document or {}).get("zone")).savefig(temporary, dpi=150)


def _pictures(run: Any, trainer: Any, dataset: DataSet, classes: Classes, watcher: Watcher | None, n: int = 16) -> None:
    """Sixteen samples of the averaged weights, each beside its nearest training point, and what was watched so far."""
    import numpy as np

    from geomem.files import atomic_path
    from geomem.generation import generate
    from geomem.memorization import memorization_rate
    from geomem.plots import plot_samples

    labels = None if classes.names is None else np.arange(n) % len(classes.names)
    samples = generate(classes.unconditional(trainer.ema), range(n), dataset.train.shape[1:], labels=labels)
    rate = memorization_rate(samples, dataset.train)
    figure = plot_samples(samples, dataset.train[rate.nearest], rate.ratios, rate.memorized)
    with atomic_path(run.path / f"samples-{trainer.steps_done:07d}.png") as temporary:
        figure.savefig(temporary, dpi=120)
    thin_grids(run)
    if watcher is not None:
        watcher.draw()
