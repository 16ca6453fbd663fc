"""Running commands on hostile input: each in a process of its own, with little memory and little time.

Python and the heavy packages are loaded once, in a server that forks for each command, so that a command takes
milliseconds. The limit on memory is on top of what the loaded packages take.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 1 << 30  # bytes that a command may map
SECONDS = 60  # that a command may take
NOBODY = 65534

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with several threads cannot be forked safely
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["geomem.cli.main", "torch", "faiss", "PIL.Image", "geomem.plots", "geomem.training",
                                "geomem.memorization", "geomem.quality", "geomem.generation", "sklearn.datasets",
                                "diffusers", "diffusers.models.unets.unet_2d", "diffusers.schedulers"])


@dataclass(frozen=True)
class Outcome:
    """How a command ended. ``status`` is None where it was ended for taking too long."""

    status: int | None
    out: str
    err: str
    grown: int
    """Bytes of memory that it took at its peak, beyond those when it began."""
    child: int
    """Bytes that the largest of its child processes took."""

    @property
    def line(self) -> str:
        """The error line."""
        lines = self.err.splitlines()
        return lines[-1] if lines else ""


def run(arguments: list[Any], folder: Path, *, as_nobody: bool = False, ctrl_c_after: float = 0) -> Outcome:
    """Run ``geomem ARGUMENTS`` in a folder; ``ctrl_c_after`` so many seconds Ctrl-C is pressed, 0 for never."""
    with tempfile.TemporaryDirectory() as kept:
        texts = [Path(kept) / name for name in ("out", "err", "sizes")]
        process = _server.Process(target=_command, args=([os.fsdecode(a) if isinstance(a, bytes) else str(a)
                                                          for a in arguments], folder, texts, as_nobody, ctrl_c_after))
        process.start()
        process.join(SECONDS)
        status = process.exitcode
        process.kill()
        process.join()
        out, err, sizes = (path.read_bytes().decode(errors="backslashreplace") if path.exists() else ""
                           for path in texts)
        return Outcome(status, out, err, *map(int, (sizes or "0 0").split()))


def _command(arguments: list[str], folder: Path, texts: list[Path], as_nobody: bool,
             ctrl_c_after: float) -> None:
    """In the forked process."""
    import matplotlib.font_manager  # noqa: F401 (reads a cache once)

    from geomem.cli.main import main

    os.chdir(folder)
    for number, path in enumerate(texts[:2], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sizes = os.open(texts[2], os.O_WRONLY | os.O_CREAT)
    mapped, resident = (int(pages) * resource.getpagesize()
                        for pages in Path("/proc/self/statm").read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE,) * 2)
    if as_nobody and os.geteuid() == 0:
        os.setuid(NOBODY)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a shell have it ignored
    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    # Again after 10 s: Python drops one that comes within a weakref's callback, as imports have them; people repeat it.
    signal.setitimer(signal.ITIMER_REAL, ctrl_c_after, 10 if ctrl_c_after else 0)
    status: Any = 0
    try:
        main(arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    own, child = (resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    os.write(sizes, f"{own - resident} {child}".encode())
    os._exit(status or 0)

