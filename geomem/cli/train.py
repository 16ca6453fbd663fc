"""``geomem train``: train a denoiser on a data set, with or without a gap in its noise levels."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.noise_levels import noise_level_options
from geomem.cli.options import data_options, device_option, load, require_data, together
from geomem.cli.output import progress_bar, warn
from geomem.cli.values import MAX_SAMPLES, Number
from geomem.processes import is_first, process_group

if TYPE_CHECKING:
    from geomem.training import TrainingPlan, TrainingState

network_options = together(
    click.option("--network", metavar="NAME",
                 help="mlp, unet1d, unet-tiny, unet-small, unet-grey, unet-cifar.  [default: by shape]"),
    click.option("--iterations", type=click.IntRange(1), default=4000, show_default=True, help="Training steps."),
    click.option("--batch", type=click.IntRange(1, MAX_SAMPLES), default=128, show_default=True,
                 help="Points per step."),
    click.option("--learning-rate", type=Number(0, min_open=True),
                 help="Of AdamW, after a warm-up of 100 steps.  [default: by network]"),
    click.option("--decay", type=Number(0, 1), default=0.0, show_default=True, metavar="SHARE",
                 help="Share of the steps, at the end, over which the learning rate falls to zero."),
    click.option("--dropout", type=Number(0, 1, max_open=True), default=0.0, show_default=True,
                 help="Share of the features dropped in training; it hides memorization."),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
                 help="bf16 is slow on processors without bf16 units."))
run_options = together(
    click.option("--resume", is_flag=True, help="Go on from the last checkpoint: repeat the same command with "
                 "--resume. More --iterations than before extend the run."),
    click.option("--dry-run", is_flag=True, help="Print the resolved options and the law of the noise levels as JSON, "
                 "write nothing."),
    click.option("--lean", type=Number(1), metavar="RATIO",
                 help="Of the best weights per noise level: take none whose validation loss is more than RATIO times "
                      "the loss of training points. 1.2 leans less on them than the best; nearer to 1 costs quality."),
    click.option("--watch-every", type=click.IntRange(0), metavar="IMAGES",
                 help="Look at memorization after so many images; 0 for never.  [default: within 5% of the time]"),
    click.option("--checkpoint-every", type=click.IntRange(1), metavar="IMAGES",
                 help="Write a checkpoint after so many images.  [default: every minute]"))
training_options = together(
    noise_level_options,
    click.option("--objective", type=click.Choice(["edm", "ddpm", "flow"]), default="edm", show_default=True,
                 help="edm predicts the preconditioned clean point, ddpm the noise, flow the velocity of flow "
                      "matching."),
    click.option("--flow-shift", type=Number(0, min_open=True), metavar="A",
                 help="With --objective flow: shift of the flow times towards noise, sigma by the factor A, in "
                      "training and in the steps of flow-euler and flow-heun.  [default: 1]"),
    network_options,
    click.option("--init", metavar="RUN|FOLDER|FILE.safetensors", type=click.Path(),
                 help="Start from the last weights of a run, from a diffusers folder (UNet2DModel and its scheduler), "
                      "which also decide the network and the objective, or from a file of weights of the same "
                      "network."),
    click.option("--flip", is_flag=True, help="Mirror every image left to right with probability one half in training; "
                 "it hides memorization."),
    click.option("--accumulate", type=click.IntRange(1), metavar="N",
                 help="Put each batch through the network in N pieces: less memory, the same training.  [default: as "
                     "many as keep the activations of a step below 4 GiB]"),
    click.option("--compile", is_flag=True,
                 help="Fuse the network's operations (torch.compile); needs a C++ compiler."),
    click.option("--channels-last", is_flag=True, help="Keep the channels of images innermost in memory; faster on "
                 "some GPUs, slower on most CPUs."),
    click.option("--conditional", is_flag=True, help="Train class by class, with the labels of the data."))


@click.command()
@data_options
@click.option("--out", required=True, metavar="RUN", type=click.Path(file_okay=False), help="Run directory to make.")
@training_options
@click.option("--minutes", type=Number(0, min_open=True), metavar="M",
              help="In place of --iterations: time some steps and choose the number of steps that this machine does in "
                   "M minutes, without --network the network too; said, and kept in config.json.")
@run_options
@click.option("--dummy-class", is_flag=False, flag_value=-1, type=int, default=0, metavar="[COUNT]",
             help="Add COUNT images of Gaussian noise as one more class (as many as training points, without "
                  "COUNT); samples are made of the data's class.")
@click.option("--stop-at-memorization", type=Number(0, 1, min_open=True), metavar="SHARE",
             help="Save and stop when this share of the watched samples is memorized.")
@click.option("--snapshots", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
             help="Type in which the best weights per noise level are stored; bf16 takes half the space.")
@click.option("--folds", type=int, metavar="K", help="Cut the training points into K parts and train K networks, each "
              "without one of them; geomem generate then lets no network answer near points that it saw. Takes K times "
              "as long, and held-out points choose nothing.")
@click.option("--forecast", metavar="FILE", type=click.Path(),
              help="The forecast.json of geomem forecast: say where in it the training is.")
@click.option("--tensorboard", is_flag=True, help="Write losses for TensorBoard too.")
@device_option
def train(data: str, out: str, objective: str, resume: bool, dry_run: bool, forecast: str | None,
          **options: Any) -> None:
    """Train a denoiser on DATA.

    A third of the held-out points, at most 500, are validation points: their denoising loss per noise level picks the
    best weights for each level, which geomem generate uses. The others are test points, which training never sees.

    Ctrl-C saves and stops; so does kill. Now and then a few samples are held against the training points (watch.jsonl,
    watch.png), with a warning when they begin to be copies, and against the test points, which choose nothing: are they
    nearer to training?

    Examples:

    \b
      geomem train digits --gap auto --out runs/digits
      torchrun --nproc-per-node 4 -m geomem train photos/ --out runs/photos
    """
    require_data(data, options["heldout"])
    from geomem.run_training import start_training
    from geomem.training import Run, plan_training

    context = click.get_current_context()
    group = context.with_resource(process_group())
    run = Run(out)
    if not resume and is_first():
        run.require_new()
    if options["minutes"] and context.get_parameter_source("iterations") is click.core.ParameterSource.DEFAULT:
        options["iterations"] = None
    if resume:
        options = run.as_begun(options)
    said = context.get_parameter_source("objective") is click.core.ParameterSource.COMMANDLINE
    plan = plan_training(data, objective=objective if said or not options["init"] else None, group=group, load=load,
                         **options)
    if dry_run:
        if is_first():
            click.echo(json.dumps({"config": plan.config, "noise_levels": plan.law.summary()}, indent=1))
        return
    states = start_training(plan, run, resume=resume, group=group, forecast=forecast)
    follow(states, plan, (run.steps_done or 0) if resume else 0)


def follow(states: Generator[TrainingState], plan: TrainingPlan, done: int) -> None:
    """Take the steps of a training that begins after ``done`` of them, with a progress bar; a signal and a loss that is
    not finite become exit statuses.
    """
    from geomem.training import Interrupted, TrainingDiverged

    shares: dict[str, str] = {}
    try:
        with closing(states), progress_bar(plan.trainings * plan.settings.iterations, "training", "step", done) as bar:
            for state in states:
                if state.fold is not None:
                    bar.set_description_str(f"training {state.fold + 1} of {plan.trainings}", refresh=False)
                if state.look is not None:
                    shares = {"memorized": f"{state.look.rate:.0%}"}
                    if state.look.leaning is not None:
                        shares["leaning"] = f"{state.look.leaning.share:.0%}"
                if not bar.disable and state.step % 10 == 0:  # on a GPU reading the loss costs a wait
                    bar.set_postfix(loss=f"{float(state.loss):.3g}", **shares, refresh=False)
                bar.update(state.step - bar.n)
    except Interrupted as stop:
        warn(f"geomem: stopped at step {stop.step:,} and saved; repeat the command with --resume to go on")
        raise SystemExit(128 + stop.signal_number) from None
    except TrainingDiverged as error:
        warn(f"geomem: {error}")
        raise SystemExit(1) from None
