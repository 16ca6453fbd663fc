"""The loss, the step, and runs that are stopped and killed."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geomem.errors import InputError
from geomem.models import NETWORKS, EDMDenoiser, EpsilonDenoiser, build_network
from geomem.models import weights as weights_module
from geomem.noise import LogNormalSampler
from geomem.rng import generator, torch_generator
from geomem.training import (
    Interrupted,
    Run,
    Trainer,
    TrainingSettings,
    checkpoint,
    denoising_loss,
    evaluation_steps,
    heldout_losses,
    loop,
    train,
)
from geomem.training.trainer import batch_indices

NETWORK = "test"
NETWORKS[NETWORK] = replace(NETWORKS["mlp"], options={"width": 32, "depth": 2})
CONFIG = {"data": {"spec": "x"}, "shape": [6], "objective": "edm", "network": NETWORK, "dropout": 0.1, "classes": 0,
          "sigma_data": 1.0, "settings": {"iterations": 60}}
POINTS = generator(0, "test points").standard_normal((40, 2), dtype=np.float32) @ np.eye(2, 6, dtype=np.float32)


def make(path, iterations=60, **settings):
    """A small run whose network uses dropout, so that every kind of draw takes part."""
    run = Run(path)
    if not run.exists:
        run.create(CONFIG)
    torch.manual_seed(0)
    return run, Trainer(run.untrained(), LogNormalSampler(), POINTS,
                        TrainingSettings(iterations=iterations, batch=16, **settings))


def after_step(trainer, step, action):
    """Have ``action`` done at the end of a step."""
    take_step = trainer.step

    def step_and_act():
        take_step()
        if trainer.steps_done == step:
            action()

    trainer.step = step_and_act


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_loss_written_out():
    """Mean over the batch of weight x squared error per value, EDM weights, row by row."""
    torch.manual_seed(0)
    denoiser = EDMDenoiser(build_network("mlp", (6,)), 0.7)
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.1)
    clean, noise, sigma = torch.randn(5, 6), torch.randn(5, 6), torch.rand(5) * 3
    expected = 0.0
    for x, z, s in zip(clean, noise, sigma, strict=True):
        error = (denoiser((x + s * z)[None], s)[0] - x).square().mean()
        expected += (s**2 + 0.7**2) / (s * 0.7) ** 2 * error / 5
    torch.testing.assert_close(denoising_loss(denoiser, clean, noise, sigma), expected, rtol=1e-5, atol=0)


def test_heldout_losses_do_not_depend_on_chunks():
    def shrink(x, sigma, labels=None):
        return x / (1 + sigma**2)

    clean, noise = torch.randn(33, 4), torch.randn(33, 4)
    sigmas = [0.1, 1.0, 10.0]
    expected = [float((shrink(clean + s * noise, s) - clean).double().square().mean()) for s in sigmas]
    for chunk in (1, 7, 512):
        np.testing.assert_allclose(heldout_losses(shrink, clean, noise, sigmas, chunk=chunk), expected, rtol=1e-6)


def test_every_epoch_sees_every_point_once():
    n, batch = 40, 16
    drawn = np.concatenate([batch_indices(step, batch, n, seed=3) for step in range(10)])
    for epoch in range(4):
        assert sorted(drawn[epoch * n:(epoch + 1) * n]) == list(range(n))
    assert list(drawn[:n]) != list(drawn[n:2 * n])
    assert sorted(batch_indices(0, 100, 40, 0)[:80]) == sorted([*range(40)] * 2)


def test_average_of_weights_is_the_stated_one(tmp_path):
    """Replay the weights of each step through the recursion with the half-life written out."""
    _, trainer = make(tmp_path / "run", ema_halflife=200, ema_rampup=0.5)
    name = next(iter(dict(trainer.denoiser.named_parameters())))
    average = dict(trainer.ema.named_parameters())[name].clone()
    for step in range(1, 40):
        trainer.step()
        halflife = min(200, 0.5 * step * 16)
        decay = 0.5 ** (16 / halflife)
        average = decay * average + (1 - decay) * dict(trainer.denoiser.named_parameters())[name].detach()
    torch.testing.assert_close(dict(trainer.ema.named_parameters())[name], average, rtol=1e-5, atol=1e-6)


class NoWaits(TorchDispatchMode):
    """Refuses what makes a GPU finish its work first: reading a value, and copies to the processor."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert operation is not torch.ops.aten._local_scalar_dense.default, "a value is read"
        assert operation is not torch.ops.aten.nonzero.default, "a shape depends on values"
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["edm", "ddpm", "classes"])
def test_a_step_does_not_wait_for_the_device(kind):
    """The optimizer's is taken as it is: on a GPU the fused AdamW waits for nothing either."""
    net = build_network("mlp", (6,), dropout=0.1, classes=2 if kind == "classes" else 0)
    trainer = Trainer(EpsilonDenoiser(net) if kind == "ddpm" else EDMDenoiser(net, 1.0), LogNormalSampler(), POINTS,
                      TrainingSettings(iterations=9, batch=16), np.arange(40) % 2 if kind == "classes" else None)
    trainer.step()
    batch = trainer.batch(1)
    with NoWaits():
        trainer._add_gradient(batch, 0)
        trainer._average()
    with NoWaits(), pytest.raises(AssertionError, match="a value is read"):
        float(trainer.losses[-1])


def test_training_learns_and_each_band_has_the_weights_of_its_held_out_loss(tmp_path):
    """Read back from disk and stitched, each band's loss is the one that stats.jsonl recorded for its step."""
    run = train_on(tmp_path / "run", 400)
    stats, levels = run.stats, run.levels
    assert [line["step"] for line in stats] == evaluation_steps(400)
    assert stats[-1]["loss"] < 0.8 * stats[0]["loss"]
    assert stats[-1]["images"] == 400 * 16
    recorded = {line["step"]: line["heldout_mse"] for line in stats}
    chosen = [recorded[step][band] for band, step in enumerate(levels["steps"])]
    assert np.all(chosen <= 1.005 * np.min(list(recorded.values()), axis=0))
    kept = {int(path.stem.split("-")[1]) for path in (run.path / "weights").iterdir()}
    assert set(levels["steps"]) | {levels["early_stop"]} <= kept
    centres = np.sqrt(np.array(levels["edges"][:-1]) * np.array(levels["edges"][1:]))
    clean = torch.from_numpy(POINTS[:20])
    noise = torch.randn(clean.shape, generator=torch_generator(0, "validation noise"))
    for weights, expected in (("per-level", chosen), ("last", recorded[400]),
                              ("early-stop", recorded[levels["early_stop"]]),
                              (str(levels["steps"][0]), recorded[levels["steps"][0]])):
        measured = heldout_losses(run.denoiser(weights), clean, noise, centres.tolist())
        np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_bf16_trains_like_float32_up_to_its_rounding(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        run, trainer = make(tmp_path / precision, iterations=25, precision=precision)
        train(run, trainer, None)
        assert all(p.dtype == torch.float32 for p in trainer.denoiser.parameters())
        losses[precision] = run.stats[-1]["loss"]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)  # products carry 8 bits


def test_without_held_out_points_there_are_only_last_weights(tmp_path):
    run, trainer = make(tmp_path / "run", iterations=30)
    assert train(run, trainer, None) is None
    assert run.levels is None
    run.denoiser("last")
    with pytest.raises(InputError, match="use --weights last"):
        run.denoiser("per-level")


def assert_same_run(one, two):
    a, b = Path(one), Path(two)
    files = sorted(str(p.relative_to(a)) for p in a.rglob("*.safetensors"))
    assert files == sorted(str(p.relative_to(b)) for p in b.rglob("*.safetensors"))
    for name in files:
        left, right = load_file(a / name), load_file(b / name)
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), (name, key)
    assert (a / "levels.json").read_bytes() == (b / "levels.json").read_bytes()

    def lines(path):
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"}
                for line in (path / "stats.jsonl").read_text().splitlines()]

    assert lines(a) == lines(b)


def stopped(path, step, iterations=60, **options):
    """A small run to which SIGTERM comes in a step."""
    run, trainer = make(path, iterations=iterations)
    after_step(trainer, step, terminate)
    with pytest.raises(Interrupted, match=f"stopped at step {step}"):
        train(run, trainer, POINTS[:20], **options)


def test_stopping_and_resuming_changes_nothing(tmp_path):
    train_on(tmp_path / "whole", 90)
    for step in (1, 37, 80):
        stopped(tmp_path / "stopped", step, 90)
    train_on(tmp_path / "stopped", 90)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("how", [{"precision": "bf16"}, {"channels_last": True}])
def test_stopping_and_resuming_images_changes_nothing(tmp_path, how):
    """The moments of the optimizer are stored with the channels outermost, and must not stay so."""
    images = np.random.default_rng(2).standard_normal((40, 1, 8, 8), dtype=np.float32)

    def start(path):
        run = Run(path)
        if not run.exists:
            run.create({**CONFIG, "shape": [1, 8, 8], "network": "unet-tiny"})
        torch.manual_seed(0)
        settings = TrainingSettings(iterations=5, batch=8, precision=how.get("precision", "fp32"))
        return run, Trainer(run.untrained(), LogNormalSampler(), images, settings, channels_last="channels_last" in how)

    train(*start(tmp_path / "whole"), images[:10])
    run, trainer = start(tmp_path / "stopped")
    after_step(trainer, 3, terminate)
    with pytest.raises(Interrupted, match="stopped at step 3"):
        train(run, trainer, images[:10])
    train(*start(run.path), images[:10])
    assert_same_run(tmp_path / "whole", run.path)


@pytest.mark.parametrize("first", [75, 60])
def test_a_run_that_is_extended_is_the_longer_one(tmp_path, first):
    """Of 90 steps held-out losses are measured at 25, 50, 75 and 90; of 60 at the last one too, which is one more
    choice for the weights of a noise level.
    """
    whole, run = train_on(tmp_path / "whole", 90), train_on(tmp_path / "extended", first)
    assert run.steps_done == first
    assert run.continue_with({**CONFIG, "settings": {"iterations": 90}}) == 60  # what config.json said
    assert run.config["settings"] == {"iterations": 90}
    assert run.continue_with({**CONFIG, "settings": {"iterations": 90}}) is None
    train_on(run.path, 90)
    if first == 75:
        assert_same_run(whole.path, run.path)
    for name in ("model", "state"):
        expected, found = (load_file(path / f"{name}.safetensors") for path in (whole.path, run.path))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_signal_is_answered_before_the_step_ends(tmp_path, caplog):
    run, trainer = make(tmp_path / "run")
    said = []
    after_step(trainer, 20, lambda: (terminate(), said.extend(record.getMessage() for record in caplog.records)))
    with pytest.raises(Interrupted):
        train(run, trainer, None)
    line, = said
    assert line.startswith("SIGTERM: finishing this step and saving; the same command with --resume goes on")


def in_child(work):
    """A fork of this process that does the work and ends."""
    child = get_context("fork").Process(target=work)
    child.start()
    return child


def train_on(path, iterations=60, **options):
    """A small run from where it stands to its end, with held-out points."""
    run, trainer = make(path, iterations=iterations)
    train(run, trainer, POINTS[:20], **options)
    return run


@pytest.mark.parametrize("attempts", [2, pytest.param(14, marks=pytest.mark.slow)])
def test_kill_dash_nine_and_resume_changes_nothing(tmp_path, attempts, monkeypatch):
    """Killed at random moments, writing a checkpoint every few steps, until a process reaches the end."""
    iterations = 200 * attempts
    train_on(tmp_path / "whole", iterations)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.02)
    delays, kills = random.Random(0), 0
    for _ in range(attempts):
        child = in_child(lambda: train_on(tmp_path / "killed", iterations))
        time.sleep(delays.uniform(0.05, 0.5))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
    assert kills >= (1 if attempts == 2 else 10)
    (tmp_path / "killed" / ".geomem-half.safetensors").write_bytes(b"half")
    train_on(tmp_path / "killed", iterations)
    assert not list((tmp_path / "killed").rglob(".*")), "temporary files left behind"
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_kill_in_the_middle_of_a_checkpoint_and_resume_changes_nothing(tmp_path, monkeypatch):
    """Half of a file is written, then the process is gone: in the first checkpoint, the second, and the third."""
    train_on(tmp_path / "whole", 90)
    path, write = tmp_path / "killed", checkpoint.write_tensors

    def half(tensors, path, metadata=None):
        save_file(tensors, path, metadata)
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    for name, every, done in [("step-", 30 * 16, None), ("model", 30 * 16, "30"), ("state", 55 * 16, "30")]:
        def watched(path, *given, name=name):
            monkeypatch.setattr(weights_module, "save_file", half if name in path.name else save_file)
            write(path, *given)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_tensors", watched)
            child = in_child(lambda every=every: train_on(path, 90, checkpoint_every=every))
            child.join()
        assert child.exitcode == -signal.SIGKILL
        assert len(list(path.rglob(".*"))) == 1
        if done is None:
            assert not (path / "state.safetensors").exists()
        else:
            with safe_open(path / "state.safetensors", framework="pt") as file:
                assert file.metadata()["steps_done"] == done
    train_on(path, 90)
    assert not list(path.rglob(".*"))
    assert_same_run(tmp_path / "whole", path)


def test_kill_between_the_last_state_and_what_is_derived_from_it(tmp_path):
    """The state says the run is complete, the other files are still the old ones: resuming makes them whole."""
    train_on(tmp_path / "whole")
    run = train_on(tmp_path / "killed")
    (run.path / "model.safetensors").unlink()
    (run.path / "levels.json").write_text("{}")
    (run.path / ".gitignore").write_text("kept")
    train_on(run.path)
    assert_same_run(tmp_path / "whole", run.path)
    assert (run.path / ".gitignore").exists()
    save_file({"denoiser.x": torch.zeros(1)}, run.path / "state.safetensors", {"steps_done": "3"})
    with pytest.raises(InputError, match=r"state.safetensors is damaged"):
        train_on(run.path)


def test_run_directory_refuses_what_it_cannot_trust(tmp_path):
    run = train_on(tmp_path / "run", 30)
    for words, refused in [
            ("not empty", lambda: Run(run.path).create(CONFIG)),
            ("started with network = 'test', not 'unet1d'", lambda: run.continue_with({**CONFIG, "network": "unet1d"})),
            ("settings.iterations = 60, not 50", lambda: run.continue_with({**CONFIG, "settings": {"iterations": 50}})),
            ("settings.decay = None, not 1",
             lambda: run.continue_with({**CONFIG, "settings": {"iterations": 70, "decay": 1}})),
            (r"choose last, per-level, early-stop, before-copies or one of the steps \d+", lambda: run.denoiser("31")),
            ("not a run directory", lambda: Run(tmp_path / "nothing").denoiser())]:
        with pytest.raises(InputError, match=words):
            refused()
    (run.path / "model.safetensors").write_bytes(b"\x80\x04" * 40)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        run.denoiser("last")
    save_file({"wrong": torch.zeros(1)}, run.path / "model.safetensors")
    with pytest.raises(InputError, match="belongs to another network"):
        run.denoiser("last")
    for name, broken in [("shape", [1, -8]), ("shape", "abc"), ("network", ["mlp"]), ("sigma_data", 0),
                         ("objective", "foo"), ("dropout", 3), ("data", "x")]:
        (run.path / "config.json").write_text(json.dumps({"format": "geomem.run/1", **CONFIG, name: broken}))
        with pytest.raises(InputError, match="is damaged"):
            Run(run.path).untrained()
    (run.path / "levels.json").write_text(json.dumps({"format": "geomem.levels/1", "edges": [1, 2, 3],
                                                      "steps": ["../x", 2], "early_stop": 1}))
    with pytest.raises(InputError, match="do not fit"):
        _ = run.levels
    (run.path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        Run(run.path).untrained()


def test_learning_rate_rises_and_falls():
    settings = TrainingSettings(iterations=100, learning_rate=2.0, warmup=10, decay=0.2)
    rates = [settings.learning_rate_at(k) for k in range(100)]
    np.testing.assert_allclose(rates[:10], 2 * np.arange(1, 11) / 10)
    assert set(rates[10:80]) == {2.0}
    np.testing.assert_allclose(rates[80:], 2 * np.arange(20, 0, -1) / 20)


@pytest.mark.parametrize("option", [{"iterations": 0}, {"iterations": 1, "batch": 0},
                                    {"iterations": 1, "learning_rate": 0}, {"iterations": 1, "precision": "fp8"}])
def test_wrong_settings(option):
    with pytest.raises(InputError):
        TrainingSettings(**option)


def test_evaluation_steps_reach_the_end():
    assert evaluation_steps(10) == [10]
    assert evaluation_steps(400)[:4] == [25, 50, 75, 100]
    assert all(evaluation_steps(n)[-1] == n for n in (1, 25, 26, 1000))
    assert len(evaluation_steps(100_000)) < 90


def test_flip_mirrors_half_of_the_images(tmp_path):
    """Captured at the denoiser without noise: each image is itself or its mirror image, about half of each."""
    images = np.arange(200 * 6, dtype=np.float32).reshape(200, 1, 2, 3)
    seen = []

    class Capture(EDMDenoiser):
        def forward(self, x, sigma, labels=None):
            seen.append(x.detach().clone())
            return super().forward(x, sigma, labels)

    class NoNoise(LogNormalSampler):
        def sample(self, n, generator):
            return np.full(n, 1e-6)

    trainer = Trainer(Capture(build_network("mlp", (1, 2, 3))), NoNoise(), images,
                      TrainingSettings(iterations=1, batch=200, flip=True))
    trainer.step()
    order = batch_indices(0, 200, 200, 0)
    x, whole = seen[0].round().numpy(), images[order]
    straight = (x == whole).all(axis=(1, 2, 3))
    mirrored = (x == whole[..., ::-1]).all(axis=(1, 2, 3))
    assert np.all(straight ^ mirrored)
    assert 65 < mirrored.sum() < 135  # 200 fair coins: 100 with standard deviation 7
    np.testing.assert_array_equal(images.ravel(), np.arange(1200))
