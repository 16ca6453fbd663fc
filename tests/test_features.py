"""Feature spaces: each measure is that of mapped points; folders of networks, honest and hostile."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from commands import refused, status
from safetensors.torch import load_file, save_file

import geomem
from geomem.errors import InputError
from geomem.features import FeatureSpace, load_features
from geomem.memorization import near_copies
from geomem.quality import Judge, frechet_distance, kernel_distance, mifid, precision_recall, quality_report


class Network(torch.nn.Module):
    """Six features of pictures 2 x 6 x 6; random where it is not in evaluation mode."""

    name = "six"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.dropout, self.seen = torch.nn.Linear(72, 6), torch.nn.Dropout(0.5), 0

    def forward(self, pictures):
        self.seen += len(pictures)
        return torch.tanh(self.dropout(self.weights(pictures.flatten(1))))


def pictures(seed, n):
    return np.random.default_rng([7, seed]).standard_normal((n, 2, 6, 6)).astype(np.float32)


TRAIN, HELDOUT, SAMPLES = pictures(1, 40), pictures(2, 60), pictures(3, 70)


def mapped(points, network):
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(np.ascontiguousarray(points))).numpy()


def plain(result):
    return {name: value for name, value in result.to_dict().items() if name not in ("space", "floor")}


def test_measures_in_features_are_those_of_mapped_points():
    network, parts = Network(), (SAMPLES, TRAIN, HELDOUT)
    features = [mapped(part, Network()) for part in parts]
    for measure in (geomem.leaning, near_copies, quality_report):
        found = measure(*parts, features=network)
        assert found.to_dict()["space"] == "six"
        for name, value in plain(measure(*features)).items():
            assert plain(found)[name] == pytest.approx(value, rel=1e-5) if name != "tests" else plain(found)[
                name][0]["count"] == value[0]["count"], name
    rate = geomem.memorization_rate(*parts[:2], features=network)
    expected = geomem.memorization_rate(*features[:2])
    np.testing.assert_allclose(rate.ratios, expected.ratios, rtol=1e-5)
    assert rate.nearest.tolist() == expected.nearest.tolist()
    assert geomem.memorization_rate(*parts[:2]).to_dict()["space"] == "pixels"
    metrics = ("frechet", "mmd", "pr")
    for ours, theirs in zip(Judge(*parts[1:], metrics, features=network).measure(SAMPLES),
                            Judge(*features[1:], metrics).measure(features[0]), strict=True):
        assert (ours.name, ours.features) == (theirs.name, "six")
        assert (ours.value, ours.floor) == pytest.approx((theirs.value, theirs.floor), rel=1e-5)
    assert network.training


LINEAR = np.random.default_rng(8).standard_normal((72, 5)).astype(np.float32)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall])
def test_distances_of_features_are_those_of_points_mapped_by_hand(measure):
    """The identity gives those of pixels; a linear map those of products with its matrix."""
    def values(*parts, **options):
        found = measure(*parts, **options)
        return list(vars(found).values()) if measure is precision_recall else found

    flat = [part.reshape(-1, 72) for part in (SAMPLES, HELDOUT)]
    assert values(SAMPLES, HELDOUT, features=lambda x: x.flatten(1)) == pytest.approx(values(SAMPLES, HELDOUT))
    linear = values(SAMPLES, HELDOUT, features=lambda x: x.flatten(1) @ torch.from_numpy(LINEAR))
    assert linear == pytest.approx(values(*(part @ LINEAR for part in flat)), rel=1e-4)
    assert linear != pytest.approx(values(SAMPLES, HELDOUT), rel=1e-2)
    with pytest.raises(InputError, match="no callable"):
        measure(SAMPLES, HELDOUT, features=3)


def test_mirror_images_are_looked_for_in_features_of_the_samples():
    network = Network()
    known = mapped(TRAIN, Network())
    both = [np.linalg.norm(mapped(x, Network())[:, None].astype(float) - known, axis=2)
            for x in (SAMPLES, SAMPLES[..., ::-1])]
    rate = geomem.memorization_rate(SAMPLES, TRAIN, mirrored=True, features=network)
    np.testing.assert_allclose(rate.nearest_distance, np.minimum(*both).min(axis=1), rtol=1e-5)
    assert geomem.memorization_rate(TRAIN[..., ::-1].copy(), TRAIN, mirrored=True, features=network).rate == 1


def test_an_audit_in_features_sends_each_picture_through_the_network_once():
    network = Network()
    found = geomem.audit(SAMPLES, TRAIN, HELDOUT, features=network)
    assert network.seen == 2 * (len(SAMPLES) + len(TRAIN) + len(HELDOUT))  # and its mirror image
    features = [mapped(part, Network()) for part in (SAMPLES, TRAIN)]
    assert found.peers["mifid"] == pytest.approx(mifid(*features), rel=1e-5)
    assert found.leaning.to_dict()["space"] == found.quality.space == "six"
    assert "by the features six" in found.tests[0].sentence
    assert "between the features six" in found.blind[0]
    copies = geomem.audit(np.concatenate([TRAIN, TRAIN]), TRAIN, HELDOUT, features=network)
    assert copies.verdict == "copies"


@pytest.mark.parametrize(("features", "message"), [
    (3, "no callable"), (lambda x: x[:2].flatten(1), "gives finite"), (lambda x: x, "gives finite"),
    (lambda x: x.flatten(1) / 0, "not finite")])
def test_what_is_no_extractor_is_refused(features, message):
    with pytest.raises(InputError, match=message):
        geomem.memorization_rate(SAMPLES, TRAIN, features=features)


def test_brightness_of_features_is_refused():
    with pytest.raises(InputError, match="leave one of them out"):
        geomem.leaning(SAMPLES, TRAIN, HELDOUT, features=Network(), brightness=True)


@pytest.mark.parametrize(("dimension", "kind", "value"), [
    (5, "honest", 0.5130021199747896), (5, "copying", 2.9857101764407865),
    (12, "honest", 1.9332195640613234), (12, "copying", 0.47079604923485147)])
def test_mifid_is_that_of_torchmetrics(dimension, kind, value):
    """torchmetrics 1.9.0, with the identity for its network, on the same arrays: training points as real ones."""
    rng = np.random.default_rng(3)
    train, samples = rng.standard_normal((60, dimension)), rng.standard_normal((40, dimension))
    if kind == "copying":
        samples = train[:40] + 0.01 * rng.standard_normal((40, dimension))
    if dimension == 5:
        train[7] = 0
    assert mifid(samples.astype(np.float32), train.astype(np.float32)) == pytest.approx(value, rel=1e-6)


class StandIn(torch.nn.Module):
    """In place of transformers' Dinov2Model: features of the size asked for, from the mean of each channel."""

    def __init__(self, config):
        super().__init__()
        self.head = torch.nn.Linear(3, config.hidden_size)

    @classmethod
    def from_pretrained(cls, folder, config, use_safetensors, local_files_only, output_loading_info):
        assert (use_safetensors, local_files_only, output_loading_info) == (True, True, True)
        network, tensors = cls(config), load_file(folder / "model.safetensors")
        missing = set(network.state_dict()) - set(tensors)
        network.load_state_dict(tensors, strict=False)
        return network, {"missing_keys": missing}

    def forward(self, pixel_values):
        self.last = pixel_values
        return types.SimpleNamespace(pooler_output=self.head(pixel_values.mean((2, 3))))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as transformers saves it, and a stand-in for transformers itself."""
    module = types.ModuleType("transformers")
    module.Dinov2Config, module.Dinov2Model = types.SimpleNamespace, StandIn
    module.utils, logging = types.ModuleType("transformers.utils"), types.ModuleType("transformers.utils.logging")
    logging.disable_progress_bar = lambda: None
    for part in (module, module.utils, logging):
        monkeypatch.setitem(sys.modules, part.__name__, part)
    path = tmp_path / "network"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": 4, "patch_size": 2}))
    (path / "preprocessor_config.json").write_text(json.dumps({"crop_size": {"height": 28, "width": 28}}))
    torch.manual_seed(1)
    save_file(torch.nn.ModuleDict({"head": torch.nn.Linear(3, 4)}).state_dict(), path / "model.safetensors")
    return path


def test_a_folder_of_dinov2_becomes_a_feature_space(folder):
    """Grey pictures in [-1, 1], standardized as ImageNet is."""
    space = load_features(str(folder), device="cpu")
    assert space.name.startswith("dinov2 ")
    found = space(np.full((3, 1, 8, 8), [[[[-1.0]]], [[[0.0]]], [[[1.0]]]], dtype=np.float32))
    assert found.shape == (3, 4)
    seen = space.extractor.network.last
    assert seen.shape == (3, 3, 28, 28)
    np.testing.assert_allclose(seen[:, 0, 5, 5], (np.array([0, 0.5, 1]) - 0.485) / 0.229, rtol=1e-5)
    with pytest.raises(InputError, match="1 or 3 channels"):
        space(pictures(1, 2))


def test_command_audits_in_features(folder, tmp_path, capsys):
    data, samples = tmp_path / "data.npz", tmp_path / "samples.npz"
    known, unseen, asked = (part[:, :1].copy() for part in (TRAIN, HELDOUT, SAMPLES))
    np.savez(data, train=known, heldout=unseen)
    np.savez(samples, samples=asked)
    for command in ("audit", "memorization"):
        assert status(command, samples, "--data", data, "--features", folder, "--json", "--out",
                      tmp_path / command) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["trajectory"]["space"].startswith("dinov2 ")
    assert "compared: dinov2" in (tmp_path / "audit" / "audit.html").read_text()
    assert status("quality", samples, "--data", data, "--features", folder, "--metric", "frechet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["features"].startswith("dinov2 ")


def test_a_network_of_the_hub_is_taken_from_the_cache_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)  # where ../../etc is no folder
    cached = tmp_path / "hub" / "models--facebook--dinov2-tiny"
    for name in ("blobs", "refs", "snapshots/abc"):
        (cached / name).mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(cached / "blobs" / name)
        (cached / "snapshots" / "abc" / name).symlink_to(f"../../blobs/{name}")
    assert load_features("facebook/dinov2-tiny").name.startswith("dinov2 ")
    for word, said in (("facebook/dinov2-other", "the Hugging Face cache"), ("../../etc", "the Hugging Face cache"),
                       ("sscd_disc_mixup", "published as TorchScript")):
        with pytest.raises(InputError, match=said):
            load_features(word)


def test_folders_that_lie_and_what_is_missing_are_one_line(folder, tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "data.npz", train=TRAIN, heldout=HELDOUT)
    np.savez(tmp_path / "samples.npz", samples=SAMPLES)
    asked = "audit", tmp_path / "samples.npz", "--data", tmp_path / "data.npz", "--features"
    good = json.loads((folder / "config.json").read_text())
    for config, words in ((good | {"model_type": "bert"}, "type 'bert'"), (good | {"hidden_size": 10**9}, "up to 4096"),
                          (good | {"hidden_size": 5}, "that transformers can read"), ([], "not a JSON object")):
        (folder / "config.json").write_text(json.dumps(config))
        assert words in refused(capsys, *asked, folder)
    (folder / "config.json").write_text(json.dumps(good))
    save_file({"other": torch.zeros(2)}, folder / "model.safetensors")
    assert "holds no tensor 'head.bias'" in refused(capsys, *asked, folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refused(capsys, *asked, folder)
    assert "give inception" in refused(capsys, *asked, tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install transformers" in refused(capsys, *asked, folder)


def test_features_of_transformers_own_network(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = transformers.Dinov2Model(transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=4, image_size=16)).eval()
    network.save_pretrained(tmp_path / "dinov2")
    space = load_features(str(tmp_path / "dinov2"), device="cpu")
    inputs = torch.rand(2, 3, 224, 224)
    standard = (inputs - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = network(pixel_values=standard).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(space((2 * inputs - 1).numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def exported(tmp_path):
    """Writes a product with a matrix, of pictures of the shape that is named, as ONNX."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, kind = onnx.helper, onnx.TensorProto

    def write(shape, values, weights=None, of=kind.FLOAT, name="network.onnx"):
        weights = onnx.numpy_helper.from_array(values, "weights") if weights is None else weights
        nodes = [make.make_node("Flatten", ["x"], ["flat"]), make.make_node("MatMul", ["flat", "weights"], ["y"])]
        graph = make.make_graph(nodes, "graph", [make.make_tensor_value_info("x", of, shape)],
                                [make.make_tensor_value_info("y", of, [shape[0], values.shape[1]])], [weights])
        path = tmp_path / name
        path.write_bytes(make.make_model(
            graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8).SerializeToString())
        return path

    return write


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_network_in_onnx_is_a_feature_space(exported, batch):
    space = load_features(str(exported([batch, 2, 6, 6], LINEAR)))
    np.testing.assert_allclose(space(SAMPLES), SAMPLES.reshape(-1, 72) @ LINEAR, rtol=1e-5, atol=1e-5)
    assert space.name.startswith("network ")


def test_pictures_take_the_size_and_channels_that_a_network_in_onnx_asks_for(exported):
    """A constant picture stays one when it is resized."""
    path = exported(["n", 3, 8, 8], np.ones((192, 2), np.float32))
    found = load_features(str(path))(np.full((5, 1, 6, 6), 0.5, np.float32))
    np.testing.assert_allclose(found, 96, rtol=1e-5)
    with pytest.raises(InputError, match=r"takes points of shape \(3, 8, 8\), not \(2, 8, 8\)"):
        load_features(str(path))(SAMPLES)


def test_what_is_no_extractor_in_onnx_is_refused(exported, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    away = onnx.TensorProto(name="weights", dims=LINEAR.shape, data_type=1, data_location=1)
    away.external_data.add(key="location", value="elsewhere.bin")
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    double = exported(["n", 2, 6, 6], LINEAR.astype(float), of=onnx.TensorProto.DOUBLE, name="double.onnx")
    for path, said in ((exported(["n", 2, 6, 6], LINEAR, away), "export it into one file"), (double, "one float32"),
                       (tmp_path / "rubbish.onnx", "onnxruntime can read")):
        with pytest.raises(InputError, match=said):
            load_features(str(path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"geomem\[features\]"):
        load_features(str(path))


def test_the_name_of_a_space_is_that_of_its_extractor():
    assert [FeatureSpace(extractor).name for extractor in (Network(), mapped, torch.nn.Identity())] == [
        "six", "mapped", "Identity"]
