"""geomem train --objective flow: runs, their commands, folders of diffusers in and out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import status

from geomem.errors import InputError
from geomem.generation import flow_sample, sampler_levels
from geomem.models import NETWORKS
from geomem.noise import FLOW_SAMPLERS, FlowSchedule, LogitNormalSampler, NoiseLevelSampler
from geomem.training import Run, load_denoiser

diffusers = pytest.importorskip("diffusers")
OPTIONS = ("--batch", "8", "--learning-rate", "0.01", "--watch-every", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), dtype=np.uint8)
    np.savez(path, train=images[:40], heldout=images[40:])
    return path


@pytest.fixture(scope="module", autouse=True)
def tiny_preset():
    NETWORKS["flow-unet"] = replace(NETWORKS["unet-small"], options={
        "channels": (8, 16), "layers": 1, "attention": (1,), "groups": 4})
    yield
    del NETWORKS["flow-unet"]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "flow"
    assert status("train", data, "--out", out, "--objective", "flow", "--flow-shift", "2", "--network", "flow-unet",
                  "--iterations", "40", *OPTIONS) == 0
    return out


def test_run_learns_and_is_read_again(run, data, capsys):
    config = json.loads((run / "config.json").read_text())
    assert (config["objective"], config["flow_shift"]) == ("flow", 2.0)
    assert NoiseLevelSampler.from_dict(config["sampler"]).to_dict() == LogitNormalSampler(shift=2).to_dict()
    assert Run(run).stats[-1]["loss"] < Run(run).stats[0]["loss"]
    model = load_denoiser(run)
    assert model.schedule == FlowSchedule(shift=2.0)
    assert status("train", data, "--out", run, "--objective", "flow", "--flow-shift", "2", "--network", "flow-unet",
                  "--iterations", "42", *OPTIONS, "--resume") == 0
    capsys.readouterr()
    assert status("train", data, "--out", run, "--objective", "flow", "--network", "flow-unet", "--iterations", "42",
                  *OPTIONS, "--resume") == 2
    assert "shift = 2.0, not 1.0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["generate", "RUN", "--seeds", "0-3", "--method", "flow-euler", "--steps", "5", "--out", "a.npz"],
    ["generate", "RUN", "--seeds", "0-3", "--method", "flow-heun", "--steps", "5", "--out", "b.npz"],
    ["generate", "RUN", "--seeds", "0-3", "--method", "ddim", "--steps", "5", "--out", "c.npz"],
    ["memorization", "RUN", "--n-samples", "8", "--sigmas", "2", "--n-points", "8", "--out", "m"],
    ["audit", "RUN", "--n-samples", "8", "--fail-over", "1"],
    ["swap", "RUN", "gaussian", "--n-samples", "8", "--controls", "0", "--sampler", "flow-euler", "--steps", "6"],
    ["report", "RUN", "--seeds", "0-7", "--out", "page.html"], ["export", "RUN", "--form", "geomem", "--out", "e"]],
    ids=lambda words: " ".join(words[:5]))
def test_what_speaks_sigma_works_on_it(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status(*[str(run) if word == "RUN" else word for word in words]) == 0


@pytest.mark.slow
def test_exported_folder_is_a_pipeline_of_diffusers_and_can_be_trained_on(run, data, tmp_path, capsys):
    folder = tmp_path / "folder"
    assert status("export", run, "--out", folder, "--weights", "last") == 0
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert "flow-matching" in (folder / "README.md").read_text()
    ours, theirs = load_denoiser(run, "last"), load_denoiser(folder)
    x, sigma = torch.randn(4, 1, 8, 8), torch.tensor([0.05, 0.5, 2.0, 20.0])
    with torch.no_grad():
        torch.testing.assert_close(theirs.denoiser(x, sigma), ours.denoiser(x, sigma), rtol=1e-4, atol=1e-5)
    images = pipeline(batch_size=3, num_inference_steps=10, generator=torch.Generator().manual_seed(3),
                      output_type="np").images
    latent = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    samples = flow_sample(theirs.denoiser, latent, sampler_levels("flow-euler", 10, theirs.schedule))
    np.testing.assert_allclose(images[..., 0], (samples[:, 0] / 2 + 0.5).clamp(0, 1), atol=1e-4)
    still = ("--learning-rate", "1e-12", "--batch", "8", "--iterations", "3")
    assert status("train", data, "--out", tmp_path / "tuned", "--init", folder, *still) == 0
    config = Run(tmp_path / "tuned").config
    assert (config["objective"], config["flow_shift"], config["network"]) == ("flow", 2.0, "diffusers")
    with torch.no_grad():
        torch.testing.assert_close(load_denoiser(tmp_path / "tuned", "last").denoiser(x, sigma),
                                   ours.denoiser(x, sigma), rtol=1e-4, atol=1e-5)
    assert status("export", tmp_path / "tuned", "--out", tmp_path / "again", "--weights", "last") == 0
    scheduler = diffusers.DDPMPipeline.from_pretrained(tmp_path / "again").scheduler
    assert (scheduler.config.shift, scheduler.config.num_train_timesteps) == (2.0, 100)
    assert status("train", data, "--out", tmp_path / "next", "--init", run, *still) == 0
    assert Run(tmp_path / "next").config["flow_shift"] == 2.0
    capsys.readouterr()
    for options, word in ((("--init", folder, "--objective", "ddpm"), "has the objective flow"),
                          (("--init", folder, "--flow-shift", "3"), "flow shift 2.0; leave out --flow-shift"),
                          (("--flow-shift", "3"), "no effect with --objective edm"),
                          (("--objective", "flow", "--flow-shift", "0"), "--flow-shift")):
        assert status("train", data, "--out", tmp_path / "x", *options, *still) == 2
        assert word in capsys.readouterr().err
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": "wide"}))
    with pytest.raises(InputError, match="shift"):
        load_denoiser(folder)


@pytest.mark.parametrize("options", [["--sampler", name] for name in (*FLOW_SAMPLERS, "uniform", "lognormal")]
                         + [["--ci", "200:600"]], ids=" ".join)
def test_every_law_is_reached(options, data, tmp_path, capsys):
    capsys.readouterr()
    assert status("train", data, "--out", tmp_path / "run", "--objective", "flow", *options, "--gap", "100t:300t",
                  "--dry-run") == 0
    law = NoiseLevelSampler.from_dict(json.loads(capsys.readouterr().out)["config"]["sampler"])
    assert law.gaps == (FlowSchedule().sigma_range(100, 300),)
    if options[1] in FLOW_SAMPLERS:
        assert type(law.base) is FLOW_SAMPLERS[options[1]]


def test_a_law_with_pure_noise_trains(data, tmp_path):
    assert status("train", data, "--out", tmp_path / "run", "--objective", "flow", "--sampler", "uniform", "--network",
                  "mlp", "--iterations", "5", *OPTIONS) == 0
    assert all(np.isfinite(line["loss"]) for line in Run(tmp_path / "run").stats)
