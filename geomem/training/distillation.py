"""One network in the end: an ordinary network learns what any denoiser of ours, its *teacher*, answers.

It is trained on noisy samples of the teacher, drawn for it and kept in its run, and not on the data:

    noisy = clean + sigma noise,  clean a sample of the teacher,    target = teacher(noisy, sigma).

This is distillation (Hinton et al. 2015), for an ensemble whose members answer for what they did not see that of Tang
et al. 2022 (SELENA). ``trainer.TaughtTrainer`` has the loss. Weights are chosen by the validation points of the
teacher's data; its training points are looked at to measure, and where the teacher is routed by them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomem.data import DataSet, load_data
from geomem.data.arrays import read_shards, shards
from geomem.data.points import Points, Values
from geomem.errors import InputError, counted
from geomem.files import atomic_path
from geomem.generation import data_of, fingerprint
from geomem.generation.samples import note_other_data
from geomem.rng import key
from geomem.training.plan import TrainingPlan, plan_training
from geomem.training.pretrained import Pretrained, load_denoiser
from geomem.training.run import TEACHER_SAMPLES, Run

BATCH = 256  # samples made at a time
IN_FILE = 4 * BATCH  # samples in a file, of large ones fewer
FILE_VALUES = 1 << 26


@dataclass(frozen=True, eq=False)
class Teaching:
    """A teacher and the samples of it that a network learns on: how many, and the seed of the first."""

    teacher: Pretrained
    count: int
    first_seed: int

    @property
    def record(self) -> dict[str, Any]:
        """What config.json says of it."""
        return {"from": os.path.abspath(self.teacher.path), "weights": self.teacher.weights,
                "routing": self.teacher.routing, "weights_sha256": fingerprint(self.teacher.denoiser),
                "samples": self.count, "first_seed": self.first_seed}

    @property
    def labels(self) -> np.ndarray | None:
        """Classes (count,) of the samples, None where the teacher knows none."""
        names = self.teacher.labels
        return None if names is None else (self.first_seed + np.arange(self.count)) % len(names)

    def samples(self, run: Run, device: torch.device, progress: Callable[[int, int], None] | None = None) -> Values:
        """The samples (count, ...), those that the run has and the others, which are made and written.

        Each file is whole or not there, and a sample depends on its seed alone: sampling that was ended goes on.
        ``progress(done, total)`` is called after each batch.
        """
        folder, dim = run.path / TEACHER_SAMPLES, math.prod(self.teacher.shape)
        batch = max(1, min(BATCH, FILE_VALUES // dim))
        size = max(batch, min(IN_FILE, FILE_VALUES // dim // batch * batch))
        for start in range(0, self.count, size):
            path = folder / f"{start:09d}.npy"
            if path.is_file():
                continue

            def told(done: int, total: int, start: int = start) -> None:
                if progress is not None:
                    progress(start + done, self.count)

            seeds = range(self.first_seed + start, self.first_seed + min(self.count, start + size))
            made = self.teacher.generate(seeds, batch=batch, device=device, progress=told).values
            with atomic_path(path) as temporary:
                np.save(temporary, made)
        part = read_shards(folder, shards(folder)).train
        assert isinstance(part, Points)
        if part.values.shape != (self.count, *self.teacher.shape):
            raise InputError(f"{folder} holds other samples than {counted(self.count, 'sample')} of shape "
                             f"{self.teacher.shape}; remove it, and --resume makes them again")
        return part.values


def plan_distillation(teacher: str | Path, *, samples: int = 10_000, weights: str | None = None,
                      routing: str | float | None = None, data: Any = None, seed: int = 0,
                      load: Callable[..., DataSet] = load_data, **options: Any) -> TrainingPlan:
    """Resolve and check the options of ``geomem distil``; nothing is written.

    Parameters
    ----------
    teacher : a run, an exported one, or a diffusers folder. weights, routing : as ``load_denoiser`` has them.
    samples : of the teacher, that the network learns on. seed : of them and of the training.
    data : the teacher's data, a DataSet or what ``load`` reads, where its run does not say them.
    options : of ``plan_training``, those of the network and its training.

    Classes and mirror images are the teacher's. Raises InputError for options that are wrong or do not suit the
    teacher, and for data that are not the teacher's.
    """
    if samples < 2:
        raise InputError(f"--samples {samples}: give at least 2")
    read = cache(load)  # a cross-fitted denoiser asks for the same data
    given = data if data is None or isinstance(data, DataSet) else read(os.fspath(data))
    model = load_denoiser(teacher, weights, data=given, routing=routing, load=read)
    about = {"data": model.data or None}
    dataset = data_of(about, None, str(teacher), load=read) if given is None else given
    if given is not None:
        note_other_data(about, given, given.name, str(teacher))
    if dataset.train.shape[1:] != model.shape:
        raise InputError(f"{teacher} makes points of shape {model.shape}, those of {dataset.name} have "
                         f"{tuple(dataset.train.shape[1:])}; name its data with --data")
    plan = plan_training(dataset, seed=seed, flip=model.flip, conditional=model.labels is not None, **options)
    if plan.classes.names != model.labels:
        raise InputError(f"{teacher} knows the labels {model.labels}, the training points of {dataset.name} have "
                         f"{plan.classes.names}; name its data with --data")
    teaching = Teaching(model, samples, key(seed, "teacher samples") % 2**62)
    known = model.data if model.data.get("sha256") == dataset.sha256 else plan.config["data"]
    return replace(plan, config={**plan.config, "data": known, "distilled": teaching.record}, teaching=teaching)
