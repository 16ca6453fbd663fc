"""--gap, --gap-keep, --sampler, --ci and --dry-run of geomem train."""

import json

import numpy as np
import pytest
from commands import status
from PIL import Image

import geomem
from geomem.noise import DDPMSchedule

DIGITS = ["digits", "--n-train", "60", "--n-heldout", "300"]
TRAIN = ["train", *DIGITS, "--network", "mlp", "--iterations", "2"]


@pytest.fixture(scope="module")
def zone_directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("zones") / "digits"
    assert status("danger-zone", *DIGITS, "--sigmas", "12", "--out", path) == 0
    return path


def resolved(capsys, tmp_path, *options):
    """The JSON of a dry run, which leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert status(*TRAIN, *options, "--dry-run", "--out", tmp_path / "run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("options", "gaps"), [
    (["0.1:0.5", "2:5"], [[0.1, 0.5], [2, 5]]),
    (["2:5,0.1:0.5", "4:6"], [[0.1, 0.5], [2, 6]]),
    (["125t:325t"], [list(DDPMSchedule().sigma_range(125, 325))]),
    (["0t:9t", "990t:999t"], [[0, DDPMSchedule().cell_edges[10]], [DDPMSchedule().cell_edges[990], None]]),
])
def test_several_gaps(options, gaps, capsys, tmp_path):
    given = [word for gap in options for word in ("--gap", gap)]
    sampler = resolved(capsys, tmp_path, "--sampler", "uniform", *given)["config"]["sampler"]
    assert sampler["gaps"] == gaps
    assert sampler["keep"] == 0


def test_soft_gap_of_a_file_with_another(zone_directory, capsys, tmp_path):
    options = ["--gap", zone_directory, "--gap", "300t:310t", "--gap-keep", "0.25", "--sampler", "uniform"]
    document = resolved(capsys, tmp_path, *options)
    low, high = geomem.read_zone(zone_directory)
    assert geomem.read_zone(zone_directory / "danger-zone.json") == (low, high)
    sampler = document["config"]["sampler"]
    assert sampler["gaps"] == [[low, high], list(DDPMSchedule().sigma_range(300, 310))]
    inside = np.sum((DDPMSchedule().sigmas >= low) & (DDPMSchedule().sigmas <= high)) + 11
    assert document["noise_levels"]["removed_mass"] == pytest.approx(0.75 * inside / 1000, abs=1e-12)


def test_run_records_a_law_that_anybody_can_make_again(tmp_path, capsys):
    options = ["--ci", "auto", "--gap", "zone", "--gap-keep", "0.5"]
    expected = resolved(capsys, tmp_path, *options)
    assert status(*TRAIN, *options, "--out", tmp_path / "run") == 0
    error = capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {**expected["config"], "format": "geomem.run/1"} == config
    sampler = geomem.NoiseLevelSampler.from_dict(config["sampler"])
    zone = json.loads((tmp_path / "run" / "danger-zone.json").read_text())["zone"]
    assert sampler.gaps == ((zone["sigma_low"], zone["sigma_high"]),)
    assert sampler.keep == 0.5
    base = sampler.base
    # At the threshold of the zone the curve of W ends it, so the interval begins where the zone ends.
    assert base.c_low == np.sum(DDPMSchedule().sigmas <= zone["sigma_high"])
    assert (base.c_high, base.coverage) == (1000, 0.9)
    assert f"{sampler.removed_mass:.1%} of the draws removed" in error
    for row in expected["noise_levels"]["quantiles"]:
        assert sampler.cdf(row["sigma"]) >= row["share"] - 1e-9 >= sampler.cdf(row["sigma"], inclusive=False) - 2e-9
        assert DDPMSchedule().sigmas[row["timestep"]] == row["sigma"]
    assert Image.open(tmp_path / "run" / "noise-level-law.png").size[0] > 500
    assert status(*TRAIN, *options[:-1], "0.6", "--out", tmp_path / "run", "--resume") == 2
    assert "sampler.keep = 0.5" in capsys.readouterr().err


def test_gap_of_other_data_or_of_another_space_is_told(zone_directory, tmp_path, capsys):
    assert status("danger-zone", *DIGITS, "--sigmas", "12", "--space", "pca:10", "--out", tmp_path / "pca") == 0
    for gap, options, said, unsaid in (
            (zone_directory, [], "", "note: --gap"), (tmp_path / "pca", [], "in the space pca:10", "other data"),
            (zone_directory / "danger-zone.json", ["--n-train", "50"], "is the zone of other data: digits, 60 training "
             "and 300 held-out points; here they are digits, 50", "in the space")):
        capsys.readouterr()
        assert status(*TRAIN, *options, "--gap", gap, "--dry-run", "--out", tmp_path / "run") == 0
        error = capsys.readouterr().err
        assert said in error
        assert unsaid not in error


def test_auto_gap_and_auto_interval_need_the_curves_once(monkeypatch, capsys, tmp_path):
    import geomem.noise.danger_zone as zones

    calls = []
    plain = zones.measured
    monkeypatch.setattr(zones, "measured", lambda *a, **k: calls.append(1) or plain(*a, **k))
    sampler = resolved(capsys, tmp_path, "--gap", "auto", "--ci", "auto")["config"]["sampler"]
    assert len(calls) == 1
    # The gap ends where the interval begins.
    assert sampler["base"]["c_low"] == np.sum(DDPMSchedule().sigmas <= sampler["gaps"][0][1])


@pytest.mark.parametrize(("options", "word"), [
    (["--gap", "none", "--gap", "0.1:0.2"], "stands alone"), (["--gap", "0.1:0.2,none"], "stands alone"),
    (["--gap-keep", "0.1"], "without a gap"), (["--gap", "0.1:0.2", "--gap-keep", "1"], "--gap-keep"),
    (["--gap", "0.1:0.2", "--gap-keep", "-0.1"], "--gap-keep"),
    (["--gap", "125t:2000t"], "last <= 999"), (["--gap", "325t:125t"], "first <= last"),
    (["--gap", "125t:325"], "LOt:HIt"), (["--gap", ""], "LO:HI"), (["--gap", "0t:999t"], "no noise level"),
    (["--gap", "-1:2"], "0 <= low"), (["--sampler", "ci"], "--ci auto"), (["--ci", "high"], "--ci"),
    (["--ci", "auto", "--sampler", "uniform"], "--ci has no effect"), (["--gap", "."], "no such file"),
])
def test_wrong_options_are_one_line_and_leave_nothing(options, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status(*TRAIN, *options, "--out", tmp_path / "run") == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("geomem: ")]
    assert len(errors) == 1
    assert word in errors[0]
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


def test_read_zone_refuses_what_is_no_zone(zone_directory, tmp_path):
    document = json.loads((zone_directory / "danger-zone.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps({**document, "zone": None}))
    for path, word in ((tmp_path / "none.json", "holds no danger zone"), (tmp_path / "gone.json", "no such file")):
        with pytest.raises(geomem.InputError, match=word):
            geomem.read_zone(path)


def test_auto_interval_without_a_gap_to_recommend(capsys, tmp_path):
    """Held-out points so far from the line of training points that W has fallen before shells matter."""
    points = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    np.savez(tmp_path / "line.npz", train=points, heldout=10 + 10 * points)
    assert status("train", tmp_path / "line.npz", "--network", "mlp", "--ci", "auto", "--out", tmp_path / "run") == 2
    assert "--ci auto begins where" in capsys.readouterr().err
