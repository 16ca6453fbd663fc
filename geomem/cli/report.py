"""``geomem report``: one page about one or several runs, for a reader who has never heard of geomem."""

from __future__ import annotations

import click

from geomem.cli.options import Seeds, data_root_option, device_option, require_data, say
from geomem.errors import InputError
from geomem.files import require_writable

MAX_RUNS = 12


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", required=True, metavar="PAGE.html", type=click.Path(dir_okay=False),
              help="The page: one file that needs no network. It replaces an earlier one.")
@click.option("--data", metavar="DATA", help="The training data; the default is what each run names.")
@data_root_option
@click.option("--weights", metavar="per-level|early-stop|before-copies|last|STEP",
              help="Which weights to judge.  [default: as geomem generate]")
@click.option("--seeds", type=Seeds(), default="0-999", show_default=True,
              help="Samples to make of a run that holds none.")
@device_option
def report(runs: tuple[str, ...], out: str, data: str | None, weights: str | None, seeds: list[int],
           device: str) -> None:
    """Write one page about RUN, or about several side by side: do they copy, and how good are their samples?

    What lies in a run directory already is used: danger-zone.json, memorization.json, samples.npz, the JSON of
    geomem quality. The rest is computed, and the page says which is which. Nothing is written into the runs.

    \b
    Examples:
      geomem report runs/digits --out digits.html
      geomem report runs/none runs/gap --weights last --out compared.html
    """
    if not out.endswith(".html"):
        raise InputError(f"--out {out}: the ending must be .html")
    if len(runs) > MAX_RUNS:
        raise InputError(f"{len(runs)} runs are too many for one page; give at most {MAX_RUNS}")
    require_writable(out)
    require_data(data)
    from geomem.cli.collect import Collector
    from geomem.files import write_text
    from geomem.report import judge, render_page

    collector = Collector(runs, data, weights, seeds, device)
    facts = [collector.facts(name) for name in runs]
    write_text(out, render_page(facts))
    for one in facts:
        click.echo(judge(one, one.name).headline)
        for part in one.missing:
            say(f"missing: {part.what}: {part.why}")
    say(f"wrote {out}")
