"""What cannot be drawn, or fails while it is drawn, costs neither a result nor a training."""

import json
import shutil

import matplotlib.figure
import numpy as np
import pytest
from commands import status

from geomem.files import draw_figure
from geomem.report import pictures

SHAPES = {"latents of four channels": (4, 8, 8), "volumes": (1, 4, 4, 4), "one value": (1,), "one pixel": (1, 1, 1)}


def trained(tmp_path, shape, watch=0):
    path = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(path, train=rng.normal(size=(40, *shape)).astype("f"), heldout=rng.normal(size=(30, *shape)).astype("f"))
    assert status("train", path, "--out", tmp_path / "run", "--iterations", 4, "--batch", 8, "--checkpoint-every", 4,
                  "--network", "mlp", "--watch-every", watch) == 0
    return path


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_points_of_any_shape_are_trained_on_and_judged(shape, tmp_path, capsys):
    data = trained(tmp_path, shape)
    run, drawable = tmp_path / "run", len(shape) < 3 or (len(shape) == 3 and shape[0] in (1, 3))
    assert (run / "samples-0000004.png").exists() == drawable
    assert ("cannot be drawn" in capsys.readouterr().err) == (not drawable)
    samples = tmp_path / "memorization" / "samples.npz"
    for command, result, of in (("memorization", "samples.png", [run, "--n-samples", 12, "--sigmas", 2]),
                                ("audit", "closest.png", [samples])):
        out = tmp_path / command
        assert status(command, *of, "--out", out) == 0
        assert (out / result).exists() == drawable
        assert json.loads((out / f"{command}.json").read_text())["trajectory"]["n"] == 12
        error = capsys.readouterr().err
        assert (f"no {result}: samples of shape" in error) == (not drawable)
    assert status("risk", data, "--samples", samples, "--out", tmp_path / "risk") == 0
    if shape != (4, 8, 8):
        return
    shutil.copytree(tmp_path / "memorization", run / "memorization")  # its samples are those of the report
    assert status("report", run, "--out", tmp_path / "page.html") == 0
    assert "cannot be drawn" in (tmp_path / "page.html").read_text()


def test_an_error_of_matplotlib_costs_no_result_and_ends_no_training(tmp_path, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no ink")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", broken)
    data = trained(tmp_path, (1, 8, 8), watch=4)
    assert (tmp_path / "run" / "weights").exists()
    error = capsys.readouterr().err
    assert all(f"warning: no {name}: no ink" in error for name in ("noise-level-law.png", "samples-0000004.png",
                                                                  "watch.png"))
    out = tmp_path / "memorization"
    for arguments in (["memorization", tmp_path / "run", "--n-samples", 12, "--sigmas", 2, "--out", out],
                      ["audit", out / "samples.npz", "--out", tmp_path / "audit"],
                      ["risk", data, "--out", tmp_path / "risk"],
                      ["danger-zone", data, "--sigmas", 4, "--out", tmp_path / "danger-zone"],
                      ["bounds", data, "--out", tmp_path / "bounds"],
                      ["swap", tmp_path / "run", "gaussian", "--n-samples", 12, "--window", "large", "--controls", 0,
                       "--out", tmp_path / "swap"],
                      ["report", tmp_path / "run", "--seeds", "0-11", "--out", tmp_path / "page.html"]):
        assert status(*arguments) == 0, arguments[0]
        captured = capsys.readouterr()
        assert "no ink" in captured.err
        assert captured.out
    for made in ("memorization/memorization.json", "audit/audit.json", "risk/risk.json", "danger-zone/danger-zone.json",
                 "bounds/bounds.json", "swap/swap.json", "page.html"):
        assert (tmp_path / made).exists(), made


def test_results_are_written_before_pictures(tmp_path, monkeypatch):
    """Each command that draws is killed at its first picture; its result is there."""
    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    data = trained(tmp_path, (1, 8, 8))
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", kill)
    for name, arguments, result in (
            ("memorization", [tmp_path / "run", "--n-samples", 12, "--sigmas", 2], "memorization.json"),
            ("audit", [tmp_path / "run", "--n-samples", 12], "audit.json"), ("risk", [data], "risk.json"),
            ("danger-zone", [data, "--sigmas", 4], "curves.json"), ("bounds", [data], "bounds.json")):
        with pytest.raises(Killed):
            status(name, *arguments, "--out", tmp_path / name)
        assert (tmp_path / name / result).exists(), name


def test_a_picture_that_fails_is_named(tmp_path, caplog):
    draw_figure(tmp_path / "a.png", lambda: 1 / 0)
    assert "warning: no a.png: division by zero" in caplog.text
    assert pictures.attempt("the losses", lambda: [][0]) is None
    assert "warning: no picture of the losses: list index out of range" in caplog.text
    assert not list(tmp_path.iterdir())
