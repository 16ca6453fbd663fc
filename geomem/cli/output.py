"""What commands print and write: results on stdout, everything else by the logger on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from geomem.errors import InputError, printable
from geomem.files import require_writable
from geomem.processes import is_first

LOG = logging.getLogger("geomem")
LINE_SECONDS = 30  # between two lines of progress where stderr is no terminal
say = LOG.info  # to people, unless they asked for quiet
warn = LOG.warning  # what they must see even then


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
