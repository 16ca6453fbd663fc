"""From the options of a training to everything it needs, checked before anything is written."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geomem import __version__
from geomem.data import DataSet, cut_into_folds, load_data
from geomem.data.dataset import MAX_VALIDATION
from geomem.data.hub import HUB_PREFIX
from geomem.data.load import expanded
from geomem.data.points import Points, Values
from geomem.data.recipes import known_recipes
from geomem.devices import resolve_device
from geomem.duplicates import near_groups
from geomem.errors import InputError, counted, duration
from geomem.memorization import default_watch_every
from geomem.memorization.watch import EVALUATIONS, TRAINING_EVALUATIONS
from geomem.models import NETWORKS, Denoiser, build_network, default_network
from geomem.models.networks import networks_for
from geomem.noise import SIGMA_MAX, SIGMA_MIN, FlowSchedule, ResolvedLaw, resolve_law
from geomem.rng import random_order
from geomem.training.best_weights import BANDS
from geomem.training.classes import Classes, classes_of
from geomem.training.cost import PICTURES, activation_bytes, most_within, pieces_for, seconds_per_step
from geomem.training.loop import MAX_VALIDATION_POINTS, evaluation_steps, heldout_monitor, watch_steps
from geomem.training.monitor import Monitor
from geomem.training.pretrained import InitialWeights
from geomem.training.run import initial_denoiser, untrained_denoiser
from geomem.training.trainer import TaughtTrainer, Trainer, TrainingSettings, require_compiler, require_divisible

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from geomem.training.distillation import Teaching

LOG = logging.getLogger("geomem")
ITERATIONS = 4000
FEWEST_IMAGES = 100_000  # that a network should see; one that cannot gives way to a smaller one
FEWEST_IN_FOLD = 5  # distinct points: fewer choose no weights


@dataclass(frozen=True)
class TrainingPlan:
    """A training with all its options resolved.

    config: what config.json holds. validation: the points (M, ...) that choose weights. watch_every: images between two
    looks, 0 for none. fold_of: (N,) the fold 0, 1, ... of each training point where one network is trained without each
    fold, else None. teaching: the teacher of a network that is distilled, whose samples (n, ...) are the ``lessons``
    once they are there. The others are options as ``plan_training`` has them.
    """

    config: dict[str, Any]
    dataset: DataSet
    validation: np.ndarray
    classes: Classes
    law: ResolvedLaw
    settings: TrainingSettings
    initial: InitialWeights | None
    device: torch.device
    watch_every: int
    stop_at: float | None
    checkpoint_every: int | None
    tensorboard: bool
    lean: float | None = None
    fold_of: np.ndarray | None = None
    teaching: Teaching | None = None
    lessons: Values | None = None
    stop_at_leaning: float | None = None

    @property
    def trainings(self) -> int:
        """How many networks are trained, one after another."""
        return 1 if self.fold_of is None else int(self.fold_of.max()) + 1

    def watched(self, iterations: int) -> int:
        """``watch_every`` of so many steps."""
        given = self.config["engine"]["watch_every"]
        return default_watch_every(iterations * self.settings.batch) if given is None else int(given)

    def without_fold(self, fold: int) -> TrainingPlan:
        """The plan of the network that never sees a fold: those points choose its weights."""
        assert self.fold_of is not None
        left_out = np.flatnonzero(self.fold_of == fold)
        left_out = left_out[random_order(len(left_out), 0, "validation points")[:MAX_VALIDATION]]
        part, labels = self.on_part(np.flatnonzero(self.fold_of != fold)), self.classes.labels
        classes = part.classes if labels is None else replace(part.classes, validation_labels=labels[left_out])
        config = {name: value for name, value in self.config.items() if name != "folds"}
        return replace(part, config={**config, "without_fold": fold}, classes=classes, fold_of=None,
                       validation=np.asarray(Points(self.dataset.train).take(left_out).values))

    def on_part(self, rows: np.ndarray) -> TrainingPlan:
        """The plan of a training on some of the training points alone, of these rows (n,), ascending; the scale and the
        law of the noise levels are those of all points.
        """
        labels, part = self.classes.labels, Points(self.dataset.train, self.dataset.train_labels).take(rows)
        classes = replace(self.classes, train=part.values, labels=None if labels is None else labels[rows])
        return replace(self, classes=classes,
                       dataset=replace(self.dataset, train=part.values, train_labels=part.labels))

    def denoiser(self) -> Denoiser:
        """With the weights that the training begins with. Raises InputError where those of ``init`` do not fit."""
        denoiser = initial_denoiser(self.config, self.settings.seed, self.dataset.name)
        if self.initial is not None:
            self.initial.load_into(denoiser)
        return denoiser

    def trainer(self, denoiser: Denoiser, group: ProcessGroup | None = None) -> Trainer:
        """The trainer of ``denoiser``, which is moved to the device."""
        division = {name: self.config["engine"][name] for name in ("accumulate", "compiled", "channels_last")}
        denoiser, division["group"] = denoiser.to(self.device), group
        if self.teaching is not None:
            assert self.lessons is not None, "the teacher is sampled first"
            return TaughtTrainer(denoiser, self.law.law, self.lessons, self.settings, self.teaching.labels,
                                 teacher=self.teaching.teacher.denoiser, **division)
        return Trainer(denoiser, self.law.law, self.classes.train, self.settings, self.classes.labels, **division)

    def monitor(self, trainer: Trainer) -> Monitor:
        """Held-out losses and, unless ``watch_every`` is 0, looks."""
        settings, dataset = self.settings, self.dataset
        looks = watch_steps(settings.iterations, settings.batch, self.watch_every) if self.watch_every else None
        return heldout_monitor(
            trainer, dataset.train, self.validation, every=looks, test=dataset.test if dataset.n_test else None,
            sigmas=[] if "part" in self.config else levels_to_watch(self.law, self.config["sigma_data"]),
            labels=self.classes.of_points,
            stop_at=self.stop_at, stop_at_leaning=self.stop_at_leaning, lean=self.lean, device=self.device,
            dtype=torch.bfloat16 if self.config["snapshots"] == "bf16" else None)


def plan_training(data: Any, *, heldout: Any = None, n_train: int | None = None, n_heldout: int | None = None,
                  shuffle: bool = False, seed: int = 0, gap: str | Sequence[str] = "none", gap_keep: float = 0.0,
                  sampler: str | None = None, ci: tuple[float, float] | str | None = None,
                  objective: str | None = None, flow_shift: float | None = None, network: str | None = None,
                  init: str | os.PathLike[str] | None = None, iterations: int | None = None,
                  minutes: float | None = None, batch: int = 128, learning_rate: float | None = None,
                  decay: float = 0.0, dropout: float = 0.0, flip: bool = False, precision: str = "fp32",
                  accumulate: int | None = None, compile: bool = False, channels_last: bool = False,
                  conditional: bool = False, dummy_class: int = 0, watch_every: int | None = None,
                  stop_at_memorization: float | None = None, checkpoint_every: int | None = None,
                  snapshots: str = "fp32", tensorboard: bool = False, folds: int | None = None,
                  lean: float | None = None, device: str | torch.device = "auto", group: ProcessGroup | None = None,
                  load: Callable[..., DataSet] = load_data) -> TrainingPlan:
    """Resolve and check the options of ``geomem train``; nothing is written.

    Parameters
    ----------
    data : a DataSet, DATA as ``load_data`` takes it, or arrays (train, heldout). heldout, n_train, n_heldout, shuffle,
        seed : as ``load_data`` has them; none of the first four with a DataSet. seed is that of the training too.
    gap, gap_keep, sampler, ci : the law of the noise levels, as ``noise.resolve_law`` has them (``gap`` for ``gaps``).
    objective : ``edm`` (default), ``ddpm`` or ``flow``. flow_shift : time shift of flow matching, in the law and in the
        schedule of generation; None for none. network : one of ``models.NETWORKS``; None chooses by shape.
    init : a run, a diffusers folder or a safetensors file whose weights the training begins with.
    iterations, batch, learning_rate, decay, flip, precision : as in ``TrainingSettings``; 4,000 iterations by default.
        dropout : share of features.
    minutes : choose as many iterations, and unless it is given the network, as this machine does in that time: some
        steps are timed. What is chosen is said and part of the plan, as if it had been given.
    accumulate, compile, channels_last, group : as in ``Trainer``; accumulate None for as many pieces as keep the
        activations of a step below 4 GiB.
    conditional : train with the labels of the data. dummy_class : that many noise images as one more class, -1 for as
        many as training points.
    watch_every : images between two looks at memorization, 0 for never, None for within 5% of the time.
    stop_at_memorization : share of memorized samples that ends the training.
    checkpoint_every : images between two checkpoints, None for a minute. snapshots : type of the kept weights, ``fp32``
        or ``bf16``. tensorboard : write losses for TensorBoard too.
    folds : cut the training points into so many folds and train a network without each, for ``CrossFittedDenoiser``.
    lean : limit on held-out over training loss of the best weights per noise level, None for none.
    device : ``auto``, ``cpu``, ``cuda`` or ``mps``. load : reads the data.

    Raises InputError for options that are wrong, contradict each other or do not suit the data.
    """
    processes = 1 if group is None else group.size()
    if stop_at_memorization and watch_every == 0:
        raise InputError("--stop-at-memorization needs --watch-every above 0")
    require_divisible(batch, (accumulate or 1) * processes)
    if iterations is not None and minutes is not None:
        raise InputError(f"--minutes {minutes:g} chooses the number of steps; leave it out, or "
                         f"--iterations {iterations}")
    if compile:
        require_compiler()
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: the package tensorboard is not installed; pip install tensorboard, or leave "
                         "the option out (stats.jsonl holds the same)")
    on = resolve_device(device)
    gaps = [gap] if isinstance(gap, str) else list(gap)
    dataset, spec = _loaded(data, load, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle,
                            seed=seed)
    name = data if isinstance(data, str) else dataset.name
    shape = dataset.train.shape[1:]
    initial = InitialWeights(os.fspath(init), shape) if init else None
    taken = {} if initial is None else initial.config  # the options that the weights decide
    for option, value in (("network", network), ("objective", objective), ("flow_shift", flow_shift)):
        if value is not None and taken.get(option, value) != value:
            raise InputError(f"--init {init} has the {option.replace('_', ' ')} {taken[option]}; leave out "
                             f"--{option.replace('_', '-')} {value}")
    candidates = [network] if network else networks_for(shape) if minutes else [default_network(shape)]
    network = taken.get("network", candidates[0])
    objective = taken.get("objective", objective or "edm")
    if objective == "flow":
        taken.setdefault("flow_shift", flow_shift or 1.0)
    elif flow_shift is not None:
        raise InputError(f"--flow-shift {flow_shift:g} has no effect with --objective {objective}; leave it out, or "
                         "train with --objective flow")
    if "diffusers" not in taken:
        build_network(network, shape)  # refuses an unknown name or shape
    elif dropout:
        taken["diffusers"]["unet"]["dropout"] = dropout
    _require_suitable(dataset, name, flip)
    classes = classes_of(dataset, conditional, dummy_class, seed)
    if lean is not None and folds is None and not dataset.n_validation:
        raise InputError(f"--lean {lean:g} compares with validation points, and {name} has none; hold out more points, "
                         "or leave it out")
    fold_of = None if folds is None else _folds(dataset, classes, folds, seed, stop_at_memorization)
    if classes.count and "diffusers" in taken:
        raise InputError(f"--init {init}: a diffusers network is trained without classes; leave out --conditional and "
                         "--dummy-class")
    if initial is not None and initial.classes not in (None, classes.count):
        raise InputError(f"--init {init} has {initial.classes} classes, this training {classes.count}; give "
                         "--conditional and --dummy-class as that training had them")
    law = resolve_law(dataset, objective, sampler=sampler, ci=ci, gaps=gaps, gap_keep=gap_keep, seed=seed,
                      device=device, schedule=FlowSchedule(shift=taken["flow_shift"]) if objective == "flow" else
                      None if initial is None else initial.schedule)
    config: dict[str, Any] = {
        "geomem": __version__,
        "data": {"spec": spec, "heldout": _lasting(heldout), "n_train": n_train, "n_heldout": n_heldout,
                 "shuffle": shuffle, "seed": seed, **dataset.record},
        "shape": list(shape), "objective": objective, "network": network, "dropout": dropout, **classes.record,
        "sigma_data": dataset.std, "sampler": law.law.to_dict(), "gap": gaps, "snapshots": snapshots,
        "settings": {}, **taken, "init": None if init is None else os.path.abspath(init),
        **({} if folds is None else {"folds": folds}), **({} if lean is None else {"lean": lean}),
    }
    engine = {"accumulate": accumulate, "compiled": compile, "channels_last": channels_last, "processes": processes,
              "watch_every": watch_every, "stop_at": stop_at_memorization}

    def plan_of(network: str, iterations: int) -> TrainingPlan:
        usual_rate = NETWORKS[network].learning_rate if network in NETWORKS else 1e-4
        settings = TrainingSettings(iterations=iterations, batch=batch, precision=precision, seed=seed, decay=decay,
                                    learning_rate=learning_rate or usual_rate, flip=flip)
        resolved = {**config, "network": network, "settings": asdict(settings), "engine": dict(engine)}
        if accumulate is None:
            resolved["engine"]["accumulate"] = _pieces(resolved, batch, processes)
        plan = TrainingPlan(resolved, dataset, dataset.validation, classes, law, settings, initial, on, 0,
                            stop_at_memorization, checkpoint_every, tensorboard, lean, fold_of)
        return replace(plan, watch_every=plan.watched(iterations))

    if minutes is None:
        return plan_of(network, iterations or ITERATIONS)
    return plan_within(60 * minutes, plan_of, [network] if "network" in taken else candidates, group)


def plan_within(seconds: float, plan_of: Callable[[str, int], TrainingPlan], networks: Sequence[str],
                group: ProcessGroup | None = None) -> TrainingPlan:
    """The plan of the first of the networks that sees ``FEWEST_IMAGES`` in so many seconds on this machine, else of the
    last, with the steps that it makes in them; some steps of each are timed.
    """
    for place, network in enumerate(networks, start=1):
        plan = plan_of(network, 1)
        each = seconds_per_step(plan.trainer(plan.denoiser(), group))
        points = len(plan.validation) if plan.fold_of is None else len(plan.fold_of) // plan.trainings
        scored, batch = BANDS * min(points, MAX_VALIDATION_POINTS), plan.settings.batch

        def seconds_of(iterations: int, plan: TrainingPlan = plan, each: float = each, scored: int = scored) -> float:
            every = plan.watched(iterations)
            looks = len(watch_steps(iterations, plan.settings.batch, every)) if every else 0
            beside = (len(evaluation_steps(iterations)) * scored + looks * EVALUATIONS) / TRAINING_EVALUATIONS
            return plan.trainings * each * (iterations + beside / plan.settings.batch) / (1 - PICTURES)

        iterations = most_within(seconds, seconds_of)
        if place == len(networks) or iterations * batch >= FEWEST_IMAGES:
            break
        LOG.info(f"{network} would see {iterations * batch:,} images in {duration(seconds)}, fewer than "
                 f"{FEWEST_IMAGES:,}; a smaller network is taken (--network {network} for this one)")
    folds = "" if plan.fold_of is None else f" for each of {plan.trainings} networks"
    LOG.info(f"{network}, {counted(iterations, 'step')}{folds}: about {duration(seconds_of(iterations))} at "
             f"{duration(each)} a step, with held-out losses, looks and pictures; the same training again: --network "
             f"{network} --iterations {iterations}, without --minutes")
    settings = replace(plan.settings, iterations=iterations)
    return replace(plan, config={**plan.config, "settings": asdict(settings)}, settings=settings,
                   watch_every=plan.watched(iterations))


def _pieces(config: dict[str, Any], batch: int, processes: int) -> int:
    with torch.device("meta"):
        outline = untrained_denoiser(config, "the options").to("meta")  # tables of numbers too
    needed = activation_bytes(outline, config["shape"], bool(config["classes"]))
    pieces = pieces_for(batch, processes, needed)
    if pieces > 1:
        LOG.info(f"note: a step would keep {batch * needed / processes / 2**30:.1f} GiB of activations, so each batch "
                 f"goes through the network in {pieces} pieces (--accumulate {pieces}), which trains the same; a "
                 "smaller --batch takes less time a step")
    return pieces


def _folds(dataset: DataSet, classes: Classes, folds: int, seed: int, stop_at: float | None) -> np.ndarray:
    """The fold of each training point (N,). Raises InputError for what cannot be trained without each of them."""
    for option, given in (("--dummy-class", classes.dummies), ("--stop-at-memorization", stop_at)):
        if given:
            raise InputError(f"{option} has no meaning with --folds, whose trainings each have points that they never "
                             "saw; leave one of the two out")
    fold_of = cut_into_folds(dataset.train, folds, seed)
    points = Points(dataset.train)
    fewest = min(len(near_groups(points.take(np.flatnonzero(fold_of == k)).values).index) for k in range(folds))
    if fewest < FEWEST_IN_FOLD:
        raise InputError(f"--folds {folds}: a fold of {len(dataset.train):,} points would have {fewest} distinct ones, "
                         f"and at least {FEWEST_IN_FOLD} choose weights; give fewer folds")
    for label, name in enumerate(classes.names or []):
        if len(set(fold_of[classes.labels == label].tolist())) == 1:
            raise InputError(f"--folds {folds}: all points of class {name} are in one fold, so the network without it "
                             "would not know the class; train without --conditional or with more points of it")
    return fold_of


def _loaded(data: Any, load: Callable[..., DataSet], *, seed: int, **chosen: Any) -> tuple[DataSet, str | None]:
    """The data set, and the spec by which it can be loaded again, None for arrays."""
    if isinstance(data, DataSet):
        given = [name for name, value in chosen.items() if value]
        if given:
            raise InputError(f"{given[0]} has no effect on a DataSet; give it to load_data")
        return data, None
    if isinstance(data, tuple):
        if chosen["heldout"] is not None:
            raise InputError("heldout points are given twice; give (train, heldout), or train and heldout")
        data, chosen["heldout"] = data
    return load(data, **chosen, seed=seed), _lasting(data)


def _lasting(spec: Any) -> str | None:
    """The spec as it can be used from any directory: paths made absolute, recipes and names on the hub left alone."""
    if not isinstance(spec, str | Path):
        return None
    spec = expanded(str(spec))
    return spec if spec in known_recipes() or spec.startswith(HUB_PREFIX) else os.path.abspath(spec)


def _require_suitable(dataset: DataSet, name: Any, flip: bool) -> None:
    shape = dataset.train.shape[1:]
    if flip and len(shape) != 3:
        raise InputError(f"--flip mirrors images; the points of {name} have shape {shape}")
    if flip and dataset.latents is not None:
        raise InputError("--flip mirrors images, and mirrored latents are not those of mirrored images; leave it out")
    if not 0.05 <= dataset.std <= 10:
        raise InputError(f"{name}: the standard deviation of the values is {dataset.std:.3g}, but the noise levels, "
                         "0.002 to 80, suit one near 0.5; rescale the data so that it lies in [0.05, 10]")
    if len(dataset.train) - dataset.duplicates < 2:
        raise InputError(f"{name}: all training points are equal; at least 2 distinct ones are needed")


def levels_to_watch(law: ResolvedLaw, sigma_data: float) -> list[float]:
    """Both ends and the middle of the danger zone where it is known, else of the first gap, else around sigma_data.

    A gap that reaches to 0 or infinity ends where EDM's noise levels do.
    """
    zone = None if law.document is None else law.document["zone"]
    low, high = ((zone["sigma_low"], zone["sigma_high"]) if zone else
                 law.gaps[0] if law.gaps else (sigma_data / 2, sigma_data * 2))
    low = max(low, SIGMA_MIN)
    high = max(low, min(high, SIGMA_MAX))
    return sorted({low, (low * high) ** 0.5, high})
