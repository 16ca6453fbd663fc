"""Weights from before the copies: which are kept, which are chosen, and that a run brings them back."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from commands import status
from test_training import POINTS, make

from geomem.errors import InputError
from geomem.training import EarlierWeights, Run, evaluation_steps, load_denoiser, train


def weights_of(step):
    return {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}


@pytest.mark.parametrize("copies_at", [25, 50, 100, 275, 1060, 9530])
def test_about_half_of_the_steps_are_chosen(copies_at):
    """Of evaluations 25 steps or 10% apart. Snapshots are 15% apart at least, so the chosen one is at most two
    evaluations below the half: 50 steps, or 1 - 1/1.21.
    """
    earlier = EarlierWeights()
    for step in itertools.takewhile(lambda step: step <= copies_at, evaluation_steps(10**5)):
        earlier.update(step, weights_of(step))
        assert len(earlier.snapshots) <= 7
        assert earlier.step is None
    earlier.copies_seen(copies_at)
    assert list(earlier.snapshots) == [earlier.step]
    half = copies_at / 2
    assert half - max(50, 0.174 * half) <= earlier.step <= max(25, half)
    assert torch.equal(earlier.snapshots[earlier.step]["w"], weights_of(earlier.step)["w"])
    earlier.update(10**6, weights_of(10**6))  # later weights and later copies change nothing
    earlier.copies_seen(10**6)
    assert (list(earlier.snapshots), earlier.copies_at) == ([earlier.step], copies_at)


def test_every_choice_is_still_there_when_it_is_needed():
    """Whenever copies come, the choice is what keeping everything that was ever kept would have given."""
    steps = evaluation_steps(3000)
    for count, end in enumerate(steps, 1):
        earlier, ever = EarlierWeights(), []
        for step in steps[:count]:
            earlier.update(step, weights_of(step))
            ever += [step] if step in earlier.snapshots else []
        earlier.copies_seen(end)
        assert earlier.step == max((step for step in ever if step <= end / 2), default=ever[0])


def test_where_nothing_is_as_early_as_the_half_the_first_is_chosen():
    earlier = EarlierWeights()
    for step in (25, 30, 35):
        earlier.update(step, weights_of(step))
    earlier.copies_seen(35)
    assert earlier.step == 25


def test_snapshots_are_copies_and_may_be_rounded():
    weights = weights_of(1)
    plain, rounded = EarlierWeights(), EarlierWeights(torch.bfloat16)
    for earlier in (plain, rounded):
        earlier.update(1, weights)
    weights["w"].add_(1)
    assert plain.snapshots[1]["w"].tolist() == [1, 1, 1]
    assert (rounded.snapshots[1]["w"].dtype, rounded.snapshots[1]["n"].dtype) == (torch.bfloat16, torch.int64)
    with pytest.raises(InputError, match="need an update before"):
        EarlierWeights().copies_seen(3)


@pytest.mark.parametrize("killed_at", [None, 60, 110, 140])
def test_a_run_that_was_interrupted_has_the_same_weights(tmp_path, killed_at):
    """Copies are seen at step 125: the choice is step 50, of 25, 50, 75, 100, 125."""
    def watch(trainer):
        seen[trainer.steps_done] = {name: tensor.clone() for name, tensor in trainer.ema.state_dict().items()}
        if trainer.steps_done == 125:
            earlier.copies_seen(125)
        return False

    def kill(step, loss):
        if step == killed_at and not again:
            os.kill(os.getpid(), signal.SIGTERM)

    seen, again = {}, False
    earlier = EarlierWeights()
    run, trainer = make(tmp_path / "run", iterations=160)
    if killed_at:
        with pytest.raises(Exception, match=f"stopped at step {killed_at}"):
            train(run, trainer, None, watch=watch, watch_every=1, earlier=earlier, on_step=kill)
        again, earlier = True, EarlierWeights()
        run, trainer = make(tmp_path / "run", iterations=160)
    train(run, trainer, None, watch=watch, watch_every=1, earlier=earlier, on_step=kill)
    assert (earlier.copies_at, run.step_before_copies) == (125, 50)
    assert [path.name for path in (run.path / "weights").iterdir()] == ["step-0000050.safetensors"]
    found = run.denoiser("before-copies").state_dict()
    assert all(torch.equal(found[name], seen[50][name]) for name in found)
    assert load_denoiser(run.path).weights == "before-copies"  # no weights were chosen by held-out losses
    (run.path / "before-copies.json").write_text('{"format": "geomem.before-copies/1", "step": "../x"}')
    with pytest.raises(InputError, match="is damaged"):
        run.denoiser("before-copies")


def test_a_training_without_copies_has_no_such_weights(tmp_path, capsys):
    run, trainer = make(tmp_path / "run", iterations=30)
    train(run, trainer, POINTS[:20], earlier=EarlierWeights())
    assert Run(run.path).weights_without_levels == "last"
    assert status("generate", run.path, "--weights", "before-copies", "--out", tmp_path / "s.npz") == 2
    assert "saw no copies, or was not watched" in capsys.readouterr().err


def test_weights_chosen_by_losses_come_first_and_both_are_kept(tmp_path):
    earlier = EarlierWeights()
    run, trainer = make(tmp_path / "run", iterations=100)
    best = train(run, trainer, POINTS[:20], earlier=earlier, watch_every=1,
                 watch=lambda trainer: trainer.steps_done == 75 and earlier.copies_seen(75) is None)
    assert load_denoiser(run.path).weights == "per-level"
    kept = {int(path.stem.split("-")[1]) for path in (run.path / "weights").iterdir()}
    assert kept == {*best.snapshots, earlier.step}
    assert np.isfinite([p.sum().item() for p in run.denoiser("before-copies").parameters()]).all()
