"""Tests run on one thread: on problems this small a second one costs more than it saves, in child processes too."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def one_child():
    """One child process reads the Parquet, MATLAB and pickle files of all tests of a module."""
    from geomem.data import child

    with child.one_child():
        yield
