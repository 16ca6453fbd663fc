"""Loops after diffusers' train_dreambooth_lora_sd3.py and train_dreambooth_lora_flux.py, on tiny networks with random
weights, and the same with a gap: at most five lines change, and nothing is drawn inside it.
"""

import copy
import difflib
import types

import numpy as np
import pytest
import torch

import geomem
from geomem.models import VelocityDenoiser
from geomem.noise import FlowSchedule

diffusers = pytest.importorskip("diffusers")
ZONE = (0.3, 1.5)

LOOP = """
noise_scheduler_copy = copy.deepcopy(noise_scheduler)
for batch in batches:
    model_input = (batch["latents"] - vae_config_shift_factor) * vae_config_scaling_factor
    noise = torch.randn_like(model_input)
    bsz = model_input.shape[0]
    u = compute_density_for_timestep_sampling(
        weighting_scheme=args.weighting_scheme,
        batch_size=bsz,
        logit_mean=args.logit_mean,
        logit_std=args.logit_std,
        mode_scale=args.mode_scale,
    )
    indices = (u * noise_scheduler_copy.config.num_train_timesteps).long()
    timesteps = noise_scheduler_copy.timesteps[indices].to(device=model_input.device)
    sigmas = get_sigmas(timesteps, n_dim=model_input.ndim, dtype=model_input.dtype)
    noisy_model_input = (1.0 - sigmas) * model_input + sigmas * noise
    model_pred = predict(transformer, noisy_model_input, timesteps, batch)
    weighting = compute_loss_weighting_for_sd3(weighting_scheme=args.weighting_scheme, sigmas=sigmas)
    target = noise - model_input
    loss = torch.mean(
        (weighting.float() * (model_pred.float() - target.float()) ** 2).reshape(target.shape[0], -1),
        1,
    )
    loss = loss.mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
CHANGES = {"sd3": "law = geomem.GapSampler(geomem.LogitNormalSampler(0, 1, shift=3), zone)",
           "flux": "law = geomem.GapSampler(geomem.UniformFlowSampler(), zone)"}


def changed(name):
    """The loop with a gap: two lines more and one other."""
    return LOOP.replace("\nnoise_scheduler_copy", f"\n{CHANGES[name]}\ngenerator = torch.Generator().manual_seed(0)\n"
                        "noise_scheduler_copy", 1).replace(
        "indices = (u * noise_scheduler_copy.config.num_train_timesteps).long()",
        "indices = law.indices(bsz, noise_scheduler_copy, generator)")


def sd3():
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=16, pooled_projection_dim=6, out_channels=4, pos_embed_max_size=8)

    def predict(transformer, x, timesteps, batch):
        return transformer(hidden_states=x, timestep=timesteps, encoder_hidden_states=batch["prompt"],
                           pooled_projections=batch["pooled"], return_dict=False)[0]

    return transformer, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), predict, "logit_normal"


def flux():
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=6, guidance_embeds=True, axes_dims_rope=(2, 2, 4))

    def predict(transformer, x, timesteps, batch):
        patches = torch.nn.functional.pixel_unshuffle(x, 2)  # FluxPipeline packs 2 x 2 pixels
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        answer = transformer(
            hidden_states=patches.flatten(2).transpose(1, 2), timestep=timesteps / 1000,
            guidance=torch.full((len(x),), 3.5), encoder_hidden_states=batch["prompt"],
            pooled_projections=batch["pooled"], txt_ids=torch.zeros(3, 3),
            img_ids=torch.stack([0 * rows, rows, columns], dim=-1).reshape(-1, 3), return_dict=False)[0]
        return torch.nn.functional.pixel_shuffle(answer.transpose(1, 2).reshape(patches.shape), 2)

    return transformer, diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), predict, "none"


def trained(name, code):
    """Run the code; returns the timesteps that the network saw, and the network."""
    from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

    transformer, noise_scheduler, predict, scheme = {"sd3": sd3, "flux": flux}[name]()
    seen = []

    def recorded(transformer, x, timesteps, batch):
        seen.append(timesteps)
        return predict(transformer, x, timesteps, batch)

    def get_sigmas(timesteps, n_dim=4, dtype=torch.float32):
        sigmas = scope["noise_scheduler_copy"].sigmas.to(dtype=dtype)
        places = [(scope["noise_scheduler_copy"].timesteps == t).nonzero().item() for t in timesteps]
        sigma = sigmas[places].flatten()
        return sigma.reshape(-1, *[1] * (n_dim - 1))

    draws = torch.Generator().manual_seed(1)
    batches = [{"latents": torch.randn(64, 4, 8, 8, generator=draws), "prompt": torch.randn(64, 3, 8, generator=draws),
                "pooled": torch.randn(64, 6, generator=draws)} for _ in range(4)]
    scope = {"copy": copy, "torch": torch, "geomem": geomem, "zone": ZONE, "get_sigmas": get_sigmas,
             "predict": recorded, "batches": batches, "transformer": transformer, "noise_scheduler": noise_scheduler,
             "compute_density_for_timestep_sampling": compute_density_for_timestep_sampling,
             "compute_loss_weighting_for_sd3": compute_loss_weighting_for_sd3, "vae_config_shift_factor": 0.1,
             "vae_config_scaling_factor": 1.5, "optimizer": torch.optim.AdamW(transformer.parameters(), lr=1e-4),
             "args": types.SimpleNamespace(weighting_scheme=scheme, logit_mean=0.0, logit_std=1.0, mode_scale=1.29)}
    exec(code, scope)
    assert torch.isfinite(scope["loss"])
    return torch.cat(seen).double().numpy(), noise_scheduler, scope


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_gap_in_a_loop_of_diffusers(name):
    lines = list(difflib.ndiff(LOOP.splitlines(), changed(name).splitlines()))
    assert sum(line.startswith("+ ") for line in lines) + 1 <= 5  # and import geomem
    plain, scheduler, _ = trained(name, LOOP)
    levels = FlowSchedule.of(scheduler)
    ours, _, _ = trained(name, changed(name))
    for times, share in ((plain, 0.1), (ours, 0)):
        sigma = levels.sigmas[np.searchsorted(levels.times, times)]
        inside = ((sigma >= ZONE[0]) & (sigma <= ZONE[1])).mean()
        assert inside > share if share else inside == 0
    law = {"sd3": geomem.LogitNormalSampler(0, 1, shift=3), "flux": geomem.UniformFlowSampler()}[name]
    outside = np.sort(levels.sigma_of(np.minimum(ours, 999.99)))
    ranks = geomem.GapSampler(law, ZONE).cdf(outside)
    assert np.abs(ranks - (np.arange(len(ours)) + 0.5) / len(ours)).max() < 0.05  # stratified, of 256


def test_monitor_of_such_a_loop():
    """The trained network as a denoiser, each latent with its own prompt."""
    transformer, scheduler, _, _ = sd3()
    draws = torch.Generator().manual_seed(2)
    points, heldout = (torch.randn(n, 4, 8, 8, generator=draws) for n in (12, 11))

    def prompts(n):
        return {"encoder_hidden_states": torch.randn(n, 3, 8, generator=draws),
                "pooled_projections": torch.randn(n, 6, generator=draws)}

    monitor = geomem.Monitor(points, heldout, every=1, n=4, conditioning=(prompts(12), prompts(11)))
    denoiser = VelocityDenoiser(transformer, schedule=scheduler)
    look = monitor(1, denoiser)
    assert look.n == 4
    assert np.isfinite(look.mse_heldout).all()
    assert monitor.best(denoiser)(points, 1.0, **prompts(12)).shape == points.shape
