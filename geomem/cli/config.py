"""Configuration files: options of commands in TOML, a table for each command.

    [train]
    data = "digits"
    gap = ["0.3:1.5", "5:9"]     # an option that may be given several times
    iterations = 500
    flip = true

Keys are the options without their dashes, and the names of the arguments in small letters. A value is read as it would
be on the command line, where one given there wins. A table, key or form of value that no command knows is refused.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from geomem import __version__
from geomem.errors import InputError

MAX_BYTES = 2**20


def read_config(path: str, commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """click's ``default_map`` for a group of ``commands``: per command, the name of a parameter and its value as text.

    Raises InputError where the file is not as the module says; OSError where it cannot be read.
    """
    with Path(path).open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise InputError(f"--config {path} is larger than {MAX_BYTES:,} bytes; give a TOML file of options")
    try:
        tables = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"--config {path} is not TOML: {error}") from None
    defaults: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if name not in commands:
            raise InputError(f"--config {path}: there is no command {name!r}; {_nearest(name, commands)}")
        if not isinstance(table, dict):
            raise InputError(f"--config {path}: {name} must be a table, [{name}], with the options below it")
        known, values = {key_of(param): param for param in configurable(commands[name])}, {}
        for key, value in table.items():
            if key not in known:
                raise InputError(f"--config {path}: [{name}] has no option {key!r}; {_nearest(key, known)}")
            values[str(known[key].name)] = _as_given(value, known[key], f"--config {path}: [{name}] {key}")
        defaults[name] = values
    return defaults


def _as_given(value: Any, param: click.Parameter, where: str) -> bool | str | list[str]:
    """The value as the command line would hand it to the parameter's type."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{where} is a switch; write true or false")
        return value
    several = param.nargs == -1 or (isinstance(param, click.Option) and param.multiple)
    parts = value if several and isinstance(value, list) else [value]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int | float):
            raise InputError(f"{where} = {part!r}: write one number or one text in quotes, as on the command line")
    return [str(part) for part in parts] if several else str(value)


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def configurable(command: click.Command) -> list[click.Parameter]:
    """The parameters that a configuration file may give: those of the command's own question and of how its data are
    read, but none of those that all commands share, which are hidden.
    """
    return [param for param in command.params if param.expose_value or not getattr(param, "hidden", False)]


def key_of(param: click.Parameter) -> str:
    """How a configuration file calls a parameter: by its first long option, or an argument by its name."""
    return next((option[2:] for option in param.opts if option.startswith("--")), str(param.name))


def config_text(name: str, command: click.Command, arguments: list[str], ctx: click.Context) -> str:
    """The configuration file that stands for ``geomem NAME ARGUMENTS``, defaults as comments.

    ``ctx``: the context the command was read in, which has checked every value.
    """
    words, _, _ = command.make_parser(ctx).parse_args(list(arguments))
    lines: dict[bool, list[str]] = {True: [], False: []}  # whether at its default
    for param in configurable(command):
        source = ctx.get_parameter_source(str(param.name))
        texts = {ParameterSource.COMMANDLINE: words, ParameterSource.DEFAULT_MAP: ctx.default_map or {}}
        value = texts[source].get(str(param.name)) if source in texts else param.default
        if not isinstance(value, str | int | float | list | tuple):  # an option that came without its value
            value = ctx.params.get(str(param.name))
        if value is None or callable(value) or (isinstance(value, list | tuple) and not value):
            continue
        lines[source is ParameterSource.DEFAULT].append(f"{key_of(param)} = {_toml(value, param, ctx)}")
    text = [f"# geomem {__version__}: geomem --config FILE {name}", f"[{name}]", *lines[False]]
    if lines[True]:
        text += ["", "# The others are at their defaults:", *(f"# {line}" for line in lines[True])]
    return "\n".join(text)


def _toml(value: Any, param: click.Parameter, ctx: click.Context) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(part, param, ctx) for part in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType):
        value = param.type.convert(value, param, ctx)
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
