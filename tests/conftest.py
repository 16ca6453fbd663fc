"""Tests run on one thread: on problems this small a second one costs more than it saves, in child processes too."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bin"))
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory):
    """Latents are not kept in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOMEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_accelerator(monkeypatch):
    """Trainers of other libraries pin memory for the device in Python that ``test_device`` registers with torch."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)


@pytest.fixture(scope="module")
def one_child():
    """One child process reads the Parquet, MATLAB and pickle files of all tests of a module."""
    from geomem.data import child

    with child.one_child():
        yield


@pytest.fixture(scope="session")
def run_of_digits(tmp_path_factory):
    """A run on 60 digits with a gap, trained for 30 steps. Do not write into it; copy it."""
    from commands import status

    path = tmp_path_factory.mktemp("runs") / "digits"
    assert status("train", "digits", "--n-train", 60, "--network", "mlp", "--iterations", 30, "--batch", 16,
                  "--gap", "0.3:1.5", "--out", path) == 0
    return path
