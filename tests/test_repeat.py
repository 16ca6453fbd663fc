"""The command that repeats a training gives the same resolved options, whatever they are."""

import json
import shlex

import numpy as np
import pytest
from commands import status

from geomem.errors import InputError
from geomem.report import training_command

BASE = ["--network", "mlp", "--iterations", "7", "--batch", "12"]


def config_of(capsys, *arguments):
    capsys.readouterr()
    assert status("train", *arguments, "--dry-run") == 0
    return json.loads(capsys.readouterr().out)["config"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("some data")
    rng = np.random.default_rng(0)
    np.savez(folder / "it's.npz", train=rng.normal(size=(30, 6)), heldout=rng.normal(size=(12, 6)),
             train_labels=np.arange(30) % 3, heldout_labels=np.arange(12) % 3)
    np.savez(folder / "other.npz", train=rng.normal(size=(20, 6)))
    return folder


@pytest.mark.parametrize("options", [
    [], ["--heldout", "other.npz"], ["digits", "--n-train", "20"],
    ["--n-train", "20", "--n-heldout", "9", "--shuffle", "--seed", "5"], ["--gap", "0.3:1.5"],
    ["--gap", "0.1:0.2,0.4:0.6", "--gap", "125t:325t", "--gap-keep", "0.25"], ["--gap", "auto"],
    ["--sampler", "uniform"], ["--ci", "100:200"], ["--ci", "auto"], ["--ci", "100:200", "--gap", "0.3:0.5"],
    ["--objective", "ddpm"], ["--decay", "0.5", "--dropout", "0.1", "--precision", "bf16", "--learning-rate", "0.0003"],
    ["--conditional", "--snapshots", "bf16"], ["--dummy-class", "5"], ["--accumulate", "3"],
    ["--watch-every", "0"], ["--watch-every", "500", "--stop-at-memorization", "0.05"],
], ids=" ".join)
def test_the_command_gives_the_same_options(options, data, capsys, monkeypatch):
    monkeypatch.chdir(data)
    source = [] if "digits" in options else ["it's.npz"]
    config = config_of(capsys, *source, *options, *BASE, "--out", "run")
    words = shlex.split(training_command(config, "again"))
    assert words[:2] == ["geomem", "train"]
    assert config_of(capsys, *words[2:]) == config


def test_a_gap_from_a_file_is_written_out(data, capsys):
    """The file may be gone: the law is the same, only the word for it differs."""
    assert status("danger-zone", "digits", "--n-train", 50, "--sigmas", 12, "--out", data / "zone") == 0
    config = config_of(capsys, "digits", "--n-train", 50, *BASE, "--gap", data / "zone", "--out", data / "run")
    again = config_of(capsys, *shlex.split(training_command(config, "again"))[2:])
    assert again["sampler"] == config["sampler"]
    assert str(data) not in training_command(config, "again")


def test_what_a_stranger_wrote_is_quoted(data, capsys):
    config = config_of(capsys, "digits", "--n-train", 20, *BASE, "--out", data / "run")
    config["data"]["spec"] = "x; rm -rf ~ $(reboot)"
    config["gap"] = ["$(reboot)"]
    config["sampler"] = {"kind": "gap", "gaps": [["$(reboot)", 2]], "keep": 0, "base": {"kind": "lognormal"}}
    words = shlex.split(training_command(config, "again"))
    assert words[2] == "x; rm -rf ~ $(reboot)"
    assert words[words.index("--gap") + 1] == "$(reboot):2"
    for name in ("data", "settings", "sampler", "network"):
        with pytest.raises(InputError, match=r"config\.json lacks"):
            training_command({key: value for key, value in config.items() if key != name}, "again")
