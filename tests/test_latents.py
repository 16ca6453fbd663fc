"""Latents of an autoencoder: as diffusers' training scripts make them, and the same zone as of latents in a file."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import refused, status
from PIL import Image

from geomem import load_data
from geomem.data.autoencoder import Autoencoder
from geomem.errors import InputError

RNG = np.random.default_rng(2)


def save_vae(folder, seed=0, quiet=None, **config):
    """A tiny random AutoencoderKL; ``quiet`` is added to the log variance of its posterior."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    vae = AutoencoderKL(block_out_channels=(4, 8), down_block_types=["DownEncoderBlock2D"] * 2,
                        up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=2, latent_channels=2, **config).eval()
    if quiet is not None:
        with torch.no_grad():
            vae.quant_conv.bias[2:] += quiet
    vae.save_pretrained(folder)
    return vae


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """photos/ (40 of 16 x 16), others/ (18) and vae/, scaled and shifted, with a narrow posterior."""
    folder = tmp_path_factory.mktemp("latents")
    for where, count in (("photos", 40), ("others", 18)):
        (folder / where).mkdir()
        for k in range(count):
            Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{where}/{k:02d}.png")
    save_vae(folder / "vae", quiet=-12.0, scaling_factor=1.5, shift_factor=0.1)
    return folder


def by_hand(folder, images, generator=None):
    """As train_dreambooth_lora_sd3: ``(vae.encode(pixels).latent_dist.sample() - shift) * scale``, or the mode."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder)
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(np.array(images))).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return ((latents - vae.config.shift_factor) * vae.config.scaling_factor).numpy(), posterior.std


def answer(capsys, *arguments):
    """The JSON of a command."""
    capsys.readouterr()
    assert status(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_latents_are_those_of_training_scripts(place):
    pixels, latents = load_data(place / "photos"), load_data(place / "photos", vae=place / "vae")
    for part in ("train", "heldout"):
        expected, std = by_hand(place / "vae", getattr(pixels, part))
        np.testing.assert_allclose(getattr(latents, part), expected, rtol=1e-4, atol=1e-5)
        if part == "train":
            assert latents.latents.posterior_std == pytest.approx(1.5 * std.double().square().mean().sqrt().item())
    assert latents.train.shape == (32, 2, 8, 8)
    assert not latents.pixels
    assert (latents.latents.scaling_factor, latents.latents.shift_factor, latents.latents.of) == (1.5, 0.1, "mean")
    assert any("the mean of the posterior of" in note for note in latents.notes)


def test_batches_change_nothing(place, monkeypatch):
    whole = [load_data(place / "photos", vae=place / "vae", vae_sample=sample).train for sample in (False, True)]
    monkeypatch.setattr("geomem.data.autoencoder.BATCH_PIXELS", 16 * 16 * 7)
    for sample, expected in zip((False, True), whole, strict=True):
        parts = load_data(place / "photos", vae=place / "vae", vae_sample=sample).train
        np.testing.assert_allclose(parts, expected, rtol=1e-4, atol=1e-5)


def test_latents_are_encoded_once(tmp_path, place, monkeypatch):
    """And again where a picture or the autoencoder has changed, or the file is damaged."""
    monkeypatch.setenv("GEOMEM_CACHE", str(tmp_path / "cache"))
    calls = []
    encoded = Autoencoder.encoded
    monkeypatch.setattr(Autoencoder, "encoded", lambda *given: calls.append(1) or encoded(*given))

    def read(folder="vae", **options):
        calls.clear()
        return load_data(place / "photos", heldout=place / "others", vae=place / folder, **options), len(calls)

    (first, made), (second, again) = read(), read()
    assert (made, again) == (2, 0)
    assert first.train.tobytes() == second.train.tobytes()
    assert first.heldout.tobytes() == second.heldout.tobytes()
    assert first.latents == second.latents
    assert read(vae_sample=True)[1] == read(n_train=30)[1] == 2
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"rubbish")
    assert read()[1] == 2
    monkeypatch.setenv("GEOMEM_CACHE", str(place / "photos" / "00.png"))  # no folder
    assert [read()[1], read()[1]] == [2, 2]


def test_a_draw_is_seeded_and_has_the_spread_that_is_told(tmp_path, place):
    save_vae(tmp_path / "vae", quiet=-2.0, scaling_factor=1.5, shift_factor=0.1)
    mean, first, again, other = (load_data(place / "photos", vae=tmp_path / "vae", heldout=place / "photos", seed=seed,
                                           vae_sample=sample)
                                 for seed, sample in ((0, False), (0, True), (0, True), (1, True)))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)
    assert not np.array_equal(first.train, first.heldout)  # of the same pictures
    spread = first.latents.posterior_std
    assert first.latents.of == "sample"
    n = mean.train.size  # the mean of n squares is within four of its standard deviations, sqrt(2 / n)
    assert np.square(first.train - mean.train).mean() == pytest.approx(spread**2, rel=6 * (2 / n) ** 0.5)
    assert mean.n_leaked == first.n_leaked == 40


def test_moments_of_latents_count(tmp_path, place):
    save_vae(tmp_path / "vae", scaling_factor=0.5, latents_mean=[0.2, -1.0], latents_std=[2.0, 4.0])
    plain = save_vae(tmp_path / "plain", scaling_factor=1.0)
    pixels = load_data(place / "photos").train
    with torch.no_grad():
        encoded = plain.encode(torch.from_numpy(np.array(pixels))).latent_dist.mode().numpy()
    expected = (encoded - np.reshape([0.2, -1.0], (2, 1, 1))) * 0.5 / np.reshape([2.0, 4.0], (2, 1, 1))
    np.testing.assert_allclose(load_data(place / "photos", vae=tmp_path / "vae").train, expected, rtol=1e-4, atol=1e-5)


def test_grey_pictures_are_made_rgb(tmp_path, place):
    images = RNG.integers(0, 256, (10, 16, 16), dtype=np.uint8)
    grey, rgb = (load_data(values, vae=place / "vae").train for values in (images, np.stack([images] * 3, -1)))
    np.testing.assert_allclose(grey, rgb, rtol=1e-4, atol=1e-5)


def test_the_zone_is_that_of_the_same_latents_in_a_file(tmp_path, place, capsys):
    latents = load_data(place / "photos", vae=place / "vae")
    np.savez(tmp_path / "latents.npz", train=latents.train, heldout=latents.heldout)
    arguments = "--sigmas", 12, "--threshold", 0.3
    encoded = answer(capsys, "danger-zone", place / "photos", "--vae", place / "vae", *arguments)
    stored = answer(capsys, "danger-zone", tmp_path / "latents.npz", *arguments)
    assert encoded["zone"] is not None
    for name in ("curves", "zone", "thresholds", "settings", "notes"):
        assert encoded[name] == stored[name]
    assert encoded["latents"]["of"] == "mean"
    assert "latents" not in stored


@pytest.fixture(scope="module")
def run(place):
    """A training of two steps in latents."""
    assert status("train", place / "photos", "--heldout", place / "others", "--vae", place / "vae", "--iterations", 2,
                  "--batch", 8, "--watch-every", 0, "--quiet", "--out", place / "run") == 0
    return place / "run"


def test_a_run_in_latents_remembers_its_autoencoder(place, run):
    given = {"heldout": place / "others", "vae": place / "vae"}
    data, config = load_data(place / "photos", **given), json.loads((run / "config.json").read_text())
    assert config["shape"] == [2, 8, 8]
    assert config["data"]["vae"] == str(place / "vae")
    assert config["data"]["vae_sha256"] == data.latents.sha256
    assert config["data"]["sha256"] == data.sha256 != load_data(place / "photos").sha256
    draws = [load_data(place / "photos", **given, vae_sample=True, seed=seed).sha256 for seed in (0, 1)]
    assert len({data.sha256, *draws}) == 3


def test_samples_are_latents_and_their_pictures_are_decoded(tmp_path, place, run):
    from diffusers import AutoencoderKL

    assert status("generate", run, "--seeds", "3-5", "--steps", 3, "--pictures", tmp_path / "p", "--out",
                  tmp_path / "s.npz", "--quiet") == 0
    samples = np.load(tmp_path / "s.npz")["samples"]
    assert samples.shape == (3, 2, 8, 8)
    vae = AutoencoderKL.from_pretrained(place / "vae")
    with torch.no_grad():
        pictures = vae.decode(torch.from_numpy(samples) / 1.5 + 0.1).sample.clamp(-1, 1).numpy()
    for k, picture in enumerate(pictures, start=3):
        written = np.asarray(Image.open(tmp_path / f"p/{k:06d}.png"), dtype=float).transpose(2, 0, 1)
        np.testing.assert_allclose(written, (picture + 1) * 127.5, atol=0.51)


def test_reports_in_latents_draw_pictures(tmp_path, place, run, monkeypatch, capsys):
    decoded = []
    monkeypatch.setattr("geomem.data.autoencoder.Autoencoder.decoded",
                        lambda self, latents: decoded.append(len(latents)) or np.zeros((len(latents), 3, 16, 16)))
    few = "--n-samples", 12, "--steps", 2, "--quiet"
    for command in (["audit", run, *few], ["memorization", run, *few, "--sigmas", 2, "--n-points", 8],
                    ["risk", place / "photos", "--vae", place / "vae"]):
        decoded.clear()
        assert status(*command, "--out", tmp_path / command[0]) in (0, 3)
        assert sum(decoded) >= 12
    assert json.loads((tmp_path / "audit/audit.json").read_text())["leaning"]["n"] == 12


def test_a_changed_or_missing_autoencoder_is_one_line(tmp_path, place, run, capsys):
    config = json.loads((run / "config.json").read_text())
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    changed(place, tmp_path / "vae", scaling_factor=1.4)
    for vae, message in ((tmp_path / "vae", "is no longer the autoencoder that"), (tmp_path / "gone", "config.json")):
        config["data"]["vae"] = str(vae)
        (copy / "config.json").write_text(json.dumps(config))
        for command in (["generate", copy, "--pictures", tmp_path / "p", "--out", tmp_path / "s.npz"], ["audit", copy]):
            assert message in refused(capsys, *command)
    assert "--flip mirrors images" in refused(capsys, "train", place / "photos", "--vae", place / "vae", "--flip",
                                              "--quiet", "--out", tmp_path / "flip")


def test_a_wide_posterior_is_a_warning_beside_the_zone(tmp_path, place, capsys):
    save_vae(tmp_path / "wide", quiet=2.0, scaling_factor=1.5, shift_factor=0.1)
    told = [answer(capsys, "danger-zone", place / "photos", "--vae", folder, "--sigmas", 12, "--threshold", 0.3)
            for folder in (place / "vae", tmp_path / "wide")]
    for document, wide in zip(told, (False, True), strict=True):
        assert (document["latents"]["posterior_std"] > document["zone"]["sigma_low"] / 2) == wide
        assert any("more than half of the zone's lower edge" in note for note in document["notes"]) == wide
    assert np.diff([document["zone"]["sigma_low"] for document in told]) == pytest.approx(0, abs=0.05)


def test_a_folder_that_names_no_scaling_factor_is_taken_as_diffusers_takes_it(tmp_path, place):
    changed(place, tmp_path / "vae", scaling_factor=...)
    latents = load_data(place / "photos", vae=tmp_path / "vae")
    assert latents.latents.scaling_factor == 0.18215
    assert any("names no scaling_factor; 0.18215" in note for note in latents.notes)


def changed(place, folder, **config):
    """A copy of the folder with another config; ``...`` leaves an entry out."""
    folder.mkdir()
    for path in (place / "vae").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    new = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in new.items() if v is not ...}))


@pytest.mark.parametrize(("config", "message"), [
    ({"scaling_factor": None}, "nothing says how the latents are scaled"),
    ({"scaling_factor": 0}, "not a positive number"),
    ({"shift_factor": "much"}, "shift_factor is much"),
    ({"_class_name": "AutoencoderTiny"}, "not an AutoencoderKL"),
    ({"layers_per_block": 10**9}, "at most 16 levels"),
    ({"block_out_channels": [4096] * 16, "down_block_types": ["DownEncoderBlock2D"] * 16,
      "up_block_types": ["UpDecoderBlock2D"] * 16}, "holds no AutoencoderKL .* parameters"),
    ({"latent_channels": 3}, "holds no AutoencoderKL"),
    ({"down_block_types": ["os.system"] * 2}, "holds no AutoencoderKL"),
    ({"latents_mean": [1.0], "latents_std": [1.0, 1.0]}, "are not 2 numbers each"),
])
def test_a_wrong_folder_is_refused_in_one_line(tmp_path, place, config, message):
    changed(place, tmp_path / "vae", **config)
    with pytest.raises(InputError, match=message) as error:
        load_data(place / "photos", vae=tmp_path / "vae")
    assert "\n" not in str(error.value)


def test_pickled_weights_and_points_that_are_no_pictures_are_refused(tmp_path, place, capsys):
    changed(place, tmp_path / "vae")
    weights = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"saved with diffusers' save_pretrained as safetensors"):
        load_data(place / "photos", vae=tmp_path / "vae")
    with pytest.raises(InputError, match="holds no pictures"):
        load_data(RNG.standard_normal((10, 3, 16, 16)), vae=place / "vae")
    with pytest.raises(InputError, match="multiples of 2, not points of shape"):
        load_data(RNG.integers(0, 256, (10, 15, 15), dtype=np.uint8), vae=place / "vae")
    assert "needs --vae" in refused(capsys, "danger-zone", place / "photos", "--vae-sample")
