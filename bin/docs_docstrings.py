"""Docstrings as Markdown: an extension of griffe, which reads them for the Python API."""

import re
from typing import Any

import griffe

PAPERS = {"Dodson et al.": "G", "Vu et al.": "C", "Karras et al.": "K", "Garnier-Brun et al.": "B"}


class Docstrings(griffe.Extension):
    """Turns what docstrings write for the terminal into Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Underlined titles in bold, ``name : text`` as a list, code after ``::``, links to the references."""
    text = re.sub(r"^(\w+)\n-{3,}$", r"**\1**\n", text, flags=re.M)
    text = re.sub(r"^(\w+(?:, \w+)*) : ", r"- `\1`: ", text, flags=re.M)
    text = re.sub(r"::$", ":", text, flags=re.M)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    return re.sub(r"^(?!    ).*$", lambda line: re.sub("|".join(PAPERS), lambda name: f"[{name[0]}][{PAPERS[name[0]]}]",
                                                       line[0]), text, flags=re.M)
