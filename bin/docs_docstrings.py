"""Docstrings as Markdown: an extension of griffe, which reads them for the Python API."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Turns what docstrings write for the terminal into Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Underlined titles in bold, ``name : text`` as a list, code after ``::``, [G] as a link to the references."""
    text = re.sub(r"^(\w+)\n-{3,}$", r"**\1**\n", text, flags=re.M)
    text = re.sub(r"^(\w+(?:, \w+)*) : ", r"- `\1`: ", text, flags=re.M)
    text = re.sub(r"::$", ":", text, flags=re.M)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    return re.sub(r"^((?!    ).*)$", lambda line: re.sub(r"\[([A-Z])\](?![(\[`])", r"[\[\1\]][\1]", line[0]), text,
                  flags=re.M)
