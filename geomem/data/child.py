"""Reading in a child process: a library that crashes, takes all memory or never ends does so there.

The child loads the reader's packages alone and answers one request after another. It has little memory and little
time (the memory is bounded where the system has ``RLIMIT_AS``), and ends with this process at the latest.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geomem.errors import InputError, reason

MEMORY = 1 << 30  # bytes that the child may map, a fifth of them for pyarrow or scipy themselves
SECONDS = 30.0  # until the next piece of what is read


class _Kept(threading.local):
    """The idle child of a thread, while it is inside :func:`one_child`."""

    depth = 0
    child: subprocess.Popen[bytes] | None = None


_kept = _Kept()


@contextmanager
def one_child() -> Iterator[None]:
    """Within this block one child serves all calls of :func:`in_child`; starting one takes a third of a second."""
    _kept.depth += 1
    try:
        yield
    finally:
        _kept.depth -= 1
        if _kept.depth == 0 and _kept.child is not None:
            _end(_kept.child)
            _kept.child = None


def in_child(function: Callable[..., Iterator[Any]], *arguments: Any, file_bytes: int = 0) -> Iterator[Any]:
    """What the generator ``function(*arguments)`` yields in a child process.

    ``function`` is found there by its name, and what it yields is pickled. The child may take ``MEMORY`` bytes, and
    three for each of ``file_bytes``: a page of large photographs is as large as its file. Raises the InputError that
    it raises, ValueError with the text of any other exception, and ChildProcessError where the child ended or was too
    slow.
    """
    child, _kept.child = _kept.child or _start(), None
    kind = "piece"
    try:
        with suppress(OSError):  # of a child that has ended, which the answer tells
            pickle.dump((function, arguments, MEMORY + 3 * file_bytes), child.stdin)  # type: ignore[arg-type]
            child.stdin.flush()  # type: ignore[union-attr]
        while True:
            kind, value = _answer(child)
            if kind != "piece":
                break
            yield value
    finally:
        if kind != "piece" and _kept.depth and _kept.child is None:
            _kept.child = child
        else:
            _end(child)
    if kind == "refused":
        raise InputError(value)
    if kind == "failed":
        raise ValueError(value)


def _start() -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:] = {list(map(str, sys.path))}; from geomem.data.child import serve; serve()"
    few = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, env=os.environ | few)


def _answer(child: subprocess.Popen[bytes]) -> tuple[str, Any]:
    late = threading.Timer(SECONDS, child.kill)
    late.daemon = True
    late.start()
    try:
        return pickle.load(child.stdout)  # type: ignore[arg-type]
    except (EOFError, pickle.UnpicklingError):
        status = child.wait()
        if late.finished.is_set():
            raise ChildProcessError(f"it took more than {SECONDS:g} seconds") from None
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        raise ChildProcessError(f"reading it ended the process that did so: {how}") from None
    finally:
        late.cancel()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):  # what was not sent yet is dropped
            pipe.close()  # type: ignore[union-attr]


def serve() -> None:
    """The child: answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    mapped = _mapped()
    while True:
        try:
            function, arguments, memory = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        _limit(mapped + memory)
        end: tuple[str, Any] = "end", None
        try:
            for piece in function(*arguments):
                pickle.dump(("piece", piece), answers, pickle.HIGHEST_PROTOCOL)
                answers.flush()
        except InputError as error:
            end = "refused", str(error)
        except MemoryError:
            end = "failed", f"it takes more than {memory >> 20:,} MiB of memory"
        except Exception as error:
            end = "failed", reason(error)
        pickle.dump(end, answers)
        answers.flush()


def _mapped() -> int:
    """Bytes that this process has mapped, 0 where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _limit(memory: int) -> None:
    """Let this process map so many bytes, and leave no image of itself behind when it crashes."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    with suppress(OSError, ValueError):  # macOS takes no bound
        resource.setrlimit(resource.RLIMIT_AS, (memory if most == resource.RLIM_INFINITY else min(memory, most), most))
