"""Swap experiments: windows, swapped and skipping denoisers, paired differences, and ``geomem swap``."""

import json

import numpy as np
import pytest
import torch
from commands import status
from PIL import Image
from torch import nn

from geomem import InputError, load_data
from geomem.generation import generate, sampler_levels
from geomem.memorization import control_windows, leaning, memorization_rate, swapped_samples
from geomem.models import (
    PUBLISHED_WINDOWS,
    EmpiricalDenoiser,
    GaussianDenoiser,
    SkippingDenoiser,
    Window,
    swapped_denoiser,
)
from geomem.noise import edm_steps
from geomem.plots import plot_swap, plot_swap_samples
from geomem.quality import frechet_distance, quality_report
from geomem.statistics import paired_share_difference

LEVELS = edm_steps(18)
ALL = Window(0, np.inf)


class Constant(nn.Module):
    """Answers with one value, and notes the levels it is asked for."""

    def __init__(self, value):
        super().__init__()
        self.value, self.asked = value, []

    def forward(self, x, sigma, labels=None):
        self.asked.append(float(torch.as_tensor(sigma).max()))
        return torch.full_like(x, self.value)


class Shrink(nn.Module):
    """Optimal denoiser of N(mean, 1), value by value; it notes the levels and the first points that it is given."""

    def __init__(self, mean):
        super().__init__()
        self.mean, self.levels, self.start = mean, [], None

    def forward(self, x, sigma, labels=None):
        self.levels.append(float(sigma))
        self.start = x.clone() if self.start is None else self.start
        return self.mean + (x - self.mean) / (1 + sigma**2)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", n_train=40)


# windows


def test_a_window_holds_its_lower_end_and_not_its_upper_one():
    window = Window(0.5, 2.0)
    assert window.holds(np.array([0.49, 0.5, 1.99, 2.0])).tolist() == [False, True, True, False]
    for low, high in ((2, 1), (1, 1), (-1, 1), (float("nan"), 1)):
        with pytest.raises(InputError, match="low < high"):
            Window(low, high)


def test_published_windows_hold_the_published_steps():
    """The paper's figures: 8.40 to 0.140 are the steps 6 to 13, and 5.3 to 0.06 those one lower."""
    ends = {name: LEVELS[window.holds(LEVELS)][[0, -1]] for name, window in PUBLISHED_WINDOWS.items()}
    np.testing.assert_allclose(ends["medium"], [8.40, 0.140], rtol=0.005)
    np.testing.assert_allclose(ends["medium2"], [5.3, 0.06], rtol=0.005)
    for version in ("", "2"):
        parts = np.array([PUBLISHED_WINDOWS[name + version].holds(LEVELS) for name in ("large", "medium", "small")])
        np.testing.assert_array_equal(parts.sum(axis=0), 1)
        np.testing.assert_array_equal(parts.argmax(axis=0), np.sort(parts.argmax(axis=0)))


def test_rounding_moves_no_step_out_of_its_window():
    window = Window.of_steps(LEVELS, 6, 13)
    for levels in (LEVELS.astype(np.float32), LEVELS * (1 + 1e-6), LEVELS * (1 - 1e-6)):
        assert np.flatnonzero(window.holds(levels)).tolist() == list(range(6, 14))
    assert Window.of_steps(LEVELS, 0, 17) == ALL
    middle = Window.of_steps(np.array([8.0, 2.0, 0.5, 0.02]), 1, 2)  # ends halfway in log sigma
    assert (middle.low, middle.high) == pytest.approx((0.1, 4.0), rel=1e-15)
    for first, last in ((-1, 3), (4, 3), (10, 18)):
        with pytest.raises(InputError, match="counted from 0"):
            Window.of_steps(LEVELS, first, last)


def test_controls_are_as_many_steps_beside_the_window():
    def steps(window, **options):
        return [np.flatnonzero(w.holds(LEVELS)).tolist() for w in control_windows(window, LEVELS, **options)]

    assert steps(Window.of_steps(LEVELS, 6, 7)) == [[4, 5], [8, 9]]
    assert steps(Window.of_steps(LEVELS, 5, 7), each_side=2) == [[2, 3, 4], [8, 9, 10], [11, 12, 13]]
    assert steps(PUBLISHED_WINDOWS["large"]) == [list(range(6, 12))]
    assert steps(PUBLISHED_WINDOWS["medium"]) == []
    assert steps(PUBLISHED_WINDOWS["small"], each_side=0) == []
    assert steps(Window(100, 200)) == []
    assert steps(Window.of_steps(LEVELS, 2, 3)) == [[0, 1], [4, 5]]  # up to the ends of the schedule
    assert steps(Window.of_steps(LEVELS, 14, 15)) == [[12, 13], [16, 17]]


# denoisers


@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (0, 2.0), (0.5, np.inf), (0, np.inf)])
def test_swapped_is_the_one_inside_and_the_other_outside(low, high):
    denoiser = swapped_denoiser(Constant(1.0), Constant(2.0), Window(low, high))
    sigma = torch.tensor([0.01, 0.4999, 0.5, 1.0, 1.9999, 2.0, 70.0])
    expected = np.where(Window(low, high).holds(sigma.double().numpy()), 2.0, 1.0)
    np.testing.assert_array_equal(denoiser(torch.zeros(7, 3), sigma)[:, 0], expected)
    for s, value in zip(sigma, expected, strict=True):
        assert (denoiser(torch.zeros(2, 3), s) == value).all()


@pytest.mark.parametrize(("method", "first", "last"), [
    ("euler", 6, 13), ("euler", 0, 5), ("euler", 14, 17), ("euler", 0, 16), ("euler", 9, 9),
    ("ddim", 6, 13), ("ddim", 14, 17), ("ddim", 1, 16)])  # DDIM begins elsewhere where the first level is another
def test_stepping_over_is_one_long_step(method, first, last):
    """What a sampler without the levels of the window does, up to float32."""
    kept = np.delete(LEVELS, np.arange(first, last + 1))
    model = Shrink(0.3)
    window = Window.of_steps(LEVELS, first, last)
    found = swapped_samples(model, None, window, range(5), (4,), sigmas=LEVELS, method=method, batch=2)
    assert set(model.levels) == set(kept.tolist())
    expected = generate(model, range(5), (4,), sigmas=kept, method=method)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_heun_steps_over_without_a_call_and_forgets_the_batch_before():
    window = Window.of_steps(LEVELS, 0, 3)  # nothing above: what was held for the batch before must not be used
    model = Shrink(0.3)
    found = swapped_samples(model, None, window, range(6), (4,), sigmas=LEVELS, batch=2)
    assert not window.holds(np.array(model.levels)).any()
    alone = [swapped_samples(model, None, window, [seed], (4,), sigmas=LEVELS)[0] for seed in range(6)]
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    model = Constant(2.0)
    held = SkippingDenoiser(model, Window(0.5, 2.0))
    assert [held(torch.ones(3, 2), level).unique().item() for level in (1.9, 2.0, 1.0, 0.5, 0.25)] == [0, 2, 2, 2, 2]
    assert model.asked == [2.0, 0.25]


@pytest.mark.parametrize(("first", "last"), [(6, 13), (9, 9), (14, 17), (1, 16)])
def test_heun_with_a_held_estimate_in_float64(first, last):
    """Heun's method ([K] Algorithm 1) step by step, up to float32. Each level inside is asked for twice."""
    model = Shrink(0.3)
    found = swapped_samples(model, None, Window.of_steps(LEVELS, first, last), range(3), (4,), sigmas=LEVELS)
    held = None

    def estimate(x, step):
        nonlocal held
        if not first <= step <= last:
            held = 0.3 + (x - 0.3) / (1 + LEVELS[step] ** 2)
        return held

    x = model.start.double().numpy()
    for step, (sigma, end) in enumerate(zip(LEVELS, [*LEVELS[1:], 0.0], strict=True)):
        slope = (x - estimate(x, step)) / sigma
        predicted = x + (end - sigma) * slope
        if end > 0:
            slope = (slope + (predicted - estimate(predicted, step + 1)) / end) / 2
        x = x + (end - sigma) * slope
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


# samples


def test_memorized_share_follows_what_is_inside(digits):
    """The empirical optimal denoiser copies, the Gaussian one does not: the last levels decide where they alone do."""
    train = torch.from_numpy(digits.train)
    copying, calm = EmpiricalDenoiser(train), GaussianDenoiser(train)
    seeds, shape = range(60), digits.train.shape[1:]

    def share(outside, inside, window):
        samples = swapped_samples(outside, inside, window, seeds, shape, sigmas=LEVELS)
        return memorization_rate(samples, digits.train).rate

    assert share(copying, calm, PUBLISHED_WINDOWS["large"]) == 1
    assert share(calm, copying, PUBLISHED_WINDOWS["small"]) == 1  # it puts any point onto the nearest training point
    assert share(calm, copying, PUBLISHED_WINDOWS["large"]) < 0.2
    assert share(copying, calm, Window(0, 5.0)) < 0.2
    for outside, inside in ((copying, calm), (calm, copying)):
        everything = swapped_samples(outside, inside, ALL, seeds, shape, sigmas=LEVELS)
        np.testing.assert_array_equal(everything, generate(inside, seeds, shape, sigmas=LEVELS))


@pytest.mark.parametrize("inside", [True, False])
def test_a_sample_depends_on_its_seed_alone(digits, inside):
    train = torch.from_numpy(digits.train)
    denoisers = EmpiricalDenoiser(train), GaussianDenoiser(train) if inside else None, Window(0.3, 3.0)
    some, many = (swapped_samples(*denoisers, seeds, digits.train.shape[1:], sigmas=LEVELS, batch=4)
                  for seeds in ([7, 3], range(9)))
    np.testing.assert_allclose(some, many[[7, 3]], atol=1e-4)


def test_windows_that_cannot_be_swapped_are_refused():
    for inside, window, words in ((Constant(0.0), Window(0.31, 0.5), "holds none"), (None, ALL, "holds every"),
                                  (None, Window(100, 200), "holds none")):
        with pytest.raises(InputError, match=words):
            swapped_samples(Constant(1.0), inside, window, [0], (2,), sigmas=LEVELS)


# geomem swap


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two small models of digits, the second on more of them, and a third of other points."""
    folder = tmp_path_factory.mktemp("swap")
    small = ["--network", "mlp", "--batch", 16, "--watch-every", 0]
    for name, data, steps in (("a", ["--n-train", 40], 20), ("b", ["--n-train", 60], 4),
                              ("classes", ["--n-train", 40, "--conditional"], 2)):
        assert status("train", "digits", *data, *small, "--iterations", steps, "--out", folder / name) == 0
    rng = np.random.default_rng(0)
    np.savez(folder / "points.npz", train=rng.standard_normal((20, 5)).astype(np.float32),
             heldout=rng.standard_normal((12, 5)).astype(np.float32))
    assert status("train", folder / "points.npz", *small, "--iterations", 2, "--out", folder / "points") == 0
    return folder


QUICK = ["--n-samples", 12, "--steps", 8]


def rows_of(capsys, *arguments):
    capsys.readouterr()
    assert status("swap", *QUICK, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)["rows"]


def names(row):
    return row["outside"], row["inside"]


def test_json_table_and_files(runs, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["swap", runs / "a", runs / "b", "gaussian", "skip", "--window", "0.1:1.5", "--weights-a", "last",
                 *QUICK]
    assert status(*arguments, "--json", "--out", out) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "swap.json").read_text())
    assert {p.name for p in out.iterdir()} == {"swap.json", "swap.png", "samples.png"}
    assert Image.open(out / "samples.png").size[0] > 500
    assert document["models"] == {"A": {"run": str(runs / "a"), "weights": "last"},
                                  "B": {"run": str(runs / "b"), "weights": "per-level"}}
    rows = document["rows"]
    assert [names(row) for row in rows if row["window"] is None] == [("A", None), ("B", None), ("gaussian", None)]
    main = [row for row in rows if row["window"] and not row["window"]["control_of"]]
    assert [names(row) for row in main] == [("A", "B"), ("B", "A"), ("A", "gaussian"), ("gaussian", "A"), ("A", "skip")]
    levels = edm_steps(8)
    ends = np.flatnonzero((levels >= 0.1) & (levels < 1.5))[[0, -1]]
    for window in (row["window"] for row in main):
        assert window | {"name": ""} == {"name": "", "low": 0.1, "high": 1.5, "steps": ends.tolist(),
                                         "sigma": levels[ends].tolist(), "control_of": None}
    assert rows[0]["difference"] is None
    alone = {row["outside"]: row["memorization"]["rate"] for row in rows if row["window"] is None}
    for row in rows[1:]:
        before = alone[row["outside"] if row["window"] else "A"]
        assert row["difference"]["difference"] == pytest.approx(row["memorization"]["rate"] - before)
    assert status(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["outside", "inside", "window"]
    leans = rows[0]["leaning"]
    assert f"{leans['share']:.1%} [{100 * leans['low']:.1f}, {100 * leans['high']:.1f}]" in "".join(lines)
    assert sum(line.startswith("A  ") for line in lines) == 1 + 3 * len(
        {json.dumps(row["window"]) for row in rows if row["window"]})
    assert any(line.startswith("held-out data") for line in lines)
    notes = lines[next(k for k, line in enumerate(lines) if line.startswith("12 samples a row")):]
    assert max(map(len, notes)) <= 118
    assert min(map(len, notes[:-1])) > 90  # filled, whatever the name of the data


def test_windows_that_repeat_or_hold_one_level(runs, capsys):
    level = edm_steps(8)[4]
    window = f"{level * 0.99}:{level * 1.01}"
    assert status("swap", runs / "a", "skip", *["--window", window] * 2, "--controls", 0, *QUICK) == 0
    line, = [line for line in capsys.readouterr().out.splitlines() if window in line]
    assert f"{level:.3g} (1)" in line
    assert " - " not in line


def test_rows_are_the_functions_of_the_same_seeds(runs, capsys):
    from geomem.training import load_denoiser

    assert status("swap", runs / "a", "empirical", "--window", "medium", "--controls", 0, "--weights-a", "last", *QUICK,
                  "--json") == 0
    document = json.loads(capsys.readouterr().out)
    rows, data = document["rows"], load_data("digits", n_train=40)
    model = load_denoiser(runs / "a", "last").denoiser
    empirical = EmpiricalDenoiser(torch.from_numpy(data.train))
    levels, options = edm_steps(8), {"seeds": range(12), "shape": (1, 8, 8), "sigmas": edm_steps(8)}
    expected = {("A", None): generate(model, **options), ("empirical", None): generate(empirical, **options),
                ("A", "empirical"): swapped_samples(model, empirical, PUBLISHED_WINDOWS["medium"], **options),
                ("empirical", "A"): swapped_samples(empirical, model, PUBLISHED_WINDOWS["medium"], **options)}
    assert len(rows) == len(expected)
    first, last = rows[2]["window"]["steps"]
    assert PUBLISHED_WINDOWS["medium"].holds(levels).sum() == last - first + 1
    rates = {pair: memorization_rate(samples, data.train) for pair, samples in expected.items()}
    before = {("empirical", None): ("A", None), ("A", "empirical"): ("A", None),
              ("empirical", "A"): ("empirical", None)}
    assert rows[0]["difference"] is None
    for row in rows:
        found, pair = rates[names(row)], names(row)
        assert row["memorization"]["median_nearest_distance"] == pytest.approx(found.median_nearest_distance, rel=1e-4)
        assert row["memorization"]["rate"] == found.rate
        leans = leaning(expected[pair], data.train, data.test)
        assert row["leaning"]["share"] == pytest.approx(leans.share, abs=1e-3)
        assert row["leaning"]["floor"] == leans.floor.to_dict()
        assert row["quality"]["frechet"] == pytest.approx(frechet_distance(expected[pair], data.test), rel=1e-4)
        if pair in before:
            change = paired_share_difference(rates[before[pair]].memorized, found.memorized)
            assert row["difference"] == change.to_dict()
    assert rows[1]["memorization"]["rate"] > rows[0]["memorization"]["rate"]
    # Judged by points that steered no training.
    assert document["heldout"]["memorization"] == memorization_rate(data.test, data.train).to_dict()
    assert document["heldout"]["frechet"] == quality_report(expected["A", None], data.train, data.test).frechet_floor


@pytest.mark.parametrize(("direction", "expected"), [("a", {("A", "gaussian")}), ("b", {("gaussian", "A")})])
def test_direction(direction, expected, runs, capsys):
    rows = [row for row in rows_of(capsys, runs / "a", "gaussian", "--direction", direction, "--controls", 0)
            if row["window"]]
    assert {names(row) for row in rows} == expected
    assert [row["window"]["name"] for row in rows] == ["large", "medium", "small"]


def test_danger_zone_by_name_and_from_a_file(runs, tmp_path, capsys):
    assert status("danger-zone", "digits", "--n-train", 40, "--out", tmp_path / "zone") == 0
    by_name, from_file = (row["window"] for row in rows_of(
        capsys, runs / "a", "gaussian", "--window", "zone", "--window", tmp_path / "zone", "--controls", 0,
        "--direction", "a", "--steps", 18)[2:])
    assert [by_name[end] for end in ("low", "high")] == pytest.approx([from_file[end] for end in ("low", "high")],
                                                                      rel=1e-6)


def test_classes_take_turns_by_seed(runs, capsys):
    """The samples of every row, and so their distances, are those of these labels, not of others."""
    from geomem.training import load_denoiser

    rows = rows_of(capsys, runs / "classes", "skip", "--window", "0.1:1.5", "--controls", 0, "--sampler", "ddim")
    model, train = load_denoiser(runs / "classes"), load_data("digits", n_train=40).train
    levels = sampler_levels("ddim", 8, model.schedule)
    options = {"seeds": range(12), "shape": (1, 8, 8), "sigmas": levels, "method": "ddim"}

    def distances(labels):
        alone = generate(model.denoiser, **options, labels=labels)
        skipped = swapped_samples(model.denoiser, None, Window(0.1, 1.5), **options, labels=labels)
        return [memorization_rate(samples, train).median_nearest_distance for samples in (alone, skipped)]

    found = [row["memorization"]["median_nearest_distance"] for row in rows]
    assert found == pytest.approx(distances(np.arange(12) % 10), rel=1e-4)
    assert found != pytest.approx(distances(np.zeros(12, dtype=int)), rel=1e-4)


def test_points_that_judge_but_were_seen_are_noted(runs, tmp_path, capsys):
    data = load_data("digits", n_train=40)
    np.savez(tmp_path / "leak.npz", train=np.concatenate([data.train, data.test[:7]]), heldout=data.validation)
    leak = tmp_path / "leak"
    assert status("train", tmp_path / "leak.npz", "--network", "mlp", "--iterations", 2, "--out", leak) == 0
    capsys.readouterr()
    options = ["--window", "0.1:1.5", "--controls", 0, *QUICK, "--json"]
    assert status("swap", runs / "a", leak, *options) == 0
    assert f"trained on 7 of the {len(data.test)} held-out points" in capsys.readouterr().err
    assert status("swap", runs / "a", runs / "b", *options) == 0
    assert "held-out points of" not in capsys.readouterr().err


WRONG = {
    "no such run": (["a", "gone"], "gone"),
    "twice": (["a", "gaussian", "gaussian"], "gaussian is given twice; once is enough"),
    "a run twice": (["a", "b", "b"], "--weights-b"),
    "below a file": (["a", "gaussian", "--out", "points.npz/deeper"], "cannot be written"),
    "nothing inside": (["a"], "RUN_B"),
    "points of another shape": (["a", "points"], "shape"),
    "other labels": (["a", "classes"], "labels"),
    "weights without a run": (["a", "gaussian", "--weights-b", "last"], "--weights-b"),
    "no such weights": (["a", "gaussian", "--weights-a", "best"], "best"),
    "no such window": (["a", "gaussian", "--window", "wide"], "--window"),
    "window without a level": (["a", "gaussian", "--window", "0.31:0.32"], "holds none"),
    "window turned round": (["a", "gaussian", "--window", "2:1"], "low"),
    "negative window": (["a", "gaussian", "--window", "-1:1"], "low < high"),
    "everything skipped": (["a", "skip", "--window", "0:1000"], "holds every"),
    "nothing outside": (["a", "skip", "--direction", "b"], "--direction"),
    "one sample": (["a", "gaussian", "--n-samples", "1"], "--n-samples"),
    "directory taken": (["a", "gaussian", "--out", "taken"], "another run"),
    "data of another shape": (["a", "gaussian", "--data", "points.npz"], "--data"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_with_status_2(name, runs, tmp_path, capsys, monkeypatch):
    (runs / "taken").mkdir(exist_ok=True)
    (runs / "taken" / "swap.json").write_text("{}")
    monkeypatch.chdir(runs)
    arguments, word = WRONG[name]
    assert status("swap", *arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert lines[0].startswith("geomem: ")
    assert word in lines[0]
    assert captured.out == ""


# pictures


def row_of(outside, inside, window, rate):
    return {"outside": outside, "inside": inside, "window": window,
            "memorization": {"rate": rate, "low": rate / 2, "high": (1 + rate) / 2},
            "quality": {"frechet": 2.0, "frechet_low": 1.5, "frechet_high": 2.5}}


def test_bars_lie_over_their_windows():
    window = {"low": 0.1, "high": None, "control_of": None}
    figure = plot_swap([row_of("A", None, None, 0.9), row_of("A", "skip", window, 0.25)], LEVELS.tolist(),
                       {"memorization": {"rate": 0.0}, "frechet": 1.0})
    # No row has A inside.
    assert [axes.get_title() for axes in figure.axes] == ["A outside the window, the other inside", ""]
    bars = [line for line in figure.axes[0].lines if list(line.get_ydata()) == [0.25, 0.25]]
    assert len(bars) == 1
    assert list(bars[0].get_xdata()) == [0.1, 120]  # no end above: beyond the largest level of the sampler
    figure.canvas.draw()
    for axes in figure.axes:
        written = [text.get_text() for text in (*axes.get_yticklabels(), *axes.get_yticklabels(minor=True))]
        assert any(written)
        assert not any("times" in text or "^" in text for text in written)  # 2, not 2 x 10^0
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend[0] == "the other: skip"
    with pytest.raises(InputError, match="no swap"):
        plot_swap([row_of("A", None, None, 0.9)], LEVELS.tolist(), {})


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (2, 30)])
def test_memorized_samples_are_framed(shape):
    samples = np.random.default_rng(0).uniform(-1, 1, (3, *shape))
    rows = [("one", samples, np.array([True, False, False])), ("two", samples, np.array([False, False, True]))]
    axes = plot_swap_samples(rows).axes
    assert len(axes) == 6
    assert [ax.spines["top"].get_visible() for ax in axes] == [True, False, False, False, False, True]
    assert axes[3].get_ylabel() == "two"
    for wrong in ([], [("two channels", np.zeros((3, 2, 4, 4)), np.zeros(3, bool))]):
        with pytest.raises(InputError, match="rows"):
            plot_swap_samples(wrong)
