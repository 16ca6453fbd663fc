"""The noise levels of ``geomem train``: ``--sampler``, ``--ci`` and ``--gap`` resolved to one law."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import Interval, Number, say
from geomem.errors import InputError

if TYPE_CHECKING:
    from geomem.data import DataSet
    from geomem.geometry import DangerZone
    from geomem.noise import NoiseLevelSampler

_WANTED = "give auto, zone, none, LO:HI in sigma, LOt:HIt in DDPM timesteps or an existing danger-zone.json"


class IntervalOrAuto(Interval):
    """``LO:HI``, or the word auto."""

    name = "auto|LO:HI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


def noise_level_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--gap``, ``--gap-keep``, ``--sampler`` and ``--ci``."""
    options = [
        click.option("--gap", "gaps", multiple=True, default=["none"], show_default=True,
                     metavar="auto|zone|none|LO:HI|LOt:HIt|FILE",
                     help="Noise levels to leave out of training: the danger zone of the data (zone), the wider range "
                          "that geomem recommends (auto), a range of sigma in data units (0.3:1.5) or of DDPM "
                          "timesteps (125t:325t), or the zone in a danger-zone.json or the directory that holds one. "
                          "Several are all left out."),
        click.option("--gap-keep", type=Number(0, 1, max_open=True), default=0.0, show_default=True,
                     metavar="SHARE", help="Share of the draws inside the gaps that stay: a soft gap."),
        click.option("--sampler", type=click.Choice(["lognormal", "uniform", "ci"]),
                     help="Law of the training noise levels. lognormal is EDM's, scaled to the data.  [default: "
                          "lognormal for edm, uniform for ddpm, ci with --ci]"),
        click.option("--ci", type=IntervalOrAuto(), metavar="auto|LO:HI",
                     help="Confidence interval over DDPM timesteps: half of a normal lies inside, and its tails are "
                          "spread over all timesteps. auto emphasizes the timesteps above the danger zone: from the "
                          "first one beyond its upper end to the last, 90% of the normal inside."),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


@dataclass(frozen=True)
class NoiseLevels:
    """The law of the training noise levels and where it came from.

    ``plain``: (name, law) without --ci and --gap, to compare with. ``name``: what was done to it. ``document``: the
    danger-zone document where the curves were computed, else None.
    """

    law: NoiseLevelSampler
    plain: tuple[str, NoiseLevelSampler]
    name: str
    document: dict[str, Any] | None

    @property
    def gaps(self) -> tuple[tuple[float, float], ...]:
        """The noise levels left out, in sigma."""
        from geomem.noise import GapSampler

        return self.law.gaps if isinstance(self.law, GapSampler) else ()

    def summary(self) -> dict[str, Any]:
        """JSON: the share of the draws removed, quantiles, and those quantiles as DDPM timesteps."""
        import numpy as np

        from geomem.noise import DDPMSchedule, GapSampler

        quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
        sigma = self.law.icdf(np.array(quantiles))
        owner = DDPMSchedule().owner(sigma)
        return {"removed_mass": self.law.removed_mass if isinstance(self.law, GapSampler) else 0.0,
                "quantiles": [{"share": share, "sigma": float(level), "timestep": int(timestep)}
                              for share, level, timestep in zip(quantiles, sigma, owner, strict=True)]}

    def draw(self, path: Path) -> None:
        """Write the picture of the law beside the plain one."""
        from geomem.files import atomic_path
        from geomem.plots import plot_density

        rows = [self.plain] if self.law is self.plain[1] else [self.plain, (self.name, self.law)]
        with atomic_path(path) as temporary:
            plot_density(rows, (self.document or {}).get("zone")).savefig(temporary, dpi=150)


class _Geometry:
    """The curves of the data, computed when first asked for."""

    def __init__(self, dataset: DataSet, seed: int, device: str) -> None:
        self.dataset, self.seed, self.device = dataset, seed, device

    @functools.cached_property
    def found(self) -> tuple[dict[str, Any], Any, DangerZone | None]:
        """Danger-zone document, refined curves, zone."""
        from geomem.noise.danger_zone import danger_zone

        report = danger_zone(self.dataset.train, self.dataset.heldout, seed=self.seed, device=self.device)
        return report.document(self.dataset), report.refined, report.zone

    @property
    def document(self) -> dict[str, Any] | None:
        """The document if it was asked for, else None."""
        return self.found[0] if "found" in vars(self) else None

    def widened(self) -> tuple[float, float]:
        from geomem.geometry import widened_gap

        _, refined, zone = self.found
        return widened_gap(refined, zone)

    def upper_end(self) -> float:
        """Where the widened gap ends, which is where W has fallen to 0.8, zone or no zone."""
        try:
            return self.widened()[1]
        except InputError as error:
            raise InputError(f"--ci auto begins where the recommended gap ends; {error}") from None

    def zone(self) -> tuple[float, float]:
        document, _, zone = self.found
        if zone is None:
            raise InputError(f"--gap zone: {self.dataset.name} has no danger zone ({document['zone_reason']}); "
                             "use --gap auto, LO:HI or none")
        return zone.sigma_low, zone.sigma_high


def resolve_noise_levels(dataset: DataSet, sigma_data: float, objective: str, *, sampler: str | None,
                         ci: tuple[float, float] | str | None, gaps: Sequence[str], gap_keep: float, seed: int,
                         device: str) -> NoiseLevels:
    """The noise levels that the options ask for; a line for people says what the gaps remove.

    Raises InputError for options that contradict each other or gaps that cannot be had.
    """
    from geomem.noise import (
        SIGMA_MAX,
        SIGMA_MIN,
        ConfidenceIntervalSampler,
        DDPMSchedule,
        GapSampler,
        LogNormalSampler,
        UniformTimestepSampler,
    )

    kind = sampler or ("ci" if ci else {"edm": "lognormal", "ddpm": "uniform"}[objective])
    if (kind == "ci") != (ci is not None):
        raise InputError("--sampler ci needs --ci auto or LO:HI in DDPM timesteps" if ci is None
                         else f"--ci has no effect with --sampler {kind}; use --sampler ci")
    words = [word for given in gaps for word in ([given] if os.path.exists(given) else given.split(","))]
    if "none" in words and len(words) > 1:
        raise InputError("--gap none leaves nothing out and stands alone; leave it away to give other gaps")
    if words == ["none"] and gap_keep:
        raise InputError("--gap-keep has no effect without a gap; give --gap too")
    geometry = _Geometry(dataset, seed, device)
    ranges = [] if words == ["none"] else [_gap(word, dataset, geometry) for word in words]
    least, most = (SIGMA_MIN, SIGMA_MAX) if kind == "lognormal" else DDPMSchedule().sigmas[[0, -1]]
    for low, high in ranges:
        if low > most or high < least:
            raise InputError(f"--gap {low:g}:{high:g} lies outside the schedule, sigma {least:.3g} to {most:.3g}")
    base: NoiseLevelSampler = (LogNormalSampler.for_data(sigma_data) if kind == "lognormal"
                               else UniformTimestepSampler())
    plain, name = ("EDM's law" if kind == "lognormal" else "uniform over timesteps", base), ""
    if ci is not None:
        base = (ConfidenceIntervalSampler(*ci) if isinstance(ci, tuple)
                else ConfidenceIntervalSampler.above(geometry.upper_end()))
        name = f"confidence interval {base.c_low:g}:{base.c_high:g}"
        say(f"{name}: {base.coverage:.0%} of a normal over these DDPM timesteps, the tails over all")
    law = base
    if ranges:
        law = GapSampler(base, ranges, keep=gap_keep)
        name += (", " if name else "") + (f"gap, {gap_keep:.0%} kept" if gap_keep else "gap")
        say("gap: sigma " + ", ".join(f"{low:.3g} to {high:.3g}" for low, high in law.gaps)
            + (" thinned" if gap_keep else " left out of training") + f", {law.removed_mass:.1%} of the draws removed")
    return NoiseLevels(law, plain, name, geometry.document)


def _gap(word: str, dataset: DataSet, geometry: _Geometry) -> tuple[float, float]:
    """One gap in sigma from one word of ``--gap``."""
    from geomem.noise import DDPMSchedule

    if word == "auto":
        return geometry.widened()
    if word == "zone":
        return geometry.zone()
    if os.path.exists(word):
        return _zone_of_file(word, dataset)
    if match := re.fullmatch(r"([0-9]{1,9})t:([0-9]{1,9})t", word):
        return DDPMSchedule().sigma_range(int(match[1]), int(match[2]))
    try:
        return Interval().convert(word, None, None)
    except click.BadParameter as error:
        raise InputError(f"--gap {error.message}; {_WANTED}") from None


def _zone_of_file(path: str, dataset: DataSet) -> tuple[float, float]:
    """The zone of a danger-zone file, or of the one in a directory; a note where it is of something else."""
    from geomem.geometry.zone_file import read_document

    document = read_document(path)
    zone, data, space = document["zone"], document["data"], document.get("space", {"name": "data"})
    if zone is None:
        raise InputError(f"--gap {path}: the file holds no danger zone; use --gap auto, LO:HI or none")
    if data.get("sha256") != dataset.sha256:
        say(f"note: --gap {path} is the zone of other data: {data.get('name', 'unnamed')}, {data['n_train']:,} "
            f"training and {data['n_heldout']:,} held-out points; here they are {dataset.name}, "
            f"{len(dataset.train):,} and {len(dataset.heldout):,}")
    if space["name"] != "data":
        say(f"note: --gap {path} is the zone in the space {space['name']}; training is in that of the data")
    return zone["sigma_low"], zone["sigma_high"]
