"""geomem.train: the run directory of the command line, from Python."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from commands import status
from test_training import NETWORK

import geomem
from geomem.errors import InputError
from geomem.run_training import _tell_longer
from geomem.training import TrainingSettings

OPTIONS = {"network": "mlp", "iterations": 27, "batch": 8, "n_train": 40, "watch_every": 160, "gap": "0.3:1",
           "device": "cpu"}


def contents(folder):
    """Bytes of what a run leaves, without times and the order of a header."""
    stats = [{name: value for name, value in json.loads(line).items() if name != "seconds"}
             for line in (folder / "stats.jsonl").read_text().splitlines()]
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name not in ("stats.jsonl", "state.safetensors")} | {"stats": stats}


def test_same_run_as_the_command(tmp_path):
    steps = []
    run = geomem.train("digits", tmp_path / "python", progress=lambda *done: steps.append(done), **OPTIONS)
    assert steps == [(step, 27) for step in range(1, 28)]
    words = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert status("train", "digits", *words, "--out", tmp_path / "command") == 0
    python, command = contents(run.path), contents(tmp_path / "command")
    assert python == command
    assert {"config.json", "noise-level-law.png", "samples-0000027.png", "watch.png"} <= {str(name) for name in python}
    leaning = run.lines("watch.jsonl")[-1]["leaning"]
    assert (leaning["points"], leaning["n"], leaning["m"]) == ("test", 64, 40)
    with pytest.raises(InputError, match="not empty"):
        geomem.train("digits", run.path, **OPTIONS)
    geomem.train("digits", run.path, resume=True, **OPTIONS)
    samples = run.generate(range(3), steps=4, device="cpu")
    assert samples.values.shape == (3, 1, 8, 8)
    assert (samples.about["weights"], samples.seeds.tolist()) == ("per-level", [0, 1, 2])


def test_an_extended_run_goes_on(tmp_path):
    options = {**OPTIONS, "iterations": 3, "watch_every": 0, "network": NETWORK}
    run = geomem.train("digits", tmp_path / "run", **options)
    longer = geomem.train("digits", tmp_path / "longer", **{**options, "iterations": 5})
    steps = []
    geomem.train("digits", run.path, resume=True, progress=lambda *done: steps.append(done),
                 **{**options, "iterations": 5})
    assert steps == [(4, 5), (5, 5)]
    assert run.config == longer.config
    for name in ("model.safetensors", "noise-level-law.png"):
        assert (run.path / name).read_bytes() == (longer.path / name).read_bytes()
    with pytest.raises(InputError, match=r"iterations = 5, not 3; .*\(--iterations may grow\)"):
        geomem.train("digits", run.path, resume=True, **options)


@pytest.mark.parametrize(("decay", "done", "warns"), [(0.0, 60, False), (0.2, 48, False), (0.2, 49, False),
                                                      (0.2, 50, True), (0.2, 60, True)])
def test_it_is_said_where_the_learning_rate_had_begun_to_fall(decay, done, warns, caplog):
    """Of 60 steps the rate falls over the last 12: the step after 48 is the last with the whole rate."""
    settings = TrainingSettings(iterations=90, warmup=10, decay=decay)
    _tell_longer(SimpleNamespace(settings=settings), SimpleNamespace(path="run", steps_done=done), 60)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == warns
    assert all("had begun to fall (--decay 0.2)" in warning for warning in warnings)


def test_arrays_and_data_sets(tmp_path, capsys):
    """They have no name that they could be loaded by again."""
    rng = np.random.default_rng(0)
    train, heldout = (rng.standard_normal((n, 4)).astype(np.float32) for n in (30, 20))
    options = {"network": "mlp", "iterations": 2, "batch": 8, "watch_every": 0}
    first = geomem.train((train, heldout), tmp_path / "arrays", **options)
    data = geomem.load_data(train, heldout=heldout)
    second = geomem.train(data, tmp_path / "set", **options)
    assert first.config["data"]["spec"] is None
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()
    assert status("memorization", first.path) == 2
    assert "does not say which data it belongs to; name them with --data" in capsys.readouterr().err
    with pytest.raises(InputError, match="n_train has no effect on a DataSet"):
        geomem.train(data, tmp_path / "x", n_train=3, **options)
    assert not (tmp_path / "x").exists()
