"""Held-out points that are training points, in a split that was given: counted, and left out of selecting and judging.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn

from geomem import InputError, load_data
from geomem.cli.main import main
from geomem.training import Monitor
from geomem.training.plan import plan_training

RNG = np.random.default_rng(0)
TRAIN, UNSEEN = (RNG.standard_normal((n, 6)).astype(np.float32) for n in (60, 30))
LEAKED = np.concatenate([TRAIN[:8], TRAIN[8:15] + np.float32(1e-5)])  # equal and near-equal
HELDOUT = np.concatenate([UNSEEN[:15], LEAKED, UNSEEN[15:]])


class Shrink(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, sigma, labels=None):
        return self.scale * x


def test_leaked_points_are_counted_and_have_no_part():
    data = load_data(TRAIN, heldout=HELDOUT)
    assert data.n_leaked == 15
    np.testing.assert_array_equal(np.flatnonzero(data.leaked), np.arange(15, 30))
    assert "15 of 45 held-out points are equal or nearly equal to training points" in data.notes[-1]
    parts = np.concatenate([data.validation, data.test])
    assert (len(data.validation), data.n_test) == (10, 20)
    assert {row.tobytes() for row in parts} == {row.tobytes() for row in UNSEEN}
    assert len(data.heldout) == 45


def test_nothing_changes_where_nothing_leaked():
    data = load_data(TRAIN, heldout=UNSEEN)
    assert data.leaked is None
    assert not data.notes
    assert (data.n_leaked, data.n_validation, data.n_test) == (0, 10, 20)


def test_labels_follow():
    labels = np.arange(45)
    data = load_data(TRAIN, heldout=HELDOUT)
    labelled = type(data)(data.name, data.train, data.heldout, np.zeros(60, int), labels, leaked=data.leaked)
    np.testing.assert_array_equal(data.heldout[labelled.validation_labels], labelled.validation)
    np.testing.assert_array_equal(data.heldout[labelled.test_labels], labelled.test)


def test_the_training_points_as_held_out_points():
    """Nothing selects and nothing judges; a training goes on without."""
    data = load_data(TRAIN, heldout=TRAIN)
    assert (data.n_leaked, data.n_validation, data.n_test) == (60, 0, 0)
    with pytest.raises(InputError, match="none is left to judge by"):
        _ = data.test
    plan = plan_training(data, iterations=2, batch=4, watch_every=4)
    assert plan.monitor(plan.trainer(plan.denoiser())).best_weights is None


def test_a_monitor_has_the_losses_of_the_other_points():
    """The noise is drawn for the points that count, so the losses are those of these points alone."""
    labels = np.zeros(60, int), np.zeros(45, int)
    with_leaks, without = Monitor(TRAIN, HELDOUT, every=1, labels=labels), Monitor(TRAIN, UNSEEN, every=1)
    np.testing.assert_array_equal(with_leaks.evaluate(1, Shrink()), without.evaluate(1, Shrink()))
    assert Monitor(TRAIN, TRAIN, every=1).best_weights is None


@pytest.fixture
def files(tmp_path):
    np.savez(tmp_path / "data.npz", train=TRAIN, heldout=HELDOUT)
    np.savez(tmp_path / "copies.npz", train=TRAIN, heldout=TRAIN)
    np.savez(tmp_path / "samples.npz", samples=UNSEEN[:20] + np.float32(0.1))
    return tmp_path


@pytest.mark.parametrize("command", ["memorization", "quality", "audit"])
def test_commands_judge_by_the_others(files, capsys, command):
    arguments = [command, str(files / "samples.npz"), "--json", "--data"]
    main([*arguments, str(files / "data.npz")])
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["data"]["leaked"] == 15
    assert said.err.count("15 of 45 held-out points") == 1
    floor = document["heldout"] if command == "memorization" else None
    assert floor is None or (floor["n"], floor["count"]) == (20, 0)
    with pytest.raises(SystemExit) as stop:
        main([*arguments, str(files / "copies.npz")])
    assert stop.value.code == 2
    assert "none is left to judge by" in capsys.readouterr().err.splitlines()[-1]


def test_shown(files, capsys):
    main(["data", "show", str(files / "data.npz"), "--json"])
    assert json.loads(capsys.readouterr().out)["leaked"] == 15
