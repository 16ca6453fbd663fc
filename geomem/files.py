"""Atomic writing, so that a file is either the old one or the whole new one, and reading of JSON from strangers."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from geomem.errors import InputError, one_line, reason

MAX_JSON_BYTES = 1 << 25
TEMPORARY_PREFIX = ".geomem-"
_LOG = logging.getLogger("geomem")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same directory; it replaces ``path`` if the block succeeds.

    The directory is made if it is not there. On any error, Ctrl-C included, the temporary file is removed and
    ``path`` is left as it was. The temporary name keeps the suffix, since many writers look at it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A temporary directory to fill, renamed to ``path`` on leaving and removed with all it holds on an error.

    ``path`` must not exist, or be an empty directory.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def require_writable(path: str | Path) -> None:
    """Find out before the work whether ``atomic_path`` could write there. Raises InputError if not; leaves nothing."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; give the name of a file")
    place = path.absolute().parent
    while not os.path.lexists(place):  # made when the file is written
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written ({place}: {error.strerror}); choose another place") from None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of one length atomically, their names in the first row."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(path, stream.getvalue())


def write_figure(path: str | Path, figure: Any, dpi: int = 150) -> None:
    """Write a matplotlib Figure atomically; the ending of the name decides the format."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def draw_figure(path: str | Path, draw: Callable[[], Any], dpi: int = 150) -> None:
    """Write the matplotlib Figure that ``draw`` makes, or say why there is none: no picture costs a result or ends a
    training, so whatever is raised becomes a warning.
    """
    try:
        write_figure(path, draw(), dpi)
    except Exception as error:
        _LOG.warning(f"warning: no {Path(path).name}: {one_line(reason(error))}")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path, advice: str, *, largest: int = MAX_JSON_BYTES, strict: bool = True) -> dict[str, Any]:
    """The JSON object in a file; ``strict`` refuses NaN and infinity.

    Raises InputError "path ...; advice" where there is no such file, or it is no regular file, larger than ``largest``
    bytes, or not a JSON object.
    """
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file; {advice}")
    require_file(path, advice)
    with open(path, "rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise InputError(f"{path} is larger than {largest:,} bytes; {advice}")
    value = parse_json(content, f"{path} is not JSON", advice, strict=strict)
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object; {advice}")
    return value


def parse_json(content: str | bytes, wrong: str, advice: str, *, strict: bool = True) -> Any:
    """The value in JSON text. Raises InputError "wrong (reason); advice"."""
    try:
        return json.loads(content, parse_constant=_refuse_constant if strict else None)
    except (ValueError, RecursionError) as error:  # of ValueError too: text that is not UTF-8, and huge integers
        raise InputError(f"{wrong} ({error}); {advice}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def require_file(path: str | Path, advice: str, largest: int | None = None) -> None:
    """Raises InputError for a folder, a pipe or a device: reading some of them never ends; and for a file of more than
    ``largest`` bytes.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is not a file; {advice}")
    if largest is not None and os.path.exists(path) and os.path.getsize(path) > largest:
        raise InputError(f"{path} is larger than {largest:,} bytes; {advice}")
