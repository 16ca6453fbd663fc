"""Inception features: what is refused in one line, and torch-fidelity's numbers where it can be imported."""

import hashlib
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from commands import status

from geomem import InputError
from geomem.features import inception, inception_features
from geomem.quality import frechet_distance

MISSING = "torch-fidelity cannot be imported here"


@pytest.fixture(scope="module")
def fidelity():
    try:
        import torch_fidelity.feature_extractor_inceptionv3 as module
    except Exception as error:  # absent, or a torchvision for another torch
        pytest.skip(f"{MISSING} ({type(error).__name__})")
    return module


@pytest.fixture(scope="module")
def weights(fidelity, tmp_path_factory):
    """A file of random weights, large enough that the features differ from each other."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


def test_without_torch_fidelity_one_line_says_what_is_missing(tmp_path, capsys):
    try:
        import torch_fidelity  # noqa: F401
    except Exception:
        np.savez(tmp_path / "s.npz", samples=np.zeros((9, 1, 8, 8)))
        assert status("quality", tmp_path / "s.npz", "--data", "digits", "--metric", "kid") == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        assert "torch-fidelity" in captured.err
        assert "geomem[fid]" in captured.err
    else:
        pytest.skip("torch-fidelity can be imported here")


def test_without_weights_nothing_is_downloaded(fidelity, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    with pytest.raises(InputError, match="6726825d"):
        inception_features()


@pytest.fixture
def stand_in(monkeypatch):
    """torch-fidelity's module with a network of one number, so that the reading of weights is tested without it too."""
    class Network(torch.nn.Linear):
        def __init__(self, name, layers, feature_extractor_weights_path):
            super().__init__(1, 1, bias=False)
            assert layers == ["2048"]
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.URL_INCEPTION_V3, module.FeatureExtractorInceptionV3 = "https://where", Network
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


class Harmful:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_weights_are_known_by_their_hash_and_never_executed(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.full((1, 1), 3.0)}, "w.pth")
    sha256 = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    found = inception_features("w.pth", device="cpu")
    assert (found.sha256, found.standard, found.network.weight.item()) == (sha256, False, 3)
    monkeypatch.setattr(inception, "_SHA256_START", sha256[:8])
    assert inception_features("w.pth", device="cpu").standard
    torch.save({"weight": Harmful()}, "harmful.pth")
    torch.save([torch.zeros(2)], "list.pth")
    torch.save({"weight": torch.zeros(2)}, "other.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(bytes(range(256)))
    for name, words in (("harmful.pth", "nothing in it was executed"), ("pickle.pth", "nothing in it was executed"),
                        ("noise.pth", "no file of tensors"), ("noise.safetensors", "no safetensors"),
                        ("list.pth", "something else"), ("other.pth", "does not fit"), ("gone.pth", "No such file")):
        with pytest.raises(InputError, match=words) as caught:
            inception_features(name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="6726825d"):
        inception_features()


def test_features_and_fid_are_those_of_torch_fidelity(fidelity, weights):
    """torch-fidelity forms the means in float32, which leaves a relative 1e-6 of features with means and spread
    of one size.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    network = inception_features(str(weights), device="cpu")
    assert not network.standard
    rng = np.random.default_rng(0)
    images = rng.uniform(-1.2, 1, (3, 1, 8, 8)).astype(np.float32)
    bytes_of = np.clip(np.round((images.astype(np.float64) + 1) * 127.5), 0, 255).astype(np.uint8)
    theirs = fidelity.FeatureExtractorInceptionV3("same", ["2048"], feature_extractor_weights_path=str(weights))
    expected = theirs(torch.from_numpy(np.repeat(bytes_of, 3, axis=1)))[0].numpy()
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(network(images), expected, rtol=1e-4, atol=1e-5 * expected.max())

    a, b = (rng.standard_normal((n, 40)).astype(np.float32) @ rng.standard_normal((40, 40)).astype(np.float32) + 1
            for n in (90, 120))
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)), False)
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


def test_command_measures_but_does_not_say_fid(weights, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, n in (("train", 4), ("heldout", 12)):
        np.save(tmp_path / f"{name}.npy", rng.uniform(-1, 1, (n, 1, 8, 8)).astype(np.float32))
    np.savez(tmp_path / "d.npz", **{name: np.load(tmp_path / f"{name}.npy") for name in ("train", "heldout")})
    np.savez(tmp_path / "s.npz", samples=rng.uniform(-1, 1, (4, 1, 8, 8)))
    assert status("quality", tmp_path / "s.npz", "--data", tmp_path / "d.npz", "--metric", "fid", "--metric", "kid",
                  "--fid-weights", weights) == 0
    text = capsys.readouterr().out
    assert "Frechet (other Inception)" in text
    assert "FID" not in text.split("MMD^2:")[0]
