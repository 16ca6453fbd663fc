"""Loops after diffusers' train_unconditional.py, train_text_to_image_lora.py, train_dreambooth_lora_sd3.py and
train_dreambooth_lora_flux.py, on tiny networks with random weights: with five lines changed nothing is drawn in a gap,
and the best adapter of each noise level is kept. It comes back to the bit from every form it is saved in.
"""

import copy
import difflib
import json
import re
import types
from functools import cache

import numpy as np
import pytest
import torch

import geomem
from geomem.errors import InputError
from geomem.models import SigmaDenoiser, TimestepDenoiser, VelocityDenoiser
from geomem.noise import schedule_of
from geomem.training import load_best

diffusers = pytest.importorskip("diffusers")
ZONE = (0.3, 1.5)
STEPS = 20

UNCONDITIONAL = """
import torch.nn.functional as F
for step, batch in enumerate(batches, start=1):
    clean_images = batch["latents"]
    noise = torch.randn(clean_images.shape, dtype=clean_images.dtype, device=clean_images.device)
    bsz = clean_images.shape[0]
    timesteps = torch.randint(
        0, noise_scheduler.config.num_train_timesteps, (bsz,), device=clean_images.device
    ).long()
    noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
    model_output = predict(noisy_images, timesteps, batch)
    loss = F.mse_loss(model_output.float(), noise.float())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
TEXT_TO_IMAGE = """
import torch.nn.functional as F
for step, batch in enumerate(batches, start=1):
    latents = batch["latents"] * vae_config_scaling_factor
    noise = torch.randn_like(latents)
    bsz = latents.shape[0]
    timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (bsz,), device=latents.device)
    timesteps = timesteps.long()
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    target = noise
    model_pred = predict(noisy_latents, timesteps, batch)
    loss = F.mse_loss(model_pred.float(), target.float(), reduction="mean")
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
DREAMBOOTH = """
noise_scheduler_copy = copy.deepcopy(noise_scheduler)
for step, batch in enumerate(batches, start=1):
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
    model_pred = predict(noisy_model_input, timesteps, batch)
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
BEFORE = """
import geomem
law, generator = geomem.GapSampler({law}, zone), torch.Generator().manual_seed(0)
monitor = geomem.Monitor(*points, every=10, n=4, conditioning=conditioning)
"""
PLAIN = {"unconditional": UNCONDITIONAL, "sd": TEXT_TO_IMAGE, "sd3": DREAMBOOTH, "flux": DREAMBOOTH}
LAWS = {"unconditional": "geomem.UniformTimestepSampler(noise_scheduler)",
        "sd": "geomem.UniformTimestepSampler(noise_scheduler)",
        "sd3": "geomem.LogitNormalSampler(0, 1, shift=3)", "flux": "geomem.UniformFlowSampler()"}
DRAW = re.compile(r"    timesteps = torch\.randint.*?long\(\)\n|    indices = .*?\n", re.DOTALL)


def changed(name):
    """The script with a gap and a monitor."""
    plain = PLAIN[name]
    draw = ("    indices = law.indices(bsz, noise_scheduler_copy, generator)\n" if plain is DREAMBOOTH else
            "    timesteps = law.timesteps(bsz, noise_scheduler, generator)\n")
    return BEFORE.format(law=LAWS[name])[:-1] + DRAW.sub(draw, plain) + "    monitor(step, denoiser)\n"


def unconditional():
    network = diffusers.UNet2DModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2, add_attention=False)
    scheduler = diffusers.DDPMScheduler()
    return network, scheduler, TimestepDenoiser(network, scheduler.alphas_cumprod), (
        lambda x, t, batch: network(x, t).sample)


def sd():
    network = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                                        clip_sample=False)
    return network, scheduler, TimestepDenoiser(network, scheduler.alphas_cumprod), (
        lambda x, t, batch: network(x, t, batch["encoder_hidden_states"], return_dict=False)[0])


def sd3():
    network = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=16, pooled_projection_dim=6, out_channels=4, pos_embed_max_size=8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return network, scheduler, VelocityDenoiser(network, schedule=scheduler), (
        lambda x, t, batch: network(hidden_states=x, timestep=t, **prompts_of(batch), return_dict=False)[0])


class Unpacked(torch.nn.Module):
    """FLUX on latents (B, 4, 8, 8), which its pipeline packs 2 x 2, with the guidance of its training."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        self.places = torch.stack([0 * rows, rows, columns], dim=-1).reshape(-1, 3)

    def forward(self, x, timestep, **prompts):
        patches = torch.nn.functional.pixel_unshuffle(x, 2)
        answer = self.network(
            hidden_states=patches.flatten(2).transpose(1, 2), timestep=timestep, guidance=torch.full((len(x),), 3.5),
            txt_ids=torch.zeros(3, 3), img_ids=self.places, return_dict=False, **prompts)[0]
        return torch.nn.functional.pixel_shuffle(answer.transpose(1, 2).reshape(patches.shape), 2)


def flux():
    network = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=6, guidance_embeds=True, axes_dims_rope=(2, 2, 4))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    unpacked = Unpacked(network)
    return network, scheduler, VelocityDenoiser(unpacked, schedule=scheduler, time_scale=1), (
        lambda x, t, batch: unpacked(x, t / 1000, **prompts_of(batch)))


MAKE = {"unconditional": unconditional, "sd": sd, "sd3": sd3, "flux": flux}
PROMPTS = {"unconditional": (), "sd": ("encoder_hidden_states",),
           "sd3": ("encoder_hidden_states", "pooled_projections"),
           "flux": ("encoder_hidden_states", "pooled_projections")}
SHAPES = {"encoder_hidden_states": (3, 8), "pooled_projections": (6,)}


def prompts_of(batch):
    return {name: batch[name] for name in SHAPES}


def made(name):
    torch.manual_seed(0)
    network, scheduler, denoiser, predict = MAKE[name]()
    if name != "unconditional":
        from peft import LoraConfig

        network.requires_grad_(False)
        network.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights="gaussian",
                                       target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    return network, scheduler, denoiser, predict


def trained(name, code, steps=STEPS):
    """Run the code; returns its variables, and the noise levels that it drew."""
    from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

    network, scheduler, denoiser, predict = made(name)
    seen = []

    def recorded(x, timesteps, batch):
        seen.append(timesteps)
        return predict(x, timesteps, batch)

    def get_sigmas(timesteps, n_dim=4, dtype=torch.float32):
        sigmas = scope["noise_scheduler_copy"].sigmas.to(dtype=dtype)
        places = [(scope["noise_scheduler_copy"].timesteps == t).nonzero().item() for t in timesteps]
        sigma = sigmas[places].flatten()
        return sigma.reshape(-1, *[1] * (n_dim - 1))

    draws = torch.Generator().manual_seed(1)
    points = [torch.randn(n, 4, 8, 8, generator=draws) for n in (32, 11)]
    conditioning = tuple({key: torch.randn(len(part), *SHAPES[key], generator=draws) for key in PROMPTS[name]}
                         for part in points)
    batches = [{"latents": points[0][k % 2 * 16:][:16],
                **{key: value[k % 2 * 16:][:16] for key, value in conditioning[0].items()}} for k in range(steps)]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    scope = {"copy": copy, "torch": torch, "zone": ZONE, "get_sigmas": get_sigmas, "predict": recorded,
             "batches": batches, "points": points, "conditioning": conditioning if PROMPTS[name] else None,
             "network": network, "denoiser": denoiser, "noise_scheduler": scheduler,
             "compute_density_for_timestep_sampling": compute_density_for_timestep_sampling,
             "compute_loss_weighting_for_sd3": compute_loss_weighting_for_sd3, "vae_config_shift_factor": 0.0,
             "vae_config_scaling_factor": 1.0, "optimizer": torch.optim.AdamW(trainable, lr=0.02),
             "args": types.SimpleNamespace(weighting_scheme="none" if name == "flux" else "logit_normal",
                                           logit_mean=0.0, logit_std=1.0, mode_scale=1.29)}
    exec(code, scope)
    assert torch.isfinite(scope["loss"])
    schedule, times = schedule_of(scheduler), torch.cat(seen).double().numpy()
    return scope, schedule.sigmas[np.searchsorted(schedule.times, times)]


@cache
def with_a_gap(name):
    return trained(name, changed(name))


def inside(sigmas):
    return ((sigmas >= ZONE[0]) & (sigmas <= ZONE[1])).mean()


def need_peft(name):
    if name != "unconditional":
        pytest.importorskip("peft")


@pytest.mark.parametrize("name", PLAIN)
def test_five_changed_lines(name, tmp_path):
    need_peft(name)
    lines = list(difflib.ndiff(PLAIN[name].splitlines(), changed(name).splitlines()))
    assert sum(line.startswith("+ ") for line in lines) <= 5
    assert inside(trained(name, PLAIN[name], 8)[1]) > 0.1
    scope, sigmas = with_a_gap(name)
    assert len(sigmas) == 16 * STEPS
    assert inside(sigmas) == 0
    law = geomem.GapSampler(eval(LAWS[name], scope), ZONE)
    levels, counts = np.unique(sigmas, return_counts=True)
    schedule = schedule_of(scope["noise_scheduler"])
    expected = law.timestep_probabilities(schedule) * len(sigmas)
    drawn = np.zeros_like(expected)
    drawn[np.searchsorted(schedule.sigmas, levels)] = counts
    assert np.abs(np.cumsum(drawn - expected)).max() < STEPS  # stratified: within one draw for each step
    monitor, network, denoiser = scope["monitor"], scope["network"], scope["denoiser"]
    assert [step for step, _ in monitor.looks] == [10, 20]
    best, trainable = monitor.best(denoiser), sum(p.numel() for p in network.parameters() if p.requires_grad)
    kept = {id(tensor): tensor.numel() for snapshot in monitor.best_weights.snapshots.values()
            for name, tensor in snapshot.items()}
    buffers = sum(buffer.numel() for buffer in denoiser.state_dict().values()) - sum(
        p.numel() for p in network.parameters())
    assert sum(kept.values()) <= len(monitor.best_weights.snapshots) * trainable + buffers
    monitor.save(tmp_path / "best")
    again = load_best(tmp_path / "best", denoiser)
    for part, expected in zip(again.denoisers, best.denoisers, strict=True):
        for key, tensor in expected.state_dict().items():
            assert torch.equal(part.state_dict()[key], tensor), key


def pipeline(name):
    """A pipeline around the untrained network, without what only prompts need."""
    torch.manual_seed(0)
    network, scheduler, _, _ = MAKE[name]()
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    if name == "sd":
        pipe = diffusers.StableDiffusionPipeline(vae, None, None, network, scheduler, None, None,
                                                 requires_safety_checker=False)
        return pipe, network
    rest = dict.fromkeys(["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"])
    if name == "flux":
        return diffusers.FluxPipeline(scheduler=scheduler, vae=vae, transformer=network, **rest), network
    rest |= dict.fromkeys(["text_encoder_3", "tokenizer_3"])
    return diffusers.StableDiffusion3Pipeline(scheduler=scheduler, vae=vae, transformer=network, **rest), network


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_a_pipeline_loads_the_adapter_of_each_level(name, tmp_path):
    """By its own ``load_lora_weights``: each tensor to the bit, and the scale of an alpha that is not the rank."""
    pytest.importorskip("peft")
    from geomem.integrations.peft import save_adapters

    scope, _ = with_a_gap(name)
    monitor, denoiser, network = scope["monitor"], scope["denoiser"], scope["network"]
    save_adapters(tmp_path / "adapters", monitor, denoiser)
    table = json.loads((tmp_path / "adapters/levels.json").read_text())
    assert table["edges"] == monitor.best_weights.edges.tolist()
    assert table["folders"] == [f"step-{step:07d}" for step in monitor.best_weights.steps]
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == {
        "levels.json", table["early_stop"], *table["folders"]}
    size = sum(p.numel() * 4 for p in network.parameters() if p.requires_grad)
    for step in {*monitor.best_weights.steps, monitor.best_weights.early_stop}:
        folder = tmp_path / f"adapters/step-{step:07d}"
        assert sum(path.stat().st_size for path in folder.iterdir()) < size + 20_000
        pipe, base = pipeline(name)
        pipe.load_lora_weights(folder)
        expected = {key.split("network.")[-1].replace(".default.", "."): tensor
                    for key, tensor in monitor.best_weights.snapshots[step].items() if "lora" in key}
        state = {key.replace(".default_0.", "."): tensor for key, tensor in base.state_dict().items() if "lora" in key}
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)
        scaling = {part.scaling["default_0"] for part in base.modules() if hasattr(part, "lora_A")}
        assert scaling == {2.0}


def test_a_peft_model_comes_back_from_its_own_form_and_more_than_an_adapter_is_refused(tmp_path):
    peft = pytest.importorskip("peft")
    from geomem.integrations.peft import save_adapters

    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 6))
    network = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0", "1"]))
    denoiser = SigmaDenoiser(Plain(network), "x0")
    points = torch.randn(20, 6)
    monitor = geomem.Monitor(points, points + 3, every=1, n=4)
    for step in (1, 2, 3):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) / step if parameter.requires_grad else 0)
        monitor(step, denoiser)
    save_adapters(tmp_path / "adapters", monitor, denoiser)
    for step in set(monitor.best_weights.steps):
        folder = tmp_path / f"adapters/step-{step:07d}"
        assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        again = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
        snapshot = monitor.best_weights.snapshots[step]
        state = again.state_dict()
        assert all(torch.equal(state[key.removeprefix("net.network.network.")], tensor)
                   for key, tensor in snapshot.items())
        assert again.base_model.model[0].scaling["default"] == 1.5
    with pytest.raises(InputError, match="not empty; give a new folder"):
        save_adapters(tmp_path / "adapters", monitor, denoiser)
    wide = geomem.Monitor(points, points + 3, every=1, n=4)
    network.base_model.model[1].base_layer.bias.requires_grad_(True)
    wide(1, denoiser)
    with torch.no_grad():
        network.base_model.model[1].base_layer.bias += 1
    with pytest.raises(InputError, match="was trained beside the adapter"):
        save_adapters(tmp_path / "wide", wide, denoiser)
    assert not (tmp_path / "wide").exists()
    plain = SigmaDenoiser(Plain(base), "x0")
    with pytest.raises(InputError, match="no adapters of peft"):
        save_adapters(tmp_path / "none", wide, plain)


class Plain(torch.nn.Module):
    """A network that hears nothing of the noise level."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, sigma):
        return self.network(x)
