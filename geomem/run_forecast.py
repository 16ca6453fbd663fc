"""How long until a training memorizes? Trainings on parts of the points, and what they say of one on all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.files import draw_figure, write_json
from geomem.memorization.heldout import SMALLEST_SET
from geomem.memorization.watch import COPIES
from geomem.plots import plot_forecast
from geomem.rng import random_order
from geomem.run_training import start_training
from geomem.training.checkpoint import tidy
from geomem.training.forecast import EVENTS, FILE, LEANS, Forecast, Part, has_set_in, onset_at, onset_in, price_of
from geomem.training.plan import TrainingPlan, plan_training
from geomem.training.run import Run

LOG = logging.getLogger("geomem")
PARTS = 8, 4
BUDGET = 0.4  # of the steps of the training, for all parts together
VALIDATION = 32  # held-out points whose losses are measured: the time of the smallest is asked for, not the loss
OTHERS = "folds", "dummy_class", "stop_at_memorization", "lean"  # options that are of other trainings


def forecast(data: Any, out: str | Path, *, parts: Sequence[int] = PARTS, until: str = "leaning", resume: bool = False,
             progress: Callable[[int, int], None] | None = None, **options: Any) -> Forecast:
    """After how many steps will a training on ``data`` with these options lean on its points, or copy them?

    data, options : those of the training, as ``training.plan_training`` describes them; without ``folds``,
        ``dummy_class``, ``stop_at_memorization`` and ``lean``. The ``iterations`` limit the parts to 40% of them.
    out : directory for the forecast and the runs of the parts; ``resume`` goes on in it.
    parts : k for a part of N/k points, two sizes at least, one after another. No two parts share a point.
    until : ``leaning`` ends each part when its samples lean, ``copies`` when they are copies, which takes longer.
    progress(done, total) : steps, of those that all parts may take.

    Raises InputError for options that are wrong, or points too few, and ``training.Interrupted`` where a signal stopped
    a part, which is saved then.
    """
    for name in OTHERS:
        if options.get(name):
            raise InputError(f"--{name.replace('_', '-')}: a forecast is of one ordinary training; leave it out")
    root = Run(out)
    if not resume:
        root.require_new()
    plan = plan_training(data, **options)
    plans = _part_plans(plan, parts, until)
    total = sum(part.settings.iterations for part in plans)
    LOG.info(f"forecast: trainings on {', '.join(f'{len(part.dataset.train):,}' for part in plans)} of "
             f"{len(plan.dataset.train):,} points, each until {until}, {total:,} steps at most; if the steps until "
             f"then grow as the points do, about {sum(1 / k for k in parts):.0%} of those on all points")
    done, found, price = 0, [], 0.0
    for number, part in enumerate(plans, start=1):
        run, most = Run(Path(out) / "parts" / f"{number}-{len(part.dataset.train)}"), part.settings.iterations
        tidy(run)
        if not _is_done(run, until, most):
            LOG.info(f"part {number} of {len(plans)}")
            try:
                states = start_training(part, run, resume=run.exists)
            except InputError as error:
                if not run.exists:
                    raise
                raise InputError(f"--out {out} holds a forecast with other options: "
                                 f"{str(error).partition(';')[0]}; repeat its command with --resume, or choose another "
                                 "--out") from None
            with closing(states):
                for state in states:
                    if progress is not None:
                        progress(done + state.step, total)
        looks, stats = run.lines("watch.jsonl"), run.stats
        steps = looks[-1]["step"]
        price += price_of(steps, len(looks), sum(map(_evaluated, stats)) * len(part.validation), part.settings.batch)
        best = None if run.levels is None else run.levels["early_stop"]
        found.append(Part(len(part.dataset.train), str(run.path.relative_to(out)), steps, onset_in(looks, "leaning"),
                          onset_in(looks, "copies"), best, best == stats[-1]["step"]))
        done, total = done + steps, total - most + steps
    n = len(plan.dataset.train)
    leaning, copies = (onset_at(n, found, event, plan.settings) for event in EVENTS)
    until_then = (leaning if until == "leaning" else copies).step
    best_from = max((part.early_stop for part in found if part.early_stop is not None), default=None)
    result = Forecast(n, until=until, leaning=leaning, copies=copies, best_from=best_from, parts=tuple(found),
                      price=price, share=None if until_then is None else price / until_then, config=plan.config)
    write_json(Path(out) / FILE, result.to_dict())
    draw_figure(Path(out) / "forecast.png", lambda: plot_forecast(result))
    return result


def _part_plans(plan: TrainingPlan, parts: Sequence[int], until: str) -> list[TrainingPlan]:
    n, dataset = len(plan.dataset.train), plan.dataset
    if until not in EVENTS:
        raise InputError(f"--until {until}: give leaning or copies")
    if len(set(parts)) < 2 or min(parts) < 2 or sum(Fraction(1, k) for k in parts) > 1:
        raise InputError(f"--parts {','.join(map(str, parts))}: give k for parts of N/k points, of two sizes at least, "
                         "that are not more than all points together, such as 8,8,4")
    if n // max(parts) < SMALLEST_SET:
        raise InputError(f"--parts: the {max(parts)}th part of {n:,} points is {n // max(parts)}, and at least "
                         f"{SMALLEST_SET} tell anything; give more points, or larger parts such as 4,2")
    if until == "leaning" and dataset.n_test < SMALLEST_SET:
        raise InputError(f"{dataset.name}: {dataset.n_test} test points, and leaning needs {SMALLEST_SET}; hold out "
                         "more, or give --until copies")
    order, start, plans = random_order(n, plan.settings.seed, "parts"), 0, []
    for k in parts:
        part, start = plan.on_part(np.sort(order[start:start + n // k])), start + n // k
        classes, most = part.classes, int(BUDGET * plan.settings.iterations / k / sum(1 / other for other in parts))
        if classes.labels is not None and len(np.unique(classes.labels)) < classes.count:
            raise InputError(f"--conditional: a part of {n // k:,} points lacks a class; forecast with larger parts, "
                             "or without classes")
        if classes.validation_labels is not None:
            classes = replace(classes, validation_labels=classes.validation_labels[:VALIDATION])
        if most < 1:
            raise InputError(f"--iterations {plan.settings.iterations:,} leaves no step for a part of {n // k:,} "
                             "points; give those of the training")
        settings = replace(plan.settings, iterations=most, decay=0.0)
        plans.append(replace(
            part, config={**plan.config, "settings": asdict(settings), "part": k}, settings=settings, classes=classes,
            validation=part.validation[:VALIDATION], watch_every=1, checkpoint_every=None, tensorboard=False,
            stop_at=COPIES if until == "copies" else None, stop_at_leaning=LEANS if until == "leaning" else None))
    return plans


def _is_done(run: Run, until: str, most: int) -> bool:
    """Whether the part has ended: what it waited for has set in, or its steps are used up."""
    lines = run.lines("watch.jsonl")
    return bool(lines) and (lines[-1]["step"] >= most or has_set_in(lines[-1], until))


def _evaluated(line: dict[str, Any]) -> int:
    return len(line.get("heldout_mse", ()))
