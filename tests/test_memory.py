"""What a refusal says of memory is what is used, and it names the option to change."""

import json
import subprocess
import sys

import numpy as np
import pytest
from commands import status

# Each run is a fork of its own, since freed memory may stay with a process; the libraries are loaded once.
PROGRAM = """
import json, os, re, sys
import numpy as np
import torch
import geomem

torch.set_num_threads(1)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def curves(n, m, d, copies, memory):
    rng = np.random.default_rng(0)
    train, heldout = (rng.standard_normal((k, d), dtype=np.float32) for k in (n, m))
    if copies:
        train = np.repeat(train[:n // 20], 20, axis=0) + np.float32(1e-6) * train
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
    try:
        geomem.geometry_curves(train, heldout, sigmas=[0.1, 1.0], memory=memory)
    except geomem.InputError as error:
        return str(error)
    return peak() - before

def in_a_fork(*arguments):
    end, start = os.pipe()
    if not os.fork():
        curves(*FEW)
        os.write(start, json.dumps(curves(*arguments)).encode())
        os._exit(0)
    os.close(start)
    os.wait()
    return json.loads(os.read(end, 2**16))

FEW = 30, 10, 8, False, 2**31  # loads and touches what is loaded once
curves(*FEW)
for size in json.loads(sys.argv[1]):
    told = in_a_fork(*size, 1)
    needs = int(re.search(r"needs ([0-9,]+) MiB", told)[1].replace(",", ""))
    print(json.dumps([told, needs, in_a_fork(*size, needs * 2**20 + 2**20)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the peak")
def test_the_memory_that_a_refusal_asks_for_is_used_within_a_factor_of_two():
    sizes = [(10, 2, 2**18, False), (100, 30, 2**15, False), (1000, 300, 2**12, False),
             (2000, 300, 1024, True), (2000, 100, 256, True), (400, 50, 8000, True),
             (400, 50, 4000, True)]  # where the search takes most
    answer = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(sizes)], capture_output=True, text=True,
                            check=True).stdout.splitlines()
    for size, line in zip(sizes, answer, strict=True):
        told, needs, used = json.loads(line)
        assert "--memory" in told
        assert needs / 2 < used < 2 * needs, (size, needs, used)


def test_few_large_pictures_fit_into_the_memory_of_few(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "large.npz", train=rng.normal(size=(8, 3, 256, 256)).astype("f"),
             heldout=rng.normal(size=(3, 3, 256, 256)).astype("f"))
    command = ["danger-zone", tmp_path / "large.npz", "--sigmas", 2]
    assert status(*command, "--memory", "700MiB") == 0
    capsys.readouterr()
    assert status(*command, "--memory", "50MiB") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "give more with --memory" in error
