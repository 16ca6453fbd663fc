"""The memory of a training step, known before it, what is said of long trainings, and --minutes."""

import json
import re
import time

import numpy as np
import pytest
import torch
from commands import status
from torch import nn

from geomem.models import Denoiser, EDMDenoiser, EpsilonDenoiser, build_network
from geomem.training import plan_training
from geomem.training.cost import activation_bytes, hours_advice, most_within, pieces_for, seconds_per_step
from geomem.training.loop import evaluation_steps


class TwoLayers(Denoiser):
    """Keeps x (64 values) for the first product and tanh's result (32), and the error's square (64)."""

    def forward(self, x, sigma, labels=None):
        return self.net(x)


def two_layers():
    with torch.device("meta"):
        return TwoLayers(nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 64)))


def test_activations_of_two_layers_by_hand():
    assert activation_bytes(two_layers(), (64,)) == 4 * (64 + 32 + 64)


class ScaledWeights(Denoiser):
    """Keeps a table of 64 x 64 once, and x and the error for each point."""

    def forward(self, x, sigma, labels=None):
        return nn.functional.linear(x, self.net.weight * torch.ones(64, 64, device=x.device))


def test_what_is_there_once_does_not_count():
    with torch.device("meta"):
        denoiser = ScaledWeights(nn.Linear(64, 64, bias=False))
    assert activation_bytes(denoiser, (64,)) == 4 * (64 + 64)


@pytest.mark.parametrize(("kind", "name", "shape"), [
    (EDMDenoiser, "unet-tiny", (1, 16, 16)), (EpsilonDenoiser, "unet-tiny", (3, 16, 16)), (EDMDenoiser, "mlp", (30,)),
    (EDMDenoiser, "unet1d", (1, 48))])
@pytest.mark.parametrize("classes", [None, 3])
def test_activations_are_those_of_a_real_step(kind, name, shape, classes):
    """Of storages that a step on the CPU keeps; the weights are there anyway."""
    denoiser = kind(build_network(name, shape, classes=classes))
    sizes, kept = {}, []

    def keep(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        kept.append(tensor)
        return tensor

    def total(points):
        sizes.clear()
        labels = () if classes is None else (torch.zeros(points, dtype=torch.int64),)
        x = torch.randn(points, *shape)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            (denoiser(x, torch.ones(points), *labels) - x).square().mean()
        weights = {parameter.untyped_storage().data_ptr() for parameter in denoiser.parameters()}
        return sum(size for place, size in sizes.items() if place not in weights)

    with torch.device("meta"):
        outline = kind(build_network(name, shape, classes=classes)).to("meta")
    assert activation_bytes(outline, shape, classes is not None) == pytest.approx(total(3) - total(2), rel=0.1)


@pytest.mark.parametrize(("batch", "processes", "needed", "pieces"), [
    (128, 1, 1, 1), (128, 1, 2**25, 1), (128, 1, 2**25 + 1, 2), (128, 2, 2**26, 1), (128, 1, 105 * 2**20, 4),
    (4, 1, 2**33, 4), (5, 2, 2**33, 2)])
def test_pieces(batch, processes, needed, pieces):
    """4 GiB hold 128 points of 32 MiB."""
    assert pieces_for(batch, processes, needed) == pieces


def test_large_images_go_through_the_network_in_pieces(caplog):
    images = np.random.default_rng(0).standard_normal((60, 3, 64, 64)).astype(np.float32)
    options = {"network": "unet-small", "iterations": 5}
    with caplog.at_level("INFO", "geomem"):
        plan = plan_training((images[:40], images[40:]), **options)
    assert plan.config["engine"]["accumulate"] == 4
    assert "--accumulate 4" in caplog.text
    assert plan_training((images[:40], images[40:]), accumulate=1, **options).config["engine"]["accumulate"] == 1
    small = plan_training((images[:40, :, :8, :8], images[40:, :, :8, :8]), **options)
    assert small.config["engine"]["accumulate"] == 1


def test_hours():
    assert hours_advice(0.9, 4000) is None
    assert hours_advice(72, 4000).startswith(
        "note: at 72 s a step, the 4,000 steps that are left take about 80 hours; in one it makes 50 (--iterations).")


def test_a_long_training_says_so(tmp_path, monkeypatch, capsys):
    from geomem import run_training

    monkeypatch.setattr(run_training, "SECONDS_TO_JUDGE", 0.0)
    monkeypatch.setattr("geomem.training.cost.HOUR", 1e-3)
    assert status("train", "digits", "--n-train", 20, "--network", "mlp", "--iterations", 5, "--batch", 4,
                  "--watch-every", 0, "--out", tmp_path / "run") == 0
    assert capsys.readouterr().err.count("the 3 steps that are left take about") == 1
    assert "--minutes 60" in hours_advice(72, 4000)


@pytest.mark.parametrize(("seconds", "most"), [(0.5, 1), (1, 1), (2.9, 2), (99, 99), (105, 100), (12_399, 12_000)])
def test_most_within_has_two_digits(seconds, most):
    assert most_within(seconds, float) == most


def test_seconds_per_step_are_those_of_later_steps(monkeypatch):
    """The first takes a second, each other .01 s."""
    now = [0.0]
    monkeypatch.setattr("geomem.training.cost.time.perf_counter", lambda: now[0])

    class Stepping:
        group, losses, taken = None, [0.0], 0

        def step(self):
            now[0] += 0.01 if self.taken else 1.0
            self.taken += 1

    trainer = Stepping()
    assert seconds_per_step(trainer) == pytest.approx(0.01)
    assert trainer.taken == 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256


def pictures(side):
    images = np.random.default_rng(0).standard_normal((60, 1, side, side)).astype(np.float32)
    return images[:40], images[40:]


@pytest.mark.parametrize(("each", "network"), [(0.001, "unet-small"), (1.0, "unet-tiny")])
def test_the_network_is_the_largest_that_sees_enough(each, network, monkeypatch, caplog):
    monkeypatch.setattr("geomem.training.plan.seconds_per_step", lambda _: each)
    with caplog.at_level("INFO", "geomem"):
        plan = plan_training(pictures(20), minutes=5)
    assert plan.config["network"] == network
    assert f"--network {network} --iterations {plan.settings.iterations}" in caplog.text
    assert ("a smaller network is taken" in caplog.text) == (network == "unet-tiny")
    told = plan_training(pictures(20), minutes=5, network="unet-small")
    assert told.config["network"] == "unet-small"


@pytest.mark.parametrize("folds", [None, 4])
def test_the_steps_are_those_that_fit(folds, monkeypatch):
    """Of .1 s each, with 20 or 10 points scored at 20 levels for a third of a step each, and 3% of pictures; 10% more
    steps do not fit.
    """
    monkeypatch.setattr("geomem.training.plan.seconds_per_step", lambda _: 0.1)
    data = pictures(8)
    plan = plan_training((data[0], data[1][:20]), minutes=4, network="mlp", batch=16, watch_every=0, folds=folds)
    steps, scored = plan.settings.iterations, 10 if folds else len(plan.validation)

    def seconds(iterations):
        beside = len(evaluation_steps(iterations)) * 20 * scored / 3 / 16
        return (folds or 1) * 0.1 * (iterations + beside) / 0.97

    assert seconds(steps) <= 240 < seconds(1.1 * steps)
    assert plan.config["settings"]["iterations"] == steps


@pytest.mark.slow
def test_minutes_choose_steps_that_can_be_asked_for_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("geomem.training.cost._TIMED_SECONDS", 0.02)
    monkeypatch.setattr("geomem.run_training._draw", lambda *_: None)
    asked = ["train", "digits", "--n-train", 20, "--batch", 4, "--watch-every", 0, "--out"]
    assert status(*asked, tmp_path / "a", "--minutes", 0.01) == 0
    network, steps = re.search(r"the same training again: --network (\S+) --iterations (\d+)",
                               capsys.readouterr().err).groups()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["iterations"] == int(steps)
    assert status(*asked, tmp_path / "b", "--network", network, "--iterations", steps) == 0
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == again
    assert status(*asked, tmp_path / "a", "--minutes", 0.01, "--resume") == 0  # the steps that it began with
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == first
    assert status(*asked, tmp_path / "c", "--minutes", 1, "--iterations", 5) == 2
    assert "leave it out, or --iterations 5" in capsys.readouterr().err


def test_pictures_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    """Checkpoints at every step, and pictures that take far longer than steps: the first, and that of the last step."""
    from geomem import run_training

    drawn = []
    monkeypatch.setattr("geomem.training.loop.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(run_training, "_draw", lambda plan, run, trainer: drawn.append(trainer.steps_done)
                        or time.sleep(0.5))
    assert status("train", "digits", "--n-train", 20, "--network", "mlp", "--iterations", 6, "--batch", 4,
                  "--watch-every", 0, "--out", tmp_path / "run") == 0
    assert drawn == [1, 6]
