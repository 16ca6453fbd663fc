"""The facts of a page: what lies in a run directory is used, the rest is computed, and both are named.

Verdicts rest on the samples alone: a share that a file gives is shown for other weights, never believed for these.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geomem.data import DataSet, load_data
from geomem.errors import InputError
from geomem.generation import Samples, data_of, fingerprint, read_samples, require_comparable
from geomem.memorization import memorization_rate
from geomem.noise import NoiseLevelSampler
from geomem.noise.danger_zone import danger_zone
from geomem.quality import quality_report
from geomem.report import saved
from geomem.report.commands import data_arguments, root_arguments, shell, training_command
from geomem.report.facts import DataFacts, Missing, RunFacts, SampleFacts
from geomem.run_audit import Audit, audit
from geomem.training import Run, load_denoiser
from geomem.training.levels import levels_beside_references

_SHOWN_POINTS, _SHOWN_FIRST, _SHOWN_CLOSEST = 32, 16, 8
_MAX_LAW = 200_000  # characters; a schedule of its own with 1,000 timesteps has some 20,000
_LOG = logging.getLogger("geomem")


@dataclass
class Collector:
    """Collects the facts of ``runs``; the data and danger zones that they share are taken once.

    data, weights, seeds, device, data_root, load, progress: as in ``write_page``.
    """

    runs: Sequence[str]
    data: str | None = None
    weights: str | None = None
    seeds: Sequence[int] = range(1000)
    device: str = "auto"
    data_root: str | None = None
    load: Callable[..., DataSet] | None = None
    progress: Callable[[int, int], None] | None = None
    data_facts: dict[str, DataFacts] = field(default_factory=dict)  # by the hash of the data
    _data: dict[str, DataSet] = field(default_factory=dict)

    def facts(self) -> list[RunFacts]:
        """Everything about each run; what is missing is recorded. Raises InputError for no run, or without its data."""
        return [_Subject(self, name).facts() for name in self.runs]

    def dataset(self, config: dict[str, Any], name: str) -> DataSet:
        key = json.dumps(config["data"], sort_keys=True, default=str)
        if key not in self._data:
            self._data[key] = data_of({"data": config["data"]}, self.data, name,
                                      load=self.load or partial(load_data, data_root=self.data_root))
        shape = self._data[key].train.shape[1:]
        if shape != tuple(config["shape"]):
            raise InputError(f"{name} makes points of shape {tuple(config['shape'])}, those of {self._data[key].name} "
                             f"have {shape}")
        return self._data[key]


class _Subject:
    """A run with all that could be opened of it, what its part of the page rests on, and what that lacks."""

    def __init__(self, asked: Collector, name: str) -> None:
        self.asked, self.name, self.run = asked, name, Run(name)
        self.folder, self.config = self.run.path, self.run.config
        self.used: list[str] = []
        self.missing: list[Missing] = []
        self.dataset = asked.dataset(self.config, name)
        self.levels: dict[str, Any] | None = self.attempt(
            "the choice of weights per noise level",
            lambda: None if self.run.levels is None else saved.bands(self.run.levels))
        self.weights = asked.weights or ("cross-fitted" if self.run.folds else "per-level" if self.levels else
                                         self.run.weights_without_levels)
        self.model = self.attempt("the model", lambda: load_denoiser(self.run.path, self.weights, data=self.dataset))
        self.mark = self.model and fingerprint(self.model.denoiser)  # of the weights that are judged

    def attempt(self, what: str, work: Callable[[], Any], command: str = "") -> Any:
        """The result of ``work``, or None with its InputError on record."""
        try:
            return work()
        except (InputError, OSError) as error:
            self.missing.append(Missing(what, str(error), command))
            return None

    def ignored(self, reason: str) -> None:
        self.used.append(f"not used: {reason}")

    def facts(self) -> RunFacts:
        sha256 = self.dataset.sha256
        if sha256 not in self.asked.data_facts:
            self.asked.data_facts[sha256] = self._data_facts()
        samples, judged = self._samples(), None
        if samples is not None:
            judged = self.attempt("the judgement of the samples", lambda: self._of_samples(samples))
        reports = [report for _, report in saved.documents_in(
            self.folder, "geomem.memorization/1", saved.memorization, self.ignored)
            if report["about"]["data"]["sha256"] == sha256]
        others = tuple((str(report["path"]), str(report["about"].get("weights")), report["trajectory"])
                       for report in reports if report["about"].get("weights") != self.weights)
        stats = self.attempt("the loss along training", lambda: self._lines("stats.jsonl", saved.training_lines)) or []
        watch = self.attempt("memorization along training",
                             lambda: self._lines("watch.jsonl", saved.watch_lines)) or []
        self._note_gaps(stats, watch)
        command = self.attempt("the command of the training", lambda: training_command(
            self.config, f"{self.name}-again", self.asked.data_root)) or ""
        law = self.attempt("the law of the training noise levels", lambda: _law(self.config))
        return RunFacts(self.name, self.asked.data_facts[sha256], self.config, command, self.run.steps_done, law, stats,
                        watch, self.levels, self.weights, **(judged or {}), **self._per_level(reports), others=others,
                        used=tuple(self.used), missing=tuple(self.missing), commands=self._commands())

    def _lines(self, name: str, read: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        saved.require_readable(self.folder / name)
        return read(self.run.lines(name))

    # --- the data and their danger zone -------------------------------------------------------------------

    def _data_facts(self) -> DataFacts:
        dataset, command = self.dataset, self._zone_command()
        zone, origin = self.zone_saved()
        if zone is None:
            _LOG.info("computing the danger zone of %s", dataset.name)
            zone = self.attempt("the danger zone", lambda: danger_zone(
                dataset.train, dataset.heldout, device=self.asked.device).document(dataset), command)
            origin = "computed for this page"
        return DataFacts(dataset.name, dataset.sha256, tuple(dataset.train.shape[1:]), len(dataset.train),
                         len(dataset.heldout), dataset.n_validation, dataset.n_test, dataset.duplicates, dataset.notes,
                         np.array(dataset.train[:_SHOWN_POINTS]), zone, origin, command)

    def zone_saved(self) -> tuple[dict[str, Any] | None, str]:
        """The danger zone of these data that lies in one of the runs, and where."""
        def read(path: Path, document: dict[str, Any]) -> dict[str, Any] | None:
            return saved.zone_document(path, document) if "zone" in document else None  # curves.json has none

        for name in self.asked.runs:
            for path, zone in saved.documents_in(Path(name), "geomem.danger-zone/1", read, self.ignored):
                if zone and zone["data"]["sha256"] == self.dataset.sha256 and zone["space"] in (None, "data"):
                    return zone, f"found in {path}"
        return None, ""

    def _zone_command(self) -> str:
        root = self.asked.data_root
        spec = [self.asked.data, *root_arguments(root)] if self.asked.data else data_arguments(self.config["data"],
                                                                                               root)
        return shell("geomem", "danger-zone", *spec, "--out", self.folder / "danger-zone")

    # --- samples and what they tell -----------------------------------------------------------------------

    def _fits(self, path: str | Path, about: dict[str, Any]) -> bool:
        """Whether a report or samples are about these data and weights; a line where the run was trained on since."""
        data, made_with = about.get("data"), about.get("weights_sha256")
        if (not isinstance(data, dict) or data.get("sha256") != self.dataset.sha256
                or about.get("weights") != self.weights):
            return False
        if self.mark and made_with and made_with != self.mark:
            self.ignored(f"{path} (made with other weights than the run holds now)")
            return False
        return True

    def _samples(self) -> Samples | None:
        """The largest fitting sample file of the run, else new samples."""
        best = None
        for path in saved.files_in(self.folder, ".npz"):
            try:
                saved.require_bounded(path)
                samples = read_samples(path)
                if self._fits(path, samples.about):
                    require_comparable(samples, self.dataset)
                    best = samples if best is None or len(samples.values) > len(best.values) else best
            except InputError as error:
                self.ignored(str(error))
        if best is not None:
            self.used.append(f"samples: {len(best.values):,} found in {best.name}"
                             + ("" if best.about.get("weights_sha256") else
                                ", which does not say from which state of the training they are"))
        elif self.model is not None:
            _LOG.info("generating %s samples of %s", f"{len(self.asked.seeds):,}", self.folder)
            best = self.model.generate(self.asked.seeds, device=self.asked.device, progress=self.asked.progress)
            self.used.append(f"samples: {len(best.values):,} generated for this page")
        return best

    def _of_samples(self, samples: Samples) -> dict[str, Any]:
        """The fields of ``RunFacts`` from sampling to samples."""
        n, device, dataset, model = len(samples.values), self.asked.device, self.dataset, self.model
        compared = samples.values, dataset.train, dataset.test
        known = {} if model is None else {"denoiser": model.denoiser, "labels": model.classes_of(dataset)}
        found: Audit | None = self.attempt("leaning and the verdict", lambda: audit(
            *compared, **known, classes=samples.classes(dataset), class_names=dataset.class_names or (),
            leaked=dataset.n_leaked, mirrored=samples.flip, device=device))
        rate, heldout = (found.trajectory, found.heldout) if found and found.heldout else (
            memorization_rate(part, dataset.train, device=device) for part in (samples.values, dataset.test))
        if found and found.left_out:
            self.missing.append(Missing("leaning and near-copies", found.left_out["leaning"]))
        quality = (found and found.quality) or self.attempt("quality", lambda: quality_report(*compared, device=device))
        self.used.append("memorized share, leaning and quality: measured for this page from these samples")
        chosen = np.concatenate([np.arange(min(n, _SHOWN_FIRST)),
                                 np.argsort(rate.ratios, kind="stable")[:_SHOWN_CLOSEST]])
        shown = SampleFacts(samples.values[chosen], np.stack([dataset.train[k] for k in rate.nearest[chosen].tolist()]),
                            rate.ratios[chosen], rate.memorized[chosen], min(n, _SHOWN_FIRST))
        method, steps = (str(samples.about.get(key, "unknown"))[:40] for key in ("method", "steps"))
        return {"sampling": f"{method}, {steps} noise levels", "trajectory": rate.to_dict(),
                "heldout": heldout.to_dict(), "leaning": found and found.leaning and found.leaning.to_dict(),
                "audit": found and found.to_dict(), "quality": quality and quality.to_dict(), "samples": shown}

    def _per_level(self, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        what, dataset, model = "memorization per noise level", self.dataset, self.model
        for report in reports:
            if report["per_noise_level"] is not None and self._fits(report["path"], report["about"]):
                self.used.append(f"{what}: found in {report['path']}")
                return {"per_noise_level": report["per_noise_level"], "references": report["reference_denoisers"]}
        command = shell("geomem", "memorization", self.folder, "--weights", self.weights, "--out",
                        self.folder / "memorization")
        if model is None:
            self.missing.append(Missing(what, "it needs the model", command))
            return {}
        _LOG.info("measuring memorization per noise level of %s", self.folder)
        measured = self.attempt(what, lambda: levels_beside_references(model, dataset, device=self.asked.device),
                                command)
        if measured is None:
            return {}
        self.used.append(f"{what}: computed for this page")
        levels = {name: level.to_dict() for name, level in measured.items()}
        return {"per_noise_level": levels.pop("model"), "references": levels}

    # --- what is missing, and how to do it again ----------------------------------------------------------

    def _note_gaps(self, stats: list[Any], watch: list[Any]) -> None:
        settings, folds, done = self.config.get("settings"), self.run.folds, self.run.steps_done
        asked = settings.get("iterations") if isinstance(settings, dict) else None
        if isinstance(asked, int) and done is not None and done < asked * (folds or 1):
            self.missing.append(Missing("the end of the training", f"{done:,} of {asked * (folds or 1):,} steps are "
                                        "done", "the command of the training with --resume, unless it was meant to "
                                        "stop there"))
        if folds:
            self.missing.append(Missing("the training of each network", f"{folds} networks were trained, each "
                                        "without a part of the points; their reports are apart",
                                        shell("geomem", "report", self.run.without_fold(0).path, "--out",
                                              "PAGE.html")))
            return
        if not stats:
            self.missing.append(Missing("the loss along training", "the run holds no stats.jsonl"))
        if not watch:
            self.missing.append(Missing("memorization along training", "the run was not watched; a new training is, "
                                        "unless --watch-every is 0"))
        if self.levels is None and not any("choice of weights" in part.what for part in self.missing):
            self.missing.append(Missing("best weights per noise level", "the run kept none; a training with three or "
                                        "more held-out points does"))

    def _commands(self) -> tuple[str, ...]:
        data = [*(["--data", self.asked.data] if self.asked.data else []), *root_arguments(self.asked.data_root)]
        return (self._zone_command(),
                shell("geomem", "memorization", self.folder, *data, "--weights", self.weights, "--n-samples",
                      len(self.asked.seeds), "--out", self.folder / "memorization"))


def _law(config: dict[str, Any]) -> NoiseLevelSampler:
    described = config.get("sampler")
    if not isinstance(described, dict) or len(json.dumps(described)) > _MAX_LAW:
        raise InputError("config.json describes no law of noise levels, or one too long to draw")
    return NoiseLevelSampler.from_dict(described)
