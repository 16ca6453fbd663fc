"""The denoiser contract, preconditioning against its formulas and diffusers, and the reference denoisers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geomem.errors import InputError
from geomem.models import (
    NETWORKS,
    Denoiser,
    EDMDenoiser,
    EmpiricalDenoiser,
    EpsilonDenoiser,
    FixedClass,
    GaussianDenoiser,
    PiecewiseDenoiser,
    SigmaDenoiser,
    TimestepDenoiser,
    build_network,
    default_network,
)
from geomem.models.denoiser import TimestepOfSigma
from geomem.noise import DDPMSchedule
from geomem.training import denoising_loss

SHAPES = {"mlp": (3, 5), "unet1d": (2, 13), "unet-tiny": (1, 7, 9), "unet-small": (3, 8, 8),
          "unet-grey": (1, 9, 8)}


class Constant(nn.Module):
    """A network that remembers what it was given and answers with a constant."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, noise_label, labels=None):
        self.seen = x, noise_label
        return torch.full_like(x, self.value)


def filled(module, std=0.05):
    """Weights from a normal law: residual branches start at zero, and are to count."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


@pytest.mark.parametrize("name", SHAPES)
def test_contract(name):
    """() and (B,) noise levels agree; a row does not depend on the others; float32 out, for every odd size."""
    torch.manual_seed(0)
    net, x = filled(build_network(name, SHAPES[name])), torch.randn(4, *SHAPES[name])
    for denoiser in (EDMDenoiser(net).eval(), EpsilonDenoiser(net).eval()):
        with torch.no_grad():
            scalar = denoiser(x, 0.7)
            assert scalar.shape == x.shape
            assert scalar.dtype == torch.float32
            torch.testing.assert_close(denoiser(x.double(), torch.full((4,), 0.7)), scalar)
            mixed = denoiser(x, torch.tensor([0.7, 2.0, 0.7, 0.01]))
            torch.testing.assert_close(mixed[0], scalar[0], rtol=1e-4, atol=1e-5)
            assert not torch.allclose(mixed[1], scalar[1], atol=1e-3)
            torch.testing.assert_close(denoiser(x[2:3], 0.7)[0], scalar[2], rtol=1e-4, atol=1e-5)


def test_edm_preconditioning_formulas():
    """Karras et al. 2022, Table 1, written out for one value."""
    sd, s = 0.6, 1.7
    net = Constant(0.25)
    denoiser = EDMDenoiser(net, sd)
    result = denoiser(torch.full((1, 1), 3.0), s)
    expected = sd**2 / (s**2 + sd**2) * 3.0 + s * sd / np.sqrt(s**2 + sd**2) * 0.25
    assert result.item() == pytest.approx(expected, rel=1e-6)
    assert net.seen[0].item() == pytest.approx(3.0 / np.sqrt(s**2 + sd**2), rel=1e-6)
    assert net.seen[1].item() == pytest.approx(np.log(s) / 4, rel=1e-6)
    weight = denoiser.loss_weight(torch.tensor(s)).item()
    c_out = s * sd / np.sqrt(s**2 + sd**2)
    assert weight == pytest.approx(1 / c_out**2, rel=1e-6)


def test_epsilon_denoiser_inverts_the_ddpm_forward_process():
    """At each timestep: fed diffusers' noisy image (as VE), with the true noise as answer, the clean image returns."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    clean, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    timesteps = torch.tensor([3, 325, 800])
    noisy_vp = scheduler.add_noise(clean, noise, timesteps)

    class Oracle(nn.Module):
        def forward(self, x, noise_label, labels=None):
            torch.testing.assert_close(x, noisy_vp, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(noise_label, timesteps / 1000, rtol=0, atol=1e-4)
            return noise

    sigma = torch.from_numpy(DDPMSchedule().sigmas[timesteps]).float()
    noisy_ve = noisy_vp * (1 + sigma**2).sqrt()[:, None, None]
    torch.testing.assert_close(EpsilonDenoiser(Oracle())(noisy_ve, sigma), clean, rtol=1e-3, atol=1e-3)


def test_empirical_denoiser_against_plain_softmax():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(20, 6)) + 30  # far from the origin: the quadratic expansion must not lose digits
    train[7] = train[3] + 1e-3
    sigma = np.array([0.0005, 0.3, 2.0, 50.0])
    x = train[[3, 4, 5, 6]] + sigma[:, None] * rng.normal(size=(4, 6))
    logits = -((x[:, None] - train[None]) ** 2).sum(-1) / (2 * sigma[:, None] ** 2)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    expected = (weights / weights.sum(1, keepdims=True)) @ train
    result = EmpiricalDenoiser(torch.from_numpy(train))(torch.from_numpy(x), torch.from_numpy(sigma))
    # sigma is rounded to float32 by the contract, so logits (up to a few hundred here) to about 1e-5 of the distances
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=5e-5)


def test_gaussian_denoiser_against_dense_formula():
    """[G] Eq. 7 with the d x d covariance, for fewer and more points than dimensions."""
    rng = np.random.default_rng(1)
    for n, d in [(6, 10), (200, 5)]:
        train = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3
        x, sigma = rng.normal(size=(4, d)) * 3, 0.8
        mu, cov = train.mean(0), np.cov(train.T, ddof=0)
        expected = mu + (x - mu) @ np.linalg.solve(cov + sigma**2 * np.eye(d), cov)
        result = GaussianDenoiser(torch.from_numpy(train))(torch.from_numpy(x), sigma)
        np.testing.assert_allclose(result.numpy(), expected, rtol=2e-6, atol=2e-6)


def test_optimal_denoiser_tends_to_the_gaussian_one():
    """[G] Thm 4.11: the difference is O(sigma^-2) for x / (1 + sigma) bounded; doubling sigma quarters it."""
    rng = np.random.default_rng(2)
    train = torch.from_numpy(rng.normal(size=(50, 4)) ** 3)
    direction = torch.from_numpy(rng.normal(size=(8, 4)))
    gaps = []
    for sigma in (50.0, 100.0, 200.0):
        x = direction * (1 + sigma)
        gaps.append(float((EmpiricalDenoiser(train)(x, sigma) - GaussianDenoiser(train)(x, sigma)).norm(dim=1).max()))
    ratios = np.array(gaps[:-1]) / np.array(gaps[1:])
    assert np.all((ratios > 3) & (ratios < 5.5)), ratios


def test_piecewise_denoiser_takes_the_right_weights(monkeypatch):
    a, b, c = (Constant(k) for k in range(3))
    denoiser = PiecewiseDenoiser([a, b, a, c], [0.1, 1.0, 10.0])
    assert len(denoiser.denoisers) == 3
    x = torch.zeros(6, 2)
    sigma = torch.tensor([0.05, 0.1, 0.99, 1.0, 9.9, 10.0])
    assert denoiser(x, sigma)[:, 0].tolist() == [0, 1, 1, 0, 0, 2]
    with monkeypatch.context() as patch:  # the way of tensors on another device, with values to look at
        patch.setattr(torch.Tensor, "device", SimpleNamespace(type="elsewhere"))
        assert denoiser(x, sigma)[:, 0].tolist() == [0, 1, 1, 0, 0, 2]
        assert denoiser(x, sigma[5])[:, 0].tolist() == [2] * 6
    for level, expected in zip(sigma.tolist(), [0, 1, 1, 0, 0, 2], strict=True):
        # 0.1 and 10.0 in float32 and float64 differ: the scalar is compared as the sampler gives it
        assert denoiser(x, level)[0, 0] == expected
    with pytest.raises(InputError, match="3 denoisers"):
        PiecewiseDenoiser([a, b], [0.1, 1.0])
    with pytest.raises(InputError, match="increase"):
        PiecewiseDenoiser([a, b, c], [1.0, 0.1])


def test_a_forward_pass_asks_the_device_for_no_value():
    """Tensors on the device meta have no values: what asks for one raises."""
    with torch.device("meta"):
        x, labels, level = torch.empty(4, 1, 8, 8), torch.empty(4, dtype=torch.int64), torch.empty(4)
        mlp, tiny, small = (build_network(name, (1, 8, 8), classes=3) for name in ("mlp", "unet-tiny", "unet-small"))
    edm, gaussian = EDMDenoiser(mlp), GaussianDenoiser(torch.randn(20, 1, 8, 8))
    for denoiser in (
            edm, EDMDenoiser(tiny), EDMDenoiser(small), EpsilonDenoiser(mlp), SigmaDenoiser(mlp, "v", scaling="vp"),
            TimestepDenoiser(mlp, DDPMSchedule()), TimestepDenoiser(mlp, DDPMSchedule(), between="nearest"), gaussian,
            EmpiricalDenoiser(torch.randn(20, 1, 8, 8)), PiecewiseDenoiser([edm, gaussian, edm], [0.1, 1.0]),
            FixedClass(edm, 2)):
        denoiser.to("meta")
        for sigma in (0.5, level[0], level):
            assert denoiser(x, sigma, labels).shape == x.shape
        if isinstance(denoiser, Denoiser):
            assert denoising_loss(denoiser, x, x, level, labels).device.type == "meta"


@pytest.mark.parametrize("given", [None, np.geomspace(0.99, 1e-4, 57)])
def test_timestep_on_the_device_is_that_of_the_schedule(given):
    """At the levels, between and beyond them; also after the denoiser is made half precise."""
    schedule = DDPMSchedule() if given is None else DDPMSchedule.from_alpha_bar(given)
    sigma = np.r_[schedule.sigmas, np.random.default_rng(0).uniform(0, 200, 500), 1e-9, 1e9]
    table = TimestepOfSigma(schedule).half()
    # Two libraries' logarithms differ in the last bit, which the slope, up to T per unit, carries on.
    np.testing.assert_allclose(table(torch.from_numpy(sigma)).numpy(), schedule.timestep(sigma), rtol=1e-13, atol=1e-11)


def test_presets():
    assert [default_network(shape) for shape in [(64,), (1, 140), (1, 8, 8), (3, 32, 32)]] == [
        "mlp", "unet1d", "unet-tiny", "unet-small"]
    with pytest.raises(InputError, match="unknown network 'vit'; choose one of mlp"):
        build_network("vit", (3, 8, 8))
    with pytest.raises(InputError, match="use 'mlp'"):
        build_network("unet-small", (8,))
    assert set(SHAPES) | {"unet-cifar"} == set(NETWORKS) - {"test", "forecast-test"}  # which other test modules add


@pytest.mark.parametrize("name", SHAPES)
def test_labels_and_dropout(name):
    """Each class and the null class, n, give another output; no labels at all is the null class for every point.
    Networks without classes ignore labels; dropout acts in training alone.
    """
    torch.manual_seed(0)
    net, x = filled(build_network(name, SHAPES[name], classes=3, dropout=0.5)), torch.randn(2, *SHAPES[name])
    with torch.no_grad():
        assert not torch.equal(net(x, torch.zeros(2)), net(x, torch.zeros(2)))
        net.eval()
        outputs = [net(x, torch.zeros(2), torch.tensor([k, k])) for k in range(4)]
        mixed = net(x, torch.zeros(2), torch.tensor([2, 0]))
        assert torch.equal(net(x, torch.zeros(2)), outputs[3])
        for classes in (None, 0):
            plain = filled(build_network(name, SHAPES[name], classes=classes)).eval()
            assert torch.equal(plain(x, torch.zeros(2), torch.tensor([0, 1])), plain(x, torch.zeros(2)))
    assert all(not torch.allclose(a, b, atol=1e-4) for k, a in enumerate(outputs) for b in outputs[:k])
    torch.testing.assert_close(mixed, torch.stack([outputs[2][0], outputs[0][1]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 140, 141])
def test_signals_of_any_length(length):
    """Every length works, and a change at one end reaches the other.

    Norms see the whole signal too, so they are taken out; convolutions then reach about 40 values, attention all.
    """
    torch.manual_seed(0)
    net = filled(build_network("unet1d", (2, length)), 0.1).eval()
    for block in net.modules():
        for name, child in block.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(block, name, nn.Identity())
    x = torch.randn(1, 2, length)
    with torch.no_grad():
        output = net(x, torch.zeros(1))
        x[..., 0] += 3
        change = (net(x, torch.zeros(1)) - output).abs()
    assert output.shape == (1, 2, length)
    assert change[..., -1].max() > 1e-5


def test_published_sizes():
    """The networks of [G] Figure 5 (4.06M published) and of Karras et al. 2022 on CIFAR-10 (55.7M)."""
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in build_network(name, shape).parameters())
                 for name, shape in {"unet-grey": (1, 32, 32), "unet-cifar": (3, 32, 32)}.items()}
    assert sizes["unet-grey"] == pytest.approx(4.06e6, rel=0.01)
    assert sizes["unet-cifar"] == pytest.approx(55.7e6, rel=0.03)
