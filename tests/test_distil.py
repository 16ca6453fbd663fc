"""geomem distil: one network that learns the answers of another denoiser."""

import json
import math
import os
import signal
from dataclasses import replace

import distil_study
import numpy as np
import pytest
import torch
from commands import status
from test_training import NETWORK, assert_same_run

import geomem
from geomem.generation import generate
from geomem.models import NETWORKS, CrossFittedDenoiser, GaussianDenoiser
from geomem.noise import LogNormalSampler
from geomem.report.commands import training_command
from geomem.run_training import start_training
from geomem.training import Interrupted, Run, TrainingSettings, load_denoiser, plan_distillation
from geomem.training import distillation as module
from geomem.training.run import untrained_denoiser
from geomem.training.trainer import TaughtTrainer

OPTIONS = {"network": NETWORK, "iterations": 27, "batch": 8, "watch_every": 0, "device": "cpu"}
DISTIL = {**OPTIONS, "samples": 40}
WORDS = [word for name, value in DISTIL.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A cross-fitted run, whose ``fold-0`` is one with the best weights per noise level."""
    return geomem.train("digits", tmp_path_factory.mktemp("teacher") / "folds", n_train=40, folds=2, **OPTIONS)


@pytest.fixture(scope="module")
def one(teacher, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("distilled") / "one")
    assert status("distil", teacher.path, *WORDS, "--out", run.path) == 0
    return run


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_loss_compares_with_the_answers_of_the_teacher(accumulate):
    """A Gaussian denoiser teaches; its answers, weights and errors written out in float64."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6)) / 2 + 1
    mean, covariance = points.mean(0), np.cov(points.T, bias=True)
    config = {"network": "mlp", "shape": [6], "dropout": 0, "classes": 0, "objective": "edm", "sigma_data": 0.7}
    lessons = rng.standard_normal((30, 6)).astype(np.float32)  # not the points
    torch.manual_seed(0)
    gaussian, settings = GaussianDenoiser(torch.from_numpy(points)), TrainingSettings(iterations=9, batch=16)
    trainer = TaughtTrainer(untrained_denoiser(config, ""), LogNormalSampler(), lessons, settings, teacher=gaussian,
                            accumulate=accumulate)
    for parameter in trainer.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    batch, expected = trainer.batch(0), 0.0
    for clean, noise, sigma in zip(batch.clean, batch.noise, batch.sigma, strict=True):
        assert (clean.numpy() == lessons).all(1).any()
        noisy = clean + sigma * noise
        s = float(sigma)
        answer = mean + covariance @ np.linalg.solve(covariance + s**2 * np.eye(6), noisy.double().numpy() - mean)
        with torch.no_grad():
            error = trainer.denoiser(noisy[None], sigma)[0].double().numpy() - answer
        expected += (s**2 + 0.7**2) / (s * 0.7) ** 2 * (error**2).mean() / 16
    trainer.step()
    # float32: clean + noise is rounded by 2^-24 of 6, which sigma down to 0.02 makes larger in the error.
    assert float(trainer.losses[0]) == pytest.approx(expected, rel=1e-5)


def test_the_new_run_is_an_ordinary_one(one, teacher, tmp_path, capfd):
    """Its data are the teacher's, for whatever judges it; its config says who taught it."""
    config, loaded = one.config, load_denoiser(teacher.path)
    assert config["data"] == teacher.config["data"]
    said = {name: config["distilled"][name] for name in ("from", "weights", "routing", "samples")}
    assert said == {"from": str(teacher.path), "weights": "cross-fitted", "routing": "argmax", "samples": 40}
    assert len(config["distilled"]["weights_sha256"]) == 64
    assert "folds" not in config
    first = config["distilled"]["first_seed"]
    expected = generate(loaded.denoiser, range(first, first + 40), (1, 8, 8))
    file, = (one.path / "teacher-samples").iterdir()
    np.testing.assert_array_equal(np.load(file), expected)
    assert status("audit", one.path, "--n-samples", 32, "--device", "cpu", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["about"]["weights"], found["data"]["n_train"]) == ("per-level", 40)
    command = training_command(config, "NEW").split()
    assert command[:5] == ["geomem", "distil", str(teacher.path), "--weights", "cross-fitted"]
    again = Run(tmp_path / "again")
    assert status(*command[1:command.index("--out")], *command[command.index("--out") + 2:], "--out", again.path,
                  "--device", "cpu", "--dry-run") == 0
    assert json.loads(capfd.readouterr().out)["config"] == {
        name: value for name, value in config.items() if name != "format"}
    assert status("export", one.path, "--out", tmp_path / "model") == 0
    exported = json.loads((tmp_path / "model" / "config.json").read_text())
    assert exported["distilled"] == {**config["distilled"], "from": None}
    assert str(teacher.path) not in (tmp_path / "model" / "config.json").read_text()


def test_stopping_and_resuming_changes_nothing(one, teacher, tmp_path, monkeypatch):
    """Ctrl-C while the teacher is sampled, kill in the training."""
    monkeypatch.setattr(module, "IN_FILE", 16)
    monkeypatch.setattr(module, "BATCH", 8)
    run, plan = Run(tmp_path / "one"), plan_distillation(teacher.path, **DISTIL)

    def press(done, total):
        assert total == 40
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_training(plan, run, sampling=press)
    (run.path / "teacher-samples" / ".geomem-half.npy").write_bytes(b"half")
    kept = {path.name: path.stat().st_mtime_ns for path in (run.path / "teacher-samples").glob("0*")}
    assert list(kept) == ["000000000.npy"]
    with pytest.raises(Interrupted, match="stopped at step 6"):
        geomem.distil(teacher.path, run.path, resume=True, **DISTIL, progress=lambda done, total: done == 5 and os.kill(
            os.getpid(), signal.SIGTERM))
    geomem.distil(teacher.path, run.path, resume=True, **DISTIL)
    files = sorted((run.path / "teacher-samples").iterdir())
    assert [path.name for path in files] == [f"{start:09d}.npy" for start in (0, 16, 32)]
    assert files[0].stat().st_mtime_ns == kept[files[0].name]
    samples, = (one.path / "teacher-samples").iterdir()
    np.testing.assert_allclose(np.concatenate([np.load(path) for path in files]), np.load(samples), atol=2e-5)
    whole = Run(tmp_path / "whole")
    geomem.distil(teacher.path, whole.path, **DISTIL)
    assert_same_run(run.path, whole.path)


def test_the_training_points_are_not_read_once_the_teacher_is_sampled(teacher, tmp_path):
    """Of a teacher that is not routed by them: other training points lead to the same network."""
    plan = plan_distillation(teacher.path / "fold-0", data="digits", **DISTIL)
    assert plan.teaching.teacher.weights == "per-level"
    plan = replace(plan, lessons=plan.teaching.samples(Run(tmp_path / "run"), plan.device))
    nothing = plan.dataset.train + 9
    other = replace(plan, dataset=replace(plan.dataset, train=nothing), classes=replace(plan.classes, train=nothing))
    found = []
    for each in (plan, other):
        trainer = each.trainer(each.denoiser())
        for _ in range(5):
            trainer.step()
        found.append((trainer.ema.state_dict(), each.monitor(trainer).evaluate(5, trainer.ema)))
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_classes_are_those_that_the_teacher_was_asked_for(tmp_path):
    teacher = geomem.train("digits", tmp_path / "classes", n_train=40, conditional=True, **OPTIONS)
    one = geomem.distil(teacher.path, tmp_path / "one", **DISTIL)
    assert (one.config["labels"], one.config["classes"]) == (teacher.config["labels"], teacher.config["classes"])
    plan = plan_distillation(teacher.path, **DISTIL)
    first = plan.teaching.first_seed
    asked = load_denoiser(teacher.path).generate(range(first, first + 40), device="cpu").labels
    np.testing.assert_array_equal(np.asarray(teacher.config["labels"])[plan.teaching.labels], asked)
    assert len(load_denoiser(one.path).generate(range(3), steps=2, device="cpu").labels) == 3


def test_a_pipeline_of_diffusers_holds_it(teacher, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    NETWORKS["distilled-unet"] = replace(NETWORKS["unet-small"], options={
        "channels": (8, 16), "layers": 1, "attention": (1,), "groups": 4})
    try:
        run = geomem.distil(teacher.path, tmp_path / "run", objective="ddpm", **{**DISTIL, "network": "distilled-unet"})
        assert status("export", run.path, "--out", tmp_path / "folder", "--weights", "last") == 0
    finally:
        ours = load_denoiser(run.path, "last").denoiser
        del NETWORKS["distilled-unet"]
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "folder")
    x, level = torch.randn(2, 1, 8, 8), float(ours.schedule.sigmas[400])
    with torch.no_grad():
        eps = pipeline.unet(x / math.sqrt(1 + level**2), 400).sample
        torch.testing.assert_close(ours(x, level), x - level * eps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("words", "refusal"), [
    (["RUN", "--out", "OTHER"], "exists and is not empty; choose another --out"),
    (["empty", "--out", "new"], "is not a run directory of geomem train"),
    (["HALF", "--out", "new"], "has no network without fold 1 yet"),
    (["RUN", "--data", "digits", "--out", "new"], "was trained on other data than digits"),
    (["RUN/fold-0", "--routing", "soft", "--out", "new"], "is one network, and routing soft is for"),
    (["RUN", "--weights", "7", "--out", "new"], "has no weights '7'"),
    (["RUN", "--samples", 1, "--out", "new"], "1 is not in the range x>=2"),
    (["RUN", *WORDS, "--seed", 1, "--resume", "--out", "OTHER"], "was started with settings.seed = 0, not 1")])
def test_what_cannot_be_is_refused_in_one_line(one, teacher, tmp_path, monkeypatch, capfd, words, refusal):
    monkeypatch.chdir(tmp_path)
    half = tmp_path / "half"
    half.mkdir()
    for name in ("config.json", "folds.json", "fold-0"):
        (half / name).symlink_to(teacher.path / name)
    places = {"RUN": str(teacher.path), "OTHER": str(one.path), "HALF": str(half)}
    for word, path in places.items():
        words = [str(given).replace(word, path) for given in words]
    capfd.readouterr()
    assert status("distil", *words) == 2
    said, = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note:")]
    assert refusal in said
    assert not (tmp_path / "new").exists()


def test_the_study_tells_routed_answers_from_their_average():
    """And compares errors with those written out."""
    data = geomem.load_data("digits", n_train=40)
    networks = [GaussianDenoiser(torch.from_numpy(data.train[k::2])) for k in (1, 0)]
    routed = CrossFittedDenoiser(networks, np.arange(40) % 2, data.train)

    class Mixed(torch.nn.Module):
        def forward(self, x, sigma, labels=None):
            return 0.7 * (networks[0](x, sigma) + networks[1](x, sigma)) / 2 + 0.3 * routed(x, sigma)

    for denoiser, expected in ((routed, 0), (Mixed(), 0.7)):
        for share in distil_study.towards_average(denoiser, routed, data).values():
            assert share == pytest.approx(expected, abs=1e-4)  # float32 answers
    shrunk = distil_study.error_ratios(lambda x, sigma, labels=None: 0 * x, data)
    expected = (data.test[:40] ** 2).mean() / (data.train**2).mean()
    assert list(shrunk.values()) == pytest.approx([expected] * 6, rel=1e-5)
