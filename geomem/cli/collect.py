"""The facts of ``geomem report``: what lies in a run directory is used, the rest is computed, and both are named."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geomem.cli.generate import generated
from geomem.cli.memorization import noise_levels_of
from geomem.cli.options import data_root, load, say
from geomem.cli.repeat import data_arguments, root_arguments, shell, training_command
from geomem.data import DataSet
from geomem.errors import InputError
from geomem.generation import Samples, data_of, fingerprint, read_samples, require_comparable
from geomem.memorization import memorization_rate
from geomem.noise import NoiseLevelSampler
from geomem.noise.danger_zone import danger_zone
from geomem.quality import quality_report
from geomem.report import DataFacts, Missing, RunFacts, SampleFacts, found
from geomem.training import Pretrained, Run, load_denoiser

_SHOWN_POINTS, _SHOWN_FIRST, _SHOWN_CLOSEST = 32, 16, 8
_LEVELS, _LEVEL_POINTS = 20, 512  # what geomem memorization takes without options
_MAX_LAW = 200_000  # characters; a schedule of its own with 1,000 timesteps has some 20,000


@dataclass
class _Record:
    """What a run's part of the page rests on, and what it lacks."""

    used: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def attempt(self, what: str, work: Callable[[], Any], command: str = "") -> Any:
        """The result of ``work``, or None with its InputError on record."""
        try:
            return work()
        except (InputError, OSError) as error:
            self.missing.append(Missing(what, str(error), command))
            return None

    def ignored(self, reason: str) -> None:
        self.used.append(f"not used: {reason}")


@dataclass(frozen=True)
class _Subject:
    """A run with all that could be opened of it. ``mark``: fingerprint of the weights that are judged."""

    run: Run
    config: dict[str, Any]
    sha256: str
    dataset: DataSet | None
    model: Pretrained | None
    weights: str
    mark: str | None
    record: _Record

    @property
    def folder(self) -> Path:
        return self.run.path

    def is_of_other_weights(self, about: dict[str, Any]) -> bool:
        return about["data"]["sha256"] == self.sha256 and about.get("weights") != self.weights

    def fits(self, path: Path, about: dict[str, Any]) -> bool:
        """Whether a report or samples are about these data and weights; a line where the run was trained on since."""
        data = about.get("data")
        if not isinstance(data, dict) or data.get("sha256") != self.sha256 or about.get("weights") != self.weights:
            return False
        made_with = about.get("weights_sha256")
        if self.mark and made_with and made_with != self.mark:
            self.record.ignored(f"{path} (made with other weights than the run holds now)")
            return False
        return True


@dataclass
class Collector:
    """Collects the facts of runs; the data and danger zones that they share are taken once.

    given, weights, seeds, device: the options --data, --weights, --seeds and --device.
    """

    names: tuple[str, ...]
    given: str | None
    weights: str | None
    seeds: list[int]
    device: str
    _data: dict[str, DataSet] = field(default_factory=dict)
    _facts: dict[str, DataFacts] = field(default_factory=dict)

    def facts(self, name: str) -> RunFacts:
        """Everything about one run. Raises InputError where there is no run; whatever else is missing is recorded."""
        run, record = Run(name), _Record()
        config = run.config
        dataset = record.attempt("the data, and all that needs them", lambda: self._dataset(config, name),
                                 shell(["geomem", "report", name, "--data", "DATA", "--out", "PAGE.html"]))
        levels = record.attempt("the choice of weights per noise level", lambda: _levels(run))
        weights = self.weights or (run.weights_without_levels if levels is None else "per-level")
        model = record.attempt("the model", lambda: load_denoiser(run.path, weights))
        sha256 = dataset.sha256 if dataset else str(config["data"].get("sha256"))[:64]
        subject = _Subject(run, config, sha256, dataset, model, weights, model and fingerprint(model.denoiser), record)
        data = self._data_facts(subject)
        judged = self._judged(subject)
        stats = record.attempt("the loss along training", lambda: _stats(run)) or []
        watch = record.attempt("memorization along training", lambda: _watch(run)) or []
        steps_done = _steps_done(run)
        self._note_gaps(subject, levels, stats, watch, steps_done)
        return RunFacts(
            name, data, config, record.attempt("the command of the training",
                                               lambda: training_command(config, f"{name}-again", data_root())) or "",
            steps_done, record.attempt("the law of the training noise levels",
                                       lambda: _law(config)),
            stats, watch, levels, weights, **judged, used=tuple(record.used), missing=tuple(record.missing),
            commands=self._commands(subject))

    def _dataset(self, config: dict[str, Any], name: str) -> DataSet:
        key = json.dumps(config["data"], sort_keys=True, default=str)
        if key not in self._data:
            self._data[key] = data_of({"data": config["data"]}, self.given, name, load=load)
        shape = self._data[key].train.shape[1:]
        if shape != tuple(config["shape"]):
            raise InputError(f"{name} makes points of shape {tuple(config['shape'])}, those of {self._data[key].name} "
                             f"have {shape}")
        return self._data[key]

    # --- the data and their danger zone -------------------------------------------------------------------

    def _data_facts(self, subject: _Subject) -> DataFacts:
        """The data set with its danger zone: the first one found in any of the runs, else computed."""
        dataset, config, record = subject.dataset, subject.config, subject.record
        if subject.sha256 in self._facts:
            return self._facts[subject.sha256]
        zone, origin = self._zone_found(subject.sha256, record)
        command = self._zone_command(subject)
        if zone is None and dataset is not None:
            say(f"computing the danger zone of {dataset.name}")
            zone = record.attempt("the danger zone", lambda: self._zone_computed(dataset), command)
            origin = "computed for this page"
        elif zone is None:
            record.missing.append(Missing("the danger zone", "it lies in no run and cannot be computed without the "
                                          "data", command))
        counts: dict[str, Any] = {}
        if dataset is not None:
            counts = {"n_train": len(dataset.train), "n_heldout": len(dataset.heldout), "notes": dataset.notes,
                      "duplicates": dataset.duplicates, "n_steer": dataset.n_validation, "n_judge": len(dataset.test),
                      "shown": np.array(dataset.train[:_SHOWN_POINTS])}
        elif zone is not None:
            counts = {name: zone["data"][name] for name in ("n_train", "n_heldout", "duplicates")}
        name = dataset.name if dataset else str(config["data"].get("name"))
        self._facts[subject.sha256] = DataFacts(name, subject.sha256, tuple(config["shape"]), **counts, zone=zone,
                                                zone_origin=origin if zone else "", zone_command=command)
        return self._facts[subject.sha256]

    def _zone_found(self, sha256: str, record: _Record) -> tuple[dict[str, Any] | None, str]:
        for name in self.names:
            for path, document in found.documents_in(Path(name), "geomem.danger-zone/1", record.ignored):
                if "zone" not in document:  # curves.json, which stops short of the zone
                    continue
                try:
                    zone = found.zone_document(path, document)
                except InputError as error:
                    record.ignored(f"{path}: {error}")
                    continue
                if zone["data"]["sha256"] == sha256 and zone["space"] == "data":
                    return zone, f"found in {path}"
        return None, ""

    def _zone_computed(self, dataset: DataSet) -> dict[str, Any]:
        report = danger_zone(dataset.train, dataset.heldout, device=self.device)
        return found.zone_document(Path("danger-zone.json"), json.loads(json.dumps(report.document(dataset))))

    def _zone_command(self, subject: _Subject) -> str:
        return shell(["geomem", "danger-zone", *self._spec(subject), "--out", subject.folder / "danger-zone"])

    def _spec(self, subject: _Subject) -> list[str]:
        try:
            if self.given:
                return [self.given, *root_arguments(data_root())]
            return data_arguments(subject.config["data"], data_root())
        except KeyError:
            return ["DATA"]

    # --- samples and what they tell -----------------------------------------------------------------------

    def _judged(self, subject: _Subject) -> dict[str, Any]:
        """The fields of ``RunFacts`` from trajectory to others, and the way the samples were made."""
        dataset, record = subject.dataset, subject.record
        reports = self._reports(subject)
        fitting = [one for one in reports if subject.fits(one.path, one.about)]
        others = tuple((str(one.path), str(one.about.get("weights")), one.trajectory)
                       for one in reports if subject.is_of_other_weights(one.about))
        facts: dict[str, Any] = {"others": others}
        samples = None if dataset is None else self._samples(subject)
        if dataset is not None and samples is not None:
            facts |= record.attempt("the judgement of the samples",
                                    lambda: self._of_samples(subject, dataset, samples)) or {}
        elif fitting:
            best = max(fitting, key=lambda one: one.trajectory["n"])
            facts |= {"trajectory": best.trajectory, "heldout": best.heldout, "sampling": _sampling(best.about),
                      "quality": self._quality_found(subject, best.trajectory["n"])}
            record.used.append(f"memorized share: found in {best.path}")
        for one in fitting:
            shown = facts.get("trajectory")
            if shown and one.trajectory["n"] == shown["n"] and abs(one.trajectory["rate"] - shown["rate"]) > 1e-9:
                record.used.append(f"{one.path} gives another memorized share for {shown['n']:,} samples, "
                                   f"{one.trajectory['rate']:.1%}; this page counted anew")
        return facts | self._per_level(subject, fitting)

    def _reports(self, subject: _Subject) -> list[found.Judgement]:
        reports = []
        for path, document in found.documents_in(subject.folder, "geomem.memorization/1", subject.record.ignored):
            try:
                reports.append(found.judgement(path, document))
            except InputError as error:
                subject.record.ignored(f"{path}: {error}")
        return reports

    def _samples(self, subject: _Subject) -> Samples | None:
        """The largest fitting sample file of the run, else new samples."""
        record, best = subject.record, None
        for path in found.files_in(subject.folder, ".npz"):
            try:
                _require_bounded(path)
                samples = read_samples(str(path))
                if subject.fits(path, samples.about):
                    assert subject.dataset is not None
                    require_comparable(samples, subject.dataset)
                    best = samples if best is None or len(samples.values) > len(best.values) else best
            except InputError as error:
                record.ignored(str(error))
        if best is not None:
            record.used.append(f"samples: {len(best.values):,} found in {best.name}"
                               + ("" if best.about.get("weights_sha256") else
                                  ", which does not say from which state of the training they are"))
            return best
        model = subject.model
        if model is None:
            return None
        say(f"generating {len(self.seeds):,} samples of {subject.folder}")
        samples = generated(model, self.seeds, device=self.device)
        record.used.append(f"samples: {len(samples.values):,} generated for this page")
        return samples

    def _of_samples(self, subject: _Subject, dataset: DataSet, samples: Samples) -> dict[str, Any]:
        record, n = subject.record, len(samples.values)
        rate = memorization_rate(samples.values, dataset.train, device=self.device)
        heldout = memorization_rate(dataset.test, dataset.train, device=self.device)
        record.used.append("memorized share: counted for this page from these samples")
        quality = self._quality_found(subject, n)
        if quality is None:
            quality = record.attempt("quality", lambda: quality_report(
                samples.values, dataset.train, dataset.test, device=self.device).to_dict())
            record.used += ["quality: computed for this page from these samples"] if quality else []
        chosen = np.concatenate([np.arange(min(n, _SHOWN_FIRST)),
                                 np.argsort(rate.ratios, kind="stable")[:_SHOWN_CLOSEST]])
        shown = SampleFacts(samples.values[chosen], np.stack([dataset.train[k] for k in rate.nearest[chosen].tolist()]),
                            rate.ratios[chosen], rate.memorized[chosen], min(n, _SHOWN_FIRST))
        return {"trajectory": rate.to_dict(), "heldout": heldout.to_dict(), "quality": quality, "samples": shown,
                "sampling": _sampling(samples.about)}

    def _quality_found(self, subject: _Subject, n: int) -> dict[str, Any] | None:
        for path, document in found.documents_in(subject.folder, "geomem.quality/1", subject.record.ignored):
            try:
                rows = found.quality_rows(path, document)
            except InputError as error:
                subject.record.ignored(f"{path}: {error}")
                continue
            for about, quality in rows:
                if quality["n_samples"] == n and subject.fits(path, about):
                    subject.record.used.append(f"quality: found in {path}")
                    return quality
        return None

    def _per_level(self, subject: _Subject, fitting: list[found.Judgement]) -> dict[str, Any]:
        record, dataset, model = subject.record, subject.dataset, subject.model
        for one in fitting:
            if one.per_noise_level is not None:
                record.used.append(f"memorization per noise level: found in {one.path}")
                return {"per_noise_level": one.per_noise_level, "references": one.references}
        command = shell(["geomem", "memorization", subject.folder, "--weights", subject.weights, "--out",
                         subject.folder / "memorization"])
        if dataset is None or model is None:
            record.missing.append(Missing("memorization per noise level",
                                          "it needs the model and the data", command))
            return {}
        say(f"measuring memorization per noise level of {subject.folder}")
        levels = record.attempt("memorization per noise level", lambda: noise_levels_of(
            model, dataset, _LEVELS, _LEVEL_POINTS, None, 0, self.device), command)
        if levels is None:
            return {}
        record.used.append("memorization per noise level: computed for this page")
        return {"per_noise_level": levels.pop("model"), "references": levels}

    # --- what is missing, and how to do it again ----------------------------------------------------------

    def _note_gaps(self, subject: _Subject, levels: Any, stats: list[Any], watch: list[Any],
                   steps_done: int | None) -> None:
        missing, settings = subject.record.missing, subject.config.get("settings")
        asked = settings.get("iterations") if isinstance(settings, dict) else None
        if isinstance(asked, int) and steps_done is not None and steps_done < asked:
            missing.append(Missing("the end of the training", f"{steps_done:,} of {asked:,} steps are done",
                                   "the command of the training with --resume, unless it was meant to stop there"))
        if not stats:
            missing.append(Missing("the loss along training", "the run holds no stats.jsonl"))
        if not watch:
            missing.append(Missing("memorization along training", "the run was not watched; a new training is, unless "
                                   "--watch-every is 0"))
        if levels is None and not any("choice of weights" in one.what for one in missing):
            missing.append(Missing("best weights per noise level", "the run kept none; a training with three or more "
                                   "held-out points does"))

    def _commands(self, subject: _Subject) -> tuple[str, ...]:
        name, folder = str(subject.folder), subject.folder / "memorization"
        data = [*(["--data", self.given] if self.given else []), *root_arguments(data_root())]
        return (self._zone_command(subject),
                shell(["geomem", "memorization", name, *data, "--weights", subject.weights, "--n-samples",
                       len(self.seeds), "--out", folder]),
                shell(["geomem", "quality", folder / "samples.npz", *data, "--out", subject.folder / "quality.json"]))


def _levels(run: Run) -> dict[str, Any] | None:
    levels = run.levels
    return None if levels is None else found.bands(levels)


def _stats(run: Run) -> list[dict[str, Any]]:
    found.require_readable(run.path / "stats.jsonl")
    return found.training_lines(run.stats)


def _watch(run: Run) -> list[dict[str, Any]]:
    found.require_readable(run.path / "watch.jsonl")
    return found.watch_lines(run.lines("watch.jsonl"))


def _law(config: dict[str, Any]) -> NoiseLevelSampler:
    described = config.get("sampler")
    if not isinstance(described, dict) or len(json.dumps(described)) > _MAX_LAW:
        raise InputError("config.json describes no law of noise levels, or one too long to draw")
    return NoiseLevelSampler.from_dict(described)


def _steps_done(run: Run) -> int | None:
    """Steps of the last checkpoint; None where the run holds no state, as an exported one."""
    from safetensors import SafetensorError, safe_open

    path = run.path / "state.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return int((file.metadata() or {})["steps_done"])
    except (SafetensorError, KeyError, ValueError):
        return None


def _sampling(about: dict[str, Any]) -> str:
    return f"{str(about.get('method', 'unknown sampler'))[:40]}, {str(about.get('steps', 'unknown'))[:40]} noise levels"


def _require_bounded(path: Path) -> None:
    """Refuse a file of samples that would unpack to more than is held in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is not an .npz ({error})") from None
    if size > found.MAX_SAMPLES_BYTES:
        raise InputError(f"{path} unpacks to {size:,} bytes, more than the {found.MAX_SAMPLES_BYTES:,} that are read")
