"""Weights from before the copies: which are kept, which are chosen, and that a run brings them back."""

import numpy as np
import pytest
import torch
from commands import status
from test_training import POINTS, after_step, make, terminate

from geomem.errors import InputError
from geomem.memorization import MemorizationCheck
from geomem.training import (
    EarlierWeights,
    Interrupted,
    Run,
    evaluation_steps,
    heldout_monitor,
    load_denoiser,
    train,
    train_steps,
)


def weights_of(step):
    return {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}


def test_the_choice_is_about_half_of_the_steps_and_still_there_when_it_is_needed():
    """Whenever copies come, it is what keeping everything that was ever kept would have given. Evaluations are 25 steps
    or 10% apart and snapshots 15% at least, so it is at most two evaluations below the half: 50 steps, or 1 - 1/1.21.
    """
    steps = evaluation_steps(9530)
    for count, end in enumerate(steps, 1):
        earlier, ever = EarlierWeights(), []
        for step in steps[:count]:
            earlier.update(step, weights_of(step))
            ever += [step] if step in earlier.snapshots else []
            assert len(earlier.snapshots) <= 7
            assert earlier.step is None
        earlier.copies_seen(end)
        half = end / 2
        assert earlier.step == max((step for step in ever if step <= half), default=ever[0])
        assert half - max(50, 0.174 * half) <= earlier.step <= max(25, half)
        earlier.update(10**6, weights_of(10**6))  # later weights and later copies change nothing
        earlier.copies_seen(10**6)
        assert (list(earlier.snapshots), earlier.copies_at) == ([earlier.step], end)
        assert torch.equal(earlier.snapshots[earlier.step]["w"], weights_of(earlier.step)["w"])


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


def copies_at(trainer, step, monkeypatch, heldout=None):
    """A monitor that finds copies from ``step`` on, and the weights that it looked at."""
    monitor, seen = heldout_monitor(trainer, POINTS, heldout, every=evaluation_steps(160), n=8, sigmas=[]), {}

    def look(denoiser):
        seen[trainer.steps_done] = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
        rate = float(trainer.steps_done >= step)
        return MemorizationCheck(rate, rate / 2, rate, 8, 0.0, 0.1, [], [], [], [])

    monkeypatch.setattr(monitor.watch, "look", look)
    return monitor, seen


@pytest.mark.parametrize("killed_at", [None, 60, 140])
def test_a_run_that_was_interrupted_has_the_same_weights(tmp_path, killed_at, monkeypatch):
    """Copies are seen at step 125: the choice is step 50, of 25, 50, 75, 100, 125."""
    seen = {}
    for attempt in range(2 if killed_at else 1):
        run, trainer = make(tmp_path / "run", iterations=160)
        monitor, looked = copies_at(trainer, 125, monkeypatch)
        if killed_at and attempt == 0:
            after_step(trainer, killed_at, terminate)
            with pytest.raises(Interrupted, match=f"stopped at step {killed_at}"):
                list(train_steps(run, trainer, monitor))
        else:
            list(train_steps(run, trainer, monitor))
        seen |= looked
    assert (monitor.earlier.copies_at, run.step_before_copies) == (125, 50)
    assert [path.name for path in (run.path / "weights").iterdir()] == ["step-0000050.safetensors"]
    found = run.denoiser("before-copies").state_dict()
    assert all(torch.equal(found[name], seen[50][name]) for name in found)
    assert load_denoiser(run.path).weights == "before-copies"  # no weights were chosen by held-out losses
    (run.path / "before-copies.json").write_text('{"format": "geomem.before-copies/1", "step": "../x"}')
    with pytest.raises(InputError, match="is damaged"):
        run.denoiser("before-copies")


def test_weights_from_before_the_copies_stay_where_nobody_looks_any_more(tmp_path, monkeypatch):
    run, trainer = make(tmp_path / "run", iterations=160)
    after_step(trainer, 130, terminate)
    with pytest.raises(Interrupted):
        list(train_steps(run, trainer, copies_at(trainer, 125, monkeypatch)[0]))
    run, trainer = make(tmp_path / "run", iterations=160)
    train(run, trainer, None)
    assert run.step_before_copies == 50
    assert run.snapshot_path(50).exists()


def test_a_training_without_copies_has_no_such_weights(tmp_path, capsys, monkeypatch):
    run, trainer = make(tmp_path / "run", iterations=30)
    list(train_steps(run, trainer, copies_at(trainer, 99, monkeypatch)[0]))
    assert Run(run.path).weights_without_levels == "last"
    assert status("generate", run.path, "--weights", "before-copies", "--out", tmp_path / "s.npz") == 2
    assert "saw no copies, or was not watched" in capsys.readouterr().err


def test_weights_chosen_by_losses_come_first_and_both_are_kept(tmp_path, monkeypatch):
    run, trainer = make(tmp_path / "run", iterations=100)
    monitor, _ = copies_at(trainer, 75, monkeypatch, POINTS[:20] + 0.5)
    list(train_steps(run, trainer, monitor))
    assert load_denoiser(run.path).weights == "per-level"
    kept = {int(path.stem.split("-")[1]) for path in (run.path / "weights").iterdir()}
    assert kept == {*monitor.best_weights.snapshots, monitor.earlier.step}
    assert np.isfinite([p.sum().item() for p in run.denoiser("before-copies").parameters()]).all()
