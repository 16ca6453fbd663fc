"""Entry point ``geomem``: the command group, and errors as one line with exit status 2."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

import geomem
from geomem.cli.bounds import bounds
from geomem.cli.danger_zone import danger_zone
from geomem.cli.data import data
from geomem.cli.export import export
from geomem.cli.generate import generate
from geomem.cli.memorization import memorization
from geomem.cli.plot_curves import plot_curves
from geomem.cli.quality import quality
from geomem.cli.risk import risk
from geomem.cli.train import train
from geomem.errors import InputError, LostProcess, one_line
from geomem.processes import are_several, is_first, leave_at_once

SHARED = {"danger-zone", "train"}  # commands whose work several processes share; of the others only the first does it
EPILOG = "Start with: geomem danger-zone digits"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EPILOG)
@click.version_option(geomem.__version__, prog_name="geomem")
@click.option("--debug", is_flag=True, help="Show a traceback where something goes wrong.")
def cli(debug: bool) -> None:
    """Find the noise levels where a diffusion model will memorize its training data, train without copying it,
    and measure whether that worked.

    sigma is the standard deviation of the noise in data units; images are scaled to [-1, 1].
    """


for command in (danger_zone, bounds, risk, plot_curves, train, generate, memorization, quality, export,
                data):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit status 0 done, 1 where another process was lost, 2 for what the caller got wrong,
    130 for Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not are_several():
        _run(arguments)
        return
    try:
        _run(arguments)
    except SystemExit as stop:
        leave_at_once(int(stop.code or 0))
    leave_at_once(0)


def _run(arguments: list[str]) -> None:
    with _interrupts() as received:
        try:
            _run_command(arguments)
        except Exception:
            if not received:
                raise
            _leave_interrupted()  # a package that was being imported made another error of Ctrl-C


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
    if not is_first() and not SHARED & set(arguments[:2]):  # the name stands first, or after --debug
        return
    try:
        cli.main(arguments, prog_name="geomem", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
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
    if arguments[:1] == ["--debug"]:
        raise error
    click.echo(f"geomem: {one_line(message)}", err=True)
    sys.exit(status)
