"""Entry point ``geomem``: the command group, and errors as one line with exit status 2."""

from __future__ import annotations

import copy
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any, NoReturn

import click

import geomem
from geomem.cli.audit import audit
from geomem.cli.bounds import bounds
from geomem.cli.danger_zone import danger_zone
from geomem.cli.data import data
from geomem.cli.distil import distil
from geomem.cli.export import export
from geomem.cli.forecast import forecast
from geomem.cli.generate import generate
from geomem.cli.law import law
from geomem.cli.memorization import memorization
from geomem.cli.options import everywhere
from geomem.cli.output import LOG
from geomem.cli.plot_curves import plot_curves
from geomem.cli.quality import quality
from geomem.cli.report import report
from geomem.cli.risk import risk
from geomem.cli.shell import completion, config
from geomem.cli.swap import swap
from geomem.cli.train import train
from geomem.errors import InputError, LostProcess, one_line
from geomem.processes import are_several, is_first, leave_at_once

SHARED = {"danger-zone", "train"}  # commands whose work several processes share; of the others only the first does it
COLOUR = False if os.environ.get("NO_COLOR") else None  # https://no-color.org; None: on a terminal


class Commands(click.Group):
    """The commands in the order of their use, each with the options that may also stand before its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What each command is for, in a whole sentence where click would cut it off."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=1000))
                                for name, command in self.commands.items()])

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        command = copy.copy(command)
        command.params = [*command.params, *everywhere(hidden=True)]
        if isinstance(command, click.Group):  # but for --config: a file has no table for them
            command.commands = {part: copy.copy(below) for part, below in command.commands.items()}
            for below in command.commands.values():
                below.params = [*below.params, *everywhere(hidden=True)[1:]]
        super().add_command(command, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if not is_first() and name not in SHARED:
            ctx.exit(0)
        return name, command, rest


@click.group(cls=Commands, epilog="Start with: geomem danger-zone digits",
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "color": COLOUR})
@click.version_option(geomem.__version__, prog_name="geomem")
def cli() -> None:
    """Find the noise levels where a diffusion model will memorize its training data, train without copying it,
    and measure whether that worked.

    sigma is the standard deviation of the noise in data units; images are scaled to [-1, 1].

    Results go to stdout, everything else to stderr. --config, --quiet, --verbose and --debug may stand before or after
    the command's name.
    """


cli.params += everywhere()
for command in (data, danger_zone, bounds, risk, plot_curves, forecast, train, distil, generate, memorization, audit,
                swap, quality, report, export, law, config, completion):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit status 0 done, 1 where another process or the reader of stdout was lost, 2 for what
    the caller got wrong, 3 for an audit that fails, 130 for Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    status = 0
    try:
        _run(arguments)
    except SystemExit as stop:
        if not are_several():
            raise
        status = int(stop.code or 0)
    if are_several():
        leave_at_once(status)


def _run(arguments: list[str]) -> None:
    try:
        with _log_on_stderr(), _interrupts() as received:
            try:
                _run_command(arguments)
            except Exception:
                if not received:
                    raise
                _leave_interrupted()  # a package that was being imported made another error of Ctrl-C
    except KeyboardInterrupt:  # before the command itself, or after it
        _leave_interrupted()


class _Stderr(logging.Handler):
    """A log record as one line on stderr; of several processes the first one speaks."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_first():
            bars = sys.modules.get("tqdm")  # one that is being drawn makes room
            with nullcontext() if bars is None else bars.tqdm.external_write_mode(sys.stderr):
                click.echo(one_line(record.getMessage()), err=True)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the library logs while a command runs; --quiet and --verbose move the level."""
    handler, level = _Stderr(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.propagate = True
        LOG.setLevel(level)
        LOG.removeHandler(handler)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Remember that Ctrl-C was pressed, beside the usual KeyboardInterrupt."""
    received: list[int] = []
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, usual)


def _leave_interrupted() -> NoReturn:
    click.echo("geomem: interrupted", err=True)
    sys.exit(130)


def _run_command(arguments: list[str]) -> None:
    try:
        cli.main(arguments, prog_name="geomem", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _fail(arguments, error, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        _leave_interrupted()
    except LostProcess as error:
        _fail(arguments, error, str(error), status=1)
    except (InputError, OSError) as error:
        _fail(arguments, error, str(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        _fail(arguments, error, f"not enough memory ({error}); ask for less at a time")


def _is_memory(error: Exception) -> bool:
    """torch says so in a RuntimeError, on a GPU in one of its own kind."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or "can't allocate memory" in str(error))


def _fail(arguments: list[str], error: Exception, message: str, status: int = 2) -> None:
    if "--debug" in arguments:
        raise error
    click.echo(f"{click.style('geomem:', fg='red')} {one_line(message)}", err=True, color=COLOUR)
    sys.exit(status)
