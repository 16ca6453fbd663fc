"""Adapters: one closed-form denoiser in every parametrization, and diffusers' own formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from geomem.errors import InputError
from geomem.generation import ddim_sample, timestep_levels
from geomem.models import EDMDenoiser, ForeignNetwork, SigmaDenoiser, TimestepDenoiser
from geomem.models.diffusers_folder import save_pipeline
from geomem.noise import DDPMSchedule, edm_steps

diffusers = pytest.importorskip("diffusers")
VARIANCE = torch.tensor([0.04, 0.3, 2.0])
TINY = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4}


class GaussianNetwork(nn.Module):
    """Optimal answer for points ~ N(0, diag VARIANCE), written for x_VP, so nothing of the adapters is used.

    ``E[clean | x_VP] = a v x_VP / (a^2 v + s^2)``, ``E[Z | x_VP] = s x_VP / (a^2 v + s^2)``,
    a^2 = abar = 1 - s^2.
    """

    def __init__(self, prediction, sigma_of, takes_ve=False):
        super().__init__()
        self.prediction, self.sigma_of, self.takes_ve = prediction, sigma_of, takes_ve

    def forward(self, x, level):
        sigma = self.sigma_of(level)[:, None]
        a, s = 1 / torch.sqrt(1 + sigma**2), sigma / torch.sqrt(1 + sigma**2)
        x = a * x if self.takes_ve else x
        clean, noise = (k * x / (a**2 * VARIANCE + s**2) for k in (a * VARIANCE, s))
        return {"x0": clean, "epsilon": noise, "v": a * noise - s * clean}[self.prediction]


def tiny_unet(seed=0, **options):
    torch.manual_seed(seed)
    return diffusers.UNet2DModel(**TINY | options).eval()


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("kind", ["ve", "vp", "timesteps"])
def test_linear_gaussian_in_every_parametrization(prediction, kind):
    """All nine are the denoiser x v / (v + sigma^2); float32 noise times sigma bounds the error of epsilon and v."""
    schedule = DDPMSchedule()
    t = np.array([0, 40, 325, 700])
    if kind == "timesteps":
        network = GaussianNetwork(prediction, lambda t: torch.from_numpy(schedule.sigmas)[t.long()].float())
        denoiser = TimestepDenoiser(network, schedule, prediction)
    else:
        denoiser = SigmaDenoiser(GaussianNetwork(prediction, lambda s: s, kind == "ve"), prediction, scaling=kind)
    sigma = torch.from_numpy(schedule.sigmas[t]).float()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)) * (VARIANCE.sqrt() + sigma[:, None])
    expected = x * VARIANCE / (VARIANCE + sigma[:, None] ** 2)
    # A few roundings of the terms that are subtracted, x and sigma eps, both about |x|.
    assert torch.all((denoiser(x, sigma) - expected).abs() < 10 * 2**-23 * (x.abs() + expected.abs()))


def test_loss_weight_is_that_of_the_networks_own_target():
    """Weight x (clean error)^2 is the squared error of F: a change of F by 1 changes D by 1 / sqrt(weight)."""
    x, sigma = torch.zeros(3, 2), torch.tensor([0.1, 1.0, 7.0])
    for prediction in ("epsilon", "v", "x0"):
        zero, one = (SigmaDenoiser(lambda x, s, k=k: torch.full_like(x, k), prediction)(x, sigma) for k in (0.0, 1.0))
        weight = SigmaDenoiser(lambda x, s: x, prediction).loss_weight(sigma)
        torch.testing.assert_close(weight * (one - zero)[:, 0] ** 2, torch.ones(3), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("prediction", "theirs"), [("epsilon", "epsilon"), ("v", "v_prediction"), ("x0", "sample")])
def test_unet_and_ddpm_scheduler_as_diffusers_has_them(prediction, theirs):
    """x0 of diffusers' own step, for a real U-Net, per timestep, float32 at sigma up to 30."""
    unet, scheduler = tiny_unet(), diffusers.DDPMScheduler(prediction_type=theirs, clip_sample=False)
    denoiser = TimestepDenoiser(unet, scheduler.alphas_cumprod, prediction)
    x_vp = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (0, 1, 325, 800):
        with torch.no_grad():
            expected = scheduler.step(unet(x_vp, t).sample, t, x_vp).pred_original_sample
            abar = scheduler.alphas_cumprod[t]
            result = denoiser(x_vp / abar.sqrt(), float(denoiser.schedule.sigmas[t]))
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-6 * float((1 / abar).sqrt()))


@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
def test_a_written_pipeline_keeps_the_schedule(betas, tmp_path):
    theirs = diffusers.DDPMScheduler(beta_schedule=betas)
    save_pipeline(tmp_path / "out", TimestepDenoiser(tiny_unet(), theirs.alphas_cumprod, "v"), (1, 8, 8), "")
    written = diffusers.DDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert written.config.prediction_type == "v_prediction"
    torch.testing.assert_close(written.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-12)


def test_edm_scheduler_as_diffusers_has_it():
    unet, scheduler = tiny_unet(), diffusers.EDMEulerScheduler(sigma_data=0.4)
    denoiser = EDMDenoiser(ForeignNetwork(unet), 0.4)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma in (0.01, 0.5, 20.0):
        x, level = sigma * noise, torch.tensor(sigma)
        with torch.no_grad():
            output = unet(scheduler.precondition_inputs(x, level), scheduler.precondition_noise(level)).sample
            torch.testing.assert_close(denoiser(x, sigma), scheduler.precondition_outputs(x, output, level),
                                       rtol=1e-5, atol=1e-6 * (1 + sigma))


def test_levels_between_timesteps():
    seen = []

    def network(x, t):
        seen.append(t)
        return x

    schedule = DDPMSchedule()
    sigma = torch.tensor([schedule.sigmas[10], np.sqrt(schedule.sigmas[10] * schedule.sigmas[11]), 1e-6, 1e6]).float()
    TimestepDenoiser(network, schedule)(torch.zeros(4, 1), sigma)
    TimestepDenoiser(network, schedule, between="nearest")(torch.zeros(4, 1), sigma * 1.001)
    assert seen[0].tolist() == [10.0, pytest.approx(10.5, abs=1e-4), 0.0, 999.0]
    assert seen[1].dtype == torch.int64
    assert seen[1].tolist() == [10, 11, 0, 999]


@pytest.mark.parametrize("answer", ["tensor", "tuple", "sample"])
def test_every_kind_of_answer_and_labels(answer):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x, level, labels=None):
            assert x.dtype == torch.bfloat16
            value = x * self.scale if labels is None else x * labels[:, None]
            return {"tensor": value, "tuple": (value, 1),
                    "sample": diffusers.models.unets.unet_2d.UNet2DOutput(sample=value)}[answer]

    denoiser = SigmaDenoiser(Network(), "x0")
    result = denoiser(torch.ones(2, 3), 1.0)
    assert result.dtype == torch.float32
    assert result.tolist() == [[1.0] * 3] * 2
    assert denoiser(torch.ones(2, 3), 1.0, torch.tensor([2, 3])).tolist() == [[2.0] * 3, [3.0] * 3]


def test_wrong_adapters_are_refused():
    def wide(x, level):
        return torch.cat([x, x], dim=1)

    with pytest.raises(InputError, match=r"answers points of shape \(3,\) with \(6,\)"):
        SigmaDenoiser(wide)(torch.zeros(2, 3), 1.0)
    with pytest.raises(InputError, match="choose one of epsilon, v, x0"):
        SigmaDenoiser(wide, "score")
    with pytest.raises(InputError, match="choose ve or vp"):
        SigmaDenoiser(wide, scaling="edm")
    with pytest.raises(InputError, match="interpolate or nearest"):
        TimestepDenoiser(wide, DDPMSchedule(), between="floor")
    for wrong in ([0.9], [0.5, 0.9], [1.0, 0.5], [0.9, 0.5, -0.1], [[0.9, 0.5]], [0.9, float("nan")]):
        with pytest.raises(InputError, match="decrease inside"):
            DDPMSchedule.from_alpha_bar(wrong)
    assert DDPMSchedule.from_alpha_bar([0.9, 0.0]).sigmas[-1] == pytest.approx((2**24 - 1) ** 0.5)


@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_and_ddpm_step_by_step_as_diffusers(eta, betas):
    """The denoiser's estimates are fed to diffusers' scheduler; after each step x_VP agrees to float32 rounding."""
    n = 7
    kind = diffusers.DDPMScheduler if eta else diffusers.DDIMScheduler
    scheduler = kind(clip_sample=False, beta_schedule=betas)
    scheduler.set_timesteps(n)
    schedule = DDPMSchedule.from_alpha_bar(scheduler.alphas_cumprod)
    sigmas = timestep_levels(n, schedule)
    np.testing.assert_array_equal(sigmas, schedule.sigmas[scheduler.timesteps.numpy()])
    unet = tiny_unet()
    inner = TimestepDenoiser(unet, schedule)
    seen = []

    def denoiser(x, sigma, labels=None):
        seen.append(x / (1 + sigma**2) ** 0.5)
        return inner(x, sigma)

    shape = (2, 1, 8, 8)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    draws = torch.Generator().manual_seed(6)
    noise = [torch.randn(shape, generator=draws) for _ in range(n)]
    result = ddim_sample(denoiser, latent, sigmas, eta=eta, noise=noise.__getitem__)
    draws, x = torch.Generator().manual_seed(6), latent
    for k, t in enumerate(scheduler.timesteps):
        # Float32 in diffusers: 1 - abar of timestep 0 alone is off by 3e-4, and the network's answers grow with x.
        torch.testing.assert_close(seen[k], x, rtol=0, atol=2e-4 * float(x.abs().max()))
        with torch.no_grad():
            options = {"generator": draws} if eta else {}
            x = scheduler.step(unet(x, t).sample, t, x, **options).prev_sample
    torch.testing.assert_close(result, x, rtol=0, atol=2e-4 * float(x.abs().max()))


def test_ddpm_gives_the_law_of_a_gaussian():
    """Ancestral sampling with the exact denoiser of N(0, v): samples meet its variance recursion."""
    v, n = 0.3, 4000
    sigmas = timestep_levels(1000)
    draws = torch.Generator().manual_seed(0)
    noise = [torch.randn(n, 1, generator=draws) for _ in sigmas]

    def denoiser(x, sigma, labels=None):
        return x * v / (v + sigma**2)

    samples = ddim_sample(denoiser, torch.randn(n, 1, generator=draws), sigmas, eta=1.0, noise=noise.__getitem__)
    variance = 1 + sigmas[0] ** 2
    for s, r in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        shrink = v / (v + s**2)
        variance = (shrink + (r / s) ** 2 * (1 - shrink)) ** 2 * variance + r**2 * (1 - (r / s) ** 2)
    # The variance of n normal draws has relative standard deviation sqrt(2 / n) = 2.2%.
    assert float(samples.var()) == pytest.approx(variance, rel=4 * np.sqrt(2 / n))
    assert variance == pytest.approx(v, rel=0.02)  # of 1000 steps; 50 lose a fifth


def test_ddim_is_euler_on_the_same_levels():
    from geomem.generation import edm_sample

    def denoiser(x, sigma, labels=None):
        return x * 0.3 / (0.3 + sigma**2)

    latent = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    levels = edm_steps(20)
    scale = (1 + levels[0] ** 2) ** 0.5 / levels[0]
    torch.testing.assert_close(ddim_sample(denoiser, latent / scale, levels),
                               edm_sample(denoiser, latent, levels, method="euler"), rtol=1e-5, atol=1e-7)


def test_wrong_sampling_is_refused():
    with pytest.raises(InputError, match="1 to 1,000 steps"):
        timestep_levels(1001)
    with pytest.raises(InputError, match="eta"):
        ddim_sample(lambda x, s, labels: x, torch.zeros(1, 1), edm_steps(3), eta=2.0)
    with pytest.raises(InputError, match="give noise"):
        ddim_sample(lambda x, s, labels: x, torch.zeros(1, 1), edm_steps(3), eta=1.0)
