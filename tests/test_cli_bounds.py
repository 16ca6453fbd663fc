"""``geomem bounds``: the document against the functions it is made of, the files, and what is refused."""

import csv
import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from commands import status

from geomem import InputError, load_data
from geomem.geometry import concentration_thresholds, geometry_curves
from geomem.plots import plot_bounds
from geomem.theory import coverage_by_training_size
from geomem.theory.summary import default_sizes

SIGMAS = [0.1, 0.3, 0.5, 0.8, 1.2, 2.0, 10.0]
ARGUMENTS = ["bounds", "digits", "--n-train", "80", "--n-heldout", "60", "--sigmas", ",".join(map(str, SIGMAS)),
             "--sizes", "10,20,40", "--points", "30", "--q", "0.9", "--delta", "0.1", "--seed", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("bounds") / "digits"
    with redirect_stdout(StringIO()) as stdout:
        assert status(*ARGUMENTS, "--json", "--out", out) == 0
    document = json.loads((out / "bounds.json").read_text())
    assert json.loads(stdout.getvalue()) == document
    return out, document


def test_document_obeys_the_theorems(made):
    _, document = made
    assert document["format"] == "geomem.bounds/1"
    assert document["sigma"] == SIGMAS
    levels = [values for part in ("coverage", "max_posterior_weight", "near_point", "flow") for values in
              document[part].values() if isinstance(values, list)]
    assert {len(values) for values in levels} == {len(SIGMAS)}
    near, flow = document["near_point"], document["flow"]
    assert near["probability"] == pytest.approx(0.9)
    for part in (near, flow):
        assert min(part["held"]) >= 0.9 - 4 * np.sqrt(0.09 / 30)
    np.testing.assert_allclose(flow["time"], 1 / (1 + np.array(SIGMAS)))
    assert flow["cosine"][0] > 0.999  # at small sigma, so the times must not be in their own order
    assert flow["informative"][0] == 1 > flow["informative"][-1]
    assert document["settings"] | {"points": 30, "q": 0.9, "seed": 2} == document["settings"]


def test_document_holds_what_the_functions_say(made):
    _, document = made
    data = load_data("digits", n_train=80, n_heldout=60, seed=2)
    curves = geometry_curves(data.train, data.heldout, sigmas=SIGMAS, seed=2)
    for part in ("estimate", "stderr", "low", "high"):
        assert document["coverage"][part] == getattr(curves.coverage, part).tolist()
    assert document["max_posterior_weight"]["estimate"] == curves.max_posterior_weight.estimate.tolist()
    assert document["coverage"]["lower_bound"] == curves.coverage_lower_bound.tolist()
    assert document["coverage"]["upper_bound"] == curves.coverage_upper_bound.tolist()
    assert document["coverage"]["plain_upper_bound"] == curves.coverage_plain_upper_bound.tolist()
    thresholds = concentration_thresholds(data.train, q=0.9, delta=0.1)
    shares = document["max_posterior_weight"]["share_concentrated"]
    assert shares == [np.mean(thresholds.concentrated_below >= sigma) for sigma in SIGMAS]
    assert 0 < shares[1] < shares[0] == 1
    spread = document["max_posterior_weight"]["share_spread"]
    assert spread == [np.mean(thresholds.spread_above <= sigma) for sigma in SIGMAS]
    by_size = coverage_by_training_size(data.train, data.heldout, SIGMAS, [10, 20, 40, 80], seed=2)
    assert document["by_size"]["sizes"] == [10, 20, 40, 80]
    assert document["by_size"]["coverage"] == by_size.estimate.tolist()
    assert document["gaussian"]["slope"] == pytest.approx(-2, abs=0.1)


def test_sensitivity_is_that_of_the_gaussian_denoiser(made):
    """J = Sigma (Sigma + sigma^2 I)^-1 by dense algebra: the row of the middle pixel of the 8 x 8 images."""
    _, document = made
    train = load_data("digits", n_train=80, n_heldout=60, seed=2).train
    covariance = np.cov(train.reshape(80, -1), rowvar=False, bias=True).astype(float)
    offset = np.abs(np.arange(8) - 4)
    ring = np.minimum(offset, 8 - offset)
    distance = np.maximum(ring[:, None], ring).ravel()
    for part, scale in zip(document["sensitivity"], (4, 16, 64), strict=True):
        sigma = part["sigma"]
        assert sigma == pytest.approx(scale * train.std(), rel=1e-6)
        row = abs(covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(64)))[4 * 8 + 4]
        assert part["distance"] == [1, 2, 3, 4]
        assert part["mean"] == pytest.approx([row[distance == r].mean() for r in (1, 2, 3, 4)], rel=1e-3)
        assert part["largest"] == pytest.approx([row[distance == r].max() for r in (1, 2, 3, 4)], rel=1e-3)
        assert part["own"] == pytest.approx(row[36], rel=1e-3)
        assert len(part["bound"]) == len(part["simple_bound"]) == 4
        assert all(sharp <= simple for sharp, simple in zip(part["bound"], part["simple_bound"], strict=True))


def test_files(made):
    out, document = made
    assert sorted(path.name for path in out.iterdir()) == ["bounds.csv", "bounds.json", "bounds.png"]
    with open(out / "bounds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["sigma"]) for row in rows] == SIGMAS
    assert [float(row["coverage_n20"]) for row in rows] == document["by_size"]["coverage"][1]
    assert [float(row["near_point_weight_bound"]) for row in rows] == document["near_point"]["weight_bound"]


def test_text_shows_bounds_beside_truth_and_a_dash_where_there_is_none(capsys):
    assert status(*ARGUMENTS) == 0
    out = capsys.readouterr().out
    assert "digits: 80 training and 60 held-out points of 64 values" in out
    for name in ("Theorem 4.8", "Theorem 4.2", "Theorem 4.9", "Lemma A.1", "Cor. A.2", "Theorem 4.11", "trend"):
        assert name in out
    near = out[out.index("near a training point"):out.index("Theorem 4.11")].splitlines()
    assert near[-2].split()[:2] == ["10", "-"]
    assert "-" not in near[4].split()
    assert "looked from" not in out
    assert "Theorem 4.9  all shells are disjoint below" in out
    # Of 80 training points 40 are looked from: the smallest distance between any two is then not known.
    assert status(*ARGUMENTS, "--queries", "40") == 0
    out = capsys.readouterr().out
    assert "looked from 40 and 40 random ones of them (--queries)" in out
    assert "Theorem 4.9  not known from some of the training points" in out


def test_figure_draws_the_measured_and_the_bounds(made):
    _, document = made
    figure = plot_bounds(document)
    assert len(figure.axes) == 8  # seven and an empty place
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(lines["measured"]) == document["coverage"]["estimate"]
    assert list(lines["lower bound"]) == document["coverage"]["lower_bound"]
    assert [len(axes.get_legend().get_texts()) > 1 for axes in figure.axes[:7]] == [True] * 7
    with pytest.raises(InputError, match="geomem bounds"):
        plot_bounds({"format": "geomem.danger-zone/1"})


@pytest.mark.parametrize(("extra", "words"), [
    (["--sizes", "5,x"], "training set sizes"), (["--sizes", "5,81"], "81"), (["--sizes", "1"], "1"),
    (["--q", "0.5"], "--q"), (["--delta", "0"], "--delta"), (["--points", "0"], "--points"),
    (["--sigmas", "-1"], "-1"), (["--out"], "bounds.json"), ([], "distinct")])
def test_what_is_wrong_is_one_line(made, tmp_path, capsys, extra, words):
    """The last two: a directory with results, and data whose points are all equal."""
    np.savez(tmp_path / "same.npz", train=np.ones((12, 3), np.float32), heldout=np.zeros((5, 3), np.float32))
    arguments = [*ARGUMENTS, *extra] if extra else ["bounds", tmp_path / "same.npz", "--sigmas", "1.0"]
    assert status(*arguments, *([made[0]] if extra == ["--out"] else [])) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("geomem: ")
    assert words in error


def test_default_sizes_halve():
    assert default_sizes(1000) == [31, 62, 125, 250, 500, 1000]
    assert default_sizes(45) == [11, 22, 45]
    assert default_sizes(4) == [4]
