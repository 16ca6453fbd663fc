"""Looking at a training: when it warns, when it stops, what it leaves, and that it changes nothing."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import status
from test_training import POINTS, after_step, assert_same_run, make, terminate, train_on

import geomem
from geomem.errors import InputError
from geomem.generation import generate
from geomem.memorization import MemorizationCheck, Watch, default_watch_every, leaning
from geomem.memorization.heldout import SMALLEST_SET
from geomem.memorization.watch import EVALUATIONS, STEPS
from geomem.models import EmpiricalDenoiser, GaussianDenoiser
from geomem.noise import GapSampler, LogNormalSampler, ResolvedLaw
from geomem.noise.schedules import edm_steps
from geomem.plots import plot_watch
from geomem.run_training import MAX_GRIDS, thin_grids
from geomem.statistics import wilson_interval
from geomem.training import (
    Interrupted,
    Run,
    evaluation_steps,
    heldout_monitor,
    train_steps,
    watch_steps,
)
from geomem.training.checkpoint import restore_checkpoint
from geomem.training.plan import levels_to_watch

RNG = np.random.default_rng(5)
TRAIN, HELDOUT = (RNG.standard_normal((n, 16)).astype(np.float32) for n in (30, 50))


def test_empirical_optimal_denoiser_has_memorized_and_the_gaussian_one_has_not():
    """[G] section 3: the first returns training points at small noise, the second knows two moments only."""
    watch = Watch(TRAIN, HELDOUT, [0.1, 0.3])
    copies = watch.look(EmpiricalDenoiser(torch.from_numpy(TRAIN)))
    assert copies.has_set_in
    assert copies.rate > 0.95
    assert max(np.divide(copies.mse_train, copies.mse_heldout)) < 0.01
    honest = watch.look(GaussianDenoiser(torch.from_numpy(TRAIN)))
    assert not honest.has_set_in
    assert (honest.n, honest.floor, len(honest.sigma)) == (64, 0.0, 2)
    assert honest.floor_high == wilson_interval(0, 50)[1]
    assert watch.look(GaussianDenoiser(torch.from_numpy(TRAIN))) == honest


def test_a_few_copies_by_chance_are_no_alarm():
    """1 of 64 with 0 of 400 held out: [0.3%, 8.3%] against [0%, 0.95%] overlap; 3 of 64 do not."""
    for count, expected in ((1, False), (3, True)):
        low, high = wilson_interval(count, 64)
        look = MemorizationCheck(count / 64, low, high, 64, 0.0, wilson_interval(0, 400)[1], [], [], [], [])
        assert look.has_set_in is expected
        assert look.shows_copies() is expected
        assert look.shows_copies(0.03 if expected else 0.01) is expected
        assert not look.shows_copies(0.05)


def test_leaning_of_a_look_is_that_of_the_same_samples():
    """The share against ``geomem.leaning`` of the samples that a look makes; copies, and an honest model."""
    copier, honest = (kind(torch.from_numpy(TRAIN)) for kind in (EmpiricalDenoiser, GaussianDenoiser))
    test = RNG.standard_normal((90, 16)).astype(np.float32)
    watch = Watch(TRAIN, HELDOUT, [], test=np.concatenate([test, TRAIN[:9]]))  # what leaked is left out
    for denoiser in (copier, honest):
        samples = generate(denoiser, range(64), (16,), sigmas=edm_steps(STEPS))
        expected, found = leaning(samples, TRAIN, test), watch.look(denoiser).leaning
        assert (found.share, found.n, found.m, found.points) == (expected.share, 64, 30, "test")
        assert found.floor == expected.floor.share
        assert found.low == pytest.approx(expected.low, abs=0.03)  # 199 relabelings instead of 999
        assert found.high == pytest.approx(expected.high, abs=0.03)
        assert (found.share > 0.99) == (denoiser is copier)


def test_leaning_is_of_validation_points_where_there_are_no_others():
    denoiser = EmpiricalDenoiser(torch.from_numpy(TRAIN))
    found = Watch(TRAIN, HELDOUT, []).look(denoiser).leaning
    assert (found.points, found.m) == ("validation", 30)
    assert found.share == Watch(TRAIN, None, [], test=HELDOUT).look(denoiser).leaning.share
    assert Watch(TRAIN, HELDOUT[:9], []).look(denoiser).leaning is None
    assert Watch(TRAIN, TRAIN, []).look(denoiser).leaning is None


def test_leaning_of_a_look_compares_with_a_bounded_number_of_points(monkeypatch):
    """And what it leaves out it still looks through for leaks."""
    monkeypatch.setattr("geomem.memorization.watch.POINTS", 20)
    watch = Watch(TRAIN, None, [], test=np.concatenate([HELDOUT, TRAIN]))
    assert len(watch.compared.train) == 20
    assert SMALLEST_SET <= len(watch.compared.heldout) < 20
    known = {row.tobytes() for row in HELDOUT}
    assert all(row.tobytes() in known for row in watch.compared.heldout)
    pictures, unseen = (points.reshape(-1, 1, 4, 4) for points in (TRAIN, HELDOUT))
    watch = Watch(pictures, None, [], test=np.concatenate([unseen, pictures[..., ::-1]]), mirrored=True)
    assert all(row.tobytes() in known for row in watch.compared.heldout)


def test_looks_without_held_out_points():
    look = Watch(TRAIN, None, [0.5]).look(GaussianDenoiser(torch.from_numpy(TRAIN)))
    assert (look.floor, look.sigma, look.mse_train) == (0.0, [], [])
    plot_watch([{"step": 1, **look.to_dict()}])
    with pytest.raises(InputError, match="at least 2 samples"):
        Watch(TRAIN, None, [], n=1)


def test_watch_steps_are_the_first_evaluations_after_each_share_of_images():
    """Evaluations of 300 steps of 10: 25, 50, ..., 250, 275, 300; images 600, 1200, ... are passed at 75, 125, ..."""
    assert evaluation_steps(300) == list(range(25, 301, 25))
    assert watch_steps(300, 10, 600) == [75, 125, 200, 250, 300]
    assert watch_steps(300, 10, 10**9) == [300]
    assert watch_steps(300, 10, 1) == evaluation_steps(300)


@pytest.mark.parametrize("images", [100, 10**5, 10**7])
def test_default_costs_less_than_a_twentieth_of_the_training(images):
    """A look costs EVALUATIONS of the network, a training image three."""
    looks = images // default_watch_every(images)
    assert looks <= 25
    assert looks * EVALUATIONS < 0.05 * 3 * images


def watched(trainer, steps, **options):
    return heldout_monitor(trainer, POINTS[20:], POINTS[:20], every=steps, n=8, sigmas=[0.5], **options)


def test_looking_changes_nothing_and_resumes(tmp_path):
    steps = watch_steps(120, 16, 401)
    assert steps == [50, 75, 100, 120]
    train_on(tmp_path / "plain", 120)
    run, trainer = make(tmp_path / "watched", iterations=120)
    after_step(trainer, 60, terminate)
    with pytest.raises(Interrupted, match="stopped at step 60"):
        list(train_steps(run, trainer, watched(trainer, steps)))
    run.append("watch.jsonl", {"step": 75})  # seen after the checkpoint, by a process that was killed
    run, trainer = make(tmp_path / "watched", iterations=120)
    monitor = watched(trainer, steps)
    looks = [(state.step, state.look) for state in train_steps(run, trainer, monitor) if state.look is not None]
    assert looks == monitor.looks
    assert [line["step"] for line in run.lines("watch.jsonl")] == [50, *(step for step, _ in looks)] == steps
    assert run.lines("watch.jsonl")[-1] == {"step": 120, "images": 1920, **looks[-1][1].to_dict()}
    for path in (run.path / "weights").iterdir():  # those that weights from before the copies would be chosen from
        if not (tmp_path / "plain" / "weights" / path.name).exists():
            path.unlink()
    assert_same_run(tmp_path / "plain", tmp_path / "watched")


def test_enough_saves_and_ends(tmp_path, monkeypatch):
    run, trainer = make(tmp_path / "run", iterations=120)
    monitor = watched(trainer, [25, 75, 100], stop_at=0.3)
    rates = iter([0.1, 0.4])
    monkeypatch.setattr(monitor.watch, "look", lambda denoiser: MemorizationCheck(
        rate := next(rates), rate / 2, 1, 8, 0, 0, [], [], [], []))
    states = list(train_steps(run, trainer, monitor))
    assert (len(states), states[-1].saved, monitor.should_stop) == (75, True, True)
    assert max(monitor.best_weights.steps) <= 75
    _, again = make(tmp_path / "run", iterations=120)
    restore_checkpoint(run, again)
    assert again.steps_done == 75


@pytest.mark.slow
def test_stop_at_memorization_from_the_command_line(tmp_path, capsys):
    """Eight far-apart points are copied within a few hundred steps."""
    train_points = 3 * np.sign(np.random.default_rng(0).standard_normal((8, 24))).astype(np.float32)
    heldout = np.random.default_rng(1).standard_normal((90, 24)).astype(np.float32) * 3
    np.savez(tmp_path / "far.npz", train=train_points, heldout=heldout)
    command = ["train", tmp_path / "far.npz", "--out", tmp_path / "run", "--iterations", 1500, "--batch", 32,
               "--watch-every", 32 * 100, "--stop-at-memorization", 0.5]
    assert status(*command) == 0
    said = capsys.readouterr().err
    assert said.count("warning: memorization has set in") == 1
    assert "stopped and saved, as --stop-at-memorization 0.5 asks" in said
    run = Run(tmp_path / "run")
    lines = run.lines("watch.jsonl")
    assert lines[-1]["leaning"] is None  # of 8 training points nothing is said
    assert lines[-1]["rate"] >= 0.5
    assert all(line["rate"] < 0.5 for line in lines[:-1])
    assert lines[-1]["step"] == run.stats[-1]["step"] < 1500
    step = run.step_before_copies
    assert f"copies were seen at step {lines[-1]['step']:,}; weights before-copies: step {step:,}" in said
    assert f"geomem memorization {run.path}\n" in said
    assert lines[-1]["step"] / 2 / 1.3 < step <= lines[-1]["step"] / 2
    assert status("generate", run.path, "--weights", "before-copies", "--seeds", "0-7",
                  "--out", tmp_path / "s.npz") == 0
    assert (run.path / "watch.png").exists()
    assert status(*command[:-4], "--watch-every", 0, "--stop-at-memorization", 0.5, "--resume") == 2
    assert "needs --watch-every above 0" in capsys.readouterr().err


def test_figure_shows_every_look():
    lines = [{"step": step, "rate": rate, "low": rate / 2, "high": min(1, 2 * rate + 0.05), "n": 64, "floor": 0.0,
              "floor_high": 0.01, "sigma": [0.3, 0.6], "mse_train": [0.1, 0.2], "mse_heldout": [0.1 + rate, 0.2],
              "rate_per_level": [0, 0], "has_set_in": rate > 0.1} for step, rate in ((10, 0.0), (20, 0.2), (40, 0.5))]
    share, error = plot_watch(lines, stop_at=0.4).axes
    drawn = share.lines[0]
    assert list(drawn.get_xdata()) == [10, 20, 40]
    assert list(drawn.get_ydata()) == [0.0, 0.2, 0.5]
    assert [line.get_label() for line in share.lines[1:]] == ["held-out points memorized, at most", "training stops",
                                                              "memorization sets in"]
    assert len([text for text in error.get_yticklabels() if text.get_text()]) >= 3  # 1 to 6: numbers, not one alone
    assert share.lines[3].get_xdata()[0] == 20
    np.testing.assert_allclose(error.lines[0].get_ydata(), [1, 3, 6])
    with pytest.raises(InputError, match="no look"):
        plot_watch([])
    leans = [{**lines[0], "step": step, "leaning": {"share": at, "low": at - 0.1, "high": at + 0.1, "points": "test"}}
             for step, at in ((20, 0.6), (40, 0.8))]
    share, _ = plot_watch([lines[0], *leans]).axes  # the first look is of an older version
    drawn = next(line for line in share.lines if line.get_label() == "nearer to training than to test points")
    assert drawn.get_xydata().tolist() == [[20, 0.6], [40, 0.8]]
    edges = {tuple(point) for point in share.collections[1].get_paths()[0].vertices.round(6).tolist()}
    assert {(20, 0.5), (20, 0.7), (40, 0.7), (40, 0.9)} <= edges
    assert share.get_ylim()[1] > 0.9


@pytest.mark.parametrize(("gaps", "zone", "levels"), [
    ([(1.0, 4.0)], (0.2, 0.8), [0.2, 0.4, 0.8]),
    ([(1.0, 4.0), (5.0, 6.0)], None, [1, 2, 4]),
    ([], None, [0.25, 0.5, 1]),
    ([(0.0, 0.2)], None, [0.002, 0.02, 0.2]),
    ([(20.0, np.inf)], None, [20, 40, 80]),
    ([(144.0, np.inf)], None, [144])])
def test_levels_to_watch_are_finite_and_positive(gaps, zone, levels):
    """The middle is the geometric mean; gaps reach 0 and infinity where they begin or end with the timesteps."""
    base = LogNormalSampler()
    document = {"zone": zone and {"sigma_low": zone[0], "sigma_high": zone[1]}}
    law = ResolvedLaw(GapSampler(base, gaps) if gaps else base, ("plain", base), "", document)
    assert levels_to_watch(law, 0.5) == pytest.approx(levels)


def test_board_forgets_what_was_written_after_the_checkpoint(tmp_path, monkeypatch):
    """On going on, the first line repeats a step that a killed process may have written already."""
    written = []

    class Writer:
        def __init__(self, path, purge_step):
            written.append((path, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "tensorboard", types.SimpleNamespace(__spec__="installed"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    options = {"network": "mlp", "n_train": 40, "batch": 8, "watch_every": 0, "tensorboard": True, "device": "cpu"}
    for iterations in (26, 28):
        run = geomem.train("digits", tmp_path / "run", iterations=iterations, resume=iterations > 26, **options)
        assert [line["step"] for line in run.stats] == [25, 26, 28][:2 + (iterations > 26)]
    folder = str(tmp_path / "run" / "tensorboard")
    assert written == [(folder, 25), ("loss", 25), ("heldout_mse", 25), ("loss", 26), ("heldout_mse", 26),
                       (folder, 28), ("loss", 28), ("heldout_mse", 28)]


def test_grids_are_thinned_evenly(tmp_path):
    for k in range(1, 65):
        Path(tmp_path / f"samples-{k * 100:07d}.png").touch()
    thin_grids(Run(tmp_path))
    steps = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob("*.png"))
    assert len(steps) == MAX_GRIDS
    assert (steps[0], steps[-1]) == (100, 6400)
    assert np.diff(np.log(steps)).max() < 3 * np.log(64) / (MAX_GRIDS - 1)
