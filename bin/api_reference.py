"""docs/api.md: signature and docstring of every public name, room by room."""

import importlib
import inspect
from pathlib import Path

import geomem

ROOMS = ("data", "geometry", "noise", "models", "theory", "training", "generation", "memorization", "quality", "plots")
WIDTH = 100
HEAD = """# Python API

Made from the docstrings by `bin/api-reference`. Names marked * are importable from `geomem` itself. Arrays may be NumPy
or torch; what is wrong with an argument is an `InputError`, a `ValueError` with one line that says what to do.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for room in ROOMS:
        module = importlib.import_module(f"geomem.{room}")
        parts.append(f"## geomem.{room}\n\n{_fenced('text', inspect.getdoc(module) or '')}")
        parts += [_entry(name, getattr(module, name)) for name in sorted(module.__all__, key=str.lower)]
    return "\n".join(parts)


def _entry(name: str, value: object) -> str:
    title = f"### {name}{' *' if name in geomem.__all__ else ''}\n"
    if not callable(value):
        return f"{title}\n" + ("A dictionary by name.\n" if isinstance(value, dict) else f"`{value}`\n")
    text = [title, _fenced("python", name + _signature(value)), _fenced("text", _documentation(value))]
    methods = []
    for method, found in vars(value).items() if inspect.isclass(value) else ():
        own = getattr(value, method)
        if not method.startswith("_") and (callable(own) or isinstance(found, property)) and inspect.getdoc(own):
            arguments = "" if isinstance(found, property) else f"({', '.join(_arguments(own))})"
            methods.append(f"- `{method}{arguments}`: {_first_sentence(inspect.getdoc(own) or '')}")
    return "\n".join([*text, *([*methods, ""] if methods else [])])


def _documentation(value: object) -> str:
    """Its own docstring: not an inherited one, nor the signature that dataclasses put in the place of none."""
    text = inspect.cleandoc(vars(value).get("__doc__") or "") if inspect.isclass(value) else inspect.getdoc(value) or ""
    return "" if text.startswith(f"{getattr(value, '__name__', '')}(") else text


def _signature(value: object) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return ""
    signature = inspect.signature(value)
    parameters = [_written(one) for one in signature.parameters.values()]
    answer = "" if inspect.isclass(value) else f" -> {signature.return_annotation}"
    line = str(inspect.Signature(parameters))
    if len(line) > WIDTH:
        line = f"(\n    {_one_a_line(line.removeprefix('(').removesuffix(')'))}\n)"
    return line + answer


class _Bare(str):
    """A word that is shown without quotes."""

    __repr__ = str.__str__


def _written(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with its annotation as it was written, and a function that is its default by name."""
    note, default = parameter.annotation, parameter.default
    if callable(default) and not inspect.isclass(default):
        default = _Bare(default.__name__)
    return parameter.replace(annotation=_Bare(note) if isinstance(note, str) else note, default=default)


def _one_a_line(shown: str) -> str:
    """Arguments with a line break after each comma that stands in no bracket."""
    depth, text = 0, ""
    for letter in shown:
        depth += (letter in "[(") - (letter in ")]")
        text += ",\n   " if letter == "," and depth == 0 else letter
    return text


def _arguments(method: object) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name != "self"]


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n" if text else ""


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "api.md").write_text(reference(), encoding="utf-8")
