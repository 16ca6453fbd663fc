"""The study of what works against memorization: its distilling trainer, its means, and the marks of its processes."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import prevention_study as study
import pytest
import torch
from torch import nn

from geomem.models import EDMDenoiser, build_network
from geomem.noise import LogNormalSampler
from geomem.statistics import Z_95
from geomem.training import BestWeights, Monitor, Trainer, TrainingSettings, denoising_loss


class Third(nn.Module):
    """``D(x) = x / 3``, with the weight of the EDM loss."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x, sigma, labels=None):
        self.asked += sigma.tolist()
        return x / 3

    def loss_weight(self, sigma):
        return 1 / sigma**2 + 1


class Edge:
    """The noise level 1, where a band begins, in the place of every eighth one."""

    def sample(self, n, rng):
        sigma = LogNormalSampler().sample(n, rng)
        sigma[::8] = 1
        return sigma


@pytest.fixture
def trainers():
    """One of each kind, with the same batches."""
    points = np.random.default_rng(0).standard_normal((90, 1, 12)).astype(np.float32)

    def make(kind):
        torch.manual_seed(0)
        return kind(EDMDenoiser(build_network("mlp", (1, 12)), 1.0), Edge(), points,
                    TrainingSettings(iterations=9, batch=64, precision="bf16"))

    return make(Trainer), make(study.ClosingTrainer)


def test_closed_levels_have_the_teachers_estimate_as_their_target(trainers):
    """A band holds its lower edge, as the denoiser of a band does. Sums and quotients in float32: 4 roundings."""
    plain, closing = trainers
    closing.teacher = Third()
    closing.edges, closing.closed = np.array([0.1, 0.5, 1.0, 9.0]), np.array([True, False, True])
    expected, found = plain.batch(3), closing.batch(3)
    sigma = expected.sigma
    closed = (sigma < 0.5) | (sigma >= 1)
    assert 10 < int(closed.sum()) < 60
    assert sorted(closing.teacher.asked) == sorted(sigma[closed].tolist())
    assert torch.equal(found.sigma, sigma)
    assert torch.equal(found.clean[~closed], expected.clean[~closed])
    assert torch.equal(found.noise[~closed], expected.noise[~closed])
    spread = sigma.double()[:, None, None]
    noisy = expected.clean + spread * expected.noise
    rounding = 4 * 2**-24 * (expected.clean.abs() + spread * expected.noise.abs())
    assert ((found.clean.double() - noisy / 3).abs() <= rounding)[closed].all()
    assert ((found.clean.double() + spread * found.noise - noisy).abs() <= 2 * rounding).all()
    # What the teacher says is the optimum there: its own loss is 0 up to rounding, that of clean points is not.
    loss, other = (denoising_loss(closing.teacher, batch.clean[closed], batch.noise[closed], sigma[closed])
                   for batch in (found, expected))
    assert loss < 1e-9 < 1e-2 < other


def test_fewer_beats_than_a_file_sorted_by_class_holds_are_of_all_classes(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(40, 8))
    for part in ("TRAIN", "TEST"):
        np.savetxt(tmp_path / f"ECG5000_{part}.txt", np.column_stack([np.repeat([1, 2], 20), rows]))
    monkeypatch.setitem(study.SETS, "ecg200", replace(study.SETS["ecg200"], n_train=20))
    dataset = study.load_set("ecg200", tmp_path, tmp_path)
    assert len(dataset.train) == 20
    assert 4 < np.isin(dataset.train.reshape(20, 8), rows[:20].astype(np.float32)).all(1).sum() < 16


def test_nothing_closed_is_the_plain_training(trainers):
    closing = trainers[1]
    for _ in range(2):
        batches = [trainer.batch(1) for trainer in trainers]
        assert all(torch.equal(*parts) for parts in zip(*((b.clean, b.noise, b.sigma) for b in batches), strict=True))
        closing.teacher, closing.edges, closing.closed = Third(), np.array([0.1, 1, 9]), np.array([False, False])


def test_levels_close_where_the_loss_has_risen_and_open_again(trainers):
    closing = trainers[1]
    best = BestWeights([0.1, 1, 10], tolerance=0.01)
    before = {name: tensor.clone() for name, tensor in closing.ema.state_dict().items()}
    best.update(1, [3.0, 1.0], before)
    closing.close(best, np.array([3.0, 1.0]))
    assert closing.teacher is None
    with torch.no_grad():
        for parameter in closing.ema.parameters():
            parameter.add_(0.1)
    best.update(2, [2.0, 1.02], closing.ema.state_dict())
    closing.close(best, np.array([2.0, 1.02]))
    assert closing.closed.tolist() == [False, True]
    x, levels = torch.ones(2, 1, 12), torch.tensor([0.5, 5.0])
    found = closing.teacher(x, levels)
    assert torch.equal(found[0], closing.ema(x[:1], levels[:1])[0])
    closing.ema.load_state_dict(before)
    assert torch.equal(found[1], closing.ema(x[1:], levels[1:])[0])
    closing.step()  # with the estimates of the teacher, in the arithmetic of the training
    assert closing.steps_done == 1
    assert np.isfinite(closing.mean_loss)
    best.update(3, [2.0, 1.009], before)
    closing.close(best, np.array([2.0, 1.009]))
    assert closing.teacher is None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["closed levels", "dummy class"])
def test_a_small_study(way, monkeypatch):
    """Of the same seed, all ways start from the same weights and judge the same numbers of samples and points."""
    monkeypatch.setitem(study.SETS, "digits", study.Set(60, "mlp", 16, 16))
    monkeypatch.setattr(study, "SAMPLES", 12)
    dataset = study.load_data("digits", n_train=60)
    cell = study.study("digits", way, 1, dataset)
    kinds = [(row["weights"], row.get("step")) for row in cell["rows"]]
    assert kinds[:4] == [("last", step) for step in (2, 4, 8, 16)]
    assert [kind for kind, _ in kinds[4:]] == (["per level", "early stop"] if way in study.STEERED else [])
    assert {row["memorized"]["n"] for row in cell["rows"]} == {12}
    assert {row["quality"]["n_heldout"] for row in cell["rows"]} == {len(dataset.test)}
    assert {(row["leaning"]["n"], row["leaning"]["m"]) for row in cell["rows"]} == {(12, 60)}
    assert study.summary([cell])[0]["seeds"] == [1]


@pytest.mark.slow
@pytest.mark.parametrize(("found", "stops_at", "half"), [
    ([0.0, 0.02, 0.03], 75, 25),  # of the steps kept up to 37.5 the last is 25
    ([0.5], 25, 25)])  # none is kept before the first look: the weights of that one, as --weights before-copies
def test_a_training_stops_at_copies_and_is_judged_at_half_its_steps_too(found, stops_at, half, monkeypatch):
    """Looks at steps 25, 50, ... find these shares of copies; 3% ends the training."""
    monkeypatch.setitem(study.SETS, "digits", study.Set(60, "mlp", 16, 200))
    monkeypatch.setattr(study, "SAMPLES", 12)
    monkeypatch.setattr(study, "default_watch_every", lambda images: 1)
    rates, seen = iter(found), []

    def look(monitor, step, denoiser):
        assert (monitor.watch.heldout, monitor.watch.sigmas) == (None, [])  # needs no held-out points
        seen.append({name: tensor.clone() for name, tensor in denoiser.state_dict().items()})
        return SimpleNamespace(rate=next(rates))

    monkeypatch.setattr(Monitor, "look", look)
    judged = []
    monkeypatch.setattr(study, "judged", lambda denoiser, *_: judged.append(
        {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}) or {})
    cell = study.study("digits", "stop at 3% copies", 0, study.load_data("digits", n_train=60))
    assert [(row["weights"], row["step"]) for row in cell["rows"]] == [("last", stops_at), ("half the steps", half)]
    for weights, look in zip(judged, (seen[-1], seen[0]), strict=True):
        assert all(torch.equal(weights[name], look[name]) for name in look)


def cell_of(seed, way, rows):
    """rows: (weights, step, memorized share, its high, Frechet distance, its high)."""
    return {"set": "digits", "way": way, "seed": seed, "rows": [
        {"weights": weights, "step": step, "memorized": {"rate": rate, "low": rate - 0.1, "high": high},
         "quality": {"frechet": frechet, "frechet_low": 0.0, "frechet_high": upper, "frechet_floor": 0.25,
                     "floor_n": [10, 20]}} for weights, step, rate, high, frechet, upper in rows]}


def test_means_over_seeds_by_hand():
    """Student's t at 1 degree of freedom is tan(0.475 pi); two values that lie 2 h apart have the error h."""
    cells = [cell_of(0, "none", [("last", 5, 0.5, 0.6, 3.0, 3.0), ("last", 9, 0.2, 0.3, 1.0, 1.4),
                                 ("early stop", 5, 0.1, 0.2, 2.0, 2.0)]),
             {"set": "digits", "way": "none", "seed": 1, "refused": "no gap"},
             cell_of(2, "none", [("last", 5, 0.5, 0.6, 3.0, 3.0), ("last", 9, 0.4, 0.5, 1.0, 1.4),
                                 ("early stop", 5, 0.1, 0.2, 2.0, 2.0)]),
             {"set": "digits", "way": "gap auto", "seed": 0, "refused": "no gap"}]
    last, early = study.summary(cells)
    assert [(row["way"], row["weights"], row["seeds"]) for row in (last, early)] == [
        ("none", "last", [0, 2]), ("none", "early stop", [0, 2])]
    t = np.tan(0.475 * np.pi)
    assert (last["memorized"]["mean"], last["memorized"]["high"]) == pytest.approx((0.3, 0.3 + 0.1 * t))
    # Seeds agree: what is left is the noise of the samples, of which there are twice as many.
    assert (last["frechet"]["mean"], last["frechet"]["high"]) == pytest.approx((1, 1 + 0.4 / 2**0.5))
    assert last["along"][0]["memorized"]["high"] == pytest.approx(0.5 + 0.1 / 2**0.5)
    assert last["along"][0]["memorized"]["within"] == pytest.approx(0.1 / Z_95)
    assert [at["step"] for at in last["along"]] == [5, 9]
    assert (last["floor"], last["floor_n"], early["along"]) == (0.25, [10, 20], [])
    assert study.text_of([last])[3] == "| none, last | 2 | 30.0% [0.0%, 100.0%] | - | 1.00 [0.72, 1.28] |"
    assert study.text_of([early])[:4] == [
        "\ndigits\n", "| way, weights | seeds | memorized | nearer to training | Frechet distance |",
        "|---|---|---|---|---|", "| none, early stop | 2 | 10.0% [2.9%, 17.1%] | - | 2.00 [2.00, 2.00] |"]


def test_leaning_stands_beside_each_share_that_has_it():
    """Two seeds that agree at 70% with standard errors of 2%: 1.96 x 2% / sqrt(2) = 2.8% to either side."""
    cells = [cell_of(seed, "none", [("last", 9, 0.2, 0.3, 1.0, 1.4), ("early stop", 5, 0.1, 0.2, 2.0, 2.0)])
             for seed in (0, 1)]
    cells[0]["rows"][0]["leaning"] = {"share": 0.7, "stderr": 0.02}
    alone = study.summary(cells)  # the other training lacks it
    assert alone[0]["leaning"]["high"] == pytest.approx(0.7 + 1.96 * 0.02, abs=1e-5)
    assert "| 70.0% [66.1%, 73.9%], n = 1 |" in study.text_of(alone)[3]
    cells[1]["rows"][0]["leaning"] = {"share": 0.7, "stderr": 0.02}
    rows = study.summary([*cells, *({**cell, "set": "ecg"} for cell in cells)])
    assert rows[0]["leaning"]["high"] == pytest.approx(0.7 + 1.96 * 0.02 / 2**0.5, abs=1e-5)
    text = study.text_of(rows)
    assert "| 70.0% [67.2%, 72.8%] |" in text[3]
    assert "| none, last | 2 | 20.0% to 20.0% | 70.0% to 70.0% |" in text[-2]
    assert "| none, early stop | 2 | 10.0% to 10.0% | - |" in text[-1]


def test_a_third_seed_widens_leaning_by_student_s_t():
    cells = [cell_of(seed, "ci auto", [("last", 9, 0.2, 0.3, 1.0, 1.4)]) for seed in range(3)]
    for cell, share in zip(cells, (0.6, 0.7, 0.8), strict=True):
        cell["rows"][0]["leaning"] = {"share": share, "stderr": 1e-3}
    found = study.summary(cells)[0]["leaning"]
    assert (found["mean"], found["high"]) == pytest.approx((0.7, 0.7 + 4.30265 * 0.1 / 3**0.5), abs=1e-5)


def test_trainings_of_an_earlier_summary_are_kept_where_they_were_not_done_again(tmp_path, monkeypatch, capsys):
    def cell(seed, way, rate):
        return cell_of(seed, way, [(weights, 9, rate, rate, 1.0, 1.4) for weights in ("last", "early stop")])

    old, new = [cell(seed, way, 0.9) for way in ("none", "ci auto") for seed in (0, 1)], cell(0, "none", 0.2)
    (tmp_path / "old.json").write_text(json.dumps({"trainings": old}))
    (tmp_path / "out" / "digits").mkdir(parents=True)
    (tmp_path / "out" / "digits" / "none-0.json").write_text(json.dumps(new))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["", "out", "--summary", "new.json", "--earlier", "old.json"])
    study.main()
    assert json.loads((tmp_path / "new.json").read_text())["trainings"] == [new, *old[1:]]
    assert "| none, last | 2 | 55.0%" in capsys.readouterr().out


def test_figure_of_leaning():
    """A panel for each set; the path of the checkpoints ends at its marker, seeds are faint, older ones left out."""
    path = Path(__file__).parents[1] / "figures" / "prevention.py"
    spec = importlib.util.spec_from_file_location("prevention", path)
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)

    def point(share, frechet):
        return {"leaning": {"mean": share}, "frechet": {"mean": frechet}}

    def row(way, weights, along):
        return {"set": "ecg", "way": way, "weights": weights, "seeds": [0, 1], "floor": 0.5, **along[-1],
                "along": along if weights == "last" else []}

    rows = [row("none", "per level", [point(0.6, 0.9)]), row("none", "last", [point(0.7, 0.8), point(0.9, 1.2)]),
            row("gap auto", "last", [point(0.5, 4.0), point(0.6, 2.0)]), row("gap zone", "last", [point(0.6, 3.0)]),
            row("none", "early stop", [{"leaning": None, "frechet": {"mean": 1.0}}])]
    trainings = [{"set": "ecg", "way": "none", "seed": seed, "rows": [
        {"weights": "last", "quality": {"frechet": frechet}, **({"leaning": {"share": share}} if share else {})}
        for share, frechet in ((0.7, 0.8), (share, 1.2))]} for seed, share in ((0, 0.88), (1, 0.92), (2, None))]
    drawn = figure.draw(rows, trainings)
    axes = drawn.axes[1]
    assert [a.get_title() for a in drawn.axes[:2]] == ["200 digits, 8 x 8; not measured",
                                                      "500 beats of ECG5000"]
    assert (axes.get_xlabel(), drawn.axes[4].get_xlabel()) == ("", "nearer to training than to unseen points")
    lines = [np.array(line.get_xydata()).tolist() for line in axes.lines]
    assert lines[:3] == [[[0.88, 1.2], [0.92, 1.2]], [[0.7, 0.8], [0.9, 1.2]], [[0.9, 1.2]]]
    assert [[0.6, 2.0]] in lines
    assert [[0.5, 4.0], [0.6, 2.0]] not in lines  # a path of the plain training alone
    assert [[0.6, 3.0]] not in lines
    assert lines[-2:] == [[[0.5, 0], [0.5, 1]], [[0, 0.5], [1, 0.5]]]  # half, and the floor
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "no gap, last weights, after checkpoints", "no gap, best weights per level", "gap auto, last weights",
        "owes the training points nothing", "two halves of the held-out data"]


def test_ratios_to_the_plain_training_by_hand():
    """Logarithms of ratios pair by seed; over sets, Student's t at 1 degree of freedom is tan(0.475 pi)."""
    def plain(last, best, early):
        return [("last", 5, 0, 0.1, best, best), ("last", 9, 0, 0.1, last, last),
                ("early stop", 5, 0, 0.1, early, early)]

    def gap(seed, end):
        return cell_of(seed, "gap auto", [("last", 5, 0, 0.1, 0.1, 0.1), ("last", 9, 0.3, 0.4, end, end)])

    cells = [cell_of(0, "none", plain(4.0, 2.0, 3.0)), cell_of(1, "none", plain(1.0, 8.0, 5.0)),
             gap(0, 8.0), gap(1, 2.0), gap(2, 99.0)]
    faces = [{**cell, "set": "faces16"} for cell in [*cells[:2], gap(0, 1.0), gap(1, 1.0)]]
    rows = study.summary(cells + faces + [{**cell, "set": "digits, long"} for cell in cells])
    ratio = {(row["set"], row["way"], row["weights"]): row["log_ratio"] for row in rows}
    of_gap = ratio["digits", "gap auto", "last"]
    assert of_gap["last"]["mean"] == pytest.approx(np.log(2))
    assert of_gap["last"]["seeds"] == (0, 1)
    assert of_gap["best on the way"]["mean"] == pytest.approx(np.log(8 / 2 * 2 / 1) / 2)  # of seed 1 it is the last
    stopped = [cell_of(seed, "stop at 3% copies", [("last", 7, 0, 0.1, 6, 6), ("half the steps", 3, 0, 0.1, half, half),
                                                   ("per level", 3, 0, 0.1, 0.1, 0.1)])
               for seed, half in ((0, 1.5), (1, 7.0))]
    on_the_way = study.summary([*cells, *stopped])
    assert next(row for row in on_the_way if row["way"] == "gap auto")["log_ratio"]["best on the way"][
        "mean"] == pytest.approx(np.log(8 / 1.5 * 2 / 1) / 2)
    assert of_gap["early stop"]["mean"] == pytest.approx(np.log(8 / 3 * 2 / 5) / 2)
    assert ratio["digits", "none", "early stop"]["last"]["mean"] == pytest.approx(np.log(3 / 4 * 5 / 1) / 2)
    alone = study.summary([cells[0], cells[2]])
    assert alone[-1]["log_ratio"]["last"] == {"mean": pytest.approx(np.log(8 / 4)), "low": None, "high": None,
                                              "p": None, "seeds": [0]}
    assert study.summary([cells[1], cells[2]])[-1]["log_ratio"]["last"] is None
    found = {(row["way"], row["weights"]): row for row in study.over_sets(rows)}[("gap auto", "last")]
    assert (found["sets"], found["seeds"]) == (["digits", "faces16"], [3, 2])
    assert found["memorized"] == {"least": pytest.approx(0.3), "most": pytest.approx(0.3)}
    digits, other = np.log(2), np.log(1 / 4 * 1 / 1) / 2
    mean, half = (digits + other) / 2, abs(digits - other) / 2 * np.tan(0.475 * np.pi)
    assert found["ratio"]["last"] == pytest.approx({
        "mean": np.exp(mean), "low": np.exp(mean - half), "high": np.exp(mean + half), "least": 0.5, "most": 2})
    assert study.text_of(rows)[-1].startswith("| gap auto, last | 2 | 30.0% to 30.0% | ")


def test_a_training_is_done_once(tmp_path):
    path, mark = tmp_path / "none-0.json", tmp_path / "none-0.busy"
    mark.write_text("")  # of a process that was stopped
    with study.claimed(path) as ours, study.claimed(path) as again:
        assert (ours, again) == (True, False)
        path.write_text("{}")
    with study.claimed(path) as ours:
        assert not ours
    path.unlink()
    with pytest.raises(KeyboardInterrupt), study.claimed(path):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_images_are_halved_by_means_of_squares():
    for shape in ((3, 32, 32), (2, 64, 64, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        found = study.halved(images)
        block = shape[1] // 16
        assert found.shape == (shape[0], 1 if len(shape) == 3 else 3, 16, 16)
        square = images.reshape(*shape[:3], -1)[1, 3 * block:4 * block, 5 * block:6 * block, -1]
        assert found[1, -1, 3, 5] == np.float32(square.mean() / 127.5 - 1)


def test_edges_of_the_gap_are_moved_by_their_factors(monkeypatch):
    """The recommended gap is 0.3 to 1.5 here, whatever the data."""
    asked = []
    plan = SimpleNamespace(law=SimpleNamespace(gaps=((0.3, 1.5),)))
    monkeypatch.setattr(study, "plan_training", lambda *_, **options: asked.append(options) or plan)
    for way, gap in (("lower edge / 2", "0.15:1.5"), ("lower edge x 2", "0.6:1.5"), ("upper edge / 2", "0.3:0.75"),
                     ("upper edge x 2", "0.3:3")):
        study.plan_of("digits", f"gap auto, {way}", 7, None)
        assert [options["gap"] for options in asked[-2:]] == ["auto", gap]
    assert {options["seed"] for options in asked} == {7}
    names = {study._file_name(way) for way in study.WAYS}
    assert len(names) == len(study.WAYS)
    assert all(name.replace("-", "").isalnum() for name in names)


@pytest.mark.parametrize(("arguments", "words"), [
    (["out", "--sets", "digits;digit"], "'digit' is none of: digits; "),
    (["out", "--ways", "none;gap"], "'gap' is none of: none; "), (["out", "--ways", ""], "'' is none of"),
    (["out", "--seeds", "0,x"], "'0,x' is no list of seeds"),
    (["out", "--summary", "all.json"], "holds no training"), (["file"], "is a file"),
])
def test_what_is_wrong_ends_the_study_before_it_begins(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["prevention-study", *arguments])
    with pytest.raises(SystemExit) as stop:
        study.main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_names_the_sets_and_ways(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prevention-study", "--help"])
    with pytest.raises(SystemExit):
        study.main()
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in (*study.SETS, *study.WAYS))
