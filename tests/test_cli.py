"""The commands as a person meets them: results, files, exit status, and one line for what is wrong."""

import json
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import status
from PIL import Image

from geomem import InputError

RNG = np.random.default_rng(0)
DIGITS = ["digits", "--n-train", "60"]
SMALL = ["--network", "mlp", "--iterations", "30", "--batch", "16"]


def test_danger_zone_json_is_one_object_and_follows_the_contract(capsys, tmp_path):
    assert status("danger-zone", *DIGITS, "--sigmas", 12, "--json", "--out", tmp_path / "zone") == 0
    out = capsys.readouterr().out
    document = json.loads(out)
    assert document["format"] == "geomem.danger-zone/1"
    assert document["data"] | {"sha256": ""} == {"name": "digits", "n_train": 60, "n_heldout": 1200, "dim": 64,
                                                 "duplicates": 0, "merged": 0, "merged_heldout": 0,
                                                 "left_out_heldout": 0,
                                                 "leaked": 0, "sha256": ""}
    assert len(document["data"]["sha256"]) == 64
    for name in ("max_posterior_weight", "self_posterior_weight", "coverage"):
        curve = document["curves"][name]
        assert all(len(curve[part]) == 12 for part in ("estimate", "stderr", "low", "high"))
        assert all(low <= value <= high for low, value, high in zip(curve["low"], curve["estimate"], curve["high"],
                                                                    strict=True))
    zone = document["zone"]
    assert zone["sigma_low"] < zone["crossing"] < zone["sigma_high"]
    assert zone["crossing_low"] <= zone["crossing"] <= zone["crossing_high"]
    assert {"threshold", "edm_mass", "ddpm_timesteps"} <= set(zone)
    assert {"mean"} <= set(document["thresholds"]["concentrated_below"])
    assert document["thresholds"]["disjoint_below"] > 0
    assert document["seconds"] > 0
    assert sorted(p.name for p in (tmp_path / "zone").iterdir()) == ["curves.csv", "curves.json", "curves.png",
                                                                     "danger-zone.json"]
    assert json.loads((tmp_path / "zone" / "danger-zone.json").read_text()) == document
    header, *rows = (tmp_path / "zone" / "curves.csv").read_text().splitlines()
    assert header.startswith("sigma,max_posterior_weight,max_posterior_weight_stderr")
    assert len(rows) == 12


def test_no_zone_is_null_with_a_reason(capsys):
    assert status("danger-zone", *DIGITS, "--sigmas", "0.05,0.1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["zone"] is None
    assert "coverage" in document["zone_reason"]
    assert status("danger-zone", *DIGITS, "--sigmas", "0.05,0.1") == 0
    assert "no danger zone: coverage" in capsys.readouterr().out


def test_zone_on_a_single_level_has_no_crossing_and_is_still_drawn(tmp_path, capsys):
    assert status("danger-zone", *DIGITS, "--sigmas", "0.6", "--out", tmp_path / "one") == 0
    assert "do not cross" in capsys.readouterr().out
    assert json.loads((tmp_path / "one" / "danger-zone.json").read_text())["zone"]["crossing"] is None
    assert status("plot-curves", tmp_path / "one", tmp_path / "one" / "danger-zone.json", "--label", "a", "--label",
                  "b", "--out", tmp_path / "two.png") == 0
    assert Image.open(tmp_path / "two.png").size[0] > 500
    assert status("plot-curves", tmp_path / "one", tmp_path / "one" / "danger-zone.json", "--out",
                  tmp_path / "two.svg") == 0
    drawn = (tmp_path / "two.svg").read_text()  # text is in it as paths, and as comments
    assert all(f"digits ({path})" in drawn for path in (tmp_path / "one", tmp_path / "one" / "danger-zone.json"))


def test_a_run_is_no_data(run_of_digits, capsys):
    for command in (["risk"], ["data", "show"], ["danger-zone"]):
        assert status(*command, run_of_digits) == 2
        assert "is a run, and its pictures are no data; give the data that it was trained on, digits" in (
            capsys.readouterr().err)


@pytest.mark.parametrize("train", [np.zeros((2, 3)), np.ones((2, 3)) * [[1], [2]], np.arange(3.0)[:, None]])
def test_smallest_data_sets_get_an_answer(train, tmp_path, capsys):
    """Two equal points, two points, one dimension: the theorem's upper side and disjoint shells may not exist."""
    np.savez(tmp_path / "tiny.npz", train=train, heldout=train + 0.5)
    for flag in ([], ["--json"]):
        assert status("danger-zone", tmp_path / "tiny.npz", "--sigmas", 5, *flag, "--out", tmp_path / f"{flag}") == 0
    json.loads(capsys.readouterr().out.splitlines()[-1])


def test_same_seed_same_answer(capsys):
    answers = []
    for seed in (3, 3, 4):
        assert status("danger-zone", *DIGITS, "--sigmas", 8, "--seed", seed, "--json") == 0
        answers.append(json.loads(capsys.readouterr().out)["curves"])
    assert answers[0] == answers[1] != answers[2]


def test_train_generate_memorization_quality(run_of_digits, tmp_path, capsys):
    names = {p.name for p in run_of_digits.iterdir()}
    assert {"config.json", "model.safetensors", "levels.json", "weights", "state.safetensors", "stats.jsonl",
            "samples-0000030.png"} <= names
    config = json.loads((run_of_digits / "config.json").read_text())
    assert config["sampler"]["gaps"] == [[0.3, 1.5]]
    assert 0.3 < config["sampler"]["removed_mass"] < 0.6
    for weights in ("per-level", "early-stop", "last"):
        assert status("generate", run_of_digits, "--seeds", "0-39", "--weights", weights, "--steps", 6,
                      "--out", tmp_path / f"{weights}.npz") == 0
    with np.load(tmp_path / "last.npz") as file:
        assert file["samples"].shape == (40, 1, 8, 8)
        assert file["seeds"].tolist() == list(range(40))
    assert status("generate", run_of_digits, "--seeds", "7,39", "--weights", "last", "--steps", 6,
                  "--out", tmp_path / "two.npz") == 0
    with np.load(tmp_path / "two.npz") as two, np.load(tmp_path / "last.npz") as all_of_them:
        np.testing.assert_allclose(two["samples"], all_of_them["samples"][[7, 39]], atol=1e-3)
        assert status("generate", run_of_digits, "--seeds", "7,39", "--weights", "last", "--steps", 6,
                      "--out", tmp_path / "two.npz", "--pictures", tmp_path / "pictures") == 0
        expected = (two["samples"][:, 0] * 127.5 + 128).clip(0, 255).astype(np.uint8)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in pictures] == ["000007.png", "000039.png"]
    np.testing.assert_array_equal([np.asarray(Image.open(path)) for path in pictures], expected)
    assert status("generate", run_of_digits, "--seeds", "7", "--out", tmp_path / "no.npz",
                  "--pictures", tmp_path / "pictures") == 2
    assert not (tmp_path / "no.npz").exists()
    capsys.readouterr()
    assert status("memorization", run_of_digits, "--n-samples", 50, "--sigmas", 4, "--n-points", 30, "--json",
                  "--out", tmp_path / "report") == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["trajectory"]) >= {"rate", "low", "high", "n"}
    assert document["trajectory"]["n"] == 50
    assert document["heldout"]["n"] == 800
    assert len(document["per_noise_level"]["mse_heldout"]) == 4
    assert document["reference_denoisers"]["empirical_optimal"]["rate"][0] > 0.9
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"memorization.json", "samples.npz", "samples.png",
                                                                "noise-levels.png"}
    assert status("memorization", tmp_path / "last.npz", "--json") == 0
    assert "per_noise_level" not in json.loads(capsys.readouterr().out)
    files = [tmp_path / "last.npz", tmp_path / "per-level.npz"]
    assert status("quality", *files, "--label", "last", "--label", "best") == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["last", "best", "held-out"]


def test_copies_are_found_and_held_out_points_are_not(tmp_path, capsys):
    from geomem import load_data

    data = load_data("digits", n_train=60)
    np.savez(tmp_path / "copies.npz", samples=data.train)
    np.savez(tmp_path / "fresh.npz", samples=data.test)
    for name, low, high in (("copies", 1.0, 1.0), ("fresh", 0.0, 0.02)):
        assert status("memorization", tmp_path / f"{name}.npz", "--data", "digits", "--json") == 0
        document = json.loads(capsys.readouterr().out)
        if name == "copies":  # held against all 597 training points, of which these are the first 60
            assert document["trajectory"]["n"] == 60
        assert low <= document["trajectory"]["rate"] <= high


def test_ddpm_and_confidence_interval(tmp_path):
    assert status("train", *DIGITS, *SMALL, "--objective", "ddpm", "--sampler", "ci", "--ci", "100:200",
                  "--out", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["sampler"] == {"kind": "ci", "c_low": 100, "c_high": 200, "coverage": 0.5}
    assert status("generate", tmp_path / "run", "--seeds", "0-3", "--out", tmp_path / "s.npz") == 0


def test_ctrl_c_saves_and_resume_ends_like_an_uninterrupted_run(tmp_path):
    """SIGINT to the real command in the middle of training; then --resume."""
    command = ["train", *DIGITS, "--n-heldout", "60", "--network", "mlp", "--iterations", "200", "--batch", "16",
               "--watch-every", "0", "--out"]
    assert status(*command, tmp_path / "whole") == 0
    process = subprocess.Popen([sys.executable, "-m", "geomem", *command, str(tmp_path / "stopped")],
                               stderr=subprocess.PIPE, text=True)
    lines = tmp_path / "stopped" / "stats.jsonl"
    while not lines.exists() or not lines.read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate()[1]
    assert process.returncode == 130
    assert stderr.splitlines()[-2].startswith("Ctrl-C: finishing this step and saving; the same command with --resume")
    assert "saved; repeat the command with --resume" in stderr.splitlines()[-1]
    assert status(*command, tmp_path / "stopped", "--resume") == 0
    for name in ("model.safetensors", "levels.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A folder with files that something is wrong with."""
    folder = tmp_path_factory.mktemp("wrong")
    good = RNG.normal(size=(20, 5)).astype(np.float32)
    for name, (train, heldout) in {
            "nan": (np.where(np.eye(20, 5) > 0, np.nan, good), good), "inf": (good * np.inf, good),
            "one": (good[:1], good), "other": (good, good[:, :4]), "good": (good, -good),
            "large": (1000 * good, good)}.items():
        np.savez(folder / f"{name}.npz", train=train, heldout=heldout)
    np.savez(folder / "odd.npz", samples=good, about=np.asarray(json.dumps({"data": {"spec": "digits"}})))
    for name, samples in {"five": good, "integers": np.zeros((9, 5), np.uint8), "none": good[:0],
                          "nans": good * np.nan, "huge": np.float32(2e15) + 0 * good}.items():
        np.savez(folder / f"{name}.npz", samples=samples)
    for name, sizes in (("broken", [(8, 8)] * 3), ("sizes", [(8, 8), (8, 9), (8, 8)])):
        (folder / name).mkdir()
        for k, size in enumerate(sizes):
            Image.fromarray(RNG.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name / f"{k}.png")
    (folder / "broken" / "1.png").write_bytes(b"not a picture")
    (folder / "empty").mkdir()
    (folder / "folder.npz").mkdir()
    (folder / "taken").mkdir()
    for name in ("config", "memorization", "danger-zone"):
        (folder / "taken" / f"{name}.json").write_text("{}")
    return folder


WRONG = """
ZONE none.npz | none.npz
ZONE digitz | digits
ZONE empty | no images
ZONE broken | 1.png
ZONE sizes | 8 x 8
ZONE nan.npz | NaN
ZONE inf.npz | inf
ZONE one.npz | at least 2
ZONE other.npz | shape
ZONE good.npz --sigmas 0 | no noise levels
ZONE good.npz --sigmas 0,1 | sigma
ZONE good.npz --sigmas=-1,1 | sigma
ZONE good.npz --sigmas a,b | --sigmas
ZONE good.npz --sigmas nan,1 | sigma
ZONE good.npz --out taken | another run
ZONE good.npz --threshold 1.5 | --threshold
ZONE good.npz --device tpu | tpu
ZONE good.npz --n-train 21 | 21
ZONE good.npz --sigma 1 | --sigma
dangerzone | dangerzone
ZONE | DATA
TRAIN --gap 1.5:0.3 | 1.5:0.3
TRAIN --gap wide | wide
TRAIN --gap 90:100 | outside
TRAIN --gap 0.0001:0.001 | outside
TRAIN --gap 1e-9:1e9 | no noise level
TRAIN --gap taken/danger-zone.json | danger-zone
TRAIN --gap empty | no such file
TRAIN --sampler lognormal --ci 1:2 | --ci
TRAIN --ci 10:2000 | 2000
TRAIN --out taken | not empty
TRAIN --resume | run
TRAIN --network vit | vit
train good.npz --network unet-tiny --out run | unet-tiny
train large.npz --network mlp --out run | rescale
generate none --out s.npz | none
generate none --out good.npz/s.npz | cannot be written
generate none --out folder.npz | is a directory
generate none --seeds ² --out s.npz | --seeds
generate none --seeds 5-1 --out s.npz | --seeds
memorization none --out taken | memorization.json
memorization none --out good.npz/d | not be written
memorization good.npz | samples
quality odd.npz | --data
quality gone.npz | gone.npz
quality five.npz --data good.npz --metric is | --metric
quality five.npz --data good.npz --metric pr --features pca:99 | 1 to
quality five.npz --data good.npz --metric pr --features dino | pca:K
quality five.npz --data good.npz --features dino | pca:K
quality five.npz --data good.npz --features pca:5 --metric values | no effect without --metric frechet
quality five.npz --data good.npz --fid-weights gone.pth --metric pr | no effect without --metric fid
quality five.npz --data good.npz --label a --label b | 2 --label for 1
quality integers.npz --data good.npz --all | geomem: integers.npz: is uint8 of shape
quality nans.npz --data good.npz --all | geomem: nans.npz: samples hold NaN
quality huge.npz --data good.npz --all | beyond 1e+15
quality none.npz --data good.npz --all | samples are none
plot-curves gone.json --out p.png | gone.json
plot-curves taken/config.json --out p.png | config.json
plot-curves taken --out p.txt | .txt
"""


@pytest.mark.parametrize(("words", "named"), [line.split(" | ") for line in WRONG.strip().splitlines()])
def test_what_is_wrong_is_one_line_with_status_2_and_leaves_nothing(words, named, wrong, monkeypatch, capsys):
    monkeypatch.chdir(wrong)
    before = sorted(wrong.rglob("*"))
    words = words.replace("ZONE", "danger-zone").replace(
        "TRAIN", "train digits --n-train 60 --network mlp --iterations 2 --out run")
    assert status(*shlex.split(words)) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("geomem: ")]
    assert len(errors) == 1
    assert captured.err.splitlines()[-1] == errors[0]
    assert named in errors[0]
    assert captured.out == ""
    assert sorted(wrong.rglob("*")) == before


def test_full_disk(tmp_path, capsys):
    """A device that is always full; the line names the cause and nothing is left behind."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("cannot mount a small tmpfs here")
    try:
        for arguments in (["train", *DIGITS, *SMALL, "--iterations", 1, "--out", mount / "run"],
                          ["danger-zone", *DIGITS, "--sigmas", "8", "--out", mount / "zone"]):
            assert status(*arguments) == 2
            assert "space" in capsys.readouterr().err.splitlines()[-1]
            assert not list(mount.rglob(".*")), "half-written files"
            assert not list(mount.rglob("*.safetensors"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_debug_shows_the_traceback():
    with pytest.raises(InputError):
        status("--debug", "danger-zone", "digitz")


def test_help(capsys):
    assert status("--help") == 0
    text = capsys.readouterr().out
    for command in ("danger-zone", "train", "generate", "memorization", "quality", "plot-curves"):
        assert command in text
        assert status(command, "--help") == 0
        capsys.readouterr()


def test_validation_points_steer_and_test_points_do_not(run_of_digits):
    """The held-out loss that train wrote down is that of the validation points, from the stored weights."""
    import torch

    from geomem import load_data
    from geomem.rng import torch_generator
    from geomem.training import BestWeights, Run, heldout_losses

    run, data = Run(run_of_digits), load_data("digits", n_train=60)
    written = run.stats[-1]["heldout_mse"]
    for points, steers in ((data.validation, True), (data.test, False)):
        clean = torch.from_numpy(points[:256])
        noise = torch.randn(clean.shape, generator=torch_generator(0, "validation noise"))
        measured = heldout_losses(run.denoiser("last"), clean, noise, BestWeights.log_spaced().centres.tolist())
        assert np.allclose(measured, written, rtol=1e-4) == steers
