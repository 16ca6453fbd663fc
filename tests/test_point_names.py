"""Names of files travel with the points: into duplicates, leaked points, near-copies and risk."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from commands import status
from test_data import noise, pictures
from test_data_official import encoded, table
from test_data_readers import png, write_tree

from geomem.data import load_data

IMAGES = pictures(40, 4, 4, 3)
pytestmark = pytest.mark.usefixtures("one_child")


@pytest.fixture
def split(tmp_path):
    """30 training pictures in two folders, of which c.png is a copy, and 10 to hold out."""
    tree = {f"train/{'ab'[k % 2]}/{k:02}.png": png(IMAGES[k]) for k in range(30)}
    tree |= {f"test/a/{k:02}.png": png(IMAGES[k]) for k in range(30, 40)}
    tree |= {f"test/a/x{k:02}.png": png(image) for k, image in enumerate(pictures(20, 4, 4, 3, seed=1))}
    return write_tree(tmp_path / "d", tree | {"train/b/c.png": png(IMAGES[4])})


def test_each_point_has_the_name_of_its_file(split):
    data = load_data(split, n_train=9, shuffle=True)
    assert len(data.train_names) == 9
    for k, name in enumerate(data.train_names):
        place = 4 if name == "train/b/c.png" else int(name.split("/")[-1].removesuffix(".png"))
        np.testing.assert_array_equal(data.train[k], (IMAGES[place].transpose(2, 0, 1) / np.float32(127.5) - 1))
    assert set(data.heldout_names) == {f"test/a/{k}.png" for k in [*range(30, 40), *(f"x{k:02}" for k in range(20))]}
    made = load_data(split / "train")  # a random split
    assert sorted([*made.train_names, *made.heldout_names]) == sorted(
        [f"{'ab'[k % 2]}/{k:02}.png" for k in range(30)] + ["b/c.png"])


def test_what_has_no_files_has_no_names(tmp_path):
    assert load_data(noise(9, 4)).train_names is None
    data = load_data(table(tmp_path / "d.parquet", {"img": encoded(IMAGES)}), heldout=pictures(3, 4, 4, 3, seed=2))
    assert (data.train_names[7], data.heldout_names, data.files([1, 3])) == ("row 7", None, ["row 1", "row 3"])


def test_names_cannot_move_the_cursor(tmp_path):
    tree = {f"a\x1b[2J{k}.png": png(IMAGES[k]) for k in range(4)}
    assert load_data(write_tree(tmp_path / "d", tree), heldout=IMAGES[:2]).train_names[0] == "a\\x1b[2J0.png"


def test_duplicates_and_leaked_points_are_named(split, capsys):
    (split / "test" / "a" / "y.png").write_bytes(png(IMAGES[7]))
    assert status("data", "show", split, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["duplicate_files"] == [["train/b/c.png", "train/a/04.png"]]
    assert "1 of 31 held-out points is equal or nearly equal to training points (test/a/y.png for one)" in err
    assert status("data", "show", split) == 0
    assert "earlier one: train/b/c.png equals train/a/04.png" in " ".join(capsys.readouterr().out.split())


def test_near_copies_name_their_training_points(split, tmp_path, capsys):
    write_tree(tmp_path / "s", {f"{k}.png": png(IMAGES[k + 10]) for k in range(9)})
    for command in ("memorization", "audit"):
        assert status(command, tmp_path / "s", "--data", split, "--json") == 0
        near = json.loads(capsys.readouterr().out)["near_copies"]
        assert dict(zip(near["samples"], near["file"], strict=True)) == {
            k: f"train/{'ab'[k % 2]}/{k + 10}.png" for k in range(9)}
        assert status(command, tmp_path / "s", "--data", split) == 0
        assert f"sample {near['samples'][0]} is nearest to {near['file'][0]}" in capsys.readouterr().out


def test_risk_names_the_points(split, tmp_path, capsys):
    assert status("risk", split, "--top", 3, "--out", tmp_path / "out", "--json") == 0
    top = json.loads(capsys.readouterr().out)["top"]
    names = load_data(split).train_names
    assert [row["file"] for row in top] == [names[row["index"]] for row in top]
    assert top[0]["file"] == "train/a/04.png"  # it occurs twice
    with open(tmp_path / "out" / "risk.csv", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == list(names)
    assert status("risk", split, "--top", 3) == 0
    assert any(line.endswith("  train/a/04.png") for line in capsys.readouterr().out.splitlines())
