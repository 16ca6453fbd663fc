"""Seconds, bytes and the machine they were measured on.

Seconds: wall clock of whole calls after a warm-up, the garbage of earlier ones collected before and none while the
clock runs; the median with the smallest and largest. Memory: what /proc says of the process (Linux).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import geomem

SAMPLE_SECONDS = 0.01


def timed(call: Callable[[], Any], runs: int, warm_up: bool = True) -> tuple[dict[str, float], Any]:
    """Seconds of ``runs`` calls as {median, min, max, runs}, and the last result."""
    if warm_up:
        call()
    seconds = []
    for _ in range(runs):
        gc.collect()
        gc.disable()
        try:
            started = time.perf_counter()
            result = call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        finally:
            gc.enable()
    return spread(seconds), result


def spread(values: list[float]) -> dict[str, float]:
    """{median, min, max, runs}."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


class PeakMemory:
    """Bytes over those at the start, while the block runs.

    ``resident``: the growth of the largest resident set so far (VmHWM; unlike getrusage's ru_maxrss it does not begin
    at the size of the parent process). It counts the pages of a memory map that the system keeps only while there is
    room. ``anonymous``: growth of memory that is no file's (RssAnon), seen every 10 ms by a thread that only
    sleeps and reads; ``anonymous_total`` with the interpreter and the libraries. ``gpu``: torch's on a GPU.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start = _status()
        self._resident, self._anonymous = start["VmRSS"], start["RssAnon"]
        self._peak = self._anonymous
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, _status()["RssAnon"])

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.result = {"resident": max(0, _status()["VmHWM"] - self._resident),
                       "anonymous": self._peak - self._anonymous, "anonymous_total": self._peak}
        if torch.cuda.is_available():
            self.result["gpu"] = torch.cuda.max_memory_allocated()


def _status() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {name.rstrip(":"): 1024 * int(rest[0]) for name, *rest in lines if rest[1:] == ["kB"]}


def product_rates(sides: tuple[int, ...]) -> dict[str, float]:
    """Floating-point operations per second of torch's square matrix products, {float32, float64}: the median of 5
    after a warm-up, at the side that does best.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        found = []
        for side in sides:
            matrix = torch.rand(side, side, dtype=dtype, device=device)
            seconds, _ = timed(lambda matrix=matrix: matrix @ matrix, runs=5)
            found.append(2 * side**3 / seconds["median"])
        rates[name] = max(found)
    return rates


def available_threads() -> int:
    """OMP_NUM_THREADS where it is set, else the cores that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


def use_threads(threads: int) -> None:
    """As many for torch and for NumPy's matrix products."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def options_of(name: str, description: str | None, quick: str, parts: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The options that the benchmarks share; ``quick`` says what --quick does."""
    parser = argparse.ArgumentParser(prog=f"bin/benchmark {name}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    if parts:
        parser.add_argument("--only", action="append", choices=list(parts), metavar="PART",
                            help="this part; may be given several times (default: all)")
    kept = "; parts already there and not run again are kept" if parts else ""
    parser.add_argument("--out", type=Path, metavar="FILE.json", default=Path(f"benchmark_{name}.json"),
                        help=f"results{kept} (default: %(default)s)")
    return parser


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "numpy_blas": " ".join(sorted({f"{pool['internal_api']} {pool['version']}" for pool in threadpool_info()
                                           if pool["user_api"] == "blas"})),
            "geomem": geomem.__version__}


def _cpu() -> str:
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """Of the geomem that is measured, "-dirty" with changes; None outside a git checkout."""
    done = subprocess.run(["git", "-C", str(Path(geomem.__file__).parent), "describe", "--always", "--dirty"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
