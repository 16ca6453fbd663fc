"""``geomem train``: train a denoiser on a data set, with or without a gap in its noise levels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import Interval, data_options, device_option, lasting_spec, load, progress_bar, say
from geomem.errors import InputError

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.noise import NoiseLevelSampler


@click.command()
@data_options
@click.option("--out", required=True, metavar="RUN", type=click.Path(file_okay=False), help="Run directory to make.")
@click.option("--gap", default="none", show_default=True, metavar="auto|zone|none|LO:HI[,LO:HI]|FILE",
              help="Noise levels to leave out of training: the danger zone of the data (zone), the wider range that "
                   "geomem recommends (auto), ranges in sigma, or the zone in a danger-zone.json or the "
                   "directory that holds one.")
@click.option("--sampler", type=click.Choice(["lognormal", "uniform", "ci"]), help="Law of the training noise levels. "
              "lognormal is EDM's, scaled to the data.  [default: lognormal for edm, uniform for ddpm, ci with --ci]")
@click.option("--ci", type=Interval(), help="Confidence interval over DDPM timesteps, for --sampler ci.")
@click.option("--objective", type=click.Choice(["edm", "ddpm"]), default="edm", show_default=True,
              help="edm predicts the preconditioned clean point, ddpm the noise.")
@click.option("--network", metavar="NAME", help="mlp, unet1d, unet-tiny, unet-small, unet-cifar.  [default: by shape]")
@click.option("--iterations", type=click.IntRange(1), default=4000, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True, help="Points per step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True),
              help="Of AdamW, after a warm-up of 100 steps.  [default: by network]")
@click.option("--decay", type=click.FloatRange(0, 1), default=0.0, show_default=True, metavar="SHARE",
              help="Share of the steps, at the end, over which the learning rate falls to zero.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
              help="Share of the features dropped in training; it hides memorization.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
              help="bf16 is slow on processors without bf16 units.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint: repeat the same command with --resume.")
@device_option
def train(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int,
          out: str, gap: str, sampler: str | None, ci: tuple[float, float] | None, objective: str, network: str | None,
          iterations: int, batch: int, learning_rate: float | None, decay: float, dropout: float, precision: str,
          resume: bool, device: str) -> None:
    """Train a denoiser on DATA.

    A third of the held-out points, at most 500, steer: their denoising loss per noise level picks the best weights for
    each level, which geomem generate uses. The other held-out points only judge.

    Ctrl-C saves and stops; so does kill. Example: geomem train digits --gap auto --out runs/digits
    """
    from dataclasses import asdict

    import torch

    from geomem import __version__
    from geomem.devices import resolve_device
    from geomem.models import NETWORKS, build_network, default_network
    from geomem.rng import key
    from geomem.training import Interrupted, Run, Trainer, TrainingDiverged, TrainingSettings
    from geomem.training import train as run_training

    run = Run(out)
    if not resume:
        run.require_new()
    device_found = resolve_device(device)
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed)
    shape = dataset.train.shape[1:]
    network = network or default_network(shape)
    build_network(network, shape)  # refuses an unknown name or shape before anything is written
    sigma_data = dataset.std
    if not 0.05 <= sigma_data <= 10:
        raise InputError(f"{data}: the standard deviation of the values is {sigma_data:.3g}, but the noise levels, "
                         "0.002 to 80, suit one near 0.5; rescale the data so that it lies in [0.05, 10]")
    if len(dataset.train) - dataset.duplicates < 2:
        raise InputError(f"{data}: all training points are equal; at least 2 distinct ones are needed")
    levels, document = _noise_levels(dataset, sigma_data, objective, sampler, ci, gap, seed, device)
    settings = TrainingSettings(iterations=iterations, batch=batch, precision=precision, seed=seed, decay=decay,
                                learning_rate=learning_rate or NETWORKS[network].learning_rate)
    config = {
        "geomem": __version__,
        "data": {"spec": lasting_spec(data), "heldout": lasting_spec(heldout), "n_train": n_train,
                 "n_heldout": n_heldout, "shuffle": shuffle, "seed": seed, "name": dataset.name,
                 "sha256": dataset.sha256},
        "shape": list(shape), "objective": objective, "network": network, "dropout": dropout, "classes": 0,
        "sigma_data": sigma_data, "sampler": levels.to_dict(), "gap": gap,
        "settings": asdict(settings),
    }
    if resume:
        run.continue_with(config)
    else:
        run.create(config)
    if document is not None:
        run.write_json("danger-zone.json", document)
    torch.manual_seed(key(seed, "initial weights") & (2**63 - 1))
    trainer = Trainer(run.untrained().to(device_found), levels, dataset.train, settings)
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
                                on_checkpoint=lambda trainer: _sample_grid(run, trainer, dataset))
        except Interrupted as stop:
            say(f"geomem: stopped at step {stop.step:,} and saved; repeat the command with --resume to go on")
            raise SystemExit(128 + stop.signal_number) from None
        except TrainingDiverged as error:
            say(f"geomem: {error}")
            raise SystemExit(1) from None
    say(f"{out}: {settings.iterations:,} steps done")
    if best is not None:
        say(f"best weights per noise level: {len(set(best.steps))} snapshots, steps {min(best.steps):,} to "
            f"{max(best.steps):,}; one early stop: step {best.early_stop:,}")


def _noise_levels(dataset: DataSet, sigma_data: float, objective: str, sampler: str | None,
                  ci: tuple[float, float] | None, gap: str, seed: int,
                  device: str) -> tuple[NoiseLevelSampler, dict[str, Any] | None]:
    """The noise-level sampler, and the danger-zone document where the gap came from the curves."""
    from geomem.noise import (
        SIGMA_MAX,
        SIGMA_MIN,
        ConfidenceIntervalSampler,
        GapSampler,
        LogNormalSampler,
        UniformTimestepSampler,
    )

    kind = sampler or ("ci" if ci else {"edm": "lognormal", "ddpm": "uniform"}[objective])
    if (kind == "ci") != (ci is not None):
        raise InputError("--sampler ci needs --ci LO:HI in DDPM timesteps" if ci is None
                         else f"--ci has no effect with --sampler {kind}; use --sampler ci")
    base: NoiseLevelSampler
    if kind == "ci":
        assert ci is not None
        base = ConfidenceIntervalSampler(*ci)
    else:
        base = LogNormalSampler.for_data(sigma_data) if kind == "lognormal" else UniformTimestepSampler()
    gaps, document = _gaps(dataset, gap, seed, device)
    if not gaps:
        return base, document
    for low, high in gaps:
        if low >= SIGMA_MAX or high <= SIGMA_MIN:
            raise InputError(f"--gap {low:g}:{high:g} lies outside the schedule, sigma {SIGMA_MIN:g} to {SIGMA_MAX:g}")
    law = GapSampler(base, gaps)
    say("gap: sigma " + ", ".join(f"{low:.3g} to {high:.3g}" for low, high in law.gaps)
        + f" left out of training, {law.removed_mass:.1%} of the draws")
    return law, document


def _gaps(dataset: DataSet, gap: str, seed: int,
          device: str) -> tuple[list[tuple[float, float]], dict[str, Any] | None]:
    if gap == "none":
        return [], None
    if gap in ("auto", "zone"):
        from geomem.cli.danger_zone import document_of
        from geomem.geometry import find_danger_zone, geometry_curves, refined_curves, widened_gap

        curves = geometry_curves(dataset.train, dataset.heldout, seed=seed, device=device)
        refined = refined_curves(dataset.train, dataset.heldout, curves, device=device)
        document = document_of(dataset, curves, refined)
        zone = find_danger_zone(refined)
        if gap == "auto":
            return [widened_gap(refined, zone)], document
        if zone is None:
            raise InputError(f"--gap zone: {dataset.name} has no danger zone ({document['zone_reason']}); "
                             "use --gap auto, LO:HI or none")
        return [(zone.sigma_low, zone.sigma_high)], document
    if os.path.exists(gap):
        return [_zone_of_file(gap, dataset)], None
    try:
        return [Interval().convert(part, None, None) for part in gap.split(",")], None
    except click.BadParameter as error:
        raise InputError(f"--gap {error.message}; give auto, zone, none, LO:HI in sigma or an existing "
                         "danger-zone.json") from None


def _zone_of_file(path: str, dataset: DataSet) -> tuple[float, float]:
    """The zone of a danger-zone file, or of the one in a directory; a note where it is of something else."""
    from geomem.cli.plot_curves import read_document

    document = read_document(path)
    zone, data, space = document["zone"], document["data"], document.get("space", {"name": "data"})
    if zone is None:
        raise InputError(f"--gap {path}: the file holds no danger zone; use --gap auto, LO:HI or none")
    if data.get("sha256") != dataset.sha256:
        say(f"note: --gap {path} is the zone of other data: {data.get('name', 'unnamed')}, {data['n_train']:,} "
            f"training and {data['n_heldout']:,} held-out points; here they are {dataset.name}, "
            f"{len(dataset.train):,} and {len(dataset.heldout):,}")
    if space["name"] != "data":
        say(f"note: --gap {path} is the zone in the space {space['name']}; training is in that of the data")
    return zone["sigma_low"], zone["sigma_high"]


def _sample_grid(run: Any, trainer: Any, dataset: DataSet, n: int = 16) -> None:
    """Sixteen samples of the averaged weights, each beside its nearest training point."""
    from geomem.files import atomic_path
    from geomem.generation import generate
    from geomem.memorization import memorization_rate
    from geomem.plots import plot_samples

    samples = generate(trainer.ema, range(n), dataset.train.shape[1:])
    rate = memorization_rate(samples, dataset.train)
    figure = plot_samples(samples, dataset.train[rate.nearest], rate.ratios, rate.memorized)
    with atomic_path(run.path / f"samples-{trainer.steps_done:07d}.png") as temporary:
        figure.savefig(temporary, dpi=120)
