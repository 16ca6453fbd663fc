"""Options for the law of the training noise levels; ``geomem.noise.resolve_law`` makes the law."""

from __future__ import annotations

from typing import Any

import click

from geomem.cli.options import together
from geomem.cli.values import Interval, Number

FLOW_LAWS = "logit-normal", "uniform-flow", "mode", "cosmap", "u-shaped"  # noise.FLOW_SAMPLERS, which loads scipy


class IntervalOrAuto(Interval):
    """``LO:HI``, or the word auto."""

    name = "auto|LO:HI"

    def parse(self, text: str) -> Any:
        return text if text == "auto" else super().parse(text)


noise_level_options = together(
    click.option("--gap", multiple=True, default=["none"], show_default=True,
                 metavar="auto|zone|none|LO:HI|LOt:HIt|FILE",
                 help="Noise levels to leave out of training: the danger zone of the data (zone), the wider range "
                      "that geomem recommends (auto), a range of sigma in data units (0.3:1.5) or of "
                      "timesteps (125t:325t), or the zone in a danger-zone.json or the directory that holds one. "
                      "Several are all left out."),
    click.option("--gap-keep", type=Number(0, 1, max_open=True), default=0.0, show_default=True,
                 metavar="SHARE", help="Share of the draws inside the gaps that stay: a soft gap."),
    click.option("--sampler", type=click.Choice(["lognormal", "uniform", "ci", *FLOW_LAWS]),
                 help="Law of the training noise levels. lognormal is EDM's, scaled to the data; uniform over "
                      "timesteps; the others are laws of flow times.  [default: lognormal for edm, uniform for "
                      "ddpm, logit-normal for flow, ci with --ci]"),
    click.option("--ci", type=IntervalOrAuto(), metavar="auto|LO:HI",
                 help="Confidence interval over timesteps: half of a normal lies inside, and its tails are "
                      "spread over all timesteps. auto emphasizes the timesteps above the danger zone: from the "
                      "first one beyond its upper end to the last, 90% of the normal inside."))
