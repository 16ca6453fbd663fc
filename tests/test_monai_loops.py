"""Loops after MONAI's train_diffusion.py of 3d_ldm (DDPM in the latents of an autoencoder) and diff_model_train.py of
MAISI (rectified flow on latents from disk), on tiny networks with random weights: with five lines changed nothing is
drawn in a gap, and the best weights of each noise level are kept.
"""

import difflib
import re

import pytest
import torch

from geomem.noise import schedule_of
from geomem.training import load_best

pytest.importorskip("monai")
ZONE = (0.3, 1.5)
STEPS = 20

LATENT_DIFFUSION = """
import torch.nn.functional as F
inferer = LatentDiffusionInferer(scheduler, scale_factor=scale_factor)
for step, batch in enumerate(train_loader, start=1):
    images = batch["image"]
    noise = torch.randn([images.shape[0]] + list(z.shape[1:]), dtype=images.dtype)
    timesteps = torch.randint(0, inferer.scheduler.num_train_timesteps, (images.shape[0],)).long()
    noise_pred = inferer(
        inputs=images, autoencoder_model=autoencoder, diffusion_model=unet, noise=noise, timesteps=timesteps
    )
    loss = F.mse_loss(noise_pred.float(), noise.float())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
"""
RECTIFIED_FLOW = """
import torch.nn.functional as F
for step, batch in enumerate(train_loader, start=1):
    images = batch["image"] * scale_factor
    noise = torch.randn_like(images)
    timesteps = scheduler.sample_timesteps(images)
    noisy_latent = scheduler.add_noise(original_samples=images, noise=noise, timesteps=timesteps)
    model_output = unet(x=noisy_latent, timesteps=timesteps)
    loss = F.l1_loss(model_output.float(), (images - noise).float())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
"""
PLAIN = {"ddpm": LATENT_DIFFUSION, "rflow": RECTIFIED_FLOW}
LATENTS = {"ddpm": 'autoencoder.encode_stage_2_inputs(b["image"])', "rflow": 'b["image"]'}
LAWS = {"ddpm": "geomem.UniformTimestepSampler(scheduler)", "rflow": "geomem.LogitNormalSampler()"}
DENOISERS = {"ddpm": "TimestepDenoiser(unet, scheduler.alphas_cumprod)",
             "rflow": "VelocityDenoiser(unet, sign=-1, schedule=scheduler)"}
CHANGED = """
import geomem.models
points = [torch.cat([{latents} for b in part]).detach() * scale_factor for part in (train_loader, val_loader)]
monitor = geomem.Monitor(*points, every=10, n=4)
{plain}    monitor(step, geomem.models.{denoiser})
"""


def changed(name):
    """The script with a gap and a monitor."""
    draw = f"    timesteps = geomem.GapSampler({LAWS[name]}, zone).timesteps(len(images), scheduler, generator)\n"
    plain = re.sub(r"    timesteps = .*\n", draw, PLAIN[name], count=1)
    return CHANGED.format(latents=LATENTS[name], plain=plain[1:], denoiser=DENOISERS[name])


def trained(name, code, steps=STEPS):
    """Run the code; returns its variables, and the noise levels that it drew."""
    from monai.inferers import LatentDiffusionInferer
    from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
    from monai.networks.schedulers import DDPMScheduler, RFlowScheduler

    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        spatial_dims=3, in_channels=1, out_channels=1, channels=(4, 4), num_res_blocks=1, latent_channels=2,
        attention_levels=(False, False), norm_num_groups=2, with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False).eval()
    unet = DiffusionModelUNet(spatial_dims=3, in_channels=2, out_channels=2, channels=(4, 8), num_res_blocks=1,
                              attention_levels=(False, False), norm_num_groups=4, num_head_channels=4)
    scheduler = RFlowScheduler(sample_method="logit-normal", use_discrete_timesteps=False) if name == "rflow" else (
        DDPMScheduler(schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195))
    loaders = [[{"image": torch.randn(8, 1, 8, 8, 8)} for _ in range(n)] for n in (steps, 2)]
    if name == "rflow":
        loaders = [[{"image": autoencoder.encode_stage_2_inputs(batch["image"]).detach()} for batch in part]
                   for part in loaders]
    z = autoencoder.encode_stage_2_inputs(torch.randn(8, 1, 8, 8, 8)).detach()
    seen = []
    unet.register_forward_pre_hook(
        lambda module, args, named: seen.append(named["timesteps"]) if module.training else None, with_kwargs=True)
    scope = {"torch": torch, "LatentDiffusionInferer": LatentDiffusionInferer, "autoencoder": autoencoder, "unet": unet,
             "scheduler": scheduler, "train_loader": loaders[0], "val_loader": loaders[1], "z": z, "zone": ZONE,
             "scale_factor": 1 / z.std(), "generator": torch.Generator().manual_seed(0),
             "optimizer": torch.optim.Adam(unet.parameters(), lr=0.01)}
    exec(code, scope)
    assert torch.isfinite(scope["loss"])
    times = torch.cat(seen).double().numpy()
    assert len(times) == 8 * steps
    return scope, sigmas_of(scheduler, times)


def sigmas_of(scheduler, times):
    schedule = schedule_of(scheduler)
    return schedule.sigma_of(times) if schedule.continuous else schedule.sigmas[times.astype(int)]


def inside(sigmas):
    return ((sigmas >= ZONE[0]) & (sigmas <= ZONE[1])).mean()


@pytest.mark.parametrize("name", PLAIN)
def test_five_changed_lines(name, tmp_path):
    lines = list(difflib.ndiff(PLAIN[name].splitlines(), changed(name).splitlines()))
    assert sum(line.startswith("+ ") for line in lines) <= 5
    assert inside(trained(name, PLAIN[name], 8)[1]) > 0.1
    scope, sigmas = trained(name, changed(name))
    assert inside(sigmas) == 0
    assert min(sigmas) < ZONE[0] < ZONE[1] < max(sigmas)
    monitor, unet = scope["monitor"], scope["unet"]
    assert [step for step, _ in monitor.looks] == [10, 20]
    denoiser = eval("geomem.models." + DENOISERS[name], scope)
    monitor.save(tmp_path / "best")
    for part, expected in zip(load_best(tmp_path / "best", denoiser).denoisers, monitor.best(denoiser).denoisers,
                              strict=True):
        for key, tensor in expected.state_dict().items():
            assert torch.equal(part.state_dict()[key], tensor), key

    # The error of the denoiser is that of the script's own target.
    unet.eval()
    clean, times = scope["points"][0][:6], torch.tensor([20, 100, 300, 500, 700, 950])
    noise = torch.randn_like(clean)
    noisy = scope["scheduler"].add_noise(original_samples=clean, noise=noise, timesteps=times)
    sigma = torch.tensor(sigmas_of(scope["scheduler"], times.numpy())).float().reshape(-1, 1, 1, 1, 1)
    with torch.no_grad():
        output, estimate = unet(x=noisy, timesteps=times), denoiser(clean + sigma * noise, sigma.flatten())
    error = (estimate - clean) / sigma
    expected = (output - (clean - noise)) / (1 + sigma) if name == "rflow" else noise - output
    torch.testing.assert_close(error, expected, rtol=0, atol=2e-3)
