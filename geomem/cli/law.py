"""``geomem law``: keeps another trainer out of the danger zone, as far as it can be told."""

from __future__ import annotations

import os
from typing import Any

import click

from geomem.cli.options import json_option
from geomem.cli.output import answer, say
from geomem.cli.values import Number
from geomem.errors import InputError
from geomem.files import require_writable


@click.command()
@click.argument("zone", metavar="ZONE")
@click.option("--for", "trainer", required=True,
              type=click.Choice(["simpletuner", "kohya", "onetrainer", "diffusers-sdxl"]),
              help="SimpleTuner (flow models), sd-scripts (SD, SDXL), OneTrainer (SD, SDXL, flow models with "
                   "--flow-shift), or diffusers' train_text_to_image_sdxl.py.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False),
              help="Write the options in the trainer's own form: JSON for SimpleTuner and OneTrainer, TOML for "
                   "sd-scripts (--config_file), arguments for diffusers.")
@click.option("--gap-keep", "keep", type=Number(0, 1, max_open=True), default=0.0, show_default=True, metavar="SHARE",
              help="Share of the draws in the zone that stays; for simpletuner and diffusers-sdxl.")
@click.option("--flow-shift", "shift", type=Number(0, min_open=True), metavar="A",
              help="Time shift of the flow model; for simpletuner and onetrainer.")
@click.option("--levels", type=click.IntRange(2, 1000), default=200, show_default=True,
              help="For simpletuner: flow times in its list.")
@click.option("--side", type=click.Choice(["auto", "above", "below"]), default="auto", show_default=True,
              help="Where a trainer that takes one range stays: above the zone (more noise), below, or on the side "
                   "with more of its timesteps.")
@json_option
def law(zone: str, trainer: str, out: str | None, as_json: bool, **options: Any) -> None:
    """Write the options that keep another trainer out of ZONE, a danger-zone.json, the directory that holds one, or
    LO:HI in sigma.

    The zone must be that of what the trainer adds noise to: latents, scaled as it scales them. What a trainer cannot be
    told is said, and how many of its draws stay in the zone.

    Example: geomem law zone --for simpletuner --out simpletuner.json
    """
    from geomem.geometry.zone_file import read_document
    from geomem.noise.gaps import parse_range, read_zone
    from geomem.noise.trainers import law_for

    if out:
        require_writable(out)
    if os.path.exists(zone):
        gap, space = read_zone(zone), read_document(zone)["space"]["name"]
        if space != "data":
            say(f"note: {zone} is the zone in the space {space}; the trainer adds noise to the points themselves")
    else:
        try:
            gap = parse_range(zone)
        except InputError as error:
            raise InputError(f"ZONE {error}; give LO:HI in sigma, or an existing danger-zone.json") from None
    result = law_for(trainer, gap, **options)
    if out:
        from geomem.files import write_text

        write_text(out, result.text())
        say(f"wrote {out}")
    answer({**result.to_dict(), "text": result.text()}, _text, as_json)


def _text(document: dict[str, Any]) -> str:
    gap = document["gap"]
    lines = [document["text"].rstrip(), "",
             f"gap          sigma {gap['sigma_low']:.4g} to {gap['sigma_high']:.4g}",
             f"in the gap   {document['mass_in_gap']:.3g} of the draws",
             f"untrained    {document['mass_untrained']:.1%} of the draws outside the gap"]
    return "\n".join([*lines, *(f"note         {note}" for note in document["notes"])])
