"""Curves shared by several processes are those of one; when one process ends, so do the others, with a word."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from geomem.geometry import geometry_curves, projections

SCRIPT = """
import json, os, signal, sys
import numpy as np
from geomem.errors import InputError, LostProcess
from geomem.geometry import geometry_curves, projections
from geomem.processes import leave_at_once, process_group
projections.CENTRE_ENTRIES = 64 * 8
rank, what = int(os.environ["RANK"]), sys.argv[1]
rng = np.random.default_rng(3)
train, heldout = rng.standard_normal((700, 8)).astype(np.float32), rng.standard_normal((300, 8)).astype(np.float32)
train[600:] = train[:100]
if what == "other" and rank == 1:
    train[0] += 1
def progress(done, total):
    if what == "kill" and rank == 1 and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
try:
    with process_group(), process_group() as group:  # the second finds the first
        curves = geometry_curves(train, heldout, sigmas=9, group=group, progress=progress)
except (InputError, LostProcess) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    leave_at_once(1)  # as the command line ends: gloo's threads may abort at Python's own end
per_point = [curves.weight_per_point.tolist(), curves.coverage_per_point.tolist()]
print(json.dumps({**curves.to_dict(), "per_point": per_point}))
"""


def run_processes(count, what):
    """Exit status, stdout and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [subprocess.Popen([sys.executable, "-c", SCRIPT, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count),
                                                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                                                "OMP_NUM_THREADS": "1"})
               for rank in range(count)]
    try:
        return [(process.returncode, *output) for process in started for output in [process.communicate(timeout=120)]]
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_give_the_curves_of_one(monkeypatch, count):
    monkeypatch.setattr(projections, "CENTRE_ENTRIES", 64 * 8)
    rng = np.random.default_rng(3)
    train, heldout = rng.standard_normal((700, 8)).astype(np.float32), rng.standard_normal((300, 8)).astype(np.float32)
    train[600:] = train[:100]
    alone = geometry_curves(train, heldout, sigmas=9)
    for status, out, err in run_processes(count, "same"):
        assert status == 0, err
        got = json.loads(out)
        assert got["thresholds"] == alone.to_dict()["thresholds"]
        assert got["curves"]["coverage"] == alone.to_dict()["curves"]["coverage"]
        assert got["per_point"][1] == alone.coverage_per_point.tolist()
        # Sums of float64 numbers in another order: some 10 additions of numbers near 1.
        np.testing.assert_allclose(got["curves"]["max_posterior_weight"]["estimate"],
                                   alone.max_posterior_weight.estimate, rtol=1e-14)
        np.testing.assert_allclose(got["per_point"][0], alone.weight_per_point, rtol=2e-7)  # float32
        for name in ("coverage_lower_bound", "coverage_upper_bound", "coverage_plain_upper_bound"):
            np.testing.assert_allclose(got["curves"][name], getattr(alone, name), rtol=1e-14, atol=1e-300)


def test_a_killed_process_ends_the_others_with_a_word():
    (_, _, err), (killed, _, _) = (results := run_processes(2, "kill"))
    assert killed == -signal.SIGKILL
    assert results[0][0] == 1
    assert "another of the 2 processes has ended" in err
    assert "Traceback" not in err


def test_processes_with_different_data_are_told():
    for status, _, err in run_processes(2, "other"):
        assert status == 1
        assert "different data" in err
