"""Models in and out: export for diffusers and for geomem, --init, and folders that lie."""

import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import refused, status
from safetensors.torch import load_file, save_file

from geomem.errors import InputError
from geomem.generation import ddim_sample, generate, timestep_levels
from geomem.models import NETWORKS
from geomem.training import Run, load_denoiser

diffusers = pytest.importorskip("diffusers")
UNET = "export-unet"
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def tiny_preset():
    NETWORKS[UNET] = replace(NETWORKS["unet-small"], options={"channels": (8, 16), "layers": 1, "attention": (1,),
                                                             "groups": 4})
    yield
    del NETWORKS[UNET]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, train=IMAGES[:20], heldout=IMAGES[20:])
    return path


@pytest.fixture(scope="module")
def ddpm_run(data, tmp_path_factory):
    return trained(data, tmp_path_factory.mktemp("runs") / "ddpm", "--objective", "ddpm", "--network", UNET)


@pytest.fixture(scope="module")
def edm_run(data, tmp_path_factory):
    return trained(data, tmp_path_factory.mktemp("runs") / "edm", "--network", UNET, "--iterations", 60)


@pytest.fixture(scope="module")
def folder(ddpm_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "folder"
    assert status("export", ddpm_run, "--out", path, "--weights", "last") == 0
    return path


def trained(data, out, *arguments):
    """A short run whose learning rate is large, so that every weight counts."""
    defaults = {"--iterations": 25, "--batch": 8, "--learning-rate": 0.02, "--watch-every": 0}
    given = [str(value) for value in arguments]
    options = [str(part) for name, value in defaults.items() if name not in given for part in (name, value)]
    assert status("train", data, "--out", out, *options, *given) == 0
    return out


def test_pipeline_of_an_exported_run_gives_our_samples(ddpm_run, folder, monkeypatch):
    """diffusers' DDPMPipeline and our ancestral sampler on the same noise, 10 steps through timesteps up to 900."""
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline.unet).__name__ == "UNet2DModel"
    step, states = pipeline.scheduler.step, []

    def recorded(*arguments, **options):  # the images that the pipeline returns are clipped
        states.append(step(*arguments, **options).prev_sample)
        return step_output(prev_sample=states[-1])

    step_output = diffusers.schedulers.scheduling_ddpm.DDPMSchedulerOutput
    monkeypatch.setattr(pipeline.scheduler, "step", recorded)
    shape, n = (3, 1, 8, 8), 10
    images = pipeline(batch_size=3, num_inference_steps=n, generator=torch.Generator().manual_seed(3),
                      output_type="np").images
    draws = torch.Generator().manual_seed(3)
    latent, *noise = (torch.randn(shape, generator=draws) for _ in range(n + 1))
    ours = ddim_sample(Run(ddpm_run).denoiser("last"), latent, timestep_levels(n), eta=1.0, noise=noise.__getitem__)
    assert images.shape == (3, 8, 8, 1)
    assert len(states) == n
    # Float32 on both sides, amplified by the steps; diffusers' own abar of timestep 0 is off by 3e-4 in 1 - abar.
    torch.testing.assert_close(ours, states[-1], rtol=0, atol=1e-4 * float(ours.abs().max()))


def test_exported_folder_is_the_same_denoiser(ddpm_run, folder):
    ours, theirs = Run(ddpm_run).denoiser("last"), load_denoiser(folder)
    assert theirs.shape == (1, 8, 8)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (0, 100, 500, 900):
        sigma = float(theirs.schedule.sigmas[t])
        with torch.no_grad():
            torch.testing.assert_close(theirs.denoiser(x * sigma, sigma), ours(x * sigma, sigma), rtol=1e-4,
                                       atol=1e-4 * (1 + sigma))


@pytest.mark.parametrize("bf16", [False, True])
def test_geomem_folder_stands_on_its_own(edm_run, data, tmp_path, bf16):
    """The moved folder alone gives the samples of the run; only the distinct snapshots are in it."""
    assert status("export", edm_run, "--out", tmp_path / "a", *["--bf16"] * bf16) == 0
    shutil.move(tmp_path / "a", tmp_path / "b")
    levels = json.loads((tmp_path / "b" / "levels.json").read_text())
    kept = {int(path.stem.split("-")[1]) for path in (tmp_path / "b" / "weights").iterdir()}
    assert kept == {*levels["steps"], levels["early_stop"]}
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"config.json", "levels.json", "weights", "README.md"}
    assert str(data) in (edm_run / "config.json").read_text()
    assert str(data) not in (tmp_path / "b" / "config.json").read_text()
    ours, exported = load_denoiser(edm_run), load_denoiser(tmp_path / "b")
    assert exported.weights == ours.weights == "per-level"
    x, sigma = torch.randn(5, 1, 8, 8), torch.tensor([0.01, 0.3, 1.0, 5.0, 60.0])
    with torch.no_grad():
        a, b = ours.denoiser(x, sigma), exported.denoiser(x, sigma)
    if bf16:
        name, tensor = next(iter(load_file(tmp_path / "b" / "weights" / f"step-{min(kept):07d}.safetensors").items()))
        assert tensor.dtype == torch.bfloat16, name
        assert 0 < float((a - b).norm() / a.norm()) < 0.05
    else:
        assert torch.equal(a, b)


def test_a_folder_for_diffusers_in_bf16_takes_half_the_space(ddpm_run, folder, tmp_path):
    """As diffusers writes it: the rows of the timestep table too."""
    assert status("export", ddpm_run, "--out", tmp_path / "half", "--weights", "last", "--bf16") == 0
    halves, whole = (load_file(path / "unet" / "diffusion_pytorch_model.safetensors")
                     for path in (tmp_path / "half", folder))
    assert halves.keys() == whole.keys()
    assert all(torch.equal(halves[name], tensor.bfloat16()) for name, tensor in whole.items())


def test_readme_of_an_export_runs(edm_run, tmp_path, monkeypatch):
    """The lines of the README, with the path put in, make samples.npz."""
    assert status("export", edm_run, "--out", tmp_path / "model", "--weights", "early-stop") == 0
    text = (tmp_path / "model" / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python")[1].split("```")[0].replace("PATH_OF_THIS_FOLDER", str(tmp_path / "model")), {})
    np.testing.assert_array_equal(np.load("samples.npz")["samples"],
                                  generate(Run(edm_run).denoiser("early-stop"), range(16), (1, 8, 8)))


def test_export_that_cannot_be(edm_run, ddpm_run, tmp_path, capsys):
    assert "not trained with the DDPM or the flow objective; use --form geomem" in refused(
        capsys, "export", edm_run, "--out", tmp_path / "a", "--form", "diffusers")
    assert "one set of weights" in refused(
        capsys, "export", ddpm_run, "--out", tmp_path / "a", "--form", "diffusers", "--weights", "per-level")
    assert "has no weights '7'" in refused(capsys, "export", ddpm_run, "--out", tmp_path / "a", "--weights", "7")
    assert "exists" in refused(capsys, "export", edm_run, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_commands_take_a_diffusers_folder(folder, data, tmp_path, sampler, capsys):
    out = tmp_path / "s.npz"
    assert status("generate", folder, "--seeds", "0-3", "--sampler", sampler, "--steps", 5, "--out", out) == 0
    assert status("generate", folder, "--seeds", "2", "--sampler", sampler, "--steps", 5, "--out", tmp_path / "t.npz",
                  "--batch", 1) == 0
    with np.load(out) as several, np.load(tmp_path / "t.npz") as one:
        np.testing.assert_allclose(several["samples"][2], one["samples"][0], rtol=0, atol=1e-3)
    capsys.readouterr()
    assert status("memorization", folder, "--data", data, "--n-samples", 4, "--sigmas", "0.1,1", "--n-points", 4,
                  "--json") == 0
    assert json.loads(capsys.readouterr().out)["trajectory"]["n"] == 4
    assert "name them with --data" in refused(capsys, "memorization", folder)
    assert "leave out --weights" in refused(capsys, "generate", folder, "--weights", "per-level", "--out", out)


@pytest.mark.slow
def test_init_starts_from_the_given_weights(ddpm_run, edm_run, folder, data, tmp_path):
    """With a learning rate of 1e-12 the new run ends with the weights it began with."""
    still = ("--learning-rate", "1e-12", "--iterations", 3)
    for source, name in ((edm_run, "run"), (ddpm_run, "ddpm")):
        new = trained(data, tmp_path / name, "--init", source, *still)
        before, after = (load_file(path / "model.safetensors") for path in (source, new))
        assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
        assert Run(new).config["objective"] == Run(source).config["objective"]
        assert Run(new).config["network"] == UNET
    new = trained(data, tmp_path / "file", "--init", edm_run / "model.safetensors", "--network", UNET, *still)
    assert torch.allclose(load_file(new / "model.safetensors")["net.unet.conv_in.weight"],
                          load_file(edm_run / "model.safetensors")["net.unet.conv_in.weight"], atol=1e-6)
    new = trained(data, tmp_path / "folder", "--init", folder, *still)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        for sigma in (0.1, 3.0):
            torch.testing.assert_close(load_denoiser(new, "last").denoiser(x, sigma),
                                       load_denoiser(folder).denoiser(x, sigma), rtol=1e-4, atol=1e-4)
    assert status("train", data, "--out", new, "--init", folder, "--batch", 8, *still, "--resume") == 0
    assert status("export", new, "--out", tmp_path / "again", "--weights", "last") == 0  # and out again
    before, after = (load_file(path / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
                     for path in (folder, tmp_path / "again"))
    assert torch.allclose(before, after, atol=1e-6)


def test_fine_tuning_a_folder_learns(folder, data, tmp_path):
    new = trained(data, tmp_path / "run", "--init", folder, "--iterations", 60, "--learning-rate", 1e-3)
    stats = Run(new).stats
    assert stats[-1]["loss"] < stats[0]["loss"]


def test_init_that_does_not_fit(edm_run, folder, data, tmp_path, capsys):
    def line(*arguments):
        return refused(capsys, "train", data, "--out", tmp_path / "run", "--iterations", 1, *arguments)

    assert "leave out --network mlp" in line("--init", edm_run, "--network", "mlp")
    assert "leave out --objective ddpm" in line("--init", edm_run, "--objective", "ddpm")
    assert "no such run" in line("--init", tmp_path / "nothing")
    assert "leave out --conditional and --dummy-class" in line("--init", folder, "--dummy-class")
    assert f"{edm_run} has 0 classes, this training 2" in line("--init", edm_run, "--dummy-class")
    assert status("export", edm_run, "--out", tmp_path / "per-level") == 0
    capsys.readouterr()
    assert "give the run itself, or what geomem export --weights last" in line("--init", tmp_path / "per-level")
    weights = load_file(edm_run / "model.safetensors")
    file = tmp_path / "w.safetensors"
    cases = [(dict(list(weights.items())[1:]), f"holds no tensor {next(iter(weights))!r}"),
             (weights | {"net.unet.conv_in.weight": torch.zeros(8, 3, 3, 3)},
              "tensor 'net.unet.conv_in.weight' has shape (8, 3, 3, 3), the network needs (8, 1, 3, 3)"),
             (weights | {"more": torch.zeros(1)}, "holds a tensor 'more' that the network does not have"),
             (weights | {"net.unet.conv_in.weight": torch.full((8, 1, 3, 3), torch.nan)}, "not hold finite floats"),
             (weights | {"net.unet.conv_in.weight": torch.ones(8, 1, 3, 3, dtype=torch.int32)}, "not hold finite")]
    for tensors, message in cases:
        save_file(tensors, file)
        assert message in line("--init", file, "--network", UNET)
        assert not (tmp_path / "run").exists()
    data = write(tmp_path, (9, 9))
    assert "multiples of 2, not points of shape (1, 9, 9)" in line("--init", folder)
    assert "was trained on points of shape (1, 8, 8)" in line("--init", edm_run)


def write(tmp_path, size):
    images = np.random.default_rng(1).integers(0, 256, (30, *size, 1), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", train=images[:20], heldout=images[20:])
    return tmp_path / "other.npz"


def lying_header(path, shape):
    """A safetensors file that claims a tensor far larger than the file."""
    size = 4 * int(np.prod(shape, dtype=object))
    header = json.dumps({"conv_in.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)


def test_weights_that_lie_are_one_line(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    lying_header(weights, [10**6, 10**6])
    assert "not a whole safetensors file" in refused(capsys, "generate", copy, "--out", tmp_path / "s.npz")
    weights.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "not a whole safetensors file" in refused(capsys, "generate", copy, "--out", tmp_path / "s.npz")
    weights.unlink()
    assert "save the network in one safetensors file" in refused(capsys, "generate", copy, "--out", tmp_path / "s.npz")
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "is pickled, which can execute code" in refused(capsys, "generate", copy, "--out", tmp_path / "s.npz")
    (tmp_path / "w.ckpt").write_bytes(b"\x80\x04")
    assert "is pickled" in refused(capsys, "train", write(tmp_path, (8, 8)), "--out", tmp_path / "r", "--init",
                                   tmp_path / "w.ckpt")


@pytest.mark.parametrize(("part", "changes", "message"), [
    ("unet", {"block_out_channels": [8, 10**12]}, "cannot build"),
    ("unet", {"block_out_channels": [32768, 32768]}, "at most 2e+09"),
    ("unet", {"block_out_channels": [8] * 500}, "at most 16 levels"),
    ("unet", {"layers_per_block": 10**9}, "at most 16 levels of 32 layers"),
    ("unet", {"num_train_timesteps": 10**11}, "at most 2e+09"),
    ("unet", {"sample_size": 10**6}, "not a number of pixels from 1 to 4096"),
    ("unet", {"sample_size": 9}, "multiples of 2"),
    ("unet", {"in_channels": 3}, "in_channels and out_channels differ"),
    ("unet", {"down_block_types": ["../../x", "DownBlock2D"]}, "cannot build"),
    ("unet", {"norm_num_groups": 3}, "cannot build"),
    ("unet", {"_class_name": "UNet2DConditionModel"}, "only UNet2DModel is supported"),
    ("unet", {"auto_map": "x.py"}, "has no option 'auto_map'"),
    ("scheduler", {"num_train_timesteps": 10**12}, "2 to 100000 timesteps"),
    ("scheduler", {"beta_start": float("nan")}, "finite betas"),
    ("scheduler", {"beta_end": 3.0}, "decrease inside"),
    ("scheduler", {"trained_betas": [0.1, 0.2]}, "one for each"),
    ("scheduler", {"beta_schedule": "cubic"}, "cannot build this scheduler"),
    ("scheduler", {"_class_name": "ScoreSdeVeScheduler"}, "is not supported; save the model with a DDPMScheduler"),
    ("scheduler", {"prediction_type": ["epsilon"]}, "is not supported"),
    ("scheduler", [1], "not a JSON object"),
])
def test_descriptions_that_lie_are_one_line(folder, tmp_path, part, changes, message):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / part / {"unet": "config.json", "scheduler": "scheduler_config.json"}[part]
    path.write_text(json.dumps(json.loads(path.read_text()) | changes if isinstance(changes, dict) else changes))
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        load_denoiser(copy)
    assert message in str(caught.value)


def test_huge_and_deep_descriptions_are_one_line(folder, tmp_path):
    for text, message in [(" " * 2 * 10**6, "larger than"), ("[" * 10**5, "not JSON"), ("{", "not JSON")]:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / "unet" / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load_denoiser(copy)
        shutil.rmtree(copy)


def test_older_folders_with_everything_at_the_top(folder, tmp_path):
    """As google/ddpm-cifar10-32 is: no subfolders, and attention weights under their names before diffusers 0.15."""
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(folder / "model_index.json", old)
    shutil.copy(folder / "unet" / "config.json", old)
    shutil.copy(folder / "scheduler" / "scheduler_config.json", old)
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    for new_name, old_name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        weights = {key.replace(f".{new_name}.", f".{old_name}."): value for key, value in weights.items()}
    assert any(".query." in key for key in weights)
    save_file(weights, old / "diffusion_pytorch_model.safetensors")
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_denoiser(old).denoiser(x, 1.0), load_denoiser(folder).denoiser(x, 1.0))
    (old / "scheduler_config.json").unlink()
    with pytest.raises(InputError, match="save the whole pipeline"):
        load_denoiser(old)
