"""The one exception for what a caller got wrong, and how text from strangers is shown."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1000


class InputError(ValueError):
    """Wrong input: the message is one line that names it, says what is wrong with it and what to do.

    The command line prints the message and exits with status 2; a Python caller sees a ``ValueError``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def file_error(where: object, what: str) -> InputError:
    """InputError "where: what"."""
    return InputError(f"{where}: {what}")


@contextmanager
def as_input_error(where: object, kind: str, advice: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError "where: cannot be read as kind (reason); advice".

    All exceptions are meant: on a damaged file the decoders of other libraries raise almost anything.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise file_error(where, f"cannot be read as {kind} ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """The first line of what an exception says, without memory addresses; its name where it says nothing."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, KeyError):
        text = f"it lacks {text}"
    return re.sub(r" <[^>]* at 0x\w+>", "", text).rstrip(".")


class LostProcess(RuntimeError):
    """Another process of the group that shares the work has ended."""


def printable(text: str) -> str:
    """The text with ``\\x1b`` in the place of an escape character, and so on: what would move the cursor, change
    colours or reverse the order of letters in a terminal is shown, not obeyed. Line breaks stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def counted(n: int, what: str) -> str:
    """``1 point``, ``1,000 points``, ``10 classes``."""
    return f"{n:,} {what}" + ("" if n == 1 else "es" if what.endswith("s") else "s")


def duration(seconds: float) -> str:
    """``0.42 s``, ``90 s``, ``45 minutes``, ``7.5 hours``."""
    return (f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.2g} minutes" if seconds < 6000 else
            f"{seconds / 3600:,.2g} hours" if seconds < 360_000 else f"{seconds / 86400:,.0f} days")


def are(n: int) -> str:
    """The verb that goes with ``counted``."""
    return "is" if n == 1 else "are"


def one_line(text: str) -> str:
    """The same on one line, with the middle of a very long text left out."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST // 2]} ... {text[-_LONGEST // 2:]}"
