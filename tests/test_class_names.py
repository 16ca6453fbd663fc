"""Names of classes go from the data into the run and back: shown, stored, and accepted by --label."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import status
from test_data import pictures
from test_data_official import encoded, table
from test_data_readers import png, write_tree

from geomem import InputError
from geomem.data import load_data
from geomem.training import Run, load_denoiser

pytestmark = pytest.mark.usefixtures("one_child")
SMALL = ["--network", "mlp", "--iterations", 2, "--watch-every", 0, "--batch", 8]


def folders(path, names, each=6):
    images = pictures(each * len(names), 4, 4)
    return write_tree(path, {f"{name}/{k}.png": png(images[each * i + k])
                             for i, name in enumerate(names) for k in range(each)})


def run_of(tmp_path, names):
    where = folders(tmp_path / "d", names)
    assert status("train", where, "--heldout", where, "--conditional", *SMALL, "--out", tmp_path / "run") == 0
    return tmp_path / "run"


@pytest.mark.parametrize(("names", "expected"), [
    (["dog", "cat"], ("cat", "dog")), (["10", "9", "8"], ("8", "9", "10")), (["b", "1"], ("1", "b"))])
def test_names_of_folders(tmp_path, names, expected):
    data = load_data(folders(tmp_path / "d", names))
    assert data.class_names == expected
    order = {name: label for label, name in enumerate(expected)}
    whole = load_data(tmp_path / "d", heldout=pictures(2, 4, 4))
    assert whole.train_labels.tolist() == [order[name] for name in sorted(names) for _ in range(6)]
    assert [whole.class_name(label) for label in (-1, 0, 1, 99)] == [None, *expected[:2], None]


def test_names_that_a_table_keeps(tmp_path):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    rows = {"image": encoded(pictures(6, 4, 4)), "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "d.parquet"))
    data = load_data(tmp_path / "d.parquet", heldout=pictures(2, 4, 4))
    assert (data.class_names, data.train_labels.tolist()) == (("zebra", "ant"), [0, 1] * 3)
    plain = load_data(table(tmp_path / "plain.parquet", rows), heldout=pictures(2, 4, 4))
    assert (plain.class_names, plain.train_labels.tolist()) == (None, [0, 1] * 3)


def test_names_are_shown(tmp_path, capsys):
    assert status("data", "show", folders(tmp_path / "d", ["dog", "cat"])) == 0
    assert "cat (label 0): " in capsys.readouterr().out
    assert status("data", "show", tmp_path / "d", "--json") == 0
    assert [(part["class"], part["name"]) for part in json.loads(capsys.readouterr().out)["classes"]] == [
        (0, "cat"), (1, "dog")]
    assert status("danger-zone", tmp_path / "d", "--heldout", tmp_path / "d", "--per-class", "--sigmas", 3) == 0
    assert "\n  dog  " in capsys.readouterr().out


def test_names_are_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("geomem.files.write_figure", lambda path, figure: drawn.append(figure))
    names = "cat", "convertible car"
    assert status("data", "show", folders(tmp_path / "d", names), "--out", tmp_path / "d.png") == 0
    assert [axes.get_title() for axes in drawn[0].axes[:12:6]] == ["cat", "convertib…"]


def test_names_that_are_the_labels_themselves_are_not_listed(tmp_path, capsys):
    train = pictures(12, 4, 4)
    np.savez(tmp_path / "d.npz", train=train, train_labels=np.array(list("012")).repeat(4), heldout=255 - train[:3],
             heldout_labels=np.array(list("012")))
    run = tmp_path / "run"
    assert status("train", tmp_path / "d.npz", "--conditional", *SMALL, "--out", run) == 0
    assert status("generate", run, "--label", 1, "--seeds", "0-3", "--out", tmp_path / "s.npz") == 0
    assert "is label" not in capsys.readouterr().err


def test_a_numbered_class_is_the_folder_of_that_name(tmp_path, capsys):
    run = run_of(tmp_path, ["8", "9", "10"])
    assert "classes: 8 is label 0, 9 is label 1, 10 is label 2" in capsys.readouterr().err
    assert tuple(Run(run).config[name] for name in ("labels", "class_names")) == ([0, 1, 2], ["8", "9", "10"])
    assert status("generate", run, "--label", 10, "--label", 8, "--seeds", "0-3", "--out", tmp_path / "s.npz") == 0
    assert "classes: 8 is label 0, 10 is label 2\n" in capsys.readouterr().err
    with np.load(tmp_path / "s.npz") as file:
        assert file["labels"].tolist() == [2, 0, 2, 0]
    assert status("generate", run, "--label", 0, "--out", tmp_path / "t.npz") == 2  # a label, and no folder
    assert "--label 0" in (line := capsys.readouterr().err.splitlines()[-1])
    assert "the classes 8, 9, 10; choose among these" in line


def test_a_class_by_name_or_by_number(tmp_path):
    model = load_denoiser(run_of(tmp_path, ["cat", "dog", "1"]))
    assert [model.label_of(given) for given in ("cat", "dog", "1", "0", "2", 1, 2)] == [1, 2, 0, 0, 2, 1, 2]
    for wrong in ("Cat", "3", "-1", 3, -1, "", "²"):
        with pytest.raises(InputError, match="the classes 1, cat, dog"):
            model.label_of(wrong)
    assert model.generate([0, 1], labels=["dog", 1]).labels.tolist() == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize("names", [["cat"], ["cat", 3], ["cat", "cat"], "ab", [None, None]])
def test_wrong_names_in_a_run(tmp_path, names):
    run = run_of(tmp_path, ["cat", "dog"])
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"class_names": names}))
    with pytest.raises(InputError, match="damaged"):
        Run(run).config  # noqa: B018


def test_a_run_from_before_names_were_kept_goes_on(tmp_path):
    run = run_of(tmp_path, ["cat", "dog"])
    config = json.loads((run / "config.json").read_text())
    del config["class_names"]
    (run / "config.json").write_text(json.dumps(config))
    assert status("train", tmp_path / "d", "--heldout", tmp_path / "d", "--conditional", *SMALL, "--resume", "--out",
                  run) == 0
    assert load_denoiser(run).label_of("1") == 1
