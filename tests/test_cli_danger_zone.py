"""geomem danger-zone: options, text, files, notes."""

import json
import re

import numpy as np
import pytest
from commands import status

import geomem
from geomem import load_data
from geomem.geometry import find_danger_zone, geometry_curves, principal_components, refined_curves
from geomem.plots import plot_curves

DIGITS = ["digits", "--n-train", "60", "--n-heldout", "300"]
QUICK = ["--sigmas", "12"]


def document_from(capsys, *arguments):
    capsys.readouterr()
    assert status("danger-zone", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def labelled(path, train, heldout):
    """An .npz of 5 values with so many training and held-out points of each class."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, sizes in (("train", train), ("heldout", heldout)):
        labels = np.repeat(list(sizes), list(sizes.values()))
        arrays |= {part: (rng.standard_normal((len(labels), 5)) * (1 + labels[:, None])).astype(np.float32),
                   f"{part}_labels": labels}
    np.savez(path, **arrays)
    return path


def test_zone_is_that_of_the_refined_curves_and_the_curves_those_asked_for(capsys):
    """The command, the function ``danger_zone`` and its parts say the same."""
    document = document_from(capsys, *DIGITS, *QUICK)
    data = load_data("digits", n_train=60, n_heldout=300)
    report = geomem.danger_zone(data.train, data.heldout, sigmas=12)
    own = {"name": "digits", "sha256": data.sha256, "leaked": 0}
    body = json.loads(json.dumps(report.to_dict()))
    assert {**body, "data": body["data"] | own, "seconds": document["seconds"]} == document
    assert (report.reason, report.notes, report.thresholds) == (None, (), report.curves.thresholds)
    assert len(report.plot().axes[0].patches) == 5  # zone, crossing, two edges, the legend's entry of the intervals
    assert "coverage" in geomem.danger_zone(data.train, data.heldout, sigmas=[0.05, 0.1]).reason
    curves = geometry_curves(data.train, data.heldout, sigmas=12)
    zone = find_danger_zone(refined_curves(data.train, data.heldout, curves))
    assert document["curves"]["sigma"] == curves.sigma.tolist()
    for name in ("sigma_low", "sigma_high", "crossing", "crossing_low", "crossing_high", "resolution"):
        assert document["zone"][name] == getattr(zone, name), name
    assert document["zone"]["sigma_low_interval"] == list(zone.sigma_low_interval)
    assert document["zone"]["sigma_high_interval"] == list(zone.sigma_high_interval)
    assert document["zone"]["resolution"] <= 1e-3
    assert document["zone"]["sigma_low"] != find_danger_zone(curves).sigma_low
    assert document["levels_added"] > 20
    assert document["space"] == {"name": "data", "dim": 64}
    assert (document["notes"], "classes" in document) == ([], False)
    document = document_from(capsys, *DIGITS, *QUICK, "--resolution", "1")  # that of the grid
    assert document["levels_added"] == 0
    assert document["zone"]["resolution"] == pytest.approx(np.log(4000) / 11)


def test_text_for_people(capsys):
    assert status("danger-zone", *DIGITS, *QUICK, "--space", "pca:10", "--per-class") == 0
    lines = capsys.readouterr().out.splitlines()
    number = r"[0-9.]+ \[[0-9.]+, [0-9.]+\]"
    found = {line[:13].strip(): line[13:] for line in lines if line[:13].strip()}
    assert re.match(rf"sigma {number} to {number}  \(W and C", found["danger zone"])
    assert "apart in log sigma" in found["read"]
    assert found["draws"].startswith("4 per training and 8 per held-out point")
    assert found["space"].startswith("10 principal components of 64 values, ")
    assert [line.split()[0] for line in lines[-10:]] == list("0123456789")


def test_space_is_the_projection_fitted_on_the_training_points(capsys):
    document = document_from(capsys, *DIGITS, *QUICK, "--space", "pca:10")
    data = load_data("digits", n_train=60, n_heldout=300)
    projection = principal_components(data.train, 10)
    curves = geometry_curves(projection(data.train), projection(data.heldout), sigmas=12)
    assert document["curves"]["coverage"]["estimate"] == curves.coverage.estimate.tolist()
    assert document["space"] == {"name": "pca:10", "dim": 10, "data_dim": 64,
                                 "variance_kept": projection.variance_kept}
    assert document["data"]["dim"] == 10
    assert document["data"]["sha256"] == data.sha256


def test_tolerance_raises_the_draws_and_tells_what_limits(capsys):
    document = document_from(capsys, *DIGITS, *QUICK, "--tolerance", "0.025", "--max-draws", "40")
    wide = {name: max((high - low) / 2 for low, high in zip(curve["low"], curve["high"], strict=True))
            for name, curve in document["curves"].items() if name in ("max_posterior_weight", "coverage")}
    assert wide["max_posterior_weight"] <= 0.025 < wide["coverage"]
    assert 4 < document["settings"]["posterior_draws"] <= 40
    assert len(document["notes"]) == 1
    assert "limited by the 300 held-out points" in document["notes"][0]
    assert document["settings"]["tolerance"] == 0.025
    assert status("danger-zone", *DIGITS, *QUICK, "--tolerance", "0.025", "--max-draws", "40") == 0
    text = capsys.readouterr().out
    assert f"draws        {document['settings']['posterior_draws']} per training" in text
    assert document["notes"][0] in text


def test_per_class(tmp_path, capsys):
    path = labelled(tmp_path / "classes.npz", {0: 40, 1: 30, 2: 1, 3: 5}, {0: 50, 1: 40, 2: 9, 4: 3})
    document = document_from(capsys, path, "--per-class", "--threshold", "0.6", "--out", tmp_path / "zone")
    whole = document_from(capsys, path, "--threshold", "0.6")
    assert document["zone"] == whole["zone"]
    assert [part["class"] for part in document["classes"]] == [0, 1]
    assert [note.split(":")[0] for note in document["notes"]] == [f"class {k} is left out" for k in (2, 3, 4)]
    with np.load(path) as arrays:
        alone = geometry_curves(arrays["train"][:40], arrays["heldout"][:50])
        zone = find_danger_zone(refined_curves(arrays["train"][:40], arrays["heldout"][:50], alone, threshold=0.6), 0.6)
    first, second = document["classes"]
    assert first["data"]["n_heldout"] == 50
    assert first["curves"]["coverage"]["estimate"] == alone.coverage.estimate.tolist()
    assert first["zone"]["sigma_low"] == zone.sigma_low
    assert second["zone"]["sigma_low"] > 1.5 * zone.sigma_low  # its points are twice as far apart
    assert status("plot-curves", tmp_path / "zone", "--out", tmp_path / "again.png") == 0
    axes, = plot_curves([("a", document)]).axes
    plain, = plot_curves([("a", whole)]).axes
    assert len(axes.lines) == len(plain.lines) + 5  # W and C of two classes, their entry in the legend
    assert len(axes.patches) == len(plain.patches) == 5


def test_class_without_a_zone_has_a_reason(tmp_path, capsys):
    path = labelled(tmp_path / "classes.npz", {0: 40, 1: 30}, {0: 50, 1: 40})
    document = document_from(capsys, path, "--per-class", "--sigmas", "0.05,0.1")
    assert [part["zone"] for part in document["classes"]] == [None, None]
    assert all("coverage" in part["zone_reason"] for part in document["classes"])
    assert status("danger-zone", path, "--per-class", "--sigmas", "0.05,0.1") == 0
    assert "none: coverage" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "word"), [
    (["--space", "umap"], "pca:K"), (["--space", "pca:"], "pca:K"), (["--space", "pca:61"], "1 to 59"),
    (["--tolerance", "0"], "--tolerance"), (["--tolerance", "0.1", "--posterior-draws", "1"], "2 or more"),
    (["--tolerance", "0.1", "--max-draws", "4"], "at most 4"), (["--resolution", "0"], "--resolution"),
    (["--per-class"], "--per-class needs labels")])
def test_wrong_options_are_one_line(arguments, word, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", train=np.eye(20, 5), heldout=np.eye(20, 5))
    data = [tmp_path / "bare.npz"] if arguments == ["--per-class"] else DIGITS
    assert status("danger-zone", *data, *arguments) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("geomem: ")]
    assert len(errors) == 1
    assert word in errors[0]
    assert captured.out == ""
