"""Class-conditional training, noise images as a second class, and samples of chosen classes."""

import json

import numpy as np
import pytest
import torch
from commands import status
from test_training import NETWORK
from torch import nn

from geomem import InputError, load_data
from geomem.generation import generate
from geomem.models import FixedClass
from geomem.rng import generator
from geomem.training import Run, WithNoiseImages, classes_of, load_denoiser

SMALL = ["--network", NETWORK, "--iterations", 300, "--batch", 64, "--watch-every", 0]


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """Two clouds far apart, labelled 3 and 7."""
    path = tmp_path_factory.mktemp("classes") / "data.npz"
    arrays = {}
    for part, n in (("train", 100), ("heldout", 60)):
        rng = generator(0, part)
        labels = rng.choice([3, 7], n)
        arrays[part] = (np.where(labels == 3, -1, 1)[:, None] + 0.1 * rng.standard_normal((n, 4))).astype(np.float32)
        arrays[f"{part}_labels"] = labels
    np.savez(path, **arrays)
    return path


def test_noise_images_have_the_moments_of_the_data():
    """Mean and standard deviation of 40,000 values: standard errors std/200 and std/sqrt(80,000)."""
    train = np.random.default_rng(0).standard_normal((20, 2, 5)).astype(np.float32)
    both = WithNoiseImages(train, 4000, 0.3, 2.0, seed=1)
    assert (len(both), both.labels.tolist()) == (4020, [0] * 20 + [1] * 4000)
    np.testing.assert_array_equal(both[np.array([19, 0])], train[[19, 0]])
    noise = both[np.arange(20, 4020)]
    assert abs(noise.mean() - 0.3) < 5 * 2 / 200
    assert abs(noise.std() - 2) < 5 * 2 / np.sqrt(80_000)
    mixed = both[np.array([4019, 3])]
    np.testing.assert_array_equal(mixed, [noise[-1], train[3]])
    again = WithNoiseImages(train, 4000, 0.3, 2.0, seed=1)
    np.testing.assert_array_equal(again[np.array([100])], both[np.array([100])])
    assert WithNoiseImages(train, 2, 0, 1, 0, np.arange(20) % 3).labels[-2:].tolist() == [3, 3]


def test_samples_of_a_conditional_run_are_of_the_class_asked_for(two_classes, tmp_path, capsys, monkeypatch):
    assert status("train", two_classes, "--conditional", *SMALL, "--out", tmp_path / "run") == 0
    config = Run(tmp_path / "run").config
    assert (config["classes"], config["labels"], config["dummy_class"]) == (2, [3, 7], 0)
    assert status("generate", tmp_path / "run", "--seeds", "10-49", "--out", tmp_path / "all.npz") == 0
    with np.load(tmp_path / "all.npz") as file:
        labels = file["labels"]
        assert labels.tolist() == [3, 7] * 20
        assert np.mean(np.sign(file["samples"].mean(axis=1)) == np.where(labels == 3, -1, 1)) == 1
        every = file["samples"]
    assert status("generate", tmp_path / "run", "--seeds", "11,12", "--label", 7, "--out", tmp_path / "one.npz") == 0
    with np.load(tmp_path / "one.npz") as file:
        assert file["labels"].tolist() == [7, 7]
        np.testing.assert_allclose(file["samples"][0], every[1], atol=1e-5)  # seed 11 was of class 7 too
        assert file["samples"][1].mean() > 0.5
    assert status("generate", tmp_path / "run", "--label", 4, "--out", tmp_path / "x.npz") == 2
    assert "trained with the labels 3, 7" in capsys.readouterr().err
    assert status("memorization", tmp_path / "run", "--n-samples", 20, "--sigmas", "0.3", "--n-points", 30,
                  "--json") == 0
    found = json.loads(capsys.readouterr().out)["per_noise_level"]
    assert status("export", tmp_path / "run", "--out", tmp_path / "model") == 0
    text = (tmp_path / "model" / "README.md").read_text()
    assert "integers 0 to 1 of shape (B,)" in text
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python")[1].split("```")[0].replace("PATH_OF_THIS_FOLDER", "model"), {})
    with np.load("samples.npz") as file:
        assert (np.sign(file["samples"].mean(axis=1)) == [-1, 1] * 8).all()
    # With its class a point is known up to 0.1 a coordinate: at sigma 0.3 the best error is 0.01 / (1 + 0.01/0.09).
    assert found["mse_heldout"][0] < 0.03


def test_dummy_class_makes_samples_of_the_data(two_classes, tmp_path, capsys):
    assert status("train", two_classes, "--dummy-class", 50, *SMALL, "--out", tmp_path / "run") == 0
    run = Run(tmp_path / "run")
    assert (run.config["classes"], run.config["labels"], run.config["dummy_class"]) == (2, None, 50)
    denoiser = run.denoiser("last")
    assert isinstance(denoiser, FixedClass)
    other = FixedClass(denoiser.denoiser, 1)
    samples, noise = (generate(net, range(60), [4]) for net in (denoiser, other))
    # The data lie at -1 and 1 in all coordinates together, the noise images do not.
    alike = [np.mean(np.abs(part.mean(axis=1)) > 0.75) for part in (samples, noise)]
    assert alike[0] > 0.9
    assert alike[1] < 0.6
    assert status("generate", tmp_path / "run", "--label", 0, "--out", tmp_path / "x.npz") == 2
    assert "trained without labels" in capsys.readouterr().err
    assert status("export", tmp_path / "run", "--weights", "last", "--out", tmp_path / "model") == 0
    x = torch.full((3, 4), 0.5)
    assert torch.equal(load_denoiser(tmp_path / "model").denoiser(x, 0.3), denoiser(x, 0.3))


def test_dummy_class_without_a_number_doubles_the_data(two_classes, tmp_path, capsys):
    assert status("train", two_classes, *SMALL, "--conditional", "--dummy-class", "--dry-run", "--out",
                  tmp_path / "run") == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["classes"], config["labels"], config["dummy_class"]) == (3, [3, 7], 100)


def test_conditional_needs_labels(two_classes, tmp_path):
    with np.load(two_classes) as file:
        arrays = dict(file)
    np.savez(tmp_path / "none.npz", train=arrays["train"], heldout=arrays["heldout"])
    np.savez(tmp_path / "one.npz", **arrays | {"train_labels": np.full(100, 3)})
    np.savez(tmp_path / "half.npz", **{k: v for k, v in arrays.items() if k != "heldout_labels"})
    for name, message in (("none", "has no labels"), ("one", "held-out points of class 7"),
                          ("half", "the held-out points have no labels")):
        with pytest.raises(InputError, match=message):
            classes_of(load_data(str(tmp_path / f"{name}.npz")), True, 0, 0)


def test_fixed_class_hides_the_classes():
    class Echo(nn.Module):
        def forward(self, x, sigma, labels=None):
            return x * 0 + labels[:, None]

    assert FixedClass(Echo(), 2)(torch.ones(3, 4), 1.0, torch.zeros(3, dtype=torch.int64)).unique().tolist() == [2]
