"""Run directories: what a training leaves on disk, and how it is read back.

    config.json           resolved options: data, network, objective, sampler, settings
    model.safetensors     averaged weights of the last step
    levels.json           noise-level bands with the chosen step of each, and the one early stop
    before-copies.json    the step of the weights from before the copies, once copies were seen
    weights/step-N.safetensors   the distinct snapshots that these two name, and those that may be named yet
    state.safetensors     everything needed to go on; its header names the step and the snapshots it belongs to
    stats.jsonl           one line per evaluation: step, images, mean training loss, held-out MSE per band
                          (squared data units per value), seconds since this start of the training
    watch.jsonl           one line per look at the training: memorization of a few samples
    samples-N.png         samples during training
    teacher-samples/N.npy samples of the teacher that a distilled network was trained on

Where a network was trained without each of K folds there are config.json and ``folds.json``, the fold of each training
point, and such a directory ``fold-0``, ``fold-1``, ... of each network, whose config.json says ``without_fold``.

Only JSON and safetensors are read: nothing in a run directory can execute code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.data import DataSet
from geomem.errors import InputError
from geomem.files import parse_json, read_json, write_json, write_text
from geomem.generation import Samples
from geomem.models import (
    NETWORKS,
    Denoiser,
    EDMDenoiser,
    EpsilonDenoiser,
    FixedClass,
    VelocityDenoiser,
    build_network,
)
from geomem.models.diffusers_folder import diffusers_denoiser
from geomem.models.weights import open_tensors, read_matching, refuse_pickle
from geomem.noise.flow_schedule import FlowSchedule
from geomem.rng import key
from geomem.training.best_weights import stitch

FORMAT, LEVELS_FORMAT, BEFORE_FORMAT = "geomem.run/1", "geomem.levels/1", "geomem.before-copies/1"
FOLDS_FORMAT = "geomem.folds/1"
TEACHER_SAMPLES = "teacher-samples"
OBJECTIVES = "edm", "ddpm", "flow"
DIFFUSERS = "diffusers"
"""Network name of a run that fine-tunes a diffusers folder; its config holds the folder's two descriptions."""


class Run:
    """A run directory that exists or is about to."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    def require_new(self) -> None:
        """Raises InputError where the directory holds anything already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InputError(f"{self.path} exists and is not empty; choose another --out, or --resume the run in it")

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a run here. Raises InputError where the directory holds anything already."""
        self.require_new()
        write_json(self.path / "config.json", {"format": FORMAT, **config})

    def continue_with(self, config: Mapping[str, Any]) -> int | None:
        """Accept the same options again, or the same with more steps; returns the former number of steps where it grew.

        Raises InputError that names the first option that differs: going on with it would be another run. What is under
        "engine" (how the work is divided and watched) may differ; it changes rounding, and when to stop, only.
        """
        kept = self.config
        old, new = _flat(kept), _flat({"format": FORMAT, **config})
        before, now = (values.get("settings.iterations") for values in (old, new))
        longer = type(before) is int and type(now) is int and before < now
        for name in (*old, *new):
            if (name.split(".")[0] not in ("geomem", "engine", "class_names") and old.get(name) != new.get(name)
                    and not (longer and name == "settings.iterations")):
                raise InputError(f"{self.path} was started with {name} = {old.get(name)!r}, not {new.get(name)!r}; "
                                 "repeat the same command with --resume (--iterations may grow), or choose another "
                                 "--out")
        if not longer:
            return None
        write_json(self.path / "config.json", {**kept, "settings": config["settings"]})
        return before

    def as_begun(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a training that goes on here: what ``minutes`` chose at its beginning stays."""
        if not (options.get("minutes") and self.exists):
            return dict(options)
        config = self.config
        return {**options, "minutes": None, "network": config["network"],
                "iterations": config["settings"]["iterations"]}

    @property
    def folds(self) -> int | None:
        """K where a network is trained without each of K folds, else None."""
        return self.config.get("folds")

    @property
    def fold_of(self) -> np.ndarray:
        """The fold of each training point (N,). Raises InputError for a run of one network."""
        folds = self.folds
        if folds is None:
            raise InputError(f"{self.path} is one network that saw all its training points; cross-fitted weights are "
                             "those of geomem train --folds")
        return np.asarray(_read_json(self.path / "folds.json", FOLDS_FORMAT, lambda value: (
            all(type(fold) is int for fold in value["fold"]) and set(value["fold"]) == set(range(folds))
        ), "folds do not fit", "train the run again")["fold"])

    def write_folds(self, fold_of: np.ndarray) -> None:
        """Keep the fold of each training point (N,)."""
        write_text(self.path / "folds.json", json.dumps({"format": FOLDS_FORMAT, "fold": fold_of.tolist()}) + "\n")

    def without_fold(self, fold: int) -> Run:
        """The run of the network that never saw a fold."""
        return Run(self.path / f"fold-{fold}")

    @property
    def steps_done(self) -> int | None:
        """Steps of the last checkpoint; None where there is none, as in an exported run, or it is damaged.

        Of a run with folds the steps of all its networks.
        """
        if self.exists and (folds := self.folds):
            done = [self.without_fold(fold).steps_done for fold in range(folds)]
            return sum(steps or 0 for steps in done) if any(done) else None
        try:
            with open_tensors(self.path / "state.safetensors") as file:
                return int((file.metadata() or {})["steps_done"])
        except (KeyError, ValueError):  # InputError too
            return None

    @property
    def config(self) -> dict[str, Any]:
        """The resolved options. Raises InputError where there is no readable run."""
        return _read_json(self.path / "config.json", FORMAT, lambda config: (
            all(type(size) is int and size > 0 for size in config["shape"])
            and 0 < math.prod(config["shape"]) <= 10**8
            and (config["network"] in NETWORKS or isinstance(config["diffusers"], dict))
            and config["objective"] in OBJECTIVES and 0 < config.get("flow_shift", 1) < 1e6
            and config["classes"] in range(10**6)
            and 0 <= config["dropout"] < 1
            and _are_labels(config.get("labels"), config.get("class_names"), config["classes"])
            and 1e-6 < config["sigma_data"] < 1e6 and isinstance(config["data"], dict)
            and config.get("folds", 2) in range(2, 10**6)
        ), "values out of range", "train the run again")

    def untrained(self) -> Denoiser:
        """Denoiser of the run's architecture, with fresh weights."""
        return untrained_denoiser(self.config, str(self.path / "config.json"))

    def outline(self) -> Denoiser:
        """The same on the device ``meta``: shapes without values, so a description that lies takes no memory."""
        with torch.device("meta"):
            return self.untrained()

    def denoiser(self, weights: str = "per-level") -> nn.Module:
        """Trained denoiser on the CPU, in evaluation mode; that of the data where noise images were a second class.

        ``weights``: ``last`` (averaged weights of the last step), ``per-level`` (best weights per noise level),
        ``early-stop`` (the one snapshot with the best average held-out loss), ``before-copies`` (that of half the steps
        at which copies were seen first), or the number of a kept step. Raises InputError for a run with folds.
        """
        if self.folds is not None:
            raise InputError(f"{self.path} is cross-fitted, and its networks are routed by the training points; load "
                             "it by geomem.load_denoiser")
        denoiser = self.denoiser_of_classes(weights)
        config = self.config
        return FixedClass(denoiser, 0) if config["classes"] and config.get("labels") is None else denoiser

    def denoiser_of_classes(self, weights: str) -> nn.Module:
        """The same, with noise images as a class: what the run's weights fit."""
        if weights == "last":
            return self._filled(self.path / "model.safetensors")
        if weights == "before-copies":
            return self._filled(self.snapshot_path(self.step_before_copies))
        levels = self.levels
        if levels is None:
            raise InputError(f"{self.path} kept no weights per noise level (it was trained without held-out data); "
                             "use --weights last")
        if weights == "per-level":
            outline = self.outline()
            snapshots = {step: read_matching(self.snapshot_path(step), outline) for step in set(levels["steps"])}
            return stitch(levels["edges"], [snapshots[step] for step in levels["steps"]], self.untrained().eval())
        kept = {str(step): step for step in sorted({*levels["steps"], levels["early_stop"]})}
        step = levels["early_stop"] if weights == "early-stop" else kept.get(str(weights))
        if step is None:
            raise InputError(f"{self.path} has no weights {weights!r}; choose last, per-level, early-stop, "
                             f"before-copies or one of the steps {', '.join(kept)}")
        return self._filled(self.snapshot_path(step))

    def _filled(self, path: Path) -> Denoiser:
        """Denoiser with the weights in a file; nothing is built before they are known to fit its outline."""
        weights = read_matching(path, self.outline())
        denoiser = self.untrained().eval()
        denoiser.load_state_dict(weights)
        return denoiser

    @property
    def levels(self) -> dict[str, Any] | None:
        """Bands of noise levels with their chosen steps, or None where the run kept none."""
        path = self.path / "levels.json"
        if not path.is_file():
            return None
        return _read_json(path, LEVELS_FORMAT, lambda levels: (
            len(levels["edges"]) == len(levels["steps"]) + 1
            and all(0 < a < b < math.inf for a, b in pairwise(levels["edges"]))
            and all(map(_is_step, [*levels["steps"], levels["early_stop"]]))
        ), "bands and steps do not fit", "use --weights last")

    @property
    def usual_weights(self) -> str:
        """Which weights to take unless somebody says."""
        if self.folds is not None:
            return "cross-fitted"
        return self.weights_without_levels if self.levels is None else "per-level"

    @property
    def weights_without_levels(self) -> str:
        """Which weights to take where none were chosen per noise level."""
        return "before-copies" if (self.path / "before-copies.json").is_file() else "last"

    @property
    def step_before_copies(self) -> int:
        """Step of the weights from before the copies. Raises InputError where the training saw none."""
        path = self.path / "before-copies.json"
        if not path.is_file():
            raise InputError(f"{self.path} has no weights before-copies: its training saw no copies, or was not "
                             "watched; use --weights last or per-level")
        return _read_json(path, BEFORE_FORMAT, lambda before: _is_step(before.get("step")), "no step",
                          "use --weights last")["step"]

    def snapshot_path(self, step: int) -> Path:
        """File of the snapshot of a step."""
        return self.path / "weights" / f"step-{step:07d}.safetensors"

    def generate(self, seeds: Sequence[int], *, weights: str | None = None, data: DataSet | None = None,
                 routing: str | float | None = None, **options: Any) -> Samples:
        """A sample for each seed. weights, data, routing: as ``load_denoiser`` has them; options: those of
        ``Pretrained.generate``.
        """
        from geomem.training.pretrained import load_denoiser

        return load_denoiser(self.path, weights, data=data, routing=routing).generate(seeds, **options)

    @property
    def stats(self) -> list[dict[str, Any]]:
        """Lines of stats.jsonl; a last line cut off by a kill is left out."""
        return self.lines("stats.jsonl")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The same of any .jsonl file of the run whose lines name their step."""
        path = self.path / name
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8", errors="backslashreplace")
        whole = text.split("\n")[:-1]  # after the last newline: nothing, or half a line
        try:
            lines = [parse_json(line, f"{path} is damaged", "remove the broken line") for line in whole]
            return [line for line in lines if line["step"] >= 0]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error!r}); remove the broken line") from None

    def append(self, name: str, line: Mapping[str, Any]) -> None:
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _are_labels(labels: Any, names: Any, classes: int) -> bool:
    """Whether these can be the labels, in order, that a network of so many classes stands for, and their names."""
    if labels is None:
        return names is None
    return (isinstance(labels, list) and 0 < len(labels) <= classes
            and all(type(label) is int and abs(label) < 2**63 for label in labels)
            and all(a < b for a, b in pairwise(labels))
            and (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names)
                                   and len(set(names)) == len(names) == len(labels))))


def untrained_denoiser(config: Mapping[str, Any], origin: str) -> Denoiser:
    """Denoiser with fresh weights that a run's options describe; ``origin`` names them in errors."""
    if config["network"] == DIFFUSERS:
        return diffusers_denoiser(config["diffusers"], origin)
    net = build_network(config["network"], config["shape"], dropout=config["dropout"], classes=config["classes"])
    if config["objective"] == "flow":
        return VelocityDenoiser(net, schedule=FlowSchedule(shift=config.get("flow_shift", 1.0)), time_scale=1.0)
    return EDMDenoiser(net, config["sigma_data"]) if config["objective"] == "edm" else EpsilonDenoiser(net)


def initial_denoiser(config: Mapping[str, Any], seed: int, origin: str) -> Denoiser:
    """The same with the weights that a training with this seed begins with."""
    torch.manual_seed(key(seed, "initial weights") & (2**63 - 1))
    return untrained_denoiser(config, origin)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {name: leaf for key, item in value.items()
            for name, leaf in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _is_step(value: Any) -> bool:
    return type(value) is int and value >= 0


def _read_json(path: Path, expected: str, is_sound: Callable[[dict[str, Any]], bool], damage: str,
               advice: str) -> dict[str, Any]:
    """The object in a file of the run. Raises InputError for another format, and for values that are not sound."""
    if path.parent.exists() and not path.parent.is_dir():
        refuse_pickle(path.parent)
        raise InputError(f"{path.parent} is a file; give a run directory of geomem train, or a diffusers folder")
    value = read_json(path, f"{path.parent} is not a run directory of geomem train, or it is damaged")
    if value.get("format") != expected:
        raise InputError(f"{path} is not a {expected} file of geomem")
    try:
        damage = "" if is_sound(value) else damage
    except (KeyError, TypeError) as error:
        damage = repr(error)
    if damage:
        raise InputError(f"{path} is damaged ({damage}); {advice}")
    return value
