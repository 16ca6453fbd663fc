"""Metrics of other libraries: the numbers of geomem's own functions, however the samples arrive."""

import sys
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from geomem import memorization_rate
from geomem.errors import InputError

RNG = np.random.default_rng(5)
TRAIN = torch.from_numpy(RNG.standard_normal((50, 1, 4, 4)).astype(np.float32))
SAMPLES = torch.cat([TRAIN[:7] + 0.01, torch.from_numpy(RNG.standard_normal((33, 1, 4, 4)).astype(np.float32))])


@pytest.fixture
def metric():
    pytest.importorskip("torchmetrics")
    from geomem.integrations.torchmetrics import MemorizedShare

    return MemorizedShare


def numbers(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def test_batches_add_up_to_the_rate_of_all_samples(metric):
    share, expected = metric(TRAIN), memorization_rate(SAMPLES, TRAIN)
    assert expected.count == 7
    for batch in SAMPLES.split(9):
        share.update(batch)
    assert numbers(share) == {name: getattr(expected, name) for name in ("rate", "low", "high", "n")}
    share.reset()
    share(SAMPLES[:7])
    assert numbers(share)["rate"] == 1
    share.reset()
    with pytest.raises(InputError, match="no samples yet"), pytest.warns(UserWarning, match="before the"):
        share.compute()


def member(metric, rank, store, said):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    share = metric(TRAIN, device="cpu")
    for batch in (SAMPLES[:5], SAMPLES[5:])[rank].split(8):
        share.update(batch)
    said.send(numbers(share))
    torch.distributed.destroy_process_group()


def test_two_processes_answer_as_one(metric, tmp_path):
    fork, expected = get_context("fork"), memorization_rate(SAMPLES, TRAIN)
    pipes = [fork.Pipe(duplex=False) for _ in range(2)]
    started = [fork.Process(target=member, args=(metric, rank, tmp_path / "store", pipe[1]))
               for rank, pipe in enumerate(pipes)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        process.kill()
    for pipe in pipes:
        assert pipe[0].poll()
        assert pipe[0].recv() == {name: getattr(expected, name) for name in ("rate", "low", "high", "n")}


def test_options_reach_the_rule(metric):
    mirrored = metric(TRAIN, views={"mirrored": True})
    mirrored.update(TRAIN[:10].flip(-1))
    assert numbers(mirrored)["rate"] == 1
    with pytest.raises(InputError, match="bring both to one shape"):
        mirrored.update(torch.zeros(2, 1, 4, 5))


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "geomem.integrations.torchmetrics", raising=False)
    with pytest.raises(InputError, match="needs torchmetrics; pip install"):
        import geomem.integrations.torchmetrics  # noqa: F401
