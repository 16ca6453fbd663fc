"""Training in bfloat16 on a CPU: what is written out agrees with torch in float64, and runs resume exactly."""

import os
import signal

import numpy as np
import pytest
import torch
from test_training import assert_same_run
from torch.nn import functional as F

from geomem.models import EDMDenoiser, build_network
from geomem.noise import LogNormalSampler
from geomem.training import Run, Trainer, TrainingSettings, bfloat16, denoising_loss, train
from geomem.training.bfloat16 import attention, bfloat16_products, convolution_after_doubling, group_norm

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


def test_convolution_after_doubling_is_that_of_the_doubled_image():
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(7, 5, 3, 3, dtype=torch.float64, requires_grad=True), torch.randn(7).double()
    found = convolution_after_doubling(x, weight, bias)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    torch.testing.assert_close(found, expected)
    dy = torch.randn_like(expected)
    for one, other in zip(torch.autograd.grad(found, (x, weight), dy), torch.autograd.grad(expected, (x, weight), dy),
                          strict=True):
        torch.testing.assert_close(one, other)


def test_attention_as_torch_has_it_in_float64():
    """Scores of size 3 rounded to 8 bits change a probability by 3 roundings; it, values and output add one each."""
    query, key, value = (torch.randn(3, 2, 10, 4).bfloat16() for _ in range(3))
    expected = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    assert relative(attention(query, key, value), expected) < 6 * ROUNDING


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


IMAGE = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1)).bfloat16().contiguous(
    memory_format=torch.channels_last)
KERNEL = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(2))
BIAS = torch.randn(5, generator=torch.Generator().manual_seed(3))


def nearest(x, **size):
    return F.interpolate(x, mode="nearest", **size)


ASKED = {
    "doubled": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0), KERNEL, BIAS, (1, 1), (1, 1), (1, 1), 1),
    "another stride": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0), KERNEL, BIAS, (2, 2), (1, 1), (1, 1), 1),
    "no padding": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0), KERNEL, BIAS, (1, 1), (0, 0), (1, 1), 1),
    "groups": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0), KERNEL[:4, :2], BIAS[:4], (1, 1), (1, 1), (1, 1), 2),
    "another kernel": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0), KERNEL[..., 1:2, 1:2], BIAS, (1, 1), (1, 1),
                                       (1, 1), 1),
    "called by name": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0), KERNEL, bias=BIAS, padding=1),
    "tripled": lambda: F.conv2d(nearest(IMAGE, scale_factor=3.0), KERNEL, BIAS, (1, 1), (1, 1), (1, 1), 1),
    "of a given size": lambda: F.conv2d(nearest(IMAGE, size=(9, 12)), KERNEL, BIAS, (1, 1), (1, 1), (1, 1), 1),
    "bilinear": lambda: F.conv2d(F.interpolate(IMAGE, scale_factor=2.0, mode="bilinear"), KERNEL, BIAS, (1, 1), (1, 1),
                                 (1, 1), 1),
    "of another image": lambda: (nearest(IMAGE, scale_factor=2.0),
                                 F.conv2d(IMAGE, KERNEL, BIAS, (1, 1), (1, 1), (1, 1), 1))[1],
    "doubled and scaled": lambda: F.conv2d(nearest(IMAGE, scale_factor=2.0) * 3, KERNEL, BIAS, (1, 1), (1, 1), (1, 1),
                                           1),
    "divided": lambda: IMAGE.div(3.0) + IMAGE.div(1.0),
    "laid out anew": lambda: IMAGE.contiguous(memory_format=torch.contiguous_format) + IMAGE.contiguous(),
    "group norm in float32": lambda: F.group_norm(IMAGE.float(), 2, torch.ones(4), torch.zeros(4)),
    "plain attention": lambda: F.scaled_dot_product_attention(QUERY, QUERY.flip(2), QUERY),
    "attention with a mask": lambda: F.scaled_dot_product_attention(QUERY, QUERY.flip(2), QUERY, MASK),
    "causal attention": lambda: F.scaled_dot_product_attention(QUERY, QUERY.flip(2), QUERY, is_causal=True),
    "attention on another scale": lambda: F.scaled_dot_product_attention(QUERY, QUERY.flip(2), QUERY, scale=2.0),
    "attention of grouped heads": lambda: F.scaled_dot_product_attention(QUERY, QUERY[:, :1], QUERY[:, :1],
                                                                         enable_gqa=True),
}
QUERY = torch.randn(2, 2, 8, 4, generator=torch.Generator().manual_seed(4)).bfloat16()
MASK = torch.arange(8)[:, None] != torch.arange(8)


@pytest.mark.parametrize("name", ASKED)
def test_only_what_is_the_same_is_replaced(name):
    """Whatever a network asks for, it gets up to rounding; the same calls in float32 are what it asked for.

    What is float32 stays so.
    """
    with pytest.MonkeyPatch.context() as patch:
        for value in ("IMAGE", "QUERY"):
            patch.setitem(globals(), value, globals()[value].float())
        expected = ASKED[name]().double()
    with bfloat16_products(CPU):
        found = ASKED[name]()
    assert found.shape == expected.shape
    assert relative(found, expected) < (1e-6 if "float32" in name else 6 * ROUNDING)


def test_attention_with_dropout_drops():
    query = torch.randn(1, 1, 64, 4).bfloat16()
    with bfloat16_products(CPU):
        found = F.scaled_dot_product_attention(query, query, torch.ones_like(query), dropout_p=0.5)
    assert found.std() > 0.1  # without, each row is a mean of ones


@pytest.mark.parametrize(("network", "side", "batch"), [("unet-small", 8, 64), ("unet-tiny", 8, 10)])
def test_gradient_of_a_network_is_as_near_to_float32_as_with_autocast_alone(network, side, batch, monkeypatch):
    """Diffusers lays images out anew in batches of 64; all that is replaced takes part."""
    torch.manual_seed(0)
    denoiser = EDMDenoiser(build_network(network, (3, side, side)))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    clean, noise, sigma = torch.randn(batch, 3, side, side), torch.randn(batch, 3, side, side), torch.rand(batch) + 0.1
    called = set()

    def noted(name):
        function = getattr(bfloat16, name)
        return lambda *given, **named: called.add(name) or function(*given, **named)

    for name in ("group_norm", "attention", "convolution_after_doubling"):
        monkeypatch.setattr(bfloat16, name, noted(name))

    def gradient(context):
        images = [v.contiguous(memory_format=torch.channels_last) for v in (clean, noise)]
        with context:
            loss = denoising_loss(denoiser, *images, sigma)
        return torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, list(denoiser.parameters()))])

    exact = gradient(torch.autocast("cpu", enabled=False))
    autocast = gradient(torch.autocast("cpu", torch.bfloat16))
    denoiser.to(memory_format=torch.channels_last)
    found = gradient(bfloat16_products(CPU))
    assert called == ({"group_norm"} if network == "unet-tiny" else
                      {"group_norm", "attention", "convolution_after_doubling"})
    assert relative(found, exact) < 1.5 * relative(autocast, exact)


WIDE = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)).contiguous(
    memory_format=torch.channels_last)
HEADS = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
SQUARE = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(2)) / 8


def doubled_and_shifted(x):
    y = F.interpolate(x, scale_factor=2.0)
    y += 1
    return F.conv2d(y, SQUARE.to(y.dtype), None, (1, 1), (1, 1), (1, 1), 1)


def doubled_of_what_is_shifted_then(x):
    x = x.clone()
    y = F.interpolate(x, scale_factor=2.0)
    x += 1
    return F.conv2d(y, SQUARE.to(y.dtype), None, (1, 1), (1, 1), (1, 1), 1)


def divided_and_shifted(x):
    (x / 1.0).add_(1)
    return x


@pytest.mark.parametrize(("function", "x"), [
    (lambda x: x.contiguous().view(2, -1), WIDE),  # an error for images with the channels innermost
    (lambda x: F.group_norm(x, 2), WIDE),
    (lambda x: F.group_norm(x, 2, weight=torch.arange(8.0)), WIDE),
    (divided_and_shifted, WIDE), (doubled_and_shifted, WIDE), (doubled_of_what_is_shifted_then, WIDE),
    (lambda q: F.scaled_dot_product_attention(query=q, key=q, value=q), HEADS),
    (lambda q: F.scaled_dot_product_attention(q[0], q[0], q[0]), HEADS),
    (lambda q: F.scaled_dot_product_attention(q[None], q[None], q[None]), HEADS),
    (lambda q: F.scaled_dot_product_attention(q, q[:1], q[:1]), HEADS),
    (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), HEADS),
])
def test_a_network_may_call_torch_as_it_likes(function, x):
    """What is not replaced, or not in this form, gives what autocast alone gives; all but 4 roundings of it."""
    with torch.autocast("cpu", torch.bfloat16):
        expected = function(x.bfloat16())
    with bfloat16_products(CPU):
        found = function(x.bfloat16())
    assert found.shape == expected.shape
    assert relative(found, expected.double()) < 4 * ROUNDING


@pytest.mark.parametrize("how", [{"precision": "bf16"}, {"channels_last": True}])
def test_stopping_and_resuming_images_with_channels_innermost_changes_nothing(tmp_path, how):
    """The moments of the optimizer are stored with the channels outermost, and must not stay so."""
    images = np.random.default_rng(2).standard_normal((40, 1, 8, 8), dtype=np.float32)

    def start(path):
        run = Run(path)
        if not run.exists:
            run.create({"data": {"spec": "x"}, "shape": [1, 8, 8], "objective": "edm", "network": "unet-tiny",
                        "dropout": 0.1, "classes": 0, "sigma_data": 1.0, "settings": {"iterations": 28}})
        torch.manual_seed(0)
        return run, Trainer(run.untrained(), LogNormalSampler(), images,
                            TrainingSettings(iterations=28, batch=8, precision=how.get("precision", "fp32")),
                            channels_last="channels_last" in how)

    train(*start(tmp_path / "whole"), images[:10])
    with pytest.raises(Exception, match="stopped at step 26"):
        train(*start(tmp_path / "stopped"), images[:10],
              on_step=lambda step, loss: os.kill(os.getpid(), signal.SIGTERM) if step == 26 else None)
    train(*start(tmp_path / "stopped"), images[:10])
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
