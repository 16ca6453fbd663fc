"""``geomem risk`` as a person meets it: table, JSON, files, copies, pictures, and one line for what is wrong."""

import csv
import json

import numpy as np
import pytest
import scipy.stats
from commands import status
from PIL import Image

from geomem.geometry import training_risk
from geomem.memorization import copies_per_point
from geomem.plots import plot_copies, plot_risk
from geomem.statistics import rank_correlation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def planted(tmp_path, rng):
    """40 vectors, three of them repeated, and samples that copy some; paths of both."""
    train = rng.standard_normal((40, 6)).astype(np.float32)
    train[[37, 38]] = train[2]
    train[39] = train[8]
    np.savez(tmp_path / "data.npz", train=train, heldout=train[:5] + 1, train_labels=np.arange(40) % 3,
             heldout_labels=np.arange(5) % 3)
    copied = rng.choice(np.r_[:20, [2] * 20, [8] * 10], 300)  # of 50 draws 21 are of point 2
    samples = train[copied] + 0.3 * rng.standard_normal((300, 6)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", samples=samples.astype(np.float32))
    return tmp_path, train, samples.astype(np.float32)


def test_json_csv_and_table_say_what_the_functions_say(planted, capsys):
    folder, train, samples = planted
    assert status("risk", folder / "data.npz", "--samples", folder / "samples.npz", "--top", 4, "--json",
                  "--out", folder / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((folder / "out" / "risk.json").read_text())
    assert document["format"] == "geomem.risk/1"
    assert document["data"] | {"sha256": ""} == {"name": "data", "n_train": 40, "dim": 6, "sha256": "",
                                                 "duplicates": 3, "groups": 37}
    tolerance = document["settings"]["tolerance"]
    assert 0 < tolerance < 0.01
    found = training_risk(train, tolerance=tolerance)
    counts = copies_per_point(samples, train, tolerance=tolerance)
    ranking = found.ranking()
    assert [row["index"] for row in document["top"]] == ranking[:4].tolist()
    assert document["top"][0] == {
        "index": 2, "label": 2, "multiplicity": 3, "group_size": 3, "group": 2, "nearest": int(found.nearest[2]),
        "nearest_distance": found.nearest_distance[2], "neighbour_distance": found.neighbour_distance[2],
        "concentrated_below": found.concentrated_below[2], "sigma_half": found.sigma_half[2],
        "score": found.score[2], "copies": int(counts.copies[2]), "close_samples": int(counts.close[2]),
        "nearest_samples": int(counts.nearest[2])}
    assert counts.copies.argmax() == 2  # the point sampled most often
    said = document["samples"]
    assert said["memorized"]["count"] == counts.rate.count
    assert (counts.close != counts.copies).any()
    assert said["correlations"]["nearest_distance"] == {
        name: rank_correlation(found.nearest_distance[ranking], count[ranking]).to_dict()
        for name, count in (("copies", counts.copies), ("close_samples", counts.close),
                            ("nearest_samples", counts.nearest))}
    assert said["correlations"]["group_size"]["close_samples"]["rho"] > 0.2
    assert {times: one["points"] for times, one in said["by_group_size"].items()} == {"1": 35, "2": 1, "3": 1}
    assert said["by_group_size"]["3"] == {"points": 1, "mean_copies": counts.copies[2], "stderr": None}
    once = counts.copies[ranking][found.group_size[ranking] == 1]
    assert said["by_group_size"]["1"]["stderr"] == pytest.approx(scipy.stats.sem(once))
    assert said["riskiest_tenth"] == {"points": 3, "share_of_copies": pytest.approx(
        counts.copies[ranking[:3]].sum() / counts.rate.count)}
    assert said["points_copied"] == np.count_nonzero(counts.copies)
    with open(folder / "out" / "risk.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    np.testing.assert_array_equal([float(row["score"]) for row in rows], found.score)
    np.testing.assert_array_equal([int(row["copies"]) for row in rows], counts.copies)
    assert {p.name for p in (folder / "out").iterdir()} == {"risk.json", "risk.csv", "risk.png", "copies.png"}
    assert Image.open(folder / "out" / "risk.png").size[0] > 500
    assert status("risk", folder / "data.npz", "--samples", folder / "samples.npz", "--top", 2) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].endswith(f"3 within {tolerance:.3g} of another count as one with it")
    assert text.splitlines()[3].split()[:4] == ["1", "2", "2", "3"]
    assert f"{said['correlations']['score']['copies']['rho']:+.2f}" in text
    assert "3 x: " in text


def test_without_samples_there_are_no_copies(capsys):
    assert status("risk", "digits", "--n-train", 50, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["samples"] is None
    assert "copies" not in document["top"][0]
    assert len(document["top"]) == 20
    scores = [row["score"] for row in document["top"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("shape", [(12, 1, 8, 8), (12, 3, 4, 5), (12, 1, 30), (12, 2, 30), (12, 9), (12, 2), (12, 1),
                                   (2, 5), (12, 2, 4, 4)])
def test_every_kind_of_point_is_drawn(shape, rng, tmp_path):
    train = rng.standard_normal(shape).astype(np.float32)
    shown = np.arange(min(7, len(train)))
    figure = plot_risk(train, shown, np.roll(np.arange(len(train)), 1), ["a"] * len(shown), title="t",
                       score=np.ones(len(train)))
    figure.savefig(tmp_path / "risk.png")
    assert Image.open(tmp_path / "risk.png").size[0] > 100


def test_pictures_show_each_point_beside_its_nearest_other(rng):
    train = rng.uniform(-1, 1, (6, 1, 4, 4))
    nearest = np.array([1, 0, 3, 2, 5, 4])
    figure = plot_risk(train, np.array([4, 2]), nearest, ["a", "b"], title="two", score=np.ones(6))
    axes = figure.axes[0]
    assert axes.get_title() == "a"
    drawn = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(drawn[:, :4], (train[4, 0] + 1) / 2)
    np.testing.assert_allclose(drawn[:, -4:], (train[5, 0] + 1) / 2)
    signals = plot_risk(train[:, :, 0], np.array([2]), nearest, ["c"], title="one", score=np.ones(6)).axes[0]
    np.testing.assert_array_equal(signals.lines[0].get_ydata(), train[2, 0, 0])
    np.testing.assert_array_equal(signals.lines[1].get_ydata(), train[3, 0, 0])
    vectors = plot_risk(train[:, 0, 0, :2], np.array([4, 2]), nearest, ["", ""], title="t", score=np.ones(6)).axes[0]
    np.testing.assert_array_equal(np.asarray(vectors.collections[1].get_offsets()), train[[4, 2], 0, 0, :2])


def test_copies_are_drawn_over_the_score_with_repeated_points_apart():
    score, copies = np.array([1.0, 0.8, 4.0]), np.array([3, 2, 9])
    axes = plot_copies(score, copies, np.array([1, 1, 4]), title="t", correlation="c").axes[0]
    once, several = (np.asarray(points.get_offsets()) for points in axes.collections)
    np.testing.assert_array_equal(once, [[1, 3], [0.8, 2]])
    np.testing.assert_array_equal(several, [[4, 9]])
    assert len(plot_copies(score, copies, np.ones(3), title="t", correlation="c").axes[0].collections) == 1


@pytest.mark.parametrize(("options", "word"), [
    (["--samples", "gone.npz"], "gone.npz"), (["--samples", "other.npz"], "shape"),
    (["--samples", "data.npz"], "samples"), (["--out", "taken"], "another run"),
    (["--out", "data.npz/deeper"], "cannot be written"), (["--tolerance", 1000], "tolerance"),
    (["--tolerance", -1], "--tolerance"), (["--top", 0], "--top")])
def test_bad_input_is_one_line_with_status_2(options, word, planted, capsys, monkeypatch):
    folder, _, samples = planted
    monkeypatch.chdir(folder)
    np.savez(folder / "other.npz", samples=samples[:, :5])
    (folder / "taken").mkdir()
    (folder / "taken" / "risk.json").write_text("{}")
    before = sorted(folder.rglob("*"))
    assert status("risk", folder / "data.npz", *options) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("geomem: ")]
    assert captured.err.splitlines()[-1] == lines[0]
    assert len(lines) == 1
    assert word in lines[0]
    assert captured.out == ""
    assert sorted(folder.rglob("*")) == before


def test_samples_of_other_data_are_noted(planted, capsys):
    folder, train, _ = planted
    for sha256, noted in (("0" * 64, True), (None, False)):
        about = {"data": {"sha256": sha256}} if sha256 else {}
        np.savez(folder / "s.npz", samples=train, about=np.asarray(json.dumps(about)))
        assert status("risk", folder / "data.npz", "--samples", folder / "s.npz", "--json") == 0
        assert ("other data" in capsys.readouterr().err) == noted


def test_no_copies_are_not_shared_out(planted, tmp_path, capsys):
    folder, train, _ = planted
    np.savez(tmp_path / "far.npz", samples=np.random.default_rng(0).normal(size=(6, *train.shape[1:])) + 1e3)
    assert status("risk", folder / "data.npz", "--samples", tmp_path / "far.npz") == 0
    text = capsys.readouterr().out
    assert "points were copied\n" in text
    assert "of the copies" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    axes = plot_copies(np.arange(3.0), np.zeros(3), np.ones(3), title="t", correlation="c").axes[0]
    assert axes.get_ylim()[0] > -0.1
    assert all(tick == int(tick) for tick in axes.get_yticks())
