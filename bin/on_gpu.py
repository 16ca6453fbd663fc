"""``bin/gpu``: tests, benchmarks and experiments on a machine with a GPU, one after another, within a time.

A step that fails, for want of a package too, or that takes too long ends alone; its last lines are kept. ``gpu.json``
tells what ran, beside the results of the steps; it is written after each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FORMAT = "geomem.gpu/1"
KEPT_LINES = 30


@dataclass(frozen=True)
class Step:
    """A command of geomem's own; ``{out}`` is where its results go. minutes: about what it takes on a fast GPU."""

    name: str
    what: str
    command: tuple[str, ...]
    minutes: float


def steps(data: Path | None) -> list[Step]:
    """In the order of what would be missed most. ``data``: the real data, which the experiments need."""
    real = () if data is None else ("--data", str(data))

    def benchmark(name: str, what: str, minutes: float, *options: str) -> Step:
        return Step(f"benchmark-{name}", what, ("-m", f"benchmarks.{name}", "--out", f"{{out}}/benchmark_{name}.json",
                                                *options), minutes)

    def experiment(name: str, what: str, minutes: float) -> Step:
        return Step(f"reproduce-{name}", what, ("-m", "experiments", name, "--scale", "small", "--out",
                                                "{out}/reproduce", *real), minutes)

    tests = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_device.py"))
    without_data = [
        Step("tests", "results of the CPU, and no waits of the host", tests, 2),
        benchmark("geometry", "curves against NumPy, cost in N, d, levels", 3, "--quick", *real),
        benchmark("memorization", "ratio rule against a flat index, to 50,000 points", 4, *real),
        benchmark("training", "images per second against a plain loop", 3)]
    return without_data if data is None else [
        *without_data, experiment("timestep-gaps", "memorization with the published timesteps left out", 6),
        experiment("ci-ecg5000", "confidence intervals on ECG5000", 6)]


def machine() -> dict[str, Any]:
    """Of the GPU, the CPU and the packages; ``gpu`` is None where torch finds none."""
    import torch

    found = torch.cuda.is_available()
    return {"gpu": torch.cuda.get_device_name() if found else None,
            "gpus": torch.cuda.device_count() if found else 0,
            "gpu_memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if found else None,
            "cuda": torch.version.cuda, "torch": torch.__version__, "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)), "cpu": platform.machine()}


def run(step: Step, out: Path, limit: float) -> dict[str, Any]:
    """Run one step for at most ``limit`` seconds; how it ended, with its last lines."""
    command = [sys.executable, *(part.format(out=out) for part in step.command)]
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bin"), os.environ.get("PYTHONPATH", "")]
    log, started = out / f"{step.name}.txt", time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=out, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                                        "HF_HUB_OFFLINE": "1"})
        try:
            status: int | str = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = f"ended after {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
    last = log.read_text(errors="replace").splitlines()[-KEPT_LINES:]
    return {"name": step.name, "command": " ".join(step.command), "status": status,
            "seconds": round(time.monotonic() - started, 1), "last_lines": last}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where all that ran is well, 1 where a step failed, 2 where nothing can run here."""
    parser = argparse.ArgumentParser(prog="bin/gpu", description=__doc__.split("\n")[0].replace("``bin/gpu``: ", ""))
    parser.add_argument("--plan", action="store_true", help="say what would run and for how long, and run nothing")
    parser.add_argument("--minutes", type=float, default=25, help="for everything together (default: %(default)g)")
    parser.add_argument("--only", action="append", metavar="STEP", help="this step; may be given several times")
    parser.add_argument("--data", type=Path, default=os.environ.get("GEOMEM_TEST_DATA"), metavar="DIR",
                        help="the real data; experiments need it (default: GEOMEM_TEST_DATA)")
    parser.add_argument("--out", type=Path, default=Path("gpu"), metavar="DIR", help="results (default: %(default)s)")
    given = parser.parse_args(arguments)
    known = steps(given.data and Path(given.data).absolute())
    wanted = [step for step in known if given.only is None or step.name in given.only]
    if not wanted:
        parser.error(f"--only: choose from {', '.join(step.name for step in known)}")
    try:
        here = machine()
    except ImportError:
        print("bin/gpu: there is no torch here; set PYTHON to a Python that has it", file=sys.stderr)
        return 2
    print(f"{here['gpu'] or 'no GPU'}, torch {here['torch']}, {here['cores']} cores"
          + ("" if given.data else "; no --data, so no experiments"))
    for step in wanted:
        print(f"  {step.name:24} about {step.minutes:g} min  {step.what}")
    print(f"  together about {sum(step.minutes for step in wanted):g} min of {given.minutes:g}")
    if given.plan:
        return 0
    if here["gpu"] is None:
        print("bin/gpu: torch finds no GPU here; bin/test runs what needs none", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    out, ends, results = given.out.absolute(), time.monotonic() + 60 * given.minutes, []
    for step in wanted:
        left = ends - time.monotonic()
        print(f"{step.name} ...", flush=True)
        results.append({"name": step.name, "status": "left out: no time"} if left < 30 else
                       run(step, out, min(left, 3 * 60 * step.minutes)))
        print(f"{step.name}: {results[-1]['status'] or 'done'}", flush=True)
        partial = out / "gpu.json.partial"
        partial.write_text(json.dumps({"format": FORMAT, "machine": here, "minutes": given.minutes,
                                       "plan": [asdict(step) for step in wanted], "steps": results}, indent=1) + "\n")
        partial.replace(out / "gpu.json")
    return int(any(result["status"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
