"""Models that others made: their schedules, classes, clipping and variances, beside what diffusers does with them."""

import inspect
import json

import numpy as np
import pytest
import torch
from commands import refused, status

from geomem.errors import InputError
from geomem.generation import edm_sample, generate, latents, sampler_levels
from geomem.models.diffusers_folder import read_diffusers_configs, save_pipeline
from geomem.noise import DDPMSchedule, NoiseLevelSampler, UniformTimestepSampler, edm_steps
from geomem.training import load_denoiser, plan_training

diffusers = pytest.importorskip("diffusers")
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
DARK = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "clip_sample": False}
BETAS = {
    "linear": {"beta_end": 0.03},
    "scaled-linear": SCALED,
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid", "num_train_timesteps": 77},
    "trained": {"trained_betas": [0.01, 0.04, 0.02], "num_train_timesteps": 3},
    "zero-terminal-snr": DARK,
}
POINTS = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)


def folder(path, scheduler, **options):
    """A tiny U-Net with its scheduler, as diffusers saves them."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**{
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": (8, 16),
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2} | options)
    unet.save_pretrained(path / "unet")
    scheduler.save_pretrained(path / "scheduler")
    return path


def trajectory(path, steps, seeds, labels=None, **options):
    """What diffusers' DDIM makes of geomem's latents."""
    unet = diffusers.UNet2DModel.from_pretrained(path / "unet").eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(path / "scheduler")
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(latents(seeds, (1, 8, 8)))
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x, **options).prev_sample
    return x.numpy()


@pytest.mark.parametrize("betas", BETAS.values(), ids=list(BETAS))
def test_every_kind_of_betas_is_read_and_written_exactly(betas, tmp_path):
    theirs = diffusers.DDPMScheduler(**betas)
    model = load_denoiser(folder(tmp_path / "in", theirs))
    inside = len(theirs.alphas_cumprod) - ("rescale_betas_zero_snr" in betas)
    np.testing.assert_array_equal(model.schedule.alpha_bar[:inside], theirs.alphas_cumprod.numpy()[:inside])
    save_pipeline(tmp_path / "out", model.denoiser, model.shape, "",
                  read_diffusers_configs(tmp_path / "in")["scheduler"])
    written = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out").scheduler
    assert torch.equal(written.alphas_cumprod, theirs.alphas_cumprod)
    known = inspect.signature(diffusers.DDPMScheduler.__init__).parameters.keys() - {"self"}
    assert {name: written.config[name] for name in known} == {name: theirs.config[name] for name in known}


def test_scaled_linear_from_folder_over_run_to_folder(tmp_path):
    theirs = diffusers.DDPMScheduler(**SCALED)
    given = folder(tmp_path / "in", theirs)
    np.savez(tmp_path / "images.npz", train=POINTS[:16], heldout=POINTS[16:])
    assert status("train", tmp_path / "images.npz", "--init", given, "--iterations", 1, "--batch", 2,
                  "--watch-every", 0, "--out", tmp_path / "run") == 0
    assert status("export", tmp_path / "run", "--weights", "last", "--out", tmp_path / "out") == 0
    assert torch.equal(diffusers.DDPMPipeline.from_pretrained(tmp_path / "out").scheduler.alphas_cumprod,
                       theirs.alphas_cumprod)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    law = NoiseLevelSampler.from_dict(config["sampler"])
    assert law.schedule == DDPMSchedule.of(theirs)


def test_laws_and_gaps_are_in_the_timesteps_of_the_network(tmp_path):
    theirs = diffusers.DDPMScheduler(**SCALED)
    given = folder(tmp_path / "in", theirs)
    sigmas = ((1 - theirs.alphas_cumprod.double()) / theirs.alphas_cumprod.double()).sqrt().numpy()

    def planned(**options):
        return plan_training((POINTS[:16], POINTS[16:]), init=given, **options).law

    plain, gap = planned(), planned(gap="400t:600t")
    np.testing.assert_allclose(plain.law.icdf((np.arange(1000) + 0.5) / 1000), sigmas, rtol=1e-12)
    assert [row["timestep"] for row in plain.summary()["quantiles"]] == [49, 249, 499, 749, 949]
    assert gap.law.removed_mass == pytest.approx(0.201, abs=1e-12)
    levels = gap.law.icdf((np.arange(4000) + 0.5) / 4000)
    np.testing.assert_allclose(np.unique(levels), np.delete(sigmas, np.arange(400, 601)), rtol=1e-12)
    interval = planned(sampler="ci", ci=(100, 300)).law
    assert interval.schedule == DDPMSchedule.of(theirs)


@pytest.mark.parametrize(("options", "steps"), [
    (SCALED, 8), (DARK | {"num_train_timesteps": 20}, 20), ({"num_train_timesteps": 50, "clip_sample": True}, 10),
    ({"clip_sample": True, "clip_sample_range": 0.5}, 6)], ids=["scaled-linear", "zero-terminal-snr", "fifty-steps",
                                                               "clips"])
def test_ddim_is_that_of_diffusers(options, steps, tmp_path):
    given = folder(tmp_path, diffusers.DDIMScheduler(**options))
    ours = load_denoiser(given).generate(range(3), sampler="ddim", steps=steps).values
    # Of the clipped estimate's own noise, as DDPM's step has it.
    theirs = trajectory(given, steps, range(3), use_clipped_model_output=True)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-4 * np.abs(theirs).max())  # float32, see test_adapters.py


def test_zero_terminal_snr_is_just_below_the_timestep_before():
    scheduler = diffusers.DDPMScheduler(**DARK)
    before = float(scheduler.alphas_cumprod[-2])
    assert before < 2**-24
    law = UniformTimestepSampler(scheduler)
    assert law.schedule.alpha_bar[-1] == before / 2
    assert np.all(np.diff(law.schedule.sigmas) > 0)
    np.testing.assert_array_equal(law.schedule.alpha_bar[:-1], scheduler.alphas_cumprod[:-1].numpy())


def test_fifty_steps_start_at_the_last_level(tmp_path, caplog):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50, clip_sample=False)
    model = load_denoiser(folder(tmp_path, scheduler))
    last = float(((1 - scheduler.alphas_cumprod[-1]) / scheduler.alphas_cumprod[-1]).sqrt())
    with caplog.at_level("INFO", "geomem"):
        made = model.generate(range(2)).values
    assert f"noise levels up to sigma {last:.3g}; heun starts there, not at 80" in caplog.text
    expected = edm_sample(model.denoiser, torch.from_numpy(latents(range(2), model.shape)), edm_steps(sigma_max=last))
    np.testing.assert_allclose(made, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(generate(model.denoiser, range(2), model.shape), made)
    assert len(sampler_levels("ddim", schedule=model.schedule)) == 50
    np.testing.assert_array_equal(sampler_levels(schedule=DDPMSchedule()), edm_steps())


def test_clips_and_thresholds_are_honoured_or_said(tmp_path, caplog):
    with caplog.at_level("INFO", "geomem"):
        clipped = load_denoiser(folder(tmp_path / "a", diffusers.DDPMScheduler())).generate(range(2), steps=3)
        assert np.abs(clipped.values).max() <= 1
        assert clipped.about["clip"] == 1.0
        assert "clipped to [-1, 1]" in caplog.text
        model = load_denoiser(folder(tmp_path / "b", diffusers.DDPMScheduler(thresholding=True)))
    assert model.clip is None
    assert "dynamic thresholding of the estimates, which is not done here" in caplog.text
    with pytest.raises(InputError, match="clip_sample_range is 0, not a positive number"):
        load_denoiser(folder(tmp_path / "c", diffusers.DDPMScheduler(clip_sample_range=0)))


def test_classes_of_a_folder(tmp_path, capsys):
    given = folder(tmp_path / "in", diffusers.DDIMScheduler(clip_sample=False), num_class_embeds=3)
    out = tmp_path / "samples.npz"
    assert status("generate", given, "--seeds", "0-3", "--sampler", "ddim", "--steps", 5, "--label", 1, "--label", 2,
                  "--out", out) == 0
    made = np.load(out)
    assert made["labels"].tolist() == [1, 2, 1, 2]
    expected = trajectory(given, 5, range(4), torch.tensor([1, 2, 1, 2]))
    np.testing.assert_allclose(made["samples"], expected, rtol=0, atol=3e-4 * np.abs(expected).max())
    model = load_denoiser(given)
    assert model.labels == [0, 1, 2]
    with pytest.raises(InputError, match="give labels"):
        model.denoiser(torch.zeros(1, 1, 8, 8), 1.0)
    assert "with the labels 0, 1, 2" in refused(capsys, "generate", given, "--label", 3, "--out", tmp_path / "no.npz")
    np.savez(tmp_path / "images.npz", train=POINTS[:16], heldout=POINTS[16:])
    assert "class-conditional, and only networks without classes are fine-tuned" in refused(
        capsys, "train", tmp_path / "images.npz", "--init", given, "--out", tmp_path / "no")
    for kind in ("timestep", "identity"):
        other = folder(tmp_path / kind, diffusers.DDPMScheduler(), class_embed_type=kind)
        assert f"class_embed_type '{kind}'; only classes by num_class_embeds" in refused(
            capsys, "generate", other, "--out", tmp_path / "no.npz")
        assert kind in refused(capsys, "train", tmp_path / "images.npz", "--init", other, "--out", tmp_path / "no")
    assert not list(tmp_path.glob("no*"))


def test_the_mean_of_a_learned_variance_is_used(tmp_path):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    model = load_denoiser(folder(tmp_path / "in", scheduler, out_channels=2))
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "in" / "unet").eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = scheduler.step(unet(x, 300).sample, 300, x).pred_original_sample
        result = model.denoiser(x / scheduler.alphas_cumprod[300].sqrt(), float(model.schedule.sigmas[300]))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-5)
    with pytest.raises(InputError, match="in_channels and out_channels differ"):
        load_denoiser(folder(tmp_path / "other", diffusers.DDPMScheduler(), out_channels=2))


def test_weights_of_a_variant_alone_are_read_and_averaged_ones_beside_them_are_said(tmp_path, caplog):
    """fp16 weights without others, and the unet_ema that training scripts leave beside the network."""
    caplog.set_level("INFO", "geomem")
    given = folder(tmp_path / "in", diffusers.DDPMScheduler(clip_sample=False))
    expected = load_denoiser(given).generate(range(2), steps=4).values
    assert not caplog.text
    weights = given / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (given / "unet_ema").mkdir()
    np.testing.assert_array_equal(load_denoiser(given).generate(range(2), steps=4).values, expected)
    assert "diffusion_pytorch_model.fp16.safetensors, the only ones there" in caplog.text
    assert "averaged weights in unet_ema, too" in caplog.text
    (given / "unet" / "diffusion_pytorch_model.bf16.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is missing; save the network"):
        load_denoiser(given)


@pytest.mark.parametrize("scheduler", [
    diffusers.PNDMScheduler(skip_prk_steps=True), diffusers.DDIMScheduler(prediction_type="sample"),
    diffusers.DDIMScheduler(timestep_spacing="linspace"),
    diffusers.DDIMScheduler(steps_offset=1, set_alpha_to_one=False),
    diffusers.DDIMScheduler(prediction_type="v_prediction", **SCALED)],
    ids=["pndm", "predicts the sample", "linspace", "offset", "v and scaled-linear"])
def test_clean_estimates_are_those_of_the_formula_whatever_the_sampler_of_the_folder(scheduler, tmp_path):
    given = folder(tmp_path, scheduler)
    unet = diffusers.UNet2DModel.from_pretrained(given / "unet").eval()
    noisy, a = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), scheduler.alphas_cumprod[500]
    with torch.no_grad():
        output = unet(noisy, 500).sample
        found = load_denoiser(given).denoiser(noisy / a.sqrt(), ((1 - a) / a).sqrt())
    expected = {"epsilon": (noisy - (1 - a).sqrt() * output) / a.sqrt(), "sample": output,
                "v_prediction": a.sqrt() * noisy - (1 - a).sqrt() * output}[scheduler.config.prediction_type]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
