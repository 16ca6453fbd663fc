"""bin/prevention-study trains as ``geomem train`` with the same options does, bit for bit."""

from dataclasses import replace

import prevention_study
import pytest
from click.testing import CliRunner

from geomem.cli.main import cli
from geomem.training import Monitor, Run

STEPS, BATCH, SEED = 27, 8, 3  # beyond 25: an evaluation before the last one
OPTIONS = {"none": [], "gap auto": ["--gap", "auto"], "ci auto": ["--ci", "auto"], "dummy class": ["--dummy-class"],
           "gap auto, 10% kept": ["--gap", "auto", "--gap-keep", 0.1]}


@pytest.fixture
def study(monkeypatch):
    """The module with a small set of digits, the weights that it judges in place of its judgement, and the held-out
    losses that steer it.
    """
    seen, losses, measure = [], [], Monitor.evaluate

    def judged(denoiser, dataset, classes):
        seen.append({name: value.clone() for name, value in denoiser.state_dict().items()})
        return {}

    def evaluate(*given):
        measured = measure(*given)
        losses.extend([] if measured is None else [measured.tolist()])
        return measured

    monkeypatch.setattr(prevention_study, "judged", judged)
    monkeypatch.setattr(Monitor, "evaluate", evaluate)
    small = replace(prevention_study.SETS["digits"], n_train=40, network="mlp", batch=BATCH, iterations=STEPS)
    monkeypatch.setitem(prevention_study.SETS, "digits", small)
    return prevention_study, seen, losses


@pytest.mark.parametrize("way", [
    way if way in ("none", "gap auto, 10% kept") else pytest.param(way, marks=pytest.mark.slow) for way in OPTIONS])
def test_same_weights_as_the_command(way, study, tmp_path):
    module, seen, losses = study
    cell = module.study("digits", way, SEED, module.load_set("digits", tmp_path, tmp_path))
    ours_measured = list(losses)
    arguments = ["train", "digits", "--n-train", 40, "--network", "mlp", "--batch", BATCH, "--iterations", STEPS,
                 "--precision", "bf16", "--seed", SEED, "--watch-every", 0, "--device", "cpu", "--out",
                 tmp_path / "run", *OPTIONS[way]]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    run = Run(tmp_path / "run")
    assert ours_measured == ([line["heldout_mse"] for line in run.stats] if way in module.STEERED else [])
    kept = {"last": "last", "early stop": "early-stop"}
    for weights, ours in {row["weights"]: state for row, state in zip(cell["rows"], seen, strict=True)}.items():
        if weights in kept:
            theirs = run.denoiser_of_classes(kept[weights]).state_dict()
            assert ours.keys() == theirs.keys()
            assert all((ours[name] == theirs[name]).all() for name in theirs), weights
        else:
            chosen = next(row["steps"] for row in cell["rows"] if row["weights"] == weights)
            assert chosen == run.levels["steps"]
