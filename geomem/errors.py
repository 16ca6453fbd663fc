"""The one exception for what a caller got wrong, and how text from strangers is shown."""

_LONGEST = 1000


class InputError(ValueError):
    """Wrong input: the message is one line that names it, says what is wrong with it and what to do.

    The command line prints the message and exits with status 2; a Python caller sees a ``ValueError``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class LostProcess(RuntimeError):
    """Another process of the group that shares the work has ended."""


def printable(text: str) -> str:
    """The text with ``\\x1b`` in the place of an escape character, and so on: what would move the cursor, change
    colours or reverse the order of letters in a terminal is shown, not obeyed. Line breaks stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """The same on one line, with the middle of a very long text left out."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST // 2]} ... {text[-_LONGEST // 2:]}"
