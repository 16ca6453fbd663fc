"""Every experiment runs at scale smoke, goes on where it stopped, and says plainly what agrees and what does not."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import experiments.__main__ as main
import numpy as np
import pytest
from click.testing import CliRunner
from experiments import RESULTS, denoising, dummy_and_gap, sources, timestep_gaps
from experiments.bench import Bench, Interval, against, claim, computed, measured, order, ranged, rounding_to, unlike
from experiments.judged import changed, judged
from experiments.pair import SMOKE
from experiments.pictures import encoded, shown
from matplotlib.figure import Figure
from PIL import Image

from geomem import load_data
from geomem.data import from_uint8
from geomem.errors import InputError
from geomem.training import Run, Trainer

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("GEOMEM_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One directory for all, so that experiments share their models as a person's would."""
    return tmp_path_factory.mktemp("reproduce")


NAMES = [name.replace("_", "-") for name in RESULTS]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_runs(name, out):
    experiment = main.all_experiments()[name]
    document = main.perform(experiment, "smoke", out, None)
    written = json.loads((out / f"{name}.json").read_text())
    assert written == document
    assert document["compared"]
    assert {row["verdict"] for row in document["compared"]} == {"not judged at scale smoke"}
    assert document["deviations"]
    with Image.open(out / f"{name}.png") as picture:
        assert min(picture.size) > 300
    text = main.report(document)
    for row in document["compared"]:
        assert row["quantity"] in text
    for line in document["deviations"]:
        assert line in text
    assert set(experiment.scales) - {"medium"} == {"smoke", "small", "paper"}
    assert len({type(settings) for settings in experiment.scales.values()}) == 1
    with pytest.raises(AttributeError):  # a frozen record
        experiment.scales["small"].seed = 1


def test_kept_results_are_of_this_code_and_have_their_pictures():
    """A committed result belongs to an experiment, at the settings it now has."""
    for name, experiment in main.all_experiments().items():
        for scale, path in main.results_of(experiment).items():
            document = json.loads(path.read_text())
            assert (document["experiment"], document["scale"]) == (name, scale)
            assert document["settings"] == json.loads(json.dumps(main.asdict(experiment.scales[scale])))
            assert main.picture_of(path).exists()


@pytest.mark.slow
def test_longer_run_ends_with_the_weights_of_one_long_training(out, monkeypatch):
    bench, options = Bench(out / "lengthened", "test"), SimpleNamespace(network="mlp", batch=8)
    data = sources.named(bench, "digits", 20, 12)
    short = bench.model("short", data, 3, options)
    steps, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: (steps.append(trainer.steps_done), step(trainer)))
    longer = bench.model("longer", data, 7, options, after=short)
    assert steps == [3, 4, 5, 6]
    whole = bench.model("whole", data, 7, options)
    ours, theirs = (Run(path).denoiser("last").state_dict() for path in (longer, whole))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    before = (longer / "model.safetensors").read_bytes()
    bench.model("longer", data, 7, options, after=short)  # again: nothing is left to do
    assert (longer / "model.safetensors").read_bytes() == before
    with pytest.raises(InputError, match=r"settings\.batch"):
        bench.model("longer", data, 7, network="mlp", batch=9)


@dataclass(frozen=True)
class Rows:
    n: tuple


def test_partial_results_are_kept_and_only_for_their_settings(tmp_path):
    finds = iter([{"value": (1, 2)}])
    bench, again = (Bench(tmp_path, "test", settings=Rows((3,))) for _ in range(2))
    assert bench.part("a", lambda: next(finds)) == again.part("a", lambda: next(finds)) == {"value": [1, 2]}
    assert (bench.used_again, again.used_again) == ([], ["parts/test/a.json"])
    with pytest.raises(InputError, match="other settings"):
        Bench(tmp_path, "test", settings=Rows((4,))).part("a", dict)


@pytest.mark.slow
def test_a_stopped_experiment_goes_on(out, tmp_path, monkeypatch):
    """Interrupted in its second part: the first is kept, and the result is that of an undisturbed run."""
    once = main.all_experiments()["weight-and-coverage"]
    twice = replace(once, scales={"smoke": replace(once.scales["smoke"],
                                                   data=(("digits", 60, 60, 8), ("cars", 60, 60, 8)))})
    monkeypatch.setitem(sources.SOURCES, "cars", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        main.perform(twice, "smoke", tmp_path, None)
    monkeypatch.setitem(sources.SOURCES, "cars", sources.digits)
    first = (tmp_path / "parts" / "weight-and-coverage" / "digits.json").read_bytes()
    document = main.perform(twice, "smoke", tmp_path, None)
    assert (tmp_path / "parts" / "weight-and-coverage" / "digits.json").read_bytes() == first
    assert document["result"]["cars"]["curves"] == document["result"]["digits"]["curves"]
    assert document["seconds"] is None  # of one part of the experiment they would say nothing
    assert "not timed" in main.report(document)


def test_a_verdict_is_the_place_of_the_published_figure_in_our_interval():
    ours = Interval(1.04, 0.96, 1.12)
    assert measured("a", ours, "1.00").verdict == "difference +0.04, inside our 95% interval"
    assert measured("a", ours, "0.95").verdict == "difference +0.09, outside our 95% interval"
    assert measured("a", ours, "0.955").verdict == "difference +0.085, outside our 95% interval"
    assert measured("a", ours, "0.96", source="rerun").published == "0.96 (rerun)"
    assert measured("a", ours, "0.9", note="why").verdict.endswith("outside our 95% interval: why")
    assert measured("a", ours, "1", note="why").verdict.endswith("inside our 95% interval")
    assert ranged("a", ours, "1.5", "2.0").verdict == "our 95% interval lies outside that range"
    assert ranged("a", ours, "0.1", "2.0").verdict == "our 95% interval reaches that range"
    assert against("a", ours, 1, "the same").verdict == "cannot be told from 1, by our 95% interval"
    assert against("a", ours, 0, "the same").verdict == "differs from 0, by our 95% interval"
    assert against("a", ours, 0, "the same", ".1f").ours == "1.0 [1.0, 1.1]"


@pytest.mark.parametrize(("printed", "least", "most"), [
    ("0.165", .1645, .1655), ("46.20", 46.195, 46.205), ("-0.83", -.835, -.825), ("5", 4.5, 5.5)])
def test_a_printed_figure_stands_for_what_rounds_to_it(printed, least, most):
    assert rounding_to(printed) == pytest.approx((least, most), abs=1e-12)
    inside = least + .01 * (most - least)
    assert computed("a", inside, printed).verdict == "equal to the digits printed"
    assert computed("a", least - .01 * (most - least), printed).verdict.startswith("NOT EQUAL to the digits printed")


def test_an_order_holds_only_beyond_the_intervals():
    small, medium, large = Interval(.1, 0, .2), Interval(.3, .25, .35), Interval(.5, .3, .7)
    assert order("a", [("s", small), ("m", medium)], "p").verdict.startswith("holds here too")
    turned = order("a", [("m", medium), ("s", small)], "p")
    assert turned.verdict == "DOES NOT HOLD here: m and s are the other way round"
    found = order("a", [("s", small), ("m", medium), ("l", large)], "p")
    assert found.verdict == "NOT SHOWN here: m and l cannot be told apart"
    assert found.ours == "s 10.0% [0.0%, 20.0%], m 30.0% [25.0%, 35.0%], l 50.0% [30.0%, 70.0%]"
    assert claim("a", "b", "c", True).verdict == "holds here too"
    assert claim("a", "b", "c", False).verdict == "DOES NOT HOLD here"
    assert unlike("a", "b", "c", "other n").verdict == "not comparable: other n"


def test_an_order_of_paired_figures_is_that_of_their_differences():
    """The intervals of the figures themselves overlap widely, or are apart, and do not count."""
    parts = [("s", Interval(.1, 0, .5)), ("m", Interval(.3, .1, .6)), ("l", Interval(.5, .2, .8))]
    up, none, down = Interval(.2, .1, .3), Interval(.2, -.1, .5), Interval(-.2, -.3, -.1)
    found = order("a", parts, "p", differences=[up, up])
    assert found.verdict == "holds here too, all paired differences above 0"
    assert found.ours.endswith("; paired differences +20.0% [+10.0%, +30.0%], +20.0% [+10.0%, +30.0%]")
    assert order("a", parts, "p", differences=[none, up]).verdict == "NOT SHOWN here: s and m cannot be told apart"
    apart = [("s", Interval(.1, 0, .2)), ("m", Interval(.3, .25, .35))]
    assert order("a", apart, "p", differences=[-up]).verdict == "DOES NOT HOLD here: s and m are the other way round"
    assert -up == down
    assert str((-Interval(0.0, -.1, .1)).value) == "0.0"


def samples_of_two_models(folder):
    """Files of samples that share what their seeds do, and the data."""
    random = np.random.default_rng(0)
    data = load_data("digits", n_train=60)
    before = np.concatenate([data.train[:40] + 1e-3, data.heldout[:40]])
    after = before + .02 * random.standard_normal(before.shape)
    after[:25] = data.heldout[40:65]
    for name, values in (("before", before), ("after", after)):
        np.savez(folder / f"{name}.npz", samples=values.astype(np.float32))
    return folder / "before.npz", folder / "after.npz", data


def test_changes_between_files_are_paired_by_seed(tmp_path):
    before, after, data = samples_of_two_models(tmp_path)
    found = changed(before, after, data)
    one, other = (judged(path, data) for path in (before, after))
    assert found["memorized"]["difference"] == pytest.approx(other["memorized"] - one["memorized"]) == -25 / 80
    assert found["frechet"]["difference"] == pytest.approx(other["frechet"] - one["frechet"])
    for part, keys in (("memorized", ("memorized", "low", "high")), ("frechet", ("frechet", "frechet_low",
                                                                                 "frechet_high"))):
        unpaired = np.hypot(*((row[keys[2]] - row[keys[1]]) / 2 for row in (one, other)))
        assert found[part]["low"] < found[part]["difference"] < found[part]["high"]
        assert (found[part]["high"] - found[part]["low"]) / 2 < .9 * unpaired
    back = changed(after, before, data)
    assert back["memorized"]["low"] == pytest.approx(-found["memorized"]["high"])
    assert back["frechet"]["low"] == pytest.approx(-found["frechet"]["high"])


def test_orders_of_the_gaps_go_by_the_changes_in_their_direction():
    def row(share, distance):
        return {"memorized": share, "low": share - .3, "high": share + .3, "frechet": distance,
                "frechet_low": distance - 5, "frechet_high": distance + 5,
                "leaning": {"share": .5, "low": .4, "high": .6}}

    def change(share, distance):
        return {"memorized": {"difference": share, "low": share - .05, "high": share + .05},
                "frechet": {"difference": distance, "low": distance - .5, "high": distance + .5}}

    *_, share, distance = timestep_gaps.compared(
        {"none": row(.8, 1), "100-200": row(.4, 2), "100-275": row(.1, 3)},
        {"none to 100-200": change(-.4, 1), "100-200 to 100-275": change(-.3, 1)})
    assert share.verdict == distance.verdict == "holds here too, all paired differences above 0"
    assert "paired differences +30.0% [+25.0%, +35.0%], +40.0%" in share.ours  # from the widest gap on
    *_, share, distance = timestep_gaps.compared({"none": row(.8, 1), "100-350": row(.9, 1)},
                                                 {"none to 100-350": change(.1, .2)})
    assert share.verdict == "DOES NOT HOLD here: 100-350 and none are the other way round"
    assert distance.verdict == "NOT SHOWN here: none and 100-350 cannot be told apart"

    found = {method: [{"step": step, **row(.1, 1)} for step in (4, 8)] for method in ("baseline", "dummy", "gap")}
    pairs = dummy_and_gap.pairs(found)
    assert pairs == [("gap", "dummy"), ("dummy", "baseline"), ("baseline", "gap")]
    *_, share, _, distance = dummy_and_gap.compared(
        found, {f"{one} to {other}": change(.3, 6) for one, other in pairs})
    assert share.verdict == "holds here too, all paired differences above 0"
    assert distance.verdict == "differs from 0, by our 95% interval"
    assert distance.ours == "6.00 [5.50, 6.50]"


def test_intervals_of_ratios():
    """They cover the ratio in 95 of 100 drawings."""
    draws, n = np.random.default_rng(0), 2000
    heldout, train = 3 + .1 * draws.standard_normal(n), 2 + .1 * draws.standard_normal(n)
    found = denoising.error_ratios({"mse_heldout": heldout, "mse_train": train, "mse_heldout_stderr": np.full(n, .1),
                          "mse_train_stderr": np.full(n, .1)})
    share = np.mean([one.low <= 1.5 <= one.high for one in found])
    assert abs(share - .95) < 4 * (.95 * .05 / n) ** .5 + .005  # four standard errors, and the logarithm's curvature


def test_the_place_of_the_largest_rate_is_that_of_all_levels_that_may_be_it():
    """On a coarse grid the largest rate may lie at a level next to the one that happened to come out on top."""
    sigma, rates = [.5, 1, 1.5, 3], [Interval(.05, .03, .07), Interval(.13, .10, .16), Interval(.1, .07, .12),
                                     Interval(0, 0, .01)]
    for low, high, verdict in ((.8, 2, "inside"), (1.1, 2, "cannot be told"), (2, 4, "OUTSIDE the danger zone"),
                               (.4, .7, "OUTSIDE the danger zone")):
        found = denoising.most_memorized(sigma, rates, {"sigma_low": low, "sigma_high": high})
        assert found.verdict.startswith(verdict)
        assert found.ours == f"sigma 1, its interval reached by those at 1 to 1.5; danger zone {low} to {high}"
    assert denoising.most_memorized(sigma, rates, None).verdict == "OUTSIDE the danger zone"


def test_errors_that_should_be_together_and_are_not_contradict_the_paper():
    """A verdict with a word in capitals, for the list of what did not come out as published."""
    def levels(ratio, rates):
        return {"sigma": [.01, 1, 80], "mse_train": [1.0] * 3, "mse_heldout": ratio, "mse_train_stderr": [.01] * 3,
                "mse_heldout_stderr": [.01] * 3, "rate": rates, "low": rates, "high": rates}

    found = {"few": levels([2.0, 9.0, 1.0], [0, .5, 0]), "many": levels([1.0, 1.0, 1.0], [0, 0, 0]),
             "empirical": levels([1.0, 1.0, 1.0], [1, .5, 0])}
    small, medium, large, *_ = denoising.compared(SMOKE, found, None)
    assert [row.verdict for row in (small, medium, large)] == ["DOES NOT HOLD here", "holds here too", "holds here too"]
    assert small.quantity.endswith("sigma = 0.01")
    found["few"]["mse_heldout"] = [1.0, .8, .9]
    assert [row.verdict for row in denoising.compared(SMOKE, found, None)[:3]] == [
        "holds here too", "DOES NOT HOLD here", "DOES NOT HOLD here"]


def test_shrinking_takes_means_of_squares():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    small = sources.shrunk(images, 4)
    assert small.dtype == np.uint8
    for n, y, x, c in np.ndindex(small.shape):
        assert small[n, y, x, c] == round(float(images[n, 2 * y:2 * y + 2, 2 * x:2 * x + 2, c].mean()))
    assert sources.shrunk(images, 8) is images
    assert sources.shrunk(images[..., 0], 2).shape == (3, 2, 2)


@pytest.mark.skipif(not (DATA / "cifar10_jpeg.zip").exists(), reason=f"needs {DATA}; set GEOMEM_TEST_DATA")
def test_real_data_are_what_they_are_called(tmp_path):
    bench = Bench(tmp_path, "test", DATA)
    with np.load(DATA / "cifar10_exact.npz") as content:
        exact = {part: from_uint8(content[f"{part}_images"][:1000]).transpose(0, 3, 1, 2) for part in ("train", "test")}
        is_car = content["train_labels"][:1000] == 1
    small, whole = (load_data(sources.named(bench, "cifar", 30, 20, side)) for side in (16, 32))
    assert np.array_equal(whole.train, exact["train"][:30])
    assert np.array_equal(whole.heldout, exact["test"][:20])
    means = whole.train.reshape(30, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    assert np.abs(small.train - means).max() <= .5001 / 127.5
    cars = load_data(sources.named(bench, "cars", 30, 1010))
    everything = np.concatenate([cars.train, cars.heldout])
    assert len(everything) == 1040 == len(np.unique(everything, axis=0))
    nearest = np.linalg.norm((cars.train - exact["train"][is_car][0]).reshape(30, -1), axis=1).min()
    assert nearest < 6  # the same car, but for JPEG; others are 15 away or more
    faces = load_data(sources.named(bench, "faces", 40, 20))
    assert np.abs(faces.train.mean(axis=0)).max() < 1e-6
    assert 0.15 < faces.std < 0.3
    assert faces.train.shape == (40, 1, 32, 32)
    assert load_data(sources.named(bench, "ecg", 500, 4500)).heldout.shape == (4500, 1, 140)
    assert load_data(sources.named(bench, "pokemon", 800, 216, 16)).train.shape == (800, 3, 16, 16)


def test_pictures_survive_json():
    images = np.linspace(-1, 1, 2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    axes = Figure().subplots()
    shown(axes, encoded([images, images[::-1]], -1, 1), ["up", "down"])
    drawn = axes.images[0].get_array()
    assert drawn.shape == (12, 12, 3)
    assert np.array_equal(drawn[:6, 6:], drawn[6:, :6])
    assert (drawn[1, 1, 0], drawn[4, 10, 2]) == (0, 255)
    assert (drawn[[0, 5, 6, 11]] == 255).all()  # a white frame
    assert (drawn[:, [0, 5, 6, 11]] == 255).all()


@pytest.mark.parametrize(("arguments", "message"), [
    (["nothing"], "unknown experiment 'nothing'; choose one of weight-and-coverage"),
    ([], "no experiment is named"),
    (["self-weight", "--scale", "small"], "cifar10_exact.npz is not in any folder of data; name the folder"),
    (["self-weight", "--scale", "huge"], "'huge' is not one of"),
])
def test_wrong_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GEOMEM_TEST_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") <= 2


def test_list_shows_what_has_been_run():
    result = CliRunner().invoke(main.reproduce, ["--list"])
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert list(lines) == NAMES
    assert "small: run, paper: not yet run" in lines["weight-and-coverage"]
    for line, experiment in zip(lines.values(), main.all_experiments().values(), strict=True):
        assert line.endswith(f"  {experiment.title}")  # a column of its own


def test_kept_results_are_drawn_again(tmp_path, monkeypatch):
    for name in ("concentration", "one_step"):
        (tmp_path / "results").mkdir(exist_ok=True)
        kept = f"results/reproduce_{name}.json"
        (tmp_path / kept).write_bytes((ROOT / "figures" / kept).read_bytes())
    monkeypatch.setattr(main, "FIGURES", tmp_path)
    assert CliRunner().invoke(main.reproduce, ["--draw"]).exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["reproduce-concentration.png",
                                                                    "reproduce-one-step.png"]


@pytest.mark.slow
def test_ours_is_what_the_commands_find(out):
    """The curves of the experiment are those of geomem's function on the same points."""
    from geomem import geometry_curves

    document = json.loads((out / "weight-and-coverage.json").read_text())
    data = load_data(out / "data" / "digits8-60-60.npz")
    curves = geometry_curves(data.train, data.heldout, sigmas=12, posterior_draws=2, coverage_draws=2)
    found = document["result"]["digits"]["curves"]
    assert np.allclose(found["coverage"]["estimate"], curves.coverage.estimate, atol=1e-12)
    assert np.allclose(found["max_posterior_weight"]["estimate"], curves.max_posterior_weight.estimate, atol=1e-6)
