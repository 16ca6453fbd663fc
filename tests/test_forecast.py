"""How long until a training memorizes: the line through the parts, what cannot be told, and runs that are stopped."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import refused, status
from scipy.stats import norm
from scipy.stats import t as student
from test_training import terminate

import geomem
from geomem.errors import InputError
from geomem.models import NETWORKS
from geomem.plots import plot_forecast
from geomem.rng import generator, random_order
from geomem.statistics import power_law
from geomem.training import Interrupted, Run, TrainingSettings, plan_training
from geomem.training.forecast import (
    COMPARED,
    Part,
    at_full_rate,
    in_steps,
    onset_at,
    onset_in,
    place_in_forecast,
    price_of,
    read_forecast,
)

NETWORK = "forecast-test"
NETWORKS[NETWORK] = replace(NETWORKS["mlp"], options={"width": 128, "depth": 2})
SETTINGS = TrainingSettings(iterations=4000, batch=128)


def test_power_law_is_bayesian_regression():
    """The mean and the ends of what is predicted, by summing over slopes and variances on a grid."""
    x, y, at = [25, 25, 50], [21.0, 29.0, 38.0], 200.0
    slope0, stderr0, spread0, worth = 0.9, 0.2, 0.15, 4.0
    found = power_law(x, y, at, slope=slope0, slope_stderr=stderr0, spread=spread0, worth=worth)
    variance = np.geomspace(1e-3, 3, 1200)[:, None]
    slope = np.linspace(-2, 4, 1201)[None]
    level = np.log(y) - slope[..., None] * np.log(np.array(x) / at)  # of each point; the flat intercept is integrated
    middle = level.mean(axis=-1)
    squares = np.square(level - middle[..., None]).sum(axis=-1)
    log_density = (-(worth / 2 + 1) * np.log(variance) - worth * spread0**2 / (2 * variance)  # of the variance
                   - 0.5 * np.log(variance) - (slope - slope0)**2 * (spread0 / stderr0)**2 / (2 * variance)
                   - (len(x) - 1) / 2 * np.log(variance) - squares / (2 * variance))
    density = np.exp(log_density - log_density.max()) * variance  # the grid is even in log variance
    density /= density.sum()
    reach = np.sqrt(variance * (1 + 1 / len(x)))
    assert found.slope == pytest.approx((density * slope).sum(), rel=1e-4)
    for end, share in ((found.low, 0.025), (found.value, 0.5), (found.high, 0.975)):
        assert (density * norm.cdf((math.log(end) - middle) / reach)).sum() == pytest.approx(share, abs=2e-4)


def test_power_law_of_a_known_slope_is_a_mean():
    """With no doubt about the slope the intercept is the mean of the logs, each moved to ``at``, as for one sample."""
    x, y = np.array([10.0, 20.0, 40.0]), np.array([11.0, 19.0, 45.0])
    found = power_law(x, y, 80.0, slope=1.0, slope_stderr=1e-5, worth=0.0)
    moved = np.log(y * 80 / x)
    half = student.ppf(0.975, 2) * moved.std(ddof=1) * math.sqrt(1 + 1 / 3)
    np.testing.assert_allclose([found.low, found.value, found.high], np.exp(moved.mean() + half * np.array([-1, 0, 1])),
                               rtol=1e-4)
    assert (found.slope, found.n) == (pytest.approx(1), 3)


@pytest.mark.parametrize(("slope", "spread", "least"), [(1.0, 0.15, 0.95), (0.8, 0.15, 0.93), (1.2, 0.15, 0.93),
                                                        (1.0, 0.25, 0.90), (1.0, 0.05, 0.97)])
def test_power_law_interval_holds_one_more_value(slope, spread, least):
    """In 1,000 simulated sets of parts N/8, N/4: nearly always where theory's slope holds, and not much less often
    where the slope is off by what is expected, or the spread larger.
    """
    rng, held, n = generator(0, "power law coverage"), 0, 1000
    for _ in range(n):
        *parts, truth = slope * np.log([100, 200, 800]) + spread * rng.standard_normal(3)
        found = power_law([100, 200], np.exp(parts), 800)
        held += found.low <= math.exp(truth) <= found.high
    assert held / n >= least


@pytest.mark.parametrize(("x", "y"), [([1], [1]), ([1, 2], [0, 1]), ([1, 2], [1, math.nan]), ([1, 2], [1, 2, 3])])
def test_power_law_refuses(x, y):
    with pytest.raises(InputError):
        power_law(x, y, 3)


def test_clock_counts_steps_by_their_rates():
    rates = [SETTINGS.learning_rate_at(step) / SETTINGS.learning_rate for step in range(400)]
    for step in (1, 30, 99, 100, 400):
        assert at_full_rate(step, SETTINGS) == pytest.approx(sum(rates[:step]), abs=0.5)
        assert in_steps(at_full_rate(step, SETTINGS), SETTINGS) == pytest.approx(step)


def look(step, share, low, rate=0.0):
    return {"step": step, "rate": rate, "low": rate / 2, "floor_high": 0.01, "leaning": {"share": share, "low": low}}


def test_onset_is_between_two_looks():
    lines = [look(25, 0.50, 0.4), look(50, 0.65, 0.45), look(75, 0.75, 0.52, rate=0.05)]
    assert onset_in(lines, "leaning") == pytest.approx(50 + 25 * 0.05 / 0.07)  # the interval is the last to get there
    assert onset_in(lines, "copies") == pytest.approx(50 + 25 * 0.03 / 0.05)
    assert onset_in(lines[:2], "leaning") is None
    assert onset_in(lines[2:], "leaning") is None  # before the first look
    assert onset_in([line | {"leaning": None} for line in lines], "leaning") is None
    assert onset_in([], "copies") is None


def parts_of(sizes, steps):
    return [Part(n, f"parts/{k}", 500, step, None, 100, False) for k, (n, step) in enumerate(zip(sizes, steps,
                                                                                                 strict=True))]


def test_forecast_continues_the_line():
    onset = onset_at(800, parts_of([100, 200], [150.0, 250.0]), "leaning", SETTINGS)
    assert onset.reason is None
    assert onset.step == pytest.approx(850)  # 100 and 200 steps at the full rate: 800, and half the warm-up
    assert onset.low < onset.step < onset.high < 5 * onset.low
    law = power_law([100, 200], [100, 200], 800)
    assert (onset.low, onset.high, onset.law) == (law.low + 50, law.high + 50, law)


@pytest.mark.parametrize(("steps", "reason"), [
    ([150.0, None], "leaning did not set in between the first look and the last step, 500, of a part of 200 points"),
    ([150.0, 1500.0], "grow with the points by the power 3.9"),
    ([150.0, 155.0], "the interval spans a factor of 5.8"),  # two parts may be so by chance
    ([150.0] * 3 + [155.0] * 3, "grow with the points by the power 0.07"),  # six may not
])
def test_cannot_tell(steps, reason):
    half = len(steps) // 2
    onset = onset_at(800, parts_of([100] * half + [200] * half, steps), "leaning", SETTINGS)
    assert (onset.step, onset.low, onset.high) == (None, None, None)
    assert reason in onset.reason


def test_cannot_tell_where_the_interval_is_wide():
    onset = onset_at(800, parts_of([100, 100, 200, 200], [100.0, 250.0, 150.0, 600.0]), "leaning", SETTINGS)
    assert onset.step is None
    assert "the interval spans a factor of" in onset.reason


def test_price_counts_the_network():
    """A step is three evaluations of each image of the batch."""
    assert price_of(100, 0, 0, 64) == 100
    assert price_of(100, 3, 192 * 7, 64) == pytest.approx(100 + 3 * 64 * 17 / 192 + 7)


OPTIONS = {"n_train": 80, "n_heldout": 120, "network": NETWORK, "batch": 16, "iterations": 600,
           "learning_rate": 3e-3, "device": "cpu"}
WORDS = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Parts of 10 and 20 of 80 digits, until leaning has set in on both."""
    out = tmp_path_factory.mktemp("forecast") / "made"
    return out, geomem.forecast("digits", out, **OPTIONS)


def test_parts_are_runs_on_points_of_their_own(made):
    out, found = made
    data = geomem.load_data("digits", n_train=80, n_heldout=120)
    order = random_order(80, 0, "parts")
    start = 0
    for part, run in zip(found.parts, sorted((out / "parts").iterdir()), strict=True):
        run = Run(run)
        looks = run.lines("watch.jsonl")
        assert (out / part.path, part.n, part.steps) == (run.path, (10, 20)[start > 0], run.steps_done)
        assert part.leaning == onset_in(looks, "leaning")
        assert part.leaning is not None
        assert [look["leaning"]["share"] >= 0.7 for look in looks] == [False] * (len(looks) - 1) + [True]
        assert (run.config["sigma_data"], run.config["part"]) == (data.std, 80 // part.n)
        rows = np.sort(order[start:start + part.n])
        plan = plan_training(geomem.load_data(data.train[rows], heldout=data.heldout), **{
            **{name: value for name, value in OPTIONS.items() if name[:2] != "n_"}, "iterations": part.steps})
        trainer = replace(plan, law=plan_training("digits", **OPTIONS).law).trainer(plan.denoiser())
        trainer.denoiser.sigma_data = trainer.ema.sigma_data = data.std
        for _ in range(part.steps):
            trainer.step()
        torch.testing.assert_close(run.denoiser("last").state_dict(), trainer.ema.state_dict(), rtol=0, atol=0)
        start += part.n
    assert found.leaning == onset_at(80, found.parts, "leaning", SETTINGS)
    assert "copies did not set in" in found.copies.reason


def test_the_record_is_the_file_and_can_be_drawn(made):
    out, found = made
    document = json.loads((out / "forecast.json").read_text())
    assert document["format"] == "geomem.forecast/1"
    assert document == json.loads(json.dumps(found.to_dict()))
    assert (out / "forecast.png").stat().st_size > 1000
    figure = plot_forecast(document)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(label.startswith("leaning on 80 points") for label in labels) == (found.leaning.step is not None)


def test_stopped_forecast_ends_as_if_it_had_not_been(made, tmp_path):
    """In the second part, by a signal; then with other options, which is refused, and with the same."""
    _, found = made
    first = found.parts[0].steps

    def stop(done, total):
        if done == first + 7:
            terminate()

    out = tmp_path / "stopped"
    with pytest.raises(Interrupted) as stopped:
        geomem.forecast("digits", out, progress=stop, **OPTIONS)
    assert stopped.value.step == 8
    with pytest.raises(InputError, match="exists and is not empty"):
        geomem.forecast("digits", out, **OPTIONS)
    with pytest.raises(InputError, match=r"holds a forecast with other options: .* settings.batch = 16, not 32"):
        geomem.forecast("digits", out, resume=True, **{**OPTIONS, "batch": 32})
    steps = []
    again = geomem.forecast("digits", out, resume=True, progress=lambda done, total: steps.append(done), **OPTIONS)
    assert again == found
    assert steps[0] == first + 9  # neither the first part nor what the second had done
    assert geomem.forecast("digits", out, resume=True, progress=steps.clear, **OPTIONS) == found  # nothing left to do


def test_command_prints_and_goes_on(made, tmp_path, capsys):
    out, found = made
    assert status("forecast", "digits", *WORDS, "--out", out, "--resume", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(json.dumps(found.to_dict()))
    assert "forecast: trainings on 10, 20 of 80 points, each until leaning, 240 steps at most" in captured.err
    assert status("forecast", "digits", *WORDS, "--out", out, "--resume") == 0
    text = capsys.readouterr().out
    assert "On all 80 points:" in text
    assert f"{found.parts[1].leaning:,.0f}" in text
    assert "copies  cannot tell: copies did not set in" in text


@pytest.mark.parametrize(("words", "expected"), [
    (["--parts", "8,8"], "--parts 8,8: give k for parts of N/k points, of two sizes at least"),
    (["--parts", "2,1"], "--parts 2,1: give k"),
    (["--parts", "2,2,3"], "--parts 2,2,3: give k"),
    (["--parts", "8,x"], "'8,x' is no list of whole numbers"),
    (["--parts", "16,8"], "the 16th part of 80 points is 5, and at least 10 tell anything"),
    (["--iterations", "1"], "--iterations 1 leaves no step for a part of 10 points"),
    (["--conditional", "--shuffle"], "--conditional: a part of 10 points lacks a class"),
])
def test_bad_input_is_one_line(words, expected, tmp_path, capsys):
    assert expected in refused(capsys, "forecast", "digits", *WORDS, *words, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_leaning_needs_test_points(tmp_path):
    with pytest.raises(InputError, match=r"8 test points, and leaning needs 10; hold out more, or give --until copies"):
        geomem.forecast("digits", tmp_path / "new", **{**OPTIONS, "n_heldout": 12})


@pytest.mark.parametrize("option", [{"folds": 4}, {"dummy_class": -1}, {"lean": 1.2}, {"stop_at_memorization": 0.1}])
def test_options_of_other_trainings_are_refused(option, tmp_path):
    with pytest.raises(InputError, match="a forecast is of one ordinary training"):
        geomem.forecast("digits", tmp_path / "new", **OPTIONS, **option)


def foretold(made, path, low, step, high):
    """The forecast with these steps for leaning."""
    document = made[1].to_dict()
    document["leaning"] |= {"low": low, "step": step, "high": high, "reason": None}
    path.write_text(json.dumps(document))
    return path


def test_training_says_where_it_is_in_the_forecast(made, tmp_path, capsys):
    file = foretold(made, tmp_path / "forecast.json", 20.0, 40.0, 70.0)
    words = [*WORDS, "--iterations", 60, "--watch-every", 0, "--forecast", tmp_path, "--out", tmp_path / "run"]
    assert status("train", "digits", *words) == 0
    lines = capsys.readouterr().err.splitlines()
    said = [line.partition(":")[0] for line in lines if "the forecast has leaning set in at step 40 [20, 70]" in line]
    assert said == ["step 1 of 60", "step 25 of 60", "step 50 of 60"]
    assert ("warning: --iterations 60 goes beyond step 40 [20, 70], where the forecast has leaning set in" in lines)
    assert any(line.startswith("forecast: cannot tell when copies sets in: copies did not set in") for line in lines)
    assert place_in_forecast(json.loads(file.read_text()), 100, 60, 200) == [
        "step 100 of 200: the forecast has leaning set in at step 40 [20, 70]"]
    assert place_in_forecast(json.loads(file.read_text()), 200, 100, 200) == []


def test_a_forecast_of_another_training_is_refused(made, tmp_path, capsys):
    file = foretold(made, tmp_path / "forecast.json", 20.0, 40.0, 70.0)
    config = made[1].config
    assert read_forecast(file, config)["leaning"]["step"] == 40
    for name in COMPARED:
        other = json.loads(json.dumps(config))
        inner = other
        *outer, last = name.split(".")
        for key in outer:
            inner = inner[key]
        inner[last] = "other"
        with pytest.raises(InputError, match=rf"is for another training: its {name} is .*, here other"):
            read_forecast(file, other)
    for low in (50.0, -1.0, "20", None, math.inf):
        foretold(made, file, low, 40.0, 70.0)
        with pytest.raises(InputError, match=r"is damaged|is not JSON"):
            read_forecast(file, config)
    file.write_text('{"format": "geomem.run/1"}')
    line = refused(capsys, "train", "digits", *WORDS, "--forecast", file, "--out", tmp_path / "run")
    assert "is not a geomem.forecast/1 file; give the forecast.json of geomem forecast" in line
    line = refused(capsys, "train", "digits", *WORDS, "--forecast", file, "--folds", 4, "--out", tmp_path / "run")
    assert "it says nothing of --folds" in line
    assert not (tmp_path / "run").exists()
