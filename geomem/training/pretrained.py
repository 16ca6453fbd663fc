"""Denoisers that already exist: our runs, exported ones, and diffusers folders; to sample, to judge, to go on from."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.data import DataSet, load_data
from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.generation import Samples, fingerprint, generate, sampler_levels
from geomem.generation.samples import FORMAT, data_of
from geomem.models import CrossFittedDenoiser, Denoiser, own_schedule
from geomem.models.diffusers_folder import (
    diffusers_classes,
    diffusers_clip,
    diffusers_denoiser,
    diffusers_shape,
    is_diffusers_folder,
    load_diffusers_folder,
    read_diffusers_configs,
    read_diffusers_weights,
    require_divisible,
)
from geomem.models.weights import read_matching
from geomem.noise import SIGMA_MAX, DDPMSchedule, FlowSchedule, NoiseSchedule
from geomem.training.classes import class_indices
from geomem.training.run import DIFFUSERS, Run

LOG = logging.getLogger("geomem")
ENOUGH_IN_FOLD = 50
"""Points of a fold from which on its losses choose weights per noise level; those of fewer are averaged over levels."""


@dataclass(frozen=True)
class Pretrained:
    """A trained denoiser on the CPU in evaluation mode, and what is known about it.

    shape: of one point. weights: which of the run's weights these are. data: what a run recorded about its training
    data, empty for a diffusers folder. schedule: the timesteps or flow times that DDIM, DDPM and flow sampling go
    through: the network's own where it has any, else Ho et al.'s. labels: those in the data that the classes 0, 1, ...
    of the denoiser stand for, None where it knows no classes. flip: whether it was trained on mirror images as well.
    clip: the largest absolute value of a clean estimate in sampling, where the scheduler of a diffusers folder sets
    one. routing: that of a cross-fitted denoiser, else None. class_names: what the data call the labels, where they
    do.
    """

    path: Path
    denoiser: nn.Module
    shape: tuple[int, ...]
    weights: str
    data: dict[str, Any]
    schedule: NoiseSchedule
    labels: list[int] | None = None
    flip: bool = False
    clip: float | None = None
    routing: str | float | None = None
    class_names: list[str] | None = None

    def classes_of(self, data: DataSet) -> tuple[np.ndarray, np.ndarray] | None:
        """Classes (N,) of the training and (L,) of the test points of ``data`` for the denoiser; None where it knows no
        classes. Raises InputError where labels do not fit.
        """
        return None if self.labels is None else (
            class_indices(data.train_labels, self.labels, data, part="training", model=self.path),
            class_indices(data.test_labels, self.labels, data, model=self.path))

    def label_of(self, given: int | str) -> int:
        """The label in the data that is meant: a number as it is there; text is the name of a class, or else a number,
        where not all names are numbers themselves.

        Raises InputError for one that the denoiser does not know.
        """
        names = self.class_names or []
        if self.labels is not None:
            if given in names:
                return self.labels[names.index(given)]
            numbered = bool(names) and all(name.isdecimal() for name in names)
            if isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,18}", given) and not numbered:
                given = int(given)
            if given in self.labels:
                return int(given)
        raise InputError(f"--label {given}: {self.path} was trained " + (
            "without labels; leave --label out" if self.labels is None else
            f"with the classes {', '.join(names[:20])}; choose among these" if names else
            f"with the labels {', '.join(map(str, self.labels[:20]))}; choose among these"))

    def generate(self, seeds: Sequence[int], *, sampler: str = "heun", steps: int | None = None, batch: int = 256,
                 labels: Sequence[int | str] | None = None, device: str | torch.device = "auto",
                 progress: Callable[[int, int], None] | None = None) -> Samples:
        """A sample for each seed, with a record of how they were made.

        sampler, batch, progress: as ``generation.generate`` has them. steps: noise levels, None for the usual number.
        labels: those of the data, as ``label_of`` has them, in turns: a sample's label depends on its seed alone; None
            stands for all.

        Raises InputError for a label that the denoiser does not know.
        """
        known = [self.label_of(label) for label in labels or []]
        chosen = classes = None
        if self.labels is not None:
            turns = np.asarray(known or self.labels)
            chosen = turns[np.asarray(seeds) % len(turns)]
            classes = np.searchsorted(self.labels, chosen)
        sigmas = sampler_levels(sampler, steps, self.schedule)
        if sampler in ("heun", "euler") and sigmas[0] < SIGMA_MAX:
            LOG.info(f"note: {self.path} knows noise levels up to sigma {sigmas[0]:.3g}; {sampler} starts there, "
                     f"not at {SIGMA_MAX:g}")
        if self.clip is not None:
            LOG.info(f"note: clean estimates are clipped to [{-self.clip:g}, {self.clip:g}], as the scheduler of "
                     f"{self.path} says (clip_sample)")
        values = generate(self.denoiser.to(resolve_device(device)), seeds, self.shape, sigmas=sigmas, method=sampler,
                          batch=batch, labels=classes, clip=self.clip, progress=progress)
        about = {"format": FORMAT, "run": str(self.path), "weights": self.weights,
                 "weights_sha256": fingerprint(self.denoiser), "steps": len(sigmas), "method": sampler,
                 "data": self.data or None, **({} if chosen is None else {"labels": chosen.tolist()}),
                 **({} if self.routing is None else {"routing": self.routing}),
                 **({"flip": True} if self.flip else {}), **({"clip": self.clip} if self.clip else {})}
        return Samples(values, about, np.asarray(seeds, dtype=np.int64),
                       None if chosen is None else chosen.astype(np.int64), str(self.path))


def load_denoiser(path: str | Path, weights: str | None = None, *, data: DataSet | None = None,
                  routing: str | float | None = None, load: Callable[..., DataSet] = load_data) -> Pretrained:
    """Denoiser of a run directory, of an exported one, or of a diffusers folder with a UNet2DModel and its scheduler.

    ``weights`` as in ``Run.denoiser``; None takes the best per noise level where the run kept them, else the last. Only
    JSON and safetensors are read. Raises InputError for anything else, pickled weights above all.

    A run with folds gives a ``CrossFittedDenoiser`` with ``routing`` (None: ``argmax``). ``weights`` are then those of
    each network: ``cross-fitted``, like None, takes the best per noise level, or one early stop where a fold has too
    few points to choose them. It needs the training points: those of ``data``, or where None those that the run
    recorded, read by ``load``.
    """
    path = Path(path)
    if is_diffusers_folder(path):
        if weights not in (None, "last"):
            raise InputError(f"{path} is a diffusers folder with one set of weights; leave out --weights")
        configs = read_diffusers_configs(path)
        denoiser = load_diffusers_folder(path, configs)
        shape = diffusers_shape(configs, str(path))
        require_divisible(configs, shape, str(path))
        return Pretrained(path, denoiser.eval(), shape, "last", {}, own_schedule(denoiser) or DDPMSchedule(),
                          diffusers_classes(configs), clip=diffusers_clip(configs["scheduler"], str(path)))
    run = Run(path)
    config, settings = run.config, run.config.get("settings")
    weights = weights or run.usual_weights
    cross_fitted = run.folds is not None or weights == "cross-fitted"
    if routing is not None and not cross_fitted:
        raise InputError(f"{path} is one network, and routing {routing} is for those of geomem train --folds; leave it "
                         "out")
    routing = routing or "argmax"
    chosen = _cross_fitted(run, weights, data, routing, load) if cross_fitted else run.denoiser(weights)
    clip = diffusers_clip(config["diffusers"]["scheduler"], str(path)) if config["network"] == DIFFUSERS else None
    return Pretrained(path, chosen, tuple(config["shape"]), weights, config["data"],
                      own_schedule(chosen) or DDPMSchedule(), config.get("labels"),
                      isinstance(settings, dict) and settings.get("flip") is True, clip,
                      routing if cross_fitted else None, config.get("class_names"))


def _cross_fitted(run: Run, weights: str, data: DataSet | None, routing: str | float,
                  load: Callable[..., DataSet]) -> CrossFittedDenoiser:
    """The networks of a run with folds, routed by its training points."""
    fold_of, config = run.fold_of, run.config
    parts = [run.without_fold(fold) for fold in range(fold_of.max() + 1)]
    for fold, part in enumerate(parts):
        if not part.exists or part.steps_done is None:
            raise InputError(f"{run.path} has no network without fold {fold} yet; go on with its training: the same "
                             "command with --resume")
        if part.config["shape"] != config["shape"]:
            raise InputError(f"{part.path} makes points of shape {tuple(part.config['shape'])}, {run.path} of "
                             f"{tuple(config['shape'])}; it belongs to another run")
    if data is None:
        data = data_of({"data": config["data"]}, None, f"{run.path}, whose cross-fitted weights need the training "
                       "points,", load=load)
    if data.sha256 != config["data"].get("sha256"):
        raise InputError(f"{run.path} was trained on other data than {data.name} (the sha256 differs), and "
                         "cross-fitted weights need the same points; give those, or judge samples from a file")
    if weights == "cross-fitted":
        weights = "per-level" if np.bincount(fold_of).min() >= ENOUGH_IN_FOLD else "early-stop"
    train = np.asarray(data.train)
    if config["settings"].get("flip"):
        train, fold_of = np.concatenate([train, train[..., ::-1]]), np.concatenate([fold_of, fold_of])
    return CrossFittedDenoiser([part.denoiser(weights) for part in parts], fold_of, train, routing)


class InitialWeights:
    """What ``--init`` names: a run, a diffusers folder, or a safetensors file of weights.

    ``config`` are the options of the new run that it decides: network, objective, preconditioning, descriptions.
    ``schedule``: that of its network's timesteps; None where it has none or is a file. ``classes``: how many its
    network has; None where that is not known before it is read.
    """

    def __init__(self, path: str | Path, shape: tuple[int, ...]) -> None:
        self.path = Path(path)
        self.config: dict[str, Any] = {}
        self.schedule: NoiseSchedule | None = None
        self.classes: int | None = None
        if not self.path.is_dir():
            if not self.path.exists():
                raise InputError(f"--init {path}: there is no such run, diffusers folder or safetensors file")
        elif is_diffusers_folder(self.path):
            configs = read_diffusers_configs(self.path)
            with torch.device("meta"):
                denoiser = diffusers_denoiser(configs, str(path))
            require_divisible(configs, shape, f"--init {path}")
            if diffusers_classes(configs):
                raise InputError(f"--init {path}: the network is class-conditional, and only networks without classes "
                                 "are fine-tuned; train from the start with --conditional, or give another --init")
            read_diffusers_weights(self.path, denoiser)  # refuses weights that do not fit before anything is built
            self.schedule = own_schedule(denoiser)
            self.config = {"network": DIFFUSERS, "diffusers": configs, "objective": "edm" if self.schedule is None else
                           "flow" if isinstance(self.schedule, FlowSchedule) else "ddpm"}
            if isinstance(self.schedule, FlowSchedule):
                self.config["flow_shift"] = self.schedule.shift
        else:
            config = Run(self.path).config
            if tuple(config["shape"]) != shape:
                raise InputError(f"--init {path} was trained on points of shape {tuple(config['shape'])}, "
                                 f"the data have {shape}; bring them to one")
            if not (self.path / "model.safetensors").is_file():
                raise InputError(f"--init {path} holds no weights of a last step; give " + (
                    f"the network of one fold, such as {self.path / 'fold-0'}" if config.get("folds") else
                    "the run itself, or what geomem export --weights last makes of it"))
            self.classes = config["classes"]
            kept = ("network", "objective", "sigma_data", "flow_shift", "diffusers")
            self.config = {name: config[name] for name in kept if name in config}
            self.schedule = own_schedule(Run(self.path).outline())

    def load_into(self, denoiser: Denoiser) -> None:
        """Fill the untrained denoiser of the new run; of a run the averaged weights of its last step."""
        if self.path.is_dir() and is_diffusers_folder(self.path):
            denoiser.net.network.load_state_dict(read_diffusers_weights(self.path, denoiser))  # type: ignore[union-attr]
        else:
            file = self.path / "model.safetensors" if self.path.is_dir() else self.path
            denoiser.load_state_dict(read_matching(file, denoiser))
