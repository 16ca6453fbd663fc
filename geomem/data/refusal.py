"""How readers refuse a file: one line that names it, and the limits that stop a decompression bomb.

A *bomb* is a small file that unpacks to a huge one. Sizes are taken from headers, before unpacking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from geomem.errors import InputError

# Both must be passed: real data sets seldom shrink a hundredfold, and a GiB can always be unpacked, even where its
# bytes become floats.
MAX_UNPACKED_BYTES = 1 << 30
MAX_UNPACKED_RATIO = 100


def wrong(where: object, what: str) -> InputError:
    """InputError "where: what"."""
    return InputError(f"{where}: {what}")


@contextmanager
def reading(where: object, kind: str, advice: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError "where: cannot be read as kind (reason); advice".

    All exceptions are meant: on a damaged file the decoders of other libraries raise almost anything.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(error, KeyError):
            text = f"it lacks {text}"
        reason = re.sub(r" <[^>]* at 0x\w+>", "", text).rstrip(".")  # memory addresses say nothing
        raise wrong(where, f"cannot be read as {kind} ({reason}); {advice}") from error


def refuse_bomb(where: object, packed: int, unpacked: int) -> None:
    """Raise InputError when ``packed`` bytes announce an unreasonable number of ``unpacked`` bytes."""
    if unpacked > max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * packed):
        raise wrong(where, f"{packed:,} bytes would unpack to {unpacked:,}, which looks like a decompression "
                           "bomb; if the data are real, save them as a .npy file")
