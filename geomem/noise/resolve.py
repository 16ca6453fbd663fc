"""The law of the training noise levels, from a few words: a sampler, a confidence interval and gaps."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.errors import InputError
from geomem.geometry.zone import recommended_gap
from geomem.geometry.zone_file import read_document
from geomem.noise.danger_zone import ZoneReport, danger_zone
from geomem.noise.flow_samplers import FLOW_SAMPLERS
from geomem.noise.flow_schedule import FlowSchedule, schedule_of
from geomem.noise.gaps import Gap, parse_range
from geomem.noise.samplers import (
    ConfidenceIntervalSampler,
    GapSampler,
    LogNormalSampler,
    NoiseLevelSampler,
    UniformTimestepSampler,
)
from geomem.noise.schedules import SIGMA_MAX, SIGMA_MIN, DDPMSchedule, NoiseSchedule

if TYPE_CHECKING:
    from geomem.data import DataSet

LOG = logging.getLogger("geomem")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_WANTED = "give auto, zone, none, LO:HI in sigma, LOt:HIt in timesteps or an existing danger-zone.json"


@dataclass(frozen=True)
class ResolvedLaw:
    """The law of the training noise levels and where it came from.

    ``plain``: (name, law) before the confidence interval and the gaps, to compare with. ``name``: what was changed.
    ``document``: the danger-zone document (format ``geomem.danger-zone/1``) where the curves were computed, else None.
    ``schedule``: of the timesteps in it.
    """

    law: NoiseLevelSampler
    plain: tuple[str, NoiseLevelSampler]
    name: str
    document: dict[str, Any] | None
    schedule: NoiseSchedule = field(default_factory=DDPMSchedule)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The noise levels left out, in sigma."""
        return self.law.gaps if isinstance(self.law, GapSampler) else ()

    @property
    def named(self) -> list[tuple[str, NoiseLevelSampler]]:
        """The plain law, and beside it this one where it is another: what ``geomem.plots.plot_density`` takes."""
        return [self.plain] if self.law is self.plain[1] else [self.plain, (self.name, self.law)]

    def summary(self) -> dict[str, Any]:
        """JSON: the share of the draws removed, quantiles, and those quantiles as timesteps of the schedule."""
        sigma = self.law.icdf(np.array(QUANTILES))
        owner = self.schedule.times[self.schedule.owner(sigma)]
        return {"removed_mass": self.law.removed_mass if isinstance(self.law, GapSampler) else 0.0,
                "quantiles": [{"share": share, "sigma": float(level), "timestep": int(timestep)}
                              for share, level, timestep in zip(QUANTILES, sigma, owner, strict=True)]}


def resolve_law(dataset: DataSet, objective: str = "edm", *, sampler: str | None = None,
                ci: tuple[float, float] | str | None = None, gaps: Sequence[str] = ("none",), gap_keep: float = 0.0,
                seed: int = 0, device: Any = "auto", schedule: NoiseSchedule | None = None) -> ResolvedLaw:
    """The law of the training noise levels for a data set.

    Arguments: ``objective`` ``edm``, ``ddpm`` or ``flow``, which decides the sampler unless that is given; ``sampler``
    ``lognormal`` (EDM's, scaled to the data), ``uniform`` over timesteps, a law of flow times (one of
    ``FLOW_SAMPLERS``, with the shift of a flow schedule), or ``ci``; ``ci`` the confidence interval in timesteps, or
    ``auto``, from the upper end of the recommended gap on; ``gaps`` what is left out, each ``none``, ``auto`` (the
    recommended gap), ``zone`` (the danger zone), ``LO:HI`` in sigma, ``LOt:HIt`` in timesteps or a danger-zone file,
    several with commas between; ``gap_keep`` the share of the draws there that stay;
    ``seed`` and ``device`` of the curves, which are computed at most once and only where they are needed;
    ``schedule`` of the timesteps, None for that of flow matching or DDPM's linear one.
    Raises InputError for words that contradict each other and for gaps that cannot be had.
    """
    kind = sampler or ("ci" if ci else {"edm": "lognormal", "ddpm": "uniform", "flow": "logit-normal"}[objective])
    if (kind == "ci") != (ci is not None):
        raise InputError("--sampler ci needs --ci auto or LO:HI in timesteps" if ci is None
                         else f"--ci has no effect with --sampler {kind}; use --sampler ci")
    words = [word for given in gaps for word in ([given] if os.path.exists(given) else given.split(","))]
    if "none" in words and len(words) > 1:
        raise InputError("--gap none leaves nothing out and stands alone; leave it away to give other gaps")
    if words == ["none"] and gap_keep:
        raise InputError("--gap-keep has no effect without a gap; give --gap too")
    schedule = schedule or (FlowSchedule() if objective == "flow" else schedule_of())

    @functools.cache
    def report() -> ZoneReport:
        return danger_zone(dataset.train, dataset.heldout, seed=seed, device=device)

    ranges = [] if words == ["none"] else [_gap(word, dataset, report, schedule) for word in words]
    base, plain_name, least, most = _plain(kind, dataset, schedule)
    for low, high in ranges:
        if low > most or high < least:
            raise InputError(f"--gap {low:g}:{high:g} lies outside the schedule, sigma {least:.3g} to {most:.3g}")
    plain, names = (plain_name, base), []
    of = {"lognormal": "EDM's law, scaled to the data", "uniform": "the law uniform over timesteps"}.get(
        kind, f"the {plain_name}" if ci is None else "the confidence interval")
    if ci is not None:
        base = (ConfidenceIntervalSampler(*ci, schedule=schedule) if isinstance(ci, tuple)
                else ConfidenceIntervalSampler.above(_upper_end(report), schedule=schedule))
        names.append(f"confidence interval {base.c_low:g}:{base.c_high:g}")
        LOG.info("%s: %s of a normal over these %s, the tails over all", names[0], f"{base.coverage:.0%}",
                 "flow times" if isinstance(schedule, FlowSchedule) else "DDPM timesteps")
    law = base
    if ranges:
        law = GapSampler(base, ranges, keep=gap_keep)
        names.append(f"gap, {gap_keep:.0%} kept" if gap_keep else "gap")
        LOG.info("gap: sigma %s %s, %s of the draws removed, those of %s",
                 ", ".join(f"{low:.3g} to {high:.3g}" for low, high in law.gaps),
                 "thinned" if gap_keep else "left out of training", f"{law.removed_mass:.1%}", of)
    document = report().document(dataset) if report.cache_info().currsize else None
    return ResolvedLaw(law, plain, ", ".join(names), document, schedule)


def _plain(kind: str, dataset: DataSet, schedule: NoiseSchedule) -> tuple[NoiseLevelSampler, str, float, float]:
    """The law without changes, its name, and the ends of its noise levels; under a confidence interval the uniform."""
    if kind == "lognormal":
        return LogNormalSampler.for_data(dataset.std), "EDM's law", SIGMA_MIN, SIGMA_MAX
    if kind in FLOW_SAMPLERS:
        law = FLOW_SAMPLERS[kind](shift=getattr(schedule, "shift", 1.0))
        return law, f"{kind} law of flow times", 0.0, np.inf
    return UniformTimestepSampler(schedule), "uniform over timesteps", schedule.sigmas[0], schedule.sigmas[-1]


def _upper_end(report: Callable[[], ZoneReport]) -> float:
    """Where the recommended gap ends, which is where W has fallen to 0.8, zone or no zone."""
    try:
        return recommended_gap(report().refined, report().zone)[1]
    except InputError as error:
        raise InputError(f"--ci auto begins where the recommended gap ends; {error}") from None


def _gap(word: str, dataset: DataSet, report: Callable[[], ZoneReport], schedule: NoiseSchedule) -> Gap:
    """One gap in sigma from one word; ``report``: of the data's danger zone, computed when it is called."""
    if word == "auto":
        return recommended_gap(report().refined, report().zone)
    if word == "zone":
        if (zone := report().zone) is None:
            raise InputError(f"--gap zone: {dataset.name} has no danger zone ({report().reason}); use --gap auto, "
                             "LO:HI or none")
        return zone.sigma_low, zone.sigma_high
    if os.path.exists(word):
        return _zone_of_file(word, dataset)
    if match := re.fullmatch(r"([0-9]{1,9})t:([0-9]{1,9})t", word):
        return schedule.sigma_range(int(match[1]), int(match[2]))
    try:
        return parse_range(word)
    except InputError as error:
        raise InputError(f"--gap {error}; {_WANTED}") from None


def _zone_of_file(path: str, dataset: DataSet) -> Gap:
    """The zone of a danger-zone file, or of the one in a directory; a note where it is of something else."""
    document = read_document(path)
    zone, data, space = document["zone"], document["data"], document["space"]
    if zone is None:
        raise InputError(f"--gap {path}: the file holds no danger zone; use --gap auto, LO:HI or none")
    if data.get("sha256") != dataset.sha256:
        LOG.info("note: --gap %s is the zone of other data: %s, %s training and %s held-out points; here they are %s, "
                 "%s and %s", path, data.get("name", "unnamed"), f"{data['n_train']:,}", f"{data['n_heldout']:,}",
                 dataset.name, f"{len(dataset.train):,}", f"{len(dataset.heldout):,}")
    if space["name"] != "data":
        LOG.info("note: --gap %s is the zone in the space %s; training is in that of the data", path, space["name"])
    return zone["sigma_low"], zone["sigma_high"]
