"""One Gaussian in every parametrization, its samples, the velocity loss, and conditioning through every adapter."""

import numpy as np
import pytest
import torch
from torch import nn

import geomem
from geomem.errors import InputError
from geomem.generation import ddim_sample, flow_sample, generate, sampler_levels
from geomem.models import (
    EDMDenoiser,
    ForeignNetwork,
    PiecewiseDenoiser,
    SigmaDenoiser,
    TimestepDenoiser,
    VelocityDenoiser,
    own_schedule,
)
from geomem.noise import DDPMSchedule, LogitNormalSampler
from geomem.training import Monitor, denoising_loss

diffusers = pytest.importorskip("diffusers")
MEAN, VARIANCE = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.04, 0.3, 2.0])
SCHEDULERS = {
    "linear": diffusers.DDPMScheduler(), "cosine": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    "scaled_linear": diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "zero-terminal": diffusers.DDIMScheduler(rescale_betas_zero_snr=True)}
SIGMAS = torch.tensor([0.02, 0.3, 1.4, 9.0, 60.0])


class GaussianNetwork(nn.Module):
    """The exact answer for clean points ~ N(MEAN, diag VARIANCE), by Gauss's rule on the mixture ``x = a clean + b Z``
    that the network is given; float64, and nothing of the adapters is used.
    """

    def __init__(self, answer, mixture):
        super().__init__()
        self.answer, self.mixture = answer, mixture
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))  # is given its input in float64

    def forward(self, x, time):
        a, b = (part[:, None] for part in self.mixture(time.double()))
        gain = 1 / (a**2 * VARIANCE + b**2)
        rest = x - a * MEAN
        clean, noise = MEAN + a * VARIANCE * gain * rest, b * gain * rest
        return {"epsilon": noise, "x0": clean, "v": a * noise - b * clean, "+1": noise - clean, "-1": clean - noise,
                "F": clean}[self.answer]


def vp(schedule):
    """a and b of real timesteps, linear in log sigma between them as ``TimestepDenoiser`` has it."""
    def mixture(t):
        sigma = torch.from_numpy(schedule.sigma_of(t.numpy()))
        return 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
    return mixture


def flow(scale):
    return lambda t: (1 - t / scale, t / scale)


def parametrizations():
    for name, scheduler in SCHEDULERS.items():
        schedule = DDPMSchedule.of(scheduler)
        for answer in ("epsilon", "v", "x0"):
            yield f"{name} {answer}", TimestepDenoiser(GaussianNetwork(answer, vp(schedule)), schedule, answer)
    for answer in ("epsilon", "v", "x0"):
        yield f"sigma {answer}", SigmaDenoiser(GaussianNetwork(answer, lambda s: (torch.ones_like(s), s)), answer) if (
            answer != "v") else SigmaDenoiser(GaussianNetwork(answer, lambda s: (
                1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt())), answer, scaling="vp")
    for sign in (1, -1):
        network = GaussianNetwork(f"{sign:+d}", flow(1000))
        yield f"velocity {sign:+d}", VelocityDenoiser(network, sign)
        shifted = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        yield f"velocity {sign:+d} shift 3", VelocityDenoiser(network, sign, schedule=shifted)
        yield f"velocity {sign:+d} of s", VelocityDenoiser(GaussianNetwork(f"{sign:+d}", flow(1)), sign, time_scale=1)


CASES = dict(parametrizations())


@pytest.mark.parametrize("name", CASES)
def test_the_same_gaussian_from_every_parametrization(name):
    """Rounding: the network is given time and x in float32, of relative error 2^-24 each, whose effect on D is at most
    about (|x - D| + |D|) times a few; a timestep is linear in log sigma, of which float32 resolves 1e-4 at t = 999.
    """
    x = torch.randn(len(SIGMAS), 3, generator=torch.Generator().manual_seed(0)) * (1 + SIGMAS[:, None])
    s = SIGMAS[:, None].double()
    expected = MEAN + VARIANCE / (VARIANCE + s**2) * (x - MEAN)
    with torch.no_grad():
        answer = CASES[name](x, SIGMAS)
    assert answer.dtype == torch.float32
    ends = DDPMSchedule.of(SCHEDULERS[kind]).sigmas if (kind := name.split()[0]) in SCHEDULERS else np.array([0, 1e3])
    known = (ends[0] < SIGMAS) & (ends[-1] > SIGMAS)
    bound = 3e-5 * (x - expected).abs() + 3e-6 * expected.abs() + 1e-6
    assert torch.all(((answer - expected).abs() < bound)[known])


@pytest.mark.parametrize(("method", "steps"), [("flow-euler", 400), ("flow-heun", 60), ("heun", 40)])
@pytest.mark.parametrize("name", ["linear epsilon", "zero-terminal v", "velocity +1 shift 3", "velocity -1"])
def test_moments_of_samples(name, method, steps):
    """Mean and variance over n samples within 4 standard errors and the error of the steps, 1%."""
    n, denoiser = 4000, CASES[name]
    samples = generate(denoiser, range(n), (3,), method=method, batch=n,
                       sigmas=sampler_levels(method, steps, own_schedule(denoiser)))
    scale = VARIANCE.sqrt().numpy()
    assert np.all(np.abs(samples.mean(0) - MEAN.numpy()) < 4 * scale / np.sqrt(n) + 0.01 * scale + 0.01)
    np.testing.assert_allclose(samples.var(0), VARIANCE, rtol=4 * np.sqrt(2 / n) + 0.01)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_steps_are_those_of_diffusers_and_ddim(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    denoiser = VelocityDenoiser(CASES["velocity +1"].net.network, schedule=scheduler)
    latent = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    sigmas = sampler_levels("flow-euler", 12, denoiser.schedule)
    ours = flow_sample(denoiser, latent, sigmas)
    scheduler.set_timesteps(12)
    x = latent
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(denoiser.net(x, t.expand(len(x))), t, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(ddim_sample(denoiser, latent, sigmas), ours, rtol=1e-4, atol=1e-4)


def test_loss_is_that_of_the_velocity():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, t):
            return self.net(torch.cat([x, t[:, None]], dim=1))

    clean, noise = torch.randn(2, 64, 3)
    sigma = torch.from_numpy(LogitNormalSampler().sample(64, np.random.default_rng(0))).float()
    s = (sigma / (1 + sigma))[:, None]
    for sign in (1, -1):
        denoiser = VelocityDenoiser(Network(), sign, time_scale=1)
        target = sign * (noise - clean)
        expected = nn.functional.mse_loss(denoiser.net((1 - s) * clean + s * noise, s[:, 0]), target)
        torch.testing.assert_close(denoising_loss(denoiser, clean, noise, sigma), expected, rtol=1e-4, atol=0)


class Conditional(nn.Module):
    """Answers with what it was told: the clean point, given by name."""

    def __init__(self):
        super().__init__()
        self.weight, self.heard = nn.Parameter(torch.ones(())), []

    def forward(self, hidden_states, encoder_hidden_states=None, pooled_projections=None, timestep=None,
                added_cond_kwargs=None):
        assert timestep.shape == (len(hidden_states),)
        assert pooled_projections.shape == (len(hidden_states), 2)
        assert torch.equal(added_cond_kwargs["text_embeds"], encoder_hidden_states)
        self.heard.append(encoder_hidden_states)
        return self.weight * encoder_hidden_states


def told(points):
    points = torch.as_tensor(points)
    return {"encoder_hidden_states": points, "pooled_projections": torch.zeros(len(points), 2),
            "added_cond_kwargs": {"text_embeds": points}}


def test_monitor_gives_each_point_its_own_conditioning():
    """The network repeats what it is told, so the errors are 0 where each point is told of itself, and every sample is
    a training point.
    """
    rng = np.random.default_rng(0)
    train, heldout = (rng.standard_normal((n, 5)).astype(np.float32) for n in (90, 700))
    heldout[3] = train[5]  # is left out, and so is what it was told
    monitor = Monitor(train, heldout, every=1, conditioning=(told(train), told(heldout)))
    denoiser = SigmaDenoiser(Conditional(), "x0")
    look = monitor(1, denoiser)
    assert look.rate == 1
    assert any(torch.equal(part, torch.from_numpy(train[:64])) for part in denoiser.net.network.heard)  # in turn
    assert max(look.mse_train) < 1e-10
    assert max(look.mse_heldout) < 1e-10
    assert max(monitor.best_weights.smallest) < 1e-10
    samples = generate(monitor.best(denoiser), range(7), (5,), conditioning=told(train[:7]), batch=3)
    np.testing.assert_allclose(samples, train[:7], atol=1e-6)
    with pytest.raises(InputError, match="text_embeds has 89 entries for 90 training points"):
        Monitor(train, heldout, every=1, conditioning=(
            {**told(train), "added_cond_kwargs": told(train[:89])["added_cond_kwargs"]}, told(heldout)))
    with pytest.raises(InputError, match="two mappings"):
        Monitor(train, heldout, every=1, conditioning=told(train))


def test_every_adapter_passes_conditioning_on():
    x, sigma = torch.randn(4, 5), torch.tensor([0.1, 0.5, 2.0, 9.0])
    for wrap in (SigmaDenoiser, VelocityDenoiser, lambda net: TimestepDenoiser(net, DDPMSchedule()),
                 lambda net: EDMDenoiser(ForeignNetwork(net)),
                 lambda net: PiecewiseDenoiser([SigmaDenoiser(net, "x0"), VelocityDenoiser(net)], [1.0])):
        assert wrap(Conditional())(x, sigma, **told(x)).shape == x.shape
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None, cross_attention_dim=6,
        num_class_embeds=3)
    images, words = torch.randn(2, 1, 8, 8), torch.randn(2, 4, 6)
    answer = TimestepDenoiser(unet, DDPMSchedule())(images, 1.0, torch.tensor([0, 2]), encoder_hidden_states=words)
    assert answer.shape == images.shape
    with pytest.raises(InputError, match="needs encoder_hidden_states, which stands for the prompt") as refused:
        TimestepDenoiser(unet, DDPMSchedule())(images, 1.0, torch.tensor([0, 2]))
    assert "\n" not in str(refused.value)


def test_a_forward_pass_asks_the_device_for_no_value():
    """Tensors on the device meta have none to give."""
    x, sigma = torch.empty(4, 3, device="meta"), torch.empty(4, device="meta")
    for sign in (1, -1):
        denoiser = VelocityDenoiser(lambda x, t: x, sign)
        assert denoiser(x, sigma).shape == denoiser(x, 0.5).shape == x.shape
        assert denoiser.loss_weight(sigma).shape == sigma.shape


def test_wrong_sign():
    with pytest.raises(InputError, match="sign of a velocity"):
        VelocityDenoiser(nn.Identity(), sign=0)
    assert geomem.LogitNormalSampler is LogitNormalSampler
