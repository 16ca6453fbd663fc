"""The benchmarks run, in sizes of a few seconds; what they measure is compared with what is known."""

import gc
import importlib.util
import json
import os
import pickle
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from benchmarks import all as everything
from benchmarks import cost, generation, geometry, inputs, measure, memorization, training

TINY = geometry.Sizes(
    small=40, small_levels=4, small_runs=2, numpy_runs=1, large=400, large_queries=20, large_runs=2, huge=500, bank=64,
    product_sides=(64,), base=(60, 4, 3, 10), points=(40, 60), sides=(4, 8), levels=(2, 3), queries=(5, 10),
    scaling_runs=2, agreement=6, agreement_levels=3, agreement_seeds=2, processes=(1, 2), process_runs=1)


def pickled_and_called(function, *arguments):
    """What goes to another process must survive pickling; starting one takes seconds."""
    function, arguments = pickle.loads(pickle.dumps((function, arguments)))
    return function(*arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The results of a tiny run of everything, and its file."""
    path = tmp_path_factory.mktemp("benchmark") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "QUICK", TINY)
        patch.setattr(geometry, "in_a_fresh_process", pickled_and_called)
        geometry.main(["--quick", "--out", str(path)])
    return json.loads(path.read_text()), path


@pytest.mark.slow
def test_every_part_ran(run):
    parts = run[0]["parts"]
    assert list(parts) == list(geometry.PARTS)
    for part in parts.values():
        assert "load_before" in part or part["skipped"].startswith("geometry_curves takes no ")
    assert parts["cifar-1k"]["seconds"]["runs"] == 2
    assert max(parts["cifar-1k"]["largest_difference"].values()) < 1e-6
    assert parts["agreement"]["clusters d=64"]["events"] == 6 * (3 + 5 * 4) * 2
    for name in ("50k", "imagenet-size"):
        if "skipped" not in parts[name]:
            assert 0 <= parts[name]["memory_gib"]["anonymous"] < 1
            assert parts[name]["first_and_last_level"]["coverage"][0] == 0
    if "skipped" not in parts["processes"]:
        assert parts["processes"]["2 processes"]["largest_difference"] < 1e-9


@pytest.mark.slow
def test_one_part_again_keeps_the_others(run, monkeypatch, capsys):
    document, path = run
    monkeypatch.setattr(geometry, "QUICK", TINY)
    monkeypatch.setitem(geometry.PARTS, "scaling", lambda bench: {"seconds": measure.spread([3.0, 1.0, 2.0])})
    geometry.main(["--quick", "--only", "scaling", "--out", str(path)])
    after = json.loads(path.read_text())["parts"]
    assert {**document["parts"], "scaling": after["scaling"]} == after
    assert after["scaling"]["seconds"] == {"median": 2, "min": 1, "max": 3, "runs": 3}
    assert "2 [1, 3], 3 run(s)" in capsys.readouterr().out
    path.write_text(json.dumps(document))


@pytest.mark.slow
def test_figures_of_two_machines_do_not_mix(run, tmp_path, capsys):
    for content in (json.dumps(run[0] | {"machine": {"cpu": "another"}}), "[1]", "no JSON"):
        path = tmp_path / "other.json"
        path.write_text(content)
        with pytest.raises(SystemExit) as stopped:
            geometry.main(["--quick", "--only", "agreement", "--out", str(path)])
        assert stopped.value.code == 2
        assert "name another file with --out" in capsys.readouterr().err
        assert path.read_text() == content


def test_a_fresh_process_is_another():
    assert geometry.in_a_fresh_process(os.getpid) not in (os.getpid(), None)


def test_quick_is_less_than_full():
    for field in fields(geometry.Sizes):
        quick, full = getattr(geometry.QUICK, field.name), getattr(geometry.FULL, field.name)
        assert quick is None or np.sum(quick) <= np.sum(full)


def test_figure_of_the_scaling():
    path = Path(geometry.__file__).parents[2] / "figures" / "geometry_benchmark.py"
    spec = importlib.util.spec_from_file_location("geometry_benchmark", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = [{"value": n, "seconds": measure.spread([0.1 * n**1.5] * 3)} for n in (10, 20, 40)]
    names = ("points", "dim", "levels", "queries")
    figure = script.draw({"machine": {"gpu": None, "cpu": "a machine", "threads": 2}, "parts": {"scaling": {
        "base": dict.fromkeys(names, 20), "series": dict.fromkeys(names, rows)}}})
    assert [axes.get_title() for axes in figure.axes] == ["power 1.50"] * 4


def test_seconds_leave_out_the_warm_up(monkeypatch):
    clock, collected = [0.0], []
    waits = iter([30.0, 1.0, 5.0, 3.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure.gc, "collect", lambda: collected.append(clock[0]))

    def call():
        clock[0] += next(waits)
        return clock[0], gc.isenabled()

    seconds, last = measure.timed(call, runs=3)
    assert seconds == {"median": 3, "min": 1, "max": 5, "runs": 3}
    assert last == (39, False)
    assert gc.isenabled()
    assert collected == [30, 31, 36]


def test_peak_memory_of_an_array_that_is_gone_again():
    with measure.PeakMemory() as memory:
        array = np.ones(2**23)  # 64 MiB
        time.sleep(0.5)  # a loaded machine may not look every 10 ms
        del array
    assert memory.result["anonymous"] == pytest.approx(2**26, rel=0.05)
    assert memory.result["anonymous_total"] > memory.result["anonymous"]


def test_smooth_images():
    images = inputs.smooth_images(300, 16, "train")
    assert images.shape == (300, 768)
    assert (images.min(), images.max()) == (-1, 1)
    assert images.std() == pytest.approx(0.48, abs=0.02)
    fields = images.reshape(-1, 16, 16)
    assert np.corrcoef(fields[:, :, :-1].ravel(), fields[:, :, 1:].ravel())[0, 1] > 0.7
    assert not np.array_equal(images, inputs.smooth_images(300, 16, "heldout"))


def test_huge_file_holds_different_images(tmp_path):
    inputs.write_huge(tmp_path / "huge.npy", 1000, bank=64)
    images = np.load(tmp_path / "huge.npy", mmap_mode="r")
    assert (images.shape, images.dtype) == ((1000, 3072), np.uint8)
    assert len(np.unique(images, axis=0)) == 1000


def test_share_of_the_machine_rate():
    """2 x 10 points x 3 dimensions x (2 x 5 queries + 256 directions) operations, in 2 seconds, of 1,596 a second."""
    got = geometry.products({"points": 10, "dim": 3, "queries": 5}, 2.0, {"float32": 15960.0})
    assert got["product_gflop"] == pytest.approx(15960e-9)
    assert got["share_of_machine_rate"] == {"float32": 0.5}


@pytest.mark.slow
def test_training_benchmark_runs_and_its_ways_are_what_they_say(tmp_path, monkeypatch):
    tiny = training.Sizes(network="unet-tiny", side=8, images=20, batch=6, steps=2)
    monkeypatch.setattr(training, "QUICK", tiny)
    monkeypatch.setattr(training, "in_a_fresh_process", pickled_and_called)
    training.main(["--quick", "--out", str(tmp_path / "out.json")])
    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document["parts"]) == list(training.WAYS)
    for way, part in document["parts"].items():
        assert part["images_per_second"]["runs"] == 2
        assert part["images_per_second"]["min"] > 0
        assert part["memory_gib"]["anonymous"] >= 0
        assert ("outside_the_network" in part) == (way != "plain")
        assert 0 < part.get("outside_the_network", 0.5) < 1
    assert list(document["outside_small_networks"]) == ["unet-tiny, 1 x 8 x 8", "mlp, 140"]
    assert all(0 < share < 1 for share in document["outside_small_networks"].values())
    images = training.some_images(tiny)
    _, trainer = training.step_of("float32 in 4", tiny, images)
    found = training.watched(trainer)
    trainer.step()
    assert len(found) == len(trainer.pieces) == 4
    assert training.step_of("bf16", tiny, images)[1].settings.precision == "bf16"


@pytest.mark.slow
def test_memorization_benchmark_runs_and_its_samples_are_what_they_say(tmp_path, monkeypatch):
    tiny = memorization.Sizes(train=300, heldout=100, samples=200, faiss=40, exact=20)
    monkeypatch.setattr(memorization, "QUICK", tiny)
    memorization.main(["--quick", "--out", str(tmp_path / "out.json")])
    parts = json.loads((tmp_path / "out.json").read_text())["parts"]
    assert list(parts) == list(memorization.PARTS)
    for part in parts.values():
        assert part["geomem"]["other_nearest"] == part["geomem"]["other_verdict"] == 0
        assert part["geomem"]["largest_relative_error"] < 1e-7
        assert part["faiss_over_geomem"] > 0
        assert part["leaning_over_rule"] == part["leaning_seconds"]["processor"] / part["seconds"]["processor"]
    assert parts["near-copies"]["leaning"] > 0.6
    assert parts["mix"]["memorized"] == pytest.approx(0.2, abs=0.01)  # a fifth are copies
    assert (parts["near-copies"]["memorized"], parts["noisy"]["memorized"]) == (1, 0)


def test_two_nearest_in_float64():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((30, 12)).astype(np.float32)
    samples = np.concatenate([train[:5] + np.float32(1e-3), rng.standard_normal((5, 12)).astype(np.float32)])
    distances = np.linalg.norm(samples[:, None].astype(np.float64) - train, axis=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization, "POINTS_AT_ONCE", 7)
        found, where = memorization.nearest_two(samples, train)
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :2], rtol=1e-9)
    np.testing.assert_array_equal(where, distances.argmin(axis=1))


@pytest.mark.slow
def test_cost_benchmark_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "QUICK", (cost.Size(60, 12, 20), cost.Size(80, 10, 30)))
    monkeypatch.setattr(cost, "in_a_fresh_process", pickled_and_called)
    path = tmp_path / "cost.json"
    cost.main(["--quick", "--out", str(path)])
    parts = json.loads(path.read_text())["parts"]
    assert list(parts) == ["curves 60 x 12", "curves 80 x 10", "samples 80 x 10"]
    for part in list(parts.values())[:2]:
        for found in (part["unrefined"], part["refined"]):
            assert found["estimated"] == pytest.approx(found["estimated_over_measured"] * found["seconds"])
    assert parts["samples 80 x 10"]["leaning"]["over_products"] > 1
    assert cost.points(5, 10, "train").shape == (5, 10)


def test_both_sides_of_the_generation_benchmark_evaluate_the_network_as_often(tmp_path, monkeypatch):
    from diffusers import UNet2DModel

    from geomem.models.networks import ImageUNet

    counted, forward = [], UNet2DModel.forward
    monkeypatch.setattr(generation, "build_network", lambda name, shape: ImageUNet(
        shape, channels=(32, 32), layers=1, attention=(), dropout=0, classes=None))
    monkeypatch.setattr(UNet2DModel, "forward", lambda self, x, *given, **named: counted.append(len(x)) or forward(
        self, x, *given, **named))
    sizes = generation.Sizes(side=8, batch=2, steps=3, runs=1)
    for method, calls in generation.ways(sizes, tmp_path / "model").items():
        for call in calls:
            counted.clear()
            call()
            assert counted == [2] * generation.evaluations(sizes, method)
    monkeypatch.setattr(generation, "QUICK", sizes)
    generation.main(["--quick", "--out", str(tmp_path / "generation.json")])
    parts = json.loads((tmp_path / "generation.json").read_text())["parts"]
    assert parts["ddim"]["geomem_over_diffusers"]["runs"] == 1


def test_the_table_of_all_benchmarks():
    some = {"median": 2.0}
    found = {"geometry": {"machine": measure.machine(), "parts": {
                 "cifar-1k": {"numpy_over_geomem": 20.0, "numpy_over_refined": 12.0, "numpy_seconds": some,
                              "seconds": some, "refined_seconds": some},
                 "50k": {"share_of_machine_rate": {"float32": 0.5}, "seconds": some}}},
             "memorization": {"parts": {"mix": {"input": {"samples": 5000}, "faiss_over_geomem": 1.25,
                                                "seconds": {"processor": 1.0}}}},
             "training": {"parts": {"plain": {}, "bf16": {"speed_over_plain": 1.9, "images_per_second": some}}},
             "generation": {"parts": {"ddim": {"geomem_over_diffusers": some, "geomem_images_per_second": some}}},
             "cost": {"parts": {"curves 1 x 2": {"refined": {"estimated_over_measured": 0.8, "seconds": 3.0}},
                                "samples 1 x 2": {}}}}
    table = everything.markdown(found)
    assert "| training, bf16: over a plain float32 loop | 1.90 | 2 images/s |" in table
    assert "| --dry-run, 1 x 2: estimated over measured | 0.80 | 3 s |" in table
    assert table.count("\n| ") == 8
    assert all((Path(everything.__file__).parent / f"{name}.py").exists() for name in everything.RUNS)
