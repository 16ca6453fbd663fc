"""``geomem report``: one page about one or several runs, for a reader who has never heard of geomem."""

from __future__ import annotations

import click

from geomem.cli.options import data_root, device_option, load, reading_options, require_data
from geomem.cli.output import LOG, progress_bar
from geomem.cli.values import Seeds


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", required=True, metavar="PAGE.html", type=click.Path(dir_okay=False),
              help="The page: one file that needs no network. It replaces an earlier one.")
@click.option("--data", metavar="DATA", help="The training data; the default is what each run names.")
@reading_options
@click.option("--weights", metavar="per-level|early-stop|before-copies|last|STEP",
              help="Which weights to evaluate.  [default: as geomem generate]")
@click.option("--seeds", type=Seeds(), default="0-999", show_default=True,
              help="Samples to make of a run that holds none.")
@device_option
def report(runs: tuple[str, ...], out: str, data: str | None, weights: str | None, seeds: list[int],
           device: str) -> None:
    """Write one page about RUN, or about several side by side: do they copy, and how good are their samples?

    What lies in a run directory already is used: samples.npz, danger-zone.json, the noise levels of memorization.json.
    The rest is computed, and the page says which is which. Nothing is written into the runs.

    \b
    Examples:
      geomem report runs/digits --out digits.html
      geomem report runs/none runs/gap --weights last --out compared.html
    """
    require_data(data)
    from geomem.report import judge, write_page

    with progress_bar(0, "generating", "sample") as bar:
        facts = write_page(runs, out, data=data, weights=weights, seeds=seeds, device=device, data_root=data_root(),
                           load=load, progress=bar.to)
    for run in facts:
        click.echo(judge(run, run.name).headline)
        for part in run.missing:
            LOG.info("missing: %s: %s", part.what, part.why)
    LOG.info("wrote %s", out)
