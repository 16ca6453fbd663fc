"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import click

from geomem.errors import InputError, printable
from geomem.files import require_writable
from geomem.processes import is_first

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from geomem.data import DataSet
    from geomem.generation import Samples

LOG = logging.getLogger("geomem")
MAX_SAMPLES = 10_000_000
MAX_LEVELS = 10_000
MAX_CLASSES = 20  # shown to people; --json holds all
LINE_SECONDS = 30  # between two lines of progress where stderr is no terminal


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _Parsed(click.ParamType):
    """Text of a form that click has no type for; ``parse`` raises ValueError with what is wrong."""

    def parse(self, text: str) -> Any:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Interval(_Parsed):
    """``LO:HI``, two numbers."""

    name = "LO:HI"

    def parse(self, text: str) -> tuple[float, float]:
        from geomem.noise.gaps import parse_range

        return parse_range(text)


class Seeds(_Parsed):
    """``0-1023`` or ``0,3,8-11``: a list of distinct seeds."""

    name = "SEEDS"

    def parse(self, text: str) -> list[int]:
        seeds: list[int] = []
        for part in text.split(","):
            match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if last < first:
                raise ValueError(f"{text!r} is not a list of seeds such as 0-1023 or 0,3,8-11")
            if len(seeds) + last - first >= MAX_SAMPLES:
                raise ValueError(f"{text!r} asks for more than ten million samples")
            seeds.extend(range(first, last + 1))
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{text!r} names a seed twice")
        return seeds


class Sigmas(_Parsed):
    """A number of levels, or the levels themselves with commas between."""

    name = "N|S1,S2,..."

    def parse(self, text: str) -> int | list[float]:
        try:
            levels = int(text) if text.isdigit() else [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"{text!r} is neither a number of noise levels nor levels such as 0.02,0.05,0.1") from None
        if levels == 0:
            raise ValueError("no noise levels; give a number of them, 1 or more")
        if isinstance(levels, int) and levels > MAX_LEVELS:
            raise ValueError(f"{text!r}: at most {MAX_LEVELS:,} noise levels")
        return levels


class Bytes(_Parsed):
    """``4GiB``, ``500MB`` or a number of bytes."""

    name = "SIZE"
    units: ClassVar = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

    def parse(self, text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]+)?) *([A-Za-z]*)", text)
        if match is None or match[2].upper() not in self.units:
            raise ValueError(f"{text!r} is no amount of memory such as 4GiB or 500MB")
        return int(float(match[1]) * self.units[match[2].upper()])


def _of_data(*names: str, **declared: Any) -> Callable[..., Any]:
    """An option for ``load``, which takes it from the command that runs."""
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        context.meta[f"geomem.data.{parameter.name}"] = value

    return click.option(*names, expose_value=False, callback=keep, **declared)


data_root_option = _of_data("--data-root", metavar="DIR", type=click.Path(),
                            help="Folder with the official files of recipes.  [default: the environment variable "
                                 "GEOMEM_DATA]")


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--data-root`` and how DATA is read: ``--channels``, ``--size``, ``--crop``, ``--column``."""
    for option in reversed((
        data_root_option,
        _of_data("--channels", type=click.Choice(["first", "last"]),
                 help="Where arrays of DATA with four axes have their channels.  [default: by shape, and said]"),
        _of_data("--size", type=click.IntRange(1), metavar="PIXELS",
                 help="Scale the pictures of DATA, and pictures given as samples, to squares of so many pixels "
                      "(Lanczos)."),
        _of_data("--crop", is_flag=True, help="With --size: the square in the middle of each picture."),
        _of_data("--column", metavar="NAME", help="Column of the pictures or numbers where DATA is a table."),
    )):
        command = option(command)
    return command


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


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A DATA argument, ``--heldout``, ``--n-train``, ``--n-heldout``, ``--shuffle``, ``--seed`` and those of
    ``reading_options``.
    """
    for option in reversed((
        click.argument("data", shell_complete=complete_data),
        click.option("--heldout", metavar="DATA", shell_complete=complete_data,
                     help="Held-out points; the default is DATA's own held-out part."),
        click.option("--n-train", type=click.IntRange(2), metavar="N", help="Take the first N training points."),
        click.option("--n-heldout", type=click.IntRange(1), metavar="N", help="Take the first N held-out points."),
        click.option("--shuffle", is_flag=True, help="Take random points instead of the first ones."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every random draw."),
        reading_options,
    )):
        command = option(command)
    return command


device_option = click.option("--device", default="auto", show_default=True, metavar="NAME",
                             help="auto (CUDA where there is one), cpu or cuda.")
queries_option = click.option("--queries", type=click.IntRange(1), default=4096, show_default=True, metavar="N",
                              help="Look from at most N training and N held-out points, random ones; all training "
                                   "points keep their shells and weights.")
memory_option = click.option("--memory", type=Bytes(), default="2GiB", show_default=True,
                             help="Memory to use beside the points; a data set on disk may be larger.")
tolerance_option = click.option("--tolerance", type=Number(0), metavar="DISTANCE",
                                help="Training points this close (Euclidean, data units) count as one.  [default: "
                                     "0.001 of the median distance to the tenth nearest other]")
json_option = click.option("--json", "as_json", is_flag=True,
                           help="Print exactly one JSON object on stdout and everything else on stderr.")



steps_option = click.option("--steps", type=click.IntRange(2, MAX_LEVELS), help=(
    "Noise levels of the sampler.  [default: 18; 100 for ddim, 1000 for ddpm, 50 for flow-euler]"))
sampler_option = click.option(
    "--sampler", "--method", "method", default="heun", show_default=True,
    type=click.Choice(["heun", "euler", "ddim", "ddpm", "flow-euler", "flow-heun"]),
    help="Heun evaluates the model 2 steps - 1 times, the others as often as there are steps; ddim and ddpm go over "
         "timesteps, and ddpm draws noise at each; flow-euler and flow-heun go over flow times.")


def judged_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A RUN or SAMPLES argument, its data, the samples to make of a run, and how copies are looked for in them."""
    for option in reversed((
        click.argument("target", type=click.Path(), metavar="RUN|SAMPLES.npz"),
        click.option("--data", metavar="DATA",
                     help="The training data; the default is what the run or the file names."),
        reading_options,
        click.option("--n-samples", type=click.IntRange(1, MAX_SAMPLES), default=1000, show_default=True, metavar="N",
                     help="For a RUN: samples to generate, seeds 0..N-1."),
        click.option("--weights", metavar="per-level|early-stop|before-copies|last|STEP",
                     help="For a RUN: which weights."),
        steps_option,
        sampler_option,
        tolerance_option,
        click.option("--mirrored", is_flag=True,
                     help="Look for mirror images of training pictures, too; always done for a run trained with "
                          "--flip."),
        click.option("--shifts", type=click.IntRange(0), default=0, show_default=True, metavar="PIXELS",
                     help="Look for training pictures moved by up to so many pixels in each direction, or cropped by "
                          "as many; a border of that width is not compared."),
        click.option("--brightness", is_flag=True,
                     help="Look for training points in another brightness and contrast: compared without their mean "
                          "and scale."),
        click.option("--features", metavar="inception|FOLDER|FILE", help=(
            "Compare by the features of a network in place of pixels: Inception (weights in torch's cache, or a FILE "
            "of them), or a DINOv2 in a FOLDER as transformers saves it (config.json, model.safetensors).")),
    )):
        command = option(command)
    return command


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

    used = [f"geomem {geomem.__version__}", f"Python {platform.python_version()}",
            *(f"{name} {sys.modules[name].__version__}" for name in ("numpy", "torch") if name in sys.modules)]
    LOG.debug("%.1f s%s; %s", seconds, _peak_memory(), ", ".join(used))


def _peak_memory() -> str:
    try:
        import resource
    except ImportError:  # there is none on Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f", {peak / 2**20:,.0f} MiB at most"


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


def load_samples(path: str) -> Samples:
    """Read samples; pictures at the size at which ``--size`` reads those of DATA."""
    from geomem.generation import read_samples

    return read_samples(path, size=_said_of_data("size"), crop=bool(_said_of_data("crop")))


def require_data(*specs: str | None) -> None:
    """Refuse a misspelt DATA at once, before anything heavy is loaded."""
    from geomem.data.load import require_there

    for spec in specs:
        if spec is not None:
            require_there(spec)


def say(text: str) -> None:
    """A line for people, unless they asked for quiet; stdout belongs to results."""
    LOG.info("%s", text)


def warn(text: str) -> None:
    """A line that a person must see even with --quiet."""
    LOG.warning("%s", text)


def answer(document: dict[str, Any], text_of: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """The result of a command on stdout: the document itself, or the text that a person reads."""
    click.echo(json.dumps(document, allow_nan=False) if as_json else printable(text_of(document)))


class _Lines:
    """A file for tqdm that logs what it draws."""

    def write(self, text: str) -> None:
        if text.strip():
            say(text.strip())

    def flush(self) -> None:
        pass


@contextmanager
def progress_bar(total: int, title: str, unit: str, done: int = 0) -> Iterator[Any]:
    """Progress on stderr unless somebody asked for quiet: a tqdm bar on a terminal, else a line every half a minute.
    ``to(done, total)`` moves it, as the ``progress`` of the library. done: where it begins; the rate counts from there.
    """
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()

    class Bar(tqdm):
        monitor_interval = tqdm.monitor_interval if on_terminal else 0  # a thread that has nothing to do for lines

        def to(self, done: int, total: int) -> None:
            self.total = total
            self.update(done - self.n)

    style: dict[str, Any] = {"dynamic_ncols": True} if on_terminal else {
        "file": _Lines(), "delay": LINE_SECONDS, "mininterval": LINE_SECONDS, "miniters": 1,
        "bar_format": "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left{postfix}"}
    with Bar(total=total, initial=done, desc=title, unit=unit,
             disable=not (is_first() and LOG.isEnabledFor(logging.INFO)), **style) as bar:
        yield bar


def require_picture(option: str, path: str) -> None:
    """Refuse, before the work, a picture that could not be written."""
    if os.path.splitext(path)[1].lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"{option} {path}: the ending must be .png, .pdf or .svg")
    require_writable(path)


def require_new_directory(path: str, made_by: str) -> None:
    """Refuse an output directory that holds what another command left there, or that cannot be made."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"--out {path} is a file; give a directory")
    if os.path.isfile(os.path.join(path, made_by)):
        raise InputError(f"--out {path} holds another run ({made_by}); choose another directory or remove it")
    require_writable(os.path.join(path, made_by))
