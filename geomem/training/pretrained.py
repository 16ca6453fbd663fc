"""Denoisers that already exist: our runs, exported ones, and diffusers folders; to sample, to judge, to go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.data import DataSet
from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.generation import Samples, fingerprint, generate, sampler_levels
from geomem.generation.samples import FORMAT
from geomem.models import Denoiser, own_schedule
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


@dataclass(frozen=True)
class Pretrained:
    """A trained denoiser on the CPU in evaluation mode, and what is known about it.

    shape: of one point. weights: which of the run's weights these are. data: what a run recorded about its training
    data, empty for a diffusers folder. schedule: the timesteps or flow times that DDIM, DDPM and flow sampling go
    through: the network's own where it has any, else Ho et al.'s. labels: those in the data that the classes 0, 1, ...
    of the denoiser stand for, None where it knows no classes. flip: whether it was trained on mirror images as well.
    clip: the largest absolute value of a clean estimate in sampling, where the scheduler of a diffusers folder sets
    one.
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

    def classes_of(self, data: DataSet) -> tuple[np.ndarray, np.ndarray] | None:
        """Classes (N,) of the training and (L,) of the test points of ``data`` for the denoiser; None where it knows no
        classes. Raises InputError where labels do not fit.
        """
        return None if self.labels is None else (class_indices(data.train_labels, self.labels, data),
                                                 class_indices(data.test_labels, self.labels, data))

    def generate(self, seeds: Sequence[int], *, sampler: str = "heun", steps: int | None = None, batch: int = 256,
                 labels: Sequence[int] | None = None, device: str | torch.device = "auto",
                 progress: Callable[[int, int], None] | None = None) -> Samples:
        """A sample for each seed, with a record of how they were made.

        sampler, batch, progress: as ``generation.generate`` has them. steps: noise levels, None for the usual number.
        labels: those of the data, in turns: a sample's label depends on its seed alone; None stands for all.

        Raises InputError for a label that the denoiser does not know.
        """
        for label in labels or []:
            if self.labels is None or label not in self.labels:
                raise InputError(f"--label {label}: {self.path} was trained " + (
                    "without labels; leave --label out" if self.labels is None else
                    f"with the labels {', '.join(map(str, self.labels[:20]))}; choose among these"))
        chosen = classes = None
        if self.labels is not None:
            turns = np.asarray(labels or self.labels)
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
                 **({"flip": True} if self.flip else {}), **({"clip": self.clip} if self.clip else {})}
        return Samples(values, about, np.asarray(seeds, dtype=np.int64),
                       None if chosen is None else chosen.astype(np.int64), str(self.path))


def load_denoiser(path: str | Path, weights: str | None = None) -> Pretrained:
    """Denoiser of a run directory, of an exported one, or of a diffusers folder with a UNet2DModel and its scheduler.

    ``weights`` as in ``Run.denoiser``; None takes the best per noise level where the run kept them, else the last. Only
    JSON and safetensors are read. Raises InputError for anything else, pickled weights above all.
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
    weights = weights or (run.weights_without_levels if run.levels is None else "per-level")
    chosen = run.denoiser(weights)
    clip = diffusers_clip(config["diffusers"]["scheduler"], str(path)) if config["network"] == DIFFUSERS else None
    return Pretrained(path, chosen, tuple(config["shape"]), weights, config["data"],
                      own_schedule(chosen) or DDPMSchedule(), run.labels,
                      isinstance(settings, dict) and settings.get("flip") is True, clip)


class InitialWeights:
    """What ``--init`` names: a run, a diffusers folder, or a safetensors file of weights.

    ``config`` are the options of the new run that it decides: network, objective, preconditioning, descriptions.
    ``schedule``: that of its network's timesteps; None where it has none or is a file.
    """

    def __init__(self, path: str | Path, shape: tuple[int, ...]) -> None:
        self.path = Path(path)
        self.config: dict[str, Any] = {}
        self.schedule: NoiseSchedule | None = None
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
