"""bin/folds-study: cross-fitted networks beside one, and the mean of several cuts."""

import json
import signal
import sys

import folds_study as study
import prevention_study
import pytest
import torch


def test_the_mean_of_denoisers():
    class Times(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x, sigma, labels=None):
            return self.factor * x * sigma

    x, sigma = torch.tensor([[1.0, -2.0]]), torch.tensor([3.0])
    assert torch.equal(study.Averaged([Times(1), Times(4), Times(7)])(x, sigma), torch.tensor([[12.0, -24.0]]))


def test_a_stop_from_outside_ends_the_study(tmp_path, monkeypatch):
    def stopped(plan, run, resume):
        raise study.Interrupted(3, signal.SIGTERM)
        yield

    monkeypatch.setattr(study, "start_training", stopped)
    with pytest.raises(SystemExit, match="stopped at step 3"):
        study.trained(None, study.Run(tmp_path / "run"), 9)


@pytest.mark.slow
def test_a_small_study_of_two_cuts_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(prevention_study.SETS, "digits", prevention_study.Set(60, "mlp", 16, 16))
    monkeypatch.setitem(study.SETS, "digits", {"iterations": 8, "batch": 16, "network": "mlp"})
    monkeypatch.setattr(study, "SAMPLES", 12)
    command = ["folds-study", str(tmp_path / "out"), "--seeds", "0", "--folds", "2", "--precision", "fp32", "--summary",
               str(tmp_path / "found.json")]
    for more, new in (([], 9), ([], 0), (["--cuts", "2"], 4)):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        study.main()
        assert len(capsys.readouterr().out.splitlines()) == new
    document = json.loads((tmp_path / "found.json").read_text())
    assert [row["training"] for row in document["rows"]] == [
        *["one network"] * 3, "one network, --lean 1.2", *["2 folds"] * 4, "Gaussian", *["2 x 2 folds"] * 4]
    assert document["steps_done"] == {"one-0": 8, "lean-0": 8, "folds-2-0": 16, "folds-2-1000": 16}  # of both networks
    first, second = (json.loads((tmp_path / "out" / f"folds-2-{seed}" / "folds.json").read_text())
                     for seed in (0, 1000))
    assert first != second
