"""``geomem export``: a trained model as a folder for diffusers, or as a small run directory of our own."""

from __future__ import annotations

import click

from geomem.cli.output import say


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", required=True, metavar="DIR", type=click.Path(), help="Directory to make.")
@click.option("--weights", metavar="per-level|early-stop|before-copies|last|STEP",
              help="Which weights.  [default: early-stop for diffusers, per-level for geomem; before-copies or last "
                   "where the run kept no others]")
@click.option("--form", type=click.Choice(["auto", "diffusers", "geomem"]), default="auto", show_default=True,
              help="diffusers: for its DDPMPipeline, where network (UNet2DModel) and objective (ddpm) allow it.  "
                   "geomem: what geomem.load_denoiser reads.  auto takes diffusers where it can.")
@click.option("--bf16", is_flag=True, help="Store weights in bfloat16: half the size, rounded to 8 bits of mantissa.")
def export(run: str, out: str, weights: str | None, form: str, bf16: bool) -> None:
    """Write the model of RUN, a directory of geomem train, to a folder that stands on its own.

    The folder's README.md holds the lines that sample from it.
    Example: geomem export runs/faces --out faces-ddpm
    """
    from geomem.training import Run, export_run

    form, weights = export_run(Run(run), out, weights=weights, form=form, bf16=bf16)
    say(f"weights {weights}, form {form} -> {out}")
