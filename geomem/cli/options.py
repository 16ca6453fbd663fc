"""Options that several commands share, and the loading of what they name."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.output import LOG, say
from geomem.cli.values import MAX_LEVELS, Bytes, Number, Sigmas

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from geomem.data import DataSet
    from geomem.generation import Samples

MAX_CLASSES = 20  # shown to people; --json holds all


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """One decorator in place of several, in the order of the help."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _of_data(*names: str, **declared: Any) -> Callable[..., Any]:
    """An option for ``load``, which takes it from the command that runs."""
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        context.meta[f"geomem.data.{parameter.name}"] = value

    return click.option(*names, expose_value=False, callback=keep, **declared)


data_root_option = _of_data("--data-root", metavar="DIR", type=click.Path(),
                            help="Folder with the official files of recipes.  [default: the environment variable "
                                 "GEOMEM_DATA]")


reading_options = together(
    data_root_option,
    _of_data("--channels", type=click.Choice(["first", "last"]),
             help="Where arrays of DATA with four axes have their channels.  [default: by shape, and said]"),
    _of_data("--size", type=click.IntRange(1), metavar="PIXELS",
             help="Scale the pictures of DATA, and pictures given as samples, to squares of so many pixels (Lanczos)."),
    _of_data("--crop", is_flag=True, help="With --size: the square in the middle of each picture."),
    _of_data("--column", metavar="NAME", help="Column of the pictures or numbers where DATA is a table."),
    _of_data("--vae", metavar="FOLDER", type=click.Path(),
             help="Encode the pictures of DATA by a diffusers AutoencoderKL: the points are its latents, scaled as "
                  "training scripts scale them."),
    _of_data("--vae-sample", is_flag=True,
             help="With --vae: a draw from each posterior, as training scripts take, in place of its mean."))


def _said_of_data(name: str) -> Any:
    context = click.get_current_context(silent=True)
    return context and context.meta.get(f"geomem.data.{name}")


def data_root() -> str | None:
    """What ``--data-root`` of the command that runs, or else GEOMEM_DATA, says."""
    return _said_of_data("data_root") or os.environ.get("GEOMEM_DATA") or None


def complete_data(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completions of DATA: names of recipes, and whatever paths the shell finds."""
    from click.shell_completion import CompletionItem

    from geomem.data.recipes import known_recipes

    recipes = [CompletionItem(name, help="recipe") for name in known_recipes() if name.startswith(incomplete)]
    return recipes or [CompletionItem(incomplete, type="file")]


data_options = together(
    click.argument("data", shell_complete=complete_data),
    click.option("--heldout", metavar="DATA", shell_complete=complete_data,
                 help="Held-out points; the default is DATA's own held-out part."),
    click.option("--n-train", type=click.IntRange(2), metavar="N", help="Take the first N training points."),
    click.option("--n-heldout", type=click.IntRange(1), metavar="N", help="Take the first N held-out points."),
    click.option("--shuffle", is_flag=True, help="Take random points instead of the first ones."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every random draw."),
    reading_options)

curves_options = together(
    click.option("--sigmas", type=Sigmas(), default=40, show_default=True,
                 help="Noise levels in data units: how many (log-spaced from 0.02 to 80), or the levels with commas."),
    click.option("--threshold", type=Number(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
                 help="The danger zone is where both curves are at least this high."),
    click.option("--shell-t", type=Number(0, min_open=True), default=5.0, show_default=True,
                 help="Width t of the Gaussian shells: a shell holds 1 - 2 exp(-t) of its noise or more."),
    click.option("--queries", type=click.IntRange(1), default=4096, show_default=True, metavar="N",
                 help="Look from at most N training and N held-out points, random ones; all training points keep "
                      "their shells and weights."),
    click.option("--memory", type=Bytes(), default="2GiB", show_default=True,
                 help="Memory to use beside the points; a data set on disk may be larger."))

steps_option = click.option("--steps", type=click.IntRange(2, MAX_LEVELS), help=(
    "Noise levels of the sampler.  [default: 18; 100 for ddim, 1000 for ddpm, 50 for flow-euler]"))
sampler_option = click.option(
    "--sampler", "--method", "method", default="heun", show_default=True,
    type=click.Choice(["heun", "euler", "ddim", "ddpm", "flow-euler", "flow-heun"]),
    help="Heun evaluates the model 2 steps - 1 times, the others as often as there are steps; ddim and ddpm go over "
         "timesteps, and ddpm draws noise at each; flow-euler and flow-heun go over flow times.")
batch_option = click.option("--batch", type=click.IntRange(1), default=256, show_default=True,
                            help="Samples made at a time.")
tolerance_option = click.option("--tolerance", type=Number(0), metavar="DISTANCE",
                                help="Training points this close (Euclidean, data units) count as one.  [default: "
                                     "0.001 of the median distance to the tenth nearest other]")
device_option = click.option("--device", default="auto", show_default=True, metavar="NAME",
                             help="auto (CUDA, or mps for networks, where there is one), cpu, cuda or mps.")
json_option = click.option("--json", "as_json", is_flag=True,
                           help="Print exactly one JSON object on stdout and everything else on stderr.")


def directory_option(written: str) -> Callable[..., Any]:
    """``--out``, a new directory; ``written``: what the command writes there."""
    return click.option("--out", metavar="DIR", type=click.Path(file_okay=False), help=f"Write {written}.")


def everywhere(hidden: bool = False) -> list[click.Option]:
    """The options that may stand before or after the name of any command; ``hidden`` ones are not in its help."""
    return [
        click.Option(["--config"], metavar="FILE", type=click.Path(exists=True, dir_okay=False), is_eager=True,
                     expose_value=False, callback=_read_config, hidden=hidden,
                     help="Options in a TOML file, a table for each command; geomem config prints one. What the "
                          "command line says wins."),
        click.Option(["--quiet"], is_flag=True, expose_value=False, callback=_set_volume, hidden=hidden,
                     help="Of what goes to stderr, only warnings and errors."),
        click.Option(["--verbose"], is_flag=True, expose_value=False, callback=_set_volume, hidden=hidden,
                     help="Say, too, which data and versions were used, how long it took and how much memory."),
        click.Option(["--debug"], is_flag=True, expose_value=False, hidden=hidden,
                     help="Show a traceback where something goes wrong."),
    ]


def _read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    from geomem.cli.config import read_config

    group = ctx.find_root().command
    if path is None or not isinstance(group, click.Group):
        return
    tables = read_config(path, group.commands)
    ctx.default_map = tables if ctx.command is group else tables.get(str(ctx.info_name), {})


def _set_volume(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    if ctx.meta.setdefault("geomem.volume", param.name) != param.name:  # a group and its command share their meta
        raise click.UsageError("--quiet and --verbose contradict each other; give one of them", ctx)
    LOG.setLevel(logging.WARNING if param.name == "quiet" else logging.DEBUG)
    if param.name == "verbose":
        started = time.perf_counter()
        ctx.call_on_close(lambda: _tell_cost(time.perf_counter() - started))


def _tell_cost(seconds: float) -> None:
    import platform

    import geomem

    said = f"{seconds:.1f} s"
    with suppress(ImportError):  # there is none on Windows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        said += f", {peak / 2**20:,.0f} MiB at most"
    used = [f"geomem {geomem.__version__}", f"Python {platform.python_version()}",
            *(f"{name} {sys.modules[name].__version__}" for name in ("numpy", "torch") if name in sys.modules)]
    LOG.debug("%s; %s", said, ", ".join(used))


def load(data: str, **options: Any) -> DataSet:
    """Load a data set and tell a person what was decided about it, on stderr."""
    from geomem.data import load_data
    from geomem.data.dataset import READ_AS

    started = time.perf_counter()
    said = {name: value for name in READ_AS if (value := _said_of_data(name))}
    dataset = load_data(data, data_root=data_root(), **options | said)
    for note in dataset.notes:
        say(f"note: {note}")
    LOG.debug("%s: %s training and %s held-out points of shape %s, sha256 %s, read in %.1f s", dataset.name,
              f"{len(dataset.train):,}", f"{len(dataset.heldout):,}", tuple(dataset.train.shape[1:]), dataset.sha256,
              time.perf_counter() - started)
    return dataset


def load_chosen(options: dict[str, Any], **more: Any) -> DataSet:
    """The data set that ``data_options`` chose; what chose it, but for the seed, is taken out of ``options``."""
    chosen = {name: options.pop(name) for name in ("data", "heldout", "n_train", "n_heldout", "shuffle")}
    return load(**chosen, seed=options["seed"], **more)


def load_samples(path: str, data: Callable[[], DataSet | None]) -> Samples:
    """Read samples; pictures at the size at which ``--size`` reads those of DATA, tables as ``data()`` encodes them."""
    from geomem.generation import read_samples

    return read_samples(path, size=_said_of_data("size"), crop=bool(_said_of_data("crop")), data=data)


def require_data(*specs: str | None) -> None:
    """Refuse a misspelt DATA at once, before anything heavy is loaded."""
    from geomem.data.load import require_there

    for spec in specs:
        if spec is not None:
            require_there(spec)
