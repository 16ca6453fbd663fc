"""Training in bfloat16 on a CPU: what is written out agrees with torch in float64, and runs resume exactly."""

import numpy as np
import pytest
import torch
from test_training import CONFIG, after_step, assert_same_run, terminate
from torch.nn import functional as F

from geomem.models import EDMDenoiser
from geomem.models.networks import DenseUNet, ImageUNet
from geomem.noise import LogNormalSampler
from geomem.training import Interrupted, Run, Trainer, TrainingSettings, bfloat16, denoising_loss, train
from geomem.training.bfloat16 import bfloat16_products, group_norm

ROUNDING = 2.0**-9  # of a value to 8 bits, about, in the mean square; at most twice as much
CPU = torch.device("cpu")


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("mean", [0, 3, 30])
@pytest.mark.parametrize("side", [5, 8, 16])
def test_group_norm_and_its_gradients_as_torch_has_them_in_float64(mean, side):
    """Channels of different spread, also far from zero. Input less pivot, a, b and output are rounded: 4 roundings."""
    draws = torch.Generator().manual_seed(0)
    x = mean + torch.randn(6, 32, side, side, generator=draws) * (0.1 + 2 * torch.rand(32, 1, 1, generator=draws))
    x, dy = (values.bfloat16().contiguous(memory_format=torch.channels_last)
             for values in (x, torch.randn(x.shape, generator=draws)))
    weight, bias = 0.5 + torch.rand(32, generator=draws), torch.randn(32, generator=draws)

    def value_and_gradients(function, *given):
        given = [tensor.clone().requires_grad_() for tensor in given]
        y = function(given[0], 8, *given[1:], eps=1e-5)
        return [y.detach(), *torch.autograd.grad(y, given, dy.to(y.dtype))]

    expected = value_and_gradients(F.group_norm, x.double(), weight.double(), bias.double())
    found = value_and_gradients(group_norm, x, weight, bias)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 4 * ROUNDING


def test_sums_of_many_pixels_are_more_precise_than_one_rounding():
    """1,024 positive values of a channel in 16 sums. A rounding is off by ROUNDING / sqrt(3) to twice as much in the
    mean square, by the first bits of the value; a total of 16 rounded sums by a quarter of that.
    """
    draws = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(1, 256, 32, 32, generator=draws).bfloat16().contiguous(memory_format=torch.channels_last)
             for _ in range(2))
    bias = torch.zeros(256, requires_grad=True)
    (found,) = torch.autograd.grad(group_norm(x, 8, torch.ones(256), bias), bias, dy.abs())
    assert relative(found, dy.abs().double().sum((0, 2, 3))) < ROUNDING / 12**0.5


def test_group_norm_of_flat_groups_is_as_steady_as_torchs():
    """Spreads of 0 and 0.005 = 1.6 sqrt(eps), where eps decides; a flat group far from zero has a variance of 0, which
    rounding must not make negative. Its output is the bias, and no gradient is NaN.
    """
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.005
    x[:, :8] = torch.linspace(-30, 30, 8)[:, None, None]
    x = x.bfloat16().contiguous(memory_format=torch.channels_last)
    weight, bias = torch.linspace(0.5, 2, 16), torch.linspace(-1, 1, 16)
    expected = F.group_norm(x.double(), 16, weight.double(), bias.double(), eps=1e-5)
    assert relative(group_norm(x, 16, weight, bias, eps=1e-5), expected) < 4 * ROUNDING
    x = x.requires_grad_()
    flat = group_norm(x, 4, weight, bias, eps=0.0)[:, 8:]
    (gradient,) = torch.autograd.grad(flat.float().square().sum(), x)
    assert gradient.isfinite().all()
    y = group_norm(x, 16, weight, bias, eps=1e-30)
    assert y.isfinite().all()
    torch.testing.assert_close(y[:, :8].float(), bias.bfloat16().float()[:8, None, None].expand(2, 8, 8, 8))


@pytest.mark.parametrize(("network", "options"), [
    (ImageUNet, {"channels": (16, 32), "layers": 1, "attention": (1,), "groups": 8}),
    (DenseUNet, {"channels": 16, "depth": 2})])
def test_gradient_of_a_network_is_as_near_to_float32_as_with_autocast_alone(network, options, monkeypatch):
    torch.manual_seed(0)
    denoiser = EDMDenoiser(network((3, 8, 8), **options, dropout=0.0, classes=None))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    clean, noise, sigma = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.rand(4) + 0.1
    calls = []
    sums = bfloat16._sums
    monkeypatch.setattr(bfloat16, "_sums", lambda rows: calls.append(1) or sums(rows))

    def gradient(context):
        images = [v.contiguous(memory_format=torch.channels_last) for v in (clean, noise)]
        with context:
            loss = denoising_loss(denoiser, *images, sigma)
        return torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, list(denoiser.parameters()))])

    exact = gradient(torch.autocast("cpu", enabled=False))
    autocast = gradient(torch.autocast("cpu", torch.bfloat16))
    denoiser.to(memory_format=torch.channels_last)
    assert relative(gradient(bfloat16_products(CPU)), exact) < 1.5 * relative(autocast, exact)
    assert calls


WIDE = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)).contiguous(
    memory_format=torch.channels_last)
WEIGHT, BIAS = torch.arange(1.0, 9.0), torch.ones(8)


@pytest.mark.parametrize("called", [
    lambda x: F.group_norm(x, 2), lambda x: F.group_norm(x, 2, weight=WEIGHT), lambda x: F.group_norm(x, 2, WEIGHT),
    lambda x: F.group_norm(x, 2, WEIGHT, BIAS), lambda x: F.group_norm(x, 2, WEIGHT, BIAS, 1e-5),
    lambda x: F.group_norm(x[0], 2, WEIGHT[:4], BIAS[:4], 1e-5),
    lambda x: F.group_norm(x.float(), 2, WEIGHT, BIAS, 1e-5),
    lambda x: F.group_norm(x.contiguous(memory_format=torch.contiguous_format), 2, WEIGHT, BIAS, 1e-5),
])
def test_a_network_may_call_torch_as_it_likes(called):
    """What is not replaced, or not in this form, gives what autocast alone gives; all but 4 roundings of it."""
    with torch.autocast("cpu", torch.bfloat16):
        expected = called(WIDE.bfloat16())
    with bfloat16_products(CPU):
        found = called(WIDE.bfloat16())
        with torch.inference_mode():
            called(WIDE.bfloat16())
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert relative(found, expected.double()) < 4 * ROUNDING


@pytest.mark.parametrize("how", [{"precision": "bf16"}, {"channels_last": True}])
def test_stopping_and_resuming_images_with_channels_innermost_changes_nothing(tmp_path, how):
    """The moments of the optimizer are stored with the channels outermost, and must not stay so."""
    images = np.random.default_rng(2).standard_normal((40, 1, 8, 8), dtype=np.float32)

    def start(path):
        run = Run(path)
        if not run.exists:
            run.create({**CONFIG, "shape": [1, 8, 8], "network": "unet-tiny"})
        torch.manual_seed(0)
        settings = TrainingSettings(iterations=5, batch=8, precision=how.get("precision", "fp32"))
        return run, Trainer(run.untrained(), LogNormalSampler(), images, settings,
                            channels_last="channels_last" in how)

    train(*start(tmp_path / "whole"), images[:10])
    run, trainer = start(tmp_path / "stopped")
    after_step(trainer, 3, terminate)
    with pytest.raises(Interrupted, match="stopped at step 3"):
        train(run, trainer, images[:10])
    train(*start(run.path), images[:10])
    assert_same_run(tmp_path / "whole", run.path)
