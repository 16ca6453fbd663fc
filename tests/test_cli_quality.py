"""``geomem quality`` as a person meets it: the table, runs of one setting, the picture, what is refused."""

import errno
import json
import tempfile

import numpy as np
import pytest
from commands import status
from PIL import Image

from geomem import load_data
from geomem.cli.quality import CHEAP, INCEPTION
from geomem.errors import counted
from geomem.memorization import leaning
from geomem.plots import plot_pareto
from geomem.quality import METRICS, Judge
from geomem.statistics import mean_over_runs, wilson_interval


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Digits as data, and samples of two settings, two runs each: copies by half, and noisy held-out points."""
    folder, data = tmp_path_factory.mktemp("quality"), load_data("digits", n_train=60)
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", train=data.train, heldout=data.heldout[:300])
    for run in range(2):
        fresh = data.heldout[300 + 100 * run:][:80]
        copied = np.concatenate([data.train[:40], fresh[:40]]) + 1e-3 * rng.standard_normal(fresh.shape)
        np.savez(folder / f"copied{run}.npz", samples=copied.astype(np.float32))
        noisy = fresh + 0.3 * rng.standard_normal(fresh.shape)
        np.savez(folder / f"noisy{run}.npz", samples=noisy.astype(np.float32))
    return folder


def command(files, *names):
    return ["quality", *(files / f"{name}.npz" for name in names), "--data", files / "data.npz"]


def json_of(capsys, *arguments):
    capsys.readouterr()
    assert status(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def samples_of(files, name):
    with np.load(files / f"{name}.npz") as file:
        return file["samples"]


def test_cheap_by_default_and_more_on_request(files, capsys):
    assert status(*command(files, "copied0", "noisy0"), "--label", "copied", "--label", "noisy") == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0].split() == ["samples", "n", "memorized", "nearer", "to", "train", "Frechet", "(px)",
                               "median", "NN"]
    assert [line.split()[0] for line in text[2:5]] == ["copied", "noisy", "held-out"]
    assert "50.0% [39.3, 60.7]" in text[2]  # Wilson's interval of 40 in 80
    document = json_of(capsys, *command(files, "copied0"), "--all")
    assert document["format"] == "geomem.quality/1"
    assert document["settings"] == {"metrics": list(CHEAP[1:]), "features": "pixels", "seed": 0, "fid_weights": None}
    assert CHEAP + INCEPTION == METRICS
    data = load_data(str(files / "data.npz"))
    expected = Judge(data.train, data.test, CHEAP[1:]).measure(samples_of(files, "copied0"))
    assert document["rows"][0]["metrics"] == json.loads(json.dumps([figure.to_dict() for figure in expected]))
    assert status(*command(files, "copied0"), "--all", "--features", "pca:5") == 0
    text = capsys.readouterr().out
    assert max(map(len, text.split("\n\n")[0].splitlines())) <= 118
    for title in ("Frechet (pca:5)", "MMD^2 (pca:5)", "recall (pca:5)", "W1 (pc1)", "JS (pc2)", "JS (px)", "mean L2"):
        assert title in text


def test_files_of_one_label_are_runs_of_one_setting(files, tmp_path, capsys):
    names = ["copied0", "copied1", "noisy0", "noisy1"]
    labels = [part for name in names for part in ("--label", name[:-1])]
    assert status(*command(files, *names), *labels, "--metric", "pr", "--out", tmp_path / "new" / "q.json",
                  "--pareto", tmp_path / "p.png") == 0
    assert "mean of 2: copied  160  50.0%" in capsys.readouterr().out
    document = json.loads((tmp_path / "new" / "q.json").read_text())
    columns = next(mean["columns"] for mean in document["means"] if mean["label"] == "noisy")
    values, stderrs = ([row["quality"][name] for row in document["rows"][2:]] for name in ("frechet", "frechet_stderr"))
    expected = mean_over_runs(values, stderrs)
    assert (columns["Frechet (px)"]["mean"], columns["Frechet (px)"]["high"]) == pytest.approx(
        (expected.mean, expected.high))
    none = columns["memorized"]  # nothing memorized in either run, yet not certainly 0
    assert (none["mean"], none["low"]) == (0, 0)
    assert 0.01 < none["high"] < 0.1
    assert set(columns) == {"memorized", "nearer to train", "Frechet (px)", "precision (px)", "recall (px)"}
    assert Image.open(tmp_path / "p.png").size[0] > 500


def test_runs_that_all_copy_are_not_certain_to(files, tmp_path, capsys):
    """Wilson's interval of 60 in 60 ends at 1: its length below, over 1.96, is the error of each of the runs."""
    data = load_data(str(files / "data.npz"))
    for run in range(2):
        np.savez(tmp_path / f"{run}.npz", samples=data.train + np.float32(1e-3 * run))
    mean = json_of(capsys, "quality", tmp_path / "0.npz", tmp_path / "1.npz", "--data", files / "data.npz", "--label",
                   "a", "--label", "a")["means"][0]["columns"]["memorized"]
    assert (mean["mean"], mean["high"]) == (1, 1)
    assert 1 - mean["low"] == pytest.approx((1 - wilson_interval(60, 60)[0]) / 2**0.5)


def test_every_file_made_with_other_data_is_noted(files, tmp_path, capsys):
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in paths:
        np.savez(path, samples=samples_of(files, "noisy0"), about='{"data": {"sha256": "other"}}')
    assert status(*command(files, "copied0"), *paths) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [note.split()[1] for note in notes] == [str(path) for path in paths]
    assert all("other data" in note for note in notes)


def test_files_of_different_sizes_have_floors_of_their_own(files, tmp_path, capsys):
    """Of 200 points that judge, 80 samples are held against 120 and 12 against 188."""
    np.savez(tmp_path / "few.npz", samples=samples_of(files, "noisy0")[:12])
    arguments = [*command(files, "noisy0"), tmp_path / "few.npz"]
    many, few = (row["quality"] for row in json_of(capsys, *arguments)["rows"])
    assert (many["floor_n"], few["floor_n"]) == ([80, 120], [12, 188])
    assert status(*arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "80 of them against 120 others, where others are needed, for the first file" in text
    for row, sizes in ((many, "80 against 120"), (few, "12 against 188")):
        assert (f"{row['frechet_at_floor_size']:.2f} ({sizes}, where held-out data reach "
                f"{row['frechet_floor']:.2f})") in text
    assert status(*command(files, "noisy0", "copied0")) == 0
    assert "at those sizes the Frechet distance" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_written_is_found_before_the_work(files, tmp_path, capsys, monkeypatch):
    makes = tempfile.TemporaryFile

    def locked(dir):
        if "locked" in str(dir):
            raise PermissionError(errno.EACCES, "Permission denied")
        return makes(dir=dir)

    monkeypatch.setattr("geomem.generation.read_samples", lambda *_, **__: pytest.fail("the work began"))
    monkeypatch.setattr(tempfile, "TemporaryFile", locked)  # root may write anywhere
    (tmp_path / "file").write_text("")
    (tmp_path / "locked").mkdir()
    for option, path, words in (
            ("--out", tmp_path, "is a directory"), ("--out", tmp_path / "file" / "q.json", "cannot be written"),
            ("--pareto", tmp_path / "p.txt", ".png"), ("--pareto", tmp_path / "file" / "p.png", "cannot be written"),
            ("--out", tmp_path / "locked" / "deeper" / "q.json", "cannot be written")):
        assert status(*command(files, "copied0"), option, path) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "locked"]


@pytest.mark.parametrize(("options", "n", "least"), [([], 1, 2), (["--metric", "mmd"], 3, 4)])
def test_too_few_samples_are_named_with_their_file(files, tmp_path, capsys, options, n, least):
    np.savez(tmp_path / "few.npz", samples=samples_of(files, "copied0")[:n])
    assert status(*command(files, "copied0"), tmp_path / "few.npz", *options) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"few.npz holds {counted(n, 'sample')}; what is measured needs {least} or more" in error
    np.savez(tmp_path / "few.npz", samples=np.zeros((least, 1, 8, 8), np.float32))
    assert status(*command(files, "copied0"), tmp_path / "few.npz", *options) == 0


@pytest.mark.parametrize(("factor", "shift", "noted"), [
    (1, 0, False), (0.2, 0.3, True), (50, 127.5, True), (1, 1.5, True), (1.2, 0.1, False)])
def test_samples_on_another_scale_are_noted(factor, shift, noted, files, tmp_path, capsys):
    np.savez(tmp_path / "scaled.npz", samples=samples_of(files, "copied0") * np.float32(factor) + np.float32(shift))
    for arguments in (command(files, "copied0"), ["memorization", "--data", files / "data.npz"]):
        assert status(*arguments, tmp_path / "scaled.npz") == 0
        assert ("samples on another scale are never taken for copies" in capsys.readouterr().err) == noted


@pytest.mark.parametrize("scale", [0, 1e15])
def test_no_column_is_wider_than_a_number(scale, files, tmp_path, capsys):
    """Samples that are all alike, whose intervals have no width, and the largest that are judged."""
    samples = np.random.default_rng(0).uniform(-scale, scale, (9, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "s.npz", samples=samples)
    assert status("quality", tmp_path / "s.npz", "--data", files / "data.npz", "--all", "--label", "s") == 0
    captured = capsys.readouterr()
    assert "Warning" not in captured.err
    table = captured.out.split("\n\ndata: ")[0].translate(str.maketrans("[],", "   "))
    cells = [cell for cell in table.split() if cell.strip("-")]
    assert max(map(len, cells)) <= 12
    assert not any(cell.startswith("-") and not cell.strip("-0.") for cell in cells)  # no -0.000


def test_the_picture_names_every_setting_and_no_negative_share(files, tmp_path):
    point = {"quality": {"value": 1.0, "low": 0.5, "high": 1.5}, "share": {"value": 0.0, "low": 0.0, "high": 0.1}}
    figure = plot_pareto([("_a", point, [point]), ("$b$", point, [point])], (0.5, 0.0), xlabel="x", title="$t$")
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == [" _a", r"\$b\$"]
    assert min(figure.axes[0].get_yticks()) >= 0


def test_leaning_stands_beside_the_memorized_share(files, tmp_path, capsys):
    document = json_of(capsys, *command(files, "copied0", "noisy0"), "--pareto", tmp_path / "p.png")
    copied, noisy = (row["leaning"] for row in document["rows"])
    data = load_data(str(files / "data.npz"))
    assert copied == leaning(samples_of(files, "copied0"), data.train, data.test).to_dict()
    assert copied["share"] > 0.7  # half of them are copies
    assert copied["p_value"] < 0.01
    assert noisy["low"] < 0.5 < noisy["high"]
    assert status(*command(files, "copied0")) == 0
    text = capsys.readouterr().out
    assert f"{copied['share']:.1%}" in text.splitlines()[2]
    assert f"{copied['floor']['share']:.1%}" in text.splitlines()[3]
