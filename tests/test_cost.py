"""The memory of a training step, known before it, and what is said of long trainings."""

import numpy as np
import pytest
import torch
from commands import status
from torch import nn

from geomem.models import Denoiser, EDMDenoiser, EpsilonDenoiser, build_network
from geomem.training import plan_training
from geomem.training.cost import activation_bytes, hours_advice, pieces_for


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
