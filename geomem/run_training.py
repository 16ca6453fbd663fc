"""A training from data to run directory: weights, curves, pictures."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from geomem.errors import InputError, counted
from geomem.files import draw_figure, write_json
from geomem.generation import generate
from geomem.memorization import MemorizationCheck, memorization_rate
from geomem.models.diffusers_folder import can_be_pipeline
from geomem.plots import plot_density, plot_samples, plot_watch
from geomem.plots.samples import drawable
from geomem.processes import process_group, require_same
from geomem.training.checkpoint import tidy
from geomem.training.cost import PICTURES, hours_advice
from geomem.training.distillation import plan_distillation
from geomem.training.forecast import EVENTS, place_in_forecast, read_forecast, words
from geomem.training.loop import Interrupted, TrainingState, train_steps
from geomem.training.monitor import Monitor
from geomem.training.plan import TrainingPlan, plan_training
from geomem.training.run import Run
from geomem.training.trainer import Trainer

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch.distributed import ProcessGroup

    from geomem.data.points import Values

LOG = logging.getLogger("geomem")
MAX_GRIDS = 12  # pictures of samples that a run keeps
GRID_SAMPLES = 16
SECONDS_TO_JUDGE = 5.0  # of steps, before it is said how long all take
MAX_NAMED = 20  # classes, whose names are said


def train(data: Any, out: str | Path, *, resume: bool = False, progress: Callable[[int, int], None] | None = None,
          forecast: str | Path | None = None, **options: Any) -> Run:
    """Train a denoiser on ``data`` and leave it in the new directory ``out``, as ``geomem train`` does.

    ``data``: a DataSet, DATA as ``load_data`` takes it, or arrays (train, heldout); ``options``: those of the command,
    as ``training.plan_training`` describes them. ``resume`` goes on from the last checkpoint in ``out`` and ends like
    an uninterrupted run; with more ``iterations`` than before it extends the run. ``progress(done, total)`` is called
    after each step. ``forecast``: the file of a ``geomem.forecast`` of this training, which is then told where it is in
    it. Processes that torchrun started share the work.

    Raises InputError for options that are wrong, ``training.Interrupted`` where a signal stopped the training, which is
    saved then, and ``training.TrainingDiverged``.
    """
    run = Run(out)
    with process_group() as group:
        if not resume and (group is None or group.rank() == 0):
            run.require_new()
        plan = plan_training(data, group=group, **run.as_begun(options) if resume else options)
        with closing(start_training(plan, run, resume=resume, group=group, forecast=forecast)) as states:
            for state in states:
                if progress is not None:
                    progress(state.step, plan.trainings * plan.settings.iterations)
    return run


def distil(teacher: str | Path, out: str | Path, *, resume: bool = False,
           progress: Callable[[int, int], None] | None = None, **options: Any) -> Run:
    """Train one network on samples and answers of ``teacher``, a run, and leave it in the new directory ``out``, as
    ``geomem distil`` does.

    ``options``: those of the command, as ``training.plan_distillation`` describes them. resume, progress, errors: as
    ``train`` has them; where sampling the teacher is interrupted, ``resume`` goes on with it.
    """
    run = Run(out)
    if not resume:
        run.require_new()
    plan = plan_distillation(teacher, **options)
    with closing(start_training(plan, run, resume=resume)) as states:
        for state in states:
            if progress is not None:
                progress(state.step, plan.settings.iterations)
    return run


def start_training(plan: TrainingPlan, run: Run, *, resume: bool = False, group: ProcessGroup | None = None,
                   sampling: Callable[[int, int], None] | None = None,
                   forecast: str | Path | None = None) -> Generator[TrainingState]:
    """Make the run directory, or check that it is of the same plan, and return the steps of the training.

    The steps are those of ``training.train_steps``; between them pictures are drawn and people are told what they
    should know. Whoever may leave them early closes them. Before the steps of a distillation its teacher is sampled,
    and ``sampling(done, total)`` is called after each batch of samples.
    """
    denoiser, foreseen = plan.denoiser(), None
    if forecast is not None:
        if plan.fold_of is not None:
            raise InputError("--forecast is of one network that sees all points; it says nothing of --folds")
        foreseen = read_forecast(forecast, plan.config)
    if group is not None:
        require_same(plan.config, group)
    first = group is None or group.rank() == 0
    if first:
        if resume:
            before = run.continue_with(plan.config)
            if before is not None and plan.fold_of is None:
                _tell_longer(plan, run, before)
        else:
            run.create(plan.config)
            zone = (plan.law.document or {}).get("zone")
            draw_figure(run.path / "noise-level-law.png",
                        lambda: plot_density(plan.law.named, zone, plan.law.schedule))
        if plan.law.document is not None:
            write_json(run.path / "danger-zone.json", plan.law.document)
        if plan.fold_of is not None:
            run.write_folds(plan.fold_of)
    if plan.fold_of is not None:
        return _without_each_fold(plan, run, group)
    if plan.teaching is not None:
        tidy(run)
        plan = replace(plan, lessons=plan.teaching.samples(run, plan.device, sampling))
    trainer = plan.trainer(denoiser, group)
    monitor = plan.monitor(trainer) if first else None
    dataset = plan.dataset
    parameters = sum(p.numel() for p in trainer.denoiser.parameters())
    if not drawable(dataset.train.shape[1:]):
        LOG.info(f"note: points of shape {tuple(dataset.train.shape[1:])} cannot be drawn; the run keeps no pictures "
                 "of samples")
    if plan.config["objective"] != "edm" and len(dataset.train.shape) == 4:
        lacks = can_be_pipeline(denoiser, tuple(dataset.train.shape[1:]))
        if lacks:
            LOG.info(f"note: geomem export will make no DDPMPipeline of this run: {lacks}; unet-small is a UNet2DModel")
    points = f"{len(dataset.train):,} points of" if plan.teaching is None else (
        f"{counted(plan.teaching.count, 'sample')} and answers of {plan.teaching.teacher.path}, for")
    LOG.info(f"{plan.config['network']} ({parameters / 1e6:.2f}M parameters) on {points} "
             f"{dataset.name}; {len(plan.validation):,} validation and {counted(dataset.n_test, 'test point')}")
    names, labels = plan.classes.class_names, plan.classes.names
    said = [f"{name} is label {label}" for name, label in zip(names or [], labels or [], strict=False)
            if name != str(label)]
    if said:
        LOG.info(f"classes: {', '.join(said[:MAX_NAMED])}{', ...' if len(said) > MAX_NAMED else ''}")
    return _steps(plan, run, trainer, monitor, foreseen)


def _without_each_fold(plan: TrainingPlan, run: Run, group: ProcessGroup | None) -> Generator[TrainingState]:
    """A network without each fold, one after another; those that are done are passed over."""
    steps = plan.settings.iterations
    for fold in range(plan.trainings):
        LOG.info(f"training {fold + 1} of {plan.trainings}: without fold {fold}")
        part = run.without_fold(fold)
        if group is None or group.rank() == 0:
            tidy(part)  # a kill while its directory was made
        try:
            with closing(start_training(plan.without_fold(fold), part, resume=part.exists, group=group)) as states:
                for state in states:
                    yield replace(state, step=fold * steps + state.step, fold=fold)
        except Interrupted as stop:
            raise Interrupted(fold * steps + stop.step, stop.signal_number) from None
    _tell_next(plan, run)


def _tell_longer(plan: TrainingPlan, run: Run, before: int) -> None:
    """That a run of ``before`` steps goes on to more, and whether it comes out as if it had been planned so."""
    settings, last = plan.settings, (run.steps_done or 1) - 1
    LOG.info(f"{run.path}: extended from {before:,} to {settings.iterations:,} steps")
    # The rate falls last of all, so all steps had the rates of the longer training if the last one had.
    if replace(settings, iterations=before).learning_rate_at(last) != settings.learning_rate_at(last):
        LOG.warning(f"warning: the learning rate had begun to fall (--decay {settings.decay:g}) and now rises again; "
                    f"the weights will not be those of a training planned for {settings.iterations:,} steps")


def _steps(plan: TrainingPlan, run: Run, trainer: Trainer, monitor: Monitor | None,
           foreseen: dict[str, Any] | None = None) -> Generator[TrainingState]:
    board: Any = None
    of_forecast = "part" in plan.config  # which says itself what it saw
    warned = of_forecast or any(line["has_set_in"] for line in run.lines("watch.jsonl"))
    is_one_of_many = of_forecast or "without_fold" in plan.config
    began, judged, placed, drawing = 0.0, of_forecast, -1, 0.0
    started = time.monotonic()
    with closing(train_steps(run, trainer, monitor, checkpoint_every=plan.checkpoint_every,
                             another_follows=is_one_of_many)) as states:
        for count, state in enumerate(states):
            if count == 0:
                began = time.monotonic()  # the first step is slower than the others
            elif not judged and (seconds := time.monotonic() - began) > SECONDS_TO_JUDGE:
                advice, judged = hours_advice(seconds / count, plan.settings.iterations - state.step), True
                if advice is not None and monitor is not None:
                    LOG.info(advice)
            if foreseen is not None and monitor is not None and (count == 0 or state.evaluation is not None):
                _tell_place(foreseen, placed, state.step, plan.settings.iterations)
                placed = state.step
            if plan.tensorboard and monitor is not None and state.evaluation is not None:
                board = board or tensorboard_writer(run, state.step)
                board.add_scalar("loss", state.evaluation["loss"], state.step)
                if "heldout_mse" in state.evaluation:
                    board.add_scalar("heldout_mse", sum(state.evaluation["heldout_mse"]), state.step)
                board.flush()
            if state.look is not None and state.look.has_set_in and not warned:
                warned = True
                LOG.warning(f"warning: memorization has set in: {_words(state.step, state.look)}")
            now = time.monotonic()
            last = state.step == plan.settings.iterations or (monitor is not None and monitor.should_stop)
            if state.saved and (last or plan.checkpoint_every or drawing <= PICTURES * (now - started)):
                _draw(plan, run, trainer)
                drawing += time.monotonic() - now
            yield state
    if monitor is not None and not of_forecast:
        _tell(plan, run, trainer, monitor)
    if not is_one_of_many:
        _tell_next(plan, run)


def _tell_place(foreseen: dict[str, Any], before: int, step: int, iterations: int) -> None:
    """Where the training is in its forecast, wherever that changes, and at first what its last step means."""
    for line in place_in_forecast(foreseen, step, before, iterations):
        LOG.info(line)
    for event in EVENTS if before < 0 else ():
        onset = foreseen[event]
        if onset["step"] is None:
            LOG.info(f"forecast: cannot tell when {event} sets in: {onset['reason']}")
        elif iterations > onset["low"]:
            LOG.warning(f"warning: --iterations {iterations:,} goes beyond {words(onset)}, where the forecast has "
                        f"{event} set in")


def tensorboard_writer(run: Run, step: int) -> Any:
    """What writes for TensorBoard from ``step`` on; what a killed process wrote for it and later ones is forgotten."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path / "tensorboard"), purge_step=step)


def _draw(plan: TrainingPlan, run: Run, trainer: Trainer) -> None:
    """Some samples of the averaged weights, each beside its nearest training point, and what the looks found so far."""
    lines = run.lines("watch.jsonl") if plan.watch_every else []
    if lines:
        draw_figure(run.path / "watch.png", lambda: plot_watch(lines, stop_at=plan.stop_at), dpi=120)
    train = plan.dataset.train
    if not drawable(train.shape[1:]):
        return
    samples = generate(trainer.ema, range(GRID_SAMPLES), train.shape[1:], labels=plan.classes.in_turns(GRID_SAMPLES))
    draw_figure(run.path / f"samples-{trainer.steps_done:07d}.png", lambda: _grid(samples, train), dpi=120)
    thin_grids(run)


def _grid(samples: np.ndarray, train: Values) -> Figure:
    rate = memorization_rate(samples, train)
    return plot_samples(samples, train[rate.nearest], rate.ratios, rate.memorized)


def _tell(plan: TrainingPlan, run: Run, trainer: Trainer, monitor: Monitor) -> None:
    """How the training ended and which weights it kept."""
    if monitor.should_stop:
        asked = "" if plan.stop_at is None else f", as --stop-at-memorization {plan.stop_at:g} asks"
        LOG.info(f"{run.path}: stopped and saved{asked}: {_words(*monitor.looks[-1])}")
    LOG.info(f"{run.path}: {counted(trainer.steps_done, 'step')} done")
    if monitor.looks and not monitor.should_stop:
        LOG.info(f"memorized by the last weights: {_words(*monitor.looks[-1])}")
    best, earlier = monitor.best_weights, monitor.earlier
    if best is not None:
        first, last = min(best.steps), max(best.steps)
        chosen = (f"step {last:,} for all" if first == last else
                  f"{counted(len(set(best.steps)), 'snapshot')}, steps {first:,} to {last:,}")
        LOG.info(f"best weights per noise level: {chosen}; one early stop: step {best.early_stop:,}")
    if earlier is not None and earlier.step is not None:
        LOG.info(f"copies were seen at step {earlier.copies_at:,}; weights before-copies: step {earlier.step:,}")


def _tell_next(plan: TrainingPlan, run: Run) -> None:
    data = "" if plan.config["data"]["spec"] else " --data DATA"
    LOG.info(f"next, did the weights that geomem generate takes copy? geomem memorization {quote(str(run.path))}{data}")


def _words(step: int, look: MemorizationCheck) -> str:
    copies = (f"{look.rate:.1%} of {look.n} samples at step {step:,} [{look.low:.1%}, {look.high:.1%}], "
              f"{look.floor:.1%} of held-out points")
    leaning = look.leaning
    if leaning is None:
        return copies
    floor = "" if leaning.floor is None else f", {leaning.points} points themselves {leaning.floor:.1%}"
    return (f"{copies}; nearer to training than to as many {leaning.points} points: {leaning.share:.1%} "
            f"[{leaning.low:.1%}, {leaning.high:.1%}] (50% where nothing is owed to training points{floor})")


def thin_grids(run: Run) -> None:
    """Keep at most MAX_GRIDS pictures of samples: the first, the last, and others evenly spread in log step."""
    paths = sorted(run.path.glob("samples-*.png"))
    while len(paths) > MAX_GRIDS:
        places = [math.log(max(1, int(path.stem.split("-")[1]))) for path in paths]
        closest = min(range(1, len(paths) - 1), key=lambda k: places[k + 1] - places[k - 1])
        paths.pop(closest).unlink()
