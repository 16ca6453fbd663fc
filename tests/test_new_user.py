"""What somebody meets in the first hour: options that fit together, laws by their names, and words before long work."""

import json

import numpy as np
import pytest
from commands import status

from geomem.errors import are, counted


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Two classes, one of two training points and a held-out one."""
    path, rng = tmp_path_factory.mktemp("data") / "labelled.npz", np.random.default_rng(0)
    np.savez(path, train=rng.normal(size=(40, 9)).astype("f"), heldout=rng.normal(size=(20, 9)).astype("f"),
             train_labels=(np.arange(40) > 1).astype(int), heldout_labels=(np.arange(20) > 0).astype(int))
    return path


@pytest.mark.parametrize("command", ["memorization", "audit"])
def test_a_run_is_judged_by_the_sampler_and_steps_of_generate(command, run_of_digits, tmp_path, capsys):
    levels = ["--sigmas", 2] if command == "memorization" else []
    assert status(command, run_of_digits, "--n-samples", 12, *levels, "--sampler", "euler", "--steps", 5, "--json",
                  "--out", tmp_path / "out") == 0
    about = json.loads(capsys.readouterr().out)["about"]
    assert (about["method"], about["steps"]) == ("euler", 5)
    assert status("generate", run_of_digits, "--seeds", "0-11", "--sampler", "euler", "--steps", 5, "--out",
                  tmp_path / "same.npz") == 0
    judged, same = (np.load(path)["samples"] for path in (tmp_path / "out" / "samples.npz", tmp_path / "same.npz"))
    np.testing.assert_array_equal(judged, same)
    capsys.readouterr()
    assert status(command, tmp_path / "same.npz", "--steps", 5) == 2
    assert "--sampler and --steps have no effect on the samples" in capsys.readouterr().err
    assert status(command, tmp_path / "misspelt", "--steps", 5) == 2
    assert "misspelt: no such" in capsys.readouterr().err


def test_danger_zone_and_bounds_agree_on_the_crossing(capsys):
    """Within the interval of danger-zone; bounds reads between its levels, and says so."""
    assert status("danger-zone", "digits", "--n-train", 60, "--sigmas", 10, "--json") == 0
    zone = json.loads(capsys.readouterr().out)["zone"]
    assert status("bounds", "digits", "--n-train", 60) == 0
    text = capsys.readouterr().out
    crossing = float(next(line for line in text.splitlines() if line.startswith("      60")).split()[3])
    assert zone["crossing_low"] < crossing < zone["crossing_high"]
    assert "read between the levels above, a factor of " in text


def test_the_share_that_a_gap_removes_names_its_law(tmp_path, capsys):
    options = ["digits", "--n-train", 60, "--gap", "0.3:1.5", "--dry-run", "--out", tmp_path / "run"]
    for more, law in (([], "EDM's law, scaled to the data"),
                      (["--objective", "ddpm"], "the law uniform over timesteps"),
                      (["--objective", "flow"], "law of flow times")):
        assert status("train", *options, *more) == 0
        assert law in capsys.readouterr().err.split("draws removed, those of ")[1].splitlines()[0]
    assert status("danger-zone", "digits", "--n-train", 60, "--sigmas", 6) == 0
    assert "of the noise levels of EDM's published law" in capsys.readouterr().out


def test_pareto_draws_what_its_help_says(tmp_path, capsys, monkeypatch):
    rng, drawn = np.random.default_rng(0), []
    train, heldout, samples = rng.normal(size=(3, 40, 9)).astype("f")
    np.savez(tmp_path / "d.npz", train=train, heldout=heldout)
    np.savez(tmp_path / "s.npz", samples=samples)
    import geomem.plots

    original = geomem.plots.plot_pareto
    monkeypatch.setattr(geomem.plots, "plot_pareto", lambda *a, **k: drawn.append(k["xlabel"]) or original(*a, **k))
    for options, first in ((["--all"], "Frechet (px)"), (["--metric", "mmd"], "MMD^2 (px)"), ([], "Frechet (px)"),
                           (["--metric", "frechet", "--metric", "mmd"], "Frechet (px)"),
                           (["--metric", "mmd", "--all"], "MMD^2 (px)")):
        assert status("quality", tmp_path / "s.npz", "--data", tmp_path / "d.npz", *options, "--pareto",
                      tmp_path / "p.png") == 0
        assert drawn[-1].startswith(f"{first},"), options


def test_a_class_of_two_points_gets_a_word_and_no_zone(labelled, capsys):
    assert status("danger-zone", labelled, "--per-class", "--sigmas", 5, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["notes"][-1] == ("class 0 is left out: 2 training points and 1 held-out point; it needs 3 and 1")


@pytest.mark.parametrize(("objective", "told"), [("ddpm", True), ("edm", False)])
def test_a_network_that_diffusers_cannot_hold_is_named_before_training(objective, told, tmp_path, capsys):
    assert status("train", "digits", "--n-train", 30, "--network", "unet-tiny", "--objective", objective,
                  "--iterations", 2, "--batch", 4, "--watch-every", 0, "--out", tmp_path / "run") == 0
    error = capsys.readouterr().err
    note = "geomem export will make no DDPMPipeline of this run: its network is not a UNet2DModel"
    assert (note in error) == told
    assert not told or error.index(note) < error.index("M parameters")


def test_one_is_singular():
    assert [counted(n, "point") for n in (0, 1, 2, 1000)] == ["0 points", "1 point", "2 points", "1,000 points"]
    assert [f"{counted(n, 'class')} {are(n)}" for n in (1, 2)] == ["1 class is", "2 classes are"]


def test_one_held_out_point_and_one_value_are_singular(tmp_path, capsys):
    data = np.arange(30, dtype=np.float32)[:, None] ** 2
    np.savez(tmp_path / "one.npz", train=data, heldout=data[-1:] + 1)
    assert status("danger-zone", tmp_path / "one.npz", "--sigmas", 3) == 0
    assert capsys.readouterr().out.startswith("one: 30 training and 1 held-out point of 1 value\n")


def test_the_verb_follows_the_number(tmp_path, capsys):
    train = np.random.default_rng(0).normal(size=(30, 4)).astype("f")
    for n, words in ((1, "note: 1 of 20 held-out points is equal or nearly equal"), (2, "2 of 20 held-out points are")):
        np.savez(tmp_path / "data.npz", train=train, heldout=np.concatenate([train[:n], train[n:20] + 1]))
        assert status("data", "show", tmp_path / "data.npz") == 0
        assert words in "".join(capsys.readouterr())


def test_labels_that_do_not_fit_a_model_of_classes_are_refused_before_sampling(tmp_path, capsys):
    """The message speaks of the model that is there, not of an option of another command."""
    rng = np.random.default_rng(0)
    data, run = tmp_path / "data.npz", tmp_path / "run"
    train, heldout = rng.normal(size=(30, 6)).astype("f"), rng.normal(size=(30, 6)).astype("f")
    np.savez(data, train=train, heldout=heldout, train_labels=np.arange(30) % 2, heldout_labels=np.arange(30) % 2)
    assert status("train", data, "--conditional", "--iterations", 2, "--batch", 4, "--watch-every", 0,
                  "--out", run) == 0
    capsys.readouterr()
    for labels, words in (({}, "the training points have no labels and"),
                          ({"train_labels": np.arange(30) % 3, "heldout_labels": np.arange(30) % 3},
                           "training points of class 2, but")):
        np.savez(tmp_path / "other.npz", train=train, heldout=heldout, **labels)
        assert status("memorization", run, "--data", tmp_path / "other.npz", "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert words in error
        assert "--conditional" not in error
        assert "sample" not in error.split("geomem:")[0]
        assert not (tmp_path / "out").exists()


def figures(tmp_path, train, heldout, samples):
    np.savez(tmp_path / "d.npz", train=train.astype("f"), heldout=heldout.astype("f"))
    np.savez(tmp_path / "s.npz", samples=samples.astype("f"))
    return [tmp_path / "s.npz", "--data", tmp_path / "d.npz"]


def test_few_distinct_values_constant_columns_and_a_single_sample_are_answered_or_refused_in_one_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    coins, normal = rng.integers(0, 2, (150, 2)), np.c_[rng.normal(size=(150, 4)), np.full(150, 7)]
    for points, expected in ((coins, 2), (normal, 0)):
        for command in ("memorization", "audit", "quality"):
            assert status(command, *figures(tmp_path, points[:60], points[60:100], points[100:])) == expected
            assert capsys.readouterr().err.count("geomem:") == (expected == 2)
    single = figures(tmp_path, normal[:60], normal[60:100], normal[100:101])
    assert status("quality", *single) == 2
    assert "holds 1 sample; what is measured needs 2 or more" in capsys.readouterr().err
    assert status("audit", *single) == 0
    assert "verdict: none can be given" in capsys.readouterr().out


def test_frechet_is_finite_below_full_rank_and_compared_at_equal_numbers(tmp_path, capsys):
    """More values than points, samples that are all alike, and samples of which there are many more than held out."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(90, 100))
    for samples in (points[60:], np.tile(points[:1], (30, 1)), rng.normal(size=(400, 100))):
        assert status("quality", *figures(tmp_path, points[:30], points[30:60], samples), "--json") == 0
        quality = json.loads(capsys.readouterr().out)["rows"][0]["quality"]
        assert np.isfinite([quality[name] for name in ("frechet", "frechet_low", "frechet_high")]).all()
        if len(samples) == 400:  # of one law: as far as held-out points at their number, and nearer at its own
            assert quality["frechet_at_floor_size"] == pytest.approx(quality["frechet_floor"], rel=0.1)
            assert quality["frechet"] < 0.8 * quality["frechet_floor"]


def test_copies_far_from_the_origin_have_distance_zero(tmp_path, capsys):
    points = np.random.default_rng(0).normal(size=(200, 50)) + 1e4
    assert status("memorization", *figures(tmp_path, points[:100], points[100:], points[:50]), "--json") == 0
    trajectory = json.loads(capsys.readouterr().out)["trajectory"]
    assert (trajectory["rate"], trajectory["median_nearest_distance"]) == (1, 0)


def test_data_that_moved_are_asked_for(tmp_path, capsys):
    np.savez(tmp_path / "d.npz", train=np.eye(12, dtype=np.float32), heldout=np.eye(12, dtype=np.float32) + 1)
    about = {"data": {"spec": str(tmp_path / "gone.npz"), "sha256": "", "heldout": None, "n_train": None,
                      "n_heldout": None, "shuffle": False, "seed": 0}}
    np.savez(tmp_path / "s.npz", samples=np.eye(12, dtype=np.float32), about=json.dumps(about))
    assert status("memorization", tmp_path / "s.npz") == 2
    assert "name them with --data where they are now" in capsys.readouterr().err
    assert status("memorization", tmp_path / "s.npz", "--data", tmp_path / "d.npz") == 0
