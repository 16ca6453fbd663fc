"""geomem train --folds: K trainings in one run, what stops and resumes them, and what is made of them."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import status
from test_training import NETWORK, assert_same_run, in_child
from torch.nn.functional import mse_loss

import geomem
from geomem.data import cut_into_folds
from geomem.errors import InputError
from geomem.models import CrossFittedDenoiser
from geomem.run_training import start_training
from geomem.training import Interrupted, Run, load_denoiser, plan_training

OPTIONS = {"network": NETWORK, "iterations": 27, "batch": 8, "n_train": 40, "watch_every": 0, "folds": 3,
           "device": "cpu"}
WORDS = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("folds") / "run")
    assert status("train", "digits", *WORDS, "--out", run.path) == 0
    return run


def copy_of(run, path, **changes):
    """A run of the same networks with another config."""
    copy = Run(path)
    copy.create({**{name: value for name, value in run.config.items() if name != "format"}, **changes})
    (path / "folds.json").symlink_to(run.path / "folds.json")
    for k in range(3):
        (path / f"fold-{k}").symlink_to(run.path / f"fold-{k}")
    return copy


def test_a_network_without_each_fold(run):
    """Each is the network of an ordinary training on the other points, with those of the fold as validation points."""
    data, law = geomem.load_data("digits", n_train=40), plan_training("digits", **OPTIONS).law
    fold = cut_into_folds(data.train, 3)
    np.testing.assert_array_equal(run.fold_of, fold)
    assert run.config["folds"] == 3
    assert run.steps_done == 81
    for k in range(3):
        part = run.without_fold(k)
        assert (part.config["without_fold"], "folds" in part.config, part.steps_done) == (k, False, 27)
        others = {name: value for name, value in OPTIONS.items() if name not in ("folds", "n_train")}
        plan = replace(plan_training(geomem.load_data(data.train[fold != k], heldout=data.heldout), **others), law=law)
        trainer = plan.trainer(plan.denoiser())
        trainer.denoiser.sigma_data = trainer.ema.sigma_data = data.std  # the scale and the law are those of all points
        for _ in range(27):
            trainer.step()
        found = part.denoiser("last").state_dict()
        assert all(torch.equal(found[name], value) for name, value in trainer.ema.state_dict().items())
        held_out = torch.from_numpy(data.train[fold == k])
        plan = plan_training("digits", **OPTIONS).without_fold(k)
        assert {row.tobytes() for row in plan.validation} == {row.numpy().tobytes() for row in held_out}
        assert plan.dataset.test.shape == data.test.shape
        losses = {line["step"]: line["heldout_mse"] for line in part.stats}
        assert losses[27][0] == pytest.approx(_loss(trainer.ema, plan, part), rel=1e-5)
        assert min(losses, key=lambda step: losses[step][-1]) >= part.levels["steps"][-1]


def _loss(denoiser, plan, part):
    """Of the lowest band, with the monitor's own noise."""
    monitor = plan.monitor(plan.trainer(plan.denoiser()))
    points = monitor._validation
    sigma = float(monitor.best_weights.centres[0])
    with torch.no_grad():
        return float(mse_loss(denoiser(points.clean + sigma * points.noise, sigma), points.clean))


def train_with(path, at=None, number=signal.SIGTERM):
    """Train, or go on, and send a signal in a step of the whole."""
    plan, begun = plan_training("digits", **OPTIONS), Run(path)
    for state in start_training(plan, begun, resume=begun.exists):
        if state.step == at:
            os.kill(os.getpid(), number)


def test_stopping_and_resuming_changes_nothing(run, tmp_path, caplog):
    """SIGTERM in the first training and at its very end, kill -9 in the second and while the third is made."""
    caplog.set_level("INFO", "geomem")
    path = tmp_path / "stopped"
    for step in (5, 27):
        with pytest.raises(Interrupted) as stop:
            train_with(path, step)
        assert stop.value.step == step + (step % 27 > 0)  # the step that was going on is finished
        assert Run(path).steps_done == stop.value.step
    child = in_child(lambda: train_with(path, 30, signal.SIGKILL))
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (path / "fold-2").mkdir()
    (path / "fold-2" / ".geomem-half.json").write_text("{")
    train_with(path)
    for k in range(3):
        assert_same_run(path / f"fold-{k}", run.path / f"fold-{k}")
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if line.startswith("training ")][-3:] == [
        f"training {k + 1} of 3: without fold {k}" for k in range(3)]
    assert sum(line.startswith("next, did") for line in said) == 1
    assert (path / "folds.json").read_bytes() == (run.path / "folds.json").read_bytes()


def test_it_is_routed_by_the_training_points(run):
    data = geomem.load_data("digits", n_train=40)
    model, x = load_denoiser(run.path), torch.from_numpy(data.train[:7]) + 0.3
    assert (model.weights, model.routing) == ("cross-fitted", "argmax")
    parts = {weights: [run.without_fold(k).denoiser(weights) for k in range(3)] for weights in ("early-stop", "last")}
    with torch.no_grad():
        for weights, of_parts, routing in ((None, "early-stop", "argmax"), ("last", "last", "soft")):
            expected = CrossFittedDenoiser(parts[of_parts], run.fold_of, data.train, routing)(x, 0.5)
            found = load_denoiser(run.path, weights, routing=routing).denoiser(x, 0.5)
            assert torch.equal(expected, found)
    samples = run.generate(range(3), steps=4, device="cpu")
    assert (samples.about["weights"], samples.about["routing"]) == ("cross-fitted", "argmax")


def test_mirror_images_are_routed_like_the_points(run, tmp_path):
    flipped = copy_of(run, tmp_path / "run", settings={**run.config["settings"], "flip": True})
    data, shares = geomem.load_data("digits", n_train=40), load_denoiser(flipped.path).denoiser.shares
    for points in (data.train, data.train[..., ::-1].copy()):
        np.testing.assert_array_equal(shares(torch.from_numpy(points), 0.01).argmax(1), run.fold_of)


def test_data_that_a_run_cannot_load_again_are_given(run, tmp_path, capfd):
    data = geomem.load_data("digits", n_train=40)
    arrays = copy_of(run, tmp_path / "run", data={**run.config["data"], "spec": None})
    np.savez(tmp_path / "data.npz", train=data.train, heldout=data.heldout)
    np.savez(tmp_path / "other.npz", train=data.train + 1, heldout=data.heldout)
    words = ("generate", arrays.path, "--seeds", "0-2", "--steps", 2, "--out", tmp_path / "s.npz")
    assert status(*words) == 2
    assert "whose cross-fitted weights need the training points" in capfd.readouterr().err
    assert status(*words, "--data", tmp_path / "other.npz") == 2
    assert "was trained on other data than other" in capfd.readouterr().err
    assert status(*words, "--data", tmp_path / "data.npz") == 0
    assert arrays.generate(range(2), steps=2, data=data).values.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("words", "refusal"), [
    (["generate", "RUN", "--routing", "0", "--out", "s.npz"], "give argmax, soft, or a number above 0"),
    (["generate", "RUN/fold-0", "--routing", "soft", "--out", "s.npz"], "is one network, and routing soft is for"),
    (["generate", "RUN/fold-0", "--weights", "cross-fitted", "--out", "s.npz"], "is one network that saw all its"),
    (["generate", "RUN/fold-0", "--data", "digits", "--out", "s.npz"], "--data has no effect"),
    (["export", "RUN", "--out", "folder"], "serves to publish samples"),
    (["train", "digits", *WORDS, "--init", "RUN", "--out", "new"], "give the network of one fold, such as RUN/fold-0"),
    (["memorization", "RUN", "--data", "digits"], "was trained on other data than digits"),
    (["train", "digits", *WORDS, "--dummy-class", "--out", "new"], "--dummy-class has no meaning with --folds"),
    (["train", "digits", *WORDS, "--watch-every", 99, "--stop-at-memorization", 0.1, "--out", "new"],
     "--stop-at-memorization has no meaning with --folds"),
    (["train", "digits", *WORDS, "--folds", 1, "--out", "new"], "1 fold: give at least 2"),
    (["train", "digits", *WORDS, "--folds", 41, "--out", "new"], "at most one fold per point"),
    (["train", "digits", *WORDS, "--folds", 9, "--out", "new"], "would have 4 distinct ones"),
    (["train", "digits", *WORDS, "--folds", 2, "--resume", "--out", "RUN"], "was started with folds = 3, not 2")])
def test_what_cannot_be_is_refused_in_one_line(run, tmp_path, monkeypatch, capfd, words, refusal):
    monkeypatch.chdir(tmp_path)
    assert status(*(str(word).replace("RUN", str(run.path)) for word in words)) == 2
    said, = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note:")]
    assert refusal.replace("RUN", str(run.path)) in said
    assert not list(tmp_path.iterdir())


def test_a_limit_on_leaning_reaches_every_network(tmp_path):
    data = geomem.load_data("digits", n_train=40, n_heldout=20)
    options = {**OPTIONS, "lean": 1.01}
    options.pop("n_train")
    plan = plan_training(data, **options)
    assert plan.config["lean"] == 1.01
    for one in (plan, plan.without_fold(1)):
        monitor = one.monitor(one.trainer(one.denoiser()))
        assert monitor.best_weights.lean == 1.01
        seen = {row.tobytes() for row in one.dataset.train}
        assert {row.tobytes() for row in monitor._training.clean.numpy()} <= seen
    few = geomem.load_data(data.train, heldout=data.heldout[:2])
    with pytest.raises(InputError, match="compares with validation points, and array has none"):
        plan_training(few, lean=1.2)
    assert status("train", "digits", *WORDS[:-4], "--lean", 0.9, "--out", tmp_path / "run") == 2


def test_a_class_in_one_fold_is_refused():
    rng = np.random.default_rng(0)
    data = geomem.load_data("digits", n_train=40)
    labels = np.zeros(40, dtype=np.int64)
    labels[7] = 1
    heldout = np.zeros(len(data.heldout), dtype=np.int64)
    data = geomem.data.DataSet("points", data.train, data.heldout, labels, heldout)
    with pytest.raises(InputError, match="all points of class 1 are in one fold"):
        plan_training(data, folds=3, conditional=True)
    labels[:] = rng.permutation(40) % 2
    part = plan_training(data, folds=3, conditional=True).without_fold(1)
    np.testing.assert_array_equal(part.classes.labels, labels[cut_into_folds(data.train, 3) != 1])
    where = [np.flatnonzero((data.train == point).all((1, 2, 3)))[0] for point in part.validation]
    np.testing.assert_array_equal(part.classes.validation_labels, labels[where])


def test_parts_that_are_missing_or_of_another_shape_are_refused(run, tmp_path):
    other = copy_of(run, tmp_path / "run")
    load_denoiser(other.path)
    (other.path / "fold-0").unlink()
    with pytest.raises(InputError, match="no network without fold 0 yet"):
        load_denoiser(other.path)
    (other.path / "fold-0").symlink_to(run.path / "fold-0")
    (other.path / "fold-1").unlink()
    (other.path / "fold-1").mkdir()
    for file in run.without_fold(1).path.iterdir():
        (other.path / "fold-1" / file.name).symlink_to(file)
    config = json.loads((other.path / "fold-1" / "config.json").read_text())
    (other.path / "fold-1" / "config.json").unlink()
    (other.path / "fold-1" / "config.json").write_text(json.dumps({**config, "shape": [1, 4, 4]}))
    with pytest.raises(InputError, match=r"fold-1 makes points of shape \(1, 4, 4\)"):
        load_denoiser(other.path)
    (other.path / "folds.json").unlink()
    with pytest.raises(InputError, match=r"folds.json"):
        load_denoiser(other.path)
    (other.path / "folds.json").write_text(json.dumps({"format": "geomem.folds/1", "fold": [0, 1]}))
    with pytest.raises(InputError, match="folds do not fit"):
        load_denoiser(other.path)


@pytest.mark.slow
def test_what_judges_a_run_judges_this_one(run, tmp_path, capfd):
    assert status("audit", run.path, "--n-samples", 32, "--device", "cpu", "--json") == 0
    assert json.loads(capfd.readouterr().out)["about"]["weights"] == "cross-fitted"
    assert status("memorization", run.path, "--n-samples", 32, "--sigmas", 2, "--device", "cpu", "--out",
                  tmp_path / "memorization") == 0
    assert status("swap", run.path, "gaussian", "--n-samples", 16, "--device", "cpu") == 0
    assert status("report", run.path, "--seeds", "0-31", "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "cross-fitted weights" in page
    assert "--folds 3" in page
    assert "3 networks were trained" in page
